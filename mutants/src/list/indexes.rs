//! Indexes of single tenants: advice, creation and removal, and what is recorded.

use super::Mutant;
use super::Tests::{Library, LibraryUnit};

const ADVICE: &str = "crates/freehold/src/indexes/advice.rs";
const BUILD: &str = "crates/freehold/src/indexes/build.rs";
const SURVEY: &str = "crates/freehold/src/indexes/survey.rs";
const CATALOG: &str = "crates/freehold/src/catalog/indexes.rs";
const CONTROL: &str = "crates/freehold/src/control/indexes.rs";
const DRIFT: &str = "crates/freehold/src/doctor/drift.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "index-advice-drops-unique",
        breaks: "an index that keeps rows unique is proposed for dropping",
        file: ADVICE,
        from: "        if index.unique || index.fixed || supports_foreign_key(table, index) {",
        to: "        if index.fixed || supports_foreign_key(table, index) {",
        tests: LibraryUnit(&[
            "indexes::advice::tests::what_keeps_rows_unique_or_serves_a_constraint_is_never_to_be_dropped",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-drops-of-foreign-keys",
        breaks: "the only index of a foreign key is proposed for dropping",
        file: ADVICE,
        from: "        if index.unique || index.fixed || supports_foreign_key(table, index) {",
        to: "        if index.unique || index.fixed {",
        tests: LibraryUnit(&[
            "indexes::advice::tests::what_keeps_rows_unique_or_serves_a_constraint_is_never_to_be_dropped",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-on-young-figures",
        breaks: "what PostgreSQL has counted for a moment is taken for a habit",
        file: ADVICE,
        from: "    days(survey, since) >= options.days_min
        && table.rows",
        to: "    since <= survey.now
        && table.rows",
        tests: Library(&["indexes::nothing_is_said_of_what_was_seen_too_little_and_that_is_told"]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-drops-what-was-just-made",
        breaks: "an index is called unused before anybody could have read it",
        file: ADVICE,
        from: "            && index.made_at.is_none_or(|made| days(survey, made) >= options.days_min)\n",
        to: "",
        tests: LibraryUnit(&[
            "indexes::advice::tests::an_index_is_unused_only_if_it_was_there_for_long_enough",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-figures-from-before-the-tenant",
        breaks: "a tenant of yesterday is judged as if it had been there for all that was counted",
        file: SURVEY,
        from: "greatest(t.created_at, pg_catalog.pg_stat_get_db_stat_reset_time(d.oid)",
        to: "greatest(pg_catalog.pg_stat_get_db_stat_reset_time(d.oid)",
        tests: Library(&[
            "indexes::evidence::what_was_counted_before_a_tenant_was_there_is_not_its_own",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-duplicates-by-column-alone",
        breaks: "an index of another order, operator class or collation is called a duplicate",
        file: SURVEY,
        from: "concat_ws(' ', e.name, i.indclass[x.place - 1], i.indcollation[x.place - 1], i.indoption[x.place - 1])",
        to: "e.name",
        tests: Library(&[
            "indexes::evidence::indexes_that_find_or_order_otherwise_are_no_duplicates",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-duplicates-of-other-rows",
        breaks: "an index of all rows is called a duplicate of one of some",
        file: ADVICE,
        from: "        && other.condition == index.condition\n",
        to: "",
        tests: LibraryUnit(&[
            "indexes::advice::tests::a_longer_index_covers_a_shorter_one_if_it_is_of_the_same_kind",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-past-the-policies",
        breaks: "an index is proposed for an operator that row-level security keeps from it",
        file: SURVEY,
        from: "bool_and(p.proleakproof) FILTER (WHERE m.amopstrategy = 3)",
        to: "bool_and(true) FILTER (WHERE m.amopstrategy = 3)",
        tests: Library(&["indexes::each_kind_of_advice_is_given_where_it_holds_and_nowhere_else"]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-from-others-requests",
        breaks: "a tenant's advice follows what other tenants' tables were asked",
        file: CATALOG,
        from: "             WHERE tenant_id = ANY($1) AND last_at > now() - interval '30 days'",
        to: "             WHERE $1::uuid[] IS NOT NULL AND last_at > now() - interval '30 days'",
        tests: Library(&["indexes::each_kind_of_advice_is_given_where_it_holds_and_nowhere_else"]),
        survives_because: None,
    },
    Mutant {
        name: "index-advice-for-nobody",
        breaks: "a tenant that does not exist is advised on",
        file: CONTROL,
        from: "        tenants::find(tx.catalog(), tenant).await?.ok_or_else(no_such_tenant)?;
        let (found",
        to: "        let (found",
        tests: Library(&["indexes::wrong_names_are_refused_in_words_and_nothing_is_done"]),
        survives_because: None,
    },
    Mutant {
        name: "index-made-under-a-lock",
        breaks: "the tenant cannot write while its index is made",
        file: BUILD,
        from: "\"CREATE INDEX CONCURRENTLY {name} ON",
        to: "\"CREATE INDEX {name} ON",
        tests: Library(&["indexes::an_index_is_made_and_dropped_while_others_write"]),
        survives_because: None,
    },
    Mutant {
        name: "index-restored-under-a-lock",
        breaks: "the tenant cannot write while its index is made again",
        file: BUILD,
        from: "definition.replacen(\"CREATE INDEX \", \"CREATE INDEX CONCURRENTLY \", 1)",
        to: "definition.to_owned()",
        tests: Library(&[
            "indexes::building::an_index_of_the_baseline_is_restored_while_others_write",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-of-another-tenant-will-do",
        breaks: "an index of that name in another tenant's schema is taken for this tenant's",
        file: BUILD,
        from: "                 WHERE n.nspname = $1 AND c.relname = $2\",",
        to: "                 WHERE $1::text <> '' AND c.relname = $2\",",
        tests: Library(&[
            "indexes::building::two_tenants_have_the_same_index_each_in_its_own_schema",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-names-unquoted",
        breaks: "a table's name is read as SQL",
        file: BUILD,
        from: "quote_ident(&self.schema), quote_ident(table));",
        to: "quote_ident(&self.schema), table.to_owned());",
        tests: Library(&["indexes::building::names_that_sql_would_read_otherwise_are_quoted"]),
        survives_because: None,
    },
    Mutant {
        name: "index-that-failed-stays",
        breaks: "a build that fails leaves an index that every write pays for and nobody can use",
        file: BUILD,
        from: "                let _ = self.drop_it().await;\n",
        to: "",
        tests: Library(&[
            "indexes::building::a_build_that_fails_leaves_no_index_behind_and_says_why",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-of-other-columns-will-do",
        breaks: "an index whose name reads the same is taken for the one that was asked for",
        file: CONTROL,
        from: "if of.name != table || !present.is_of(columns) =>",
        to: "if of.name.is_empty() =>",
        tests: Library(&[
            "indexes::building::an_index_of_other_columns_is_not_taken_for_one_of_the_same_name",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-that-is-unique-dropped",
        breaks: "rows need be unique no more",
        file: CONTROL,
        from: "    let why = if index.fixed || index.unique {",
        to: "    let why = if index.fixed {",
        tests: Library(&[
            "indexes::building::what_keeps_rows_unique_or_serves_a_foreign_key_is_not_dropped",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-of-a-foreign-key-dropped",
        breaks: "each row that is deleted reads a whole table, for want of the index that was there",
        file: CONTROL,
        from: "    } else if index.valid && index.in_template && supports_foreign_key(table, index) {",
        to: "    } else if index.valid && index.name.is_empty() && supports_foreign_key(table, index) {",
        tests: Library(&[
            "indexes::building::what_keeps_rows_unique_or_serves_a_foreign_key_is_not_dropped",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-made-before-it-is-recorded",
        breaks: "of an index whose builder dies nobody knows who made it",
        file: CONTROL,
        from: "        self.0.record_index(context, &index).await?;
        if let Err(error) = builder.create(",
        to: "        if let Err(error) = builder.create(",
        tests: Library(&["indexes::an_index_is_made_and_dropped_while_others_write"]),
        survives_because: None,
    },
    Mutant {
        name: "index-made-and-not-recorded",
        breaks: "the doctor calls an index that was applied a difference",
        file: CONTROL,
        from: "        index.state = IndexState::Created;\n",
        to: "",
        tests: Library(&["indexes::the_doctor_knows_what_is_recorded_and_reports_what_is_not"]),
        survives_because: None,
    },
    Mutant {
        name: "index-of-one-excuses-all",
        breaks: "what is recorded of one tenant hides the same difference in every other",
        file: DRIFT,
        from: "LEFT JOIN own_index o ON o.schema = c.relnamespace AND o.index_name",
        to: "LEFT JOIN own_index o ON o.index_name",
        tests: Library(&["indexes::the_doctor_knows_what_is_recorded_and_reports_what_is_not"]),
        survives_because: None,
    },
    Mutant {
        name: "index-records-of-others-forgotten",
        breaks: "a tenant's migration forgets what is recorded of the other tenants' indexes",
        file: CATALOG,
        from: "DELETE FROM freehold.tenant_index x WHERE tenant_id = $1\n             AND ((state",
        to: "DELETE FROM freehold.tenant_index x WHERE ((state",
        tests: Library(&[
            "indexes::building::a_migration_leaves_alone_what_each_tenant_has_of_its_own",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "index-records-open",
        breaks: "a tenant's SQL reads what is recorded of every tenant's indexes and requests",
        file: "crates/freehold/migrations/0030_indexes.sql",
        from: "    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);\n",
        to: "",
        tests: Library(&[
            "indexes::a_tenant_reads_neither_its_own_nor_anothers_indexes_and_requests",
        ]),
        survives_because: None,
    },
];
