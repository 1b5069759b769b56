//! The worker of `freehold serve`, and the commands: one server leads, another takes over when it is killed,
//! and the figures are right afterwards.

use std::time::Duration;

use freehold::testing::{self, TestDatabase};
use freehold::{AnalyticsDefinition, AnalyticsFolder, Freehold, OperatorContext, TenantContext};
use serde_json::{Value, json};

use crate::process::{Folder, Running, freehold, http, start_freehold};
use crate::support::{SECRET, admin_url, connect, eventually, shop, text};

const SOON: Duration = Duration::from_secs(60);
const CONTEXT: OperatorContext = OperatorContext::system("a test");

const ORDERS: &str = "-- name: sales
-- grain: status
-- schedule: every 1s
-- minimum group: 1
-- watermark: changed_at, inserts only
SELECT status::text AS status, count(*) AS orders, max(created_at) AS changed_at FROM orders GROUP BY 1";

struct Fleet {
    freehold: Freehold,
    acme: TenantContext,
    // Dropped last.
    database: TestDatabase,
}

impl Fleet {
    async fn new(definition: &str) -> Fleet {
        let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
        let freehold = database.freehold().await.unwrap();
        let (_, acme) = testing::create_tenant(&freehold, "acme").await.unwrap();
        let customer = "INSERT INTO customers (email, full_name, city, country_code) VALUES ('a@b.example', 'A', 'B', 'DE')";
        freehold.query(&acme, customer, &[]).await.unwrap();
        let parsed = AnalyticsDefinition::parse(definition).unwrap();
        let folder = AnalyticsFolder::from_definitions(vec![parsed]).unwrap();
        freehold.analytics().apply(&CONTEXT, &folder).await.unwrap();
        Fleet { freehold, acme, database }
    }

    async fn order(&self) {
        let order = "INSERT INTO orders (customer_id) SELECT id FROM customers";
        self.freehold.query(&self.acme, order, &[]).await.unwrap();
    }

    /// The total that is published.
    async fn orders(&self) -> i64 {
        let scope = freehold::control::analytics::AnalyticsScope::Fleet;
        let page = self
            .freehold
            .analytics()
            .read(&CONTEXT, "sales", scope, &Default::default())
            .await
            .unwrap();
        let rows: Value = serde_json::from_str(&page.rows).unwrap();
        rows[0]["orders"].as_i64().unwrap_or(0)
    }

    async fn published(&self, orders: i64) {
        let what = format!("{orders} orders are published");
        eventually(&what, SOON, async || self.orders().await == orders).await;
    }

