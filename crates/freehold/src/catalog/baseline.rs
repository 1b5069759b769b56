//! `freehold.baseline`, `ledger` and `migration_failure`: which migrations there are, and which
//! tenant has which.

use crate::error::Result;
use crate::ids::TenantId;
use crate::migration::Migration;
use crate::tx::CatalogTx;

/// Every migration of the baseline, oldest first.
pub(crate) async fn list(tx: &mut CatalogTx) -> Result<Vec<Migration>> {
    let rows = tx
        .query(
            "SELECT version, name, checksum, statements FROM freehold.baseline ORDER BY version",
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Migration {
            version: row.get(0),
            name: row.get(1),
            checksum: row.get(2),
            statements: row.get(3),
        })
        .collect())
}

/// The newest migration's version; 0 without any.
pub(crate) async fn newest(tx: &mut CatalogTx) -> Result<i32> {
    let newest = "SELECT max(version) FROM freehold.baseline";
    let row = tx.query_opt(newest, &[]).await?;
    Ok(row.and_then(|row| row.get::<_, Option<i32>>(0)).unwrap_or(0))
}

/// Holds the baseline still until the transaction ends; provisioning in parallel goes on.
pub(crate) async fn hold(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("LOCK TABLE freehold.baseline IN SHARE MODE", &[]).await?;
    Ok(())
}

/// Waits for provisioning under way and lets nobody else change the baseline meanwhile.
pub(crate) async fn lock(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("LOCK TABLE freehold.baseline IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    Ok(())
}

pub(crate) async fn insert(tx: &mut CatalogTx, migration: &Migration) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.baseline (version, name, checksum, statements) VALUES ($1, $2, $3, $4)",
        &[&migration.version, &migration.name, &migration.checksum, &migration.statements],
    )
    .await?;
    Ok(())
}

pub(crate) async fn record(
    tx: &mut CatalogTx,
    tenant: TenantId,
    migration: &Migration,
    duration_ms: i32,
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.ledger (tenant_id, version, checksum, duration_ms) VALUES ($1, $2, $3, $4)",
        &[&tenant.as_uuid(), &migration.version, &migration.checksum, &duration_ms],
    )
    .await?;
    Ok(())
}

pub(crate) async fn record_failure(
    tx: &mut CatalogTx,
    tenant: TenantId,
    version: i32,
    error: &str,
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.migration_failure (tenant_id, version, error) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id) DO UPDATE SET version = $2, error = $3, failed_at = clock_timestamp()",
        &[&tenant.as_uuid(), &version, &error],
    )
    .await?;
    Ok(())
}

pub(crate) async fn forget_failure(tx: &mut CatalogTx, tenant: TenantId) -> Result<()> {
    tx.execute("DELETE FROM freehold.migration_failure WHERE tenant_id = $1", &[&tenant.as_uuid()])
        .await?;
    Ok(())
}

/// The slug, version and error of every tenant that could not be migrated.
pub(crate) async fn list_failures(tx: &mut CatalogTx) -> Result<Vec<(String, i32, String)>> {
    let rows = tx
        .query(
            "SELECT t.slug, f.version, f.error FROM freehold.migration_failure f
             JOIN freehold.tenant t ON t.id = f.tenant_id ORDER BY t.slug",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Changes whenever the baseline does.
pub(crate) async fn fingerprint(tx: CatalogTx) -> Result<String> {
    let rows = tx
        .query_and_commit(
            "SELECT coalesce(md5(string_agg(version || ' ' || checksum, ',' ORDER BY version)), '')
             FROM freehold.baseline",
            &[],
        )
        .await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}
