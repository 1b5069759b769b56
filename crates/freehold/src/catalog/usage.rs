//! `freehold.usage`, the cost of tenants' statements by hour, and `freehold.busiest`, their cost during the
//! last seconds.

use serde_json::json;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::TenantId;
use crate::observe::insight::{Busiest, Usage, UsageBatch};
use crate::tx::CatalogTx;
use crate::wire::Row;

/// The order of a list of tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageOrder {
    /// By the time of their statements.
    #[default]
    Time,
    /// By the number of statements.
    Queries,
    /// By the number of rows.
    Rows,
    /// By the number of errors.
    Errors,
    /// By the time spent waiting for connections.
    Wait,
}

impl UsageOrder {
    fn column(self) -> &'static str {
        match self {
            UsageOrder::Time => "time_us",
            UsageOrder::Queries => "queries",
            UsageOrder::Rows => "rows",
            UsageOrder::Errors => "errors",
            UsageOrder::Wait => "wait_us",
        }
    }
}

/// The usage of a tenant over a number of hours.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct TenantUsage {
    /// The tenant.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// The usage.
    #[serde(flatten)]
    pub usage: Usage,
}

/// A tenant's usage of a table.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct TableUsage {
    /// `(sql)` for statements whose table is unknown.
    pub table: String,
    /// The usage.
    #[serde(flatten)]
    pub usage: Usage,
}

/// The usage of a tenant during the last seconds.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct BusyTenant {
    /// The tenant.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// The length of the window, on the server with the largest part.
    pub window_us: u64,
    /// Statements per second, over all servers.
    pub queries_per_second: f64,
    /// Rows per second.
    pub rows_per_second: f64,
    /// Errors per second.
    pub errors_per_second: f64,
    /// Seconds of statements per second: how many of its statements run at a time.
    pub running: f64,
    /// Seconds of waiting for connections per second: how many of its callers wait at a time.
    pub waiting: f64,
}

fn entry(tenant: TenantId, usage: &Usage) -> serde_json::Value {
    json!({
        "tenant_id": tenant, "queries": usage.queries, "rows": usage.rows, "errors": usage.errors,
        "time_us": usage.time_us, "wait_us": usage.wait_us,
    })
}

pub(crate) async fn record(tx: CatalogTx, batch: &UsageBatch) -> Result<()> {
    let entries: Vec<_> = batch
        .rows
        .iter()
        .map(|(tenant, table, usage)| {
            let mut entry = entry(*tenant, usage);
            entry["table_name"] = json!(**table);
            entry
        })
        .collect();
    let entries = json!(entries);
    tx.query_and_commit(
        "SELECT freehold.record_usage($1, $2, $3)",
        &[&batch.server, &batch.number, &entries],
    )
    .await?;
    Ok(())
}

pub(crate) async fn record_busiest(tx: CatalogTx, busiest: &Busiest) -> Result<()> {
    let entries: Vec<_> =
        busiest.tenants.iter().map(|(tenant, usage)| entry(*tenant, usage)).collect();
    let (window, entries) = (busiest.window_us().max(1).cast_signed(), json!(entries));
    tx.query_and_commit(
        "SELECT freehold.record_busiest($1, $2, $3)",
        &[&busiest.server, &window, &entries],
    )
    .await?;
    Ok(())
}

/// Deletes entries that have reached their age limit.
pub(crate) async fn prune(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit("SELECT freehold.prune_usage()", &[]).await?;
    Ok(())
}

fn usage(row: &Row) -> Usage {
    let count = |column| row.get::<_, i64>(column).unsigned_abs();
    Usage {
        queries: count("queries"),
        rows: count("rows"),
        errors: count("errors"),
        time_us: count("time_us"),
        wait_us: count("wait_us"),
    }
}

const SUMS: &str =
    "sum(queries)::int8 AS queries, sum(rows)::int8 AS rows, sum(errors)::int8 AS errors,
    sum(time_us)::int8 AS time_us, sum(wait_us)::int8 AS wait_us";

