//! What PostgreSQL offers besides tables: none of it may lead from one tenant to another, or out of the
//! database.

use crate::support::{house, house_with, notes_and, outcome, sqlstate};

const REFUSED: &str = "42501";

#[tokio::test]
async fn nothing_that_leads_out_of_a_tenant_is_permitted() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    let theirs = globex.tenant().schema();
    let sentences = [
        format!("TRUNCATE {theirs}.notes"),
        format!("TRUNCATE {theirs}.notes CASCADE"),
        format!("DROP TABLE {theirs}.notes"),
        format!("DROP SCHEMA {theirs} CASCADE"),
        format!("ALTER TABLE {theirs}.notes DISABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {theirs}.notes OWNER TO freehold_app"),
        format!("DROP POLICY tenant_isolation ON {theirs}.notes"),
        format!("CREATE POLICY open ON {theirs}.notes USING (true)"),
        format!(
            "CREATE TRIGGER t AFTER INSERT ON {theirs}.notes EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        format!("CREATE INDEX ON {theirs}.notes (body)"),
        format!("CREATE TABLE {theirs}.mine (id int)"),
        format!("CREATE VIEW {theirs}.mine AS SELECT 1"),
    ];
    let general = [
        "TRUNCATE notes",
        "COPY notes TO '/tmp/stolen'",
        "COPY notes FROM '/etc/passwd'",
        "COPY notes TO PROGRAM 'cat'",
        "COPY notes FROM PROGRAM 'echo 1'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_stat_file('PG_VERSION')",
        "SELECT lo_creat(-1)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'a drop box')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/stolen')",
        "SELECT lo_open(1, 262144)",
        "SELECT lo_get(1)",
        "SELECT lo_put(1, 0, 'x')",
        "SELECT lo_unlink(1)",
        "SELECT loread(0, 10)",
        "DO $$ BEGIN NULL; END $$",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
        "SELECT * FROM pg_prepared_statements",
        // There is no such process: the function itself is refused, not its use on a superuser's session.
        "SELECT pg_terminate_backend(0)",
        "SELECT pg_cancel_backend(0)",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_switch_wal()",
        "SELECT pg_stat_reset()",
        "SELECT freehold.run_migration('SELECT 1')",
        "CREATE TABLE mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE TABLE freehold.mine (id int)",
        "CREATE TEMP TABLE notes (id int)",
        "CREATE TABLE pg_temp.notes (id int)",
        "CREATE TEMP VIEW notes AS SELECT 1",
        "SELECT 1 AS id INTO TEMP notes",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE mine AS ENUM ('a')",
        "CREATE TYPE public.mine AS (a int)",
        "CREATE DOMAIN public.mine AS text",
        "CREATE SEQUENCE public.mine",
        "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION file_fdw",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE SERVER mine FOREIGN DATA WRAPPER nothing",
        "ALTER ROLE freehold_app SUPERUSER",
        "ALTER ROLE freehold_app BYPASSRLS",
        "ALTER ROLE freehold_owner PASSWORD 'known'",
        "ALTER SYSTEM SET row_security = off",
        "SET ROLE freehold_owner",
        "SET ROLE freehold_analytics",
        "SET SESSION AUTHORIZATION freehold_owner",
        "SET session_replication_role = replica",
        "GRANT freehold_owner TO freehold_app",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_user_mapping",
    ];
    let allowed_elsewhere = ["CREATE DATABASE mine"];
    for role in ["viewer", "member", "admin", "owner", "bare"] {
        house.enter(&attacker, acme.tenant(), if role == "bare" { "owner" } else { role }).await;
        if role == "bare" {
            attacker.batch_execute("RESET ROLE").await.unwrap();
        }
        for sql in sentences.iter().map(String::as_str).chain(general) {
            let got = outcome(&attacker, sql).await;
            let refused = match sql {
                // Refused before rights are looked at.
                sql if allowed_elsewhere.contains(&sql) => "25001",
                // The bare role does not find a table without its schema.
                sql if role == "bare" && got == "42P01" && !sql.contains('.') => "42P01",
                // Refused for the transaction before rights are looked at.
                sql if sql.starts_with("ALTER SYSTEM") => "25001",
                // There is no schema to create it in on the bare role's path.
                sql if role == "bare" && got == "3F000" && sql.starts_with("CREATE") => "3F000",
                // The foreign-data wrapper is not there at all.
                sql if sql.starts_with("CREATE SERVER") => "42704",
                _ => REFUSED,
            };
            assert_eq!(got, refused, "as {role}: {sql}");
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}

#[tokio::test]
async fn turning_row_security_off_is_an_error_and_not_a_way_around() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    for schema in [acme.tenant().schema(), globex.tenant().schema()] {
        let sql = format!("SET LOCAL row_security = off; SELECT * FROM {schema}.notes");
        assert_eq!(outcome(&attacker, &sql).await, REFUSED);
    }
}

/// A table that numbers its own rows needs no privilege on its sequence, so no role has one: it would apply
/// across tenants, since row-level security does not cover sequences.
#[tokio::test]
async fn the_sequence_behind_another_tenants_identity_column_is_closed() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    let sequence = format!("{}.notes_id_seq", globex.tenant().schema());
    for sql in [
        format!("SELECT nextval('{sequence}')"),
        format!("SELECT setval('{sequence}', 1)"),
        format!("SELECT currval('{sequence}')"),
        format!("SELECT last_value FROM {sequence}"),
    ] {
        assert_eq!(outcome(&attacker, &sql).await, REFUSED, "{sql}");
    }
    house.freehold.query(&globex, "INSERT INTO notes (body) VALUES ('next')", &[]).await.unwrap();
}

