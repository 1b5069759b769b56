//! What keeps room for tenants that ask for little, whatever the others do.
//!
//! Of four places or more, a quarter is kept from slow tenants, and half of that quarter from all that hold
//! a place already: for newcomers, which hold none and were not slow when they were here last. Slow tenants
//! have half of the places all the same, however many others there are. So a newcomer waits only while
//! newcomers hold all that is kept, and these are soon done, or slow from then on.
//!
//! Slow transactions that wait in the database take nothing but their places. Those that compute take its
//! processor from all others, and the two cannot be told apart from here. But it shows in how long a
//! trivial statement takes: while that is long, ever fewer slow tenants get a place.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::Guest;

/// Who holds a place for longer is slow: a request takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(100);
/// Where the database is busy, all take longer: slow is who takes so many times as long as a trivial
/// statement.
const SLOW_TRIVIALS: u32 = 5;
/// A slow tenant that has left all its places for so many times as long as it holds one on average is a
/// newcomer again, for one place.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(60);
/// What the latest transaction counts in the average is one part of so many. One that met a strange
/// connection, or a moment's stall, makes nobody slow.
const PARTS: u32 = 4;
/// So many tenants are remembered.
const REMEMBERED: usize = 1024;
/// Answers of a trivial statement in good time, one after the other, before slow tenants get one place more.
const CALM: u8 = 10;
/// What a trivial statement may take beyond three times its quickest: a few slices of a busy processor.
const CONGESTED: Duration = Duration::from_millis(3);

/// Tenants that have held a place for long.
pub(super) struct SlowGuests(LruCache<Guest, Average>);

/// What is known of a guest from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
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

impl Default for SlowGuests {
    fn default() -> SlowGuests {
        SlowGuests(LruCache::new(NonZeroUsize::new(REMEMBERED).expect("some are remembered")))
    }
}

impl SlowGuests {
    pub(super) fn standing(&self, guest: Guest, now: Instant) -> Standing {
        match self.0.peek(&guest) {
            Some(Average { held, left_at, is_slow: true }) => {
                let rested = now >= *left_at + (*held * REST_FACTOR).min(REST_MAX);
                if rested { Standing::Rested } else { Standing::Slow }
            }
            _ => Standing::Quick,
        }
    }

    /// A place was left that this guest has held; `slow` is what is long at this moment. Who was slow is so
    /// until it is quick by the measure of a database at rest.
    pub(super) fn note(&mut self, guest: Guest, held: Duration, slow: Duration, now: Instant) {
        if let Some(average) = self.0.get_mut(&guest) {
            average.held = average.held - average.held / PARTS + held / PARTS;
            average.left_at = now;
            average.is_slow = average.held >= slow || average.is_slow && average.held >= SLOW;
        } else if held >= slow && guest != Guest::Anyone {
            self.0.push(guest, Average { held: held / PARTS, left_at: now, is_slow: false });
        }
    }
}

/// How many places slow tenants may hold together, by how busy the database is.
pub(super) struct Congestion {
    slow_max: usize,
    calm: u8,
    /// The latest answer was late.
    late: bool,
    quickest: Duration,
    latest: Duration,
}

impl Congestion {
    pub(super) fn new(places: usize) -> Congestion {
        let quickest = Duration::from_secs(1);
        Congestion { slow_max: places, calm: 0, late: false, quickest, latest: Duration::ZERO }
    }

    /// For how long a place is held by one who is slow.
    pub(super) fn slow(&self) -> Duration {
        SLOW.max(self.latest * SLOW_TRIVIALS)
    }

    /// A trivial statement took so long; None if nobody is slow, so that nothing was asked.
    pub(super) fn heed(&mut self, took: Option<Duration>, places: usize) {
        self.latest = took.unwrap_or_default();
        if let Some(took) = took {
            // It may have become slower for good, as after a fail-over to a server further away.
            self.quickest = took.min(self.quickest + self.quickest / 64);
            if took > self.quickest * 3 + CONGESTED {
                // One alone may be chance.
                if std::mem::replace(&mut self.late, true) {
                    self.slow_max = (self.slow_max / 2).max(1);
                }
                self.calm = 0;
                return;
            }
        }
        self.late = false;
        self.calm += 1;
        if self.calm >= CALM {
            (self.slow_max, self.calm) = ((self.slow_max + 1).min(places), 0);
        }
    }
}

/// The places that are taken, by guest, and who may have one more.
pub(super) struct Holders {
    holders: Vec<Holder>,
    has_room_for_slow: bool,
    has_room_for_quick: bool,
}

struct Holder {
    guest: Guest,
    held: usize,
    is_slow: bool,
}

