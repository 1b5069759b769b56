//! The record of changes to people and tenants. Operators read all of it, owners their tenant's part.

use uuid::Uuid;

use crate::catalog::audit::{self, Wanted};
use crate::control::clamp_page;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};

pub use crate::catalog::audit::AuditEntry;
pub use crate::model::audit::AUDIT_ACTIONS;

/// Which entries to list; by default, all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only entries about this tenant.
    pub tenant: Option<TenantId>,
    /// Only entries in which this person is the actor or is affected.
    pub person: Option<IdentityId>,
    /// Only entries about this address: a person who had it at that time, a request that named it, or an
    /// invitation to it; and everything about people who had it at any time, including removed ones.
    pub address: Option<String>,
}

impl AuditFilter {
    fn read(&self) -> Result<Wanted> {
        let address = self.address.as_deref().map(str::parse).transpose()?;
        Ok(Wanted { tenant: self.tenant, person: self.person, address })
    }
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
        let list = audit::list(&mut tx, &filter.read()?, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// [`list`](crate::control::audit::Audit::list) for the caller's own tenant, whatever the filter's.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) unless the caller is an owner.
    pub async fn list_own(
        self,
        context: &TenantContext,
        filter: &AuditFilter,
        after: Option<Uuid>,
        limit: Option<i64>,
    ) -> Result<Vec<AuditEntry>> {
        require(context.role(), Action::ListAudit)?;
        let mut tx = self.0.catalog_of(context).await?;
        let wanted = Wanted { tenant: Some(context.tenant()), ..filter.read()? };
        let list = audit::list(&mut tx, &wanted, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }
}
