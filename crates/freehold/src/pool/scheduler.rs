//! The scheduler decides which connection a tenant gets, and which waiter is next when all are taken.
//!
//! The first query of a tenant on a backend makes the backend read the catalog for it. That takes
//! milliseconds, and the backend keeps tens of kilobytes for the tenant as long as it lives. So each tenant
//! has a home slot in the pool, where its statements are prepared and its tables are cached. A waiter waits a
//! moment for its home slot, since that is cheaper than a backend that does not know the tenant, and then
//! takes any free slot. Some slots are reserved for tenants with little load: see `fair`.
//!
//! A slot is vacant until a caller opens a connection in it. When the database has reached its limit of
//! connections, vacant slots are not given out while others are in use: callers wait for a slot in use, and
//! one of them tries a vacant slot from time to time.
//!
//! The pool is our own since no other one knows tenants. The first page of a tenant on a backend takes two
//! milliseconds for the catalog and 20 to 70 kB; once cached, it takes a fifth of that time. This module
//! knows no database, so its tests need none.

mod fair;
mod state;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::state::{Slot, State, Waiter, live};
use crate::model::ids::TenantId;
use crate::model::tenant::Weight;

/// How long a tenant waits for its home slot although another slot may be free: the duration of a few
/// transactions, and about what a backend needs to load a tenant's catalog entries.
const PATIENCE: Duration = Duration::from_millis(2);
/// The most waiters for one home slot; further callers look for another slot at once.
const PATIENT_MAX: usize = 2;
/// The pause after the database had no room for a connection, before the next vacant slot is tried. Four
/// attempts a second cost a full database nothing, and notice soon enough when it has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(250);
/// The most times in a row that a slot goes to waiters whose home it is while others wait for any slot.
const HOME_STREAK_MAX: u8 = 8;

/// The key under which slots are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TenantKey {
    /// Work on the catalog, which has no home slot.
    None,
    /// A number derived from the tenant's id, the same each time.
    Tenant(u64),
}

impl From<TenantId> for TenantKey {
    fn from(tenant: TenantId) -> TenantKey {
        let (high, low) = tenant.as_uuid().as_u64_pair();
        // Each half of the id alone has bits that do not vary.
        TenantKey::Tenant(high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low)
    }
}

/// The slots of a pool. Their content is a connection; in tests it is a number.
pub(crate) struct Scheduler<T> {
    state: Mutex<State<T>>,
    /// False behind a pooler, where a home slot is worthless: each transaction may meet another backend.
    have_homes: AtomicBool,
    /// Notified whenever the last slot was released.
    rested: Notify,
}

/// Totals over all waiters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) count: u64,
    pub(crate) time: Duration,
    /// Waiters that got no slot in time.
    pub(crate) refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) slots: usize,
    pub(crate) idle: usize,
    pub(crate) taken: usize,
    pub(crate) waiting: usize,
    pub(crate) waits: Waits,
}

/// Why no slot is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    Busy,
    Closed,
}

/// A slot that is taken until this is dropped. Its content then stays in the slot for the next caller.
pub(crate) struct SlotGuard<T> {
    /// `None` in a guard that no caller holds.
    scheduler: Option<Arc<Scheduler<T>>>,
    number: usize,
    /// `None` while the slot has no connection.
    pub(crate) content: Option<T>,
}

impl<T> SlotGuard<T> {
    /// The connection has been opened, which took time: how long the slot is held counts from now.
    pub(crate) fn begin(&self) {
        let Some(scheduler) = &self.scheduler else { return };
        if let Slot::Taken { since, .. } = &mut scheduler.state().slots[self.number] {
            *since = Instant::now();
        }
    }
}

impl<T> Drop for SlotGuard<T> {
    fn drop(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.leave(self.number, self.content.take());
        }
    }
}

impl<T> Scheduler<T> {
    pub(crate) fn new(slots: usize) -> Arc<Scheduler<T>> {
        let slots = slots.max(1);
        let state = State::new(slots);
        let have_homes = AtomicBool::new(true);
        Arc::new(Scheduler { state: Mutex::new(state), have_homes, rested: Notify::new() })
    }

    /// Disables home slots: from now on all slots are equal.
    pub(crate) fn forget_homes(&self) {
        self.have_homes.store(false, Ordering::Relaxed);
    }

