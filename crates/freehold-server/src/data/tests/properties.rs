//! Properties that must hold for any text.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::requests::{Names, Request, requests};
use super::translation::translate;
use super::*;

/// Names of the shop in the fixture.
const NAMES: Names = &[
    (
        "orders",
        &[
            "id",
            "customer_id",
            "status",
            "history",
            "total",
            "tags",
            "details",
            "raw",
            "limit",
            "created_at",
        ],
    ),
    ("customers", &["id", "email", "name", "vip", "search"]),
    ("products", &["id", "sku", "price", "page", "released"]),
    ("order_items", &["order_id", "product_id", "quantity"]),
    ("order_totals", &["customer_id", "orders", "total"]),
];

/// Every word that the planner writes outside of quotes, except types of the model.
const WORDS: &str = "ALL AND ANY AS ASC BY COALESCE CONFLICT COUNT DEFAULT DELETE DESC DISTINCT DO \
    EXCLUDED FIRST FROM ILIKE IN INSERT INTO IS JSON_AGG JSON_STRIP_NULLS JSON_TO_RECORD \
    JSON_TO_RECORDSET LAST LIKE LIMIT NOT NOTHING NULL NULLS OFFSET ON OR ORDER PAGE R RETURNING \
    ROWS SELECT SET T TOTAL TRUE FALSE UNION UNKNOWN UPDATE USING VALUES WHERE WITH WRITTEN BODY \
    BIGINT BOOLEAN DATE DOUBLE INT INTEGER INTERVAL JSON JSONB NUMERIC PRECISION REAL SMALLINT TEXT \
    TIME TIMESTAMP TIMESTAMPTZ UUID CHARACTER VARYING ZONE ORDER_STATUS QUANTITY";

fn plan_of(request: &Request) -> Result<Plan, DataError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let method = Method::from_bytes(request.method.as_bytes()).unwrap();
    let request = DataRequest {
        method: &method,
        table: &request.table,
        query: &request.query,
        headers: &headers,
        body: request.body.as_bytes(),
    };
    plan(&fixture::shop(), SCHEMA, Role::Admin, &request, &Limits::default())
}

/// The parts of a statement, as PostgreSQL's lexer splits it.
#[derive(Default)]
struct Parts {
    words: BTreeSet<String>,
    /// Quoted identifiers, without their quotes.
    names: BTreeSet<String>,
    literals: BTreeSet<String>,
    placeholders: BTreeSet<usize>,
    marks: BTreeSet<char>,
}

fn take_apart(sql: &str) -> Parts {
    let mut parts = Parts::default();
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        let mut take_while = |fits: fn(char) -> bool| {
            let mut text = String::new();
            while let Some(next) = rest.next_if(|next| fits(*next)) {
                text.push(next);
            }
            text
        };
        match c {
            '"' | '\'' => {
                let mut quoted = String::new();
                loop {
                    match rest.next().expect("a quote is closed") {
                        next if next != c => quoted.push(next),
                        _ if rest.next_if_eq(&c).is_some() => quoted.push(c),
                        _ => break,
                    }
                }
                let known = if c == '"' { &mut parts.names } else { &mut parts.literals };
                known.insert(quoted);
            }
            '$' => {
                let number = take_while(|c| c.is_ascii_digit());
                parts.placeholders.insert(number.parse().expect("a number follows $"));
            }
            c if c.is_ascii_alphabetic() => {
                let tail = take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                parts.words.insert(format!("{c}{tail}").to_ascii_uppercase());
            }
            // LIMIT, and the precision of a type.
            c if c.is_ascii_digit() || c == ' ' => {}
            c => {
                parts.marks.insert(c);
            }
        }
    }
    parts
}

