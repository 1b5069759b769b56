//! `freehold.idempotency`: what was answered to a request that may be sent again.

use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::tx::CatalogTx;

/// Who may repeat a request, and how the repetition is recognised.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// Whose key it is; two callers may choose the same.
    pub scope: String,
    /// What the caller sent, such as the header `Idempotency-Key`.
    pub key: String,
    /// SHA-256 of what the request asked for.
    pub request_hash: [u8; 32],
}

/// Claims the key for this transaction, or returns the tenant that the first request made.
///
/// A second request that comes while the first is under way waits for it here.
pub(crate) async fn claim(
    tx: &mut CatalogTx,
    key: &IdempotencyKey,
    tenant: TenantId,
) -> Result<Option<TenantId>> {
    let claimed = tx
        .execute(
            "INSERT INTO idempotency (scope, key, request_hash, tenant_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            &[&key.scope, &key.key, &key.request_hash.as_slice(), &tenant.as_uuid()],
        )
        .await?;
    if claimed == 1 {
        return Ok(None);
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
    Ok(row.get::<_, Option<uuid::Uuid>>(1).map(TenantId::from))
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
