//! Analytics: applies definitions, runs them, and lists and reads their figures.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::analytics::definition::AnalyticsFolder;
use crate::analytics::rollup::{self, Rollup};
use crate::analytics::run::{self, AnalyticsOptions, AnalyticsRun};
use crate::cache::key::CacheKey;
use crate::catalog::analytics::{self, Of};
use crate::catalog::audit::{self, AuditEvent};
use crate::control::clamp_page;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Action, require};
use crate::model::audit::AuditAction;
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::tx::OwnerTx;
use crate::wire::lease::Lease;

pub use crate::catalog::analytics::AnalyticsPublication;

/// The name of pages in the cache. They depend on what is published (`cache_source` in
/// `migrations/0050_cache.sql`).
const CACHE: &str = "analytics";
/// The class of the advisory lock that the leading server holds.
const LEADER_LOCK: i32 = 72_374_653;
/// How often a server that does not lead tries to take the lock.
const SUCCESSION: Duration = Duration::from_secs(1);

/// What was changed by applying definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AnalyticsApplied {
    /// New definitions.
    pub added: Vec<String>,
    /// Changed definitions. Their figures are collected anew, and none are published until then.
    pub rebuilt: Vec<String>,
    /// Definitions of which only the schedule or the description changed; the figures are kept.
    pub kept: Vec<String>,
    /// Definitions that are no longer in the folder. Their figures are deleted.
    pub removed: Vec<String>,
}

/// A definition, as operators see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AnalyticsStatus {
    /// Name, description and columns.
    #[serde(flatten)]
    pub outline: AnalyticsOutline,
    /// How often it is collected and published.
    pub schedule_secs: u64,
    /// A figure made from fewer tenants than this is not shown across tenants.
    pub minimum_group: i32,
    /// What is published, if anything has been.
    pub publication: Option<AnalyticsPublication>,
    /// The error of the last run, if it failed as a whole.
    pub error: Option<String>,
}

/// A definition, as both operators and members see it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct AnalyticsOutline {
    /// The name, as in URLs.
    pub name: String,
    /// A one-line description.
    pub about: String,
    /// The columns that identify a row.
    pub grain: Vec<String>,
    /// The names of the figures.
    pub measures: Vec<String>,
}

/// A definition, as a tenant's members see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct OwnAnalytics {
    /// Name, description and columns.
    #[serde(flatten)]
    pub outline: AnalyticsOutline,
    /// When the tenant's figures were collected, if they were.
    pub as_of: Option<Timestamp>,
}

/// A tenant that could not be collected.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StaleTenant {
    /// Its slug.
    pub tenant: String,
    /// The error.
    pub error: String,
    /// When it failed.
    pub failed_at: Timestamp,
    /// When its present figures were collected, if it has any.
    pub as_of: Option<Timestamp>,
}

/// Which rows to read.
#[derive(Clone, Debug, Default)]
pub struct AnalyticsQuery {
    /// [`AnalyticsPage::next`] of the previous page.
    pub after: Option<String>,
    /// 50 by default, [`PAGE_MAX`](crate::control::PAGE_MAX) at most.
    pub limit: Option<i64>,
    /// In ascending order of the grain, instead of the newest first.
    pub oldest_first: bool,
}

/// Which tenants' figures to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnalyticsScope {
    /// Totals over all tenants, as published.
    Fleet,
    /// The rows of each tenant, as collected.
    EveryTenant,
    /// The rows of one tenant.
    Tenant(TenantId),
}

/// A page of figures.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct AnalyticsPage {
    /// The definition that they belong to.
    pub outline: AnalyticsOutline,
    /// A JSON array of objects.
    pub rows: String,
    /// The value of [`AnalyticsQuery::after`] for the next page, if there may be one.
    pub next: Option<String>,
    /// For operators: the publication that the figures belong to, if there is one.
    pub publication: Option<AnalyticsPublication>,
    /// For one tenant: when its rows were collected.
    pub as_of: Option<Timestamp>,
}

impl From<&Rollup> for AnalyticsOutline {
    fn from(rollup: &Rollup) -> Self {
        AnalyticsOutline {
            name: rollup.definition.name.clone(),
            about: rollup.definition.about.clone(),
            grain: rollup.definition.grain.clone(),
            measures: rollup.measures.iter().map(|c| c.name.clone()).collect(),
        }
    }
}

/// Handle for defining, collecting and reading figures across tenants: [`Freehold::analytics`].
#[derive(Clone, Copy)]
pub struct Analytics<'a>(&'a Freehold);

impl Freehold {
    /// Defines, collects and reads figures across tenants.
    pub fn analytics(&self) -> Analytics<'_> {
        Analytics(self)
    }
}

