//! FH40x: extensions and foreign servers: their schemas, and connections out of the database.

use super::check::{Check, Probe, Severity, Visibility};

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Visibility::Anyone,
    with: "
called(role) AS (SELECT unnest(ARRAY['freehold_app', 'freehold_admin'])),
member AS MATERIALIZED (
  SELECT e.extname::text AS extname, d.classid, d.objid
  FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
)",
    sql: "
SELECT 'FH401' AS code, 'extension ' || e.extname AS object, format('it lives in the schema %I', n.nspname) AS detail, NULL::text AS fix
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE n.nspname = 'freehold' OR n.oid IN (SELECT oid FROM fleet)
UNION ALL
SELECT 'FH402', 'extension ' || m.extname, format('the app role may call %s of its functions, such as %s', count(*), min(m.objid::regprocedure::text)), NULL
FROM member m
WHERE m.extname IN ('adminpack', 'dblink', 'file_fdw', 'lo', 'pageinspect', 'pg_buffercache', 'pg_cron', 'pg_surgery', 'pg_visibility', 'pg_walinspect', 'pgrowlocks', 'plsh', 'xml2')
  AND m.classid = 'pg_proc'::regclass AND m.objid::regproc::text !~ '_fdw_(handler|validator)$'
  AND EXISTS (SELECT FROM called WHERE has_function_privilege(role, m.objid, 'EXECUTE'))
GROUP BY m.extname
UNION ALL
SELECT 'FH403', 'foreign-data wrapper ' || w.fdwname, 'the app role may use it', NULL
FROM pg_foreign_data_wrapper w WHERE EXISTS (SELECT FROM called WHERE has_foreign_data_wrapper_privilege(role, w.oid, 'USAGE'))
UNION ALL
SELECT 'FH403', 'foreign server ' || s.srvname, 'the app role may use it', NULL
FROM pg_foreign_server s WHERE EXISTS (SELECT FROM called WHERE has_server_privilege(role, s.oid, 'USAGE'))
UNION ALL
SELECT 'FH404', p.oid::regprocedure::text, 'it is written in ' || l.lanname || ', and the app role may call it', NULL
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c')
  AND EXISTS (SELECT FROM called WHERE has_function_privilege(role, p.oid, 'EXECUTE'))
UNION ALL
-- The functions too: a view is made of one that can be asked past it.
SELECT 'FH405', k.object, 'the app role may ' || CASE k.is_view WHEN true THEN 'read it' ELSE 'call it' END, NULL
FROM (
  SELECT m.objid::regclass::text AS object, true AS is_view, c.relnamespace AS schema,
    EXISTS (SELECT FROM called WHERE has_table_privilege(role, m.objid, 'SELECT')) AS open
  FROM member m JOIN pg_class c ON c.oid = m.objid AND c.relkind IN ('v', 'r')
  WHERE m.extname = ANY (string_to_array({statement_extensions}, ' ')) AND m.classid = 'pg_class'::regclass
  UNION ALL
  SELECT m.objid::regprocedure::text, false, p.pronamespace,
    EXISTS (SELECT FROM called WHERE has_function_privilege(role, m.objid, 'EXECUTE'))
  FROM member m JOIN pg_proc p ON p.oid = m.objid
  WHERE m.extname = ANY (string_to_array({statement_extensions}, ' ')) AND m.classid = 'pg_proc'::regclass
) k WHERE k.open AND EXISTS (SELECT FROM called WHERE has_schema_privilege(role, k.schema, 'USAGE'))",
    checks: &[
        Check {
            code: "FH401",
            severity: Severity::Warning,
            title: "An extension lives in a schema of one tenant or of the catalog",
            meaning: "A database has an extension once. Other tenants don't find it, and it goes when that tenant goes.",
            remedy: "ALTER EXTENSION … SET SCHEMA public, where the extension allows it.",
            fix_is_safe: false,
        },
        Check {
            code: "FH402",
            severity: Severity::Critical,
            title: "The app role may call functions that lead out of the database or under its tables",
            meaning: "Such an extension opens connections of its own, reads files of the server, or reads tables page by page: around every policy.",
            remedy: "DROP EXTENSION, or REVOKE EXECUTE ON ALL FUNCTIONS of it FROM PUBLIC.",
            fix_is_safe: false,
        },
        Check {
            code: "FH403",
            severity: Severity::Critical,
            title: "The app role may use a foreign server or wrapper",
            meaning: "It can reach another database with rights that are not the tenant's.",
            remedy: "REVOKE USAGE ON FOREIGN SERVER … or FOREIGN DATA WRAPPER … FROM it.",
            fix_is_safe: false,
        },
        Check {
            code: "FH404",
            severity: Severity::Warning,
            title: "The app role may call a function in an untrusted language",
            meaning: "The function can do whatever the server's process can; what it does with its arguments, only its text tells.",
            remedy: "Revoke EXECUTE from PUBLIC, or write it in a trusted language.",
            fix_is_safe: false,
        },
        Check {
            code: "FH405",
            severity: Severity::Warning,
            title: "The app role may read the statistics of statements",
            meaning: "All tenants are one role to PostgreSQL, so each sees the text of the others' statements there. A view is made of a function that can be asked past it, so both must be closed.",
            remedy: "Run `freehold init` as a superuser: it takes the extension's views and functions from PUBLIC and gives them to pg_monitor and pg_read_all_stats. By hand, for pg_stat_statements in the schema public: REVOKE SELECT ON public.pg_stat_statements, public.pg_stat_statements_info FROM PUBLIC; REVOKE EXECUTE ON FUNCTION public.pg_stat_statements(boolean), public.pg_stat_statements_info() FROM PUBLIC; and GRANT the same TO pg_monitor.",
            fix_is_safe: false,
        },
    ],
}];
