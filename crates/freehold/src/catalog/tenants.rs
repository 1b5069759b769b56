//! `freehold.tenant`: one row per tenant.

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{Slug, TenantId};
use crate::model::tenant::{Tenant, TenantStatus, Weight};
use crate::tx::CatalogTx;
use crate::wire::Row;

pub(super) const COLUMNS: &str = "id, slug, name, status, version, weight, created_at";

pub(crate) fn from_row(row: &Row) -> Result<Tenant> {
    Ok(Tenant {
        id: TenantId::from(row.get::<_, uuid::Uuid>("id")),
        slug: row.get::<_, String>("slug").parse()?,
        name: row.get("name"),
        status: TenantStatus::parse(row.get("status"))?,
        version: row.get("version"),
        weight: row.get::<_, i16>("weight").try_into()?,
        created_at: row.get("created_at"),
    })
}

/// Claims the slug: of concurrent transactions, only one succeeds.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    id: TenantId,
    slug: &Slug,
    name: &str,
) -> Result<()> {
    let inserted = tx
        .execute(
            "INSERT INTO freehold.tenant (id, slug, name) VALUES ($1, $2, $3)
             ON CONFLICT ON CONSTRAINT tenant_slug_key DO NOTHING",
            &[&id.as_uuid(), &slug.as_str(), &name],
        )
        .await?;
    if inserted == 0 { Err(slug_taken(slug)) } else { Ok(()) }
}

pub(crate) fn slug_taken(slug: &Slug) -> Error {
    Error::new(ErrorKind::SlugTaken, format!("the slug {slug} is taken")).field("slug")
}

pub(crate) async fn find(tx: &mut CatalogTx, id: TenantId) -> Result<Option<Tenant>> {
    let sql = format!("SELECT {COLUMNS} FROM freehold.tenant WHERE id = $1");
    tx.query_opt(&sql, &[&id.as_uuid()]).await?.as_ref().map(from_row).transpose()
}

pub(crate) async fn find_by_slug(tx: &mut CatalogTx, slug: &Slug) -> Result<Option<Tenant>> {
    let sql = format!("SELECT {COLUMNS} FROM freehold.tenant WHERE slug = $1");
    tx.query_opt(&sql, &[&slug.as_str()]).await?.as_ref().map(from_row).transpose()
}

/// Locks the row until the transaction ends, which serialises transitions and migrations.
pub(crate) async fn lock(tx: &mut CatalogTx, id: TenantId) -> Result<Option<Tenant>> {
    let sql = format!("SELECT {COLUMNS} FROM freehold.tenant WHERE id = $1 FOR NO KEY UPDATE");
    tx.query_opt(&sql, &[&id.as_uuid()]).await?.as_ref().map(from_row).transpose()
}

/// [`lock`] for the migrator: the version, and whether the tenant has or lacks indexes on its own account.
pub(crate) async fn lock_version(tx: &mut CatalogTx, id: TenantId) -> Result<Option<(i64, bool)>> {
    let id = id.as_uuid();
    // Two statements: the second sees what was committed while the first waited.
    let answers = tx
        .pipeline(&[
            ("SELECT version FROM freehold.tenant WHERE id = $1 FOR NO KEY UPDATE", &[&id]),
            ("SELECT EXISTS (SELECT FROM freehold.tenant_index WHERE tenant_id = $1)", &[&id]),
        ])
        .await?;
    let first = |at: usize| answers.get(at).and_then(|answer| answer.rows.first());
    Ok(first(0).zip(first(1)).map(|(tenant, indexes)| (tenant.get(0), indexes.get(0))))
}

/// Pages in the order of slugs, beginning after one.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Tenant>> {
    let sql =
        format!("SELECT {COLUMNS} FROM freehold.tenant WHERE slug > $1 ORDER BY slug LIMIT $2");
    tx.query(&sql, &[&after.unwrap_or(""), &limit]).await?.iter().map(from_row).collect()
}

pub(crate) async fn set_status(
    tx: &mut CatalogTx,
    id: TenantId,
    status: TenantStatus,
) -> Result<()> {
    tx.execute(
        "UPDATE freehold.tenant SET status = $2 WHERE id = $1",
        &[&id.as_uuid(), &status.as_str()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn set_weight(tx: &mut CatalogTx, id: TenantId, weight: Weight) -> Result<()> {
    let sql = "UPDATE freehold.tenant SET weight = $2 WHERE id = $1";
    tx.execute(sql, &[&id.as_uuid(), &i16::from(weight)]).await?;
    Ok(())
}

pub(crate) async fn set_version(tx: &mut CatalogTx, id: TenantId, version: i64) -> Result<()> {
    tx.execute("UPDATE freehold.tenant SET version = $2 WHERE id = $1", &[&id.as_uuid(), &version])
        .await?;
    Ok(())
}

/// The tenants that lack a migration up to `version`, in a stable order.
pub(crate) async fn list_behind(tx: &mut CatalogTx, version: i64) -> Result<Vec<Tenant>> {
    let sql =
        format!("SELECT {COLUMNS} FROM freehold.tenant WHERE version < $1 ORDER BY created_at, id");
    tx.query(&sql, &[&version]).await?.iter().map(from_row).collect()
}

/// The number of tenants at each version.
pub(crate) async fn count_by_version(tx: &mut CatalogTx) -> Result<Vec<(i64, i64)>> {
    let rows = tx
        .query(
            "SELECT version, count(*) FROM freehold.tenant GROUP BY version ORDER BY version",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
