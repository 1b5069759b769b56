//! One transaction on one connection: which stage it is in, and what becomes of the connection
//! when it is dropped there.
//!
//! A statement that is first and last is not surrounded by BEGIN and COMMIT: entry point and statement
//! are one batch, and that is a transaction. All that a flush holds is answered at once. CALL is
//! surrounded all the same: in a block, PostgreSQL refuses a procedure's COMMIT.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::kind;
use crate::error::{
    Error, ErrorKind, Result, is_expired_seal, is_lost_statement, is_refused_write, is_stale_plan,
    is_unknown_seal,
};
use crate::model::budget::ByteShare;
use crate::model::context::{Claim, OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::model::lsn::Lsn;
use crate::model::tenant::Weight;
use crate::observe::insight::{Counting, Insight, StatementTimer, Statements};
use crate::observe::violations::{Violation, Violations};
use crate::pool::connection::Fixed;
use crate::pool::scheduler::TenantKey;
use crate::pool::seal::ContextProof;
use crate::pool::{Checkout, Pool};
use crate::wire::params::Params;
use crate::wire::{self, Answer, Batch, Row, Statement, TransactionStatus, WireError};

mod explain;
mod outage;
pub(super) mod pipeline;

/// How long the server may take to give a dropped transaction's connection back before it is
/// asked to cancel, and then before the connection is given up.
const TIDY_GRACE: Duration = Duration::from_millis(20);
const TIDY_MAX: Duration = Duration::from_secs(5);

/// The target of spans that are for traces and not for logs.
pub(crate) const TRACE_TARGET: &str = "freehold::trace";

#[derive(Clone, Copy)]
pub(super) enum EntryPoint {
    Tenant,
    Catalog,
}

/// Whose transaction it is.
#[derive(Clone, Copy)]
pub(super) enum Principal {
    Tenant(TenantContext),
    Operator(OperatorContext),
}

/// What it may do, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
    /// A read on a replica, which must have replayed at least so much.
    Replica(Lsn),
}

impl Principal {
    fn claim(&self) -> Claim {
        match self {
            Principal::Tenant(context) => context.into(),
            Principal::Operator(context) => context.into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent: the connection is as the pool gave it.
    Fresh,
    Open,
    /// A statement failed: only a rollback is left.
    Failed,
    Done,
}

/// What follows a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    Commit,
    /// Commits, and asks then for the place in the log.
    CommitAt,
}

pub(super) struct Transaction {
    connection: Option<Checkout>,
    entry: Beginning,
    /// What a prepared statement belongs to besides its text.
    scope: String,
    stage: Stage,
    /// A statement that is no query was run, which may leave anything on the session.
    ran_utility: bool,
    /// What kind of failure it came to, for those who ask for more of it.
    failed_by: Option<ErrorKind>,
    violations: Violations,
    insight: Insight,
    counting: Counting,
    /// What the rows of its answers may take in memory.
    share: Option<Arc<ByteShare>>,
    /// Where the log was after the commit, if that was asked for.
    committed_at: Option<Lsn>,
    /// From the wait for a connection to the end.
    trace: tracing::Span,
}

/// How the transaction begins.
struct Beginning {
    entry_point: EntryPoint,
    principal: Principal,
    claim: Claim,
    access: Access,
}

impl Beginning {
    /// What the entry point asks for, if the transaction is still before it. A sealed context is good for
    /// seconds, so it is made when it is sent.
    fn vouch(&self, connection: &Checkout, stage: Stage) -> Option<ContextProof> {
        (stage == Stage::Fresh).then(|| connection.vouch(&self.claim))
    }

    /// What comes before a statement that is prepared: the entry point, if the transaction is still before
    /// it.
    fn before<'e>(
        &'e self,
        connection: &Checkout,
        stage: Stage,
    ) -> impl Fn(&mut Batch<'_>) -> Result<(), WireError> + use<'e> {
        let (fixed, pass) = (connection.fixed.clone(), self.vouch(connection, stage));
        move |batch| pass.as_ref().map_or(Ok(()), |pass| self.put(batch, &fixed, pass))
    }

    fn put(
        &self,
        batch: &mut Batch<'_>,
        fixed: &Fixed,
        pass: &ContextProof,
    ) -> Result<(), WireError> {
        let entry_point = match self.entry_point {
            EntryPoint::Tenant => &fixed.enter,
            EntryPoint::Catalog => &fixed.enter_catalog,
        };
        batch.quiet(entry_point, &[&pass.context(), &pass.session(), &unforeseen()])
    }

    fn begin<'f>(&self, fixed: &'f Fixed) -> &'f Statement {
        match self.access {
            Access::Write => &fixed.begin,
            Access::Read | Access::Replica(_) => &fixed.begin_read,
        }
    }
}

