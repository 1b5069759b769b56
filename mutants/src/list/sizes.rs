//! Tenants' sizes on disk: their attribution, retention and visibility.

use super::Mutant;
use super::Tests::Library;

const MIGRATION: &str = "crates/freehold/migrations/0022_sizes.sql";
/// The migration that replaces how sizes are measured.
const GROWTH: &str = "crates/freehold/migrations/0074_growth.sql";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "sizes-open",
        breaks: "a tenant's SQL reads the size and growth of every tenant",
        file: MIGRATION,
        from: "    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);\n",
        to: "",
        tests: Library(&["sizes::a_tenants_context_sees_no_sizes_and_writes_none"]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-of-other-tenants",
        breaks: "a tenant's growth is a line through every tenant's sizes",
        file: GROWTH,
        from: "            WHERE s.tenant_id = m.id AND s.measured_at > now() - interval '7 days'",
        to: "            WHERE s.measured_at > now() - interval '7 days'",
        tests: Library(&[
            "sizes::growth_is_a_straight_line_through_the_sizes_of_a_week_and_the_forecast_follows_it",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-pruned-by-other-tenants",
        breaks: "a tenant's history is lost to a later size of another's",
        file: MIGRATION,
        from: "(SELECT FROM freehold.tenant_size later WHERE later.tenant_id = s.tenant_id
      AND later",
        to: "(SELECT FROM freehold.tenant_size later WHERE later.tenant_id IS NOT NULL
      AND later",
        tests: Library(&[
            "sizes::all_sizes_of_two_days_are_kept_then_the_last_of_each_day_for_ninety",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-without-indexes",
        breaks: "a tenant takes more than is told",
        file: GROWTH,
        from: "coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)",
        to: "coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)",
        tests: Library(&["sizes::the_tenant_whose_tables_grow_is_the_one_that_takes_more"]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-older-than-a-week",
        breaks: "growth that ended long ago is forecast on",
        file: GROWTH,
        from: "s.measured_at > now() - interval '7 days'",
        to: "s.measured_at > now() - interval '9 days'",
        tests: Library(&["sizes::a_tenant_without_growth_or_with_one_size_grows_by_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-of-an-hour-are-a-pace",
        breaks: "an import is forecast for a month",
        file: GROWTH,
        from: "least(86400, extract(epoch FROM now() - min(p.measured_at)))",
        to: "86400",
        tests: Library(&[
            "sizes::whoever_is_known_for_an_hour_grew_in_a_day_by_what_they_grew_in_that_hour",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sizes-passed-over-in-silence",
        breaks: "nobody hears that tenants were not measured",
        file: "crates/freehold/src/control/sizes.rs",
        from: "                    passed_over += 1;\n",
        to: "                    passed_over += 0;\n",
        tests: Library(&[
            "sizes::a_table_that_somebody_holds_is_not_waited_for_and_measured_the_next_time",
        ]),
        survives_because: None,
    },
];