impl Holders {
    pub(super) fn new(
        places: usize,
        taken: impl Iterator<Item = (Guest, Instant)>,
        slow: &SlowGuests,
        congestion: &Congestion,
        now: Instant,
    ) -> Holders {
        let mut holders: Vec<Holder> = Vec::new();
        for (guest, since) in taken.filter(|(guest, _)| *guest != Guest::Anyone) {
            let is_slow = now.saturating_duration_since(since) >= congestion.slow();
            match holders.iter_mut().find(|holder| holder.guest == guest) {
                Some(holder) => {
                    holder.held += 1;
                    holder.is_slow |= is_slow;
                }
                None => {
                    let known = slow.standing(guest, now);
                    let is_slow = is_slow || known != Standing::Quick;
                    holders.push(Holder { guest, held: 1, is_slow });
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
        let kept = places / 4;
        Holders {
            has_room_for_slow: slow < congestion.slow_max
                && (taken < places - kept || crowd < places / 2),
            has_room_for_quick: taken < places - kept.div_ceil(2),
            holders,
        }
    }

    fn find(&self, guest: Guest) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.guest == guest)
    }

    pub(super) fn held(&self, guest: Guest) -> usize {
        self.find(guest).map_or(0, |holder| holder.held)
    }

    pub(super) fn any_is_slow(&self) -> bool {
        self.holders.iter().any(|holder| holder.is_slow)
    }

    /// Whether this guest may have one more. How it was of late is asked only of one who holds none.
    pub(super) fn may_take(&self, guest: Guest, standing: impl FnOnce(Guest) -> Standing) -> bool {
        match self.find(guest) {
            None => self.has_room_for_slow || standing(guest) != Standing::Slow,
            Some(holder) if holder.is_slow => self.has_room_for_slow,
            Some(_) => self.has_room_for_quick,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    fn tenant(number: u64) -> Guest {
        Guest::Tenant(number)
    }

    fn holders(
        places: usize,
        taken: &[(u64, Instant)],
        slow: &SlowGuests,
        now: Instant,
    ) -> Holders {
        let taken = taken.iter().map(|(number, since)| (tenant(*number), *since));
        Holders::new(places, taken, slow, &Congestion::new(places), now)
    }

    #[test]
    fn who_holds_one_leaves_an_eighth_free() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let taken = [(1, now), (1, now), (1, now), (2, now), (2, now), (3, now)];
        assert!(
            holders(8, &taken, &slow, now).may_take(tenant(1), |_| Standing::Quick),
            "two of eight are free"
        );
        let taken = [(1, now), (1, now), (1, now), (2, now), (2, now), (3, now), (4, now)];
        let held = holders(8, &taken, &slow, now);
        assert!(
            !held.may_take(tenant(1), |_| Standing::Quick)
                && !held.may_take(tenant(3), |_| Standing::Quick)
        );
        assert!(
            held.may_take(tenant(5), |_| Standing::Quick),
            "who has none may take what is kept"
        );
        assert!(held.may_take(Guest::Anyone, |_| Standing::Quick));
    }

    #[test]
    fn slow_tenants_leave_a_quarter_free_and_have_half_whatever_the_others_hold() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let long_ago = now.checked_sub(SLOW).unwrap();
        let six: Vec<_> = (1..=6).map(|number| (number, long_ago)).collect();
        assert!(!holders(8, &six, &slow, now).may_take(tenant(1), |_| Standing::Quick));
        assert!(holders(8, &six, &slow, now).may_take(tenant(7), |_| Standing::Quick));
        let before = now.checked_sub(QUICK).unwrap();
        assert!(
            holders(8, &six, &slow, before).may_take(tenant(1), |_| Standing::Quick),
            "none was slow yet"
        );
        let mixed: Vec<_> =
            (1..=7).map(|number| (number, if number < 4 { long_ago } else { now })).collect();
        assert!(
            holders(8, &mixed, &slow, now).may_take(tenant(1), |_| Standing::Quick),
            "a fourth of eight"
        );
        let mixed: Vec<_> =
            (1..=7).map(|number| (number, if number < 5 { long_ago } else { now })).collect();
        assert!(!holders(8, &mixed, &slow, now).may_take(tenant(1), |_| Standing::Quick));
    }

    #[test]
    fn what_is_kept_is_no_slow_tenants_while_others_that_hold_several_are_not_known_yet() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let long_ago = now.checked_sub(SLOW).unwrap();
        let taken =
            [(1, long_ago), (1, now), (2, now), (2, now), (3, long_ago), (4, now), (5, now)];
        assert!(!holders(8, &taken, &slow, now).may_take(tenant(3), |_| Standing::Quick));
    }

