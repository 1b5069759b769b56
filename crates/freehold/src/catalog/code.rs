//! PostgreSQL's own catalogs: the code of the baseline that a tenant's transaction can reach.

use crate::error::Result;
use crate::tx::CatalogTx;

/// Objects of a schema are found by their dependencies, which have an index: a large fleet has hundreds of
/// thousands of functions, and those of tenants equal the template's.
///
/// A function can LISTEN or hold a cursor only by these words in its text, or by building a statement for
/// EXECUTE. Extensions' functions in C are trusted to do neither.
const LEAVES_ONLY_SETTINGS_SQL: &str = r"
SELECT NOT EXISTS (
  SELECT FROM pg_namespace n
  JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_proc'::regclass
  JOIN pg_proc p ON p.oid = d.objid JOIN pg_language l ON l.oid = p.prolang
  WHERE n.nspname !~ '^(tenant_[0-9a-f]{32}|pg_.*|information_schema|freehold|freehold_guard|freehold_analytics)$'
    AND CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc ~* '\m(listen|hold|execute)\M'
             WHEN l.lanname IN ('c', 'internal') THEN NOT EXISTS (
               SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
             ELSE true END
) AND NOT EXISTS (
  SELECT FROM pg_depend d JOIN pg_trigger t ON t.tgrelid = d.objid
  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace('freehold_template')
    AND d.classid = 'pg_class'::regclass AND t.tgdeferrable AND NOT t.tgisinternal
)";

/// Whether the code of the baseline, and shared code, leaves nothing but settings on a session.
pub(crate) async fn leaves_only_settings(tx: CatalogTx) -> Result<bool> {
    let rows = tx.query_and_commit(LEAVES_ONLY_SETTINGS_SQL, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}
