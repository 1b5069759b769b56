//! Whoever asks for the same slug at the same time takes turns, in this process. The first does
//! the work, which includes hashing a password; the others then find the slug taken by a look, so
//! that a crowd after one name is answered 409 and not told that it is too many.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::model::ids::Slug;

/// More slugs than are asked for at a time; one takes 200 bytes. One that is forgotten too early
/// only costs work: the catalog decides who gets a slug.
const SLUGS_MAX: u64 = 10_000;
/// For so long, that a slug is taken is no news to whoever asks again.
const NEWS: Duration = Duration::from_secs(5);

pub(crate) struct SlugLocks(Cache<Slug, Arc<Mutex<Option<Instant>>>>);

/// Held until the slug's next asker may go on.
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
    /// Whether somebody found the slug taken a moment ago: to be told so again is no further guess
    /// at whose names there are. Whether it still is taken, the catalog says.
    pub(crate) fn is_known_as_taken(&self) -> bool {
        self.0.is_some_and(|at| at.elapsed() < NEWS)
    }

    pub(crate) fn found_taken(&mut self) {
        *self.0 = Some(Instant::now());
    }
}
