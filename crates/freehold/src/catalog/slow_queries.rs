//! `freehold.slow_query`: the slow statements of each tenant, and their plans.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::TenantId;
use crate::observe::insight::SlowQuery;
use crate::tx::CatalogTx;
use crate::wire::Row;

/// The slow statements of a tenant that differ only in their values.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct SlowStatement {
    /// The tenant.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// A digest of the statement without its values: the same for all tenants.
    pub shape: String,
    /// Its table; `(sql)` if that is unknown.
    pub table: String,
    /// The statement without values, or the statements of a pipeline, which is timed as a whole.
    pub statement: String,
    /// How often it was slow.
    pub count: u64,
    /// How often it failed or was abandoned then.
    pub failed: u64,
    /// The total time of its slow executions.
    pub total_us: u64,
    /// When it was slow for the first time, as far as is stored.
    pub first_at: Timestamp,
    /// When it was slow for the last time.
    pub last_at: Timestamp,
    /// Its longest execution.
    pub slowest_us: u64,
    /// The rows that this execution returned or changed.
    pub slowest_rows: u64,
    /// When this execution ended.
    pub slowest_at: Timestamp,
    /// The request to which it belonged.
    pub slowest_request_id: Option<String>,
    /// EXPLAIN's JSON of a generic plan, without the values in the statement's text.
    pub plan: Option<Value>,
    /// When the plan was made.
    pub planned_at: Option<Timestamp>,
}

/// Adds to the existing entries.
pub(crate) async fn record(tx: CatalogTx, queries: &[SlowQuery]) -> Result<()> {
    let entries: Vec<_> = queries
        .iter()
        .map(|query| {
            json!({
                "tenant_id": query.context.tenant(), "shape": query.shape, "table_name": *query.table,
                "statement": query.statement, "count": query.count, "failed": query.failed,
                "total_us": query.total_us, "first_at": query.first_at, "last_at": query.last_at,
                "slowest_us": query.slowest.us, "slowest_rows": query.slowest.rows,
                "slowest_at": query.slowest.at, "slowest_request_id": query.slowest.request_id,
            })
        })
        .collect();
    tx.query_and_commit("SELECT freehold.record_slow_queries($1)", &[&json!(entries)]).await?;
    Ok(())
}

/// Stores a statement's plan, if the statement is still stored.
pub(crate) async fn record_plan(
    tx: CatalogTx,
    tenant: TenantId,
    shape: &str,
    plan: &Value,
) -> Result<()> {
    let tenant = tenant.as_uuid();
    tx.query_and_commit("SELECT freehold.record_slow_plan($1, $2, $3)", &[&tenant, &shape, plan])
        .await?;
    Ok(())
}

/// Deletes entries beyond the limits of age and number.
pub(crate) async fn prune(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit("SELECT freehold.prune_slow_queries()", &[]).await?;
    Ok(())
}

/// The most recently slow first.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenant: Option<TenantId>,
    offset: i64,
    limit: i64,
) -> Result<Vec<SlowStatement>> {
    let rows = tx
        .query(
            "SELECT t.slug, s.* FROM freehold.slow_query s JOIN freehold.tenant t ON t.id = s.tenant_id
             WHERE ($1::uuid IS NULL OR s.tenant_id = $1)
             ORDER BY s.last_at DESC, s.tenant_id, s.shape OFFSET $2 LIMIT $3",
            &[&tenant.map(|tenant| tenant.as_uuid()), &offset, &limit],
        )
        .await?;
    Ok(rows.iter().map(statement).collect())
}

fn statement(row: &Row) -> SlowStatement {
    let count = |column: &str| row.get::<_, i64>(column).unsigned_abs();
    SlowStatement {
        tenant: TenantId::from(row.get::<_, Uuid>("tenant_id")),
        slug: row.get("slug"),
        shape: row.get("shape"),
        table: row.get("table_name"),
        statement: row.get("statement"),
        count: count("count"),
        failed: count("failed"),
        total_us: count("total_us"),
        first_at: row.get("first_at"),
        last_at: row.get("last_at"),
        slowest_us: count("slowest_us"),
        slowest_rows: count("slowest_rows"),
        slowest_at: row.get("slowest_at"),
        slowest_request_id: row.get("slowest_request_id"),
        plan: row.get("plan"),
        planned_at: row.get("planned_at"),
    }
}
