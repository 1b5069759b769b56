//! Faults planted in a healthy database, each with a name: the attack that it enables, and the guard that
//! detects it. A fault that enables no attack because another defence holds must be detected nevertheless.
//! `./dev mutants` plants faults in the code.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use freehold::control::tenants::NewTenant;
use freehold::doctor::{DoctorOptions, examine};
use freehold::{Freehold, Options, TenantId};
use tokio_postgres::Client;

use crate::doctor::lines;
use crate::support::{House, connect, house, operator, outcome};
use Attack::{Allowed, Refused};
use Seen::{Doctor, Readiness, Start};

struct Fault {
    name: &'static str,
    /// As a superuser. `{a}` and `{g}` are the schemas of acme and globex, `{aid}` and `{gid}` ids.
    plant: &'static str,
    /// As the app role in a transaction of globex's owner.
    attack: &'static str,
    comes_to: Attack,
    seen: Seen,
}

/// The result of the attack with the fault in place. Without it, each is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Isolation is broken.
    Allowed,
    /// Another defence holds.
    Refused,
}

/// The first guard that sees the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// A server refuses to start, and a running one is not ready.
    Start,
    /// A server that runs is not ready: to the doctor it is critical, and even the app role sees it.
    Readiness,
    /// The doctor.
    Doctor,
    Nobody,
}

const fn fault(
    name: &'static str,
    plant: &'static str,
    attack: &'static str,
    comes_to: Attack,
    seen: Seen,
) -> Fault {
    Fault { name, plant, attack, comes_to, seen }
}

