//! What the cache counts. Labels are few: names are defined by the program, the others here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Further names are counted as one.
const NAMES_MAX: usize = 64;

/// The result of a lookup, for one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    ProcessHit,
    ProcessMiss,
    RedisHit,
    RedisMiss,
    /// Waited for the load of another caller.
    Shared,
    /// Loaded, and kept.
    Loaded,
    /// Loaded without the cache, because the current epoch was unknown.
    Bypassed,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Redis did not answer in time.
    Timeout,
    /// The connection to Redis was lost or could not be opened.
    Connection,
    /// Redis has no room.
    Full,
    /// Redis answered with an error.
    Refused,
    /// The value was not sealed by one of these servers.
    Garbage,
    /// The value belongs to another key or another tenant.
    Foreign,
    /// Too many values were waiting to be stored.
    Dropped,
}

const LOOKUPS: [(Lookup, &str, &str); 7] = [
    (Lookup::ProcessHit, "process", "hit"),
    (Lookup::ProcessMiss, "process", "miss"),
    (Lookup::RedisHit, "redis", "hit"),
    (Lookup::RedisMiss, "redis", "miss"),
    (Lookup::Shared, "load", "shared"),
    (Lookup::Loaded, "load", "kept"),
    (Lookup::Bypassed, "load", "bypassed"),
];
const FAULTS: [(Fault, &str); 7] = [
    (Fault::Timeout, "timeout"),
    (Fault::Connection, "connection"),
    (Fault::Full, "full"),
    (Fault::Refused, "refused"),
    (Fault::Garbage, "garbage"),
    (Fault::Foreign, "foreign"),
    (Fault::Dropped, "dropped"),
];

/// Counts since this server started.
#[derive(Clone, Debug, Default)]
pub struct CacheStats {
    /// The results of lookups.
    pub lookups: Vec<CacheCount>,
    /// Failures by reason; none of them failed a request.
    pub errors: Vec<(&'static str, u64)>,
    /// Epochs that this server has ended.
    pub invalidations: u64,
    /// Values in this process.
    pub entries: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Whether Redis is in use at this moment; `None` without a `REDIS_URL`.
    pub redis_up: Option<bool>,
}

/// How often a lookup of one name had this result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheCount {
    /// The name in the key.
    pub name: &'static str,
    /// `process`, `redis`, or `load`.
    pub tier: &'static str,
    /// For the first two tiers `hit` or `miss`; for a load `kept`, `shared` (waited for another caller's), or
    /// `bypassed`.
    pub outcome: &'static str,
    /// How often.
    pub count: u64,
}

impl CacheStats {
    /// One of [`lookups`](Self::lookups), or 0.
    pub fn count(&self, name: &str, tier: &str, outcome: &str) -> u64 {
        let found =
            self.lookups.iter().find(|c| (c.name, c.tier, c.outcome) == (name, tier, outcome));
        found.map_or(0, |count| count.count)
    }

    /// One of [`errors`](Self::errors), or 0.
    pub fn error(&self, reason: &str) -> u64 {
        self.errors.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Inner>);

#[derive(Default)]
struct Inner {
    names: RwLock<BTreeMap<&'static str, Arc<[AtomicU64; LOOKUPS.len()]>>>,
    faults: [AtomicU64; FAULTS.len()],
    invalidations: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, name: &'static str, lookup: Lookup) {
        let known = self.0.names.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let counts = known.unwrap_or_else(|| {
            let mut names = self.0.names.write().unwrap_or_else(PoisonError::into_inner);
            let name = if names.len() < NAMES_MAX { name } else { "other" };
            Arc::clone(names.entry(name).or_default())
        });
        counts[lookup as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.0.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn invalidated(&self, epochs: u64) {
        self.0.invalidations.fetch_add(epochs, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CacheStats {
        let names = self.0.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut lookups = Vec::new();
        for (name, counts) in names.iter() {
            for (lookup, tier, outcome) in LOOKUPS {
                let count = counts[lookup as usize].load(Ordering::Relaxed);
                lookups.push(CacheCount { name, tier, outcome, count });
            }
        }
        let fault = |fault: Fault| self.0.faults[fault as usize].load(Ordering::Relaxed);
        CacheStats {
            lookups,
            errors: FAULTS.map(|(kind, reason)| (reason, fault(kind))).into(),
            invalidations: self.0.invalidations.load(Ordering::Relaxed),
            ..CacheStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_in_its_place() {
        for (place, (lookup, ..)) in LOOKUPS.into_iter().enumerate() {
            assert_eq!(lookup as usize, place);
        }
        for (place, (fault, _)) in FAULTS.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
        }
    }

    #[test]
    fn labels_are_bounded() {
        let counters = Counters::default();
        for n in 0..200 {
            let name: &'static str = Box::leak(format!("name_{n}").into_boxed_str());
            counters.count(name, Lookup::Loaded);
        }
        let stats = counters.read();
        assert_eq!(stats.lookups.len(), (NAMES_MAX + 1) * LOOKUPS.len());
        assert_eq!(stats.count("other", "load", "kept"), 200 - NAMES_MAX as u64);
    }
}
