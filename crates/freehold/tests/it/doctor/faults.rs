//! A fault for every check, all in one database, each on an object of its own: the doctor must report that
//! object under that code.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use freehold::doctor::checks;
use freehold::{Baseline, Migration};

use super::{examine_all, lines, tenant};
use crate::support::{connect, house_with};

/// The role that plants it.
enum By {
    Owner,
    Superuser,
}
use By::{Owner, Superuser};

/// The code, the role, the SQL, and what the finding's line must contain. `{a}` and `{b}` are the schemas of
/// two tenants, `{a.id}` their ids.
const FAULTS: &[(&str, By, &str, &str)] = &[
    (
        "FH101",
        Owner,
        "ALTER TABLE {a}.t101 DISABLE ROW LEVEL SECURITY",
        "{a}.t101: row-level security is not enabled",
    ),
    (
        "FH101",
        Owner,
        "ALTER TABLE {a}.t101b NO FORCE ROW LEVEL SECURITY",
        "{a}.t101b: row-level security is not forced",
    ),
    (
        "FH101",
        Owner,
        "ALTER TABLE {a}.parts_1 NO FORCE ROW LEVEL SECURITY",
        "{a}.parts_1: row-level security is not forced",
    ),
    (
        "FH101",
        Owner,
        "ALTER TABLE freehold_template.t101 DISABLE ROW LEVEL SECURITY",
        "freehold_template.t101: row-level security is not enabled",
    ),
    (
        "FH110",
        Owner,
        "ALTER TABLE freehold.membership DISABLE TRIGGER notify",
        "freehold.membership.notify: it is CREATE TRIGGER",
    ),
    (
        "FH110",
        Owner,
        "DROP TRIGGER notify ON freehold.baseline",
        "freehold.baseline.notify: it is missing",
    ),
    (
        "FH121",
        Owner,
        "CREATE TABLE freehold_analytics.rollup_open (tenant_id uuid)",
        "freehold_analytics.rollup_open: row-level security is not enabled",
    ),
    (
        "FH121",
        Owner,
        "CREATE TABLE freehold_analytics.rollup_wide (tenant_id uuid);
         ALTER TABLE freehold_analytics.rollup_wide ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY tenant_scope ON freehold_analytics.rollup_wide AS RESTRICTIVE USING (true)",
        "freehold_analytics.rollup_wide: it has no policy",
    ),
    (
        "FH122",
        Owner,
        "CREATE MATERIALIZED VIEW freehold_analytics.fleet_open AS SELECT 1 AS figure;
         GRANT SELECT ON freehold_analytics.fleet_open TO freehold_app",
        "freehold_analytics.fleet_open: freehold_app has SELECT",
    ),
    (
        "FH324",
        Superuser,
        "GRANT SELECT ON pg_catalog.pg_statistic TO PUBLIC",
        "pg_statistic: freehold_app may read it",
    ),
    ("FH102", Owner, "DROP POLICY tenant_isolation ON {a}.t102", "{a}.t102: there is no policy"),
    ("FH102", Owner, "CREATE TABLE {a}.t102new (id int)", "{a}.t102new: there is no policy"),
    (
        "FH103",
        Owner,
        "ALTER POLICY tenant_isolation ON {a}.t103 USING (true)",
        "{a}.t103: tenant_isolation does not ask",
    ),
    (
        "FH103",
        Owner,
        "ALTER POLICY tenant_isolation ON {a}.t103b WITH CHECK ((SELECT freehold.require_tenant('{b.id}')))",
        "{a}.t103b: tenant_isolation does not ask",
    ),
    (
        "FH103",
        Owner,
        "ALTER POLICY tenant_isolation ON {a}.t103c TO freehold_viewer",
        "{a}.t103c: tenant_isolation is not for PUBLIC",
    ),
    (
        "FH103",
        Owner,
        "DROP POLICY tenant_isolation ON {a}.t103d; CREATE POLICY tenant_isolation ON {a}.t103d USING ((SELECT freehold.require_tenant('{a.id}'))) WITH CHECK ((SELECT freehold.require_tenant('{a.id}')))",
        "{a}.t103d: tenant_isolation is permissive",
    ),
    (
        "FH103",
        Owner,
        "DROP POLICY tenant_isolation ON {a}.t103e; CREATE POLICY tenant_isolation ON {a}.t103e AS RESTRICTIVE FOR SELECT USING ((SELECT freehold.require_tenant('{a.id}')))",
        "{a}.t103e: tenant_isolation is not for ALL",
    ),
    (
        "FH103",
        Owner,
        "ALTER POLICY tenant_isolation ON {a}.t103f USING ((SELECT freehold.require_tenant('{a.id}')) OR id > 0)",
        "{a}.t103f: tenant_isolation does not ask",
    ),
    (
        "FH104",
        Owner,
        "DROP POLICY owner_access ON freehold_template.t104",
        "freehold_template.t104: the template lacks the policy owner_access",
    ),
    (
        "FH106",
        Owner,
        "ALTER TABLE freehold.session NO FORCE ROW LEVEL SECURITY",
        "freehold.session: it is enabled, not forced",
    ),
    (
        "FH106",
        Owner,
        "CREATE TABLE freehold.mine (id int)",
        "freehold.mine: this build knows of none",
    ),
    (
        "FH107",
        Owner,
        "CREATE POLICY open ON freehold.credential USING (true)",
        "freehold.credential.open: this build knows of none",
    ),
    (
        "FH107",
        Owner,
        "ALTER POLICY catalog_only ON freehold.session USING ((SELECT freehold.in_catalog()) OR true)",
        "freehold.session.catalog_only: it is",
    ),
    (
        "FH108",
        Owner,
        "ALTER FUNCTION freehold.actor_id() VOLATILE",
        "freehold.actor_id(): it is not the function",
    ),
    (
        "FH109",
        Owner,
        "GRANT DELETE ON freehold.ledger TO freehold_app",
        "freehold.ledger: it is freehold_app DELETE",
    ),
    (
        "FH112",
        Superuser,
        "GRANT SELECT ON freehold_guard.seal_key TO freehold_analytics",
        "freehold_guard.seal_key: freehold_analytics has SELECT",
    ),
    (
        "FH112",
        Superuser,
        "GRANT SELECT (inner_pad) ON freehold_guard.seal_key TO PUBLIC",
        "freehold_guard.seal_key.inner_pad: PUBLIC has SELECT",
    ),
    (
        "FH112",
        Superuser,
        "GRANT USAGE ON SEQUENCE freehold_guard.session_number TO freehold_app",
        "freehold_guard.session_number: freehold_app has USAGE",
    ),
    (
        "FH118",
        Superuser,
        "ALTER TABLE freehold_guard.seal_key ALTER COLUMN outer_pad SET STATISTICS 100",
        "freehold_guard.seal_key.outer_pad: statistics keep samples",
    ),
    ("FH201", Owner, "ALTER VIEW {a}.loud RESET (security_invoker)", "{a}.loud: the view reads"),
    (
        "FH202",
        Owner,
        "CREATE MATERIALIZED VIEW {a}.m202 AS SELECT 1 AS one; GRANT SELECT ON {a}.m202 TO freehold_viewer",
        "{a}.m202: the materialized view is granted to freehold_viewer",
    ),
    (
        "FH202",
        Owner,
        "CREATE MATERIALIZED VIEW {a}.m202b AS SELECT 1 AS one; GRANT SELECT (one) ON {a}.m202b TO freehold_member",
        "{a}.m202b: the materialized view is granted to freehold_member",
    ),
    (
        "FH203",
        Superuser,
        "CREATE FUNCTION public.f203() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT 1'",
        "public.f203(): it runs as postgres",
    ),
    (
        "FH204",
        Owner,
        "CREATE FUNCTION {a}.f204() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "{a}.f204(): it runs as freehold_owner",
    ),
    (
        "FH205",
        Superuser,
        "CREATE FUNCTION public.f205() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'",
        "public.f205(): it is LEAKPROOF",
    ),
    (
        "FH206",
        Owner,
        "CREATE FUNCTION {a}.f206(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN EXECUTE q; END'",
        "{a}.f206(text): it executes text as freehold_owner",
    ),
    (
        "FH316",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER ROLE freehold_app IN DATABASE %I SET work_mem = 64', current_database()); END $$",
        "freehold_app in this database: it has work_mem=64",
    ),
    (
        "FH301",
        Superuser,
        "ALTER TABLE {a}.t301 OWNER TO freehold_member",
        "{a}.t301: it belongs to freehold_member",
    ),
    (
        "FH301",
        Superuser,
        "ALTER FUNCTION {a}.one() OWNER TO freehold_member",
        "{a}.one(): it belongs to freehold_member",
    ),
    ("FH302", Owner, "GRANT SELECT ON {a}.t302 TO PUBLIC", "{a}.t302: PUBLIC has SELECT"),
    (
        "FH302",
        Owner,
        "GRANT UPDATE (v) ON {a}.t302b TO PUBLIC",
        "{a}.t302b: PUBLIC has UPDATE on column v",
    ),
    (
        "FH302",
        Owner,
        "GRANT USAGE ON SCHEMA freehold_template TO PUBLIC",
        "freehold_template: PUBLIC has USAGE",
    ),
    (
        "FH303",
        Owner,
        "GRANT SELECT ON {a}.t303 TO freehold_app",
        "{a}.t303: freehold_app has SELECT",
    ),
    ("FH303", Owner, "GRANT SELECT ON {a}.t303b TO pg_monitor", "{a}.t303b: pg_monitor has SELECT"),
    (
        "FH304",
        Owner,
        "GRANT INSERT ON {a}.t304 TO freehold_analytics",
        "{a}.t304: freehold_analytics has INSERT",
    ),
    (
        "FH317",
        Owner,
        "CREATE TABLE public.f317 (v int); GRANT SELECT (v) ON public.f317 TO freehold_viewer",
        "public.f317: a tenant's role has SELECT",
    ),
    (
        "FH317",
        Owner,
        "CREATE SEQUENCE public.s317; GRANT USAGE ON SEQUENCE public.s317 TO PUBLIC",
        "public.s317: a tenant's role has USAGE",
    ),
    (
        "FH318",
        Owner,
        "CREATE FUNCTION public.f318() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "f318(): a tenant's role may use it",
    ),
    (
        "FH318",
        Owner,
        "CREATE TYPE public.t318 AS ENUM ('a')",
        "type public.t318: a tenant's role may use it",
    ),
    (
        "FH327",
        Superuser,
        "ALTER EVENT TRIGGER freehold_protect_new_tables DISABLE",
        "freehold_protect_new_tables is disabled",
    ),
    (
        "FH305",
        Owner,
        "GRANT CREATE ON SCHEMA {a} TO freehold_member",
        "schema {a}: freehold_member may create",
    ),
    (
        "FH305",
        Superuser,
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "schema public: PUBLIC may create",
    ),
    (
        "FH306",
        Owner,
        "REVOKE USAGE ON SCHEMA {b} FROM freehold_analytics",
        "schema {b}: its rights are",
    ),
    (
        "FH307",
        Owner,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO freehold_viewer",
        "default privileges of freehold_owner: new tables get",
    ),
    (
        "FH308",
        Owner,
        "GRANT USAGE ON SEQUENCE {a}.t308_id_seq TO freehold_member",
        "{a}.t308_id_seq: freehold_member has USAGE",
    ),
    (
        "FH309",
        Owner,
        "CREATE SEQUENCE {a}.s309; ALTER TABLE {a}.t309 ALTER COLUMN id SET DEFAULT nextval('{a}.s309')",
        "{a}.t309: the default of id calls nextval",
    ),
    (
        "FH321",
        Superuser,
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$",
        "freehold_app has TEMPORARY",
    ),
    (
        "FH322",
        Superuser,
        "GRANT EXECUTE ON FUNCTION pg_catalog.lo_creat(int) TO PUBLIC",
        "lo_creat(integer): freehold_app may call it",
    ),
    (
        "FH323",
        Superuser,
        "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
        "language plpgsql: freehold_app may run",
    ),
    (
        "FH325",
        Superuser,
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(int) TO PUBLIC",
        "pg_stat_get_activity(integer): freehold_app may call it",
    ),
    (
        "FH326",
        Superuser,
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock_shared(int, int) TO PUBLIC",
        "pg_try_advisory_lock_shared(integer,integer): freehold_app may call it",
    ),
    (
        "FH401",
        Superuser,
        "CREATE EXTENSION citext SCHEMA {a}",
        "extension citext: it lives in the schema {a}",
    ),
    (
        "FH402",
        Superuser,
        "CREATE EXTENSION dblink SCHEMA public",
        "extension dblink: the app role may call ",
    ),
    (
        "FH403",
        Superuser,
        "CREATE FOREIGN DATA WRAPPER w403; GRANT USAGE ON FOREIGN DATA WRAPPER w403 TO freehold_app",
        "foreign-data wrapper w403: the app role may use it",
    ),
    (
        "FH403",
        Superuser,
        "CREATE SERVER s403 FOREIGN DATA WRAPPER w403; GRANT USAGE ON FOREIGN SERVER s403 TO freehold_viewer",
        "foreign server s403: the app role may use it",
    ),
    (
        "FH404",
        Superuser,
        "CREATE LANGUAGE l404 HANDLER plpgsql_call_handler; CREATE FUNCTION public.f404() RETURNS int LANGUAGE l404 AS 'BEGIN RETURN 1; END'",
        "public.f404(): it is written in l404",
    ),
    (
        "FH405",
        Superuser,
        "CREATE EXTENSION pg_stat_statements SCHEMA public",
        "public.pg_stat_statements: the app role may read it",
    ),
    (
        "FH405",
        Superuser,
        "REVOKE SELECT ON public.pg_stat_statements_info FROM PUBLIC",
        "public.pg_stat_statements_info(): the app role may call it",
    ),
    (
        "FH411",
        Owner,
        "ALTER TABLE {a}.t411 ADD CONSTRAINT across FOREIGN KEY (id) REFERENCES {b}.t411",
        "{a}.t411: the foreign key across leads to {b}.t411",
    ),
    (
        "FH412",
        Owner,
        "CREATE TABLE {a}.t412 () INHERITS ({b}.t411)",
        "{a}.t412: it inherits from {b}.t411",
    ),
    (
        "FH413",
        Owner,
        "CREATE VIEW {a}.v413 WITH (security_invoker = true) AS SELECT id FROM {b}.t413",
        "{a}.v413: rule _RETURN on view {a}.v413 refers to the schema {b}",
    ),
    (
        "FH413",
        Owner,
        "ALTER TABLE {a}.t413 ALTER COLUMN id SET DEFAULT {b}.one()",
        "{a}.t413: default value for column id of table {a}.t413 refers",
    ),
    (
        "FH413",
        Owner,
        "CREATE TRIGGER t413 BEFORE INSERT ON {a}.t413 FOR EACH ROW EXECUTE FUNCTION {b}.nothing()",
        "{a}.t413: trigger t413 on table {a}.t413 refers",
    ),
    (
        "FH413",
        Owner,
        "CREATE VIEW public.v413 AS SELECT id FROM {b}.t413",
        "public.v413: rule _RETURN on view public.v413 refers to the schema {b}",
    ),
    (
        "FH414",
        Owner,
        "CREATE FUNCTION {a}.f414() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM {b}.t414'",
        "{a}.f414(): its text names",
    ),
    (
        "FH511",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$",
        "session_replication_role: it is replica",
    ),
    (
        "FH512",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET row_security = off', current_database()); END $$",
        "row_security: it is off",
    ),
    (
        "FH513",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET backtrace_functions = %L', current_database(), 'operator_'); END $$",
        "backtrace_functions: it is set for a session: operator_",
    ),
    (
        "FH514",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET log_statement = %L', current_database(), 'all'); END $$",
        "log_statement: it is all",
    ),
    (
        "FH515",
        Superuser,
        "DO $$ BEGIN EXECUTE format('ALTER ROLE freehold_analytics IN DATABASE %I SET backtrace_functions = palloc', current_database()); END $$",
        "backtrace_functions of freehold_analytics: it is set for a session: palloc",
    ),
    (
        "FH701",
        Owner,
        "INSERT INTO freehold.tenant (id, slug, name, version) VALUES ('00000000-0000-4000-8000-000000000701', 'gone', 'Gone', 1)",
        "tenant gone: it has no schema",
    ),
    (
        "FH702",
        Owner,
        "CREATE SCHEMA tenant_00000000000040008000000000000702",
        "schema tenant_00000000000040008000000000000702: no tenant",
    ),
    ("FH702", Owner, "CREATE SCHEMA tenant_old", "schema tenant_old: its name is like"),
    (
        "FH703",
        Owner,
        "INSERT INTO freehold.tenant (id, slug, name, version) VALUES ('00000000-0000-4000-8000-000000000703', 'late', 'Late', 0)",
        "tenant late: it is at version 0 and the baseline at 1",
    ),
    (
        "FH704",
        Owner,
        "INSERT INTO freehold.tenant (id, slug, name, version) VALUES ('00000000-0000-4000-8000-000000000704', 'odd', 'Odd', 1)",
        "tenant odd: version 1 says the catalog, and the ledger 0",
    ),
    (
        "FH705",
        Owner,
        "INSERT INTO freehold.migration_failure (tenant_id, version, error) SELECT id, 1, 'no such luck' FROM freehold.tenant WHERE slug = 'late'",
        "tenant late: migration 1 failed: no such luck",
    ),
    (
        "FH711",
        Owner,
        "ALTER TABLE {b}.t711 ADD COLUMN extra int",
        "schema {b}: column t711.extra is not in the template",
    ),
    (
        "FH712",
        Owner,
        "GRANT DELETE ON {b}.t712 TO freehold_viewer",
        "schema {b}: rights on t712 differs",
    ),
    (
        "FH713",
        Owner,
        "CREATE POLICY open ON {b}.t713 USING (true)",
        "schema {b}: policy t713.open is not in the template",
    ),
];

