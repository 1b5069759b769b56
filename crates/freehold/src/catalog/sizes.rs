//! `freehold.tenant_size`, the sizes of tenants' schemas over time, and `freehold.tenant_growth`, their
//! growth.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::TenantId;
use crate::tx::CatalogTx;
use crate::wire::Row;

/// The horizon of a forecast.
const FORECAST_DAYS: f64 = 30.0;

/// The size of a tenant's schema, and its growth.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct TenantGrowth {
    /// The tenant.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// When it was measured.
    pub measured_at: Timestamp,
    /// Tables, including indexes and TOAST.
    pub bytes: i64,
    /// PostgreSQL's estimate.
    pub rows: i64,
    /// The slope of a straight line through the sizes of the last seven days; for a tenant known for less
    /// than a day, its growth since then.
    pub bytes_per_day: f64,
    /// The size in 30 days at this rate.
    pub forecast_bytes: f64,
}

/// The size of all tenants together.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct FleetGrowth {
    /// Tenants that were measured.
    pub tenants: i64,
    /// When the newest measurement was made; `None` if there is none.
    pub measured_at: Option<Timestamp>,
    /// The sum of all.
    pub bytes: i64,
    /// The sum of all.
    pub bytes_per_day: f64,
    /// The growth of the fastest-growing tenant.
    pub fastest_bytes_per_day: f64,
}

/// A measurement of a size.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct TenantSize {
    /// When.
    pub measured_at: Timestamp,
    /// The size.
    pub bytes: i64,
    /// PostgreSQL's estimate.
    pub rows: i64,
}

/// Measures a number of tenants after a given one, and returns the last of them; `None` at the end.
pub(crate) async fn measure(
    tx: CatalogTx,
    after: Option<TenantId>,
    tenants: i32,
) -> Result<Option<TenantId>> {
    let after = after.map(|tenant| tenant.as_uuid());
    let rows =
        tx.query_and_commit("SELECT freehold.measure_sizes($1, $2)", &[&after, &tenants]).await?;
    let last = rows.first().and_then(|row| row.get::<_, Option<Uuid>>(0));
    Ok(last.map(TenantId::from))
}

/// The tenant that ends the batch after a given one, without measuring it.
pub(crate) async fn skip(
    tx: CatalogTx,
    after: Option<TenantId>,
    tenants: i64,
) -> Result<Option<TenantId>> {
    let after = after.map(|tenant| tenant.as_uuid());
    let sql = "SELECT id FROM (SELECT id FROM freehold.tenant WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2) AS next
               ORDER BY id DESC LIMIT 1";
    let rows = tx.query_and_commit(sql, &[&after, &tenants]).await?;
    Ok(rows.first().map(|row| TenantId::from(row.get::<_, Uuid>(0))))
}

/// Deletes measurements that have reached their age limit.
pub(crate) async fn prune(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit("SELECT freehold.prune_sizes()", &[]).await?;
    Ok(())
}

fn growth(row: &Row) -> TenantGrowth {
    let (bytes, bytes_per_day): (i64, f64) = (row.get("bytes"), row.get("bytes_per_day"));
    TenantGrowth {
        tenant: TenantId::from(row.get::<_, Uuid>("tenant_id")),
        slug: row.get("slug"),
        measured_at: row.get("measured_at"),
        bytes,
        rows: row.get("rows"),
        bytes_per_day,
        forecast_bytes: (bytes as f64 + FORECAST_DAYS * bytes_per_day).max(0.0),
    }
}

/// Tenants by size or growth, the largest first.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    by_growth: bool,
    offset: i64,
    limit: i64,
) -> Result<Vec<TenantGrowth>> {
    let order = if by_growth { "bytes_per_day" } else { "bytes" };
    let sql = format!(
        "SELECT g.*, t.slug FROM freehold.tenant_growth g JOIN freehold.tenant t ON t.id = g.tenant_id
         ORDER BY g.{order} DESC, g.tenant_id OFFSET $1 LIMIT $2"
    );
    Ok(tx.query(&sql, &[&offset, &limit]).await?.iter().map(growth).collect())
}

/// The sizes of one tenant, the newest first.
pub(crate) async fn history(
    tx: &mut CatalogTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<TenantSize>> {
    let sql = "SELECT measured_at, bytes, rows FROM freehold.tenant_size WHERE tenant_id = $1
               ORDER BY measured_at DESC LIMIT $2";
    let rows = tx.query(sql, &[&tenant.as_uuid(), &limit]).await?;
    let size = |row: &Row| TenantSize {
        measured_at: row.get("measured_at"),
        bytes: row.get("bytes"),
        rows: row.get("rows"),
    };
    Ok(rows.iter().map(size).collect())
}

pub(crate) async fn fleet(tx: &mut CatalogTx) -> Result<FleetGrowth> {
    let sql = "SELECT count(*) AS tenants, max(measured_at) AS measured_at, coalesce(sum(bytes), 0)::int8 AS bytes,
                      coalesce(sum(bytes_per_day), 0) AS bytes_per_day, coalesce(max(bytes_per_day), 0) AS fastest
               FROM freehold.tenant_growth";
    let rows = tx.query(sql, &[]).await?;
    let row = &rows[0];
    Ok(FleetGrowth {
        tenants: row.get("tenants"),
        measured_at: row.get("measured_at"),
        bytes: row.get("bytes"),
        bytes_per_day: row.get("bytes_per_day"),
        fastest_bytes_per_day: row.get("fastest"),
    })
}
