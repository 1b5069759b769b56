//! Whether a server grows: a mixed load at half of the machine's maximum, with repeated measurements of the
//! memory and open files of the process and its backends. `freehold` must be beside this program.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use freehold::testing::PASSWORD;
use freehold::tokens::{AccessTokens, Keyring};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::Result;
use crate::client::{HttpConnection, post};
use crate::fixtures::{Fleet, Member, OWNER_EMAIL, connect, create, operator};
use crate::http::{Ask, CONNECTIONS, request, request_to};
use crate::pace::{FixedRate, summed};
use crate::report::{Ratio, Row};
use crate::rounds::{Case, Load, take_turns};

const TENANTS: usize = 100;
const SECRET: &str = "a secret of the benchmark, long enough for a key";
const TO_FIND: u64 = 10;
/// The number of slices; the first quarter of them is warm-up.
const SLICES: u32 = 20;
/// A tenant is created after this many rounds of the side work, which runs once a second.
const NEW_TENANT_EVERY: usize = 30;

pub(crate) async fn run(admin_url: &str, seconds: u64) -> Result<Vec<Row>> {
    let fleet = Arc::new(Fleet::with_orders(admin_url, TENANTS).await?);
    fleet.open_sessions().await?;
    let tokens = AccessTokens::new(Keyring::new(SECRET, &[""; 0])?, "freehold", "freehold");
    let (server, address) = Server::start(&fleet)?;
    let pages: Result<Vec<String>> =
        fleet.tenants.iter().map(|member| request(&tokens, member)).collect();
    let ask = Ask::open(address, &Arc::new(pages?)).await?;
    ask.check().await?;
    let case = Case {
        name: "most".to_owned(),
        ratio_to: None,
        operation: Arc::new(ask),
        load: Load { workers: CONNECTIONS, tenants: TENANTS },
    };
    eprintln!("finding the most that the machine does");
    let mut rows = take_turns(&[case], "/s", TO_FIND).await?;
    let rate = rows[0].rate / 2.0;

    let mixed: Result<Vec<Vec<String>>> =
        fleet.tenants.iter().map(|member| requests(&tokens, member)).collect();
    let load = Arc::new(FixedRate::open(address, Arc::new(mixed?.concat())).await?);
    let beside = Beside::start(address, Arc::clone(&fleet));
    let admin = connect(&fleet.database.superuser_url()).await?;
    let (mut slices, mut looks) = (Vec::new(), Vec::new());
    for number in 1..=SLICES {
        slices.push(load.send(rate, Duration::from_secs(seconds) / SLICES).await?);
        let look = Look::take(&server, &admin).await?;
        eprintln!(
            "{number} of {SLICES}: server {:.1} MB, backends {:.1} MB, {} connections, {} files",
            look.server_mb, look.backends_mb, look.backends, look.files
        );
        looks.push(look);
    }
    let rounds = beside.end().await?;
    rows.push(summed("mixed", &slices));
    rows.push(Row::of("beside/rounds", rounds as f64, ""));
    rows.extend(report(&looks));
    Ok(rows)
}

