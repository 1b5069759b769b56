//! What sessions of one role could learn about and do to each other, apart from rows. To PostgreSQL all
//! tenants are one role, to which injected SQL returns by `set_config('role', 'none', …)`.

use std::time::Duration;

use freehold::doctor::{DoctorOptions, examine};
use freehold::{InitOptions, SealMode, init};
use tokio_postgres::Client;

use crate::doctor::lines;
use crate::support::{
    House, admin_url, connect, house, house_of_one, outcome, sqlstate, wait_until,
};

mod executing;

const REFUSED: &str = "42501";

/// The lock under which tests prepare databases, one at a time, since roles belong to the server.
const PREPARING: &str = "SELECT pg_advisory_lock(72374651)";

/// The beginning of SQL injected into one statement: it becomes the app role again.
const AS_APP: &str = "set_config('role', 'none', true)";

#[tokio::test]
async fn no_session_sees_what_another_runs() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&globex).await.unwrap();
    tx.query("SELECT 'a secret of globex'", &[]).await.unwrap();
    for source in [
        "SELECT string_agg(query, ' ') FROM pg_stat_activity",
        "SELECT string_agg(query, ' ') FROM pg_stat_get_activity(NULL)",
        "SELECT string_agg(pg_stat_get_backend_activity(id), ' ') FROM pg_stat_get_backend_idset() id",
    ] {
        for sql in [source.to_owned(), format!("SELECT ({source}) FROM (SELECT {AS_APP}) a")] {
            let refused = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), REFUSED, "{sql}");
        }
    }
    // Its own, of which the one is a cursor of this moment, and others' statements are in neither.
    let injected = format!("SELECT {AS_APP}, (SELECT string_agg(statement, ' ') FROM pg_cursors)");
    let rows = house.freehold.query(&acme, &injected, &[]).await.unwrap();
    let seen: Option<&str> = rows[0].get(1);
    assert!(!seen.unwrap_or_default().contains("globex"), "{seen:?}");
}

#[tokio::test]
async fn monitoring_goes_on_by_the_roles_that_postgresql_has_for_it() {
    let house = house().await;
    let superuser = house.superuser().await;
    for role in ["pg_monitor", "pg_read_all_stats"] {
        let sql =
            format!("BEGIN; SET LOCAL ROLE {role}; SELECT query FROM pg_stat_activity; ROLLBACK");
        superuser.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{role}: {error}"));
    }
}

#[tokio::test]
async fn statements_that_an_extension_keeps_are_nobodys_in_a_tenant() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let extension = "SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'";
    if superuser.query_opt(extension, &[]).await.unwrap().is_none() {
        eprintln!("skipped: this PostgreSQL comes without its contrib modules");
        return;
    }
    superuser
        .batch_execute(
            "CREATE SCHEMA monitoring; GRANT USAGE ON SCHEMA monitoring TO PUBLIC;
             CREATE EXTENSION pg_stat_statements SCHEMA monitoring",
        )
        .await
        .unwrap();
    let sources = [
        "monitoring.pg_stat_statements",
        "monitoring.pg_stat_statements(true)",
        "monitoring.pg_stat_statements_info",
        "monitoring.pg_stat_statements_info()",
    ];
    let found = found_by_the_doctor(&house).await;
    for object in ["pg_stat_statements:", "pg_stat_statements(boolean):", "_info:", "_info():"] {
        assert!(
            found.iter().any(|line| line.starts_with("FH405") && line.contains(object)),
            "{found:?}"
        );
    }
    // Following the doctor's advice suffices.
    prepare(&house).await;
    assert_eq!(found_by_the_doctor(&house).await, [""; 0]);
    for source in sources {
        for sql in [
            format!("SELECT * FROM {source}"),
            format!("SELECT (SELECT count(*) FROM {source}) FROM (SELECT {AS_APP}) a"),
        ] {
            let refused = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), REFUSED, "{sql}");
        }
        // Not loaded, and so of no use here; but the right is there.
        let sql = format!("BEGIN; SET LOCAL ROLE pg_monitor; SELECT * FROM {source}; ROLLBACK");
        let answered = superuser.batch_execute(&sql).await;
        superuser.batch_execute("ROLLBACK").await.unwrap();
        let code = answered.err().and_then(|error| error.code().cloned());
        assert!(code.is_none_or(|code| code.code() != REFUSED), "{source}");
    }
}

