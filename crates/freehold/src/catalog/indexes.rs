//! `freehold.tenant_index` and `freehold.query_shape`: the indexes by which tenants differ from the template,
//! and the sampled query shapes.

use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::indexes::{IndexState, QueryShape, SampledShape, TenantIndex};
use crate::model::context::OperatorContext;
use crate::model::ids::{TEMPLATE_SCHEMA, TenantId};
use crate::tx::CatalogTx;
use crate::wire::Row;

/// Records a change that is about to be made, or was made.
pub(crate) async fn record(
    tx: &mut CatalogTx,
    context: &OperatorContext,
    index: &TenantIndex,
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.tenant_index
           (tenant_id, index_name, table_name, definition, state, error, actor_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id, index_name) DO UPDATE SET table_name = excluded.table_name,
           definition = excluded.definition, state = excluded.state, error = excluded.error,
           actor_id = excluded.actor_id, changed_at = clock_timestamp()",
        &[
            &index.tenant.as_uuid(),
            &index.name,
            &index.table,
            &index.definition,
            &index.state.as_str(),
            &index.error,
            &context.actor().as_uuid(),
        ],
    )
    .await?;
    Ok(())
}

/// Records that the tenant agrees with the template for this index.
pub(crate) async fn forget(tx: &mut CatalogTx, tenant: TenantId, name: &str) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.tenant_index WHERE tenant_id = $1 AND index_name = $2",
        &[&tenant.as_uuid(), &name],
    )
    .await?;
    Ok(())
}

/// After a migration: a recorded index may have another definition, or have been dropped with its table or
/// column.
pub(crate) async fn follow(tx: &mut CatalogTx, tenant: TenantId) -> Result<()> {
    tx.execute(
        "WITH present AS MATERIALIZED (
           SELECT c.relname::text AS name, b.relname::text AS relation,
             replace(pg_catalog.pg_get_indexdef(c.oid), n.nspname || '.', '@schema.') AS definition
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid JOIN pg_catalog.pg_class b ON b.oid = i.indrelid
           WHERE n.nspname = $2::text
             AND c.relname IN (SELECT index_name FROM freehold.tenant_index WHERE tenant_id = $1)
         ), template AS MATERIALIZED (
           SELECT c.relname::text AS name FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $3::text AND c.relkind = 'i'
         ), gone AS (
           DELETE FROM freehold.tenant_index x WHERE tenant_id = $1
             AND ((state = 'created' AND index_name NOT IN (SELECT name FROM present))
               OR (state = 'dropped' AND index_name NOT IN (SELECT name FROM template)))
         )
         UPDATE freehold.tenant_index x SET definition = p.definition, table_name = p.relation
         FROM present p WHERE x.tenant_id = $1 AND x.state = 'created' AND p.name = x.index_name
           AND (x.definition, x.table_name) IS DISTINCT FROM (p.definition, p.relation)",
        &[&tenant.as_uuid(), &tenant.schema(), &TEMPLATE_SCHEMA],
    )
    .await?;
    Ok(())
}

/// The entries of these tenants, or of all.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenants: Option<&[TenantId]>,
    limit: i64,
) -> Result<Vec<TenantIndex>> {
    let ids: Option<Vec<Uuid>> = tenants.map(|of| of.iter().map(TenantId::as_uuid).collect());
    let rows = tx
        .query(
            "SELECT x.*, t.slug FROM freehold.tenant_index x JOIN freehold.tenant t ON t.id = x.tenant_id
             WHERE $1::uuid[] IS NULL OR x.tenant_id = ANY($1) ORDER BY t.slug, x.index_name LIMIT $2",
            &[&ids, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TenantIndex {
                tenant: TenantId::from(row.get::<_, Uuid>("tenant_id")),
                slug: row.get("slug"),
                name: row.get("index_name"),
                table: row.get("table_name"),
                definition: row.get("definition"),
                state: IndexState::parse(row.get("state"))?,
                error: row.get("error"),
                changed_at: Some(row.get("changed_at")),
            })
        })
        .collect()
}

/// Adds to the counts of query shapes.
pub(crate) async fn record_shapes(
    tx: CatalogTx,
    counts: &[(TenantId, QueryShape, u64)],
) -> Result<()> {
    let mut rows = Vec::with_capacity(counts.len());
    for (tenant, shape, requests) in counts {
        let text = serde_json::to_string(shape).map_err(unreadable)?;
        rows.push(json!({
            "tenant_id": tenant, "table_name": shape.table, "shape": text, "requests": requests,
        }));
    }
    tx.query_and_commit("SELECT freehold.record_query_shapes($1)", &[&json!(rows)]).await?;
    Ok(())
}

/// Deletes shapes that are no longer requested.
pub(crate) async fn prune_shapes(tx: CatalogTx) -> Result<()> {
    tx.query_and_commit("SELECT freehold.prune_query_shapes()", &[]).await?;
    Ok(())
}

/// The query shapes of the last 30 days, the most frequent first.
pub(crate) async fn list_shapes(
    tx: &mut CatalogTx,
    tenants: &[TenantId],
) -> Result<Vec<SampledShape>> {
    let ids: Vec<Uuid> = tenants.iter().map(TenantId::as_uuid).collect();
    let rows = tx
        .query(
            "SELECT tenant_id, shape, requests, first_at FROM freehold.query_shape
             WHERE tenant_id = ANY($1) AND last_at > now() - interval '30 days'
             ORDER BY requests DESC, table_name, shape",
            &[&ids],
        )
        .await?;
    let read = |row: &Row| {
        Ok(SampledShape {
            tenant: TenantId::from(row.get::<_, Uuid>("tenant_id")),
            shape: serde_json::from_str(row.get("shape")).map_err(unreadable)?,
            requests: row.get("requests"),
            first_at: row.get("first_at"),
        })
    };
    rows.iter().map(read).collect()
}

fn unreadable(source: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "the shape of a query cannot be read").because(source)
}
