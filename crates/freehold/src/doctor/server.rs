//! FH5xx: the server: security fixes that its version lacks, and settings that disable a defence or expose
//! too much.

use super::Example;
use super::check::{Check, Probe, Severity, Visibility};
use super::examination::Examination;

/// A vulnerability of PostgreSQL, and the minor releases that fix it.
struct Fault {
    name: &'static str,
    what: &'static str,
    /// Whether it bypasses row-level security or a role's privileges.
    is_isolation: bool,
    /// Major and minor version of the first release without it.
    fixed: &'static [(i32, i32)],
}

/// Vulnerabilities that matter where tenants share a server and a tenant may be able to run SQL, from version
/// 15 on. Source: <https://www.postgresql.org/support/security/> and the release notes of each version.
const FAULTS: &[Fault] = &[
    Fault {
        name: "CVE-2023-2455",
        what: "policies disregard a change of role after a function was inlined",
        is_isolation: true,
        fixed: &[(15, 3)],
    },
    Fault {
        name: "CVE-2023-39418",
        what: "MERGE does not enforce policies for UPDATE and SELECT",
        is_isolation: true,
        fixed: &[(15, 4)],
    },
    Fault {
        name: "CVE-2024-4317",
        what: "pg_stats_ext shows values of tables that the role may not read",
        is_isolation: true,
        fixed: &[(15, 7), (16, 3)],
    },
    Fault {
        name: "CVE-2024-10976",
        what: "a plan of a query with subqueries is used again after the role changed",
        is_isolation: true,
        fixed: &[(15, 9), (16, 5), (17, 1)],
    },
    Fault {
        name: "CVE-2024-10978",
        what: "SET ROLE is undone to the wrong role",
        is_isolation: true,
        fixed: &[(15, 9), (16, 5), (17, 1)],
    },
    Fault {
        name: "CVE-2025-8713",
        what: "the planner's statistics tell of rows that policies hide",
        is_isolation: true,
        fixed: &[(15, 14), (16, 10), (17, 6)],
    },
    Fault {
        name: "CVE-2023-5869",
        what: "whoever runs SQL can overrun memory by an array, and run code",
        is_isolation: false,
        fixed: &[(15, 5), (16, 1)],
    },
    Fault {
        name: "CVE-2024-0985",
        what: "REFRESH MATERIALIZED VIEW CONCURRENTLY runs an owner's functions as the caller",
        is_isolation: false,
        fixed: &[(15, 6), (16, 2)],
    },
    Fault {
        name: "CVE-2024-7348",
        what: "an object that is replaced while pg_dump runs makes it run SQL",
        is_isolation: false,
        fixed: &[(15, 8), (16, 4)],
    },
    Fault {
        name: "CVE-2025-8714, CVE-2025-8715",
        what: "names and data in a dump run commands where it is restored",
        is_isolation: false,
        fixed: &[(15, 14), (16, 10), (17, 6)],
    },
    Fault {
        name: "CVE-2026-2003, CVE-2026-2006",
        what: "whoever runs SQL can read memory, and run code by malformed text",
        is_isolation: false,
        fixed: &[(15, 16), (16, 12), (17, 8), (18, 2)],
    },
    Fault {
        name: "CVE-2026-6473",
        what: "whoever runs SQL can overrun memory by sizes that wrap around, and run code",
        is_isolation: false,
        fixed: &[(15, 18), (16, 14), (17, 10), (18, 4)],
    },
];

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "FH501",
        severity: Severity::Warning,
        title: "The server lacks a fix of row-level security",
        meaning: "This version of PostgreSQL has a known way past policies or roles.",
        remedy: "Install the newest minor release of the same major version; it needs a restart and no migration.",
        fix_is_safe: false,
    },
    Check {
        code: "FH502",
        severity: Severity::Warning,
        title: "The server lacks a security fix that matters where tenants share it",
        meaning: "This version of PostgreSQL has a known fault that somebody with SQL, or with a table of their own, can use.",
        remedy: "Install the newest minor release of the same major version; it needs a restart and no migration.",
        fix_is_safe: false,
    },
];