/// Tenants by usage in the current hour and a number of hours before it, the greatest first.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    order: UsageOrder,
    hours: i32,
    offset: i64,
    limit: i64,
) -> Result<Vec<TenantUsage>> {
    let column = order.column();
    let sql = format!(
        "SELECT t.id, t.slug, u.*
         FROM (SELECT tenant_id, {SUMS} FROM freehold.usage
               WHERE hour > date_trunc('hour', now()) - make_interval(hours => $1) GROUP BY tenant_id
               ORDER BY sum({column}) DESC, tenant_id OFFSET $2 LIMIT $3) AS u
         JOIN freehold.tenant t ON t.id = u.tenant_id ORDER BY u.{column} DESC, u.tenant_id"
    );
    let rows = tx.query(&sql, &[&hours, &offset, &limit]).await?;
    let tenant_usage = |row: &Row| TenantUsage {
        tenant: TenantId::from(row.get::<_, Uuid>("id")),
        slug: row.get("slug"),
        usage: usage(row),
    };
    Ok(rows.iter().map(tenant_usage).collect())
}

/// A tenant's usage by table, the most time first.
pub(crate) async fn of_tenant(
    tx: &mut CatalogTx,
    tenant: TenantId,
    hours: i32,
) -> Result<Vec<TableUsage>> {
    let sql = format!(
        "SELECT table_name, {SUMS} FROM freehold.usage
         WHERE tenant_id = $1 AND hour > date_trunc('hour', now()) - make_interval(hours => $2)
         GROUP BY table_name ORDER BY sum(time_us) DESC, table_name"
    );
    let rows = tx.query(&sql, &[&tenant.as_uuid(), &hours]).await?;
    Ok(rows
        .iter()
        .map(|row| TableUsage { table: row.get("table_name"), usage: usage(row) })
        .collect())
}

/// The busiest tenants at this moment, over all servers that reported recently.
pub(crate) async fn busiest(tx: &mut CatalogTx, limit: i64) -> Result<Vec<BusyTenant>> {
    let rows = tx
        .query(
            "SELECT t.id, t.slug, max(window_us) AS window_us, sum(b.queries * 1e6 / window_us)::float8 AS queries,
                    sum(b.rows * 1e6 / window_us)::float8 AS rows, sum(b.errors * 1e6 / window_us)::float8 AS errors,
                    sum(b.time_us::float8 / window_us) AS running, sum(b.wait_us::float8 / window_us) AS waiting
             FROM freehold.busiest b JOIN freehold.tenant t ON t.id = b.tenant_id
             WHERE b.ended_at > now() - interval '20 seconds'
             GROUP BY t.id, t.slug ORDER BY running DESC, t.id LIMIT $1",
            &[&limit],
        )
        .await?;
    let busy = |row: &Row| BusyTenant {
        tenant: TenantId::from(row.get::<_, Uuid>("id")),
        slug: row.get("slug"),
        window_us: row.get::<_, i64>("window_us").unsigned_abs(),
        queries_per_second: row.get("queries"),
        rows_per_second: row.get("rows"),
        errors_per_second: row.get("errors"),
        running: row.get("running"),
        waiting: row.get("waiting"),
    };
    Ok(rows.iter().map(busy).collect())
}

/// The slugs of tenants.
pub(crate) async fn slugs(tx: CatalogTx, tenants: &[TenantId]) -> Result<Vec<(TenantId, String)>> {
    let ids: Vec<Uuid> = tenants.iter().map(TenantId::as_uuid).collect();
    let rows = tx
        .query_and_commit("SELECT id, slug FROM freehold.tenant WHERE id = ANY($1)", &[&ids])
        .await?;
    Ok(rows.iter().map(|row| (TenantId::from(row.get::<_, Uuid>("id")), row.get("slug"))).collect())
}
