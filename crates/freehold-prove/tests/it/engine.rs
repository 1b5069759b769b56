//! The engine of `freehold-prove`: a sound system passes, and every system that was broken on purpose is
//! detected. A proof that cannot fail is worthless.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use freehold::testing::TestDatabase;
use freehold_embedded::pgbouncer::PgBouncer;
use freehold_embedded::postgres::{EmbeddedPostgres, Options};
use freehold_prove::{
    self as prove, BaselineCode, Ended, Ground, Progress, Report, Settings, System,
};
use freehold_test_support::process::{
    Folder, Running, child_of, command, run as run_program, send_signal,
};
use freehold_test_support::{admin_url, connect, eventually};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

/// A database for a proof, and the way around all policies.
struct Site {
    system: System,
    sql: Client,
    // Dropped last.
    _database: TestDatabase,
}

impl Site {
    async fn new() -> Site {
        Site::with(BaselineCode::ExecutesText).await
    }

    async fn with(code: BaselineCode) -> Site {
        let database = TestDatabase::create(&admin_url(), &prove::baseline(code)).await.unwrap();
        let system = System {
            code,
            is_hardened: true,
            superuser_url: database.superuser_url(),
            app_url: database.app_url(),
            owner_url: database.owner_url(),
            pooler_url: None,
        };
        Site { sql: connect(&system.superuser_url).await, system, _database: database }
    }
}

/// Few tenants, so that they meet often, and few operations.
pub(crate) fn short() -> Settings {
    Settings { operations: 1500, seconds: 120, seed: 7, tenants: 3, workers: 8, disturb_ms: 500 }
}

async fn run(ground: Ground, settings: Settings) -> Report {
    let nobody = std::future::pending::<()>();
    prove::run(ground, settings, nobody, &|_: Progress| {}).await.unwrap()
}

/// A run on a system that was broken.
async fn run_broken(breaks: impl AsyncFnOnce(&mut Ground, &Client)) -> Report {
    run_broken_with(short(), breaks).await
}

pub(crate) async fn run_broken_with(
    settings: Settings,
    breaks: impl AsyncFnOnce(&mut Ground, &Client),
) -> Report {
    let site = Site::new().await;
    let mut ground = Ground::prepare(&site.system, &settings).await.unwrap();
    breaks(&mut ground, &site.sql).await;
    let report = run(ground, settings).await;
    assert!(!report.passed, "nothing was found:\n{}", report.markdown());
    report
}

pub(crate) fn expect_leak(report: &Report, words: &str) {
    assert!(report.leaks > 0, "{}", report.markdown());
    assert_eq!(report.confidence, None, "nothing follows from a leak but that");
    let told = report.leaks_told.iter().any(|told| told.contains(words));
    assert!(told, "{words:?} is in none of {:#?}", report.leaks_told);
}

pub(crate) fn schemas(ground: &Ground) -> Vec<String> {
    ground.residents.iter().map(|resident| resident.id.schema()).collect()
}

/// Each schema, paired with that of another tenant.
fn neighbours(ground: &Ground) -> Vec<(String, String)> {
    let own = schemas(ground);
    let mut others = own.clone();
    others.rotate_left(1);
    own.into_iter().zip(others).collect()
}

async fn drop_policies(sql: &Client, schema: &str) {
    for table in ["canaries", "ledger", "dropped"] {
        let drop = format!("DROP POLICY tenant_isolation ON {schema}.{table}");
        sql.batch_execute(&drop).await.unwrap();
    }
}

async fn swap_schemas(sql: &Client, one: &str, other: &str) {
    let swap = format!(
        "ALTER SCHEMA {one} RENAME TO elsewhere;
         ALTER SCHEMA {other} RENAME TO {one};
         ALTER SCHEMA elsewhere RENAME TO {other};"
    );
    sql.batch_execute(&swap).await.unwrap();
}

/// Every kind of violation but a former member's writes and a suspended tenant's requests, which come when
/// the clock has them.
const ATTEMPTS: [&str; 18] = [
    "a role claimed in the token",
    "a viewer's writes",
    "another tenant named in a header",
    "another tenant's ids",
    "another tenant's sequences",
    "another tenant's tables read by name",
    "another tenant's tables written by name",
    "files, large objects and objects of one's own",
    "forged or stale tokens",
    "helpers with the owner's rights",
    "other roles",
    "procedures that commit",
    "statements that are no queries",
    "statements that outlive or end a transaction",
    "the catalog's own tables and functions",
    "what PostgreSQL shows of all tables",
    "what a tenant's SQL leaves on a session",
    "what others run",
];

