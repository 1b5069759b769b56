//! `freehold.audit`: the record of what was done to people and tenants, and by whom. Append-only.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Result;
use crate::model::audit::AuditAction;
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{Email, IdentityId, TenantId};
use crate::model::origin;
use crate::tx::CatalogTx;

/// An event, written in the transaction that it describes: so neither exists without the other.
pub(crate) struct AuditEvent {
    action: AuditAction,
    actor: Option<IdentityId>,
    target: Option<IdentityId>,
    target_email: Option<String>,
    tenant: Option<TenantId>,
    why: Option<String>,
    detail: Value,
}

impl AuditEvent {
    /// By a person who is not signed in.
    pub(crate) fn by_nobody(action: AuditAction) -> AuditEvent {
        AuditEvent {
            action,
            actor: None,
            target: None,
            target_email: None,
            tenant: None,
            why: None,
            detail: json!({}),
        }
    }

    pub(crate) fn by(action: AuditAction, actor: IdentityId) -> AuditEvent {
        AuditEvent { actor: Some(actor), ..AuditEvent::by_nobody(action) }
    }

    /// By an operator or the command line, with the reason.
    pub(crate) fn of(action: AuditAction, context: &OperatorContext) -> AuditEvent {
        AuditEvent::by(action, context.actor()).because(context.reason())
    }

    pub(crate) fn in_tenant(action: AuditAction, context: &TenantContext) -> AuditEvent {
        AuditEvent::by(action, context.actor().id).tenant(context.tenant())
    }

    /// Sets the person concerned.
    pub(crate) fn to(self, id: IdentityId, email: &str) -> AuditEvent {
        AuditEvent { target_email: Some(email.to_owned()), ..self.target(id) }
    }

    /// Sets the person concerned, if the address is not known here.
    pub(crate) fn target(mut self, id: IdentityId) -> AuditEvent {
        self.target = Some(id);
        self
    }

    /// Sets the address concerned, whether or not it is a person's.
    pub(crate) fn address(mut self, email: &Email) -> AuditEvent {
        self.target_email = Some(email.as_str().to_owned());
        self
    }

    pub(crate) fn tenant(mut self, tenant: TenantId) -> AuditEvent {
        self.tenant = Some(tenant);
        self
    }

    pub(crate) fn because(mut self, why: &str) -> AuditEvent {
        self.why = Some(why.chars().take(1000).collect());
        self
    }

    pub(crate) fn detail(mut self, detail: Value) -> AuditEvent {
        self.detail = detail;
        self
    }
}

/// An entry of the record.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuditEntry {
    /// Ordered by time.
    pub id: Uuid,
    /// By the database's clock.
    pub occurred_at: Timestamp,
    /// Such as `member.remove`.
    pub action: String,
    /// The actor: a person, or the nil UUID for the command line and the system; absent for a person who was
    /// not signed in.
    pub actor: Option<Uuid>,
    /// The person concerned.
    pub target: Option<Uuid>,
    /// That person's address at that time.
    pub target_email: Option<String>,
    /// The tenant concerned.
    pub tenant: Option<Uuid>,
    /// The client's address, or the account on the command line.
    pub origin: Option<String>,
    /// The `x-request-id` of the request.
    pub request_id: Option<String>,
    /// The reason that an operator gave, or the route by which it happened.
    pub why: Option<String>,
    /// Further details.
    pub detail: Value,
}

pub(crate) async fn record(tx: &mut CatalogTx, event: AuditEvent) -> Result<()> {
    let (origin, request_id) = origin::of_request();
    let entry = json!({
        "id": Uuid::now_v7(), "action": event.action.as_str(), "actor_id": event.actor, "target_id": event.target,
        "target": event.target_email, "tenant_id": event.tenant, "origin": origin, "request_id": request_id,
        "why": event.why, "detail": event.detail,
    });
    tx.query("SELECT freehold.record_audit($1)", &[&entry]).await?;
    Ok(())
}

/// Which entries to list.
pub(crate) struct Wanted {
    pub(crate) tenant: Option<TenantId>,
    /// With an address too: those of either.
    pub(crate) person: Option<IdentityId>,
    pub(crate) address: Option<Email>,
}

/// The entries about a person, or an address and everybody who had it.
const ABOUT: &str = "$2 IN (target_id, actor_id) OR target = $5 OR detail->>'email' = $5
               OR target_id IN (SELECT o.target_id FROM freehold.audit o WHERE o.target = $5)
               OR actor_id IN (SELECT o.target_id FROM freehold.audit o WHERE o.target = $5)";

/// A page from the newest to the oldest, after a given entry: all, or those of a tenant, person or address.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    wanted: &Wanted,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    let Wanted { tenant, person, address } = wanted;
    let sql = format!(
        "SELECT id, occurred_at, action, actor_id, target_id, target, tenant_id, origin, request_id, why, detail
         FROM freehold.audit
         WHERE ($1::uuid IS NULL OR tenant_id = $1)
           AND (($2::uuid IS NULL AND $5::text IS NULL) OR {ABOUT})
           AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4"
    );
    let (tenant, person) = (tenant.map(|t| t.as_uuid()), person.map(|p| p.as_uuid()));
    let address = address.as_ref().map(Email::as_str);
    let rows = tx.query(&sql, &[&tenant, &person, &after, &limit, &address]).await?;
    Ok(rows
        .iter()
        .map(|row| AuditEntry {
            id: row.get(0),
            occurred_at: row.get(1),
            action: row.get(2),
            actor: row.get(3),
            target: row.get(4),
            target_email: row.get(5),
            tenant: row.get(6),
            origin: row.get(7),
            request_id: row.get(8),
            why: row.get(9),
            detail: row.get(10),
        })
        .collect())
}

/// Deletes entries that have reached their age limit.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.query("SELECT freehold.prune_audit()", &[]).await?;
    Ok(())
}
