//! FH106 to FH110: the catalog's own tables, policies, functions, triggers and privileges are those that this
//! build's migrations create, one line each in `catalog.txt`.
//!
//! A test writes the file from databases that were just prepared, one in each seal mode, so it follows the
//! migrations; the test also fails if the file is outdated.

use super::check::{Check, Probe, Severity, Visibility};

/// The content of a prepared database: one line with kind, name and definition, separated by tabs. A fourth
/// field names the seal modes in which the line applies; without it, it applies in every mode.
pub(super) const EXPECTED: &str = include_str!("catalog.txt");

/// The same lines from the real database. The owner's own privileges are left out, since they depend on the
/// version of PostgreSQL.
pub(super) const ACTUAL: &str = "
relation AS MATERIALIZED (
  SELECT c.*, c.oid AS id, CASE c.relnamespace WHEN 'freehold'::regnamespace THEN '' ELSE 'freehold_guard.' END || c.relname AS name
  FROM pg_class c WHERE c.relnamespace IN ('freehold'::regnamespace, 'freehold_guard'::regnamespace)
), routine AS MATERIALIZED (
  SELECT p.*, p.oid::regprocedure::text AS name
  FROM pg_proc p WHERE p.pronamespace IN ('freehold'::regnamespace, 'freehold_guard'::regnamespace)
), actual(kind, name, definition) AS MATERIALIZED (
  SELECT 'table', c.name, CASE WHEN c.relrowsecurity THEN 'enabled' ELSE 'disabled' END
    || CASE WHEN c.relforcerowsecurity THEN ', forced' ELSE ', not forced' END
  FROM relation c WHERE c.relkind IN ('r', 'p')
  UNION ALL
  SELECT 'policy', c.name || '.' || p.polname, CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END
    || ' ' || p.polcmd::text || ' to ' || (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END, ' ' ORDER BY 1) FROM unnest(p.polroles) r)
    || ' using ' || coalesce(regexp_replace(pg_get_expr(p.polqual, p.polrelid), '\\s+', ' ', 'g'), '-')
    || ' check ' || coalesce(regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '\\s+', ' ', 'g'), '-')
  FROM pg_policy p JOIN relation c ON c.id = p.polrelid
  UNION ALL
  SELECT 'function', p.name, 'returns ' || format_type(p.prorettype, NULL)
    || ' ' || l.lanname || ' ' || p.provolatile::text || p.proparallel::text || CASE WHEN p.prosecdef THEN ' definer' ELSE '' END
    || ' owner ' || p.proowner::regrole::text || coalesce(' set ' || array_to_string(p.proconfig, ' '), '') || ' ' || md5(p.prosrc)
  FROM routine p JOIN pg_language l ON l.oid = p.prolang
  UNION ALL
  SELECT 'trigger', c.name || '.' || t.tgname, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ', disabled' ELSE ', enabled for replication' END
  FROM pg_trigger t JOIN relation c ON c.id = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL
  SELECT 'rights', o.name, string_agg(CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END || ' ' || a.privilege_type
      || CASE WHEN a.is_grantable THEN ' grantable' ELSE '' END, ', ' ORDER BY CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END COLLATE \"C\", a.privilege_type COLLATE \"C\")
  FROM (
    SELECT 'schema ' || nspname, nspacl, nspowner FROM pg_namespace WHERE nspname IN ('freehold', 'freehold_guard')
    UNION ALL
    SELECT c.name, c.relacl, c.relowner FROM relation c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT c.name || '.' || a.attname, a.attacl, c.relowner FROM pg_attribute a JOIN relation c ON c.id = a.attrelid
    WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT p.name, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner FROM routine p
  ) o(name, acl, owner), LATERAL aclexplode(o.acl) a
  WHERE a.grantee <> o.owner
  GROUP BY o.name
)";

/// The query whose results, one for each seal mode, make up `catalog.txt`.
#[cfg(feature = "testing")]
pub(super) fn describe() -> String {
    format!(
        "SET LOCAL search_path = pg_catalog, pg_temp;
         WITH {ACTUAL}
         SELECT kind || E'\\t' || name || E'\\t' || definition FROM actual
         ORDER BY kind COLLATE \"C\", name COLLATE \"C\""
    )
}

