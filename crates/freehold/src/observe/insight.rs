//! What each tenant's statements cost: counted where they run, in bounded memory.
//!
//! A statement adds to one entry, that of its tenant and table, behind one of sixteen locks. A few times a
//! minute the entries are moved: to the busiest tenants, which Prometheus gets by name ([`leaders`]), and to
//! what waits to be written into the catalog, where the figures of all servers are added up by `reporter`.
//! Slow statements are kept separately ([`slow`]) and written by `slow_log`.

mod accounts;
mod leaders;
pub(crate) mod plan;
mod slow;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use self::accounts::Accounts;
pub(crate) use self::accounts::{Busiest, UsageBatch};
pub use self::leaders::TenantSeries;
use self::slow::Completed;
pub use self::slow::SlowQueryCounts;
pub(crate) use self::slow::{SlowQueries, SlowQuery, Statements};
use crate::model::context::TenantContext;
use crate::model::ids::TenantId;
use crate::wire::{Answer, Row};

const SHARDS: usize = 16;
/// The most entries of a shard between two moves. Further ones are counted for no tenant; sixteen full shards
/// take 10 MB.
const SHARD_ENTRIES_MAX: usize = 8192;
/// The most tables that are counted separately; the others are counted as one.
const TABLES_MAX: usize = 64;

/// What is counted, and how it is reported.
#[derive(Clone, Copy, Debug)]
pub struct InsightOptions {
    /// How many of the busiest tenants [`UsageOfTenants::series`](crate::control::insight::UsageOfTenants::series) lists by
    /// name; the others are summed.
    pub tenants_named: usize,
    /// How often figures are written into the catalog.
    pub write_every: Duration,
    /// The duration from which a statement is a slow query; `None` disables the recording.
    pub slow_after: Option<Duration>,
    /// One request in this many is sampled for its query shape; see
    /// [`Indexes::count_query`](crate::control::indexes::Indexes::count_query).
    pub sample: u32,
}

impl Default for InsightOptions {
    fn default() -> Self {
        InsightOptions {
            tenants_named: 20,
            write_every: Duration::from_secs(60),
            slow_after: Some(Duration::from_millis(500)),
            sample: 16,
        }
    }
}

/// What statements cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Statements that ended, successfully or not.
    pub queries: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Statements that failed or were abandoned.
    pub errors: u64,
    /// Microseconds between sending statements and receiving their answers.
    pub time_us: u64,
    /// Microseconds spent waiting for a connection.
    pub wait_us: u64,
}

impl Usage {
    fn add(&mut self, other: &Usage) {
        self.queries += other.queries;
        self.rows += other.rows;
        self.errors += other.errors;
        self.time_us += other.time_us;
        self.wait_us += other.wait_us;
    }
}

/// The index of a table in the list of those that are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableId(u8);

impl TableId {
    /// The application's own SQL, which is not parsed.
    pub(crate) const NONE: TableId = TableId(0);
    /// All tables after the list was full.
    const OTHERS: TableId = TableId(1);
}

type Key = (TenantId, TableId);

/// Cheap to clone; clones share their state.
#[derive(Clone)]
pub(crate) struct Insight(Arc<Shared>);

struct Shared {
    options: InsightOptions,
    shards: [Mutex<HashMap<Key, Usage>>; SHARDS],
    tables: RwLock<Vec<Arc<str>>>,
    accounts: Mutex<Accounts>,
    slow: SlowQueries,
}

impl Insight {
    pub(crate) fn new(options: InsightOptions) -> Insight {
        Insight(Arc::new(Shared {
            options,
            shards: Default::default(),
            tables: RwLock::new(vec!["(sql)".into(), "(others)".into()]),
            accounts: Mutex::new(Accounts::new(Uuid::new_v4(), options.tenants_named)),
            slow: SlowQueries::default(),
        }))
    }

    pub(crate) fn options(&self) -> InsightOptions {
        self.0.options
    }

