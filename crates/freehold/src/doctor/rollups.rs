//! FH121 and FH122: the tables of analytics, in which rows rather than schemas belong to tenants.

use super::check::{Check, Probe, Severity, Visibility};

const ROLLUPS: &str = "
analytics_relation AS MATERIALIZED (
  SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
    (SELECT regexp_replace(pg_get_expr(p.polqual, p.polrelid), ' AS (in_catalog|tenant)', '', 'g')
     FROM pg_policy p
     WHERE p.polrelid = c.oid AND p.polname = 'tenant_scope' AND NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY[0]::oid[]
       AND p.polwithcheck IS NULL) AS scope
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'freehold_analytics' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
)";

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Visibility::Anyone,
    with: ROLLUPS,
    sql: "
SELECT 'FH121' AS code, format('freehold_analytics.%I', a.relname) AS object, f.detail, f.fix
FROM analytics_relation a CROSS JOIN LATERAL (
  SELECT CASE WHEN NOT a.relrowsecurity THEN 'row-level security is not enabled' ELSE 'row-level security is not forced' END AS detail,
    format('ALTER TABLE freehold_analytics.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', a.relname) AS fix
  WHERE NOT (a.relrowsecurity AND a.relforcerowsecurity)
  UNION ALL
  SELECT 'it has no policy that keeps a tenant to its own rows', NULL
  -- Totals and what was touched are of no tenant, and granted to nobody.
  WHERE NOT starts_with(a.relname, 'total_') AND NOT starts_with(a.relname, 'touched_')
    AND a.scope IS DISTINCT FROM '(( SELECT freehold.in_catalog()) OR (tenant_id = ( SELECT freehold.tenant())))'
) f
WHERE a.relkind IN ('r', 'p')
UNION ALL
SELECT 'FH122', format('freehold_analytics.%I', a.relname),
  CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END || ' has ' || string_agg(DISTINCT g.privilege_type, ', '), NULL
FROM analytics_relation a CROSS JOIN LATERAL (
  SELECT grantee, privilege_type FROM aclexplode(a.relacl)
  UNION ALL
  SELECT x.grantee, x.privilege_type FROM pg_attribute t, LATERAL aclexplode(t.attacl) x WHERE t.attrelid = a.oid
) g
WHERE g.grantee <> a.relowner AND NOT CASE
    WHEN a.relkind = 'r' AND starts_with(a.relname, 'rollup_') THEN
      g.grantee = 'freehold_analytics'::regrole AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
      OR g.grantee = 'freehold_catalog'::regrole AND g.privilege_type = 'SELECT'
    WHEN a.relkind = 'v' AND starts_with(a.relname, 'published_') THEN
      g.grantee = 'freehold_catalog'::regrole AND g.privilege_type = 'SELECT'
    ELSE false END
GROUP BY a.relname, g.grantee",
    checks: &[
        Check {
            code: "FH121",
            severity: Severity::Critical,
            title: "A table of analytics in which tenants can meet",
            meaning: "A rollup holds figures of every tenant in one table. Its row-level security is off, or the policy that keeps each tenant to its own rows is missing or another.",
            remedy: "Remove the definition, run `freehold analytics apply`, and put it back: its tables are made anew.",
            fix_is_safe: true,
        },
        Check {
            code: "FH122",
            severity: Severity::Critical,
            title: "Figures of the whole fleet are granted to somebody",
            meaning: "The app role may read rollups, which row-level security binds, and published figures, which are for operators; nobody may read the totals and the materialized views.",
            remedy: "REVOKE it from whom the finding names. Operators read figures by the API.",
            fix_is_safe: false,
        },
    ],
}];