impl Transaction {
    pub(super) async fn new(
        pool: &Pool,
        entry_point: EntryPoint,
        principal: Principal,
        scope: String,
    ) -> Result<Self> {
        let (guest, weight) = match (entry_point, &principal) {
            (EntryPoint::Tenant, Principal::Tenant(context)) => {
                (TenantKey::from(context.tenant()), context.weight())
            }
            _ => (TenantKey::None, Weight::ONE),
        };
        let began = Instant::now();
        let trace = trace(&principal);
        let connection = Some(pool.checkout(guest, weight).await?);
        let counting = Counting::new(began.elapsed());
        let entry =
            Beginning { entry_point, principal, claim: principal.claim(), access: Access::Write };
        let (violations, insight) = (pool.violations(), pool.insight());
        Ok(Transaction {
            connection,
            entry,
            scope,
            stage: Stage::Fresh,
            ran_utility: false,
            failed_by: None,
            violations,
            insight,
            counting,
            share: None,
            committed_at: None,
            trace,
        })
    }

    /// Counts the statements for a table, with as many rows as `rows` reads from an answer.
    pub(super) fn count_for(&mut self, table: &str, rows: fn(&[Row]) -> u64) {
        self.counting.table = self.insight.table(table);
        self.counting.rows = Some(rows);
    }

    /// The same for the statements of a pipeline, a table each.
    pub(super) fn count_for_each(&mut self, tables: &[&str], rows: fn(&[Row]) -> u64) {
        self.counting.each = tables.iter().map(|table| self.insight.table(table)).collect();
        self.counting.rows = Some(rows);
    }

    /// Its answers take their memory of this share.
    pub(super) fn bound_by(&mut self, share: Arc<ByteShare>) {
        self.share = Some(share);
    }

    /// Counts as another transaction does, and is bounded as it is.
    pub(super) fn count_like(&mut self, other: &Transaction) {
        self.share.clone_from(&other.share);
        self.counting.table = other.counting.table;
        self.counting.rows = other.counting.rows;
    }

