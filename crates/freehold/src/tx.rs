//! Transactions: the only BEGIN in the house.
//!
//! A [`TenantTx`] reaches one tenant's data, a [`CatalogTx`] the catalog. Context, search path
//! and role are set inside the transaction and end with it. BEGIN, context and the first
//! statement leave in one flush; so does COMMIT, where the statement is the last.
//!
//! Whatever happens to a transaction — it is dropped in the middle of an await, its owner
//! panics, the statement runs on in the server — the connection goes back to the pool clean, or
//! not at all.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join3};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::actor::Actor;
use crate::context::{Claim, OperatorContext, TenantContext};
use crate::error::{Error, ErrorKind, Result, is_stale_plan};
use crate::ids::TenantId;
use crate::pool::{Checkout, Pool};

/// How long the server may take to give a dropped transaction's connection back before it is
/// asked to cancel, and then before the connection is given up.
const TIDY_GRACE: Duration = Duration::from_millis(20);
const TIDY_MAX: Duration = Duration::from_secs(5);

/// Parameters of a statement, `$1` and on: `&[&name, &count]`.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A transaction in one tenant's schema.
///
/// Begins with its first statement. Dropped without [`commit`](TenantTx::commit), it is rolled
/// back, so an early return leaves nothing behind:
///
/// ```
/// # use freehold::testing::{TestDatabase, create_tenant};
/// # use freehold::{Baseline, Migration};
/// use freehold::{Error, ErrorKind, Freehold, Result, TenantContext};
///
/// async fn add_short(freehold: &Freehold, context: &TenantContext, body: &str) -> Result<i64> {
///     let mut tx = freehold.begin(context).await?;
///     let insert = "INSERT INTO notes (body) VALUES ($1) RETURNING id, length(body)";
///     let row = tx.query_one(insert, &[&body]).await?;
///     if row.get::<_, i32>("length") > 20 {
///         return Err(Error::new(ErrorKind::InvalidInput, "too long").field("body"));
///     }
///     tx.commit().await?;
///     Ok(row.get("id"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
/// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
/// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
/// # let database = TestDatabase::create(&server, &baseline).await?;
/// # let freehold = database.freehold().await?;
/// # let (_, context) = create_tenant(&freehold, "acme").await?;
/// add_short(&freehold, &context, "buy milk").await?;
/// add_short(&freehold, &context, "a note of more than twenty letters").await.unwrap_err();
/// assert_eq!(freehold.query(&context, "SELECT * FROM notes", &[]).await?.len(), 1);
/// # Ok(())
/// # }
/// ```
pub struct TenantTx(Transaction);

/// A transaction in the catalog: all of it under an [`OperatorContext`], one tenant's rows under
/// a [`TenantContext`].
pub(crate) struct CatalogTx(Transaction);

impl TenantTx {
    pub(crate) async fn new(pool: &Pool, context: &TenantContext) -> Result<Self> {
        let connection = pool.checkout().await?;
        let scope =
            format!("{} {}\n", context.tenant().as_uuid().simple(), context.role().as_str());
        Ok(TenantTx(Transaction::new(connection, Door::Tenant, context.into(), scope)))
    }

    /// Runs a statement and returns its rows. Table names without a schema are the tenant's.
    ///
    /// After an error only [`rollback`](Self::rollback) is left.
    ///
    /// # Errors
    /// [`ErrorKind::Statement`] with PostgreSQL's error in [`Error::database`];
    /// [`ErrorKind::Forbidden`] if the actor's role may not; [`ErrorKind::Violation`] for another
    /// tenant's table; [`ErrorKind::Timeout`], [`ErrorKind::Retryable`], [`ErrorKind::Unavailable`].
    pub async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.0.query(sql, params).await
    }

    /// [`query`](Self::query) for at most one row.
    pub async fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        at_most_one(self.0.query(sql, params).await?)
    }

    /// [`query`](Self::query) for exactly one row; none is [`ErrorKind::NotFound`].
    pub async fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row> {
        self.query_opt(sql, params).await?.ok_or_else(no_row)
    }

    /// Runs a statement and returns how many rows it touched.
    pub async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        self.0.execute(sql, params).await
    }

    /// Runs the transaction's last statement and commits, in one flush.
    pub async fn query_and_commit(mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.0.query_and_commit(sql, params).await
    }

    /// Commits. An error means that nothing was committed, unless its kind is
    /// [`ErrorKind::Unavailable`]: then the connection was lost before the answer came.
    pub async fn commit(mut self) -> Result<()> {
        self.0.commit().await
    }

    /// Rolls back and waits until the server has done so. Dropping does the same, later.
    pub async fn rollback(mut self) -> Result<()> {
        self.0.rollback().await
    }
}

