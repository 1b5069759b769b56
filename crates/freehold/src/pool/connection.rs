//! A connection of the pool: how it is opened, how it vouches for a tenant's context, and the statements that
//! are prepared on it.
//!
//! Prepared statements are kept per tenant, role and text, also for unqualified SQL. The plan then fits the
//! search path each time it is used, so PostgreSQL need not plan again.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::error::{DbError, Error, ErrorKind, Result};
use crate::model::context::Claim;
use crate::pool::pooler::{Pooler, ServerState};
use crate::pool::scheduler::TenantKey;
use crate::pool::seal::{BackendBinding, ContextProof, Sealer, SessionNumber};
use crate::wire::settings::{self, Setting};
use crate::wire::tls::Target;
use crate::wire::{self, Batch, Canceller, Statement, WireError};

/// The parameters of the statement at the entry point: a context, a session number, and a seed for random().
const DOOR: &[Type] = &[Type::TEXT, Type::INT8, Type::FLOAT8];
const ENTER: &str = "SELECT freehold.begin_clean($3) AND freehold.enter($1, $2)";
const ENTER_CATALOG: &str = "SELECT freehold.begin_clean($3) AND freehold.enter_catalog($1, $2)";
/// Prepared statements kept per connection. One holds 20 to 70 kB in the backend, so a full
/// cache is about 20 MB; fewer than the tenants a connection meets costs a round trip each.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A connection is replaced after this long, and after it has served this many tenants: a backend never frees
/// the memory, 20 to 70 kB per tenant, of its catalog caches.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);
const TENANTS_MAX: usize = 2000;
/// A connection that was opened while the server took no writes is replaced after this long: its session may
/// stay read-only when the server no longer is. So all connections can write a second after the server does.
const READ_ONLY_AGE_MAX: Duration = Duration::from_secs(1);

/// Where connections come from, and how they are set up.
pub(crate) struct Source {
    pub(crate) target: Arc<Target>,
    pub(crate) pooler: Pooler,
    sealer: Sealer,
    position: Position,
    opens_sessions: bool,
    residue: Residue,
    /// False once a pooler has refused settings in the startup packet.
    takes_settings: AtomicBool,
    /// Settings for the startup packet that the server is known to have.
    newer_settings: Mutex<Vec<Setting>>,
}

impl Source {
    pub(crate) fn new(
        mut target: Target,
        pooler: Pooler,
        sealer: &Sealer,
        position: Position,
    ) -> Source {
        target.config.connect_timeout(Duration::from_secs(5));
        if target.config.get_application_name().is_none() {
            target.config.application_name("freehold");
        }
        let takes_settings = AtomicBool::new(pooler != Pooler::Transaction);
        let (target, sealer) = (Arc::new(target), sealer.clone());
        let (opens_sessions, residue) = (false, Residue::Anything);
        Source {
            target,
            pooler,
            sealer,
            position,
            opens_sessions,
            residue,
            takes_settings,
            newer_settings: Mutex::default(),
        }
    }

    /// What the SQL on these connections can leave on a session.
    pub(crate) fn with_residue(mut self, residue: Residue) -> Source {
        self.residue = residue;
        self
    }

    /// Connects, and returns the settings that the session did not begin with, as an expression for the entry
    /// point.
    async fn connect(&self) -> Result<(wire::Connection, ServerState, String), WireError> {
        loop {
            let sent = self.newer_settings().clone();
            let (mut wire, has_settings) = self.connect_with(&sent).await?;
            let state = self.pooler.look(&mut wire).await?;
            if !has_settings {
                let set = settings::at_the_door(&state.newer_settings);
                return Ok((wire, state, set));
            }
            if state.newer_settings == sent {
                return Ok((wire, state, String::new()));
            }
            // Once per server: the version is known only now.
            self.newer_settings().clone_from(&state.newer_settings);
        }
    }

    fn newer_settings(&self) -> MutexGuard<'_, Vec<Setting>> {
        self.newer_settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects. The flag says whether the session began with the required settings.
    async fn connect_with(&self, newer: &[Setting]) -> Result<(wire::Connection, bool), WireError> {
        if self.takes_settings.load(Ordering::Relaxed) {
            let options = self.target.config.get_options().unwrap_or("");
            let all = settings::at_startup(self.target.user(), options, newer);
            match wire::connect(&self.target, &all).await {
                Err(WireError::Database(db)) if is_refused_parameter(&db) => {
                    self.takes_settings.store(false, Ordering::Relaxed);
                }
                // The server was replaced by one of an older version.
                Err(WireError::Database(db)) if *db.code() == SqlState::UNDEFINED_OBJECT => {
                    self.newer_settings().clear();
                    return Err(WireError::Database(db));
                }
                connected => return Ok((connected?, true)),
            }
        }
        Ok((wire::connect(&self.target, &[]).await?, false))
    }

