//! Many statements in one flush: as one transaction, or each as a transaction of its own.
//!
//! Statements that were not prepared yet are prepared first, also in one flush. The server runs the
//! statements in the order they are sent, and after a failure skips the rest of that transaction.

use std::collections::HashMap;

use super::{Access, Ending, Stage, Transaction, end, held, kind, leave};
use crate::error::{
    Error, ErrorKind, Result, is_expired_seal, is_lost_statement, is_refused_write, is_stale_plan,
    is_unknown_seal,
};
use crate::observe::insight::Statements;
use crate::wire::params::Params;
use crate::wire::{Answer, Failure, Statement, TransactionStatus, WireError};

/// Fewer than a connection keeps prepared, so that the statements of one pipeline do not evict each other.
pub(in crate::tx) const STATEMENTS_MAX: usize = 256;

/// Statements with their parameters, in the order to be run.
pub(in crate::tx) type Pieces<'a> = &'a [(&'a str, Params<'a>)];

/// Why a pipeline failed, and which of its statements failed.
#[derive(Debug)]
pub struct PipelineError {
    at: Option<usize>,
    error: Error,
}

impl PipelineError {
    /// The index of the statement that failed, from 0. `None` if the failure was not a statement's, or was
    /// the commit's, at which deferred constraints are checked.
    pub fn at(&self) -> Option<usize> {
        self.at
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The error without the index.
    pub fn into_error(self) -> Error {
        self.error
    }

    pub(in crate::tx) fn of(at: usize) -> impl FnOnce(Error) -> PipelineError {
        move |error| PipelineError { at: Some(at), error }
    }

    fn of_none(error: impl Into<Error>) -> PipelineError {
        PipelineError { at: None, error: error.into() }
    }
}

impl std::fmt::Display for PipelineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "statement {at} of the pipeline: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for PipelineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Error> for PipelineError {
    fn from(error: Error) -> Self {
        PipelineError { at: None, error }
    }
}

impl From<PipelineError> for Error {
    fn from(error: PipelineError) -> Self {
        error.error
    }
}

impl Transaction {
    pub(in crate::tx) async fn pipeline(
        &mut self,
        pieces: Pieces<'_>,
    ) -> Result<Vec<Answer>, PipelineError> {
        self.pipeline_to(pieces, Ending::Open).await
    }

    pub(in crate::tx) async fn pipeline_and_commit(
        &mut self,
        pieces: Pieces<'_>,
    ) -> Result<Vec<Answer>, PipelineError> {
        self.pipeline_to(pieces, Ending::Commit).await
    }

    async fn pipeline_to(
        &mut self,
        pieces: Pieces<'_>,
        ending: Ending,
    ) -> Result<Vec<Answer>, PipelineError> {
        require_few(pieces)?;
        let watch = self.watch(Statements::Many(pieces));
        let outcome = self.pipeline_renewed(pieces, ending).await;
        if let Some(watch) = watch {
            let at = outcome.as_ref().err().and_then(PipelineError::at);
            watch.end_all(&outcome, at, |answer| self.counting.rows_of(answer));
        }
        self.failed_by = outcome.as_ref().err().map(|failed| failed.error.kind());
        if let Err(PipelineError { at, error }) = &outcome {
            self.trace_error(error);
            if let Some(at) = at {
                self.record_violation(error, pieces[*at].0);
            }
        }
        outcome
    }

    async fn pipeline_renewed(
        &mut self,
        pieces: Pieces<'_>,
        ending: Ending,
    ) -> Result<Vec<Answer>, PipelineError> {
        let first = self.stage == Stage::Fresh;
        match self.pipeline_once(pieces, ending).await {
            Err(refused) => {
                self.begin_anew(refused, pieces, first, ending).await?;
                self.pipeline_once(pieces, ending).await
            }
            done => done,
        }
    }

