//! What the seal of a context costs: the same queries on the same rows by the engine with sealed contexts,
//! with plain ones, and on tables without policies.

use std::sync::Arc;

use freehold::{Freehold, Options, PoolLimits, SealMode, TenantContext};
use futures_util::future::try_join_all;

use crate::fixtures::{Fleet, operator};
use crate::report::Row;
use crate::rounds::{Case, Load, Operation, take_turns};
use crate::{Failure, Result};

const TENANTS: usize = 100;
/// At saturation: both cores are busy.
const CONNECTIONS: usize = 8;
const MILLION: i64 = 1_000_000;

#[derive(Clone, Copy)]
enum Question {
    /// One row by its key.
    Point,
    /// A page of 20 rows by an index.
    Read20,
    /// A page of an order's items with their products: three tables, three policies.
    Join,
    /// A sum over a million rows.
    Aggregate,
}

impl Question {
    const ALL: [Question; 4] =
        [Question::Point, Question::Read20, Question::Join, Question::Aggregate];

    fn name(self) -> &'static str {
        match self {
            Question::Point => "point",
            Question::Read20 => "read20",
            Question::Join => "join",
            Question::Aggregate => "aggregate",
        }
    }

    fn sql(self, prefix: &str) -> String {
        match self {
            Question::Point => format!(
                "SELECT id, status::text, total_cents FROM {prefix}orders WHERE id = $1::text::uuid"
            ),
            Question::Read20 => format!(
                "SELECT id, customer_id, status::text, total_cents, shipped_at, created_at \
                 FROM {prefix}orders ORDER BY created_at DESC LIMIT 20"
            ),
            Question::Join => format!(
                "SELECT o.id, p.name, i.quantity FROM {prefix}orders o \
                 JOIN {prefix}order_items i ON i.order_id = o.id \
                 JOIN {prefix}products p ON p.id = i.product_id WHERE o.id = $1::text::uuid"
            ),
            Question::Aggregate => format!("SELECT sum(amount) FROM {prefix}numbers"),
        }
    }

    fn takes_order(self) -> bool {
        matches!(self, Question::Point | Question::Join)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    Unprotected,
    Sealed(SealMode),
}

impl Protection {
    const ALL: [Protection; 4] = [
        Protection::Unprotected,
        Protection::Sealed(SealMode::Plain),
        Protection::Sealed(SealMode::Best),
        Protection::Sealed(SealMode::Portable),
    ];

    fn name(self) -> &'static str {
        match self {
            Protection::Unprotected => "unprotected",
            Protection::Sealed(mode) => mode.as_str(),
        }
    }

    /// The case it is compared with.
    fn base(self) -> Option<Protection> {
        match self {
            Protection::Unprotected => None,
            Protection::Sealed(SealMode::Plain) => Some(Protection::Unprotected),
            Protection::Sealed(_) => Some(Protection::Sealed(SealMode::Plain)),
        }
    }
}

/// A fleet in a database of its own, with one seal mode.
struct Stage {
    fleet: Fleet,
    freehold: Freehold,
    /// An order of each tenant.
    orders: Vec<String>,
    /// For each tenant, its schema and a dot.
    prefixes: Vec<String>,
}

struct Ask {
    stage: Arc<Stage>,
    /// By tenant: texts that contain the schema differ.
    texts: Vec<String>,
    takes_order: bool,
}

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let mut cases = Vec::new();
    for protection in Protection::ALL {
        eprintln!("preparing {}", protection.name());
        let stage = Arc::new(Stage::set(admin_url, protection).await?);
        for question in Question::ALL {
            let name =
                |protection: Protection| format!("{}/{}", protection.name(), question.name());
            let texts: Vec<String> =
                stage.prefixes.iter().map(|prefix| question.sql(prefix)).collect();
            // The million rows exist once.
            let tenants = if question.takes_order() || matches!(question, Question::Read20) {
                TENANTS
            } else {
                1
            };
            let ask = Ask { stage: Arc::clone(&stage), texts, takes_order: question.takes_order() };
            cases.push(Case {
                name: name(protection),
                ratio_to: protection.base().map(name),
                operation: Arc::new(ask),
                load: Load { workers: CONNECTIONS, tenants },
            });
        }
    }
    cases.retain(|case| case.name.contains(only));
    // Sorted so that all forms of one query follow each other.
    cases.sort_by_key(|case| case.name.rsplit('/').next().map(str::to_owned));
    for case in &cases {
        case.operation.warm_up(case.load.tenants).await?;
    }
    take_turns(&cases, "transactions/s", seconds).await
}

