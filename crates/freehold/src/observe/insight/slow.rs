//! Slow queries: what is known of one when it ends, and the queue from which `slow_log` writes it down.
//! Recording takes a short lock and never waits; what exceeds the queue is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::model::context::TenantContext;
use crate::model::ids::TenantId;
use crate::model::origin;
use crate::sql::excerpt::excerpt;
use crate::wire::params::Params;

/// The most statements that wait to be written, and the most of one tenant's.
const WAITING_MAX: usize = 256;
const WAITING_OF_TENANT_MAX: usize = 16;
/// The most bytes that are read of a statement, and that are kept of it. A longer statement gets no plan.
const SQL_BYTES_MAX: usize = 16 * 1024;
const STATEMENT_CHARS_MAX: usize = 2000;

/// The slow statements of a tenant that differ only in their values.
#[derive(Clone)]
pub(crate) struct SlowQuery {
    /// The context of the first one.
    pub(crate) context: TenantContext,
    pub(crate) shape: String,
    pub(crate) table: Arc<str>,
    /// Without values.
    pub(crate) statement: String,
    /// The text as it was sent, including values: to be planned, never to be written down. `None` if it was
    /// timed together with others.
    pub(crate) sql: Option<String>,
    pub(crate) count: u64,
    pub(crate) failed: u64,
    pub(crate) total_us: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
    pub(crate) slowest: Slowest,
}

#[derive(Clone)]
pub(crate) struct Slowest {
    pub(crate) us: u64,
    pub(crate) rows: u64,
    pub(crate) at: Timestamp,
    pub(crate) request_id: Option<String>,
}

impl SlowQuery {
    /// Adds a later occurrence.
    fn add(&mut self, later: SlowQuery) {
        self.count += later.count;
        self.failed += later.failed;
        self.total_us += later.total_us;
        self.last_at = later.last_at;
        if later.slowest.us > self.slowest.us {
            self.slowest = later.slowest;
        }
    }
}

/// How many slow queries this process has seen since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowQueryCounts {
    /// Slow queries in total.
    pub seen: u64,
    /// Those that exceeded the queue.
    pub dropped: u64,
    /// Plans that were made.
    pub plans: u64,
    /// Plans that PostgreSQL could not make, or not in time.
    pub plans_failed: u64,
    /// Plans that exceeded the queue.
    pub plans_dropped: u64,
}

type Key = (TenantId, String);

#[derive(Default)]
pub(crate) struct SlowQueries {
    waiting: Mutex<HashMap<Key, SlowQuery>>,
    seen: AtomicU64,
    dropped: AtomicU64,
    pub(crate) plans: AtomicU64,
    pub(crate) plans_failed: AtomicU64,
    pub(crate) plans_dropped: AtomicU64,
}

/// A statement, or several that were timed together, with the outcome.
pub(super) struct Completed<'q> {
    pub(super) context: TenantContext,
    pub(super) table: Arc<str>,
    pub(super) statements: Statements<'q>,
    pub(super) us: u64,
    pub(super) rows: u64,
    pub(super) failed: bool,
}

/// The statements that are timed together.
#[derive(Clone, Copy)]
pub(crate) enum Statements<'q> {
    One(&'q str),
    Many(&'q [(&'q str, Params<'q>)]),
}

impl Statements<'_> {
    pub(super) fn count(&self) -> usize {
        match self {
            Statements::One(_) => 1,
            Statements::Many(pieces) => pieces.len(),
        }
    }

    /// The text, up to the limit.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |sql: &str| {
            let room = SQL_BYTES_MAX.saturating_sub(text.len());
            text.push_str(&sql[..sql.floor_char_boundary(room)]);
        };
        match self {
            Statements::One(sql) => add(sql),
            Statements::Many(pieces) => {
                for (at, (sql, _)) in pieces.iter().enumerate() {
                    if at > 0 {
                        add(";\n");
                    }
                    add(sql);
                }
            }
        }
        text
    }

    /// The text to be planned: that of a single statement, if it is complete.
    fn plannable(&self) -> Option<String> {
        match self {
            Statements::One(sql) | Statements::Many([(sql, _)]) => {
                Some(*sql).filter(|sql| sql.len() <= SQL_BYTES_MAX).map(ToOwned::to_owned)
            }
            Statements::Many(_) => None,
        }
    }
}

