//! The context: proof of tenant and actor for one transaction. Pure.
//!
//! A [`TenantContext`] cannot be constructed by a caller: the resolver returns it once it has checked that
//! the tenant is active. It is `Copy`, holds no connection, and is never passed implicitly, so a spawned task
//! has one only if it was given one.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::model::actor::{Actor, Role};
use crate::model::ids::{IdentityId, TenantId};
use crate::model::tenant::Weight;

/// Permission to work in one tenant, as one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantContext {
    tenant: TenantId,
    actor: Actor,
    weight: Weight,
}

impl TenantContext {
    pub(crate) fn new(tenant: TenantId, actor: Actor) -> Self {
        TenantContext { tenant, actor, weight: Weight::ONE }
    }

    pub(crate) fn weighing(self, weight: Weight) -> Self {
        TenantContext { weight, ..self }
    }

    /// The tenant's weight in the pool.
    pub(crate) fn weight(&self) -> Weight {
        self.weight
    }

    /// The tenant in whose schema a transaction of this context works.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The actor: `freehold.actor_id()` in SQL.
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// The actor's role: `freehold.actor_role()` in SQL.
    pub fn role(&self) -> Role {
        self.actor.role
    }
}

/// The longest reason, in characters.
const REASON_CHARS_MAX: usize = 500;

/// Permission to work on the catalog, across tenants. The reason is for people to read, in the log and the
/// record: it says why tenant isolation is crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorContext {
    actor: IdentityId,
    reason: Cow<'static, str>,
}

impl OperatorContext {
    /// For an operator who is signed in.
    pub const fn of(actor: IdentityId, reason: &'static str) -> Self {
        OperatorContext { actor, reason: Cow::Borrowed(reason) }
    }

    /// For the system's own work: sign-in, resolving a token, the command line.
    pub const fn system(reason: &'static str) -> Self {
        OperatorContext { actor: IdentityId::SYSTEM, reason: Cow::Borrowed(reason) }
    }

    /// With the reason that a person gave, in place of the program's own.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the field `why`, unless it has 1 to 500 characters that are not
    /// control characters.
    pub fn because(self, why: &str) -> Result<Self> {
        Ok(OperatorContext { reason: Cow::Owned(check_reason(why)?.to_owned()), ..self })
    }

    /// The actor.
    pub fn actor(&self) -> IdentityId {
        self.actor
    }

    /// The reason, as it is logged and recorded.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A reason that a person gave, without space around it.
pub(crate) fn check_reason(why: &str) -> Result<&str> {
    let why = why.trim();
    if why.is_empty() || why.chars().count() > REASON_CHARS_MAX || why.chars().any(char::is_control)
    {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a reason has 1 to 500 characters, none of them a control character",
        )
        .field("why"));
    }
    Ok(why)
}

/// What the database is to believe about a transaction; `migrations/context/` parses it. It consists of
/// letters, digits and underscores only, since it may be stored in a setting that accepts nothing else.
pub(crate) struct Claim(String);

impl Claim {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&TenantContext> for Claim {
    fn from(context: &TenantContext) -> Self {
        Claim(format!(
            "tenant_{}_{}_{}",
            context.tenant.as_uuid().simple(),
            context.actor.id.as_uuid().simple(),
            context.actor.role.as_str()
        ))
    }
}

impl From<&OperatorContext> for Claim {
    fn from(context: &OperatorContext) -> Self {
        Claim(format!("operator_{}", context.actor.as_uuid().simple()))
    }
}

/// Not printed, so that it is not logged by accident.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(…)")
    }
}