    /// A tenant's statements are counted for it.
    fn watch<'q>(&mut self, statements: Statements<'q>) -> Option<StatementTimer<'q>> {
        match (self.entry.entry_point, &self.entry.principal) {
            (EntryPoint::Tenant, Principal::Tenant(context)) => {
                Some(self.insight.watch(&mut self.counting, context, statements))
            }
            _ => None,
        }
    }

    /// Before anything was sent.
    pub(super) fn access(mut self, access: Access) -> Self {
        self.entry.access = access;
        self
    }

    /// Whether nothing was answered yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.stage == Stage::Fresh
    }

    pub(super) async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        Ok(self.run(sql, params, Ending::Open).await?.rows)
    }

    pub(super) async fn run_utility(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.ran_utility = true;
        self.query(sql, params).await
    }

    pub(super) async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        Ok(self.run(sql, params, Ending::Open).await?.affected)
    }

    /// COMMIT may be in the same flush because the statement is prepared: it is executed in the
    /// order it was sent, and if it fails, the server skips the rest.
    pub(super) async fn query_and_commit(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        Ok(self.run(sql, params, Ending::Commit).await?.rows)
    }

    /// The same, and where the log is then, if this connection can tell.
    pub(super) async fn query_and_commit_at(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<(Vec<Row>, Option<Lsn>)> {
        let rows = self.run(sql, params, self.commit_at_ending()).await?.rows;
        Ok((rows, self.committed_at))
    }

    fn commit_at_ending(&self) -> Ending {
        let connection = self.connection.as_ref();
        match connection.is_some_and(|connection| connection.fixed.position.is_some()) {
            true => Ending::CommitAt,
            false => Ending::Commit,
        }
    }

    async fn run(&mut self, sql: &str, params: Params<'_>, ending: Ending) -> Result<Answer> {
        // What a replica refuses at first is asked of the primary, which knows the newest keys.
        let is_final = !(self.is_fresh() && matches!(self.entry.access, Access::Replica(_)));
        let watch = self.watch(Statements::One(sql));
        let outcome = self.run_renewed(sql, params, ending).await;
        if let Some(watch) = watch {
            match outcome.is_ok() || is_final {
                true => watch.end(std::slice::from_ref(&outcome), |a| self.counting.rows_of(a)),
                false => watch.forget(),
            }
        }
        self.failed_by = outcome.as_ref().err().map(Error::kind);
        if let Err(error) = &outcome
            && is_final
        {
            self.record_violation(error, sql);
            self.trace_error(error);
        }
        outcome
    }

    /// An outage stays one, whatever is asked for after it.
    fn aborted(&self) -> Error {
        let kind = self.failed_by.filter(|kind| *kind == ErrorKind::Unavailable);
        Error::new(
            kind.unwrap_or(ErrorKind::Statement),
            "an earlier statement of the transaction failed, so nothing of it was committed",
        )
    }

    fn trace_error(&self, error: &Error) {
        self.trace.record("otel.status_code", "ERROR").record("error.type", error.kind().code());
    }

    fn record_violation(&self, error: &Error, sql: &str) {
        let own = match &self.entry.principal {
            Principal::Tenant(context) => Some(context.tenant()),
            Principal::Operator(_) => None,
        };
        if let Some(violation) = Violation::behind(error, sql, own) {
            self.violations.record(match &self.entry.principal {
                Principal::Tenant(context) => violation.by(context),
                Principal::Operator(context) => violation.by_operator(context),
            });
        }
    }

    async fn run_renewed(
        &mut self,
        sql: &str,
        params: Params<'_>,
        ending: Ending,
    ) -> Result<Answer> {
        let first = self.stage == Stage::Fresh;
        match self.run_once(sql, params, ending).await {
            Err(error) => {
                self.renew_if_stale(error, sql, first, ending).await?;
                self.run_once(sql, params, ending).await
            }
            done => done,
        }
    }

    async fn run_once(&mut self, sql: &str, params: Params<'_>, ending: Ending) -> Result<Answer> {
        self.require_usable()?;
        let statement = self.statement(sql).await?;
        let outcome = self.send(&statement, kind::is_call(sql), params, ending).await;
        self.stage = match &outcome {
            Ok(_) if ending == Ending::Open => Stage::Open,
            Ok(_) => Stage::Done,
            Err(_) => Stage::Failed,
        };
        outcome
    }

    async fn send(
        &mut self,
        statement: &Statement,
        is_call: bool,
        params: Params<'_>,
        ending: Ending,
    ) -> Result<Answer> {
        let Transaction { connection, entry, stage, ran_utility, share, .. } = self;
        let connection = held(connection);
        let fixed = &connection.fixed.clone();
        let pass = entry.vouch(connection, *stage);
        let mut batch = connection.batch()?;
        batch.bounded_by(share.clone());
        // Sent by itself, a batch without BEGIN and COMMIT is the transaction. Not with a procedure,
        // which could end it.
        let alone =
            pass.is_some() && entry.access == Access::Write && ending == Ending::Commit && !is_call;
        if let Some(pass) = &pass {
            if !alone {
                batch.quiet(entry.begin(fixed), &[])?;
            }
            if matches!(entry.access, Access::Replica(_)) {
                // Before the statement, whose snapshot is then of that moment or later.
                batch.query(position(fixed)?, &[])?;
            }
            entry.put(&mut batch, fixed, pass)?;
        }
        batch.query(statement, params)?;
        match alone {
            true => leave(&mut batch, fixed, *ran_utility)?,
            false => end(&mut batch, fixed, ending, *ran_utility)?,
        }
        let mut answers = batch.run().await?;
        if ending == Ending::CommitAt {
            self.committed_at = answers.pop().and_then(|answer| read_position(&answer));
        }
        let answer = answers.pop().unwrap_or_default();
        if let Access::Replica(floor) = self.entry.access
            && pass.is_some()
        {
            require_position(answers.pop(), floor)?;
        }
        Ok(answer)
    }

    /// The prepared form of a statement, under this tenant and role. Prepared behind the entry point, so
    /// that names and rights are the tenant's.
    async fn statement(&mut self, sql: &str) -> Result<Statement> {
        let mut key = String::with_capacity(self.scope.len() + sql.len());
        key.push_str(&self.scope);
        key.push_str(sql);
        let Transaction { connection, entry, stage, .. } = self;
        let connection = held(connection);
        if let Some(statement) = connection.find_statement(&key) {
            return Ok(statement);
        }
        let before = entry.before(connection, *stage);
        let prepared = connection.prepare(key, sql, before).await;
        prepared.map_err(|error| {
            self.stage = Stage::Failed;
            Error::from(error)
        })
    }

    fn require_usable(&self) -> Result<()> {
        match self.stage {
            Stage::Fresh | Stage::Open => Ok(()),
            Stage::Failed => Err(self.aborted()),
            Stage::Done => Err(Error::new(ErrorKind::Internal, "the transaction has ended")),
        }
    }

    pub(super) async fn commit(&mut self) -> Result<()> {
        match self.stage {
            Stage::Fresh => {
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Failed => {
                // COMMIT would roll back and report success; say so instead.
                self.rollback().await?;
                Err(self.aborted())
            }
            Stage::Open => self.end_open(Ending::Commit).await,
            Stage::Done => self.require_usable(),
        }
    }

    /// [`commit`](Self::commit), and where the log is then, if this connection can tell.
    pub(super) async fn commit_at(&mut self) -> Result<Option<Lsn>> {
        match self.stage {
            Stage::Open => self.end_open(self.commit_at_ending()).await?,
            _ => self.commit().await?,
        }
        Ok(self.committed_at)
    }

    async fn end_open(&mut self, ending: Ending) -> Result<()> {
        let connection = held(&mut self.connection);
        let fixed = connection.fixed.clone();
        let mut batch = connection.batch()?;
        end(&mut batch, &fixed, ending, self.ran_utility)?;
        let committed = batch.run().await;
        self.stage = Stage::Done;
        self.committed_at = committed?.pop().and_then(|answer| read_position(&answer));
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<()> {
        let wire = &mut held(&mut self.connection).wire;
        if wire.status() != TransactionStatus::Idle {
            wire.batch_execute("ROLLBACK").await?;
        }
        self.stage = Stage::Done;
        Ok(())
    }

    /// The transaction turns to this tenant's tables.
    pub(super) fn meet(&mut self, tenant: TenantId) {
        held(&mut self.connection).meet(tenant.into());
    }

    /// A context of another tenant, for this transaction to change to.
    pub(super) fn seal(&mut self, claim: &Claim) -> String {
        held(&mut self.connection).seal(claim)
    }

    /// Lends the bare connection, for statements that cannot be prepared.
    pub(super) async fn ddl<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut wire::Connection) -> Result<T>,
    ) -> Result<T> {
        if self.stage == Stage::Fresh {
            self.query("SELECT 1", &[]).await?;
        }
        self.require_usable()?;
        let outcome = work(&mut held(&mut self.connection).wire).await;
        if outcome.is_err() {
            self.stage = Stage::Failed;
        }
        outcome
    }

    /// Forgets a prepared statement that a migration has made stale or that SQL has taken away, or a
    /// session that is no longer known, and begins anew. An error if it is none of these, or if more came
    /// before it in the transaction: only the caller can repeat that.
    async fn renew_if_stale(
        &mut self,
        error: Error,
        sql: &str,
        first: bool,
        ending: Ending,
    ) -> Result<()> {
        let Some(db) = error.database() else { return Err(error) };
        if is_refused_write(db) && self.entry.access == Access::Write {
            return self.renew_if_writable(error, first).await;
        }
        // The database's clock was set, and what this connection knows of it is wrong.
        if is_expired_seal(db) {
            held(&mut self.connection).wire.condemn();
            return Err(error);
        }
        if is_lost_statement(db) {
            return self.renew_statements(error, first, ending).await;
        }
        if is_unknown_seal(db) && held(&mut self.connection).lose_session() {
            // From here on each of its contexts has a seal.
        } else if is_stale_plan(db) {
            let key = format!("{}{sql}", self.scope);
            held(&mut self.connection).forget_statement(&key);
        } else if is_unknown_seal(db) {
            return Err(self.explain_unknown_seal(error).await);
        } else {
            return Err(error);
        }
        if !first {
            return Err(error);
        }
        self.rollback().await?;
        self.stage = Stage::Fresh;
        Ok(())
    }

    /// After SQL, of this transaction's or of one before it, has taken prepared statements away. Begins
    /// anew with others, if it is sure that nothing is done.
    async fn renew_statements(&mut self, error: Error, first: bool, ending: Ending) -> Result<()> {
        let connection = held(&mut self.connection);
        let may_be_committed =
            ending == Ending::CommitAt && connection.wire.status() == TransactionStatus::Idle;
        if !first || may_be_committed {
            connection.wire.condemn();
            return Err(error);
        }
        self.rollback().await?;
        held(&mut self.connection).prepare_anew().await?;
        self.stage = Stage::Fresh;
        Ok(())
    }
}

