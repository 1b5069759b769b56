//! The handle that a service holds: connections, caches, background tasks, and transactions of tenants.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

use crate::analytics::Connections;
use crate::cache::Cache;
use crate::cache::freshness::Freshness;
use crate::cache::local::Local;
use crate::error::{Error, ErrorKind, Result};
use crate::indexes::sampler::ShapeSampler;
use crate::init;
use crate::model::actor::{Actor, Role};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};
use crate::model::lsn::Lsn;
use crate::observe::insight::Insight;
use crate::observe::violations::Violations;
use crate::options::Options;
use crate::pool::Pool;
use crate::pool::connection::{Position, Residue, Source};
use crate::pool::pooler;
use crate::pool::seal::{self, ContextKey, SealMode};
use crate::pool::seal::{KeyOrigin, Sealer};
use crate::pool::{PoolLimits, PoolStatus};
use crate::recording::recorder::Recorder;
use crate::recording::reporter::Reporter;
use crate::recording::slow_log::SlowLog;
use crate::replicas::Replicas;
use crate::replicas::{self, ReplicaReads, ReplicaStatus};
use crate::resolve::residue;
use crate::resolve::resolver::Resolver;
#[cfg(feature = "sign-in")]
use crate::sign_in::passwords::PasswordHasher;
use crate::sign_in::slug_locks::SlugLocks;
use crate::tasks::{BackgroundTask, Tasks};
use crate::tx::CatalogTx;
use crate::tx::{PipelineError, ReadTx, TenantTx};
use crate::wire::params::Params;
use crate::wire::tls::Target;
use crate::wire::{Answer, Row, client, tls};

/// The fleet and its database. Cheap to clone; the connections close when the last clone is dropped.
#[derive(Clone)]
pub struct Freehold(Arc<Inner>);

struct Inner {
    app: Pool,
    catalog: Pool,
    replicas: Replicas,
    owner: Option<Pool>,
    analytics: Option<Connections>,
    resolver: Resolver,
    cache: Cache,
    #[cfg(feature = "sign-in")]
    hasher: PasswordHasher,
    slug_locks: SlugLocks,
    violations: Violations,
    recorder: Recorder,
    insight: Insight,
    shapes: ShapeSampler,
    reporter: Reporter,
    slow_log: SlowLog,
    sealer: Sealer,
    mode: SealMode,
    /// Whether only settings must be reset after a tenant's transaction.
    #[cfg(feature = "testing")]
    only_settings: Arc<AtomicBool>,
    /// Background tasks: listening for changes, following keys, recording violations.
    tasks: Tasks,
    _running: Vec<BackgroundTask>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let lost = self.violations.give_up();
        if lost > 0 {
            tracing::warn!(lost, "violations were not written down");
        }
    }
}

/// The key for sealing contexts: the configured one, else the catalog's; `None` in plain mode.
async fn find_key(
    options: &Options,
    mode: SealMode,
    owner: Option<&Target>,
) -> Result<Option<ContextKey>> {
    match (mode, &options.context_key, owner) {
        (SealMode::Plain, _, _) => Ok(None),
        (_, Some(key), _) => Ok(Some(key.clone())),
        (_, None, Some(owner)) => seal::read_key(owner).await.map(Some),
        (_, None, None) => Err(Error::new(
            ErrorKind::Setup,
            "contexts are sealed in this database, and this server has no key: set CONTEXT_KEY to what \
             `freehold key show` prints, or DATABASE_OWNER_URL, by which it reads the key itself",
        )),
    }
}

