//! FH71x: a tenant's schema equals the template, if both are at the same version.
//!
//! This takes two steps. First, every object of every schema is hashed, and the XOR of a schema's hashes is
//! compared with the template's, which returns one row per schema that differs. Then the objects of the first
//! of these schemas are compared one by one, to name them.
//!
//! Definitions are compared as PostgreSQL stores them, not as it prints them: printing would open every table
//! of the fleet. Stored expressions contain OIDs, which differ between schemas; these are left out, except
//! those of enum labels. So two expressions that differ only in which of the tenant's own functions they call
//! count as equal.

mod arrays;
mod numbers;

use super::Example;
use super::check::{Check, Severity, Visibility};
use super::examination::{Examination, scope};
use crate::error::Result;

/// The most differences that are named per schema.
const NAMED_MAX: usize = 3;
/// The most schemas whose differences are named per run.
const SCHEMAS_MAX: usize = 1000;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "FH711",
        severity: Severity::Warning,
        title: "A tenant's schema is not what the template is",
        meaning: "Tables, columns, constraints, indexes, triggers, functions, types or views differ, although the tenant is at the template's version: the next migration may fail for it, and its data obeys other rules. Indexes that `freehold indexes` has made or dropped for one tenant are known and not meant.",
        remedy: "Bring the objects in line by hand, or put the change into a migration for everybody.",
        fix_is_safe: false,
    },
    Check {
        code: "FH712",
        severity: Severity::Warning,
        title: "Rights in a tenant's schema differ from the template's",
        meaning: "A role has more or fewer rights on a table, column, sequence or function of this tenant than in the others.",
        remedy: "Grant or revoke as the template has it.",
        fix_is_safe: false,
    },
    Check {
        code: "FH713",
        severity: Severity::Warning,
        title: "Policies in a tenant's schema differ from the template's",
        meaning: "A policy beside tenant_isolation is missing, different or unknown in the template. Tenants are still apart; inside this one, people may see more or less than in others. A permissive policy widens.",
        remedy: "Drop the policy, or put it into a migration. The repair makes a missing policy of Freehold's again and leaves the rest.",
        fix_is_safe: true,
    },
];

