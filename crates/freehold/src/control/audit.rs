//! The record of what was done to people and tenants: operators read all of it, owners their tenant's.

use uuid::Uuid;

use crate::catalog::audit;
use crate::control::clamp_page;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};

pub use crate::catalog::audit::AuditEntry;

/// Which lines to list; by default, all.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// What this person did, and what was done to them.
    pub person: Option<IdentityId>,
}

/// Handle over the record of what was done: [`Freehold::audit`].
#[derive(Clone, Copy)]
pub struct Audit<'a>(&'a Freehold);

impl Freehold {
    /// The record of what was done.
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// Pages through the record from the newest to the oldest, beginning after one. `limit` is 50 if not
    /// given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most. Kept are 400 days.
    pub async fn list(
        self,
        context: &OperatorContext,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: Option<i64>,
    ) -> Result<Vec<AuditEntry>> {
        let mut tx = self.0.catalog(context).await?;
        let AuditFilter { tenant, person } = *filter;
        let list = audit::list(&mut tx, tenant, person, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// [`list`](crate::control::audit::Audit::list) of the caller's own tenant.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) for anybody but an owner.
    pub async fn list_own(
        self,
        context: &TenantContext,
        person: Option<IdentityId>,
        after: Option<Uuid>,
        limit: Option<i64>,
    ) -> Result<Vec<AuditEntry>> {
        require(context.role(), Action::ListAudit)?;
        let mut tx = self.0.catalog_of(context).await?;
        let tenant = Some(context.tenant());
        let list = audit::list(&mut tx, tenant, person, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }
}
