//! How the texts of migrations are read, and the refusals of a baseline's own code.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server, ServerUnit};

const SCRIPT: &str = "crates/freehold/src/sql/script.rs";
const CHECK: &str = "crates/freehold/src/schema/migration/check.rs";
const RUN: &str = "crates/freehold/src/schema/migration/run.rs";
const FILES: &str = "crates/freehold/src/schema/migration/files.rs";
const RAISED: &str = "crates/freehold/src/error/raised.rs";

const LINES: &str = "texts::every_refusal_names_the_line_and_says_its_words_once";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "semicolons-in-parentheses",
        breaks: "a rule of several statements is taken apart",
        file: SCRIPT,
        from: "\";\" if parentheses == 0 && blocks == 0 => break,",
        to: "\";\" if blocks == 0 => break,",
        tests: LibraryUnit(&[
            "sql::script::tests::a_semicolon_ends_a_statement_only_where_postgresql_sees_one",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "backslashes-escape-nothing",
        breaks: "a quote behind a backslash ends an E'…'",
        file: SCRIPT,
        from: "            if c == '\\\\' {",
        to: "            if c == '\\0' {",
        tests: LibraryUnit(&[
            "sql::script::tests::properties::what_is_put_together_comes_apart_again",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "copy-goes-to-the-server",
        breaks: "rows behind COPY are taken for statements",
        file: CHECK,
        from: "if is(0, \"copy\") && to_or_from_client(&tokens[1..]) {",
        to: "if is(0, \"copy\") && tokens.len() > 1_000 && to_or_from_client(&tokens[1..]) {",
        tests: Library(&[LINES]),
        survives_because: None,
    },
    Mutant {
        name: "the-first-line-for-all",
        breaks: "a refusal names the first line of the file",
        file: RUN,
        from: "            _ => statement.line,",
        to: "            _ => 1,",
        tests: Library(&[LINES]),
        survives_because: None,
    },
    Mutant {
        name: "deferred-to-the-commit",
        breaks: "what a file leaves to the commit fails there, without the file's name",
        file: RUN,
        from: "client.batch_execute(\"SET CONSTRAINTS ALL IMMEDIATE\")",
        to: "client.batch_execute(\"SET CONSTRAINTS ALL DEFERRED\")",
        tests: Library(&[LINES]),
        survives_because: None,
    },
    Mutant {
        name: "line-ends-count",
        breaks: "a checkout on Windows is another baseline",
        file: FILES,
        from: "bare.replace(\"\\r\\n\", \"\\n\")",
        to: "bare.to_owned()",
        tests: Library(&["texts::line_ends_and_a_byte_order_mark_change_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "numbers-of-any-width",
        breaks: "4_bad.sql beside 0003_x.sql is adopted",
        file: "crates/freehold/src/schema/migration/order.rs",
        from: "digits.len() < width ||",
        to: "digits.is_empty() ||",
        tests: Library(&["texts::what_is_wrong_with_a_file_is_said_with_its_name"]),
        survives_because: None,
    },
    Mutant {
        name: "a-dry-run-moves-sequences",
        breaks: "numbers are spent in the template by a dry run",
        file: "crates/freehold/src/fleet/migrator/adopt.rs",
        from: "    rows::detach_sequences(tx, TenantId::TEMPLATE).await?;\n",
        to: "",
        tests: Library(&[
            "texts::a_dry_run_says_what_would_happen_and_leaves_no_trace",
            "snapshots::a_file_may_name_the_numbers_that_sequences_give_its_rows",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "words-of-freeholds-functions",
        breaks: "what Freehold's functions raise for the log goes to the caller",
        file: RAISED,
        from: "db.message().starts_with(\"freehold: \") || ",
        to: "",
        tests: Library(&["raised::raise_is_answered_with_its_status_and_its_words"]),
        survives_because: None,
    },
    Mutant {
        name: "words-of-postgresql",
        breaks: "what PostgreSQL itself refuses goes to the caller in its words, with values and schemas",
        file: RAISED,
        from: "let is_raise = db.routine() == Some(\"exec_stmt_raise\");",
        to: "let is_raise = db.routine().is_some();",
        tests: Library(&["raised::raise_is_answered_with_its_status_and_its_words"]),
        survives_because: None,
    },
    Mutant {
        name: "a-status-of-no-error",
        breaks: "a trigger answers 200 to what it has refused",
        file: RAISED,
        from: "(\"PT\", Some(status @ 400..=599)) => status,",
        to: "(\"PT\", Some(status)) => status,",
        tests: Server(&[
            "http::raised::what_code_of_the_baseline_raises_reaches_the_caller_in_its_words",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "a-violation-behind-a-row-policy",
        breaks: "a row for another tenant's table goes unrecorded, if a policy of the baseline refuses it first",
        file: "crates/freehold/src/observe/violations.rs",
        from: "other_schema(sql, own).or_else(|| other_schema(place, own))?;",
        to: "other_schema(place, own)?;",
        tests: Library(&[
            "violations::a_baselines_row_policy_is_no_violation_unless_another_tenants_schema_is_named",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "any-55000-is-a-view",
        breaks: "whatever is not ready is called a view",
        file: "crates/freehold-server/src/data/database.rs",
        from: " if plan.write && VIEW_IS_READ_ONLY.contains(&routine) =>",
        to: " if plan.write || VIEW_IS_READ_ONLY.contains(&routine) =>",
        tests: ServerUnit(&[
            "data::tests::translation::one_sqlstate_means_different_things_by_who_refuses",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "the-way-back-is-gone-too",
        breaks: "a file of goose makes its table and drops it again",
        file: "crates/freehold/src/schema/migration.rs",
        from: "        let statements = marks::way_up(&statements);\n",
        to: "",
        tests: Library(&["texts::the_way_back_is_never_gone"]),
        survives_because: None,
    },
];
