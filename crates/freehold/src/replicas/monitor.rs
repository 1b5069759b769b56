//! The tasks that follow the primary and each replica.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::{Identity, Replica, ReplicaState, Replicas, SETTING, Seen};
use crate::error::{Error, ErrorKind, Result};
use crate::init;
use crate::model::lsn::Lsn;
use crate::pool::pooler;
use crate::tasks::{BackgroundTask, Tasks};
use crate::wire::tls::Target;
use crate::wire::{self, Connection, Statement};

/// The interval between checks.
const EVERY: Duration = Duration::from_millis(250);
/// The interval while a read waits for a replica to replay further. A replica close to its primary replays a
/// commit within a millisecond or two.
const EVERY_WAITED_FOR: Duration = Duration::from_millis(3);
/// A server that does not answer for this long is unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Timeout of admitting a replica: a few connections, and the test of a pooler.
const ADMIT_MAX: Duration = Duration::from_secs(20);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the start waits for the first check of the replicas.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(5);

/// What a server reports: which data it has, its log position, and whether it is a replica.
///
/// A replica does not report to every role which timeline it follows. The newest timeline in its control file
/// is the right one except for a while after a failover, until its next restart point.
const LOOK: &str = "
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       (SELECT oid::int8 FROM pg_database WHERE datname = current_database()),
       CASE WHEN is_replica
         THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                       (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::int8
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int8 END,
       CASE WHEN is_replica THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
       is_replica
FROM pg_is_in_recovery() AS is_replica";

pub(super) async fn follow(
    replicas: &Replicas,
    tasks: &Tasks,
    primary: Arc<Target>,
) -> Result<Vec<BackgroundTask>> {
    if replicas.is_empty() {
        return Ok(Vec::new());
    }
    // A replica that could never be served from is refused at once; one that does not answer is tried again
    // later.
    let refused = replicas.0.list.iter().map(|replica| async {
        match within(ADMIT_MAX, require_safe(replica)).await {
            Err(error) if error.kind() == ErrorKind::Setup => Err(error),
            _ => Ok(()),
        }
    });
    try_join_all(refused).await?;
    // First the primary, so that the first check of a replica has something to be measured against.
    let _ = within(SILENCE_MAX, first_look(replicas, &primary)).await;
    let mut first_looks = Vec::new();
    let all = replicas.clone();
    let follow = move || follow_primary(all.clone(), Arc::clone(&primary));
    let mut running = vec![tasks.spawn("primary_follower", follow)];
    for replica in &replicas.0.list {
        first_looks.push(replica.seen.subscribe());
        let (all, replica) = (replicas.clone(), Arc::clone(replica));
        let follow = move || follow_replica(all.clone(), Arc::clone(&replica));
        running.push(tasks.spawn("replica_follower", follow));
    }
    let all_looked_at = async {
        for look in &mut first_looks {
            let _ = look.changed().await;
        }
    };
    let _ = tokio::time::timeout(FIRST_LOOK_MAX, all_looked_at).await;
    Ok(running)
}

async fn first_look(replicas: &Replicas, primary: &Target) -> Result<()> {
    let mut connection = connect(primary).await?;
    note_primary(replicas, &mut connection, &Statement::unnamed(LOOK, &[])).await
}

async fn follow_primary(replicas: Replicas, target: Arc<Target>) {
    loop {
        let Err(error) = follow_primary_once(&replicas, &target).await;
        tracing::debug!(%error, "the primary's place in its log is not known");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_primary_once(replicas: &Replicas, target: &Target) -> Result<Infallible> {
    let mut connection = connect(target).await?;
    let statement = Statement::unnamed(LOOK, &[]);
    loop {
        note_primary(replicas, &mut connection, &statement).await?;
        tokio::time::sleep(EVERY).await;
    }
}

async fn note_primary(
    replicas: &Replicas,
    connection: &mut Connection,
    statement: &Statement,
) -> Result<()> {
    // The time before the query: the position is then no older than assumed.
    let asked_at = Instant::now();
    let look = within(SILENCE_MAX, look(connection, statement)).await?;
    if let (Some(lsn), false) = (look.lsn, look.is_replica) {
        let mut primary = replicas.primary();
        if primary.identity.as_ref() != Some(&look.identity) {
            primary.history.forget();
            primary.identity = Some(look.identity);
        }
        primary.history.note(lsn, asked_at);
    }
    Ok(())
}

async fn follow_replica(replicas: Replicas, replica: Arc<Replica>) {
    loop {
        let Err(error) = follow_replica_once(&replicas, &replica).await;
        let state = match error.kind() {
            ErrorKind::Setup => ReplicaState::Unfit,
            _ => ReplicaState::Unreachable,
        };
        replica.become_seen(Seen { state, replayed: None }, &error.to_string());
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_replica_once(replicas: &Replicas, replica: &Replica) -> Result<Infallible> {
    let target = replica.pool.target();
    // On each reconnect, since another server may have taken its place.
    within(ADMIT_MAX, require_safe(replica)).await?;
    within(ADMIT_MAX, init::check(&target, SETTING)).await?;
    let mut connection = connect(&target).await?;
    let statement = Statement::unnamed(LOOK, &[]);
    loop {
        let look = within(SILENCE_MAX, look(&mut connection, &statement)).await?;
        let (seen, why) = judge(replicas, &look);
        replica.become_seen(seen, why);
        if replica.waiting.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(EVERY_WAITED_FOR).await;
        } else {
            let _ = tokio::time::timeout(EVERY, replica.look_now.notified()).await;
        }
    }
}

/// Whether the library may serve from this server at all.
async fn require_safe(replica: &Replica) -> Result<()> {
    let target = replica.pool.target();
    init::check_role(&target, SETTING, init::APP_ROLE).await?;
    let direct = replica.pooler.is_direct(&target).await?;
    if !direct {
        pooler::require_apart(&target, SETTING).await?;
    }
    replica.direct.store(direct, Ordering::Relaxed);
    Ok(())
}

fn judge(replicas: &Replicas, look: &ServerState) -> (Seen, &'static str) {
    let primary = replicas.primary();
    let seen = |state| Seen { state, replayed: look.lsn };
    let Some(identity) = primary.identity.as_ref() else {
        return (seen(ReplicaState::Lagging), UNKNOWN);
    };
    if let Err((state, why)) = look.require_replica_of(identity) {
        return (seen(state), why);
    }
    let floor = primary.history.floor(replicas.0.limits.lag_max, Instant::now());
    match (floor, look.lsn) {
        (Some(floor), Some(replayed)) if replayed >= floor => (seen(ReplicaState::Serving), ""),
        (None, _) => (seen(ReplicaState::Lagging), UNKNOWN),
        _ => (seen(ReplicaState::Lagging), "it is further behind than it may be"),
    }
}

const UNKNOWN: &str = "the primary does not say where it is";

/// Checks that one server is a replica of another, by querying both now.
///
/// # Errors
/// [`ErrorKind::Unavailable`] with what it is instead.
pub(crate) async fn require_replica(replica: &Target, primary: &Target) -> Result<()> {
    let statement = Statement::unnamed(LOOK, &[]);
    let ask = async |target| look(&mut connect(target).await?, &statement).await;
    let primary = within(SILENCE_MAX, ask(primary)).await?;
    let look = within(SILENCE_MAX, ask(replica)).await?;
    look.require_replica_of(&primary.identity)
        .map_err(|(_, why)| Error::new(ErrorKind::Unavailable, why))
}

impl Replica {
    fn become_seen(&self, seen: Seen, why: &str) {
        let before = self.seen.send_replace(seen).state;
        match seen.state {
            state if state == before => {}
            ReplicaState::Serving => {
                tracing::info!(replica = self.name, "the replica is read");
            }
            state => tracing::warn!(
                replica = self.name,
                state = state.as_str(),
                why,
                "the replica is left out; reads go elsewhere"
            ),
        }
    }
}

/// What a server reports of itself.
struct ServerState {
    identity: Identity,
    lsn: Option<Lsn>,
    is_replica: bool,
}

impl ServerState {
    fn require_replica_of(&self, primary: &Identity) -> Result<(), (ReplicaState, &'static str)> {
        let Identity { system, database, timeline } = &self.identity;
        if *system != primary.system || *database != primary.database {
            return Err((ReplicaState::Foreign, "it has another database than the primary"));
        }
        if !self.is_replica {
            return Err((ReplicaState::Promoted, "it is no replica; it may have been promoted"));
        }
        if *timeline != primary.timeline {
            return Err((ReplicaState::Foreign, "it follows another timeline than the primary's"));
        }
        Ok(())
    }
}

async fn look(connection: &mut Connection, statement: &Statement) -> Result<ServerState> {
    let mut batch = connection.batch();
    batch.query(statement, &[])?;
    let answer = batch.run().await?.pop().unwrap_or_default();
    let row = answer.rows.first();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "the server says nothing"))?;
    let lsn: Option<&str> = row.try_get(3)?;
    Ok(ServerState {
        identity: Identity {
            system: row.try_get(0)?,
            database: row.try_get(1)?,
            timeline: row.try_get(2)?,
        },
        lsn: lsn.map(str::parse).transpose()?,
        is_replica: row.try_get(4)?,
    })
}

async fn connect(target: &Target) -> Result<Connection> {
    within(SILENCE_MAX, async { Ok(wire::connect(target, &[]).await?) }).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "it does not answer")),
    }
}