    /// Connections open a session where they can: on a primary, for a role that has no rights without a
    /// context.
    pub(crate) fn with_sessions(mut self) -> Source {
        self.opens_sessions = true;
        self
    }
}

/// A connection with its prepared statements.
pub(crate) struct Connection {
    pub(crate) wire: wire::Connection,
    pub(crate) fixed: Arc<Fixed>,
    pub(crate) cancel: Canceller,
    /// Keyed by schema, role and text: a plan belongs to one tenant and one role.
    statements: LruCache<String, Statement>,
    /// No longer wanted; closed together with the next batch.
    discarded: Vec<Statement>,
    naming: Naming,
    /// What the entry point has to set because the session could not begin with it.
    set: String,
    position: Position,
    sealer: Sealer,
    binding: BackendBinding,
    /// Vouches for contexts at less cost than a seal. `None` if the database has opened no session.
    session: Option<SessionNumber>,
    /// The tenants whose tables the backend has cached.
    met: HashSet<TenantKey>,
    opened: Instant,
    age_max: Duration,
}

/// The statements that surround every transaction.
pub(crate) struct Fixed {
    pub(crate) enter: Statement,
    pub(crate) enter_catalog: Statement,
    pub(crate) begin: Statement,
    /// Sent in full each time, so that a connection that never reads only need not prepare it.
    pub(crate) begin_read: Statement,
    residue: Residue,
    /// Ends everything except settings that acts at COMMIT or outlives it.
    settle: [Statement; 3],
    reset: Statement,
    pub(crate) commit: Statement,
    /// Returns the position in the log, if the connection's source asks for it.
    pub(crate) position: Option<Statement>,
}

/// What the SQL that a connection runs can leave on the session.
#[derive(Clone)]
pub(crate) enum Residue {
    /// The connection runs the library's own SQL alone.
    Nothing,
    /// A tenant's SQL: settings, and more unless the flag is true.
    OnlySettings(Arc<AtomicBool>),
    /// A migration's SQL.
    Anything,
}

/// Which position in the log of changes a pool's connections report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// None: there are no replicas.
    Untold,
    /// The end of the written log (the insert position). Asked after a COMMIT, it lies behind that commit.
    /// The flush position may lie before it where `synchronous_commit` is off, which a transaction can set.
    Written,
    /// The end of the replayed log. NULL on a server that is not, or no longer, a replica.
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

impl Fixed {
    /// `set` is what the entry point has to set.
    async fn prepare(
        wire: &mut wire::Connection,
        naming: &mut Naming,
        set: &str,
        position: Position,
        residue: &Residue,
    ) -> Result<Fixed, WireError> {
        let (enter, enter_catalog) = (format!("{ENTER}{set}"), format!("{ENTER_CATALOG}{set}"));
        Ok(Fixed {
            enter: fixed(wire, naming, &enter, DOOR).await?,
            enter_catalog: fixed(wire, naming, &enter_catalog, DOOR).await?,
            begin: fixed(wire, naming, "BEGIN", &[]).await?,
            begin_read: Statement::unnamed("BEGIN READ ONLY", &[]),
            residue: residue.clone(),
            settle: [
                fixed(wire, naming, "SET CONSTRAINTS ALL IMMEDIATE", &[]).await?,
                fixed(wire, naming, "CLOSE ALL", &[]).await?,
                fixed(wire, naming, "UNLISTEN *", &[]).await?,
            ],
            reset: fixed(wire, naming, "RESET ALL", &[]).await?,
            commit: fixed(wire, naming, "COMMIT", &[]).await?,
            position: match position.sql() {
                Some(sql) => Some(fixed(wire, naming, sql, &[]).await?),
                None => None,
            },
        })
    }

    /// The statements that clean the session before COMMIT; `any` if a utility statement was run, which may
    /// leave anything.
    pub(crate) fn leave(&self, any: bool) -> impl Iterator<Item = &Statement> {
        let (settle, reset) = match &self.residue {
            Residue::Nothing => (false, false),
            Residue::OnlySettings(known) => (any || !known.load(Ordering::Acquire), true),
            Residue::Anything => (true, true),
        };
        let settle = settle.then_some(&self.settle).into_iter().flatten();
        settle.chain(reset.then_some(&self.reset))
    }
}

