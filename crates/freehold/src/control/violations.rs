//! Violations: record and list them. Those of tenants are the operators' to see and nobody else's.

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
    /// Those that this tenant made, and those that were directed at it.
    pub tenant: Option<TenantId>,
    /// Those of this kind.
    pub kind: Option<ViolationKind>,
}

impl Freehold {
    /// Counts a violation, logs it, and has it written down in the background. Never waits.
    ///
    /// Those that Freehold notices itself are recorded already; this is for a service that checks
    /// more, such as a host name against a token:
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
    ///     freehold.record_violation(mismatch.by(context).towards(Some(host)));
    ///     Err(Error::new(ErrorKind::Forbidden, "the host and the token name different tenants"))
    /// }
    /// ```
    pub fn record_violation(&self, violation: Violation) {
        self.violations().record(violation);
    }

    /// [`require`], for an action that would change something: a refusal is recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden).
    pub fn require_write(&self, context: &TenantContext, action: Action) -> Result<()> {
        require(context.role(), action).inspect_err(|error| {
            let refused = Violation::new(ViolationKind::WriteRefused).by(context);
            self.record_violation(refused.because(format!("{}: {action:?}", error.message())));
        })
    }

    /// Records that an actor tried to give or take what they may not, and hands the error back.
    pub(crate) fn refused_write(&self, context: &TenantContext, error: Error) -> Error {
        let refused = Violation::new(ViolationKind::WriteRefused).by(context);
        self.record_violation(refused.because(error.message()));
        error
    }

    /// Pages through the violations from the newest to the oldest, beginning after one. `limit` is
    /// 50 if not given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most. One appears a moment
    /// after it happened; kept are 90 days, and of each kind the newest 10,000 rows.
    pub async fn list_violations(
        &self,
        context: &OperatorContext,
        filter: &ViolationFilter,
        after: Option<Uuid>,
        limit: Option<i64>,
    ) -> Result<Vec<RecordedViolation>> {
        let mut tx = self.catalog(context).await?;
        let (tenant, kind) = (filter.tenant, filter.kind);
        let list = violations::list(&mut tx, tenant, kind, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// What this process has seen since it started.
    pub fn violation_counts(&self) -> ViolationCounts {
        self.violations().counts()
    }

    /// Writes down now what was recorded so far: before the process ends. Waits 2 s at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and whatever else the database refuses;
    /// what is not written goes on waiting.
    pub async fn flush_violations(&self) -> Result<()> {
        self.recorder().flush().await
    }
}