/// PostgreSQL's samples of every table's values, by the views that everybody may read.
#[tokio::test]
async fn no_statistics_of_values_are_shown_in_a_tenant() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    for tenant in [&acme, &globex] {
        house.script(tenant, "CREATE STATISTICS two (mcv) ON id, body FROM notes; INSERT INTO notes (body) SELECT 'secret' FROM generate_series(1, 100)").await;
    }
    house.superuser().await.batch_execute("ANALYZE").await.unwrap();
    let attacker = house.attacker().await;
    for role in ["viewer", "owner", "none"] {
        house.enter(&attacker, acme.tenant(), if role == "none" { "owner" } else { role }).await;
        if role == "none" {
            attacker.batch_execute(&format!("SELECT {AS_APP}")).await.unwrap();
        }
        for view in ["pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"] {
            let sql = format!(
                "SELECT count(*) FROM pg_catalog.{view} WHERE schemaname ~ '^(tenant_|freehold)' AND tablename <> 'catalog_migration'"
            );
            let rows = attacker.query_one(&sql, &[]).await.unwrap();
            assert_eq!(rows.get::<_, i64>(0), 0, "as {role}: {view}");
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// The pool's connection goes to the next tenant, with the locks that its session holds.
#[tokio::test]
async fn no_lock_outlasts_the_transaction_that_took_it() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for function in [
        "pg_advisory_lock(7)",
        "pg_advisory_lock(7, 7)",
        "pg_advisory_lock_shared(7)",
        "pg_advisory_lock_shared(7, 7)",
        "pg_try_advisory_lock(7)",
        "pg_try_advisory_lock(7, 7)",
        "pg_try_advisory_lock_shared(7)",
        "pg_try_advisory_lock_shared(7, 7)",
    ] {
        for sql in [
            format!("SELECT {function}"),
            format!("SELECT (SELECT {function}) FROM (SELECT {AS_APP}) a"),
        ] {
            let refused = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
            assert_eq!(sqlstate(&refused), REFUSED, "{sql}");
        }
    }
    // Triggers of baselines take these, and they end by themselves.
    house.freehold.query(&acme, "SELECT pg_advisory_xact_lock(7)", &[]).await.unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = house.freehold.query(&globex, held, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 0);
}

/// `init` waits for no lock that the app role can hold.
#[tokio::test]
async fn no_lock_of_the_app_role_holds_init_up() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    attacker.batch_execute("SELECT pg_advisory_xact_lock(7237465)").await.unwrap();
    // A session lock, which a tenant's SQL could hold if no superuser has revoked the functions from PUBLIC.
    let superuser = house.superuser().await;
    superuser.batch_execute("SELECT pg_advisory_lock(7237466)").await.unwrap();
    let prepared = tokio::time::timeout(Duration::from_secs(30), prepare(&house)).await;
    assert!(prepared.is_ok(), "init waits for a lock that anybody can take");
    assert_eq!(outcome(&attacker, "CREATE SCHEMA freehold_init_under_way").await, REFUSED);
}

#[tokio::test]
async fn two_inits_of_a_fresh_database_take_turns() {
    let admin = connect(&admin_url()).await;
    admin.batch_execute(PREPARING).await.unwrap();
    let name = fresh_database(&admin).await;
    let url = admin_url();
    let (base, _) = url.rsplit_once('/').unwrap();
    let url = format!("{base}/{name}");
    let options = InitOptions { seal: Some(SealMode::Portable), ..InitOptions::default() };
    let (one, other) = tokio::join!(init(&url, &options), init(&url, &options));
    let mut before = [one.unwrap().catalog_before, other.unwrap().catalog_before];
    before.sort_unstable();
    assert_eq!(before[0], 0, "one of them made the catalog");
    assert_eq!(before[1], freehold::CATALOG_VERSION, "the other found it there");
    // A third run waits while another is in progress, and begins when that one has failed.
    let slow = connect(&url).await;
    slow.batch_execute("BEGIN; CREATE SCHEMA freehold_init_under_way").await.unwrap();
    let (third, ()) = tokio::join!(init(&url, &options), async {
        let watcher = connect(&url).await;
        wait_until("the third init waits", Duration::from_secs(20), async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND query ~ 'freehold_init_under_way'";
            watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        slow.batch_execute("ROLLBACK").await.unwrap();
    });
    third.unwrap();
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}

/// Dropped as a leftover, should the test fail.
async fn fresh_database(admin: &Client) -> String {
    let now = "SELECT 'freehold_test_' || date_part('epoch', now())::int8 || '_inits'";
    let name: String = admin.query_one(now, &[]).await.unwrap().get(0);
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    name
}

/// Runs `init` on the test's database, as a superuser.
async fn prepare(house: &House) {
    let admin = connect(&admin_url()).await;
    admin.batch_execute(PREPARING).await.unwrap();
    init(&house.database.superuser_url(), &InitOptions::default()).await.unwrap();
}

async fn found_by_the_doctor(house: &House) -> Vec<String> {
    lines(&examine(&house.database.options(), &DoctorOptions::default()).await.unwrap())
}
