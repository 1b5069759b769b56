//! Connections: how they are made, how many there are, how long one waits for one.
//!
//! A connection is clean whenever it lies in the pool; `tx` sees to that, so taking one costs no
//! round trip. Nothing of a tenant is ever set on a session. Which of them a tenant gets is up to `lanes`.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::context::Claim;
use crate::error::{Error, ErrorKind, Result};
use crate::insight::Insight;
use crate::lanes::{Guest, Lanes, NoPlace, Occupancy, Place};
use crate::pooler::{Look, Pooler};
use crate::seal::{Pass, Sealer, Seat, Session};
use crate::tls::{self, Target};
use crate::violations::Violations;
use crate::wire::{self, Batch, Canceller, Statement, WireError};

/// What `freehold.enter` and its like take: a context, and a session's number.
const DOOR: &[Type] = &[Type::TEXT, Type::INT8];
/// Prepared statements kept per connection. One holds 20 to 70 kB in the backend, so a full
/// cache is about 20 MB; fewer than the tenants a connection meets costs a round trip each.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A connection is replaced after this long, and after so many tenants: a backend never gives back
/// the memory, 20 to 70 kB each, that its catalog caches took for the tenants it met.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);
const TENANTS_MAX: usize = 2000;
/// How long it may take to connect and to find out whom one is connected to.
const OPEN_MAX: Duration = Duration::from_secs(10);

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
    /// Callers that have had to wait, since the start, and got one.
    pub waited: u64,
    /// How long they waited, all together.
    pub wait_time: Duration,
    /// Callers that waited for [`PoolLimits::wait_max`], in vain.
    pub refused: u64,
}

#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    lanes: Arc<Lanes<Connection>>,
    source: Source,
    wait_max: Duration,
    violations: Violations,
    insight: Insight,
}

/// Where connections come from.
pub(crate) struct Source {
    target: Arc<Target>,
    pooler: Pooler,
    sealer: Sealer,
    position: Position,
    opens_sessions: bool,
}

