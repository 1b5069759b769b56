//! FH31x and FH32x: the attributes of the roles, the roles they may become, and the privileges of PUBLIC.

use super::check::{Check, Probe, Severity, Visibility};

/// The application's roles, with every role that each may become.
const BECOMES: &str = "
ours(role) AS (
  SELECT unnest(ARRAY['freehold_app', 'freehold_catalog', 'freehold_viewer', 'freehold_member', 'freehold_admin', 'freehold_analytics'])
), becomes AS MATERIALIZED (
  SELECT o.role, r.rolname::text AS other, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
    r.oid AS other_oid
  FROM ours o JOIN pg_roles me ON me.rolname = o.role
  JOIN pg_roles r ON r.oid = me.oid OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
)";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: BECOMES,
        sql: "
SELECT 'FH311' AS code, b.role AS object, CASE WHEN b.role = b.other THEN 'it is ' ELSE 'it may become ' || b.other || ', ' END || concat_ws(', ',
    CASE WHEN b.rolsuper THEN 'a superuser' END, CASE WHEN b.rolbypassrls THEN 'a role with BYPASSRLS' END,
    CASE WHEN b.rolcreaterole THEN 'a role with CREATEROLE' END, CASE WHEN b.rolreplication THEN 'a role with REPLICATION' END,
    CASE WHEN b.other = 'freehold_owner' THEN 'the owner of the tenants'' tables' END,
    CASE WHEN b.other ~ '^pg_(read_all_data|write_all_data|read_server_files|write_server_files|execute_server_program|maintain|checkpoint|signal_backend|read_all_stats|monitor)$'
      THEN 'a predefined role with rights on the whole server' END) AS detail, NULL::text AS fix
FROM becomes b
WHERE b.rolsuper OR b.rolbypassrls OR b.rolcreaterole OR b.rolreplication OR b.other = 'freehold_owner'
  OR b.other ~ '^pg_(read_all_data|write_all_data|read_server_files|write_server_files|execute_server_program|maintain|checkpoint|signal_backend|read_all_stats|monitor)$'
UNION ALL
SELECT 'FH312', b.role, 'it may become ' || b.other, NULL
FROM becomes b
WHERE b.other <> b.role AND b.other <> 'freehold_owner' AND b.other !~ '^pg_' AND NOT (CASE b.role
    WHEN 'freehold_app' THEN b.other IN ('freehold_viewer', 'freehold_member', 'freehold_admin')
    WHEN 'freehold_admin' THEN b.other IN ('freehold_viewer', 'freehold_member')
    WHEN 'freehold_member' THEN b.other = 'freehold_viewer'
    ELSE false END)
  AND NOT EXISTS (SELECT FROM becomes s WHERE s.role = b.role AND s.other = b.role AND s.rolsuper)
UNION ALL
SELECT 'FH313', r.rolname::text, CASE WHEN r.rolname = 'freehold_app' THEN 'it inherits the rights of the tenant roles: it should be NOINHERIT'
    ELSE 'it may log in: it should be NOLOGIN' END, NULL
FROM pg_roles r
WHERE r.rolname = 'freehold_app' AND r.rolinherit
   OR r.rolname IN ('freehold_viewer', 'freehold_member', 'freehold_admin') AND r.rolcanlogin
UNION ALL
SELECT 'FH314', m.rolname::text, 'it may become freehold_owner', NULL
FROM pg_roles m
WHERE pg_has_role(m.oid, 'freehold_owner', 'MEMBER') AND NOT m.rolsuper AND m.rolname <> 'freehold_owner'
  AND m.rolname NOT IN (SELECT role FROM ours)
UNION ALL
SELECT 'FH315', 'freehold_app', 'it lacks ' || e.setting, NULL
FROM unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout', 'search_path']) e(setting)
WHERE NOT EXISTS (
  SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c
  WHERE s.setrole = 'freehold_app'::regrole AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND starts_with(c, e.setting || '='))
