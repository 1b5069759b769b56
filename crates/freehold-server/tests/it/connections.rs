//! Clients that make the server wait, with heads, bodies and answers that never end, and with more
//! connections than there is room for. Other clients must not be affected.

mod answers;
mod bodies;

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use freehold::testing::{self, TestDatabase};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Env, Running, Server, env_of, http, limited_to, token, with};
use crate::support::{admin_url, connect, eventually, shop, slow_shop};

const SOON: Duration = Duration::from_secs(30);
const HOURS: &str = "600000";
/// Of a head, all but its end.
const HALF_A_HEAD: &str = "GET /v1/me HTTP/1.1\r\nHost: x\r\nX-More: ";

/// A client that sends what the test wants.
struct Client(TcpStream);

impl Client {
    fn connect(port: u16) -> Client {
        Client::over(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(SOON)).unwrap();
        Client(stream)
    }

    fn saying(port: u16, text: &str) -> Client {
        let mut client = Client::connect(port);
        client.say(text).unwrap();
        client
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())
    }

    /// The same connection.
    fn again(&self) -> Client {
        Client(self.0.try_clone().unwrap())
    }

    fn hang_up(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// All that the server says until it closes the connection.
    fn hear_to_the_end(&mut self) -> String {
        let mut heard = Vec::new();
        match self.0.read_to_end(&mut heard) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => String::from_utf8_lossy(&heard).into_owned(),
        }
    }

    /// The answer to a request that keeps the connection.
    fn get(&mut self, path: &str) -> String {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.0.read(&mut chunk).unwrap();
            assert!(read > 0, "cut short: {}", String::from_utf8_lossy(&heard));
            heard.extend(&chunk[..read]);
            let text = String::from_utf8_lossy(&heard).to_lowercase();
            let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                head.contains(&format!("content-length: {}", body.len()))
            });
            if is_whole {
                return text;
            }
        }
    }
}

/// A server over a shop with two tenants.
struct Shop {
    server: Server,
    database: TestDatabase,
    tenant: Uuid,
    /// Of the tenant's owner.
    token: String,
    /// Of the other tenant's owner.
    others_token: String,
}

impl Shop {
    async fn open(settings: Env<'_>) -> Shop {
        Shop::over(shop(), |database| Server::start_with(database, settings)).await
    }

    async fn over(
        baseline: freehold::Baseline,
        start: impl FnOnce(&TestDatabase) -> Server,
    ) -> Shop {
        let database = TestDatabase::create(&admin_url(), &baseline).await.unwrap();
        let freehold = database.freehold().await.unwrap();
        let (acme, context) = testing::create_tenant(&freehold, "acme").await.unwrap();
        let tenant = acme.id.as_uuid();
        let token = token(context.actor().id.as_uuid(), Some(tenant), "owner");
        let (globex, other) = testing::create_tenant(&freehold, "globex").await.unwrap();
        let globex = Some(globex.id.as_uuid());
        let others_token = crate::process::token(other.actor().id.as_uuid(), globex, "owner");
        Shop { server: start(&database), database, tenant, token, others_token }
    }

    fn port(&self) -> u16 {
        self.server.port
    }

    fn get(&self, path: &str) -> (u16, Value) {
        http(self.port(), "GET", path, &self.token, &Value::Null).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        http(self.port(), "POST", path, &self.token, body).unwrap()
    }

    fn assert_serves(&self) {
        assert_eq!(self.get("/livez").0, 200);
        let (status, answer) = self.get("/v1/data/orders?limit=1");
        assert_eq!(status, 200, "{answer}");
    }