#[tokio::test]
async fn a_sequence_that_a_default_asks_gives_numbers_and_is_not_set() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let later = "CREATE TABLE invoices (no serial PRIMARY KEY, total numeric NOT NULL)";
    house.migrate(&notes_and(&[later])).await.unwrap();
    for no in 1..=3 {
        let insert = "INSERT INTO invoices (total) VALUES (1) RETURNING no";
        let rows = house.freehold.query(&acme, insert, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), no);
    }
    house.freehold.query(&acme, "SELECT setval('invoices_no_seq', 1)", &[]).await.unwrap_err();
}

/// Even if TEMPORARY is granted, a temporary table must not hide the tenant's.
#[tokio::test]
async fn temporary_tables_are_searched_last() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let grant = "DO $$ BEGIN
                   EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database());
                 END $$";
    house.superuser().await.batch_execute(grant).await.unwrap();
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    let plant = "CREATE TEMP TABLE notes AS SELECT 1 AS id, 'planted' AS body";
    attacker.batch_execute(plant).await.unwrap();
    let row = attacker.query_one("SELECT body FROM notes", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "acme");
}

/// It has the owner's rights, but is restricted to the caller's tenant.
#[tokio::test]
async fn a_function_of_the_owners_is_bound_to_its_callers_tenant() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let theirs = acme.tenant().schema();
    let function = format!(
        "CREATE FUNCTION peek() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
         AS 'SELECT body FROM {theirs}.notes'"
    );
    house.script(&acme, &function).await;
    let attacker = house.attacker().await;
    let peek = format!("SELECT {theirs}.peek()");
    for (tenant, expected) in [(&acme, "permitted"), (&globex, REFUSED)] {
        house.enter(&attacker, tenant.tenant(), "owner").await;
        assert_eq!(outcome(&attacker, &peek).await, expected);
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    attacker.batch_execute("BEGIN").await.unwrap();
    assert_eq!(outcome(&attacker, &peek).await, REFUSED, "without any context");
}

/// A function of the baseline that executes text turns one SELECT into a script. After RESET ROLE it runs as
/// freehold_app, which reaches none of the catalog's tables, in any context.
#[tokio::test]
async fn one_statement_of_a_tenant_reaches_no_table_of_the_catalog() {
    let run = "CREATE FUNCTION run(sql text) RETURNS boolean LANGUAGE plpgsql AS
               $$ BEGIN EXECUTE sql; RETURN true; END $$";
    let house = house_with(&notes_and(&[run])).await;
    let (acme, _) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'freehold'::regnamespace AND relkind = 'r'";
    let tables = superuser.query(tables, &[]).await.unwrap();
    let mut scripts: Vec<String> = tables
        .iter()
        .map(|row| row.get::<_, &str>(0))
        .filter(|table| *table != "catalog_migration")
        .map(|table| format!("SELECT * FROM freehold.{table}"))
        .collect();
    assert!(scripts.len() > 20, "{scripts:?}");
    scripts.extend(
        [
            "UPDATE freehold.membership SET role = 'owner' RETURNING role",
            "INSERT INTO freehold.membership SELECT * FROM freehold.membership RETURNING role",
            "DELETE FROM freehold.session RETURNING id",
            "SELECT freehold.record_audit('[]')",
            "SELECT freehold.take_guess('{}', '{}', '{}')",
            "SELECT freehold.prune_violations()",
            "SELECT nextval('freehold.cache_epoch_seq')",
            "SELECT * FROM freehold_guard.seal_key",
            "SELECT freehold_guard.newest_key()",
        ]
        .map(str::to_owned),
    );
    for script in scripts {
        let quoted = script.replace('\'', "''");
        for role in ["none", "freehold_app", "freehold_viewer", "freehold_admin"] {
            let sql = format!(
                "SELECT run('{quoted}') FROM (SELECT set_config('role', '{role}', true) OFFSET 0) s"
            );
            let error = house.freehold.query(&acme, &sql, &[]).await.expect_err(&sql);
            assert_eq!(sqlstate(&error), "42501", "{role}: {script}: {error}");
        }
    }
}