    #[test]
    fn who_is_slow_on_average_is_no_newcomer_for_a_while() {
        let (now, mut slow) = (Instant::now(), SlowGuests::default());
        for _ in 0..3 {
            slow.note(tenant(1), SLOW - QUICK, SLOW, now);
            slow.note(Guest::Anyone, SLOW * 9, SLOW, now);
            slow.note(tenant(2), SLOW * 2, SLOW, now);
        }
        slow.note(tenant(3), SLOW * 3, SLOW, now);
        let known = |slow: &SlowGuests, number| slow.standing(tenant(number), now);
        assert_eq!(known(&slow, 1), Standing::Quick);
        assert_eq!(slow.standing(Guest::Anyone, now), Standing::Quick);
        assert_eq!(known(&slow, 2), Standing::Slow, "by its third");
        assert_eq!(known(&slow, 3), Standing::Quick, "once is none");
        slow.note(tenant(2), SLOW * 2, SLOW * 9, now);
        assert_eq!(known(&slow, 2), Standing::Slow, "though all take long by now");
        let later = now + SLOW * 2 * REST_FACTOR;
        assert_eq!(slow.standing(tenant(2), later), Standing::Rested);
        assert!(holders(4, &[], &slow, later).may_take(tenant(2), |_| Standing::Rested));
        // With that one it is one of the slow, though nothing it holds has lasted yet.
        let taken: Vec<_> = [2, 4, 5, 6, 7, 8].map(|number| (number, later)).into();
        let mut congestion = Congestion::new(8);
        congestion.slow_max = 1;
        let taken = taken.iter().map(|(number, since)| (tenant(*number), *since));
        let held = Holders::new(8, taken, &slow, &congestion, later);
        assert!(!held.may_take(tenant(2), |_| Standing::Rested));
        assert!(held.may_take(tenant(4), |_| Standing::Quick));
        slow.note(tenant(3), Duration::from_secs(3600), SLOW, now);
        assert_eq!(slow.standing(tenant(3), now + REST_MAX), Standing::Rested);
        for _ in 0..3 {
            slow.note(tenant(2), QUICK, SLOW, now);
        }
        assert_eq!(known(&slow, 2), Standing::Quick, "it is quick again");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (now, mut slow) = (Instant::now(), SlowGuests::default());
        for number in 0..5000 {
            slow.note(tenant(number), SLOW, SLOW, now);
        }
        assert!(slow.0.len() <= REMEMBERED);
    }

    #[test]
    fn of_few_places_none_is_kept() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        assert!(
            holders(3, &[(1, now), (1, now)], &slow, now).may_take(tenant(1), |_| Standing::Slow)
        );
    }

    #[test]
    fn the_longer_a_trivial_statement_takes_the_fewer_places_slow_tenants_get() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let mut congestion = Congestion::new(16);
        congestion.heed(Some(QUICK), 16);
        let late = QUICK * 3 + CONGESTED + QUICK;
        for slow_max in [16, 8, 4, 2, 1, 1] {
            congestion.heed(Some(late), 16);
            assert_eq!(congestion.slow_max, slow_max);
        }
        let long_ago = now.checked_sub(SLOW * 2).unwrap();
        let may_take = |taken: &[(u64, Instant)], congestion: &Congestion, guest: u64| {
            let taken = taken.iter().map(|(number, since)| (tenant(*number), *since));
            let known = if guest > 7 { Standing::Slow } else { Standing::Quick };
            Holders::new(16, taken, &slow, congestion, now).may_take(tenant(guest), |_| known)
        };
        let one_is_slow = [(1, long_ago), (2, now)];
        assert!(!may_take(&one_is_slow, &congestion, 1), "it is slow itself");
        assert!(!may_take(&one_is_slow, &congestion, 8), "it was slow of late");
        assert!(may_take(&one_is_slow, &congestion, 2), "it is not slow");
        assert!(may_take(&[(2, now)], &congestion, 8), "one may");

        for _ in 0..CALM - 1 {
            congestion.heed(Some(QUICK), 16);
        }
        assert_eq!(congestion.slow_max, 1);
        congestion.heed(None, 16);
        assert_eq!(congestion.slow_max, 2, "so many times in a row all was well");
        assert!(may_take(&one_is_slow, &congestion, 8));
        for _ in 0..100 * usize::from(CALM) {
            congestion.heed(None, 16);
        }
        assert_eq!(congestion.slow_max, 16);
    }

    #[test]
    fn where_all_take_longer_who_is_slow_takes_longer_still() {
        let mut congestion = Congestion::new(16);
        assert_eq!(congestion.slow(), SLOW);
        congestion.heed(Some(SLOW), 16);
        assert_eq!(congestion.slow(), SLOW * SLOW_TRIVIALS);
        congestion.heed(None, 16);
        assert_eq!(congestion.slow(), SLOW);
    }

    #[test]
    fn what_is_quick_is_learned_anew_where_it_takes_longer_for_good() {
        let mut congestion = Congestion::new(16);
        congestion.heed(Some(QUICK), 16);
        for _ in 0..500 {
            congestion.heed(Some(QUICK * 20), 16);
        }
        assert!(congestion.slow_max > 1);
    }
}
