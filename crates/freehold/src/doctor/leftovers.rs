//! FH70x: catalog rows without schemas, schemas without catalog rows, and tenants that are behind.

use super::check::{Check, Probe, Severity, Visibility};

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Visibility::Owner,
    with: "",
    sql: "
SELECT 'FH701' AS code, 'tenant ' || t.slug AS object, format('it has no schema tenant_%s', replace(t.id::text, '-', '')) AS detail, NULL::text AS fix
FROM freehold.tenant t WHERE NOT EXISTS (SELECT FROM fleet f WHERE f.tenant = t.id)
UNION ALL
SELECT 'FH702', 'schema ' || f.nspname, 'no tenant in the catalog has this id', NULL
FROM fleet f WHERE f.nspname <> 'freehold_template' AND NOT EXISTS (SELECT FROM freehold.tenant t WHERE t.id = f.tenant)
UNION ALL
SELECT 'FH702', format('schema %I', n.nspname), 'its name is like those of Freehold''s schemas, and it is none', NULL
FROM pg_namespace n
WHERE n.nspname ~ '^(tenant|freehold)_' AND n.nspname NOT IN ('freehold_analytics', 'freehold_guard') AND NOT EXISTS (SELECT FROM fleet f WHERE f.oid = n.oid)
UNION ALL
SELECT 'FH703', 'tenant ' || t.slug, format('it is at version %s and the baseline at %s', t.version, b.version), NULL
FROM freehold.tenant t, (SELECT coalesce(max(version), 0) AS version FROM freehold.baseline) b WHERE t.version < b.version
UNION ALL
SELECT 'FH704', 'tenant ' || t.slug, format('version %s says the catalog, and the ledger %s', t.version, coalesce(l.version, 0)), NULL
FROM freehold.tenant t LEFT JOIN (SELECT tenant_id, max(version) AS version FROM freehold.ledger GROUP BY tenant_id) l ON l.tenant_id = t.id
WHERE t.version <> coalesce(l.version, 0)
UNION ALL
SELECT 'FH705', 'tenant ' || t.slug, format('migration %s failed: %s', m.version, m.error), NULL
FROM freehold.migration_failure m JOIN freehold.tenant t ON t.id = m.tenant_id",
    checks: &[
        Check {
            code: "FH701",
            severity: Severity::Warning,
            title: "A tenant without a schema",
            meaning: "The catalog knows the tenant, and every request of its people fails.",
            remedy: "Restore the schema from a backup, or suspend the tenant.",
            fix_is_safe: false,
        },
        Check {
            code: "FH702",
            severity: Severity::Warning,
            title: "A schema without a tenant",
            meaning: "Data of somebody lies there whom the catalog does not know: left from a restore or an unfinished removal.",
            remedy: "Find out whose it was. Restore the catalog's row, or drop the schema.",
            fix_is_safe: false,
        },
        Check {
            code: "FH703",
            severity: Severity::Info,
            title: "A tenant is behind the baseline",
            meaning: "It lacks the newest migrations, so it was not compared with the template. Its isolation was.",
            remedy: "`freehold migrate up`.",
            fix_is_safe: false,
        },
        Check {
            code: "FH704",
            severity: Severity::Warning,
            title: "Version and ledger of a tenant contradict each other",
            meaning: "Somebody edited the catalog, or restored a part of it. The migrator may skip or repeat a migration.",
            remedy: "Compare the schema with the template, and put right whichever is wrong.",
            fix_is_safe: false,
        },
        Check {
            code: "FH705",
            severity: Severity::Info,
            title: "A migration failed for a tenant",
            meaning: "The last run of the migrator left it as it was.",
            remedy: "Remove the cause that the finding names, then `freehold migrate up`.",
            fix_is_safe: false,
        },
    ],
}];
