//! The registry of connections, which decides which ones to close: those that make the server wait for too
//! long, and if there is no room for more, those that make it wait at all.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::ConnectionLimits;

/// Connections beyond the limit. Each is told that there is no room, or answers a probe.
pub(super) const SPARE: usize = 32;

/// One in this many connections is closed if there is no room for another.
const EVICTED_OF: usize = 128;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::http) enum Phase {
    /// A request is being served or answered.
    Serving,
    /// Between two requests.
    Idle,
    /// Reading a head.
    Head,
    /// Reading a body.
    Body,
}

impl Phase {
    fn of(number: u8) -> Phase {
        [Phase::Serving, Phase::Idle, Phase::Head, Phase::Body][usize::from(number & 3)]
    }
}

pub(in crate::http) struct Connection {
    number: u64,
    client: IpAddr,
    spare: bool,
    /// The reference for the times.
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds: when the phase began, or a byte of a body arrived.
    since: AtomicU64,
    /// Milliseconds: since when the client has read nothing of its answer; 0 if it is reading.
    stalled: AtomicU64,
    close: Notify,
}

impl Connection {
    pub(in crate::http) fn enter(&self, phase: Phase) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    pub(super) fn is_spare(&self) -> bool {
        self.spare
    }

    /// Records that bytes have arrived.
    pub(super) fn note_read(&self) {
        match self.phase() {
            Phase::Idle => self.enter(Phase::Head),
            Phase::Body => self.since.store(self.now(), Ordering::Relaxed),
            Phase::Head | Phase::Serving => {}
        }
    }

    /// Records that the client is not reading.
    pub(super) fn note_stalled(&self) {
        let now = self.now().max(1);
        let _ = self.stalled.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn note_taken(&self) {
        self.stalled.store(0, Ordering::Relaxed);
    }

    /// Waits until the connection has to be closed.
    pub(super) async fn told_to_close(&self) {
        self.close.notified().await;
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The reason if a timeout has expired.
    fn overdue(&self, limits: &ConnectionLimits) -> Option<&'static str> {
        let now = self.now();
        let over =
            |since: u64, max: Duration| u128::from(now.saturating_sub(since)) >= max.as_millis();
        let stalled = self.stalled.load(Ordering::Relaxed);
        if stalled > 0 && over(stalled, limits.stall_max) {
            return Some("stalled");
        }
        let since = self.since.load(Ordering::Relaxed);
        match self.phase() {
            Phase::Idle if stalled == 0 && over(since, limits.idle_max) => Some("idle"),
            Phase::Head if over(since, limits.head_max) => Some("head"),
            // Reading a body has a timeout of its own, and is answered when it expires.
            _ => None,
        }
    }

    /// Whether the server is waiting for the client, and if so the order in which such connections are
    /// closed: those that have sent no request first.
    fn waits(&self) -> Option<(u8, u64)> {
        let since = self.since.load(Ordering::Relaxed);
        let stalled = self.stalled.load(Ordering::Relaxed);
        match self.phase() {
            Phase::Idle if stalled == 0 => Some((0, since)),
            Phase::Head => Some((1, since)),
            Phase::Body => Some((2, since)),
            Phase::Idle | Phase::Serving => None,
        }
    }
}

pub(super) struct Registry {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Connection>>,
    /// The number of connections of each client, except spare ones.
    by_client: HashMap<IpAddr, usize>,
    spare: usize,
    next: u64,
}

/// The registration of a connection, which ends when this is dropped.
pub(super) struct Ticket {
    connection: Arc<Connection>,
    registry: Arc<Registry>,
}

impl Ticket {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.open().remove(self.connection.number);
    }
}

impl Open {
    fn add(&mut self, client: IpAddr, spare: bool) -> Arc<Connection> {
        self.next += 1;
        let connection = Arc::new(Connection {
            number: self.next,
            client,
            spare,
            began: Instant::now(),
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            close: Notify::new(),
        });
        match spare {
            true => self.spare += 1,
            false => *self.by_client.entry(client).or_default() += 1,
        }
        self.connections.insert(self.next, Arc::clone(&connection));
        connection
    }

    fn remove(&mut self, number: u64) {
        let Some(gone) = self.connections.remove(&number) else { return };
        if gone.spare {
            self.spare -= 1;
        } else if let Some(count) = self.by_client.get_mut(&gone.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&gone.client);
            }
        }
        metrics::gauge!("freehold_http_connections").set(self.connections.len() as f64);
    }

    fn regular(&self) -> usize {
        self.connections.len() - self.spare
    }

    fn of_client(&self, client: IpAddr) -> usize {
        self.by_client.get(&client).copied().unwrap_or(0)
    }

    /// Closes the most dispensable connections, of those that `may` be closed: first those of the client with
    /// the most connections. Of many, several at once, since each search examines all.
    fn evict(&mut self, may: impl Fn(&Connection) -> bool) -> bool {
        let now = Instant::now();
        let candidates = self.connections.values().filter(|connection| may(connection));
        let candidates = candidates.filter_map(|connection| {
            let (order, since) = connection.waits()?;
            let waited = now.duration_since(connection.began + Duration::from_millis(since));
            let share = self.of_client(connection.client);
            Some(((share, Reverse(order), waited), connection.number))
        });
        let mut candidates: Vec<_> = candidates.collect();
        if candidates.is_empty() {
            return false;
        }
        let count = (self.connections.len() / EVICTED_OF).clamp(1, candidates.len());
        candidates.select_nth_unstable_by(count - 1, |one, other| other.0.cmp(&one.0));
        for (_, number) in &candidates[..count] {
            if let Some(connection) = self.connections.get(number) {
                connection.close.notify_one();
                closed("evicted");
            }
            self.remove(*number);
        }
        true
    }
}