    fn serve(&self, more: &[(&str, &str)]) -> Server {
        let (app, owner, analytics) =
            (self.database.app_url(), self.database.owner_url(), self.database.analytics_url());
        let mut env = vec![
            ("DATABASE_URL", app.as_str()),
            ("DATABASE_OWNER_URL", &owner),
            ("DATABASE_ANALYTICS_URL", &analytics),
            ("JWT_SECRET", SECRET),
            ("LISTEN", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("DRAIN_SECS", "0"),
        ];
        env.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        env.extend(more);
        let mut running = start_freehold(&["serve"], &env);
        let line = running.wait_for("\"message\":\"serving\"", Duration::from_secs(20));
        let line: Value = serde_json::from_str(&line).unwrap();
        let port = text(&line["address"]).rsplit_once(':').unwrap().1.parse().unwrap();
        Server { running, port }
    }
}

struct Server {
    running: Running,
    port: u16,
}

const LEADS: &str = "this server does the scheduled work";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_servers_does_the_work_and_when_it_is_killed_the_other_follows() {
    let fleet = Fleet::new(ORDERS).await;
    let mut first = fleet.serve(&[]);
    first.running.wait_for(LEADS, SOON);
    let mut second = fleet.serve(&[]);
    fleet.order().await;
    fleet.published(1).await;
    assert!(!second.running.said().contains(LEADS), "two lead");

    first.running.kill();
    fleet.order().await;
    second.running.wait_for(LEADS, Duration::from_secs(15));
    fleet.published(2).await;

    // A server that is stopped releases the lock at once.
    let mut third = fleet.serve(&[]);
    second.running.stop();
    third.running.wait_for(LEADS, Duration::from_secs(15));
    fleet.order().await;
    fleet.published(3).await;
}

/// The next leader need not wait for the previous one to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_while_it_still_serves() {
    let fleet = Fleet::new(ORDERS).await;
    let mut first = fleet.serve(&[("DRAIN_SECS", "120")]);
    first.running.wait_for(LEADS, SOON);
    let mut second = fleet.serve(&[]);
    first.running.signal("TERM");
    second.running.wait_for(LEADS, SOON);
    let (status, _) = http(first.port, "GET", "/livez", "", &Value::Null).unwrap();
    assert_eq!(status, 200, "the former leader has ended");
    first.running.signal("TERM");
    assert_eq!(first.running.wait(SOON).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_the_middle_of_a_run_leaves_what_was_published_and_the_next_is_right() {
    let slow =
        ORDERS.replace("count(*)", "count(*) + coalesce(length(max(pg_sleep(1.5)::text)), 0)");
    let fleet = Fleet::new(&slow).await;
    fleet.order().await;
    let sql = connect(&fleet.database.superuser_url()).await;
    for round in 1..=3 {
        let mut server = fleet.serve(&[]);
        eventually("it reads", SOON, async || {
            let naps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            sql.query_one(naps, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        server.running.kill();
        assert_eq!(fleet.orders().await, 0, "round {round} published a part");
    }
    let _server = fleet.serve(&[]);
    fleet.published(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_worker_or_without_the_role_serves_and_collects_nothing() {
    let fleet = Fleet::new(ORDERS).await;
    fleet.order().await;
    let idle = fleet.serve(&[("WORKER", "false")]);
    let mut bare = fleet.serve(&[("DATABASE_ANALYTICS_URL", "")]);
    bare.running.wait_for("no scheduled work on this server", SOON);
    let busy = fleet.serve(&[]);
    fleet.published(1).await;
    assert!(!idle.running.said().contains(LEADS));
    for server in [idle.port, bare.port, busy.port] {
        let (status, _) = http(server, "GET", "/livez", "", &Value::Null).unwrap();
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn age_and_coverage_are_told_to_prometheus_by_every_server() {
    let fleet = Fleet::new(ORDERS).await;
    let leader = fleet.serve(&[]);
    let other = fleet.serve(&[("WORKER", "false")]);
    let metrics = |port: u16| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        text
    };
    let value = |port: u16, name: &str| -> Option<f64> {
        metrics(port).lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    for port in [leader.port, other.port] {
        eventually("age and coverage are told", SOON, async || {
            value(port, "freehold_analytics_coverage_ratio{name=\"sales\"}") == Some(1.0)
                && value(port, "freehold_analytics_age_seconds{name=\"sales\"}").is_some()
        })
        .await;
    }
    assert_eq!(value(leader.port, "freehold_worker_leads"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analytics_live_by_the_commands() {
    let fleet = Fleet::new(ORDERS).await;
    fleet.order().await;
    let folder = Folder::new();
    let (app, owner, analytics) =
        (fleet.database.app_url(), fleet.database.owner_url(), fleet.database.analytics_url());
    let env = [
        ("DATABASE_URL", app.as_str()),
        ("DATABASE_OWNER_URL", owner.as_str()),
        ("DATABASE_ANALYTICS_URL", analytics.as_str()),
    ];
    let run = |arguments: &[&str]| freehold(arguments, &env);
    let apply = ["analytics", "apply", "--folder", folder.text(), "--json"];
    std::fs::write(folder.path().join("sales.sql"), ORDERS.replace("every 1s", "every 1h"))
        .unwrap();
    let applied = run(&apply).ended(0).json();
    assert_eq!(applied, json!({"added": [], "rebuilt": [], "kept": ["sales"], "removed": []}));
    std::fs::write(folder.path().join("bad.sql"), "-- grain: day\nSELECT 1").unwrap();
    let ran = run(&apply).ended(1);
    assert!(
        ran.stderr().contains("bad.sql: the header lacks a line such as `-- name:"),
        "{}",
        ran.stderr()
    );
    std::fs::remove_file(folder.path().join("bad.sql")).unwrap();

    let listed = run(&["analytics", "list", "--json"]).ended(0).json();
    assert_eq!((&listed[0]["name"], &listed[0]["publication"]), (&json!("sales"), &Value::Null));
    let ran = run(&["analytics", "show", "sales"]).ended(0);
    assert!(ran.stdout().contains("Nothing is published yet"), "{}", ran.stdout());
    let report = run(&["analytics", "run", "--json"]).ended(0).json();
    assert_eq!((&report[0]["collected"], &report[0]["failed"]), (&json!(1), &json!(0)));
    let shown = run(&["analytics", "show", "sales", "--json"]).ended(0).json();
    assert_eq!(shown["rows"], json!([{"status": "pending", "tenants": 1, "orders": 1}]));
    assert_eq!(shown["publication"]["fresh"], 1);
    for scope in [["--tenant", "acme"].as_slice(), &["--by-tenant"]] {
        let arguments = [&["analytics", "show", "sales"], scope].concat();
        let text = run(&arguments).ended(0).stdout();
        assert!(text.contains("pending") && text.contains("ORDERS"), "{text}");
    }
    let text = run(&["analytics", "list"]).ended(0).stdout();
    assert!(text.contains("sales") && text.contains("1 of 1"), "{text}");

    // The tenant that is missing from the figures is named, and the exit code is 1.
    let schema = fleet.acme.tenant().schema();
    let sql = connect(&fleet.database.superuser_url()).await;
    sql.batch_execute(&format!("ALTER TABLE {schema}.orders RENAME status TO state"))
        .await
        .unwrap();
    let ran = run(&["analytics", "run", "sales"]).ended(1);
    assert!(ran.stderr().contains("failed: sales of acme"), "{}", ran.stderr());
    let ran = run(&["analytics", "show", "sales"]).ended(0);
    assert!(ran.stdout().contains("0 of 1 tenant fresh"), "{}", ran.stdout());
    assert!(ran.stderr().contains("stale: acme"), "{}", ran.stderr());
    for arguments in [["analytics", "run", "nothing"], ["analytics", "show", "nothing"]] {
        let ran = run(&arguments).ended(1);
        assert!(
            ran.stderr().contains("there are no analytics nothing; there are sales"),
            "{}",
            ran.stderr()
        );
    }
    let ran = freehold(&["analytics", "run"], &env[..2]).ended(1);
    assert!(ran.stderr().contains("DATABASE_ANALYTICS_URL"), "{}", ran.stderr());
    let text = run(&["analytics", "apply", "--folder", folder.text()]).ended(0).stdout();
    assert!(text.contains("Nothing has changed"), "{text}");
    std::fs::remove_file(folder.path().join("sales.sql")).unwrap();
    let text = run(&["analytics", "apply", "--folder", folder.text()]).ended(0).stdout();
    assert!(text.contains("sales: removed"), "{text}");
}
