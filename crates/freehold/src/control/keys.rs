//! The keys that contexts are sealed with: shown, and changed without downtime.

use std::time::Duration;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::seal_keys;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::pool::seal::ContextKey;
use crate::tx::OwnerTx;

pub use crate::catalog::seal_keys::SealKey;

/// Handle over the keys that contexts are sealed with: [`Freehold::context_keys`].
#[derive(Clone, Copy)]
pub struct ContextKeys<'a>(&'a Freehold);

impl Freehold {
    /// The keys that contexts are sealed with.
    pub fn context_keys(&self) -> ContextKeys<'_> {
        ContextKeys(self)
    }
}

impl ContextKeys<'_> {
    /// The key that contexts are sealed with now, for a server that has no owner connection.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] without an owner connection, or if there is no key.
    pub async fn show(self, context: &OperatorContext) -> Result<ContextKey> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let key = seal_keys::find_newest(tx.catalog()).await?;
        audit::record(tx.catalog(), AuditEvent::of("key.show", context)).await?;
        tx.commit().await?;
        key.ok_or_else(|| {
            Error::new(ErrorKind::Setup, "the catalog has no context key: run `freehold init`")
        })
    }

    /// The keys of the catalog without their secrets, newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] without an owner connection.
    pub async fn list(self, context: &OperatorContext) -> Result<Vec<SealKey>> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let keys = seal_keys::list(tx.catalog()).await?;
        tx.commit().await?;
        Ok(keys)
    }

    /// Makes a new key. Servers with an owner connection seal with it at once; the others have
    /// until the older keys retire to be given it.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] without an owner connection.
    pub async fn rotate(
        self,
        context: &OperatorContext,
        retire_after: Duration,
    ) -> Result<ContextKey> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let id = seal_keys::next_id(tx.catalog()).await?;
        let id = u32::try_from(id).map_err(|source| {
            Error::new(ErrorKind::Internal, "there are too many keys").because(source)
        })?;
        let key = ContextKey::generate(id)?;
        // First: what this transaction was sealed with may be retired by it.
        let detail = serde_json::json!({"key": key.id()});
        audit::record(tx.catalog(), AuditEvent::of("key.rotate", context).detail(detail)).await?;
        seal_keys::add(tx.catalog(), &key, retire_after.as_secs_f64()).await?;
        tx.commit().await?;
        tracing::info!(
            key = key.id(),
            retire_after_secs = retire_after.as_secs(),
            reason = context.reason(),
            "context key rotated"
        );
        Ok(key)
    }
}
