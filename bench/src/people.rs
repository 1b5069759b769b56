//! How sign-ins affect other requests: pages of orders at a fixed rate, alone and beside 60 clients that sign
//! in repeatedly.
//!
//! The rate is half of the machine's maximum, load generator included.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use freehold::testing::PASSWORD;
use freehold::tokens::{AccessTokens, Keyring};
use freehold::{Rate, SignInLimits};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::Result;
use crate::client::{HttpConnection, post};
use crate::fixtures::{Fleet, OWNER_EMAIL, connect};
use crate::http::{Ask, CONNECTIONS, request, serve, whole};
use crate::pace::{FixedRate, Slice, compared, summed};
use crate::report::Row;
use crate::rounds::{Case, Load, latency, take_turns};

const TENANTS: usize = 100;
/// Clients that sign in, each without a pause.
const SIGNING_IN: usize = 60;
/// The people who are signed in: enough that concurrent sign-ins do not contend for rows.
const PEOPLE: usize = 1200;
const ROUNDS: u32 = 7;
/// The part of the time that is used to find the machine's maximum.
const TO_FIND: Duration = Duration::from_secs(10);
/// The pause after a slice with sign-ins, so that their effects are not part of the next quiet slice.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(admin_url: &str, seconds: u64) -> Result<Vec<Row>> {
    let fleet = Fleet::with_orders(admin_url, TENANTS).await?;
    fleet.open_sessions().await?;
    add_people(&fleet).await?;
    let tokens =
        AccessTokens::new(Keyring::new(&"benchmark ".repeat(4), &[""; 0])?, "bench", "bench");
    let pages: Result<Vec<String>> =
        fleet.tenants.iter().map(|member| request(&tokens, member)).collect();
    let pages = Arc::new(pages?);
    // To measure hashing, rather than how soon a client is refused.
    let plenty = NonZeroU32::new(1_000_000).expect("a rate is not zero");
    let plenty = Rate { burst: plenty, per_minute: plenty };
    let limits = SignInLimits { per_email: plenty, per_client: plenty };
    let address = serve(whole(&fleet, tokens, limits).await?).await?;

    let ask = Ask::open(address, &pages).await?;
    ask.check().await?;
    let case = Case {
        name: "data/most".to_owned(),
        ratio_to: None,
        operation: Arc::new(ask),
        load: Load { workers: CONNECTIONS, tenants: TENANTS },
    };
    eprintln!("warming up");
    take_turns(std::slice::from_ref(&case), "/s", 3).await?;
    eprintln!("finding the most that the machine does");
    let mut rows = take_turns(&[case], "/s", TO_FIND.as_secs()).await?;
    let rate = rows[0].rate / 2.0;

    let load = Arc::new(FixedRate::open(address, pages).await?);
    let slice = Duration::from_secs(seconds) / (2 * ROUNDS);
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    let mut signed_in = SignedIn::default();
    for round in 1..=ROUNDS {
        quiet.push(load.send(rate, slice).await?);
        let sign_ins = SignIns::start(address, round as usize);
        beside.push(load.send(rate, slice).await?);
        let ended = sign_ins.end().await?;
        eprintln!(
            "round {round} of {ROUNDS}: p99 {:.2} ms quiet, {:.2} ms beside {:.0} sign-ins a second",
            quiet.last().map_or(f64::NAN, Slice::p99_ms),
            beside.last().map_or(f64::NAN, Slice::p99_ms),
            ended.latencies.len() as f64 / ended.secs,
        );
        signed_in.add(ended);
        tokio::time::sleep(PAUSE).await;
    }
    rows.extend(report(&quiet, &beside, signed_in));
    Ok(rows)
}

