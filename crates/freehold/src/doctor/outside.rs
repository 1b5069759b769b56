//! FH317, FH318 and FH327: what a tenant's role can reach outside of tenants' schemas, and whether tables
//! that are created at run time are protected.
//!
//! A migration that creates or grants such access is refused; what is found here was set up by hand.

use super::check::{Check, Probe, Severity, Visibility};

/// Many objects share few different ACLs, as in `privileges`: each ACL is expanded once. A privilege counts
/// only in a schema that the role may use. Extensions have checks of their own; so do the catalog and
/// analytics, where all privileges are compared.
const WITH: &str = "
called(role) AS (SELECT unnest(ARRAY['freehold_app', 'freehold_viewer', 'freehold_member', 'freehold_admin'])),
elsewhere AS MATERIALIZED (
  SELECT n.oid, n.nspname FROM pg_namespace n
  WHERE n.nspname NOT IN ('freehold', 'freehold_guard', 'freehold_analytics', 'information_schema') AND n.nspname !~ '^pg_'
    AND n.oid NOT IN (SELECT oid FROM fleet) AND EXISTS (SELECT FROM called WHERE has_schema_privilege(role, n.oid, 'USAGE'))
), candidate AS MATERIALIZED (
  SELECT 'pg_class'::regclass AS class, c.oid, e.nspname, c.relname AS name, c.relkind::text AS kind
  FROM pg_class c JOIN elsewhere e ON e.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, e.nspname, p.proname, 'function' FROM pg_proc p JOIN elsewhere e ON e.oid = p.pronamespace
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, e.nspname, t.typname, 'type' FROM pg_type t JOIN elsewhere e ON e.oid = t.typnamespace
  WHERE t.typtype IN ('d', 'e', 'r') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
), reached AS MATERIALIZED (
  SELECT c.*, r.rights FROM candidate c CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT p.privilege, ', ') AS rights FROM called, unnest(CASE
      WHEN c.kind = 'S' THEN ARRAY['USAGE', 'SELECT', 'UPDATE'] WHEN c.kind = 'function' THEN ARRAY['EXECUTE'] WHEN c.kind = 'type' THEN ARRAY['USAGE']
      ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] END) p(privilege)
    WHERE CASE WHEN c.kind = 'S' THEN has_sequence_privilege(role, c.oid, p.privilege)
      WHEN c.kind = 'function' THEN has_function_privilege(role, c.oid, p.privilege)
      WHEN c.kind = 'type' THEN has_type_privilege(role, c.oid, p.privilege)
      ELSE has_table_privilege(role, c.oid, p.privilege)
        OR p.privilege IN ('SELECT', 'INSERT', 'UPDATE') AND has_any_column_privilege(role, c.oid, CASE WHEN p.privilege IN ('SELECT', 'INSERT', 'UPDATE') THEN p.privilege ELSE 'SELECT' END) END
  ) r
  WHERE r.rights IS NOT NULL AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = c.class AND d.objid = c.oid AND d.deptype IN ('e', 'i')
    AND (d.deptype = 'e' OR EXISTS (SELECT FROM pg_depend i WHERE i.classid = d.refclassid AND i.objid = d.refobjid AND i.deptype = 'e')))
)";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: WITH,
        sql: "
SELECT 'FH317' AS code, format('%I.%I', r.nspname, r.name) AS object, 'a tenant''s role has ' || r.rights AS detail, NULL::text AS fix
FROM reached r WHERE r.kind NOT IN ('function', 'type')
UNION ALL
SELECT 'FH318', CASE r.kind WHEN 'type' THEN format('type %I.%I', r.nspname, r.name) ELSE r.oid::regprocedure::text END, 'a tenant''s role may use it', NULL
FROM reached r WHERE r.kind IN ('function', 'type')",
        checks: &[
            Check {
                code: "FH317",
                severity: Severity::Warning,
                title: "A tenant's role reaches a relation outside of tenants' schemas",
                meaning: "All tenants meet in it: what one writes there the others read, and no policy of Freehold's stands before it.",
                remedy: "REVOKE it from the tenants' roles and from PUBLIC, or USAGE on its schema, and give each tenant a table of its own by a migration. What all may read and none may change is copied into each.",
                fix_is_safe: false,
            },
            Check {
                code: "FH318",
                severity: Severity::Info,
                title: "A tenant's role reaches a function or type outside of tenants' schemas",
                meaning: "It is the same for all tenants, and no migration brings it forward with them. A function may lead to what the tenant's own SQL does not reach.",
                remedy: "Make it in a migration, so that each tenant has its own; or REVOKE it from PUBLIC.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH327' AS code, 'database ' || current_database() AS object,
  CASE WHEN t.oid IS NULL THEN 'there is no event trigger ' || {event_trigger} ELSE 'the event trigger ' || {event_trigger} || ' is disabled, or another' END AS detail,
  NULL::text AS fix
FROM (SELECT 1) one LEFT JOIN pg_event_trigger t ON t.evtname = {event_trigger}
WHERE t.oid IS NULL OR t.evtenabled = 'D' OR t.evtevent <> 'ddl_command_end'
  OR t.evtfoid IS DISTINCT FROM to_regproc('freehold_guard.protect_new_tables')
  OR NOT t.evttags @> ARRAY['CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO']",
        checks: &[Check {
            code: "FH327",
            severity: Severity::Warning,
            title: "Tables that a tenant's SQL makes at run time are not protected at once",
            meaning: "A function of the baseline that makes tables leaves them without row-level security. Nobody but the owner role has a right to them, so nobody reaches them, unless the function grants some.",
            remedy: "Run `freehold init` as a superuser, which makes the event trigger. On a managed server that may be impossible; then `freehold doctor --fix` protects such tables.",
            fix_is_safe: false,
        }],
    },
];
