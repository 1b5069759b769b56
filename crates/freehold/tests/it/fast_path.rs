//! The migrator's fast path: tenants after the first of their version reach the same state, and a tenant that
//! would not is detected as on the long path.
//! not is found as on the long path.

use freehold::control::indexes::IndexColumn;
use freehold::{Baseline, MigrateOptions, MigrateReport, TenantContext};

use crate::doctor::lines;
use crate::support::{House, house, notes_and, operator};

/// Migrates one tenant after the other, so that the first one is the example for the others.
async fn migrate(house: &House, baseline: &Baseline) -> MigrateReport {
    let one_by_one = MigrateOptions { parallel: 1, ..MigrateOptions::default() };
    house.freehold.migrations().up(baseline, one_by_one, &|_, _| {}).await.unwrap()
}

async fn tenants(house: &House, count: usize) -> Vec<TenantContext> {
    let mut tenants = Vec::new();
    for number in 0..count {
        tenants.push(house.tenant(&format!("tenant-{number}")).await);
    }
    tenants
}

const KINDS: &[&str] = &[
    "ALTER TABLE notes ADD COLUMN pinned boolean NOT NULL DEFAULT false, ADD COLUMN mine text",
    "CREATE TABLE labels (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note bigint REFERENCES notes, name text CHECK (name <> ''));
     CREATE INDEX labels_name ON labels (name); CREATE UNIQUE INDEX labels_note ON labels (note, name)",
    "CREATE VIEW pinned WITH (security_invoker = true) AS SELECT * FROM notes WHERE pinned",
    "CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper($1) $$;
     CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.mine := 'stamped'; RETURN NEW; END $$;
     CREATE TRIGGER stamp BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION stamp()",
    "UPDATE notes SET mine = 'filled'",
    "CREATE POLICY visible ON labels TO freehold_viewer USING (name <> 'hidden'); COMMENT ON TABLE labels IS 'What notes are about'",
    "GRANT SELECT ON labels TO freehold_admin; ALTER TABLE labels ALTER COLUMN name SET NOT NULL, ALTER COLUMN note TYPE integer",
    "DROP INDEX labels_name; ALTER TABLE labels DROP CONSTRAINT labels_name_check, ADD COLUMN serial_no serial",
    "CREATE TABLE days (at date NOT NULL) PARTITION BY RANGE (at); CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "DROP VIEW pinned; DROP TABLE days",
];

#[tokio::test]
async fn the_first_tenant_of_a_version_shows_the_others_the_way() {
    let house = house().await;
    let tenants = tenants(&house, 4).await;
    for context in &tenants {
        house.freehold.query(context, "INSERT INTO notes (body) VALUES ('x')", &[]).await.unwrap();
    }
    for at in 1..=KINDS.len() {
        let report = migrate(&house, &notes_and(&KINDS[..at])).await;
        let what = KINDS[at - 1];
        assert!(report.failed.is_empty(), "{what}: {:?}", report.failed);
        assert_eq!((report.migrated, report.fast_path), (4, 3), "{what}");
    }
    let found = freehold::doctor::examine(&house.database.options(), &Default::default()).await;
    assert_eq!(lines(&found.unwrap()), [""; 0]);
    let sql = "SELECT mine || shout(body) FROM notes";
    for context in &tenants {
        let rows = house.freehold.query(context, sql, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, &str>(0), "filledX");
        let insert =
            "INSERT INTO labels (note, name) SELECT id, 'a' FROM notes RETURNING serial_no";
        assert_eq!(house.freehold.query(context, insert, &[]).await.unwrap().len(), 1);
    }
}

/// Several versions at once, and an enum, for which each tenant is compared completely.
#[tokio::test]
async fn tenants_of_several_versions_all_come_to_the_newest() {
    let house = house().await;
    tenants(&house, 3).await;
    let first = "CREATE TYPE mood AS ENUM ('good', 'bad')";
    let report = migrate(&house, &notes_and(&[first])).await;
    assert_eq!((report.migrated, report.fast_path), (3, 0));
    let all =
        [first, "ALTER TABLE notes ADD mood mood DEFAULT 'good'", "ALTER TABLE notes ADD a int"];
    house.tenant("later").await;
    let report = migrate(&house, &notes_and(&all)).await;
    assert_eq!((report.migrated, report.fast_path, report.failed.len()), (4, 3, 0));
}

