//! FH301 to FH309: owners and grants.
//!
//! Privileges that differ from the template's are found by `drift`; this module checks for privileges that no
//! role should have, in the template either.

use super::check::{Check, Probe, Severity, Visibility};

/// Many objects share few different ACLs: each is expanded once.
const RIGHTS: &str = "
house AS MATERIALIZED (
  SELECT oid, nspname, true AS is_fleet FROM fleet
  UNION ALL
  SELECT oid, nspname, false FROM pg_namespace WHERE nspname = 'freehold'
), carrier AS MATERIALIZED (
  SELECT h.nspname, h.is_fleet, c.relkind::text AS kind, format('%I.%I', h.nspname, c.relname) AS object, NULL::text AS part, c.relacl::text AS acl
  FROM pg_class c JOIN house h ON h.oid = c.relnamespace WHERE c.relacl IS NOT NULL
  UNION ALL
  SELECT h.nspname, h.is_fleet, c.relkind::text, format('%I.%I', h.nspname, c.relname), a.attname::text, a.attacl::text
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN house h ON h.oid = c.relnamespace WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT n.nspname, n.nspname <> 'freehold', 'schema', format('%I', n.nspname), NULL, n.nspacl::text
  FROM pg_namespace n JOIN house h ON h.oid = n.oid WHERE n.nspacl IS NOT NULL
), acl AS MATERIALIZED (
  SELECT t.acl, a.grantee, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role, a.privilege_type
  FROM (SELECT DISTINCT acl FROM carrier) t, LATERAL aclexplode(t.acl::aclitem[]) a
  WHERE a.grantee <> 'freehold_owner'::regrole
)";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        sight: Visibility::Anyone,
        with: "
house AS MATERIALIZED (
  SELECT oid, nspname FROM fleet
  UNION ALL
  SELECT oid, nspname FROM pg_namespace WHERE nspname = 'freehold'
)",
        sql: "