/// Found elsewhere: roles, rights on settings and the server are shared by all tests here, so their
/// faults are planted in a server of their own (`freehold-server`, `tests/it/doctor.rs`); seal modes
/// and keys are in `seal.rs`; versions are a unit test.
const ELSEWHERE: &[&str] = &[
    "FH111", "FH113", "FH114", "FH115", "FH116", "FH117", "FH119", "FH120", "FH123", "FH124",
    "FH311", "FH312", "FH313", "FH314", "FH315", "FH501", "FH502", "FH601", "FH602", "FH603",
];

/// A table for every fault, and one object of each other kind.
fn baseline() -> Baseline {
    let mut sql = "CREATE TABLE parts (id int) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE t308 (id serial);
        CREATE VIEW loud AS SELECT upper(v) AS v FROM t201;
        CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        .to_owned();
    let tables = [
        "101", "101b", "102", "103", "103b", "103c", "103d", "103e", "103f", "104", "201", "301",
        "302", "302b", "303", "303b", "304", "309", "411", "413", "414", "711", "712", "713",
    ];
    for table in tables {
        sql.insert_str(0, &format!("CREATE TABLE t{table} (id int PRIMARY KEY, v text);\n"));
    }
    let _ = writeln!(sql);
    Baseline::from_migrations(vec![Migration::new(1, "faults", sql)]).unwrap()
}