/// What traces show of a transaction: no statement, which could hold values. Where nobody traces,
/// it costs a look at a flag.
fn trace(principal: &Principal) -> tracing::Span {
    let span = tracing::trace_span!(
        target: TRACE_TARGET,
        "transaction",
        "otel.kind" = "client",
        "db.system.name" = "postgresql",
        "freehold.tenant" = tracing::field::Empty,
        "otel.status_code" = tracing::field::Empty,
        "error.type" = tracing::field::Empty,
    );
    if let (Principal::Tenant(context), false) = (principal, span.is_disabled()) {
        span.record("freehold.tenant", tracing::field::display(context.tenant()));
    }
    span
}

/// Cleans the session in the transaction that may have left something on it: if that fails, nothing is
/// left. What acts before the next transaction's first statement, such as a timeout or
/// `default_transaction_read_only`, is gone by then. Deferred constraint triggers run SQL of the tenant's,
/// so they come first. The rest is `freehold.begin_clean`'s.
fn leave(batch: &mut Batch<'_>, fixed: &Fixed, any: bool) -> Result<(), WireError> {
    fixed.leave(any).try_for_each(|statement| batch.quiet(statement, &[]))
}

/// What follows a transaction's last statement.
fn end(batch: &mut Batch<'_>, fixed: &Fixed, ending: Ending, any: bool) -> Result<()> {
    if ending != Ending::Open {
        leave(batch, fixed, any)?;
        batch.quiet(&fixed.commit, &[])?;
    }
    if ending == Ending::CommitAt {
        batch.query(position(fixed)?, &[])?;
    }
    Ok(())
}

