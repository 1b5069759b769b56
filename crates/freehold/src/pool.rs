//! Connections: how they are made, how many there are, how long one waits for one.
//!
//! A connection is clean whenever it lies in the pool; `tx` sees to that, so taking one costs no
//! round trip. Nothing is ever set on a session.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, PoolError, RecycleError, RecycleResult, Timeouts};
use lru::LruCache;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::context::Claim;
use crate::error::{Error, ErrorKind, Result};
use crate::pooler::{Look, Pooler};
use crate::seal::{Sealer, Seat};
use crate::tls::{self, Target};
use crate::violations::Violations;
use crate::wire::{self, Batch, Canceller, Statement, WireError};

/// Prepared statements kept per connection. One holds 20 to 70 kB in the backend, so a full
/// cache is about 20 MB; fewer than the tenants a connection meets costs a round trip each.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A connection is replaced after this long, because a backend never gives back the memory that
/// its catalog caches took for the tenants it met.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The most connections open at a time.
    pub connections_max: usize,
    /// How long a caller waits for a connection before it is told to come back later.
    pub wait_max: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { connections_max: 16, wait_max: Duration::from_secs(5) }
    }
}

/// How many connections there are, and who waits for one.
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
}

#[derive(Clone)]
pub(crate) struct Pool(managed::Pool<Manager>);

pub(crate) type Checkout = managed::Object<Manager>;

/// A connection with its prepared statements.
pub(crate) struct Connection {
    pub(crate) wire: wire::Connection,
    pub(crate) fixed: Fixed,
    pub(crate) cancel: Canceller,
    /// Keyed by schema, role and text: a plan belongs to one tenant and one role.
    statements: LruCache<String, Statement>,
    /// No longer wanted; closed with the next batch.
    discarded: Vec<Statement>,
    naming: Naming,
    sealer: Sealer,
    seat: Seat,
}

/// The statements that surround every transaction.
#[derive(Clone)]
pub(crate) struct Fixed {
    pub(crate) enter: Statement,
    pub(crate) enter_catalog: Statement,
    pub(crate) begin: Statement,
    /// Sent whole each time, so that a connection that never reads only need not prepare it.
    pub(crate) begin_read: Statement,
    pub(crate) commit: Statement,
    /// Gives the place in the log, where somebody wants to know it.
    pub(crate) position: Option<Statement>,
}

/// Which place in the log of changes a pool's connections can tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// None: there are no replicas.
    Untold,
    /// How far it is written. Asked after a COMMIT, it lies behind it.
    Written,
    /// How far it is replayed. NULL on what is no replica, or none any more.
    Replayed,
}

impl Position {
    fn sql(self) -> Option<&'static str> {
        match self {
            Position::Untold => None,
            Position::Written => {
                Some("SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text")
            }
            Position::Replayed => Some(
                "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
                   THEN pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text END",
            ),
        }
    }
}

/// How statements are called on the server.
enum Naming {
    /// By names that cannot be guessed: SQL that somebody injects could otherwise put a statement
    /// of its own in the place of one that another tenant will run.
    Secret { prefix: String, next: u64 },
    /// Not at all: sent whole each time, since the next transaction may meet another session.
    Unnamed,
}

impl Naming {
    fn secret() -> Result<Naming> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|source| {
            Error::new(ErrorKind::Internal, "no random numbers can be had").because(source)
        })?;
        let prefix = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Naming::Secret { prefix, next: 0 })
    }

    fn next(&mut self) -> String {
        match self {
            Naming::Secret { prefix, next } => {
                *next += 1;
                format!("{prefix}_{next}")
            }
            Naming::Unnamed => String::new(),
        }
    }
}

