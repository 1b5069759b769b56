//! FH41x: nothing in one tenant's schema refers to another's.

use super::check::{Check, Probe, Severity, Sight};

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Sight::Anyone,
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
        sight: Sight::Anyone,
        // Dependencies that PostgreSQL itself keeps between the parts of one object are passed over.
        with: "
edge AS MATERIALIZED (
  SELECT d.classid, d.objid, d.refclassid, d.refobjid FROM pg_depend d
  WHERE d.deptype = 'n' AND d.objid >= 16384 AND d.refobjid >= 16384
    AND d.classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass, 'pg_class'::regclass)
    AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
), here AS MATERIALIZED (
  SELECT 'pg_class'::regclass AS classid, c.oid, c.relnamespace AS schema, c.oid AS relation FROM pg_class c WHERE c.oid >= 16384
  UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, c.relnamespace, c.oid FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid >= 16384
  UNION ALL SELECT 'pg_attrdef'::regclass, a.oid, c.relnamespace, c.oid FROM pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid
  UNION ALL SELECT 'pg_trigger'::regclass, t.oid, c.relnamespace, c.oid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL SELECT 'pg_policy'::regclass, p.oid, c.relnamespace, c.oid FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
  UNION ALL SELECT 'pg_constraint'::regclass, k.oid, k.connamespace, k.conrelid FROM pg_constraint k WHERE k.contype <> 'f'
  UNION ALL SELECT 'pg_proc'::regclass, p.oid, p.pronamespace, 0 FROM pg_proc p WHERE p.oid >= 16384
), there AS MATERIALIZED (
  SELECT 'pg_class'::regclass AS classid, oid, relnamespace AS schema FROM pg_class WHERE oid >= 16384
  UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type WHERE oid >= 16384
)",
        sql: "
SELECT 'FH413' AS code, format('%I.%s', a.nspname, CASE WHEN h.classid = 'pg_proc'::regclass THEN h.oid::regproc::text ELSE (SELECT quote_ident(relname) FROM pg_class WHERE oid = h.relation) END) AS object,
  format('%s of it refers to the schema %I', pg_describe_object(e.classid, e.objid, 0), b.nspname) AS detail, NULL::text AS fix
FROM edge e JOIN here h ON h.classid = e.classid AND h.oid = e.objid JOIN there t ON t.classid = e.refclassid AND t.oid = e.refobjid
JOIN fleet b ON b.oid = t.schema JOIN pg_namespace a ON a.oid = h.schema
WHERE h.schema <> t.schema
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
