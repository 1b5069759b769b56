//! A server that starts before its database, and one that is told to stop: no request fails.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use freehold::testing::{self, TestDatabase};
use serde_json::{Value, json};

use crate::process::{Server, env_of, http, start_freehold, token, with};
use crate::support::{admin_url, connect, shop, slow_shop};

const SOON: Duration = Duration::from_secs(60);

fn readiness(port: u16) -> u16 {
    http(port, "GET", "/readyz", "", &Value::Null).map_or(0, |(status, _)| status)
}

fn wait_until_ready(port: u16) {
    let began = Instant::now();
    while readiness(port) != 200 {
        assert!(began.elapsed() < SOON, "it is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection that a client keeps, as proxies do.
struct KeptAlive(TcpStream);

impl KeptAlive {
    fn open(port: u16) -> KeptAlive {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        KeptAlive(stream)
    }

    /// The head and body of an answer of a known length.
    fn get(&mut self, path: &str) -> String {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.0.read(&mut chunk).unwrap();
            answer.extend(&chunk[..read]);
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                head.contains(&format!("content-length: {}", body.len()))
            });
            assert!(whole || read > 0, "cut short: {text}");
            if whole {
                return text;
            }
        }
    }

    fn is_closed_by_the_server(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_serves_on_until_balancers_have_noticed() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let mut server = Server::start_with(&database, &[("DRAIN_SECS", "6")]);
    let port = server.port;
    wait_until_ready(port);
    let mut kept = KeptAlive::open(port);
    for _ in 0..2 {
        let answer = kept.get("/livez");
        assert!(answer.contains("200 ok") && !answer.contains("connection: close"), "{answer}");
    }
    let began = Instant::now();
    server.running.signal("TERM");
    server.running.wait_for("stopping", SOON);

    let (status, problem) = http(port, "GET", "/readyz", "", &Value::Null).unwrap();
    assert_eq!((status, &problem["code"]), (503, &json!("not_ready")));
    let (status, _) = http(port, "GET", "/livez", "", &Value::Null).unwrap();
    assert_eq!(status, 200);
    let answer = kept.get("/openapi.json");
    assert!(
        answer.contains("200 ok") && answer.contains("connection: close"),
        "{}",
        &answer[..300]
    );
    assert!(kept.is_closed_by_the_server());

    assert_eq!(server.running.wait(SOON).code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(6), "it ended after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_ends_in_time_whatever_a_request_does() {
    let database = TestDatabase::create(&admin_url(), &slow_shop(3600.0)).await.unwrap();
    let freehold = database.freehold().await.unwrap();
    let (acme, context) = testing::create_tenant(&freehold, "acme").await.unwrap();
    let token = token(context.actor().id.as_uuid(), Some(acme.id.as_uuid()), "owner");
    let settings = [("DRAIN_SECS", "1"), ("SHUTDOWN_SECS", "1"), ("REQUEST_TIMEOUT_MS", "600000")];
    let mut server = Server::start_with(&database, &settings);
    let port = server.port;
    let nap = std::thread::spawn(move || http(port, "GET", "/v1/data/naps", &token, &Value::Null));
    let sql = connect(&database.superuser_url()).await;
    crate::support::eventually("the nap began", SOON, async || {
        let naps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        sql.query_one(naps, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    server.running.signal("TERM");
    assert_eq!(server.running.wait(SOON).code(), Some(0));
    server.running.wait_for("some requests did not finish in time", SOON);
    let _ = nap.join();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_its_database_at_the_start() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let (_, name) = app.rsplit_once('/').unwrap();
    let admin = connect(&admin_url()).await;
    let allow = |yes| format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}");
    admin.batch_execute(&allow(false)).await.unwrap();
    let env = with(env_of(&app, &owner), "STARTUP_SECS", "60");
    let mut running = start_freehold(&["serve"], &env);
    running.wait_for("waiting for the database", SOON);
    admin.batch_execute(&allow(true)).await.unwrap();
    running.wait_for("serving", SOON);
    running.stop();

    // A wrong password does not become right by waiting.
    let wrong = app.replace(testing::PASSWORD, "hush");
    let env = with(with(env, "DATABASE_URL", &wrong), "STARTUP_SECS", "3600");
    assert_eq!(start_freehold(&["serve"], &env).wait(SOON).code(), Some(1));
}
