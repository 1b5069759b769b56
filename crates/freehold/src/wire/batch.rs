//! Batches of messages: built one after the other, sent together, answered together.

use std::sync::Arc;

use postgres_protocol::Oid;
use postgres_protocol::message::backend::DataRowBody;
use postgres_protocol::message::frontend;

use super::{Answer, Connection, Result, Row, Statement, WireError};
use crate::model::budget::Share;
use crate::wire::params::Params;

/// Which step of a batch failed, counted from 0. The number of all steps if the failure was at the end, where
/// deferred constraints are checked.
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) error: WireError,
}

#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Its rows are ignored.
    Quiet,
    Rows,
    Prepare,
}

/// The server's answer to a step, unparsed.
#[derive(Default)]
pub(super) struct StepAnswer {
    pub(super) rows: Vec<DataRowBody>,
    pub(super) affected: u64,
    pub(super) parameters: Vec<Oid>,
    pub(super) fields: Option<Vec<(String, Oid)>>,
}

/// Messages that end with one Sync. Outside of a transaction block they are one transaction; a batch of
/// several [sections](Batch::end_section) is one transaction per section, in order.
///
/// Nothing is sent before [`run`](Batch::run). A batch that is dropped before that is never sent.
pub(crate) struct Batch<'c> {
    connection: &'c mut Connection,
    steps: Vec<(Step, Option<Statement>)>,
    /// The step at which each section ends, except the last.
    section_ends: Vec<usize>,
    /// The statements that it closes; they are the caller's until the batch is sent.
    closes: Option<&'c mut Vec<Statement>>,
    /// The length of the outbox before this batch.
    begins_at: usize,
    /// The memory that the rows may take.
    share: Option<Arc<Share>>,
}