// ── A sound system ────────────────────────────────────────────────────────────────────────────

/// A baseline whose code can leave only settings on a session, so that servers clean only these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_system_passes_where_only_settings_are_cleaned() {
    let site = Site::with(BaselineCode::ChangesSettings).await;
    let ground = Ground::prepare(&site.system, &short()).await.unwrap();
    let report = run(ground, short()).await;
    assert!(report.passed, "{}", report.markdown());
    let poisoned = &report.violations["what a tenant's SQL leaves on a session"];
    assert!(poisoned.provoked > 0, "{}", report.markdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_system_passes_by_http_and_by_the_library() {
    let site = Site::new().await;
    let settings = Settings { operations: 5000, tenants: 5, disturb_ms: 150, ..short() };
    let ground = Ground::prepare(&site.system, &settings).await.unwrap();
    let report = run(ground, settings).await;

    assert!(report.passed, "{}", report.markdown());
    assert_eq!((report.leaks, report.unexpected, report.ended), (0, 0, Ended::Operations));
    assert_eq!(report.operations, 5000);
    assert_eq!(report.violations_provoked, report.violations_caught);
    assert!(report.cancellations > 40, "{}", report.markdown());
    for kind in &report.kinds {
        let seen = kind.checked + kind.cancellations;
        assert!(seen > 0, "nothing was seen of {} by {}", kind.name, kind.way);
    }
    for what in ATTEMPTS {
        let attempts = report.violations.get(what).copied().unwrap_or_default();
        assert!(attempts.provoked > 0, "{what}: {:?}", report.violations);
    }
    let disturbed = report.disturbances;
    assert!(disturbed.sessions_ended > 0 && disturbed.queries_cancelled > 0, "{disturbed:?}");
    assert!(disturbed.suspensions > 0 && disturbed.role_changes > 0, "{disturbed:?}");
    assert!(disturbed.migrations > 0, "{disturbed:?}");
    assert_eq!((report.audit.tables, report.audit.foreign_rows), (20, 0));
    let bound = report.confidence.unwrap();
    assert_eq!(bound.trials, report.checked);
    assert!((bound.leak_rate_max * report.checked as f64 - 3.0).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_stopped_reports_what_was_done_and_the_system_is_whole_again() {
    let site = Site::new().await;
    let settings = Settings { operations: 1_000_000, ..short() };
    let ground = Ground::prepare(&site.system, &settings).await.unwrap();
    let (under_way, is_under_way) = tokio::sync::watch::channel(false);
    let told = |progress: prove::Progress| {
        under_way.send_replace(progress.operations > 100);
    };
    let soon = async {
        let mut is_under_way = is_under_way;
        is_under_way.wait_for(|is_under_way| *is_under_way).await.unwrap();
    };
    let report = prove::run(ground, settings, soon, &told).await.unwrap();
    assert_eq!(report.ended, Ended::Interrupted);
    assert!(report.passed && report.operations > 10, "{}", report.markdown());
    let suspended = "SELECT count(*) FROM freehold.tenant WHERE status <> 'active'";
    let count: i64 = site.sql.query_one(suspended, &[]).await.unwrap().get(0);
    assert_eq!(count, 0, "a tenant is still suspended");
}

// ── Systems that are broken ───────────────────────────────────────────────────────────────────
//
// At every tenant: any one of them may be suspended for the whole of a short run.

/// The search path leads to the wrong schema, and the policies are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_from_the_wrong_schema_are_seen_when_no_policy_stops_them() {
    let report = run_broken(async |ground, sql| {
        let schemas = schemas(ground);
        drop_policies(sql, &schemas[0]).await;
        drop_policies(sql, &schemas[1]).await;
        swap_schemas(sql, &schemas[0], &schemas[1]).await;
    })
    .await;
    expect_leak(&report, "HTTP: ");
    expect_leak(&report, "library: ");
    expect_leak(&report, "the mark of a row of tenant");
}

/// The same with policies in place, which prevent it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_from_the_wrong_schema_are_refused_where_the_policies_stand() {
    let report = run_broken(async |ground, sql| {
        let schemas = schemas(ground);
        swap_schemas(sql, &schemas[0], &schemas[1]).await;
    })
    .await;
    let refused = |told: &String| told.contains("isolation_violation");
    assert!(report.unexpected_told.iter().any(refused), "{:#?}", report.unexpected_told);
    // The rows are where they must not be, and were in no answer.
    let seen = report.leaks_told.iter().filter(|told| told.contains("is in the answer"));
    assert_eq!(seen.count(), 0, "{:#?}", report.leaks_told);
    expect_leak(&report, "the audit of rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_gone_shows_in_violations_that_are_not_caught() {
    let report = run_broken(async |ground, sql| {
        for schema in schemas(ground) {
            drop_policies(sql, &schema).await;
        }
    })
    .await;
    assert!(report.violations_caught < report.violations_provoked, "{}", report.markdown());
    expect_leak(&report, "another tenant's tables");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_lets_everybody_pass_is_found() {
    let report = run_broken(async |ground, sql| {
        for schema in schemas(ground) {
            let widen = format!(
                "DROP POLICY tenant_isolation ON {schema}.canaries;
                 CREATE POLICY tenant_isolation ON {schema}.canaries
                 USING (true) WITH CHECK (true);"
            );
            sql.batch_execute(&widen).await.unwrap();
        }
    })
    .await;
    expect_leak(&report, "another tenant's tables read by name: not refused");
}

/// It belongs to a superuser, is not security_invoker, and reads another schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_reads_as_its_owner_is_found() {
    let report = run_broken(async |ground, sql| {
        for (own, other) in neighbours(ground) {
            let view = format!(
                "ALTER VIEW {own}.pages OWNER TO CURRENT_USER;
                 ALTER VIEW {own}.pages RESET (security_invoker);
                 CREATE OR REPLACE VIEW {own}.pages AS
                 SELECT l.worker, l.no, l.revision, l.body, c.id AS canary_id, c.body AS canary_body
                 FROM {other}.ledger AS l JOIN {other}.canaries AS c ON c.id = l.canary_id;"
            );
            sql.batch_execute(&view).await.unwrap();
        }
    })
    .await;
    expect_leak(&report, "read a view that joins");
}

/// A trigger that writes each row of one tenant to another as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_written_to_another_tenant_are_found_by_the_audit() {
    let mut astray = Vec::new();
    let report = run_broken(async |ground, sql| {
        for (tenant, (own, other)) in neighbours(ground).into_iter().enumerate() {
            astray.push(format!("{other}.dropped has something of tenant {tenant}:"));
            let trigger = format!(
                "CREATE FUNCTION {own}.astray() RETURNS trigger
                 LANGUAGE plpgsql SECURITY DEFINER AS $$
                 BEGIN
                   INSERT INTO {other}.dropped
                   VALUES (NEW.worker, -NEW.no - 1, 0, NEW.tag, NEW.body)
                   ON CONFLICT DO NOTHING;
                   RETURN NULL;
                 END $$;
                 CREATE TRIGGER astray AFTER INSERT ON {own}.ledger
                 FOR EACH ROW EXECUTE FUNCTION {own}.astray();"
            );
            sql.batch_execute(&trigger).await.unwrap();
        }
    })
    .await;
    let told = report.leaks_told.iter().any(|told| astray.iter().any(|row| told.contains(row)));
    assert!(told, "none of {astray:?} is in {:#?}", report.leaks_told);
    expect_leak(&report, "who never sent it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_confirmed_and_lost_is_found() {
    // So few that each writes the same rows again and again.
    let settings = Settings { tenants: 2, workers: 2, ..short() };
    let report = run_broken_with(settings, async |ground, sql| {
        for schema in schemas(ground) {
            let trigger = format!(
                "CREATE FUNCTION {schema}.forget() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER forget BEFORE INSERT ON {schema}.dropped
                 FOR EACH ROW WHEN (NEW.part = 1) EXECUTE FUNCTION {schema}.forget();
                 CREATE TRIGGER forget BEFORE UPDATE ON {schema}.ledger
                 FOR EACH ROW EXECUTE FUNCTION {schema}.forget();"
            );
            sql.batch_execute(&trigger).await.unwrap();
        }
    })
    .await;
    assert_eq!(report.leaks, 0, "{:#?}", report.leaks_told);
    for words in ["rows were to be touched", "parts of 3"] {
        let told = |told: &String| told.contains(words);
        assert!(report.unexpected_told.iter().any(told), "{words}: {:#?}", report.unexpected_told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_that_does_not_bite_is_found() {
    // It takes a second until it has to.
    let settings = Settings { operations: 1_000_000, seconds: 8, ..short() };
    let report = run_broken_with(settings, async |_, sql| {
        let trigger = "CREATE FUNCTION freehold.stay() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN NEW.status := 'active'; RETURN NEW; END $$;
             CREATE TRIGGER stay BEFORE UPDATE ON freehold.tenant
             FOR EACH ROW EXECUTE FUNCTION freehold.stay();";
        sql.batch_execute(trigger).await.unwrap();
    })
    .await;
    expect_leak(&report, "the tenant was suspended more than a second before, and was served");
}

/// Every person is a member everywhere: a token of one tenant with another's id in it is valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_is_not_asked_for_is_found() {
    let settings = Settings { operations: 3000, ..short() };
    let report = run_broken_with(settings, async |_, sql| {
        let join = "INSERT INTO freehold.membership (tenant_id, identity_id, role)
             SELECT t.id, i.id, 'owner' FROM freehold.tenant t CROSS JOIN freehold.identity i
             ON CONFLICT DO NOTHING";
        sql.batch_execute(join).await.unwrap();
    })
    .await;
    expect_leak(&report, "no member there");
}

/// Something between client and service keeps answers by table alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_forgets_the_tenant_is_found() {
    let report = run_broken(async |ground, _| {
        let kept = Kept::default();
        for service in &mut ground.services {
            *service = forgetful_cache(*service, Arc::clone(&kept)).await;
        }
    })
    .await;
    expect_leak(&report, "HTTP: ");
    let by_library = |told: &&String| told.starts_with("library: ");
    assert_eq!(report.leaks_told.iter().filter(by_library).count(), 0, "{:#?}", report.leaks_told);
}

/// By path, without the query.
type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A proxy in front of a service, which answers for a page of a table that it has seen.
async fn forgetful_cache(service: SocketAddr, kept: Kept) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                // A client that goes away is no news.
                let _ = forward(client, service, &kept).await;
            });
        }
    });
    address
}