impl SlowQueries {
    pub(super) fn record(&self, ended: &Completed<'_>) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let query = describe(ended);
        let tenant = query.context.tenant();
        let mut waiting = self.waiting();
        let all = waiting.len();
        let own = waiting.keys().filter(|(of, _)| *of == tenant).count();
        match waiting.entry((tenant, query.shape.clone())) {
            Entry::Occupied(mut same) => same.get_mut().add(query),
            Entry::Vacant(place) if all < WAITING_MAX && own < WAITING_OF_TENANT_MAX => {
                place.insert(query);
            }
            Entry::Vacant(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Takes all that is queued.
    pub(crate) fn take(&self) -> Vec<SlowQuery> {
        std::mem::take(&mut *self.waiting()).into_values().collect()
    }

    /// Puts back what could not be written.
    pub(crate) fn give_back(&self, queries: Vec<SlowQuery>) {
        let mut waiting = self.waiting();
        for mut query in queries {
            let all = waiting.len();
            match waiting.entry((query.context.tenant(), query.shape.clone())) {
                Entry::Occupied(mut later) => {
                    query.add(later.get().clone());
                    later.insert(query);
                }
                Entry::Vacant(place) if all < WAITING_MAX => drop(place.insert(query)),
                Entry::Vacant(_) => drop(self.dropped.fetch_add(query.count, Ordering::Relaxed)),
            }
        }
    }

    pub(crate) fn counts(&self) -> SlowQueryCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SlowQueryCounts {
            seen: count(&self.seen),
            dropped: count(&self.dropped),
            plans: count(&self.plans),
            plans_failed: count(&self.plans_failed),
            plans_dropped: count(&self.plans_dropped),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, SlowQuery>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(ended: &Completed<'_>) -> SlowQuery {
    let (text, _) = excerpt(&ended.statements.text(), SQL_BYTES_MAX);
    // The data API's statements contain the tenant's schema. Without it, the statements of all tenants are
    // alike.
    let schema = ended.context.tenant().schema();
    let text = text.replace(&format!("\"{schema}\"."), "").replace(&format!("{schema}."), "");
    let digest = Sha256::digest(&text);
    let (statement, _) = excerpt(&text, STATEMENT_CHARS_MAX);
    let now = Timestamp::now();
    SlowQuery {
        context: ended.context,
        shape: digest[..16].iter().map(|byte| format!("{byte:02x}")).collect(),
        table: Arc::clone(&ended.table),
        statement,
        sql: ended.statements.plannable(),
        count: 1,
        failed: u64::from(ended.failed),
        total_us: ended.us,
        first_at: now,
        last_at: now,
        slowest: Slowest {
            us: ended.us,
            rows: ended.rows,
            at: now,
            request_id: origin::of_request().1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::actor::Actor;

    fn end(queries: &SlowQueries, tenant: u128, sql: &str, us: u64) {
        let tenant = TenantId::from(uuid::Uuid::from_u128(tenant));
        queries.record(&Completed {
            context: TenantContext::new(tenant, Actor::SYSTEM),
            table: "notes".into(),
            statements: Statements::One(sql),
            us,
            rows: us / 10,
            failed: false,
        });
    }

    #[test]
    fn statements_that_differ_in_values_alone_are_one_with_the_slowest_of_them() {
        let queries = SlowQueries::default();
        for (value, us) in [("SECRET", 10), ("SECRETS", 30), ("x", 20)] {
            end(&queries, 1, &format!("SELECT * FROM notes WHERE body = '{value}' -- SECRET"), us);
        }
        end(&queries, 2, "SELECT * FROM notes WHERE body = 'SECRET'", 5);
        let mut taken = queries.take();
        taken.sort_by_key(|query| query.count);
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].shape, taken[1].shape, "of another tenant it is another");
        assert_eq!((taken[1].count, taken[1].total_us), (3, 60));
        assert_eq!((taken[1].slowest.us, taken[1].slowest.rows), (30, 3));
        assert_eq!(taken[1].statement, "SELECT * FROM notes WHERE body = ?");
        assert!(queries.take().is_empty());
        assert_eq!(queries.counts().seen, 4);
    }

    #[test]
    fn a_tenants_schema_is_no_part_of_a_statement() {
        let queries = SlowQueries::default();
        for tenant in [1, 2] {
            let schema = TenantId::from(uuid::Uuid::from_u128(tenant)).schema();
            end(&queries, tenant, &format!("SELECT * FROM \"{schema}\".\"notes\" AS t"), 1);
            end(&queries, tenant, &format!("SELECT * FROM {schema}.notes"), 1);
        }
        let taken = queries.take();
        let with = |statement: &str| taken.iter().filter(|q| q.statement == statement).count();
        assert_eq!(with("SELECT * FROM \"notes\" AS t"), 2);
        assert_eq!(with("SELECT * FROM notes"), 2);
    }

    #[test]
    fn no_tenant_and_no_crowd_of_them_fills_the_memory() {
        let queries = SlowQueries::default();
        for n in 0..100 {
            end(&queries, 1, &format!("SELECT a{n}"), 1);
        }
        end(&queries, 2, "SELECT a1", 1);
        assert_eq!(queries.take().len(), WAITING_OF_TENANT_MAX + 1);
        assert_eq!(queries.counts().dropped, 100 - WAITING_OF_TENANT_MAX as u64);
        for tenant in 0..1000 {
            end(&queries, tenant, "SELECT 1", 1);
        }
        let taken = queries.take();
        assert_eq!(taken.len(), WAITING_MAX);
        end(&queries, 1, "SELECT 1", 1);
        queries.give_back(taken);
        assert!(queries.take().len() <= WAITING_MAX);
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let queries = SlowQueries::default();
        end(&queries, 1, "SELECT 1", 7);
        let taken = queries.take();
        end(&queries, 1, "SELECT 2", 5);
        queries.give_back(taken);
        let taken = queries.take();
        assert_eq!((taken[0].count, taken[0].total_us, taken[0].slowest.us), (2, 12, 7));
    }

    #[test]
    fn an_overlong_statement_is_cut_and_has_no_plan_nor_any_of_its_values() {
        let queries = SlowQueries::default();
        let long = format!("SELECT '{}', {}", "SECRET".repeat(5_000), "a, ".repeat(9_000));
        end(&queries, 1, &long, 1);
        end(&queries, 1, &format!("SELECT {} 'SECRET'", "é, ".repeat(SQL_BYTES_MAX)), 1);
        for query in queries.take() {
            assert!(query.sql.is_none() && query.statement.chars().count() <= 2001);
            assert!(!query.statement.contains("SECRET"), "{}", query.statement);
        }
    }

    #[test]
    fn a_pipeline_is_one_and_has_no_plan() {
        let queries = SlowQueries::default();
        let context = TenantContext::new(TenantId::TEMPLATE, Actor::SYSTEM);
        let none: Params<'_> = &[];
        let pieces = [("SELECT 1", none), ("INSERT INTO notes VALUES ('SECRET')", none)];
        for pieces in [&pieces[..], &pieces[..1]] {
            let statements = Statements::Many(pieces);
            let (table, us, rows) = ("notes".into(), 1, 1);
            queries.record(&Completed { context, table, statements, us, rows, failed: true });
        }
        let taken = queries.take();
        let both = taken.iter().find(|query| query.statement.contains(';')).unwrap();
        assert_eq!(both.statement, "SELECT ?; INSERT INTO notes VALUES (?)");
        assert!(both.sql.is_none() && both.failed == 1);
        assert!(taken.iter().any(|query| query.sql.as_deref() == Some("SELECT 1")));
    }
}
