//! The migrator: everything it creates is protected, and a failure leaves nothing and affects no other
//! tenant.

use freehold::{Baseline, ErrorKind, MigrateOptions, Migration};

use crate::support::{house, house_with, notes_and, operator};

async fn refusal_of(sql: &str) -> (ErrorKind, String) {
    let house = house().await;
    house.tenant("acme").await;
    let error = house.migrate(&notes_and(&[sql])).await.unwrap_err();
    // It leaves nothing behind: the next migration with that number succeeds.
    house.migrate(&notes_and(&["CREATE TABLE fine (id int)"])).await.unwrap();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn every_table_and_partition_of_a_later_migration_is_protected() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let later = "CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
                 CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
                 CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);";
    let report = house.migrate(&notes_and(&[later])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 0));
    let rows = house
        .superuser()
        .await
        .query(
            "SELECT c.relname::text, c.relrowsecurity AND c.relforcerowsecurity,
                    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid
                            AND p.polname = 'tenant_isolation' AND NOT p.polpermissive)
             FROM pg_class c WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p')",
            &[&acme.tenant().schema()],
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2), "{}", row.get::<_, String>(0));
    }
    assert!(house.freehold.protection().list_unprotected(5).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_table_that_is_stripped_of_its_protection_is_found() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let table = format!("{}.notes", acme.tenant().schema());
    let superuser = house.superuser().await;
    for fault in ["NO FORCE ROW LEVEL SECURITY", "DISABLE ROW LEVEL SECURITY"] {
        superuser.batch_execute(&format!("ALTER TABLE {table} {fault}")).await.unwrap();
        assert_eq!(
            house.freehold.protection().list_unprotected(5).await.unwrap(),
            [table.as_str()]
        );
    }
}

#[tokio::test]
async fn a_migration_whose_tables_cannot_be_protected_fails_as_a_whole() {
    for sql in [
        "CREATE TABLE extra (id int); ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenant_isolation ON notes; CREATE POLICY tenant_isolation ON notes USING (true)",
        "ALTER POLICY tenant_isolation ON notes USING (true)",
        "CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM notes;
         GRANT SELECT ON totals TO freehold_viewer",
    ] {
        let (kind, message) = refusal_of(sql).await;
        assert_eq!(kind, ErrorKind::Migration, "{sql}");
        assert!(message.contains("cannot be protected"), "{message}");
    }
}

#[tokio::test]
async fn a_migration_cannot_end_the_transaction_it_runs_in() {
    for sql in ["CREATE TABLE half (id int); COMMIT; SELECT 1", "ROLLBACK", "BEGIN"] {
        assert_eq!(refusal_of(sql).await.0, ErrorKind::Migration, "{sql}");
    }
    let (kind, _) = refusal_of("CREATE INDEX CONCURRENTLY ON notes (body)").await;
    assert_eq!(kind, ErrorKind::Migration);
}

#[tokio::test]
async fn an_error_names_the_file_and_the_line() {
    let (_, message) =
        refusal_of("CREATE TABLE fine (id int);\nALTER TABLE nowhere ADD COLUMN x int;").await;
    assert!(message.starts_with("0002_"), "{message}");
    assert!(message.contains("nowhere"), "{message}");
    let (_, message) = refusal_of("SELECT 1;\nSELEC 2;").await;
    assert!(message.contains("line 2"), "{message}");
}

#[tokio::test]
async fn a_folder_that_contradicts_the_fleet_is_refused() {
    let house = house().await;
    house
        .migrate(&notes_and(&["CREATE TABLE a (id int)", "CREATE TABLE b (id int)"]))
        .await
        .unwrap();
    let changed = house
        .migrate(&notes_and(&["CREATE TABLE other (id int)", "CREATE TABLE b (id int)"]))
        .await;
    assert!(changed.unwrap_err().to_string().contains("was changed after it had been applied"));
    let lacking = house.migrate(&notes_and(&["CREATE TABLE a (id int)"])).await;
    assert!(lacking.unwrap_err().to_string().contains("the folder lacks"));
}

#[tokio::test]
async fn one_tenants_failure_is_in_nobodys_way_and_a_second_run_continues() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, "CREATE TABLE extra (other text)").await;
    let baseline = notes_and(&["CREATE TABLE extra (id int)", "CREATE TABLE more (id int)"]);
    let report = house.migrate(&baseline).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 1));
    assert_eq!((report.failed[0].tenant.as_str(), report.failed[0].version), ("acme", 2));
    house.freehold.query(&globex, "SELECT FROM more", &[]).await.unwrap();
    let status = house.freehold.migrations().status().await.unwrap();
    assert_eq!(status.tenants, [(1, 1), (3, 1)]);
    assert_eq!(status.failed.len(), 1);

    house.script(&acme, "DROP TABLE extra").await;
    let report = house.migrate(&baseline).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 0));
    let status = house.freehold.migrations().status().await.unwrap();
    assert_eq!((status.tenants, status.failed.len()), (vec![(3, 2)], 0));
}

#[tokio::test]
async fn a_lock_that_the_application_holds_fails_that_tenant_alone() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let holder = house.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.notes", acme.tenant().schema());
    holder.batch_execute(&lock).await.unwrap();
    let options = MigrateOptions {
        lock_timeout: std::time::Duration::from_millis(100),
        lock_attempts: 1,
        ..MigrateOptions::default()
    };
    let baseline = notes_and(&["ALTER TABLE notes ADD COLUMN pinned boolean"]);
    let report =
        house.freehold.migrations().up(&operator(), &baseline, options, &|_, _| {}).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 1));
    assert!(report.failed[0].error.contains("lock timeout"), "{:?}", report.failed);
}

