//! The record of changes to people and tenants. Operators read all of it, owners their tenant's part.

use uuid::Uuid;

use crate::catalog::audit;
use crate::control::clamp_page;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};

pub use crate::catalog::audit::AuditEntry;
pub use crate::model::audit::AUDIT_ACTIONS;

/// Which entries to list; by default, all.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter {
    /// Only entries about this tenant.
    pub tenant: Option<TenantId>,
    /// Only entries in which this person is the actor or is affected.
    pub person: Option<IdentityId>,
}

/// Handle for reading the record of changes to people and tenants: [`Freehold::audit`].
#[derive(Clone, Copy)]
pub struct Audit<'a>(&'a Freehold);

impl Freehold {
    /// Reads the record of changes to people and tenants.
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// Pages through the record from the newest entry to the oldest, beginning after `after`. `limit`
    /// defaults to 50 and is at most [`PAGE_MAX`](crate::control::PAGE_MAX). Entries are kept for 400 days.
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

    /// [`list`](crate::control::audit::Audit::list) for the caller's own tenant.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) unless the caller is an owner.
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