/// The requests of one tenant, one after another, all of which are sent.
fn requests(tokens: &AccessTokens, member: &Member) -> Result<Vec<String>> {
    let get = |path: &str| request_to(path, tokens, member);
    let page = request(tokens, member)?;
    let head = |method: &str, path: &str, more: &str, body: &str| -> Result<String> {
        let head = get(path)?.replacen("GET", method, 1);
        let head = head.strip_suffix("\r\n").ok_or("a head has an end")?.to_owned();
        let length = body.len();
        Ok(format!(
            "{head}Content-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        ))
    };
    let batch = r#"[{"method":"GET","path":"/orders?limit=3"},{"method":"GET","path":"/products?limit=3"}]"#;
    let row = r#"{"sku":"SOAK","name":"what is written again and again","price_cents":1}"#;
    let merging = "Prefer: resolution=merge-duplicates\r\n";
    Ok(vec![
        page.clone(),
        get("/v1/me")?,
        page.clone(),
        head("POST", "/v1/data/products?on_conflict=sku", merging, row)?,
        page.clone(),
        head("POST", "/v1/batch", "", batch)?,
        page,
        get("/v1/data/order_notes?limit=5")?,
    ])
}

/// The server in a separate process, which is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(fleet: &Fleet) -> Result<(Server, SocketAddr)> {
        let program = std::env::current_exe()?.with_file_name("freehold");
        let mut child = Command::new(&program)
            .arg("serve")
            .env("DATABASE_URL", fleet.database.app_url())
            .env("DATABASE_OWNER_URL", fleet.database.owner_url())
            .env("JWT_SECRET", SECRET)
            .env("LISTEN", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let said = child.stderr.take().ok_or("the server has no stderr")?;
        let server = Server(child);
        let mut lines = BufReader::new(said).lines();
        let address = loop {
            let line = lines.next().ok_or("the server ended before it served")??;
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "serving" {
                break line["address"].as_str().ok_or("no address was named")?.parse()?;
            }
        };
        // The log must be read: a full pipe would block the server.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((server, address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A measurement.
struct Look {
    server_mb: f64,
    files: usize,
    backends: usize,
    /// The backends' private memory.
    backends_mb: f64,
}

impl Look {
    async fn take(server: &Server, admin: &Client) -> Result<Look> {
        let pid = server.0.id();
        let rows = admin
            .query(
                "SELECT pid FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> ''",
                &[],
            )
            .await?;
        let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        // A backend that has ended meanwhile has none.
        let backends_mb = pids.iter().filter_map(|pid| own_memory_mb(*pid as u32)).sum();
        Ok(Look {
            server_mb: own_memory_mb(pid).ok_or("the server has ended")?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            backends: pids.len(),
            backends_mb,
        })
    }
}

fn own_memory_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn report(looks: &[Look]) -> Vec<Row> {
    [
        grown("server/memory", "MB", looks, |look| look.server_mb),
        grown("backends/memory", "MB", looks, |look| look.backends_mb),
        grown("backends", "", looks, |look| look.backends as f64),
        grown("server/files", "", looks, |look| look.files as f64),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The maximum of the second quarter beside that of the last.
fn grown(name: &str, unit: &'static str, looks: &[Look], of: fn(&Look) -> f64) -> [Row; 2] {
    let quarter = looks.len() / 4;
    let most = |looks: &[Look]| looks.iter().map(of).fold(0.0, f64::max);
    let (early, late) = (most(&looks[quarter..2 * quarter]), most(&looks[looks.len() - quarter..]));
    let to = format!("{name}/early");
    let ratio = Some(Ratio { value: late / early, to: to.clone() });
    [Row::of(&to, early, unit), Row { ratio, ..Row::of(&format!("{name}/late"), late, unit) }]
}

/// Side work, once a second: a sign-in, refused requests, clients that disconnect before they are answered, a
/// tenant that is suspended and resumed; from time to time a new tenant.
struct Beside {
    stopped: Arc<AtomicBool>,
    task: JoinHandle<Result<usize>>,
}

impl Beside {
    fn start(address: SocketAddr, fleet: Arc<Fleet>) -> Beside {
        let stopped = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let stopped = Arc::clone(&stopped);
            async move {
                let extra = create(&fleet.freehold, "beside".to_owned()).await?;
                let mut rounds = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    sign_in(address).await?;
                    be_refused(address).await?;
                    go_away(address).await?;
                    fleet.freehold.tenants().suspend(&operator(), extra.id).await?;
                    fleet.freehold.tenants().resume(&operator(), extra.id).await?;
                    rounds += 1;
                    if rounds % NEW_TENANT_EVERY == 0 {
                        create(&fleet.freehold, format!("new-{rounds}")).await?;
                    }
                    tokio::time::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()))
                        .await;
                }
                Ok(rounds)
            }
        });
        Beside { stopped, task }
    }

    async fn end(self) -> Result<usize> {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

async fn sign_in(address: SocketAddr) -> Result<()> {
    let body = json!({"email": OWNER_EMAIL, "password": PASSWORD, "tenant": "shop-0"});
    HttpConnection::open(address).await?.send(&post("/v1/auth/login", &body)).await?;
    Ok(())
}

async fn be_refused(address: SocketAddr) -> Result<()> {
    for (path, expected) in [("/nowhere", 404), ("/v1/me", 401), ("/v1/data/orders?limit=x", 401)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        let (status, _) = HttpConnection::open(address).await?.ask(&request).await?;
        if status != expected {
            return Err(format!("{path} was answered {status}").into());
        }
    }
    Ok(())
}

/// Disconnects in the middle of a head, and before an answer.
async fn go_away(address: SocketAddr) -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    for said in ["GET /v1/me HT", "GET /openapi.json HTTP/1.1\r\nHost: bench\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(said.as_bytes()).await?;
    }
    Ok(())
}