fn closed(reason: &'static str) {
    metrics::counter!("freehold_http_connections_closed_total", "reason" => reason).increment(1);
}

impl Registry {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Registry> {
        Arc::new(Registry { limits, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, if necessary in place of another that makes the server wait. If all are being
    /// served, it gets one of the few spare places; if these are taken too, it is refused.
    pub(super) fn admit(self: &Arc<Registry>, address: IpAddr) -> Option<Ticket> {
        let client = client_of(address);
        let mut open = self.open();
        let full_for_client =
            self.limits.per_client_max.is_some_and(|max| open.of_client(client) >= max);
        let room = match full_for_client {
            true => open.evict(|other| !other.spare && other.client == client),
            false => {
                open.regular() < self.limits.connections_max || open.evict(|other| !other.spare)
            }
        };
        let room_to_say_no = room || open.spare < SPARE || open.evict(|other| other.spare);
        if !room_to_say_no {
            closed("refused");
            return None;
        }
        let connection = open.add(client, !room);
        metrics::gauge!("freehold_http_connections").set(open.connections.len() as f64);
        drop(open);
        Some(Ticket { connection, registry: Arc::clone(self) })
    }

    /// Closes a connection that makes the server wait, if there is one.
    pub(super) fn make_room(&self) {
        self.open().evict(|_| true);
    }

    pub(super) fn sweep_every(&self) -> Duration {
        let shortest = self.limits.head_max.min(self.limits.idle_max).min(self.limits.stall_max);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Closes connections whose timeouts have expired.
    pub(super) fn sweep(&self) {
        let mut open = self.open();
        let overdue: Vec<u64> = open
            .connections
            .values()
            .filter_map(|connection| {
                closed(connection.overdue(&self.limits)?);
                connection.close.notify_one();
                Some(connection.number)
            })
            .collect();
        for number in overdue {
            open.remove(number);
        }
    }
}

/// The key by which the connections of one client are counted. A client with an IPv6 address has a /64.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(connections_max: usize) -> Arc<Registry> {
        let long = Duration::from_secs(3600);
        Registry::new(ConnectionLimits {
            connections_max,
            per_client_max: None,
            head_max: long,
            stall_max: long,
            idle_max: long,
        })
    }

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[tokio::test(start_paused = true)]
    async fn who_lets_the_server_wait_for_too_long_is_closed_and_who_is_served_never() {
        let [head_max, idle_max, stall_max] = [10, 75, 30].map(Duration::from_secs);
        let limits = ConnectionLimits { head_max, idle_max, stall_max, ..registry(9).limits };
        let registry = Registry::new(limits);
        let admit = || registry.admit(client(1)).unwrap();
        let (silent, idle, served, stalled) = (admit(), admit(), admit(), admit());
        idle.connection.enter(Phase::Idle);
        served.connection.enter(Phase::Serving);
        stalled.connection.enter(Phase::Serving);
        let open_after = async |time: Duration| {
            tokio::time::advance(time).await;
            registry.sweep();
            [&silent, &idle, &served, &stalled]
                .map(|ticket| registry.open().connections.contains_key(&ticket.connection.number))
        };
        let just_before = Duration::from_millis(1);
        assert_eq!(open_after(head_max - just_before).await, [true; 4]);
        assert_eq!(open_after(just_before).await, [false, true, true, true]);
        assert_eq!(open_after(idle_max - head_max - just_before).await, [false, true, true, true]);
        stalled.connection.note_stalled();
        // A byte of another request, whose head has a timeout of its own.
        idle.connection.note_read();
        assert_eq!(open_after(just_before).await, [false, true, true, true]);
        assert_eq!(open_after(head_max - just_before).await, [false, false, true, true]);
        assert_eq!(
            open_after(stall_max - head_max - just_before).await,
            [false, false, true, true]
        );
        assert_eq!(open_after(just_before).await, [false, false, true, false]);
        assert_eq!(open_after(Duration::from_secs(86_400)).await, [false, false, true, false]);
    }

    #[test]
    fn who_has_most_makes_room_and_idle_connections_first() {
        let registry = registry(4);
        let admit = |number| registry.admit(client(number)).unwrap();
        let is_open =
            |ticket: &Ticket| registry.open().connections.contains_key(&ticket.connection.number);
        let (one, first, second, third) = (admit(1), admit(2), admit(2), admit(2));
        first.connection.enter(Phase::Serving);
        third.connection.enter(Phase::Idle);
        let _newest = admit(3);
        assert_eq!([&one, &first, &second, &third].map(is_open), [true, true, true, false]);
        let _newest = admit(3);
        assert_eq!([&one, &first, &second].map(is_open), [true, true, false]);
        // A connection that is being served keeps its place; if all are, a further one is told that there is
        // no room.
        for ticket in [&one, &first] {
            ticket.connection.enter(Phase::Serving);
        }
        for open in registry.open().connections.values() {
            open.enter(Phase::Serving);
        }
        let beyond = admit(4);
        assert!(beyond.connection.is_spare());
        drop((one, beyond));
        assert!(!admit(4).connection.is_spare());
    }

    #[test]
    fn beyond_the_limit_there_are_few_and_each_makes_room_for_the_next() {
        let registry = registry(1);
        let only = registry.admit(client(1)).unwrap();
        only.connection.enter(Phase::Serving);
        let beyond: Vec<_> = (0..10 * SPARE).filter_map(|_| registry.admit(client(2))).collect();
        assert_eq!(registry.open().spare, SPARE);
        for ticket in &beyond {
            ticket.connection.enter(Phase::Serving);
        }
        assert!(registry.admit(client(3)).is_none());
        drop(beyond);
        assert_eq!(registry.open().connections.len(), 1);
    }
}
