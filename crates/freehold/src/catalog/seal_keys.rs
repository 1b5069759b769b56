//! What contexts are sealed with, by the functions of `freehold_guard`, which answer the owner's login alone.

use crate::error::Result;
use crate::pool::seal::{ContextKey, NEWEST_KEY};
use crate::tx::CatalogTx;

/// A key without its secret, as `freehold key list` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SealKey {
    /// Its number; the highest that is not retired seals.
    pub id: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// From then on what it sealed is refused.
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

/// The key that seals now.
pub(crate) async fn find_newest(tx: &mut CatalogTx) -> Result<Option<ContextKey>> {
    let row = tx.query_opt(NEWEST_KEY, &[]).await?;
    row.map(|row| ContextKey::from_pads(row.get(0), row.get(1))).transpose()
}

/// The number for the next key. Who asks for one at the same time waits.
pub(crate) async fn next_id(tx: &mut CatalogTx) -> Result<i64> {
    let row = tx.query_opt("SELECT freehold_guard.next_key()", &[]).await?;
    Ok(row.map_or(1, |row| row.get(0)))
}

/// Adds a key, retires every older one after so long, and forgets those that retired a day ago.
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
