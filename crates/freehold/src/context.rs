//! The context: proof of tenant and actor for one transaction. Pure.
//!
//! A [`TenantContext`] cannot be made by hand: the resolver gives it out once it has seen that
//! the tenant is active. It is `Copy` and holds no connection, and nothing carries it along
//! implicitly, so a spawned task has one only if it was given one.

use std::fmt;

use crate::actor::{Actor, Role};
use crate::ids::{IdentityId, TenantId};

/// Leave to work in one tenant, as one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantContext {
    tenant: TenantId,
    actor: Actor,
}

impl TenantContext {
    pub(crate) fn new(tenant: TenantId, actor: Actor) -> Self {
        TenantContext { tenant, actor }
    }

    /// The tenant whose schema a transaction of this context works in.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Who acts: `freehold.actor_id()` in SQL.
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// As what: `freehold.actor_role()` in SQL.
    pub fn role(&self) -> Role {
        self.actor.role
    }
}

/// Leave to work on the catalog, across tenants. The reason is logged by PostgreSQL's side of
/// the house and read by people, so it says why the fence is climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorContext {
    actor: IdentityId,
    reason: &'static str,
}

impl OperatorContext {
    /// For an operator who has signed in.
    pub const fn of(actor: IdentityId, reason: &'static str) -> Self {
        OperatorContext { actor, reason }
    }

    /// For the system's own work: sign-in, resolving a token, the command line.
    pub const fn system(reason: &'static str) -> Self {
        OperatorContext { actor: IdentityId::SYSTEM, reason }
    }

    /// Who acts.
    pub fn actor(&self) -> IdentityId {
        self.actor
    }

    /// Why, as it is logged.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// The string that `freehold.enter` understands. Sealing it is a matter of this one place and
/// of the database functions that read it.
pub(crate) struct Claim(String);

impl Claim {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&TenantContext> for Claim {
    fn from(context: &TenantContext) -> Self {
        Claim(format!(
            "tenant:{}:{}:{}",
            context.tenant,
            context.actor.id,
            context.actor.role.as_str()
        ))
    }
}

impl From<&OperatorContext> for Claim {
    fn from(context: &OperatorContext) -> Self {
        Claim(format!("operator:{}:{}", context.actor, context.reason))
    }
}

/// Never shown: once sealed, it is a credential.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(…)")
    }
}
