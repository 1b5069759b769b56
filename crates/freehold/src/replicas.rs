//! Replicas: which of them are fit to be read, and how far each has replayed the log.
//!
//! One task follows the primary's log position and one follows each replica, four times a second. A replica
//! is not used while it is unreachable, lags further than allowed, was promoted, or belongs to another
//! system; it is used again once it is fit. What a task saw may be outdated, so each read checks again on its
//! own connection and in its own message: the server must still be a replica and have replayed what the read
//! needs. `tx` does that; this module provides the means.

mod history;
mod monitor;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::history::History;
pub(crate) use self::monitor::require_replica;
use crate::error::{Error, ErrorKind, Result};
use crate::model::lsn::Lsn;
use crate::pool::pooler::Pooler;
use crate::pool::{Pool, PoolStatus};
use crate::tasks::{BackgroundTask, Tasks};
use crate::wire::tls::Target;

/// The setting that lists replicas, for messages.
pub(crate) const SETTING: &str = "DATABASE_REPLICA_URLS";

/// How old a replica's answer may be, and how long a read waits for one.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaLimits {
    /// A replica that lacks a commit of this age is not read.
    pub lag_max: Duration,
    /// How long a read waits for a replica to have replayed what it needs, or to have a free connection,
    /// before it goes to the primary.
    pub wait_max: Duration,
}

impl Default for ReplicaLimits {
    fn default() -> Self {
        ReplicaLimits { lag_max: Duration::from_secs(5), wait_max: Duration::from_millis(100) }
    }
}

/// Whether a replica can be read, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// It is read.
    Serving,
    /// It lags further than allowed, or its lag is unknown.
    Lagging,
    /// It does not answer.
    Unreachable,
    /// It is no longer in recovery: a server of its own, whose data diverge.
    Promoted,
    /// It belongs to another system or database, or is on another timeline than the primary.
    Foreign,
    /// It answers, but must not be served from because of its role, its catalog or the pooler in front of it.
    Unfit,
}

impl ReplicaState {
    /// Every state.
    pub const ALL: [ReplicaState; 6] = [
        ReplicaState::Serving,
        ReplicaState::Lagging,
        ReplicaState::Unreachable,
        ReplicaState::Promoted,
        ReplicaState::Foreign,
        ReplicaState::Unfit,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicaState::Serving => "serving",
            ReplicaState::Lagging => "lagging",
            ReplicaState::Unreachable => "unreachable",
            ReplicaState::Promoted => "promoted",
            ReplicaState::Foreign => "foreign",
            ReplicaState::Unfit => "unfit",
        }
    }

    /// Whether it is a replica of this primary, though perhaps one that lags.
    fn is_ours(self) -> bool {
        matches!(self, ReplicaState::Serving | ReplicaState::Lagging)
    }
}

/// A replica, as it was seen most recently.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Its host and port.
    pub name: String,
    /// What it is fit for.
    pub state: ReplicaState,
    /// The position up to which it has replayed the primary's log, if known.
    pub replayed: Option<Lsn>,
    /// How many bytes of the log it has yet to replay, if both positions are known.
    pub lag_bytes: Option<u64>,
    /// The age of its data, if known.
    pub lag: Option<Duration>,
    /// Its connections.
    pub pool: PoolStatus,
}

/// Which server answered the reads that a replica could have answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaReads {
    /// A replica.
    pub replica: u64,
    /// The primary, since no replica was fit.
    pub none_fit: u64,
    /// The primary, since no replica had replayed in time what the read needed.
    pub behind: u64,
    /// The primary, after a replica had failed.
    pub failed: u64,
}

/// Why the primary answers.
#[derive(Clone, Copy)]
pub(crate) enum PrimaryReason {
    NoneFit,
    Behind,
    Failed,
}

/// All replicas of one primary; there may be none. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replicas(Arc<Shared>);

struct Shared {
    list: Vec<Arc<Replica>>,
    limits: ReplicaLimits,
    primary: Mutex<Primary>,
    /// The replica to try next.
    next: AtomicUsize,
    by_replica: AtomicU64,
    /// Reads by the primary, in the order of [`PrimaryReason`].
    by_primary: [AtomicU64; 3],
}

#[derive(Default)]
struct Primary {
    identity: Option<Identity>,
    history: History,
}

/// Identifies a server's data. A replica that was promoted has the same system and another timeline.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    system: String,
    database: i64,
    timeline: i64,
}

pub(crate) struct Replica {
    name: String,
    pool: Pool,
    pooler: Pooler,
    /// No pooler lies in between.
    direct: AtomicBool,
    seen: watch::Sender<Seen>,
    /// Reads that wait for it to replay further.
    waiting: AtomicUsize,
    look_now: Notify,
}

/// What was seen most recently of a replica.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: ReplicaState,
    replayed: Option<Lsn>,
}

impl Replicas {
    /// One replica per pool; nothing is known of any before [`follow`](Self::follow).
    pub(crate) fn new(pools: Vec<Pool>, pooler: Pooler, limits: ReplicaLimits) -> Replicas {
        let unknown = Seen { state: ReplicaState::Unreachable, replayed: None };
        let list = pools.into_iter().map(|pool| {
            Arc::new(Replica {
                name: pool.target().hosts(),
                pool,
                pooler,
                direct: AtomicBool::new(false),
                seen: watch::Sender::new(unknown),
                waiting: AtomicUsize::new(0),
                look_now: Notify::new(),
            })
        });
        Replicas(Arc::new(Shared {
            list: list.collect(),
            limits,
            primary: Mutex::default(),
            next: AtomicUsize::new(0),
            by_replica: AtomicU64::new(0),
            by_primary: Default::default(),
        }))
    }

