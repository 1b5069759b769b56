//! Lanes: which connection a tenant gets, and who is next when all are taken.
//!
//! A backend that meets a tenant for the first time reads the catalog for it, which takes
//! milliseconds, and keeps tens of kilobytes for it as long as it lives. So each tenant has a home
//! among the places of the pool, where its statements are prepared and its tables known. It waits
//! a moment for its home, which is cheaper than to be a stranger elsewhere, and then takes what is
//! free. And no tenant can take every place.
//!
//! A place is vacant until somebody fills it. Where there is no room to fill it (the database has as
//! many connections as it takes), vacant places are left alone while others are in use: those who come
//! wait for one of these, and now and then one of them is sent to try.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::ids::TenantId;

/// How long a tenant waits for its home while another place may be free: some transactions long,
/// and as long as a backend takes to get to know it.
const PATIENCE: Duration = Duration::from_millis(2);
/// So many wait for one home; whoever comes then looks elsewhere at once.
const PATIENT_MAX: usize = 2;
/// After there was no room to fill a place, the next one is tried this much later: four attempts a second
/// cost a full database nothing, and are soon enough when it has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(250);
/// So often in a row a place serves those who are at home there, while others wait for any.
const HOME_STREAK_MAX: u8 = 8;

/// Who asks for a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Guest {
    /// Work on the catalog, at home nowhere.
    Anyone,
    /// By a number that is the same each time.
    Tenant(u64),
}

impl From<TenantId> for Guest {
    fn from(tenant: TenantId) -> Guest {
        let (high, low) = tenant.as_uuid().as_u64_pair();
        // Both halves have bits that do not vary.
        Guest::Tenant(high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low)
    }
}

/// The places of a pool. What is kept in them is connections; tests keep less.
pub(crate) struct Lanes<T> {
    state: Mutex<State<T>>,
    /// False where a home is worth nothing: a pooler gives every transaction another backend.
    have_homes: AtomicBool,
    /// Told whenever the last place was left.
    rested: Notify,
}

struct State<T> {
    places: Vec<Slot<T>>,
    /// One for each place, of those who are at home there, and one for those who are nowhere.
    queues: Vec<VecDeque<Waiter<T>>>,
    waits: Waits,
    /// There was no room to fill a place; until then no other vacant one is given out.
    full_until: Option<Instant>,
    closed: bool,
}

enum Slot<T> {
    /// To be filled by the next who takes it.
    Vacant,
    Idle(T),
    Taken {
        by: Guest,
        since: Instant,
        /// How many in a row were at home here.
        streak: u8,
    },
}

struct Waiter<T> {
    guest: Guest,
    since: Instant,
    give: oneshot::Sender<Place<T>>,
}

/// What those who had to wait came to, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) count: u64,
    pub(crate) time: Duration,
    /// Those who waited in vain.
    pub(crate) refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) places: usize,
    pub(crate) idle: usize,
    pub(crate) taken: usize,
    pub(crate) waiting: usize,
    pub(crate) waits: Waits,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Busy,
    Closed,
}