SELECT 'FH301' AS code, o.object, 'it belongs to ' || o.owner::regrole::text AS detail, NULL::text AS fix
FROM (
  SELECT format('schema %I', n.nspname) AS object, n.nspowner AS owner, n.oid FROM pg_namespace n JOIN house h ON h.oid = n.oid
  UNION ALL
  SELECT format('%I.%I', h.nspname, c.relname), c.relowner, c.oid FROM pg_class c JOIN house h ON h.oid = c.relnamespace WHERE c.relkind NOT IN ('i', 'I', 'c')
  UNION ALL
  SELECT format('%I.%I()', h.nspname, p.proname), p.proowner, p.oid FROM pg_proc p JOIN house h ON h.oid = p.pronamespace
  -- The functions that make a range's values come with the type, and belong to the superuser who made the server.
  WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i')
  UNION ALL
  SELECT format('type %I.%I', h.nspname, t.typname), t.typowner, t.oid FROM pg_type t JOIN house h ON h.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r', 'm')
    OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
) o WHERE o.owner <> 'freehold_owner'::regrole
  -- An extension's own belong to whoever made it; that it is here is another finding.
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e')",
        checks: &[Check {
            code: "FH301",
            severity: Severity::Critical,
            title: "Something of the fleet or the catalog does not belong to freehold_owner",
            meaning: "An owner can change policies and turn row-level security off. In the hands of the app role, whoever runs SQL as it can do so.",
            remedy: "ALTER … OWNER TO freehold_owner, as the present owner or a superuser.",
            fix_is_safe: false,
        }],
    },
    Probe {
        sight: Visibility::Anyone,
        with: RIGHTS,
        sql: "
SELECT 'FH302' AS code, c.object, 'PUBLIC has ' || string_agg(DISTINCT a.privilege_type, ', ') || coalesce(' on column ' || c.part, '') AS detail,
  CASE WHEN c.kind = 'schema' THEN format('REVOKE ALL ON SCHEMA %s FROM PUBLIC', c.object)
       WHEN c.kind = 'S' THEN format('REVOKE ALL ON SEQUENCE %s FROM PUBLIC', c.object)
       WHEN c.kind IN ('r', 'p', 'v', 'm', 'f') THEN format('REVOKE ALL ON %s FROM PUBLIC', c.object) END AS fix
FROM carrier c JOIN acl a USING (acl) WHERE a.grantee = 0
GROUP BY c.object, c.kind, c.part
UNION ALL
SELECT 'FH303', c.object, a.role || ' has ' || string_agg(DISTINCT a.privilege_type, ', ') || coalesce(' on column ' || c.part, ''), NULL
FROM carrier c JOIN acl a USING (acl)
WHERE a.grantee <> 0 AND (
  a.role NOT IN ('freehold_app', 'freehold_catalog', 'freehold_viewer', 'freehold_member', 'freehold_admin', 'freehold_analytics')
  OR a.role = 'freehold_app' AND c.is_fleet AND c.kind <> 'schema')
GROUP BY c.object, c.part, a.role
UNION ALL
SELECT 'FH304', c.object, 'freehold_analytics has ' || string_agg(DISTINCT a.privilege_type, ', '), NULL
FROM carrier c JOIN acl a USING (acl)
WHERE a.role = 'freehold_analytics' AND c.is_fleet AND a.privilege_type NOT IN ('SELECT', 'USAGE')
GROUP BY c.object
UNION ALL
SELECT 'FH308', c.object, a.role || ' has ' || string_agg(DISTINCT a.privilege_type, ', '), NULL
FROM carrier c JOIN acl a USING (acl)
WHERE c.kind = 'S' AND c.is_fleet AND a.grantee <> 0
GROUP BY c.object, a.role",
        checks: &[
            Check {
                code: "FH302",
                severity: Severity::Critical,
                title: "Something of the fleet or the catalog is granted to PUBLIC",
                meaning: "Every role of the server has this right, those of other applications too.",
                remedy: "REVOKE … FROM PUBLIC, and grant it to freehold_viewer or freehold_member in a migration.",
                fix_is_safe: true,
            },
            Check {
                code: "FH303",
                severity: Severity::Warning,
                title: "A right for a role that should have none",
                meaning: "A role that is not Freehold's, or the app role outside of a tenant's transaction, was granted something of a tenant or of the catalog. Row-level security still binds it.",
                remedy: "Revoke it. A report over all tenants reads as freehold_analytics.",
                fix_is_safe: false,
            },
            Check {
                code: "FH304",
                severity: Severity::Critical,
                title: "Analytics may write in a tenant's schema",
                meaning: "freehold_analytics passes every tenant's policy, so that it can read across tenants. It must be able to do no more than read.",
                remedy: "Revoke everything but SELECT from freehold_analytics.",
                fix_is_safe: false,
            },
            Check {
                code: "FH308",
                severity: Severity::Warning,
                title: "A sequence of a tenant is granted to somebody",
                meaning: "All tenants are the same roles to PostgreSQL, and row-level security knows no sequences: whoever may ask one tenant's sequence may ask every tenant's, learns how many rows they have, and can use up their numbers.",
                remedy: "REVOKE ALL ON SEQUENCE … FROM that role, in a migration. Rows are numbered without it: identity columns need no right, and freehold.next_value('…') gives a number to the context's tenant.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
-- 1574 is nextval(regclass).
SELECT DISTINCT 'FH309' AS code, format('%I.%I', f.nspname, c.relname) AS object, format('the default of %I calls nextval', a.attname) AS detail, NULL::text AS fix
FROM pg_depend d JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
JOIN pg_attrdef x ON x.oid = d.objid JOIN pg_class c ON c.oid = x.adrelid JOIN fleet f ON f.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum
WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND x.adbin::text LIKE '%:funcid 1574 %'",
        checks: &[Check {
            code: "FH309",
            severity: Severity::Warning,
            title: "A column asks a sequence to which nobody in a tenant should have a right",
            meaning: "Either the sequence is granted (FH308), or rows cannot be written without giving the number. Migrations make such a column an identity column, or have it ask freehold.next_value; this one was made by hand or by a former build.",
            remedy: "Run `freehold migrate up`, which does so for the whole fleet.",
            fix_is_safe: false,
        }],
    },
    Probe {
        sight: Visibility::Anyone,
        with: "",
        sql: "
SELECT 'FH305' AS code, format('schema %I', n.nspname) AS object, g.role || ' may create objects in it' AS detail, NULL::text AS fix
FROM pg_namespace n
CROSS JOIN LATERAL (
  SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ', ') AS role
  FROM aclexplode(n.nspacl) a
  WHERE a.privilege_type = 'CREATE' AND (a.grantee = 0 OR a.grantee <> n.nspowner AND a.grantee::regrole::text IN
    ('freehold_app', 'freehold_catalog', 'freehold_viewer', 'freehold_member', 'freehold_admin', 'freehold_analytics'))) g
WHERE (n.nspname IN ('public', 'freehold') OR n.oid IN (SELECT oid FROM fleet)) AND g.role IS NOT NULL
UNION ALL
SELECT 'FH307', 'default privileges of ' || d.defaclrole::regrole::text || coalesce(' in schema ' || quote_ident(n.nspname), ''),
  'new ' || CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' ELSE 'schemas' END
    || ' get the rights ' || array_to_string(d.defaclacl, ' '), NULL
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
WHERE (d.defaclrole = 'freehold_owner'::regrole OR d.defaclnamespace IN (SELECT oid FROM fleet) OR n.nspname IN ('freehold', 'public'))
  AND EXISTS (SELECT FROM aclexplode(d.defaclacl) a WHERE a.grantee <> d.defaclrole)",
        checks: &[
            Check {
                code: "FH305",
                severity: Severity::Critical,
                title: "A role of the application may create objects in a schema",
                meaning: "Injected SQL could put a table or a function where others find it by name.",
                remedy: "REVOKE CREATE ON SCHEMA … FROM that role; for public, `freehold init` does it.",
                fix_is_safe: false,
            },
            Check {
                code: "FH307",
                severity: Severity::Warning,
                title: "Default privileges give away what is made later",
                meaning: "What the owner role makes is granted at once to somebody, before policies protect it; materialized views, which no policy protects, too.",
                remedy: "ALTER DEFAULT PRIVILEGES … REVOKE …; grant in migrations instead.",
                fix_is_safe: false,
            },
        ],
    },
    Probe {
        sight: Visibility::Owner,
        with: "",
        sql: "
SELECT 'FH306' AS code, format('schema %I', f.nspname) AS object, 'its rights are ' || coalesce(array_to_string(f.nspacl, ' '), 'the default')
    || '; expected: USAGE for freehold_app, freehold_viewer and freehold_analytics' AS detail,
  CASE WHEN (SELECT count(*) FROM aclexplode(f.nspacl) a WHERE a.privilege_type = 'USAGE'
      AND a.grantee::regrole::text IN ('freehold_app', 'freehold_viewer', 'freehold_analytics')) < 3
    THEN format('GRANT USAGE ON SCHEMA %I TO freehold_app, freehold_viewer, freehold_analytics', f.nspname) END AS fix
FROM fleet f JOIN freehold.tenant t ON t.id = f.tenant
WHERE (
  SELECT string_agg(a.grantee::regrole::text || a.privilege_type, ' ' ORDER BY a.grantee::regrole::text, a.privilege_type)
  FROM aclexplode(f.nspacl) a WHERE a.grantee NOT IN (0, f.nspowner)
) IS DISTINCT FROM 'freehold_analyticsUSAGE freehold_appUSAGE freehold_viewerUSAGE'",
        checks: &[Check {
            code: "FH306",
            severity: Severity::Warning,
            title: "The rights on a tenant's schema are not those of a provisioned one",
            meaning: "Roles of the application need USAGE to reach the tenant, and no other role does.",
            remedy: "Grant the three roles USAGE, and revoke what else there is. The repair only grants.",
            fix_is_safe: true,
        }],
    },
];
