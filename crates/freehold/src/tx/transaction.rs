//! One transaction on one connection: its stage, and what becomes of the connection when the transaction is
//! dropped at that stage.
//!
//! A statement that is both first and last is not surrounded by BEGIN and COMMIT: entry point and statement
//! form one batch, which is a transaction, and the whole flush is answered at once. CALL is surrounded
//! nevertheless: in a block, PostgreSQL refuses a procedure's COMMIT.
//!
//! A dropped transaction: the connection knows how many answers are outstanding and whether the session is in
//! a transaction. If neither, it returns to the pool at once. Otherwise a task waits a moment for the
//! answers, then cancels the query, sends ROLLBACK, and returns the connection once that is answered; if it
//! is not, the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::kind;
use crate::error::{
    Error, ErrorKind, Result, is_expired_seal, is_lost_statement, is_refused_write, is_stale_plan,
    is_unknown_seal,
};
use crate::model::budget::Share;
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

/// How long a dropped transaction waits for outstanding answers before its query is cancelled, and how long
/// the whole clean-up may take before the connection is closed.
const TIDY_GRACE: Duration = Duration::from_millis(20);
const TIDY_MAX: Duration = Duration::from_secs(5);

/// The target of spans that are meant for traces and not for logs.
pub(crate) const TRACE_TARGET: &str = "freehold::trace";

#[derive(Clone, Copy)]
pub(super) enum EntryPoint {
    Tenant,
    Catalog,
}

/// The principal: whose transaction it is.
#[derive(Clone)]
pub(super) enum Principal {
    Tenant(TenantContext),
    Operator(OperatorContext),
}

/// What the transaction may do, and on which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
    /// A read on a replica, which must have replayed the log up to this position.
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
    /// Nothing was sent: the connection is as the pool returned it.
    Fresh,
    Open,
    /// A statement failed: only a rollback is possible.
    Failed,
    Done,
}

/// What is sent after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    Commit,
    /// Commits, and then asks for the position in the log.
    CommitAt,
}

pub(super) struct Transaction {
    connection: Option<Checkout>,
    entry: Beginning,
    /// What a prepared statement is keyed by besides its text: tenant and role.
    scope: String,
    stage: Stage,
    /// A utility statement was run, which may leave anything on the session.
    ran_utility: bool,
    /// The kind of the failure, repeated to callers that send further statements.
    failed_by: Option<ErrorKind>,
    violations: Violations,
    insight: Insight,
    counting: Counting,
    /// The memory that the rows of its answers may take.
    share: Option<Arc<Share>>,
    /// The position in the log after the commit, if it was asked for.
    committed_at: Option<Lsn>,
    /// Spans the time from the wait for a connection to the end.
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
    /// The context proof for the entry point, if the transaction has not passed it. A sealed context is valid
    /// for seconds, so it is made right before it is sent.
    fn vouch(&self, connection: &Checkout, stage: Stage) -> Option<ContextProof> {
        (stage == Stage::Fresh).then(|| connection.vouch(&self.claim))
    }

    /// What precedes a statement that is being prepared: the entry point, if the transaction has not passed
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
        let claim = principal.claim();
        let entry = Beginning { entry_point, principal, claim, access: Access::Write };
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

    /// The same for the statements of a pipeline, with one table for each.
    pub(super) fn count_for_each(&mut self, tables: &[&str], rows: fn(&[Row]) -> u64) {
        self.counting.each = tables.iter().map(|table| self.insight.table(table)).collect();
        self.counting.rows = Some(rows);
    }

    /// Takes the memory of its answers from this share.
    pub(super) fn bound_by(&mut self, share: Arc<Share>) {
        self.share = Some(share);
    }

    /// Takes over the counting and the memory bound of another transaction.
    pub(super) fn count_like(&mut self, other: &Transaction) {
        self.share.clone_from(&other.share);
        self.counting.table = other.counting.table;
        self.counting.rows = other.counting.rows;
    }

