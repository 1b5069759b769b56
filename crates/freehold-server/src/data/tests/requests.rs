//! Requests to the data API as chance makes them: of the grammar's own parts, so that they get far
//! into it, with values that would like to be more than values. Used by the properties of the plan
//! and by those of the whole service.

use proptest::prelude::*;

/// What a request may name, so that it often names what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) tables: &'static [&'static str],
    pub(crate) columns: &'static [&'static str],
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) table: String,
    /// As it stands in a URL.
    pub(crate) query: String,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
}

/// Texts that have led out of their place in other systems.
const HOSTILE: &[&str] = &[
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "'; DROP TABLE orders; --",
    "' OR '1'='1",
    "\") UNION SELECT zzhostile --",
    "$1",
    "$99",
    "$$zzhostile$$",
    "/* zzhostile */",
    "-- zzhostile",
    "U&\"zzhostile\"",
    "E'zzhostile'",
    ";",
    "::zzhostile",
    "zzhostile()",
    "(SELECT zzhostile)",
    "\u{0}",
    "\u{feff}",
    "\n",
    "é",
    "\u{202e}",
    "𝕏",
    "%",
    "_",
    "*",
    "",
    " ",
];
const PLAIN: &[&str] = &[
    "0",
    "1",
    "-7",
    "1.5",
    "1e400",
    "99999999999999999999",
    "NaN",
    "true",
    "null",
    "paid",
    "acme",
    "2026-01-01",
    "infinity",
    "0001-01-01 BC",
    "5f0c5fd2-6f7f-4a0e-9d3f-4b9a7f0f5a11",
    "{}",
    "{1,2}",
    "{\"a\",NULL}",
    "[1]",
    "{\"a\":{\"b\":1}}",
    "\"quoted\"",
];
const OPERATORS: &[&str] = &[
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "isdistinct",
    "like",
    "ilike",
    "cs",
    "cd",
    "ov",
    "in",
    "is",
    "match",
    "fts",
    "eq(any)",
    "like(all)",
    "zzhostile",
];
const CASTS: &[&str] =
    &["text", "int", "jsonb", "uuid", "timestamptz", "numeric", "zzhostile", "text[]"];
const KEYS: &[&str] = &["city", "0", "-1", "a b", "'", "\"q\"", "zzhostile"];
const ALIASES: &[&str] = &["a", "A b", "été", "x-y", "zzalias", "\"zz\\\"; --\"", "sku", "$1"];
const HEADERS: &[(&str, &str)] = &[
    ("prefer", "return=representation"),
    ("prefer", "return=headers-only"),
    ("prefer", "return=minimal, count=exact"),
    ("prefer", "count=planned"),
    ("prefer", "resolution=merge-duplicates"),
    ("prefer", "resolution=ignore-duplicates"),
    ("prefer", "missing=default"),
    ("prefer", "max-affected=1"),
    ("prefer", "max-affected=99999999999999999999"),
    ("prefer", "allow-unfiltered"),
    ("prefer", "handling=strict, zzhostile=\"'\""),
    ("accept", "application/vnd.pgrst.object+json"),
    ("accept", "application/vnd.pgrst.array+json;nulls=stripped"),
    ("accept", "application/json;q=0"),
    ("accept", "*/*"),
    ("range", "0-1"),
    ("range", "3-"),
    ("range", "9223372036854775807-"),
    ("range", "1-0"),
    ("range-unit", "items"),
    ("content-type", "application/json"),
    ("content-type", "text/csv"),
];

pub(crate) fn requests(names: Names) -> impl Strategy<Value = Request> {
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "POST", "PATCH", "DELETE"]);
    let table = prop_oneof![
        20 => prop::sample::select(names.tables).prop_map(str::to_owned),
        1 => text(),
    ];
    let headers = prop::collection::vec(prop::sample::select(HEADERS), 0..4);
    (method, table, query(names), headers, body(names)).prop_map(
        |(method, table, query, headers, body)| Request { method, table, query, headers, body },
    )
}

/// Any value that stands in a filter or a body.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(PLAIN).prop_map(str::to_owned),
        3 => prop::sample::select(HOSTILE).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop_oneof![
        3 => piece.clone(),
        1 => prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat()),
    ]
}

