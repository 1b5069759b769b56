//! What many tenants cost: the same page of orders for tenants drawn from the whole fleet and from a hundred
//! of them, and how maintenance work grows with the fleet.

use std::sync::Arc;
use std::time::Instant;

use freehold::doctor::{DoctorOptions, examine};
use freehold::{
    Baseline, Freehold, MigrateOptions, Migration, Options, PoolLimits, TenantContext, TenantId,
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_postgres::Client;

use crate::Result;
use crate::analytics::SEED;
use crate::fixtures::{Fleet, connect, create, demo_baseline, operator};
use crate::report::{Ratio, Row};
use crate::rounds::{Case, Load, Operation, take_turns};

/// The number of concurrent requests. The engine's pool has its default size: what matters is the number of
/// tenants per connection.
const WORKERS: usize = 8;
const FEW: usize = 100;
/// The number of tenants that are created to measure a rate, in an empty fleet and in the whole one.
const CREATED: usize = 200;

/// The page for a tenant's schema.
struct Page {
    context: TenantContext,
    sql: String,
}

/// The client that requests it.
enum Asker {
    Engine(Freehold),
    /// A superuser, to whom no policy applies, with one connection per worker: no multi-tenancy at all.
    Floor(Vec<Client>),
}

struct Ask {
    asker: Asker,
    pages: Arc<Vec<Page>>,
}

pub(crate) async fn run(admin_url: &str, seconds: u64, count: usize) -> Result<Vec<Row>> {
    let fleet = Fleet::empty(admin_url, 1).await?;
    let mut tenants = Vec::new();
    let first = create_many(&fleet.freehold, "early", CREATED, &mut tenants).await?;
    eprintln!("creating {count} tenants");
    while tenants.len() + CREATED < count {
        let (name, more) = (format!("shop-{}", tenants.len()), count - CREATED - tenants.len());
        let rate = create_many(&fleet.freehold, &name, more.min(1000), &mut tenants).await?;
        eprintln!("{} tenants, {rate:.0} a second", tenants.len());
    }
    let last = create_many(&fleet.freehold, "late", CREATED, &mut tenants).await?;
    let pages = Arc::new(fill(&fleet, tenants).await?);
    let admin = connect(&fleet.database.superuser_url()).await?;
    admin.batch_execute("VACUUM ANALYZE").await?;

    let mut rows = queries(&fleet, &pages, seconds).await?;
    rows.extend(memory(&admin).await?);
    rows.push(Row::of("onboarding/first", first, "tenants/s"));
    let ratio = Some(Ratio { value: last / first, to: "onboarding/first".into() });
    rows.push(Row { ratio, ..Row::of("onboarding/last", last, "tenants/s") });
    rows.push(migrate(&fleet.freehold).await?);
    let (began, options) = (Instant::now(), fleet.database.options());
    let report = examine(&options, &DoctorOptions::default()).await?;
    rows.push(Row::of("doctor", began.elapsed().as_secs_f64(), "s"));
    for finding in report.findings {
        eprintln!("the doctor found {}: {}", finding.check.code, finding.check.title);
    }
    let size = "SELECT pg_database_size(current_database())::float8 / 1e6";
    rows.push(Row::of("database", admin.query_one(size, &[]).await?.get(0), "MB"));
    Ok(rows)
}

/// Returns tenants per second.
async fn create_many(
    freehold: &Freehold,
    name: &str,
    count: usize,
    tenants: &mut Vec<TenantId>,
) -> Result<f64> {
    let began = Instant::now();
    let created: Vec<_> = stream::iter(0..count)
        .map(|number| create(freehold, format!("{name}-{number}")))
        .buffer_unordered(4)
        .try_collect()
        .await?;
    tenants.extend(created.into_iter().map(|tenant| tenant.id));
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Inserts thirty orders for each tenant.
async fn fill(fleet: &Fleet, tenants: Vec<TenantId>) -> Result<Vec<Page>> {
    eprintln!("filling them with orders");
    let owner = fleet.tenants[0].context.actor();
    let (freehold, operator) = (&fleet.freehold, &operator());
    stream::iter(tenants)
        .map(|tenant| async move {
            freehold.tenants().run_script(operator, tenant, SEED).await?;
            let sql = format!(
                "SELECT id, customer_id, status::text, total_cents, shipped_at, created_at \
                 FROM {}.orders ORDER BY created_at DESC LIMIT 20",
                tenant.schema()
            );
            Ok(Page { context: freehold.tenant_context(tenant, owner.id).await?, sql })
        })
        .buffer_unordered(4)
        .try_collect()
        .await
}

async fn queries(fleet: &Fleet, pages: &Arc<Vec<Page>>, seconds: u64) -> Result<Vec<Row>> {
    eprintln!("everybody's first page");
    let options = Options { app_pool: PoolLimits::default(), ..fleet.database.options() };
    let mut superusers = Vec::new();
    for _ in 0..WORKERS {
        superusers.push(connect(&fleet.database.superuser_url()).await?);
    }
    let engine = Asker::Engine(Freehold::connect(&options).await?);
    let engine = Arc::new(Ask { asker: engine, pages: Arc::clone(pages) });
    let floor = Arc::new(Ask { asker: Asker::Floor(superusers), pages: Arc::clone(pages) });
    stream::iter(0..pages.len())
        .map(Ok)
        .try_for_each_concurrent(WORKERS, |tenant| engine.run(0, tenant))
        .await?;
    let case = |asker: &str, tenants: usize, ratio_to: Option<String>| Case {
        name: format!("{asker}/{tenants}"),
        ratio_to,
        operation: Arc::clone(if asker == "floor" { &floor } else { &engine }),
        load: Load { workers: WORKERS, tenants },
    };
    let all = pages.len();
    let cases = [
        case("floor", FEW, None),
        case("floor", all, Some(format!("floor/{FEW}"))),
        case("engine", FEW, Some(format!("floor/{FEW}"))),
        case("engine", all, Some(format!("floor/{all}"))),
    ];
    take_turns(&cases, "pages/s", seconds).await
}

impl Operation for Ask {
    async fn run(&self, worker: usize, tenant: usize) -> Result<()> {
        let Page { context, sql } = &self.pages[tenant];
        let rows = match &self.asker {
            Asker::Engine(freehold) => freehold.query(context, sql, &[]).await?.len(),
            Asker::Floor(clients) => clients[worker].query_typed(sql, &[]).await?.len(),
        };
        if rows != 20 {
            return Err(format!("expected 20 rows, and {rows} came").into());
        }
        Ok(())
    }
}

/// The private memory of the app role's backends, if the system reports it.
async fn memory(admin: &Client) -> Result<Vec<Row>> {
    let pids = "SELECT pid FROM pg_stat_activity WHERE usename = 'freehold_app'";
    let mut anonymous = Vec::new();
    for row in admin.query(pids, &[]).await? {
        let file = format!("/proc/{}/status", row.get::<_, i32>(0));
        let Ok(status) = std::fs::read_to_string(file) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        anonymous.extend(kib.map(|kib| kib * 1024.0 / 1e6));
    }
    let largest = anonymous.into_iter().max_by(f64::total_cmp);
    Ok(largest
        .map(|megabytes| Row::of("memory/largest_connection", megabytes, "MB"))
        .into_iter()
        .collect())
}

async fn migrate(freehold: &Freehold) -> Result<Row> {
    eprintln!("one ADD COLUMN for everybody");
    let mut migrations = demo_baseline()?.migrations().to_vec();
    migrations.push(Migration::new(9000, "bench", "ALTER TABLE orders ADD COLUMN bench text"));
    let baseline = Baseline::from_migrations(migrations)?;
    let began = Instant::now();
    let report = freehold
        .migrations()
        .up(&operator(), &baseline, MigrateOptions::default(), &|_, _| {})
        .await?;
    match report.failed.first() {
        None => Ok(Row::of("migrate/add_column", began.elapsed().as_secs_f64(), "s")),
        Some(failure) => Err(format!("a tenant could not be migrated: {}", failure.error).into()),
    }
}
