//! Sequences: rows are numbered, and no tenant role has a privilege on a sequence.

use freehold::control::violations::{ViolationFilter, ViolationKind};
use freehold::doctor::{DoctorOptions, examine};
use freehold::{ErrorKind, Freehold, TenantContext};

use crate::doctor::lines;
use crate::support::{House, connect, house, notes_and, operator, outcome, sqlstate, wait_until};

const REFUSED: &str = "42501";

/// Every way in which a table comes to its numbers.
const NUMBERED: &str = "
CREATE TABLE invoices (no serial PRIMARY KEY, total numeric NOT NULL DEFAULT 0);
CREATE TABLE small (no smallserial, big bigserial);
CREATE SEQUENCE tickets START WITH 1001;
CREATE TABLE issues (key text NOT NULL DEFAULT 'T-' || nextval('tickets'), body text);
CREATE TABLE tasks (key text NOT NULL DEFAULT 'nextval(' || nextval('tickets'), body text);
CREATE DOMAIN ticket_no AS bigint DEFAULT nextval('tickets');
CREATE TABLE calls (no ticket_no, body text);
CREATE FUNCTION next_ticket() RETURNS text LANGUAGE sql AS $$ SELECT 'F-' || nextval('tickets') $$;
CREATE FUNCTION next_atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT nextval('tickets'); END;
CREATE TABLE letters (key text NOT NULL DEFAULT next_ticket(), no bigint DEFAULT next_atomic());
CREATE TABLE stamped (no bigint, body text);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.no := pg_catalog.nextval('tickets'); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE log (no bigserial, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE log_all PARTITION OF log DEFAULT";

async fn numbered() -> (House, TenantContext, TenantContext) {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.migrate(&notes_and(&[NUMBERED])).await.unwrap();
    (house, acme, globex)
}

async fn one<T: for<'a> freehold::postgres_types::FromSql<'a>>(
    freehold: &Freehold,
    tenant: &TenantContext,
    sql: &str,
) -> T {
    let rows = freehold.query(tenant, sql, &[]).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error}"))[0].get(0)
}

#[tokio::test]
async fn every_table_numbers_its_rows_and_each_tenant_has_numbers_of_its_own() {
    let (house, acme, globex) = numbered().await;
    let later = house.tenant("later").await;
    let freehold = &house.freehold;
    for tenant in [&acme, &globex, &later] {
        for no in 1..=3 {
            let sql = "INSERT INTO invoices DEFAULT VALUES RETURNING no";
            assert_eq!(one::<i32>(freehold, tenant, sql).await, no);
        }
        let sql = "INSERT INTO small DEFAULT VALUES RETURNING no + big";
        assert_eq!(one::<i64>(freehold, tenant, sql).await, 2);
        for (sql, key) in [
            ("INSERT INTO issues DEFAULT VALUES RETURNING key", "T-1001"),
            ("INSERT INTO tasks DEFAULT VALUES RETURNING key", "nextval(1002"),
            ("INSERT INTO calls (body) VALUES ('x') RETURNING no::text", "1003"),
            ("INSERT INTO letters DEFAULT VALUES RETURNING key || ' ' || no", "F-1004 1005"),
            ("INSERT INTO stamped (body) VALUES ('x') RETURNING no::text", "1006"),
            ("INSERT INTO log (at) VALUES ('2026-01-01') RETURNING no::text", "1"),
            ("INSERT INTO log_all (at) VALUES ('2026-01-01') RETURNING no::text", "2"),
            ("INSERT INTO invoices (no) VALUES (77) RETURNING no::text", "77"),
        ] {
            assert_eq!(one::<String>(freehold, tenant, sql).await, key, "{sql}");
        }
    }
    let report = examine(&house.database.options(), &DoctorOptions::default()).await.unwrap();
    assert_eq!(lines(&report), [""; 0], "the template and tenants of both ages are alike");
}

