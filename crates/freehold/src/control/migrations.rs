//! Migrations of the template and of every tenant.

use serde_json::json;
use tokio::sync::watch;

use crate::cache::CACHE_AGE_MAX;
use crate::cache::key::CacheKey;
use crate::catalog;
use crate::catalog::audit::{self, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::dry_run::{self, DryRun};
use crate::fleet::migrator::{self, MigrateOptions, MigrateReport, MigrateStatus, waves};
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::TEMPLATE_SCHEMA;
use crate::schema::migration::Baseline;
use crate::tx::CatalogTx;

/// Handle for migrating the fleet, trying migrations and reading their status: [`Freehold::migrations`].
#[derive(Clone, Copy)]
pub struct Migrations<'a>(&'a Freehold);

impl Freehold {
    /// Migrates the fleet, tries migrations and reads their status.
    pub fn migrations(&self) -> Migrations<'_> {
        Migrations(self)
    }
}

impl Migrations<'_> {
    /// Applies the new files of a folder of migrations to the template, then brings every tenant to the
    /// baseline. `progress` is called with the number of tenants done and the number of all.
    ///
    /// A tenant that fails is in the report and does not stop the others, unless the options say so; then the
    /// report says why the run stopped. A second run continues with the remaining tenants.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while migrations are paused; [`ErrorKind::Migration`] if a migration fails in the template (then no tenant is changed), or if an
    /// applied one is missing or changed; [`ErrorKind::Retryable`] if another run migrates at the same time;
    /// [`ErrorKind::Setup`] without an owner connection.
    pub async fn up(
        self,
        context: &OperatorContext,
        folder: &Baseline,
        options: MigrateOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<MigrateReport> {
        let owner = self.0.owner_pool()?;
        waves::require_not_paused(owner).await?;
        let adopted = migrator::adopt(owner, context, folder).await?;
        self.record_run(context).await?;
        let mut report = migrator::bring_fleet(owner, &options, progress).await?;
        report.notices.extend(folder.notices(&adopted.labels));
        report.notices.extend(adopted.notices);
        Ok(MigrateReport { layout: folder.layout(), adopted: adopted.labels, ..report })
    }

    /// Records that tenants are migrated, before the first of them is, since each has a transaction of its own.
    /// The outcome is in [`status`](Self::status).
    async fn record_run(self, context: &OperatorContext) -> Result<()> {
        let status = self.status().await?;
        let behind = status.tenants.iter().filter(|(version, _)| *version < status.version);
        let behind: i64 = behind.map(|(_, tenants)| tenants).sum();
        if behind == 0 {
            return Ok(());
        }
        let mut tx = self.0.catalog(context).await?;
        let detail = json!({"to": status.version, "tenants": behind});
        audit::record(&mut tx, AuditEvent::of(AuditAction::FleetMigrate, context).detail(detail))
            .await?;
        tx.commit().await
    }

    /// What [`up`](crate::control::migrations::Migrations::up) would do. Runs the new files in the template,
    /// in a transaction that is rolled back, and changes no tenant.
    ///
    /// # Errors
    /// As for [`up`](crate::control::migrations::Migrations::up), except for the refusal of a file, which is
    /// in the result.
    pub async fn dry_run(self, folder: &Baseline, options: MigrateOptions) -> Result<DryRun> {
        dry_run::run(self.0.owner_pool()?, folder, &options).await
    }

    /// Pauses migrations of the fleet: a run that is under way stops within about a second, after the tenants it
    /// is at, and none begins until [`resume`](Self::resume). False if they are paused already.
    pub async fn pause(self, context: &OperatorContext) -> Result<bool> {
        let mut tx = self.0.catalog(context).await?;
        let changed =
            catalog::baseline::set_pause(&mut tx, context.actor(), context.reason()).await?;
        self.record_pause(tx, context, AuditAction::FleetPause, changed).await
    }

    /// Permits migrations again. It begins none. False if they were not paused.
    pub async fn resume(self, context: &OperatorContext) -> Result<bool> {
        let mut tx = self.0.catalog(context).await?;
        let changed = catalog::baseline::end_pause(&mut tx).await?;
        self.record_pause(tx, context, AuditAction::FleetResume, changed).await
    }

    async fn record_pause(
        self,
        mut tx: CatalogTx,
        context: &OperatorContext,
        action: AuditAction,
        changed: bool,
    ) -> Result<bool> {
        if changed {
            audit::record(&mut tx, AuditEvent::of(action, context)).await?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// The versions of the fleet, whether migrations are paused, and the tenants for which the last run of
    /// [`up`](crate::control::migrations::Migrations::up) failed.
    pub async fn status(self) -> Result<MigrateStatus> {
        migrator::status(self.0.catalog_pool()).await
    }

    /// Runs a query about the template, whose schema is the parameter `$1`, and returns the text in the first
    /// row and column. It is for facts that do not depend on a tenant.
    ///
    /// The query can read the catalog, so it takes an operator's context, and only SQL that is part of the
    /// program.
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
        // The key contains the baseline's fingerprint, so another baseline has another entry.
        let key = CacheKey::global("model").part(fingerprint).part(sql);
        Ok(self.0.cache().get_or_load(&key, CACHE_AGE_MAX, load).await?.value)
    }

    /// Changes whenever the baseline does; what was read from the template before is stale then.
    pub fn changes(self) -> watch::Receiver<u64> {
        self.0.resolver().baseline_changes()
    }
}
