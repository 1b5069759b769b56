//! One way to a schema: what is rehearsed, compared and produced anew.

use super::Mutant;
use super::Tests::{Library, LibraryUnit};

const ADOPT: &str = "crates/freehold/src/fleet/migrator/adopt.rs";
const FAST_PATH: &str = "crates/freehold/src/fleet/migrator/fast_path.rs";
const MIGRATOR: &str = "crates/freehold/src/fleet/migrator.rs";
const ROWS: &str = "crates/freehold/src/snapshot/rows.rs";
const ORDER: &str = "crates/freehold/src/snapshot/order.rs";
const DESCRIBE: &str = "crates/freehold/src/snapshot/describe.sql";
const CHANGE: &str = "crates/freehold/src/snapshot/change.rs";

const WAVES: &str = "crates/freehold/src/fleet/migrator/waves.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a-canary-is-any-tenant",
        breaks: "a migration that fails for the canaries goes on to the fleet",
        file: WAVES,
        from: "        if is_of_canaries && failures > 0 {",
        to: "        if is_of_canaries && failures > self.failures_max {",
        tests: Library(&["waves::a_canary_that_fails_stops_the_run_before_all_others"]),
        survives_because: None,
    },
    Mutant {
        name: "no-failures-stop-a-run",
        breaks: "a migration that fails everywhere is tried everywhere",
        file: WAVES,
        from: "        if failures >= self.failures_max {",
        to: "        if failures > usize::MAX - self.failures_max {",
        tests: Library(&["waves::a_run_stops_once_so_many_tenants_have_failed"]),
        survives_because: None,
    },
    Mutant {
        name: "a-pause-is-not-looked-for",
        breaks: "a run that an operator pauses goes on",
        file: WAVES,
        from: "            if let Some(reason) = self.look().await {\n                return Some(reason);\n            }\n",
        to: "",
        tests: Library(&[
            "waves::a_pause_ends_the_run_between_waves_and_no_other_begins_until_it_is_over",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "locked-tenants-fail-at-once",
        breaks: "a tenant with a busy table is left behind",
        file: "crates/freehold/src/fleet/migrator.rs",
        from: "if !is_last && error.database()",
        to: "if !is_last && is_last && error.database()",
        tests: Library(&[
            "waves::a_tenant_whose_tables_are_locked_is_tried_again_after_the_others",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "no-tenant-rehearses",
        breaks: "a migration is adopted that leaves tenants without what the template has",
        file: ADOPT,
        from: "    rehearsal::require_same(tx, former, migration, &template).await?;\n",
        to: "",
        tests: Library(&[
            "snapshots::a_migration_that_tenants_would_lack_something_of_is_not_adopted",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "tenants-are-not-compared",
        breaks: "a tenant counts as migrated that is not what the template is",
        file: MIGRATOR,
        from: "        compare::require_equal(change, &mut tx, tenant, migration, &own).await?;\n",
        to: "",
        tests: Library(&[
            "snapshots::a_tenant_that_is_not_what_the_template_is_fails_with_the_difference",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "fast-path-compares-nothing",
        breaks: "a tenant counts as migrated that is not what the first one was",
        file: FAST_PATH,
        from: "        Ok(learned.fingerprints.contains(&fingerprint) && !is_bare)",
        to: "        Ok(learned.fingerprints.contains(&fingerprint) || !is_bare)",
        tests: Library(&["fast_path::a_tenant_that_differs_goes_the_long_path_which_says_how"]),
        survives_because: None,
    },
    Mutant {
        name: "fast-path-takes-tenants-with-indexes",
        breaks: "an index of a tenant's own stays in the catalog when a migration has dropped its table",
        file: FAST_PATH,
        from: "version != former || has_own_indexes",
        to: "version != former && has_own_indexes",
        tests: Library(&["fast_path::a_tenant_with_an_index_of_its_own_goes_the_long_path"]),
        survives_because: None,
    },
    Mutant {
        name: "fast-path-protects-nothing",
        breaks: "tables of later tenants have no policies until the comparison finds it",
        file: FAST_PATH,
        from: "        if !protection.is_empty() {",
        to: "        if protection.is_empty() {",
        tests: Library(&["fast_path::the_first_tenant_of_a_version_shows_the_others_the_way"]),
        survives_because: None,
    },
    Mutant {
        name: "what-should-be-gone-may-stay",
        breaks: "a tenant keeps what a migration drops",
        file: CHANGE,
        from: "            !wanted.contains(&key) && found.contains_key(&key) && object.kind != \"dropped columns\"",
        to: "            !wanted.contains(&key) && found.contains_key(&key) && object.kind == \"dropped columns\"",
        tests: Library(&["snapshots::what_a_migration_drops_must_be_gone_from_every_tenant"]),
        survives_because: None,
    },
    Mutant {
        name: "untouched-tables-are-believed",
        breaks: "a migration takes one tenant's table out of row-level security, and nothing says so",
        file: CHANGE,
        from: "        if self.tables.is_empty() {\n",
        to: "        if !self.tables.is_empty() {\n",
        tests: Library(&[
            "snapshots::a_table_that_only_one_tenant_uncovers_or_loses_is_missed_there",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "rehearsals-are-left-behind",
        breaks: "the schema of the rehearsal stays in the database after a run",
        file: ADOPT,
        from: "    if !pending.is_empty() {\n",
        to: "    if pending.is_empty() {\n",
        tests: Library(&[
            "snapshots::the_rehearsals_tenant_is_gone_after_a_run_whatever_a_killed_one_has_left",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "secrets-of-the-template-are-shared",
        breaks: "every tenant has the ids and secrets that the template was given",
        file: ADOPT,
        from: "            rows.compared_with(other, &former.template.rows).map_err(located_in(migration))?",
        to: "            let _ = other;\n            rows",
        tests: Library(&[
            "snapshots::seed_rows_are_the_templates_but_what_comes_out_differently_is_made_anew",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sequences-begin-again",
        breaks: "the first row of a new tenant has the number of a seed row",
        file: ROWS,
        from: "            let _ = writeln!(sql, \"SELECT pg_catalog.setval({name}, {last}, {is_called});\");\n",
        to: "            let _ = (name, last, is_called);\n",
        tests: Library(&[
            "snapshots::a_new_tenant_is_what_the_template_is_whatever_kinds_of_objects_it_holds",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "objects-come-as-they-are-listed",
        breaks: "a new tenant cannot be made where an object depends on one of a later name",
        file: ORDER,
        from: "        if from != to && before[from].insert(to) {",
        to: "        if from == to && before[from].insert(to) {",
        tests: LibraryUnit(&[
            "snapshot::tests::each_object_comes_after_what_it_depends_on_and_else_by_its_stage",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "dropped-columns-leave-no-place",
        breaks: "a new tenant's rows look otherwise inside than those of tenants that went the long way",
        file: DESCRIBE,
        from: "WHERE r.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND (a.attislocal OR r.relispartition)",
        to: "WHERE r.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND (a.attislocal OR r.relispartition) AND NOT a.attisdropped",
        tests: Library(&[
            "snapshots::a_new_tenant_is_what_the_template_is_whatever_kinds_of_objects_it_holds",
        ]),
        survives_because: None,
    },
];
