-- Which objects of the schema $1 depend on which, as (catalog, number) pairs, and what each belongs to that
-- is made by another's statement: the default of a column to its table, an array to its element.
WITH member AS MATERIALIZED (
  SELECT d.classid, d.objid FROM pg_depend d
  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = $1::text::regnamespace AND d.deptype = 'n'
), rel AS MATERIALIZED (
  SELECT c.oid, c.relkind, c.reltype FROM member m JOIN pg_class c ON c.oid = m.objid WHERE m.classid = 'pg_class'::regclass
), type AS MATERIALIZED (
  SELECT t.oid, t.typrelid, t.typarray, t.typtype FROM member m JOIN pg_type t ON t.oid = m.objid WHERE m.classid = 'pg_type'::regclass
  UNION ALL SELECT t.oid, t.typrelid, t.typarray, t.typtype FROM rel r JOIN pg_type t ON t.oid = r.reltype
), belongs AS MATERIALIZED (
  SELECT 'pg_attrdef'::regclass::oid AS catalog, d.oid AS number, 'pg_class'::regclass::oid AS to_catalog, d.adrelid AS to_number FROM rel r JOIN pg_attrdef d ON d.adrelid = r.oid
  UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 'pg_class'::regclass, k.conrelid FROM rel r JOIN pg_constraint k ON k.conrelid = r.oid AND k.contype <> 'f'
  UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 'pg_type'::regclass, k.contypid FROM type t JOIN pg_constraint k ON k.contypid = t.oid
  UNION ALL SELECT 'pg_rewrite'::regclass, w.oid, 'pg_class'::regclass, w.ev_class FROM rel r JOIN pg_rewrite w ON w.ev_class = r.oid AND w.rulename = '_RETURN'
  UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, CASE WHEN k.oid IS NULL THEN 'pg_class'::regclass::oid ELSE 'pg_constraint'::regclass END, coalesce(k.oid, i.indrelid)
    FROM rel r JOIN pg_index i ON i.indrelid = r.oid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
  UNION ALL SELECT 'pg_type'::regclass, t.oid, 'pg_class'::regclass, t.typrelid FROM type t JOIN rel r ON r.oid = t.typrelid
  UNION ALL SELECT 'pg_class'::regclass, t.typrelid, 'pg_type'::regclass, t.oid FROM type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
  UNION ALL SELECT 'pg_type'::regclass, t.typarray, 'pg_type'::regclass, t.oid FROM type t WHERE t.typarray <> 0
  UNION ALL SELECT 'pg_type'::regclass, g.rngmultitypid, 'pg_type'::regclass, t.oid FROM type t JOIN pg_range g ON g.rngtypid = t.oid
  UNION ALL SELECT 'pg_class'::regclass, r.oid, 'pg_class'::regclass, d.refobjid FROM rel r JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i' WHERE r.relkind = 'S'
  UNION ALL SELECT 'pg_proc'::regclass, m.objid, 'pg_type'::regclass, d.refobjid FROM member m JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.objid
    AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i' WHERE m.classid = 'pg_proc'::regclass
)
SELECT false AS is_part, d.classid::int8, d.objid::int8, d.refclassid::int8, d.refobjid::int8
FROM (
  SELECT classid, objid FROM member UNION SELECT catalog, number FROM belongs
  UNION SELECT 'pg_cast'::regclass, x.oid FROM type t JOIN pg_cast x ON x.castsource = t.oid OR x.casttarget = t.oid
) o
JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid
WHERE d.refclassid <> 'pg_namespace'::regclass AND d.refobjid >= 16384
  -- A sequence that a column owns is there before the column's default asks it.
  AND NOT (d.deptype = 'a' AND d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM rel r WHERE r.oid = d.objid AND r.relkind = 'S'))
UNION
SELECT true, catalog::int8, number::int8, to_catalog::int8, to_number::int8 FROM belongs
