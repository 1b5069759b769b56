//! `freehold.violation`: refused attempts to reach another tenant's data or to exceed a role.

use serde_json::json;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::{IdentityId, TenantId};
use crate::observe::violations::{RecordedViolation, Violation, ViolationKind};
use crate::tx::CatalogTx;

/// Writes rows, or raises the count of existing ones.
pub(crate) async fn record(tx: CatalogTx, rows: &[RecordedViolation]) -> Result<()> {
    let events: Vec<_> = rows
        .iter()
        .map(|row| {
            let violation = &row.violation;
            json!({
                "id": row.id, "occurred_at": row.occurred_at, "count": row.count,
                "request_id": row.request_id, "kind": violation.kind, "tenant_id": violation.tenant,
                "actor_id": violation.actor, "target_tenant_id": violation.target,
                "sqlstate": violation.sqlstate, "statement": violation.statement,
                "reason": violation.reason,
            })
        })
        .collect();
    tx.query_and_commit("SELECT freehold.record_violations($1)", &[&json!(events)]).await?;
    Ok(())
}

/// Deletes entries beyond the limits of age and number.
pub(crate) async fn prune(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit("SELECT freehold.prune_violations()", &[]).await?;
    Ok(())
}

/// A page from the newest to the oldest, after a given entry. A tenant's violations are those that it
/// committed and those directed at it.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenant: Option<TenantId>,
    kind: Option<ViolationKind>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<RecordedViolation>> {
    let rows = tx
        .query(
            "SELECT id, occurred_at, count, request_id, kind, tenant_id, actor_id, target_tenant_id,
                    sqlstate, statement, reason
             FROM freehold.violation
             WHERE ($1::uuid IS NULL OR $1 IN (tenant_id, target_tenant_id))
               AND ($2::text IS NULL OR kind = $2) AND ($3::uuid IS NULL OR id < $3)
             ORDER BY id DESC LIMIT $4",
            &[&tenant.map(|t| t.as_uuid()), &kind.map(ViolationKind::as_str), &after, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(RecordedViolation {
                id: row.get("id"),
                occurred_at: row.get("occurred_at"),
                count: row.get("count"),
                request_id: row.get("request_id"),
                violation: Violation {
                    tenant: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from),
                    actor: row.get::<_, Option<Uuid>>("actor_id").map(IdentityId::from),
                    target: row.get::<_, Option<Uuid>>("target_tenant_id").map(TenantId::from),
                    sqlstate: row.get("sqlstate"),
                    statement: row.get("statement"),
                    reason: row.get("reason"),
                    ..Violation::new(ViolationKind::parse(row.get("kind"))?)
                },
            })
        })
        .collect()
}