async fn forward(mut client: TcpStream, service: SocketAddr, kept: &Kept) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(service).await?;
    loop {
        let request = receive(&mut client).await?;
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        let path = line.split('?').next().unwrap_or_default().to_owned();
        let is_page = line.starts_with("GET /v1/data/canaries?order=no");
        let known = kept.lock().unwrap().get(&path).cloned();
        let answer = match known.filter(|_| is_page) {
            Some(answer) => answer,
            None => {
                upstream.write_all(&request).await?;
                let answer = receive(&mut upstream).await?;
                if is_page && answer.starts_with(b"HTTP/1.1 20") {
                    kept.lock().unwrap().insert(path, answer.clone());
                }
                answer
            }
        };
        client.write_all(&answer).await?;
    }
}

/// A request or an answer: its head, and as much body as that says.
async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Ok(bytes);
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

// ── The command ───────────────────────────────────────────────────────────────────────────────

/// A PostgreSQL that was not prepared.
async fn bare_server(folder: &Folder) -> EmbeddedPostgres {
    let bin = std::env::var_os("FREEHOLD_PG_BIN").map(std::path::PathBuf::from);
    let dir = folder.path().join("pg");
    let options = Options { dir: &dir, bin: bin.as_deref(), settings: &[("fsync", "off")] };
    EmbeddedPostgres::start(options, |_| {}).await.unwrap()
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_freehold-prove");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_reports_to_people_and_machines_and_leaves_nothing() {
    let folder = Folder::new();
    let server = bare_server(&folder).await;
    let url = server.superuser_url("postgres");
    let env = [("DATABASE_URL", url.as_str())];
    let (markdown, json) = (folder.path().join("report.md"), folder.path().join("report.json"));
    let mut arguments = "--operations 400 --seconds 100 --seed 5 --tenants 2 --workers 4 --json"
        .split(' ')
        .collect::<Vec<_>>();
    arguments.extend(["--report", markdown.to_str().unwrap(), "--report", json.to_str().unwrap()]);
    let ran = run_program(command(PROGRAM, &arguments, &env)).ended(0);
    let report = ran.json();
    assert_eq!(report["passed"], true, "{report}");
    for (name, count) in [("operations", 400), ("leaks", 0), ("unexpected", 0)] {
        assert_eq!(report[name], count, "{name}: {report}");
    }
    assert_eq!(report["violations_provoked"], report["violations_caught"]);
    assert!(report["cancellations"].as_u64().is_some_and(|count| count > 0), "{report}");
    assert_eq!(report["settings"]["seed"], 5);
    assert!(ran.stderr().contains("Seed 5."), "{}", ran.stderr());
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(written, report);
    let text = std::fs::read_to_string(&markdown).unwrap();
    for part in ["proof of isolation — passed", "**0 leaks**", "3/", "## Violations", "seed | 5"]
    {
        assert!(text.contains(part), "{part} is not in the report:\n{text}");
    }
    // The roles that it made are gone with the database: they can be made anew, and then a proof needs
    // their passwords.
    freehold::init(&url, &freehold::InitOptions::default()).await.unwrap();
    let refused = run_program(command(PROGRAM, &["--operations", "1"], &env)).ended(1);
    assert!(refused.stderr().contains("give --app-password"), "{}", refused.stderr());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_reports_what_it_did_and_leaves_nothing() {
    let folder = Folder::new();
    let server = bare_server(&folder).await;
    let url = server.superuser_url("postgres");
    let sql = connect(&url).await;
    let count = async |query: &str| -> i64 { sql.query_one(query, &[]).await.unwrap().get(0) };
    let arguments = ["--operations", "1000000", "--tenants", "2", "--workers", "4", "--json"];
    let mut running = Running::spawn(command(PROGRAM, &arguments, &[("DATABASE_URL", &url)]));
    eventually("it is at work", Duration::from_secs(60), async || {
        let commits = "SELECT coalesce(sum(xact_commit), 0)::bigint FROM pg_stat_database
             WHERE datname LIKE 'freehold\\_prove\\_%'";
        count(commits).await > 800
    })
    .await;
    running.signal("INT");
    let status = running.wait(Duration::from_secs(60));
    let said = running.said();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains(r#""ended": "interrupted""#), "{said}");
    let databases = "SELECT count(*) FROM pg_database WHERE datname LIKE 'freehold%'";
    assert_eq!(count(databases).await, 0);
    assert_eq!(count("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'freehold%'").await, 0);
    server.stop().await.unwrap();
}

// ── PgBouncer ─────────────────────────────────────────────────────────────────────────────────

/// Transaction mode, and fewer sessions than clients: what one client leaves in a session, another one finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_proofs_pgbouncer_share_sessions() {
    let site = Site::new().await;
    let pooler = PgBouncer::start(&site.system.app_url).await.unwrap();
    assert!(pooler.version().starts_with("PgBouncer 1."), "{}", pooler.version());
    let clients = [connect(pooler.url()).await, connect(pooler.url()).await];
    let session = async |client: &Client| {
        let rows = client.simple_query("SELECT pg_backend_pid()").await.unwrap();
        rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    };
    assert_eq!(session(&clients[0]).await, session(&clients[1]).await);
}

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proofs_pgbouncer_is_started_again_when_it_ends() {
    let site = Site::new().await;
    let pooler = PgBouncer::start(&site.system.app_url).await.unwrap();
    let client = connect(pooler.url()).await;
    let ours = || child_of(std::process::id(), "pgbouncer");
    for turn in 1..=2 {
        send_signal(ours().expect("there is a pgbouncer to kill"), "KILL");
        let again = async || pooler.restarts() == turn && ours().is_some();
        eventually("it is started again", SOON, again).await;
    }
    assert!(client.simple_query("SELECT 1").await.is_err());
    eventually("it serves", SOON, async || {
        let Ok((client, connection)) =
            tokio_postgres::connect(pooler.url(), tokio_postgres::NoTls).await
        else {
            return false;
        };
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_proof_by_a_pooler_in_transaction_mode_finds_nothing() {
    let mut site = Site::new().await;
    let pooler = PgBouncer::start(&site.system.app_url).await.unwrap();
    site.system.pooler_url = Some(pooler.url().to_owned());
    let settings = Settings { operations: 2500, tenants: 4, disturb_ms: 150, ..short() };
    let ground = Ground::prepare(&site.system, &settings).await.unwrap();
    let report = run(ground, settings).await;
    assert!(report.passed, "{}", report.markdown());
    assert_eq!((report.leaks, report.unexpected), (0, 0));
    assert_eq!(report.violations_provoked, report.violations_caught);
    assert!(report.cancellations > 20, "{}", report.markdown());
    let poisoned = report.violations["what a tenant's SQL leaves on a session"];
    assert!(poisoned.provoked > 0, "{}", report.markdown());
}
