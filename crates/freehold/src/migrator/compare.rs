//! A tenant that a migration has brought on is compared with what the template was after it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::located_in;
use crate::catalog::baseline;
use crate::error::{Error, Result};
use crate::ids::TenantId;
use crate::indexes::{IndexState, TenantIndex};
use crate::migration::Migration;
use crate::snapshot::rows::Rows;
use crate::snapshot::{self, Snapshot};
use crate::tx::OwnerTx;

/// Versions kept in memory at a time, half a megabyte each for a schema of 160 tables. Tenants of a fleet
/// are at few.
const KEPT_MAX: usize = 32;

/// What the template was after each migration, read once in a run of the migrator. None where it cannot
/// be compared with: another major version of PostgreSQL has printed it.
#[derive(Default)]
pub(super) struct Snapshots(Mutex<HashMap<i64, Option<Arc<Snapshot>>>>);

impl Snapshots {
    async fn get(&self, tx: &mut OwnerTx, version: i64) -> Result<Option<Arc<Snapshot>>> {
        let mut kept = self.0.lock().await;
        if let Some(snapshot) = kept.get(&version) {
            return Ok(snapshot.clone());
        }
        let server = snapshot::server_major(tx).await?;
        let found = baseline::snapshot(tx.catalog(), version).await?;
        let found = found.filter(|snapshot| snapshot.server == server);
        let found = found.map(|found| Arc::new(Snapshot { rows: Rows::default(), ..found }));
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(version, found.clone());
        Ok(found)
    }

    /// Fails unless the tenant, which was at version `former`, has come to what the template was after
    /// the same migration.
    pub(super) async fn compare(
        &self,
        tx: &mut OwnerTx,
        tenant: TenantId,
        former: i64,
        migration: &Migration,
        own: &[TenantIndex],
    ) -> Result<()> {
        let Some(template) = self.get(tx, migration.version).await? else { return Ok(()) };
        let former = self.get(tx, former).await?;
        let is_spared = |index: &&TenantIndex| {
            matches!(index.state, IndexState::Dropping | IndexState::Dropped)
        };
        let spared = own.iter().filter(is_spared).map(|index| index.name.clone()).collect();
        template.require_equal(tx, tenant, former.as_deref(), &spared).await.map_err(|error| {
            let text = format!("the tenant is not what the template is: {}", error.message());
            located_in(migration)(Error::new(error.kind(), text))
        })
    }
}
