//! The queries to PostgreSQL's catalogs. Each row is `what, class, object, kind, name, schema, by`: what was
//! done, to which object, and for a dependency, what depends on it.

use super::{Mark, Survey};

/// Kinds of independent objects. What belongs to a table is changed under the table's lock.
const CLASSES: &str = "ARRAY['pg_class', 'pg_proc', 'pg_type', 'pg_operator', 'pg_opclass', 'pg_opfamily', 'pg_collation', 'pg_conversion',
    'pg_statistic_ext', 'pg_ts_config', 'pg_ts_dict', 'pg_ts_parser', 'pg_ts_template', 'pg_namespace', 'pg_cast', 'pg_event_trigger',
    'pg_publication', 'pg_foreign_data_wrapper', 'pg_foreign_server', 'pg_user_mapping', 'pg_language', 'pg_transform', 'pg_am',
    'pg_extension', 'pg_default_acl', 'pg_largeobject', 'pg_authid', 'pg_database', 'pg_tablespace']::pg_catalog.regclass[]";

/// The locks of this transaction that changes take, and whether their object still exists. For a table, the
/// number of rows that the session has written: so far, if it held such a lock already.
pub(super) const LOCKS: &str = "
SELECT coalesce(l.classid, 'pg_catalog.pg_class'::regclass::oid), coalesce(l.relation, l.objid), l.mode,
  CASE WHEN l.relation IS NOT NULL THEN pg_catalog.pg_stat_get_xact_tuples_inserted(l.relation)
    + pg_catalog.pg_stat_get_xact_tuples_updated(l.relation) + pg_catalog.pg_stat_get_xact_tuples_deleted(l.relation) END,
  pg_catalog.pg_describe_object(coalesce(l.classid, 'pg_catalog.pg_class'::regclass), coalesce(l.relation, l.objid), 0) IS NOT NULL
FROM pg_catalog.pg_locks l
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype IN ('relation', 'object')
  AND (l.relation IS NOT NULL OR l.classid = ANY ({classes}))
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')";

/// The contents of the schema ($1), with everything that belongs to them: what a migration may drop.
pub(super) const INSIDE: &str = "
WITH RECURSIVE inside(class, oid) AS (
  SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
  WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = $1::text::regnamespace
  UNION
  SELECT d.classid, d.objid FROM inside i JOIN pg_catalog.pg_depend d ON d.refclassid = i.class AND d.refobjid = i.oid
    AND (d.deptype IN ('a', 'i', 'P', 'S') OR d.classid = ANY (ARRAY['pg_cast', 'pg_transform']::pg_catalog.regclass[]))
)
SELECT class, oid FROM inside WHERE class = ANY ({classes})";

/// The objects on which the transaction holds a lock. Of PostgreSQL's own tables, only those that stay locked
/// after changes to server-wide objects or large objects are listed.
pub(super) const HELD: &str = "
WITH held AS MATERIALIZED (
  SELECT h.class, h.oid, pg_identify_object(h.class, h.oid, 0) AS object
  FROM unnest($2::oid[], $3::oid[]) h(class, oid) WHERE h.class = ANY ({classes}) AND NOT {extension h.class h.oid}
)
SELECT CASE WHEN s.relname = 'pg_largeobject' THEN 'large object' WHEN s.relname IS NOT NULL OR h.class IN ('pg_authid'::regclass, 'pg_database'::regclass, 'pg_tablespace'::regclass)
    THEN 'role' WHEN h.class = 'pg_class'::regclass THEN 'write' ELSE 'change' END,
  h.class, h.oid, (h.object).type, (h.object).identity, (h.object).schema, NULL::text
FROM held h
LEFT JOIN pg_class s ON h.class = 'pg_class'::regclass AND s.oid = h.oid AND s.relnamespace = 'pg_catalog'::regnamespace
  AND s.relname IN ('pg_authid', 'pg_auth_members', 'pg_db_role_setting', 'pg_database', 'pg_largeobject', 'pg_parameter_acl')
WHERE (h.object).schema IS DISTINCT FROM $1 AND NOT (h.class = 'pg_namespace'::regclass AND (h.object).identity = $1)
  AND (s.oid IS NOT NULL OR coalesce((h.object).schema, '') !~ '^pg_') AND (h.object).type <> 'index'
  AND NOT {of_own h.class h.oid}
ORDER BY (h.object).identity";

/// The dropped objects, queried in the previous state.
pub(super) const DROPPED: &str = "
SELECT 'drop', g.class, g.oid, (o.object).type, (o.object).identity, (o.object).schema, NULL::text
FROM unnest($2::oid[], $3::oid[]) g(class, oid),
  LATERAL (SELECT pg_identify_object(g.class, g.oid, 0) AS object OFFSET 0) o
