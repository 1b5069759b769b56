//! The disk space of tenants and its growth: measured periodically, stored, listed for operators.

use std::time::Duration;

use crate::catalog::{sizes, tenants};
use crate::control::clamp_page;
use crate::control::tenants::no_such_tenant;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;

pub use crate::catalog::sizes::{FleetGrowth, TenantGrowth, TenantSize};

/// How many tenants one statement measures.
const BATCH: i32 = 100;
/// The pause between two batches, so that measuring a large fleet is not a burst.
const PAUSE: Duration = Duration::from_millis(50);
/// The largest offset of a page.
const OFFSET_MAX: i64 = 1_000_000;

/// The order of a list of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeOrder {
    /// The fastest growing first.
    #[default]
    Growth,
    /// The largest first.
    Bytes,
}

/// Handle for measuring and listing the sizes of tenants: [`Freehold::sizes`].
#[derive(Clone, Copy)]
pub struct Sizes<'a>(&'a Freehold);

impl Freehold {
    /// Measures and lists the sizes of tenants.
    pub fn sizes(&self) -> Sizes<'_> {
        Sizes(self)
    }
}

impl Sizes<'_> {
    /// Measures every tenant, a hundred at a time. Returns how many batches could not be measured because one
    /// of their tables was locked for too long.
    pub async fn measure(self, context: &OperatorContext) -> Result<usize> {
        let mut after = None;
        let mut passed_over = 0;
        loop {
            let measured = sizes::measure(self.0.catalog(context).await?, after, BATCH).await;
            let last = match measured {
                Ok(last) => last,
                Err(error) if error.database().is_some() => {
                    tracing::debug!(%error, "some tenants cannot be measured now");
                    passed_over += 1;
                    sizes::skip(self.0.catalog(context).await?, after, BATCH.into()).await?
                }
                Err(error) => return Err(error),
            };
            let Some(last) = last else { break };
            after = Some(last);
            tokio::time::sleep(PAUSE).await;
        }
        sizes::prune(self.0.catalog(context).await?).await?;
        Ok(passed_over)
    }

    /// Pages through tenants from the greatest to the least. `limit` defaults to 50.
    pub async fn list(
        self,
        context: &OperatorContext,
        order: SizeOrder,
        offset: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<TenantGrowth>> {
        let mut tx = self.0.catalog(context).await?;
        let offset = offset.unwrap_or(0).clamp(0, OFFSET_MAX);
        let by_growth = order == SizeOrder::Growth;
        let list = sizes::list(&mut tx, by_growth, offset, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// The sizes of one tenant, the newest first: all measurements of two days, then one per day, for 90
    /// days.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub async fn history(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        limit: Option<i64>,
    ) -> Result<Vec<TenantSize>> {
        let mut tx = self.0.catalog(context).await?;
        tenants::find(&mut tx, tenant).await?.ok_or_else(no_such_tenant)?;
        let list = sizes::history(&mut tx, tenant, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// The total size of all tenants and its growth, as of the last measurement.
    pub async fn fleet_growth(self, context: &OperatorContext) -> Result<FleetGrowth> {
        let mut tx = self.0.catalog(context).await?;
        let fleet = sizes::fleet(&mut tx).await?;
        tx.commit().await?;
        Ok(fleet)
    }
}
