//! Figures across tenants: which tenants they cover, and how many.

use super::Mutant;
use super::Tests::Library;

const SCHEMA: &str = "crates/freehold/src/analytics/schema.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "totals-of-too-few-tenants",
        breaks: "the figures of a group of too few tenants are computed",
        file: SCHEMA,
        from: "CASE WHEN count(*) >= {minimum} THEN",
        to: "CASE WHEN count(*) > 0 THEN",
        tests: Library(&["analytics::totals::totals_are_those_of_the_rollup_whatever_changed"]),
        survives_because: None,
    },
    Mutant {
        name: "totals-of-tenants-that-are-gone",
        breaks: "the figures of a tenant that was deleted stay in the totals",
        file: SCHEMA,
        from: r#"[("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")]"#,
        to: r#"[("INSERT", "NEW"), ("UPDATE", "NEW")]"#,
        tests: Library(&["analytics::totals::totals_are_those_of_the_rollup_whatever_changed"]),
        survives_because: None,
    },
    Mutant {
        name: "totals-of-groups-that-ended",
        breaks: "a group that no tenant is in any more keeps its total",
        file: SCHEMA,
        from: "WHERE {t_is_g} AND NOT EXISTS",
        to: "WHERE false AND {t_is_g} AND NOT EXISTS",
        tests: Library(&["analytics::totals::totals_are_those_of_the_rollup_whatever_changed"]),
        survives_because: None,
    },
    Mutant {
        name: "totals-granted",
        breaks: "the app role reads the totals, of too few tenants too, in any context",
        file: SCHEMA,
        from: "             {protection}{triggers}",
        to: "             {protection}{triggers} GRANT SELECT ON {total} TO freehold_app;",
        tests: Library(&["doctor::a_fleet_with_analytics_has_no_findings"]),
        survives_because: None,
    },
];
