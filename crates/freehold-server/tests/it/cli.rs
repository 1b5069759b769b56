//! The command line: its output, its refusals, and its exit codes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use freehold::testing::{self, PASSWORD, TestDatabase};
use freehold_embedded::postgres::{EmbeddedPostgres, Options};
use serde_json::{Value, json};

use crate::process::{
    Env, Folder, Ran, Running, Server, child_of, env_of, freehold, http, send_signal, token, with,
};
use crate::support::{SOON, admin_url, connect, eventually, project, shop, slow_shop, text};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["dev"],
    &["init"],
    &["serve"],
    &["config"],
    &["tenant"],
    &["tenant", "create"],
    &["tenant", "list"],
    &["tenant", "show"],
    &["tenant", "suspend"],
    &["tenant", "resume"],
    &["tenant", "weigh"],
    &["tenant", "owner"],
    &["operator", "create"],
    &["operator", "list"],
    &["operator", "revoke"],
    &["person"],
    &["person", "list"],
    &["person", "show"],
    &["person", "disable"],
    &["person", "enable"],
    &["person", "remove"],
    &["person", "reset"],
    &["person", "vouch"],
    &["person", "sign-out"],
    &["audit"],
    &["audit", "list"],
    &["key", "show"],
    &["key", "list"],
    &["key", "rotate"],
    &["violations"],
    &["violations", "list"],
    &["insight"],
    &["insight", "tenants"],
    &["insight", "tenant"],
    &["insight", "sizes"],
    &["insight", "slow"],
    &["top"],
    &["indexes"],
    &["indexes", "advise"],
    &["indexes", "apply"],
    &["indexes", "drop"],
    &["indexes", "restore"],
    &["indexes", "list"],
    &["migrate", "up"],
    &["migrate", "status"],
    &["migrate", "import"],
    &["doctor"],
    &["analytics"],
    &["analytics", "apply"],
    &["analytics", "list"],
    &["analytics", "run"],
    &["analytics", "show"],
    &["completions"],
];

const SECRETS: Env = &[
    ("DATABASE_URL", "postgres://freehold_app:hush-1@127.0.0.1:1/x"),
    ("DATABASE_OWNER_URL", "postgres://freehold_owner:hush-2@127.0.0.1:1/x"),
    ("DATABASE_ANALYTICS_URL", "postgres://freehold_analytics:hush-9@127.0.0.1:1/x"),
    ("DATABASE_ANALYTICS_READ_URL", "postgres://freehold_analytics:hush-10@127.0.0.1:1/x"),
    ("JWT_SECRET", "hush-3 and thirty-two bytes and more"),
    ("JWT_SECRETS_RETIRED", "hush-4 and thirty-two bytes and more"),
    ("FREEHOLD_PASSWORD", "hush-5"),
    ("FREEHOLD_APP_PASSWORD", "hush-6"),
    ("FREEHOLD_OWNER_PASSWORD", "hush-7"),
    ("FREEHOLD_ANALYTICS_PASSWORD", "hush-8"),
    ("CONTEXT_KEY", "hush-9"),
    ("METRICS_TOKEN", "hush-11 and sixteen"),
    ("MAIL_SMTP_URL", "smtp://post:hush-12@127.0.0.1:1"),
    ("MAIL_HOOK_SECRET", "hush-13 and thirty-two bytes and more"),
];

fn tells_no_secret(ran: &Ran) {
    let all = ran.stdout() + &ran.stderr();
    assert!(!all.contains("hush"), "a secret is shown:\n{all}");
}

// ── What needs no database ────────────────────────────────────────────────────────────────────