    /// Times a tenant's statements, which are counted for the tenant.
    fn watch<'q>(&mut self, statements: Statements<'q>) -> Option<StatementTimer<'q>> {
        match (self.entry.entry_point, &self.entry.principal) {
            (EntryPoint::Tenant, Principal::Tenant(context)) => {
                Some(self.insight.watch(&mut self.counting, context, statements))
            }
            _ => None,
        }
    }

    /// To be called before anything is sent.
    pub(super) fn access(mut self, access: Access) -> Self {
        self.entry.access = access;
        self
    }

    /// Whether no answer has arrived yet.
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

    /// COMMIT can be in the same flush because the statement is prepared: the server executes the messages in
    /// order, and skips the rest if the statement fails.
    pub(super) async fn query_and_commit(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        Ok(self.run(sql, params, Ending::Commit).await?.rows)
    }

    /// The same, and the position in the log after the commit, if this connection reports it.
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
        // A refusal by a replica at the first statement is not final: the primary is asked, and knows the
        // newest keys.
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

    /// If the transaction failed by an outage, later statements report an outage too.
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
        // A batch without BEGIN and COMMIT is a transaction by itself. A procedure could end such a
        // transaction, so CALL gets a block.
        let alone =
            pass.is_some() && entry.access == Access::Write && ending == Ending::Commit && !is_call;
        if let Some(pass) = &pass {
            if !alone {
                batch.quiet(entry.begin(fixed), &[])?;
            }
            if matches!(entry.access, Access::Replica(_)) {
                // The position is read before the statement, so that the statement's snapshot is of that
                // moment or later.
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

    /// The prepared form of a statement for this tenant and role. It is prepared after the entry point, so
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
                // COMMIT would roll back and report success, so the error is returned instead.
                self.rollback().await?;
                Err(self.aborted())
            }
            Stage::Open => self.end_open(Ending::Commit).await,
            Stage::Done => self.require_usable(),
        }
    }

    /// [`commit`](Self::commit), and the position in the log after it, if this connection reports it.
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

    /// Records that the transaction uses this tenant's tables.
    pub(super) fn meet(&mut self, tenant: TenantId) {
        held(&mut self.connection).meet(tenant.into());
    }

    /// A sealed context of another tenant, for this transaction to change to.
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

    /// Forgets a prepared statement that a migration made stale or that SQL deallocated, or a session that
    /// the database no longer knows, and begins again. Returns the error if the cause is none of these, or if
    /// the transaction ran other statements before: then only the caller can repeat it.
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
        // The database's clock was changed, so the offset that this connection has recorded is wrong.
        if is_expired_seal(db) {
            held(&mut self.connection).wire.condemn();
            return Err(error);
        }
        if is_lost_statement(db) {
            return self.renew_statements(error, first, ending).await;
        }
        if is_unknown_seal(db) && held(&mut self.connection).lose_session() {
            // From here on each of its contexts is sealed.
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

    /// Recovers after SQL of this transaction or an earlier one deallocated prepared statements. Begins again
    /// with new ones, if it is certain that nothing was executed.
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

/// The span of a transaction in traces. It contains no statement text, which could hold values. If tracing is
/// off, it costs one check of a flag.
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

/// Cleans the session within the transaction that may have left something on it: if this fails, the
/// transaction is rolled back and leaves nothing. Settings that act before the next transaction's first
/// statement, such as a timeout or `default_transaction_read_only`, are reset here. Deferred constraint
/// triggers run the tenant's SQL, so they run first. `freehold.begin_clean` removes the rest.
fn leave(batch: &mut Batch<'_>, fixed: &Fixed, any: bool) -> Result<(), WireError> {
    fixed.leave(any).try_for_each(|statement| batch.quiet(statement, &[]))
}

/// What is sent after the transaction's last statement.
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

/// A seed for random(): what one tenant learns of its state, or sets by setseed(), reveals nothing about the
/// next tenant's numbers.
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

/// A replica that was promoted writes a log of its own and is no longer a replica.
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
            // Without a runtime there is no task that could clean up, so the connection is closed.
            Err(_) => connection.close(),
        }
    }
}

/// Brings a connection whose statement was abandoned back to idle, or closes it.
///
/// The pool counts it as in use until then. A cancel request arrives on a connection of its own and could hit
/// a later statement, so after a cancel request the connection must answer a statement before it returns to
/// the pool.
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
        // After one statement of a pipeline is cancelled, the next one runs. Each cancel request is a
        // connection of its own, so the interval grows: a statement that takes long to stop is not cancelled
        // every few milliseconds.
        let mut patience = TIDY_GRACE;
        loop {
            cancel.cancel().await?;
            if let Ok(settled) = tokio::time::timeout(patience, wire.settle()).await {
                settled?;
                break;
            }
            patience *= 2;
        }
        // The cancel signal may hit the first of these.
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
