//! The state of the slots: their holders, the waiters, and which waiter is next.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fair::{Averages, Congestion, Holders};
use super::{HOME_STREAK_MAX, PATIENCE, PATIENT_MAX, ROOM_PAUSE, SlotGuard, TenantKey, Waits};
use crate::model::tenant::Weight;

pub(super) struct State<T> {
    pub(super) slots: Vec<Slot<T>>,
    /// One queue for each slot, of the waiters whose home it is, and one for waiters without a home slot.
    pub(super) queues: Vec<VecDeque<Waiter<T>>>,
    pub(super) waits: Waits,
    pub(super) averages: Averages,
    pub(super) congestion: Congestion,
    /// Set when the database had no room for a connection; until then no other vacant slot is given out.
    pub(super) full_until: Option<Instant>,
    pub(super) closed: bool,
}

pub(super) enum Slot<T> {
    /// Without a connection; the next caller that takes it opens one.
    Vacant,
    Idle(T),
    Taken {
        by: TenantKey,
        since: Instant,
        /// How many holders in a row had this slot as their home.
        streak: u8,
    },
}

impl<T> Slot<T> {
    /// Replaces the slot's state, and returns its content.
    pub(super) fn replace_by(&mut self, next: Slot<T>) -> Option<T> {
        match std::mem::replace(self, next) {
            Slot::Idle(content) => Some(content),
            _ => None,
        }
    }
}

pub(super) struct Waiter<T> {
    pub(super) key: TenantKey,
    pub(super) weight: Weight,
    pub(super) since: Instant,
    pub(super) give: oneshot::Sender<SlotGuard<T>>,
}

/// A waiter that may have a slot. The tenant with the fewest slots for its weight is first, then the
/// earliest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    load: usize,
    since: Instant,
    queue: usize,
    at: usize,
}

impl<T> State<T> {
    pub(super) fn new(slots: usize) -> State<T> {
        State {
            slots: (0..slots).map(|_| Slot::Vacant).collect(),
            queues: (0..=slots).map(|_| VecDeque::new()).collect(),
            waits: Waits::default(),
            averages: Averages::default(),
            congestion: Congestion::new(slots),
            full_until: None,
            closed: false,
        }
    }

    pub(super) fn queue(&mut self, home: Option<usize>) -> &mut VecDeque<Waiter<T>> {
        let nowhere = self.slots.len();
        &mut self.queues[home.unwrap_or(nowhere)]
    }

    pub(super) fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Taken { .. }))
    }

    /// Whether any queue has an entry; the waiter may have been dropped.
    pub(super) fn is_awaited(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// Whether a key may have one more slot.
    pub(super) fn may_take(&self, key: TenantKey, now: Instant) -> bool {
        self.holders(false, now).may_take(key, |key| self.averages.pace(key, now))
    }

    /// The holders of the slots. When the database has no room, only the slots in use count as the total,
    /// except for a waiter that `fills` a vacant one: that is tried from time to time, and is how room is
    /// noticed.
    pub(super) fn holders(&self, fills: bool, now: Instant) -> Holders {
        let slots = match self.full_until {
            Some(_) if !fills => self.in_use(),
            _ => self.slots.len(),
        };
        let taken = self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken { by, since, .. } => Some((*by, *since)),
            _ => None,
        });
        Holders::new(slots, taken, &self.averages, &self.congestion, now)
    }

    /// The slot for a caller that has just arrived; `None` if it has to wait.
    pub(super) fn choose(
        &self,
        key: TenantKey,
        home: Option<usize>,
        now: Instant,
    ) -> Option<usize> {
        if !self.may_take(key, now) {
            return None;
        }
        let Some(home) = home else { return self.free_from(0, now) };
        match self.slots[home] {
            Slot::Idle(_) => Some(home),
            Slot::Vacant if self.may_fill(now) => Some(home),
            Slot::Vacant => self.free_from(home, now),
            Slot::Taken { since, .. } => {
                let soon = now.saturating_duration_since(since) < PATIENCE
                    && live(&self.queues[home]) < PATIENT_MAX;
                if soon { None } else { self.free_from(home, now) }
            }
        }
    }

    /// Whether a vacant slot may be given out: the database is believed to have room, or it is time for
    /// another attempt, or no slot is in use.
    pub(super) fn may_fill(&self, now: Instant) -> bool {
        self.full_until.is_none_or(|until| now >= until) || self.in_use() == 0
    }

    pub(super) fn in_use(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::Vacant)).count()
    }

    /// A vacant slot was given out.
    pub(super) fn note_attempt(&mut self, now: Instant) {
        if let Some(until) = &mut self.full_until {
            *until = now + ROOM_PAUSE;
        }
    }

    pub(super) fn is_free(&self, number: usize, now: Instant) -> bool {
        match self.slots[number] {
            Slot::Idle(_) => true,
            Slot::Vacant => self.may_fill(now),
            Slot::Taken { .. } => false,
        }
    }

    /// The next free slot: preferably one with a connection.
    pub(super) fn free_from(&self, first: usize, now: Instant) -> Option<usize> {
        let count = self.slots.len();
        let find = |wanted: fn(&Slot<T>) -> bool| {
            (0..count).map(|step| (first + step) % count).find(|at| wanted(&self.slots[*at]))
        };
        find(|slot| matches!(slot, Slot::Idle(_)))
            .or_else(|| find(|slot| matches!(slot, Slot::Vacant)).filter(|_| self.may_fill(now)))
    }

    /// The waiter that gets this slot (or `fills` it), and whether the slot is its home. Among waiters that
    /// may have one, a waiter whose home it is goes first if its tenant holds no more slots than the others
    /// do; otherwise, and after a streak, the best waiter of the others does.
    pub(super) fn next(
        &mut self,
        number: usize,
        streak: u8,
        fills: bool,
        now: Instant,
    ) -> Option<(Waiter<T>, bool)> {
        if !self.is_awaited() {
            return None;
        }
        let holders = self.holders(fills, now);
        let nowhere = self.slots.len();
        let first_of = |queue: usize| {
            let waiters = self.queues[queue].iter().enumerate();
            let candidates = waiters.filter_map(|(at, waiter)| {
                let Waiter { key, weight, .. } = *waiter;
                let takes_it = !waiter.give.is_closed()
                    && (queue == number
                        || queue == nowhere
                        || now.saturating_duration_since(waiter.since) >= PATIENCE)
                    && holders.may_take(key, |key| self.averages.pace(key, now));
                // Times 100, since a weight is at most 100.
                let load = 100 * holders.held(key) / usize::from(weight.get());
                takes_it.then_some(Candidate { load, since: waiter.since, queue, at })
            });
            candidates.min()
        };
        let at_home = first_of(number);
        let elsewhere = (0..=nowhere).filter(|queue| *queue != number).filter_map(first_of).min();
        let chosen = match (at_home, elsewhere) {
            (Some(home), Some(other)) => {
                let in_turn = home.load <= other.load && streak < HOME_STREAK_MAX;
                if in_turn { home } else { other }
            }
            (home, other) => home.or(other)?,
        };
        let waiter = self.queues[chosen.queue].remove(chosen.at)?;
        Some((waiter, chosen.queue == number))
    }
}

pub(super) fn live<T>(queue: &VecDeque<Waiter<T>>) -> usize {
    queue.iter().filter(|waiter| !waiter.give.is_closed()).count()
}