impl Freehold {
    /// Connects, and checks that the database is prepared and that row-level security binds the role it
    /// connects as. Needs a tokio runtime, in which its background tasks run.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] with a message that says what to do; [`ErrorKind::Unavailable`].
    pub async fn connect(options: &Options) -> Result<Freehold> {
        let app_target = tls::target(&options.app_url, "DATABASE_URL")?;
        // First, because the next queries may fail behind an unsuitable pooler.
        let direct = options.pooler.is_direct(&app_target).await;
        if !direct.map_err(|error| app_target.cannot_connect(error.into_cause()))? {
            pooler::require_apart(&app_target, "DATABASE_URL").await?;
        }
        let mode = init::check(&app_target, "DATABASE_URL").await?;
        let (catalog_target, setting) = match &options.catalog_url {
            Some(url) => (tls::target(url, "DATABASE_CATALOG_URL")?, "DATABASE_CATALOG_URL"),
            None => (app_target.as_user(init::CATALOG_ROLE), "DATABASE_URL"),
        };
        init::check_role(&catalog_target, setting, init::CATALOG_ROLE).await?;
        let owner_target = match &options.owner_url {
            Some(url) => Some(tls::target(url, "DATABASE_OWNER_URL")?),
            None => None,
        };
        let key = find_key(options, mode, owner_target.as_ref()).await?;
        let origin = match options.context_key {
            Some(_) => KeyOrigin::Given,
            None => KeyOrigin::Read,
        };
        let sealer = Sealer::new(key.as_ref(), origin);
        if origin == KeyOrigin::Given {
            let client = client::connect_to_read(&app_target).await?;
            sealer.require_known(&client).await?;
        }
        let violations = Violations::default();
        let insight = Insight::new(options.insight);
        let source =
            |target: Target, position| Source::new(target, options.pooler, &sealer, position);
        let position = match options.replica_urls.is_empty() {
            true => Position::Untold,
            false => Position::Written,
        };
        let pool = |source, limits| Pool::new(source, limits, &violations, &insight);
        // `false` until the baseline has been examined.
        let only_settings = Arc::new(AtomicBool::new(false));
        let of_tenants = || Residue::OnlySettings(Arc::clone(&only_settings));
        let app = source(app_target, position).with_sessions().with_residue(of_tenants());
        let app = pool(app, options.app_pool);
        let catalog = source(catalog_target, Position::Untold).with_sessions();
        let catalog = catalog.with_residue(Residue::Nothing);
        let catalog = pool(catalog, options.catalog_pool);
        let owner =
            owner_target.map(|target| pool(source(target, Position::Untold), options.owner_pool));
        let replica_pool =
            PoolLimits { wait_max: options.replica_limits.wait_max, ..options.app_pool };
        let mut replica_pools = Vec::new();
        for url in &options.replica_urls {
            let target = tls::target(url, replicas::SETTING)?;
            let source = source(target, Position::Replayed).with_residue(of_tenants());
            let pool = pool(source, replica_pool);
            Replicas::require_one_host(&pool.target())?;
            replica_pools.push(pool);
        }
        let of_requests: Vec<Pool> = [&app].into_iter().chain(&replica_pools).cloned().collect();
        let replicas = Replicas::new(replica_pools, options.pooler, options.replica_limits);
        let analytics = match &options.analytics_url {
            Some(url) => {
                let read_url = options.analytics_read_url.as_deref();
                Some(Connections::new(url, read_url, replicas.clone(), app.clone())?)
            }
            None => None,
        };
        let local = Local::new(options.cache.bytes_max);
        let freshness = Arc::new(Freshness::default());
        let resolver = Resolver::new(catalog.clone(), local.clone(), Arc::clone(&freshness));
        let cache =
            Cache::connect(&options.cache, local, catalog.clone(), freshness, key.as_ref()).await?;
        let listen = match &options.listen_url {
            Some(url) => Arc::new(tls::target(url, "DATABASE_LISTEN_URL")?),
            None => app.target(),
        };
        let recorder = Recorder::new(catalog.clone(), violations.clone());
        let tasks = Tasks::default();
        let mut running = replicas.follow(&tasks, app.target()).await?;
        let slow_log = SlowLog::new(&app, &catalog, resolver.clone(), insight.clone());
        let shapes = ShapeSampler::new(options.insight.sample);
        let reporter = Reporter::new(catalog.clone(), insight.clone(), shapes.clone());
        let (listening, pooler) = (resolver.clone(), options.pooler);
        let listen = move || listening.clone().listen(Arc::clone(&listen), pooler);
        running.push(tasks.spawn("change_listener", listen));
        for pool in of_requests {
            running
                .push(tasks.spawn("congestion_watcher", move || pool.clone().watch_congestion()));
        }
        let (records, reports, slow) = (recorder.clone(), reporter.clone(), slow_log.clone());
        running.push(tasks.spawn("violation_writer", move || records.clone().run()));
        running.push(tasks.spawn("insight_writer", move || reports.clone().run()));
        running.push(tasks.spawn("slow_query_writer", move || slow.clone().run()));
        let (of_code, changes, only) =
            (catalog.clone(), resolver.clone(), Arc::clone(&only_settings));
        let follow = move || residue::follow(of_code.clone(), changes.clone(), Arc::clone(&only));
        running.push(tasks.spawn("baseline_follower", follow));
        let (announcing, connecting) = (cache.clone(), cache.clone());
        running.push(tasks.spawn("cache_announcer", move || announcing.clone().announce()));
        running.push(tasks.spawn("cache_connection", move || connecting.clone().keep_connected()));
        if let (Some(owner), None) = (&owner, &options.context_key) {
            let (sealer, target, keys) = (sealer.clone(), owner.target(), resolver.key_changes());
            let follow = move || seal::follow_keys(sealer.clone(), target.clone(), keys.clone());
            running.push(tasks.spawn("key_follower", follow));
        }
        let slug_locks = SlugLocks::new();
        let inner = Inner {
            app,
            catalog,
            replicas,
            owner,
            analytics,
            resolver,
            cache,
            #[cfg(feature = "sign-in")]
            hasher: PasswordHasher::for_half_the_cores(),
            slug_locks,
            violations,
            recorder,
            insight,
            shapes,
            reporter,
            slow_log,
            sealer,
            mode,
            #[cfg(feature = "testing")]
            only_settings,
            tasks,
            _running: running,
        };
        Ok(Freehold(Arc::new(inner)))
    }