impl Connection {
    async fn open(manager: &Manager) -> Result<Connection, WireError> {
        let Manager { target, pooler, sealer, position, .. } = manager;
        let mut wire = wire::connect(target).await?;
        let Look { pid, now, direct } = pooler.look(&mut wire).await?;
        let seat = Seat { pid: if direct { pid } else { 0 }, clock: (now, Instant::now()) };
        let cancel = wire.canceller(target);
        let mut naming =
            if direct { Naming::secret().unwrap_or(Naming::Unnamed) } else { Naming::Unnamed };
        let fixed = Fixed {
            enter: fixed(&mut wire, &mut naming, "SELECT freehold.enter($1)", &[Type::TEXT])
                .await?,
            enter_catalog: fixed(
                &mut wire,
                &mut naming,
                "SELECT freehold.enter_catalog($1)",
                &[Type::TEXT],
            )
            .await?,
            begin: fixed(&mut wire, &mut naming, "BEGIN", &[]).await?,
            begin_read: Statement::unnamed("BEGIN READ ONLY", &[]),
            commit: fixed(&mut wire, &mut naming, "COMMIT", &[]).await?,
            position: match position.sql() {
                Some(sql) => Some(fixed(&mut wire, &mut naming, sql, &[]).await?),
                None => None,
            },
        };
        Ok(Connection {
            wire,
            fixed,
            cancel,
            statements: LruCache::new(STATEMENTS_MAX),
            discarded: Vec::new(),
            naming,
            sealer: sealer.clone(),
            seat,
        })
    }

    /// A context as the door takes it, from this connection and now.
    pub(crate) fn seal(&self, claim: &Claim) -> String {
        self.sealer.seal(claim, self.seat)
    }

    /// A statement that was prepared for this key.
    pub(crate) fn find_statement(&mut self, key: &str) -> Option<Statement> {
        self.statements.get(key).cloned()
    }

