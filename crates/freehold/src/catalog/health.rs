//! A sample of tenants, and how their schemas are protected.

use uuid::Uuid;

use super::tenants::{COLUMNS, from_row};
use crate::error::Result;
use crate::model::ids::TenantId;
use crate::model::tenant::Tenant;
use crate::tx::CatalogTx;

/// The protection of a tenant's schema.
pub(crate) struct SchemaHealth {
    pub(crate) has_schema: bool,
    pub(crate) tables: i64,
    pub(crate) unprotected: i64,
}

/// Tenants from an id on, wrapping around at the end. Ids are random, so the tenants after a random id are a
/// random sample, at the same cost in a large fleet as in a small one.
pub(crate) async fn sample(tx: &mut CatalogTx, from: Uuid, limit: i64) -> Result<Vec<Tenant>> {
    let sql = format!(
        "(SELECT {COLUMNS}, 0 AS lap FROM freehold.tenant WHERE id >= $1 ORDER BY id LIMIT $2)
         UNION ALL
         (SELECT {COLUMNS}, 1 FROM freehold.tenant WHERE id < $1 ORDER BY id LIMIT $2)
         ORDER BY lap, id LIMIT $2"
    );
    tx.query(&sql, &[&from, &limit]).await?.iter().map(from_row).collect()
}

/// One row per tenant, in the same order.
pub(crate) async fn look_at_walls(
    tx: &mut CatalogTx,
    tenants: &[Uuid],
) -> Result<Vec<SchemaHealth>> {
    let schemas: Vec<String> =
        tenants.iter().map(|tenant| TenantId::from(*tenant).schema()).collect();
    // The policy's text contains the tenant's id; the doctor compares the whole text.
    let sql = "SELECT n.oid IS NOT NULL, count(c.oid),
           count(c.oid) FILTER (WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity) OR NOT EXISTS (
             SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant_isolation'
               AND NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
               AND strpos(pg_get_expr(p.polqual, p.polrelid), 'require_tenant(''' || s.tenant || '''') > 0))
         FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS s (name, tenant, place)
         LEFT JOIN pg_namespace n ON n.nspname = s.name
         -- By the dependence on the schema, which has an index; pg_class has none by schema.
         LEFT JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass
         LEFT JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p')
         GROUP BY s.place, n.oid ORDER BY s.place";
    let rows = tx.query(sql, &[&schemas, &tenants]).await?;
    let walls = |row: &crate::wire::Row| SchemaHealth {
        has_schema: row.get(0),
        tables: row.get(1),
        unprotected: row.get(2),
    };
    Ok(rows.iter().map(walls).collect())
}