    /// Permission to work in a tenant, for a person who is a member of it. The tenant must be active.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such tenant or the person is not a member of it,
    /// [`ErrorKind::TenantSuspended`].
    pub async fn tenant_context(
        &self,
        tenant: TenantId,
        identity: IdentityId,
    ) -> Result<TenantContext> {
        self.0.resolver.resolve(tenant, identity).await
    }

    /// Permission to work in a tenant, for an actor whom the caller has authenticated: a scheduled job, or a
    /// person who signed in by other means. The tenant must be active.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::TenantSuspended`]; [`ErrorKind::Forbidden`] for
    /// [`Role::Operator`], which is not a role in a tenant.
    pub async fn tenant_context_as(&self, tenant: TenantId, actor: Actor) -> Result<TenantContext> {
        if actor.role == Role::Operator {
            return Err(Error::new(ErrorKind::Forbidden, "an operator is no actor in a tenant"));
        }
        self.0.resolver.resolve_as(tenant, actor).await
    }

    /// Begins a transaction in a tenant's schema. It takes a connection at once, and sends nothing before the
    /// first statement.
    ///
    /// # Errors
    /// [`ErrorKind::PoolExhausted`] if no connection came free within [`PoolLimits::wait_max`];
    /// [`ErrorKind::Unavailable`].
    pub async fn begin(&self, context: &TenantContext) -> Result<TenantTx> {
        TenantTx::new(&self.0.app, context).await
    }

    /// Runs one statement in a transaction of its own, in one round trip once it is prepared.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin) and [`TenantTx::query`].
    pub async fn query(
        &self,
        context: &TenantContext,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        self.begin(context).await?.query_and_commit(sql, params).await
    }

