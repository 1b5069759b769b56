//! One transaction on one connection: which stage it is in, and what becomes of the connection
//! when it is dropped there.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join3};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::context::Claim;
use crate::error::{Error, ErrorKind, Result, is_stale_plan};
use crate::params::Params;
use crate::pool::Checkout;

/// How long the server may take to give a dropped transaction's connection back before it is
/// asked to cancel, and then before the connection is given up.
const TIDY_GRACE: Duration = Duration::from_millis(20);
const TIDY_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
pub(super) enum Door {
    Tenant,
    Catalog,
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

pub(super) struct Transaction {
    connection: Option<Checkout>,
    door: Door,
    claim: Claim,
    /// What a prepared statement belongs to besides its text.
    scope: String,
    stage: Stage,
    /// Something was sent whose answer has not come: what a drop must wait for.
    busy: bool,
}

impl Transaction {
    pub(super) fn new(connection: Checkout, door: Door, claim: Claim, scope: String) -> Self {
        Transaction {
            connection: Some(connection),
            door,
            claim,
            scope,
            stage: Stage::Fresh,
            busy: false,
        }
    }

    fn connection(&mut self) -> &mut Checkout {
        self.connection.as_mut().expect("a transaction has its connection until it is dropped")
    }

    pub(super) async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let first = self.stage == Stage::Fresh;
        match self.query_prepared(sql, params).await {
            Err(error) => {
                self.renew_if_stale(error, sql, first).await?;
                self.query_prepared(sql, params).await
            }
            done => done,
        }
    }

    async fn query_prepared(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let statement = self.statement(sql).await?;
        let client = self.connection().client.clone();
        self.flush(client.query(&statement, params)).await
    }

    pub(super) async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        let first = self.stage == Stage::Fresh;
        match self.execute_prepared(sql, params).await {
            Err(error) => {
                self.renew_if_stale(error, sql, first).await?;
                self.execute_prepared(sql, params).await
            }
            done => done,
        }
    }

    async fn execute_prepared(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        let statement = self.statement(sql).await?;
        let client = self.connection().client.clone();
        self.flush(client.execute(&statement, params)).await
    }

    pub(super) async fn query_and_commit(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        let first = self.stage == Stage::Fresh;
        match self.query_and_commit_prepared(sql, params).await {
            Err(error) => {
                self.renew_if_stale(error, sql, first).await?;
                self.query_and_commit_prepared(sql, params).await
            }
            done => done,
        }
    }

    async fn query_and_commit_prepared(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        let statement = self.statement(sql).await?;
        let client = self.connection().client.clone();
        // COMMIT may follow in the same flush because the statement is prepared: it is executed
        // in the order it was sent, before the COMMIT. If it fails, COMMIT rolls back.
        let both = async {
            let query = client.query(&statement, params);
            tokio::pin!(query);
            // What is answered at once was never sent: a parameter that the driver refuses. What
            // came before it in the transaction must not be committed then.
            if let Some(unsent) = query.as_mut().now_or_never() {
                return unsent.map(|rows| (Ok(rows), Ok(())));
            }
            Ok(join(query, client.batch_execute("COMMIT")).await)
        };
        let (rows, committed) = self.flush(both).await?;
        // Whichever way it went, the server has ended the transaction.
        self.stage = Stage::Done;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// The prepared form of a statement, under this tenant and role. Prepared inside the
    /// transaction, so that names and rights are the tenant's.
    async fn statement(&mut self, sql: &str) -> Result<Statement> {
        let mut key = String::with_capacity(self.scope.len() + sql.len());
        key.push_str(&self.scope);
        key.push_str(sql);
        if let Some(statement) = self.connection().statements.get(&key) {
            return Ok(statement.clone());
        }
        let client = self.connection().client.clone();
        let statement = self.flush(client.prepare(sql)).await?;
        self.connection().statements.put(key, statement.clone());
        Ok(statement)
    }

    /// Sends one operation and waits for its answer; BEGIN and the context go ahead of the first.
    async fn flush<T>(
        &mut self,
        operation: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match self.stage {
            Stage::Fresh | Stage::Open => {}
            Stage::Failed => return Err(aborted()),
            Stage::Done => {
                return Err(Error::new(ErrorKind::Internal, "the transaction has ended"));
            }
        }
        let first = self.stage == Stage::Fresh;
        self.busy = true;
        self.stage = Stage::Open;
        let outcome = if first {
            let connection = self.connection();
            let doors = connection.doors.clone();
            let client = connection.client.clone();
            let door = match self.door {
                Door::Tenant => doors.enter,
                Door::Catalog => doors.enter_catalog,
            };
            let claim = self.claim.as_str();
            let params: [&(dyn ToSql + Sync); 1] = [&claim];
            let (begun, entered, outcome) =
                join3(client.batch_execute("BEGIN"), client.execute(&door, &params), operation)
                    .await;
            begun.and(entered).and(outcome)
        } else {
            operation.await
        };
        self.busy = false;
        outcome.map_err(|error| {
            self.stage = Stage::Failed;
            Error::from(error)
        })
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
                Err(aborted())
            }
            Stage::Open | Stage::Done => {
                let client = self.connection().client.clone();
                let committed = self.flush(client.batch_execute("COMMIT")).await;
                self.stage = Stage::Done;
                committed
            }
        }
    }

    pub(super) async fn rollback(&mut self) -> Result<()> {
        if matches!(self.stage, Stage::Open | Stage::Failed) {
            let client = self.connection().client.clone();
            self.busy = true;
            client.batch_execute("ROLLBACK").await?;
            self.busy = false;
        }
        self.stage = Stage::Done;
        Ok(())
    }

    /// Lends the bare connection, for statements that cannot be prepared.
    pub(super) async fn ddl<T>(
        &mut self,
        work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T>,
    ) -> Result<T> {
        if self.stage == Stage::Fresh {
            self.query("SELECT 1", &[]).await?;
        }
        let client = self.connection().client.clone();
        self.busy = true;
        let outcome = work(&client).await;
        self.busy = false;
        if outcome.is_err() {
            self.stage = Stage::Failed;
        }
        outcome
    }

    /// Forgets a prepared statement that a migration has made stale, and begins anew. An error if
    /// it is none, or if more came before it in the transaction: only the caller can repeat that.
    async fn renew_if_stale(&mut self, error: Error, sql: &str, first: bool) -> Result<()> {
        if !error.database().is_some_and(is_stale_plan) {
            return Err(error);
        }
        let key = format!("{}{sql}", self.scope);
        self.connection().statements.pop(&key);
        if !first {
            return Err(error);
        }
        self.rollback().await?;
        self.stage = Stage::Fresh;
        Ok(())
    }
}

