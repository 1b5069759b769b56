//! When the primary was at which log position, by this process's clock: the measure of a replica's lag. Pure.
//!
//! What a replica reports as its lag, the age of the latest commit that it replayed, grows while the primary
//! is idle, and depends on two clocks. By this measure, a replica that has replayed what the primary had
//! written two seconds ago, but nothing after that, lags two seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::lsn::Lsn;

/// The most positions that are kept: at four a second, 17 minutes of a primary that writes all the time.
const PLACES_MAX: usize = 4096;

/// Positions of one primary, oldest first.
#[derive(Default)]
pub(super) struct History(VecDeque<SeenAt>);

struct SeenAt {
    lsn: Lsn,
    /// When the primary was last seen at this position.
    last: Instant,
}

impl History {
    /// Records that the primary was at this position at this moment.
    pub(super) fn note(&mut self, lsn: Lsn, now: Instant) {
        match self.0.back_mut() {
            Some(newest) if newest.lsn == lsn => newest.last = now,
            Some(newest) if newest.lsn > lsn => {
                // The position went back: this is another primary, and the history is of the previous one.
                self.0.clear();
                self.0.push_back(SeenAt { lsn, last: now });
            }
            _ => self.0.push_back(SeenAt { lsn, last: now }),
        }
        if self.0.len() > PLACES_MAX {
            self.0.pop_front();
        }
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn newest(&self) -> Option<Lsn> {
        self.0.back().map(|place| place.lsn)
    }

    /// The position that a replica must have replayed to be no older than `age_max`; `None` if the primary
    /// was not reached since then.
    pub(super) fn floor(&self, age_max: Duration, now: Instant) -> Option<Lsn> {
        let young = |place: &SeenAt| now.saturating_duration_since(place.last) <= age_max;
        // The times increase with the positions, so the first that is recent enough is found by binary
        // search.
        let at = self.0.partition_point(|place| !young(place));
        self.0.get(at).map(|place| place.lsn)
    }

    /// The age of a replica that has replayed up to this position; `None` if older than the history.
    pub(super) fn age(&self, replayed: Lsn, now: Instant) -> Option<Duration> {
        let newest = self.0.back()?;
        if replayed >= newest.lsn {
            return Some(Duration::ZERO);
        }
        let at = self.0.partition_point(|place| place.lsn <= replayed);
        let reached = self.0.get(at.checked_sub(1)?)?;
        Some(now.saturating_duration_since(reached.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(low: u32) -> Lsn {
        format!("0/{low:X}").parse().unwrap()
    }

    /// The primary was at position 100 at second 0, at 200 from 1 to 5, at 300 at 6.
    fn history() -> (History, Instant) {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut history = History::default();
        history.note(lsn(100), at(0));
        for second in 1..=5 {
            history.note(lsn(200), at(second));
        }
        history.note(lsn(300), at(6));
        (history, start)
    }

    #[test]
    fn a_replica_that_has_everything_is_not_behind_however_long_the_primary_rests() {
        let (mut history, start) = history();
        history.note(lsn(300), start + Duration::from_hours(1));
        let now = start + Duration::from_hours(1);
        assert_eq!(history.age(lsn(300), now), Some(Duration::ZERO));
        assert_eq!(history.floor(Duration::from_secs(5), now), Some(lsn(300)));
    }

    #[test]
    fn a_replica_is_as_old_as_the_last_place_of_the_primary_that_it_has_reached() {
        let (history, start) = history();
        let now = start + Duration::from_secs(8);
        assert_eq!(history.age(lsn(299), now), Some(Duration::from_secs(3)));
        assert_eq!(history.age(lsn(150), now), Some(Duration::from_secs(8)));
        assert_eq!(history.age(lsn(99), now), None, "older than anything known");
    }

    #[test]
    fn what_must_be_replayed_rises_with_time_and_a_silent_primary_lets_nobody_pass() {
        let (history, start) = history();
        let floor = |age, second| {
            history.floor(Duration::from_secs(age), start + Duration::from_secs(second))
        };
        assert_eq!(floor(8, 8), Some(lsn(100)));
        assert_eq!(floor(7, 8), Some(lsn(200)));
        assert_eq!(floor(3, 8), Some(lsn(200)));
        assert_eq!(floor(2, 8), Some(lsn(300)));
        assert_eq!(floor(1, 8), None);
    }

    #[test]
    fn a_primary_that_goes_back_is_another_and_no_history_is_without_end() {
        let (mut history, start) = history();
        history.note(lsn(250), start + Duration::from_secs(7));
        assert_eq!(history.age(lsn(200), start + Duration::from_secs(7)), None);
        for step in 0..2 * PLACES_MAX as u32 {
            history.note(lsn(1000 + step), start + Duration::from_secs(8));
        }
        assert_eq!(history.0.len(), PLACES_MAX);
    }
}