const READ: &str = "SELECT body FROM {a}.notes";
const WRITE: &str = "INSERT INTO {a}.notes (id, body) VALUES (9, 'intruder')";
/// An unsealed context of acme, at the entry point and past it.
const FORGE: &str = "SELECT freehold.enter(repeat('0', 94) || '{a}_' || repeat('0', 32) || '_owner'); SELECT body FROM {a}.notes";
const SET: &str = "SELECT set_config('freehold.context', '{a}_' || repeat('0', 32) || '_owner', true); SELECT body FROM {a}.notes";
/// Fails where no row of acme's is seen.
const READ_MEMBERS: &str =
    "RESET ROLE; SELECT 1 / count(*) FROM freehold.membership WHERE tenant_id = '{aid}'";

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    // Policies of a tenant's tables
    fault("policy dropped", "DROP POLICY tenant_isolation ON {a}.notes", READ, Allowed, Readiness),
    fault("policy renamed", "ALTER POLICY tenant_isolation ON {a}.notes RENAME TO isolation", READ, Refused, Readiness),
    fault("row-level security disabled", "ALTER TABLE {a}.notes DISABLE ROW LEVEL SECURITY", READ, Allowed, Readiness),
    fault("row-level security not forced", "ALTER TABLE {a}.notes NO FORCE ROW LEVEL SECURITY", READ, Refused, Readiness),
    fault("policy permissive", "DROP POLICY tenant_isolation ON {a}.notes;
        CREATE POLICY tenant_isolation ON {a}.notes USING ((SELECT freehold.require_tenant('{aid}')))", READ, Allowed, Readiness),
    fault("policy for reading alone", "DROP POLICY tenant_isolation ON {a}.notes;
        CREATE POLICY tenant_isolation ON {a}.notes AS RESTRICTIVE FOR SELECT USING ((SELECT freehold.require_tenant('{aid}')))",
        WRITE, Allowed, Readiness),
    fault("policy with another tenant's id", "ALTER POLICY tenant_isolation ON {a}.notes
        USING ((SELECT freehold.require_tenant('{gid}'))) WITH CHECK ((SELECT freehold.require_tenant('{gid}')))", READ, Allowed, Readiness),
    fault("policy that is always true", "ALTER POLICY tenant_isolation ON {a}.notes USING (true) WITH CHECK (true)", READ, Allowed, Readiness),
    fault("policy that checks no new row", "ALTER POLICY tenant_isolation ON {a}.notes WITH CHECK (true)", WRITE, Allowed, Readiness),
    fault("policy for one role", "ALTER POLICY tenant_isolation ON {a}.notes TO freehold_analytics", READ, Allowed, Readiness),
    fault("another policy that opens", "CREATE POLICY open ON {a}.notes USING (true) WITH CHECK (true)", READ, Refused, Doctor),
    fault("owner that is not ours", "ALTER TABLE {a}.notes OWNER TO postgres", READ, Refused, Readiness),
    // Relations that no policy protects
    fault("table without a policy", "CREATE TABLE {a}.bare (id int); GRANT SELECT ON {a}.bare TO freehold_viewer",
        "SELECT * FROM {a}.bare", Allowed, Readiness),
    fault("partition without a policy", "CREATE TABLE {a}.events (at date) PARTITION BY RANGE (at);
        ALTER TABLE {a}.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant_isolation ON {a}.events AS RESTRICTIVE USING ((SELECT freehold.require_tenant('{aid}')));
        CREATE TABLE {a}.events_all PARTITION OF {a}.events DEFAULT; GRANT SELECT ON {a}.events, {a}.events_all TO freehold_viewer",
        "SELECT * FROM {a}.events_all", Allowed, Readiness),
    fault("inheriting table without a policy", "CREATE TABLE {a}.child () INHERITS ({a}.notes); GRANT SELECT ON {a}.child TO freehold_viewer",
        "SELECT * FROM {a}.child", Allowed, Readiness),
    fault("view of a superuser's", "CREATE VIEW {a}.loud AS SELECT * FROM {a}.notes; GRANT SELECT ON {a}.loud TO freehold_viewer",
        "SELECT * FROM {a}.loud", Allowed, Readiness),
    fault("view of the owner's", "SET LOCAL ROLE freehold_owner; CREATE VIEW {a}.loud AS SELECT * FROM {a}.notes;
        GRANT SELECT ON {a}.loud TO freehold_viewer", "SELECT * FROM {a}.loud", Refused, Readiness),
    fault("materialized view granted", "CREATE MATERIALIZED VIEW {a}.loud AS SELECT * FROM {a}.notes; GRANT SELECT ON {a}.loud TO freehold_viewer",
        "SELECT * FROM {a}.loud", Allowed, Readiness),
    // Functions
    fault("function of a superuser's", "CREATE FUNCTION {a}.loud() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT body FROM {a}.notes'",
        "SELECT {a}.loud()", Allowed, Readiness),
    fault("function of the owner's", "SET LOCAL ROLE freehold_owner;
        CREATE FUNCTION {a}.loud() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT body FROM {a}.notes'",
        "SELECT {a}.loud()", Refused, Doctor),
    fault("policy's function that says yes", "CREATE OR REPLACE FUNCTION freehold.require_tenant(tenant uuid) RETURNS boolean
        LANGUAGE sql STABLE AS 'SELECT true'", READ, Allowed, Readiness),
    fault("policy's exceptions for everybody", "CREATE OR REPLACE FUNCTION freehold.pass_or_refuse(context text, tenant uuid) RETURNS boolean
        LANGUAGE sql STABLE AS 'SELECT true'", READ, Allowed, Readiness),
    fault("migrations run by anybody", "GRANT EXECUTE ON FUNCTION freehold.run_migration(text) TO PUBLIC",
        "SELECT freehold.run_migration('SELECT 1')", Allowed, Doctor),
    // The seal
    fault("door that believes anybody", "CREATE OR REPLACE FUNCTION freehold_guard.admit(context text, session int8 DEFAULT NULL) RETURNS text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS 'BEGIN RETURN set_config(''backtrace_functions'', substr(context, 95), true); END'", FORGE, Allowed, Readiness),
    fault("context that anybody may set", "CREATE OR REPLACE FUNCTION freehold_guard.context() RETURNS text
        LANGUAGE sql STABLE AS 'SELECT pg_catalog.current_setting(''freehold.context'', true)'", SET, Allowed, Readiness),
    fault("keys granted", "GRANT SELECT ON freehold_guard.seal_key TO freehold_viewer", "SELECT inner_pad FROM freehold_guard.seal_key", Allowed, Readiness),
    fault("session's number granted", "GRANT UPDATE ON SEQUENCE freehold_guard.session_number TO PUBLIC",
        "SELECT setval('freehold_guard.session_number', 7); SELECT freehold.enter('{a}_' || repeat('0', 32) || '_owner', 7); SELECT body FROM {a}.notes", Allowed, Readiness),
    // Rights
    fault("TRUNCATE granted", "GRANT TRUNCATE ON {a}.tags TO freehold_member", "TRUNCATE {a}.tags", Allowed, Doctor),
    fault("REFERENCES granted", "GRANT REFERENCES ON {a}.notes TO freehold_viewer", READ, Refused, Doctor),
    fault("table granted to PUBLIC", "GRANT ALL ON {a}.notes TO PUBLIC", "RESET ROLE; SELECT 1 / count(*) FROM {a}.notes", Refused, Readiness),
    fault("table granted to the app role", "GRANT SELECT ON {a}.notes TO freehold_app", "RESET ROLE; SELECT 1 / count(*) FROM {a}.notes", Refused, Doctor),
    fault("sequence granted", "GRANT USAGE ON SEQUENCE {a}.notes_id_seq TO freehold_member", "SELECT nextval('{a}.notes_id_seq')", Allowed, Doctor),
    fault("CREATE in a tenant's schema", "GRANT CREATE ON SCHEMA {a} TO freehold_viewer", "CREATE TABLE {a}.mine (id int)", Allowed, Readiness),
    fault("CREATE in public", "GRANT CREATE ON SCHEMA public TO PUBLIC", "CREATE TABLE public.mine (id int)", Allowed, Readiness),
    fault("TEMPORARY granted", "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$",
        "CREATE TEMP TABLE notes (id int)", Allowed, Doctor),
    fault("large objects granted", "GRANT EXECUTE ON FUNCTION lo_from_bytea(oid, bytea) TO PUBLIC", "SELECT lo_from_bytea(0, 'a drop box')", Allowed, Doctor),
    fault("signals granted", "GRANT EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) TO PUBLIC",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE false", Allowed, Doctor),
    fault("DO blocks granted", "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", "DO $$ BEGIN NULL; END $$", Allowed, Doctor),
    fault("statistics granted", "GRANT SELECT ON pg_catalog.pg_statistic TO PUBLIC", "SELECT stavalues1 FROM pg_statistic", Allowed, Readiness),
    fault("analytics may write", "GRANT INSERT, UPDATE, DELETE ON {a}.notes TO freehold_analytics", READ, Refused, Readiness),
    fault("rights by default", "ALTER DEFAULT PRIVILEGES FOR ROLE freehold_owner GRANT ALL ON TABLES TO PUBLIC", READ, Refused, Doctor),
    // Owners
    fault("app role owns a table", "ALTER TABLE {a}.notes OWNER TO freehold_app",
        "RESET ROLE; ALTER TABLE {a}.notes DISABLE ROW LEVEL SECURITY", Allowed, Start),
    fault("app role owns a schema", "ALTER SCHEMA {a} OWNER TO freehold_app", "RESET ROLE; CREATE TABLE {a}.mine (id int)", Allowed, Start),
    fault("app role owns the catalog", "ALTER TABLE freehold.membership OWNER TO freehold_app",
        "RESET ROLE; ALTER TABLE freehold.membership DISABLE ROW LEVEL SECURITY", Allowed, Start),
    fault("app role owns the database", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO freehold_app', current_database()); END $$",
        "RESET ROLE; CREATE SCHEMA mine", Allowed, Start),
    fault("a tenant's role owns a table", "ALTER TABLE {a}.notes OWNER TO freehold_viewer",
        "ALTER TABLE {a}.notes DISABLE ROW LEVEL SECURITY", Allowed, Start),
    // The catalog
    fault("catalog's security disabled", "ALTER TABLE freehold.membership DISABLE ROW LEVEL SECURITY", READ_MEMBERS, Refused, Readiness),
    fault("catalog's security not forced", "ALTER TABLE freehold.membership NO FORCE ROW LEVEL SECURITY", READ_MEMBERS, Refused, Readiness),
    fault("catalog's policy dropped", "DROP POLICY tenant_scope ON freehold.membership", READ_MEMBERS, Refused, Readiness),
    fault("catalog granted to tenants' roles", "GRANT SELECT ON freehold.credential TO freehold_viewer",
        "SELECT 1 / count(*) FROM freehold.credential", Refused, Doctor),
    fault("servers are told nothing", "ALTER TABLE freehold.tenant DISABLE TRIGGER notify", READ, Refused, Readiness),
    // Between schemas
    fault("foreign key across tenants", "INSERT INTO {a}.notes (id, body) VALUES (77, 'is it there?');
        ALTER TABLE {g}.tags DROP CONSTRAINT tags_note_id_fkey, ADD FOREIGN KEY (note_id) REFERENCES {a}.notes",
        "INSERT INTO {g}.tags VALUES (77, 'yes')", Allowed, Readiness),
    fault("schema without a tenant", "CREATE SCHEMA tenant_00000000000000000000000000000001", READ, Refused, Readiness),
    fault("tenant without a schema", "DROP SCHEMA {a} CASCADE", READ, Refused, Doctor),
];

/// The number of faults planted at a time: each has a database of its own.
const AT_A_TIME: usize = 4;

#[test]
fn each_fault_of_the_database_is_caught() {
    let mut names = std::collections::BTreeSet::new();
    assert!(FAULTS.len() >= 40 && FAULTS.iter().all(|fault| names.insert(fault.name)));
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // A thread and a runtime for each: a database that is dropped holds its thread up.
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                while let Some(fault) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = runtime.block_on(plant(fault));
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The deviation from the table; `None` if there is none.
async fn plant(fault: &Fault) -> Option<String> {
    let house = house().await;
    let (acme, globex) = (tenant(&house, "acme").await, tenant(&house, "globex").await);
    let of = |sql: &str| {
        sql.replace("{a}", &acme.schema())
            .replace("{g}", &globex.schema())
            .replace("{aid}", &acme.to_string())
            .replace("{gid}", &globex.to_string())
    };
    let attacker = house.attacker().await;
    let sql = of(fault.attack);
    assert_eq!(house.freehold.protection().list_critical().await.unwrap(), [""; 0]);
    assert_eq!(first_to_see(&house).await, Seen::Nobody, "without a fault");
    let before = attempt(&house, &attacker, globex, &sql).await;
    let superuser = house.superuser().await;
    superuser.batch_execute(&format!("BEGIN; {}; COMMIT", of(fault.plant))).await.unwrap();
    let seen = first_to_see(&house).await;
    let after = attempt(&house, &attacker, globex, &sql).await;
    let right = (before, after, seen) == (Refused, fault.comes_to, fault.seen);
    (!right).then(|| format!("{}: {before:?}, then {after:?}, seen by {seen:?}", fault.name))
}

/// A tenant with one note and one member.
async fn tenant(house: &House, slug: &str) -> TenantId {
    let new = NewTenant { slug: slug.into(), name: slug.into(), owner: None, idempotency: None };
    let tenant = house.freehold.tenants().create(&operator(), new).await.unwrap().tenant;
    let note = "INSERT INTO notes (body) VALUES ('a note')";
    house.freehold.tenants().run_script(&operator(), tenant.id, note).await.unwrap();
    let member = format!(
        "INSERT INTO freehold.identity (id, email) VALUES ('{0}', '{slug}@x.example');
         INSERT INTO freehold.membership (tenant_id, identity_id, role) VALUES ('{0}', '{0}', 'member')",
        tenant.id
    );
    house.superuser().await.batch_execute(&member).await.unwrap();
    tenant.id
}

/// In a transaction of the tenant's owner, which is rolled back.
async fn attempt(house: &House, attacker: &Client, tenant: TenantId, sql: &str) -> Attack {
    house.enter(attacker, tenant, "owner").await;
    let outcome = outcome(attacker, sql).await;
    attacker.batch_execute("ROLLBACK").await.unwrap();
    if outcome == "permitted" { Allowed } else { Refused }
}

async fn first_to_see(house: &House) -> Seen {
    let report = examine(&house.database.options(), &DoctorOptions::default()).await.unwrap();
    if lines(&report).is_empty() {
        return Seen::Nobody;
    }
    // A new server, and the one that runs.
    if house.database.freehold().await.is_err() {
        assert!(house.freehold.check().await.is_err(), "none would start, so none is ready");
        return Start;
    }
    match house.freehold.protection().list_critical().await.unwrap().is_empty() {
        true => Doctor,
        false => Readiness,
    }
}

/// Attributes and memberships of a role, and the error of a server that connects with it. Roles belong to the
/// whole PostgreSQL, so each test has roles of its own.
const ROLES: &[(&str, &str)] = &[
    ("ALTER ROLE {r} SUPERUSER", "a superuser"),
    ("ALTER ROLE {r} BYPASSRLS", "a role with BYPASSRLS"),
    ("ALTER ROLE {r} CREATEROLE", "a role with CREATEROLE"),
    ("GRANT freehold_owner TO {r}", "the owner of the tenants' tables"),
    ("GRANT pg_read_all_data TO {r}", "the predefined role pg_read_all_data"),
    ("GRANT pg_write_all_data TO {r}", "the predefined role pg_write_all_data"),
    ("GRANT pg_read_server_files TO {r}", "the predefined role pg_read_server_files"),
    ("GRANT pg_execute_server_program TO {r}", "the predefined role pg_execute_server_program"),
    ("GRANT freehold_app TO {r}", "must connect as freehold_app"),
];

#[tokio::test]
async fn each_role_that_is_not_bound_is_refused() {
    let house = house().await;
    let superuser = house.superuser().await;
    for (at, (fault, said)) in ROLES.iter().enumerate() {
        let role = format!("mutant_{at}_{}", uuid::Uuid::new_v4().simple());
        superuser.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
        superuser.batch_execute(&fault.replace("{r}", &role)).await.unwrap();
        let url = house.database.app_url();
        let (_, host) = url.rsplit_once('@').unwrap();
        let options = Options::new(format!("postgres://{role}:x@{host}"));
        let refused = Freehold::connect(&options).await.err().map(|error| error.to_string());
        superuser.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
        assert!(
            refused.as_ref().is_some_and(|refused| refused.contains(said)),
            "{fault}: {refused:?}"
        );
    }
}

/// All except the list of versions, which a server reads before it has a context, and the keys, on which only
/// the owner has privileges.
#[tokio::test]
async fn every_table_of_the_catalog_is_protected() {
    let house = house().await;
    let owner = connect(&house.database.owner_url()).await;
    let rows = owner
        .query(
            "SELECT relname::text FROM pg_class c WHERE relnamespace = 'freehold'::regnamespace
             AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity
               AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive))
             ORDER BY relname",
            &[],
        )
        .await
        .unwrap();
    let open: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(open, ["catalog_migration"]);
    let rows = owner
        .query(
            "SELECT r.rolname::text || ' may ' || p
             FROM pg_roles r, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
             WHERE r.rolname ~ '^freehold_' AND r.rolname <> 'freehold_guard'
               AND CASE WHEN p IN ('DELETE', 'TRUNCATE', 'TRIGGER') THEN has_table_privilege(r.oid, 'freehold_guard.seal_key', p)
                 ELSE has_any_column_privilege(r.oid, 'freehold_guard.seal_key', p) END",
            &[],
        )
        .await
        .unwrap();
    let may: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(may, [""; 0]);
}
