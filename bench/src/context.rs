//! What a tenant's context costs, around a query of 20 rows by an index.

use std::sync::Arc;

use freehold::{Freehold, Options, PoolLimits, SealMode, TenantContext};
use futures_util::future::try_join_all;
use tokio_postgres::{Client, Statement};

use crate::fixtures::{Fleet, bare_schema, connect};
use crate::report::Row;
use crate::rounds::{Case, Load, Operation, take_turns};
use crate::{Failure, Result};

const CONNECTIONS: [usize; 2] = [1, 8];
const TENANTS: [usize; 2] = [1, 100];
const ROWS: usize = 20;

#[derive(Clone, Copy)]
enum Kind {
    /// The query alone: a prepared statement on a table without protection.
    Floor,
    /// BEGIN, context, query and COMMIT, each awaited: the usual approach without this library.
    FourRoundTrips,
    /// [`Freehold::query`], with the table found by the search path.
    SearchPath,
    /// [`Freehold::query`], with the table named with its schema, as the data API does.
    Qualified,
    /// A transaction whose COMMIT is sent separately, because the caller examines the rows first.
    Transaction,
}

impl Kind {
    const ALL: [Kind; 5] =
        [Kind::Floor, Kind::FourRoundTrips, Kind::SearchPath, Kind::Qualified, Kind::Transaction];

    fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::FourRoundTrips => "four_round_trips",
            Kind::SearchPath => "engine/search_path",
            Kind::Qualified => "engine/qualified",
            Kind::Transaction => "engine/transaction",
        }
    }
}

/// The same page of orders in every case; only the table's name differs.
fn page_of_orders(table: &str) -> String {
    format!(
        "SELECT id, customer_id, status::text, total_cents, shipped_at, created_at \
         FROM {table} ORDER BY created_at DESC LIMIT {ROWS}"
    )
}

/// Shared by the cases with the same number of connections.
struct Stage {
    unqualified: String,
    tenants: Vec<TenantTexts>,
    /// One connection per worker.
    bare: Vec<BareConnection>,
    freehold: Freehold,
}

struct TenantTexts {
    context: TenantContext,
    qualified: String,
    search_path: String,
    /// The context in the form that the database takes.
    claim: String,
}

/// A connection without a pool around it, with its prepared statements.
struct BareConnection {
    client: Client,
    /// By tenant.
    floor: Vec<Statement>,
    set_context: Statement,
    /// Prepared once for all tenants: PostgreSQL plans again when the search path changes.
    unqualified: Statement,
}

struct Query {
    kind: Kind,
    stage: Arc<Stage>,
}

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let tenants_max = TENANTS.into_iter().max().unwrap_or(1);
    let fleet = Fleet::with_orders(admin_url, tenants_max).await?;
    // The usual approach cannot seal, so no case here does; `seal` measures the cost of a seal.
    fleet.database.change_seal(SealMode::Plain).await?;
    let mut cases = Vec::new();
    for connections in CONNECTIONS {
        eprintln!("warming up {connections} connections of each kind");
        let stage = Arc::new(Stage::set(&fleet, connections).await?);
        for tenants in TENANTS {
            for kind in Kind::ALL {
                let name = |kind: Kind| format!("{}/{connections}x{tenants}", kind.name());
                cases.push(Case {
                    name: name(kind),
                    ratio_to: (!matches!(kind, Kind::Floor)).then(|| name(Kind::Floor)),
                    operation: Arc::new(Query { kind, stage: Arc::clone(&stage) }),
                    load: Load { workers: connections, tenants },
                });
            }
        }
    }
    cases.retain(|case| case.name.contains(only));
    take_turns(&cases, "transactions/s", seconds).await
}

