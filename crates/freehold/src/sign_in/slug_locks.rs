//! Requests for the same slug are serialised within this process. The first one does the work, which includes
//! hashing a password; the others then find the slug taken by one query. So many requests for one name are
//! answered 409 rather than 503.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::model::ids::Slug;

/// More slugs than are requested at a time; each takes 200 bytes. A slug that is evicted too early only costs
/// work: the catalog decides which request gets a slug.
const SLUGS_MAX: u64 = 10_000;
/// How long a slug that was found taken is remembered.
const NEWS: Duration = Duration::from_secs(5);

pub(crate) struct SlugLocks(Cache<Slug, Arc<Mutex<Option<Instant>>>>);

/// Held by the current request for the slug; the next one continues when it is dropped.
pub(crate) struct SlugLock(OwnedMutexGuard<Option<Instant>>);

impl SlugLocks {
    pub(crate) fn new() -> SlugLocks {
        SlugLocks(Cache::builder().max_capacity(SLUGS_MAX).time_to_idle(NEWS * 4).build())
    }

    pub(crate) async fn take(&self, slug: &Slug) -> SlugLock {
        let turn = self.0.get_with_by_ref(slug, Arc::default);
        SlugLock(turn.lock_owned().await)
    }
}

impl SlugLock {
    /// Whether the slug was found taken a moment ago. Then the caller learns nothing new about which names
    /// exist, so the request does not count as a guess. The catalog says whether it is still taken.
    pub(crate) fn is_known_as_taken(&self) -> bool {
        self.0.is_some_and(|at| at.elapsed() < NEWS)
    }

    pub(crate) fn found_taken(&mut self) {
        *self.0 = Some(Instant::now());
    }
}
