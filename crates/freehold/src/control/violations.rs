//! Violations: records and lists them. Only operators can see those of tenants.

use uuid::Uuid;

use crate::catalog::violations;
use crate::control::clamp_page;
use crate::error::{Error, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;

pub use crate::observe::violations::{
    RecordedViolation, Violation, ViolationCounts, ViolationKind,
};

/// Which violations to list; by default, all.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViolationFilter {
    /// Those by this tenant, and those directed at it.
    pub tenant: Option<TenantId>,
    /// Those of this kind.
    pub kind: Option<ViolationKind>,
}

/// Handle for recording, listing and counting violations: [`Freehold::violations`].
#[derive(Clone, Copy)]
pub struct Violations<'a>(&'a Freehold);

impl Freehold {
    /// Records, lists and counts violations.
    pub fn violations(&self) -> Violations<'_> {
        Violations(self)
    }
}

impl Violations<'_> {
    /// Counts and logs a violation, and writes it to the catalog in the background. Never waits.
    ///
    /// Freehold records the violations that it detects itself. This method is for a service with further
    /// checks, such as a host name against a token:
    ///
    /// ```
    /// use freehold::control::violations::{Violation, ViolationKind};
    /// use freehold::{Error, ErrorKind, Freehold, Result, TenantContext, TenantId};
    ///
    /// fn check_host(freehold: &Freehold, context: &TenantContext, host: TenantId) -> Result<()> {
    ///     if host == context.tenant() {
    ///         return Ok(());
    ///     }
    ///     let mismatch = Violation::new(ViolationKind::TokenTenantMismatch);
    ///     freehold.violations().record(mismatch.by(context).towards(Some(host)));
    ///     Err(Error::new(ErrorKind::Forbidden, "the host and the token name different tenants"))
    /// }
    /// ```
    pub fn record(self, violation: Violation) {
        self.0.violation_queue().record(violation);
    }

    /// Pages through the violations from the newest to the oldest, beginning after `after`. `limit` defaults
    /// to 50 and is at most [`PAGE_MAX`](crate::control::PAGE_MAX). A violation appears shortly after it
    /// happened, and is kept for 90 days; of each kind, the newest 10,000 are kept.
    pub async fn list(
        self,
        context: &OperatorContext,
        filter: &ViolationFilter,
        after: Option<Uuid>,
        limit: Option<i64>,
    ) -> Result<Vec<RecordedViolation>> {
        let mut tx = self.0.catalog(context).await?;
        let (tenant, kind) = (filter.tenant, filter.kind);
        let list = violations::list(&mut tx, tenant, kind, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Counts of this process since it started.
    pub fn counts(self) -> ViolationCounts {
        self.0.violation_queue().counts()
    }

    /// Writes the violations recorded so far to the catalog; call it before the process ends. Waits 2 s at
    /// most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and any other error of the database; violations that
    /// were not written are kept for the next attempt.
    pub async fn flush(self) -> Result<()> {
        self.0.recorder().flush().await
    }
}

impl Freehold {
    /// [`require`], for an action that changes data: a refusal is recorded as a violation.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden).
    pub fn require_write(&self, context: &TenantContext, action: Action) -> Result<()> {
        require(context.role(), action).inspect_err(|error| {
            let refused = Violation::new(ViolationKind::WriteRefused).by(context);
            self.violations().record(refused.because(format!("{}: {action:?}", error.message())));
        })
    }

    /// Records that an actor tried to grant or revoke a role above their own, and returns the error.
    pub(crate) fn refused_write(&self, context: &TenantContext, error: Error) -> Error {
        let refused = Violation::new(ViolationKind::WriteRefused).by(context);
        self.violations().record(refused.because(error.message()));
        error
    }
}