/// The aspects of each object: rows of `schema`, `aspect`, `kind`, `part`, `name` and `hash`. `{schemas}`
/// selects the schemas.
const OBJECTS: &str = r#"
, scope AS MATERIALIZED (
  SELECT oid, nspname FROM current_tenant {schemas}
  UNION ALL
  SELECT oid, nspname FROM fleet WHERE nspname = 'freehold_template'
), rel AS MATERIALIZED (
  SELECT c.oid, c.relname, c.relkind, c.relnamespace, s.nspname, c.relpersistence, c.relispartition, c.relpartbound, c.reloptions, c.relam, c.relacl, c.relreplident
  FROM pg_class c JOIN scope s ON s.oid = c.relnamespace
), own_index AS MATERIALIZED (
  SELECT s.oid AS schema, x.index_name, x.table_name, x.state, x.definition
  FROM freehold.tenant_index x JOIN scope s ON s.nspname = 'tenant_' || replace(x.tenant_id::text, '-', '')
  WHERE x.state IN ('created', 'dropped')
), label AS MATERIALIZED (
  SELECT oid, CASE WHEN oid < 16384 THEN oid::text ELSE typname::text END AS type FROM pg_type
), sorting AS MATERIALIZED (
  SELECT oid, CASE WHEN oid < 16384 THEN oid::text ELSE collname::text END AS sorted FROM pg_collation
), stored(text) AS (
  SELECT adbin::text FROM pg_attrdef d JOIN rel ON rel.oid = d.adrelid
  UNION ALL SELECT conbin::text FROM pg_constraint k JOIN scope s ON s.oid = k.connamespace WHERE conbin IS NOT NULL
  UNION ALL SELECT indexprs::text FROM pg_index i JOIN rel ON rel.oid = i.indexrelid WHERE indexprs IS NOT NULL
  UNION ALL SELECT indpred::text FROM pg_index i JOIN rel ON rel.oid = i.indexrelid WHERE indpred IS NOT NULL
  UNION ALL SELECT tgqual::text FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE tgqual IS NOT NULL
  UNION ALL SELECT polqual::text FROM pg_policy p JOIN rel ON rel.oid = p.polrelid WHERE polqual IS NOT NULL AND polname <> 'tenant_isolation'
  UNION ALL SELECT polwithcheck::text FROM pg_policy p JOIN rel ON rel.oid = p.polrelid WHERE polwithcheck IS NOT NULL AND polname <> 'tenant_isolation'
  UNION ALL SELECT relpartbound::text FROM rel WHERE relpartbound IS NOT NULL
  UNION ALL SELECT partexprs::text FROM pg_partitioned_table p JOIN rel ON rel.oid = p.partrelid WHERE partexprs IS NOT NULL
  UNION ALL SELECT prosqlbody::text FROM pg_proc p JOIN scope s ON s.oid = p.pronamespace WHERE prosqlbody IS NOT NULL
  UNION ALL SELECT proargdefaults::text FROM pg_proc p JOIN scope s ON s.oid = p.pronamespace WHERE proargdefaults IS NOT NULL
  UNION ALL SELECT ev_action::text FROM pg_rewrite r JOIN rel ON rel.oid = r.ev_class
  UNION ALL SELECT ev_qual::text FROM pg_rewrite r JOIN rel ON rel.oid = r.ev_class WHERE ev_qual::text <> '<>'
-- Most are the same text in every tenant. The numbers of objects go first, which is quick and
-- leaves few; then constants that are numbers of objects, positions in the source, and whether a cast was
-- written or implied: a new tenant's expressions are those that PostgreSQL has printed.
), tree AS MATERIALIZED (
  SELECT hashtextextended(text, 0) AS text, regexp_replace(min(text COLLATE "C"), ' \d{5,}', '', 'g') AS short
  FROM stored GROUP BY hashtextextended(text, 0)
), short AS MATERIALIZED (
  SELECT short, short ~ ':consttype{by_number} :consttypmod' AS names_object FROM (SELECT DISTINCT short FROM tree) t
-- A constant of an enum, or of regclass and its kin, is stored as the number of what it names.
), called AS (
  SELECT s.short, string_agg(coalesce(CASE m.byte[1]
      WHEN '2205' THEN (SELECT relname::text FROM pg_class WHERE oid = n.number::oid)
      WHEN '3734' THEN (SELECT cfgname::text FROM pg_ts_config WHERE oid = n.number::oid)
      WHEN '3769' THEN (SELECT dictname::text FROM pg_ts_dict WHERE oid = n.number::oid)
      WHEN '2206' THEN (SELECT typname::text FROM pg_type WHERE oid = n.number::oid)
      WHEN '4191' THEN (SELECT collname::text FROM pg_collation WHERE oid = n.number::oid)
      WHEN '4089' THEN (SELECT CASE WHEN oid IN (SELECT oid FROM scope) THEN '@' ELSE nspname::text END FROM pg_namespace WHERE oid = n.number::oid)
      WHEN '24' THEN (SELECT proname::text FROM pg_proc WHERE oid = n.number::oid)
      WHEN '2202' THEN (SELECT proname::text FROM pg_proc WHERE oid = n.number::oid)
      ELSE e.enumlabel::text END, '?'), ',' ORDER BY m.place) AS names
  FROM short s CROSS JOIN LATERAL regexp_matches(s.short,
    ':consttype(?: (2205|3734|3769|2206|4191|4089|2202|24))? :consttypmod -1 :constcollid 0 :constlen 4 :constbyval true [^\[{}]*\[ (-?\d+) (-?\d+) (-?\d+) (-?\d+) ', 'g') WITH ORDINALITY m(byte, place)
  CROSS JOIN LATERAL (SELECT sum(((b::int8 + 256) % 256) << (8 * (place::int - 1)))::int8 AS number FROM unnest(m.byte[2:5]) WITH ORDINALITY x(b, place)) n
  LEFT JOIN pg_enum e ON e.oid = n.number::oid
  WHERE s.names_object GROUP BY s.short
), masked AS MATERIALIZED (
  SELECT s.short, coalesce(c.names, '') AS names,
    CASE WHEN s.names_object THEN regexp_replace(s.short, '(:consttype{by_number} :consttypmod[^\[{}]*)\[[^\]]*\]', '\1', 'g') ELSE s.short END AS masked
  FROM short s LEFT JOIN called c ON c.short = s.short
), placeless AS MATERIALIZED (
  SELECT masked, regexp_replace({tree masked}, ' :(?:(?:stmt_)?(?:location|len)(?: -?\d+)?|[a-z_]*format \d)', '', 'g') AS rest FROM (SELECT DISTINCT masked FROM masked) m
), form AS MATERIALIZED (
  SELECT t.text, hashtextextended(p.rest || m.names, 0) AS form
  FROM masked m JOIN placeless p ON p.masked = m.masked JOIN tree t ON t.short = m.short
), view AS MATERIALIZED (
  SELECT c.oid, c.relname, f.form
  FROM rel c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN' JOIN form f ON f.text = hashtextextended(r.ev_action::text, 0)
), printed AS MATERIALIZED (
  SELECT s.relname, s.form, {printed replace(pg_get_viewdef(s.oid), rel.nspname, '@')} AS query
  FROM (SELECT relname, form, min(oid::int8)::oid AS oid FROM view GROUP BY relname, form) s JOIN rel ON rel.oid = s.oid
-- The same of functions whose bodies are stored as trees.
), body AS MATERIALIZED (
  SELECT p.oid, p.proname, f.form, s.nspname
  FROM pg_proc p JOIN scope s ON s.oid = p.pronamespace JOIN form f ON f.text = hashtextextended(p.prosqlbody::text, 0)
), printed_body AS MATERIALIZED (
  SELECT s.proname, s.form, replace(pg_get_function_sqlbody(s.oid), b.nspname, '@') AS text
  FROM (SELECT proname, form, min(oid::int8)::oid AS oid FROM body GROUP BY proname, form) s JOIN body b ON b.oid = s.oid
{renumbered}
), object AS (
  SELECT c.relnamespace AS schema, 'shape' AS aspect, 'column' AS kind, c.relname::text AS part, a.attname::text AS name,
    hashtextextended(concat_ws('|', l.type, a.atttypmod, a.attnotnull, a.attidentity, a.attgenerated, z.sorted, a.attislocal, a.attoptions::text, coalesce(y.printed, f.form::text)), 0) AS hash
  FROM rel c JOIN pg_attribute a ON a.attrelid = c.oid JOIN label l ON l.oid = a.atttypid LEFT JOIN sorting z ON z.oid = a.attcollation
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum LEFT JOIN form f ON f.text = hashtextextended(d.adbin::text, 0)
  LEFT JOIN named_form y ON y.relname = c.relname AND y.form = f.form
  WHERE c.relkind IN ('r', 'p', 'c', 'f') AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT c.relnamespace, 'shape', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END, '', c.relname::text,
    hashtextextended(concat_ws('|', c.relkind, c.relpersistence, CASE WHEN cardinality(c.reloptions) > 1 THEN (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(c.reloptions) o) ELSE c.reloptions::text END, c.relispartition, c.relam, c.relreplident, f.form, p.partstrat, {columns p.partattrs of c.oid in c.relname}, coalesce(y.printed, g.form::text),
      q.seqtypid, q.seqstart, q.seqincrement, q.seqmax, q.seqmin, q.seqcache, q.seqcycle,
      (SELECT string_agg(b.relname, ',' ORDER BY i.inhseqno) FROM pg_inherits i JOIN pg_class b ON b.oid = i.inhparent WHERE i.inhrelid = c.oid)), 0)
  FROM rel c LEFT JOIN form f ON f.text = hashtextextended(c.relpartbound::text, 0) LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
  LEFT JOIN form g ON g.text = hashtextextended(p.partexprs::text, 0) LEFT JOIN named_form y ON y.relname = c.relname AND y.form = g.form LEFT JOIN pg_sequence q ON q.seqrelid = c.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
  UNION ALL
  SELECT k.connamespace, 'shape', 'constraint', coalesce(c.relname::text, t.typname::text), k.conname::text,
    hashtextextended(concat_ws('|', k.contype, k.condeferrable, k.condeferred, k.convalidated, {columns k.conkey of c.oid in c.relname}, {columns k.confkey of r.oid in r.relname}, r.relname, k.confupdtype, k.confdeltype, k.confmatchtype, coalesce(y.printed, f.form::text)), 0)
  FROM pg_constraint k JOIN scope s ON s.oid = k.connamespace LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
  LEFT JOIN pg_class r ON r.oid = k.confrelid LEFT JOIN form f ON f.text = hashtextextended(k.conbin::text, 0)
  LEFT JOIN named_form y ON y.relname = c.relname AND y.form = f.form
  UNION ALL
  SELECT c.relnamespace, 'shape', 'index', b.relname::text, c.relname::text, {index_hash}
  FROM pg_index i JOIN rel c ON c.oid = i.indexrelid JOIN pg_class b ON b.oid = i.indrelid
  LEFT JOIN form f ON f.text = hashtextextended(i.indexprs::text, 0) LEFT JOIN form g ON g.text = hashtextextended(i.indpred::text, 0)
  LEFT JOIN named_form y ON y.relname = b.relname AND y.form = f.form LEFT JOIN named_form z ON z.relname = b.relname AND z.form = g.form
  -- Of its own: recorded, and as it is recorded.
  LEFT JOIN own_index o ON o.schema = c.relnamespace AND o.index_name = c.relname AND o.state = 'created'
  WHERE o.index_name IS NULL OR NOT i.indisvalid OR o.definition <> replace(pg_get_indexdef(c.oid), c.nspname || '.', '@schema.')
  UNION ALL
  -- Taken from this tenant: it counts as there, as the template has it.
  SELECT o.schema, 'shape', 'index', b.relname::text, c.relname::text, {index_hash}
  FROM own_index o JOIN rel c ON c.nspname = 'freehold_template' AND c.relname = o.index_name AND o.state = 'dropped'
  JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class b ON b.oid = i.indrelid AND b.relname = o.table_name
  LEFT JOIN form f ON f.text = hashtextextended(i.indexprs::text, 0) LEFT JOIN form g ON g.text = hashtextextended(i.indpred::text, 0)
  LEFT JOIN named_form y ON y.relname = b.relname AND y.form = f.form LEFT JOIN named_form z ON z.relname = b.relname AND z.form = g.form
  WHERE NOT EXISTS (SELECT FROM pg_class x WHERE x.relnamespace = o.schema AND x.relname = o.index_name)
  UNION ALL
  SELECT c.relnamespace, 'shape', 'trigger', c.relname::text, CASE WHEN t.tgisinternal THEN 'of a constraint, disabled' ELSE t.tgname::text END,
    hashtextextended(CASE WHEN t.tgisinternal THEN '' ELSE concat_ws('|', p.proname, t.tgtype, t.tgenabled, {columns t.tgattr of c.oid in c.relname}, encode(t.tgargs, 'hex'), t.tgdeferrable, t.tginitdeferred, t.tgoldtable, t.tgnewtable, coalesce(y.printed, f.form::text)) END, 0)
  FROM pg_trigger t JOIN rel c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid LEFT JOIN form f ON f.text = hashtextextended(t.tgqual::text, 0)
  LEFT JOIN named_trigger y ON y.relname = c.relname AND y.tgname = t.tgname AND y.form = f.form
  WHERE NOT t.tgisinternal OR t.tgenabled <> 'O'
  UNION ALL
  SELECT p.pronamespace, 'shape', 'function', '', format('%s(%s)', p.proname, a.types),
    hashtextextended(concat_ws('|', p.prokind, p.prolang, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof, p.proretset, r.type, replace(p.proconfig::text, s.nspname, '@'), p.proargnames::text, p.proargmodes::text,
      replace(p.prosrc, s.nspname, '@'), pb.text, g.form), 0)
  FROM pg_proc p JOIN scope s ON s.oid = p.pronamespace JOIN label r ON r.oid = p.prorettype
  CROSS JOIN LATERAL (SELECT string_agg(CASE WHEN y.oid < 16384 THEN format_type(y.oid, NULL) ELSE y.typname END, ', ' ORDER BY x.place) AS types FROM unnest(p.proargtypes) WITH ORDINALITY x(type, place) JOIN pg_type y ON y.oid = x.type) a
  LEFT JOIN body b ON b.oid = p.oid LEFT JOIN printed_body pb ON pb.proname = b.proname AND pb.form = b.form
  LEFT JOIN form g ON g.text = hashtextextended(p.proargdefaults::text, 0)
  UNION ALL
  SELECT t.typnamespace, 'shape', 'type', '', t.typname::text,
    hashtextextended(concat_ws('|', t.typtype, l.type, t.typnotnull, replace(coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault), s.nspname, '@'), t.typtypmod,
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), z.sorted,
      (SELECT concat_ws(',', y.type, (SELECT sorted FROM sorting WHERE oid = g.rngcollation)) FROM pg_range g JOIN label y ON y.oid = g.rngsubtype WHERE g.rngtypid = t.oid)), 0)
  FROM pg_type t JOIN scope s ON s.oid = t.typnamespace LEFT JOIN label l ON l.oid = t.typbasetype LEFT JOIN sorting z ON z.oid = t.typcollation
  WHERE t.typtype IN ('e', 'd', 'r', 'm')
  UNION ALL
  -- Its fields depend on the version of PostgreSQL.
  SELECT c.collnamespace, 'shape', 'collation', '', c.collname::text, hashtextextended((to_jsonb(c) - '{oid,collnamespace,collowner}'::text[])::text, 0)
  FROM pg_collation c JOIN scope s ON s.oid = c.collnamespace
  UNION ALL
  SELECT c.cfgnamespace, 'shape', 'text search configuration', '', c.cfgname::text,
    hashtextextended(concat_ws('|', c.cfgparser, (SELECT string_agg(concat_ws(':', m.maptokentype, m.mapseqno, d.dictname), ',' ORDER BY m.maptokentype, m.mapseqno)
      FROM pg_ts_config_map m JOIN pg_ts_dict d ON d.oid = m.mapdict WHERE m.mapcfg = c.oid)), 0)
  FROM pg_ts_config c JOIN scope s ON s.oid = c.cfgnamespace
  UNION ALL
  SELECT d.dictnamespace, 'shape', 'text search dictionary', '', d.dictname::text, hashtextextended(concat_ws('|', d.dicttemplate, replace(d.dictinitoption, s.nspname, '@')), 0)
  FROM pg_ts_dict d JOIN scope s ON s.oid = d.dictnamespace
  UNION ALL
  SELECT o.oprnamespace, 'shape', 'operator', '', format('%s(%s, %s)', o.oprname, l.type, r.type), hashtextextended(concat_ws('|', p.proname, o.oprcanhash, o.oprcanmerge), 0)
  FROM pg_operator o JOIN scope s ON s.oid = o.oprnamespace JOIN pg_proc p ON p.oid = o.oprcode LEFT JOIN label l ON l.oid = o.oprleft LEFT JOIN label r ON r.oid = o.oprright
  UNION ALL
  SELECT x.stxnamespace, 'shape', 'statistics', c.relname::text, x.stxname::text, hashtextextended(concat_ws('|', {columns sorted x.stxkeys of c.oid in c.relname}, x.stxkind::text), 0)
  FROM pg_statistic_ext x JOIN scope s ON s.oid = x.stxnamespace JOIN rel c ON c.oid = x.stxrelid
  UNION ALL
  SELECT c.relnamespace, 'shape', 'query of', '', v.relname::text, hashtextextended(p.query, 0)
  FROM view v JOIN rel c ON c.oid = v.oid JOIN printed p ON p.relname = v.relname AND p.form = v.form
  UNION ALL
  SELECT c.relnamespace, 'shape', 'rule', c.relname::text, r.rulename::text,
    hashtextextended(concat_ws('|', r.ev_type, r.ev_enabled, r.is_instead, coalesce(y.printed, f.form::text)), 0)
  FROM pg_rewrite r JOIN rel c ON c.oid = r.ev_class LEFT JOIN form f ON f.text = hashtextextended(r.ev_action::text, 0)
  LEFT JOIN named_rule y ON y.relname = c.relname AND y.rulename = r.rulename AND y.form = f.form
  WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT c.relnamespace, 'rights', 'rights on', '', c.relname::text, hashtextextended((SELECT string_agg(i::text, ' ' ORDER BY i::text) FROM unnest(c.relacl) i), 0)
  FROM rel c WHERE c.relacl IS NOT NULL
  UNION ALL
  SELECT c.relnamespace, 'rights', 'rights on column', c.relname::text, a.attname::text, hashtextextended((SELECT string_agg(i::text, ' ' ORDER BY i::text) FROM unnest(a.attacl) i), 0)
  FROM pg_attribute a JOIN rel c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT p.pronamespace, 'rights', 'rights on function', '', p.proname::text, hashtextextended((SELECT string_agg(i::text, ' ' ORDER BY i::text) FROM unnest(p.proacl) i), p.pronargs)
  FROM pg_proc p JOIN scope s ON s.oid = p.pronamespace WHERE p.proacl IS NOT NULL
  UNION ALL
  SELECT c.relnamespace, 'policies', 'policy', c.relname::text, p.polname::text,
    hashtextextended(concat_ws('|', p.polpermissive, p.polcmd, p.polroles::text, coalesce(y.printed, f.form::text), '/', coalesce(z.printed, g.form::text)), 0)
  FROM pg_policy p JOIN rel c ON c.oid = p.polrelid LEFT JOIN form f ON f.text = hashtextextended(p.polqual::text, 0) LEFT JOIN form g ON g.text = hashtextextended(p.polwithcheck::text, 0)
  LEFT JOIN named_form y ON y.relname = c.relname AND y.form = f.form LEFT JOIN named_form z ON z.relname = c.relname AND z.form = g.form
  WHERE p.polname <> 'tenant_isolation'
)"#;

