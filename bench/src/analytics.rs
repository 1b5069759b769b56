//! What analytics costs, and how it affects live load: the demo's four definitions over a fleet, while
//! clients read and write. For comparison, a materialized view over all tenants' schemas.
//!
//! Slices with and without a run alternate, and the load continues through both: a fixed number of requests
//! per second, sent whether or not the previous one was answered, so that a stall shows in the latencies of
//! all requests that it delays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use freehold::{AnalyticsFolder, AnalyticsOptions, AnalyticsRun};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::Mutex;

use crate::Result;
use crate::fixtures::{Fleet, Member, connect, operator};
use crate::report::{Ratio, Row};
use crate::rounds::{latency, median};

/// Requests per second. Two cores serve some thousands of these.
const LOAD_PER_SEC: u64 = 200;
/// One request in this many is a write.
const WRITE_EVERY: usize = 10;
const QUIET: Duration = Duration::from_secs(3);
/// One tenant in this many has new orders when a run begins.
const CHANGED_ONE_OF: usize = 10;
const ROUNDS_MAX: usize = 20;

/// Thirty orders of eight customers.
pub(crate) const SEED: &str = "
INSERT INTO customers (email, full_name, city, country_code, created_at)
  SELECT n || '@bench.example', 'Customer ' || n, 'Berlin', 'DE', now() - n * interval '9 days' FROM generate_series(1, 8) n;
INSERT INTO products (sku, name, price_cents) VALUES ('ONE', 'One', 100);
WITH placed AS (
  INSERT INTO orders (customer_id, status, created_at)
  SELECT (SELECT id FROM customers ORDER BY email OFFSET n % 8 LIMIT 1), 'paid', now() - n * interval '1 day'
  FROM generate_series(0, 29) n RETURNING id
)
INSERT INTO order_items (order_id, product_id, unit_price_cents) SELECT placed.id, products.id, 100 FROM placed, products";

const ORDER: &str = "INSERT INTO orders (customer_id) SELECT id FROM customers LIMIT 1";
const PAGE: &str = "SELECT id, status, total_cents FROM orders ORDER BY created_at DESC LIMIT 20";

pub(crate) async fn run(admin_url: &str, seconds: u64, count: usize) -> Result<Vec<Row>> {
    let admin = connect(admin_url).await?;
    // Autovacuum would run at a different moment in each run.
    admin.batch_execute("ALTER SYSTEM SET autovacuum = off").await?;
    admin.batch_execute("SELECT pg_reload_conf()").await?;
    let fleet = Arc::new(Fleet::empty(admin_url, count).await?);
    eprintln!("filling them with orders");
    stream::iter(&fleet.tenants)
        .map(|member| fleet.freehold.tenants().run_script(context(), member.tenant.id, SEED))
        .buffer_unordered(4)
        .try_collect::<()>()
        .await?;
    fleet.freehold.analytics().apply(context(), &AnalyticsFolder::read("demo/analytics")?).await?;
    let mut rows = Vec::new();
    for case in ["collect/first", "collect/everybody"] {
        let ran = run_once(&fleet, false).await?;
        rows.push(secs(case, ran.collected));
    }
    let (quiet, beside) = beside_load(&fleet, seconds).await?;
    rows.push(secs("collect", median(beside.collected.clone())));
    rows.push(secs("publish", median(beside.published.clone())));
    let both = beside.collected.iter().zip(&beside.published).map(|(a, b)| a + b).collect();
    rows.push(secs("collect+publish", median(both)));
    let p99 = |latencies| latency(latencies).map_or(f64::NAN, |latency| latency.p99_ms);
    let (quiet, loaded) = (p99(quiet), p99(beside.latencies));
    rows.push(Row::of("live_p99/quiet", quiet, "ms"));
    let ratio = Some(Ratio { value: loaded / quiet, to: "live_p99/quiet".to_owned() });
    rows.push(Row { ratio, ..Row::of("live_p99", loaded, "ms") });
    rows.push(naive(&fleet).await?);
    Ok(rows)
}

fn context() -> &'static freehold::OperatorContext {
    static CONTEXT: std::sync::LazyLock<freehold::OperatorContext> =
        std::sync::LazyLock::new(operator);
    &CONTEXT
}

fn secs(case: &str, value: f64) -> Row {
    Row::of(case, value, "s")
}

struct Ran {
    collected: f64,
    published: f64,
}

async fn run_once(fleet: &Fleet, changed_only: bool) -> Result<Ran> {
    let options = AnalyticsOptions { changed_only, ..AnalyticsOptions::default() };
    let runs = fleet.freehold.analytics().run(context(), None, options, &|_, _| {}).await?;
    let run: &AnalyticsRun = runs.first().ok_or("there are no definitions")?;
    if let Some(failure) = runs.iter().flat_map(|run| &run.failures).next() {
        return Err(format!("a tenant could not be collected: {}", failure.error).into());
    }
    let in_all = (run.collect_ms + run.publish_ms) as f64 / 1e3;
    eprintln!("{} of {} tenants collected, {in_all:.2} s", run.collected, run.tenants);
    Ok(Ran { collected: run.collect_ms as f64 / 1e3, published: run.publish_ms as f64 / 1e3 })
}

