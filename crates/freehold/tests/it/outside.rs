//! A migration's changes outside of its schema are refused in the template, with file, line and remedy, and
//! leave nothing.

use freehold::{Baseline, ErrorKind, Migration};

use crate::support::{House, house, notes_and};

/// Objects that exist outside before any migration: all belong to the owner role, so PostgreSQL itself
/// refuses nothing.
const BILLING: &str = "
CREATE SCHEMA billing AUTHORIZATION freehold_owner;
SET ROLE freehold_owner;
CREATE TABLE billing.invoices (id bigint PRIMARY KEY, what text);
CREATE TABLE billing.days (at date NOT NULL) PARTITION BY RANGE (at);
CREATE VIEW billing.open AS SELECT id FROM billing.invoices;
CREATE SEQUENCE billing.numbers;
CREATE FUNCTION billing.tax(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION billing.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TYPE billing.mood AS ENUM ('good');
CREATE DOMAIN billing.amount AS int;
CREATE COLLATION billing.plain (provider = icu, locale = 'und');
CREATE TEXT SEARCH CONFIGURATION billing.words (COPY = simple);
CREATE OPERATOR billing.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE PUBLICATION feed;
RESET ROLE;
COMMENT ON TABLE billing.invoices IS 'shared'";

/// The migration, the line that the refusal names, and further text of it.
const REFUSED: &[(&str, usize, &str)] = &[
    // Made outside.
    ("SELECT 1;\nCREATE TABLE public.plans (id int)", 2, "makes table public.plans"),
    (
        "SELECT 1;\nCREATE TABLE IF NOT EXISTS public.plans (id int);\nGRANT ALL ON public.plans TO freehold_member",
        2,
        "makes table public.plans",
    ),
    (
        "CREATE SCHEMA IF NOT EXISTS shop;\nCREATE TABLE IF NOT EXISTS shop.plans (id int)",
        1,
        "makes the schema shop",
    ),
    (
        "CREATE SCHEMA IF NOT EXISTS shop;\nCREATE TABLE IF NOT EXISTS shop.plans (id int)",
        2,
        "makes table shop.plans",
    ),
    (
        "-- into billing.more\nCREATE TABLE billing.more (id int)",
        2,
        "Leave the schema out of its name",
    ),
    (
        "DO $$ BEGIN\n  EXECUTE 'CREATE TABLE public.plans (id int)';\nEXCEPTION WHEN division_by_zero THEN NULL;\nEND $$",
        2,
        "makes table public.plans",
    ),
    ("CREATE TABLE public.plans AS SELECT id FROM notes", 1, "makes table public.plans"),
    ("CREATE VIEW public.all_notes AS\nSELECT 1 AS one", 1, "makes view public.all_notes"),
    (
        "CREATE MATERIALIZED VIEW public.all_notes AS SELECT 1 AS one",
        1,
        "makes materialized view public.all_notes",
    ),
    ("CREATE SEQUENCE public.numbers", 1, "makes sequence public.numbers"),
    ("CREATE TYPE\n  public.mood AS ENUM ('good')", 2, "makes type public.mood"),
    ("CREATE DOMAIN public.amount AS int", 1, "makes type public.amount"),
    (
        "CREATE FUNCTION public.tax() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        1,
        "makes function public.tax()",
    ),
    ("CREATE PROCEDURE public.tax() LANGUAGE sql AS 'SELECT 1'", 1, "makes procedure public.tax()"),
    (
        "CREATE AGGREGATE public.total(int) (SFUNC = int4pl, STYPE = int)",
        1,
        "makes aggregate public.total(integer)",
    ),
    (
        "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
        1,
        "makes operator public.===",
    ),
    (
        "CREATE COLLATION public.plain (provider = icu, locale = 'und')",
        1,
        "makes collation public.plain",
    ),
    (
        "CREATE TEXT SEARCH CONFIGURATION public.words (COPY = simple)",
        1,
        "makes text search configuration public.words",
    ),
    (
        "CREATE STATISTICS public.figures ON id, body FROM notes",
        1,
        "makes statistics object public.figures",
    ),
    ("CREATE CAST (billing.mood AS billing.amount) WITH INOUT", 1, "makes cast"),
    ("CREATE PUBLICATION events", 1, "makes publication events"),
    // Changed outside.
    ("ALTER TABLE billing.invoices ADD COLUMN more int", 1, "table billing.invoices"),
    ("CREATE INDEX\nON billing.invoices (what)", 2, "billing.invoices"),
    (
        "CREATE TRIGGER stamp BEFORE INSERT ON billing.invoices FOR EACH ROW EXECUTE FUNCTION billing.stamp()",
        1,
        "billing.invoices",
    ),
    ("ALTER TABLE billing.invoices ENABLE ROW LEVEL SECURITY", 1, "billing.invoices"),
    ("ALTER TABLE billing.invoices SET SCHEMA public", 1, "public.invoices"),
    ("ALTER TABLE notes SET SCHEMA billing", 1, "billing.notes"),
    ("ALTER TYPE billing.mood ADD VALUE 'bad'", 1, "type billing.mood"),
    ("ALTER TYPE billing.mood RENAME VALUE 'good' TO 'fine'", 1, "type billing.mood"),
    (
        "CREATE OR REPLACE FUNCTION billing.tax(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        1,
        "function billing.tax(integer)",
    ),
    ("ALTER FUNCTION billing.tax(int) STABLE", 1, "changes function billing.tax(integer)"),
    ("ALTER SCHEMA billing RENAME TO shop", 1, "schema shop"),
    ("ALTER PUBLICATION feed ADD TABLE notes", 1, "publication feed"),
    ("COMMENT ON TABLE billing.invoices IS 'mine'", 1, "billing.invoices"),
    ("COMMENT ON TABLE billing.invoices IS NULL", 1, "billing.invoices"),
    ("COMMENT ON FUNCTION billing.tax(int) IS 'mine'", 1, "function billing.tax(integer)"),
    // Rights outside.
    ("GRANT SELECT ON billing.invoices TO freehold_viewer", 1, "changes table billing.invoices"),
    ("GRANT SELECT (id) ON billing.invoices TO PUBLIC", 1, "changes table billing.invoices"),
    ("GRANT USAGE ON SCHEMA billing TO freehold_viewer", 1, "changes schema billing"),
    (
        "GRANT USAGE ON SCHEMA public TO freehold_viewer; GRANT USAGE ON SCHEMA freehold TO freehold_viewer",
        1,
        "schema freehold",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION billing.tax(int) FROM PUBLIC",
        1,
        "changes function billing.tax(integer)",
    ),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO freehold_viewer", 1, "default privileges"),
    (
        "SELECT 1;\nALTER DEFAULT PRIVILEGES IN SCHEMA freehold_template GRANT SELECT ON TABLES TO freehold_viewer",
        2,
        "default privileges",
    ),
    // Dropped outside.
    ("DROP VIEW billing.open", 1, "drops view billing.open"),
    ("SELECT 1;\nDROP FUNCTION billing.tax(int)", 2, "drops function billing.tax(integer)"),
    ("DROP TYPE billing.mood", 1, "drops type billing.mood"),
    ("DROP SEQUENCE billing.numbers", 1, "drops sequence billing.numbers"),
    ("DROP COLLATION billing.plain", 1, "drops collation billing.plain"),
    ("DROP OPERATOR billing.=== (int, int)", 1, "drops operator billing.==="),
    ("DROP PUBLICATION feed", 1, "drops publication feed"),
    ("DROP SCHEMA billing CASCADE", 1, "billing"),
    // Rows outside.
    (
        "INSERT INTO billing.invoices VALUES (1)",
        1,
        "writes to, alters or locks table billing.invoices",
    ),
    ("UPDATE billing.invoices SET what = 'x'", 1, "table billing.invoices"),
    ("TRUNCATE billing.invoices", 1, "table billing.invoices"),
    ("SELECT nextval('billing.numbers')", 1, "sequence billing.numbers"),
    ("UPDATE freehold.identity SET is_operator = true", 1, "freehold.identity"),
    (
        "SELECT 1;\nINSERT INTO freehold.audit SELECT * FROM freehold.audit LIMIT 0; DELETE FROM freehold.audit",
        2,
        "freehold.audit",
    ),
    ("UPDATE freehold.baseline SET name = name", 1, "freehold.baseline"),
    // Dependencies that lead out.
    (
        "CREATE TABLE posts (id int,\n  author uuid REFERENCES freehold.identity (id))",
        2,
        "depend on table freehold.identity",
    ),
    ("CREATE TABLE posts (id bigint REFERENCES billing.invoices)", 1, "without a foreign key"),
    ("CREATE TABLE posts () INHERITS (billing.invoices)", 1, "depend on table billing.invoices"),
    (
        "CREATE TABLE days_1 PARTITION OF billing.days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        1,
        "depend on table billing.days",
    ),
    (
        "CREATE VIEW invoices AS\nSELECT id FROM billing.invoices",
        2,
        "makes view invoices depend on table billing.invoices",
    ),
    (
        "CREATE MATERIALIZED VIEW invoices AS SELECT id FROM billing.invoices",
        1,
        "depend on table billing.invoices",
    ),
    ("CREATE VIEW invoices AS SELECT id FROM billing.open", 1, "depend on view billing.open"),
    ("CREATE TABLE posts (mood billing.mood)", 1, "depend on type billing.mood"),
    ("CREATE TABLE posts (moods billing.mood[])", 1, "depend on type billing.mood"),
    (
        "CREATE TABLE posts (id int DEFAULT billing.tax(1))",
        1,
        "depend on function billing.tax(integer)",
    ),
    ("CREATE INDEX ON notes (billing.tax(id::int))", 1, "billing.tax"),
    (
        "ALTER TABLE notes ADD CHECK (billing.tax(1) = 1)",
        1,
        "depend on function billing.tax(integer)",
    ),
    (
        "CREATE POLICY p ON notes USING (billing.tax(1) = 1)",
        1,
        "depend on function billing.tax(integer)",
    ),
    (
        "CREATE TRIGGER stamp BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION billing.stamp()",
        1,
        "depend on function billing.stamp()",
    ),
    ("CREATE TABLE posts (id int DEFAULT nextval('billing.numbers'))", 1, "billing.numbers"),
    (
        "CREATE TABLE posts (body text COLLATE billing.plain)",
        1,
        "depend on collation billing.plain",
    ),
    (
        "CREATE FUNCTION f() RETURNS SETOF billing.invoices LANGUAGE sql BEGIN ATOMIC SELECT * FROM billing.invoices; END",
        1,
        "depend on table billing.invoices",
    ),
    // Rights inside that would be critical in every tenant.
    ("SELECT 1;\nGRANT SELECT ON notes TO PUBLIC", 2, "TO freehold_viewer or freehold_member"),
    ("GRANT SELECT (body) ON notes TO PUBLIC", 1, "granted to PUBLIC"),
    ("GRANT INSERT ON notes TO freehold_analytics", 1, "must only read"),
    (
        "SELECT 1;\nGRANT CREATE ON SCHEMA freehold_template TO freehold_app",
        2,
        "owner or rights of the schema",
    ),
    // Objects of the whole server.
    ("SELECT 1;\nALTER ROLE CURRENT_USER SET work_mem = '1MB'", 2, "changes a role"),
    ("ALTER ROLE CURRENT_USER RESET ALL", 1, "changes a role"),
    ("ALTER ROLE CURRENT_USER PASSWORD 'x'", 1, "changes a role"),
];

/// All independent objects in the database, including its own schemas and other tenants', except what belongs
/// to the whole server, where other tests run.
const STATE: &str = "
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
  SELECT concat_ws(' ', 'class', oid, relnamespace, relname, relowner, relacl::text, relrowsecurity, relforcerowsecurity, relnatts, relhastriggers) AS line FROM pg_class WHERE relkind <> 't'
  UNION ALL SELECT concat_ws(' ', 'column', attrelid, attnum, attname, attacl::text) FROM pg_attribute WHERE attrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'proc', oid, pronamespace, proname, proacl::text, md5(prosrc), provolatile) FROM pg_proc
  UNION ALL SELECT concat_ws(' ', 'type', oid, typnamespace, typname) FROM pg_type
  UNION ALL SELECT concat_ws(' ', 'label', enumtypid, enumlabel) FROM pg_enum
  UNION ALL SELECT concat_ws(' ', 'schema', oid, nspname, nspacl::text) FROM pg_namespace WHERE nspname !~ '^pg_'
  UNION ALL SELECT concat_ws(' ', 'other', classid, objid, refclassid, refobjid, deptype) FROM pg_depend WHERE objid >= 16384
  UNION ALL SELECT concat_ws(' ', 'comment', objoid, objsubid, description) FROM pg_description WHERE objoid >= 16384
  UNION ALL SELECT concat_ws(' ', 'publication', oid, pubname) FROM pg_publication
  UNION ALL SELECT concat_ws(' ', 'default', defaclrole, defaclacl::text) FROM pg_default_acl
  UNION ALL SELECT concat_ws(' ', 'cast', oid) FROM pg_cast
  UNION ALL SELECT concat_ws(' ', 'large object', oid) FROM pg_largeobject_metadata
  UNION ALL SELECT concat_ws(' ', 'setting', setrole, setconfig::text) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL SELECT concat_ws(' ', 'invoice', id) FROM billing.invoices
  UNION ALL SELECT concat_ws(' ', 'person', id, is_operator) FROM freehold.identity
  UNION ALL SELECT concat_ws(' ', 'record', count(*)) FROM freehold.audit
  UNION ALL SELECT concat_ws(' ', 'baseline', version, checksum) FROM freehold.baseline
) state";