fn report(quiet: &[Slice], beside: &[Slice], signed_in: SignedIn) -> Vec<Row> {
    let floor = ("data/quiet", quiet);
    let p50 = compared("data/beside/median_p50", Slice::p50_ms, beside, floor);
    let p99 = compared("data/beside/median_p99", Slice::p99_ms, beside, floor);
    let (quiet, beside) = (summed("data/quiet", quiet), summed("data/beside", beside));
    let SignedIn { latencies, refused, secs } = signed_in;
    let sign_ins = Row {
        rate: latencies.len() as f64 / secs,
        latency: latency(latencies),
        ..Row::of("sign_ins", 0.0, "/s")
    };
    vec![quiet, beside, p50, p99, sign_ins, Row::of("sign_ins/told_429", refused as f64, "")]
}

/// People with the password hash of the fleet's owner: a hash for each would take a minute. Each belongs to
/// one tenant.
async fn add_people(fleet: &Fleet) -> Result<()> {
    eprintln!("adding {PEOPLE} people");
    let admin = connect(&fleet.database.superuser_url()).await?;
    let ids: Vec<_> = (0..PEOPLE).map(|_| uuid::Uuid::now_v7()).collect();
    let emails: Vec<_> = (0..PEOPLE).map(email).collect();
    let tenants = &fleet.tenants;
    let homes: Vec<_> =
        (0..PEOPLE).map(|number| tenants[number % tenants.len()].tenant.id.as_uuid()).collect();
    admin
        .execute(
            "INSERT INTO freehold.identity (id, email, proven_at, proven_by, proven_why)
             SELECT id, email, now(), id, 'benchmark' FROM unnest($1::uuid[], $2::text[]) AS new (id, email)",
            &[&ids, &emails],
        )
        .await?;
    admin
        .execute(
            "INSERT INTO freehold.membership (tenant_id, identity_id, role)
             SELECT tenant, id, 'member' FROM unnest($1::uuid[], $2::uuid[]) AS new (id, tenant)",
            &[&ids, &homes],
        )
        .await?;
    admin
        .execute(
            "INSERT INTO freehold.credential (identity_id, password_hash)
             SELECT new.id, c.password_hash FROM unnest($1::uuid[]) AS new (id), freehold.credential c
             JOIN freehold.identity i ON i.id = c.identity_id WHERE i.email = $2",
            &[&ids, &OWNER_EMAIL],
        )
        .await?;
    admin.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

fn email(number: usize) -> String {
    format!("person-{number}@bench.example")
}

/// Clients that sign in repeatedly until they are told to end.
struct SignIns {
    began: Instant,
    stopped: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<SignedIn>>>,
}

/// The results of sign-ins.
#[derive(Default)]
struct SignedIn {
    latencies: Vec<Duration>,
    /// Refused, to try again later.
    refused: usize,
    secs: f64,
}

impl SignIns {
    fn start(address: SocketAddr, round: usize) -> SignIns {
        let stopped = Arc::new(AtomicBool::new(false));
        let clients = (0..SIGNING_IN).map(|client| {
            let stopped = Arc::clone(&stopped);
            tokio::spawn(async move {
                let mut connection = HttpConnection::open(address).await?;
                let mut done = SignedIn::default();
                // Each client has people of its own, and begins with another one in each round.
                for turn in round * 7.. {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    let person = (client + turn * SIGNING_IN) % PEOPLE;
                    let began = Instant::now();
                    match connection.ask(&log_in(person)).await? {
                        (200, _) => done.latencies.push(began.elapsed()),
                        (429, _) => done.refused += 1,
                        (status, body) => {
                            let body = String::from_utf8_lossy(body);
                            return Err(format!("a sign-in got {status}: {body}").into());
                        }
                    }
                }
                Ok(done)
            })
        });
        let clients = clients.collect();
        SignIns { began: Instant::now(), stopped, clients }
    }

    /// Returns when all requests are answered.
    async fn end(self) -> Result<SignedIn> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = SignedIn::default();
        for client in self.clients {
            all.add(client.await??);
        }
        all.secs = self.began.elapsed().as_secs_f64();
        Ok(all)
    }
}

impl SignedIn {
    fn add(&mut self, other: SignedIn) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.secs += other.secs;
    }
}

fn log_in(person: usize) -> String {
    post("/v1/auth/login", &json!({"email": email(person), "password": PASSWORD}))
}
