//! Records violations in the catalog, in transactions of its own: the transaction in which a violation
//! occurred is rolled back.
//!
//! It writes at most a hundred rows at a time and ten times a second, so that a flood of violations does not
//! flood the database. While the database is unavailable, violations wait in the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::catalog::violations;
use crate::error::{Error, ErrorKind, Result};
use crate::model::context::OperatorContext;
use crate::observe::trouble::Trouble;
use crate::observe::violations::Violations;
use crate::pool::Pool;
use crate::tx::CatalogTx;

const ROWS_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Old rows are deleted after this many new ones, or after this time.
const PRUNE_ROWS: usize = 1000;
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How long a shutdown waits for the rest.
const FLUSH_MAX: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Recorder {
    pool: Pool,
    violations: Violations,
    /// One batch at a time, so that a flush beside the task uses no second connection.
    writing: Arc<Mutex<()>>,
}

impl Recorder {
    pub(crate) fn new(pool: Pool, violations: Violations) -> Recorder {
        Recorder { pool, violations, writing: Arc::default() }
    }

    /// Writes until the task is dropped.
    pub(crate) async fn run(self) {
        let (mut pause, trouble) = (PAUSE, Trouble::default());
        let (mut prune_at, mut unpruned) = (Instant::now() + PRUNE_EVERY, 0);
        loop {
            let _ = tokio::time::timeout_at(prune_at, self.violations.due()).await;
            let outcome = async {
                unpruned += self.write(false).await?;
                if unpruned >= PRUNE_ROWS || prune_at <= Instant::now() {
                    self.prune().await?;
                    (prune_at, unpruned) = (Instant::now() + PRUNE_EVERY, 0);
                }
                Ok::<_, Error>(())
            };
            let outcome = outcome.await;
            trouble.note(&outcome, "violations cannot be written down; they wait");
            pause = match outcome {
                Ok(()) => PAUSE,
                Err(_) => (pause * 2).min(PAUSE_MAX),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes all that is queued, without waiting for repetitions to fold.
    pub(crate) async fn flush(&self) -> Result<()> {
        let all = async {
            while self.write(true).await? > 0 {}
            Ok(())
        };
        tokio::time::timeout(FLUSH_MAX, all).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "violations could not be written down in time"))
        })
    }

    /// Writes one batch and returns how many rows it had.
    async fn write(&self, early: bool) -> Result<usize> {
        let _writing = self.writing.lock().await;
        let rows = self.violations.batch(ROWS_MAX, early);
        if rows.is_empty() {
            return Ok(0);
        }
        let context = OperatorContext::system("write violations down");
        violations::record(CatalogTx::new(&self.pool, &context).await?, &rows).await?;
        self.violations.written(&rows);
        Ok(rows.len())
    }

    async fn prune(&self) -> Result<()> {
        let context = OperatorContext::system("forget old violations");
        violations::prune(CatalogTx::new(&self.pool, &context).await?).await
    }
}