async fn state(house: &House) -> String {
    house.superuser().await.query_one(STATE, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_is_outside_is_refused_in_the_template_with_line_and_cure_and_leaves_nothing() {
    let house = house().await;
    house.superuser().await.batch_execute(BILLING).await.unwrap();
    house.tenant("acme").await;
    let before = state(&house).await;
    let mut wrong = Vec::new();
    for (sql, line, part) in REFUSED {
        match house.migrate(&notes_and(&[sql])).await {
            Ok(_) => panic!("accepted: {sql}"),
            Err(error) => {
                let message = error.to_string();
                let place = format!(" line {line}: it ");
                let is_right = error.kind() == ErrorKind::Migration
                    && message.starts_with("0002_later")
                    && message.contains(&place)
                    && message.contains(part);
                if !is_right {
                    wrong.push(format!("{sql}\n   {message}"));
                }
            }
        }
        assert_eq!(state(&house).await, before, "something is left of {sql}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The number is free, since nothing was recorded.
    house.migrate(&notes_and(&["CREATE TABLE plans (id int)"])).await.unwrap();
}

/// Another tenant's objects are outside too, however a migration learns their names.
#[tokio::test]
async fn another_tenants_schema_is_outside() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let (other, schema) = (house.tenant("globex").await, acme.tenant().schema());
    for (act, part) in [
        ("DROP TABLE %I.tags", "drops table"),
        ("CREATE TABLE %I.more (id int)", "makes table"),
        ("GRANT SELECT ON %I.notes TO freehold_admin", "changes table"),
        ("ALTER TABLE %I.notes ADD COLUMN more int", "table"),
        ("DROP POLICY tenant_isolation ON %I.notes", "table"),
        ("CREATE VIEW theirs AS SELECT * FROM %I.notes", "depend on table"),
    ] {
        let sql = format!(
            "DO $$ DECLARE s text; BEGIN\n FOR s IN SELECT nspname FROM pg_namespace WHERE nspname = '{schema}' LOOP\n EXECUTE format('{act}', s);\n END LOOP; END $$"
        );
        let error = house.migrate(&notes_and(&[&sql])).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("0002_later line") && message.contains(part),
            "{sql}: {message}"
        );
        assert!(message.contains(&schema), "{message}");
    }
    house.freehold.query(&acme, "SELECT FROM tags", &[]).await.unwrap();
    house.freehold.query(&other, "SELECT FROM tags", &[]).await.unwrap();
}

#[tokio::test]
async fn what_only_tenants_would_do_outside_is_refused_in_the_rehearsal() {
    let house = house().await;
    house.superuser().await.batch_execute(BILLING).await.unwrap();
    let acme = house.tenant("acme").await;
    for act in ["CREATE SCHEMA theirs", "ALTER TABLE freehold_template.notes ADD COLUMN more int"] {
        let sql = format!(
            "DO $$ BEGIN IF current_schema() <> 'freehold_template' THEN\n {act};\n END IF; END $$"
        );
        let before = state(&house).await;
        let error = house.migrate(&notes_and(&[&sql])).await.unwrap_err().to_string();
        assert!(error.starts_with("0002_later"), "{error}");
        assert_eq!(state(&house).await, before);
    }
    house.freehold.query(&acme, "SELECT FROM notes", &[]).await.unwrap();
}

#[tokio::test]
async fn what_stays_inside_is_taken() {
    let house = house().await;
    house.superuser().await.batch_execute(BILLING).await.unwrap();
    let acme = house.tenant("acme").await;
    let all = "
        CREATE TABLE people (id bigserial PRIMARY KEY, name text COLLATE \"C\", parent bigint REFERENCES people);
        CREATE TYPE mood AS ENUM ('good'); CREATE TYPE pair AS (a int, b mood); CREATE DOMAIN amount AS int CHECK (VALUE > 0);
        CREATE TYPE span AS RANGE (subtype = int);
        CREATE TABLE events (at date NOT NULL, mood mood, moods mood[], pair pair, span span) PARTITION BY RANGE (at);
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE TABLE staff (salary amount) INHERITS (people);
        CREATE VIEW names AS SELECT name FROM people; CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM people;
        CREATE VIEW columns AS SELECT table_name, column_name FROM information_schema.columns;
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER stamp BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE CAST (mood AS amount) WITH INOUT;
        CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
        CREATE COLLATION plain (provider = icu, locale = 'und'); CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
        CREATE TABLE gone (id int); INSERT INTO gone VALUES (1); DROP TABLE gone; CREATE TYPE gone_too AS ENUM ('x'); DROP TYPE gone_too;
        CREATE TEMP TABLE scratch (id int) ON COMMIT DROP; INSERT INTO scratch VALUES (1);
        INSERT INTO people (name) SELECT current_user; UPDATE notes SET body = body; TRUNCATE events;
        GRANT SELECT ON people TO freehold_member; COMMENT ON TABLE people IS 'all'; COMMENT ON COLUMN people.name IS 'called';
        DO $$ BEGIN CREATE TABLE tried (id int); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN CREATE TABLE tried (id int); END $$;
        ALTER TABLE notes ADD COLUMN at timestamptz DEFAULT now(); DROP TABLE tags; ALTER TYPE mood ADD VALUE 'bad';
        CREATE INDEX ON notes (lower(body)); ANALYZE notes";
    let report = house
        .migrate(&notes_and(&[
            all,
            "DROP VIEW names; DROP TABLE staff; DROP FUNCTION stamp() CASCADE",
        ]))
        .await
        .unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    house.freehold.query(&acme, "SELECT FROM people", &[]).await.unwrap();
    // Both are there, in the template too.
    let later = house.tenant("later").await;
    house.freehold.query(&later, "SELECT FROM people", &[]).await.unwrap();
}

/// A database has each extension once, so creating one is permitted, but changing one that others use is not.
#[tokio::test]
async fn an_extension_may_be_made_and_used_but_not_changed() {
    let house = house().await;
    let known = "SELECT FROM pg_available_extensions WHERE name IN ('hstore', 'citext') HAVING count(*) = 2";
    if house.superuser().await.query_opt(known, &[]).await.unwrap().is_none() {
        eprintln!("skipped: this PostgreSQL comes without its contrib modules");
        return;
    }
    let acme = house.tenant("acme").await;
    let make = "CREATE EXTENSION IF NOT EXISTS hstore;
        CREATE TABLE bags (bag hstore, bags hstore[]); CREATE INDEX ON bags USING gin (bag)";
    let use_it = "CREATE TABLE more (bag hstore DEFAULT '')";
    house.migrate(&notes_and(&[make, use_it])).await.unwrap();
    house.freehold.query(&acme, "SELECT FROM more", &[]).await.unwrap();
    for (sql, part) in [
        ("DROP EXTENSION hstore CASCADE", "extension hstore"),
        ("SELECT 1;\nALTER EXTENSION hstore ADD TABLE notes", "extension hstore"),
    ] {
        let error = house.migrate(&notes_and(&[make, use_it, sql])).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("0004_later line") && message.contains(part),
            "{sql}: {message}"
        );
    }
    house.freehold.query(&acme, "SELECT FROM more", &[]).await.unwrap();
}

/// Concurrent changes of other transactions are not attributed to the migration, although their ids are
/// higher.
#[tokio::test]
async fn what_others_change_meanwhile_is_not_held_against_a_migration() {
    let house = house().await;
    let busy = house.superuser().await;
    let work = tokio::spawn(async move {
        for round in 0.. {
            let sql = format!(
                "CREATE TABLE public.busy_{round} (id int); GRANT SELECT ON public.busy_{round} TO freehold_viewer;
                 DROP TABLE public.busy_{round}; CREATE OR REPLACE FUNCTION public.busy() RETURNS int LANGUAGE sql AS 'SELECT {round}'"
            );
            busy.batch_execute(&sql).await.unwrap();
        }
    });
    let later: Vec<String> =
        (0..20).map(|n| format!("CREATE TABLE t{n} (id int REFERENCES t{m})", m = n - 1)).collect();
    let mut later: Vec<&str> = later.iter().map(String::as_str).collect();
    later[0] = "CREATE TABLE t0 (id int PRIMARY KEY)";
    let keyed: Vec<String> =
        later.iter().map(|sql| sql.replace("(id int REF", "(id int PRIMARY KEY REF")).collect();
    let migrations = (1..).zip(&keyed).map(|(n, sql)| Migration::new(n + 1, "later", sql.clone()));
    let mut all: Vec<Migration> = notes_and(&[]).migrations().to_vec();
    all.extend(migrations);
    house.migrate(&Baseline::from_migrations(all).unwrap()).await.unwrap();
    work.abort();
}