WHERE g.class = ANY ({classes}) AND (o.object).schema IS DISTINCT FROM $1
  AND coalesce((o.object).schema, '') !~ '^pg_' AND (o.object).identity IS NOT NULL
  AND NOT {of_own g.class g.oid}
  AND NOT EXISTS (SELECT FROM pg_type t WHERE g.class = 'pg_type'::regclass AND t.oid = g.oid AND (t.typrelid <> 0 OR t.typcategory = 'A'))
ORDER BY g.class <> 'pg_namespace'::regclass, (o.object).type = 'index', (o.object).identity";

/// What the migration has written to the catalogs, outside of its schema ($1).
pub(super) const WRITTEN: &str = "
WITH {own}, written(class, oid, sub, home) AS MATERIALIZED (
  SELECT 'pg_class'::regclass, x.oid, 0, x.relnamespace FROM pg_class x WHERE {mine}
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, 0, c.relnamespace
  FROM (SELECT DISTINCT attrelid FROM pg_attribute x WHERE {mine}) a JOIN pg_class c ON c.oid = a.attrelid
  UNION ALL SELECT 'pg_proc'::regclass, x.oid, 0, x.pronamespace FROM pg_proc x WHERE {mine}
  UNION ALL SELECT 'pg_type'::regclass, x.oid, 0, x.typnamespace FROM pg_type x WHERE {mine}
  UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, t.typnamespace FROM pg_enum x JOIN pg_type t ON t.oid = x.enumtypid WHERE {mine}
  UNION ALL SELECT 'pg_operator'::regclass, x.oid, 0, x.oprnamespace FROM pg_operator x WHERE {mine}
  UNION ALL SELECT 'pg_opclass'::regclass, x.oid, 0, x.opcnamespace FROM pg_opclass x WHERE {mine}
  UNION ALL SELECT 'pg_opfamily'::regclass, x.oid, 0, x.opfnamespace FROM pg_opfamily x WHERE {mine}
  UNION ALL SELECT 'pg_opfamily'::regclass, f.oid, 0, f.opfnamespace FROM pg_amop x JOIN pg_opfamily f ON f.oid = x.amopfamily WHERE {mine}
  UNION ALL SELECT 'pg_opfamily'::regclass, f.oid, 0, f.opfnamespace FROM pg_amproc x JOIN pg_opfamily f ON f.oid = x.amprocfamily WHERE {mine}
  UNION ALL SELECT 'pg_collation'::regclass, x.oid, 0, x.collnamespace FROM pg_collation x WHERE {mine}
  UNION ALL SELECT 'pg_conversion'::regclass, x.oid, 0, x.connamespace FROM pg_conversion x WHERE {mine}
  UNION ALL SELECT 'pg_statistic_ext'::regclass, x.oid, 0, x.stxnamespace FROM pg_statistic_ext x WHERE {mine}
  UNION ALL SELECT 'pg_ts_config'::regclass, x.oid, 0, x.cfgnamespace FROM pg_ts_config x WHERE {mine}
  UNION ALL SELECT 'pg_ts_config'::regclass, c.oid, 0, c.cfgnamespace FROM pg_ts_config_map x JOIN pg_ts_config c ON c.oid = x.mapcfg WHERE {mine}
  UNION ALL SELECT 'pg_ts_dict'::regclass, x.oid, 0, x.dictnamespace FROM pg_ts_dict x WHERE {mine}
  UNION ALL SELECT 'pg_ts_parser'::regclass, x.oid, 0, x.prsnamespace FROM pg_ts_parser x WHERE {mine}
  UNION ALL SELECT 'pg_ts_template'::regclass, x.oid, 0, x.tmplnamespace FROM pg_ts_template x WHERE {mine}
  UNION ALL SELECT 'pg_namespace'::regclass, x.oid, 0, x.oid FROM pg_namespace x WHERE {mine}
    AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = x.oid AND {new e})
  -- A cast or transform of a type of one's own goes with the type.
  UNION ALL SELECT 'pg_cast'::regclass, x.oid, 0, 0 FROM pg_cast x WHERE {mine}
    AND NOT EXISTS (SELECT FROM pg_type t, own WHERE t.oid IN (x.castsource, x.casttarget) AND t.typnamespace = own.oid)
  UNION ALL SELECT 'pg_transform'::regclass, x.oid, 0, 0 FROM pg_transform x WHERE {mine}
    AND NOT EXISTS (SELECT FROM pg_type t, own WHERE t.oid = x.trftype AND t.typnamespace = own.oid)
  UNION ALL SELECT 'pg_event_trigger'::regclass, x.oid, 0, 0 FROM pg_event_trigger x WHERE {mine}
  UNION ALL SELECT 'pg_publication'::regclass, x.oid, 0, 0 FROM pg_publication x WHERE {mine}
  UNION ALL SELECT 'pg_publication'::regclass, x.prpubid, 0, 0 FROM pg_publication_rel x WHERE {mine}
  UNION ALL SELECT 'pg_publication'::regclass, x.pnpubid, 0, 0 FROM pg_publication_namespace x WHERE {mine}
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, x.oid, 0, 0 FROM pg_foreign_data_wrapper x WHERE {mine}
  UNION ALL SELECT 'pg_foreign_server'::regclass, x.oid, 0, 0 FROM pg_foreign_server x WHERE {mine}
  UNION ALL SELECT 'pg_language'::regclass, x.oid, 0, 0 FROM pg_language x WHERE {mine}
  UNION ALL SELECT 'pg_am'::regclass, x.oid, 0, 0 FROM pg_am x WHERE {mine}
  UNION ALL SELECT 'pg_extension'::regclass, x.oid, 0, 0 FROM pg_extension x WHERE {mine} AND NOT {new x}
  UNION ALL SELECT 'pg_largeobject'::regclass, x.oid, 0, 0 FROM pg_largeobject_metadata x WHERE {mine}
  UNION ALL SELECT 'pg_default_acl'::regclass, x.oid, 0, 0 FROM pg_default_acl x WHERE {mine}
), elsewhere AS MATERIALIZED (
  SELECT DISTINCT w.class, w.oid, w.sub FROM written w, own
  WHERE w.home <> own.oid AND w.home::regnamespace::text !~ '^pg_(toast|temp|toast_temp)' AND NOT {extension w.class w.oid}
)
SELECT CASE WHEN e.class = 'pg_default_acl'::regclass THEN 'default privileges' WHEN e.class = 'pg_largeobject'::regclass THEN 'large object'
    WHEN (e.oid::int8 - {from} + 4294967296) % 4294967296 <= ({to}::int8 - {from} + 4294967296) % 4294967296 THEN 'create' ELSE 'change' END,
  e.class::oid, e.oid, (o.object).type, (o.object).identity, (o.object).schema, NULL::text
