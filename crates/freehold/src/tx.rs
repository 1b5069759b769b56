//! Transactions in a tenant, on the catalog, and of the owner role. No other module begins one in a tenant.
//!
//! A [`TenantTx`] reaches one tenant's data, a [`CatalogTx`] the catalog. Context, search path and role are
//! set inside the transaction and end with it. BEGIN, context and the first statement are sent in one flush;
//! so is COMMIT, if the statement is the last.
//!
//! Whatever happens to a transaction (its future is dropped at an await, its owner panics, the statement
//! still runs on the server), the connection returns to the pool clean or not at all. `transaction` sees to
//! that; this module defines the kinds of transactions and what each may do.

use std::sync::Arc;

use self::kind::{require_query, require_utility};
pub use self::transaction::pipeline::PipelineError;
use self::transaction::{EntryPoint, Principal, Transaction};
use crate::error::{Error, ErrorKind, Result};
use crate::model::actor::Actor;
use crate::model::budget::Share;
use crate::model::context::{Claim, OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::model::lsn::Lsn;
use crate::pool::Pool;
use crate::wire::params::Params;
use crate::wire::{self, Answer, Row};

mod kind;
mod read;
mod transaction;

pub use self::read::ReadTx;

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

/// A transaction in the catalog: with an [`OperatorContext`] it sees all rows, with a [`TenantContext`] one
/// tenant's rows.
pub(crate) struct CatalogTx(Transaction);

impl TenantTx {
    pub(crate) async fn new(pool: &Pool, context: &TenantContext) -> Result<Self> {
        Ok(TenantTx(in_tenant(pool, context).await?))
    }

    /// Sets what the following statements are counted for: a table, and how many rows an answer contains. By
    /// default they are counted for no table, with the rows that they return or change.
    #[must_use]
    pub fn counted_for(mut self, table: &str, rows: fn(&[Row]) -> u64) -> Self {
        self.0.count_for(table, rows);
        self
    }

    /// [`counted_for`](Self::counted_for) for the statements of the next pipeline: one table for each, in
    /// their order.
    #[must_use]
    pub fn counted_for_each(mut self, tables: &[&str], rows: fn(&[Row]) -> u64) -> Self {
        self.0.count_for_each(tables, rows);
        self
    }

    /// Limits the memory of all rows that this transaction returns, in bytes. The excess of a larger answer
    /// is never read into memory, and the transaction is rolled back with [`ErrorKind::AnswerTooLarge`].
    ///
    /// A call that sends COMMIT along, or is a transaction by itself
    /// ([`query_and_commit`](Self::query_and_commit), [`pipeline_and_commit`](Self::pipeline_and_commit),
    /// [`pipeline_each`](Self::pipeline_each)), may be committed by then. Use [`query`](Self::query) followed
    /// by [`commit`](Self::commit) for a statement that writes and returns much.
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, ErrorKind, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (body text NOT NULL)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let mut tx = freehold.begin(&context).await?.max_bytes(1_000_000);
    /// let refused = tx.query("SELECT repeat('x', 1000000)", &[]).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::AnswerTooLarge);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn max_bytes(self, bytes_max: u64) -> Self {
        self.bounded_by(Arc::new(Share::new(bytes_max)))
    }

    /// [`max_bytes`](Self::max_bytes) by a share of a [`Budget`](crate::Budget). The share holds the
    /// bytes until it is dropped: keep it together with what is made of the rows. If other shares hold the
    /// rest of the budget, the error is [`ErrorKind::Overloaded`].
    #[must_use]
    pub fn bounded_by(mut self, share: Arc<Share>) -> Self {
        self.0.bound_by(share);
        self
    }

    /// Runs a statement and returns its rows. Table names without a schema are the tenant's.
    ///
    /// It begins with SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, WITH or CALL; for others
    /// there is [`run_utility`](Self::run_utility). A procedure that is called cannot commit.
    ///
    /// After an error only [`rollback`](Self::rollback) is left.
    ///
    /// # Errors
    /// [`ErrorKind::Statement`] with PostgreSQL's error in [`Error::database`];
    /// [`ErrorKind::Forbidden`] if the actor's role may not; [`ErrorKind::Violation`] for another
    /// tenant's table; [`ErrorKind::Timeout`], [`ErrorKind::Retryable`], [`ErrorKind::Unavailable`].
    pub async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        require_query(sql)?;
        self.0.query(sql, params).await
    }

    /// [`query`](Self::query) for at most one row.
    pub async fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        at_most_one(self.query(sql, params).await?)
    }

    /// [`query`](Self::query) for exactly one row; none is [`ErrorKind::NotFound`].
    pub async fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row> {
        self.query_opt(sql, params).await?.ok_or_else(no_row)
    }

    /// Runs a statement and returns how many rows it touched.
    pub async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64> {
        require_query(sql)?;
        self.0.execute(sql, params).await
    }

    /// Runs a utility statement that ends with the transaction, and returns its rows: SET LOCAL, SET
    /// CONSTRAINTS, LOCK, EXPLAIN, SHOW, a cursor's DECLARE and FETCH, DDL. Most of them are not subject to
    /// policies, so never let a caller choose their text: the database's roles are the same for all tenants,
    /// and LOCK and EXPLAIN reach any table that the role may read.
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (body text NOT NULL)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let mut tx = freehold.begin(&context).await?;
    /// tx.run_utility("SET LOCAL statement_timeout = '5s'", &[]).await?;
    /// tx.run_utility("LOCK TABLE notes IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    /// tx.query_and_commit("SELECT count(*) FROM notes", &[]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`query`](Self::query); and [`ErrorKind::Statement`] for statements that would outlive the
    /// transaction, end it or take over the connection: SET without LOCAL, PREPARE, COPY, LISTEN, COMMIT,
    /// SAVEPOINT, VACUUM, DECLARE … WITH HOLD, ALTER ROLE and the like.
    pub async fn run_utility(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        require_utility(sql)?;
        self.0.run_utility(sql, params).await
    }

    /// Runs the transaction's last statement and commits, in one flush.
    pub async fn query_and_commit(mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        require_query(sql)?;
        self.0.query_and_commit(sql, params).await
    }

    /// Runs statements in order and in one flush: however many they are, the answers take one round trip.
    /// Texts that were not prepared on this connection take one more round trip for all of them together, and
    /// are prepared before the first statement runs.
    ///
    /// After an error only [`rollback`](Self::rollback) is left; the statements after the one that failed
    /// were not run.
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let insert = "INSERT INTO notes (body) VALUES ($1)";
    /// let answers = freehold
    ///     .pipeline(
    ///         &context,
    ///         &[
    ///             (insert, &[&"buy milk"]),
    ///             (insert, &[&"buy bread"]),
    ///             ("SELECT count(*) FROM notes", &[]),
    ///         ],
    ///     )
    ///     .await?;
    /// assert_eq!(answers[1].affected, 1);
    /// assert_eq!(answers[2].rows[0].get::<_, i64>(0), 2);
    ///
    /// let refused = freehold
    ///     .pipeline(&context, &[(insert, &[&"buy eggs"]), (insert, &[&"buy milk"])])
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(refused.at(), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`query`](Self::query), with the index of the statement that failed;
    /// [`ErrorKind::InvalidInput`] for more than 256 statements.
    pub async fn pipeline(
        &mut self,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Answer>, PipelineError> {
        require_queries(statements)?;
        self.0.pipeline(statements).await
    }

    /// [`pipeline`](Self::pipeline) with the transaction's last statements, and COMMIT in the same
    /// flush.
    ///
    /// # Errors
    /// As for [`pipeline`](Self::pipeline); nothing was committed then.
    pub async fn pipeline_and_commit(
        mut self,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Answer>, PipelineError> {
        require_queries(statements)?;
        self.0.pipeline_and_commit(statements).await
    }

    /// [`Freehold::pipeline_each`](crate::Freehold::pipeline_each): each statement is a transaction of its
    /// own. The transaction must not have run a statement before.
    ///
    /// # Errors
    /// If no statement was run. Otherwise each statement has a result of its own.
    pub async fn pipeline_each(
        mut self,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Result<Answer>>> {
        require_queries(statements)?;
        self.0.each(statements).await
    }

    /// Sends COMMIT in the middle, which no caller can do: for tests of what SQL can do after the
    /// transaction, without a context.
    #[cfg(feature = "testing")]
    pub(crate) async fn end_early(&mut self) -> Result<()> {
        self.0.execute("COMMIT", &[]).await.map(drop)
    }

    /// Commits. An error means that nothing was committed, unless its kind is
    /// [`ErrorKind::Unavailable`]: then the connection was lost before the answer came.
    pub async fn commit(mut self) -> Result<()> {
        self.0.commit().await
    }

    /// [`commit`](Self::commit), and the log position behind which the commit lies, to be passed to
    /// [`Freehold::begin_read`](crate::Freehold::begin_read). `None` without replicas.
    pub async fn commit_at(mut self) -> Result<Option<Lsn>> {
        self.0.commit_at().await
    }

    /// [`query_and_commit`](Self::query_and_commit) in one flush, and the log position as
    /// [`commit_at`](Self::commit_at) returns it.
    pub async fn query_and_commit_at(
        mut self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<(Vec<Row>, Option<Lsn>)> {
        require_query(sql)?;
        self.0.query_and_commit_at(sql, params).await
    }

    /// The generic plan of a statement in this context, as EXPLAIN prints it in JSON. The statement is not
    /// run. The transaction must not have run a statement before.
    pub(crate) async fn explain(mut self, sql: &str) -> Result<serde_json::Value> {
        require_query(sql)?;
        self.0.explain(sql).await
    }

    /// Rolls back, and waits for the server's answer. Dropping rolls back too, in the background.
    pub async fn rollback(mut self) -> Result<()> {
        self.0.rollback().await
    }
}

async fn in_tenant(pool: &Pool, context: &TenantContext) -> Result<Transaction> {
    let scope = format!("{} {}\n", context.tenant().as_uuid().simple(), context.role().as_str());
    Transaction::new(pool, EntryPoint::Tenant, Principal::Tenant(*context), scope).await
}

impl CatalogTx {
    pub(crate) async fn new(pool: &Pool, context: &OperatorContext) -> Result<Self> {
        Self::of(pool, Principal::Operator(context.clone())).await
    }

    /// Sees the catalog rows of the context's tenant, and no others.
    pub(crate) async fn for_tenant(pool: &Pool, context: &TenantContext) -> Result<Self> {
        Self::of(pool, Principal::Tenant(*context)).await
    }

    async fn of(pool: &Pool, principal: Principal) -> Result<Self> {
        let scope = "catalog\n".to_owned();
        Ok(CatalogTx(Transaction::new(pool, EntryPoint::Catalog, principal, scope).await?))
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

    pub(crate) async fn pipeline(
        &mut self,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Answer>, PipelineError> {
        self.0.pipeline(statements).await
    }

    async fn pipeline_and_commit(
        mut self,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Answer>> {
        Ok(self.0.pipeline_and_commit(statements).await?)
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

    /// What lets the owner into a tenant's schema, sealed, and the search path there.
    pub(crate) fn entry_of(&mut self, tenant: TenantId) -> (String, String) {
        self.0.0.meet(tenant);
        let claim = Claim::from(&TenantContext::new(tenant, Actor::SYSTEM));
        (self.0.0.seal(&claim), format!("{}, public, pg_temp", tenant.schema()))
    }

    /// Makes a tenant's schema the current one, with that tenant's context: from here on,
    /// another tenant's rows raise even for the owner.
    pub(crate) async fn enter_schema(&mut self, tenant: TenantId) -> Result<()> {
        let (sealed, path) = self.entry_of(tenant);
        self.0
            .query(
                "SELECT freehold_guard.admit($1), set_config('search_path', $2, true)",
                &[&sealed, &path],
            )
            .await?;
        Ok(())
    }

    /// The bare connection, for DDL. The caller is responsible for what runs on it until the transaction's
    /// next statement.
    pub(crate) async fn ddl<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut wire::Connection) -> Result<T>,
    ) -> Result<T> {
        self.0.0.ddl(work).await
    }

    /// Runs statements that return no rows, as one message.
    pub(crate) async fn batch_execute(&mut self, sql: &str) -> Result<()> {
        self.ddl(async |client| Ok(client.batch_execute(sql).await?)).await
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.0.commit().await
    }

    /// The transaction's last statements and COMMIT, in one flush.
    pub(crate) async fn commit_with(self, statements: &[(&str, Params<'_>)]) -> Result<()> {
        self.0.pipeline_and_commit(statements).await.map(drop)
    }

    pub(crate) async fn rollback(mut self) -> Result<()> {
        self.0.0.rollback().await
    }
}

fn require_queries(statements: &[(&str, Params<'_>)]) -> Result<(), PipelineError> {
    for (at, (sql, _)) in statements.iter().enumerate() {
        require_query(sql).map_err(PipelineError::of(at))?;
    }
    Ok(())
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
