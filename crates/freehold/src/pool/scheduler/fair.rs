//! What keeps room for tenants that ask for little, whatever the others do.
//!
//! Of four slots or more, a quarter is kept from slow tenants, and half of that quarter from all that hold
//! a slot already: for newcomers, which hold none and were not slow when they were here last. Slow tenants
//! have half of the slots all the same, however many others there are. A tenant that nothing is known of
//! has one slot until its first transaction ends. So a newcomer waits only while newcomers hold all that is
//! kept, and these are soon done, or slow from then on.
//!
//! Slow transactions that wait in the database take nothing but their slots. Those that compute take its
//! processor from all others, and the two cannot be told apart from here. But it shows in how long a
//! trivial statement takes. So slow tenants begin with half of the slots and get more while that takes no
//! longer than usual; once it takes long they get half as many, as TCP does with a congested network.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::TenantKey;

/// Who holds a slot for longer is slow: a request takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(100);
/// Where the database is busy, all take longer: slow is who takes so many times as long as a trivial
/// statement.
const SLOW_TRIVIALS: u32 = 5;
/// A slow tenant that has left all its slots for so many times as long as it holds one on average is a
/// newcomer again, for one slot.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(60);
/// What the latest transaction counts in the average is one part of so many. One that met a strange
/// connection, or a moment's stall, makes no tenant slow that is known.
const PARTS: u32 = 4;
/// So many tenants are remembered.
const REMEMBERED: usize = 4096;
/// Of so many slots slow tenants hold one together until it is known how the database bears it.
const START_SHARE: usize = 2;
/// Answers of a trivial statement in good time, one after the other, before slow tenants get one slot
/// more: until one was late for the first time, and after that.
const CALM_AT_START: u32 = 2;
const CALM: u32 = 20;
/// Where one more slot made the database busy at once, it takes twice as many answers before the next
/// try: at most so many, 16 seconds.
const CALM_MAX: u32 = 320;
/// So many looks, one after the other, at which no tenant was slow end what was learnt of those that were.
const FORGET_AFTER: u32 = 20;
/// What a trivial statement may take beyond three times its quickest: a few slices of a busy processor.
const CONGESTED: Duration = Duration::from_millis(3);

/// For how long tenants held their slots of late.
pub(super) struct Averages(LruCache<TenantKey, Average>);

/// What is known of a key from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Unknown,
    Quick,
    Slow,
    /// Slow when it was here last, which is a while ago.
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

    /// A slot was left that this key has held; `slow` is what is long at this moment. Who was slow is so
    /// until it is quick by the measure of a database at rest.
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

/// How many slots slow tenants may hold together, by how busy the database is.
pub(super) struct Congestion {
    slow_max: usize,
    /// Answers in good time since the last that was not, or since there was one slot more.
    calm: u32,
    /// How many of them it takes for one slot more.
    calm_needed: u32,
    /// There was one slot more since an answer was late.
    has_grown: bool,
    /// Looks in a row at which no tenant was slow.
    quiet: u32,
    /// The latest answer was late.
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

    /// For how long a slot is held by one who is slow.
    pub(super) fn slow(&self) -> Duration {
        SLOW.max(self.latest * SLOW_TRIVIALS)
    }

    /// A trivial statement took so long; None if nobody is slow, so that nothing was asked.
    pub(super) fn heed(&mut self, took: Option<Duration>, slots: usize) {
        let Some(took) = took else {
            self.quiet += 1;
            if self.quiet >= FORGET_AFTER {
                *self = Congestion { quickest: self.quickest, ..Congestion::new(slots) };
            }
            return;
        };
        (self.latest, self.quiet) = (took, 0);
        // It may have become slower for good, as after a fail-over to a server further away.
        self.quickest = took.min(self.quickest + self.quickest / 128);
        if took > self.quickest * 3 + CONGESTED {
            self.calm = 0;
            // One alone may be chance.
            if std::mem::replace(&mut self.late, true) {
                self.shrink();
            }
        } else {
            self.note_calm(slots);
        }
    }

    /// Nothing tells that the database is busy.
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
            // The one before did no harm.
            self.calm_needed = self.calm_needed.min(CALM);
        }
    }
}

/// The slots that are taken, by key, and who may have one more.
pub(super) struct Holders {
    holders: Vec<Holder>,
    /// Whether the database bears one more slow transaction, as far as is known.
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
        // Who holds several may turn out to be slow as well.
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

    /// Whether this key may have one more. How it was of late is asked only of one who holds none.
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