/// As every role of a tenant, and as the app role behind them.
#[tokio::test]
async fn no_sequence_is_read_set_or_advanced_by_anybody_in_a_tenant() {
    let (house, acme, globex) = numbered().await;
    house.freehold.query(&globex, "INSERT INTO invoices DEFAULT VALUES", &[]).await.unwrap();
    let attacker = house.attacker().await;
    for role in ["viewer", "member", "admin", "owner", "none"] {
        house.enter(&attacker, acme.tenant(), if role == "none" { "owner" } else { role }).await;
        if role == "none" {
            attacker.batch_execute("SELECT set_config('role', 'none', true)").await.unwrap();
        }
        for tenant in [&acme, &globex] {
            for name in
                ["tickets", "invoices_no_seq", "small_big_seq", "log_no_seq", "notes_id_seq"]
            {
                let sequence = format!("{}.{name}", tenant.tenant().schema());
                for sql in [
                    format!("SELECT nextval('{sequence}')"),
                    format!("SELECT setval('{sequence}', 1)"),
                    format!("SELECT currval('{sequence}')"),
                    format!("SELECT last_value FROM {sequence}"),
                ] {
                    assert_eq!(outcome(&attacker, &sql).await, REFUSED, "as {role}: {sql}");
                }
                // PostgreSQL answers, and hides the number: NULL.
                let last = format!(
                    "SELECT last_value FROM pg_sequences WHERE sequencename = '{name}' AND last_value IS NOT NULL"
                );
                assert!(attacker.query(&last, &[]).await.unwrap().is_empty(), "as {role}: {last}");
            }
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    let next = "INSERT INTO invoices DEFAULT VALUES RETURNING no";
    assert_eq!(one::<i32>(&house.freehold, &globex, next).await, 2, "nothing was advanced");
}

/// With the owner's rights it would tell a tenant the number that another's row was given before, on the same
/// connection.
#[tokio::test]
async fn what_asks_for_the_last_number_of_the_session_is_refused_with_its_cure() {
    let house = house().await;
    house.migrate(&notes_and(&[])).await.unwrap();
    for (sql, name) in [
        (
            "CREATE FUNCTION told() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT lastval()'",
            "told()",
        ),
        (
            "CREATE FUNCTION told() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN pg_catalog.LastVal (); END'",
            "told()",
        ),
        (
            "CREATE FUNCTION told() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT lastval(); END",
            "told()",
        ),
        ("CREATE TABLE parts (whole bigint DEFAULT lastval())", "parts"),
        ("CREATE TABLE parts (whole bigint CHECK (whole <= lastval()))", "parts"),
        ("CREATE DOMAIN part AS bigint DEFAULT lastval()", "part"),
        ("CREATE VIEW told AS SELECT lastval() AS no", "told"),
    ] {
        let refused = house.migrate(&notes_and(&[sql])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Migration, "{sql}");
        let message = refused.to_string();
        let expected =
            format!("{name} calls lastval(), which may return another tenant's number: use INSERT");
        assert!(message.contains(&expected), "{sql}: {message}");
    }
    // A file may ask for the number that it has just been given.
    let seed = "CREATE FUNCTION my_lastval() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
        INSERT INTO notes (body) SELECT 'seed' WHERE my_lastval() > 0;
        INSERT INTO tags SELECT lastval(), 'seed'";
    house.migrate(&notes_and(&[seed])).await.unwrap();
}

/// PostgreSQL reveals the session's last number only to a role that may use the sequence.
#[tokio::test]
async fn the_last_number_of_a_session_is_told_to_nobody() {
    let (house, acme, _) = numbered().await;
    let insert = ("INSERT INTO invoices DEFAULT VALUES", &[][..]);
    for sql in [
        "SELECT lastval()",
        "SELECT currval('invoices_no_seq')",
        "SELECT pg_sequence_last_value('invoices_no_seq')",
    ] {
        let refused = house.freehold.pipeline(&acme, &[insert, (sql, &[])]).await;
        match refused {
            Err(refused) => assert_eq!(sqlstate(refused.error()), REFUSED, "{sql}"),
            // PostgreSQL 18 returns NULL for this one.
            Ok(answers) => assert_eq!(answers[1].rows[0].get::<_, Option<i64>>(0), None, "{sql}"),
        }
    }
}

#[tokio::test]
async fn next_value_gives_numbers_of_the_contexts_tenant_and_of_no_other() {
    let (house, acme, globex) = numbered().await;
    let freehold = &house.freehold;
    let own = "SELECT freehold.next_value('tickets')";
    assert_eq!(one::<i64>(freehold, &acme, own).await, 1001);
    let theirs = format!("{}.tickets", globex.tenant().schema());
    for sequence in [
        theirs.as_str(),
        "freehold_guard.session_number",
        "freehold.cache_epoch_seq",
        "freehold_template.tickets",
        "notes",
        "pg_catalog.pg_class",
    ] {
        for role in [
            "",
            ", set_config('role', 'freehold_admin', true)",
            ", set_config('search_path', 'freehold', true)",
        ] {
            let sql = format!("SELECT freehold.next_value('{sequence}'){role}");
            let refused = freehold.query(&acme, &sql, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), REFUSED, "{sql}: {refused}");
            // The template's schema is not even found.
            let is_violation = refused.kind() == ErrorKind::Violation;
            assert!(is_violation || sequence.starts_with("freehold_template"), "{sql}: {refused}");
        }
    }
    // The app role without a tenant's, and without a context at all.
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    let bare = "SELECT set_config('role', 'none', true)";
    attacker.batch_execute(bare).await.unwrap();
    assert_eq!(outcome(&attacker, &own.replace("tickets", &theirs)).await, REFUSED);
    attacker.batch_execute("ROLLBACK; BEGIN; SET LOCAL ROLE freehold_admin").await.unwrap();
    assert_eq!(outcome(&attacker, &own.replace("tickets", &theirs)).await, REFUSED);
    attacker.batch_execute("ROLLBACK").await.unwrap();
    // The owner of a script has the tenant's context too.
    let script = format!("SELECT freehold.next_value('{theirs}')");
    let refused =
        freehold.tenants().run_script(&operator(), acme.tenant(), &script).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation, "{refused}");
    let owner = connect(&house.database.owner_url()).await;
    owner.batch_execute(&script).await.expect("without a context the owner may, as everywhere");
    assert_eq!(one::<i64>(freehold, &globex, own).await, 1002, "the owner's, and no other");
    wait_until("the attempts are recorded", std::time::Duration::from_secs(60), async || {
        let filter = ViolationFilter {
            kind: Some(ViolationKind::ContextRefused),
            ..ViolationFilter::default()
        };
        let recorded =
            freehold.violations().list(&operator(), &filter, None, Some(50)).await.unwrap();
        recorded.iter().any(|violation| violation.violation.target == Some(globex.tenant()))
    })
    .await;
}