FROM elsewhere e, LATERAL (SELECT pg_identify_object(e.class, e.oid, e.sub) AS object OFFSET 0) o
-- Of a table with its index, sequence and types, the table.
WHERE NOT EXISTS (SELECT FROM pg_depend d JOIN elsewhere t ON t.class = d.refclassid AND t.oid = d.refobjid
  WHERE d.classid = e.class AND d.objid = e.oid AND d.deptype IN ('i', 'a'))
  AND NOT EXISTS (SELECT FROM pg_index i JOIN elsewhere t ON t.class = 'pg_class'::regclass AND t.oid = i.indrelid WHERE i.indexrelid = e.oid)
ORDER BY e.class <> 'pg_namespace'::regclass, (o.object).identity";

/// Dependencies of objects in the schema on objects outside, created by the migration. Functions of the
/// catalog may be called, and PostgreSQL's own objects are the same for all.
pub(super) const DEPENDENCIES: &str = "
WITH RECURSIVE {own}, inside(class, oid) AS (
  SELECT d.classid, d.objid FROM pg_depend d, own WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = own.oid
  UNION
  SELECT d.classid, d.objid FROM inside i JOIN pg_depend d ON d.refclassid = i.class AND d.refobjid = i.oid AND d.deptype IN ('a', 'i', 'P', 'S')
), edge AS MATERIALIZED (
  SELECT x.refclassid, x.refobjid, min(CASE x.classid WHEN 'pg_rewrite'::regclass THEN pg_describe_object('pg_class'::regclass, (SELECT r.ev_class FROM pg_rewrite r WHERE r.oid = x.objid), 0)
    ELSE pg_describe_object(x.classid, x.objid, x.objsubid) END) AS by
  FROM inside i JOIN pg_depend x ON x.classid = i.class AND x.objid = i.oid
  WHERE {mine} AND x.refclassid <> 'pg_namespace'::regclass
    AND NOT EXISTS (SELECT FROM inside o WHERE o.class = x.refclassid AND o.oid = x.refobjid)
    AND (x.deptype = 'e' OR NOT {member x.refclassid x.refobjid})
  GROUP BY 1, 2
)
SELECT CASE e.refclassid WHEN 'pg_extension'::regclass THEN 'change' ELSE 'depend' END, e.refclassid, e.refobjid,
  (o.object).type, (o.object).identity, (o.object).schema, replace(e.by, $1 || '.', '')