    /// Prepares a statement as the last step of a batch, and keeps it for this key.
    pub(crate) async fn prepare(
        &mut self,
        key: String,
        sql: &str,
        before: impl Fn(&mut Batch<'_>) -> Result<(), WireError>,
    ) -> Result<Statement, WireError> {
        let mut prepared = self.prepare_each(vec![(key, sql)], before).await?;
        prepared.pop().expect("one was asked for")
    }

    /// Prepares statements in one flush, each in a section of its own, and keeps those that the
    /// server took for their keys.
    pub(crate) async fn prepare_each(
        &mut self,
        wanted: Vec<(String, &str)>,
        before: impl Fn(&mut Batch<'_>) -> Result<(), WireError>,
    ) -> Result<Vec<Result<Statement, WireError>>, WireError> {
        // Until they are kept they are to be closed: whoever waits for them may be dropped.
        let unwanted = self.discarded.len();
        let mut batch = self.wire.batch();
        let mut named = Vec::with_capacity(wanted.len());
        for (at, (_, sql)) in wanted.iter().enumerate() {
            if at > 0 {
                batch.end_section();
            }
            let name = self.naming.next();
            before(&mut batch)?;
            batch.prepare(&name, sql)?;
            self.discarded.push(Statement::named(name.clone()));
            named.push((name, *sql));
        }
        let prepared = batch.run_and_prepare_each(named).await;
        let unkept = self.discarded.split_off(unwanted);
        let mut outcomes = Vec::with_capacity(wanted.len());
        for ((outcome, (key, _)), name) in prepared.into_iter().zip(wanted).zip(unkept) {
            match &outcome {
                Ok(statement) => {
                    let former = self.statements.push(key, statement.clone());
                    self.discarded.extend(former.map(|(_, former)| former));
                }
                Err(_) => self.discarded.push(name),
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Forgets the statement of a key: a migration has made it stale.
    pub(crate) fn forget_statement(&mut self, key: &str) {
        self.discarded.extend(self.statements.pop(key));
    }

    /// A batch, which closes on its way what is no longer wanted.
    pub(crate) fn batch(&mut self) -> Result<Batch<'_>, WireError> {
        let mut batch = self.wire.batch();
        for statement in self.discarded.drain(..) {
            batch.close(&statement)?;
        }
        Ok(batch)
    }
}

/// A statement whose parameters are known: described by nobody if it goes unnamed.
async fn fixed(
    wire: &mut wire::Connection,
    naming: &mut Naming,
    sql: &str,
    parameters: &[Type],
) -> Result<Statement, WireError> {
    match naming {
        Naming::Unnamed => Ok(Statement::unnamed(sql, parameters)),
        Naming::Secret { .. } => wire.batch().run_and_prepare(naming.next(), sql).await,
    }
}

pub(crate) struct Manager {
    target: Arc<Target>,
    pooler: Pooler,
    sealer: Sealer,
    violations: Violations,
    position: Position,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        Connection::open(self).await.map_err(|source| cannot_connect(&self.target).because(source))
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if !connection.wire.is_reusable() {
            return Err(RecycleError::message("closed, or its session was changed"));
        }
        if metrics.age() > AGE_MAX {
            return Err(RecycleError::message("old"));
        }
        Ok(())
    }
}

fn cannot_connect(target: &Target) -> Error {
    let (user, host) = (target.config.get_user().unwrap_or("?"), hosts(&target.config));
    Error::new(ErrorKind::Unavailable, format!("cannot connect to PostgreSQL at {host} as {user}"))
}

/// Connects by a driver with conveniences, for set-up, and lets the connection's own task run
/// until the client is dropped.
pub(crate) async fn connect(target: &Target) -> Result<Client> {
    let (client, connection) = target
        .config
        .connect(target.tls.clone())
        .await
        .map_err(|source| cannot_connect(target).because(source))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(client)
}

pub(crate) fn hosts(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let ports = config.get_ports();
    let port = ports.first().copied().unwrap_or(5432);
    let names: Vec<_> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if names.is_empty() { "no host".to_owned() } else { names.join(", ") }
}

impl Pool {
    /// `name` is the setting's name, for messages about a malformed one.
    pub(crate) fn new(
        url: &str,
        name: &str,
        limits: PoolLimits,
        pooler: Pooler,
        sealer: &Sealer,
        violations: &Violations,
        position: Position,
    ) -> Result<Pool> {
        let mut target = tls::target(url, name)?;
        target.config.connect_timeout(Duration::from_secs(5));
        if target.config.get_application_name().is_none() {
            target.config.application_name("freehold");
        }
        let manager = Manager {
            target: Arc::new(target),
            pooler,
            sealer: sealer.clone(),
            violations: violations.clone(),
            position,
        };
        let pool = managed::Pool::builder(manager)
            .max_size(limits.connections_max)
            .runtime(deadpool::Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(limits.wait_max),
                create: Some(Duration::from_secs(10)),
                recycle: None,
            })
            .build()
            .map_err(|source| {
                Error::new(ErrorKind::Internal, "the pool cannot be made").because(source)
            })?;
        Ok(Pool(pool))
    }

    pub(crate) async fn checkout(&self) -> Result<Checkout> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Timeout(managed::TimeoutType::Wait) => Error::new(
                ErrorKind::PoolExhausted,
                "every database connection is busy; try again shortly",
            ),
            PoolError::Backend(error) => error,
            other => {
                Error::new(ErrorKind::Unavailable, "the database is not available").because(other)
            }
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let status = self.0.status();
        PoolStatus {
            connections_max: status.max_size,
            connections: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
    }

    /// Where a transaction leaves word of what was refused.
    pub(crate) fn violations(&self) -> Violations {
        self.0.manager().violations.clone()
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.0.manager().target)
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_connections_name_their_statements_alike() {
        let (mut one, mut other) = (Naming::secret().unwrap(), Naming::secret().unwrap());
        let names = [one.next(), one.next(), other.next(), other.next()];
        let secrets: Vec<&str> = names.iter().map(|name| name.split('_').next().unwrap()).collect();
        assert!(secrets.iter().all(|secret| secret.len() == 32), "{names:?}");
        assert_ne!(names[0], names[1]);
        assert_ne!(secrets[0], secrets[2]);
        assert_eq!(Naming::Unnamed.next(), "");
    }
}
