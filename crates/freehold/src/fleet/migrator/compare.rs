//! Comparison of a migrated tenant with the template's state after the same migration.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

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
pub(super) struct Changes(Mutex<HashMap<Versions, Option<Arc<Change>>>>);

/// The version before and after.
type Versions = (i64, i64);

impl Changes {
    pub(super) async fn of(
        &self,
        tx: &mut OwnerTx,
        migration: &Migration,
        former: i64,
    ) -> Result<Option<Arc<Change>>> {
        let mut kept = self.0.lock().await;
        let key = (former, migration.version);
        if let Some(change) = kept.get(&key) {
            return Ok(change.clone());
        }
        let before = match former {
            0 => Some(Snapshot::default()),
            former => printed_here(tx, former).await?,
        };
        let after = printed_here(tx, migration.version).await?.map(Arc::new);
        let change = after.map(|after| match before {
            Some(before) => Change::between(Arc::new(before), after),
            None => Change::whole(Arc::default(), after),
        });
        let change = change.map(Arc::new);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, change.clone());
        Ok(change)
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
