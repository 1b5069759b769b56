//! An upgrade under load: two servers behind HAProxy with `deploy/haproxy.cfg`; the catalog and every tenant
//! are migrated in between, and then each server is replaced.
//!
//! `./dev rolling` makes more requests, and can begin with the program of an earlier release.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use freehold::testing::{self, TestDatabase};
use freehold::{CATALOG_VERSION, MigrateOptions, SealMode};
use serde_json::json;

use crate::balanced::{Client, balance, wait_until_ready, wait_until_taken_in};
use crate::process::{Folder, Server, free_port, token};
use crate::support::{admin_url, connect, shop, shop_and};

const CLIENTS: usize = 8;
const TENANTS: usize = 4;
/// Requests before the first step, and after each.
const PAUSE: u64 = 100;

fn requests_min() -> u64 {
    std::env::var("FREEHOLD_ROLLING_REQUESTS").map_or(3000, |n| n.parse().unwrap())
}

/// The results of all clients.
#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    created: AtomicU64,
    failures: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Tally {
    /// Reads and writes, until it is over.
    fn load(&self, mut client: Client, number: usize) {
        for n in 0u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let email = format!("c{number}-{n}@x.example");
            let customer =
                json!({"email": email, "full_name": "C", "city": "B", "country_code": "DE"});
            let (method, path, body, good) = match n % 5 {
                0 => ("POST", "/v1/data/customers".to_owned(), customer.to_string(), 201),
                1 => {
                    let before = format!("c{number}-{}@x.example", n - 1);
                    let path = format!("/v1/data/customers?email=eq.{before}");
                    ("PATCH", path, json!({"city": "C"}).to_string(), 204)
                }
                2 => ("GET", "/v1/me".to_owned(), String::new(), 200),
                _ => ("GET", "/v1/data/customers?limit=20".to_owned(), String::new(), 200),
            };
            match client.ask(method, &path, "", &body) {
                Ok((status, _)) if status == good => {
                    self.created.fetch_add(u64::from(method == "POST"), Ordering::Relaxed);
                }
                other => {
                    self.failures.lock().unwrap().push(format!("{method} {path}: {other:?}"));
                }
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until this many more requests were made.
    fn wait_for(&self, more: u64) {
        let goal = self.asked.load(Ordering::Relaxed) + more;
        while self.asked.load(Ordering::Relaxed) < goal {
            assert!(self.failures.lock().unwrap().len() < 1000, "nothing works any more");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the next release's `freehold init` does: the same as this one's, and something more.
async fn init_of_the_next_release(database: &TestDatabase, mode: SealMode) {
    let sql = connect(&database.superuser_url()).await;
    database.change_seal(mode).await.unwrap();
    let more = format!(
        "SET ROLE freehold_owner;
         ALTER TABLE freehold.tenant ADD COLUMN plan text NOT NULL DEFAULT 'free';
         CREATE TABLE freehold.of_the_next_release (id int PRIMARY KEY);
         INSERT INTO freehold.catalog_migration (version, name, serves_from)
         VALUES (9999, 'of_the_next_release', {CATALOG_VERSION})"
    );
    sql.batch_execute(&more).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_under_load_drops_no_request() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (mut schemas, mut tokens) = (Vec::new(), Vec::new());
    for n in 0..TENANTS {
        let (tenant, context) = testing::create_tenant(&fleet, &format!("shop{n}")).await.unwrap();
        let owner = context.actor().id.as_uuid();
        schemas.push(tenant.id.schema());
        tokens.push(token(owner, Some(tenant.id.as_uuid()), "owner"));
    }
    let former = std::env::var("FREEHOLD_ROLLING_OLD").ok();
    let drain = [("DRAIN_SECS", "5")];
    let mut servers = [
        Server::start_program(former.as_deref(), &database, &drain),
        Server::start_program(former.as_deref(), &database, &drain),
    ];
    let ports = [servers[0].port, servers[1].port];
    ports.into_iter().for_each(wait_until_ready);
    let (folder, fronts) = (Folder::new(), [free_port(), free_port()]);
    let mut haproxy = balance(&folder, fronts, ports);

    let (tally, began) = (Tally::default(), Instant::now());
    thread::scope(|scope| {
        let _over = Over(&tally);
        for number in 0..CLIENTS {
            let token = tokens[number % TENANTS].clone();
            let client = Client::new(fronts[number / TENANTS % 2], token);
            let tally = &tally;
            scope.spawn(move || tally.load(client, number));
        }
        tally.wait_for(PAUSE);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                init_of_the_next_release(&database, fleet.seal_mode()).await;
                let next = shop_and(
                    "ALTER TABLE customers ADD COLUMN newsletter boolean NOT NULL DEFAULT false;
                     CREATE TABLE coupons (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
                );
                let options = MigrateOptions::default();
                let report = fleet
                    .migrations()
                    .up(
                        &freehold::OperatorContext::system("a rolling upgrade"),
                        &next,
                        options,
                        &|_, _| {},
                    )
                    .await
                    .unwrap();
                assert_eq!((report.migrated, report.failed.len()), (TENANTS, 0), "{report:?}");
            });
        });
        tally.wait_for(PAUSE);
        for (server, name) in servers.iter_mut().zip(["one", "two"]) {
            let port = server.port;
            server.running.stop();
            let at = format!("127.0.0.1:{port}");
            *server = Server::start_with(&database, &[drain[0], ("LISTEN", &at)]);
            assert_eq!(server.port, port);
            wait_until_taken_in(&haproxy, name);
            tally.wait_for(PAUSE);
        }
        let missing = requests_min().saturating_sub(tally.asked.load(Ordering::Relaxed));
        tally.wait_for(missing);
    });
    let (asked, created) = (tally.asked.into_inner(), tally.created.into_inner());
    let failures = tally.failures.into_inner().unwrap();
    println!(
        "{asked} requests in {:.1} s, {created} of them creating a row; {} failed",
        began.elapsed().as_secs_f64(),
        failures.len()
    );
    assert_eq!(failures.len(), 0, "of {asked} requests: {failures:#?}\n{}", haproxy.said());

    let sql = connect(&database.superuser_url()).await;
    let mut found = 0;
    for (schema, token) in schemas.iter().zip(&tokens) {
        let rows = format!("SELECT count(*) FROM {schema}.customers");
        found += sql.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0);
        let mut client = Client::new(fronts[0], token.clone());
        let answer =
            client.ask("GET", "/v1/data/customers?select=newsletter&limit=1", "", "").unwrap();
        assert_eq!(answer, (200, r#"[{"newsletter":false}]"#.to_owned()));
    }
    assert_eq!(u64::try_from(found).unwrap(), created, "rows that were acknowledged are not there");
    haproxy.kill();
}

/// The clients end with the test, however it ends.
struct Over<'a>(&'a Tally);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
