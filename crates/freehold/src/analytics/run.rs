//! A run: takes the locks, determines which tenants to read, has them read and written, and publishes.
//!
//! Only a complete collection is published: a run that is interrupted publishes nothing, and the previous
//! figures remain. Tenants that could not be collected are reported beside the figures, by the transaction
//! that publishes them.
//!
//! One server leads (`Freehold::lead`, by `wire/lease.rs`) and starts the runs that are due. A run takes a
//! lock per definition, finds the tenants that changed (`activity`), and writes its token into
//! `freehold.analytics_run`. Workers (`collector`) read the tenants and write their rows, and triggers record
//! which groups these rows belong to. At the end, one transaction per definition computes the totals of those
//! groups, refreshes the view and records the coverage. Every write first locks the row with the token, so a
//! run that was overtaken writes nothing more.

use std::collections::HashMap;
use std::ops::Range;
use std::slice::Chunks;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_postgres::{Client, IsolationLevel, Row};
use uuid::Uuid;

use crate::analytics::Connections;
use crate::analytics::activity::{self, Collected, Counts, Work};
use crate::analytics::collector::{Fence, Job, Outcome, Part, Worker};
use crate::analytics::coverage::Coverage;
use crate::analytics::rollup::Rollup;
use crate::analytics::source::Source;
use crate::analytics::throttle::Throttle;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::wire::client;
use crate::wire::lease::Lease;

/// The class of a run's locks, one for each definition.
const RUN_LOCKS: i32 = 72_374_652;
/// The number of tenants that are written together.
const BATCH: usize = 16;
/// The number of tenants that are confirmed together.
const CONFIRMED_AT_A_TIME: usize = 100;
/// The most failures that a report names; the catalog has them all.
const FAILURES_MAX: usize = 100;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub struct AnalyticsOptions {
    /// How many connections read tenants at a time; as many write.
    pub connections: usize,
    /// How long one SELECT may take in one tenant.
    pub tenant_timeout: Duration,
    /// Reads only what changed since the last run. Otherwise every tenant is read in full.
    pub changed_only: bool,
}

impl Default for AnalyticsOptions {
    fn default() -> Self {
        AnalyticsOptions {
            connections: 1,
            tenant_timeout: Duration::from_secs(10),
            changed_only: false,
        }
    }
}

/// What a run did for one definition.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct AnalyticsRun {
    /// The definition's name.
    pub name: String,
    /// Active tenants when the run began.
    pub tenants: usize,
    /// Tenants that were read.
    pub collected: usize,
    /// Tenants that were unchanged.
    pub unchanged: usize,
    /// Tenants that could not be read; their previous figures remain.
    pub failed: usize,
    /// Some of them, and why.
    pub failures: Vec<AnalyticsFailure>,
    /// Groups of fewer tenants than the definition's minimum, which are not shown.
    pub withheld: i32,
    /// How long it took to collect all definitions of the run together.
    pub collect_ms: u64,
    /// How long it took to publish them.
    pub publish_ms: u64,
}

/// A tenant that could not be read.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AnalyticsFailure {
    /// Its slug.
    pub tenant: String,
    /// The reason, for operators.
    pub error: String,
}

/// Runs definitions: those named, or all. A definition that is already running is skipped if
/// `pass_over_busy`, otherwise it is an error.
pub(crate) async fn run(
    connections: &Connections,
    names: Option<&[String]>,
    options: AnalyticsOptions,
    pass_over_busy: bool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<AnalyticsRun>> {
    let client = client::connect(&connections.primary).await?;
    let mut rollups = load(&client, names).await?;
    let lease = Lease::connect(&connections.primary).await?;
    let mut ours = Vec::new();
    for rollup in rollups.drain(..) {
        if lease.try_take(RUN_LOCKS, rollup.name()).await? {
            ours.push(rollup);
        } else if !pass_over_busy {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} is being run by somebody else; try again when that is done",
                    rollup.name()
                ),
            ));
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    lease
        .hold_while(async {
            let run = Run::begin(connections, client, ours, options).await?;
            let outcome = run.go(connections, options, progress).await;
            if let Err(error) = &outcome {
                run.note_failure(error).await;
            }
            outcome
        })
        .await
}

