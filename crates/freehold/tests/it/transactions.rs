//! A transaction reaches its own tenant, ends as requested, and leaves its context behind.
//!
//! No test is needed for spawned tasks: the only way to get a transaction is `begin(&TenantContext)`, no
//! context is passed implicitly, and `TenantContext` has no public constructor.

use freehold::testing::end_early;
use freehold::{ErrorKind, Params};

use crate::support::{House, house, house_of_one, notes_and, pooler, wait_until};

#[tokio::test]
async fn a_tenant_reads_what_it_wrote_and_no_other_tenant_does() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    assert_eq!(house.bodies(&acme).await, ["acme"]);
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn an_error_inside_a_transaction_commits_nothing() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
    tx.query("SELECT 1 / 0", &[]).await.unwrap_err();
    let refused = tx.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Statement);
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Statement);
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn an_error_in_the_last_statement_commits_nothing_of_those_before() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    for last in [
        "SELECT 1 / 0",
        "SELECT * FROM nowhere",
        "INSERT INTO notes (id, body) VALUES (1, 'twice')",
    ] {
        // Twice: a statement that is not prepared yet takes another code path.
        for _ in 0..2 {
            let mut tx = house.freehold.begin(&acme).await.unwrap();
            tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
            tx.query_and_commit(last, &[]).await.unwrap_err();
            assert_eq!(house.bodies(&acme).await, ["acme"], "{last}");
        }
    }
}

#[tokio::test]
async fn a_parameter_of_the_wrong_type_commits_nothing() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    for _ in 0..2 {
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
        // The driver refuses this by itself: the server never sees the statement.
        let refused = tx.query_and_commit("SELECT $1::int8", &[&"seven"]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Statement);
        assert_eq!(house.bodies(&acme).await, ["acme"]);
        // In a pipeline, the statements before it are not sent either, and not with the next request.
        let pieces: [(&str, Params<'_>); 2] =
            [("INSERT INTO notes (body) VALUES ('lost')", &[]), ("SELECT $1::int8", &[&"seven"])];
        assert!(house.freehold.pipeline(&acme, &pieces).await.is_err());
        assert_eq!(house.bodies(&acme).await, ["acme"]);
    }
    assert!(house.freehold.query(&acme, "SELECT $1::int8", &[&"seven"]).await.is_err());
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn a_constraint_that_fails_at_commit_commits_nothing() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.run_utility("SET CONSTRAINTS ALL DEFERRED", &[]).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
    tx.execute("INSERT INTO tags VALUES (999, 'orphan')", &[]).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Statement);

    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.run_utility("SET CONSTRAINTS ALL DEFERRED", &[]).await.unwrap();
    tx.query_and_commit("INSERT INTO tags VALUES (999, 'orphan')", &[]).await.unwrap_err();
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn a_connection_lost_before_commit_is_unavailable_and_replaced() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
    let row = tx.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    superuser
        .execute("SELECT pg_terminate_backend($1, 5000)", &[&row.get::<_, i32>(0)])
        .await
        .unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_not_lent() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    for _ in 0..3 {
        let rows = house.freehold.query(&acme, "SELECT pg_backend_pid()", &[]).await.unwrap();
        let end = "SELECT pg_terminate_backend($1, 5000)";
        house.superuser().await.execute(end, &[&rows[0].get::<_, i32>(0)]).await.unwrap();
        assert_eq!(house.bodies(&acme).await, ["acme"]);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unavailable() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    house
        .script(
            &acme,
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_catalog.pg_sleep(3600); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION dawdle()",
        )
        .await;
    let superuser = house.superuser().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
    let pid: i32 = tx.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let end_while_it_commits = async {
        wait_until(
            "what is deferred to the COMMIT is under way",
            crate::support::SOON,
            async || {
                let sql = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
                superuser.query_opt(sql, &[&pid]).await.unwrap().is_some_and(|row| {
                    ["SET CONSTRAINTS ALL IMMEDIATE", "COMMIT"].contains(&row.get(0))
                })
            },
        )
        .await;
        superuser.execute("SELECT pg_terminate_backend($1, 5000)", &[&pid]).await.unwrap();
    };
    let (committed, ()) = tokio::join!(tx.commit(), end_while_it_commits);
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

/// The `SELECT *` that a migration gives another column.
async fn migrate_notes(house: &House) {
    let report = house.migrate(&notes_and(&["ALTER TABLE notes ADD COLUMN pinned boolean"])).await;
    assert!(report.unwrap().failed.is_empty());
}

#[tokio::test]
async fn a_statement_that_a_migration_made_stale_is_retried_unseen() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let read = "SELECT * FROM notes";
    for tenant in [&acme, &globex] {
        assert_eq!(house.freehold.query(tenant, read, &[]).await.unwrap()[0].len(), 2);
    }
    migrate_notes(&house).await;

    assert_eq!(house.freehold.query(&acme, read, &[]).await.unwrap()[0].len(), 3);
    let mut tx = house.freehold.begin(&globex).await.unwrap();
    assert_eq!(tx.query(read, &[]).await.unwrap()[0].len(), 3);
    tx.execute("INSERT INTO notes (body) VALUES ('kept')", &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(house.bodies(&globex).await, ["globex", "kept"]);
}

#[tokio::test]
async fn a_stale_statement_in_the_middle_of_a_transaction_fails_once() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let read = "SELECT * FROM notes";
    house.freehold.query(&acme, read, &[]).await.unwrap();
    migrate_notes(&house).await;

    // The library cannot repeat the earlier statements of the transaction, so the caller must.
    for ending in ["query", "query_and_commit", "query"] {
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.execute("SELECT 1", &[]).await.unwrap();
        let outcome = match ending {
            "query" => tx.query(read, &[]).await,
            _ => tx.query_and_commit(read, &[]).await,
        };
        match outcome {
            Ok(rows) => {
                assert_eq!(rows[0].len(), 3);
                return;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retryable),
        }
        assert_eq!(ending, "query", "it failed twice");
    }
}

#[tokio::test]
async fn tenants_at_different_migrations_are_served_side_by_side() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&globex, "ALTER TABLE notes ADD COLUMN pinned text").await;
    let report =
        house.migrate(&notes_and(&["ALTER TABLE notes ADD COLUMN pinned boolean"])).await.unwrap();
    assert_eq!(report.failed.len(), 1);
    for _ in 0..8 {
        for (tenant, kind) in [(&acme, "boolean"), (&globex, "text")] {
            let rows = house
                .freehold
                .query(tenant, "SELECT pg_typeof(pinned)::text, notes.* FROM notes", &[])
                .await
                .unwrap();
            assert_eq!(rows[0].get::<_, &str>(0), kind);
        }
    }
}

