//! FH2xx: objects to which row-level security does not apply by itself: views, materialized views, foreign
//! tables, and functions with their owner's rights.

use super::check::{Check, Probe, Severity, Visibility};

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH201' AS code, format('%I.%I', f.nspname, c.relname) AS object, 'the view reads with its owner''s rights' AS detail,
  format('ALTER VIEW %I.%I SET (security_invoker = true)', f.nspname, c.relname) AS fix
FROM pg_class c JOIN fleet f ON f.oid = c.relnamespace
WHERE c.relkind = 'v'
  AND NOT coalesce(c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'], false)
UNION ALL
SELECT 'FH202', format('%I.%I', f.nspname, c.relname),
  CASE c.relkind WHEN 'm' THEN 'the materialized view' ELSE 'the foreign table' END || ' is granted to ' || g.names,
  format('REVOKE ALL ON %I.%I FROM %s', f.nspname, c.relname, g.names)
FROM pg_class c JOIN fleet f ON f.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ', ') AS names
  FROM (
    SELECT grantee FROM aclexplode(c.relacl)
    UNION ALL
    SELECT x.grantee FROM pg_attribute t, LATERAL aclexplode(t.attacl) x WHERE t.attrelid = c.oid
  ) a WHERE a.grantee <> c.relowner) g
WHERE c.relkind IN ('m', 'f') AND g.names IS NOT NULL",
        checks: &[
            Check {
                code: "FH201",
                severity: Severity::Critical,
                title: "A view without security_invoker",
                meaning: "The view reads its tables with the rights and policies of its owner instead of the reader's.",
                remedy: "ALTER VIEW … SET (security_invoker = true).",
                fix_is_safe: true,
            },
            Check {
                code: "FH202",
                severity: Severity::Critical,
                title: "A materialized view or foreign table is granted to somebody",
                meaning: "Row-level security protects neither: whoever may read it reads it in any tenant's context.",
                remedy: "Revoke it. Offer a view or a table instead.",
                fix_is_safe: true,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "
reachable AS MATERIALIZED (
  SELECT p.oid, p.proowner, p.proconfig, p.prosecdef, p.proleakproof, p.pronamespace, p.prolang, p.prosrc
  FROM pg_proc p
  WHERE (p.prosecdef OR p.proleakproof)
    AND (p.pronamespace IN (SELECT oid FROM fleet) OR p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'freehold')))
    AND (has_function_privilege('freehold_app', p.oid, 'EXECUTE') OR has_function_privilege('freehold_admin', p.oid, 'EXECUTE'))
)",
        sql: "
SELECT 'FH203' AS code, p.oid::regprocedure::text AS object, 'it runs as ' || r.rolname || ', which row-level security does not bind' AS detail, NULL::text AS fix
FROM reachable p JOIN pg_roles r ON r.oid = p.proowner
WHERE p.prosecdef AND (r.rolsuper OR r.rolbypassrls)
UNION ALL
SELECT 'FH204', p.oid::regprocedure::text, 'it runs as ' || p.proowner::regrole::text || ' with the caller''s search path',
  NULL
FROM reachable p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND n.nspname <> 'freehold'
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting LIKE 'search\\_path=%')
UNION ALL
SELECT 'FH206', p.oid::regprocedure::text, 'it executes text as ' || p.proowner::regrole::text, NULL
FROM reachable p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.prosecdef AND n.nspname <> 'freehold' AND l.lanname = 'plpgsql' AND p.prosrc ~* '\\mexecute\\M'
UNION ALL
SELECT 'FH205', p.oid::regprocedure::text, 'it is LEAKPROOF', NULL
FROM reachable p
WHERE p.proleakproof AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')",
        checks: &[
            Check {
                code: "FH203",
                severity: Severity::Critical,
                title: "A SECURITY DEFINER function that runs as a role beyond row-level security",
                meaning: "The app role may call a function that runs as a superuser or with BYPASSRLS: what it reads, it reads from every tenant.",
                remedy: "ALTER FUNCTION … OWNER TO freehold_owner, whom the policies bind, or revoke EXECUTE from PUBLIC.",
                fix_is_safe: false,
            },
            Check {
                code: "FH204",
                severity: Severity::Warning,
                title: "A SECURITY DEFINER function without a search path of its own",
                meaning: "The function runs with its owner's rights and the caller's search path, so the caller chooses which tables and functions its names mean.",
                remedy: "ALTER FUNCTION … SET search_path = … with pg_temp last; in a migration, so that every tenant gets it.",
                fix_is_safe: false,
            },
            Check {
                code: "FH206",
                severity: Severity::Info,
                title: "A SECURITY DEFINER function executes text",
                meaning: "If any of that text comes from its caller, the caller is its owner: it can change the tables and policies of every tenant, and after that read their rows, until a server finds the table and closes it. It reads no key.",
                remedy: "Look at what it executes: names by format('%I'), values by USING, nothing else of the caller's. Or let it run as its caller.",
                fix_is_safe: false,
            },
            Check {
                code: "FH205",
                severity: Severity::Warning,
                title: "A function of yours is LEAKPROOF",
                meaning: "PostgreSQL may run it before the policies have filtered the rows, in the belief that it tells nothing of its arguments.",
                remedy: "ALTER FUNCTION … NOT LEAKPROOF.",
                fix_is_safe: false,
            },
        ],
    },
];