/// A connection on loan: back to the pool when this is dropped, if it is fit to be lent again.
pub(crate) struct Checkout(Place<Connection>);

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
    /// Vouches for contexts at less cost than a seal, where the database has opened one.
    session: Option<Session>,
    /// The tenants that the backend knows by now.
    met: HashSet<Guest>,
    opened: Instant,
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
    async fn open(source: &Source) -> Result<Connection, WireError> {
        let Source { target, pooler, sealer, position, opens_sessions } = source;
        let mut wire = wire::connect(target).await?;
        let Look { pid, now, direct } = pooler.look(&mut wire).await?;
        let seat = Seat { pid: if direct { pid } else { 0 }, clock: (now, Instant::now()) };
        let cancel = wire.canceller(target);
        let mut naming =
            if direct { Naming::secret().unwrap_or(Naming::Unnamed) } else { Naming::Unnamed };
        let fixed = Fixed {
            enter: fixed(&mut wire, &mut naming, "SELECT freehold.enter($1, $2)", DOOR).await?,
            enter_catalog: fixed(
                &mut wire,
                &mut naming,
                "SELECT freehold.enter_catalog($1, $2)",
                DOOR,
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
        let session = match sealer.session(seat).filter(|_| *opens_sessions) {
            Some((session, sealed)) => open_session(&mut wire, &sealed).await?.then_some(session),
            None => None,
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
            session,
            met: HashSet::new(),
            opened: Instant::now(),
        })
    }

    /// Fit to be lent. Costs no round trip.
    fn is_fit(&mut self) -> bool {
        self.wire.is_reusable() && self.opened.elapsed() < AGE_MAX && self.met.len() < TENANTS_MAX
    }

    /// Notes whose tables the backend gets to know.
    pub(crate) fn meet(&mut self, guest: Guest) {
        if guest != Guest::Anyone {
            self.met.insert(guest);
        }
    }

    /// Whether the next transaction here meets the backend that this one met.
    fn is_direct(&self) -> bool {
        matches!(self.naming, Naming::Secret { .. })
    }

    /// A context as the door takes it, from this connection and now.
    pub(crate) fn vouch(&self, claim: &Claim) -> Pass {
        match self.session {
            Some(session) => session.vouch(claim),
            None => Pass::sealed(self.seal(claim)),
        }
    }

    /// A context with a seal of its own.
    pub(crate) fn seal(&self, claim: &Claim) -> String {
        self.sealer.seal(claim, self.seat)
    }

    /// The database knows no session, or no longer. False if it knew of none before.
    pub(crate) fn lose_session(&mut self) -> bool {
        self.session.take().is_some()
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

/// False where the database has none to open, or takes no seal of ours: then it will say so of the
/// first context, to somebody who can be told.
async fn open_session(wire: &mut wire::Connection, sealed: &str) -> Result<bool, WireError> {
    let sql = "SELECT freehold.open_session($1)";
    match wire.query_once(sql, &[&sealed]).await {
        Ok(rows) => Ok(rows.first().is_some_and(|row| row.get(0))),
        Err(WireError::Database(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

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
    /// Closes the connection; the next who needs one opens another.
    pub(crate) fn close(mut self) {
        self.0.content = None;
    }
}

pub(crate) fn cannot_connect(target: &Target) -> Error {
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

/// [`connect`], to read in a transaction: behind a pooler what follows is then one session's, which
/// knows the statements that the driver has prepared. To be ended by ROLLBACK.
pub(crate) async fn connect_to_read(target: &Target) -> Result<Client> {
    let client = connect(target).await?;
    client.batch_execute("BEGIN READ ONLY").await?;
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

impl Source {
    /// `name` is the setting's name, for messages about a malformed one.
    pub(crate) fn new(
        url: &str,
        name: &str,
        pooler: Pooler,
        sealer: &Sealer,
        position: Position,
    ) -> Result<Source> {
        let mut target = tls::target(url, name)?;
        target.config.connect_timeout(Duration::from_secs(5));
        if target.config.get_application_name().is_none() {
            target.config.application_name("freehold");
        }
        let (target, sealer) = (Arc::new(target), sealer.clone());
        Ok(Source { target, pooler, sealer, position, opens_sessions: false })
    }

    /// Each connection opens a session, where it can: on a primary, for a role that is nobody without
    /// a context.
    pub(crate) fn with_sessions(mut self) -> Source {
        self.opens_sessions = true;
        self
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
            lanes: Lanes::new(limits.connections_max),
            source,
            wait_max: limits.wait_max,
            violations: violations.clone(),
            insight: insight.clone(),
        }))
    }

    pub(crate) async fn checkout(&self, guest: Guest) -> Result<Checkout> {
        let Inner { lanes, source, wait_max, .. } = &*self.0;
        let place = lanes.take(guest, *wait_max).await.map_err(|none| match none {
            NoPlace::Busy => Error::new(
                ErrorKind::PoolExhausted,
                "every database connection is busy; try again shortly",
            ),
            NoPlace::Closed => Error::new(ErrorKind::Unavailable, "the service is shutting down"),
        })?;
        let mut checkout = Checkout(place);
        // One that is not fit makes room for its successor before that is opened.
        if !checkout.0.content.as_mut().is_some_and(Connection::is_fit) {
            checkout.0.content = None;
            let opened = tokio::time::timeout(OPEN_MAX, Connection::open(source)).await;
            let cannot = || cannot_connect(&source.target);
            let connection = opened
                .map_err(|late| cannot().because(late))?
                .map_err(|error| cannot().because(error.into_cause()))?;
            if !connection.is_direct() {
                lanes.forget_homes();
            }
            checkout.0.content = Some(connection);
        }
        checkout.meet(guest);
        Ok(checkout)
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let Occupancy { places, idle, taken, waiting, waits } = self.0.lanes.occupancy();
        PoolStatus {
            connections_max: places,
            connections: idle + taken,
            idle,
            waiting,
            waited: waits.count,
            wait_time: waits.time,
            refused: waits.refused,
        }
    }

    /// Where a transaction leaves word of what was refused.
    pub(crate) fn violations(&self) -> Violations {
        self.0.violations.clone()
    }

    /// Where a transaction says what its statements cost.
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
        self.0.lanes.close();
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