impl Analytics<'_> {
    /// Makes the catalog's definitions equal to those of a folder: adds new ones, rebuilds changed ones,
    /// removes those that are not in the folder. Either all of it is done or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] with the definition and its problem; [`ErrorKind::Retryable`] if a run is writing
    /// a definition that changes.
    pub async fn apply(
        self,
        context: &OperatorContext,
        folder: &AnalyticsFolder,
    ) -> Result<AnalyticsApplied> {
        let rollups = self.0.describe_analytics(context, folder).await?;
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let known = analytics::lock_all(tx.catalog()).await?;
        let mut applied = AnalyticsApplied::default();
        for old in &known {
            if !rollups.iter().any(|new| new.name() == old.name) {
                drop_rollup(&mut tx, &old.name).await?;
                applied.removed.push(old.name.clone());
            }
        }
        for new in &rollups {
            let name = new.name().to_owned();
            match known.iter().find(|old| old.name == name) {
                Some(old)
                    if old.checksum == new.definition.checksum()
                        && old.rollup.same_figures(new) =>
                {
                    continue;
                }
                Some(old) if old.rollup.same_figures(new) => applied.kept.push(name),
                Some(_) => {
                    drop_rollup(&mut tx, &name).await?;
                    create_rollup(&mut tx, new).await?;
                    applied.rebuilt.push(name);
                }
                None => {
                    create_rollup(&mut tx, new).await?;
                    applied.added.push(name);
                }
            }
            analytics::insert(tx.catalog(), new).await?;
        }
        let detail = serde_json::json!({
            "added": applied.added, "rebuilt": applied.rebuilt, "removed": applied.removed,
        });
        audit::record(
            tx.catalog(),
            AuditEvent::of(AuditAction::AnalyticsApply, context).detail(detail),
        )
        .await?;
        tx.commit().await?;
        self.0.cache().doubt_global(CACHE);
        tracing::info!(added = ?applied.added, rebuilt = ?applied.rebuilt, removed = ?applied.removed,
            reason = context.reason(), "analytics applied");
        Ok(applied)
    }

    /// Runs the named definitions, or all of them: collects and publishes. `progress` is called with the
    /// number of tenants done and the number of all.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown name; [`ErrorKind::Conflict`] if another run of one of them is
    /// in progress; [`ErrorKind::Setup`] without an analytics connection. A tenant that could not be read is
    /// no error: it is in the report.
    pub async fn run(
        self,
        context: &OperatorContext,
        names: Option<&[String]>,
        options: AnalyticsOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<AnalyticsRun>> {
        let ran = run::run(self.0.analytics_connections()?, names, options, false, progress).await;
        self.0.cache().doubt_global(CACHE);
        let ran = ran?;
        // Afterwards, since a run that waits for another one is refused, and tried again four times a second.
        if !ran.is_empty() {
            let names: Vec<&str> = ran.iter().map(|run| run.name.as_str()).collect();
            let mut tx = self.0.catalog(context).await?;
            let event = AuditEvent::of(AuditAction::AnalyticsRun, context);
            audit::record(&mut tx, event.detail(serde_json::json!({"names": names}))).await?;
            tx.commit().await?;
        }
        Ok(ran)
    }

    /// Runs the definitions that are due by their schedule, except those that another process is running.
    ///
    /// # Errors
    /// As for [`run`](crate::control::analytics::Analytics::run).
    pub async fn run_due(
        self,
        context: &OperatorContext,
        options: AnalyticsOptions,
    ) -> Result<Vec<AnalyticsRun>> {
        let mut tx = self.0.catalog(context).await?;
        let due = analytics::list_due(&mut tx).await?;
        tx.commit().await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ran =
            run::run(self.0.analytics_connections()?, Some(&due), options, true, &|_, _| {}).await;
        self.0.cache().doubt_global(CACHE);
        match ran {
            // The definition was removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            ran => ran,
        }
    }

    /// Every definition and its publication, in the order of names.
    pub async fn list(self, context: &OperatorContext) -> Result<Vec<AnalyticsStatus>> {
        let mut tx = self.0.catalog(context).await?;
        let list = analytics::list(&mut tx).await?;
        tx.commit().await?;
        let statuses = list.into_iter().map(|(rollup, error, publication)| AnalyticsStatus {
            outline: AnalyticsOutline::from(&rollup),
            schedule_secs: rollup.definition.schedule.as_secs(),
            minimum_group: rollup.definition.minimum_group,
            publication,
            error,
        });
        Ok(statuses.collect())
    }

    /// Every definition, and when the tenant's own figures were collected.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] for a role that may not read data.
    pub async fn list_own(self, context: &TenantContext) -> Result<Vec<OwnAnalytics>> {
        require(context.role(), Action::ReadData)?;
        let mut tx = self.0.catalog_of(context).await?;
        let list = analytics::list_of_tenant(&mut tx, context.tenant().as_uuid()).await?;
        tx.commit().await?;
        let own = list.into_iter().map(|(rollup, as_of)| OwnAnalytics {
            outline: AnalyticsOutline::from(&rollup),
            as_of,
        });
        Ok(own.collect())
    }

    /// Reads figures: totals across tenants, or the rows of single tenants.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown name; [`ErrorKind::InvalidInput`] for an `after` that no page
    /// returned.
    pub async fn read(
        self,
        context: &OperatorContext,
        name: &str,
        scope: AnalyticsScope,
        query: &AnalyticsQuery,
    ) -> Result<AnalyticsPage> {
        let of = match scope {
            AnalyticsScope::Fleet => Of::Fleet,
            AnalyticsScope::EveryTenant => Of::EveryTenant,
            AnalyticsScope::Tenant(tenant) => Of::Tenant(tenant.as_uuid()),
        };
        let load = async {
            let mut tx = self.0.catalog(context).await?;
            let page = read(&mut tx, name, of, query).await?;
            tx.commit().await?;
            Ok(page)
        };
        // A key without a tenant is used only for figures that belong to no tenant.
        if scope != AnalyticsScope::Fleet {
            return load.await;
        }
        let key = key_of(CacheKey::global(CACHE), name, query);
        Ok(self.0.cache().get_or_load(&key, self.0.cache().analytics_age(), load).await?.value)
    }

    /// Reads the tenant's own figures.
    ///
    /// # Errors
    /// As for [`read`](crate::control::analytics::Analytics::read); [`ErrorKind::Forbidden`] for a role that
    /// may not read data.
    pub async fn read_own(
        self,
        context: &TenantContext,
        name: &str,
        query: &AnalyticsQuery,
    ) -> Result<AnalyticsPage> {
        require(context.role(), Action::ReadData)?;
        let load = async {
            let mut tx = self.0.catalog_of(context).await?;
            let page = read(&mut tx, name, Of::Tenant(context.tenant().as_uuid()), query).await?;
            tx.commit().await?;
            Ok(page)
        };
        let key = key_of(CacheKey::of(context, CACHE).for_whole_tenant(), name, query);
        Ok(self.0.cache().get_or_load(&key, self.0.cache().analytics_age(), load).await?.value)
    }

    /// Tenants that could not be collected, the latest failure first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown name.
    pub async fn list_stale_tenants(
        self,
        context: &OperatorContext,
        name: &str,
        limit: Option<i64>,
    ) -> Result<Vec<StaleTenant>> {
        let mut tx = self.0.catalog(context).await?;
        analytics::find(&mut tx, name).await?.ok_or_else(no_such_analytics)?;
        let list = analytics::list_failures(&mut tx, name, clamp_page(limit)).await?;
        tx.commit().await?;
        let stale = list.into_iter().map(|(tenant, error, failed_at, as_of)| StaleTenant {
            tenant,
            error,
            failed_at,
            as_of,
        });
        Ok(stale.collect())
    }
}

