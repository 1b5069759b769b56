//! The query for the contents of a tenant's schema.

/// One row, one column: the schema's inventory as JSON. Run with search path `pg_catalog`, so that
/// `pg_get_expr` qualifies every name. 1574 is PostgreSQL's OID of `nextval(regclass)`.
///
/// Objects are found by their dependency on the schema, which has an index. pg_class has no index by schema,
/// and scanning it for each tenant would make creating and migrating slower as the fleet grows. Relations
/// (except sequences, which other defaults may use) and routines named in `$2` are left out. `{settled}` is
/// the query of `paths`, `{lastval}` that of `sequences`.
pub(super) const SQL: &str = "
SELECT json_build_object('relations', (
SELECT coalesce(json_agg(json_build_object(
    'name', c.relname,
    'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
                           WHEN 'm' THEN 'materialized_view' WHEN 'f' THEN 'foreign_table'
                           ELSE 'sequence' END,
    'owner_is_ours', c.relowner = 'freehold_owner'::regrole,
    'rls_enabled', c.relrowsecurity,
    'rls_forced', c.relforcerowsecurity,
    'security_invoker', coalesce(c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'], false),
    'granted_to', (SELECT coalesce(json_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END), '[]')
                   FROM (SELECT grantee FROM aclexplode(c.relacl)
                         UNION ALL
                         SELECT x.grantee FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) x
                         WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped) a
                   WHERE a.grantee <> c.relowner),
    'read_by_analytics', EXISTS (SELECT FROM aclexplode(c.relacl) a
                   WHERE a.grantee = 'freehold_analytics'::regrole AND a.privilege_type = 'SELECT'),
    'policies', (SELECT coalesce(json_agg(json_build_object(
                    'name', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd,
                    'roles', (SELECT array_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END ORDER BY 1) FROM unnest(p.polroles) r),
                    'using', pg_get_expr(p.polqual, p.polrelid),
                    'check', pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname), '[]')
                 FROM pg_policy p WHERE p.polrelid = c.oid),
    'defaults', (SELECT coalesce(json_agg(json_build_object(
                    'column', a.attname, 'type', format_type(a.atttypid, NULL),
                    'expression', pg_get_expr(d.adbin, d.adrelid),
                    'serial', (SELECT s.relname FROM pg_depend o JOIN pg_class s ON s.oid = o.objid
                       WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass
                         AND o.refobjid = c.oid AND o.refobjsubid = a.attnum AND o.deptype = 'a' AND s.relkind = 'S'
                         AND s.relnamespace = c.relnamespace AND a.attnotnull
                         AND pg_get_expr(d.adbin, d.adrelid) = format('nextval(%L::regclass)', s.oid::regclass::text)
                         AND (SELECT count(*) = 1 FROM pg_depend u WHERE u.classid = 'pg_attrdef'::regclass
                                AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid)
                         AND c.relkind = 'r' AND NOT c.relispartition
                         AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid)))
                  ORDER BY a.attnum), '[]')
                 FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                 WHERE d.adrelid = c.oid AND d.adbin::text LIKE '%:funcid 1574 %'),
    'settings', (SELECT json_build_object('type', format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement,
                    'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
                    'grants', (SELECT coalesce(json_agg(json_build_array(a.privilege_type,
                        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)), '[]')
                      FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner))
                 FROM pg_sequence q WHERE q.seqrelid = c.oid)
  ) ORDER BY c.relname), '[]')
FROM pg_depend n JOIN pg_class c ON c.oid = n.objid
WHERE n.refclassid = 'pg_namespace'::regclass AND n.refobjid = $1::text::regnamespace
  AND n.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND (c.relkind = 'S' OR c.relname <> ALL ($2::text[]))
), 'routines', (
SELECT coalesce(json_agg(json_build_object('definition', pg_get_functiondef(p.oid)) ORDER BY p.oid), '[]')
FROM pg_depend n JOIN pg_proc p ON p.oid = n.objid JOIN pg_language l ON l.oid = p.prolang
WHERE n.refclassid = 'pg_namespace'::regclass AND n.refobjid = $1::text::regnamespace
  AND n.classid = 'pg_proc'::regclass AND p.prokind IN ('f', 'p') AND l.lanname NOT IN ('internal', 'c')
  AND p.proname <> ALL ($2::text[]) AND (p.prosrc ~* '(^|[^[:alnum:]_$.\"])(pg_catalog[.])?nextval[[:space:]]*[(]' OR p.prosqlbody::text LIKE '%:funcid 1574 %')
), 'domains', (
SELECT coalesce(json_agg(json_build_object('name', t.typname, 'expression', pg_get_expr(t.typdefaultbin, 0)) ORDER BY t.typname), '[]')
FROM pg_depend n JOIN pg_type t ON t.oid = n.objid
WHERE n.refclassid = 'pg_namespace'::regclass AND n.refobjid = $1::text::regnamespace
  AND n.classid = 'pg_type'::regclass AND t.typtype = 'd' AND t.typdefaultbin::text LIKE '%:funcid 1574 %'
), 'settled', ({settled}), 'lastval', ({lastval}))::text";
