//! Migrates the template and every tenant to the baseline.
//!
//! A migration is applied to the template first (`migrator/adopt.rs`); if it fails there, it reaches no
//! tenant. Then each tenant gets it in a transaction of its own, several at a time, and is compared with the
//! template's state after it. The failure of one tenant is recorded and affects no other; a further run
//! continues with the rest. `migrator/waves.rs` says in which order, and when a run stops.
//!
//! Each tenant's catalog row is locked while it is migrated, so two migrators do not work on the same tenant.
//! Servers receive `NOTIFY freehold, 'baseline'` and read the data API's model from the template again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use crate::catalog::{baseline, indexes, tenants};
use crate::error::{Error, Result, is_lock_timeout};
use crate::indexes::{IndexState, TenantIndex, in_schema};
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;
use crate::model::tenant::Tenant;
use crate::pool::Pool;
use crate::schema::migration::{Layout, Migration};
use crate::schema::policy;
use crate::tx::{CatalogTx, OwnerTx};
use crate::wire;

pub(crate) use self::adopt::{OtherRun, adopt, pending, rehearsed};
pub(crate) use self::rehearsal::Former;

use self::compare::Changes;
use self::waves::{Watch, Wave};
pub use crate::catalog::baseline::MigratePause;

mod adopt;
mod compare;
mod fast_path;
mod rehearsal;
pub(crate) mod waves;

/// The options of a run of the migrator.
#[derive(Clone, Debug)]
pub struct MigrateOptions {
    /// The number of tenants that are migrated at a time, at most the number of connections in the owner
    /// pool.
    pub parallel: usize,
    /// How long a statement may wait for a lock held by the application. Meanwhile the tenant's own requests
    /// wait behind it.
    pub lock_timeout: Duration,
    /// How often a tenant is tried whose tables are locked, after the others of its wave each time. The pauses
    /// between are half a second at first, and grow.
    pub lock_attempts: u32,
    /// Tenants that are migrated before all others. If one of them fails, the run stops.
    pub canaries: Vec<TenantId>,
    /// The parts of the other tenants, in per cent of them, after each of which the run waits for
    /// `between_waves`: with `[1, 10]` it waits after the first hundredth and after the first tenth.
    pub waves: Vec<u8>,
    /// How long a run waits between two waves.
    pub between_waves: Duration,
    /// The run stops once this many tenants have failed.
    pub failures_max: usize,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        MigrateOptions {
            parallel: 4,
            lock_timeout: Duration::from_secs(1),
            lock_attempts: 5,
            canaries: Vec::new(),
            waves: Vec::new(),
            between_waves: Duration::ZERO,
            failures_max: 10,
        }
    }
}

/// What a run of the migrator did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct MigrateReport {
    /// The tool whose layout the folder has.
    pub layout: Option<Layout>,
    /// The newest migration of the baseline.
    pub version: i64,
    /// The migrations that were new to the template.
    pub adopted: Vec<String>,
    /// The number of tenants that were behind and are now migrated.
    pub migrated: usize,
    /// How many of these were compared with the first tenant of their version by a hash, rather than with
    /// the template object by object.
    pub fast_path: usize,
    /// What the new migrations hold that works otherwise than it reads, with the cure.
    pub notices: Vec<String>,
    /// Tenants whose migration failed; they are unchanged, and the next run tries them again.
    pub failed: Vec<MigrateFailure>,
    /// Why the run stopped before all tenants were tried, if it did.
    pub stopped: Option<String>,
    /// The number of tenants that are behind and were not tried.
    pub left: usize,
}

/// A tenant that could not be migrated.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MigrateFailure {
    /// Its slug.
    pub tenant: String,
    /// The migration that failed.
    pub version: i64,
    /// PostgreSQL's message and the position in the file, for the person who runs the migration.
    pub error: String,
}

/// The state of the fleet.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MigrateStatus {
    /// The newest migration of the baseline.
    pub version: i64,
    /// The number of tenants at each version.
    pub tenants: Vec<(i64, i64)>,
    /// The tenants for which the last run failed.
    pub failed: Vec<MigrateFailure>,
    /// Whether migrations are paused.
    pub paused: Option<MigratePause>,
}

