//! One tenant tries to reach another: through its own transaction, and as an attacker who runs any SQL as the
//! application's role. Refused means an error with SQLSTATE 42501, never an empty answer.
//!
//! Forged contexts are tested in `sealing`.

use freehold::{ErrorKind, Role, SealMode, TenantContext, TenantId};

use crate::support::{claim, house, house_of_one, house_sealed, notes_and, outcome, sqlstate};

const REFUSED: &str = "42501";

/// Every way to reach the one row of another tenant's `notes`, and to add one.
fn intrusions(of: &TenantContext) -> Vec<String> {
    let notes = format!("{}.notes", of.tenant().schema());
    vec![
        format!("SELECT * FROM {notes}"),
        format!("SELECT count(*) FROM {notes} WHERE id = 1"),
        format!("SELECT FROM {notes} LIMIT 1"),
        format!("SELECT EXISTS (SELECT FROM {notes})"),
        format!("SELECT * FROM {notes} WHERE id = 1 FOR UPDATE"),
        format!("TABLE {notes}"),
        format!("WITH theirs AS (SELECT * FROM {notes}) SELECT count(*) FROM theirs"),
        format!("SELECT ours.id, theirs.body FROM notes ours LEFT JOIN {notes} theirs USING (id)"),
        format!("INSERT INTO {notes} (id, body) VALUES (2, 'intruder')"),
        format!("INSERT INTO {notes} (body) SELECT body FROM notes"),
        format!("INSERT INTO {notes} (id, body) VALUES (1, 'intruder') ON CONFLICT DO NOTHING"),
        format!(
            "INSERT INTO {notes} (id, body) VALUES (1, 'intruder') ON CONFLICT (id) DO UPDATE SET body = 'intruder'"
        ),
        format!("INSERT INTO notes (body) SELECT body FROM {notes}"),
        format!("UPDATE {notes} SET body = 'intruder'"),
        format!("UPDATE {notes} SET body = 'intruder' WHERE id = 1 RETURNING body"),
        format!("UPDATE notes SET body = theirs.body FROM {notes} theirs"),
        format!("DELETE FROM {notes}"),
        format!("DELETE FROM notes USING {notes} theirs WHERE notes.id = theirs.id"),
        format!(
            "MERGE INTO {notes} t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE"
        ),
        format!(
            "MERGE INTO {notes} t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET body = 'intruder'"
        ),
        format!(
            "MERGE INTO {notes} t USING (SELECT 9 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, body) VALUES (9, 'intruder')"
        ),
        format!(
            "MERGE INTO notes t USING {notes} s ON t.id = s.id WHEN MATCHED THEN UPDATE SET body = s.body"
        ),
    ]
}