/// A function of the baseline that takes a sequence's name runs with the owner's rights.
#[tokio::test]
async fn a_definer_function_that_asks_what_it_is_told_asks_for_its_callers_tenant() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let later = "CREATE SEQUENCE tickets;
        CREATE FUNCTION ask(s regclass) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog AS 'BEGIN RETURN nextval(s); END'";
    house.migrate(&notes_and(&[later])).await.unwrap();
    assert_eq!(one::<i64>(&house.freehold, &acme, "SELECT ask('tickets')").await, 1);
    let sql = format!("SELECT ask('{}.tickets')", globex.tenant().schema());
    let refused = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation);
}

#[tokio::test]
async fn a_serial_column_keeps_its_sequences_name_settings_and_position() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let later = [
        "CREATE SEQUENCE odd INCREMENT BY 2 START WITH 5 MINVALUE 3 MAXVALUE 99 CACHE 4 CYCLE;
         CREATE TABLE a (no bigint NOT NULL DEFAULT nextval('odd')); ALTER SEQUENCE odd OWNED BY a.no;
         GRANT USAGE ON SEQUENCE odd TO freehold_admin;
         CREATE TABLE b (no serial, body text); INSERT INTO b (body) SELECT 'x' FROM generate_series(1, 7);
         CREATE TABLE c (no serial); SELECT setval('c_no_seq', 500, false);
         CREATE TABLE d (no serial); ALTER TABLE d ALTER COLUMN no TYPE bigint;
         CREATE TABLE e (no serial, body text); INSERT INTO e (body) SELECT 'x' FROM generate_series(1, 7);
         CREATE TABLE f (no serial); SELECT setval('f_no_seq', 500, false)",
        // Later migrations of a column that was serial.
        "ALTER TABLE b ALTER COLUMN no TYPE bigint;
         SELECT setval('b_no_seq', 40);
         INSERT INTO b (body) VALUES ('later');
         SELECT nextval('c_no_seq');
         ALTER SEQUENCE c_no_seq RESTART WITH 900",
    ];
    house.migrate(&notes_and(&later)).await.unwrap();
    let sql = "SELECT string_agg(concat_ws(' ', sequencename, data_type, start_value, increment_by, min_value, max_value, cache_size, cycle), E'\\n' ORDER BY sequencename)
        FROM pg_sequences WHERE schemaname = $1 AND sequencename IN ('odd', 'd_no_seq')";
    let superuser = house.superuser().await;
    let row = superuser.query_one(sql, &[&acme.tenant().schema()]).await.unwrap();
    assert_eq!(
        row.get::<_, &str>(0),
        "d_no_seq bigint 1 1 1 9223372036854775807 1 f\nodd bigint 5 2 3 99 4 t"
    );
    let freehold = &house.freehold;
    for (sql, no) in [
        ("INSERT INTO a DEFAULT VALUES RETURNING no", 5),
        ("INSERT INTO b (body) VALUES ('x') RETURNING no", 42),
        ("INSERT INTO c DEFAULT VALUES RETURNING no::int8", 900),
        ("INSERT INTO d DEFAULT VALUES RETURNING no::int8", 1),
        ("INSERT INTO e (body) VALUES ('x') RETURNING no::int8", 8),
        ("INSERT INTO f DEFAULT VALUES RETURNING no::int8", 500),
    ] {
        assert_eq!(one::<i64>(freehold, &acme, sql).await, no, "{sql}");
    }
    // A grant by the baseline stays, and the doctor warns about it.
    let report = examine(&house.database.options(), &DoctorOptions::default()).await.unwrap();
    let found = lines(&report);
    assert_eq!(found.len(), 2, "the template's and the tenant's: {found:?}");
    assert!(
        found.iter().all(
            |line| line.starts_with("FH308") && line.contains(".odd: freehold_admin has USAGE")
        ),
        "{found:?}"
    );
}