/// The statement contains nothing of the request except names of the model and plain aliases, both quoted.
fn check_statement(plan: &Plan) -> Result<(), TestCaseError> {
    let model = fixture::shop();
    let parts = take_apart(&plan.sql);
    let sql = &plan.sql;
    let words: BTreeSet<String> = WORDS.split_whitespace().map(str::to_owned).collect();
    let numbered = |word: &str| {
        word.strip_prefix("WRITTEN_").is_some_and(|number| number.parse::<usize>().is_ok())
    };
    let strange = parts.words.iter().find(|word| !words.contains(*word) && !numbered(word));
    prop_assert_eq!(strange, None, "{}", sql);
    let known = |name: &str| {
        let column = |table: &model::Table| table.find_column(name).is_some();
        name == SCHEMA || model.find_table(name).is_some() || model.tables().any(column)
    };
    let plain = |c: char| c.is_alphanumeric() || "_-. $@".contains(c);
    let strange = parts.names.iter().find(|name| !known(name) && !name.chars().all(plain));
    prop_assert_eq!(strange, None, "{}", sql);
    let literals = ["", "[]", "null"];
    let strange = parts.literals.iter().find(|literal| !literals.contains(&literal.as_str()));
    prop_assert_eq!(strange, None, "{}", sql);
    let strange = parts.marks.iter().find(|mark| !".,()*:=<>-@&[]".contains(**mark));
    prop_assert_eq!(strange, None, "{}", sql);
    prop_assert!(!sql.contains("--") && !sql.contains("/*"), "a comment: {}", sql);
    prop_assert_eq!(parts.placeholders, (1..=plan.params.len()).collect(), "{}", sql);
    Ok(())
}

proptest! {
    // Only a quarter of the requests can be planned, and few of those contain a part that can go wrong.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 16, ..ProptestConfig::default() })]

    #[test]
    fn a_statement_holds_nothing_of_its_request_but_names_of_the_model(request in requests(NAMES)) {
        if let Ok(plan) = plan_of(&request) {
            check_statement(&plan)?;
        }
    }
}

proptest! {
    #[test]
    fn no_query_string_makes_the_planner_panic(query in any::<String>()) {
        let _ = get("orders", &query).plan();
    }

    #[test]
    fn no_body_makes_the_planner_panic(body in any::<String>()) {
        let _ = post("orders", "", &body).plan();
    }

    #[test]
    fn a_request_is_planned_to_the_same_bytes_twice(request in requests(NAMES)) {
        if let (Ok(one), Ok(two)) = (plan_of(&request), plan_of(&request)) {
            prop_assert_eq!(one.sql, two.sql);
            prop_assert_eq!(one.params, two.params);
        }
    }

    #[test]
    fn no_message_makes_the_translation_panic(message in any::<String>(), context in any::<String>()) {
        let error = DatabaseError {
            sqlstate: "22P02",
            message: &message,
            context: Some(&context),
            ..DatabaseError::default()
        };
        translate(&post("products", "", r#"{"sku":"a","released":[1,"é"]}"#), &error);
    }
}

/// The generator must produce enough valid requests, or the property above proves little.
#[test]
fn a_good_part_of_the_properties_requests_is_planned_with_all_that_there_is() {
    let mut runner = TestRunner::deterministic();
    let mut sql = Vec::new();
    let mut values = String::new();
    for _ in 0..3000 {
        let request = requests(NAMES).new_tree(&mut runner).unwrap().current();
        if let Ok(plan) = plan_of(&request) {
            values.extend(plan.params.iter().map(|param| param.value.as_str()));
            sql.push(plan.sql);
        }
    }
    assert!(sql.len() > 600, "only {} of 3000", sql.len());
    for part in [
        " WHERE ",
        " AND ",
        " OR ",
        "NOT (",
        " LIKE ",
        " IS NULL",
        "ANY ($",
        "->>",
        "::text AS ",
        "AS \"été\"",
        " ORDER BY ",
        " OFFSET ",
        "INSERT INTO",
        "ON CONFLICT",
        "UPDATE ",
        "DELETE FROM",
        "count(*) FROM \"",
    ] {
        let with = sql.iter().filter(|sql| sql.contains(part)).count();
        assert!(with >= 3, "{part}: in {with} of {}", sql.len());
    }
    for hostile in ["zzhostile", "'", "\"", "--", ";", "$1"] {
        assert!(values.contains(hostile), "{hostile} is in no value");
    }
}
