//! The keys that seal contexts: shows them, and rotates them without downtime.

use std::time::Duration;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::seal_keys;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::pool::seal::ContextKey;
use crate::tx::OwnerTx;

pub use crate::catalog::seal_keys::SealKey;

/// Handle for showing and rotating the keys that seal contexts: [`Freehold::context_keys`].
#[derive(Clone, Copy)]
pub struct ContextKeys<'a>(&'a Freehold);

impl Freehold {
    /// Shows and rotates the keys that seal contexts.
    pub fn context_keys(&self) -> ContextKeys<'_> {
        ContextKeys(self)
    }
}

impl ContextKeys<'_> {
    /// The current key, to be given to a server that has no owner connection.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] without an owner connection, or if there is no key.
    pub async fn show(self, context: &OperatorContext) -> Result<ContextKey> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let key = seal_keys::find_newest(tx.catalog()).await?;
        audit::record(tx.catalog(), AuditEvent::of(AuditAction::KeyShow, context)).await?;
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

    /// Creates a new key. Servers with an owner connection seal with it at once; the others must be given it
    /// before the older keys retire.
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
        // The record comes first: the new key may retire the one that this transaction was sealed with.
        let detail = serde_json::json!({"key": key.id()});
        audit::record(tx.catalog(), AuditEvent::of(AuditAction::KeyRotate, context).detail(detail))
            .await?;
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