/// Where random() begins: what one tenant learns of it, or sets by setseed(), tells it nothing of the
/// next tenant's.
fn unforeseen() -> f64 {
    getrandom::u64().map_or(0.0, |bits| bits as f64 / u64::MAX as f64)
}

fn position(fixed: &Fixed) -> Result<&Statement> {
    fixed.position.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "this connection does not tell its place in the log")
    })
}

fn read_position(answer: &Answer) -> Option<Lsn> {
    answer.rows.first()?.try_get::<_, Option<&str>>(0).ok()??.parse().ok()
}

/// A replica that was promoted has a log of its own and is none any more.
fn require_position(answer: Option<Answer>, floor: Lsn) -> Result<()> {
    match answer.as_ref().and_then(read_position) {
        Some(replayed) if replayed >= floor => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Unavailable, "the replica is too far behind")),
        None => Err(Error::new(ErrorKind::Unavailable, "the replica is no replica any more")),
    }
}

fn held(connection: &mut Option<Checkout>) -> &mut Checkout {
    connection.as_mut().expect("a transaction has its connection until it is dropped")
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let wire = &connection.wire;
        if !wire.is_busy() && wire.status() == TransactionStatus::Idle {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(tidy(connection))),
            // No runtime to tidy up in: close it.
            Err(_) => connection.close(),
        }
    }
}

/// Brings a connection whose statement was abandoned back to idle, or closes it.
///
/// The pool counts it as in use until then. A cancel request arrives by a connection of its own
/// and could hit whatever runs by then, so after one the connection must answer a statement
/// before it goes back.
async fn tidy(mut connection: Checkout) {
    let cancel = connection.cancel.clone();
    let rested = async {
        let wire = &mut connection.wire;
        if let Ok(settled) = tokio::time::timeout(TIDY_GRACE, wire.settle()).await {
            settled?;
            if wire.status() != TransactionStatus::Idle {
                wire.batch_execute("ROLLBACK").await?;
            }
            return Ok(());
        }
        // A pipeline's next statement runs after one that was cancelled. Each request is a connection of its
        // own, so a statement that takes long to stop is not asked every few milliseconds.
        let mut patience = TIDY_GRACE;
        loop {
            cancel.cancel().await?;
            if let Ok(settled) = tokio::time::timeout(patience, wire.settle()).await {
                settled?;
                break;
            }
            patience *= 2;
        }
        // The signal may hit the first of these.
        let _ = wire.batch_execute("ROLLBACK").await;
        wire.batch_execute("ROLLBACK").await
    };
    let rested: Result<Result<(), WireError>, _> = tokio::time::timeout(TIDY_MAX, rested).await;
    if !matches!(rested, Ok(Ok(()))) {
        tracing::warn!(
            "a connection did not come to rest after its transaction was dropped; closing it"
        );
        connection.close();
    }
}