/// Brings every tenant that is behind to the baseline, unless the run stops before. `progress` hears of each
/// that is done.
pub(crate) async fn bring_fleet(
    owner: &Pool,
    options: &MigrateOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MigrateReport> {
    let mut tx = CatalogTx::new(owner, &OperatorContext::system("list tenants to migrate")).await?;
    let migrations = baseline::list(&mut tx).await?;
    let version = migrations.last().map_or(0, |m| m.version);
    let behind = tenants::list_behind(&mut tx, version).await?;
    let mut report = MigrateReport { version, ..MigrateReport::default() };
    for id in &options.canaries {
        let canary = tenants::find(&mut tx, *id).await?;
        if let Some(canary) = canary
            && canary.version >= version
            && !behind.is_empty()
        {
            let slug = canary.slug;
            report.notices.push(format!("{slug} is at version {version} already, and no canary"));
        }
    }
    tx.commit().await?;

    let (total, changes) = (behind.len(), Changes::default());
    let watch = Watch::new(owner, options);
    let tried = HashSet::new();
    let mut run = Run {
        owner,
        options,
        migrations: &migrations,
        changes: &changes,
        watch,
        report,
        tried,
        total,
        progress,
    };
    let planned = waves::plan(behind, options);
    for (at, wave) in planned.into_iter().enumerate() {
        let pause = if at > 0 { options.between_waves } else { Duration::ZERO };
        run.report.stopped = run.watch.wait(pause).await;
        if run.report.stopped.is_none() {
            run.wave(wave).await;
        }
        if run.report.stopped.is_some() {
            break;
        }
    }
    // A tenant that was provisioned from the previous baseline meanwhile is found by querying again.
    loop {
        let mut tx =
            CatalogTx::new(owner, &OperatorContext::system("list tenants to migrate")).await?;
        let mut behind = tenants::list_behind(&mut tx, version).await?;
        tx.commit().await?;
        behind.retain(|tenant| !run.tried.contains(&tenant.id));
        if behind.is_empty() && run.report.failed.is_empty() {
            // The reason came after the last tenant.
            run.report.stopped = None;
        }
        if behind.is_empty() || run.report.stopped.is_some() {
            run.report.left = behind.len();
            return Ok(run.report);
        }
        run.total += behind.len();
        run.wave(Wave { tenants: behind, is_of_canaries: false }).await;
    }
}

/// A run of the migrator over the fleet.
struct Run<'a> {
    owner: &'a Pool,
    options: &'a MigrateOptions,
    migrations: &'a [Migration],
    changes: &'a Changes,
    watch: Watch<'a>,
    report: MigrateReport,
    /// The tenants that are done: migrated or failed.
    tried: HashSet<TenantId>,
    total: usize,
    progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl Run<'_> {
    /// Migrates tenants, and those whose tables are locked once more after the others.
    async fn wave(&mut self, wave: Wave) {
        let Wave { mut tenants, is_of_canaries } = wave;
        let attempts = self.options.lock_attempts.max(1);
        for attempt in 1..=attempts {
            let locked = self.round(tenants, is_of_canaries, attempt == attempts).await;
            if !locked.is_empty() && self.report.stopped.is_none() {
                self.report.stopped = self.watch.wait(waves::pause_before(attempt)).await;
            }
            if self.report.stopped.is_some() {
                for (tenant, version, error) in locked {
                    self.fail(&tenant, version, &error).await;
                }
                return;
            }
            tenants = locked.into_iter().map(|(tenant, ..)| tenant).collect();
            if tenants.is_empty() {
                return;
            }
        }
    }

    async fn fail(&mut self, tenant: &Tenant, version: i64, error: &Error) {
        let (slug, error) = (tenant.slug.as_str(), error.to_string());
        if let Err(unwritten) = note_failure(self.owner, tenant.id, version, &error).await {
            tracing::warn!(tenant = slug, %unwritten, "a failed migration is not recorded");
        }
        self.report.failed.push(MigrateFailure { tenant: slug.to_owned(), version, error });
        self.done(tenant);
    }

    fn done(&mut self, tenant: &Tenant) {
        self.tried.insert(tenant.id);
        (self.progress)(self.tried.len(), self.total);
    }

    /// Tries each tenant once. Returns those whose tables were locked, unless this was the last attempt.
    async fn round(
        &mut self,
        tenants: Vec<Tenant>,
        is_of_canaries: bool,
        is_last: bool,
    ) -> Vec<(Tenant, i64, Error)> {
        let stops = AtomicBool::new(false);
        let (owner, options, stop) = (self.owner, self.options, &stops);
        let (migrations, changes) = (self.migrations, self.changes);
        // Owned, so that the future is Send: a service may migrate in a spawned task.
        let mut outcomes = stream::iter(tenants)
            .map(|tenant| async move {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let outcome = bring_tenant(owner, &tenant, migrations, changes, options).await;
                Some((tenant, outcome))
            })
            .buffer_unordered(options.parallel.max(1));
        let mut locked = Vec::new();
        while let Some(outcome) = outcomes.next().await {
            let Some((tenant, outcome)) = outcome else { continue };
            match outcome {
                Ok(fast) => {
                    self.report.migrated += 1;
                    self.report.fast_path += usize::from(fast);
                    self.done(&tenant);
                }
                Err((version, error))
                    if !is_last && error.database().is_some_and(is_lock_timeout) =>
                {
                    locked.push((tenant, version, error));
                }
                Err((version, error)) => self.fail(&tenant, version, &error).await,
            }
            if self.report.stopped.is_none() {
                let failures = self.report.failed.len();
                self.report.stopped = self.watch.reason(failures, is_of_canaries).await;
                stop.store(self.report.stopped.is_some(), Ordering::Relaxed);
            }
        }
        locked
    }
}