    /// Begins again after a migration made statements stale: any of the pipeline's may be.
    async fn begin_anew(
        &mut self,
        PipelineError { at, error }: PipelineError,
        pieces: Pieces<'_>,
        first: bool,
        ending: Ending,
    ) -> Result<(), PipelineError> {
        let sql = at.map_or("", |at| pieces[at].0);
        let renewed = self.renew_if_stale(error, sql, first, ending).await;
        renewed.map_err(|error| PipelineError { at, error })?;
        for (sql, _) in pieces {
            self.forget(sql);
        }
        Ok(())
    }

    async fn pipeline_once(
        &mut self,
        pieces: Pieces<'_>,
        ending: Ending,
    ) -> Result<Vec<Answer>, PipelineError> {
        self.require_usable()?;
        let mut statements = Vec::with_capacity(pieces.len());
        for (at, prepared) in self.statements(pieces).await.into_iter().enumerate() {
            statements.push(prepared.map_err(|error| {
                self.stage = Stage::Failed;
                PipelineError { at: Some(at), error: error.into() }
            })?);
        }
        let outcome = self.send_all(&statements, pieces, ending).await;
        self.stage = match &outcome {
            Ok(_) if ending == Ending::Commit => Stage::Done,
            Ok(_) => Stage::Open,
            Err(_) => Stage::Failed,
        };
        outcome
    }

    async fn send_all(
        &mut self,
        statements: &[Statement],
        pieces: Pieces<'_>,
        ending: Ending,
    ) -> Result<Vec<Answer>, PipelineError> {
        let Transaction { connection, entry, stage, ran_utility, share, .. } = self;
        let connection = held(connection);
        let fixed = &connection.fixed.clone();
        let pass = entry.vouch(connection, *stage);
        let mut batch = connection.batch().map_err(PipelineError::of_none)?;
        batch.bounded_by(share.clone());
        let mut before = 0;
        if let Some(pass) = &pass {
            batch.quiet(&fixed.begin, &[]).map_err(PipelineError::of_none)?;
            entry.put(&mut batch, fixed, pass).map_err(PipelineError::of_none)?;
            before = 2;
        }
        for (at, (statement, (_, params))) in statements.iter().zip(pieces).enumerate() {
            let put = batch.query(statement, params);
            put.map_err(|error| PipelineError { at: Some(at), error: error.into() })?;
        }
        if ending == Ending::Commit {
            end(&mut batch, fixed, ending, *ran_utility).map_err(PipelineError::of_none)?;
        }
        batch.run_as_one().await.map_err(|Failure { step, error }| PipelineError {
            at: step.checked_sub(before).filter(|at| *at < pieces.len()),
            error: error.into(),
        })
    }

