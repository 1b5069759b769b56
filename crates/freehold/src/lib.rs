//! Freehold: every tenant on its own ground.
//!
//! Multi-tenancy for services on PostgreSQL. Each tenant has a schema of its own, row-level
//! security lies under it as the safety net, and the only way to a connection is through a
//! tenant's context.

mod actor;
#[cfg(feature = "axum")]
pub mod axum;
mod catalog;
mod context;
pub mod control;
mod error;
mod ids;
mod init;
mod limiter;
mod migrator;
mod passwords;
mod policy;
mod pool;
mod provisioner;
mod resolver;
mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
pub mod tokens;
mod tx;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::Row;

use crate::passwords::PasswordHasher;
use crate::pool::Pool;
use crate::resolver::Resolver;
use crate::tx::CatalogTx;

pub use crate::actor::{Action, Actor, Role, permits, require};
pub use crate::context::{OperatorContext, TenantContext};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::ids::{Email, IdentityId, Slug, TEMPLATE_SCHEMA, TenantId};
pub use crate::init::{CATALOG_VERSION, InitReport, Passwords, init};
pub use crate::limiter::{Rate, SignInLimits};
pub use crate::migrator::{
    Baseline, MigrateFailure, MigrateOptions, MigrateReport, MigrateStatus, Migration,
};
pub use crate::pool::{PoolLimits, PoolStatus};
pub use crate::tenant::{Tenant, TenantStatus, Transition};
pub use crate::tx::{Params, TenantTx, TextParam};
/// The time of this API, as rows and answers hold it.
pub use jiff;
/// The driver whose rows and parameters are used here.
pub use tokio_postgres;
/// What ids are made of, as rows and parameters hold them.
pub use uuid;

/// Where the database is, and how much of it may be used.
#[derive(Clone)]
pub struct Options {
    /// Connects as `freehold_app`.
    pub app_url: String,
    /// Connects as `freehold_owner`. Without it, this server creates and migrates nothing.
    pub owner_url: Option<String>,
    pub app_pool: PoolLimits,
    pub owner_pool: PoolLimits,
}

impl Options {
    pub fn new(app_url: impl Into<String>) -> Options {
        Options {
            app_url: app_url.into(),
            owner_url: None,
            app_pool: PoolLimits::default(),
            owner_pool: PoolLimits { connections_max: 4, ..PoolLimits::default() },
        }
    }

    pub fn owner_url(mut self, url: impl Into<String>) -> Options {
        self.owner_url = Some(url.into());
        self
    }
}

/// The fleet and its database. Cheap to clone; the connections close when the last clone is gone.
#[derive(Clone)]
pub struct Freehold(Arc<Inner>);

struct Inner {
    app: Pool,
    owner: Option<Pool>,
    resolver: Resolver,
    hasher: PasswordHasher,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Freehold {
    /// Connects, and checks that the database is prepared and that row-level security binds the
    /// role it connects as.
    pub async fn connect(options: &Options) -> Result<Freehold> {
        let app = Pool::new(&options.app_url, "DATABASE_URL", options.app_pool)?;
        init::check(&app).await?;
        let owner = match &options.owner_url {
            Some(url) => Some(Pool::new(url, "DATABASE_OWNER_URL", options.owner_pool)?),
            None => None,
        };
        let resolver = Resolver::new(app.clone());
        let listener = tokio::spawn(resolver.clone().listen(app.target()));
        let hasher = PasswordHasher::per_core();
        Ok(Freehold(Arc::new(Inner { app, owner, resolver, hasher, listener })))
    }

    /// Leave to work in a tenant, for a person: the tenant is active and they are a member.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such tenant or they are no member of it,
    /// [`ErrorKind::TenantSuspended`].
    pub async fn tenant_context(
        &self,
        tenant: TenantId,
        identity: IdentityId,
    ) -> Result<TenantContext> {
        self.0.resolver.resolve(tenant, identity).await
    }

    /// Leave to work in a tenant, for an actor whom the caller vouches for: a scheduled job, or a
    /// person that another sign-in has established. The tenant must be active.
    pub async fn tenant_context_as(&self, tenant: TenantId, actor: Actor) -> Result<TenantContext> {
        if actor.role == Role::Operator {
            return Err(Error::new(ErrorKind::Forbidden, "an operator is no actor in a tenant"));
        }
        self.0.resolver.resolve_as(tenant, actor).await
    }

    /// Begins a transaction in a tenant's schema. It costs nothing until its first statement.
    pub async fn begin(&self, context: &TenantContext) -> Result<TenantTx> {
        TenantTx::new(&self.0.app, context).await
    }

    /// One statement as a transaction of its own, in one round trip once it is prepared.
    pub async fn query(
        &self,
        context: &TenantContext,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        self.begin(context).await?.query_and_commit(sql, params).await
    }

    /// Applies what is new in a folder of migrations to the template, then brings every tenant to
    /// the baseline. `progress` hears how many of how many are done.
    pub async fn migrate(
        &self,
        folder: &Baseline,
        options: MigrateOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<MigrateReport> {
        let owner = self.owner_pool()?;
        let adopted = migrator::adopt(owner, folder).await?;
        let report = migrator::bring_fleet(owner, options, progress).await?;
        Ok(MigrateReport { adopted, ..report })
    }

    pub async fn migrate_status(&self) -> Result<MigrateStatus> {
        migrator::status(&self.0.app).await
    }

    /// Runs a query about the template, whose schema is its parameter `$1`, and returns the text
    /// in its first row and column: what does not depend on a tenant.
    ///
    /// It sees the catalog, so it takes leave to, and only text that is part of the program.
    pub async fn describe_template(
        &self,
        context: &OperatorContext,
        sql: &'static str,
    ) -> Result<String> {
        let tx = self.catalog(context).await?;
        let rows = tx.query_and_commit(sql, &[&TEMPLATE_SCHEMA]).await?;
        rows.first()
            .map(|row| row.get(0))
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the template is empty"))
    }

    /// Changes whenever the baseline does; what was read from the template is stale then.
    pub fn baseline_changes(&self) -> watch::Receiver<u64> {
        self.0.resolver.baseline_changes()
    }

    /// Checks that the database answers and is what this build needs.
    pub async fn check(&self) -> Result<()> {
        init::check(&self.0.app).await
    }

    pub fn pool_status(&self) -> PoolStatus {
        self.0.app.status()
    }

    pub fn owner_pool_status(&self) -> Option<PoolStatus> {
        self.0.owner.as_ref().map(Pool::status)
    }

    /// Refuses new work; what is under way may finish.
    pub fn close(&self) {
        self.0.app.close();
        if let Some(owner) = &self.0.owner {
            owner.close();
        }
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    pub(crate) fn hasher(&self) -> &PasswordHasher {
        &self.0.hasher
    }

    pub(crate) fn owner_pool(&self) -> Result<&Pool> {
        self.0.owner.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Setup,
                "this server has no owner connection (DATABASE_OWNER_URL), so it cannot create or migrate tenants",
            )
        })
    }

    pub(crate) async fn catalog(&self, context: &OperatorContext) -> Result<CatalogTx> {
        CatalogTx::new(&self.0.app, context).await
    }

    pub(crate) async fn catalog_of(&self, context: &TenantContext) -> Result<CatalogTx> {
        CatalogTx::for_tenant(&self.0.app, context).await
    }
}
