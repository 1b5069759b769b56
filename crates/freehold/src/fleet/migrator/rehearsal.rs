//! Rehearsals: a throwaway tenant gets each migration before the fleet does, so that a migration that works
//! for the template only is refused before any tenant has it.
//!
//! It is created as a tenant of the version before, and migrated along with the template while a run of the
//! migrator adopts one migration after another. No tenant role can use its schema. One that a killed run has
//! left is reused or replaced by the next run.

use std::sync::Arc;

use super::{apply, located_in};
use crate::error::{Error, Result};
use crate::model::ids::TenantId;
use crate::schema::migration::Migration;
use crate::schema::outside;
use crate::snapshot::change::Change;
use crate::snapshot::rows::{self, Rows};
use crate::snapshot::{self, Snapshot};
use crate::tx::OwnerTx;

/// The template before a migration; version 0 before the first.
#[derive(Default)]
pub(crate) struct Former {
    pub(crate) version: i64,
    pub(crate) template: Arc<Snapshot>,
}

impl Former {
    pub(crate) fn of(newest: Option<(i64, Snapshot)>) -> Former {
        let known = |(version, template)| Former { version, template: Arc::new(template) };
        newest.map(known).unwrap_or_default()
    }
}

/// Creates the throwaway tenant in the state before a migration, unless it is in that state.
async fn ready(tx: &mut OwnerTx, former: &Former) -> Result<()> {
    let schema = TenantId::REHEARSAL.schema();
    let sql = "SELECT obj_description(to_regnamespace($1), 'pg_namespace')";
    let rows = tx.catalog().query(sql, &[&schema]).await?;
    let here: Option<&str> = rows.first().and_then(|row| row.get(0));
    if here == Some(&*former.version.to_string()) {
        return Ok(());
    }
    discard(tx).await?;
    tx.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    snapshot::fill_schema(tx, TenantId::REHEARSAL, &former.template).await
}

pub(super) async fn discard(tx: &mut OwnerTx) -> Result<()> {
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", TenantId::REHEARSAL.schema());
    tx.batch_execute(&sql).await
}

/// Migrates it in the same way as the fleet.
async fn bring(tx: &mut OwnerTx, former: &Former, migration: &Migration) -> Result<()> {
    ready(tx, former).await?;
    rows::detach_sequences(tx, TenantId::REHEARSAL).await?;
    tx.enter_schema(TenantId::REHEARSAL).await?;
    tx.ddl(async |client| {
        // Temporary tables from the template's run must not exist here.
        client.batch_execute("DISCARD TEMP").await?;
        let before = outside::survey(client, TenantId::REHEARSAL).await?;
        apply(client, TenantId::REHEARSAL, migration, &[]).await?;
        outside::refuse(client, &before, migration).await
    })
    .await
    .map_err(|error| {
        let text = format!("{} (in a tenant, for the template took it)", error.message());
        Error::new(error.kind(), text).because(error)
    })?;
    let schema = TenantId::REHEARSAL.schema();
    tx.batch_execute(&format!("COMMENT ON SCHEMA {schema} IS '{}'", migration.version)).await
}

/// Fails unless a tenant of the version before reaches the template's new state.
pub(super) async fn require_same(
    tx: &mut OwnerTx,
    former: &Former,
    migration: &Migration,
    after: &Arc<Snapshot>,
) -> Result<()> {
    bring(tx, former, migration).await?;
    let change = Change::whole(former.template.clone(), after.clone());
    change.require_in(tx, TenantId::REHEARSAL, &Default::default()).await.map_err(|error| {
        located_in(migration)(Error::new(
            error.kind(),
            format!(
                "a tenant does not come to what the template has: {}. A migration must do the same in every schema: whatever it looks up in PostgreSQL's catalogs, it must look up in current_schema()",
                error.message()
            ),
        ))
    })
}

/// Its rows after a migration.
pub(super) async fn rows_after(
    tx: &mut OwnerTx,
    former: &Former,
    migration: &Migration,
) -> Result<Rows> {
    bring(tx, former, migration).await?;
    tx.enter_schema(TenantId::REHEARSAL).await?;
    Rows::of(tx, TenantId::REHEARSAL).await.map_err(located_in(migration))
}
