//! Rules and dashboard for Prometheus and Grafana: they use existing metrics, and a real Prometheus that
//! scrapes a real server sees the expected alerts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use freehold::testing::{self, TestDatabase};
use freehold::{AnalyticsDefinition, AnalyticsFolder, OperatorContext};
use serde_json::Value;

use crate::process::{Folder, Running, free_port, http, http_with, start_freehold, token};
use crate::redis_server::RedisServer;
use crate::support::{SECRET, admin_url, connect, eventually, project, shop, text};

const LATE: Duration = Duration::from_secs(120);
const METRICS_TOKEN: &str = "a token that only Prometheus has";

const COUNTS: &str = "-- name: counts
-- grain: status
-- schedule: every 1s
-- minimum group: 1
SELECT status::text AS status, count(*) AS orders FROM orders GROUP BY 1";

fn read(path: &str) -> String {
    let path = project().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// The names of the service's metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("freehold_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(project().join("deploy/prometheus"))
        .output()
        .expect("promtool is here: ./dev test installs it");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said.into_owned()
}

#[test]
fn the_rules_pass_their_own_tests_and_each_alert_has_one() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["test", "rules", "rules.test.yml"]);
    let (rules, tests) =
        (read("deploy/prometheus/rules.yml"), read("deploy/prometheus/rules.test.yml"));
    let alerts = alerts(&rules);
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in alerts {
        let fires = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "no test sees {alert} fire");
    }
}

#[test]
fn each_alert_has_a_section_in_the_runbooks_and_each_section_an_alert() {
    let (rules, runbooks) = (read("deploy/prometheus/rules.yml"), read("docs/runbooks.md"));
    let sections: Vec<_> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts(&rules), sections);
    for alert in alerts(&rules) {
        let url = format!("runbook_url: docs/runbooks.md#{}", alert.to_lowercase());
        assert!(rules.contains(&url), "{alert} does not lead to its section");
    }
}

/// A server over a fleet of one tenant, with an unreachable Redis and an unreachable replica.
struct Watched {
    running: Running,
    _redis: RedisServer,
    port: u16,
    acme: freehold::TenantContext,
    owner: uuid::Uuid,
    database: TestDatabase,
}

