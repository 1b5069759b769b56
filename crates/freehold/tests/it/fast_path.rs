//! The migrator's fast path: tenants after the first of their version reach the same state, and a tenant that
//! would not is detected as on the long path.

use freehold::control::indexes::IndexColumn;
use freehold::{Baseline, MigrateOptions, MigrateReport, TenantContext};

use crate::doctor::lines;
use crate::support::{House, house, notes_and, operator};

/// Migrates one tenant after the other, so that the first one is the example for the others.
async fn migrate(house: &House, baseline: &Baseline) -> MigrateReport {
    let one_by_one = MigrateOptions { parallel: 1, ..MigrateOptions::default() };
    house.freehold.migrations().up(&operator(), baseline, one_by_one, &|_, _| {}).await.unwrap()
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
        // A file that changes rows may come out differently in each tenant.
        let fast = if what.starts_with("UPDATE") { 0 } else { 3 };
        assert_eq!((report.migrated, report.fast_path), (4, fast), "{what}");
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
    const PIN: &str = "ALTER TABLE notes ADD pinned boolean";
    for (harm, said) in [
        (
            "ALTER TABLE notes ALTER COLUMN body DROP NOT NULL",
            "table notes lacks: body text NOT NULL",
        ),
        ("ALTER TABLE notes ALTER COLUMN id DROP IDENTITY", "table notes lacks: id bigint"),
        ("ALTER TABLE notes ADD pinned int", "already exists"),
        ("ALTER TABLE tags NO FORCE ROW LEVEL SECURITY", "not protected any more"),
        ("DROP POLICY tenant_isolation ON tags", "not protected any more"),
        ("DROP POLICY tenant_isolation ON notes", "already exists"),
        // What the tenant has in addition does not matter.
        ("ALTER TABLE notes ADD own int", ""),
    ] {
        let house = house().await;
        let tenants = tenants(&house, 4).await;
        house.script(&tenants[2], harm).await;
        let report = migrate(&house, &notes_and(&[PIN])).await;
        let failed: Vec<&str> = report.failed.iter().map(|failed| failed.tenant.as_str()).collect();
        let unprotected = house.freehold.protection().list_unprotected(5).await.unwrap();
        if said.is_empty() {
            assert_eq!((report.migrated, report.fast_path), (4, 2), "{harm}: {failed:?}");
            assert!(unprotected.is_empty(), "{harm}: {unprotected:?}");
            continue;
        }
        assert_eq!((report.migrated, report.fast_path), (3, 2), "{harm}: {failed:?}");
        assert_eq!(failed, ["tenant-2"], "{harm}");
        assert!(report.failed[0].error.contains(said), "{harm}: {}", report.failed[0].error);
        let version = "SELECT count(*) FROM freehold.tenant WHERE version = 2";
        let rows = house.superuser().await.query_one(version, &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 3);
    }
}

/// What a file does depends on the tenant's rows: each tenant is protected and compared by itself.
#[tokio::test]
async fn a_file_that_looks_at_rows_takes_the_long_path_everywhere() {
    for (migration, failed) in [
        (
            "DO $$ DECLARE b text; BEGIN FOR b IN SELECT body FROM notes LOOP
               EXECUTE format('CREATE TABLE of_%s (v text)', b);
               EXECUTE format('GRANT SELECT ON of_%s TO freehold_viewer', b);
             END LOOP; END $$",
            0,
        ),
        (
            "ALTER TABLE tags ADD pinned boolean;
             DO $$ BEGIN IF EXISTS (SELECT FROM notes) THEN ALTER TABLE tags DROP CONSTRAINT tags_pkey CASCADE; END IF; END $$",
            1,
        ),
        (
            "ALTER TABLE notes ADD pinned boolean;
             DO $$ BEGIN IF EXISTS (SELECT FROM notes) THEN ALTER TABLE notes NO FORCE ROW LEVEL SECURITY; END IF; END $$",
            1,
        ),
    ] {
        let house = house().await;
        let tenants = tenants(&house, 4).await;
        let insert = "INSERT INTO notes (body) VALUES ('one')";
        house.freehold.query(&tenants[2], insert, &[]).await.unwrap();
        let report = migrate(&house, &notes_and(&[migration])).await;
        assert_eq!((report.failed.len(), report.fast_path), (failed, 0), "{migration}: {:?}", report.failed);
        let unprotected = house.freehold.protection().list_unprotected(5).await.unwrap();
        assert!(unprotected.is_empty(), "{migration}: {unprotected:?}");
    }
}

/// Applications write such ids, for whatever has no owner, or an unlimited one.
#[tokio::test]
async fn the_nil_and_the_greatest_uuid_are_the_applications_in_every_tenant() {
    const ZEROS: &str = "00000000-0000-0000-0000-000000000000";
    let house = house().await;
    let old = house.tenant("old").await;
    let add = format!("ALTER TABLE notes ADD owner uuid NOT NULL DEFAULT '{ZEROS}'");
    let seed = "CREATE TABLE seed (id uuid, note text, tenant uuid DEFAULT freehold.tenant(), made timestamptz DEFAULT now());
        INSERT INTO seed VALUES ('00000000-0000-0000-0000-000000000000', 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF is 00000000-0000-0000-0000-000000000000'),
          ('ffffffff-ffff-ffff-ffff-ffffffffffff', '')";
    assert_eq!(migrate(&house, &notes_and(&[&add, seed])).await.migrated, 1);
    let new = house.tenant("new").await;
    for tenant in [&old, &new] {
        let sql = "SELECT string_agg(id || note, ' ' ORDER BY id), bool_and(tenant = $1) FROM seed";
        let id = tenant.tenant().as_uuid();
        let rows = house.freehold.query(tenant, sql, &[&id]).await.unwrap();
        let seeded = "00000000-0000-0000-0000-000000000000FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF is 00000000-0000-0000-0000-000000000000 ffffffff-ffff-ffff-ffff-ffffffffffff";
        assert_eq!((rows[0].get::<_, &str>(0), rows[0].get::<_, bool>(1)), (seeded, true));
        let insert = "INSERT INTO notes (body) VALUES ('x') RETURNING owner::text";
        let rows = house.freehold.query(tenant, insert, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, &str>(0), ZEROS);
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
    let options = MigrateOptions {
        parallel: 1,
        lock_timeout: std::time::Duration::from_millis(100),
        lock_attempts: 1,
        ..MigrateOptions::default()
    };
    let baseline = notes_and(&["ALTER TABLE notes ADD pinned boolean"]);
    let report =
        house.freehold.migrations().up(&operator(), &baseline, options, &|_, _| {}).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 1));
    assert!(report.failed[0].error.contains("lock timeout"), "{}", report.failed[0].error);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(migrate(&house, &baseline).await.migrated, 1);
}

/// The first one has something of its own, as have some of the others.
#[tokio::test]
async fn tenants_that_differ_from_the_first_are_examples_too() {
    let house = house().await;
    let tenants = tenants(&house, 12).await;
    for at in [0, 4, 5, 6, 7, 8] {
        house.script(&tenants[at], "ALTER TABLE notes ADD own int").await;
    }
    house.script(&tenants[11], "ALTER TABLE notes ALTER COLUMN body DROP NOT NULL").await;
    let report = migrate(&house, &notes_and(&["ALTER TABLE notes ADD pinned boolean"])).await;
    // One with the column of its own takes the long path, one without, and the one that is wrong.
    assert_eq!((report.migrated, report.fast_path, report.failed.len()), (11, 9, 1));
    assert_eq!(report.failed[0].tenant, "tenant-11");
}
