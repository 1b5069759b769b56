//! `freehold.idempotency`: what was answered to a request that may be sent again.

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::tx::CatalogTx;

/// Who may repeat a request, and how the repetition is recognised.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// Whose key it is; two callers may choose the same.
    pub scope: String,
    /// What the caller sent, such as the header `Idempotency-Key`.
    pub key: String,
    /// A hash of what the request asked for; keyed, if that holds a secret:
    /// [`SignIn::request_hash`](crate::control::sessions::SignIn::request_hash).
    pub request_hash: [u8; 32],
}

/// What a key was found to be.
pub(crate) enum Claimed {
    /// This request is the first with it.
    Fresh,
    /// Another one was, which made this tenant, or none.
    Repeated(Option<TenantId>),
}

/// Claims the key for this transaction, and the tenant that it makes.
///
/// A second request that comes while the first is under way waits for it here.
pub(crate) async fn claim(
    tx: &mut CatalogTx,
    key: &IdempotencyKey,
    tenant: Option<TenantId>,
) -> Result<Claimed> {
    let tenant = tenant.map(|tenant| tenant.as_uuid());
    let claimed = tx
        .execute(
            "INSERT INTO idempotency (scope, key, request_hash, tenant_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            &[&key.scope, &key.key, &key.request_hash.as_slice(), &tenant],
        )
        .await?;
    if claimed == 1 {
        return Ok(Claimed::Fresh);
    }
    let row = tx
        .query_opt(
            "SELECT request_hash, tenant_id FROM idempotency WHERE scope = $1 AND key = $2",
            &[&key.scope, &key.key],
        )
        .await?
        .ok_or_else(|| {
            Error::new(ErrorKind::Retryable, "the Idempotency-Key is in use; try again")
        })?;
    if row.get::<_, Vec<u8>>(0) != key.request_hash {
        return Err(Error::new(
            ErrorKind::IdempotencyKeyReused,
            "this Idempotency-Key came with another request before; use a new one",
        ));
    }
    Ok(Claimed::Repeated(row.get::<_, Option<uuid::Uuid>>(1).map(TenantId::from)))
}

/// Forgets keys after a day: who repeats a request does so sooner.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM idempotency WHERE created_at < now() - interval '1 day'", &[]).await?;
    Ok(())
}

/// Whether a request with the key has succeeded before.
pub(crate) async fn is_known(tx: &mut CatalogTx, key: &IdempotencyKey) -> Result<bool> {
    let row = tx
        .query_opt(
            "SELECT 1 FROM idempotency WHERE scope = $1 AND key = $2",
            &[&key.scope, &key.key],
        )
        .await?;
    Ok(row.is_some())
}
