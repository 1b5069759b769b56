//! The keys that seal contexts, read and written by functions of `freehold_guard` that only the owner may
//! call.

use crate::error::Result;
use crate::pool::seal::{ContextKey, NEWEST_KEY};
use crate::tx::CatalogTx;

/// A key without its secret, as `freehold key list` prints it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SealKey {
    /// Its number; the highest one that has not retired is used to seal.
    pub id: String,
    /// When it was created.
    pub created_at: jiff::Timestamp,
    /// After this time, what it sealed is refused.
    pub retires_at: Option<jiff::Timestamp>,
}

/// Newest first.
pub(crate) async fn list(tx: &mut CatalogTx) -> Result<Vec<SealKey>> {
    let sql = "SELECT ltrim(id, '0'), created_at, retires_at FROM freehold_guard.list_keys() ORDER BY id DESC";
    let rows = tx.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| SealKey { id: row.get(0), created_at: row.get(1), retires_at: row.get(2) })
        .collect())
}

/// The key that is used to seal.
pub(crate) async fn find_newest(tx: &mut CatalogTx) -> Result<Option<ContextKey>> {
    let row = tx.query_opt(NEWEST_KEY, &[]).await?;
    row.map(|row| ContextKey::from_pads(row.get(0), row.get(1))).transpose()
}

/// The number for the next key. Concurrent callers wait.
pub(crate) async fn next_id(tx: &mut CatalogTx) -> Result<i64> {
    let row = tx.query_opt("SELECT freehold_guard.next_key()", &[]).await?;
    Ok(row.map_or(1, |row| row.get(0)))
}

/// Adds a key, retires every older one after a given time, and deletes those that retired a day ago.
pub(crate) async fn add(
    tx: &mut CatalogTx,
    key: &ContextKey,
    retire_after_secs: f64,
) -> Result<()> {
    let (id, inner, outer) = key.pads();
    let sql = "SELECT freehold_guard.add_key($1, $2, $3, $4)";
    tx.query(sql, &[&id, &inner, &outer, &retire_after_secs]).await?;
    Ok(())
}