    /// The id of a statement's table.
    pub(crate) fn table(&self, name: &str) -> TableId {
        let known = |tables: &[Arc<str>]| tables.iter().position(|known| **known == *name);
        let place = known(&self.0.tables.read().unwrap_or_else(PoisonError::into_inner));
        let place = place.unwrap_or_else(|| {
            let mut tables = self.0.tables.write().unwrap_or_else(PoisonError::into_inner);
            known(&tables).unwrap_or_else(|| {
                if tables.len() >= TABLES_MAX {
                    return usize::from(TableId::OTHERS.0);
                }
                tables.push(name.into());
                tables.len() - 1
            })
        });
        TableId(u8::try_from(place).unwrap_or(TableId::OTHERS.0))
    }

    fn table_name(&self, table: TableId) -> Arc<str> {
        let tables = self.0.tables.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&tables[usize::from(table.0)])
    }

    fn table_names(&self) -> Vec<Arc<str>> {
        self.0.tables.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts for a tenant and a table. Allocates only for a new pair.
    pub(crate) fn add(&self, tenant: TenantId, table: TableId, usage: &Usage) {
        // The last bits of a tenant's id are random.
        let shard = tenant.as_uuid().as_bytes()[15];
        let shard = &self.0.shards[usize::from(shard) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shard.get_mut(&(tenant, table)) {
            return entry.add(usage);
        }
        let room = shard.len() < SHARD_ENTRIES_MAX;
        let key = if room { (tenant, table) } else { (TenantId::TEMPLATE, TableId::OTHERS) };
        shard.entry(key).or_default().add(usage);
    }

    /// Begins to time a statement, or those of a pipeline.
    pub(crate) fn watch<'q>(
        &self,
        counting: &mut Counting,
        context: &TenantContext,
        statements: Statements<'q>,
    ) -> StatementTimer<'q> {
        StatementTimer {
            insight: self.clone(),
            context: *context,
            table: counting.table,
            each: std::mem::take(&mut counting.each),
            wait: std::mem::take(&mut counting.wait),
            began: Instant::now(),
            statements,
            ended: false,
        }
    }

    /// Slow queries that are not written down yet.
    pub(crate) fn slow(&self) -> &SlowQueries {
        &self.0.slow
    }

    /// Moves what was counted since the last time to where it is reported from.
    fn settle(&self) -> MutexGuard<'_, Accounts> {
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in &self.0.shards {
            let taken = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            for (key, usage) in taken {
                accounts.add(key, &usage);
            }
        }
        accounts
    }

    /// The counters of the busiest tenants by name and of the others as one, since this process began.
    pub(crate) fn series(&self) -> Vec<TenantSeries> {
        let series = self.settle().series(Instant::now());
        let names = self.table_names();
        series
            .into_iter()
            .map(|(tenant, table, usage)| TenantSeries {
                tenant,
                table: Arc::clone(&names[usize::from(table.0)]),
                usage,
            })
            .collect()
    }

    /// What the busiest tenants did since the last call.
    pub(crate) fn busiest(&self) -> Busiest {
        self.settle().busiest(Instant::now())
    }

    /// The next figures to write; the same ones again until [`written`](Self::written) is called.
    pub(crate) fn batch(&self) -> Option<UsageBatch> {
        let names = self.table_names();
        self.settle().batch(&names)
    }

    /// Records that the figures of the last [`batch`](Self::batch) are in the catalog.
    pub(crate) fn written(&self) {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner).written();
    }
}

/// How the statements of a transaction are counted.
pub(crate) struct Counting {
    pub(crate) table: TableId,
    /// The tables of a pipeline's statements, in order; empty if all are counted for `table`.
    pub(crate) each: Vec<TableId>,
    /// The wait for the connection; counted with the first statement.
    pub(crate) wait: Duration,
    /// How many rows an answer contains, if not the number that it returned or changed.
    pub(crate) rows: Option<fn(&[Row]) -> u64>,
}

