//! Records slow queries in the catalog, each with its plan, in the background.
//!
//! Slow queries are written every two seconds. Then at most two plans are made, by EXPLAIN in a transaction
//! of the tenant, which does not run the statement: one per statement and hour, and none while all
//! connections are in use. Whatever exceeds a limit is counted and dropped: this task must not slow down
//! requests.
//!
//! `tx/transaction/explain.rs` asks for the plan in a read-only transaction of the tenant, by PREPARE and
//! EXPLAIN EXECUTE with NULLs; `observe/insight/plan.rs` keeps of it what is known to contain no value.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::catalog::slow_queries;
use crate::error::{Error, ErrorKind, Result};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::observe::insight::{Insight, SlowQuery, plan};
use crate::observe::trouble::Trouble;
use crate::pool::{Pool, PoolStatus};
use crate::resolve::resolver::Resolver;
use crate::tx::{CatalogTx, TenantTx};

const WRITE_EVERY: Duration = Duration::from_secs(2);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// The pause between two plans of one statement, and for how many statements it is remembered.
const PLAN_EVERY: Duration = Duration::from_secs(3600);
const PLANNED_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// The most plans per round, which makes one a second.
const PLANS_OF_ROUND: usize = 2;
/// The most plans that wait, and the most of one tenant's.
const WANTED_MAX: usize = 64;
const WANTED_OF_TENANT_MAX: usize = 4;
/// PostgreSQL gives up after a second; this is for a connection that hangs.
const PLAN_MAX: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the rest.
const FLUSH_MAX: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct SlowLog {
    /// Where plans are made, in the tenant's own transaction.
    app: Pool,
    catalog: Pool,
    resolver: Resolver,
    insight: Insight,
    plans: Arc<Mutex<Plans>>,
}

struct Plans {
    wanted: VecDeque<PlanRequest>,
    /// When a statement's plan was last made.
    asked: LruCache<(TenantId, String), Instant>,
}

/// A statement to be planned, in the context in which it was slow.
struct PlanRequest {
    context: TenantContext,
    shape: String,
    sql: String,
}

impl SlowLog {
    pub(crate) fn new(app: &Pool, catalog: &Pool, resolver: Resolver, insight: Insight) -> SlowLog {
        let plans = Plans { wanted: VecDeque::new(), asked: LruCache::new(PLANNED_MAX) };
        let (app, catalog) = (app.clone(), catalog.clone());
        SlowLog { app, catalog, resolver, insight, plans: Arc::new(Mutex::new(plans)) }
    }

    /// Writes until the task is dropped.
    pub(crate) async fn run(self) {
        if self.insight.options().slow_after.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune_at = Instant::now() + PRUNE_EVERY;
        let trouble = Trouble::default();
        loop {
            ticks.tick().await;
            let outcome = async {
                self.write().await?;
                self.make_plans().await?;
                if prune_at <= Instant::now() {
                    slow_queries::prune(self.catalog("forget old slow queries").await?).await?;
                    prune_at = Instant::now() + PRUNE_EVERY;
                }
                Ok::<_, Error>(())
            };
            trouble.note(&outcome.await, "slow queries cannot be written down; they wait");
        }
    }

    /// Writes all that is queued. No further plans are made.
    pub(crate) async fn flush(&self) -> Result<()> {
        tokio::time::timeout(FLUSH_MAX, self.write()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "slow queries could not be written down in time"))
        })
    }

    async fn write(&self) -> Result<()> {
        let mut plans = self.plans.lock().await;
        let queries = self.insight.slow().take();
        if queries.is_empty() {
            return Ok(());
        }
        let written = async {
            slow_queries::record(self.catalog("write slow queries down").await?, &queries).await
        };
        if let Err(error) = written.await {
            self.insight.slow().give_back(queries);
            return Err(error);
        }
        let left_out = queries.into_iter().filter(|query| !plans.want(query)).count() as u64;
        self.insight.slow().plans_dropped.fetch_add(left_out, Ordering::Relaxed);
        Ok(())
    }

    async fn make_plans(&self) -> Result<()> {
        for _ in 0..PLANS_OF_ROUND {
            if !self.has_room() {
                return Ok(());
            }
            let Some(wanted) = self.plans.lock().await.wanted.pop_front() else { return Ok(()) };
            match self.explain(&wanted).await {
                Ok(Some(plan)) => {
                    if let Err(error) = self.record_plan(&wanted, &plan).await {
                        self.plans.lock().await.wanted.push_front(wanted);
                        return Err(error);
                    }
                    self.insight.slow().plans.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => drop(self.insight.slow().plans_failed.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    // The message may contain a value from the statement's text.
                    tracing::debug!(kind = error.kind().code(), "no plan of a slow query");
                    self.insight.slow().plans_failed.fetch_add(1, Ordering::Relaxed);
                    if may_pass(&error) {
                        let key = (wanted.context.tenant(), wanted.shape);
                        self.plans.lock().await.asked.pop(&key);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a connection is idle and no caller waits for one.
    fn has_room(&self) -> bool {
        let PoolStatus { connections_max, connections, idle, waiting, .. } = self.app.status();
        waiting == 0 && connections < connections_max + idle
    }

    async fn explain(
        &self,
        PlanRequest { context, sql, .. }: &PlanRequest,
    ) -> Result<Option<serde_json::Value>> {
        // The tenant may have been suspended meanwhile.
        let context = self.resolver.resolve_as(context.tenant(), context.actor()).await?;
        let explained = async { TenantTx::new(&self.app, &context).await?.explain(sql).await };
        match tokio::time::timeout(PLAN_MAX, explained).await {
            Ok(explained) => Ok(plan::without_values(&explained?)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the plan did not come in time")),
        }
    }

    async fn record_plan(&self, wanted: &PlanRequest, plan: &serde_json::Value) -> Result<()> {
        let tx = self.catalog("write a plan down").await?;
        slow_queries::record_plan(tx, wanted.context.tenant(), &wanted.shape, plan).await
    }

    async fn catalog(&self, reason: &'static str) -> Result<CatalogTx> {
        CatalogTx::new(&self.catalog, &OperatorContext::system(reason)).await
    }
}

/// Whether another attempt is worthwhile when the statement is slow again.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::PoolExhausted | ErrorKind::Retryable)
}

impl Plans {
    /// Queues a request for a plan, unless one was made recently. False if the queue is full.
    fn want(&mut self, query: &SlowQuery) -> bool {
        let Some(sql) = &query.sql else { return true };
        let tenant = query.context.tenant();
        let key = (tenant, query.shape.clone());
        if self.asked.get(&key).is_some_and(|at| at.elapsed() < PLAN_EVERY) {
            return true;
        }
        let own = self.wanted.iter().filter(|wanted| wanted.context.tenant() == tenant).count();
        if self.wanted.len() >= WANTED_MAX || own >= WANTED_OF_TENANT_MAX {
            return false;
        }
        self.asked.push(key, Instant::now());
        let (shape, sql) = (query.shape.clone(), sql.clone());
        self.wanted.push_back(PlanRequest { context: query.context, shape, sql });
        true
    }
}