/// How statements are named on the server.
enum Naming {
    /// By names that cannot be guessed. Otherwise injected SQL could replace a prepared statement that
    /// another tenant will run.
    Secret { prefix: String, next: u64 },
    /// Without a name: sent in full each time, since the next transaction may meet another session.
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
    pub(crate) async fn open(source: &Source) -> Result<Connection, WireError> {
        let Source { target, sealer, position, opens_sessions, residue, .. } = source;
        let (mut wire, state, set) = source.connect().await?;
        let ServerState { pid, now, direct, takes_writes, .. } = state;
        let binding =
            BackendBinding { pid: if direct { pid } else { 0 }, clock: (now, Instant::now()) };
        let cancel = wire.canceller(target);
        let mut naming =
            if direct { Naming::secret().unwrap_or(Naming::Unnamed) } else { Naming::Unnamed };
        let fixed = Fixed::prepare(&mut wire, &mut naming, &set, *position, residue).await?;
        let session = match sealer.session(binding).filter(|_| *opens_sessions) {
            Some((session, sealed)) => open_session(&mut wire, &sealed).await?.then_some(session),
            None => None,
        };
        Ok(Connection {
            wire,
            fixed: Arc::new(fixed),
            cancel,
            statements: LruCache::new(STATEMENTS_MAX),
            discarded: Vec::new(),
            naming,
            set,
            position: *position,
            sealer: sealer.clone(),
            binding,
            session,
            met: HashSet::new(),
            opened: Instant::now(),
            age_max: match *position == Position::Replayed || takes_writes {
                true => AGE_MAX,
                false => READ_ONLY_AGE_MAX,
            },
        })
    }

    /// Fit to be lent. Costs no round trip.
    pub(crate) fn is_fit(&mut self) -> bool {
        let is_worn = self.opened.elapsed() >= self.age_max || self.met.len() >= TENANTS_MAX;
        self.wire.is_reusable() && !is_worn
    }

    /// Records that the backend caches this tenant's tables.
    pub(crate) fn meet(&mut self, guest: TenantKey) {
        if guest != TenantKey::None {
            self.met.insert(guest);
        }
    }

    /// Whether consecutive transactions meet the same backend.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.naming, Naming::Secret { .. })
    }

    /// The context proof for the entry point, made for this connection and moment.
    pub(crate) fn vouch(&self, claim: &Claim) -> ContextProof {
        match self.session {
            Some(session) => session.vouch(claim),
            None => ContextProof::sealed(self.seal(claim)),
        }
    }

    /// Logs that the database does not know the key of this connection's seals.
    pub(crate) fn tell_unknown_key(&self) {
        self.sealer.tell_unknown_key();
    }

    /// A context with a seal of its own.
    pub(crate) fn seal(&self, claim: &Claim) -> String {
        self.sealer.seal(claim, self.binding)
    }

    /// The database knows no session, or no longer. False if this connection had none.
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

    /// Prepares statements in one flush, each in a section of its own, and keeps those that the server
    /// accepted under their keys.
    pub(crate) async fn prepare_each(
        &mut self,
        wanted: Vec<(String, &str)>,
        before: impl Fn(&mut Batch<'_>) -> Result<(), WireError>,
    ) -> Result<Vec<Result<Statement, WireError>>, WireError> {
        // Until they are kept they are marked for closing, since this future may be dropped while it waits.
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

    /// Forgets the statement of a key after a migration has made it stale.
    pub(crate) fn forget_statement(&mut self, key: &str) {
        self.discarded.extend(self.statements.pop(key));
    }

    /// Prepares all statements again after SQL has deallocated some, since which ones are left is unknown. To
    /// be called outside of a transaction.
    pub(crate) async fn prepare_anew(&mut self) -> Result<(), WireError> {
        while let Some((_, statement)) = self.statements.pop_lru() {
            self.discarded.push(statement);
        }
        let Connection { wire, naming, set, position, .. } = self;
        let fixed = Fixed::prepare(wire, naming, set, *position, &self.fixed.residue).await?;
        self.fixed = Arc::new(fixed);
        Ok(())
    }

    /// A batch that also closes the discarded statements.
    pub(crate) fn batch(&mut self) -> Result<Batch<'_>, WireError> {
        self.wire.batch_that_closes(&mut self.discarded)
    }
}

/// A statement whose parameters are known. An unnamed one is not described.
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

/// PgBouncer accepts only the parameters that it carries from one server connection to the next.
fn is_refused_parameter(db: &DbError) -> bool {
    *db.code() == SqlState::PROTOCOL_VIOLATION
        && db.message().starts_with("unsupported startup parameter")
}

/// False if the database has no sessions to open, or refuses this server's seal. In the latter case it
/// refuses the first context too, and that error reaches a caller.
async fn open_session(wire: &mut wire::Connection, sealed: &str) -> Result<bool, WireError> {
    let sql = "SELECT freehold_guard.open_session($1)";
    match wire.query_once(sql, &[&sealed]).await {
        Ok(rows) => Ok(rows.first().is_some_and(|row| row.get(0))),
        Err(WireError::Database(_)) => Ok(false),
        Err(error) => Err(error),
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