/// Applies all that one tenant lacks, one transaction per migration. The error says which one failed.
async fn bring_tenant(
    owner: &Pool,
    tenant: &Tenant,
    migrations: &[Migration],
    changes: &Changes,
    options: &MigrateOptions,
) -> Result<bool, (i64, Error)> {
    let (mut former, mut fast) = (tenant.version, true);
    for migration in migrations.iter().filter(|m| m.version > tenant.version) {
        let step = async {
            let step = changes.known(former, migration.version).await;
            if let Some(fast_path) = step.as_ref().and_then(|step| step.fast_path.as_ref())
                && fast_path.bring(owner, tenant.id, former, migration, options).await?
            {
                return Ok(true);
            }
            bring_one_step(owner, tenant.id, migration, changes, options).await.map(|()| false)
        };
        fast &= step.await.map_err(|error| (migration.version, error))?;
        former = migration.version;
    }
    Ok(fast)
}

async fn bring_one_step(
    owner: &Pool,
    tenant: TenantId,
    migration: &Migration,
    changes: &Changes,
    options: &MigrateOptions,
) -> Result<()> {
    let mut tx = OwnerTx::new(owner, &OperatorContext::system("migrate a tenant")).await?;
    // A concurrent migrator waits here, and then finds nothing left to do.
    let Some(current) = tenants::lock(tx.catalog(), tenant).await? else { return Ok(()) };
    if current.version >= migration.version {
        return Ok(());
    }
    let own = indexes::list(tx.catalog(), Some(&[tenant]), i64::MAX).await?;
    let started = Instant::now();
    let step = changes.of(&mut tx, migration, current.version).await?;
    let untouched = step.change.as_ref().map_or(&[][..], |change| change.untouched());
    tx.enter_schema(tenant).await?;
    let back = as_in_template(tenant, migration, &own);
    let protection = tx
        .ddl(async |client| {
            let timeout = format!("SET LOCAL lock_timeout = {}", options.lock_timeout.as_millis());
            client.batch_execute(&timeout).await?;
            for (_, sql) in &back {
                client.batch_execute(sql).await?;
            }
            apply(client, tenant, migration, untouched).await
        })
        .await?;
    for (name, _) in &back {
        indexes::forget(tx.catalog(), tenant, name).await?;
    }
    if own.len() > back.len() {
        indexes::follow(tx.catalog(), tenant).await?;
    }
    if let Some(change) = &step.change {
        compare::require_equal(change, &mut tx, tenant, migration, &own).await?;
    }
    if let Some(fast_path) = step.fast_path.as_ref().filter(|_| own.is_empty()) {
        fast_path.learn(&mut tx, tenant, &protection).await?;
    }
    baseline::advance(tx, tenant, migration, millis(started)).await
}

