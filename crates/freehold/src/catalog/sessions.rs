//! `freehold.session` and `refresh_token`: sessions, and the tokens that renew them.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{IdentityId, TenantId};
use crate::tx::CatalogTx;
use crate::wire::Row;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) identity: IdentityId,
    /// `None` for an operator's session.
    pub(crate) tenant: Option<TenantId>,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// A session, as its owner and operators see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SessionEntry {
    /// Identifies it, for ending it. It gives no access.
    pub id: Uuid,
    /// The tenant it is in now; absent for an operator's session.
    pub tenant: Option<Uuid>,
    /// When the person signed in.
    pub created_at: Timestamp,
    /// When it was last renewed.
    pub refreshed_at: Timestamp,
    /// When it ends, regardless of renewals.
    pub expires_at: Timestamp,
}

/// How long a token that was exchanged returns the same successor again: for two tabs at once, or an answer
/// that was lost.
const REPEAT_SECS: f64 = 10.0;

/// The result of presenting a refresh token.
pub(crate) enum Exchange {
    Unknown,
    /// It was exchanged longer ago: there are two holders, one of them illegitimate.
    Reused(Session),
    /// It is valid, for the first time or again within a few seconds.
    Good(Session),
}

/// Creates a session, and returns when it ends.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    identity: IdentityId,
    tenant: Option<TenantId>,
    lifetime_secs: f64,
) -> Result<Session> {
    let row = tx
        .query_opt(
            "INSERT INTO freehold.session (id, identity_id, tenant_id, expires_at)
             VALUES ($1, $2, $3, now() + make_interval(secs => $4)) RETURNING id, expires_at",
            &[&Uuid::new_v4(), &identity.as_uuid(), &tenant.map(|t| t.as_uuid()), &lifetime_secs],
        )
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the session was not written"))?;
    Ok(Session { id: row.get(0), identity, tenant, expires_at: row.get(1) })
}

/// Stores a token of the session. An existing one is not an error: it is the successor of a token that was
/// presented twice.
pub(crate) async fn insert_token(
    tx: &mut CatalogTx,
    session: Uuid,
    token_hash: &[u8; 32],
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.refresh_token (token_hash, session_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[&token_hash.as_slice(), &session],
    )
    .await?;
    Ok(())
}

/// Marks a token as used and returns its session. The row is locked: of two concurrent requests with the same
/// token, one is the first.
pub(crate) async fn exchange(tx: &mut CatalogTx, token_hash: &[u8; 32]) -> Result<Exchange> {
    let row = tx
        .query_opt(
            "SELECT s.id, s.identity_id, s.tenant_id, s.expires_at,
                    coalesce(r.used_at < now() - make_interval(secs => $2), false)
             FROM freehold.refresh_token r JOIN freehold.session s ON s.id = r.session_id
             WHERE r.token_hash = $1 AND s.revoked_at IS NULL AND s.expires_at > now()
             FOR UPDATE OF r",
            &[&token_hash.as_slice(), &REPEAT_SECS],
        )
        .await?;
    let Some(row) = row else { return Ok(Exchange::Unknown) };
    let session = from_row(&row);
    if row.get(4) {
        return Ok(Exchange::Reused(session));
    }
    tx.execute(
        "UPDATE freehold.refresh_token SET used_at = coalesce(used_at, now()) WHERE token_hash = $1",
        &[&token_hash.as_slice()],
    )
    .await?;
    Ok(Exchange::Good(session))
}

fn from_row(row: &Row) -> Session {
    Session {
        id: row.get(0),
        identity: IdentityId::from(row.get::<_, Uuid>(1)),
        tenant: row.get::<_, Option<Uuid>>(2).map(TenantId::from),
        expires_at: row.get(3),
    }
}

pub(crate) async fn set_tenant(
    tx: &mut CatalogTx,
    session: Uuid,
    tenant: Option<TenantId>,
) -> Result<()> {
    tx.execute(
        "UPDATE freehold.session SET tenant_id = $2 WHERE id = $1",
        &[&session, &tenant.map(|t| t.as_uuid())],
    )
    .await?;
    Ok(())
}

/// The identity's session, if it has not ended; its row stays locked.
pub(crate) async fn lock(
    tx: &mut CatalogTx,
    session: Uuid,
    identity: IdentityId,
) -> Result<Option<Session>> {
    let row = tx
        .query_opt(
            "SELECT id, identity_id, tenant_id, expires_at FROM freehold.session
             WHERE id = $1 AND identity_id = $2 AND revoked_at IS NULL AND expires_at > now() FOR UPDATE",
            &[&session, &identity.as_uuid()],
        )
        .await?;
    Ok(row.as_ref().map(from_row))
}

/// Whether an operator's session has not ended, and its person still is an operator.
pub(crate) async fn is_operators(
    tx: CatalogTx,
    session: Uuid,
    identity: IdentityId,
) -> Result<bool> {
    let rows = tx
        .query_and_commit(
            "SELECT 1 FROM freehold.session s JOIN freehold.identity i ON i.id = s.identity_id
             WHERE s.id = $1 AND i.id = $2 AND s.revoked_at IS NULL AND s.expires_at > now()
               AND i.is_operator AND i.disabled_at IS NULL",
            &[&session, &identity.as_uuid()],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// A person's sessions that have not ended, the newest first; 200 at most.
pub(crate) async fn list(tx: &mut CatalogTx, identity: IdentityId) -> Result<Vec<SessionEntry>> {
    let rows = tx
        .query(
            "SELECT s.id, s.tenant_id, s.created_at, s.expires_at,
                    coalesce((SELECT max(r.created_at) FROM freehold.refresh_token r WHERE r.session_id = s.id), s.created_at)
             FROM freehold.session s
             WHERE s.identity_id = $1 AND s.revoked_at IS NULL AND s.expires_at > now()
             ORDER BY s.created_at DESC, s.id LIMIT 200",
            &[&identity.as_uuid()],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| SessionEntry {
            id: row.get(0),
            tenant: row.get(1),
            created_at: row.get(2),
            expires_at: row.get(3),
            refreshed_at: row.get(4),
        })
        .collect())
}

/// Ends a session. False if the person has no such session, or it has already ended.
pub(crate) async fn revoke(
    tx: &mut CatalogTx,
    session: Uuid,
    identity: IdentityId,
) -> Result<bool> {
    let revoked = tx
        .execute(
            "UPDATE freehold.session SET revoked_at = now()
             WHERE id = $1 AND identity_id = $2 AND revoked_at IS NULL AND expires_at > now()",
            &[&session, &identity.as_uuid()],
        )
        .await?;
    Ok(revoked == 1)
}

/// Ends all sessions of a person, or all but one.
pub(crate) async fn revoke_all(
    tx: &mut CatalogTx,
    identity: IdentityId,
    except: Option<Uuid>,
) -> Result<u64> {
    tx.execute(
        "UPDATE freehold.session SET revoked_at = now()
         WHERE identity_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $2",
        &[&identity.as_uuid(), &except],
    )
    .await
}

/// Deletes sessions that have ended, of the identity that is signing in.
pub(crate) async fn prune(tx: &mut CatalogTx, identity: IdentityId) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.session WHERE identity_id = $1
         AND (expires_at < now() OR revoked_at < now() - interval '1 day')",
        &[&identity.as_uuid()],
    )
    .await?;
    Ok(())
}

/// Deletes all sessions that have ended.
pub(crate) async fn prune_all(tx: &mut CatalogTx) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.session WHERE expires_at < now() - interval '1 day'
         OR revoked_at < now() - interval '1 day'",
        &[],
    )
    .await?;
    Ok(())
}