fn aborted() -> Error {
    Error::new(
        ErrorKind::Statement,
        "an earlier statement of the transaction failed, so nothing of it was committed",
    )
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        match (self.stage, self.busy) {
            (Stage::Fresh | Stage::Done, false) => {}
            (_, false) => {
                // The first poll sends it; the pool's next borrower comes after it in the queue.
                let _ = connection.client.batch_execute("ROLLBACK").now_or_never();
            }
            (_, true) => match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(tidy(connection))),
                // No runtime to tidy up in: close it.
                Err(_) => drop(Checkout::take(connection)),
            },
        }
    }
}

/// Brings a connection whose statement was abandoned back to idle, or closes it.
///
/// The pool counts it as in use until then. A cancel request arrives by a connection of its own
/// and could hit whatever runs by then, so after one the connection must answer a statement
/// before it goes back.
async fn tidy(connection: Checkout) {
    let client = connection.client.clone();
    let rolled_back = client.batch_execute("ROLLBACK");
    tokio::pin!(rolled_back);
    if let Ok(Ok(())) = tokio::time::timeout(TIDY_GRACE, &mut rolled_back).await {
        return;
    }
    let cancelled = async {
        connection.cancel.cancel().await?;
        // Either may be what the signal hit.
        let _ = rolled_back.await;
        let _ = client.batch_execute("ROLLBACK").await;
        Ok::<_, Error>(client.batch_execute("ROLLBACK").await?)
    };
    match tokio::time::timeout(TIDY_MAX, cancelled).await {
        Ok(Ok(())) => {}
        _ => {
            tracing::warn!(
                "a connection did not come to rest after its transaction was dropped; closing it"
            );
            drop(Checkout::take(connection));
        }
    }
}
