//! Messages that go out together: put one after the other, sent whole, answered whole.

use std::sync::Arc;

use postgres_protocol::Oid;
use postgres_protocol::message::backend::DataRowBody;
use postgres_protocol::message::frontend;

use super::{Answer, Connection, Result, Row, Statement, WireError};
use crate::params::Params;

#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Its rows are of no interest.
    Quiet,
    Rows,
    Prepare,
}

/// What the server sent for a step, as it came.
#[derive(Default)]
pub(super) struct StepAnswer {
    pub(super) rows: Vec<DataRowBody>,
    pub(super) affected: u64,
    pub(super) parameters: Vec<Oid>,
    pub(super) fields: Option<Vec<(String, Oid)>>,
}

/// Messages that end with one Sync. Outside of a transaction block they are a transaction.
///
/// Nothing is sent before [`run`](Batch::run); dropped before that, nothing of it ever is.
pub(crate) struct Batch<'c> {
    connection: &'c mut Connection,
    steps: Vec<(Step, Option<Statement>)>,
    /// How long the outbox was before.
    begins_at: usize,
}

impl<'c> Batch<'c> {
    pub(super) fn new(connection: &'c mut Connection) -> Batch<'c> {
        let begins_at = connection.outbox.len();
        Batch { connection, steps: Vec::new(), begins_at }
    }

    /// Runs a statement whose rows are of no interest.
    pub(crate) fn quiet(&mut self, statement: &Statement, params: Params<'_>) -> Result<()> {
        self.put(statement, params, false)?;
        self.steps.push((Step::Quiet, None));
        Ok(())
    }

    /// Runs a statement and keeps its rows.
    pub(crate) fn query(&mut self, statement: &Statement, params: Params<'_>) -> Result<()> {
        // What an unnamed statement returns may have changed since it was described.
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

    /// Forgets a statement of the session.
    pub(crate) fn close(&mut self, statement: &Statement) -> Result<()> {
        if statement.is_unnamed() {
            return Ok(());
        }
        frontend::close(b'S', statement.name(), &mut self.connection.outbox)
            .map_err(WireError::Unsendable)
    }

    /// Has the server read a statement, under what the batch's earlier steps have set.
    fn prepare(&mut self, name: &str, sql: &str) -> Result<()> {
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
    pub(crate) async fn run(mut self) -> Result<Vec<Answer>> {
        let steps = std::mem::take(&mut self.steps);
        let answers = self.send(&steps).await?;
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

    /// Prepares a statement as the batch's last step. An empty name leaves nothing on the server.
    pub(crate) async fn run_and_prepare(mut self, name: String, sql: &str) -> Result<Statement> {
        self.prepare(&name, sql)?;
        let steps = std::mem::take(&mut self.steps);
        let described = self.send(&steps).await?.pop().unwrap_or_default();
        let connection = &mut *self.connection;
        let mut parameters = Vec::with_capacity(described.parameters.len());
        for oid in described.parameters {
            parameters.push(connection.type_of(oid).await?);
        }
        let columns = connection.columns(described.fields.unwrap_or_default()).await?;
        Ok(Statement::new(name, sql, parameters, columns))
    }

    async fn send(&mut self, steps: &[(Step, Option<Statement>)]) -> Result<Vec<StepAnswer>> {
        frontend::sync(&mut self.connection.outbox);
        self.connection.unanswered += 1;
        // From here on it is the connection's to send, whatever becomes of this future.
        self.begins_at = usize::MAX;
        let kinds: Vec<Step> = steps.iter().map(|(step, _)| *step).collect();
        self.connection.read_answers(&kinds).await
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.begins_at != usize::MAX {
            self.connection.outbox.truncate(self.begins_at);
        }
    }
}
