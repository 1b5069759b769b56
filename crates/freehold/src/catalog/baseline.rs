//! `freehold.baseline`, `ledger`, `migration_failure` and `migration_pause`: the migrations of the baseline,
//! which tenant has which, and whether more may get them.

use std::fmt;

use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{IdentityId, TenantId};
use crate::schema::migration::Migration;
use crate::snapshot::Snapshot;
use crate::snapshot::rows::Rows;
use crate::tx::{CatalogTx, OwnerTx};

/// Every migration of the baseline, oldest first.
pub(crate) async fn list(tx: &mut CatalogTx) -> Result<Vec<Migration>> {
    let rows = tx
        .query(
            "SELECT version, name, label, checksum, statements FROM freehold.baseline ORDER BY version",
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Migration {
            version: row.get(0),
            name: row.get(1),
            label: row.get(2),
            checksum: row.get(3),
            statements: row.get(4),
        })
        .collect())
}

/// The newest migration's version; 0 without any.
pub(crate) async fn newest(tx: &mut CatalogTx) -> Result<i64> {
    let newest = "SELECT max(version) FROM freehold.baseline";
    let row = tx.query_opt(newest, &[]).await?;
    Ok(row.and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or(0))
}

/// Locks the baseline against changes until the transaction ends; concurrent provisioning can go on.
pub(crate) async fn hold(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("LOCK TABLE freehold.baseline IN SHARE MODE", &[]).await?;
    Ok(())
}

/// Waits for provisioning that is under way, and locks the baseline exclusively.
pub(crate) async fn lock(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("LOCK TABLE freehold.baseline IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    Ok(())
}

/// Records that the template is at `migration` and looks like `snapshot`. Its rows are kept only for the
/// newest version, since they are for new tenants.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    migration: &Migration,
    snapshot: &Snapshot,
) -> Result<()> {
    let Migration { version, name, label, checksum, statements } = migration;
    if let Some((former, mut snapshot)) = newest_snapshot(tx).await? {
        snapshot.rows = Rows::default();
        set_snapshot(tx, former, &snapshot).await?;
    }
    tx.execute(
        "INSERT INTO freehold.baseline (version, name, label, checksum, statements, snapshot) VALUES ($1, $2, $3, $4, $5, $6)",
        &[version, name, label, checksum, statements, &to_json(snapshot)?],
    )
    .await?;
    Ok(())
}

/// The state of the template after a migration.
pub(crate) async fn snapshot(tx: &mut CatalogTx, version: i64) -> Result<Option<Snapshot>> {
    let sql = "SELECT snapshot FROM freehold.baseline WHERE version = $1";
    tx.query_opt(sql, &[&version]).await?.map(|row| from_json(row.get(0))).transpose()
}

/// The newest version, and the template's state.
pub(crate) async fn newest_snapshot(tx: &mut CatalogTx) -> Result<Option<(i64, Snapshot)>> {
    let sql = "SELECT version, snapshot FROM freehold.baseline ORDER BY version DESC LIMIT 1";
    let row = tx.query_opt(sql, &[]).await?;
    row.map(|row| Ok((row.get(0), from_json(row.get(1))?))).transpose()
}

pub(crate) async fn set_snapshot(
    tx: &mut CatalogTx,
    version: i64,
    snapshot: &Snapshot,
) -> Result<()> {
    let sql = "UPDATE freehold.baseline SET snapshot = $2 WHERE version = $1";
    tx.execute(sql, &[&version, &to_json(snapshot)?]).await?;
    Ok(())
}

fn to_json(snapshot: &Snapshot) -> Result<String> {
    serde_json::to_string(snapshot).map_err(unreadable)
}

fn from_json(text: &str) -> Result<Snapshot> {
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(source: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "a snapshot of the template cannot be read").because(source)
}

/// Records that a new tenant has every migration of the baseline, and how many milliseconds its creation
/// took.
pub(crate) async fn record_all(
    tx: &mut CatalogTx,
    tenant: TenantId,
    duration_ms: i32,
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.ledger (tenant_id, version, checksum, duration_ms)
         SELECT $1, version, checksum, CASE WHEN version = max(version) OVER () THEN $2 ELSE 0 END FROM freehold.baseline",
        &[&tenant.as_uuid(), &duration_ms],
    )
    .await?;
    Ok(())
}

/// A tenant has come to a migration, which ends the transaction.
pub(crate) async fn advance(
    tx: OwnerTx,
    tenant: TenantId,
    migration: &Migration,
    duration_ms: i32,
) -> Result<()> {
    let (id, version) = (tenant.as_uuid(), &migration.version);
    tx.commit_with(&[
        (
            "INSERT INTO freehold.ledger (tenant_id, version, checksum, duration_ms) VALUES ($1, $2, $3, $4)",
            &[&id, version, &migration.checksum, &duration_ms],
        ),
        ("DELETE FROM freehold.migration_failure WHERE tenant_id = $1", &[&id]),
        ("UPDATE freehold.tenant SET version = $2 WHERE id = $1", &[&id, version]),
    ])
    .await
}

pub(crate) async fn record_failure(
    tx: &mut CatalogTx,
    tenant: TenantId,
    version: i64,
    error: &str,
) -> Result<()> {
    tx.execute(
        // Another run, or an answer that was lost, may have brought it there.
        "INSERT INTO freehold.migration_failure (tenant_id, version, error)
         SELECT id, $2, $3 FROM freehold.tenant WHERE id = $1 AND version < $2
         ON CONFLICT (tenant_id) DO UPDATE SET version = $2, error = $3, failed_at = clock_timestamp()",
        &[&tenant.as_uuid(), &version, &error],
    )
    .await?;
    Ok(())
}

/// The slug, version and error of every tenant that could not be migrated.
pub(crate) async fn list_failures(tx: &mut CatalogTx) -> Result<Vec<(String, i64, String)>> {
    let rows = tx
        .query(
            "SELECT t.slug, f.version, f.error FROM freehold.migration_failure f
             JOIN freehold.tenant t ON t.id = f.tenant_id ORDER BY t.slug",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Why and since when migrations of the fleet are paused.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MigratePause {
    /// Since when.
    pub since: Timestamp,
    /// The operator, or [`IdentityId::SYSTEM`] for the command line.
    pub by: IdentityId,
    /// The reason that was given.
    pub why: String,
}

impl fmt::Display for MigratePause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paused since {}: {}", self.since.strftime("%Y-%m-%d %H:%M:%SZ"), self.why)
    }
}

pub(crate) async fn pause(tx: &mut CatalogTx) -> Result<Option<MigratePause>> {
    let sql = "SELECT paused_at, paused_by, why FROM freehold.migration_pause";
    let row = tx.query_opt(sql, &[]).await?;
    Ok(row.map(|row| MigratePause {
        since: row.get(0),
        by: row.get::<_, uuid::Uuid>(1).into(),
        why: row.get(2),
    }))
}

/// False if they are paused already.
pub(crate) async fn set_pause(tx: &mut CatalogTx, by: IdentityId, why: &str) -> Result<bool> {
    let sql = "INSERT INTO freehold.migration_pause (paused_by, why) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    Ok(tx.execute(sql, &[&by.as_uuid(), &why]).await? > 0)
}

/// False if they were not paused.
pub(crate) async fn end_pause(tx: &mut CatalogTx) -> Result<bool> {
    Ok(tx.execute("DELETE FROM freehold.migration_pause", &[]).await? > 0)
}

/// Differs whenever the baseline changes.
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
