//! How much slow tenants affect an unrelated one: its pages at a fixed rate, alone and beside a hundred
//! clients of five other tenants, whose requests wait in the database or use its CPU.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use freehold::tokens::{AccessTokens, Keyring};
use freehold::{Baseline, Migration, SignInLimits};
use tokio::task::JoinHandle;

use crate::Result;
use crate::client::HttpConnection;
use crate::fixtures::{Fleet, demo_baseline};
use crate::http::{request, request_to, serve, whole};
use crate::pace::{FixedRate, Slice, compared, summed};
use crate::report::Row;

const SLOW_TENANTS: usize = 5;
const SLOW_CLIENTS: usize = 100;
/// Requests per second of the measured tenant.
const RATE: f64 = 100.0;
const ROUNDS: u32 = 7;
/// The pause after a crowd begins and before the measurement, so that each slice begins alike.
const TO_GATHER: Duration = Duration::from_secs(1);
/// The pause of a client that was told to try again later.
const COME_BACK: Duration = Duration::from_millis(100);

/// A quarter of a second of waiting, and about as much of computing on the machine on which this was written.
const SLOW_VIEWS: &str = "
CREATE VIEW waits AS SELECT 1 AS id FROM pg_sleep(0.25);
CREATE VIEW burns AS SELECT count(*) AS id FROM generate_series(1, 1500000) AS n WHERE sqrt(n) > 10;";

const CROWDS: [&str; 2] = ["waits", "burns"];

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let mut migrations = demo_baseline()?.migrations().to_vec();
    let version = migrations.last().map_or(1, |last| last.version + 1);
    migrations.push(Migration::new(version, "slow_views", SLOW_VIEWS));
    let baseline = Baseline::from_migrations(migrations)?;
    let fleet = Fleet::with_orders_of(&baseline, admin_url, SLOW_TENANTS + 1).await?;
    fleet.open_sessions().await?;
    let tokens =
        AccessTokens::new(Keyring::new(&"benchmark ".repeat(4), &[""; 0])?, "bench", "bench");
    let (looked_at, slow) = fleet.tenants.split_first().ok_or("there is no tenant")?;
    let pages = Arc::new(vec![request(&tokens, looked_at)?]);
    let mut crowds = Vec::new();
    for view in CROWDS.iter().filter(|view| view.contains(only)) {
        let path = format!("/v1/data/{view}");
        let requests: Result<Vec<String>> =
            slow.iter().map(|member| request_to(&path, &tokens, member)).collect();
        crowds.push((*view, Arc::new(requests?)));
    }
    let address = serve(whole(&fleet, tokens, SignInLimits::default()).await?).await?;
    let load = Arc::new(FixedRate::open(address, pages).await?);

    let slice = Duration::from_secs(seconds) / (ROUNDS * (1 + crowds.len() as u32));
    eprintln!("warming up");
    load.send(RATE, slice).await?;
    let mut quiet = Vec::new();
    let mut beside: Vec<Vec<Slice>> = crowds.iter().map(|_| Vec::new()).collect();
    let mut served: Vec<Served> = crowds.iter().map(|_| Served::default()).collect();
    for round in 1..=ROUNDS {
        quiet.push(load.send(RATE, slice).await?);
        eprint!("round {round} of {ROUNDS}: p99 {:.2} ms quiet", quiet[quiet.len() - 1].p99_ms());
        for (number, (view, requests)) in crowds.iter().enumerate() {
            let crowd = Crowd::gather(address, requests);
            tokio::time::sleep(TO_GATHER).await;
            let looked = load.send(RATE, slice).await;
            served[number].add(crowd.disperse().await?);
            let looked = looked?;
            eprint!(", {:.2} ms where the others' {view}", looked.p99_ms());
            beside[number].push(looked);
        }
        eprintln!();
    }

    let mut rows = vec![summed("quiet", &quiet)];
    for (((view, _), slices), served) in crowds.iter().zip(&beside).zip(served) {
        let beside = format!("beside_{view}");
        rows.push(summed(&beside, slices));
        for (name, figure) in [("p50", Slice::p50_ms as fn(&Slice) -> f64), ("p99", Slice::p99_ms)]
        {
            let case = format!("{beside}/median_{name}");
            rows.push(compared(&case, figure, slices, ("quiet", &quiet)));
        }
        let case = format!("{view}/answered");
        rows.push(Row::of(&case, served.answered as f64 / served.secs, "/s"));
        rows.push(Row::of(&format!("{view}/told_503"), served.refused as f64 / served.secs, "/s"));
    }
    Ok(rows)
}

/// Clients that send slow requests, each again as soon as it is answered.
struct Crowd {
    began: Instant,
    dispersed: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Served>>>,
}

/// The results of the crowd's requests.
#[derive(Default)]
struct Served {
    answered: usize,
    refused: usize,
    secs: f64,
}

impl Crowd {
    fn gather(address: SocketAddr, requests: &Arc<Vec<String>>) -> Crowd {
        let dispersed = Arc::new(AtomicBool::new(false));
        let clients = (0..SLOW_CLIENTS).map(|client| {
            let (dispersed, requests) = (Arc::clone(&dispersed), Arc::clone(requests));
            tokio::spawn(async move {
                let mut connection = HttpConnection::open(address).await?;
                let mut served = Served::default();
                while !dispersed.load(Ordering::Relaxed) {
                    match connection.ask(&requests[client % requests.len()]).await? {
                        (200, _) => served.answered += 1,
                        (503 | 504, _) => {
                            served.refused += 1;
                            tokio::time::sleep(COME_BACK).await;
                        }
                        (status, body) => {
                            let body = String::from_utf8_lossy(body);
                            return Err(format!("a slow request got {status}: {body}").into());
                        }
                    }
                }
                Ok(served)
            })
        });
        let clients = clients.collect();
        Crowd { began: Instant::now(), dispersed, clients }
    }

    /// Returns when all requests are answered.
    async fn disperse(self) -> Result<Served> {
        self.dispersed.store(true, Ordering::Relaxed);
        let mut all = Served::default();
        for client in self.clients {
            let Served { answered, refused, .. } = client.await??;
            all.answered += answered;
            all.refused += refused;
        }
        all.secs = self.began.elapsed().as_secs_f64();
        Ok(all)
    }
}

impl Served {
    fn add(&mut self, other: Served) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.secs += other.secs;
    }
}
