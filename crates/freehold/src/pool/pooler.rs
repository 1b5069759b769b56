//! A pooler between this server and PostgreSQL: whether there is one, and whether it keeps the statements of
//! a transaction together and the sessions of clients apart.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::settings::{self, NEWER_SQL, Setting};
use crate::wire::tls::Target;
use crate::wire::{self, Connection, Statement, WireError};

/// Timeout of the test: the pooler may have given all its connections to other clients.
const TEST_MAX: Duration = Duration::from_secs(10);
const ROUNDS: usize = 4;

/// What lies between this server and PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Detected at each connection: a pooler invents the process id that it reports to a client.
    #[default]
    Detect,
    /// No pooler, or one in session mode.
    Session,
    /// A pooler that may give every transaction another session: PgBouncer in transaction mode.
    Transaction,
}

/// What a connection reports about itself.
pub(crate) struct ServerState {
    /// The process id of the backend that answered.
    pub(crate) pid: i32,
    /// The database's clock, in seconds since 1970.
    pub(crate) now: f64,
    /// The session is this connection's own, as long as it lives.
    pub(crate) direct: bool,
    /// Its transactions may write: false on a standby, and where the server was made read-only.
    pub(crate) takes_writes: bool,
    /// The settings to pin that not every supported version of PostgreSQL has, and this one has.
    pub(crate) newer_settings: Vec<Setting>,
}

/// Asked in a transaction of its own: whether the next transaction could write.
const TAKES_WRITES: &str =
    "pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off'";

/// Whether the next transaction on this connection could write.
pub(crate) async fn takes_writes(wire: &mut Connection) -> Result<bool, WireError> {
    let rows = wire.query_once(&format!("SELECT {TAKES_WRITES}"), &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

impl Pooler {
    pub(crate) async fn look(self, wire: &mut Connection) -> Result<ServerState, WireError> {
        let sql = format!(
            "SELECT pg_catalog.pg_backend_pid(), pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()), {TAKES_WRITES}, {NEWER_SQL}"
        );
        let rows = wire.query_once(&sql, &[]).await?;
        let (pid, now, takes_writes): (i32, f64, bool) =
            rows.first().map_or((0, 0.0, true), |row| (row.get(0), row.get(1), row.get(2)));
        let names: Vec<String> = rows.first().map_or_else(Vec::new, |row| row.get(3));
        let direct = match self {
            Pooler::Session => true,
            Pooler::Transaction => false,
            Pooler::Detect => pid == wire.backend_pid(),
        };
        let newer_settings = settings::newer(&names);
        Ok(ServerState { pid, now, direct, takes_writes, newer_settings })
    }

    /// Whether a connection to this target has a session of its own.
    pub(crate) async fn is_direct(self, target: &Target) -> Result<bool, WireError> {
        let mut wire = wire::connect(target, &[]).await?;
        Ok(self.look(&mut wire).await?.direct)
    }
}

/// Tests the pooler with two clients. One marks its transaction; while it reads its mark again, the other
/// client looks for the mark and must never see it. After the transaction no client may see it.
///
/// # Errors
/// [`ErrorKind::Setup`] if the pooler mixes the clients up: the server must not serve behind it.
pub(crate) async fn require_apart(target: &Target, setting: &str) -> Result<()> {
    // PgBouncer in statement mode supports no transactions.
    let told = |error| match error {
        WireError::Database(db) => refuses_transactions(setting, db.message()),
        error => error.into(),
    };
    let tested = async {
        let (mut one, mut other) =
            (wire::connect(target, &[]).await?, wire::connect(target, &[]).await?);
        for round in 0..ROUNDS {
            let mark = format!("round {round}");
            begin_marked(&mut one, &mark).await.map_err(told)?;
            // A pooler with one server connection makes the other client wait for the transaction's end.
            let (seen, kept) =
                tokio::join!(sees_a_mark(&mut other), keeps_its_mark(&mut one, &mark));
            if !kept.map_err(told)? {
                return Err(refuse(
                    setting,
                    "gives the statements of one transaction to different sessions",
                ));
            }
            if seen? || sees_a_mark(&mut other).await? || sees_a_mark(&mut one).await? {
                return Err(refuse(
                    setting,
                    "lets one client see what another's transaction has set",
                ));
            }
        }
        Ok(())
    };
    match tokio::time::timeout(TEST_MAX, tested).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "the pooler in front of PostgreSQL gave no connection in time to be tested",
        )),
    }
}

pub(crate) fn refuses_transactions(setting: &str, message: &str) -> Error {
    refuse(setting, &format!("refuses a transaction ({message})"))
}

fn refuse(setting: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Setup,
        format!(
            "refusing to serve: the pooler that {setting} leads to {what}. Use PgBouncer with \
             pool_mode = transaction or session, or connect to PostgreSQL itself"
        ),
    )
}

const MARK: &str = "SELECT pg_catalog.set_config('freehold.pooler_test', $1, true)";
const MARKED: &str =
    "SELECT coalesce(pg_catalog.current_setting('freehold.pooler_test', true), '')";

fn set_mark() -> Statement {
    Statement::unnamed(MARK, &[Type::TEXT])
}

/// As the engine does it with unnamed statements, but in a transaction block.
async fn begin_marked(wire: &mut Connection, mark: &str) -> Result<(), WireError> {
    let (begin, set) = (Statement::unnamed("BEGIN", &[]), set_mark());
    let mut batch = wire.batch();
    batch.quiet(&begin, &[])?;
    batch.quiet(&set, &[&mark])?;
    batch.run().await?;
    Ok(())
}

/// Ends the block, and marks a batch, which is a transaction of its own.
async fn keeps_its_mark(wire: &mut Connection, mark: &str) -> Result<bool, WireError> {
    let in_block = read_mark(wire).await?;
    wire.batch_execute("COMMIT").await?;

    let marked = wire.batch().run_and_prepare(String::new(), MARKED).await?;
    let set = set_mark();
    let mut batch = wire.batch();
    batch.quiet(&set, &[&mark])?;
    batch.query(&marked, &[])?;
    let answer = batch.run().await?.pop().unwrap_or_default();
    let in_batch = answer.rows.first().map(|row| row.get::<_, String>(0));
    Ok(in_block == mark && in_batch.as_deref() == Some(mark))
}

async fn sees_a_mark(wire: &mut Connection) -> Result<bool, WireError> {
    Ok(!read_mark(wire).await?.is_empty())
}

async fn read_mark(wire: &mut Connection) -> Result<String, WireError> {
    let rows = wire.query_once(MARKED, &[]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}