#[tokio::test]
async fn a_transaction_that_ends_itself_reaches_nothing_afterwards() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for read in [
        "SELECT * FROM notes".to_owned(),
        format!("SELECT * FROM {}.notes", acme.tenant().schema()),
        format!("SELECT * FROM {}.notes", globex.tenant().schema()),
        "SELECT * FROM freehold.membership".to_owned(),
    ] {
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        end_early(&mut tx).await.unwrap();
        tx.query(&read, &[]).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_another_tenant_will_run_cannot_be_replaced() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    assert_eq!(house.bodies(&globex).await, ["globex"], "prepared on the only connection");
    for sql in [
        "SELECT name FROM pg_prepared_statements",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE ALL",
        "/* */ ; deallocate prepare all",
        "DISCARD ALL",
        "SET search_path = pg_catalog",
        "SELECT query_to_xml('DEALLOCATE ALL', true, true, '')",
        "SELECT query_to_xml('PREPARE p AS SELECT 1', true, true, '')",
    ] {
        house.freehold.query(&acme, sql, &[]).await.unwrap_err();
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

/// A setting of the session, of which PostgreSQL tells the client: the connection is cleaned, and stays.
#[tokio::test]
async fn a_setting_left_on_the_session_is_not_met_by_the_next_tenant() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let pid = async |tenant| -> i32 {
        let rows = house.freehold.query(tenant, "SELECT pg_backend_pid()", &[]).await.unwrap();
        rows[0].get(0)
    };
    let before = pid(&acme).await;
    assert_eq!(pid(&globex).await, before, "the only connection serves both");
    let local = "SELECT set_config('TimeZone', 'Asia/Tokyo', true)";
    house.freehold.query(&acme, local, &[]).await.unwrap();
    assert_eq!(pid(&globex).await, before, "what was local is gone, and the connection stays");
    let session = "SELECT set_config('TimeZone', 'Asia/Tokyo', false)";
    house.freehold.query(&acme, session, &[]).await.unwrap();
    let rows = house.freehold.query(&globex, "SELECT current_setting('TimeZone')", &[]).await;
    assert_ne!(rows.unwrap()[0].get::<_, &str>(0), "Asia/Tokyo");
    // A pooler has its own ways of giving a session to the next client.
    if pooler().is_none() {
        assert_eq!(pid(&globex).await, before, "it is cleaned, and stays");
    }
}

#[tokio::test]
async fn types_of_a_baseline_are_known_by_their_kind() {
    let later = "CREATE TYPE mood AS ENUM ('glad', 'sad');
                 CREATE DOMAIN score AS int CHECK (VALUE > 0);
                 CREATE TYPE pair AS (mood mood, score score);
                 CREATE TABLE feelings (mood mood, moods mood[], score score, pair pair, span int4range)";
    let house = crate::support::house_with(&crate::support::notes_and(&[later])).await;
    let acme = house.tenant("acme").await;
    let insert =
        "INSERT INTO feelings VALUES ('glad', '{sad,glad}', 7, ('sad', 3), '[1,5)') RETURNING *";
    for _ in 0..2 {
        let rows = house.freehold.query(&acme, insert, &[]).await.unwrap();
        let kinds: Vec<String> =
            rows[0].columns().iter().map(|column| format!("{:?}", column.type_().kind())).collect();
        assert!(kinds[0].starts_with("Enum([\"glad\", \"sad\"])"), "{kinds:?}");
        assert!(kinds[1].starts_with("Array(") && kinds[1].contains("Enum"), "{kinds:?}");
        assert_eq!(kinds[2], "Simple", "a domain's values come as its base type's");
        assert!(kinds[3].starts_with("Composite("), "{kinds:?}");
        assert_eq!(rows[0].columns()[4].type_().name(), "int4range");
        assert_eq!(rows[0].get::<_, i32>("score"), 7);
        assert!(rows[0].try_get::<_, i32>("nothing").is_err());
        assert!(rows[0].try_get::<_, i64>("score").is_err());
    }
}