async fn load(client: &Client, names: Option<&[String]>) -> Result<Vec<Rollup>> {
    let rows = client
        .query(
            "SELECT rollup FROM freehold.analytics WHERE $1::text[] IS NULL OR name = ANY($1) ORDER BY name",
            &[&names],
        )
        .await?;
    if let Some(names) = names
        && rows.len() < names.len()
    {
        return Err(Error::new(ErrorKind::NotFound, "there are no such analytics"));
    }
    rows.iter().map(|row| Rollup::from_json(row.get(0))).collect()
}

/// The state that workers share: the remaining tenants, and how many are done.
struct Batches<'a> {
    left: Mutex<Chunks<'a, Job>>,
    done: AtomicUsize,
    total: usize,
    progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl<'a> Batches<'a> {
    fn next(&self) -> Option<&'a [Job]> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn finish(&self, count: usize) {
        let before = self.done.fetch_add(count, Ordering::Relaxed);
        (self.progress)(before + count, self.total);
    }
}

struct Run {
    client: Client,
    throttle: Throttle,
    source: Source,
    rollups: Vec<Rollup>,
    names: Vec<String>,
    token: Uuid,
    as_of: Timestamp,
    counted_since: Option<String>,
    tenants: Vec<(TenantId, String)>,
    jobs: Vec<Job>,
    /// Tenants that are unchanged, by the definition's index.
    unchanged: Vec<Vec<Uuid>>,
    started: Instant,
}

impl Run {
    /// Takes over from an earlier run, and determines the work.
    async fn begin(
        connections: &Connections,
        mut client: Client,
        rollups: Vec<Rollup>,
        options: AnalyticsOptions,
    ) -> Result<Run> {
        let started = Instant::now();
        let names: Vec<String> = rollups.iter().map(|r| r.name().to_owned()).collect();
        let token = Uuid::new_v4();
        let primary_now: Timestamp = client.query_one("SELECT now()", &[]).await?.get(0);
        // The counts are taken before reading: changes in them can be read, and changes that are missing make
        // them differ at the next run.
        let counted_since = activity::counted_since(&client).await?;
        let counts = match &counted_since {
            Some(_) => activity::count(&mut client, &connections.throttle, &rollups).await?,
            None => HashMap::new(),
        };
        // Changes that a replica has not replayed yet must not count as read.
        let source = Source::choose(connections, &client).await?;
        let (as_of, counts) = match source.behind {
            None => (primary_now, counts),
            Some(as_of) => (as_of.min(primary_now), HashMap::new()),
        };
        take_over(&client, &names, token, as_of).await?;
        let throttle = connections.throttle.clone();
        let since = counted_since.as_deref();
        let collected = how_far(&mut client, &throttle, &names, since).await?;
        let active = "SELECT id, slug FROM freehold.tenant WHERE status = 'active' ORDER BY id";
        let mut tenants: Vec<(TenantId, String)> = Vec::new();
        let add = |row: &Row| tenants.push((row.get::<_, Uuid>(0).into(), row.get(1)));
        throttle.query(&mut client, active, &[], add).await?;
        let mut unchanged = vec![Vec::new(); rollups.len()];
        let mut jobs = Vec::new();
        for (tenant, _) in &tenants {
            let id = tenant.as_uuid();
            let mut parts = Vec::new();
            for (place, rollup) in rollups.iter().enumerate() {
                let counts: Option<Counts> = counts.get(&(place, id)).copied();
                let before = collected.get(&(place, id)).copied().unwrap_or_default();
                let work = if options.changed_only {
                    activity::work(rollup, &before, counts, as_of)
                } else {
                    Work::All
                };
                match work {
                    Work::Nothing => unchanged[place].push(id),
                    work => parts.push(Part { place, work, counts }),
                }
            }
            if !parts.is_empty() {
                jobs.push(Job { tenant: *tenant, parts });
            }
        }
        Ok(Run {
            client,
            throttle,
            source,
            rollups,
            names,
            token,
            as_of,
            counted_since,
            tenants,
            jobs,
            unchanged,
            started,
        })
    }