UNION ALL
SELECT 'FH316', s.setrole::regrole || CASE s.setdatabase WHEN 0 THEN '' ELSE ' in this database' END, 'it has ' || c, NULL
FROM pg_db_role_setting s, unnest(s.setconfig) c
WHERE s.setrole::regrole::text IN ('freehold_owner', 'freehold_app', 'freehold_catalog', 'freehold_analytics')
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND NOT (s.setrole::regrole::text = 'freehold_app' AND s.setdatabase = 0 AND c = ANY (string_to_array({app_bounds}, ' ')))",
        checks: &[
            Check {
                code: "FH311",
                severity: Severity::Critical,
                title: "A role of the application is above row-level security, or may become one that is",
                meaning: "A superuser, a role with BYPASSRLS, and the owner of the tables can read every tenant or turn the policies off; CREATEROLE, REPLICATION and some predefined roles lead there.",
                remedy: "ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION; REVOKE the membership.",
                fix_is_safe: false,
            },
            Check {
                code: "FH312",
                severity: Severity::Warning,
                title: "A role of the application is a member of a role it does not need",
                meaning: "Whatever that role may do, injected SQL may do too.",
                remedy: "REVOKE that role FROM it.",
                fix_is_safe: false,
            },
            Check {
                code: "FH313",
                severity: Severity::Warning,
                title: "A role has an attribute that Freehold does not give it",
                meaning: "The app role has a tenant role's rights only inside a tenant's transaction, and nobody logs in as a tenant role.",
                remedy: "ALTER ROLE freehold_app NOINHERIT; ALTER ROLE freehold_viewer NOLOGIN, and so on.",
                fix_is_safe: false,
            },
            Check {
                code: "FH314",
                severity: Severity::Info,
                title: "Another role may become the owner role",
                meaning: "Whoever is a member of freehold_owner can change the policies. The role that ran `freehold init` without being a superuser is one.",
                remedy: "Keep the list short, and its passwords as safe as a superuser's.",
                fix_is_safe: false,
            },
            Check {
                code: "FH315",
                severity: Severity::Warning,
                title: "The app role lacks a setting that bounds it",
                meaning: "Statements and idle transactions of the app role end by themselves, and outside of a transaction its search path finds nothing.",
                remedy: "Run `freehold init` again; it sets them.",
                fix_is_safe: false,
            },
            Check {
                code: "FH316",
                severity: Severity::Warning,
                title: "A login role has a setting of its own that is not Freehold's",
                meaning: "Every connection of that role begins with it. A role can set its own, and needs no right for it: SQL that a baseline executes as text may have done so.",
                remedy: "Run `freehold init` again; it removes them and says which. What is meant for all connections goes into the connection string (options=-c name=value) or is set for the database.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH321' AS code, 'database ' || current_database() AS object, r.role || ' has ' || p.privilege AS detail, NULL::text AS fix
FROM unnest(ARRAY['freehold_app', 'freehold_catalog', 'freehold_analytics']) r(role), unnest(ARRAY['CREATE', 'TEMPORARY']) p(privilege)
WHERE has_database_privilege(r.role, current_database(), p.privilege)
UNION ALL
SELECT 'FH322', p.oid::regprocedure::text, 'freehold_app may call it', NULL
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (string_to_array({dangerous_functions}, ' '))
  AND has_function_privilege('freehold_app', p.oid, 'EXECUTE')
UNION ALL
SELECT 'FH323', 'language ' || l.lanname, 'freehold_app may run DO blocks in it', NULL
FROM pg_language l
WHERE l.laninline <> 0 AND l.lanpltrusted AND has_language_privilege('freehold_app', l.oid, 'USAGE')
UNION ALL
SELECT 'FH324', c.oid::regclass::text, r.role || ' may read it', NULL
FROM pg_class c CROSS JOIN unnest(ARRAY['freehold_app', 'freehold_viewer']) r(role)
WHERE c.relnamespace = 'pg_catalog'::regnamespace
  AND c.relname IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_authid', 'pg_shadow', 'pg_largeobject', 'pg_user_mapping', 'pg_subscription')
  AND has_table_privilege(r.role, c.oid, 'SELECT')
UNION ALL
SELECT 'FH325', p.oid::regprocedure::text, 'freehold_app may call it', NULL
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (string_to_array({activity_functions}, ' '))
  AND has_function_privilege('freehold_app', p.oid, 'EXECUTE')
UNION ALL
SELECT 'FH326', p.oid::regprocedure::text, 'freehold_app may call it', NULL
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (string_to_array({session_locks}, ' '))
  AND has_function_privilege('freehold_app', p.oid, 'EXECUTE')",
        checks: &[
            Check {
                code: "FH321",
                severity: Severity::Warning,
                title: "The application may make temporary tables or schemas",
                meaning: "A temporary table lives as long as the pooled connection and can stand in for a real one; what it holds meets the next tenant.",
                remedy: "Run `freehold init` again as the database's owner: it revokes CREATE and TEMPORARY from PUBLIC.",
                fix_is_safe: false,
            },
            Check {
                code: "FH322",
                severity: Severity::Warning,
                title: "The app role may call functions through which tenants could meet or harm each other",
                meaning: "Large objects carry no row-level security, signals reach the sessions of all tenants, and the list of prepared statements shows the text of others' queries and the names under which they could be replaced, which are secret otherwise.",
                remedy: "Run `freehold init` as a superuser, which revokes them from PUBLIC. On a managed server that may be impossible.",
                fix_is_safe: false,
            },
            Check {
                code: "FH323",
                severity: Severity::Warning,
                title: "The app role may run DO blocks",
                meaning: "Injected SQL becomes a program with loops and exceptions.",
                remedy: "Run `freehold init` as a superuser, which revokes the language from PUBLIC.",
                fix_is_safe: false,
            },
            Check {
                code: "FH324",
                severity: Severity::Critical,
                title: "The application may read PostgreSQL's own tables of what is in all others",
                meaning: "Statistics hold samples of every tenant's values, and no policy binds them; others of these tables hold passwords' hashes or large objects.",
                remedy: "REVOKE SELECT ON … FROM PUBLIC, as a superuser: PostgreSQL grants it to nobody.",
                fix_is_safe: false,
            },
            Check {
                code: "FH325",
                severity: Severity::Warning,
                title: "The app role may read the statements that other sessions run",
                meaning: "All tenants are one role to PostgreSQL, so injected SQL that has gone back to it (RESET ROLE) sees in pg_stat_activity what the others run at this moment, with the values that stand in the text.",
                remedy: "Run `freehold init` as a superuser: it revokes what pg_stat_activity is made of from PUBLIC, and grants it to pg_monitor and pg_read_all_stats. On a managed server that may be impossible; then send values as parameters, which are not shown.",
                fix_is_safe: false,
            },
            Check {
                code: "FH326",
                severity: Severity::Warning,
                title: "The app role may take advisory locks that outlast a transaction",
                meaning: "A session keeps them, so the next tenant on that connection has them too; held by injected SQL, they keep analytics from being led and indexes from being built.",
                remedy: "Run `freehold init` as a superuser: it revokes pg_advisory_lock and its like from PUBLIC, and grants them to freehold_owner and freehold_analytics. Locks of a transaction (pg_advisory_xact_lock) stay everybody's.",
                fix_is_safe: false,
            },
        ],
    },
];
