//! Comparison of a migrated tenant with the template's state after the same migration.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::fast_path::FastPath;
use super::located_in;
use crate::catalog::baseline;
use crate::error::{Error, Result};
use crate::indexes::{IndexState, TenantIndex};
use crate::model::ids::TenantId;
use crate::schema::migration::Migration;
use crate::snapshot::change::Change;
use crate::snapshot::rows::Rows;
use crate::snapshot::{self, Snapshot};
use crate::tx::OwnerTx;

/// The most changes that are kept in memory, about a megabyte each for a schema of 160 tables. The tenants of
/// a fleet are at few versions.
const KEPT_MAX: usize = 32;

/// The change that each migration makes to tenants of the version before, read once per run of the migrator.
/// `None` if unknown, because another major version of PostgreSQL printed it.
#[derive(Default)]
pub(super) struct Changes(Mutex<HashMap<Versions, Arc<Step>>>);

/// A migration of tenants of one version.
pub(super) struct Step {
    pub(super) change: Option<Change>,
    /// None where each tenant has to be compared as a whole.
    pub(super) fast_path: Option<FastPath>,
}

/// The version before and after.
type Versions = (i64, i64);

impl Changes {
    pub(super) async fn of(
        &self,
        tx: &mut OwnerTx,
        migration: &Migration,
        former: i64,
    ) -> Result<Arc<Step>> {
        let mut kept = self.0.lock().await;
        let key = (former, migration.version);
        if let Some(step) = kept.get(&key) {
            return Ok(step.clone());
        }
        let before = match former {
            0 => Some(Snapshot::default()),
            former => printed_here(tx, former).await?,
        };
        let after = printed_here(tx, migration.version).await?.map(Arc::new);
        let step = match (before, after) {
            (_, None) => Step { change: None, fast_path: None },
            (None, Some(after)) => {
                Step { change: Some(Change::whole(Arc::default(), after)), fast_path: None }
            }
            (Some(before), Some(after)) => {
                let change = Change::between(Arc::new(before), after);
                Step { fast_path: FastPath::of(&change, migration), change: Some(change) }
            }
        };
        let step = Arc::new(step);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, step.clone());
        Ok(step)
    }

    /// What is known already of a migration.
    pub(super) async fn known(&self, former: i64, version: i64) -> Option<Arc<Step>> {
        self.0.lock().await.get(&(former, version)).cloned()
    }
}

async fn printed_here(tx: &mut OwnerTx, version: i64) -> Result<Option<Snapshot>> {
    let server = snapshot::server_major(tx).await?;
    let found = baseline::snapshot(tx.catalog(), version).await?;
    let found = found.filter(|snapshot| snapshot.server == server);
    Ok(found.map(|found| Snapshot { rows: Rows::default(), ..found }))
}

/// Fails unless the tenant equals the template's state after the same migration.
pub(super) async fn require_equal(
    change: &Change,
    tx: &mut OwnerTx,
    tenant: TenantId,
    migration: &Migration,
    own: &[TenantIndex],
) -> Result<()> {
    let is_spared =
        |index: &&TenantIndex| matches!(index.state, IndexState::Dropping | IndexState::Dropped);
    let spared = own.iter().filter(is_spared).map(|index| index.name.clone()).collect();
    change.require_in(tx, tenant, &spared).await.map_err(|error| {
        let text = format!("the tenant is not what the template is: {}", error.message());
        located_in(migration)(Error::new(error.kind(), text))
    })
}
