//! `freehold.cache_epoch`: the current epoch of a tenant's values or of the global ones.

use uuid::Uuid;

use crate::cache::key::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::tx::CatalogTx;

/// The current epochs of some scopes, in the same order. A missing one is created, which also records that it
/// is in use. Includes the epochs of what a name depends on.
pub(crate) async fn learn(tx: CatalogTx, scopes: &[Scope]) -> Result<Vec<i64>> {
    let (tenants, names) = columns(scopes);
    let rows = tx
        .query_and_commit(
            "WITH asked AS (
               SELECT * FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a (tenant_id, name, place)
             ), known AS (
               SELECT a.place, e.epoch FROM asked a JOIN freehold.cache_epoch e USING (tenant_id, name)
               WHERE e.used_at > now() - interval '10 minutes'
             ), made AS (
               INSERT INTO freehold.cache_epoch (tenant_id, name)
               SELECT a.tenant_id, a.name FROM asked a WHERE a.place NOT IN (SELECT place FROM known)
               ORDER BY a.tenant_id, a.name
               ON CONFLICT (tenant_id, name) DO UPDATE SET used_at = now()
               RETURNING tenant_id, name, epoch
             )
             SELECT a.place, epoch # coalesce(freehold.cache_source(a.name), 0) AS epoch
             FROM (SELECT place, epoch FROM known
                   UNION ALL SELECT a.place, m.epoch FROM made m JOIN asked a USING (tenant_id, name)) AS all_of_them
             JOIN asked a USING (place)
             ORDER BY place",
            &[&tenants, &names],
        )
        .await?;
    if rows.len() != scopes.len() {
        return Err(Error::new(ErrorKind::Internal, "an epoch of the cache is missing"));
    }
    Ok(rows.iter().map(|row| row.get("epoch")).collect())
}

/// Ends the epochs of some scopes. If the cache has not used a scope recently, nothing is written.
pub(crate) async fn end(tx: CatalogTx, scopes: &[Scope]) -> Result<()> {
    let (tenants, names) = columns(scopes);
    // In a fixed order, so that two servers that end the same epochs do not deadlock.
    tx.query_and_commit(
        "WITH held AS MATERIALIZED (
           SELECT e.tenant_id, e.name FROM freehold.cache_epoch e
           JOIN unnest($1::uuid[], $2::text[]) AS a (tenant_id, name) USING (tenant_id, name)
           ORDER BY e.tenant_id, e.name FOR UPDATE OF e
         )
         UPDATE freehold.cache_epoch e SET epoch = nextval('freehold.cache_epoch_seq') FROM held
         WHERE e.tenant_id = held.tenant_id AND e.name = held.name",
        &[&tenants, &names],
    )
    .await?;
    Ok(())
}

/// Ends all epochs of a tenant, whatever the search path is.
pub(crate) async fn end_all(tx: &mut CatalogTx, tenant: Uuid) -> Result<()> {
    tx.execute(
        "UPDATE freehold.cache_epoch SET epoch = nextval('freehold.cache_epoch_seq') WHERE tenant_id = $1",
        &[&tenant],
    )
    .await?;
    Ok(())
}

/// Removes epochs that no server has asked for in an hour: no value is kept that long.
pub(crate) async fn prune(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit(
        "DELETE FROM freehold.cache_epoch WHERE used_at < now() - interval '90 minutes'",
        &[],
    )
    .await?;
    Ok(())
}

fn columns(scopes: &[Scope]) -> (Vec<Uuid>, Vec<&str>) {
    scopes.iter().map(|scope| (scope.owner.as_uuid(), scope.name.as_str())).unzip()
}
