//! What this process keeps: values, and the current epochs. Notifications are applied here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::Expiry;
use moka::sync::Cache;
use tokio::time::Instant;

use super::clock::Clock;
use super::envelope::Entry;
use super::key::{KeyDigest, Owner, Scope};
use super::stats::Counters;
use crate::model::ids::TenantId;

/// The most epochs that are remembered; one takes about 200 bytes.
const EPOCHS_MAX: u64 = 100_000;
/// After this long an epoch is queried again, which tells the catalog that it is in use. The catalog keeps it
/// for an hour after that (`catalog/cache_epochs.rs`).
const EPOCH_USED_MAX: Duration = Duration::from_secs(20 * 60);
/// The memory of an entry besides its value.
const ENTRY_BYTES: u32 = 300;

#[derive(Clone)]
pub(crate) struct Local(Arc<Inner>);

struct Inner {
    entries: Cache<KeyDigest, Arc<Entry>>,
    epochs: Cache<Scope, Epoch>,
    /// Increases with every notification. An epoch that was queried while it increased is not kept.
    generation: AtomicU64,
    counters: Counters,
    clock: Clock,
}

/// An epoch, and when it was queried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    pub(crate) number: i64,
    pub(crate) learned_at: Instant,
}

/// Decides when memory is freed. Whether an entry may be returned is checked separately.
struct ByEntry(Clock);

impl Expiry<KeyDigest, Arc<Entry>> for ByEntry {
    fn expire_after_create(
        &self,
        _: &KeyDigest,
        entry: &Arc<Entry>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(entry.time_left(self.0.now_ms()))
    }

    fn expire_after_update(
        &self,
        key: &KeyDigest,
        entry: &Arc<Entry>,
        now: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, now)
    }
}

impl Local {
    pub(crate) fn new(bytes_max: u64) -> Local {
        let weigh = |_: &KeyDigest, entry: &Arc<Entry>| {
            u32::try_from(entry.value.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES)
        };
        let clock = Clock::default();
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(weigh)
            .expire_after(ByEntry(clock.clone()))
            .support_invalidation_closures()
            .build();
        let epochs =
            Cache::builder().max_capacity(EPOCHS_MAX).support_invalidation_closures().build();
        let (generation, counters) = (AtomicU64::new(0), Counters::default());
        Local(Arc::new(Inner { entries, epochs, generation, counters, clock }))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// How long an entry remains valid.
    pub(super) fn time_left(&self, entry: &Entry) -> Duration {
        entry.time_left(self.0.clock.now_ms())
    }

    /// The number of values, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.0.entries.run_pending_tasks();
        (self.0.entries.entry_count(), self.0.entries.weighted_size())
    }

    pub(super) fn find(&self, digest: &KeyDigest) -> Option<Arc<Entry>> {
        self.0.entries.get(digest)
    }

    pub(super) fn keep(&self, entry: Arc<Entry>) {
        self.0.entries.insert(entry.digest, entry);
    }

    pub(super) fn remove(&self, digest: &KeyDigest) {
        self.0.entries.invalidate(digest);
    }

    pub(super) fn epoch(&self, scope: &Scope) -> Option<Epoch> {
        self.0.epochs.get(scope).filter(|epoch| epoch.learned_at.elapsed() < EPOCH_USED_MAX)
    }

    /// To be read before an epoch is queried.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Records the current epoch, unless a notification arrived since `generation`.
    pub(super) fn learn(&self, scope: &Scope, epoch: Epoch, generation: u64) {
        self.0.epochs.insert(scope.clone(), epoch);
        if self.generation() != generation {
            self.0.epochs.invalidate(scope);
        }
    }

    /// Records that the epoch has ended.
    pub(super) fn forget(&self, scope: &Scope) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.epochs.invalidate(scope);
    }

    /// Handles another server's notification that an epoch has ended.
    pub(crate) fn hear(&self, payload: &str) {
        let scope = payload.split_once(':').and_then(|(owner, name)| {
            Some(Scope::new(Owner::from_uuid(owner.parse().ok()?), name))
        });
        match scope {
            Some(scope) => self.forget(&scope),
            None => self.forget_all(),
        }
    }

    /// Forgets all epochs, since notifications may have been missed.
    pub(crate) fn forget_all(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.epochs.invalidate_all();
    }

    /// Drops a tenant's values. They are unreachable once its epochs have ended; this removes them from
    /// memory.
    pub(crate) fn evict(&self, tenant: TenantId) {
        let owner = Owner::Tenant(tenant);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        // These fail only for a cache that was built without support for predicates.
        let _ = self.0.epochs.invalidate_entries_if(move |scope, _| scope.owner == owner);
        let _ = self.0.entries.invalidate_entries_if(move |_, entry| entry.owner == owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_epoch_is_asked_for_again_before_the_catalog_takes_it_for_unused() {
        let local = Local::new(1024);
        let scope = Scope::new(Owner::Global, "figures");
        local.learn(&scope, Epoch { number: 7, learned_at: Instant::now() }, local.generation());
        tokio::time::advance(EPOCH_USED_MAX - Duration::from_millis(1)).await;
        assert_eq!(local.epoch(&scope).map(|epoch| epoch.number), Some(7));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(local.epoch(&scope).is_none());
    }
}