/// In a pattern, after `:consttype`: types whose values are OIDs. The OIDs of enums, like all above 9999,
/// have been removed from the text by then; the others are regclass and the like.
const BY_NUMBER: &str = "(?: (?:2205|3734|3769|2206|4191|4089|2202|24))?";

/// The properties of an index besides its name and table.
const INDEX_HASH: &str = "hashtextextended(concat_ws('|', i.indisunique, i.indisprimary, i.indnullsnotdistinct, i.indisvalid, i.indisreplident,
      {columns i.indkey of b.oid in b.relname}, i.indoption::text,
      -- Collations of the tenant's own have other numbers in each schema.
      CASE WHEN i.indcollation::text !~ '\\d{5}' THEN i.indcollation::text
        ELSE (SELECT string_agg(o.sorted, ' ' ORDER BY x.place) FROM unnest(i.indcollation) WITH ORDINALITY x(oid, place) JOIN sorting o ON o.oid = x.oid) END, i.indnkeyatts, c.relam, CASE WHEN cardinality(c.reloptions) > 1 THEN (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(c.reloptions) o) ELSE c.reloptions::text END, coalesce(y.printed, f.form::text), coalesce(z.printed, g.form::text)), 0)";

/// The schemas whose XOR differs from the template's: for each aspect the first ones, and how many.
const DIFFERING: &str = "
, print AS MATERIALIZED (
  SELECT schema, aspect, bit_xor(hash) AS hash, count(*) AS objects FROM object GROUP BY schema, aspect
), template AS (
  SELECT a.aspect, coalesce(p.hash, 0) AS hash, coalesce(p.objects, 0) AS objects
  FROM unnest(ARRAY['shape', 'rights', 'policies']) a(aspect)
  LEFT JOIN print p ON p.aspect = a.aspect AND p.schema = (SELECT oid FROM scope WHERE nspname = 'freehold_template')
), differing AS (
  SELECT t.aspect, s.nspname FROM template t CROSS JOIN scope s
  LEFT JOIN print p ON p.schema = s.oid AND p.aspect = t.aspect
  WHERE coalesce(p.hash, 0) <> t.hash OR coalesce(p.objects, 0) <> t.objects
)
SELECT aspect, nspname, total FROM (
  SELECT *, count(*) OVER (PARTITION BY aspect) AS total, row_number() OVER (PARTITION BY aspect ORDER BY nspname) AS place FROM differing
) placed WHERE place <= {examples_max} ORDER BY aspect, place";

