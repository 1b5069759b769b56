//! The context: proof of tenant and actor for one transaction. Pure.
//!
//! A [`TenantContext`] cannot be made by hand: the resolver gives it out once it has seen that
//! the tenant is active. It is `Copy` and holds no connection, and nothing carries it along
//! implicitly, so a spawned task has one only if it was given one.

use std::fmt;

use crate::model::actor::{Actor, Role};
use crate::model::ids::{IdentityId, TenantId};
use crate::model::tenant::Weight;

/// Leave to work in one tenant, as one actor.
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

    /// The tenant's part of the connections.
    pub(crate) fn weight(&self) -> Weight {
        self.weight
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

/// Leave to work on the catalog, across tenants. The reason is logged and read by people, so it
/// says why the fence is climbed.
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

/// What the database is to believe of a transaction; `migrations/context/` reads it. Letters,
/// digits and underscores alone, since it may be kept where nothing else is taken.
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

/// Not shown where it would be logged by the way.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(…)")
    }
}