/// A place that is taken, until this is dropped. What is in it then stays there for the next.
pub(crate) struct Place<T> {
    /// Absent in one that nobody holds.
    lanes: Option<Arc<Lanes<T>>>,
    number: usize,
    /// None in a place that is still, or again, to be filled.
    pub(crate) content: Option<T>,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            lanes.leave(self.number, self.content.take());
        }
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new(places: usize) -> Arc<Lanes<T>> {
        let places = places.max(1);
        let state = State {
            places: (0..places).map(|_| Slot::Vacant).collect(),
            queues: (0..=places).map(|_| VecDeque::new()).collect(),
            waits: Waits::default(),
            full_until: None,
            closed: false,
        };
        let have_homes = AtomicBool::new(true);
        Arc::new(Lanes { state: Mutex::new(state), have_homes, rested: Notify::new() })
    }

    /// From now on one place is as good as another.
    pub(crate) fn forget_homes(&self) {
        self.have_homes.store(false, Ordering::Relaxed);
    }

    /// Takes a place, or waits for one, until `wait_max` after it came: `since` is when, also of one
    /// who comes back. Dropped while it waits, it leaves nothing behind.
    pub(crate) async fn take(
        self: &Arc<Self>,
        guest: Guest,
        since: Instant,
        wait_max: Duration,
    ) -> Result<Place<T>, NoPlace> {
        let mut given = {
            let mut state = self.state();
            if state.closed {
                return Err(NoPlace::Closed);
            }
            let home = self.home(guest, &state);
            let now = Instant::now();
            if let Some(number) = state.choose(guest, home, now) {
                return Ok(self.occupy(&mut state, number, guest, now));
            }
            let (give, given) = oneshot::channel();
            let queue = state.queue(home);
            queue.retain(|waiter| !waiter.give.is_closed());
            let at = queue.partition_point(|waiter| waiter.since <= since);
            queue.insert(at, Waiter { guest, since, give });
            given
        };
        let answer = match tokio::time::timeout(PATIENCE.min(wait_max), &mut given).await {
            Ok(answer) => answer.map_err(|_| NoPlace::Closed),
            Err(_) => match self.take_elsewhere(guest, &mut given) {
                Some(place) => Ok(place),
                None => self.wait_on(&mut given, since, wait_max).await,
            },
        };
        let mut state = self.state();
        match answer {
            Err(NoPlace::Busy) => state.waits.refused += 1,
            _ => {
                state.waits.count += 1;
                state.waits.time += since.elapsed();
            }
        }
        answer
    }

    /// For one who could have no place elsewhere either.
    async fn wait_on(
        self: &Arc<Self>,
        given: &mut oneshot::Receiver<Place<T>>,
        since: Instant,
        wait_max: Duration,
    ) -> Result<Place<T>, NoPlace> {
        loop {
            let left = wait_max.saturating_sub(since.elapsed());
            match tokio::time::timeout(left.min(ROOM_PAUSE), &mut *given).await {
                Ok(answer) => return answer.map_err(|_| NoPlace::Closed),
                Err(_) if left > ROOM_PAUSE => self.offer_vacant(),
                Err(_) => return Err(NoPlace::Busy),
            }
        }
    }

    /// There was no room to fill this place. True if others are in use or being filled, one of which
    /// to wait for.
    pub(crate) fn give_up(self: &Arc<Self>, place: Place<T>) -> bool {
        let mut state = self.state();
        state.full_until = Some(Instant::now() + ROOM_PAUSE);
        let has_others = state.in_use() > 1;
        drop(state);
        drop(place);
        has_others
    }

    /// A place was filled, so there is room. True if there was none before.
    pub(crate) fn note_room(self: &Arc<Self>) -> bool {
        let was_full = self.state().full_until.take().is_some();
        if was_full {
            self.offer_vacant();
        }
        was_full
    }

    /// Whether there was no room to fill a place when that was tried last.
    pub(crate) fn is_full(&self) -> bool {
        self.state().full_until.is_some()
    }

    /// Gives vacant places that may be tried to those who wait, whose turn it is.
    fn offer_vacant(self: &Arc<Self>) {
        let now = Instant::now();
        let mut state = self.state();
        for number in 0..state.places.len() {
            if matches!(state.places[number], Slot::Vacant) && state.may_fill(now) {
                self.hand_on(&mut state, number, 0, None, now);
            }
        }
    }

    /// For one who has been patient: whatever is free.
    fn take_elsewhere(
        self: &Arc<Self>,
        guest: Guest,
        given: &mut oneshot::Receiver<Place<T>>,
    ) -> Option<Place<T>> {
        let mut state = self.state();
        // Nothing is given but under the lock, so it was before, or will be later.
        if let Ok(place) = given.try_recv() {
            return Some(place);
        }
        if state.overbearing() == Some(guest) {
            return None;
        }
        let home = self.home(guest, &state);
        let now = Instant::now();
        let number = state.free_from(home.unwrap_or(0), now)?;
        given.close();
        state.queue(home).retain(|waiter| !waiter.give.is_closed());
        Some(self.occupy(&mut state, number, guest, now))
    }

    fn occupy(
        self: &Arc<Self>,
        state: &mut State<T>,
        number: usize,
        by: Guest,
        since: Instant,
    ) -> Place<T> {
        let taken = Slot::Taken { by, since, streak: 0 };
        let content = match std::mem::replace(&mut state.places[number], taken) {
            Slot::Idle(content) => Some(content),
            _ => None,
        };
        if content.is_none() {
            state.note_attempt(since);
        }
        Place { lanes: Some(Arc::clone(self)), number, content }
    }

    /// Hands a place on to whoever is next, or keeps it for the next who comes.
    fn leave(self: &Arc<Self>, number: usize, content: Option<T>) {
        let now = Instant::now();
        let mut state = self.state();
        let Slot::Taken { streak, .. } = state.places[number] else { return };
        state.places[number] = Slot::Vacant;
        if content.is_some() || state.may_fill(now) {
            self.hand_on(&mut state, number, streak, content, now);
        }
        if !state.is_busy() {
            self.rested.notify_waiters();
        }
    }

    fn hand_on(
        self: &Arc<Self>,
        state: &mut State<T>,
        number: usize,
        streak: u8,
        mut content: Option<T>,
        now: Instant,
    ) {
        while let Some((waiter, at_home)) = state.next(number, streak, now) {
            let streak = if at_home { streak.saturating_add(1) } else { 0 };
            let is_vacant = content.is_none();
            let place = Place { lanes: Some(Arc::clone(self)), number, content: content.take() };
            match waiter.give.send(place) {
                Ok(()) => {
                    state.places[number] = Slot::Taken { by: waiter.guest, since: now, streak };
                    if is_vacant {
                        state.note_attempt(now);
                    }
                    return;
                }
                // Gone in the meantime.
                Err(mut place) => {
                    place.lanes = None;
                    content = place.content.take();
                }
            }
        }
        if let Some(content) = content.filter(|_| !state.closed) {
            state.places[number] = Slot::Idle(content);
        }
    }

    /// Comes back when nobody has a place: at once, or as soon as that is so.
    pub(crate) async fn rest(&self) {
        loop {
            let rested = self.rested.notified();
            if !self.state().is_busy() {
                return;
            }
            rested.await;
        }
    }

    fn home(&self, guest: Guest, state: &State<T>) -> Option<usize> {
        match guest {
            Guest::Tenant(tenant) if self.have_homes.load(Ordering::Relaxed) => {
                usize::try_from(tenant % state.places.len() as u64).ok()
            }
            _ => None,
        }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let state = self.state();
        let count =
            |wanted: fn(&Slot<T>) -> bool| state.places.iter().filter(|slot| wanted(slot)).count();
        Occupancy {
            places: state.places.len(),
            idle: count(|slot| matches!(slot, Slot::Idle(_))),
            taken: count(|slot| matches!(slot, Slot::Taken { .. })),
            waiting: state.queues.iter().map(live).sum(),
            waits: state.waits,
        }
    }

    /// Nobody gets a place any more; those that are taken empty themselves when they are left.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queues.iter_mut().for_each(VecDeque::clear);
        for slot in &mut state.places {
            if let Slot::Idle(_) = slot {
                *slot = Slot::Vacant;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn queue(&mut self, home: Option<usize>) -> &mut VecDeque<Waiter<T>> {
        let nowhere = self.places.len();
        &mut self.queues[home.unwrap_or(nowhere)]
    }

    fn is_busy(&self) -> bool {
        self.places.iter().any(|slot| matches!(slot, Slot::Taken { .. }))
    }

    /// The place for one who has just come; None to wait.
    fn choose(&self, guest: Guest, home: Option<usize>, now: Instant) -> Option<usize> {
        if self.overbearing() == Some(guest) {
            return None;
        }
        let Some(home) = home else { return self.free_from(0, now) };
        match self.places[home] {
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

    /// Whether a vacant place may be given out: there is room to fill it, as far as is known, or it is
    /// time to try, or it is all there is.
    fn may_fill(&self, now: Instant) -> bool {
        self.full_until.is_none_or(|until| now >= until) || self.in_use() == 0
    }

    fn in_use(&self) -> usize {
        self.places.iter().filter(|slot| !matches!(slot, Slot::Vacant)).count()
    }

    /// A vacant place was given out.
    fn note_attempt(&mut self, now: Instant) {
        if let Some(until) = &mut self.full_until {
            *until = now + ROOM_PAUSE;
        }
    }

    /// The next free place: one with a connection, or else one without.
    fn free_from(&self, first: usize, now: Instant) -> Option<usize> {
        let count = self.places.len();
        let find = |wanted: fn(&Slot<T>) -> bool| {
            (0..count).map(|step| (first + step) % count).find(|at| wanted(&self.places[*at]))
        };
        find(|slot| matches!(slot, Slot::Idle(_)))
            .or_else(|| find(|slot| matches!(slot, Slot::Vacant)).filter(|_| self.may_fill(now)))
    }

    /// A tenant that has as many places as one may have: of four or more, a quarter is for others.
    fn overbearing(&self) -> Option<Guest> {
        let count = match self.full_until {
            Some(_) => self.in_use(),
            None => self.places.len(),
        };
        let share = count - count / 4;
        let holders = || {
            self.places.iter().filter_map(|slot| match slot {
                Slot::Taken { by, .. } if *by != Guest::Anyone => Some(*by),
                _ => None,
            })
        };
        // More than half of the places are its own, so that pairs of others leave it over.
        let mut most = (Guest::Anyone, 0_usize);
        for holder in holders() {
            most = match most {
                (_, 0) => (holder, 1),
                (guest, lead) if guest == holder => (guest, lead + 1),
                (guest, lead) => (guest, lead - 1),
            };
        }
        let held = holders().filter(|holder| *holder == most.0).count();
        (count >= 4 && held >= share).then_some(most.0)
    }

    /// Who gets this place, and whether it is at home there: whoever is, in turn; else, and now
    /// and then, the oldest of those who take any.
    fn next(&mut self, number: usize, streak: u8, now: Instant) -> Option<(Waiter<T>, bool)> {
        let overbearing = self.overbearing();
        let may =
            |waiter: &Waiter<T>| !waiter.give.is_closed() && Some(waiter.guest) != overbearing;
        let at_home = self.queues[number].iter().position(may);
        let nowhere = self.places.len();
        let elsewhere = self
            .queues
            .iter()
            .enumerate()
            .filter(|(queue, _)| *queue != number)
            .filter_map(|(queue, waiters)| {
                let at = waiters.iter().position(may)?;
                let since = waiters[at].since;
                let takes_any =
                    queue == nowhere || now.saturating_duration_since(since) >= PATIENCE;
                takes_any.then_some((since, queue, at))
            })
            .min();
        match (at_home, elsewhere) {
            (Some(at), None) => Some((number, at)),
            (Some(at), Some(_)) if streak < HOME_STREAK_MAX => Some((number, at)),
            (_, Some((_, queue, at))) => Some((queue, at)),
            (None, None) => None,
        }
        .and_then(|(queue, at)| Some((self.queues[queue].remove(at)?, queue == number)))
    }
}

fn live<T>(queue: &VecDeque<Waiter<T>>) -> usize {
    queue.iter().filter(|waiter| !waiter.give.is_closed()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    fn tenant(number: u64) -> Guest {
        Guest::Tenant(number)
    }

    async fn take(lanes: &Arc<Lanes<u32>>, guest: Guest) -> Place<u32> {
        lanes.take(guest, Instant::now(), LONG).await.ok().unwrap()
    }

    /// One that waits by now.
    async fn waiting(
        lanes: &Arc<Lanes<u32>>,
        guest: Guest,
    ) -> tokio::task::JoinHandle<Result<Place<u32>, NoPlace>> {
        let before = lanes.occupancy().waiting;
        let task = tokio::spawn({
            let lanes = Arc::clone(lanes);
            async move { lanes.take(guest, Instant::now(), LONG).await }
        });
        while lanes.occupancy().waiting == before {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn rest_is_when_nobody_has_a_place() {
        let lanes = Lanes::new(2);
        lanes.rest().await;
        let (one, other) = (take(&lanes, tenant(0)).await, take(&lanes, tenant(1)).await);
        let next = waiting(&lanes, Guest::Anyone).await;
        let resting = {
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move { lanes.rest().await })
        };
        drop(one);
        let next = next.await.unwrap().ok().unwrap();
        drop(other);
        tokio::time::sleep(SHORT).await;
        assert!(!resting.is_finished(), "a place went to the next who waited");
        drop(next);
        tokio::time::timeout(LONG, resting).await.expect("nobody has a place").unwrap();
        let last = take(&lanes, tenant(0)).await;
        lanes.close();
        drop(last);
        tokio::time::timeout(LONG, lanes.rest()).await.expect("a closed pool is at rest");
    }

    #[tokio::test]
    async fn a_tenant_comes_back_to_its_connection() {
        let lanes = Lanes::new(4);
        for number in [5, 6, 9, 5, 6] {
            let mut place = take(&lanes, tenant(number)).await;
            assert_eq!(place.number as u64, number % 4);
            place.content.get_or_insert(number as u32 % 4);
        }
        for number in [1, 2] {
            assert_eq!(take(&lanes, tenant(number)).await.content, Some(number as u32));
        }
        let Occupancy { idle, taken, .. } = lanes.occupancy();
        assert_eq!((idle, taken), (2, 0));
    }

    #[tokio::test]
    async fn a_tenant_whose_home_is_taken_for_long_goes_elsewhere() {
        let lanes = Lanes::new(3);
        let home = take(&lanes, tenant(1)).await;
        assert_eq!(take(&lanes, tenant(4)).await.number, 2);
        tokio::time::sleep(PATIENCE).await;
        let waits = lanes.occupancy().waits.count;
        let (one, other) = (take(&lanes, tenant(4)).await, take(&lanes, Guest::Anyone).await);
        assert_eq!((one.number, other.number), (2, 0));
        assert_eq!(lanes.occupancy().waits.count, waits, "nobody waited");
        drop(home);
    }

    #[tokio::test]
    async fn a_home_that_is_free_soon_is_waited_for() {
        let lanes = Lanes::new(2);
        let home = take(&lanes, tenant(2)).await;
        let next = waiting(&lanes, tenant(4)).await;
        drop(home);
        assert_eq!(next.await.unwrap().ok().unwrap().number, 0);
    }

    #[tokio::test]
    async fn no_tenant_takes_every_place() {
        let lanes = Lanes::new(4);
        let mut greedy = Vec::new();
        for _ in 0..3 {
            greedy.push(take(&lanes, tenant(0)).await);
        }
        let refused = lanes.take(tenant(0), Instant::now(), SHORT).await;
        assert_eq!(refused.err(), Some(NoPlace::Busy));
        assert_eq!(lanes.occupancy().waits.refused, 1);
        let fourth = waiting(&lanes, tenant(0)).await;
        let other = take(&lanes, tenant(4)).await;
        assert_eq!(other.number, 3);
        drop(other);
        assert_eq!(lanes.occupancy().waiting, 1, "not even one that nobody else wants");
        drop(greedy.pop());
        drop(fourth.await.unwrap().ok().unwrap());
    }

    #[tokio::test]
    async fn where_there_is_no_room_one_waits_for_a_place_in_use() {
        let lanes = Lanes::new(4);
        let mut held = take(&lanes, tenant(0)).await;
        held.content = Some(7);
        let refused = take(&lanes, tenant(1)).await;
        assert!(lanes.give_up(refused), "one is in use");
        let next = waiting(&lanes, tenant(1)).await;
        drop(held);
        let next = next.await.unwrap().ok().unwrap();
        assert_eq!((next.number, next.content), (0, Some(7)), "and no vacant one");
        assert!(lanes.note_room() && !lanes.note_room());
        assert_eq!(take(&lanes, tenant(1)).await.number, 1, "now there is room");
    }

    #[tokio::test]
    async fn where_nothing_is_in_use_there_is_nothing_to_wait_for() {
        let lanes = Lanes::new(4);
        for _ in 0..3 {
            let refused = take(&lanes, tenant(1)).await;
            assert!(!lanes.give_up(refused));
        }
        let refused = take(&lanes, tenant(1)).await;
        let other = take(&lanes, tenant(2)).await;
        assert!(lanes.give_up(refused), "the other may yet be filled");
        let next = waiting(&lanes, tenant(1)).await;
        assert!(!lanes.give_up(other));
        assert_eq!(next.await.unwrap().ok().unwrap().content, None, "it is left to try");
    }

    #[tokio::test]
    async fn without_room_one_of_those_who_wait_is_sent_to_try_now_and_then() {
        let lanes = Lanes::new(8);
        let held = take(&lanes, tenant(0)).await;
        lanes.give_up(take(&lanes, tenant(1)).await);
        let (one, other) = (waiting(&lanes, tenant(1)).await, waiting(&lanes, tenant(2)).await);
        let until = lanes.state().full_until.unwrap();
        let may_fill = |now| lanes.state().may_fill(now);
        assert!(!may_fill(until - Duration::from_nanos(1)) && may_fill(until));
        let first = one.await.unwrap().ok().unwrap();
        assert_eq!(first.content, None);
        assert!(!may_fill(until), "the next who tries comes later");
        assert!(lanes.note_room());
        drop(other.await.unwrap().ok().unwrap());
        drop(held);
    }

    #[tokio::test]
    async fn who_comes_back_has_not_lost_its_turn() {
        let lanes = Lanes::new(1);
        let held = take(&lanes, tenant(0)).await;
        let later = waiting(&lanes, tenant(1)).await;
        let long_ago = Instant::now().checked_sub(SHORT).unwrap();
        let earlier = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.take(tenant(1), long_ago, LONG).await }
        });
        while lanes.occupancy().waiting < 2 {
            tokio::task::yield_now().await;
        }
        drop(held);
        drop(earlier.await.unwrap().ok().unwrap());
        drop(later.await.unwrap().ok().unwrap());
    }

    #[tokio::test]
    async fn who_has_no_home_gets_a_turn_beside_those_who_have() {
        let lanes = Lanes::new(1);
        let mut held = take(&lanes, tenant(0)).await;
        let guest = waiting(&lanes, Guest::Anyone).await;
        let mut served = 0;
        while !guest.is_finished() {
            let next = waiting(&lanes, tenant(served)).await;
            drop(held);
            tokio::task::yield_now().await;
            served += 1;
            assert!(served < 20, "the guest starves");
            if lanes.occupancy().waiting > 0 && !next.is_finished() {
                // It was the guest's turn.
                drop(guest.await.unwrap().ok().unwrap());
                assert_eq!(served, u64::from(HOME_STREAK_MAX) + 1);
                drop(next.await.unwrap().ok().unwrap());
                return;
            }
            held = next.await.unwrap().ok().unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_given_to_one_who_left_is_given_to_the_next() {
        let lanes = Lanes::new(1);
        let mut held = take(&lanes, tenant(0)).await;
        held.content = Some(7);
        let (left, stays) = (waiting(&lanes, tenant(0)).await, waiting(&lanes, tenant(0)).await);
        left.abort();
        let _ = left.await;
        assert_eq!(lanes.occupancy().waiting, 1);
        drop(held);
        assert_eq!(stays.await.unwrap().ok().unwrap().content, Some(7));
    }

    #[tokio::test]
    async fn closed_lanes_are_empty_and_refuse() {
        let lanes = Lanes::new(1);
        let mut held = take(&lanes, tenant(0)).await;
        held.content = Some(7);
        let waits = waiting(&lanes, tenant(0)).await;
        lanes.close();
        assert_eq!(waits.await.unwrap().err(), Some(NoPlace::Closed));
        drop(held);
        let refused = lanes.take(Guest::Anyone, Instant::now(), LONG).await;
        assert_eq!(refused.err(), Some(NoPlace::Closed));
        let Occupancy { idle, taken, waiting, .. } = lanes.occupancy();
        assert_eq!((idle, taken, waiting), (0, 0, 0));
    }

    /// Whoever comes, goes, gives up or is dropped at whatever moment: a place has one holder, and
    /// at the end all are free.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_or_lent_twice() {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        let lanes = Lanes::new(4);
        let holders: Arc<[AtomicU32; 4]> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..24_u64 {
            let (lanes, holders) = (Arc::clone(&lanes), Arc::clone(&holders));
            tasks.spawn(async move {
                let mut dice = worker * 7919 + 1;
                for _ in 0..400 {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let roll = dice >> 33;
                    let guest = if roll % 5 == 0 { Guest::Anyone } else { tenant(roll % 7) };
                    let patience = Duration::from_micros(roll % 5000);
                    let take = lanes.take(guest, Instant::now(), Duration::from_millis(3));
                    let taken = tokio::time::timeout(patience, take);
                    if let Ok(Ok(mut place)) = taken.await {
                        assert_eq!(holders[place.number].fetch_add(1, SeqCst), 0);
                        if roll % 3 == 0 {
                            tokio::time::sleep(Duration::from_micros(roll % 300)).await;
                        }
                        assert_eq!(
                            *place.content.get_or_insert(place.number as u32),
                            place.number as u32
                        );
                        if roll % 11 == 0 {
                            place.content = None;
                        }
                        holders[place.number].fetch_sub(1, SeqCst);
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let Occupancy { taken, waiting, .. } = lanes.occupancy();
        assert_eq!((taken, waiting), (0, 0));
    }
}
