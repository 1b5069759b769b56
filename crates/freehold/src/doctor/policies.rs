//! FH1xx: row-level security. Every table of the fleet has it enabled and forced, and has exactly our policy
//! for tenant isolation.

use super::check::{Check, Probe, Severity, Visibility};

/// The expression of `tenant_isolation` as `pg_get_expr` prints it, which is also valid SQL to create it: the
/// expected text and what `--fix` creates are the same.
pub(super) const ISOLATION: &str =
    "( SELECT freehold.require_tenant('{tenant}'::uuid) AS require_tenant)";

/// The stored expressions of `WITH CHECK` and `USING` differ between tenants only in the constant, and
/// between tables only in positions of the source text. So the constant is removed from the stored trees,
/// which leaves a handful of forms, and one of each form is printed and compared: printing all of them would
/// open every table of the fleet.
const ISOLATION_WITH: &str = "
constant AS MATERIALIZED (
  SELECT f.*,
    (SELECT string_agg(get_byte(uuid_send(f.tenant), i)::text, ' ' ORDER BY i) FROM generate_series(0, 15) i) AS bytes,
    -- Where char is signed, PostgreSQL writes the upper half of bytes as negative numbers.
    (SELECT string_agg(((get_byte(uuid_send(f.tenant), i) + 128) % 256 - 128)::text, ' ' ORDER BY i) FROM generate_series(0, 15) i) AS signed
  FROM fleet f
), isolation AS MATERIALIZED (
  SELECT p.oid, p.polrelid, p.polpermissive, p.polcmd, p.polroles, c.relname, f.nspname, f.tenant,
    md5(replace(p.polqual::text, CASE WHEN strpos(p.polqual::text, f.signed) > 0 THEN f.signed ELSE f.bytes END, '@')) AS using_form,
    md5(replace(p.polwithcheck::text, CASE WHEN strpos(p.polwithcheck::text, f.signed) > 0 THEN f.signed ELSE f.bytes END, '@')) AS check_form
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN constant f ON f.oid = c.relnamespace
  WHERE p.polname = 'tenant_isolation'
), sample AS (
  SELECT using_form AS form, min(oid::int8)::oid AS oid, true AS is_using FROM isolation GROUP BY using_form
  UNION ALL
  SELECT check_form, min(oid::int8)::oid, false FROM isolation GROUP BY check_form
), good AS MATERIALIZED (
  SELECT DISTINCT s.form
  FROM sample s JOIN pg_policy p ON p.oid = s.oid JOIN pg_class c ON c.oid = p.polrelid JOIN fleet f ON f.oid = c.relnamespace
  WHERE pg_get_expr(CASE WHEN s.is_using THEN p.polqual ELSE p.polwithcheck END, p.polrelid)
      = replace({isolation}, '{tenant}', f.tenant::text)
)";

const ISOLATION_SQL: &str = "
SELECT 'FH101' AS code, format('%I.%I', f.nspname, c.relname) AS object,
  CASE WHEN c.relrowsecurity THEN 'row-level security is not forced' ELSE 'row-level security is not enabled' END AS detail,
  format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', f.nspname, c.relname) AS fix
FROM pg_class c JOIN fleet f ON f.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
UNION ALL
SELECT 'FH102', format('%I.%I', f.nspname, c.relname), 'there is no policy tenant_isolation',
  replace(format('CREATE POLICY tenant_isolation ON %1$I.%2$I AS RESTRICTIVE USING (%3$s) WITH CHECK (%3$s)', f.nspname, c.relname,
    {isolation}), '{tenant}', f.tenant::text)
FROM pg_class c JOIN fleet f ON f.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM isolation i WHERE i.polrelid = c.oid)
UNION ALL
SELECT 'FH103', format('%I.%I', i.nspname, i.relname),
  CASE WHEN i.polpermissive THEN 'tenant_isolation is permissive'
       WHEN i.polcmd <> '*' THEN 'tenant_isolation is not for ALL commands'
       WHEN i.polroles <> '{0}' THEN 'tenant_isolation is not for PUBLIC'
       ELSE 'tenant_isolation does not ask for this schema''s own tenant' END,
  NULL
