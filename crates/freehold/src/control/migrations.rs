//! Migrations: of the template, and from there of every tenant.

use tokio::sync::watch;

use crate::cache::CACHE_AGE_MAX;
use crate::cache::key::CacheKey;
use crate::catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::dry_run::{self, DryRun};
use crate::fleet::migrator::{self, MigrateOptions, MigrateReport, MigrateStatus};
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::model::ids::TEMPLATE_SCHEMA;
use crate::schema::migration::Baseline;

/// Handle over migrations of the fleet: [`Freehold::migrations`].
#[derive(Clone, Copy)]
pub struct Migrations<'a>(&'a Freehold);

impl Freehold {
    /// Migrations of the fleet.
    pub fn migrations(&self) -> Migrations<'_> {
        Migrations(self)
    }
}

impl Migrations<'_> {
    /// Applies what is new in a folder of migrations to the template, then brings every tenant to
    /// the baseline. `progress` hears how many tenants of how many are done.
    ///
    /// A tenant that fails is in the report and in nobody's way; a second run takes up what is left.
    ///
    /// # Errors
    /// [`ErrorKind::Migration`] if a migration fails in the template (no tenant is touched then), or
    /// if one that was applied is missing or changed; [`ErrorKind::Retryable`] if somebody else
    /// migrates at the same time; [`ErrorKind::Setup`] without an owner connection.
    pub async fn up(
        self,
        folder: &Baseline,
        options: MigrateOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<MigrateReport> {
        let owner = self.0.owner_pool()?;
        let adopted = migrator::adopt(owner, folder).await?;
        let mut report = migrator::bring_fleet(owner, options, progress).await?;
        report.notices.extend(folder.notices(&adopted.labels));
        report.notices.extend(adopted.notices);
        Ok(MigrateReport { layout: folder.layout(), adopted: adopted.labels, ..report })
    }

    /// What [`up`](crate::control::migrations::Migrations::up) would do. The new files are run in the template, in a
    /// transaction that is rolled back: nothing is left of it, and no tenant is touched.
    ///
    /// # Errors
    /// As of [`up`](crate::control::migrations::Migrations::up), but for what a file is refused with: that is in the outcome.
    pub async fn dry_run(self, folder: &Baseline, options: MigrateOptions) -> Result<DryRun> {
        dry_run::run(self.0.owner_pool()?, folder, options).await
    }

    /// How far the fleet is, and whom the last run of [`up`](crate::control::migrations::Migrations::up) failed for.
    pub async fn status(self) -> Result<MigrateStatus> {
        migrator::status(self.0.catalog_pool()).await
    }

    /// Runs a query about the template, whose schema is its parameter `$1`, and returns the text
    /// in its first row and column: what does not depend on a tenant.
    ///
    /// It sees the catalog, so it takes leave to, and only text that is part of the program.
    pub async fn describe_template(
        self,
        context: &OperatorContext,
        sql: &'static str,
    ) -> Result<String> {
        let fingerprint = catalog::baseline::fingerprint(self.0.catalog(context).await?).await?;
        let load = async {
            let tx = self.0.catalog(context).await?;
            let rows = tx.query_and_commit(sql, &[&TEMPLATE_SCHEMA]).await?;
            rows.first()
                .map(|row| row.get(0))
                .ok_or_else(|| Error::new(ErrorKind::Internal, "the template is empty"))
        };
        // Named by what it is made of: of another baseline there is another.
        let key = CacheKey::global("model").part(fingerprint).part(sql);
        Ok(self.0.cache().get_or_load(&key, CACHE_AGE_MAX, load).await?.value)
    }

    /// Changes whenever the baseline does; what was read from the template is stale then.
    pub fn changes(self) -> watch::Receiver<u64> {
        self.0.resolver().baseline_changes()
    }
}