impl<'c> Batch<'c> {
    pub(super) fn new(connection: &'c mut Connection) -> Batch<'c> {
        let begins_at = connection.outbox.len();
        let (steps, section_ends) = (Vec::new(), Vec::new());
        Batch { connection, steps, section_ends, closes: None, begins_at, share: None }
    }

    /// Takes the memory of the kept rows from this share; the batch fails if there is not enough.
    pub(crate) fn bounded_by(&mut self, share: Option<Arc<Share>>) {
        self.share = share;
    }

    /// Runs a statement and ignores its rows.
    pub(crate) fn quiet(&mut self, statement: &Statement, params: Params<'_>) -> Result<()> {
        self.put(statement, params, false)?;
        self.steps.push((Step::Quiet, None));
        Ok(())
    }

    /// Runs a statement and keeps its rows.
    pub(crate) fn query(&mut self, statement: &Statement, params: Params<'_>) -> Result<()> {
        // The columns of an unnamed statement may have changed since it was described.
        self.put(statement, params, statement.is_unnamed())?;
        self.steps.push((Step::Rows, Some(statement.clone())));
        Ok(())
    }

    /// Runs a statement whose columns cannot have changed since they were described.
    pub(super) fn query_as_described(
        &mut self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<()> {
        self.put(statement, params, false)?;
        self.steps.push((Step::Rows, Some(statement.clone())));
        Ok(())
    }

    fn put(&mut self, statement: &Statement, params: Params<'_>, describe: bool) -> Result<()> {
        let outbox = &mut self.connection.outbox;
        let before = outbox.len();
        let put = statement.put(params, describe, outbox);
        if put.is_err() {
            outbox.truncate(before);
        }
        put
    }

    /// Closes statements of the session. They are closed first, whether or not the other steps fail.
    pub(super) fn close(&mut self, statements: &'c mut Vec<Statement>) -> Result<()> {
        for statement in statements.iter().filter(|statement| !statement.is_unnamed()) {
            frontend::close(b'S', statement.name(), &mut self.connection.outbox)
                .map_err(WireError::Unsendable)?;
        }
        self.closes = Some(statements);
        Ok(())
    }

    /// Ends a section: after a failure the server skips to this point, and runs what follows.
    pub(crate) fn end_section(&mut self) {
        frontend::sync(&mut self.connection.outbox);
        self.section_ends.push(self.steps.len());
    }

    /// Has the server parse a statement, after the earlier steps of the batch.
    pub(crate) fn prepare(&mut self, name: &str, sql: &str) -> Result<()> {
        let outbox = &mut self.connection.outbox;
        let before = outbox.len();
        let put = frontend::parse(name, sql, [], outbox)
            .and_then(|()| frontend::describe(b'S', name, outbox))
            .map_err(WireError::Unsendable);
        if put.is_err() {
            outbox.truncate(before);
        }
        self.steps.push((Step::Prepare, None));
        put
    }

    /// Sends the batch and reads the answers of its [`query`](Self::query) steps, in their order.
    ///
    /// # Errors
    /// The first step that failed; the steps after it were not run.
    pub(crate) async fn run(self) -> Result<Vec<Answer>> {
        self.run_as_one().await.map_err(|failure| failure.error)
    }

    /// [`run`](Self::run), with the step that failed.
    pub(crate) async fn run_as_one(mut self) -> Result<Vec<Answer>, Failure> {
        let steps = std::mem::take(&mut self.steps);
        let mut sections = self.send(&steps).await;
        let answers = sections.pop().unwrap_or_else(|| Ok(Vec::new()))?;
        self.keep(steps, answers).await.map_err(|error| Failure { step: 0, error })
    }

    /// Sends a batch of sections, and reads the outcome of each. If the connection is lost, there are fewer
    /// outcomes than sections, and the last one is the cause.
    pub(crate) async fn run_sections(mut self) -> Vec<Result<Vec<Answer>, Failure>> {
        let mut steps = std::mem::take(&mut self.steps).into_iter();
        let ends = self.section_ends.clone();
        let answers = self.send(steps.as_slice()).await;
        let mut begin = 0;
        let mut outcomes = Vec::with_capacity(answers.len());
        for (answers, end) in answers.into_iter().zip(ends.into_iter().chain([usize::MAX])) {
            let steps = steps.by_ref().take(end - begin).collect();
            begin = end;
            outcomes.push(match answers {
                Ok(answers) => {
                    self.keep(steps, answers).await.map_err(|error| Failure { step: 0, error })
                }
                Err(failure) => Err(failure),
            });
        }
        outcomes
    }

    /// The answers to steps whose rows are kept.
    async fn keep(
        &mut self,
        steps: Vec<(Step, Option<Statement>)>,
        answers: Vec<StepAnswer>,
    ) -> Result<Vec<Answer>> {
        let connection = &mut *self.connection;
        let mut kept = Vec::new();
        for ((step, statement), answer) in steps.into_iter().zip(answers) {
            let (Step::Rows, Some(statement)) = (step, statement) else { continue };
            let columns = match answer.fields {
                Some(fields) if !statement.describes(&fields) => connection.columns(fields).await?,
                _ => statement.columns(),
            };
            let rows = answer.rows.into_iter().map(|body| Row::new(Arc::clone(&columns), body));
            kept.push(Answer { rows: rows.collect::<Result<_>>()?, affected: answer.affected });
        }
        Ok(kept)
    }

    /// Prepares a statement as the batch's last step. With an empty name, nothing stays on the server.
    pub(crate) async fn run_and_prepare(mut self, name: String, sql: &str) -> Result<Statement> {
        self.prepare(&name, sql)?;
        let mut prepared = self.run_and_prepare_each(vec![(name, sql)]).await;
        prepared.pop().unwrap_or_else(|| Err(WireError::lost()))
    }

    /// Sends a batch whose sections each end with [preparing](Self::prepare) one of these statements. As with
    /// [`run_sections`](Self::run_sections), there may be fewer outcomes.
    pub(crate) async fn run_and_prepare_each(
        mut self,
        prepared: Vec<(String, &str)>,
    ) -> Vec<Result<Statement>> {
        let steps = std::mem::take(&mut self.steps);
        let answers = self.send(&steps).await;
        let mut statements = Vec::with_capacity(prepared.len());
        for ((name, sql), answers) in prepared.into_iter().zip(answers) {
            statements.push(match answers {
                Ok(mut answers) => {
                    self.describe(name, sql, answers.pop().unwrap_or_default()).await
                }
                Err(failure) => Err(failure.error),
            });
        }
        statements
    }

    async fn describe(
        &mut self,
        name: String,
        sql: &str,
        described: StepAnswer,
    ) -> Result<Statement> {
        let connection = &mut *self.connection;
        let mut parameters = Vec::with_capacity(described.parameters.len());
        for oid in described.parameters {
            parameters.push(connection.type_of(oid).await?);
        }
        let columns = connection.columns(described.fields.unwrap_or_default()).await?;
        Ok(Statement::new(name, sql, parameters, columns))
    }

    /// The answer to each section, up to the one at which the connection was lost.
    async fn send(
        &mut self,
        steps: &[(Step, Option<Statement>)],
    ) -> Vec<Result<Vec<StepAnswer>, Failure>> {
        let mut ends = std::mem::take(&mut self.section_ends);
        if ends.last() != Some(&steps.len()) {
            frontend::sync(&mut self.connection.outbox);
            ends.push(steps.len());
        }
        self.connection.unanswered += ends.len();
        // From here on the connection owns the messages and sends them, even if this future is dropped.
        self.begins_at = usize::MAX;
        if let Some(closed) = self.closes.take() {
            closed.clear();
        }
        let kinds: Vec<Step> = steps.iter().map(|(step, _)| *step).collect();
        let mut sections = Vec::with_capacity(ends.len());
        let mut begin = 0;
        for (at, end) in ends.iter().enumerate() {
            let later = ends.len() - at - 1;
            let answered = self
                .connection
                .read_section(&kinds[begin..*end], later, self.share.as_deref())
                .await;
            begin = *end;
            let lost = matches!(&answered, Err(failure) if !failure.error.is_refusal());
            sections.push(answered);
            if lost {
                break;
            }
        }
        sections
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.begins_at != usize::MAX {
            self.connection.outbox.truncate(self.begins_at);
        }
    }
}
