//! Fairness: room is kept for tenants with little load, whatever the other tenants do.
//!
//! With four slots or more, a quarter is closed to slow tenants. Half of that quarter is closed to every
//! tenant that already holds a slot, and so reserved for newcomers: tenants that hold none and were not slow
//! recently. Slow tenants have half of the slots in any case, however many other tenants there are. A tenant
//! whose pace is unknown has one slot until its first transaction ends. So a newcomer waits only while
//! newcomers hold the whole reserve, and they are soon done, or count as slow from then on.
//!
//! Slow transactions that wait inside the database occupy nothing but their slots. Those that compute take
//! CPU time from all others, and the pool cannot tell the two apart. The duration of a trivial statement
//! shows it. So slow tenants begin with half of the slots and get more while a trivial statement takes no
//! longer than usual; once it takes long, their share is halved, as TCP does in a congested network.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::TenantKey;

/// A tenant that holds a slot for longer is slow: a request takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(100);
/// On a busy database every transaction takes longer. There a tenant is slow if it holds a slot for this many
/// times the duration of a trivial statement.
const SLOW_TRIVIALS: u32 = 5;
/// A slow tenant that has held no slot for this many times its average holding time is rested: it may take
/// one slot as a newcomer does.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(60);
/// The latest transaction counts for one part in this many of the average. So a single transaction that met a
/// backend without the tenant's cache, or a brief stall, does not make a known tenant slow.
const PARTS: u32 = 4;
/// How many tenants are remembered.
const REMEMBERED: usize = 4096;
/// One part in this many of the slots is what slow tenants hold together at first, until the load is known.
const START_SHARE: usize = 2;
/// How many trivial statements in a row must be answered in time before slow tenants get one more slot:
/// before the first late answer, and after it.
const CALM_AT_START: u32 = 2;
const CALM: u32 = 20;
/// If one more slot made the database busy at once, the next attempt needs twice as many answers, up to this
/// many: 16 seconds.
const CALM_MAX: u32 = 320;
/// After this many measurements in a row without a slow tenant, what was learnt about the load is forgotten.
const FORGET_AFTER: u32 = 20;
/// How much longer than three times its minimum a trivial statement may take: a few time slices of a busy
/// CPU.
const CONGESTED: Duration = Duration::from_millis(3);

/// How long each tenant held its slots recently.
pub(super) struct Averages(LruCache<TenantKey, Average>);

/// What is known of a tenant key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Unknown,
    Quick,
    Slow,
    /// Slow at its latest transaction, which is a while ago.
    Rested,
}

struct Average {
    held: Duration,
    left_at: Instant,
    is_slow: bool,
}

impl Default for Averages {
    fn default() -> Averages {
        Averages(LruCache::new(NonZeroUsize::new(REMEMBERED).expect("some are remembered")))
    }
}

impl Averages {
    pub(super) fn pace(&self, key: TenantKey, now: Instant) -> Pace {
        match self.0.peek(&key) {
            Some(Average { held, left_at, is_slow: true }) => {
                let rested = now >= *left_at + (*held * REST_FACTOR).min(REST_MAX);
                if rested { Pace::Rested } else { Pace::Slow }
            }
            Some(_) => Pace::Quick,
            None if key == TenantKey::None => Pace::Quick,
            None => Pace::Unknown,
        }
    }

    /// Records that a slot of this key was released; `slow` is the limit at this moment. A slow tenant stays
    /// slow until it is quick by the limit of an idle database.
    pub(super) fn note(&mut self, key: TenantKey, held: Duration, slow: Duration, now: Instant) {
        if key == TenantKey::None {
            return;
        }
        let former = self.0.get(&key).map(|average| (average.held, average.is_slow));
        let (held, was_slow) = match former {
            Some((former, was_slow)) => (former - former / PARTS + held / PARTS, was_slow),
            None => (held, false),
        };
        let is_slow = held >= slow || was_slow && held >= SLOW;
        self.0.push(key, Average { held, left_at: now, is_slow });
    }
}

/// How many slots slow tenants may hold together, depending on the load of the database.
pub(super) struct Congestion {
    slow_max: usize,
    /// Answers in time since the latest late answer or the latest additional slot.
    calm: u32,
    /// How many answers in time are needed for one more slot.
    calm_needed: u32,
    /// A slot has been added since the latest late answer.
    has_grown: bool,
    /// Measurements in a row at which no tenant was slow.
    quiet: u32,
    /// Whether the latest answer was late.
    late: bool,
    quickest: Duration,
    latest: Duration,
}

impl Congestion {
    pub(super) fn new(slots: usize) -> Congestion {
        Congestion {
            slow_max: (slots / START_SHARE).max(1),
            calm: 0,
            calm_needed: CALM_AT_START,
            has_grown: false,
            quiet: 0,
            late: false,
            quickest: Duration::from_secs(1),
            latest: Duration::ZERO,
        }
    }

