-- Every object of the schema $1 as the statement that makes it: its kind, its name, the statement's
-- place in time (see `Stage`), the statement, and the number of the object that depends on others (catalog and
-- number), 0 for a statement about an object that is made before, and the bare name of the relation or routine
-- that it is or is part of. NULL for a statement that Freehold cannot write. Relations (sequences excepted) and
-- routines named in $2 are left out. Run with the search path pg_catalog, so that every name comes out qualified.
--
-- Objects are found by their dependence on the schema, which has an index; pg_class has none by schema. Each part
-- of the union begins with the kinds that it finds: `describe.rs` makes shorter queries of some of them.
WITH member AS MATERIALIZED (
  --: members
  SELECT d.classid, d.objid FROM pg_depend d
  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = $1::text::regnamespace AND d.deptype = 'n'
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.objsubid = 0 AND e.deptype = 'e')
  --: end of members
), rel AS MATERIALIZED (
  SELECT c.oid, c.oid::regclass::text AS name, c.relname, c.relkind, c.relpersistence, c.relispartition, c.relpartbound, c.reloptions,
    c.relam, c.relacl, c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.reltoastrelid, c.relispopulated, c.reltype, c.relnamespace, c.relowner, c.reloftype,
    c.relispartition OR c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
      OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_kin,
    EXISTS (SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype = 'i' AND c.relkind = 'S') AS is_identity
  FROM member m JOIN pg_class c ON c.oid = m.objid
  WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND (c.relkind = 'S' OR c.relname <> ALL ($2::text[]))
), sequence AS MATERIALIZED (
  SELECT r.oid, r.name, r.relname, r.is_identity, o.refobjid AS owner, o.refobjsubid AS owner_column, format_type(q.seqtypid, NULL) AS type,
    format('START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s', q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' END) AS options
  FROM rel r JOIN pg_sequence q ON q.seqrelid = r.oid
  LEFT JOIN pg_depend o ON o.classid = 'pg_class'::regclass AND o.objid = r.oid AND o.refclassid = 'pg_class'::regclass AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
), part AS MATERIALIZED (
  -- Constraints of tables, as their own statements or within that of the table.
  SELECT k.oid, k.conrelid, k.conname, k.contype, k.convalidated, pg_get_constraintdef(k.oid) AS definition,
    -- CREATE TABLE makes one constraint of two about the same columns.
    k.convalidated AND (k.contype = 'c' OR k.contype IN ('p', 'u', 'x') AND NOT r.has_kin AND (k.contype = 'p' OR NOT EXISTS (
      SELECT FROM pg_constraint o WHERE o.conrelid = k.conrelid AND o.contype IN ('p', 'u', 'x') AND o.conkey = k.conkey
        AND (o.contype = 'p' OR o.conname < k.conname)))) AS is_inline
  FROM rel r JOIN pg_constraint k ON k.conrelid = r.oid
  WHERE k.contype IN ('c', 'p', 'u', 'x', 'f')
    -- What came with a parent comes with it again; keys of partitions are attached.
    AND (k.contype IN ('p', 'u') OR k.conparentid = 0) AND (k.conislocal OR r.relispartition)
), line AS MATERIALIZED (
  SELECT a.attrelid AS rel, a.attnum::int AS place,
    CASE WHEN a.attisdropped THEN 'freehold_dropped_' || a.attnum || ' "char"' ELSE concat(
      quote_ident(a.attname), ' ', format_type(a.atttypid, a.atttypmod),
      CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN ' COLLATE ' || a.attcollation::regcollation END,
      CASE a.attcompression WHEN 'p' THEN ' COMPRESSION pglz' WHEN 'l' THEN ' COMPRESSION lz4' END,
      CASE WHEN a.attfdwoptions IS NOT NULL THEN ' OPTIONS (' || (SELECT string_agg(format('%I %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(a.attfdwoptions) o) || ')' END,
      CASE WHEN a.attgenerated = 's' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED'
           WHEN a.attgenerated = 'v' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') VIRTUAL'
           WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END,
      CASE WHEN a.attidentity <> '' THEN (SELECT format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %s %s)',
          CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, s.name, s.options)
        FROM sequence s WHERE s.owner = a.attrelid AND s.owner_column = a.attnum AND s.is_identity) END,
      CASE WHEN a.attnotnull THEN concat(' CONSTRAINT ' || quote_ident(n.conname), ' NOT NULL', CASE WHEN n.connoinherit THEN ' NO INHERIT' END) END
    ) END AS text
  FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid JOIN pg_type t ON t.oid = CASE WHEN a.attisdropped THEN 'text'::regtype ELSE a.atttypid END
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_constraint n ON n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey = ARRAY[a.attnum]
  WHERE r.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND (a.attislocal OR r.relispartition)
  UNION ALL
  SELECT conrelid, 10000 + rank() OVER (PARTITION BY conrelid ORDER BY conname), format('CONSTRAINT %I %s', conname, definition) FROM part WHERE is_inline
), type AS MATERIALIZED (
  SELECT t.*, t.oid::regtype::text AS name, c.relkind AS of
  FROM member m JOIN pg_type t ON t.oid = m.objid LEFT JOIN pg_class c ON c.oid = t.typrelid
  WHERE m.classid = 'pg_type'::regclass AND t.typcategory <> 'A' AND t.typtype <> 'm' AND coalesce(c.relkind, 'c') = 'c'
), routine AS MATERIALIZED (
  SELECT p.*, p.oid::regprocedure::text AS name
  FROM member m JOIN pg_proc p ON p.oid = m.objid
  WHERE m.classid = 'pg_proc'::regclass AND p.proname <> ALL ($2::text[])
    -- A range type makes its constructors itself.
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i')
), index AS MATERIALIZED (
  SELECT i.indexrelid AS oid, i.indrelid AS rel, r.relname AS table_name, i.indexrelid::regclass::text AS name, c.relname, c.reloptions,
    k.oid AS key, up.inhparent::regclass::text AS attached_to, i.indisclustered, i.indisreplident, i.indisvalid
  FROM rel r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_inherits up ON up.inhrelid = i.indexrelid
), granted AS (
  -- Who has what on what: the words of GRANT for the object, and its rights.
  SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || name AS object, name, relname AS part_of, relacl AS acl, relowner AS owner, '' AS columns FROM rel WHERE relacl IS NOT NULL
  UNION ALL
  SELECT 'TABLE ' || r.name, r.name || '.' || quote_ident(a.attname), r.relname, a.attacl, r.relowner, ' (' || quote_ident(a.attname) || ')'
  FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL
  SELECT 'ROUTINE ' || name, name, proname, proacl, proowner, '' FROM routine WHERE proacl IS NOT NULL
  UNION ALL
  SELECT CASE typtype WHEN 'd' THEN 'DOMAIN ' ELSE 'TYPE ' END || name, name, NULL, typacl, typowner, '' FROM type WHERE typacl IS NOT NULL
), grant_to AS (
  SELECT g.object, g.name, g.part_of, g.columns, a.grantee, a.is_grantable, string_agg(a.privilege_type || g.columns, ', ' ORDER BY a.privilege_type) AS rights
  FROM granted g CROSS JOIN aclexplode(g.acl) a WHERE a.grantee <> g.owner GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT kind, name, stage, statement, catalog::int8, number::int8, part_of::text FROM (
  --: type
  SELECT 'type' AS kind, t.name, 1 AS stage, 'pg_type'::regclass::oid AS catalog, t.oid AS number, CASE
    WHEN NOT t.typisdefined THEN NULL
    WHEN t.typtype = 'e' THEN format('CREATE TYPE %s AS ENUM (%s)', t.name, (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
    WHEN t.typtype = 'd' THEN format('CREATE DOMAIN %s AS %s', t.name, format_type(t.typbasetype, t.typtypmod))
      || CASE WHEN t.typcollation NOT IN (0, (SELECT b.typcollation FROM pg_type b WHERE b.oid = t.typbasetype)) THEN ' COLLATE ' || t.typcollation::regcollation ELSE '' END
      || coalesce(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '')
      || CASE WHEN t.typnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'n') THEN ' NOT NULL' ELSE '' END
      || coalesce((SELECT string_agg(format(E'\n  CONSTRAINT %I %s', k.conname, replace(pg_get_constraintdef(k.oid), ' NOT VALID', '')), '' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid), '')
    WHEN t.typtype = 'c' THEN format(E'CREATE TYPE %s AS (\n  %s\n)', t.name, (SELECT string_agg(concat(quote_ident(a.attname), ' ', format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attcollation NOT IN (0, b.typcollation) THEN ' COLLATE ' || a.attcollation::regcollation END), E',\n  ' ORDER BY a.attnum)
      FROM pg_attribute a JOIN pg_type b ON b.oid = a.atttypid WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
    WHEN t.typtype = 'r' THEN (SELECT format('CREATE TYPE %s AS RANGE (SUBTYPE = %s, SUBTYPE_OPCLASS = %s%s%s%s, MULTIRANGE_TYPE_NAME = %s)', t.name, g.rngsubtype::regtype,
        (SELECT format('%I.%I', n.nspname, o.opcname) FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace WHERE o.oid = g.rngsubopc),
        CASE WHEN g.rngcollation <> 0 THEN ', COLLATION = ' || g.rngcollation::regcollation END,
        CASE WHEN g.rngcanonical <> 0 THEN ', CANONICAL = ' || g.rngcanonical::regproc END,
        CASE WHEN g.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || g.rngsubdiff::regproc END,
        g.rngmultitypid::regtype) FROM pg_range g WHERE g.rngtypid = t.oid)
    END AS statement, NULL AS part_of
  FROM type t
  UNION ALL
  --: collation
  SELECT 'collation', x.oid::regcollation::text, 1, 'pg_collation'::regclass, x.oid,
    format('CREATE COLLATION %s (%s)', x.oid::regcollation, concat_ws(', ',
      'PROVIDER = ' || CASE x.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
      'LOCALE = ' || quote_literal(coalesce(to_jsonb(x) ->> 'colllocale', to_jsonb(x) ->> 'colliculocale')),
      'LC_COLLATE = ' || quote_literal(x.collcollate), 'LC_CTYPE = ' || quote_literal(x.collctype),
      'RULES = ' || quote_literal(to_jsonb(x) ->> 'collicurules'),
      CASE WHEN NOT x.collisdeterministic THEN 'DETERMINISTIC = false' END)), NULL
  FROM member m JOIN pg_collation x ON x.oid = m.objid WHERE m.classid = 'pg_collation'::regclass
  UNION ALL
  --: text search dictionary
  SELECT 'text search dictionary', x.oid::regdictionary::text, 1, 'pg_ts_dict'::regclass, x.oid,
    format('CREATE TEXT SEARCH DICTIONARY %s (TEMPLATE = %I.%I%s)', x.oid::regdictionary, n.nspname, t.tmplname, ', ' || x.dictinitoption), NULL
  FROM member m JOIN pg_ts_dict x ON x.oid = m.objid JOIN pg_ts_template t ON t.oid = x.dicttemplate JOIN pg_namespace n ON n.oid = t.tmplnamespace
  WHERE m.classid = 'pg_ts_dict'::regclass
  UNION ALL
  --: text search configuration
  SELECT 'text search configuration', x.oid::regconfig::text, 1, 'pg_ts_config'::regclass, x.oid,
    format('CREATE TEXT SEARCH CONFIGURATION %s (PARSER = %I.%I)', x.oid::regconfig, n.nspname, p.prsname)
    || coalesce((SELECT string_agg(format(E';\nALTER TEXT SEARCH CONFIGURATION %s ADD MAPPING FOR %I WITH %s', x.oid::regconfig, k.alias, k.dictionaries), '' ORDER BY k.alias)
      FROM (SELECT y.alias, string_agg(w.mapdict::regdictionary::text, ', ' ORDER BY w.mapseqno) AS dictionaries
            FROM pg_ts_config_map w JOIN ts_token_type(x.cfgparser) y ON y.tokid = w.maptokentype WHERE w.mapcfg = x.oid GROUP BY y.alias) k), ''), NULL
  FROM member m JOIN pg_ts_config x ON x.oid = m.objid JOIN pg_ts_parser p ON p.oid = x.cfgparser JOIN pg_namespace n ON n.oid = p.prsnamespace
  WHERE m.classid = 'pg_ts_config'::regclass
  UNION ALL
  --: aggregate, procedure, function
  SELECT CASE r.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END, r.name, 1, 'pg_proc'::regclass, r.oid,
    CASE WHEN r.prokind <> 'a' THEN rtrim(pg_get_functiondef(r.oid), E'\n') ELSE (
      SELECT format('CREATE AGGREGATE %s(%s) (%s)', r.oid::regproc, coalesce(nullif(CASE WHEN a.aggkind = 'n' THEN pg_get_function_identity_arguments(r.oid) ELSE pg_get_function_arguments(r.oid) END, ''), '*'), concat_ws(', ',
        'SFUNC = ' || a.aggtransfn::oid::regproc, 'STYPE = ' || format_type(a.aggtranstype, NULL), 'SSPACE = ' || nullif(a.aggtransspace, 0),
        CASE WHEN a.aggfinalfn <> 0 THEN 'FINALFUNC = ' || a.aggfinalfn::oid::regproc END, CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
        CASE WHEN a.aggfinalfn <> 0 THEN 'FINALFUNC_MODIFY = ' || CASE a.aggfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
        CASE WHEN a.aggcombinefn <> 0 THEN 'COMBINEFUNC = ' || a.aggcombinefn::oid::regproc END,
        CASE WHEN a.aggserialfn <> 0 THEN 'SERIALFUNC = ' || a.aggserialfn::oid::regproc END, CASE WHEN a.aggdeserialfn <> 0 THEN 'DESERIALFUNC = ' || a.aggdeserialfn::oid::regproc END,
        'INITCOND = ' || quote_literal(a.agginitval),
        CASE WHEN a.aggmtransfn <> 0 THEN 'MSFUNC = ' || a.aggmtransfn::oid::regproc END, CASE WHEN a.aggminvtransfn <> 0 THEN 'MINVFUNC = ' || a.aggminvtransfn::oid::regproc END,
        CASE WHEN a.aggmtranstype <> 0 THEN 'MSTYPE = ' || format_type(a.aggmtranstype, NULL) END, 'MSSPACE = ' || nullif(a.aggmtransspace, 0),
        CASE WHEN a.aggmfinalfn <> 0 THEN 'MFINALFUNC = ' || a.aggmfinalfn::oid::regproc END, CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
        CASE WHEN a.aggmfinalfn <> 0 THEN 'MFINALFUNC_MODIFY = ' || CASE a.aggmfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
        'MINITCOND = ' || quote_literal(a.aggminitval),
        CASE WHEN a.aggsortop <> 0 THEN (SELECT format('SORTOP = OPERATOR(%I.%s)', n.nspname, o.oprname) FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = a.aggsortop) END,
        'PARALLEL = ' || CASE r.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END,
        CASE WHEN a.aggkind = 'h' THEN 'HYPOTHETICAL' END))
      FROM pg_aggregate a WHERE a.aggfnoid = r.oid) END, r.proname
  FROM routine r
  UNION ALL
  --: operator
  SELECT 'operator', o.oid::regoperator::text, 1, 'pg_operator'::regclass, o.oid, CASE WHEN o.oprcode <> 0 THEN format('CREATE OPERATOR %I.%s (%s)', $1, o.oprname, concat_ws(', ',
      'FUNCTION = ' || o.oprcode, CASE WHEN o.oprleft <> 0 THEN 'LEFTARG = ' || format_type(o.oprleft, NULL) END, 'RIGHTARG = ' || format_type(o.oprright, NULL),
      (SELECT format('COMMUTATOR = OPERATOR(%I.%s)', n.nspname, c.oprname) FROM pg_operator c JOIN pg_namespace n ON n.oid = c.oprnamespace WHERE c.oid = o.oprcom),
      (SELECT format('NEGATOR = OPERATOR(%I.%s)', n.nspname, c.oprname) FROM pg_operator c JOIN pg_namespace n ON n.oid = c.oprnamespace WHERE c.oid = o.oprnegate),
      CASE WHEN o.oprrest <> 0 THEN 'RESTRICT = ' || o.oprrest END, CASE WHEN o.oprjoin <> 0 THEN 'JOIN = ' || o.oprjoin END,
      CASE WHEN o.oprcanhash THEN 'HASHES' END, CASE WHEN o.oprcanmerge THEN 'MERGES' END)) END, NULL
  FROM member m JOIN pg_operator o ON o.oid = m.objid WHERE m.classid = 'pg_operator'::regclass
  UNION ALL
  --: cast
  SELECT 'cast', format('%s AS %s', format_type(x.castsource, NULL), format_type(x.casttarget, NULL)), 1, 'pg_cast'::regclass, x.oid,
    format('CREATE CAST (%s AS %s) %s%s', format_type(x.castsource, NULL), format_type(x.casttarget, NULL),
      CASE x.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || x.castfunc::regprocedure WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END,
      CASE x.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' END), NULL
  FROM pg_cast x JOIN (SELECT y.oid FROM type t JOIN pg_cast y ON y.castsource = t.oid OR y.casttarget = t.oid GROUP BY y.oid) y ON y.oid = x.oid
  -- That of a range to its multirange comes with it.
  WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = x.oid AND d.deptype = 'i')
  UNION ALL
  --: sequence
  SELECT 'sequence', s.name, 1, 'pg_class'::regclass, s.oid, format('CREATE %sSEQUENCE %s AS %s %s', CASE WHEN r.relpersistence = 'u' THEN 'UNLOGGED ' END, s.name, s.type, s.options), s.relname
  FROM sequence s JOIN rel r ON r.oid = s.oid WHERE NOT s.is_identity
  UNION ALL
  --: owner of sequence
  SELECT 'owner of sequence', s.name, 2, 0, 0, format('ALTER SEQUENCE %s OWNED BY %s.%I', s.name, s.owner::regclass, a.attname), s.relname
  FROM sequence s JOIN pg_attribute a ON a.attrelid = s.owner AND a.attnum = s.owner_column WHERE NOT s.is_identity
  UNION ALL
  --: table, foreign table
  SELECT CASE r.relkind WHEN 'f' THEN 'foreign table' ELSE 'table' END, r.name, 1, 'pg_class'::regclass, r.oid, CASE WHEN r.reloftype = 0 THEN concat(
    'CREATE ', CASE WHEN r.relkind = 'f' THEN 'FOREIGN ' WHEN r.relpersistence = 'u' THEN 'UNLOGGED ' END, 'TABLE ', r.name, ' (',
    E'\n  ' || (SELECT string_agg(l.text, E',\n  ' ORDER BY l.place) FROM line l WHERE l.rel = r.oid) || E'\n', ')',
    CASE WHEN NOT r.relispartition THEN (SELECT E'\nINHERITS (' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) || ')' FROM pg_inherits i WHERE i.inhrelid = r.oid) END,
    CASE WHEN r.relkind = 'p' THEN E'\nPARTITION BY ' || pg_get_partkeydef(r.oid) END,
    (SELECT E'\nUSING ' || quote_ident(m.amname) FROM pg_am m WHERE m.oid = r.relam AND m.amname <> 'heap'),
    (SELECT E'\nSERVER ' || quote_ident(v.srvname) || coalesce(' OPTIONS (' || (SELECT string_agg(format('%I %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(f.ftoptions) o) || ')', '')
     FROM pg_foreign_table f JOIN pg_foreign_server v ON v.oid = f.ftserver WHERE f.ftrelid = r.oid),
    (SELECT E'\nWITH (' || string_agg(o.text, ', ' ORDER BY o.text) || ')' FROM (
       SELECT format('%s=%L', option_name, option_value) AS text FROM pg_options_to_table(r.reloptions)
       UNION ALL SELECT format('toast.%s=%L', o.option_name, o.option_value) FROM pg_class x CROSS JOIN pg_options_to_table(x.reloptions) o WHERE x.oid = r.reltoastrelid) o)) END, r.relname
  FROM rel r WHERE r.relkind IN ('r', 'p', 'f')
  UNION ALL
  --: dropped columns
  -- Columns that were dropped keep their places, so that a tenant's rows look the same inside as those of tenants that went the long way.
  SELECT 'dropped columns', r.name, 2, 0, 0, format('ALTER TABLE %s %s', r.name, string_agg('DROP COLUMN freehold_dropped_' || a.attnum, ', ')), r.relname
  FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid WHERE r.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND a.attisdropped AND (a.attislocal OR r.relispartition) GROUP BY r.name, r.relname
  UNION ALL
  --: settings of column
  SELECT 'settings of column', name, 2, 0, 0, settings, relname FROM (
    SELECT r.relname, r.name || '.' || quote_ident(a.attname) AS name, concat_ws('; ',
      -- What an heir has otherwise than its parent.
      CASE WHEN NOT a.attislocal AND NOT r.relispartition AND a.attgenerated = '' THEN format('ALTER TABLE ONLY %s ALTER COLUMN %I ', r.name, a.attname) || coalesce('SET DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), 'DROP DEFAULT') END,
      CASE WHEN NOT a.attislocal AND NOT r.relispartition AND a.attnotnull THEN format('ALTER TABLE ONLY %s ALTER COLUMN %I SET NOT NULL', r.name, a.attname) END,
      CASE WHEN nullif(a.attstattarget, -1) IS NOT NULL THEN format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STATISTICS %s', r.name, a.attname, a.attstattarget) END,
      CASE WHEN a.attstorage <> t.typstorage THEN format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STORAGE %s', r.name, a.attname, CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) END,
      CASE WHEN a.attoptions IS NOT NULL THEN format('ALTER TABLE ONLY %s ALTER COLUMN %I SET (%s)', r.name, a.attname, array_to_string(a.attoptions, ', ')) END) AS settings
    FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE r.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  ) c WHERE settings <> ''
  UNION ALL
  --: partition
  SELECT 'partition', r.name, 3, 0, 0, format('ALTER TABLE ONLY %s ATTACH PARTITION %s %s', i.inhparent::regclass, r.name, pg_get_expr(r.relpartbound, r.oid)), r.relname
  FROM rel r JOIN pg_inherits i ON i.inhrelid = r.oid WHERE r.relispartition
  UNION ALL
  --: view
  SELECT 'view', r.name, 1, 'pg_class'::regclass, r.oid, format('CREATE VIEW %s%s AS%s', r.name,
    (SELECT ' WITH (' || string_agg(format('%s=%L', option_name, option_value), ', ' ORDER BY option_name) || ')' FROM pg_options_to_table(r.reloptions)), E'\n' || rtrim(pg_get_viewdef(r.oid), ';')), r.relname
  FROM rel r WHERE r.relkind = 'v'
  UNION ALL
  --: default
  SELECT 'default', r.name || '.' || quote_ident(a.attname), 2, 0, 0, format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', r.name, a.attname, pg_get_expr(d.adbin, d.adrelid)), r.relname
  FROM rel r JOIN pg_attrdef d ON d.adrelid = r.oid JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = d.adnum WHERE r.relkind = 'v'
  UNION ALL
  --: materialized view
  SELECT 'materialized view', r.name, 5, 'pg_class'::regclass, r.oid, format('CREATE MATERIALIZED VIEW %s%s%s AS%s%s', r.name,
    (SELECT ' USING ' || quote_ident(m.amname) FROM pg_am m WHERE m.oid = r.relam AND m.amname <> 'heap'),
    (SELECT ' WITH (' || string_agg(format('%s=%L', option_name, option_value), ', ' ORDER BY option_name) || ')' FROM pg_options_to_table(r.reloptions)),
    E'\n' || rtrim(pg_get_viewdef(r.oid), ';'), CASE WHEN NOT r.relispopulated THEN E'\nWITH NO DATA' END), r.relname
  FROM rel r WHERE r.relkind = 'm'
  UNION ALL
  --: constraint
  SELECT 'constraint', r.name || '.' || quote_ident(k.conname), CASE WHEN k.contype = 'f' THEN 7 ELSE 5 END, 'pg_constraint'::regclass, k.oid,
    format('ALTER TABLE %s%s ADD CONSTRAINT %I %s', CASE WHEN k.contype <> 'f' OR r.relkind <> 'p' THEN 'ONLY ' END, r.name, k.conname, k.definition), r.relname
  FROM part k JOIN rel r ON r.oid = k.conrelid WHERE NOT k.is_inline
  UNION ALL
  --: index
  SELECT 'index', i.name, 5, 'pg_class'::regclass, i.oid, pg_get_indexdef(i.oid), i.table_name FROM index i WHERE i.key IS NULL
  UNION ALL
  --: settings of index
  -- An index of a constraint carries settings of its own, which the constraint does not print.
  SELECT 'settings of index', i.name, 6, 0, 0, (SELECT format('ALTER INDEX %s SET (%s)', i.name, string_agg(format('%s=%L', option_name, option_value), ', ' ORDER BY option_name)) FROM pg_options_to_table(i.reloptions)), i.table_name
  FROM index i WHERE i.key IS NOT NULL AND i.reloptions IS NOT NULL
  UNION ALL
  --: settings of index
  SELECT 'settings of index', i.name || '.' || a.attnum, 6, 0, 0, format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', i.name, a.attnum, a.attstattarget), i.table_name
  FROM index i JOIN pg_attribute a ON a.attrelid = i.oid WHERE nullif(a.attstattarget, -1) IS NOT NULL
  UNION ALL
  --: attached index
  SELECT 'attached index', i.name, 6, 0, 0, format('ALTER INDEX %s ATTACH PARTITION %s', i.attached_to, i.name), i.table_name FROM index i WHERE i.attached_to IS NOT NULL
  UNION ALL
  --: clustering
  SELECT 'clustering', r.name, 6, 0, 0, format('ALTER TABLE %s CLUSTER ON %I', r.name, i.relname), r.relname FROM index i JOIN rel r ON r.oid = i.rel WHERE i.indisclustered
  UNION ALL
  --: replica identity
  SELECT 'replica identity', r.name, 6, 0, 0, format('ALTER TABLE %s REPLICA IDENTITY %s', r.name,
    CASE r.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE (SELECT 'USING INDEX ' || quote_ident(i.relname) FROM index i WHERE i.rel = r.oid AND i.indisreplident) END), r.relname
  FROM rel r WHERE r.relkind IN ('r', 'p') AND r.relreplident <> 'd'
  UNION ALL
  --: statistics
  SELECT 'statistics', x.name, 6, 0, 0, x.definition, NULL FROM (
    SELECT format('%I.%I', $1, s.stxname) AS name, pg_get_statisticsobjdef(s.oid) AS definition FROM member m JOIN pg_statistic_ext s ON s.oid = m.objid WHERE m.classid = 'pg_statistic_ext'::regclass) x
  UNION ALL
  --: trigger
  SELECT 'trigger', r.name || '.' || quote_ident(t.tgname), 7, 0, 0, pg_get_triggerdef(t.oid)
    || CASE t.tgenabled WHEN 'O' THEN '' ELSE format(E';\nALTER TABLE %s %s TRIGGER %I', r.name, CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname) END, r.relname
  FROM rel r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal AND t.tgparentid = 0
  UNION ALL
  --: disabled triggers
  -- PostgreSQL's own triggers of a foreign key, where they were disabled.
  SELECT 'disabled triggers', r.name, 7, 0, 0, format('ALTER TABLE %s DISABLE TRIGGER ALL', r.name), r.relname
  FROM rel r WHERE EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = r.oid AND t.tgisinternal AND t.tgenabled = 'D')
  UNION ALL
  --: rule
  SELECT 'rule', r.name || '.' || quote_ident(w.rulename), 7, 0, 0, rtrim(pg_get_ruledef(w.oid), ';')
    || CASE w.ev_enabled WHEN 'O' THEN '' ELSE format(E';\nALTER TABLE %s %s RULE %I', r.name, CASE w.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, w.rulename) END, r.relname
  FROM rel r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN'
  UNION ALL
  --: row-level security
  SELECT 'row-level security', r.name, 8, 0, 0, format('ALTER TABLE %s %s', r.name,
    concat_ws(', ', CASE WHEN r.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END, CASE WHEN r.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END)), r.relname
  FROM rel r WHERE r.relrowsecurity OR r.relforcerowsecurity
  UNION ALL
  --: policy
  SELECT 'policy', r.name || '.' || quote_ident(p.polname), 8, 0, 0, concat(format('CREATE POLICY %I ON %s', p.polname, r.name),
    CASE WHEN NOT p.polpermissive THEN ' AS RESTRICTIVE' END,
    CASE p.polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE' WHEN 'd' THEN ' FOR DELETE' END,
    ' TO ' || (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE o::regrole::text END, ', ' ORDER BY o = 0, o::regrole::text) FROM unnest(p.polroles) o),
    ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'), r.relname
  FROM rel r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL
  --: rights
  SELECT 'rights', g.name, 9, 0, 0, format('REVOKE ALL ON %s FROM PUBLIC', g.object), g.part_of FROM granted g
  WHERE g.object ~ '^(ROUTINE|TYPE|DOMAIN) ' AND NOT EXISTS (SELECT FROM aclexplode(g.acl) a WHERE a.grantee = 0)
  UNION ALL
  --: rights of
  SELECT 'rights of ' || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, g.name, 9, 0, 0,
    string_agg(format('GRANT %s ON %s TO %s%s', g.rights, g.object, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END), E';\n' ORDER BY g.is_grantable), g.part_of
  FROM grant_to g GROUP BY g.grantee, g.name, g.object, g.part_of
  UNION ALL
  --: default rights
  SELECT 'default rights', concat_ws(' ', x.defaclobjtype, a.grantee, a.is_grantable), 9, 0, 0,
    format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT %s ON %s TO %s%s', $1, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type),
      CASE x.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' ELSE 'TYPES' END,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END), NULL
  FROM pg_default_acl x CROSS JOIN aclexplode(x.defaclacl) a WHERE x.defaclnamespace = $1::text::regnamespace AND x.defaclrole = current_user::regrole
  GROUP BY x.defaclobjtype, a.grantee, a.is_grantable
  UNION ALL
  --: comment
  SELECT 'comment', concat_ws(' ', o.words, o.name), 9, 0, 0, format('COMMENT ON %s %s IS %L', o.words, o.name, d.description), o.part_of FROM (
    SELECT 'pg_class'::regclass AS catalog, r.oid, 0 AS part, CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS words, r.name, r.relname AS part_of FROM rel r
    UNION ALL SELECT 'pg_class'::regclass, r.oid, a.attnum, 'COLUMN', r.name || '.' || quote_ident(a.attname), r.relname FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'pg_class'::regclass, i.oid, 0, 'INDEX', i.name, i.table_name FROM index i
    UNION ALL SELECT 'pg_proc'::regclass, p.oid, 0, CASE p.prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END, p.name, p.proname FROM routine p
    UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.name, NULL FROM type t
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 0, 'CONSTRAINT', format('%I ON %s', k.conname, r.name), r.relname FROM part k JOIN rel r ON r.oid = k.conrelid
    UNION ALL SELECT 'pg_trigger'::regclass, t.oid, 0, 'TRIGGER', format('%I ON %s', t.tgname, r.name), r.relname FROM rel r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, 0, 'POLICY', format('%I ON %s', p.polname, r.name), r.relname FROM rel r JOIN pg_policy p ON p.polrelid = r.oid
  ) o JOIN pg_description d ON d.classoid = o.catalog AND d.objoid = o.oid AND d.objsubid = o.part
  UNION ALL
  --: no statement
  -- What there is no statement for, here.
  SELECT x.kind, x.name, 1, 0, 0, NULL, NULL FROM (
    SELECT 'operator class' AS kind, o.opcname::text AS name FROM member m JOIN pg_opclass o ON o.oid = m.objid WHERE m.classid = 'pg_opclass'::regclass
    UNION ALL SELECT 'conversion', o.conname::text FROM member m JOIN pg_conversion o ON o.oid = m.objid WHERE m.classid = 'pg_conversion'::regclass
    UNION ALL SELECT 'text search parser', o.prsname::text FROM member m JOIN pg_ts_parser o ON o.oid = m.objid WHERE m.classid = 'pg_ts_parser'::regclass
    UNION ALL SELECT 'text search template', o.tmplname::text FROM member m JOIN pg_ts_template o ON o.oid = m.objid WHERE m.classid = 'pg_ts_template'::regclass
  ) x
) object (kind, name, stage, catalog, number, statement, part_of) ORDER BY stage, kind COLLATE "C", name COLLATE "C"