pub(super) const PROBES: &[Probe] = &[Probe {
    sight: Visibility::Anyone,
    with: "
given AS MATERIALIZED (
  SELECT coalesce(s.setrole::regrole::text, '') AS role, split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value
  FROM pg_db_role_setting s, unnest(s.setconfig) c
  WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND (s.setrole = 0 OR s.setrole::regrole::text IN ('freehold_owner', 'freehold_app', 'freehold_catalog', 'freehold_analytics'))
  UNION ALL
  SELECT '', name, reset_val FROM pg_settings
  UNION ALL
  -- Not in that list, for no module defines it.
  SELECT '', 'freehold.context', current_setting('freehold.context', true)
), setting AS MATERIALIZED (
  SELECT CASE WHEN role IN ('', '-') THEN name ELSE name || ' of ' || role END AS object, role, name, value FROM given
)",
    sql: "
SELECT 'FH511' AS code, object, 'it is ' || value AS detail, NULL::text AS fix FROM setting
WHERE name = 'session_replication_role' AND value <> 'origin'
UNION ALL
SELECT 'FH512', object, 'it is ' || value, NULL FROM setting
WHERE name = 'row_security' AND lower(value) IN ('off', 'false', 'no', '0')
UNION ALL
-- Where the context is kept: a claim that is believed, or in the mode portable a seal over it.
SELECT CASE WHEN believed AND value ~ '^(tenant|operator)_' THEN 'FH513' ELSE 'FH515' END, object, 'it is set for a session: ' || value, NULL
FROM setting, LATERAL (SELECT freehold_guard.seal_mode() <> 'portable') seal(believed)
WHERE name = CASE freehold_guard.seal_mode() WHEN 'best' THEN {verdict} ELSE 'freehold.context' END AND value <> ''
UNION ALL
SELECT DISTINCT 'FH514', s.object, 'it is ' || s.value || ', and log_parameter_max_length is ' || current_setting('log_parameter_max_length'), NULL FROM setting s
WHERE (s.name IN ('log_min_duration_statement', 'log_min_duration_sample') AND s.value <> '-1' OR s.name = 'log_statement' AND s.value <> 'none' AND s.value <> 'ddl'
    OR s.name = 'log_transaction_sample_rate' AND s.value::float8 > 0)
  AND EXISTS (SELECT FROM setting p WHERE p.name = 'log_parameter_max_length' AND p.value <> '0')
UNION ALL
SELECT 'FH514', object, 'it is ' || value || ': a statement that fails is logged with its parameters', NULL FROM setting
WHERE name = 'log_parameter_max_length_on_error' AND value <> '0'",
    checks: &[
        Check {
            code: "FH511",
            severity: Severity::Critical,
            title: "Triggers and foreign keys are turned off",
            meaning: "With session_replication_role other than origin, triggers don't fire and foreign keys are not enforced: servers are not told of suspensions and removed members.",
            remedy: "ALTER ROLE, DATABASE or SYSTEM … RESET session_replication_role.",
            fix_is_safe: false,
        },
        Check {
            code: "FH512",
            severity: Severity::Warning,
            title: "row_security is off",
            meaning: "Nothing leaks, but every query that a policy would filter fails instead.",
            remedy: "ALTER ROLE, DATABASE or SYSTEM … RESET row_security.",
            fix_is_safe: false,
        },
        Check {
            code: "FH513",
            severity: Severity::Critical,
            title: "A context is set for whole sessions",
            meaning: "Every connection of the role begins in a tenant's or operator's context, so a query without a context of its own is not refused.",
            remedy: "ALTER ROLE, DATABASE or SYSTEM … RESET backtrace_functions, or \"freehold.context\" in the mode plain; it is for each transaction alone. Only a superuser can have set the first.",
            fix_is_safe: false,
        },
        Check {
            code: "FH514",
            severity: Severity::Info,
            title: "Statements are logged with their parameters",
            meaning: "The server's log gets people's data. Contexts are parameters too; a sealed one opens nothing by the time somebody reads it.",
            remedy: "Set log_parameter_max_length = 0, and log_parameter_max_length_on_error = 0.",
            fix_is_safe: false,
        },
        Check {
            code: "FH515",
            severity: Severity::Warning,
            title: "The setting that keeps the context is used for something else",
            meaning: "Nothing leaks, but whoever works without a context, such as the owner role in migrations, is taken to be in one that is wrong, and is refused.",
            remedy: "ALTER ROLE, DATABASE or SYSTEM … RESET backtrace_functions, or \"freehold.context\" where the mode is not best.",
            fix_is_safe: false,
        },
    ],
}];

/// Reports the vulnerabilities of the server's version.
pub(super) fn look(examination: &mut Examination<'_>) {
    let (major, minor) = version(examination.server_version_num());
    let lacking: Vec<&Fault> = FAULTS.iter().filter(|fault| lacks(fault, major, minor)).collect();
    for (check, is_isolation) in CHECKS.iter().zip([true, false]) {
        let lacking: Vec<_> = lacking.iter().filter(|f| f.is_isolation == is_isolation).collect();
        for fault in &lacking {
            let first = fault.fixed.iter().find(|(fixed, _)| *fixed == major).map_or(0, |f| f.1);
            let example = Example {
                object: format!("PostgreSQL {major}.{minor}"),
                detail: format!("{}: {}; fixed in {major}.{first}", fault.name, fault.what),
            };
            examination.add(check, example, None, lacking.len() as u64);
        }
    }
}

/// Major and minor version of `server_version_num`: 150018 is 15.18.
fn version(server_version_num: i32) -> (i32, i32) {
    (server_version_num / 10_000, server_version_num % 10_000)
}

fn lacks(fault: &Fault, major: i32, minor: i32) -> bool {
    fault.fixed.iter().any(|(fixed, first)| *fixed == major && minor < *first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(server_version_num: i32) -> Vec<&'static str> {
        let (major, minor) = version(server_version_num);
        FAULTS.iter().filter(|fault| lacks(fault, major, minor)).map(|fault| fault.name).collect()
    }

    #[test]
    fn a_version_lacks_what_was_fixed_after_it() {
        assert_eq!(names(150_000).len(), FAULTS.len());
        assert!(names(150_008).contains(&"CVE-2024-10976"));
        assert!(!names(150_009).contains(&"CVE-2024-10976"));
        assert!(!names(160_000).contains(&"CVE-2023-39418"));
        assert_eq!(names(170_009), ["CVE-2026-6473"]);
        assert_eq!(names(180_003), ["CVE-2026-6473"]);
        assert!(
            names(180_004).is_empty() && names(150_018).is_empty() && names(190_000).is_empty()
        );
    }
}