    /// Requests that stay under way.
    async fn naps(&self, count: usize) -> Vec<Client> {
        let head = format!(
            "GET /v1/data/naps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            self.token
        );
        let naps = (0..count).map(|_| Client::saying(self.port(), &head)).collect();
        let sql = connect(&self.database.superuser_url()).await;
        let asleep = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event = 'PgSleep'";
        eventually("the naps began", SOON, async || {
            sql.query_one(asleep, &[]).await.unwrap().get::<_, i64>(0) == count as i64
        })
        .await;
        naps
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_heads_take_nobodys_place() {
    let settings = [("HEAD_TIMEOUT_MS", HOURS)];
    let shop = Shop::over(shop(), |database| Server::start_with_files(database, 256, &settings));
    let shop = shop.await;
    let said = shop.server.running.said();
    assert!(said.contains("the limit of open files leaves room for fewer"), "{said}");
    // More than there may be files.
    let clients: Vec<_> = (0..300).map(|_| Client::saying(shop.port(), HALF_A_HEAD)).collect();
    shop.assert_serves();
    let silent: Vec<_> = (0..300).map(|_| Client::connect(shop.port())).collect();
    shop.assert_serves();
    drop((clients, silent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_arrive_in_its_time_is_given_up() {
    let shop = Shop::open(&[("HEAD_TIMEOUT_MS", "300")]).await;
    let mut kept = Client::connect(shop.port());
    kept.get("/livez");
    let mut silent = Client::connect(shop.port());
    // A head that never ends is treated like one that stops.
    let mut dripping = Client::saying(shop.port(), HALF_A_HEAD);
    let began = Instant::now();
    while dripping.say("x").is_ok() {
        assert!(began.elapsed() < SOON, "it is still read");
        std::thread::sleep(Duration::from_millis(20));
    }
    for client in [&mut silent, &mut Client::saying(shop.port(), HALF_A_HEAD)] {
        let heard = client.hear_to_the_end();
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{heard}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["code"], "request_too_slow");
    }
    // The pause between two requests is no head.
    assert!(kept.get("/livez").contains("200 ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_after_its_time() {
    let shop = Shop::open(&[("IDLE_SECS", "1")]).await;
    let mut kept = Client::connect(shop.port());
    kept.get("/livez");
    assert_eq!(kept.hear_to_the_end(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_connections_are_served_the_next_is_told_so_and_probes_answer() {
    let settings = [
        ("MAX_CONNECTIONS", "16"),
        ("MAX_CONNECTIONS_PER_CLIENT", "1000"),
        ("MAX_CONNECTION_POOL", "40"),
        ("REQUEST_TIMEOUT_MS", HOURS),
    ];
    let shop = Shop::over(slow_shop(600.0), |database| Server::start_with(database, &settings));
    let shop = shop.await;
    let naps = shop.naps(16).await;
    for _ in 0..40 {
        let (status, problem) = shop.get("/v1/data/orders?limit=1");
        assert_eq!((status, &problem["code"]), (503, &json!("overloaded")), "{problem}");
    }
    // Silent connections beyond the limit do not hinder other clients either.
    let silent: Vec<_> = (0..100).map(|_| Client::connect(shop.port())).collect();
    for probe in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(shop.get(probe).0, 200, "{probe}");
    }
    drop(naps);
    eventually("there is room again", SOON, async || shop.get("/v1/data/orders?limit=1").0 == 200)
        .await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_a_part_of_the_connections() {
    for trusted in ["false", "true"] {
        let settings = [
            ("MAX_CONNECTIONS_PER_CLIENT", "3"),
            ("TRUST_FORWARDED_FOR", trusted),
            ("REQUEST_TIMEOUT_MS", HOURS),
        ];
        let shop = Shop::over(slow_shop(600.0), |database| Server::start_with(database, &settings));
        let shop = shop.await;
        let _naps = shop.naps(3).await;
        // A trusted proxy's connections come from many clients.
        let expected = if trusted == "true" { 200 } else { 503 };
        let (status, answer) = shop.get("/v1/data/orders?limit=1");
        assert_eq!(status, expected, "{answer}");
        assert_eq!(shop.get("/livez").0, 200);

        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let address = ([127, 0, 0, 1], shop.port()).into();
        let other = socket.connect(address).await.unwrap().into_std().unwrap();
        other.set_nonblocking(false).unwrap();
        let answer = Client::over(other).get("/v1/me");
        assert!(answer.contains("401 unauthorized"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_files_for_its_clients_says_so_and_does_not_start() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = with(env_of(&app, &owner), "MAX_CONNECTION_POOL", "100");
    let mut running = Running::spawn(limited_to(200, &env));
    assert_eq!(running.wait(SOON).code(), Some(1));
    let said = running.said();
    assert!(said.contains("the limit of open files is 200"), "{said}");
    assert!(said.contains("LimitNOFILE") && said.contains("MAX_CONNECTION_POOL"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_take_its_answer_is_given_up() {
    let shop = Shop::open(&[("BODY_TIMEOUT_MS", "500")]).await;
    let head = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    let mut client = Client::saying(shop.port(), &head);
    eventually("it is closed", SOON, async || {
        let metrics = metrics(shop.port());
        metrics.contains("freehold_http_connections_closed_total{reason=\"stalled\"} 1")
    })
    .await;
    // Only the answers sent before can be read.
    let heard = client.hear_to_the_end();
    assert!(heard.matches("HTTP/1.1 200").count() < 400);
    shop.assert_serves();
}

fn metrics(port: u16) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    Client::saying(port, request).hear_to_the_end()
}