#[tokio::test]
async fn every_planted_fault_is_found_under_its_code() {
    let house = house_with(&baseline()).await;
    let (a, b) = (tenant(&house.freehold, "acme").await, tenant(&house.freehold, "globex").await);
    let fill = |text: &str| {
        let ids = text.replace("{a.id}", &a.to_string()).replace("{b.id}", &b.to_string());
        ids.replace("{a}", &a.schema()).replace("{b}", &b.schema())
    };
    let owner = connect(&house.database.owner_url()).await;
    let superuser = house.superuser().await;
    let clean = examine_all(&house.database).await;
    assert_eq!(lines(&clean), [""; 0], "nothing is found before anything is planted");
    for (code, by, sql, _) in FAULTS {
        let client = match by {
            Owner => &owner,
            Superuser => &superuser,
        };
        client.batch_execute(&fill(sql)).await.unwrap_or_else(|error| panic!("{code}: {error:?}"));
    }
    let report = examine_all(&house.database).await;
    let found = lines(&report);
    let missed: Vec<_> = FAULTS
        .iter()
        .map(|(code, _, _, part)| (code, fill(part)))
        .filter(|(code, part)| {
            !found.iter().any(|line| line.starts_with(**code) && line.contains(part.as_str()))
        })
        .collect();
    assert!(missed.is_empty(), "missed {missed:#?}\nof\n{found:#?}");
    assert!(report.not_checked.is_empty(), "{:?}", report.not_checked);
    // Critical findings that the app role can see make a server unready.
    let critical = house.freehold.protection().list_critical().await.unwrap();
    for finding in report.findings.iter().filter(|f| f.check.severity.as_str() == "critical") {
        let code = finding.check.code;
        assert!(critical.iter().any(|line| line.starts_with(code)), "{code} of {critical:#?}");
    }
}

#[test]
fn every_check_has_a_fault_that_is_planted() {
    let planted: BTreeSet<_> =
        FAULTS.iter().map(|(code, ..)| *code).chain(ELSEWHERE.iter().copied()).collect();
    let known: BTreeSet<_> = checks().iter().map(|check| check.code).collect();
    assert_eq!(planted, known);
}
