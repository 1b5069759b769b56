//! `freehold.password_reset`: tokens with which a person who can read the mailbox chooses a new password.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::IdentityId;
use crate::tx::CatalogTx;

/// How long its link is valid.
const LIFETIME: &str = "interval '1 hour'";
/// The most tokens of one person that are valid at a time: those of the messages of an hour.
const LIVE_MAX: i64 = 5;

/// Returns when it expires.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    identity: IdentityId,
    token_hash: &[u8; 32],
) -> Result<Timestamp> {
    tx.execute(
        "DELETE FROM freehold.password_reset WHERE token_hash IN (
           SELECT token_hash FROM freehold.password_reset WHERE identity_id = $1
           ORDER BY expires_at DESC OFFSET $2)",
        &[&identity.as_uuid(), &(LIVE_MAX - 1)],
    )
    .await?;
    let sql = format!(
        "INSERT INTO freehold.password_reset (token_hash, identity_id, expires_at)
         VALUES ($1, $2, now() + {LIFETIME}) RETURNING expires_at"
    );
    let row = tx.query_opt(&sql, &[&token_hash.as_slice(), &identity.as_uuid()]).await?;
    row.map(|row| row.get(0))
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the reset was not written"))
}

/// The person that a token belongs to, and when it expires; the row stays locked, so that it works once.
pub(crate) async fn lock(
    tx: &mut CatalogTx,
    token_hash: &[u8; 32],
) -> Result<Option<(IdentityId, Timestamp)>> {
    let row = tx
        .query_opt(
            "SELECT identity_id, expires_at FROM freehold.password_reset
             WHERE token_hash = $1 AND expires_at > now() FOR UPDATE",
            &[&token_hash.as_slice()],
        )
        .await?;
    Ok(row.map(|row| (IdentityId::from(row.get::<_, Uuid>(0)), row.get(1))))
}

pub(crate) async fn delete_of(tx: &mut CatalogTx, identity: IdentityId) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.password_reset WHERE identity_id = $1",
        &[&identity.as_uuid()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.password_reset WHERE expires_at < now()", &[]).await?;
    Ok(())
}