#[tokio::test]
async fn no_statement_of_one_tenant_reaches_another() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for sql in intrusions(&globex) {
        // Twice: newly prepared, and already prepared, which takes another code path.
        for _ in 0..2 {
            let error = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Violation, "{sql}: {error}");
            assert_eq!(sqlstate(&error), REFUSED, "{sql}");
        }
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn an_attacker_in_a_tenants_transaction_reaches_no_other_tenant() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    let mut sentences = intrusions(&globex);
    let theirs = globex.tenant().schema();
    sentences.push(format!("CREATE TEMP TABLE t AS SELECT * FROM {theirs}.notes"));
    sentences.push(format!("DECLARE c CURSOR FOR SELECT * FROM {theirs}.notes; FETCH c"));
    sentences.push(format!("PREPARE p AS SELECT * FROM {theirs}.notes; EXECUTE p"));
    sentences.push(format!("EXPLAIN ANALYZE SELECT * FROM {theirs}.notes"));
    sentences.push(format!("SET LOCAL search_path = {theirs}; SELECT * FROM notes"));
    sentences.push(format!("SELECT query_to_xml('SELECT * FROM {theirs}.notes', true, true, '')"));
    sentences.push(format!("SELECT ts_stat('SELECT to_tsvector(body) FROM {theirs}.notes')"));
    for sql in sentences {
        assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{sql}");
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn without_a_context_or_with_a_wrong_one_every_query_is_refused() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    let theirs = acme.tenant();
    let claimed = claim(theirs, "member");
    let contexts = [
        None,
        Some(String::new()),
        Some("garbage".to_owned()),
        Some("tenant_".to_owned()),
        Some(claimed.to_uppercase()),
        Some(format!(" {claimed}")),
        Some(format!("{:094}{claimed}", 0)),
        Some(claim(globex.tenant(), "owner")),
        Some(house.sealed(globex.tenant(), "owner").await),
        Some(format!("operator_{}", theirs.as_uuid().simple())),
    ];
    for context in contexts {
        attacker.batch_execute("BEGIN").await.unwrap();
        if let Some(context) = &context {
            let set = format!("SET LOCAL freehold.context = '{context}'");
            attacker.batch_execute(&set).await.unwrap();
        }
        attacker.batch_execute("SET LOCAL ROLE freehold_admin").await.unwrap();
        for sql in intrusions(&acme)
            .iter()
            .filter(|sql| !sql.contains("notes ours") && !sql.contains(" notes"))
        {
            assert_eq!(outcome(&attacker, sql).await, REFUSED, "{context:?}: {sql}");
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_malformed_context_does_not_pass_the_door() {
    let house = house().await;
    let acme = house.tenant("acme").await.tenant();
    let attacker = house.attacker().await;
    attacker.batch_execute("BEGIN").await.unwrap();
    let sealed = house.sealed(acme, "member").await;
    for context in [
        "",
        "tenant_",
        "garbage",
        &claim(acme, "member"),
        &format!("{:094}{}", 0, claim(acme, "member")),
        &format!("{sealed} "),
        &sealed.replace("_member", "_operator"),
        &sealed.replace("_member", "_Member"),
        &sealed.replace("_member", "_"),
        &sealed.replace("tenant_", "TENANT_"),
    ] {
        let sql = format!("SELECT freehold.enter('{context}')");
        assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{context}");
    }
    assert_eq!(outcome(&attacker, "SELECT freehold.enter(NULL)").await, REFUSED);
    assert_eq!(outcome(&attacker, "SELECT freehold.enter_catalog('garbage')").await, REFUSED);
    assert_eq!(outcome(&attacker, "SELECT freehold.enter_catalog(NULL)").await, REFUSED);
}

#[tokio::test]
async fn the_context_is_gone_with_its_transaction() {
    for mode in [SealMode::Best, SealMode::Portable, SealMode::Plain] {
        let house = house_sealed(mode).await;
        let (acme, _) = house.acme_and_globex().await;
        let attacker = house.attacker().await;
        for ending in ["COMMIT", "ROLLBACK"] {
            house.enter(&attacker, acme.tenant(), "member").await;
            attacker.query_one("SELECT body FROM notes", &[]).await.unwrap();
            attacker.batch_execute(ending).await.unwrap();
            let row = attacker
                .query_one(
                    "SELECT coalesce(freehold_guard.context(), ''), current_user::text, current_setting('search_path')",
                    &[],
                )
                .await
                .unwrap();
            let left: (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(left, ("", "freehold_app", "pg_temp"), "{mode:?}: after {ending}");

            // SET LOCAL leaves '' behind, not NULL: that must not count as a context either.
            attacker.batch_execute("BEGIN; SET LOCAL ROLE freehold_member").await.unwrap();
            let sql = format!("SELECT * FROM {}.notes", acme.tenant().schema());
            assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{mode:?}: after {ending}");
            attacker.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

/// Every digit of an id counts.
#[tokio::test]
async fn an_id_that_differs_in_one_digit_is_another_tenants() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    let sql = format!("SELECT * FROM {}.notes", acme.tenant().schema());
    let read_as = async |id: u128| {
        house.enter(&attacker, TenantId::from(uuid::Uuid::from_u128(id)), "member").await;
        let read = outcome(&attacker, &sql).await;
        attacker.batch_execute("ROLLBACK").await.unwrap();
        read
    };
    let own = acme.tenant().as_uuid().as_u128();
    assert_eq!(read_as(own).await, "permitted");
    for digit in 0..32 {
        let other = own ^ (1 << (4 * digit));
        assert_eq!(read_as(other).await, REFUSED, "digit {digit} from the right");
    }
}

#[tokio::test]
async fn the_role_that_connects_has_no_rights_of_its_own() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    attacker.batch_execute("RESET ROLE").await.unwrap();
    let notes = format!("{}.notes", acme.tenant().schema());
    for sql in [
        format!("SELECT * FROM {notes}"),
        format!("INSERT INTO {notes} (body) VALUES ('x')"),
        format!("DELETE FROM {notes}"),
    ] {
        assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{sql}");
    }
}

#[tokio::test]
async fn a_policy_that_opens_everything_still_opens_nothing_to_others() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let open = "CREATE POLICY open ON notes USING (true) WITH CHECK (true);
                CREATE POLICY open_to_all ON notes TO public USING (true) WITH CHECK (true)";
    let report = house.migrate(&notes_and(&[open])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 0));
    for sql in intrusions(&globex) {
        let error = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Violation, "{sql}: {error}");
    }
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn one_prepared_statement_serves_two_tenants_in_turn() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    for reset in [false, true] {
        let attacker = house.attacker().await;
        house.enter(&attacker, acme.tenant(), "member").await;
        let statement = attacker.prepare("SELECT body FROM notes WHERE id = $1").await.unwrap();
        attacker.batch_execute("COMMIT").await.unwrap();
        for turn in 0..20 {
            let (tenant, body) = if turn % 2 == 0 { (&acme, "acme") } else { (&globex, "globex") };
            house
                .enter(&attacker, tenant.tenant(), if turn % 3 == 0 { "viewer" } else { "member" })
                .await;
            let rows = attacker.query(&statement, &[&1_i64]).await.unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].get::<_, &str>(0), body, "turn {turn}");
            if reset {
                attacker.batch_execute("RESET ROLE").await.unwrap();
            }
            attacker.batch_execute("COMMIT").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_plan_that_names_its_tenant_is_refused_under_another() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "member").await;
    let sql = format!("SELECT body FROM {}.notes", acme.tenant().schema());
    let statement = attacker.prepare(&sql).await.unwrap();
    attacker.batch_execute("COMMIT").await.unwrap();
    for turn in 0..20 {
        let own = turn % 2 == 0;
        house.enter(&attacker, if own { acme.tenant() } else { globex.tenant() }, "member").await;
        let outcome = attacker.query(&statement, &[]).await;
        if own {
            assert_eq!(outcome.unwrap().len(), 1);
        } else {
            assert_eq!(outcome.unwrap_err().code().map(|code| code.code()), Some(REFUSED));
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn one_text_through_the_library_serves_two_tenants_in_turn() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for turn in 0..20 {
        let (tenant, body) = if turn % 2 == 0 { (&acme, "acme") } else { (&globex, "globex") };
        let read = "SELECT body FROM notes WHERE id = $1";
        let rows = house.freehold.query(tenant, read, &[&1_i64]).await.unwrap();
        assert_eq!(rows[0].get::<_, &str>(0), body, "turn {turn}");
        let mut tx = house.freehold.begin(tenant).await.unwrap();
        assert_eq!(tx.query_one(read, &[&1_i64]).await.unwrap().get::<_, &str>(0), body);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_part_of_the_catalog_alone() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.in_catalog(acme.tenant(), "owner").await;
    for (sql, seen) in [
        ("SELECT count(*) FROM freehold.tenant", 1),
        ("SELECT count(*) FROM freehold.membership", 1),
        ("SELECT count(*) FROM freehold.identity", 1),
        ("SELECT count(*) FROM freehold.credential", 0),
        ("SELECT count(*) FROM freehold.session", 0),
        ("SELECT count(*) FROM freehold.baseline", 0),
    ] {
        let row = attacker.query_one(sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), seen, "{sql}");
    }
    let other = globex.tenant();
    for sql in [
        "UPDATE freehold.tenant SET status = 'suspended'".to_owned(),
        format!(
            "INSERT INTO freehold.membership SELECT '{other}', identity_id, 'owner' FROM freehold.membership"
        ),
        format!("UPDATE freehold.membership SET tenant_id = '{other}'"),
        "UPDATE freehold.identity SET is_operator = true".to_owned(),
        "INSERT INTO freehold.credential SELECT id, 'x' FROM freehold.identity".to_owned(),
    ] {
        assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{sql}");
    }
}

#[tokio::test]
async fn the_isolation_check_runs_once_and_does_not_spoil_estimates() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    house
        .script(&acme, "INSERT INTO notes (id, body) SELECT n, 'note ' || n FROM generate_series(2, 2000) n; ANALYZE notes")
        .await;
    let superuser = house.superuser().await;
    let schema = acme.tenant().schema();
    for condition in ["true", "id < 1000", "id = 77", "body = 'note 5'"] {
        let explain = |from: &str| {
            format!("EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM {from} WHERE {condition}")
        };
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        let rows = tx.run_utility(&explain("notes"), &[]).await.unwrap();
        let plan: serde_json::Value = rows[0].get(0);
        assert!(plan.to_string().contains("\"InitPlan\""), "{plan}");
        // No filter of the table may call the function for each row, nor the expression that it is inlined
        // to.
        let filter = plan[0]["Plan"]["Filter"].to_string();
        for call in ["require_tenant", "current_setting", "pass_or_refuse"] {
            assert!(!filter.contains(call), "{call}: {plan}");
        }
        // It is inlined; the cost of the policies depends on it.
        assert!(!plan.to_string().contains("require_tenant("), "{plan}");
        assert!(plan.to_string().contains("pass_or_refuse("), "{plan}");
        let row = superuser.query_one(&explain(&format!("{schema}.notes")), &[]).await.unwrap();
        let bare: serde_json::Value = row.get(0);
        let rows_of = |plan: &serde_json::Value| plan[0]["Plan"]["Plan Rows"].as_f64().unwrap();
        let (guarded, bare) = (rows_of(&plan), rows_of(&bare));
        assert!(
            guarded >= bare / 2.5 && guarded <= bare * 2.5,
            "{condition}: {guarded} for {bare}"
        );
    }
}

/// The library's own work for a tenant, such as an invitation, must not use an operator's context.
#[tokio::test]
async fn the_librarys_own_catalog_work_for_a_tenant_is_bound_to_it() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let trap = "CREATE FUNCTION freehold.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF freehold.tenant() IS NULL THEN RAISE 'an operator''s context'; END IF;
                  RETURN NEW;
                END $$;
                CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON freehold.invitation
                  FOR EACH ROW EXECUTE FUNCTION freehold.trap()";
    house.superuser().await.batch_execute(trap).await.unwrap();
    house.freehold.invitations().create(&acme, "new@acme.example", Role::Viewer).await.unwrap();
}