impl CatalogTx {
    pub(crate) async fn new(pool: &Pool, context: &OperatorContext) -> Result<Self> {
        Self::with_claim(pool, context.into()).await
    }

    /// Sees the catalog rows of the context's tenant, and no others.
    pub(crate) async fn for_tenant(pool: &Pool, context: &TenantContext) -> Result<Self> {
        Self::with_claim(pool, context.into()).await
    }

    async fn with_claim(pool: &Pool, claim: Claim) -> Result<Self> {
        let connection = pool.checkout().await?;
        Ok(CatalogTx(Transaction::new(connection, Door::Catalog, claim, "catalog\n".to_owned())))
    }

    pub(crate) async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.0.query(sql, params).await
    }

    pub(crate) async fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        at_most_one(self.0.query(sql, params).await?)
    }

    pub(crate) async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        self.0.execute(sql, params).await
    }

    pub(crate) async fn query_and_commit(
        mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        self.0.query_and_commit(sql, params).await
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        self.0.commit().await
    }
}

/// A transaction of the owner role: the catalog, and DDL in the schemas of tenants.
pub(crate) struct OwnerTx(CatalogTx);

impl OwnerTx {
    pub(crate) async fn new(owner_pool: &Pool, context: &OperatorContext) -> Result<Self> {
        Ok(OwnerTx(CatalogTx::new(owner_pool, context).await?))
    }

    pub(crate) fn catalog(&mut self) -> &mut CatalogTx {
        &mut self.0
    }

    /// Makes a tenant's schema the current one, with that tenant's context: from here on,
    /// another tenant's rows raise even for the owner.
    pub(crate) async fn enter_schema(&mut self, tenant: TenantId) -> Result<()> {
        let claim = Claim::from(&TenantContext::new(tenant, Actor::SYSTEM));
        let path = format!("{}, public, pg_temp", tenant.schema());
        self.0
            .query(
                "SELECT set_config('freehold.context', $1, true), set_config('search_path', $2, true)",
                &[&claim.as_str(), &path],
            )
            .await?;
        Ok(())
    }

    /// The bare connection, for DDL. Only what runs between here and the next statement of the
    /// transaction is the caller's to mind.
    pub(crate) async fn ddl<T>(
        &mut self,
        work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T>,
    ) -> Result<T> {
        if self.0.0.stage == Stage::Fresh {
            self.0.query("SELECT 1", &[]).await?;
        }
        let client = self.0.0.connection().client.clone();
        self.0.0.busy = true;
        let outcome = work(&client).await;
        self.0.0.busy = false;
        if outcome.is_err() {
            self.0.0.stage = Stage::Failed;
        }
        outcome
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.0.commit().await
    }
}

fn at_most_one(mut rows: Vec<Row>) -> Result<Option<Row>> {
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        n => Err(Error::new(ErrorKind::Statement, format!("expected one row at most, found {n}"))),
    }
}

fn no_row() -> Error {
    Error::new(ErrorKind::NotFound, "no such row")
}

#[derive(Clone, Copy)]
enum Door {
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

struct Transaction {
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
    fn new(connection: Checkout, door: Door, claim: Claim, scope: String) -> Self {
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

    async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
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

    async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
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

    async fn query_and_commit(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
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

    async fn commit(&mut self) -> Result<()> {
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

    async fn rollback(&mut self) -> Result<()> {
        if matches!(self.stage, Stage::Open | Stage::Failed) {
            let client = self.connection().client.clone();
            self.busy = true;
            client.batch_execute("ROLLBACK").await?;
            self.busy = false;
        }
        self.stage = Stage::Done;
        Ok(())
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

/// A value in PostgreSQL's text form, for a parameter of any type; `None` is NULL.
///
/// The server reads it as whatever the statement needs there, so a malformed value is the
/// database's to refuse.
#[derive(Debug)]
pub struct TextParam<'a>(pub Option<&'a str>);

impl ToSql for TextParam<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut tokio_postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