    /// [`query`](Self::query) for a statement whose rows are not needed: returns how many rows it returned,
    /// changed or deleted.
    ///
    /// # Errors
    /// As for [`query`](Self::query).
    pub async fn execute(
        &self,
        context: &TenantContext,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64> {
        let mut tx = self.begin(context).await?;
        let count = tx.execute(sql, params).await?;
        tx.commit().await?;
        Ok(count)
    }

    /// Runs statements in one transaction, in one round trip once they are prepared: either all are committed
    /// or none. [`TenantTx::pipeline`] has an example.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin) and [`TenantTx::pipeline`].
    pub async fn pipeline(
        &self,
        context: &TenantContext,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Answer>, PipelineError> {
        self.begin(context).await?.pipeline_and_commit(statements).await
    }

    /// Runs each statement in a transaction of its own, all in one round trip once they are prepared. A
    /// statement that fails does not affect the others; deferred constraints are checked for each one
    /// separately.
    ///
    /// They run in order, except that a migration or a long wait may make it necessary to send some again. If
    /// one statement must run after another, put both into one [`pipeline`](Self::pipeline).
    ///
    /// # Errors
    /// As for [`begin`](Self::begin), if none was run; otherwise each has its own result. After a lost
    /// connection the last ones are [`ErrorKind::Unavailable`], although they may have been run.
    pub async fn pipeline_each(
        &self,
        context: &TenantContext,
        statements: &[(&str, Params<'_>)],
    ) -> Result<Vec<Result<Answer>>> {
        self.begin(context).await?.pipeline_each(statements).await
    }

    /// Begins a read-only transaction that a replica may answer. The replica has everything that was
    /// committed [`ReplicaLimits::lag_max`](crate::ReplicaLimits::lag_max) ago, and everything before `since`
    /// if it is given. If no replica qualifies, the primary answers.
    ///
    /// To read your own writes, take `since` from [`TenantTx::commit_at`]:
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let mut tx = freehold.begin(&context).await?;
    /// tx.execute("INSERT INTO notes (body) VALUES ('buy milk')", &[]).await?;
    /// let written = tx.commit_at().await?;
    ///
    /// let mut read = freehold.begin_read(&context, written).await?;
    /// let rows = read.query_and_end("SELECT body FROM notes", &[]).await?;
    /// assert_eq!(rows.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`begin`](Self::begin) on the primary.
    pub async fn begin_read(&self, context: &TenantContext, since: Option<Lsn>) -> Result<ReadTx> {
        ReadTx::new(&self.0.app, &self.0.replicas, context, since).await
    }

    /// The primary's current log position: everything committed so far lies before it. Pass it to
    /// [`begin_read`](Self::begin_read) as `since` after transactions that did not return a position. `None`
    /// without replicas.
    ///
    /// # Errors
    /// As for [`query`](Self::query).
    pub async fn current_lsn(&self, context: &TenantContext) -> Result<Option<Lsn>> {
        match self.has_replicas() {
            true => Ok(self.begin(context).await?.query_and_commit_at("SELECT", &[]).await?.1),
            false => Ok(None),
        }
    }

    /// Whether this server has replicas, whether or not they can be read at this moment.
    pub fn has_replicas(&self) -> bool {
        !self.0.replicas.is_empty()
    }

    /// The last known state of each replica.
    pub fn replica_status(&self) -> Vec<ReplicaStatus> {
        self.0.replicas.status()
    }

    /// How many reads by [`begin_read`](Self::begin_read) the primary and the replicas answered.
    pub fn replica_reads(&self) -> ReplicaReads {
        self.0.replicas.reads()
    }

    /// Changes whenever a message is put into the outbox.
    pub fn mail_changes(&self) -> watch::Receiver<u64> {
        self.0.resolver.mail_changes()
    }

    /// The cache of values that are expensive to compute and may be slightly old.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Sends other servers the pending invalidations of their caches. Call it before a shutdown.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it could not be done in time; [`ErrorKind::Unavailable`].
    pub async fn flush_cache(&self) -> Result<()> {
        self.0.cache.flush().await
    }

    /// Checks that the database answers, matches this build and accepts writes; for a readiness probe. It
    /// opens a new connection, so it detects what would make the next connection fail.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect); [`ErrorKind::Unavailable`] that is
    /// [read-only](Error::is_read_only).
    pub async fn check(&self) -> Result<()> {
        init::check_to_serve(&self.0.app.target(), "DATABASE_URL", &self.0.sealer).await
    }

    /// Takes a connection from the catalog's pool and runs `SELECT 1` on it.
    ///
    /// # Errors
    /// [`ErrorKind::PoolExhausted`] if none came free in time; [`ErrorKind::Unavailable`].
    pub async fn ping(&self) -> Result<()> {
        let tx = self.catalog(&OperatorContext::system("a sign of life")).await?;
        tx.query_and_commit("SELECT 1", &[]).await.map(drop)
    }

    /// How the database verifies contexts, as of when this server connected.
    pub fn seal_mode(&self) -> SealMode {
        self.0.mode
    }

    /// The background tasks of this handle; a service can add its own.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Whether only settings are reset after a tenant's transaction, since no code in the baseline can leave
    /// more.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn cleans_only_settings(&self) -> bool {
        self.0.only_settings.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Polls for changes at once, as servers do periodically if they receive no notifications.
    ///
    /// # Errors
    /// If the catalog cannot be queried.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn look_for_changes(&self) -> Result<()> {
        self.0.resolver.look_for_changes().await
    }

    /// Reports new keys for sealing contexts: the number increases with each.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn key_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.resolver.key_changes()
    }

    /// The connections as `freehold_app`, at this moment.
    pub fn pool_status(&self) -> PoolStatus {
        self.0.app.status()
    }

    /// The connections as `freehold_catalog`, at this moment.
    pub fn catalog_pool_status(&self) -> PoolStatus {
        self.0.catalog.status()
    }

    /// The connections as `freehold_owner`, if this server has them.
    pub fn owner_pool_status(&self) -> Option<PoolStatus> {
        self.0.owner.as_ref().map(Pool::status)
    }

    /// Refuses new work on every clone; transactions that have begun may finish.
    pub fn close(&self) {
        self.0.app.close();
        self.0.catalog.close();
        self.0.replicas.close();
        if let Some(owner) = &self.0.owner {
            owner.close();
        }
    }

    pub(crate) fn app_pool(&self) -> &Pool {
        &self.0.app
    }

    pub(crate) fn catalog_pool(&self) -> &Pool {
        &self.0.catalog
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    pub(crate) fn slug_locks(&self) -> &SlugLocks {
        &self.0.slug_locks
    }

    pub(crate) fn violation_queue(&self) -> &Violations {
        &self.0.violations
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    pub(crate) fn insight(&self) -> &Insight {
        &self.0.insight
    }

    pub(crate) fn shapes(&self) -> &ShapeSampler {
        &self.0.shapes
    }

    pub(crate) fn reporter(&self) -> &Reporter {
        &self.0.reporter
    }

    pub(crate) fn slow_log(&self) -> &SlowLog {
        &self.0.slow_log
    }

    #[cfg(feature = "sign-in")]
    pub(crate) fn hasher(&self) -> &PasswordHasher {
        &self.0.hasher
    }

    #[cfg(feature = "sign-in")]
    pub(crate) async fn hash_password(&self, password: String) -> Result<String> {
        Ok(self.0.hasher.hash(password).await?)
    }

    #[cfg(not(feature = "sign-in"))]
    pub(crate) async fn hash_password(&self, _: String) -> Result<String> {
        let why = "this program is built without the feature `sign-in`, so it takes no passwords";
        Err(Error::new(ErrorKind::Setup, why))
    }

    pub(crate) fn owner_pool(&self) -> Result<&Pool> {
        self.0.owner.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Setup,
                "this server has no owner connection (DATABASE_OWNER_URL), so it cannot create or migrate tenants",
            )
        })
    }

    pub(crate) fn analytics_connections(&self) -> Result<&Connections> {
        self.0.analytics.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Setup,
                "this server has no analytics connection (DATABASE_ANALYTICS_URL), so it cannot collect",
            )
        })
    }

    pub(crate) async fn catalog(&self, context: &OperatorContext) -> Result<CatalogTx> {
        CatalogTx::new(&self.0.catalog, context).await
    }

    pub(crate) async fn catalog_of(&self, context: &TenantContext) -> Result<CatalogTx> {
        CatalogTx::for_tenant(&self.0.catalog, context).await
    }
}
