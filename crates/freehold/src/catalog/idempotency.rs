//! `freehold.idempotency`: the answers to requests that may be repeated.

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::tx::CatalogTx;

/// Identifies a request that may be repeated, and by whom.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The owner of the key; two callers may choose the same key.
    pub scope: String,
    /// What the caller sent, such as the header `Idempotency-Key`.
    pub key: String,
    /// A hash of the request's content, keyed if the content includes a secret:
    /// [`SignIn::request_hash`](crate::control::sessions::SignIn::request_hash).
    pub request_hash: [u8; 32],
}

/// The result of claiming a key.
pub(crate) enum Claimed {
    /// This request is the first with the key.
    Fresh,
    /// An earlier request used it, and created this tenant, or none.
    Repeated(Option<TenantId>),
}

/// Claims the key for this transaction, and for the tenant that it creates.
///
/// A second request waits here while the first one is under way.
pub(crate) async fn claim(
    tx: &mut CatalogTx,
    key: &IdempotencyKey,
    tenant: Option<TenantId>,
) -> Result<Claimed> {
    let tenant = tenant.map(|tenant| tenant.as_uuid());
    let claimed = tx
        .execute(
            "INSERT INTO freehold.idempotency (scope, key, request_hash, tenant_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            &[&key.scope, &key.key, &key.request_hash.as_slice(), &tenant],
        )
        .await?;
    if claimed == 1 {
        return Ok(Claimed::Fresh);
    }
    let row = tx
        .query_opt(
            "SELECT request_hash, tenant_id FROM freehold.idempotency WHERE scope = $1 AND key = $2",
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

/// Deletes keys after a day: requests are repeated sooner.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.idempotency WHERE created_at < now() - interval '1 day'", &[])
        .await?;
    Ok(())
}

/// Whether a request with the key has succeeded before.
pub(crate) async fn is_known(tx: &mut CatalogTx, key: &IdempotencyKey) -> Result<bool> {
    let row = tx
        .query_opt(
            "SELECT 1 FROM freehold.idempotency WHERE scope = $1 AND key = $2",
            &[&key.scope, &key.key],
        )
        .await?;
    Ok(row.is_some())
}
