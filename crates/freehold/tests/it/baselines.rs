//! Baselines of real applications, each with types, names, functions or grants of its own kind: each is
//! applied to the template, to existing tenants and to new ones, works in all of them, and continues to work
//! after another migration and when only pg_catalog is searched. The doctor finds nothing.

use std::process::Command;

use freehold::doctor::{DoctorOptions, examine};
use freehold::{ErrorKind, TenantContext};

use crate::doctor::lines;
use crate::support::{House, connect, house, notes_and};

struct Case {
    baseline: &'static str,
    /// Run in each tenant; the last statement returns a text.
    script: &'static [&'static str],
    yields: &'static str,
    /// The next release.
    later: &'static str,
}

const MORE: &str = "CREATE TABLE more (id int)";

async fn examine_all(house: &House) -> Vec<String> {
    let doctor = DoctorOptions { examples_max: 50, ..DoctorOptions::default() };
    lines(&examine(&house.database.options(), &doctor).await.unwrap())
}

async fn run(house: &House, tenant: &TenantContext, case: &Case) {
    let mut yielded = String::new();
    for sql in case.script {
        let rows = house.freehold.query(tenant, sql, &[]).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        if let Some(row) = rows.first().filter(|row| !row.is_empty()) {
            yielded = row.get(0);
        }
    }
    assert_eq!(yielded, case.yields);
}

/// What autovacuum, dumps and newer versions do: run with only pg_catalog in the search path.
async fn maintain(house: &House) {
    let owner = connect(&house.database.owner_url()).await;
    let select = "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname ~ '^(tenant_|freehold_template)' AND c.relkind IN ('r', 'p', 'm')
        ORDER BY c.relkind = 'm'";
    let relations = owner.query(select, &[]).await.unwrap();
    owner.batch_execute("SET search_path = ''").await.unwrap();
    for row in relations {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        let refresh =
            if kind == "m" { format!("REFRESH MATERIALIZED VIEW {name};") } else { String::new() };
        let sql =
            format!("{refresh} SELECT count(*) FROM {name}; ANALYZE {name}; REINDEX TABLE {name}");
        for sql in sql.split(';') {
            owner.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
}

/// The baseline as an author would write it for this server. Since version 17 an index or a materialized view
/// is created with only pg_catalog in the search path, so functions need a path of their own; some servers
/// are built without ICU.
async fn for_server(house: &House, baseline: &str) -> String {
    let superuser = house.superuser().await;
    let ask = "SELECT current_setting('server_version_num')::int, EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')";
    let row = superuser.query_one(ask, &[]).await.unwrap();
    let mut baseline = baseline.to_owned();
    if row.get::<_, i32>(0) >= 170_000 {
        for kind in ["IMMUTABLE", "STABLE"] {
            let path = format!("sql {kind} SET search_path FROM CURRENT AS");
            baseline = baseline.replace(&format!("sql {kind} AS"), &path);
        }
    }
    if !row.get::<_, bool>(1) {
        baseline =
            baseline.replace("provider = icu, locale = 'de'", "provider = libc, locale = 'C'");
        let any_case = "provider = icu, locale = 'und-u-ks-level2', deterministic = false";
        baseline = baseline.replace(any_case, "provider = libc, locale = 'POSIX'");
    }
    baseline
}

async fn comes_through(case: Case) {
    let house = house().await;
    let (first, later) =
        (for_server(&house, case.baseline).await, for_server(&house, case.later).await);
    let mut tenants = vec![house.tenant("older").await];
    let mut baseline = vec![first.as_str()];
    for (slug, later) in [("newer", later.as_str()), ("newest", MORE)] {
        let report = house.migrate(&notes_and(&baseline)).await.unwrap();
        assert_eq!(
            (report.migrated, report.failed.len()),
            (tenants.len(), 0),
            "{:?}",
            report.failed
        );
        tenants.push(house.tenant(slug).await);
        assert_eq!(examine_all(&house).await, [""; 0]);
        baseline.push(later);
    }
    for tenant in &tenants {
        run(&house, tenant, &case).await;
    }
    maintain(&house).await;
    let report = house.migrate(&notes_and(&baseline)).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (3, 0), "{:?}", report.failed);
    assert_eq!(examine_all(&house).await, [""; 0]);
    assert_eq!(house.freehold.protection().list_critical().await.unwrap(), [""; 0]);
}

macro_rules! baselines {
    ($($name:ident: $baseline:expr, $script:expr => $yields:expr, $later:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            comes_through(Case { baseline: $baseline, script: &$script, yields: $yields, later: $later }).await;
        })*
    };
}