    fn fence(&self) -> Fence<'_> {
        Fence { token: self.token, names: &self.names, as_of: self.as_of }
    }

    async fn go(
        &self,
        connections: &Connections,
        options: AnalyticsOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<AnalyticsRun>> {
        let mut workers = try_join_all((0..options.connections.max(1)).map(|_| {
            Worker::open(connections, &self.source, &self.rollups, options.tenant_timeout)
        }))
        .await?;
        let outcomes = self.collect(&mut workers, progress).await?;
        self.confirm_unchanged(&mut workers[0].writer).await?;
        let collected = self.started.elapsed();
        let withheld = self.publish(&mut workers).await?;
        Ok(self.report(&outcomes, &withheld, collected))
    }

    /// Every worker takes the next batch as soon as it has finished one.
    async fn collect(
        &self,
        workers: &mut [Worker],
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<PartResult>> {
        let batches = Batches {
            left: Mutex::new(self.jobs.chunks(BATCH)),
            done: AtomicUsize::new(0),
            total: self.jobs.len(),
            progress,
        };
        progress(0, batches.total);
        let workers: Vec<_> =
            workers.iter_mut().map(|worker| self.collect_by(worker, &batches)).collect();
        Ok(try_join_all(workers).await?.into_iter().flatten().collect())
    }

    async fn collect_by(
        &self,
        worker: &mut Worker,
        batches: &Batches<'_>,
    ) -> Result<Vec<PartResult>> {
        let mut ended = Vec::new();
        while let Some(jobs) = batches.next() {
            let read = worker.read(&self.rollups, jobs).await?;
            let written = worker.write(self.fence(), read).await?;
            ended.extend(written.into_iter().map(PartResult::from));
            batches.finish(jobs.len());
        }
        Ok(ended)
    }

    /// An unchanged tenant is as fresh as one that was read.
    async fn confirm_unchanged(&self, client: &mut Client) -> Result<()> {
        let tx = client.transaction().await?;
        self.fence().hold(&tx).await?;
        let confirm = tx.prepare(CONFIRM_SQL).await?;
        for (name, tenants) in self.names.iter().zip(&self.unchanged) {
            for tenants in tenants.chunks(CONFIRMED_AT_A_TIME) {
                self.throttle.pause().await;
                let (first, last) = (&tenants[0], &tenants[tenants.len() - 1]);
                tx.execute(&confirm, &[name, &self.as_of, first, last, &tenants]).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Publishes each definition; returns the number of withheld groups, by index.
    async fn publish(&self, workers: &mut [Worker]) -> Result<Vec<i32>> {
        let places = Mutex::new(0..self.names.len());
        let workers: Vec<_> =
            workers.iter_mut().map(|worker| self.publish_by(&mut worker.writer, &places)).collect();
        let mut withheld = vec![0; self.names.len()];
        for (place, count) in try_join_all(workers).await?.into_iter().flatten() {
            withheld[place] = count;
        }
        Ok(withheld)
    }

    async fn publish_by(
        &self,
        client: &mut Client,
        places: &Mutex<Range<usize>>,
    ) -> Result<Vec<(usize, i32)>> {
        let mut published = Vec::new();
        loop {
            let next = places.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(place) = next else { return Ok(published) };
            published.push((place, self.publish_one(client, place).await?));
        }
    }

    /// Publishes figures and coverage from one snapshot and by one COMMIT, so that a reader never sees a pair
    /// that does not belong together.
    async fn publish_one(&self, client: &mut Client, place: usize) -> Result<i32> {
        let name = &self.names[place];
        // Its own row only: two concurrent publications would wait for each other's.
        let fence = Fence { names: std::slice::from_ref(name), ..self.fence() };
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .await?;
        fence.hold(&tx).await?;
        self.throttle.pause().await;
        let withheld: i32 =
            tx.query_one("SELECT freehold.refresh_analytics($1)", &[name]).await?.get(0);
        let tenants = self.tenants.iter().map(|(tenant, _)| *tenant);
        let coverage = Coverage::count(&tx, &self.throttle, name, self.as_of, tenants).await?;
        self.throttle.pause().await;
        coverage.publish(&tx, name, self.as_of, withheld).await?;
        tx.execute(
            "UPDATE freehold.analytics_run SET finished_at = clock_timestamp(), counted_since = $2 WHERE name = $1",
            &[name, &self.counted_since],
        )
        .await?;
        tx.commit().await?;
        Ok(withheld)
    }

    fn report(
        &self,
        ended: &[PartResult],
        withheld: &[i32],
        collected: Duration,
    ) -> Vec<AnalyticsRun> {
        let slugs: HashMap<TenantId, &str> =
            self.tenants.iter().map(|(id, slug)| (*id, slug.as_str())).collect();
        let published = self.started.elapsed().saturating_sub(collected);
        let mut runs: Vec<AnalyticsRun> = (0..self.names.len())
            .map(|place| AnalyticsRun {
                name: self.names[place].clone(),
                tenants: self.tenants.len(),
                unchanged: self.unchanged[place].len(),
                withheld: withheld[place],
                collect_ms: collected.as_millis() as u64,
                publish_ms: published.as_millis() as u64,
                ..AnalyticsRun::default()
            })
            .collect();
        for PartResult { tenant, place, error } in ended {
            let run = &mut runs[*place];
            let Some(error) = error else {
                run.collected += 1;
                continue;
            };
            run.failed += 1;
            if run.failures.len() < FAILURES_MAX {
                let tenant = slugs.get(tenant).copied().unwrap_or_default().to_owned();
                run.failures.push(AnalyticsFailure { tenant, error: error.clone() });
            }
        }
        runs
    }

    /// Records the error for people to read, and so that the schedule does not try again at once. If this
    /// fails, the schedule does.
    async fn note_failure(&self, error: &Error) {
        let noted = self
            .client
            .execute(
                "UPDATE freehold.analytics_run SET finished_at = clock_timestamp(), error = $2
                 WHERE token = $1 AND finished_at IS NULL",
                &[&self.token, &error.to_string()],
            )
            .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the failure of a run could not be noted");
        }
    }
}

/// The outcome of a part, without its rows.
struct PartResult {
    tenant: TenantId,
    place: usize,
    error: Option<String>,
}

impl From<Outcome> for PartResult {
    fn from(outcome: Outcome) -> PartResult {
        PartResult { tenant: outcome.tenant, place: outcome.part.place, error: outcome.rows.err() }
    }
}

/// The range between the first and the last id keeps PostgreSQL from reading all rows for a few.
const CONFIRM_SQL: &str = "
UPDATE freehold.analytics_collection SET collected_at = $2
WHERE name = $1 AND tenant_id BETWEEN $3 AND $4 AND tenant_id = ANY($5)";

/// Replaces the earlier run's token, which waits for what that run has under way.
async fn take_over(client: &Client, names: &[String], token: Uuid, as_of: Timestamp) -> Result<()> {
    client
        .execute(
            "INSERT INTO freehold.analytics_run AS r (name, token, as_of, started_at)
             SELECT name, $2::uuid, $3::timestamptz, clock_timestamp() FROM unnest($1::text[]) AS n (name)
             ON CONFLICT (name) DO UPDATE SET token = excluded.token, as_of = excluded.as_of,
               started_at = excluded.started_at, finished_at = NULL, error = NULL",
            &[&names, &token, &as_of],
        )
        .await?;
    Ok(())
}

/// The progress of each tenant, by the definition's index. Counts of another period than `counted_since` are
/// left out.
async fn how_far(
    client: &mut Client,
    throttle: &Throttle,
    names: &[String],
    counted_since: Option<&str>,
) -> Result<HashMap<(usize, Uuid), Collected>> {
    let sql = "SELECT array_position($1::text[], c.name) - 1, c.tenant_id, c.collected_at, c.full_at,
                      CASE WHEN r.counted_since = $2 THEN c.inserted END, c.updated, c.deleted, c.files,
                      c.error IS NOT NULL
               FROM freehold.analytics_collection c JOIN freehold.analytics_run r USING (name)
               WHERE c.name = ANY($1)";
    let mut all = HashMap::new();
    let add = |row: &Row| {
        let counts = row.get::<_, Option<i64>>(4).map(|inserted| Counts {
            inserted,
            updated: row.get(5),
            deleted: row.get(6),
            files: row.get(7),
        });
        let collected =
            Collected { at: row.get(2), full_at: row.get(3), counts, failed: row.get(8) };
        all.insert((row.get::<_, i32>(0) as usize, row.get(1)), collected);
    };
    throttle.query(client, sql, &[&names, &counted_since], add).await?;
    Ok(all)
}
