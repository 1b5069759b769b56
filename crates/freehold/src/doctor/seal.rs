//! FH11x: the seal of contexts: its mode, the grant that the mode `best` needs, and its keys.

use super::check::{Check, Probe, Severity, Visibility};

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH111' AS code, 'database ' || current_database() AS object, 'its seal mode is plain' AS detail, NULL::text AS fix
WHERE freehold_guard.seal_mode() = 'plain'
UNION ALL
SELECT 'FH112', 'freehold_guard.' || k.relation || coalesce('.' || k.part, ''),
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END || ' has ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), NULL
FROM (
  SELECT relname, NULL::text, relacl, relowner FROM pg_class
  WHERE oid IN ('freehold_guard.seal_key'::regclass, to_regclass('freehold_guard.session_number'))
  UNION ALL
  SELECT c.relname, a.attname::text, a.attacl, c.relowner FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  WHERE c.oid = 'freehold_guard.seal_key'::regclass AND a.attacl IS NOT NULL
) k(relation, part, acl, owner), LATERAL aclexplode(k.acl) a
WHERE a.grantee <> k.owner
GROUP BY k.relation, k.part, a.grantee
UNION ALL
SELECT 'FH113', 'parameter ' || {verdict}, 'freehold_guard may not set it', NULL
WHERE freehold_guard.seal_mode() = 'best' AND NOT has_parameter_privilege('freehold_guard', {verdict}, 'SET')
UNION ALL
SELECT 'FH114', 'parameter ' || {verdict}, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END || ' has ' || a.privilege_type, NULL
FROM pg_parameter_acl p, LATERAL aclexplode(p.paracl) a
WHERE p.parname = {verdict} AND freehold_guard.seal_mode() = 'best' AND a.grantee <> 'freehold_guard'::regrole
  AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.grantee AND r.rolsuper)
UNION ALL
SELECT 'FH118', 'freehold_guard.seal_key.' || attname, 'statistics keep samples of it', NULL
FROM freehold_guard.list_sampled() attname
UNION ALL
SELECT CASE WHEN m.rolname ~ '^freehold_' THEN 'FH119' ELSE 'FH120' END, m.rolname::text, 'it is a member of freehold_guard', NULL
FROM pg_roles m
WHERE m.rolname <> 'freehold_guard' AND NOT m.rolsuper AND pg_has_role(m.oid, 'freehold_guard', 'MEMBER')
UNION ALL
SELECT 'FH123', g.rolname::text, concat_ws(', ',
    CASE WHEN g.rolcanlogin THEN 'it may log in' END, CASE WHEN g.rolsuper THEN 'it is a superuser' END,
    CASE WHEN g.rolbypassrls THEN 'it has BYPASSRLS' END, CASE WHEN g.rolcreaterole THEN 'it has CREATEROLE' END,
    CASE WHEN g.rolcreatedb THEN 'it has CREATEDB' END, CASE WHEN g.rolreplication THEN 'it has REPLICATION' END), NULL
FROM pg_roles g
WHERE g.rolname = 'freehold_guard'
  AND (g.rolcanlogin OR g.rolsuper OR g.rolbypassrls OR g.rolcreaterole OR g.rolcreatedb OR g.rolreplication)