#[tokio::test]
async fn a_tenant_that_differs_goes_the_long_path_which_says_how() {
    for (harm, migration, said) in [
        (
            "ALTER TABLE notes ALTER COLUMN body DROP NOT NULL",
            "ALTER TABLE notes ADD pinned boolean",
            "table notes lacks: body text NOT NULL",
        ),
        (
            "CREATE INDEX notes_body ON notes (lower(body))",
            "CREATE INDEX IF NOT EXISTS notes_body ON notes (body)",
            "index notes_body lacks",
        ),
        (
            "CREATE TABLE extra (id int, other int)",
            "CREATE TABLE IF NOT EXISTS extra (id int)",
            "",
        ),
        (
            "INSERT INTO notes (body) VALUES ('harm')",
            "ALTER TABLE notes ADD pinned boolean;
             DO $$ BEGIN IF EXISTS (SELECT FROM notes WHERE body = 'harm') THEN ALTER TABLE notes NO FORCE ROW LEVEL SECURITY; END IF; END $$",
            "notes has row-level security not enabled and forced",
        ),
        (
            "INSERT INTO notes (body) VALUES ('harm')",
            "ALTER TABLE notes ADD pinned boolean;
             DO $$ BEGIN IF EXISTS (SELECT FROM notes WHERE body = 'harm') THEN CREATE POLICY wide ON notes TO freehold_viewer USING (true); END IF; END $$",
            "",
        ),
        (
            "INSERT INTO notes (body) VALUES ('harm')",
            "CREATE TABLE extra (id int);
             DO $$ BEGIN IF EXISTS (SELECT FROM notes WHERE body = 'harm') THEN ALTER TABLE notes DISABLE ROW LEVEL SECURITY; END IF; END $$",
            "not protected any more",
        ),
        (
            "INSERT INTO notes (body) VALUES ('harm')",
            "CREATE TABLE extra (id int);
             DO $$ BEGIN IF EXISTS (SELECT FROM notes WHERE body = 'harm') THEN CREATE POLICY wide ON extra TO freehold_viewer USING (true); END IF; END $$",
            "tenant_access is missing",
        ),
    ] {
        let house = house().await;
        let tenants = tenants(&house, 4).await;
        house.script(&tenants[2], harm).await;
        let report = migrate(&house, &notes_and(&[migration])).await;
        let failed: Vec<&str> = report.failed.iter().map(|failed| failed.tenant.as_str()).collect();
        if said.is_empty() {
            // The tenant's additional object does not matter, and the tenant is compared object by object.
            assert_eq!((report.migrated, report.fast_path), (4, 2), "{migration}: {failed:?}");
            continue;
        }
        assert_eq!((report.migrated, report.fast_path), (3, 2), "{migration}: {failed:?}");
        assert_eq!(failed, ["tenant-2"], "{migration}");
        assert!(report.failed[0].error.contains(said), "{}", report.failed[0].error);
        let version = "SELECT count(*) FROM freehold.tenant WHERE version = 2";
        let rows = house.superuser().await.query_one(version, &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 3);
    }
}

/// What the migrator does with a tenant's own indexes is done on the long path alone.
#[tokio::test]
async fn a_tenant_with_an_index_of_its_own_goes_the_long_path() {
    let house = house().await;
    let tenants = tenants(&house, 4).await;
    let extra = "CREATE TABLE extra (body text)";
    migrate(&house, &notes_and(&[extra])).await;
    let by = [IndexColumn::parse("body").unwrap()];
    let indexes = house.freehold.indexes();
    indexes.apply(&operator(), tenants[2].tenant(), "extra", &by).await.unwrap();
    let report = migrate(&house, &notes_and(&[extra, "DROP TABLE extra"])).await;
    assert_eq!((report.migrated, report.fast_path), (4, 2), "{:?}", report.failed);
    let left = indexes.list(&operator(), None).await.unwrap();
    assert!(left.is_empty(), "it is gone with its table: {left:?}");
}

#[tokio::test]
async fn a_lock_that_is_held_for_too_long_fails_the_tenant_at_once() {
    let house = house().await;
    let tenants = tenants(&house, 3).await;
    let holder = house.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.notes", tenants[1].tenant().schema());
    holder.batch_execute(&lock).await.unwrap();
    let options =
        MigrateOptions { parallel: 1, lock_timeout: std::time::Duration::from_millis(100) };
    let baseline = notes_and(&["ALTER TABLE notes ADD pinned boolean"]);
    let report = house.freehold.migrations().up(&baseline, options, &|_, _| {}).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 1));
    assert!(report.failed[0].error.contains("lock timeout"), "{}", report.failed[0].error);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(migrate(&house, &baseline).await.migrated, 1);
}