    /// Requires a single host: a replica is one server, and what is seen of it must hold for each connection.
    pub(crate) fn require_one_host(target: &Target) -> Result<()> {
        if target.config.get_hosts().len() == 1 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Setup,
            format!("each URL of {SETTING} names one host; give each replica a URL of its own"),
        ))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }

    /// Begins to follow the primary and each replica. Returns once each was checked or failed to answer in
    /// time.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if a replica may never be served from: its role is not subject to row-level
    /// security, or a pooler in front of it mixes transactions up.
    pub(crate) async fn follow(
        &self,
        tasks: &Tasks,
        primary: Arc<Target>,
    ) -> Result<Vec<BackgroundTask>> {
        monitor::follow(self, tasks, primary).await
    }

    /// A replica that has replayed everything committed before `since`, or any that is recent enough; and the
    /// position that its connection must prove to have replayed. Waits a moment for a replica to get there.
    pub(crate) async fn choose(
        &self,
        since: Option<Lsn>,
    ) -> Result<(Arc<Replica>, Lsn), PrimaryReason> {
        let shared = &*self.0;
        let young = self.primary().history.floor(shared.limits.lag_max, Instant::now());
        let floor = since.into_iter().chain(young).max();
        let (Some(_), Some(floor)) = (young, floor) else { return Err(PrimaryReason::NoneFit) };
        let turn = shared.next.fetch_add(1, Ordering::Relaxed);
        let count = shared.list.len();
        let mut furthest: Option<(&Arc<Replica>, Option<Lsn>)> = None;
        for at in 0..count {
            let replica = &shared.list[(turn + at) % count];
            let Seen { state, replayed } = *replica.seen.borrow();
            if state != ReplicaState::Serving {
                continue;
            }
            if replayed >= Some(floor) {
                return Ok((Arc::clone(replica), floor));
            }
            if furthest.is_none_or(|(_, known)| replayed > known) {
                furthest = Some((replica, replayed));
            }
        }
        let (replica, _) = furthest.ok_or(PrimaryReason::NoneFit)?;
        match replica.wait_for(floor, shared.limits.wait_max).await {
            true => Ok((Arc::clone(replica), floor)),
            false => Err(PrimaryReason::Behind),
        }
    }

    /// A replica that may be read and has no pooler in front of it: for connections as another role.
    pub(crate) fn find_direct(&self) -> Option<Arc<Replica>> {
        let fit = |replica: &&Arc<Replica>| {
            replica.seen.borrow().state == ReplicaState::Serving
                && replica.direct.load(Ordering::Relaxed)
        };
        self.0.list.iter().find(fit).cloned()
    }

    pub(crate) fn note_replica(&self) {
        self.0.by_replica.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_primary(&self, why: PrimaryReason) {
        // Without replicas, reads are not counted.
        if !self.is_empty() {
            self.0.by_primary[why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn reads(&self) -> ReplicaReads {
        let by_primary =
            |why: PrimaryReason| self.0.by_primary[why as usize].load(Ordering::Relaxed);
        ReplicaReads {
            replica: self.0.by_replica.load(Ordering::Relaxed),
            none_fit: by_primary(PrimaryReason::NoneFit),
            behind: by_primary(PrimaryReason::Behind),
            failed: by_primary(PrimaryReason::Failed),
        }
    }

    pub(crate) fn status(&self) -> Vec<ReplicaStatus> {
        let primary = self.primary();
        let now = Instant::now();
        let status = |replica: &Arc<Replica>| {
            let Seen { state, replayed } = *replica.seen.borrow();
            let replayed = replayed.filter(|_| state.is_ours());
            ReplicaStatus {
                name: replica.name.clone(),
                state,
                replayed,
                lag_bytes: replayed
                    .and_then(|lsn| Some(primary.history.newest()?.bytes_since(lsn))),
                lag: replayed.and_then(|lsn| primary.history.age(lsn, now)),
                pool: replica.pool.status(),
            }
        };
        self.0.list.iter().map(status).collect()
    }

    pub(crate) fn close(&self) {
        for replica in &self.0.list {
            replica.pool.close();
        }
    }

    fn primary(&self) -> MutexGuard<'_, Primary> {
        self.0.primary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Asks for a check now, since a read on this replica failed.
    pub(crate) fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Runs `work`, and drops it as soon as the server is known to have stopped answering or being a replica:
    /// a server that hangs sends nothing to callers that wait for it.
    pub(crate) async fn unless_gone<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut seen = self.seen.subscribe();
        tokio::select! {
            biased;
            outcome = work => outcome,
            _ = seen.wait_for(|seen| !seen.state.is_ours()) => {
                Err(Error::new(ErrorKind::Unavailable, "the replica is gone"))
            }
        }
    }

    /// Whether it replays up to this position within this time.
    async fn wait_for(&self, floor: Lsn, wait_max: Duration) -> bool {
        let mut seen = self.seen.subscribe();
        let _waiting = Waiting::at(self);
        let enough = seen.wait_for(|seen| !seen.state.is_ours() || seen.replayed >= Some(floor));
        match tokio::time::timeout(wait_max, enough).await {
            Ok(Ok(seen)) => seen.state == ReplicaState::Serving,
            _ => false,
        }
    }
}

/// While this lives, the replica's task checks more often.
struct Waiting<'r>(&'r Replica);

impl<'r> Waiting<'r> {
    fn at(replica: &'r Replica) -> Waiting<'r> {
        replica.waiting.fetch_add(1, Ordering::Relaxed);
        replica.look_now.notify_one();
        Waiting(replica)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