UNION ALL
SELECT 'FH123', g.rolname::text, 'it may become ' || r.rolname, NULL
FROM pg_roles g JOIN pg_roles r ON r.oid <> g.oid AND pg_has_role(g.oid, r.oid, 'MEMBER')
WHERE g.rolname = 'freehold_guard' AND NOT g.rolsuper
UNION ALL
SELECT 'FH124', pg_describe_object(d.classid, d.objid, d.objsubid), 'it belongs to freehold_guard', NULL
FROM pg_shdepend d, LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) o
WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = 'freehold_guard'::regrole AND d.deptype = 'o'
  AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND o.schema IS DISTINCT FROM 'freehold_guard' AND o.identity <> 'freehold_guard'",
        checks: &[
            Check {
                code: "FH111",
                severity: Severity::Warning,
                title: "Contexts are not sealed",
                meaning: "In the mode plain the database believes whatever context it is told. Tenants are kept apart from mistakes, but SQL that somebody injects can set another tenant's context.",
                remedy: "`freehold init --seal best` as a superuser, or `--seal portable` where there is none; then restart the servers.",
                fix_is_safe: false,
            },
            Check {
                code: "FH112",
                severity: Severity::Critical,
                title: "A role besides the owner has a right to what contexts are sealed with",
                meaning: "Whoever reads a key, or the number of a session, can be any tenant, and whoever writes one can bring their own. No policy stands before them.",
                remedy: "REVOKE ALL ON freehold_guard.seal_key, or on SEQUENCE freehold_guard.session_number, FROM that role, and from the table's columns; then `freehold key rotate --retire-after-secs 0`, because the key may be known.",
                fix_is_safe: false,
            },
            Check {
                code: "FH113",
                severity: Severity::Critical,
                title: "The guard role has lost the leave that the seal mode best rests on",
                meaning: "The database cannot note that a context was verified, so it refuses every request.",
                remedy: "GRANT SET ON PARAMETER backtrace_functions TO freehold_guard, as a superuser; or `freehold init --seal portable`.",
                fix_is_safe: false,
            },
            Check {
                code: "FH114",
                severity: Severity::Critical,
                title: "Another role may set what the database believes of a context",
                meaning: "In the mode best the verified context is kept in backtrace_functions. Whoever may set it, for a transaction or for the whole server, can be any tenant without a seal.",
                remedy: "REVOKE ALL ON PARAMETER backtrace_functions FROM that role, as a superuser.",
                fix_is_safe: false,
            },
            Check {
                code: "FH118",
                severity: Severity::Warning,
                title: "Statistics keep samples of the keys that seal contexts",
                meaning: "ANALYZE copies keys to another table, which has rights of its own and from which a key that was removed does not go.",
                remedy: "Run `freehold init` again: it removes what is kept and sets the columns' statistics to 0, as they were made.",
                fix_is_safe: false,
            },
            Check {
                code: "FH119",
                severity: Severity::Critical,
                title: "A role of Freehold is a member of the guard role",
                meaning: "What freehold_guard owns makes a context believed. A function of a baseline runs with the rights of freehold_owner; if that is a member, so is the function.",
                remedy: "REVOKE freehold_guard FROM that role; then `freehold key rotate --retire-after-secs 0`, because the key may be known.",
                fix_is_safe: false,
            },
            Check {
                code: "FH120",
                severity: Severity::Info,
                title: "A role that is no superuser is a member of the guard role",
                meaning: "It can read what contexts are sealed with. From PostgreSQL 16 on the role that ran `freehold init` without being a superuser has the ADMIN option by itself, and may make itself a member.",
                remedy: "Keep its password as safe as a superuser's, and let no server connect with it.",
                fix_is_safe: false,
            },
            Check {
                code: "FH123",
                severity: Severity::Critical,
                title: "The guard role can do more than own the keys",
                meaning: "freehold_guard owns what makes a context believed. It has no login and no membership, so that nothing but its own functions acts as it.",
                remedy: "ALTER ROLE freehold_guard NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION, or REVOKE the membership, as a superuser; if it could log in, then `freehold key rotate --retire-after-secs 0`.",
                fix_is_safe: false,
            },
            Check {
                code: "FH124",
                severity: Severity::Critical,
                title: "The guard role owns something outside of its schema",
                meaning: "A function that belongs to freehold_guard may read the keys and set what the database believes of a context. Only the functions in the schema freehold_guard, which `freehold init` makes, are meant to.",
                remedy: "ALTER … OWNER TO another role, or drop it. If it is a function that could be called, then `freehold key rotate --retire-after-secs 0`.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Owner,
        with: "
usable AS MATERIALIZED (
  SELECT ltrim(id, '0') AS id, created_at, retires_at FROM freehold_guard.list_keys()
  WHERE freehold_guard.seal_mode() <> 'plain' AND (retires_at IS NULL OR retires_at > now())
)",
        sql: "
SELECT 'FH115' AS code, 'freehold_guard.seal_key' AS object, 'there is no key that is still good' AS detail, NULL::text AS fix
WHERE freehold_guard.seal_mode() <> 'plain' AND NOT EXISTS (SELECT FROM usable)
UNION ALL
SELECT 'FH116', 'freehold_guard.seal_key', format('the last key, %s, retires at %s', id, retires_at), NULL
FROM (SELECT id, retires_at FROM usable ORDER BY retires_at DESC NULLS FIRST LIMIT 1) last WHERE retires_at IS NOT NULL
UNION ALL
SELECT 'FH117', 'freehold_guard.seal_key', format('the newest key, %s, is %s days old', id, extract(day FROM now() - created_at)), NULL
FROM (SELECT id, created_at FROM usable ORDER BY created_at DESC LIMIT 1) newest WHERE created_at < now() - interval '180 days'",
        checks: &[
            Check {
                code: "FH115",
                severity: Severity::Critical,
                title: "There is no key to seal contexts with",
                meaning: "Every request is refused, and a server that starts finds no key.",
                remedy: "`freehold init` makes one; then restart the servers.",
                fix_is_safe: false,
            },
            Check {
                code: "FH116",
                severity: Severity::Warning,
                title: "Every key that seals contexts retires, and none follows",
                meaning: "From that time on every request is refused.",
                remedy: "`freehold key rotate`: it makes the next, which servers take up by themselves if they have the owner's URL.",
                fix_is_safe: false,
            },
            Check {
                code: "FH117",
                severity: Severity::Info,
                title: "The key that seals contexts is older than 180 days",
                meaning: "The longer it is in use, the more backups hold it.",
                remedy: "`freehold key rotate`.",
                fix_is_safe: false,
            },
        ],
    },
];