/// The first differences of each schema in `{schemas}`, with the statement that restores our policy.
const NAMED: &str = "
, pair AS MATERIALIZED (
  SELECT s.nspname, o.aspect, o.kind, o.part, o.name,
    bit_xor(o.hash) FILTER (WHERE o.schema = s.oid) AS here, bit_xor(o.hash) FILTER (WHERE o.schema <> s.oid) AS there
  FROM object o JOIN scope s ON s.nspname <> 'freehold_template' AND (s.oid = o.schema OR o.schema = (SELECT oid FROM scope WHERE nspname = 'freehold_template'))
  GROUP BY s.nspname, o.aspect, o.kind, o.part, o.name
)
SELECT aspect, nspname,
  kind || ' ' || CASE WHEN part = '' THEN '' ELSE part || '.' END || name
    || CASE WHEN here IS NULL THEN ' is missing' WHEN there IS NULL THEN ' is not in the template' ELSE ' differs' END,
  CASE WHEN aspect = 'policies' AND here IS NULL THEN CASE name
    WHEN 'owner_access' THEN format('CREATE POLICY owner_access ON %I.%I TO freehold_owner USING (true) WITH CHECK (true)', nspname, part)
    WHEN 'analytics_read' THEN format('CREATE POLICY analytics_read ON %I.%I FOR SELECT TO freehold_analytics USING (true)', nspname, part)
    WHEN 'tenant_access' THEN format('CREATE POLICY tenant_access ON %I.%I TO freehold_viewer USING (true) WITH CHECK (true)', nspname, part)
  END END, differences