    /// Takes a slot, or waits for one until `wait_max` after `since`, when the caller arrived; a caller that
    /// tries again passes its first arrival. If the future is dropped while it waits, nothing remains.
    pub(crate) async fn take(
        self: &Arc<Self>,
        key: TenantKey,
        weight: Weight,
        since: Instant,
        wait_max: Duration,
    ) -> Result<SlotGuard<T>, NoSlot> {
        let mut given = {
            let mut state = self.state();
            if state.closed {
                return Err(NoSlot::Closed);
            }
            let home = self.home(key, &state);
            let now = Instant::now();
            if let Some(number) = state.choose(key, home, now) {
                return Ok(self.occupy(&mut state, number, key, now));
            }
            let (give, given) = oneshot::channel();
            let queue = state.queue(home);
            queue.retain(|waiter| !waiter.give.is_closed());
            let at = queue.partition_point(|waiter| waiter.since <= since);
            queue.insert(at, Waiter { key, weight, since, give });
            given
        };
        let answer = match tokio::time::timeout(PATIENCE.min(wait_max), &mut given).await {
            Ok(answer) => answer.map_err(|_| NoSlot::Closed),
            Err(_) => match self.take_elsewhere(key, &mut given) {
                Some(slot) => Ok(slot),
                None => self.wait_on(&mut given, since, wait_max).await,
            },
        };
        let mut state = self.state();
        match answer {
            Err(NoSlot::Busy) => state.waits.refused += 1,
            _ => {
                state.waits.count += 1;
                state.waits.time += since.elapsed();
            }
        }
        answer
    }

    /// Waits on, for a caller that found no slot elsewhere either.
    async fn wait_on(
        self: &Arc<Self>,
        given: &mut oneshot::Receiver<SlotGuard<T>>,
        since: Instant,
        wait_max: Duration,
    ) -> Result<SlotGuard<T>, NoSlot> {
        loop {
            let left = wait_max.saturating_sub(since.elapsed());
            match tokio::time::timeout(left.min(ROOM_PAUSE), &mut *given).await {
                Ok(answer) => return answer.map_err(|_| NoSlot::Closed),
                Err(_) if left > ROOM_PAUSE => self.try_for_room(),
                Err(_) => return Err(NoSlot::Busy),
            }
        }
    }

    /// Gives up a slot because the database had no room for its connection. True if other slots are in use or
    /// being filled, so that the caller can wait for one of them.
    pub(crate) fn give_up(self: &Arc<Self>, slot: SlotGuard<T>) -> bool {
        let mut state = self.state();
        state.full_until = Some(Instant::now() + ROOM_PAUSE);
        let has_others = state.in_use() > 1;
        drop(state);
        drop(slot);
        has_others
    }

    /// A connection was opened, so the database has room. True if it had none before.
    pub(crate) fn note_room(self: &Arc<Self>) -> bool {
        let was_full = self.state().full_until.take().is_some();
        if was_full {
            self.offer_vacant(&mut self.state(), Instant::now());
        }
        was_full
    }

    /// Whether the latest attempt to open a connection found no room in the database.
    pub(crate) fn is_full(&self) -> bool {
        self.state().full_until.is_some()
    }

    /// A slot with its content, if one is idle now.
    pub(crate) fn try_take(self: &Arc<Self>, key: TenantKey) -> Option<SlotGuard<T>> {
        let mut state = self.state();
        let number = state.slots.iter().position(|slot| matches!(slot, Slot::Idle(_)))?;
        Some(self.occupy(&mut state, number, key, Instant::now()))
    }

    /// Whether any tenant with a slot is slow, so that the load of the database matters.
    pub(crate) fn any_is_slow(&self) -> bool {
        self.state().holders(false, Instant::now()).any_is_slow()
    }

    /// How long a trivial statement took; `None` if no tenant is slow.
    pub(crate) fn heed(&self, took: Option<Duration>) {
        let mut state = self.state();
        let slots = state.slots.len();
        state.congestion.heed(took, slots);
    }

    /// No connection was free for the measurement, so nothing indicates that the database is busy.
    pub(crate) fn heed_unasked(&self) {
        let mut state = self.state();
        let slots = state.slots.len();
        state.congestion.note_calm(slots);
    }

    /// Looks at the waiters again: the database may bear more slow transactions, and a tenant becomes slow,
    /// or rested, as time passes.
    pub(crate) fn reconsider(self: &Arc<Self>) {
        let mut state = self.state();
        let now = Instant::now();
        self.offer(&mut state, now, |slot| matches!(slot, Slot::Idle(_)));
        self.offer_vacant(&mut state, now);
    }

    /// If the database had no room, offers a vacant slot to the next waiter when it is time for another
    /// attempt.
    fn try_for_room(self: &Arc<Self>) {
        let mut state = self.state();
        if state.full_until.is_some() {
            self.offer_vacant(&mut state, Instant::now());
        }
    }

    /// Gives the vacant slots that may be tried to the waiters whose turn it is.
    fn offer_vacant(self: &Arc<Self>, state: &mut State<T>, now: Instant) {
        self.offer(state, now, |slot| matches!(slot, Slot::Vacant));
    }