#[derive(Default)]
struct Beside {
    collected: Vec<f64>,
    published: Vec<f64>,
    latencies: Vec<Duration>,
}

/// Latencies without a run, and all measurements with one, alternating.
async fn beside_load(fleet: &Arc<Fleet>, seconds: u64) -> Result<(Vec<Duration>, Beside)> {
    let load = Load::start(Arc::clone(fleet));
    let (mut quiet, mut beside) = (Vec::new(), Beside::default());
    // Once around the fleet, since the first request of a tenant has a cost of another kind.
    tokio::time::sleep(Duration::from_secs(fleet.tenants.len() as u64 / LOAD_PER_SEC)).await;
    run_once(fleet, true).await?;
    let started = Instant::now();
    for round in 0..ROUNDS_MAX {
        for number in (round..fleet.tenants.len()).step_by(CHANGED_ONE_OF) {
            let member: &Member = &fleet.tenants[number];
            fleet.freehold.query(&member.context, ORDER, &[]).await?;
        }
        // Requests that the run delayed are not part of the next slice.
        tokio::time::sleep(Duration::from_secs(1)).await;
        load.take().await?;
        tokio::time::sleep(QUIET).await;
        quiet.append(&mut load.take().await?);
        let ran = run_once(fleet, true).await?;
        beside.latencies.append(&mut load.take().await?);
        beside.collected.push(ran.collected);
        beside.published.push(ran.published);
        if started.elapsed() > Duration::from_secs(seconds) && round > 1 {
            break;
        }
    }
    Ok((quiet, beside))
}

/// Requests at fixed times, for one tenant after another.
struct Load {
    answered: Arc<Mutex<Vec<Result<Duration>>>>,
    stopped: Arc<AtomicBool>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Load {
    fn start(fleet: Arc<Fleet>) -> Load {
        let load = Load { answered: Arc::default(), stopped: Arc::default() };
        let (answered, stopped) = (Arc::clone(&load.answered), Arc::clone(&load.stopped));
        let asked = AtomicUsize::new(0);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(1000 / LOAD_PER_SEC));
            while !stopped.load(Ordering::Relaxed) {
                let due = ticks.tick().await;
                let number = asked.fetch_add(1, Ordering::Relaxed);
                let (fleet, answered) = (Arc::clone(&fleet), Arc::clone(&answered));
                tokio::spawn(async move {
                    // A prime that is coprime to the size of a fleet, so that every tenant is used.
                    let member = &fleet.tenants[number * 7919 % fleet.tenants.len()];
                    let sql = if number.is_multiple_of(WRITE_EVERY) { ORDER } else { PAGE };
                    let outcome = fleet.freehold.query(&member.context, sql, &[]).await;
                    let took = outcome.map(|_| due.elapsed()).map_err(Into::into);
                    answered.lock().await.push(took);
                });
            }
        });
        load
    }

    /// The latencies since the last call.
    async fn take(&self) -> Result<Vec<Duration>> {
        std::mem::take(&mut *self.answered.lock().await).into_iter().collect()
    }
}

/// One of the four figures as a materialized view over the tenants' schemas; over fewer of them if PostgreSQL
/// cannot handle all, and then the case's name contains the number.
async fn naive(fleet: &Fleet) -> Result<Row> {
    let admin = connect(&fleet.database.superuser_url()).await?;
    let mut count = fleet.tenants.len();
    loop {
        let parts: Vec<_> = fleet.tenants[..count]
            .iter()
            .map(|m| format!("SELECT created_at::date AS day FROM {}.orders", m.tenant.id.schema()))
            .collect();
        let view = format!(
            "CREATE MATERIALIZED VIEW naive AS SELECT day, count(*) AS orders FROM ({}) AS all_orders GROUP BY day;
             CREATE UNIQUE INDEX ON naive (day)",
            parts.join(" UNION ALL ")
        );
        let began = Instant::now();
        let made = async {
            admin.batch_execute(&view).await?;
            let began = Instant::now();
            admin.batch_execute("REFRESH MATERIALIZED VIEW CONCURRENTLY naive").await?;
            Ok::<_, tokio_postgres::Error>(began.elapsed())
        };
        match made.await {
            Ok(took) => {
                let case = match count == fleet.tenants.len() {
                    true => "naive/refresh".to_owned(),
                    false => format!("naive/refresh (of {count} tenants)"),
                };
                return Ok(secs(&case, took.as_secs_f64()));
            }
            Err(error) => {
                let why = error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |db| db.message().to_owned());
                eprintln!("no view over {count} schemas, after {:?}: {why}", began.elapsed());
                admin.batch_execute("DROP MATERIALIZED VIEW IF EXISTS naive").await?;
                count /= 2;
            }
        }
    }
}