    /// How long a slot must be held for its tenant to be slow.
    pub(super) fn slow(&self) -> Duration {
        SLOW.max(self.latest * SLOW_TRIVIALS)
    }

    /// Takes the duration of a trivial statement; `None` if no tenant is slow, so that nothing was measured.
    pub(super) fn heed(&mut self, took: Option<Duration>, slots: usize) {
        let Some(took) = took else {
            self.quiet += 1;
            if self.quiet >= FORGET_AFTER {
                *self = Congestion { quickest: self.quickest, ..Congestion::new(slots) };
            }
            return;
        };
        (self.latest, self.quiet) = (took, 0);
        // The minimum rises slowly: the database may be slower for good, as after a failover to a server
        // further away.
        self.quickest = took.min(self.quickest + self.quickest / 128);
        if took > self.quickest * 3 + CONGESTED {
            self.calm = 0;
            // A single late answer may be chance.
            if std::mem::replace(&mut self.late, true) {
                self.shrink();
            }
        } else {
            self.note_calm(slots);
        }
    }

    /// Nothing indicates that the database is busy.
    pub(super) fn note_calm(&mut self, slots: usize) {
        (self.late, self.quiet) = (false, 0);
        self.calm += 1;
        if self.calm >= self.calm_needed {
            self.grow(slots);
        }
    }

    fn shrink(&mut self) {
        self.slow_max = (self.slow_max / 2).max(1);
        self.calm_needed = match self.calm_needed {
            CALM_AT_START => CALM,
            needed if self.has_grown => (needed * 2).min(CALM_MAX),
            needed => needed,
        };
        self.has_grown = false;
    }

    fn grow(&mut self, slots: usize) {
        self.slow_max = (self.slow_max + 1).min(slots);
        self.calm = 0;
        if std::mem::replace(&mut self.has_grown, true) {
            // The previous additional slot did no harm.
            self.calm_needed = self.calm_needed.min(CALM);
        }
    }
}

/// The tenants that hold slots, and which of them may have one more.
pub(super) struct Holders {
    holders: Vec<Holder>,
    /// Whether the database is believed to bear one more slow transaction.
    bears_slow: bool,
    has_room_for_slow: bool,
    has_room_for_quick: bool,
}

struct Holder {
    key: TenantKey,
    held: usize,
    is_slow: bool,
    is_known: bool,
}

impl Holders {
    pub(super) fn new(
        slots: usize,
        taken: impl Iterator<Item = (TenantKey, Instant)>,
        averages: &Averages,
        congestion: &Congestion,
        now: Instant,
    ) -> Holders {
        let mut holders: Vec<Holder> = Vec::new();
        for (key, since) in taken.filter(|(key, _)| *key != TenantKey::None) {
            let is_slow = now.saturating_duration_since(since) >= congestion.slow();
            match holders.iter_mut().find(|holder| holder.key == key) {
                Some(holder) => {
                    holder.held += 1;
                    holder.is_slow |= is_slow;
                }
                None => {
                    let pace = averages.pace(key, now);
                    holders.push(Holder {
                        key,
                        held: 1,
                        is_slow: is_slow || matches!(pace, Pace::Slow | Pace::Rested),
                        is_known: pace != Pace::Unknown,
                    });
                }
            }
        }
        let held_by = |wanted: fn(&Holder) -> bool| -> usize {
            holders.iter().filter(|holder| wanted(holder)).map(|holder| holder.held).sum()
        };
        let taken = held_by(|_| true);
        let slow = held_by(|holder| holder.is_slow);
        // A tenant that holds several slots may turn out to be slow as well.
        let crowd = held_by(|holder| holder.is_slow || holder.held > 1);
        let kept = slots / 4;
        let bears_slow = slow < congestion.slow_max;
        Holders {
            bears_slow,
            has_room_for_slow: bears_slow && (taken < slots - kept || crowd < slots / 2),
            has_room_for_quick: taken < slots - kept.div_ceil(2),
            holders,
        }
    }

    fn find(&self, key: TenantKey) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.key == key)
    }

    pub(super) fn held(&self, key: TenantKey) -> usize {
        self.find(key).map_or(0, |holder| holder.held)
    }

    pub(super) fn any_is_slow(&self) -> bool {
        self.holders.iter().any(|holder| holder.is_slow)
    }

    /// Whether this key may have one more slot. `pace` is called only for a key that holds none.
    pub(super) fn may_take(&self, key: TenantKey, pace: impl FnOnce(TenantKey) -> Pace) -> bool {
        match self.find(key) {
            None => match pace(key) {
                Pace::Unknown | Pace::Quick => true,
                Pace::Rested => self.bears_slow,
                Pace::Slow => self.has_room_for_slow,
            },
            Some(holder) if holder.is_slow => self.has_room_for_slow,
            Some(holder) => holder.is_known && self.has_room_for_quick,
        }
    }
}

#[cfg(test)]
mod tests;
