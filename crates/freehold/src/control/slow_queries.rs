//! Slow queries: list those of all tenants, for operators, and of one's own, for its owners.

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
/// How far one may page.
const OFFSET_MAX: i64 = 100_000;

impl SlowStatement {
    /// Its plan as people read it, a line for each node and each of its conditions.
    pub fn plan_lines(&self) -> Vec<String> {
        self.plan.as_ref().map(plan::lines).unwrap_or_default()
    }
}

/// Handle over statements that took long: [`Freehold::slow_queries`].
#[derive(Clone, Copy)]
pub struct SlowQueries<'a>(&'a Freehold);

impl Freehold {
    /// Statements that took long.
    pub fn slow_queries(&self) -> SlowQueries<'_> {
        SlowQueries(self)
    }
}

impl SlowQueries<'_> {
    /// Statements that took [`slow_after`](crate::InsightOptions::slow_after) or longer, of every
    /// tenant or of one, of all servers; what was slow last comes first. Kept are seven days, 50
    /// statements of a tenant and 10,000 in all. `limit` is 20 if not given and [`SLOW_PAGE_MAX`] at
    /// most.
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
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) for who is no owner.
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

    /// What this process has seen since it started.
    pub fn counts(self) -> SlowQueryCounts {
        self.0.insight().slow().counts()
    }

    /// Writes down now what was slow so far: before the process ends. Waits 2 s at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and whatever else the database refuses.
    pub async fn flush(self) -> Result<()> {
        self.0.slow_log().flush().await
    }
}

fn page(offset: Option<i64>, limit: Option<i64>) -> (i64, i64) {
    (offset.unwrap_or(0).clamp(0, OFFSET_MAX), limit.unwrap_or(20).clamp(1, SLOW_PAGE_MAX))
}
