//! Slow queries: those of all tenants for operators, and a tenant's own for its owners.

use crate::catalog::{slow_queries, tenants};
use crate::control::tenants::no_such_tenant;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::observe::insight::plan;

pub use crate::catalog::slow_queries::SlowStatement;
pub use crate::observe::insight::SlowQueryCounts;

/// The most statements of a page: each may have a plan of some kilobytes.
pub const SLOW_PAGE_MAX: i64 = 50;
/// The largest offset of a page.
const OFFSET_MAX: i64 = 100_000;

impl SlowStatement {
    /// The plan as text: a line for each node and for each of its conditions.
    pub fn plan_lines(&self) -> Vec<String> {
        self.plan.as_ref().map(plan::lines).unwrap_or_default()
    }
}

/// Handle for listing slow statements: [`Freehold::slow_queries`].
#[derive(Clone, Copy)]
pub struct SlowQueries<'a>(&'a Freehold);

impl Freehold {
    /// Lists slow statements.
    pub fn slow_queries(&self) -> SlowQueries<'_> {
        SlowQueries(self)
    }
}

impl SlowQueries<'_> {
    /// Statements that took [`slow_after`](crate::InsightOptions::slow_after) or longer, of every tenant or
    /// of one, from all servers; the latest slow one comes first. They are kept for seven days, at most 50
    /// per tenant and 10,000 in all. `limit` defaults to 20 and is at most [`SLOW_PAGE_MAX`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub async fn list(
        self,
        context: &OperatorContext,
        tenant: Option<TenantId>,
        offset: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<SlowStatement>> {
        let mut tx = self.0.catalog(context).await?;
        if let Some(tenant) = tenant {
            tenants::find(&mut tx, tenant).await?.ok_or_else(no_such_tenant)?;
        }
        let (offset, limit) = page(offset, limit);
        let list = slow_queries::list(&mut tx, tenant, offset, limit).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// The same, of the context's own tenant.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) unless the caller is an owner.
    pub async fn list_own(
        self,
        context: &TenantContext,
        offset: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<SlowStatement>> {
        require(context.role(), Action::ListSlowQueries)?;
        let mut tx = self.0.catalog_of(context).await?;
        let (offset, limit) = page(offset, limit);
        let list = slow_queries::list(&mut tx, Some(context.tenant()), offset, limit).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Counts of this process since it started.
    pub fn counts(self) -> SlowQueryCounts {
        self.0.insight().slow().counts()
    }

    /// Writes the slow statements so far to the catalog; call it before the process ends. Waits 2 s at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and any other error of the database.
    pub async fn flush(self) -> Result<()> {
        self.0.slow_log().flush().await
    }
}

fn page(offset: Option<i64>, limit: Option<i64>) -> (i64, i64) {
    (offset.unwrap_or(0).clamp(0, OFFSET_MAX), limit.unwrap_or(20).clamp(1, SLOW_PAGE_MAX))
}