/// As tools' users write them, to whom the column is serial.
#[tokio::test]
async fn later_files_change_a_serial_column_as_one() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let made = "CREATE TABLE kept (no serial PRIMARY KEY, body text); GRANT USAGE ON SEQUENCE kept_no_seq TO freehold_admin;
        CREATE TABLE hook (\"Id\" serial PRIMARY KEY, body text); CREATE TABLE plain (no serial PRIMARY KEY, body text);
        CREATE TABLE gone (no bigserial, body text); CREATE TABLE theirs (no serial, body text);
        INSERT INTO kept (body) VALUES ('a'), ('b'); INSERT INTO hook (body) VALUES ('a')";
    let later = [
        "ALTER TABLE kept ALTER COLUMN no SET DEFAULT nextval('kept_no_seq')",
        "ALTER TABLE hook DROP CONSTRAINT hook_pkey, ALTER COLUMN \"Id\" DROP DEFAULT, ALTER COLUMN \"Id\" SET DATA TYPE text,
           ADD CONSTRAINT hook_pkey PRIMARY KEY (\"Id\"); DROP SEQUENCE \"hook_Id_seq\"",
        "ALTER TABLE plain ALTER no DROP DEFAULT; ALTER TABLE plain ALTER no ADD GENERATED ALWAYS AS IDENTITY (START WITH 70)",
        "DROP SEQUENCE gone_no_seq CASCADE",
        "ALTER SEQUENCE theirs_no_seq OWNED BY NONE",
    ];
    house.migrate(&notes_and(&[made])).await.unwrap();
    house.freehold.execute(&acme, "INSERT INTO kept (body) VALUES ('c')", &[]).await.unwrap();
    let all: Vec<&str> = [made].into_iter().chain(later).collect();
    let report = house.migrate(&notes_and(&all)).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 0), "{:?}", report.failed);
    let late = house.tenant("late").await;
    for (tenant, next) in [(&acme, 4), (&globex, 3), (&late, 3)] {
        let next_of = |sql: &'static str| one::<i64>(&house.freehold, tenant, sql);
        assert_eq!(next_of("INSERT INTO kept (body) VALUES ('x') RETURNING no::int8").await, next);
        assert_eq!(next_of("INSERT INTO plain (body) VALUES ('x') RETURNING no::int8").await, 70);
        assert_eq!(next_of("INSERT INTO theirs (body) VALUES ('x') RETURNING no::int8").await, 1);
        assert_eq!(next_of("INSERT INTO gone VALUES (5, 'x') RETURNING no").await, 5);
        house.freehold.execute(tenant, "INSERT INTO hook VALUES ('id', 'x')", &[]).await.unwrap();
    }
    let report = examine(&house.database.options(), &DoctorOptions::default()).await.unwrap();
    assert!(
        lines(&report).iter().all(|line| line.contains("kept_no_seq: freehold_admin has USAGE")),
        "{:?}",
        lines(&report)
    );
}

#[tokio::test]
async fn migrate_up_says_what_asks_sequences_otherwise_than_it_reads() {
    let house = house().await;
    let later = [
        NUMBERED,
        "CREATE FUNCTION last_ticket() RETURNS bigint LANGUAGE sql AS $$ SELECT currval('tickets') $$;
         GRANT USAGE ON SEQUENCE tickets TO freehold_admin",
        "CREATE TABLE quiet (id bigint GENERATED ALWAYS AS IDENTITY)",
    ];
    let report = house.migrate(&notes_and(&later)).await.unwrap();
    let said: Vec<&str> =
        report.notices.iter().map(|notice| notice.split(" call").next().unwrap()).collect();
    assert_eq!(
        said[..3],
        ["0002_later: next_ticket()", "0002_later: stamp()", "0003_later: last_ticket()"]
    );
    assert!(said[3].starts_with("0003_later: a sequence is granted"), "{said:?}");
    assert_eq!(said.len(), 4);
}
