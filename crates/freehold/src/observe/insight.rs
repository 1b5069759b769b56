//! What each tenant's statements cost: counted where they run, in memory of a bounded size.
//!
//! A statement adds to one entry, of its tenant and table, behind one of sixteen locks. Some times
//! a minute the entries are taken out: to the busiest tenants, of whom Prometheus hears by name
//! ([`leaders`]), and to what waits to be written into the catalog, where the figures of all servers
//! meet. `reporter` writes it. What took long is kept apart ([`slow`]); `slow_log` writes that.

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
/// Entries of a shard between two takings. What comes beyond is counted for no tenant; sixteen
/// full shards take 10 MB.
const SHARD_ENTRIES_MAX: usize = 8192;
/// Tables that are told apart; the rest are one.
const TABLES_MAX: usize = 64;

/// What is counted, and how it is told.
#[derive(Clone, Copy, Debug)]
pub struct InsightOptions {
    /// How many tenants, the busiest, [`UsageOfTenants::series`](crate::control::insight::UsageOfTenants::series)
    /// names; the rest are summed.
    pub tenants_named: usize,
    /// How often figures are written into the catalog.
    pub write_every: Duration,
    /// How long a statement takes that is a slow query; with none, there is none.
    pub slow_after: Option<Duration>,
    /// Of so many requests, one is counted by what it asks; see
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
    /// Statements that ended, whether well or not.
    pub queries: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Statements that failed or were given up.
    pub errors: u64,
    /// Microseconds between sending them and their answers.
    pub time_us: u64,
    /// Microseconds of waiting for a connection.
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

/// A table's place in the list of those that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableId(u8);

impl TableId {
    /// The caller's own SQL, which is not read.
    pub(crate) const NONE: TableId = TableId(0);
    /// All that came after the list was full.
    const OTHERS: TableId = TableId(1);
}

type Key = (TenantId, TableId);

/// Cheap to clone; all clones are one.
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

    /// The id of a table that a statement is about.
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

    /// Counts for a tenant and a table. No allocation but at the first encounter of the two.
    pub(crate) fn add(&self, tenant: TenantId, table: TableId, usage: &Usage) {
        // A tenant's id is random in its last bits.
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

    /// Begins to watch a statement, or those of a pipeline.
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

    /// What took long, and is not written down yet.
    pub(crate) fn slow(&self) -> &SlowQueries {
        &self.0.slow
    }

    /// Takes out what was counted since the last time, to where it is told from.
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

    /// The busiest tenants by name and the rest as one, since this process began.
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

    /// What the busiest tenants did since this was last asked.
    pub(crate) fn busiest(&self) -> Busiest {
        self.settle().busiest(Instant::now())
    }

    /// The next figures to write; the same again until they are [`written`](Self::written).
    pub(crate) fn batch(&self) -> Option<UsageBatch> {
        let names = self.table_names();
        self.settle().batch(&names)
    }

    /// The figures of the last [`batch`](Self::batch) are in the catalog.
    pub(crate) fn written(&self) {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner).written();
    }
}

/// How a transaction's statements are counted.
pub(crate) struct Counting {
    pub(crate) table: TableId,
    /// The tables of a pipeline's statements, in their order; empty if all are for `table`.
    pub(crate) each: Vec<TableId>,
    /// What its connection was waited for; counted with its first statement.
    pub(crate) wait: Duration,
    /// How many rows an answer tells of, if not as many as it has or has changed.
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

/// Counts its statement, or those of a pipeline, when it ends, and as an error if it is dropped before.
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
    /// The statements have ended, each for itself.
    pub(crate) fn end<T, E>(mut self, outcomes: &[Result<T, E>], rows: impl Fn(&T) -> u64) {
        let outcome = |at: usize| match &outcomes[at] {
            Ok(answer) => (rows(answer), 0),
            Err(_) => (0, 1),
        };
        self.count(outcomes.len(), outcome);
    }

    /// The statements have ended, all of them or none because of the one `at` this place.
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

    /// The statement is asked again elsewhere.
    pub(crate) fn forget(mut self) {
        self.ended = true;
    }

    /// `outcome` tells rows and errors of the statement at a place. The time of a pipeline is its
    /// statements' in equal parts: nobody knows better.
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