impl Freehold {
    /// Examines each definition in the template, in a transaction that is rolled back.
    async fn describe_analytics(
        &self,
        context: &OperatorContext,
        folder: &AnalyticsFolder,
    ) -> Result<Vec<Rollup>> {
        let mut tx = OwnerTx::new(self.owner_pool()?, context).await?;
        tx.enter_schema(TenantId::TEMPLATE).await?;
        tx.ddl(async |client| {
            let mut rollups = Vec::new();
            for definition in folder.definitions() {
                rollups.push(rollup::describe(client, definition).await?);
            }
            Ok(rollups)
        })
        .await
    }

    /// Waits until this server is the leader of all servers that share the database, then runs `work` for as
    /// long as it leads. If the connection that holds the lock is lost, `work` is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if that connection cannot be made or is lost; [`ErrorKind::Setup`] without
    /// an analytics connection; the error of `work`.
    pub async fn lead<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let lease = Lease::connect(&self.analytics_connections()?.primary).await?;
        while !lease.try_take(LEADER_LOCK, "freehold").await? {
            tokio::time::sleep(SUCCESSION).await;
        }
        lease.hold_while(work).await
    }
}

fn key_of(key: CacheKey, name: &str, query: &AnalyticsQuery) -> CacheKey {
    let limit = clamp_page(query.limit).to_be_bytes();
    let key = key.part(name).part(limit).part([u8::from(query.oldest_first)]);
    match &query.after {
        Some(after) => key.part(after),
        None => key,
    }
}

async fn read(
    tx: &mut crate::tx::CatalogTx,
    name: &str,
    of: Of,
    query: &AnalyticsQuery,
) -> Result<AnalyticsPage> {
    let rollup = analytics::find(tx, name).await?.ok_or_else(no_such_analytics)?;
    let after = query.after.as_deref();
    let limit = clamp_page(query.limit);
    let page = analytics::read(tx, &rollup, of, !query.oldest_first, after, limit).await?;
    Ok(AnalyticsPage {
        outline: AnalyticsOutline::from(&rollup),
        rows: page.rows,
        next: page.next,
        publication: page.publication,
        as_of: page.collected_at,
    })
}

async fn drop_rollup(tx: &mut OwnerTx, name: &str) -> Result<()> {
    analytics::delete(tx.catalog(), name).await?;
    tx.ddl(async |client| Ok(client.batch_execute(&Rollup::drop_sql(name)).await?)).await
}

async fn create_rollup(tx: &mut OwnerTx, rollup: &Rollup) -> Result<()> {
    tx.ddl(async |client| {
        client.batch_execute(&rollup.create_sql()).await.map_err(|source| {
            Error::new(ErrorKind::Setup, format!("{}: {source}", rollup.name())).because(source)
        })
    })
    .await
}

fn no_such_analytics() -> Error {
    Error::new(ErrorKind::NotFound, "there are no such analytics")
}
