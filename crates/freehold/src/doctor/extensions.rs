//! FH40x: extensions and foreign servers: where they live, and which lead out of the database.

use super::check::{Check, Probe, Severity, Sight};

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Sight::Anyone,
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
SELECT 'FH405', m.objid::regclass::text, 'the app role may read it', NULL
FROM member m
WHERE m.extname IN ('pg_stat_statements', 'pg_stat_monitor', 'auto_explain', 'pg_qualstats', 'pg_store_plans') AND m.classid = 'pg_class'::regclass
  AND EXISTS (SELECT FROM called WHERE has_table_privilege(role, m.objid, 'SELECT') AND has_schema_privilege(role, (SELECT relnamespace FROM pg_class WHERE oid = m.objid), 'USAGE'))
  AND (SELECT relkind FROM pg_class WHERE oid = m.objid) IN ('v', 'r')",
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
            meaning: "All tenants are one role to PostgreSQL, so each sees the text of the others' statements there.",
            remedy: "REVOKE SELECT ON … FROM PUBLIC; let pg_monitor read it.",
            fix_is_safe: false,
        },
    ],
}];
