//! What SQL of a tenant's can leave on a session, and so what must be cleaned before its COMMIT.
//!
//! Settings can be left by any query (`set_config`), so they are reset after each transaction. Held cursors,
//! LISTEN, and what runs at COMMIT itself (deferred constraint triggers, the queries of held cursors), can
//! only come from code that lies in the database: the text of a query begins none of them (`tx/kind.rs`).
//! Where the baseline has no code that could, three statements less are sent with each transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::code;
use crate::model::context::OperatorContext;
use crate::pool::Pool;
use crate::resolve::resolver::Resolver;
use crate::tx::CatalogTx;

/// How soon it is noticed that changes are not heard any more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Keeps `only_settings` true while the baseline is known to have no code that leaves more; until the task
/// is dropped.
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