/// Reached by all that is there when a dump is restored.
#[rustfmt::skip]
const BY_PATH: &str = "
        CREATE EXTENSION IF NOT EXISTS unaccent;
        CREATE TABLE words (bad text);
        CREATE FUNCTION slugify(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(unaccent(t)) $$;
        CREATE FUNCTION inlined(t text) RETURNS text LANGUAGE sql AS $$ SELECT lower(t) $$;
        CREATE FUNCTION inner_one(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT slugify(t) $$;
        CREATE FUNCTION fine(t text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN inner_one(t) <> 'x'; END $$;
        CREATE FUNCTION parsed(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN slugify(t);
        CREATE FUNCTION plus(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT inner_one(a) || inner_one(b) $$;
        CREATE OPERATOR ||| (LEFTARG = text, RIGHTARG = text, FUNCTION = plus);
        CREATE FUNCTION step(s text, t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT concat(s, slugify(t)) $$;
        CREATE AGGREGATE slugs(text) (SFUNC = step, STYPE = text, INITCOND = '');
        CREATE DOMAIN slug AS text CHECK (fine(VALUE));
        CREATE TABLE items (id int PRIMARY KEY, title text CHECK (fine(title)), slug text GENERATED ALWAYS AS (slugify(title)) STORED, d slug,
          EXCLUDE USING btree (inner_one(title) WITH =));
        CREATE INDEX ON items (inlined(title));
        CREATE INDEX ON items (slugify(title)); CREATE INDEX ON items (parsed(title)); CREATE INDEX ON items ((title ||| 'é')) WHERE fine(title);
        CREATE STATISTICS slugs_of ON (slugify(title)), (inner_one(title)) FROM items;
        CREATE TABLE parts (t text) PARTITION BY LIST (slugify(t));
        CREATE TABLE parts_e PARTITION OF parts FOR VALUES IN ('e');
        CREATE VIEW between_them AS SELECT inner_one(title) AS s FROM items;
        CREATE MATERIALIZED VIEW totals AS SELECT slugs(s) AS all_of FROM between_them";

#[rustfmt::skip]
baselines! {
    a_range: "
        CREATE TYPE span AS RANGE (subtype = time);
        CREATE TYPE \"Price Range\" AS RANGE (subtype = numeric, multirange_type_name = prices);
        CREATE TABLE shifts (id int PRIMARY KEY, during span, never span[], at prices, EXCLUDE USING gist (during WITH &&))",
        ["INSERT INTO shifts VALUES (1, span('08:00', '12:00'), ARRAY[span('01:00', '02:00')], prices(\"Price Range\"(1, 2)))",
          "SELECT during::text || at::text FROM shifts WHERE during @> '09:00'::time"] => "[08:00:00,12:00:00){[1,2)}",
        "ALTER TABLE shifts ADD COLUMN other span DEFAULT span('00:00', '01:00'); CREATE TYPE later AS RANGE (subtype = date)";
    a_range_with_functions_of_its_own: "
        CREATE FUNCTION distance(a time, b time) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT extract(epoch FROM a - b)::float8';
        CREATE TYPE span AS RANGE (subtype = time, subtype_diff = distance);
        CREATE TABLE shifts (during span); CREATE INDEX ON shifts USING gist (during)",
        ["INSERT INTO shifts SELECT span('08:00', '12:00') FROM generate_series(1, 500)", "SELECT count(*)::text FROM shifts"] => "500",
        "CREATE TABLE another (id int)";
    a_collation: "
        CREATE COLLATION german (provider = icu, locale = 'de');
        CREATE COLLATION \"Any Case\" (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE DOMAIN word AS text COLLATE german;
        CREATE TYPE pair AS (a text COLLATE german, b word);
        CREATE TABLE t (name text COLLATE german UNIQUE, nick text COLLATE \"Any Case\" PRIMARY KEY, w word, p pair,
          CHECK (name < 'zz' COLLATE german));
        CREATE INDEX t_upper ON t (upper(name) COLLATE \"Any Case\", w);
        CREATE VIEW sorted AS SELECT name FROM t ORDER BY name COLLATE german",
        ["INSERT INTO t VALUES ('z', 'Ann', 'w', ('a', 'b')), ('ä', 'bob', 'v', NULL)", "SELECT count(*)::text FROM sorted WHERE name >= 'z' COLLATE german OR name > 'a'"] => "2",
        "ALTER TABLE t ADD COLUMN other text COLLATE german; CREATE INDEX ON t (other)";
    a_text_search_configuration: "
        CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = snowball, language = english);
        CREATE TEXT SEARCH CONFIGURATION english (COPY = pg_catalog.english);
        CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
        ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH stems;
        CREATE TABLE docs (body text, found tsvector GENERATED ALWAYS AS (to_tsvector('words', body)) STORED);
        CREATE INDEX docs_found ON docs USING gin (to_tsvector('words', body)) WHERE ts_lexize('stems', 'x') IS NOT NULL;
        CREATE TABLE log (body text, config regconfig DEFAULT 'words', found tsvector);
        CREATE TRIGGER log_found BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger_column(found, config, body)",
        ["INSERT INTO docs VALUES ('running dogs')", "INSERT INTO log (body) VALUES ('running')",
          "SELECT d.found::text || l.found::text FROM docs d, log l WHERE d.found @@ to_tsquery('words', 'dog')"] => "'dog':2 'run':1'run':1",
        "ALTER TABLE docs ADD COLUMN more tsvector GENERATED ALWAYS AS (to_tsvector('words', body || 'x')) STORED";
    the_search_path_of_its_migration: "
        CREATE TABLE a (id int PRIMARY KEY, n int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$ BEGIN NEW.n := (SELECT count(*) FROM a); RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()",
        ["INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2) RETURNING n::text"] => "1",
        "CREATE PROCEDURE p() LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN INSERT INTO a VALUES (3); END $$";
    public_as_the_search_path: "
        CREATE TABLE a (id int PRIMARY KEY, n int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN NEW.n := (SELECT count(*) FROM a); RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
        CREATE FUNCTION \"Count It\"(VARIADIC a[]) RETURNS bigint LANGUAGE sql SET search_path = \"$user\", public SET work_mem = '5MB' AS 'SELECT count(*) FROM a';
        CREATE FUNCTION g() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'SELECT count(*) FROM a';
        CREATE FUNCTION h() RETURNS bigint LANGUAGE sql SET search_path TO pg_catalog, public AS 'SELECT count(*) FROM a';
        CREATE FUNCTION plain() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT pg_catalog.abs(7)::bigint';
        CREATE FUNCTION callers() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM a';
        DO 'BEGIN CREATE FUNCTION made() RETURNS bigint LANGUAGE plpgsql SET search_path = public AS $$ BEGIN RETURN (SELECT count(*) FROM a); END $$; END';
        CREATE PROCEDURE p() LANGUAGE sql SET search_path = public AS 'INSERT INTO a VALUES (9)'",
        ["INSERT INTO a VALUES (1)", "CALL p()", "SELECT concat(max(n), g(), h(), \"Count It\"(NULL::a), plain(), callers(), made()) FROM a"] => "1322722",
        "CREATE OR REPLACE FUNCTION g() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT 1 + count(*) FROM a'";
    functions_that_find_names_by_the_search_path: BY_PATH,
        ["INSERT INTO items (id, title, d) VALUES (1, 'Été', 'é')", "INSERT INTO parts VALUES ('É')", "SELECT slug || (SELECT t FROM parts_e) FROM items"] => "eteÉ",
        "CREATE FUNCTION later(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT slugify(t) $$; CREATE INDEX ON items (later(title))";
    a_function_behind_a_view_of_a_materialized_view_has_a_path: "
        CREATE TABLE t (n int); CREATE FUNCTION two() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2';
        CREATE FUNCTION n() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN two(); END';
        CREATE VIEW a AS SELECT n() AS n; CREATE VIEW b AS SELECT n FROM a; CREATE MATERIALIZED VIEW c AS SELECT n FROM b",
        ["SELECT n::text FROM b"] => "2",
        "CREATE TABLE another (id int)";
    a_restrictive_policy_that_binds_the_owner_too: "
        CREATE TABLE t (n int); CREATE FUNCTION two() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2';
        CREATE FUNCTION fine(n int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT n < two()';
        CREATE POLICY few ON t AS RESTRICTIVE USING (fine(n))",
        ["INSERT INTO t VALUES (1)", "SELECT n::text FROM t"] => "1",
        "CREATE TABLE another (id int)";
    types_in_each_other: "
        CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN feeling AS mood DEFAULT 'ok' CHECK (VALUE <> 'sad');
        CREATE TYPE entry AS (at date, felt mood[], \"Select\" feeling);
        CREATE TABLE diary (tenant int PRIMARY KEY, \"order\" mood[] DEFAULT '{ok,sad}', e entry, es entry[], CHECK ((e).felt[1] IS DISTINCT FROM 'sad'));
        CREATE FUNCTION mood_of(e entry) RETURNS mood LANGUAGE sql IMMUTABLE AS 'SELECT (e).felt[1]';
        CREATE FUNCTION number_of(m mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT CASE m WHEN 'ok' THEN 1 ELSE 0 END $$;
        CREATE CAST (mood AS int) WITH FUNCTION number_of(mood);
        CREATE INDEX ON diary ((\"order\"[1]::int)); CREATE VIEW moods AS SELECT mood_of(e)::int AS n FROM diary",
        ["INSERT INTO diary (tenant, e.at, e.felt, e.\"Select\") VALUES (1, '2026-01-01', '{ok}', 'ok')", "SELECT n::text FROM moods"] => "1",
        "ALTER TYPE entry ADD ATTRIBUTE more text; ALTER TABLE diary ADD COLUMN m mood DEFAULT 'ok'";
    names_that_are_hard_to_write: "
        CREATE TABLE \"user\" (tenant text PRIMARY KEY, \"select\" int DEFAULT 1, \"Ünï \"\"quoted\"\"\" text);
        CREATE TABLE pg_class (id serial PRIMARY KEY, relname text); CREATE TABLE abs (abs int, freehold int);
        CREATE TABLE \"a'b $$ \"\"c\" (\"public\" bigserial, tenant_id uuid DEFAULT gen_random_uuid());
        CREATE TABLE abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_abcdefghi (id serial PRIMARY KEY, \"user\" text REFERENCES \"user\");
        CREATE FUNCTION \"Set It\"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN NEW.\"select\" := 1 + (SELECT count(*) FROM \"user\"); RETURN NEW; END $$;
        CREATE TRIGGER \"Before\" BEFORE INSERT ON \"user\" FOR EACH ROW EXECUTE FUNCTION \"Set It\"();
        CREATE FUNCTION upper(\"user\") RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1.tenant) || abs(-1)';
        CREATE INDEX ON \"user\" (upper(\"user\".*))",
        ["INSERT INTO \"user\" (tenant) VALUES ('a')", "INSERT INTO \"a'b $$ \"\"c\" DEFAULT VALUES",
         "INSERT INTO abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_abcdefghi (\"user\") VALUES ('a')",
         "SELECT upper(u) || \"select\" FROM \"user\" u WHERE upper(u) = 'A1'"] => "A11",
        "ALTER FUNCTION \"Set It\"() RENAME TO \"order\";
        CREATE OR REPLACE FUNCTION \"order\"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN RETURN NEW; END $$";
    columns_granted_one_by_one: "
        CREATE TABLE payroll (id int PRIMARY KEY, name text NOT NULL, salary int NOT NULL DEFAULT 7);
        GRANT SELECT (id, name) ON payroll TO freehold_viewer; GRANT INSERT (id, name), UPDATE (name) ON payroll TO freehold_member;
        CREATE VIEW names AS SELECT id, name FROM payroll; GRANT SELECT (name) ON names TO freehold_viewer;
        CREATE MATERIALIZED VIEW sums AS SELECT sum(salary) FROM payroll",
        ["INSERT INTO payroll (id, name) VALUES (1, 'one')", "SELECT name FROM names", "SELECT name FROM payroll"] => "one",
        "ALTER TABLE payroll ADD COLUMN iban text; CREATE TABLE open (id int)";
    extensions_made_plainly: "
        CREATE EXTENSION pg_trgm; COMMENT ON EXTENSION pg_trgm IS 'x';
        CREATE EXTENSION \"hstore\" VERSION '1.7'; CREATE EXTENSION citext WITH SCHEMA public CASCADE;
        CREATE TABLE a (name citext, h hstore DEFAULT 'a=>1'); CREATE INDEX ON a USING gin (name gin_trgm_ops)",
        ["INSERT INTO a (name) VALUES ('Ann')", "SELECT extversion || (h -> 'a') FROM a, pg_extension WHERE name = 'ANN' AND extname = 'hstore'"] => "1.71",
        "CREATE EXTENSION pg_trgm; create extension\tunaccent; ALTER TABLE a ADD COLUMN plain text DEFAULT unaccent('é')";
}

#[tokio::test]
async fn an_extension_is_taken_wherever_it_is_already() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let before = "CREATE EXTENSION pg_trgm; CREATE SCHEMA extensions; CREATE EXTENSION hstore SCHEMA extensions;
        GRANT USAGE ON SCHEMA extensions TO PUBLIC";
    house.superuser().await.batch_execute(before).await.unwrap();
    let baseline = notes_and(&[
        "CREATE EXTENSION pg_trgm; CREATE EXTENSION hstore WITH SCHEMA extensions;
         COMMENT ON EXTENSION hstore IS 'a superuser''s';
         CREATE TABLE a (name text, h extensions.hstore); CREATE INDEX ON a USING gin (name gin_trgm_ops)",
        "CREATE EXTENSION hstore",
    ]);
    let report = house.migrate(&baseline).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 0), "{:?}", report.failed);
    let globex = house.tenant("globex").await;
    for tenant in [&acme, &globex] {
        let insert = "INSERT INTO a VALUES ('x', 'k=>v')";
        house.freehold.query(tenant, insert, &[]).await.unwrap();
    }
    assert_eq!(examine_all(&house).await, [""; 0]);
}

#[tokio::test]
async fn an_extension_that_is_not_there_to_be_made_is_refused_with_its_line() {
    let house = house().await;
    let error = house.migrate(&notes_and(&["SELECT 1;\nCREATE EXTENSION no_such_thing;"])).await;
    let message = error.unwrap_err().to_string();
    assert!(message.contains("0002_later") && message.contains("no_such_thing"), "{message}");
}

/// For each role, what it reads of a table with column grants.
#[tokio::test]
async fn columns_that_are_not_granted_are_read_by_analytics_alone() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let baseline = notes_and(&["CREATE TABLE payroll (id int PRIMARY KEY, salary int);
        GRANT SELECT (id) ON payroll TO freehold_viewer, freehold_analytics;
        CREATE VIEW paid AS SELECT * FROM payroll; GRANT SELECT (id) ON paid TO freehold_viewer"]);
    house.migrate(&baseline).await.unwrap();
    let globex = house.tenant("globex").await;
    for tenant in [&acme, &globex] {
        for sql in [
            "SELECT id FROM payroll",
            "SELECT salary FROM payroll",
            "SELECT salary FROM paid",
            "DELETE FROM payroll",
            "INSERT INTO payroll (id) VALUES (1)",
        ] {
            let allowed = house.freehold.query(tenant, sql, &[]).await.is_ok();
            assert_eq!(allowed, sql.starts_with("SELECT id"), "{sql}");
        }
        let superuser = house.superuser().await;
        let schema = tenant.tenant().schema();
        superuser.batch_execute("SET ROLE freehold_analytics").await.unwrap();
        let privilege = format!(
            "SELECT has_table_privilege('{schema}.payroll', 'SELECT') AND has_table_privilege('{schema}.paid', 'SELECT')"
        );
        assert!(superuser.query_one(&privilege, &[]).await.unwrap().get::<_, bool>(0));
    }
    let granted = notes_and(&[
        "CREATE TABLE payroll (id int PRIMARY KEY, salary int);
        GRANT SELECT (id) ON payroll TO freehold_viewer, freehold_analytics;
        CREATE VIEW paid AS SELECT * FROM payroll; GRANT SELECT (id) ON paid TO freehold_viewer",
        "CREATE MATERIALIZED VIEW sums AS SELECT id FROM payroll; GRANT SELECT (id) ON sums TO freehold_viewer",
    ]);
    let error = house.migrate(&granted).await.unwrap_err();
    assert!(error.to_string().contains("sums is granted"), "{error}");
}

#[tokio::test]
async fn a_function_that_brings_a_role_along_is_refused() {
    for (setting, named) in [
        ("role = none", "SET role = none"),
        ("\"role\" FROM CURRENT", "SET role"),
        ("session_authorization = freehold_owner", "SET session_authorization"),
        ("row_security = off", "SET row_security = off"),
    ] {
        let house = house().await;
        let sql =
            format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET {setting} AS 'SELECT 1'");
        let error = house.migrate(&notes_and(&[&sql])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Migration, "{setting}: {error}");
        let message = error.to_string();
        assert!(
            message.contains("f is a function that is made with") && message.contains(named),
            "{setting}: {message}"
        );
        house.migrate(&notes_and(&["CREATE FUNCTION f() RETURNS int LANGUAGE sql SET work_mem = '1MB' SET row_security = on AS 'SELECT 1'"])).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_done_to_a_functions_search_path_is_said_and_done_to_no_other() {
    let house = house().await;
    let sql = "CREATE TABLE a (t text); CREATE FUNCTION used(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(t)';
        CREATE FUNCTION unused(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT used(t)';
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER stamp BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE VIEW v AS SELECT unused(t) FROM a; CREATE INDEX ON a (used(t));
        CREATE FUNCTION named() RETURNS int LANGUAGE sql SET search_path = public AS 'SELECT 1'";
    let report = house.migrate(&notes_and(&[sql])).await.unwrap();
    assert_eq!(report.notices.len(), 2, "{:?}", report.notices);
    assert!(report.notices[0].contains("named() names public"), "{:?}", report.notices);
    assert!(report.notices[1].contains("used() is called"), "{:?}", report.notices);
    let tenant = house.tenant("acme").await;
    let rows = house
        .superuser()
        .await
        .query(
            "SELECT proname::text || ' ' || coalesce(proconfig::text, '') FROM pg_proc WHERE pronamespace = $1::text::regnamespace ORDER BY 1",
            &[&tenant.tenant().schema()],
        )
        .await
        .unwrap();
    let schema = tenant.tenant().schema();
    let path = format!("{{\"search_path={schema}, public, pg_temp\"}}");
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        found,
        [format!("named {path}"), "stamp ".into(), "unused ".into(), format!("used {path}")]
    );
}

#[tokio::test]
async fn an_index_whose_function_finds_a_name_no_more_is_refused_with_the_cure_or_taken() {
    let house = house().await;
    let baseline = notes_and(&["CREATE TABLE t (a text);
        CREATE FUNCTION inner_one(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(t)';
        CREATE FUNCTION slug(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT inner_one(t)';
        CREATE INDEX ON t (slug(a))"]);
    if let Err(error) = house.migrate(&baseline).await {
        let message = error.to_string();
        assert!(
            message.contains("function \"slug\"")
                && message.contains("SET search_path FROM CURRENT"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_indexes_and_checks_call_comes_back_from_a_dump() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    house.migrate(&notes_and(&[&for_server(&house, BY_PATH).await])).await.unwrap();
    for tenant in [&acme, &house.tenant("globex").await] {
        let insert = "INSERT INTO items (id, title, d) VALUES (1, 'Été', 'é')";
        house.freehold.query(tenant, insert, &[]).await.unwrap();
        house.freehold.query(tenant, "INSERT INTO parts VALUES ('É')", &[]).await.unwrap();
    }
    let superuser = house.superuser().await;
    let ask = "SELECT current_setting('server_version_num')::int / 10000";
    let server_major: i32 = superuser.query_one(ask, &[]).await.unwrap().get(0);
    // A pg_dump refuses a newer server: where other versions are tried, only this machine's is there.
    let version = ran("pg_dump", &["--version"]);
    let number = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    if number.unwrap().parse::<i32>().unwrap() < server_major {
        return;
    }
    let url = house.database.superuser_url();
    let (server, name) = url.rsplit_once('/').unwrap();
    let restored = format!("{name}_restored");
    let file = std::env::temp_dir().join(format!("{name}.dump"));
    let file = file.to_str().unwrap();
    superuser
        .batch_execute(&format!("CREATE DATABASE {restored} TEMPLATE template0"))
        .await
        .unwrap();
    // A materialized view is filled afterwards, as docs/backup.md says.
    ran(
        "pg_dump",
        &["-d", &url, "--format=custom", "--file", file, "--exclude-table-data=*.totals"],
    );
    let target = format!("{server}/{restored}");
    ran("pg_restore", &["-d", &target, "--exit-on-error", file]);
    let schema = acme.tenant().schema();
    let client = connect(&target).await;
    client.batch_execute("SET search_path = ''; ANALYZE").await.unwrap();
    let select = format!("SELECT slug FROM {schema}.items WHERE {schema}.slugify(title) = 'ete'");
    assert_eq!(client.query_one(&select, &[]).await.unwrap().get::<_, String>(0), "ete");
    drop(client);
    std::fs::remove_file(file).unwrap();
    let gone = format!("DROP DATABASE {restored} WITH (FORCE)");
    superuser.batch_execute(&gone).await.unwrap();
}

fn ran(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
