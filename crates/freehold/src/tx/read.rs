//! Reads that a replica may answer, and that the primary answers whenever the replica cannot.
//!
//! A read on a replica is one message: `BEGIN READ ONLY`, the replica's own log position, the entry point and
//! the statement. If the position is too old, or anything else fails before the first answer, the statement
//! goes to the primary. If a replica is found to be gone, reads on it are dropped like requests that were
//! dropped.

use super::kind::require_query;
use super::transaction::{Access, Transaction};
use super::{at_most_one, in_tenant, no_row};
use crate::error::{Error, ErrorKind, Result};
use crate::model::budget::Share;
use crate::model::context::TenantContext;
use crate::model::lsn::Lsn;
use crate::pool::Pool;
use crate::replicas::{PrimaryReason, Replica, Replicas};
use crate::wire::Row;
use crate::wire::params::Params;
use std::sync::Arc;

/// A read-only transaction in one tenant's schema, on a replica if one is fit and otherwise on the primary.
///
/// Until the first answer, whatever error a replica returns, the statement is sent to the primary instead,
/// and the caller does not notice. After the first answer the transaction stays where it is.
pub struct ReadTx {
    tx: Transaction,
    context: TenantContext,
    primary: Pool,
    replicas: Replicas,
    /// The replica that answers; `None` on the primary.
    replica: Option<Arc<Replica>>,
}

impl ReadTx {
    pub(crate) async fn new(
        primary: &Pool,
        replicas: &Replicas,
        context: &TenantContext,
        since: Option<Lsn>,
    ) -> Result<ReadTx> {
        let begun = |tx, replica| ReadTx {
            tx,
            context: *context,
            primary: primary.clone(),
            replicas: replicas.clone(),
            replica,
        };
        match replicas.choose(since).await {
            Ok((replica, floor)) => {
                match replica.unless_gone(in_tenant(replica.pool(), context)).await {
                    Ok(tx) => return Ok(begun(tx.access(Access::Replica(floor)), Some(replica))),
                    Err(error) => replicas.note_failure(&replica, &error),
                }
            }
            Err(why) => replicas.note_primary(why),
        }
        Ok(begun(in_tenant(primary, context).await?.access(Access::Read), None))
    }

    /// As [`TenantTx::counted_for`](crate::TenantTx::counted_for).
    #[must_use]
    pub fn counted_for(mut self, table: &str, rows: fn(&[Row]) -> u64) -> Self {
        self.tx.count_for(table, rows);
        self
    }

    /// As [`TenantTx::max_bytes`](crate::TenantTx::max_bytes).
    #[must_use]
    pub fn max_bytes(self, bytes_max: u64) -> Self {
        self.bounded_by(Arc::new(Share::new(bytes_max)))
    }

    /// As [`TenantTx::bounded_by`](crate::TenantTx::bounded_by).
    #[must_use]
    pub fn bounded_by(mut self, share: Arc<Share>) -> Self {
        self.tx.bound_by(share);
        self
    }

    /// Runs a statement and returns its rows. Table names without a schema are the tenant's.
    ///
    /// # Errors
    /// As [`TenantTx::query`](crate::TenantTx::query); a statement that writes is refused with
    /// SQLSTATE 25006. [`ErrorKind::Unavailable`] if the replica is lost after the first answer.
    pub async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.run(sql, params, false).await
    }

    /// [`query`](Self::query) for at most one row.
    pub async fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        at_most_one(self.query(sql, params).await?)
    }

    /// [`query`](Self::query) for exactly one row; none is [`ErrorKind::NotFound`].
    pub async fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row> {
        self.query_opt(sql, params).await?.ok_or_else(no_row)
    }

    /// Runs the last statement and ends the transaction, in one flush.
    pub async fn query_and_end(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.run(sql, params, true).await
    }

    /// Whether a replica answers, rather than the primary.
    pub fn is_on_replica(&self) -> bool {
        self.replica.is_some()
    }

    async fn run(&mut self, sql: &str, params: Params<'_>, last: bool) -> Result<Vec<Row>> {
        require_query(sql)?;
        let Some(replica) = self.replica.clone() else {
            return self.run_here(sql, params, last).await;
        };
        let first = self.tx.is_fresh();
        match replica.unless_gone(self.run_here(sql, params, last)).await {
            Err(error) if first && !lasts(error.kind()) => {
                self.fall_back(&replica, &error).await?;
                self.run_here(sql, params, last).await
            }
            outcome => {
                if first && outcome.is_ok() {
                    self.replicas.note_replica();
                }
                outcome
            }
        }
    }

    async fn run_here(&mut self, sql: &str, params: Params<'_>, last: bool) -> Result<Vec<Row>> {
        match last {
            true => self.tx.query_and_commit(sql, params).await,
            false => self.tx.query(sql, params).await,
        }
    }

    /// Begins again on the primary. Dropping the transaction on the replica cleans up there.
    async fn fall_back(&mut self, replica: &Replica, error: &Error) -> Result<()> {
        self.replicas.note_failure(replica, error);
        let mut tx = in_tenant(&self.primary, &self.context).await?.access(Access::Read);
        tx.count_like(&self.tx);
        self.tx = tx;
        self.replica = None;
        Ok(())
    }
}

/// Errors that the primary would return too: the statement would take as long there, or return as much.
fn lasts(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::AnswerTooLarge | ErrorKind::Overloaded)
}

impl Replicas {
    fn note_failure(&self, replica: &Replica, error: &Error) {
        tracing::debug!(replica = replica.name(), %error, "a read goes to the primary instead");
        if error.kind() == ErrorKind::Unavailable {
            replica.look_now();
        }
        self.note_primary(PrimaryReason::Failed);
    }
}
