//! What keeps room for tenants that ask for little, whatever the others do.
//!
//! Of four places or more, a quarter is kept for newcomers: tenants that hold no place and have not been
//! slow of late. The others, the crowd, hold the rest at most. So a newcomer waits for a place only while
//! other newcomers hold all that is kept, and these are soon done, or slow from then on.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Guest;

/// Who holds a place for longer is slow: a request takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(100);
/// A tenant counts as slow for so many times as long as it has held the place: below a fifth of the time
/// it is none of the crowd.
const SLOW_FACTOR: u32 = 4;
const SLOW_MAX: Duration = Duration::from_secs(60);
/// So many are remembered before those of the past are forgotten.
const REMEMBERED: usize = 1024;

/// Tenants that have held a place for long, until when they count as slow.
#[derive(Default)]
pub(super) struct SlowGuests(HashMap<Guest, Instant>);

impl SlowGuests {
    pub(super) fn contains(&self, guest: Guest, now: Instant) -> bool {
        self.0.get(&guest).is_some_and(|until| *until > now)
    }

    /// A place was left that this guest has held.
    pub(super) fn note(&mut self, guest: Guest, held: Duration, now: Instant) {
        if held < SLOW || guest == Guest::Anyone {
            return;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, until| *until > now);
        }
        let until = now + (held * SLOW_FACTOR).min(SLOW_MAX);
        let known = self.0.entry(guest).or_insert(until);
        *known = until.max(*known);
    }
}

/// The places that are taken, by guest.
pub(super) struct Holders {
    held: Vec<(Guest, usize)>,
    /// Tenants of the crowd among them, and how many places they hold together.
    crowd: Vec<Guest>,
    crowd_held: usize,
    crowd_max: usize,
}

impl Holders {
    pub(super) fn new(
        places: usize,
        taken: impl Iterator<Item = (Guest, Instant)>,
        slow: &SlowGuests,
        now: Instant,
    ) -> Holders {
        let mut holders: Vec<(Guest, usize, bool)> = Vec::new();
        for (guest, since) in taken.filter(|(guest, _)| *guest != Guest::Anyone) {
            let is_slow = now.saturating_duration_since(since) >= SLOW;
            match holders.iter_mut().find(|(holder, ..)| *holder == guest) {
                Some((_, held, crowd)) => (*held, *crowd) = (*held + 1, true),
                None => holders.push((guest, 1, is_slow || slow.contains(guest, now))),
            }
        }
        let crowd = || holders.iter().filter(|(.., crowd)| *crowd);
        Holders {
            crowd_held: crowd().map(|(_, held, _)| held).sum(),
            crowd: crowd().map(|(guest, ..)| *guest).collect(),
            held: holders.iter().map(|(guest, held, _)| (*guest, *held)).collect(),
            crowd_max: places - places / 4,
        }
    }

    pub(super) fn held(&self, guest: Guest) -> usize {
        self.held.iter().find(|(holder, _)| *holder == guest).map_or(0, |(_, held)| *held)
    }

    /// Whether this guest may have one more: each newcomer may, and the crowd while it holds less than its
    /// part.
    pub(super) fn may_take(&self, guest: Guest, is_slow: bool) -> bool {
        let held = self.held(guest);
        if guest == Guest::Anyone || held == 0 && !is_slow {
            return true;
        }
        // Its first place counts too, once it has a second.
        let joins = if self.crowd.contains(&guest) { 1 } else { held + 1 };
        self.crowd_held + joins <= self.crowd_max
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
        Holders::new(places, taken, slow, now)
    }

    #[test]
    fn tenants_with_several_places_leave_a_quarter() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let taken = [(1, now), (1, now), (2, now), (2, now), (2, now)];
        let held = holders(8, &taken, &slow, now);
        assert!(held.may_take(tenant(1), false), "five of six are taken by the crowd");
        let taken = [(1, now), (1, now), (1, now), (2, now), (2, now), (2, now), (3, now)];
        let held = holders(8, &taken, &slow, now);
        assert!(!held.may_take(tenant(1), false));
        assert!(!held.may_take(tenant(3), false), "its second would make it one of the crowd");
        assert!(held.may_take(tenant(4), false), "who has none may take what is kept");
        assert!(held.may_take(Guest::Anyone, false));
    }

    #[test]
    fn whose_transaction_lasts_is_of_the_crowd() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        let long_ago = now.checked_sub(SLOW).unwrap();
        let lasting: Vec<_> = (1..=6).map(|number| (number, long_ago)).collect();
        let held = holders(8, &lasting, &slow, now);
        assert!(!held.may_take(tenant(1), false), "six of eight are the crowd's");
        assert!(held.may_take(tenant(7), false));
        let held = holders(8, &lasting, &slow, now.checked_sub(QUICK).unwrap());
        assert!(held.may_take(tenant(1), false), "a moment ago nobody was slow");
    }

    #[test]
    fn who_was_slow_is_no_newcomer_for_a_while() {
        let (now, mut slow) = (Instant::now(), SlowGuests::default());
        slow.note(tenant(1), SLOW - QUICK, now);
        slow.note(Guest::Anyone, SLOW, now);
        assert!(!slow.contains(tenant(1), now) && !slow.contains(Guest::Anyone, now));
        slow.note(tenant(1), SLOW, now);
        slow.note(tenant(1), SLOW / 2, now);
        let until = now + SLOW * SLOW_FACTOR;
        assert!(slow.contains(tenant(1), until - QUICK) && !slow.contains(tenant(1), until));
        slow.note(tenant(2), Duration::from_secs(3600), now);
        assert!(!slow.contains(tenant(2), now + SLOW_MAX));
        let taken = [(3, now), (3, now), (3, now), (4, now), (4, now), (4, now)];
        let held = holders(8, &taken, &slow, now);
        assert!(!held.may_take(tenant(1), slow.contains(tenant(1), now)));
        assert!(held.may_take(tenant(1), slow.contains(tenant(1), until)));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (now, mut slow) = (Instant::now(), SlowGuests::default());
        for number in 0..5000 {
            slow.note(tenant(number), SLOW, now + SLOW * SLOW_FACTOR * number as u32);
        }
        assert!(slow.0.len() <= REMEMBERED);
    }

    #[test]
    fn of_few_places_none_is_kept() {
        let (now, slow) = (Instant::now(), SlowGuests::default());
        assert!(holders(3, &[(1, now), (1, now)], &slow, now).may_take(tenant(1), true));
    }
}