#[test]
fn every_command_has_a_help_that_shows_no_secret() {
    let top = freehold(&["--help"], &[]).ended(0).stdout();
    for command in COMMANDS {
        let arguments: Vec<_> = command.iter().copied().chain(["--help"]).collect();
        let ran = freehold(&arguments, SECRETS).ended(0);
        let help = ran.stdout();
        assert!(help.contains("Usage: freehold"), "{command:?}: {help}");
        assert!(help.lines().next().is_some_and(|line| line.len() > 10), "{command:?}: {help}");
        tells_no_secret(&ran);
        if let Some(name) = command.first() {
            assert!(top.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {top}");
        }
    }
    // The list above is whole: a command is a line of the help's list.
    let listed = top.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    for name in listed.filter_map(|line| line.split_whitespace().next()) {
        let known = COMMANDS.iter().any(|command| command.first() == Some(&name));
        assert!(known || ["openapi", "help"].contains(&name), "{name} is not tried here");
    }
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_is_wrong() {
    for (arguments, part) in [
        (&[][..], "Usage: freehold"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["serv"], "'serve'"),
        (&["tenant"], "Usage: freehold tenant"),
        (&["serve", "--colour"], "--colour"),
        (&["tenant", "create"], "<SLUG>"),
    ] {
        let ran = freehold(arguments, &[]).ended(2);
        assert!(ran.stderr().contains(part), "{arguments:?}: {}", ran.stderr());
        assert_eq!(ran.stdout(), "", "{arguments:?}");
    }
    freehold(&["--version"], &[]).ended(0);
}

#[test]
fn config_shows_every_setting_with_its_source_and_hides_secrets() {
    let mut env = SECRETS.to_vec();
    env.extend([("LISTEN", "127.0.0.1:9999"), ("MAX_CONNECTION_POOL", "33")]);
    let ran = freehold(&["config", "--max-connection-pool", "44"], &env).ended(0);
    tells_no_secret(&ran);
    let shown = ran.stdout();
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = found.unwrap_or_else(|| panic!("{name} is not shown:\n{shown}"));
        line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("DATABASE_URL"), "(hidden) environment");
    assert_eq!(line("DATABASE_OWNER_URL"), "(hidden) environment");
    assert_eq!(line("DATABASE_ANALYTICS_URL"), "(hidden) environment");
    assert_eq!(line("DATABASE_ANALYTICS_READ_URL"), "(hidden) environment");
    assert_eq!(line("WORKER"), "true default");
    assert_eq!(line("JWT_SECRET"), "(hidden) environment");
    assert_eq!(line("JWT_SECRETS_RETIRED"), "(hidden) environment");
    assert_eq!(line("LISTEN"), "127.0.0.1:9999 environment");
    assert_eq!(line("MAX_CONNECTION_POOL"), "44 flag");
    assert_eq!(line("ACCESS_TOKEN_SECS"), "600 default");
    for name in ["SIGNUP", "REQUEST_TIMEOUT_MS", "MAX_BODY_BYTES", "LOG_FORMAT", "SHUTDOWN_SECS"] {
        assert!(line(name).ends_with("default"), "{name}: {}", line(name));
    }
}

#[test]
fn the_openapi_document_is_printed_as_it_is_checked_in() {
    let printed = freehold(&["openapi"], &[]).ended(0).stdout();
    assert_eq!(printed.trim_end(), freehold_server::http::openapi_json().trim_end());
}

// ── Serve ─────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_with_a_sentence_that_says_what_to_do() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let (superuser, analytics) = (database.superuser_url(), database.analytics_url());
    let empty = format!("{}/postgres", app.rsplit_once('/').unwrap().0);
    let good = || env_of(&app, &owner);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nobody_there = "postgres://freehold_app:hush@127.0.0.1:1/x";
    for (env, code, parts) in [
        (
            with(good(), "DATABASE_URL", &superuser),
            1,
            ["refusing to serve", "Connect as freehold_app"],
        ),
        (with(good(), "DATABASE_URL", &owner), 1, ["refusing to serve", "Connect as freehold_app"]),
        (
            with(good(), "DATABASE_URL", &analytics),
            1,
            ["refusing to serve", "must connect as freehold_app"],
        ),
        (
            with(good(), "DATABASE_URL", &empty),
            1,
            ["catalog is missing", "run `freehold init` first"],
        ),
        (
            with(good(), "DATABASE_URL", nobody_there),
            1,
            ["cannot connect to PostgreSQL at 127.0.0.1:1", "freehold_app"],
        ),
        (with(good(), "DATABASE_URL", "nonsense"), 1, ["DATABASE_URL", "postgres://"]),
        (with(good(), "LISTEN", &taken), 1, ["cannot listen on", "--listen"]),
        (with(good(), "LISTEN", "nowhere"), 2, ["--listen", "LISTEN"]),
        (with(good(), "MAX_CONNECTION_POOL", "many"), 2, ["MAX_CONNECTION_POOL", "many"]),
        (with(good(), "MAX_CONNECTION_POOL", "0"), 2, ["MAX_CONNECTION_POOL", "1..=1000"]),
        (with(good(), "MAX_CONNECTION_POOL", "-4"), 2, ["MAX_CONNECTION_POOL", "-4"]),
        (with(good(), "JWT_SECRET", "hush, too short"), 1, ["JWT_SECRET", "at least 32 bytes"]),
        (with(good(), "JWT_SECRET", ""), 1, ["JWT_SECRET", "at least 32 bytes"]),
        (
            with(good(), "JWT_SECRETS_RETIRED", "hush"),
            1,
            ["JWT_SECRETS_RETIRED", "at least 32 bytes"],
        ),
        (with(good(), "SIGNUP", "perhaps"), 2, ["SIGNUP", "perhaps"]),
        (with(good(), "LOG_LEVEL", "a=b=c"), 1, ["LOG_LEVEL", "try `info`"]),
        (env_of(&app, &owner)[1..].to_vec(), 2, ["--database-url", "required"]),
        (env_of(&app, &owner)[..2].to_vec(), 2, ["--jwt-secret", "required"]),
    ] {
        let ran = freehold(&["serve"], &env).ended(code);
        let said = ran.stderr();
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        tells_no_secret(&ran);
        assert!(!said.contains(PASSWORD), "a password is shown: {said}");
        assert!(said.contains("error:") && !said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_finishes_what_is_under_way() {
    let database = TestDatabase::create(&admin_url(), &slow_shop(1.0)).await.unwrap();
    let freehold = database.freehold().await.unwrap();
    let (acme, _) = testing::create_tenant(&freehold, "acme").await.unwrap();
    let sql = connect(&database.superuser_url()).await;
    let row = sql.query_one("SELECT identity_id FROM freehold.membership", &[]).await.unwrap();
    let token = token(row.get(0), Some(acme.id.as_uuid()), "owner");
    let mut server = Server::start(&database);
    let port = server.port;
    let nap = thread::spawn(move || http(port, "GET", "/v1/data/naps", &token, &Value::Null));
    eventually("the nap began", SOON, async || {
        let naps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        sql.query_one(naps, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    server.running.signal("TERM");
    let (status, rows) = nap.join().unwrap().unwrap();
    assert_eq!((status, rows.as_array().map(Vec::len)), (200, Some(1)), "{rows}");
    assert_eq!(server.running.wait(SOON).code(), Some(0));
    assert!(http(port, "GET", "/livez", "", &Value::Null).is_err(), "it still listens");
}

/// A read that has waited for all its time.
fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

/// The parser limits a head before a handler, or a test in this process, sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_limits_is_refused_at_once_and_others_are_served() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let mut server = Server::start(&database);
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x-large: {}\r\n", "y".repeat(2 << 20));
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    for (what, line, headers) in [
        ("500 headers", "GET /v1/me", many.as_str()),
        ("a header of 2 MiB", "GET /v1/me", &large),
        ("an address of 1 MiB", &format!("GET /v1/me?{}", "x".repeat(1 << 20)), ""),
        ("two lengths", "POST /v1/auth/login", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("a length that is none", "POST /v1/auth/login", "Content-Length: -1\r\n"),
        ("a length and chunks", "POST /v1/auth/login", both),
        ("a header with a NUL", "GET /v1/me", "x: a\0b\r\n"),
        ("a header without a name", "GET /v1/me", ": y\r\n"),
        ("a folded header", "GET /v1/me", "x: y\r\n z\r\n"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head =
            format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n0\r\n\r\n");
        // The answer may come, and the connection end, before all of it is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer).map(|()| String::from_utf8_lossy(&answer)) {
            Ok(told) => assert!(told.starts_with("HTTP/1.1 4"), "{what}: {told}"),
            Err(error) => assert!(!is_late(&error), "{what}: no answer"),
        }
        let (status, _) = http(server.port, "GET", "/livez", "", &Value::Null).unwrap();
        assert_eq!(status, 200, "after {what}");
    }
    server.running.stop();
}

/// The log has it at once, the catalog before the process has ended, and the command shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_writes_down_the_violations_it_saw() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (acme, context) = testing::create_tenant(&fleet, "acme").await.unwrap();
    testing::create_tenant(&fleet, "globex").await.unwrap();
    let mut server = Server::start(&database);
    let owner = context.actor().id.as_uuid();
    let token = token(owner, Some(acme.id.as_uuid()), "owner");
    let (status, _) = http(server.port, "GET", "/v1/tenants", &token, &Value::Null).unwrap();
    assert_eq!(status, 403);
    let line = server.running.wait_for("\"message\":\"violation\"", SOON);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["kind"]), (&json!("WARN"), &json!("wrong_scope")));
    assert_eq!((&line["tenant"], &line["actor"]), (&json!(acme.id), &json!(owner)));
    let (status, _) =
        http(server.port, "GET", "/v1/me", &format!("{token}x"), &Value::Null).unwrap();
    assert_eq!(status, 401);
    server.running.stop();

    let (app, owner_url) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner_url);
    let list = |arguments: &[&str]| {
        let arguments: Vec<_> = ["violations", "list"].iter().chain(arguments).copied().collect();
        freehold(&arguments, &env)
    };
    let all = list(&["--json"]).ended(0).json();
    let all = &all["items"];
    let kinds: Vec<_> = all.as_array().unwrap().iter().map(|event| text(&event["kind"])).collect();
    assert_eq!(kinds, ["forged_token", "wrong_scope"], "the newest comes first");
    assert_eq!(all[1]["request_id"], line["request"]);
    let own = list(&["--tenant", "acme", "--json"]).ended(0).json();
    assert_eq!(own["items"], json!([all[1]]));
    let schema = acme.id.schema();
    for name in [acme.id.to_string(), schema, acme.slug.to_string()] {
        assert_eq!(list(&["--tenant", &name, "--json"]).ended(0).json(), own, "{name}");
    }
    let none = json!({"items": [], "next": null});
    assert_eq!(list(&["--tenant", "globex", "--json"]).ended(0).json(), none);
    let told = list(&["--tenant", "globex"]).ended(0).stdout();
    assert_eq!(told, "There are no such violations.\n");
    let forged = list(&["--kind", "forged_token", "--json"]).ended(0).json();
    assert_eq!(forged["items"], json!([all[0]]));
    let first = list(&["--limit", "1", "--json"]).ended(0).json();
    assert_eq!(first, json!({"items": [all[0]], "next": all[0]["id"]}));
    let told = list(&["--limit", "1"]).ended(0).stderr();
    assert!(told.contains(&format!("there are more: --after {}", text(&all[0]["id"]))), "{told}");
    let after = text(&all[0]["id"]);
    let rest = list(&["--after", &after, "--json"]).ended(0).json();
    assert_eq!(rest, json!({"items": [all[1]], "next": null}));
    let shown = list(&[]).ended(0).stdout();
    let columns: Vec<_> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(columns[0].starts_with("OCCURRED") && columns.len() == 3, "{shown}");
    assert!(columns[2].contains("acme") && shown.contains(&format!("actor {owner}")), "{shown}");
    assert!(columns.iter().all(|line| line.chars().count() <= 80), "{shown}");
    let ran = list(&["--tenant", "nobody"]).ended(1);
    assert!(ran.stderr().contains("there is no such tenant"), "{}", ran.stderr());
    list(&["--kind", "other"]).ended(2);
}

#[tokio::test]
async fn top_shows_the_busiest_tenants_as_a_table_as_json_and_live_on_a_terminal() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let server = Server::start(&database);
    let mut tokens = Vec::new();
    for slug in ["acme", "globex"] {
        let (tenant, context) = testing::create_tenant(&fleet, slug).await.unwrap();
        tokens.push(token(context.actor().id.as_uuid(), Some(tenant.id.as_uuid()), "owner"));
    }
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let load = || {
        for (token, times) in tokens.iter().zip([30, 1]) {
            for _ in 0..times {
                let answer = http(server.port, "GET", "/v1/data/orders", token, &Value::Null);
                assert_eq!(answer.unwrap().0, 200);
            }
        }
    };
    let mut seen = Value::Null;
    eventually("both are seen, acme first", Duration::from_secs(120), async || {
        load();
        seen = freehold(&["top", "--json"], &env).ended(0).json();
        seen.as_array().unwrap().len() == 2 && seen[0]["slug"] == "acme"
    })
    .await;
    let number = |of: usize, name: &str| seen[of][name].as_f64().unwrap();
    assert!(number(0, "queries_per_second") > number(1, "queries_per_second"), "{seen}");
    let shares = number(0, "time_share") + number(1, "time_share");
    assert!((shares - 1.0).abs() < 1e-6 && number(0, "time_share") > 0.5, "{seen}");

    // No terminal is there, so there is no escape, with and without --once.
    for arguments in [&["top", "--once", "--limit", "1"][..], &["top", "--limit", "1"]] {
        load();
        let table = freehold(arguments, &env).ended(0).stdout();
        let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
        let columns = ["TENANT", "QUERIES/S", "ROWS/S", "TIME", "ERRORS/S", "WAITING"];
        assert_eq!(heading, columns, "{table}");
        assert!(table.lines().count() == 2 && !table.contains('\x1b'), "{table}");
    }

    // `script` gives it a terminal.
    let program = format!("exec {} top --interval 1", env!("CARGO_BIN_EXE_freehold"));
    let mut command = std::process::Command::new("script");
    command.args(["-qefc", &program, "/dev/null"]).envs(env.iter().copied());
    let mut live = Running::spawn(command);
    eventually("it draws more than once", Duration::from_secs(60), async || {
        live.said().matches("\x1b[H").count() > 2
    })
    .await;
    let said = live.said();
    assert!(said.contains("TENANT") || said.contains("no tenant is busy"), "{said}");
    send_signal(child_of(live.pid(), "freehold").expect("it runs"), "INT");
    assert_eq!(live.wait(Duration::from_secs(30)).code(), Some(0), "{}", live.said());
    for wrong in [["top", "--interval", "0"], ["top", "--limit", "0"]] {
        freehold(&wrong, &env).ended(2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insight_slow_shows_what_took_long_with_its_plan() {
    let database = TestDatabase::create(&admin_url(), &slow_shop(0.4)).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (acme, context) = testing::create_tenant(&fleet, "acme").await.unwrap();
    testing::create_tenant(&fleet, "globex").await.unwrap();
    let server = Server::start_with(&database, &[("SLOW_QUERY_MS", "300")]);
    let token = token(context.actor().id.as_uuid(), Some(acme.id.as_uuid()), "owner");
    for _ in 0..2 {
        let path = "/v1/data/naps?slept=neq.SECRET";
        let (status, _) = http(server.port, "GET", path, &token, &Value::Null).unwrap();
        assert_eq!(status, 200);
    }
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let list = |arguments: &[&str]| {
        let arguments: Vec<_> = ["insight", "slow"].iter().chain(arguments).copied().collect();
        freehold(&arguments, &env).ended(0)
    };
    let mut all = Value::Null;
    eventually("the nap has its plan", Duration::from_secs(60), async || {
        all = list(&["--json"]).json();
        let nap = all["items"].as_array().unwrap().iter().find(|slow| slow["table"] == "naps");
        nap.is_some_and(|nap| nap["count"] == 2 && !nap["plan"].is_null())
    })
    .await;
    let shown = list(&["--tenant", "acme"]).stdout();
    for part in ["acme  naps  2 times, 0 failed", "FROM \"naps\" AS t", "(cost=", "<> $1"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("SECRET"), "{shown}");
    let none = json!({"items": [], "next": null});
    assert_eq!(list(&["--tenant", "globex", "--json"]).json(), none);
    let told = list(&["--tenant", "globex"]).stdout();
    assert_eq!(told, "No statement has taken SLOW_QUERY_MS or longer.\n");
    assert_eq!(freehold(&["insight", "slow", "--tenant", "nobody"], &env).code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_indexes_are_advised_made_dropped_and_listed() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (acme, _) = testing::create_tenant(&fleet, "acme").await.unwrap();
    testing::create_tenant(&fleet, "globex").await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = [("DATABASE_URL", app.as_str()), ("DATABASE_OWNER_URL", owner.as_str())];
    let run = |arguments: &[&str]| freehold(arguments, &env);
    let sql = connect(&database.superuser_url()).await;
    sql.batch_execute(&format!(
        "SET search_path = {}, public;
         INSERT INTO products (sku, name, price_cents) SELECT 'P-' || i, 'product', i FROM generate_series(1, 3000) i;
         ANALYZE products; CREATE INDEX twin ON products (price_cents);
         INSERT INTO freehold.query_shape (tenant_id, table_name, shape, requests) VALUES
           ('{}', 'products', '{{\"table\":\"products\",\"conditions\":[[\"stock\",\"=\"]],\"order\":[{{\"name\":\"created_at\",\"descending\":true}}]}}', 90)",
        acme.id.schema(), acme.id
    ))
    .await
    .unwrap();

    let advise =
        ["indexes", "advise", "acme", "--min-days", "0", "--min-reads", "20", "--min-rows", "2000"];
    let told = run(&advise).ended(0).stdout();
    for part in [
        "evidence: PostgreSQL's counts since 20",
        "1 kind of requests to the data API since 20",
        "missing: products (stock, created_at desc), some ",
        "90 requests since 20",
        "→ freehold indexes apply acme products stock 'created_at desc'",
        "duplicate: twin on products (price_cents)",
        "→ freehold indexes drop acme twin",
        "note: HypoPG is not installed",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    let report = run(&[&advise[..], &["--json"]].concat()).ended(0).json();
    assert_eq!(report["advice"][0]["kind"], "missing");
    // By default that is too little to go by.
    let told = run(&["indexes", "advise", "acme"]).ended(0).stdout();
    assert!(!told.contains("missing") && told.contains("7 are wanted"), "{told}");
    let mut fleet_wide = advise.to_vec();
    fleet_wide.retain(|word| *word != "acme");
    let told = run(&fleet_wide).ended(0).stdout();
    assert!(told.contains("2 tenants; of 2 PostgreSQL has counted"), "{told}");
    assert!(told.contains("(stock, created_at desc)") && told.contains("1 of 1"), "{told}");

    run(&["indexes", "drop", "acme", "twin"]).ended(0);
    let apply = ["indexes", "apply", "acme", "products", "stock", "created_at desc", "--json"];
    let made = run(&apply).ended(0).json();
    let name = "products_stock_created_at_desc_tenant_idx";
    assert_eq!((&made["name"], &made["state"]), (&json!(name), &json!("created")));
    run(&["indexes", "drop", "acme", "products_price_cents_idx"]).ended(0);
    let told = run(&["indexes", "list"]).ended(0).stdout();
    let lines: Vec<Vec<&str>> =
        told.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["SLUG", "INDEX", "TABLE", "STATE"]);
    assert_eq!(lines[1][..4], ["acme", "products_price_cents_idx", "products", "dropped"]);
    assert_eq!(lines[2][..4], ["acme", name, "products", "created"]);
    assert_eq!(run(&["indexes", "list", "globex", "--json"]).ended(0).json(), json!([]));
    let doctor = run(&["doctor", "--only", "FH711", "--strict"]).ended(0);
    assert!(!doctor.stdout().contains("FH711"), "{}", doctor.stdout());
    run(&["indexes", "restore", "acme", "products_price_cents_idx"]).ended(0);
    run(&["indexes", "drop", "acme", name]).ended(0);
    assert_eq!(run(&["indexes", "list", "--json"]).ended(0).json(), json!([]));

    for (wrong, said) in [
        (&["indexes", "advise", "nobody"][..], "there is no such tenant"),
        (&["indexes", "apply", "acme", "nothing", "id"], "the tenant has no table nothing"),
        (&["indexes", "apply", "acme", "products", "size"], "products has no column size"),
        (
            &["indexes", "apply", "acme", "products", "stock sideways"],
            "write `name` or `name desc`",
        ),
        (&["indexes", "drop", "acme", "nothing"], "the tenant has no index nothing"),
        (&["indexes", "drop", "acme", "products_sku_key"], "products_sku_key stays"),
        (&["indexes", "restore", "acme", "products_price_cents_idx"], "has no index"),
    ] {
        let ran = run(wrong).ended(1);
        assert!(ran.stderr().contains(said), "{wrong:?}: {}", ran.stderr());
    }
    let ran = freehold(&["indexes", "advise", "acme"], &env[..1]).ended(1);
    assert!(ran.stderr().contains("DATABASE_OWNER_URL"), "{}", ran.stderr());
}

// ── A database from nothing ───────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_server_is_prepared_by_init_and_run_by_the_commands() {
    let folder = Folder::new();
    let bin = std::env::var_os("FREEHOLD_PG_BIN").map(std::path::PathBuf::from);
    let settings = [("fsync", "off"), ("full_page_writes", "off")];
    let dir = folder.path().join("pg");
    let options = Options { dir: &dir, bin: bin.as_deref(), settings: &settings };
    let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
    let sql = connect(&server.superuser_url("postgres")).await;
    sql.batch_execute("CREATE DATABASE shop").await.unwrap();
    sql.batch_execute("CREATE ROLE landlord LOGIN CREATEROLE PASSWORD 'landlord'").await.unwrap();
    sql.batch_execute("CREATE DATABASE managed OWNER landlord").await.unwrap();

    // As on managed PostgreSQL: no superuser, but a role that owns the database.
    let superuser = server.superuser_url("managed");
    let landlord =
        superuser.replacen(superuser.split_once('@').unwrap().0, "postgres://landlord:landlord", 1);
    let ran = freehold(&["init", "--json"], &[("DATABASE_URL", &landlord)]).ended(0);
    let report = ran.json();
    let warnings = report["report"]["warnings"].as_array().unwrap();
    assert!(!warnings.is_empty(), "what only a superuser can close is told: {report}");
    assert_eq!(report["report"]["roles_created"].as_array().unwrap().len(), 8);
    let (app, owner) = (text(&report["database_url"]), text(&report["database_owner_url"]));
    a_tenant_lives_by_the_commands(&app, &owner);

    // As a superuser, in another database: the roles are there, with the passwords they have.
    let superuser = server.superuser_url("shop");
    let ran = freehold(&["init", "--json"], &[("DATABASE_URL", &superuser)]).ended(0).json();
    assert_eq!(ran["report"]["roles_created"], json!([]));
    assert_eq!(ran["report"]["warnings"], json!([]));
    assert!(text(&ran["database_url"]).starts_with("postgres://freehold_app:…@"), "{ran}");
    let there = |url: &str, database: &str| url.replace("/managed", database);
    a_tenant_lives_by_the_commands(&there(&app, "/shop"), &there(&owner, "/shop"));

    // A second run, with text output, changes nothing.
    let ran = freehold(&["init"], &[("DATABASE_URL", &superuser)]).ended(0);
    assert!(ran.stdout().contains("nothing to do"), "{}", ran.stdout());
    let given = [("DATABASE_URL", superuser.as_str()), ("FREEHOLD_APP_PASSWORD", "a/b c@d")];
    let ran = freehold(&["init"], &given).ended(0);
    let line =
        ran.stdout().lines().find_map(|line| line.strip_prefix("DATABASE_URL=").map(str::to_owned));
    let url = line.unwrap();
    // Contexts are sealed: without the key, the error names the missing setting.
    let ran = freehold(&["tenant", "list"], &[("DATABASE_URL", &url)]).ended(1);
    assert!(ran.stderr().contains("set CONTEXT_KEY"), "{}", ran.stderr());
    let there_owner = there(&owner, "/shop");
    let both = [("DATABASE_URL", url.as_str()), ("DATABASE_OWNER_URL", there_owner.as_str())];
    let shown = freehold(&["key", "show", "--json"], &both).ended(0).json();
    let key = shown["context_key"].as_str().unwrap();
    let given = [("DATABASE_URL", url.as_str()), ("CONTEXT_KEY", key)];
    let listed = freehold(&["tenant", "list", "--json"], &given).ended(0).json();
    assert_eq!(listed["items"][0]["slug"], "acme", "the URL and the key that were printed work");
    let ran = freehold(&["tenant", "list"], &[("DATABASE_URL", &url), ("CONTEXT_KEY", "1:hush")]);
    let ran = ran.ended(1);
    assert!(ran.stderr().contains("64 hex digits"), "{}", ran.stderr());
    tells_no_secret(&ran);
    let rotated = freehold(&["key", "rotate", "--retire-after-secs", "0", "--json"], &both);
    assert_eq!(rotated.ended(0).json()["id"], "2");
    let ran = freehold(&["tenant", "list"], &given).ended(1);
    assert!(ran.stderr().contains("freehold key show"), "{}", ran.stderr());
    let keys = freehold(&["key", "list", "--json"], &both).ended(0).json();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let ran = freehold(&["tenant", "list"], &[("DATABASE_URL", &there(&app, "/shop"))]).ended(1);
    assert!(ran.stderr().contains("cannot connect"), "{}", ran.stderr());
    server.stop().await.unwrap();
}

fn a_tenant_lives_by_the_commands(app: &str, owner: &str) {
    let folder = Folder::new();
    let env = [("DATABASE_URL", app), ("DATABASE_OWNER_URL", owner)];
    let run = |arguments: &[&str]| freehold(arguments, &env);
    for name in ["0001_shop.sql", "0002_order_totals.sql"] {
        let from = project().join("demo/migrations").join(name);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let up = ["migrate", "up", "--json", "--baseline", folder.text()];
    assert_eq!(run(&["migrate", "status", "--json"]).ended(0).json()["version"], 0);
    assert_eq!(run(&up).ended(0).json()["version"], 2);

    let create =
        ["tenant", "create", "acme", "--name", "Acme", "--owner", "owner@acme.example", "--json"];
    let made =
        freehold(&create, &[env[0], env[1], ("FREEHOLD_PASSWORD", PASSWORD)]).ended(0).json();
    assert_eq!(
        (&made["slug"], &made["name"], &made["status"]),
        (&json!("acme"), &json!("Acme"), &json!("active"))
    );
    assert_eq!(made["version"], 2);
    assert_eq!(run(&["tenant", "show", "acme", "--json"]).ended(0).json(), made);
    let all = run(&["tenant", "list", "--json"]).ended(0).json();
    assert_eq!(all, json!({"items": [made], "next": null}));
    for name in [&made["id"], &made["slug"]].map(text) {
        assert_eq!(run(&["tenant", "show", &name, "--json"]).ended(0).json(), made, "{name}");
    }
    let ran = run(&create).ended(1);
    assert!(ran.stderr().contains("the slug acme is taken"), "{}", ran.stderr());
    for (what, status) in [("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active")]
    {
        assert_eq!(run(&["tenant", what, "acme", "--json"]).ended(0).json()["status"], status);
    }
    assert_eq!(run(&["tenant", "weigh", "acme", "3", "--json"]).ended(0).json()["weight"], 3);
    let ran = run(&["tenant", "weigh", "acme", "101"]).ended(1);
    assert!(ran.stderr().contains("a weight is from 1 to 100"), "{}", ran.stderr());
    for arguments in [
        ["tenant", "show", "nobody"],
        ["tenant", "suspend", "nobody"],
        ["tenant", "resume", "No Body"],
    ] {
        let ran = run(&arguments).ended(1);
        assert!(ran.stderr().contains("there is no such tenant"), "{}", ran.stderr());
        assert_eq!(ran.stdout(), "");
    }
    let text = run(&["tenant", "list"]).ended(0).stdout();
    assert!(text.starts_with("SLUG") && text.lines().count() == 2, "{text}");
    people_are_governed_by_the_commands(&env);

    // A new migration reaches both tenants; a second run has nothing to do.
    let name = "0003_notes.sql";
    std::fs::copy(project().join("demo/migrations").join(name), folder.path().join(name)).unwrap();
    let report = run(&up).ended(0).json();
    assert_eq!((&report["version"], &report["migrated"]), (&json!(3), &json!(2)));
    assert_eq!(run(&up).ended(0).json()["migrated"], 0);
    let status = run(&["migrate", "status", "--json"]).ended(0).json();
    assert_eq!((&status["version"], &status["failed"]), (&json!(3), &json!([])));
    assert_eq!(run(&["tenant", "show", "acme", "--json"]).ended(0).json()["version"], 3);
    // One that was applied and then changed is an error, and so is a folder that is not there.
    std::fs::write(folder.path().join(name), "SELECT 1").unwrap();
    let ran = run(&up).ended(1);
    assert!(ran.stderr().contains("0003"), "{}", ran.stderr());
    let ran = run(&["migrate", "up", "--baseline", "/no/such/folder"]).ended(1);
    assert!(ran.stderr().contains("/no/such/folder"), "{}", ran.stderr());
    // Vouching needs the owner's connection, even if the key is known.
    let shown = run(&["key", "show", "--json"]).ended(0).json();
    let key = shown["context_key"].as_str().unwrap();
    let as_app = [env[0], ("CONTEXT_KEY", key)];
    for arguments in [
        &["operator", "create", "new@freehold.example", "--password", PASSWORD][..],
        &["person", "reset", "owner@acme.example", "--password", PASSWORD],
        &["person", "vouch", "owner@acme.example", "--why", "seen in person"],
    ] {
        let ran = freehold(arguments, &as_app).ended(1);
        assert!(ran.stderr().contains("to vouch for an address takes"), "{}", ran.stderr());
    }
    // Nor is anything made or migrated.
    let ran = freehold(&["tenant", "create", "globex"], &env[..1]).ended(1);
    assert!(ran.stderr().contains("DATABASE_OWNER_URL"), "{}", ran.stderr());
}

fn people_are_governed_by_the_commands(env: Env) {
    let run = |arguments: &[&str]| freehold(arguments, env);
    let fails = |arguments: &[&str], told: &str| {
        let ran = run(arguments).ended(1);
        assert!(ran.stderr().contains(told), "{arguments:?}: {}", ran.stderr());
        assert_eq!(ran.stdout(), "", "{arguments:?}");
    };
    let (op, owner) = ("op@freehold.example", "owner@acme.example");
    let made = run(&["operator", "create", op, "--password", PASSWORD, "--json"]).ended(0).json();
    assert_eq!((&made["email"], &made["is_operator"]), (&json!(op), &json!(true)));
    assert_eq!(made["proven_why"], "freehold operator create");
    // A known person must be named explicitly, and no given option is ignored.
    fails(
        &["operator", "create", op, "--password", PASSWORD],
        "say `existing` to mean this person",
    );
    fails(&["operator", "create", owner], "say `existing` to mean this person");
    fails(&["operator", "create", "new@x.example"], "give a password too");
    fails(
        &["operator", "create", "new@x.example", "--existing"],
        "no person has proven this e-mail",
    );
    run(&["operator", "create", owner, "--existing", "--password", PASSWORD]).ended(2);
    run(&["operator", "create", owner, "--existing"]).ended(0);
    let listed = run(&["operator", "list"]).ended(0).stdout();
    assert!(listed.starts_with("EMAIL") && listed.lines().count() == 3, "{listed}");
    let ran = run(&["operator", "revoke", owner]).ended(0).stdout();
    assert!(ran.contains("is no operator any more"), "{ran}");
    fails(&["operator", "revoke", owner], "there is no such operator");
    fails(&["operator", "revoke", op], "the last operator");
    fails(&["person", "show", "nobody@x.example"], "there is no such person");

    let shown = run(&["person", "show", owner]).ended(0).stdout();
    for told in
        ["email     owner@acme.example", "operator  no", "tenant    acme, owner", "password  yes"]
    {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    let state = |what: &str| run(&["person", what, owner, "--json"]).ended(0).json();
    assert!(state("disable")["disabled_at"].is_string());
    assert_eq!(state("enable")["disabled_at"], Value::Null);
    let reset = run(&["person", "reset", owner, "--json"]).ended(0);
    assert_eq!(reset.json()["has_password"], false);
    assert!(reset.stderr().contains("a server sends the message"), "{}", reset.stderr());
    let reset = run(&["person", "reset", owner, "--password", PASSWORD, "--json"]).ended(0).json();
    assert_eq!((&reset["has_password"], &reset["is_operator"]), (&json!(true), &json!(false)));
    fails(&["person", "remove", owner], "the only owner of acme");
    fails(&["person", "vouch", owner, "--why", " "], "a reason has 1 to 500 characters");
    run(&["person", "vouch", owner, "--why", "seen in person"]).ended(0);
    run(&["person", "sign-out", owner]).ended(0);
    let listed = run(&["person", "list", "--json"]).ended(0).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);

    // A tenant without an owner gets one: an invited person or a known one.
    fails(&["tenant", "create", "none", "--password", PASSWORD], "give --owner too");
    run(&["tenant", "create", "empty"]).ended(0);
    let ran = run(&["tenant", "owner", "empty", "bill@x.example"]).ended(0).stdout();
    assert!(ran.contains("bill@x.example is invited to own empty"), "{ran}");
    fails(&["tenant", "owner", "empty", owner], "say `existing` to mean this person");
    run(&["tenant", "owner", "empty", owner, "--existing"]).ended(0);
    fails(&["tenant", "owner", "nowhere", owner, "--existing"], "there is no such tenant");

    let lines = run(&["audit", "list", "--json"]).ended(0).json()["items"].clone();
    let actions: Vec<_> =
        lines.as_array().unwrap().iter().map(|line| text(&line["action"])).collect();
    for action in [
        "owner.raise",
        "owner.add",
        "member.invite",
        "tenant.create",
        "person.reset",
        "person.enable",
        "person.disable",
        "operator.revoke",
        "operator.create",
        "person.vouch",
    ] {
        let known = actions.iter().any(|known| known == action);
        assert!(known || action == "owner.raise", "{action}: {actions:?}");
    }
    assert!(lines[0]["origin"].as_str().unwrap().starts_with("command line"), "{}", lines[0]);
    let table = run(&["audit", "list", "--tenant", "empty", "--limit", "2"]).ended(0).stdout();
    assert!(table.starts_with("OCCURRED") && table.lines().count() == 3, "{table}");
    let of_one = run(&["audit", "list", "--person", op, "--json"]).ended(0).json();
    assert!(
        of_one["items"].as_array().unwrap().iter().all(|line| line["target_email"] == op),
        "{of_one}"
    );
}