impl Watched {
    async fn start() -> Watched {
        let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
        let freehold = database.freehold().await.unwrap();
        let (tenant, acme) = testing::create_tenant(&freehold, "acme").await.unwrap();
        let definition = AnalyticsDefinition::parse(COUNTS).unwrap();
        let folder = AnalyticsFolder::from_definitions(vec![definition]).unwrap();
        freehold.analytics().apply(&OperatorContext::system("a test"), &folder).await.unwrap();
        let sql = connect(&database.superuser_url()).await;
        let owner = "SELECT identity_id FROM freehold.membership WHERE tenant_id = $1";
        let owner = sql.query_one(owner, &[&tenant.id.as_uuid()]).await.unwrap().get(0);
        let (app, of_owner, analytics) =
            (database.app_url(), database.owner_url(), database.analytics_url());
        let redis = RedisServer::start().await;
        let redis_url = redis.url();
        let (user, rest) = app.split_once('@').unwrap();
        let (_, name) = rest.rsplit_once('/').unwrap();
        let replica = format!("{user}@127.0.0.1:{}/{name}", free_port());
        let env = [
            ("DATABASE_URL", app.as_str()),
            ("DATABASE_REPLICA_URLS", &replica),
            ("REDIS_URL", &redis_url),
            ("DATABASE_OWNER_URL", &of_owner),
            ("DATABASE_ANALYTICS_URL", &analytics),
            ("JWT_SECRET", SECRET),
            ("LISTEN", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("DRAIN_SECS", "0"),
            ("METRICS_TOKEN", METRICS_TOKEN),
            ("SIZES_EVERY_SECS", "1"),
            ("MAIL", "log"),
            ("PUBLIC_URL", "http://127.0.0.1"),
        ];
        let mut running = start_freehold(&["serve"], &env);
        let line = running.wait_for("\"message\":\"serving\"", Duration::from_secs(60));
        let line: Value = serde_json::from_str(&line).unwrap();
        let port = text(&line["address"]).rsplit_once(':').unwrap().1.parse().unwrap();
        Watched { running, _redis: redis, port, acme, owner, database }
    }

    /// How a request for a table is answered.
    fn read(&self, table: &str) -> u16 {
        let token = token(self.owner, Some(self.acme.tenant().as_uuid()), "owner");
        let path = format!("/v1/data/{table}");
        http(self.port, "GET", &path, &token, &Value::Null).unwrap().0
    }

    /// Makes the policy of customers require a context that PostgreSQL refuses, like a mistake in it. A
    /// policy is evaluated for rows: a table without rows refuses nothing.
    async fn mislead(&self) {
        let sql = connect(&self.database.superuser_url()).await;
        let schema = self.acme.tenant().schema();
        sql.batch_execute(&format!(
            "CREATE FUNCTION public.refuse() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
             BEGIN
               RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501';
             END $$;
             ALTER POLICY tenant_isolation ON {schema}.customers USING ((SELECT public.refuse()))"
        ))
        .await
        .unwrap();
    }

    async fn grow(&self, rows: u32) {
        let sql = connect(&self.database.superuser_url()).await;
        let schema = self.acme.tenant().schema();
        sql.batch_execute(&format!(
            "INSERT INTO {schema}.customers (email, full_name, city, country_code)
             SELECT gen_random_uuid() || '@x.example', md5(n::text) || md5(n::text || 'x'), 'Berlin', 'DE'
             FROM generate_series(1, {rows}) AS n"
        ))
        .await
        .unwrap();
    }
}

fn metrics_of(port: u16) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {METRICS_TOKEN}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[tokio::test]
async fn each_metric_of_the_rules_and_the_dashboard_is_one_that_a_server_has() {
    let watched = Watched::start().await;
    let (rules, dashboard) =
        (read("deploy/prometheus/rules.yml"), read("deploy/grafana/freehold.json"));
    serde_json::from_str::<Value>(&dashboard).unwrap();
    let mut wanted = metrics_in(&rules);
    wanted.extend(metrics_in(&dashboard));
    assert!(wanted.len() > 25, "{wanted:?}");
    let mut missing = Vec::new();
    eventually("all are there", LATE, async || {
        assert_eq!(watched.read("orders"), 200);
        let there = metrics_of(watched.port);
        let sample = |name: &str| {
            there.lines().any(|line| {
                line.strip_prefix(name).is_some_and(|rest| {
                    rest.starts_with(['{', ' ']) || rest.starts_with("_bucket{")
                })
            })
        };
        missing = wanted.iter().filter(|name| !sample(name)).map(ToString::to_string).collect();
        eprintln!("missing: {missing:?}");
        missing.is_empty()
    })
    .await;
}

/// A Prometheus of the test's own; ended with it.
struct Prometheus {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for path in ["/api/v1/targets", "/api/v1/alerts"] {
                eprintln!("{path}: {}", self.get(path));
            }
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(folder: &Path, watched: u16) -> Prometheus {
        // The shipped rules, except that alerts fire without a delay, and the bound for growth is a megabyte.
        let rules = read("deploy/prometheus/rules.yml");
        let bound = "freehold_tenant_growth_bytes_per_day) > 1e9";
        assert!(rules.contains(bound), "the rule is another");
        let rules = rules.replace(bound, &bound.replace("1e9", "1e6"));
        let rules: String = rules
            .lines()
            .filter(|line| !line.trim_start().starts_with("for: "))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(folder.join("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n\
             - job_name: freehold\n  \
               authorization: {{credentials: {METRICS_TOKEN}}}\n  \
               static_configs: [{{targets: ['127.0.0.1:{watched}']}}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let log = folder.join("log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("prometheus is here: ./dev test installs it");
        Prometheus { child, port, log }
    }

    fn get(&self, path: &str) -> Value {
        http_with(self.port, "GET", path, &[], &Value::Null)
            .map(|(_, body)| body)
            .unwrap_or_default()
    }

    /// Whether a query gives anything.
    fn knows(&self, query: &str) -> bool {
        let answer = self.get(&format!("/api/v1/query?query={query}"));
        answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty())
    }

    /// The labels of an alert that fires.
    fn firing(&self, alert: &str) -> Option<Value> {
        let answer = self.get("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array()?;
        alerts
            .iter()
            .find(|a| a["labels"]["alertname"] == alert && a["state"] == "firing")
            .map(|a| a["labels"].clone())
    }
}

#[tokio::test]
async fn a_real_prometheus_sees_growth_a_violation_and_a_lost_replica_and_their_alerts_fire() {
    let watched = Watched::start().await;
    let folder = Folder::new();
    let prometheus = Prometheus::start(folder.path(), watched.port);
    let tenant = watched.acme.tenant().to_string();
    eventually("Prometheus has seen the server", LATE, async || {
        assert_eq!(watched.read("orders"), 200);
        prometheus.knows("freehold_tenant_growth_bytes_per_day")
            && prometheus.knows("freehold_isolation_violations_total")
    })
    .await;
    for alert in ["FreeholdContextRefused", "FreeholdTenantGrowsFast", "FreeholdRedisDown"] {
        assert_eq!(prometheus.firing(alert), None);
    }
    eventually("the alert of the replica fires", LATE, async || {
        let alert = prometheus.firing("FreeholdReplicaOut");
        alert.is_some_and(|labels| labels["state"] == "unreachable")
    })
    .await;

    let mut growing = 0;
    eventually("the growth alert fires", LATE, async || {
        if growing < 20 {
            growing += 1;
            watched.grow(5_000).await;
        }
        let alert = prometheus.firing("FreeholdTenantGrowsFast");
        alert.is_some_and(|labels| labels["tenant"] == tenant.as_str())
    })
    .await;

    watched.mislead().await;
    assert_eq!(watched.read("customers"), 403);
    let counted = "freehold_isolation_violations_total{kind=\"context_refused\"} 1";
    assert!(metrics_of(watched.port).lines().any(|line| line == counted));
    eventually("the violation alert fires", LATE, async || {
        prometheus.firing("FreeholdContextRefused").is_some()
    })
    .await;

    drop(prometheus);
    let mut watched = watched;
    watched.running.kill();
}
