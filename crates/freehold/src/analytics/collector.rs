//! Reads tenants and writes rollups. A worker has a connection for reading and one for writing; workers share
//! the tenants.
//!
//! A tenant is read by one message, which PostgreSQL runs as a transaction. So a tenant's locks are held only
//! during its own statements, and its failure affects no other tenant. Several tenants are written together.
//! Neither uses a CPU for long: other work on the same machine waits no longer than one message or statement
//! takes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage, Statement, Transaction};
use uuid::Uuid;

use crate::analytics::Connections;
use crate::analytics::activity::{Counts, Work};
use crate::analytics::rollup::{ROWS_MAX, Rollup, VALUE_CHARS_MAX};
use crate::analytics::source::{Reader, Source};
use crate::analytics::throttle::Throttle;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::wire::client;

/// A tenant whose tables are locked is tried again at the next run.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Values are transferred as text: both ends must agree on the format, and a day must not depend on the
/// server's time zone.
const SAME_TEXT: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1;";

/// A tenant to be read, and the definitions to read it for, by index.
pub(crate) struct Job {
    pub(crate) tenant: TenantId,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) place: usize,
    pub(crate) work: Work,
    pub(crate) counts: Option<Counts>,
}

/// The outcome of one part.
pub(crate) struct Outcome {
    pub(crate) tenant: TenantId,
    pub(crate) part: Part,
    pub(crate) rows: Result<Rows, String>,
}

/// Rows as PostgreSQL prints them.
#[derive(Default)]
pub(crate) struct Rows(Vec<Vec<Option<String>>>);

/// Identifies the run that writes.
#[derive(Clone, Copy)]
pub(crate) struct Fence<'a> {
    pub(crate) token: Uuid,
    pub(crate) names: &'a [String],
    pub(crate) as_of: Timestamp,
}

impl Fence<'_> {
    /// Fails if a later run has taken over. Until the transaction ends, none can.
    pub(crate) async fn hold(&self, tx: &Transaction<'_>) -> Result<()> {
        let rows = tx
            .query(
                "SELECT FROM freehold.analytics_run WHERE token = $1 AND name = ANY($2) FOR SHARE",
                &[&self.token, &self.names],
            )
            .await?;
        if rows.len() == self.names.len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "a later run has taken over, or the definitions were changed meanwhile; nothing more was written",
        ))
    }
}

pub(crate) struct Worker {
    reader: Reader,
    pub(crate) writer: Client,
    throttle: Throttle,
    statements: Statements,
    tenant_timeout: Duration,
}

struct Statements {
    /// By the definition's index.
    write: Vec<Statement>,
    succeed: Statement,
    fail: Statement,
}

impl Worker {
    pub(crate) async fn open(
        connections: &Connections,
        source: &Source,
        rollups: &[Rollup],
        tenant_timeout: Duration,
    ) -> Result<Worker> {
        // These connections belong to analytics alone and use no pooler, so session settings are safe.
        let settings = format!(
            "{SAME_TEXT} SET default_transaction_read_only = on; SET statement_timeout = {};
             SET lock_timeout = {}; SET max_parallel_workers_per_gather = 0; SET jit = off",
            tenant_timeout.as_millis(),
            LOCK_TIMEOUT.as_millis(),
        );
        let reader = Reader::open(source, &connections.primary, settings).await?;
        let writer = client::connect(&connections.primary).await?;
        // The planner does not know the length of an array; only a nested loop over two would be a bad plan.
        writer
            .batch_execute(&format!(
                "{SAME_TEXT} SET search_path = pg_catalog, pg_temp; SET statement_timeout = '120s';
                 SET lock_timeout = '10s'; SET max_parallel_workers_per_gather = 0;
                 SET enable_nestloop = off; SET jit = off"
            ))
            .await?;
        let mut write = Vec::new();
        for rollup in rollups {
            write.push(writer.prepare(&rollup.write_sql()).await?);
        }
        let statements = Statements {
            write,
            succeed: writer.prepare(SUCCEED_SQL).await?,
            fail: writer.prepare(FAIL_SQL).await?,
        };
        let throttle = connections.throttle.clone();
        Ok(Worker { reader, writer, throttle, statements, tenant_timeout })
    }

    /// Reads some tenants. An error means that no further tenant can be read; the failure of a single tenant
    /// is an outcome.
    pub(crate) async fn read(&self, rollups: &[Rollup], jobs: &[Job]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for job in jobs {
            outcomes.append(&mut self.read_tenant(rollups, job).await?);
        }
        Ok(outcomes)
    }

    async fn read_tenant(&self, rollups: &[Rollup], job: &Job) -> Result<Vec<Outcome>> {
        if let Ok(outcomes) = self.read_parts(rollups, job.tenant, &job.parts).await? {
            return Ok(outcomes);
        }
        // One of them failed, and with it those after it: now each by itself.
        let mut outcomes = Vec::new();
        for part in &job.parts {
            match self.read_parts(rollups, job.tenant, &[*part]).await? {
                Ok(mut one) => outcomes.append(&mut one),
                Err(why) => {
                    outcomes.push(Outcome { tenant: job.tenant, part: *part, rows: Err(why) });
                }
            }
        }
        Ok(outcomes)
    }