FROM isolation i
WHERE i.polpermissive OR i.polcmd <> '*' OR i.polroles <> '{0}'
  OR NOT EXISTS (SELECT FROM good WHERE form = i.using_form)
  OR NOT EXISTS (SELECT FROM good WHERE form = i.check_form)";

/// Whether each table of the fleet has row-level security and our policy at all. This is quick: a tenth of a
/// second for 2,000 tenants. Returns an example, a count and the number of schemas, for the template and for
/// tenants. Schemas are looked up for the tables found, so that the plan does not depend on the estimated
/// number of schemas.
pub(super) const BARE_TABLES: &str = "
SELECT min(u.schema || '.' || u.name), count(*), count(DISTINCT u.schema), u.schema = 'freehold_template' AS is_template,
  (SELECT count(*) FROM pg_namespace WHERE nspname ~ '^tenant_[0-9a-f]{32}$')
FROM (SELECT c.relnamespace::regnamespace::text AS schema, c.relname AS name
      FROM pg_class c
      WHERE c.relkind IN ('r', 'p')
        AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity OR NOT EXISTS (
          SELECT FROM pg_policy p WHERE p.polrelid = c.oid
            AND p.polname = 'tenant_isolation' AND NOT p.polpermissive AND p.polcmd = '*'))
      OFFSET 0) u
WHERE u.schema = 'freehold_template' OR u.schema ~ '^tenant_[0-9a-f]{32}$'
GROUP BY is_template";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: ISOLATION_WITH,
        sql: ISOLATION_SQL,
        checks: &[
            Check {
                code: "FH101",
                severity: Severity::Critical,
                title: "A table without row-level security",
                meaning: "Row-level security is not enabled, or not forced, on a table or partition of a tenant or of the template. Its policies do not bind everybody.",
                remedy: "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY. Find out who turned it off: only the owner role can.",
                fix_is_safe: true,
            },
            Check {
                code: "FH102",
                severity: Severity::Critical,
                title: "A table without tenant_isolation",
                meaning: "Nothing on this table compares the transaction's context with the schema's tenant: whoever comes to it by its full name may read it in any tenant's context.",
                remedy: "Create the policy, as the migrator does after every migration. A table that was made around the migrator belongs into a migration.",
                fix_is_safe: true,
            },
            Check {
                code: "FH103",
                severity: Severity::Critical,
                title: "tenant_isolation is not the policy that Freehold makes",
                meaning: "The policy has the right name and another content: permissive, for some commands or roles only, or asking for another tenant or for nothing.",
                remedy: "Drop the policy and run `freehold doctor --fix`, in one go while the tenant is suspended. It is not replaced by itself, because somebody wrote it.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH104' AS code, format('%I.%I', f.nspname, c.relname) AS object,
  CASE WHEN p.owner IS NULL THEN 'the template lacks the policy owner_access: a migration would touch no row'
       WHEN p.analytics IS NULL THEN 'the template lacks the policy analytics_read'
       ELSE 'the template has no permissive policy for the tenant''s roles: nobody sees a row' END AS detail,
  NULL::text AS fix
FROM pg_class c JOIN fleet f ON f.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT bool_or(p.polname = 'owner_access' AND p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY['freehold_owner'::regrole::oid]) OR NULL AS owner,
    bool_or(p.polname = 'analytics_read' AND p.polcmd = 'r' AND p.polroles = ARRAY['freehold_analytics'::regrole::oid]) OR NULL AS analytics,
    bool_or(p.polpermissive AND p.polname NOT IN ('owner_access', 'analytics_read')) OR NULL AS tenants
  FROM pg_policy p WHERE p.polrelid = c.oid) p
WHERE f.nspname = 'freehold_template' AND c.relkind IN ('r', 'p')
  AND (p.owner IS NULL OR p.analytics IS NULL OR p.tenants IS NULL)",
        checks: &[Check {
            code: "FH104",
            severity: Severity::Warning,
            title: "A table of the template lacks a policy of Freehold's",
            meaning: "Beside tenant_isolation, every table has a policy for the owner, one for analytics, and at least one for the tenant's roles. Without them rows are missing in silence, for migrations too.",
            remedy: "Put the policy back by a migration: owner_access TO freehold_owner, analytics_read FOR SELECT TO freehold_analytics, tenant_access TO freehold_viewer.",
            fix_is_safe: false,
        }],
    },
];
