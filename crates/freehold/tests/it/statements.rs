//! The statements that a tenant's transaction may run: queries, procedures that cannot end it, and utility
//! statements by a method of their own.

use freehold::{Error, ErrorKind, Params, TenantContext};

use crate::support::{House, house, house_of_one, sqlstate};

/// Utility statements that may run in a transaction.
const UTILITIES: &[&str] = &[
    "SET LOCAL work_mem = '1MB'",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET TRANSACTION READ ONLY",
    "LOCK TABLE notes",
    "EXPLAIN SELECT * FROM notes",
    "SHOW search_path",
    "DECLARE c CURSOR FOR SELECT 1",
];

/// Statements that outlive a transaction, end it, or take over the connection.
const NEVER: &[&str] = &[
    "SET work_mem = '1MB'",
    "SET SESSION work_mem = '1MB'",
    "RESET ALL",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "LISTEN freehold",
    "UNLISTEN *",
    "COPY notes TO STDOUT",
    "LOAD 'plpgsql'",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "VACUUM notes",
    "ALTER ROLE freehold_app SET work_mem = '1MB'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "",
];

/// Each way that a statement goes to the database by the methods for queries.
async fn refusals(house: &House, tenant: &TenantContext, sql: &str) -> Vec<Error> {
    let freehold = &house.freehold;
    let pieces: [(&str, Params<'_>); 2] = [("SELECT 1", &[]), (sql, &[])];
    let mut refusals = vec![freehold.query(tenant, sql, &[]).await.unwrap_err()];
    let mut tx = freehold.begin(tenant).await.unwrap();
    refusals.extend([
        tx.query(sql, &[]).await.unwrap_err(),
        tx.execute(sql, &[]).await.unwrap_err(),
        tx.pipeline(&pieces).await.unwrap_err().into_error(),
        tx.query_and_commit(sql, &[]).await.unwrap_err(),
    ]);
    refusals.extend(freehold.pipeline(tenant, &pieces).await.err().map(Error::from));
    refusals.extend(freehold.pipeline_each(tenant, &pieces).await.err());
    let mut read = freehold.begin_read(tenant, None).await.unwrap();
    refusals.push(read.query(sql, &[]).await.unwrap_err());
    refusals
}

#[tokio::test]
async fn what_is_no_query_needs_a_method_that_says_so() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for sql in UTILITIES {
        let refusals = refusals(&house, &acme, sql).await;
        assert_eq!(refusals.len(), 8, "{sql}");
        for refused in refusals {
            assert_eq!(refused.kind(), ErrorKind::Statement, "{sql}");
            assert!(refused.database().is_none(), "{sql}: the database was asked");
            assert!(refused.message().contains("TenantTx::run_utility"), "{sql}: {refused}");
        }
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.run_utility(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        tx.rollback().await.unwrap();
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn what_outlives_a_transaction_or_ends_it_is_run_by_no_method() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for sql in NEVER {
        let mut refusals = refusals(&house, &acme, sql).await;
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        refusals.push(tx.run_utility(sql, &[]).await.unwrap_err());
        assert_eq!(refusals.len(), 9, "{sql}");
        for refused in refusals {
            assert_eq!(refused.kind(), ErrorKind::Statement, "{sql}");
            assert!(refused.database().is_none(), "{sql}: the database was asked");
        }
        // A statement that is refused before it is sent does not abort the transaction.
        tx.query_and_commit("SELECT 1", &[]).await.unwrap();
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn a_utility_is_a_part_of_its_transaction() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    let before: String = tx.run_utility("SHOW work_mem", &[]).await.unwrap()[0].get(0);
    tx.run_utility("SET LOCAL work_mem = '3MB'", &[]).await.unwrap();
    tx.run_utility("DECLARE c CURSOR FOR SELECT body FROM notes", &[]).await.unwrap();
    let fetched = tx.run_utility("FETCH 10 FROM c", &[]).await.unwrap();
    assert_eq!(fetched[0].get::<_, &str>(0), "acme");
    assert_eq!(tx.run_utility("SHOW work_mem", &[]).await.unwrap()[0].get::<_, &str>(0), "3MB");
    tx.commit().await.unwrap();
    let mut tx = house.freehold.begin(&globex).await.unwrap();
    let rows = tx.run_utility("SHOW work_mem", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), before);
    tx.run_utility("FETCH 10 FROM c", &[]).await.unwrap_err();
}

/// Procedures that write, and end the transaction or try to.
const PROCEDURES: &str = "
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
BEGIN INSERT INTO notes (body) VALUES ('committed'); COMMIT; INSERT INTO notes (body) VALUES ('after'); END $$;
CREATE PROCEDURE rolls_back() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; END $$;
CREATE PROCEDURE writes(body text) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO notes (body) VALUES (body); END $$;
CREATE PROCEDURE doubles(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n * 2; END $$";

/// A COMMIT in it would end the transaction, and with it context, role and search path: the rest of the
/// message would run as the app role.
#[tokio::test]
async fn a_procedure_cannot_end_the_transaction_it_is_called_in() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, PROCEDURES).await;
    let freehold = &house.freehold;
    let who: (&str, Params<'_>) = ("SELECT current_user::text, freehold.tenant()", &[]);
    for call in ["CALL commits()", "/* */ ; call rolls_back()"] {
        // Twice: a prepared statement takes another code path.
        for _ in 0..2 {
            let call: (&str, Params<'_>) = (call, &[]);
            let refused = freehold.query(&acme, call.0, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), "2D000", "by itself: {refused}");

            let refused = freehold.pipeline(&acme, &[call, who]).await.unwrap_err();
            assert_eq!((refused.at(), sqlstate(refused.error())), (Some(0), "2D000"));

            let mut tx = freehold.begin(&acme).await.unwrap();
            let refused = tx.query(call.0, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), "2D000", "in a transaction: {refused}");
            drop(tx);

            let outcomes = freehold.pipeline_each(&acme, &[who, call, who, call]).await.unwrap();
            for (at, outcome) in outcomes.iter().enumerate() {
                match (at, outcome) {
                    (0 | 2, Ok(answer)) => {
                        let row = &answer.rows[0];
                        assert_eq!(row.get::<_, &str>(0), "freehold_admin");
                        assert_eq!(row.get::<_, uuid::Uuid>(1), acme.tenant().as_uuid());
                    }
                    (1 | 3, Err(refused)) => assert_eq!(sqlstate(refused), "2D000", "{refused}"),
                    (_, outcome) => panic!("{at}: {outcome:?}"),
                }
            }
            assert_eq!(house.bodies(&globex).await, ["globex"], "the next tenant's own");
            assert_eq!(house.bodies(&acme).await, ["acme"], "nothing was committed on the way");
        }
    }
}

#[tokio::test]
async fn a_procedure_that_ends_nothing_is_called_in_every_way() {
    const CALL: &str = "CALL writes($1)";
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, PROCEDURES).await;
    let freehold = &house.freehold;
    freehold.query(&acme, CALL, &[&"by itself"]).await.unwrap();
    let doubled = &freehold.query(&acme, "CALL doubles(21)", &[]).await.unwrap()[0];
    assert_eq!(doubled.get::<_, i32>(0), 42);
    let outcomes = freehold
        .pipeline_each(
            &acme,
            &[(CALL, &[&"each"]), ("SELECT count(*) FROM notes", &[]), (CALL, &[&"each again"])],
        )
        .await
        .unwrap();
    assert_eq!(outcomes[1].as_ref().unwrap().rows[0].get::<_, i64>(0), 3);
    assert!(outcomes.iter().all(Result::is_ok));
    freehold.pipeline(&acme, &[(CALL, &[&"piped"]), (CALL, &[&"twice"])]).await.unwrap();
    let all = ["acme", "by itself", "each", "each again", "piped", "twice"];
    assert_eq!(house.bodies(&acme).await, all);
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

/// `SELECT … INTO` begins like a query and makes a table: rights refuse that to everybody in a tenant.
#[tokio::test]
async fn no_query_makes_a_table() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    for sql in [
        "SELECT 1 AS one INTO taken",
        "SELECT 1 AS one INTO TEMP taken",
        "WITH x AS (SELECT 1 AS one) SELECT * INTO public.taken FROM x",
    ] {
        let refused = house.freehold.query(&acme, sql, &[]).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "42501", "{sql}");
    }
    assert_eq!(house.freehold.query(&acme, "TABLE notes", &[]).await.unwrap().len(), 0);
}
