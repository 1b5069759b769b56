//! The data API: from a request to SQL, and from PostgreSQL's errors to an answer.

use super::Mutant;
use super::Tests::{Server, ServerUnit};

const SQL: &str = "crates/freehold-server/src/data/sql.rs";
const PLAN: &str = "crates/freehold-server/src/data/plan.rs";
const DATABASE: &str = "crates/freehold-server/src/data/database.rs";
const STATEMENT: &str =
    "data::tests::properties::a_statement_holds_nothing_of_its_request_but_names_of_the_model";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "every-column-to-everybody",
        breaks: "select=* asks for columns that the role may not read, and is refused",
        file: SQL,
        from: "readable.retain(|column| !column.is_withheld(Right::Select, role));",
        to: "let _ = (role, Right::Select);",
        tests: Server(&[
            "http::data::columns_that_are_granted_one_by_one_are_all_that_a_role_has",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "withheld-columns-unnamed",
        breaks: "a refusal does not say which column the role may not read or write",
        file: PLAN,
        from: "columns.iter().find(|column| column.is_withheld(right, self.role))",
        to: "columns.iter().find(|column| column.is_withheld(right, self.role) && false)",
        tests: Server(&[
            "http::data::columns_that_are_granted_one_by_one_are_all_that_a_role_has",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "values-in-the-sql",
        breaks: "a filter's value is a part of the statement's text",
        file: SQL,
        from: "                let value = self.bind(value.clone(), Some(column));
                format!(\"{field} {operator} {value}\")",
        to: "                let _ = column;
                format!(\"{field} {operator} '{value}'\")",
        tests: ServerUnit(&[STATEMENT]),
        survives_because: None,
    },
    Mutant {
        name: "keys-in-the-sql",
        breaks: "the key of a path into json is a part of the statement's text",
        file: SQL,
        from: "PathKey::Name(name) => format!(\"{}::text\", self.bind(name.clone(), None)),",
        to: "PathKey::Name(name) => format!(\"'{name}'\"),",
        tests: ServerUnit(&[STATEMENT]),
        survives_because: None,
    },
    Mutant {
        name: "aliases-of-any-kind",
        breaks: "an alias may hold anything",
        file: "crates/freehold-server/src/data/query.rs",
        from: "    if chosen {
        check_output_name(&name)?;
    }",
        to: "    let _ = (chosen, check_output_name);",
        tests: ServerUnit(&[STATEMENT]),
        survives_because: None,
    },
    Mutant {
        name: "quotes-not-doubled",
        breaks: "a quote in a name ends it",
        file: "crates/freehold-server/src/data/model.rs",
        from: "    format!(\"\\\"{}\\\"\", name.replace('\"', \"\\\"\\\"\"))",
        to: "    format!(\"\\\"{name}\\\"\")",
        tests: ServerUnit(&["data::model::tests::quotes_in_names_are_doubled"]),
        survives_because: None,
    },
    Mutant {
        name: "casts-of-any-kind",
        breaks: "a cast is a part of the statement's text as it came",
        file: "crates/freehold-server/src/data/query.rs",
        from: "        None => {
            let known: Vec<&str> = CASTS.iter().map(|(known, _)| *known).collect();",
        to: "        None if name.starts_with(\"zz\") => Ok(&*Box::leak(name.to_owned().into_boxed_str())),
        None => {
            let known: Vec<&str> = CASTS.iter().map(|(known, _)| *known).collect();",
        tests: ServerUnit(&[STATEMENT]),
        survives_because: None,
    },
    Mutant {
        name: "tables-by-the-path-alone",
        breaks: "a statement names no schema and leaves the tenant to the search path",
        file: SQL,
        from: "        let (schema, table) = (quote_name(self.schema), quote_name(&self.table.name));
        format!(\"{schema}.{table}\")",
        to: "        quote_name(&self.table.name)",
        tests: ServerUnit(&["data::tests::statements::a_read_is_one_statement_of_one_row"]),
        survives_because: None,
    },
    Mutant {
        name: "writes-without-a-filter",
        breaks: "a DELETE that forgot its filter empties the table",
        file: PLAN,
        from: "        if self.query.filters.is_empty() && !self.preferences.allow_unfiltered {",
        to: "        if self.query.filters.is_empty() && self.table.name.is_empty() {",
        tests: Server(&["http::data::updates_and_deletes_touch_what_their_filter_chooses_and_need_one"]),
        survives_because: None,
    },
    Mutant {
        name: "committed-before-judged",
        breaks: "a write that its answer refuses is committed all the same",
        file: PLAN,
        from: "            commit_after_answer: write && may_refuse,",
        to: "            commit_after_answer: write && may_refuse && reply.offset > 0,",
        tests: Server(&[
            "http::data::one_object_is_one_row_or_an_error",
            "http::data::updates_and_deletes_touch_what_their_filter_chooses_and_need_one",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "refusals-quote-rows",
        breaks: "PostgreSQL's words about a value reach the caller",
        file: DATABASE,
        from: "        \"42P10\" => bad_request(\"malformed_query\", \"on_conflict names no unique key\"),",
        to: "        \"54001\" => bad_request(\"malformed_query\", error.message),",
        tests: ServerUnit(&["data::tests::translation::no_refusal_repeats_the_words_of_the_database"]),
        survives_because: None,
    },
    Mutant {
        name: "failures-tell-sql",
        breaks: "an answer tells what failed inside",
        file: "crates/freehold-server/src/http/error.rs",
        from: "Problem::new(status, kind.code(), freehold::axum::detail(&error));",
        to: "Problem::new(status, kind.code(), error.to_string());",
        tests: Server(&["http::middleware::what_fails_inside_is_not_told"]),
        survives_because: None,
    },
];