#[tokio::test]
async fn two_migrators_at_once_do_the_work_once() {
    let house = house().await;
    house.acme_and_globex().await;
    let baseline = notes_and(&["CREATE TABLE a (id int)"]);
    let (one, two) = tokio::join!(house.migrate(&baseline), house.migrate(&baseline));
    let outcomes = [one, two];
    assert!(outcomes.iter().any(Result::is_ok));
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
    }
    house.migrate(&baseline).await.unwrap();
    assert_eq!(house.freehold.migrations().status().await.unwrap().tenants, [(2, 2)]);
}

#[tokio::test]
async fn a_backfill_reaches_every_row_under_forced_security() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.migrate(&notes_and(&["UPDATE notes SET body = body || '!'"])).await.unwrap();
    assert_eq!(house.bodies(&acme).await, ["acme!"]);
    assert_eq!(house.bodies(&globex).await, ["globex!"]);
}

/// 40 tables, enums, triggers, functions, partitions, its own `users`: written for a single customer.
#[tokio::test]
async fn an_existing_applications_schema_works_unchanged_and_so_does_its_next_release() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../freehold-server/tests/fixtures/existing_app");
    let both = Baseline::read(&folder).unwrap();
    let first: Vec<Migration> = both.migrations()[..1].to_vec();
    let house = house_with(&Baseline::from_migrations(first).unwrap()).await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let insert =
        "INSERT INTO users (email, given_name, family_name) VALUES ('ann@x.example', 'Ann', 'A')";
    house.freehold.query(&acme, insert, &[]).await.unwrap();
    assert_eq!(house.freehold.query(&acme, "SELECT FROM users", &[]).await.unwrap().len(), 1);
    assert_eq!(house.freehold.query(&globex, "SELECT FROM users", &[]).await.unwrap().len(), 0);

    let report = house.migrate(&both).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 0), "{:?}", report.failed);
    assert!(house.freehold.protection().list_unprotected(5).await.unwrap().is_empty());
    let tables = house
        .superuser()
        .await
        .query_one(
            "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace
             AND relkind IN ('r', 'p') AND relrowsecurity AND relforcerowsecurity",
            &[&acme.tenant().schema()],
        )
        .await
        .unwrap();
    assert!(tables.get::<_, i64>(0) >= 43);
    let views = house
        .superuser()
        .await
        .query(
            "SELECT relname::text FROM pg_class WHERE relnamespace = $1::text::regnamespace
             AND relkind = 'v' AND NOT coalesce(reloptions, '{}') && ARRAY['security_invoker=true']",
            &[&acme.tenant().schema()],
        )
        .await
        .unwrap();
    assert!(views.is_empty(), "CREATE OR REPLACE VIEW drops the option, and it must come back");
}

/// A database has each extension once, and every tenant's migration asks for it.
#[tokio::test]
async fn an_extension_that_a_baseline_asks_for_serves_every_tenant() {
    let house = house().await;
    let known = house
        .superuser()
        .await
        .query_opt("SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'", &[])
        .await
        .unwrap();
    if known.is_none() {
        eprintln!("skipped: this PostgreSQL comes without its contrib modules");
        return;
    }
    let baseline = notes_and(&["CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX ON notes USING gin (body gin_trgm_ops)"]);
    house.tenant("acme").await;
    house.migrate(&baseline).await.unwrap();
    let later = house.tenant("later").await;
    let rows =
        house.freehold.query(&later, "SELECT similarity('ann', 'anna') > 0", &[]).await.unwrap();
    assert!(rows[0].get::<_, bool>(0));
}

#[tokio::test]
async fn a_new_tenant_gets_the_whole_baseline_and_its_ledger() {
    let house = house().await;
    house.migrate(&notes_and(&["CREATE TABLE a (id int)"])).await.unwrap();
    let acme = house.tenant("acme").await;
    let tenant = house.freehold.tenants().get(&operator(), acme.tenant()).await.unwrap();
    assert_eq!(tenant.version, 2);
    let ledger = house
        .superuser()
        .await
        .query(
            "SELECT version FROM freehold.ledger WHERE tenant_id = $1",
            &[&acme.tenant().as_uuid()],
        )
        .await
        .unwrap();
    assert_eq!(ledger.len(), 2);
}

#[tokio::test]
async fn a_migration_reaches_no_other_tenants_rows() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let all = "DO $$ DECLARE s text; BEGIN
                 FOR s IN SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_' LOOP
                   EXECUTE format('UPDATE %I.notes SET body = upper(body)', s);
                 END LOOP;
               END $$";
    let refused = house.migrate(&notes_and(&[all])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Migration);
    assert!(refused.to_string().contains("tenant context refused"), "{refused}");
    assert_eq!(house.bodies(&acme).await, ["acme"]);
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn a_view_of_a_migration_reads_with_the_rights_of_who_asks() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let baseline = notes_and(&["CREATE VIEW loud AS SELECT upper(body) AS body FROM notes"]);
    let report = house.migrate(&baseline).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let view = format!("{}.loud", acme.tenant().schema());
    let read = format!("SELECT body FROM {view}");
    let rows = house.freehold.query(&acme, &read, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "ACME");
    let refused = house.freehold.query(&globex, &read, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation);
    let options = "SELECT reloptions FROM pg_class WHERE oid = $1::text::regclass";
    let row = house.superuser().await.query_one(options, &[&view]).await.unwrap();
    assert_eq!(row.get::<_, Vec<String>>(0), ["security_invoker=true"]);
}