FROM edge e, LATERAL (SELECT pg_identify_object(e.refclassid, e.refobjid, 0) AS object OFFSET 0) o
WHERE e.refclassid = 'pg_extension'::regclass AND NOT EXISTS (SELECT FROM pg_extension n WHERE n.oid = e.refobjid AND {new n})
    AND EXISTS (SELECT FROM inside i JOIN pg_depend x ON x.classid = i.class AND x.objid = i.oid AND x.deptype = 'e'
                WHERE x.refclassid = e.refclassid AND x.refobjid = e.refobjid AND {mine})
  OR (o.object).schema <> $1 AND (o.object).schema <> 'information_schema' AND (o.object).schema !~ '^pg_'
    AND NOT ((o.object).schema = 'freehold' AND e.refclassid = 'pg_proc'::regclass)
    AND (o.object).type <> 'index'
ORDER BY e.refclassid <> 'pg_class'::regclass, (o.object).identity";

/// Privileges in the schema that no tenant role needs and that would be a critical finding in every tenant's.
pub(super) const GRANTS: &str = "
WITH {own}
SELECT CASE a.grantee WHEN 0 THEN 'public' ELSE 'analytics' END, 'pg_class'::regclass::oid, c.oid, (o.object).type, quote_ident(c.relname), (o.object).schema,
  string_agg(DISTINCT a.privilege_type, ', ')
FROM own JOIN pg_depend n ON n.refclassid = 'pg_namespace'::regclass AND n.refobjid = own.oid AND n.classid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = n.objid
CROSS JOIN LATERAL (
  SELECT r.grantee, r.privilege_type FROM aclexplode(c.relacl) r
  UNION ALL
  SELECT r.grantee, r.privilege_type FROM pg_attribute t, LATERAL aclexplode(t.attacl) r WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
) a
CROSS JOIN LATERAL (SELECT pg_identify_object('pg_class'::regclass, c.oid, 0) AS object OFFSET 0) o
WHERE a.grantee = 0 OR a.grantee = 'freehold_analytics'::regrole AND a.privilege_type NOT IN ('SELECT', 'USAGE')
GROUP BY a.grantee, c.oid, c.relname, o.object";

/// Inserts the migration's range, and the conditions that several queries share, into a query.
pub(super) fn complete(sql: &str, before: &Survey, end: &Mark) -> String {
    let (from, to) = (&before.mark.xid, &end.xid);
    // Other transactions that commit meanwhile have such ids too, but are not in progress, or not visible.
    let mine = format!(
        "CASE WHEN age(x.xmin) BETWEEN age('{to}'::xid) AND age('{from}'::xid)
           THEN pg_xact_status((pg_current_xact_id()::text::int8 + age(pg_current_xact_id()::xid) - age(x.xmin))::text::xid8) = 'in progress' ELSE false END"
    );
    let known = before.extensions.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let is_new = |alias: &str| format!("NOT {alias}.oid = ANY ('{{{known}}}'::oid[])");
    // The type of an array or a row is not a member, but depends on one.
    let member = |class: &str, oid: &str, which: &str| {
        format!(
            "EXISTS (SELECT FROM pg_depend m LEFT JOIN pg_depend l ON m.deptype = 'i' AND l.classid = m.refclassid AND l.objid = m.refobjid AND l.deptype = 'e'
               JOIN pg_extension v ON v.oid = CASE m.deptype WHEN 'e' THEN m.refobjid ELSE l.refobjid END {which}
               WHERE m.classid = {class} AND m.objid = {oid} AND m.deptype IN ('e', 'i'))"
        )
    };
    let only_new = format!("AND {}", is_new("v"));
    let mut sql = sql
        .replace(
            "{own}",
            "own AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname = $1::text)",
        )
        .replace("{classes}", CLASSES)
        .replace("{mine}", &mine)
        .replace("{from}", &before.mark.oid.to_string())
        .replace("{to}", &end.oid.to_string());
    for alias in ["e", "x", "n"] {
        sql = sql.replace(&format!("{{new {alias}}}"), &is_new(alias));
    }
    for (class, oid) in [("h.class", "h.oid"), ("w.class", "w.oid")] {
        let condition = member(class, oid, &only_new);
        sql = sql.replace(&format!("{{extension {class} {oid}}}"), &condition);
    }
    sql.replace("{member x.refclassid x.refobjid}", &member("x.refclassid", "x.refobjid", ""))
        .replace("{of_own h.class h.oid}", &of_own("h.class", "h.oid"))
}

/// Whether an object without a schema belongs to a type in the migration's schema: a cast or a transform.
fn of_own(class: &str, oid: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_depend d JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
           WHERE d.classid = {class} AND d.objid = {oid} AND {class} IN ('pg_cast'::regclass, 'pg_transform'::regclass)
             AND t.typnamespace = $1::text::regnamespace)"
    )
}

/// A query that does not use the range: [`LOCKS`], [`INSIDE`], [`DROPPED`].
pub(super) fn simple(sql: &str) -> String {
    sql.replace("{classes}", CLASSES).replace("{of_own g.class g.oid}", &of_own("g.class", "g.oid"))
}
