//! The cost of tenants' statements, for operators: exact figures from all servers, by hour.

use crate::catalog::{tenants, usage};
use crate::control::clamp_page;
use crate::control::tenants::no_such_tenant;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;
use crate::observe::insight::TenantSeries;

pub use crate::catalog::usage::{BusyTenant, TableUsage, TenantUsage, UsageOrder};
pub use crate::observe::insight::Usage;

/// How many hours are kept, including the current one.
pub const HOURS_MAX: i32 = 25;
/// The largest offset of a page.
const OFFSET_MAX: i64 = 1_000_000;

fn clamp_hours(hours: Option<i32>) -> i32 {
    hours.unwrap_or(HOURS_MAX).clamp(1, HOURS_MAX)
}

impl UsageOrder {
    /// All orders.
    pub const ALL: [UsageOrder; 5] = [
        UsageOrder::Time,
        UsageOrder::Queries,
        UsageOrder::Rows,
        UsageOrder::Errors,
        UsageOrder::Wait,
    ];

    /// The name in the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            UsageOrder::Time => "time",
            UsageOrder::Queries => "queries",
            UsageOrder::Rows => "rows",
            UsageOrder::Errors => "errors",
            UsageOrder::Wait => "wait",
        }
    }

    /// Reads [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Result<UsageOrder> {
        UsageOrder::ALL.into_iter().find(|order| order.as_str() == text).ok_or_else(|| {
            let known = UsageOrder::ALL.map(UsageOrder::as_str).join(", ");
            Error::new(ErrorKind::InvalidInput, format!("order must be one of {known}"))
                .field("order")
        })
    }
}

/// Handle for reading what tenants' statements cost: [`Freehold::usage`].
#[derive(Clone, Copy)]
pub struct UsageOfTenants<'a>(&'a Freehold);

impl Freehold {
    /// Reads what tenants' statements cost.
    pub fn usage(&self) -> UsageOfTenants<'_> {
        UsageOfTenants(self)
    }
}

impl UsageOfTenants<'_> {
    /// What tenants' statements cost, from the most expensive to the least, in the current hour and the ones
    /// before it, over all servers. `hours` defaults to [`HOURS_MAX`] and `limit` to 50. A server adds its
    /// figures every [`write_every`](crate::InsightOptions::write_every).
    pub async fn list(
        self,
        context: &OperatorContext,
        order: UsageOrder,
        hours: Option<i32>,
        offset: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<TenantUsage>> {
        let mut tx = self.0.catalog(context).await?;
        let offset = offset.unwrap_or(0).clamp(0, OFFSET_MAX);
        let list =
            usage::list(&mut tx, order, clamp_hours(hours), offset, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// What one tenant's statements cost, by table, in descending order of time.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        hours: Option<i32>,
    ) -> Result<Vec<TableUsage>> {
        let mut tx = self.0.catalog(context).await?;
        tenants::find(&mut tx, tenant).await?.ok_or_else(no_such_tenant)?;
        let tables = usage::of_tenant(&mut tx, tenant, clamp_hours(hours)).await?;
        tx.commit().await?;
        Ok(tables)
    }

    /// The tenants that are busiest at this moment over all servers, with rates of the last seconds.
    pub async fn list_busiest(
        self,
        context: &OperatorContext,
        limit: Option<i64>,
    ) -> Result<Vec<BusyTenant>> {
        let mut tx = self.0.catalog(context).await?;
        let list = usage::busiest(&mut tx, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Counters for Prometheus: this process's busiest tenants by name, and all others as one. There are at
    /// most ([`tenants_named`](crate::InsightOptions::tenants_named) + 1) × 64 series, one for each tenant
    /// and table.
    pub fn series(self) -> Vec<TenantSeries> {
        self.0.insight().series()
    }

    /// How many tenants [`series`](crate::control::insight::UsageOfTenants::series) names at most.
    pub fn tenants_named(self) -> usize {
        self.0.insight().options().tenants_named
    }

    /// The slugs of the given tenants, without those that do not exist.
    pub async fn slugs_of(
        self,
        context: &OperatorContext,
        tenants: &[TenantId],
    ) -> Result<Vec<(TenantId, String)>> {
        usage::slugs(self.0.catalog(context).await?, tenants).await
    }

    /// Writes the counts so far to the catalog; call it before the process ends. Waits 2 s at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] and any other error of the database; counts that were not written are kept for
    /// the next attempt.
    pub async fn flush(self) -> Result<()> {
        self.0.reporter().flush().await
    }
}
