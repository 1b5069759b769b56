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

/// Handle over what was refused: [`Freehold::violations`].
#[derive(Clone, Copy)]
pub struct Violations<'a>(&'a Freehold);

impl Freehold {
    /// What was refused.
    pub fn violations(&self) -> Violations<'_> {
        Violations(self)
    }
}

impl Violations<'_> {
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
    ///     freehold.violations().record(mismatch.by(context).towards(Some(host)));
    ///     Err(Error::new(ErrorKind::Forbidden, "the host and the token name different tenants"))
    /// }
    /// ```
    pub fn record(self, violation: Violation) {
        self.0.violation_queue().record(violation);
    }

    /// Pages through the violations from the newest to the oldest, beginning after one. `limit` is
    /// 50 if not given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most. One appears a moment
    /// after it happened; kept are 90 days, and of each kind the newest 10,000 rows.
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

    /// What this process has seen since it started.
    pub fn counts(self) -> ViolationCounts {
        self.0.violation_queue().counts()
    }

    /// Writes down now what was recorded so far: before the process ends. Waits 2 s at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) and whatever else the database refuses;
    /// what is not written goes on waiting.
    pub async fn flush(self) -> Result<()> {
        self.0.recorder().flush().await
    }
}

impl Freehold {
    /// [`require`], for an action that would change something: a refusal is recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden).
    pub fn require_write(&self, context: &TenantContext, action: Action) -> Result<()> {
        require(context.role(), action).inspect_err(|error| {
            let refused = Violation::new(ViolationKind::WriteRefused).by(context);
            self.violations().record(refused.because(format!("{}: {action:?}", error.message())));
        })
    }

    /// Records that an actor tried to give or take what they may not, and hands the error back.
    pub(crate) fn refused_write(&self, context: &TenantContext, error: Error) -> Error {
        let refused = Violation::new(ViolationKind::WriteRefused).by(context);
        self.violations().record(refused.because(error.message()));
        error
    }
}