const DIFFERENCE: &str = "
{actual_catalog}, line AS MATERIALIZED (
  SELECT string_to_array(line, E'\\t') AS part FROM string_to_table({expected_catalog}, E'\\n') line WHERE line <> ''
), seal(mode) AS MATERIALIZED (
  -- A function that is none of those that tell the mode is a finding in the best of them.
  SELECT coalesce((SELECT l.part[4] FROM line l JOIN actual a ON a.kind = l.part[1] AND a.name = l.part[2] AND a.definition = l.part[3]
    WHERE l.part[1] = 'function' AND l.part[2] = 'freehold_guard.seal_mode()'), 'best')
), expected(kind, name, definition) AS MATERIALIZED (
  SELECT part[1], part[2], part[3] FROM line, seal
  WHERE part[4] IS NULL OR seal.mode = ANY (string_to_array(part[4], ' '))
), difference AS MATERIALIZED (
  SELECT kind, name, e.definition AS expected, a.definition AS actual
  FROM expected e FULL JOIN actual a USING (kind, name)
  WHERE e.definition IS DISTINCT FROM a.definition
)";

/// Whether a probe compares the catalog with that of this build.
pub(super) fn is_asked_by(probe: &Probe) -> bool {
    probe.checks.iter().any(|check| check.code == "FH106")
}

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Visibility::Anyone,
    with: DIFFERENCE,
    sql: "
SELECT CASE kind WHEN 'table' THEN 'FH106' WHEN 'policy' THEN 'FH107' WHEN 'function' THEN 'FH108' WHEN 'trigger' THEN 'FH110' ELSE 'FH109' END AS code,
  CASE WHEN kind = 'rights' AND name LIKE 'schema %' OR name LIKE 'freehold.%' OR name LIKE 'freehold\\_guard.%' THEN name ELSE 'freehold.' || name END AS object,
  CASE WHEN actual IS NULL AND kind = 'rights' THEN 'nobody has rights to it; expected: ' || expected
       WHEN actual IS NULL THEN 'it is missing'
       WHEN expected IS NULL AND kind = 'rights' THEN 'nobody but the owner should have rights to it, and there are: ' || actual
       WHEN expected IS NULL THEN 'this build knows of none: ' || actual
       WHEN kind = 'function' THEN 'it is not the function that this build makes: ' || actual || '; expected: ' || expected
       ELSE 'it is ' || actual || '; expected: ' || expected END AS detail,
  CASE WHEN kind = 'table' AND expected = 'enabled, forced' AND actual IS NOT NULL
       THEN format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name) END AS fix
FROM difference",
    checks: &[
        Check {
            code: "FH106",
            severity: Severity::Critical,
            title: "A table of the catalog without the row-level security it was made with",
            meaning: "Row-level security of a catalog table is off, or a table is missing or unknown. The catalog holds people, sessions and tenants of the whole fleet.",
            remedy: "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY. Move a table of your own out of the schema freehold.",
            fix_is_safe: true,
        },
        Check {
            code: "FH107",
            severity: Severity::Critical,
            title: "A policy of the catalog is not the one that Freehold makes",
            meaning: "A policy on a catalog table is missing, different or unknown: a tenant's context may see rows of others, or the app role works without a context.",
            remedy: "Restore the policy as the catalog's migrations make it (crates/freehold/migrations).",
            fix_is_safe: false,
        },
        Check {
            code: "FH108",
            severity: Severity::Critical,
            title: "A function of the catalog is not the one that Freehold makes",
            meaning: "Policies rest on the functions in the schema freehold. One has another body, owner, volatility or configuration, or should not be there.",
            remedy: "Restore the function as the catalog's migrations make it (crates/freehold/migrations), and find out who replaced it.",
            fix_is_safe: false,
        },
        Check {
            code: "FH109",
            severity: Severity::Warning,
            title: "Rights on the catalog differ from those that Freehold gives",
            meaning: "A role has more or fewer rights on a catalog table or function than this build needs. Row-level security still binds it, where the table has it.",
            remedy: "Grant or revoke what the finding names.",
            fix_is_safe: false,
        },
        Check {
            code: "FH110",
            severity: Severity::Critical,
            title: "A trigger of the catalog is not the one that Freehold makes",
            meaning: "By its triggers the catalog tells servers of suspensions, removed members, new keys and migrations. Without them a server goes on serving a tenant that was suspended.",
            remedy: "ALTER TABLE … ENABLE TRIGGER …, or restore it as the catalog's migrations make it (crates/freehold/migrations).",
            fix_is_safe: false,
        },
    ],
}];