impl Counting {
    pub(crate) fn new(wait: Duration) -> Counting {
        Counting { table: TableId::NONE, each: Vec::new(), wait, rows: None }
    }

    pub(crate) fn rows_of(&self, answer: &Answer) -> u64 {
        match self.rows {
            Some(rows) => rows(&answer.rows),
            None => answer.affected.max(answer.rows.len() as u64),
        }
    }
}

/// Times a statement, or those of a pipeline. Dropped before the end, it counts an error.
pub(crate) struct StatementTimer<'q> {
    insight: Insight,
    context: TenantContext,
    table: TableId,
    each: Vec<TableId>,
    wait: Duration,
    began: Instant,
    statements: Statements<'q>,
    ended: bool,
}

impl StatementTimer<'_> {
    /// The statements have ended, each with an outcome of its own.
    pub(crate) fn end<T, E>(mut self, outcomes: &[Result<T, E>], rows: impl Fn(&T) -> u64) {
        let outcome = |at: usize| match &outcomes[at] {
            Ok(answer) => (rows(answer), 0),
            Err(_) => (0, 1),
        };
        self.count(outcomes.len(), outcome);
    }

    /// The statements have ended: all succeeded, or all failed because of the one `at` this index.
    pub(crate) fn end_all<T, E>(
        mut self,
        outcome: &Result<Vec<T>, E>,
        at: Option<usize>,
        rows: impl Fn(&T) -> u64,
    ) {
        let statements = self.statements.count();
        match outcome {
            Ok(answers) => self.count(statements, |at| (answers.get(at).map_or(0, &rows), 0)),
            Err(_) => {
                let failed = at.unwrap_or(statements.saturating_sub(1));
                self.count(statements, |at| (0, u64::from(at == failed)));
            }
        }
    }

    /// Counts nothing, since the statement is sent again to another server.
    pub(crate) fn forget(mut self) {
        self.ended = true;
    }

    /// `outcome` returns rows and errors of the statement at an index. The time of a pipeline is divided
    /// equally among its statements, since their own times are unknown.
    fn count(&mut self, statements: usize, outcome: impl Fn(usize) -> (u64, u64)) {
        self.ended = true;
        let time_us = micros(self.began.elapsed());
        let mut whole = Usage { time_us, wait_us: micros(self.wait), ..Usage::default() };
        for at in 0..statements {
            let (rows, errors) = outcome(at);
            whole.add(&Usage { queries: 1, rows, errors, ..Usage::default() });
        }
        self.note_if_slow(&whole);
        let tenant = self.context.tenant();
        if self.each.len() != statements {
            return self.insight.add(tenant, self.table, &whole);
        }
        for (at, table) in self.each.iter().enumerate() {
            let (rows, errors) = outcome(at);
            let (at, of) = (at as u64, statements as u64);
            let time_us = time_us * (at + 1) / of - time_us * at / of;
            let wait_us = std::mem::take(&mut whole.wait_us);
            let usage = Usage { queries: 1, rows, errors, time_us, wait_us };
            self.insight.add(tenant, *table, &usage);
        }
    }

    fn note_if_slow(&self, whole: &Usage) {
        let insight = &self.insight;
        if insight.options().slow_after.is_none_or(|after| whole.time_us < micros(after)) {
            return;
        }
        let table = match &self.each[..] {
            [first, rest @ ..] if rest.iter().all(|table| table == first) => *first,
            [] => self.table,
            _ => TableId::NONE,
        };
        insight.slow().record(&Completed {
            context: self.context,
            table: insight.table_name(table),
            statements: self.statements,
            us: whole.time_us,
            rows: whole.rows,
            failed: whole.errors > 0,
        });
    }
}

impl Drop for StatementTimer<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let statements = self.statements.count();
            let last = statements.saturating_sub(1);
            self.count(statements, |at| (0, u64::from(at == last)));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