    /// Gives free slots of one kind to waiters that may have one.
    fn offer(
        self: &Arc<Self>,
        state: &mut State<T>,
        now: Instant,
        is_offered: impl Fn(&Slot<T>) -> bool,
    ) {
        for number in 0..state.slots.len() {
            if is_offered(&state.slots[number]) && state.is_free(number, now) {
                let content = state.slots[number].replace_by(Slot::Vacant);
                // If no waiter may take this slot, none may take another.
                if !self.hand_on(state, number, 0, content, now) {
                    return;
                }
            }
        }
    }

    /// Any free slot, for a waiter that has waited [`PATIENCE`] for its home slot.
    fn take_elsewhere(
        self: &Arc<Self>,
        key: TenantKey,
        given: &mut oneshot::Receiver<SlotGuard<T>>,
    ) -> Option<SlotGuard<T>> {
        let mut state = self.state();
        // Slots are handed over only under the lock: one was handed over before, or will be later.
        if let Ok(slot) = given.try_recv() {
            return Some(slot);
        }
        let now = Instant::now();
        if !state.may_take(key, now) {
            return None;
        }
        let home = self.home(key, &state);
        let number = state.free_from(home.unwrap_or(0), now)?;
        given.close();
        state.queue(home).retain(|waiter| !waiter.give.is_closed());
        Some(self.occupy(&mut state, number, key, now))
    }

    fn occupy(
        self: &Arc<Self>,
        state: &mut State<T>,
        number: usize,
        by: TenantKey,
        since: Instant,
    ) -> SlotGuard<T> {
        let taken = Slot::Taken { by, since, streak: 0 };
        let content = state.slots[number].replace_by(taken);
        if content.is_none() {
            state.note_attempt(since);
        }
        SlotGuard { scheduler: Some(Arc::clone(self)), number, content }
    }

    /// Hands a slot to the next waiter, or keeps it for the next caller.
    fn leave(self: &Arc<Self>, number: usize, content: Option<T>) {
        let now = Instant::now();
        let mut state = self.state();
        let Slot::Taken { by, since, streak } = state.slots[number] else { return };
        state.slots[number] = Slot::Vacant;
        let slow = state.congestion.slow();
        state.averages.note(by, now.saturating_duration_since(since), slow, now);
        if content.is_some() || state.may_fill(now) {
            self.hand_on(&mut state, number, streak, content, now);
        }
        if !state.is_busy() {
            self.rested.notify_waiters();
        }
    }

    /// Gives a slot to the next waiter that may have it, or keeps it. False if no waiter took it.
    fn hand_on(
        self: &Arc<Self>,
        state: &mut State<T>,
        number: usize,
        streak: u8,
        mut content: Option<T>,
        now: Instant,
    ) -> bool {
        while let Some((waiter, at_home)) = state.next(number, streak, content.is_none(), now) {
            let streak = if at_home { streak.saturating_add(1) } else { 0 };
            let is_vacant = content.is_none();
            let slot =
                SlotGuard { scheduler: Some(Arc::clone(self)), number, content: content.take() };
            match waiter.give.send(slot) {
                Ok(()) => {
                    state.slots[number] = Slot::Taken { by: waiter.key, since: now, streak };
                    if is_vacant {
                        state.note_attempt(now);
                    }
                    return true;
                }
                // The waiter was dropped meanwhile.
                Err(mut slot) => {
                    slot.scheduler = None;
                    content = slot.content.take();
                }
            }
        }
        if let Some(content) = content.filter(|_| !state.closed) {
            state.slots[number] = Slot::Idle(content);
        }
        false
    }

    /// Returns when no slot is taken.
    pub(crate) async fn rest(&self) {
        loop {
            let rested = self.rested.notified();
            if !self.state().is_busy() {
                return;
            }
            rested.await;
        }
    }

    fn home(&self, key: TenantKey, state: &State<T>) -> Option<usize> {
        match key {
            TenantKey::Tenant(tenant) if self.have_homes.load(Ordering::Relaxed) => {
                usize::try_from(tenant % state.slots.len() as u64).ok()
            }
            _ => None,
        }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let state = self.state();
        let count =
            |wanted: fn(&Slot<T>) -> bool| state.slots.iter().filter(|slot| wanted(slot)).count();
        Occupancy {
            slots: state.slots.len(),
            idle: count(|slot| matches!(slot, Slot::Idle(_))),
            taken: count(|slot| matches!(slot, Slot::Taken { .. })),
            waiting: state.queues.iter().map(live).sum(),
            waits: state.waits,
        }
    }

    /// Gives out no further slots. Slots that are taken are emptied when they are released.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queues.iter_mut().for_each(VecDeque::clear);
        for slot in &mut state.slots {
            if let Slot::Idle(_) = slot {
                *slot = Slot::Vacant;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