    async fn read_parts(
        &self,
        rollups: &[Rollup],
        tenant: TenantId,
        parts: &[Part],
    ) -> Result<Result<Vec<Outcome>, String>> {
        // One connection reads many tenants, and functions of a baseline may run on it. The ROLLBACK undoes
        // what they leave on the session, except locks.
        let mut message = format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_unlock_all(), pg_catalog.set_config('search_path', '{}, public, pg_temp', true)",
            tenant.schema()
        );
        for part in parts {
            let since = match part.work {
                Work::Since(since) => Some(since),
                Work::All | Work::Nothing => None,
            };
            message.push_str(";\n");
            message.push_str(&rollups[part.place].read_sql(since));
        }
        message.push_str(";\nROLLBACK");
        self.throttle.pause().await;
        let answers = match self.reader.ask(&message).await? {
            Ok(answers) => answers,
            Err(error) => return self.tenants_own(error).map(Err),
        };
        let mut sets = vec![Rows::default()];
        for answer in answers {
            match answer {
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect();
                    sets.last_mut().expect("there is one from the start").0.push(cells);
                }
                SimpleQueryMessage::CommandComplete(_) => sets.push(Rows::default()),
                _ => {}
            }
        }
        // The first results are those of BEGIN and of the search path.
        let outcomes = parts.iter().zip(sets.into_iter().skip(2)).map(|(part, rows)| Outcome {
            tenant,
            part: *part,
            rows: rows.check(&rollups[part.place]),
        });
        Ok(Ok(outcomes.collect()))
    }

    /// The message for a tenant that could not be read; an error if the failure is not the tenant's.
    fn tenants_own(&self, error: tokio_postgres::Error) -> Result<String> {
        let Some(db) = error.as_db_error() else { return Err(error.into()) };
        let code = db.code();
        if ["08", "53", "57P"].iter().any(|class| code.code().starts_with(class)) {
            return Err(error.into());
        }
        Ok(match code {
            code if *code == SqlState::QUERY_CANCELED => {
                format!("reading it took longer than {} ms", self.tenant_timeout.as_millis())
            }
            code if *code == SqlState::LOCK_NOT_AVAILABLE => {
                "one of its tables is locked, by a migration perhaps".to_owned()
            }
            code => format!("{} ({})", db.message(), code.code()),
        })
    }

    /// Writes what was read, for several tenants together. If that fails because of the content of rows, each
    /// tenant separately. Returns the outcome of each tenant's part.
    pub(crate) async fn write(
        &mut self,
        fence: Fence<'_>,
        outcomes: Vec<Outcome>,
    ) -> Result<Vec<Outcome>> {
        match self.write_together(fence, &outcomes).await {
            Err(error) if outcomes.len() > 1 && is_of_rows(&error) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(outcomes),
        }
        let mut written = Vec::new();
        for outcome in outcomes {
            let mut one = [outcome];
            if let Err(error) = self.write_together(fence, &one).await {
                if !is_of_rows(&error) {
                    return Err(error);
                }
                one[0].rows = Err(error.to_string());
                self.write_together(fence, &one).await?;
            }
            written.extend(one);
        }
        Ok(written)
    }

    async fn write_together(&mut self, fence: Fence<'_>, outcomes: &[Outcome]) -> Result<()> {
        let mut by_place: BTreeMap<usize, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            by_place.entry(outcome.part.place).or_default().push(outcome);
        }
        let tx = self.writer.transaction().await?;
        fence.hold(&tx).await?;
        // A few tenants of many: by the index, even before the rollup was first analysed.
        tx.batch_execute("SET LOCAL enable_seqscan = off").await?;
        for (place, outcomes) in by_place {
            self.throttle.pause().await;
            let name = &fence.names[place];
            let succeeded: Vec<_> = outcomes
                .iter()
                .filter_map(|o| Some((o.tenant, o.part, o.rows.as_ref().ok()?)))
                .collect();
            let failed: Vec<_> =
                outcomes.iter().filter_map(|o| Some((o.tenant, o.rows.as_ref().err()?))).collect();
            // First the progress of each tenant: a concurrent deletion waits for that row, and finds what is
            // written here when it continues.
            let there =
                succeed(&tx, &self.statements.succeed, name, fence.as_of, &succeeded).await?;
            if !failed.is_empty() {
                let (tenants, errors): (Vec<_>, Vec<_>) =
                    failed.iter().map(|(tenant, error)| (tenant.as_uuid(), error.as_str())).unzip();
                tx.execute(&self.statements.fail, &[name, &tenants, &errors]).await?;
            }
            self.throttle.pause().await;
            write_rows(&tx, &self.statements.write[place], &succeeded, &there).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

impl Rows {
    /// Checks for one row per grain value, and the limits of number and size.
    fn check(self, rollup: &Rollup) -> Result<Rows, String> {
        if self.0.len() > ROWS_MAX {
            return Err(format!("it has more than {ROWS_MAX} rows"));
        }
        let is_too_long = |cell: &Option<String>| {
            let longer = |text: &String| {
                text.len() > VALUE_CHARS_MAX && text.chars().nth(VALUE_CHARS_MAX).is_some()
            };
            cell.as_ref().is_some_and(longer)
        };
        if let Some(long) = self.0.iter().find_map(|row| row.iter().position(is_too_long)) {
            let name = rollup.columns().nth(long).map_or_else(String::new, |c| c.name.clone());
            return Err(format!(
                "a value of {name} has more than {VALUE_CHARS_MAX} characters; have the definition shorten it, as by left({name}, 100)"
            ));
        }
        let mut known = HashSet::with_capacity(self.0.len());
        for row in &self.0 {
            let key = row.get(..rollup.grain.len()).unwrap_or_default();
            if let Some(null) = key.iter().position(Option::is_none) {
                return Err(format!(
                    "{} is NULL in a row; the grain must be known",
                    rollup.grain[null].name
                ));
            }
            if !known.insert(key) {
                let grain: Vec<_> = key.iter().flatten().map(String::as_str).collect();
                return Err(format!("two rows are for {}; GROUP BY the grain", grain.join(", ")));
            }
        }
        Ok(self)
    }
}

/// Tenants that no longer exist are skipped. Each is looked up: a join might read all of them for these few.
const SUCCEED_SQL: &str = "
INSERT INTO freehold.analytics_collection AS c
  (name, tenant_id, collected_at, full_at, inserted, updated, deleted, files)
SELECT $1::text, u.id, $2::timestamptz, CASE WHEN u.is_full THEN $2::timestamptz END, u.inserted, u.updated, u.deleted, u.files
FROM unnest($3::uuid[], $4::bool[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
  AS u (id, is_full, inserted, updated, deleted, files)
WHERE (SELECT true FROM freehold.tenant t WHERE t.id = u.id)
ON CONFLICT (name, tenant_id) DO UPDATE SET collected_at = excluded.collected_at,
  full_at = coalesce(excluded.full_at, c.full_at), inserted = excluded.inserted, updated = excluded.updated,
  deleted = excluded.deleted, files = excluded.files, error = NULL, failed_at = NULL
RETURNING tenant_id";

const FAIL_SQL: &str = "
INSERT INTO freehold.analytics_collection AS c (name, tenant_id, error, failed_at)
SELECT $1::text, u.id, u.error, clock_timestamp()
FROM unnest($2::uuid[], $3::text[]) AS u (id, error)
WHERE (SELECT true FROM freehold.tenant t WHERE t.id = u.id)
ON CONFLICT (name, tenant_id) DO UPDATE SET error = excluded.error, failed_at = excluded.failed_at";

/// Records the progress of tenants. Returns those that still exist.
async fn succeed(
    tx: &Transaction<'_>,
    statement: &Statement,
    name: &String,
    as_of: Timestamp,
    parts: &[(TenantId, Part, &Rows)],
) -> Result<HashSet<Uuid>> {
    let tenants: Vec<Uuid> = parts.iter().map(|(tenant, ..)| tenant.as_uuid()).collect();
    let full: Vec<bool> = parts.iter().map(|(_, part, _)| part.work == Work::All).collect();
    let counts = |of: fn(Counts) -> i64| -> Vec<Option<i64>> {
        parts.iter().map(|(_, part, _)| part.counts.map(of)).collect()
    };
    let (inserted, updated) = (counts(|c| c.inserted), counts(|c| c.updated));
    let (deleted, files) = (counts(|c| c.deleted), counts(|c| c.files));
    let rows = tx
        .query(statement, &[name, &as_of, &tenants, &full, &inserted, &updated, &deleted, &files])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn write_rows(
    tx: &Transaction<'_>,
    statement: &Statement,
    parts: &[(TenantId, Part, &Rows)],
    there: &HashSet<Uuid>,
) -> Result<()> {
    let whole: Vec<Uuid> = parts
        .iter()
        .filter(|(_, part, _)| part.work == Work::All)
        .map(|(tenant, ..)| tenant.as_uuid())
        .collect();
    let columns = statement.params().len() - 2;
    let mut tenants: Vec<Uuid> = Vec::new();
    let mut cells: Vec<Vec<Option<&str>>> = vec![Vec::new(); columns];
    for (tenant, _, rows) in parts.iter().filter(|(tenant, ..)| there.contains(&tenant.as_uuid())) {
        for row in &rows.0 {
            tenants.push(tenant.as_uuid());
            for (column, cell) in cells.iter_mut().zip(row) {
                column.push(cell.as_deref());
            }
        }
    }
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&whole, &tenants];
    params.extend(cells.iter().map(|column| column as &(dyn ToSql + Sync)));
    tx.execute(statement, &params).await?;
    Ok(())
}

/// Whether an error is due to the content of rows, such as a value that does not fit the rollup's type.
fn is_of_rows(error: &Error) -> bool {
    error.database().is_some_and(|db| {
        ["21", "22", "23"].iter().any(|class| db.code().code().starts_with(class))
    })
}
