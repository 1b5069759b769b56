//! FH41x: nothing in one tenant's schema refers to another's.

use super::check::{Check, Probe, Severity, Visibility};

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH411' AS code, format('%I.%I', a.nspname, x.relname) AS object, format('the foreign key %I leads to %I.%I', k.conname, b.nspname, y.relname) AS detail, NULL::text AS fix
FROM pg_constraint k JOIN pg_class x ON x.oid = k.conrelid JOIN pg_class y ON y.oid = k.confrelid
JOIN pg_namespace a ON a.oid = x.relnamespace JOIN pg_namespace b ON b.oid = y.relnamespace
WHERE k.contype = 'f' AND a.oid <> b.oid AND (a.oid IN (SELECT oid FROM fleet) OR b.oid IN (SELECT oid FROM fleet))
UNION ALL
SELECT 'FH412', format('%I.%I', a.nspname, x.relname), format('it inherits from %I.%I', b.nspname, y.relname), NULL
FROM pg_inherits i JOIN pg_class x ON x.oid = i.inhrelid JOIN pg_class y ON y.oid = i.inhparent
JOIN pg_namespace a ON a.oid = x.relnamespace JOIN pg_namespace b ON b.oid = y.relnamespace
WHERE a.oid <> b.oid AND (a.oid IN (SELECT oid FROM fleet) OR b.oid IN (SELECT oid FROM fleet))",
        checks: &[
            Check {
                code: "FH411",
                severity: Severity::Critical,
                title: "A foreign key leads out of a tenant's schema",
                meaning: "The database answers by it whether a row exists in the other schema, whatever the policies say: checks of foreign keys run beside them.",
                remedy: "Drop the constraint. What tenants share is copied into each, by a migration.",
                fix_is_safe: false,
            },
            Check {
                code: "FH412",
                severity: Severity::Critical,
                title: "A table inherits across schemas of tenants",
                meaning: "Whoever reads the parent reads the child's rows with the parent's policies alone.",
                remedy: "ALTER TABLE … NO INHERIT or DETACH PARTITION.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        // Starts at the referenced side, which is smaller: the objects that refer to anything of the fleet,
        // and their schemas. Dependencies between parts of one object are ignored.
        with: "
there AS MATERIALIZED (
  SELECT o.class, o.oid, o.schema FROM (
    SELECT 'pg_class'::regclass AS class, oid, relnamespace AS schema FROM pg_class WHERE oid >= 16384 AND relkind NOT IN ('i', 'I', 't')
    UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type WHERE oid >= 16384
  ) o JOIN fleet f ON f.oid = o.schema
), edge AS MATERIALIZED (
  SELECT DISTINCT d.classid, d.objid, t.schema FROM pg_depend d JOIN there t ON t.class = d.refclassid AND t.oid = d.refobjid
  WHERE d.deptype = 'n' AND d.objid >= 16384 AND d.refobjid >= 16384
), source AS (
  SELECT e.classid, e.objid, e.schema AS there, coalesce(c.relnamespace, k.connamespace, p.pronamespace) AS here, coalesce(c.relname, p.proname) AS name
  FROM edge e
  LEFT JOIN pg_rewrite r ON e.classid = 'pg_rewrite'::regclass AND r.oid = e.objid
  LEFT JOIN pg_attrdef a ON e.classid = 'pg_attrdef'::regclass AND a.oid = e.objid
  LEFT JOIN pg_trigger t ON e.classid = 'pg_trigger'::regclass AND t.oid = e.objid
  LEFT JOIN pg_policy y ON e.classid = 'pg_policy'::regclass AND y.oid = e.objid
  LEFT JOIN pg_constraint k ON e.classid = 'pg_constraint'::regclass AND k.oid = e.objid AND k.contype <> 'f'
  LEFT JOIN pg_proc p ON e.classid = 'pg_proc'::regclass AND p.oid = e.objid
  LEFT JOIN pg_class c ON c.oid = CASE e.classid WHEN 'pg_class'::regclass THEN e.objid ELSE coalesce(r.ev_class, a.adrelid, t.tgrelid, y.polrelid, k.conrelid) END
)",
        sql: "
SELECT 'FH413' AS code, format('%I.%I', a.nspname, s.name) AS object,
  format('%s refers to the schema %I', pg_describe_object(s.classid, s.objid, 0), b.nspname) AS detail, NULL::text AS fix
FROM source s JOIN pg_namespace a ON a.oid = s.here JOIN pg_namespace b ON b.oid = s.there
WHERE s.here <> s.there
UNION ALL
SELECT 'FH414', p.oid::regprocedure::text, 'its text names the schema of another tenant, or the template', NULL
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE (n.nspname = 'public' OR n.oid IN (SELECT oid FROM fleet))
  AND (strpos(replace(p.prosrc, n.nspname, ''), 'freehold_template') > 0 OR strpos(p.prosrc, 'tenant_') > 0 AND replace(p.prosrc, n.nspname, '') ~ 'tenant_[0-9a-f]{32}')",
        checks: &[
            Check {
                code: "FH413",
                severity: Severity::Critical,
                title: "Something refers to another tenant's schema",
                meaning: "A view, default, trigger, policy or column of one schema uses a table, function or type of another.",
                remedy: "Make it again with names that are not qualified, so that they mean its own schema.",
                fix_is_safe: false,
            },
            Check {
                code: "FH414",
                severity: Severity::Warning,
                title: "A function's text names another tenant's schema",
                meaning: "The policies will refuse what it tries, but it was written for a single tenant's data.",
                remedy: "Leave schemas out of the function's text.",
                fix_is_safe: false,
            },
        ],
    },
];
