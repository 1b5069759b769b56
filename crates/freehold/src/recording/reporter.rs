//! Writes what `insight` and `indexes::sampler` have counted into the catalog, where the figures of all
//! servers are added up.
//!
//! It writes the busiest tenants every five seconds, and the figures of all tenants every minute, a thousand
//! rows at a time. While the database is unavailable, the figures wait. A batch whose answer was lost is sent
//! again under the same number and counts once. Figures that a killed process had not written are lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::catalog::{indexes, usage};
use crate::error::{Error, ErrorKind, Result};
use crate::indexes::sampler::ShapeSampler;
use crate::model::context::OperatorContext;
use crate::observe::insight::Insight;
use crate::observe::trouble::Trouble;
use crate::pool::Pool;
use crate::tx::CatalogTx;

const BUSIEST_EVERY: Duration = Duration::from_secs(5);
/// The pause between two batches, so that the figures of a large fleet are not written in a burst.
const PAUSE: Duration = Duration::from_millis(20);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// The most query shapes per write.
const SHAPES_MAX: usize = 500;
/// How long a shutdown waits for the rest.
const FLUSH_MAX: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Reporter {
    pool: Pool,
    insight: Insight,
    shapes: ShapeSampler,
    /// One batch at a time: a second one would be taken for a repetition of the first.
    writing: Arc<Mutex<()>>,
}

impl Reporter {
    pub(crate) fn new(pool: Pool, insight: Insight, shapes: ShapeSampler) -> Reporter {
        Reporter { pool, insight, shapes, writing: Arc::default() }
    }

    /// Writes until the task is dropped.
    pub(crate) async fn run(self) {
        let write_every = self.insight.options().write_every;
        let mut ticks = tokio::time::interval(BUSIEST_EVERY.min(write_every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut write_at = Instant::now() + write_every;
        let mut prune_at = Instant::now() + PRUNE_EVERY;
        let mut was_busy = false;
        let trouble = Trouble::default();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let outcome = async {
                was_busy = self.write_busiest(was_busy).await?;
                if now >= write_at {
                    while self.write().await? {
                        tokio::time::sleep(PAUSE).await;
                    }
                    self.write_asked().await?;
                    write_at = now + write_every;
                }
                if now >= prune_at {
                    usage::prune(self.catalog("forget old usage").await?).await?;
                    indexes::prune_shapes(self.catalog("forget old requests").await?).await?;
                    prune_at = now + PRUNE_EVERY;
                }
                Ok::<_, Error>(())
            };
            trouble.note(&outcome.await, "usage cannot be written down; it waits");
        }
    }

    /// Writes all that is outstanding.
    pub(crate) async fn flush(&self) -> Result<()> {
        let all = async {
            while self.write().await? {}
            self.write_asked().await
        };
        tokio::time::timeout(FLUSH_MAX, all).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "usage could not be written down in time"))
        })
    }

    /// Writes one batch, if there is one.
    async fn write(&self) -> Result<bool> {
        let _writing = self.writing.lock().await;
        let Some(batch) = self.insight.batch() else { return Ok(false) };
        usage::record(self.catalog("write usage down").await?, &batch).await?;
        self.insight.written();
        Ok(true)
    }

    /// Writes the sampled query shapes. If the answer is lost they may count twice, which is acceptable for a
    /// sample.
    async fn write_asked(&self) -> Result<()> {
        let mut counts = self.shapes.take();
        while !counts.is_empty() {
            let rows = counts.split_off(counts.len().saturating_sub(SHAPES_MAX));
            let written = async {
                indexes::record_shapes(self.catalog("write down what is asked").await?, &rows).await
            };
            if let Err(error) = written.await {
                self.shapes.put_back(rows);
                self.shapes.put_back(counts);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes the busiest tenants; nothing if no tenant is busy now or was at the previous write.
    async fn write_busiest(&self, was_busy: bool) -> Result<bool> {
        let busiest = self.insight.busiest();
        let is_busy = !busiest.tenants.is_empty();
        if is_busy || was_busy {
            let tx = self.catalog("write down who is busy").await?;
            usage::record_busiest(tx, &busiest).await?;
        }
        Ok(is_busy)
    }

    async fn catalog(&self, reason: &'static str) -> Result<CatalogTx> {
        CatalogTx::new(&self.pool, &OperatorContext::system(reason)).await
    }
}
