//! The fast path for a tenant, available once another tenant of the same version was migrated on the long
//! path. Then it is known which statements protect the new objects, and how the tenant must look afterwards.
//!
//! It takes three round trips, whatever the migration contains. It makes no decision of its own: a tenant
//! that looks like none of those that took the long path is rolled back and takes it too. The long path reports
//! what is wrong; if nothing is, the tenant is one more example.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::time::Instant;

use super::{MigrateOptions, millis};
use crate::catalog::{baseline, tenants};
use crate::error::{Error, ErrorKind, Result, is_lock_timeout};
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;
use crate::pool::Pool;
use crate::schema::migration::Migration;
use crate::schema::migration::run::RUN_SQL;
use crate::snapshot::change::{BARE_SQL, Change};
use crate::snapshot::describe::{BEFORE_DESCRIBING, Fingerprint};
use crate::snapshot::{in_schema_of, in_template};
use crate::tx::OwnerTx;
use crate::wire::params::Params;

/// After this many tenants in a row that needed the long path, all others take it at once, since they would
/// pay for both.
const FAILURES_MAX: u32 = 3;
/// The most statements of a file. A pipeline takes 256, including those around them.
const STATEMENTS_MAX: usize = 200;
/// The most ways that migrated tenants are known to look. They differ in what tenants have beside the template.
const EXAMPLES_MAX: usize = 8;

/// A migration of tenants that have the same version.
pub(super) struct FastPath {
    fingerprint: Fingerprint,
    /// All tables that must exist and be protected, whether or not the migration changes them.
    tables: Vec<String>,
    learned: RwLock<Option<Arc<Learned>>>,
    failures: AtomicU32,
}

/// What was learned from tenants that took the long path.
#[derive(Clone)]
struct Learned {
    /// The statements that protect the objects created by the migration, with the template's names.
    protection: String,
    /// How such a tenant may look afterwards.
    fingerprints: Vec<Option<String>>,
}

impl FastPath {
    /// None if each tenant must be compared completely.
    pub(super) fn of(change: &Change, migration: &Migration) -> Option<FastPath> {
        // A file that looks at rows or catalogs may make other objects in another tenant, which nothing here
        // would protect or compare.
        if !migration.is_unconditional() {
            return None;
        }
        // The number is the same for every tenant.
        if migration.statements_for(TenantId::TEMPLATE).ok()?.len() > STATEMENTS_MAX {
            return None;
        }
        let (fingerprint, tables) = (change.fingerprint()?, change.tables());
        Some(FastPath {
            fingerprint,
            tables,
            learned: RwLock::default(),
            failures: AtomicU32::new(0),
        })
    }

    /// Takes a tenant that was just migrated and verified as the example for the others.
    pub(super) async fn learn(
        &self,
        tx: &mut OwnerTx,
        tenant: TenantId,
        protection: &str,
    ) -> Result<()> {
        let fingerprint = self.fingerprint.read(tx, tenant).await?;
        let protection = in_template(tenant, protection);
        let mut kept = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        let none =
            || Arc::new(Learned { protection: protection.clone(), fingerprints: Vec::new() });
        let learned = Arc::make_mut(kept.get_or_insert_with(none));
        let known = &mut learned.fingerprints;
        // The fast path protects all tenants alike.
        if learned.protection == protection
            && known.len() < EXAMPLES_MAX
            && !known.contains(&fingerprint)
        {
            known.push(fingerprint);
        }
        Ok(())
    }

    fn learned(&self) -> Option<Arc<Learned>> {
        self.learned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Migrates a tenant of version `former`. False if nothing was done and it needs the long path.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; if the application held a lock for too long.
    pub(super) async fn bring(
        &self,
        owner: &Pool,
        tenant: TenantId,
        former: i64,
        migration: &Migration,
        options: &MigrateOptions,
    ) -> Result<bool> {
        let Some(learned) = self.learned() else { return Ok(false) };
        if self.failures.load(Ordering::Relaxed) >= FAILURES_MAX {
            return Ok(false);
        }
        let statements = migration.statements_for(tenant)?;
        let started = Instant::now();
        let mut tx = OwnerTx::new(owner, &OperatorContext::system("migrate a tenant")).await?;
        match tenants::lock_version(tx.catalog(), tenant).await? {
            Some((version, has_own_indexes)) if version < migration.version => {
                if version != former || has_own_indexes {
                    tx.rollback().await?;
                    return Ok(false);
                }
            }
            // The tenant was removed, or another run has migrated it.
            _ => return Ok(true),
        }
        let same = match self.apply(&mut tx, tenant, &statements, &learned, options).await {
            Ok(same) => same,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) if error.database().is_some_and(is_lock_timeout) => {
                return Err(super::located_in(migration)(error));
            }
            Err(_) => false,
        };
        if !same {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tx.rollback().await?;
            return Ok(false);
        }
        self.failures.store(0, Ordering::Relaxed);
        baseline::advance(tx, tenant, migration, millis(started)).await?;
        Ok(true)
    }

    /// Runs all statements in one flush. Returns whether the tenant then looks like one that is known.
    async fn apply(
        &self,
        tx: &mut OwnerTx,
        tenant: TenantId,
        statements: &[String],
        learned: &Learned,
        options: &MigrateOptions,
    ) -> Result<bool> {
        let (sealed, path) = tx.entry_of(tenant);
        let timeout = options.lock_timeout.as_millis().to_string();
        let protection = in_schema_of(tenant, &learned.protection);
        let (schema, id) = (tenant.schema(), tenant.to_string());
        let enter: Params<'_> = &[&sealed, &path, &timeout];
        let run: Vec<[&(dyn postgres_types::ToSql + Sync); 1]> =
            statements.iter().map(|statement| [statement as _]).collect();
        let protect: Params<'_> = &[&protection];
        let look: Params<'_> = &[&schema, &self.fingerprint.names, &id];
        let tables: Params<'_> = &[&schema, &self.tables];
        let mut pieces = vec![(
            "SELECT freehold_guard.admit($1), set_config('search_path', $2, true), set_config('lock_timeout', $3, true)",
            enter,
        )];
        pieces.extend(run.iter().map(|params| (RUN_SQL, &params[..])));
        pieces.push(("SET CONSTRAINTS ALL IMMEDIATE", &[]));
        pieces.push((BEFORE_DESCRIBING, &[]));
        if !protection.is_empty() {
            pieces.push((RUN_SQL, protect));
        }
        pieces.push((BARE_SQL, tables));
        if !self.fingerprint.is_empty() {
            pieces.push((&self.fingerprint.sql, look));
        }
        let mut answers = tx.catalog().pipeline(&pieces).await.map_err(Error::from)?;
        let fingerprint = match self.fingerprint.is_empty() {
            true => None,
            false => answers.pop().and_then(|answer| answer.rows.first()?.get(0)),
        };
        let is_bare = answers.pop().is_none_or(|answer| !answer.rows.is_empty());
        Ok(learned.fingerprints.contains(&fingerprint) && !is_bare)
    }
}