fn query(names: Names) -> impl Strategy<Value = String> {
    let parameter = prop_oneof![
        6 => (field(names), test()).prop_map(|(field, test)| (field, test)),
        2 => (prop::sample::select(vec!["or", "and", "not.or", "not.and"]), group(names))
            .prop_map(|(key, group)| (key.to_owned(), group)),
        3 => list(select_item(names)).prop_map(|items| ("select".to_owned(), items)),
        2 => list(order_term(names)).prop_map(|terms| ("order".to_owned(), terms)),
        1 => list(field(names)).prop_map(|columns| ("columns".to_owned(), columns)),
        1 => list(field(names)).prop_map(|columns| ("on_conflict".to_owned(), columns)),
        1 => (prop::sample::select(vec!["limit", "offset"]), text())
            .prop_map(|(key, value)| (key.to_owned(), value)),
        1 => (prop::sample::select(vec!["limit", "offset"]), 0..20_u32)
            .prop_map(|(key, value)| (key.to_owned(), value.to_string())),
        1 => (text(), text()),
    ];
    let parameters = prop::collection::vec(parameter, 0..4).prop_map(|parameters| {
        let pairs =
            parameters.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    });
    let noise = any::<String>().prop_map(|noise| encode(&noise));
    prop_oneof![12 => parameters, 1 => noise]
}

fn field(names: Names) -> impl Strategy<Value = String> {
    let column = prop::sample::select(names.columns);
    let key = prop::sample::select(KEYS);
    prop_oneof![
        12 => column.clone().prop_map(str::to_owned),
        2 => (column.clone(), prop::sample::select(vec!["->", "->>"]), key)
            .prop_map(|(column, arrow, key)| format!("{column}{arrow}{key}")),
        1 => column.prop_map(|column| format!("\"{column}\"")),
        1 => text(),
    ]
}

/// What a field is held against: `eq.1`, `not.in.(1,2)`.
fn test() -> impl Strategy<Value = String> {
    let negation = prop::sample::select(vec!["", "", "", "not.", "not.not."]);
    let value = prop_oneof![
        4 => text(),
        1 => prop::collection::vec(text(), 0..4).prop_map(|values| format!("({})", values.join(","))),
        1 => prop::collection::vec(text(), 0..4).prop_map(|values| format!("{{{}}}", values.join(","))),
        1 => prop::sample::select(vec!["null", "true", "not_null", "unknown"]).prop_map(str::to_owned),
    ];
    (negation, prop::sample::select(OPERATORS), value)
        .prop_map(|(negation, operator, value)| format!("{negation}{operator}.{value}"))
}

fn group(names: Names) -> impl Strategy<Value = String> {
    let condition = (field(names), test()).prop_map(|(field, test)| format!("{field}.{test}"));
    condition.prop_recursive(4, 16, 3, |part| {
        let head = prop::sample::select(vec!["", "and", "or", "not.and", "not.or"]);
        (head, prop::collection::vec(part, 1..4))
            .prop_map(|(head, parts)| format!("{head}({})", parts.join(",")))
    })
}

fn select_item(names: Names) -> impl Strategy<Value = String> {
    let alias = prop::option::weighted(0.3, prop::sample::select(ALIASES));
    let cast = prop::option::weighted(0.3, prop::sample::select(CASTS));
    let item = (alias, field(names), cast).prop_map(|(alias, field, cast)| {
        let alias = alias.map_or_else(String::new, |alias| format!("{alias}:"));
        let cast = cast.map_or_else(String::new, |cast| format!("::{cast}"));
        format!("{alias}{field}{cast}")
    });
    prop_oneof![6 => item, 1 => Just("*".to_owned()), 1 => Just("orders(*)".to_owned())]
}

fn order_term(names: Names) -> impl Strategy<Value = String> {
    let ending =
        prop::sample::select(vec!["", ".asc", ".desc", ".desc.nullslast", ".nullsfirst", ".zz"]);
    (field(names), ending).prop_map(|(field, ending)| format!("{field}{ending}"))
}

fn list(item: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(","))
}

fn body(names: Names) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        12 => prop::sample::select(names.columns).prop_map(str::to_owned),
        1 => text(),
    ];
    let value = prop_oneof![
        4 => text().prop_map(|text| serde_json::Value::from(text).to_string()),
        2 => prop::sample::select(PLAIN).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => Just("null".to_owned()),
    ];
    let member =
        (key, value).prop_map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key)));
    let row = prop::collection::vec(member, 0..4).prop_map(|row| format!("{{{}}}", row.join(",")));
    prop_oneof![
        8 => row.clone(),
        3 => prop::collection::vec(row, 0..4).prop_map(|rows| format!("[{}]", rows.join(","))),
        1 => text(),
    ]
}

/// What a client library encodes, and no more: the grammar's own marks stay as they are.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~*(),:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
