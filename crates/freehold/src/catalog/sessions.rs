//! `freehold.session` and `refresh_token`: sign-ins, and the tokens that renew them.

use uuid::Uuid;

use crate::error::Result;
use crate::ids::{IdentityId, TenantId};
use crate::tx::CatalogTx;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) identity: IdentityId,
    /// None: an operator's session.
    pub(crate) tenant: Option<TenantId>,
}

/// What became of a refresh token that was presented.
pub(crate) enum Exchange {
    Unknown,
    /// It was exchanged before: two hold it, and one of them should not.
    Reused(Session),
    Fresh(Session),
}

pub(crate) async fn insert(
    tx: &mut CatalogTx,
    session: &Session,
    lifetime_secs: f64,
) -> Result<()> {
    tx.execute(
        "INSERT INTO session (id, identity_id, tenant_id, expires_at)
         VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
        &[
            &session.id,
            &session.identity.as_uuid(),
            &session.tenant.map(|t| t.as_uuid()),
            &lifetime_secs,
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn insert_token(
    tx: &mut CatalogTx,
    session: Uuid,
    token_hash: &[u8; 32],
) -> Result<()> {
    tx.execute(
        "INSERT INTO refresh_token (token_hash, session_id) VALUES ($1, $2)",
        &[&token_hash.as_slice(), &session],
    )
    .await?;
    Ok(())
}

/// Marks a token as used and says whose it was. The row is locked: of two who present the same
/// token at once, one is the first.
pub(crate) async fn exchange(tx: &mut CatalogTx, token_hash: &[u8; 32]) -> Result<Exchange> {
    let row = tx
        .query_opt(
            "SELECT s.id, s.identity_id, s.tenant_id, r.used_at IS NOT NULL
             FROM refresh_token r JOIN session s ON s.id = r.session_id
             WHERE r.token_hash = $1 AND s.revoked_at IS NULL AND s.expires_at > now()
             FOR UPDATE OF r",
            &[&token_hash.as_slice()],
        )
        .await?;
    let Some(row) = row else { return Ok(Exchange::Unknown) };
    let session = Session {
        id: row.get(0),
        identity: IdentityId::from(row.get::<_, Uuid>(1)),
        tenant: row.get::<_, Option<Uuid>>(2).map(TenantId::from),
    };
    if row.get(3) {
        return Ok(Exchange::Reused(session));
    }
    tx.execute(
        "UPDATE refresh_token SET used_at = now() WHERE token_hash = $1",
        &[&token_hash.as_slice()],
    )
    .await?;
    Ok(Exchange::Fresh(session))
}

pub(crate) async fn set_tenant(
    tx: &mut CatalogTx,
    session: Uuid,
    tenant: Option<TenantId>,
) -> Result<()> {
    tx.execute(
        "UPDATE session SET tenant_id = $2 WHERE id = $1",
        &[&session, &tenant.map(|t| t.as_uuid())],
    )
    .await?;
    Ok(())
}

/// Whether the session is the identity's and still good.
pub(crate) async fn is_live(
    tx: &mut CatalogTx,
    session: Uuid,
    identity: IdentityId,
) -> Result<bool> {
    let row = tx
        .query_opt(
            "SELECT 1 FROM session WHERE id = $1 AND identity_id = $2
             AND revoked_at IS NULL AND expires_at > now() FOR UPDATE",
            &[&session, &identity.as_uuid()],
        )
        .await?;
    Ok(row.is_some())
}

pub(crate) async fn revoke(tx: &mut CatalogTx, session: Uuid) -> Result<()> {
    tx.execute(
        "UPDATE session SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL",
        &[&session],
    )
    .await?;
    Ok(())
}

/// Forgets sessions that have ended; called at sign-in for the identity that signs in.
pub(crate) async fn prune(tx: &mut CatalogTx, identity: IdentityId) -> Result<()> {
    tx.execute(
        "DELETE FROM session WHERE identity_id = $1
         AND (expires_at < now() OR revoked_at < now() - interval '1 day')",
        &[&identity.as_uuid()],
    )
    .await?;
    Ok(())
}
