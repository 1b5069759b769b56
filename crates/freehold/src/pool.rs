//! The pool: how many connections are open, and how long a caller waits for one.
//!
//! A connection is clean while it is idle in the pool; `tx` cleans it before it is returned, so a checkout
//! costs no round trip. Nothing of a tenant is ever set on a session. `scheduler` decides which connection a
//! tenant gets.

pub(crate) mod connection;
pub(crate) mod pooler;
pub(crate) mod scheduler;
pub(crate) mod seal;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::error::{Error, ErrorKind, Result};
use crate::model::tenant::Weight;
use crate::observe::insight::Insight;
use crate::observe::trouble::Trouble;
use crate::observe::violations::Violations;
use crate::pool::connection::{Connection, Source};
use crate::pool::pooler::Pooler;
use crate::pool::scheduler::{NoSlot, Occupancy, Scheduler, SlotGuard, TenantKey};
use crate::wire::WireError;
use crate::wire::connect_failure::NO_ROOM;
use crate::wire::tls::Target;

/// How long connecting may take, including the query that identifies the server.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// How often the load of the database is measured while any tenant is slow.
const CONGESTION_EVERY: Duration = Duration::from_millis(50);
/// Timeout of the trivial statement that measures the load.
const NOTHING_MAX: Duration = Duration::from_secs(1);

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The most connections open at a time.
    pub connections_max: usize,
    /// How long a caller waits for a connection before it is refused and asked to try again later.
    pub wait_max: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { connections_max: 16, wait_max: Duration::from_secs(5) }
    }
}

/// The state of a pool: its connections, and the callers that wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The limit.
    pub connections_max: usize,
    /// Open now, idle ones included.
    pub connections: usize,
    /// Open and free.
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Callers that had to wait and got a connection, since the start.
    pub waited: u64,
    /// Their total waiting time.
    pub wait_time: Duration,
    /// Callers that waited for [`PoolLimits::wait_max`] and got none.
    pub refused: u64,
}

#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    scheduler: Arc<Scheduler<Connection>>,
    source: Source,
    wait_max: Duration,
    /// Failures to open a connection; each outage is logged once.
    trouble: Trouble,
    violations: Violations,
    insight: Insight,
}

/// A connection on loan. When this is dropped, the connection returns to the pool if it can be used again.
pub(crate) struct Checkout(SlotGuard<Connection>);

impl Deref for Checkout {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.content.as_ref().expect("a checkout has its connection until it is dropped")
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.content.as_mut().expect("a checkout has its connection until it is dropped")
    }
}

impl Checkout {
    /// Closes the connection. The next caller opens another one in its slot.
    pub(crate) fn close(mut self) {
        self.0.content = None;
    }
}

impl Pool {
    pub(crate) fn new(
        source: Source,
        limits: PoolLimits,
        violations: &Violations,
        insight: &Insight,
    ) -> Pool {
        Pool(Arc::new(Inner {
            scheduler: Scheduler::new(limits.connections_max),
            source,
            wait_max: limits.wait_max,
            trouble: Trouble::default(),
            violations: violations.clone(),
            insight: insight.clone(),
        }))
    }

    /// A connection, within [`PoolLimits::wait_max`]. If the database has no room for a further connection,
    /// the caller waits until an open one becomes free.
    pub(crate) async fn checkout(&self, tenant: TenantKey, weight: Weight) -> Result<Checkout> {
        let Inner { scheduler, wait_max, .. } = &*self.0;
        let since = Instant::now();
        loop {
            let slot = scheduler.take(tenant, weight, since, *wait_max).await;
            let mut checkout = Checkout(slot.map_err(|none| self.refusal(none))?);
            // An unfit connection is closed first, which makes room for its successor.
            if !checkout.0.content.as_mut().is_some_and(Connection::is_fit) {
                checkout.0.content = None;
                match self.open().await {
                    Ok(connection) => {
                        checkout.0.content = Some(connection);
                        checkout.0.begin();
                    }
                    Err(error) => {
                        if error.is_full() && scheduler.give_up(checkout.0) {
                            continue;
                        }
                        return Err(self.0.source.target.cannot_connect(error.into_cause()));
                    }
                }
            }
            checkout.meet(tenant);
            return Ok(checkout);
        }
    }

    /// Opens a connection. A failure that persists is logged once.
    async fn open(&self) -> Result<Connection, WireError> {
        let Inner { scheduler, source, trouble, .. } = &*self.0;
        let opened = tokio::time::timeout(OPEN_MAX, Connection::open(source)).await;
        let opened =
            opened.unwrap_or_else(|_| Err(WireError::Lost(io::ErrorKind::TimedOut.into())));
        let told = opened
            .as_ref()
            .map_err(|error| source.target.cannot_connect(error.again().into_cause()));
        trouble.note(&told, "no further connection can be opened");
        if let Ok(connection) = &opened {
            scheduler.note_room();
            if !connection.is_direct() {
                scheduler.forget_homes();
            }
        }
        opened
    }

    /// Measures the load of the database while any tenant is slow, and passes it to the scheduler. Runs until
    /// the task is dropped.
    pub(crate) async fn watch_congestion(self) {
        let mut ticks = tokio::time::interval(CONGESTION_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.0.scheduler.any_is_slow() {
                self.0.scheduler.heed(None);
            } else if let Some(took) = self.time_of_nothing().await {
                self.0.scheduler.heed(Some(took));
            } else {
                self.0.scheduler.heed_unasked();
            }
            self.0.scheduler.reconsider();
        }
    }

    /// The duration of a trivial statement. `None` if no connection is free for it.
    async fn time_of_nothing(&self) -> Option<Duration> {
        let mut checkout = Checkout(self.0.scheduler.try_take(TenantKey::None)?);
        if !checkout.is_fit() {
            checkout.close();
            return None;
        }
        let began = Instant::now();
        let asked =
            tokio::time::timeout(NOTHING_MAX, checkout.wire.batch_execute("SELECT 1")).await;
        if !matches!(asked, Ok(Ok(()))) {
            checkout.close();
        }
        Some(began.elapsed())
    }

    fn refusal(&self, none: NoSlot) -> Error {
        let busy = "every database connection is busy; try again shortly";
        match none {
            NoSlot::Busy if self.0.scheduler.is_full() => {
                Error::new(ErrorKind::PoolExhausted, busy).because(NO_ROOM)
            }
            NoSlot::Busy => Error::new(ErrorKind::PoolExhausted, busy),
            NoSlot::Closed => Error::new(ErrorKind::Unavailable, "the service is shutting down"),
        }
    }

    /// Returns when no connection is on loan.
    pub(crate) async fn rest(&self) {
        self.0.scheduler.rest().await;
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let Occupancy { slots, idle, taken, waiting, waits } = self.0.scheduler.occupancy();
        PoolStatus {
            connections_max: slots,
            connections: idle + taken,
            idle,
            waiting,
            waited: waits.count,
            wait_time: waits.time,
            refused: waits.refused,
        }
    }

    /// Where a transaction reports a refused attempt.
    pub(crate) fn violations(&self) -> Violations {
        self.0.violations.clone()
    }

    /// Where a transaction reports the cost of its statements.
    pub(crate) fn insight(&self) -> Insight {
        self.0.insight.clone()
    }

    pub(crate) fn pooler(&self) -> Pooler {
        self.0.source.pooler
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.0.source.target)
    }

    pub(crate) fn close(&self) {
        self.0.scheduler.close();
    }
}
