//! `freehold.seal_key`: what contexts are sealed with. Only the owner role may touch it.

use crate::error::Result;
use crate::seal::ContextKey;
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
    let rows = tx
        .query("SELECT ltrim(id, '0'), created_at, retires_at FROM seal_key ORDER BY id DESC", &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| SealKey { id: row.get(0), created_at: row.get(1), retires_at: row.get(2) })
        .collect())
}

/// The key that seals now.
pub(crate) async fn find_newest(tx: &mut CatalogTx) -> Result<Option<ContextKey>> {
    let row = tx
        .query_opt(
            "SELECT id, inner_pad FROM seal_key
             WHERE retires_at IS NULL OR retires_at > now() ORDER BY id DESC LIMIT 1",
            &[],
        )
        .await?;
    row.map(|row| ContextKey::from_pads(row.get(0), row.get(1))).transpose()
}

/// The number for the next key. Whoever asks for one at the same time waits.
pub(crate) async fn next_id(tx: &mut CatalogTx) -> Result<i64> {
    tx.execute("LOCK TABLE seal_key IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    let row = tx.query_opt("SELECT coalesce(max(id::int8), 0) + 1 FROM seal_key", &[]).await?;
    Ok(row.map_or(1, |row| row.get(0)))
}

pub(crate) async fn insert(tx: &mut CatalogTx, key: &ContextKey) -> Result<()> {
    let (id, inner, outer) = key.pads();
    tx.execute(
        "INSERT INTO seal_key (id, inner_pad, outer_pad) VALUES ($1, $2, $3)",
        &[&id, &inner, &outer],
    )
    .await?;
    Ok(())
}

/// Retires every older key after so long, and forgets those that retired a day ago.
pub(crate) async fn retire_before(
    tx: &mut CatalogTx,
    key: &ContextKey,
    after_secs: f64,
) -> Result<()> {
    let (id, ..) = key.pads();
    tx.execute(
        "UPDATE seal_key SET retires_at = now() + make_interval(secs => $2)
         WHERE id < $1 AND (retires_at IS NULL OR retires_at > now() + make_interval(secs => $2))",
        &[&id, &after_secs],
    )
    .await?;
    tx.execute("DELETE FROM seal_key WHERE retires_at < now() - interval '1 day'", &[]).await?;
    Ok(())
}