    /// Runs each statement as a transaction of its own. All are sent in one flush, each preceded by the entry
    /// point, and each fails alone. A CALL gets a flush to itself: its transaction is a block, which stays
    /// open after an error.
    pub(in crate::tx) async fn each(&mut self, pieces: Pieces<'_>) -> Result<Vec<Result<Answer>>> {
        require_few(pieces)?;
        self.require_usable()?;
        let watch = self.watch(Statements::Many(pieces));
        let mut outcomes: Vec<Option<Result<Answer>>> = Vec::new();
        outcomes.resize_with(pieces.len(), || None);
        let mut pending: Vec<usize> = (0..pieces.len()).collect();
        let mut renewed = vec![false; pieces.len()];
        while !pending.is_empty() {
            let later = pending.split_off(together(&pending, pieces));
            let now: Vec<_> = pending.iter().map(|at| pieces[*at]).collect();
            let answered = match now.as_slice() {
                [call] if kind::is_call(call.0) => self.call_once(*call).await,
                now => self.each_once(now).await,
            };
            let mut again = Vec::new();
            let mut lost = false;
            for (turn, (at, outcome)) in pending.into_iter().zip(answered).enumerate() {
                let sql = pieces[at].0;
                lost |= outcome.as_ref().err().is_some_and(is_of_lost_statement);
                outcomes[at] = match outcome {
                    Err(error) if self.deserves_another(&error, sql, turn, &mut renewed[at]) => {
                        again.push(at);
                        None
                    }
                    Err(error) => {
                        let error = self.explain_unknown_seal(Error::from(error)).await;
                        self.record_violation(&error, sql);
                        Some(Err(error))
                    }
                    Ok(answer) => Some(Ok(answer)),
                };
            }
            if lost && held(&mut self.connection).prepare_anew().await.is_err() {
                held(&mut self.connection).wire.condemn();
            }
            again.extend(later);
            pending = again;
        }
        let mut outcomes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unknown()))).collect();
        self.explain_refused_writes(&mut outcomes).await;
        if let Some(watch) = watch {
            watch.end(&outcomes, |answer| self.counting.rows_of(answer));
        }
        Ok(outcomes)
    }

    /// Reports an outage for the writes that were refused because the server is read-only.
    async fn explain_refused_writes(&mut self, outcomes: &mut [Result<Answer>]) {
        let is_refused = |outcome: &Result<Answer>| {
            let error = outcome.as_ref().err();
            error.and_then(Error::database).is_some_and(is_refused_write)
        };
        let may_write = self.entry.access == Access::Write;
        if !may_write || !outcomes.iter().any(is_refused) || !self.is_on_read_only_server().await {
            return;
        }
        for outcome in outcomes.iter_mut().filter(|outcome| is_refused(outcome)) {
            let refused = std::mem::replace(outcome, Ok(Answer::default()));
            *outcome = refused.map_err(Error::into_read_only);
        }
    }

    /// Whether a statement of [`each`](Self::each) was refused before it ran, for a reason that does not
    /// apply the next time.
    fn deserves_another(
        &mut self,
        error: &WireError,
        sql: &str,
        turn: usize,
        renewed: &mut bool,
    ) -> bool {
        let WireError::Database(db) = error else { return false };
        // Its seal expired while the statements before it ran. The first statement did not wait.
        if is_expired_seal(db) && turn > 0 {
            return true;
        }
        if is_expired_seal(db) {
            held(&mut self.connection).wire.condemn();
            return false;
        }
        if is_unknown_seal(db) {
            held(&mut self.connection).lose_session();
        } else if is_lost_statement(db) {
            // All are prepared again once the outcomes of this flush are known.
        } else if is_stale_plan(db) {
            self.forget(sql);
        } else {
            return false;
        }
        !std::mem::replace(renewed, true)
    }

    async fn each_once(&mut self, pieces: Pieces<'_>) -> Vec<Result<Answer, WireError>> {
        let statements = self.statements(pieces).await;
        let Transaction { connection, entry, share, .. } = self;
        let connection = held(connection);
        let fixed = &connection.fixed.clone();
        let pass = connection.vouch(&entry.claim);
        let mut outcomes: Vec<Result<Answer, WireError>> = Vec::with_capacity(pieces.len());
        let mut batch = match connection.batch() {
            Ok(batch) => batch,
            Err(error) => return vec![Err(error)],
        };
        batch.bounded_by(share.clone());
        for (statement, (_, params)) in statements.into_iter().zip(pieces) {
            let put = statement.and_then(|statement| {
                entry.put(&mut batch, fixed, &pass)?;
                batch.query(&statement, params)?;
                leave(&mut batch, fixed, false)
            });
            // A statement whose messages cannot be built has still sent its entry point, which has no effect.
            batch.end_section();
            outcomes.push(put.map(|()| Answer::default()));
        }
        let answered = batch.run_sections().await;
        let known = answered.len();
        for (outcome, answered) in outcomes.iter_mut().zip(answered) {
            if outcome.is_ok() {
                *outcome = answered
                    .map(|mut answers| answers.pop().unwrap_or_default())
                    .map_err(|failure| failure.error);
            }
        }
        // The outcomes of the rest are unknown.
        outcomes.truncate(known);
        outcomes
    }

    /// Runs a procedure in a block of its own.
    async fn call_once(&mut self, piece: (&str, Params<'_>)) -> Vec<Result<Answer, WireError>> {
        let outcome = self.call_in_block(piece).await;
        let wire = &mut held(&mut self.connection).wire;
        // If this fails, the statements after it fail too.
        if wire.status() != TransactionStatus::Idle && wire.batch_execute("ROLLBACK").await.is_err()
        {
            wire.condemn();
        }
        vec![outcome]
    }

    async fn call_in_block(
        &mut self,
        (sql, params): (&str, Params<'_>),
    ) -> Result<Answer, WireError> {
        let prepared = self.statements(&[(sql, params)]).await.pop();
        let statement = prepared.unwrap_or_else(|| Err(WireError::lost()))?;
        let Transaction { connection, entry, share, .. } = self;
        let connection = held(connection);
        let fixed = &connection.fixed.clone();
        let pass = connection.vouch(&entry.claim);
        let mut batch = connection.batch()?;
        batch.bounded_by(share.clone());
        batch.quiet(&fixed.begin, &[])?;
        entry.put(&mut batch, fixed, &pass)?;
        batch.query(&statement, params)?;
        leave(&mut batch, fixed, false)?;
        batch.quiet(&fixed.commit, &[])?;
        Ok(batch.run().await?.pop().unwrap_or_default())
    }

    /// The prepared form of each statement. The same text is prepared once.
    async fn statements(&mut self, pieces: Pieces<'_>) -> Vec<Result<Statement, WireError>> {
        let mut known: HashMap<&str, Result<Statement, WireError>> = HashMap::new();
        loop {
            let wanted = self.unprepared(pieces, &mut known);
            if wanted.is_empty() {
                break;
            }
            let Transaction { connection, entry, stage, scope, .. } = self;
            let connection = held(connection);
            let before = entry.before(connection, *stage);
            let keyed = wanted.iter().map(|sql| (format!("{scope}{sql}"), *sql)).collect();
            let prepared = match connection.prepare_each(keyed, before).await {
                Ok(prepared) => prepared,
                Err(error) => {
                    known.insert(wanted[0], Err(error));
                    break;
                }
            };
            let mut all = true;
            for (turn, (sql, outcome)) in wanted.into_iter().zip(prepared).enumerate() {
                match outcome {
                    // Its seal expired while the statements before it were prepared.
                    Err(WireError::Database(db)) if turn > 0 && is_expired_seal(&db) => all = false,
                    outcome => drop(known.insert(sql, outcome)),
                }
            }
            if all {
                break;
            }
        }
        let of = |(sql, _): &(&str, Params<'_>)| match known.get(sql) {
            Some(Ok(statement)) => Ok(statement.clone()),
            Some(Err(error)) => Err(error.again()),
            None => Err(WireError::lost()),
        };
        pieces.iter().map(of).collect()
    }

    /// The texts that are not prepared yet, each once.
    fn unprepared<'s>(
        &mut self,
        pieces: &[(&'s str, Params<'_>)],
        known: &mut HashMap<&'s str, Result<Statement, WireError>>,
    ) -> Vec<&'s str> {
        let mut wanted = Vec::new();
        for (sql, _) in pieces {
            if known.contains_key(sql) || wanted.contains(sql) {
                continue;
            }
            let key = format!("{}{sql}", self.scope);
            match held(&mut self.connection).find_statement(&key) {
                Some(statement) => drop(known.insert(sql, Ok(statement))),
                None => wanted.push(*sql),
            }
        }
        wanted
    }

    fn forget(&mut self, sql: &str) {
        let key = format!("{}{sql}", self.scope);
        held(&mut self.connection).forget_statement(&key);
    }
}

/// How many of the first statements fit into one flush.
fn together(pending: &[usize], pieces: Pieces<'_>) -> usize {
    let first_call = pending.iter().position(|at| kind::is_call(pieces[*at].0));
    first_call.map_or(pending.len(), |at| at.max(1))
}

fn require_few(pieces: Pieces<'_>) -> Result<()> {
    if pieces.len() <= STATEMENTS_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("a pipeline takes {STATEMENTS_MAX} statements at most; this has {}", pieces.len()),
    ))
}

fn is_of_lost_statement(error: &WireError) -> bool {
    matches!(error, WireError::Database(db) if is_lost_statement(db))
}

/// The connection was lost before the answer.
fn unknown() -> Error {
    Error::from(WireError::lost())
}