/// The SQL that restores the indexes that a migration names to the template's state: an index that this
/// tenant lacks is created, and one that it alone has is dropped. Otherwise a migration that drops or creates
/// an index of that name would fail for this tenant only.
fn as_in_template(
    tenant: TenantId,
    migration: &Migration,
    own: &[TenantIndex],
) -> Vec<(String, String)> {
    let text = migration.statements.to_lowercase();
    let named = own.iter().filter(|index| text.contains(&index.name.to_lowercase()));
    let sql = |index: &TenantIndex| match index.state {
        IndexState::Creating | IndexState::Created => {
            let name = policy::quote_ident(&index.name);
            format!("DROP INDEX IF EXISTS {}.{name}", tenant.schema())
        }
        IndexState::Dropping | IndexState::Dropped => {
            let create =
                index.definition.replacen("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS ", 1);
            in_schema(&create, &tenant.schema())
        }
    };
    named.map(|index| (index.name.clone(), sql(index))).collect()
}

async fn note_failure(owner: &Pool, tenant: TenantId, version: i64, error: &str) -> Result<()> {
    let mut tx =
        CatalogTx::new(owner, &OperatorContext::system("record a failed migration")).await?;
    baseline::record_failure(&mut tx, tenant, version, error).await?;
    tx.commit().await
}

pub(crate) async fn status(pool: &Pool) -> Result<MigrateStatus> {
    let mut tx = CatalogTx::new(pool, &OperatorContext::system("migration status")).await?;
    let version = baseline::list(&mut tx).await?.last().map_or(0, |m| m.version);
    let tenants = tenants::count_by_version(&mut tx).await?;
    let failures = baseline::list_failures(&mut tx).await?;
    let paused = baseline::pause(&mut tx).await?;
    tx.commit().await?;
    let failed = failures
        .into_iter()
        .map(|(tenant, version, error)| MigrateFailure { tenant, version, error })
        .collect();
    Ok(MigrateStatus { version, tenants, failed, paused })
}

/// Runs one migration in the schema that the transaction has entered, and protects what it created, except
/// what it is known to leave untouched. Leaves the search path at `pg_catalog`.
pub(crate) async fn apply(
    client: &mut wire::Connection,
    tenant: TenantId,
    migration: &Migration,
    untouched: &[String],
) -> Result<String> {
    migration.run(client, tenant).await?;
    migration.check_deferred(client).await?;
    let untouched = migration.untouched_of(untouched);
    policy::protect(client, tenant, &untouched).await.map_err(|error| unprotected(migration, error))
}

/// The error for an object that cannot be protected, with the file and the last line that mentions it.
fn unprotected(migration: &Migration, error: Error) -> Error {
    let fault = error.message().split_once(": ").map_or("", |(_, fault)| fault);
    let relation = fault.split(' ').next().filter(|name| !name.is_empty());
    let line = relation.and_then(|name| migration.line_of(name));
    let line = line.map(|line| format!(" line {line}")).unwrap_or_default();
    let message = format!("{}{line}: {}", migration.label, error.message());
    Error::new(error.kind(), message).because(error)
}

/// Adds the file to an error.
fn located_in(migration: &Migration) -> impl Fn(Error) -> Error {
    let label = migration.label.clone();
    move |error| Error::new(error.kind(), format!("{label}: {}", error.message())).because(error)
}

pub(crate) fn millis(started: Instant) -> i32 {
    i32::try_from(started.elapsed().as_millis()).unwrap_or(i32::MAX)
}