impl Stage {
    /// Connects, and runs every statement for every tenant on every connection.
    async fn set(fleet: &Fleet, connections: usize) -> Result<Stage> {
        let mut tenants = Vec::new();
        for member in &fleet.tenants {
            let (context, schema) = (member.context, member.tenant.id.schema());
            tenants.push(TenantTexts {
                context,
                qualified: page_of_orders(&format!("{schema}.orders")),
                search_path: format!("{schema}, public, pg_temp"),
                claim: format!(
                    "tenant_{}_{}_{}",
                    context.tenant().as_uuid().simple(),
                    context.actor().id.as_uuid().simple(),
                    context.role().as_str()
                ),
            });
        }
        let limits = PoolLimits { connections_max: connections, ..PoolLimits::default() };
        let options = Options { app_pool: limits, ..fleet.database.options() };
        let freehold = Freehold::connect(&options).await?;
        let unqualified = page_of_orders("orders");
        let app_url = fleet.database.app_url();
        let bare = (0..connections).map(|_| BareConnection::open(&app_url, &tenants, &unqualified));
        let bare = try_join_all(bare).await?;
        let stage = Stage { unqualified, tenants, bare, freehold };
        stage.warm_up(connections).await?;
        Ok(stage)
    }

    async fn warm_up(&self, connections: usize) -> Result<()> {
        for (number, tenant) in self.tenants.iter().enumerate() {
            for text in [&self.unqualified, &tenant.qualified] {
                // Held at the same time, so that each is another connection: the home slot, and those to
                // which the tenant may overflow. A quarter of the slots is closed to any one tenant.
                let share = connections - connections / 4;
                let held = (0..share).map(|_| self.freehold.begin(&tenant.context));
                for mut tx in try_join_all(held).await? {
                    expect_page(tx.query(text, &[]).await?.len())?;
                    tx.commit().await?;
                }
            }
            for bare in &self.bare {
                bare.floor(number).await?;
                bare.four_round_trips(tenant).await?;
            }
        }
        Ok(())
    }
}

impl Operation for Query {
    async fn run(&self, worker: usize, tenant: usize) -> Result<()> {
        let stage = &self.stage;
        let (bare, freehold) = (&stage.bare[worker], &stage.freehold);
        let texts = &stage.tenants[tenant];
        let rows = match self.kind {
            Kind::Floor => bare.floor(tenant).await?,
            Kind::FourRoundTrips => bare.four_round_trips(texts).await?,
            Kind::SearchPath => {
                freehold.query(&texts.context, &stage.unqualified, &[]).await?.len()
            }
            Kind::Qualified => freehold.query(&texts.context, &texts.qualified, &[]).await?.len(),
            Kind::Transaction => {
                let mut tx = freehold.begin(&texts.context).await?;
                let rows = tx.query(&stage.unqualified, &[]).await?.len();
                tx.commit().await?;
                rows
            }
        };
        expect_page(rows)
    }
}

impl BareConnection {
    async fn open(
        app_url: &str,
        tenants: &[TenantTexts],
        unqualified: &str,
    ) -> Result<BareConnection> {
        let client = connect(app_url).await?;
        let mut floor = Vec::new();
        for number in 0..tenants.len() {
            let sql = page_of_orders(&format!("{}.orders", bare_schema(number)));
            floor.push(client.prepare(&sql).await?);
        }
        let set_context = client
            .prepare(
                "SELECT set_config('search_path', $1, true), \
                 set_config('freehold.context', $2, true), \
                 set_config('role', 'freehold_admin', true)",
            )
            .await?;
        // Prepared with the names and privileges of a tenant.
        client.batch_execute("BEGIN").await?;
        let TenantTexts { search_path, claim, .. } = &tenants[0];
        client.query(&set_context, &[search_path, claim]).await?;
        let unqualified = client.prepare(unqualified).await?;
        client.batch_execute("COMMIT").await?;
        Ok(BareConnection { client, floor, set_context, unqualified })
    }

    async fn floor(&self, tenant: usize) -> Result<usize> {
        Ok(self.client.query(&self.floor[tenant], &[]).await?.len())
    }

    async fn four_round_trips(&self, tenant: &TenantTexts) -> Result<usize> {
        let client = &self.client;
        client.batch_execute("BEGIN").await?;
        client.query(&self.set_context, &[&tenant.search_path, &tenant.claim]).await?;
        let rows = client.query(&self.unqualified, &[]).await?;
        client.batch_execute("COMMIT").await?;
        Ok(rows.len())
    }
}

/// A measurement of a query without rows would be worthless.
fn expect_page(rows: usize) -> Result<()> {
    match rows {
        ROWS => Ok(()),
        other => Err(Failure::from(format!("expected {ROWS} rows, and {other} came"))),
    }
}