impl Stage {
    async fn set(admin_url: &str, protection: Protection) -> Result<Stage> {
        let fleet = Fleet::with_orders(admin_url, TENANTS).await?;
        let mode = match protection {
            Protection::Unprotected => SealMode::Plain,
            Protection::Sealed(mode) => mode,
        };
        fleet.database.change_seal(mode).await?;
        let limits = PoolLimits { connections_max: CONNECTIONS, ..PoolLimits::default() };
        let options = Options { app_pool: limits, ..fleet.database.options() };
        let freehold = Freehold::connect(&options).await?;
        let admin = crate::fixtures::connect(&fleet.database.superuser_url()).await?;
        let mut stage = Stage { freehold, orders: Vec::new(), prefixes: Vec::new(), fleet };
        for (number, member) in stage.fleet.tenants.iter().enumerate() {
            let schema = member.tenant.id.schema();
            if number == 0 {
                let numbers = format!(
                    "CREATE TABLE numbers (id int8 PRIMARY KEY, amount int8 NOT NULL);
                     INSERT INTO numbers SELECT n, n % 1000 FROM generate_series(1, {MILLION}) n"
                );
                stage
                    .fleet
                    .freehold
                    .tenants()
                    .run_script(&operator(), member.tenant.id, &numbers)
                    .await?;
                admin
                    .batch_execute(&format!("GRANT SELECT ON {schema}.numbers TO freehold_viewer"))
                    .await?;
                protect_by_hand(&admin, &schema, member.tenant.id).await?;
            }
            let order =
                admin.query_one(&format!("SELECT min(id::text) FROM {schema}.orders"), &[]).await?;
            stage.orders.push(order.get(0));
            if protection == Protection::Unprotected {
                // The same tables of the same tenant, without policies.
                let tables = ["orders", "order_items", "products", "customers"];
                for table in tables.iter().chain((number == 0).then_some(&"numbers")) {
                    admin
                        .batch_execute(&format!("ALTER TABLE {schema}.{table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"))
                        .await?;
                }
            }
            stage.prefixes.push(format!("{schema}."));
        }
        admin.batch_execute("VACUUM ANALYZE").await?;
        Ok(stage)
    }
}

/// Creates the policy that a migration would have created, for a table created by a script.
async fn protect_by_hand(
    admin: &tokio_postgres::Client,
    schema: &str,
    tenant: freehold::TenantId,
) -> Result<()> {
    let isolated = format!("(SELECT freehold.require_tenant('{tenant}'))");
    admin
        .batch_execute(&format!(
            "ALTER TABLE {schema}.numbers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY tenant_isolation ON {schema}.numbers AS RESTRICTIVE USING ({isolated}) WITH CHECK ({isolated});
             CREATE POLICY tenant_access ON {schema}.numbers TO freehold_viewer USING (true)"
        ))
        .await?;
    Ok(())
}

impl Ask {
    fn context(&self, tenant: usize) -> &TenantContext {
        &self.stage.fleet.tenants[tenant].context
    }

    async fn ask(&self, tenant: usize) -> Result<usize> {
        let freehold = &self.stage.freehold;
        let (context, sql) = (self.context(tenant), &self.texts[tenant]);
        let rows = if self.takes_order {
            freehold.query(context, sql, &[&self.stage.orders[tenant]]).await?
        } else {
            freehold.query(context, sql, &[]).await?
        };
        Ok(rows.len())
    }

    /// Every connection serves every tenant once.
    async fn warm_up(&self, tenants: usize) -> Result<()> {
        for tenant in 0..tenants {
            for _ in 0..2 {
                try_join_all((0..CONNECTIONS).map(|_| self.ask(tenant))).await?;
            }
        }
        Ok(())
    }
}

impl Operation for Ask {
    async fn run(&self, _worker: usize, tenant: usize) -> Result<()> {
        match self.ask(tenant).await? {
            0 => Err(Failure::from("a query found nothing")),
            _ => Ok(()),
        }
    }
}
