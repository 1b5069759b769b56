//! What a tenant's SQL can leave in a session, and what therefore must be cleaned before its COMMIT.
//!
//! Any query can leave settings (`set_config`), so they are reset after each transaction. Held cursors,
//! LISTEN, and what runs at COMMIT itself (deferred constraint triggers, the queries of held cursors) can
//! only come from code in the database, because the text of a query cannot begin with them (`tx/kind.rs`). If
//! the baseline contains no such code, three statements fewer are sent with each transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::code;
use crate::model::context::OperatorContext;
use crate::pool::Pool;
use crate::resolve::resolver::Resolver;
use crate::tx::CatalogTx;

/// How soon a lost listener is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Keeps `only_settings` true while the baseline is known to contain no code that leaves more than settings.
/// Runs until the task is dropped.
pub(crate) async fn follow(catalog: Pool, resolver: Resolver, only_settings: Arc<AtomicBool>) {
    let mut changes = resolver.baseline_changes();
    let mut is_known = false;
    loop {
        if !resolver.hears() {
            is_known = false;
            only_settings.store(false, Ordering::Release);
        } else if !is_known {
            changes.mark_unchanged();
            let harmless = look(&catalog).await;
            is_known = harmless.is_some() && !changes.has_changed().unwrap_or(true);
            only_settings.store(is_known && harmless == Some(true), Ordering::Release);
        }
        if let Ok(Ok(())) = tokio::time::timeout(LOOK_EVERY, changes.changed()).await {
            is_known = false;
            only_settings.store(false, Ordering::Release);
        }
    }
}

async fn look(catalog: &Pool) -> Option<bool> {
    let context = OperatorContext::system("look at the baseline's code");
    let tx = CatalogTx::new(catalog, &context).await.ok()?;
    code::leaves_only_settings(tx).await.ok()
}