FROM (
  SELECT *, row_number() OVER (PARTITION BY nspname, aspect ORDER BY kind, part, name) AS place, count(*) OVER (PARTITION BY nspname, aspect) AS differences
  FROM pair WHERE here IS DISTINCT FROM there
) named WHERE place <= {named_max} ORDER BY nspname, aspect, place";

pub(super) async fn look(examination: &mut Examination<'_>) -> Result<()> {
    if !examination.wants(CHECKS) {
        return Ok(());
    }
    if examination.sight() == Visibility::Anyone {
        examination.skip(CHECKS, "only the owner role knows which tenants are at the template's version, and DATABASE_OWNER_URL is not set");
        return Ok(());
    }
    if let Err(error) = compare(examination).await {
        examination.skip(CHECKS, &error.to_string());
    }
    Ok(())
}

async fn compare(examination: &mut Examination<'_>) -> Result<()> {
    let examples_max = examination.examples_max().min(SCHEMAS_MAX).to_string();
    let scope = scope(Visibility::Owner);
    let objects = OBJECTS.replace("{index_hash}", INDEX_HASH).replace("{by_number}", BY_NUMBER);
    let objects = arrays::alike(&numbers::by_name(&objects));
    let differing = format!("{scope}{objects}{DIFFERING}")
        .replace("{schemas}", "")
        .replace("{examples_max}", &examples_max);
    let rows = examination.rows(&differing).await?;
    let mut schemas: Vec<&str> = rows.iter().filter_map(|row| row.get(1)).collect();
    if schemas.is_empty() {
        return Ok(());
    }
    schemas.sort_unstable();
    schemas.dedup();
    let list: Vec<String> = schemas.iter().map(|schema| format!("'{schema}'")).collect();
    let named_max =
        if examination.examples_max() > SCHEMAS_MAX { usize::MAX >> 1 } else { NAMED_MAX };
    let named = format!("{scope}{objects}{NAMED}")
        .replace("{schemas}", &format!("WHERE nspname IN ({})", list.join(", ")))
        .replace("{named_max}", &named_max.to_string());
    let differences = examination.rows(&named).await?;
    for row in &rows {
        let text = |index| row.get(index).unwrap_or_default();
        let (aspect, schema, total) = (text(0), text(1), text(2).parse().unwrap_or_default());
        let Some(check) = check_of(aspect) else { continue };
        for named in &differences {
            let text = |index| named.get(index).unwrap_or_default();
            if (text(0), text(1)) != (aspect, schema) {
                continue;
            }
            let object = format!("schema {schema}");
            let detail = text(2).to_owned();
            let fix = named.get(3).map(str::to_owned);
            examination.add(check, Example { object, detail }, fix, total);
        }
    }
    Ok(())
}

fn check_of(aspect: &str) -> Option<&'static Check> {
    let code = match aspect {
        "shape" => "FH711",
        "rights" => "FH712",
        _ => "FH713",
    };
    CHECKS.iter().find(|check| check.code == code)
}
