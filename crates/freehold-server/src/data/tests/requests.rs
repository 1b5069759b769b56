//! Randomly generated requests to the data API: made from parts of the grammar, so that the parser gets far,
//! with hostile values. Used by the properties of the plan and by those of the whole service.

use proptest::prelude::*;

/// Tables and their columns, so that most requests name existing ones.
pub(crate) type Names = &'static [(&'static str, &'static [&'static str])];
type Columns = &'static [&'static str];

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) table: String,
    /// Encoded as in a URL.
    pub(crate) query: String,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
}

/// Texts that broke out of their context in other systems.
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
    "eq",
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
    "eq(any)",
    "like(all)",
];
const CASTS: &[&str] = &["text", "int", "jsonb", "uuid", "timestamptz", "numeric"];
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
    ("accept", "application/vnd.pgrst.object+json"),
    ("accept", "application/vnd.pgrst.array+json;nulls=stripped"),
    ("accept", "*/*"),
    ("range", "0-1"),
    ("range", "3-"),
    ("range", "9223372036854775807-"),
    ("range-unit", "items"),
    ("content-type", "application/json"),
];
const REFUSED_HEADERS: &[(&str, &str)] = &[
    ("prefer", "handling=strict, zzhostile=\"'\""),
    ("accept", "application/json;q=0"),
    ("range", "1-0"),
    ("content-type", "text/csv"),
];

pub(crate) fn requests(names: Names) -> impl Strategy<Value = Request> {
    let method = prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "POST", "PATCH", "DELETE"]);
    (method, prop::sample::select(names)).prop_flat_map(|(method, (table, columns))| {
        let table = prop_oneof![30 => Just(table.to_owned()), 1 => text()];
        let header = prop_oneof![
            20 => prop::sample::select(HEADERS),
            1 => prop::sample::select(REFUSED_HEADERS),
        ];
        let headers = prop::collection::vec(header, 0..3);
        (table, query(method, columns), headers, body(columns)).prop_map(
            move |(table, query, headers, body)| Request { method, table, query, headers, body },
        )
    })
}

/// Any value for a filter or a body.
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

fn query(method: &'static str, columns: Columns) -> impl Strategy<Value = String> {
    let filter = prop_oneof![
        4 => (field(columns), test()),
        1 => (prop::sample::select(vec!["or", "and", "not.or", "not.and"]), group(columns))
            .prop_map(|(key, group)| (key.to_owned(), group)),
    ];
    let shape = prop_oneof![
        3 => list(select_item(columns)).prop_map(|items| ("select".to_owned(), items)),
        1 => list(order_term(columns)).prop_map(|terms| ("order".to_owned(), terms)),
        1 => list(field(columns)).prop_map(|columns| ("columns".to_owned(), columns)),
        1 => list(field(columns)).prop_map(|columns| ("on_conflict".to_owned(), columns)),
    ];
    let page = (prop::sample::select(vec!["limit", "offset"]), 0..20_u32)
        .prop_map(|(key, rows)| (key.to_owned(), rows.to_string()));
    let noise = (text(), text());
    // An insert takes no filter, an update needs one, and neither is paged.
    let (filters, pages) = match method {
        "POST" => (0..1, 0..1),
        "PATCH" | "DELETE" => (1..3, 0..1),
        _ => (0..3, 0..2),
    };
    let parts = (
        prop::collection::vec(filter, filters),
        prop::option::of(shape),
        prop::collection::vec(page, pages),
        prop::option::weighted(0.05, noise),
    );
    parts.prop_map(|(filters, shape, pages, noise)| {
        let all = filters.into_iter().chain(shape).chain(pages).chain(noise);
        let pairs = all.map(|(key, value)| format!("{}={}", encode(&key), encode(&value)));
        pairs.collect::<Vec<_>>().join("&")
    })
}

fn field(columns: Columns) -> impl Strategy<Value = String> {
    let column = prop::sample::select(columns);
    let key = prop::sample::select(KEYS);
    prop_oneof![
        20 => column.clone().prop_map(str::to_owned),
        2 => (column.clone(), prop::sample::select(vec!["->", "->>"]), key.clone())
            .prop_map(|(column, arrow, key)| format!("{column}{arrow}{key}")),
        2 => key.prop_map(|key| format!("details->>{key}")),
        1 => column.prop_map(|column| format!("\"{column}\"")),
        1 => text(),
    ]
}

/// The comparison in a filter: `eq.1`, `not.in.(1,2)`.
fn test() -> impl Strategy<Value = String> {
    let values = || prop::collection::vec(text(), 1..4);
    let state = prop::sample::select(vec!["null", "true", "not_null", "unknown"]);
    let negation = prop::sample::select(vec!["", "", "", "not."]);
    let test = prop_oneof![
        12 => (prop::sample::select(OPERATORS), text())
            .prop_map(|(operator, value)| format!("{operator}.{value}")),
        2 => values().prop_map(|values| format!("in.({})", values.join(","))),
        2 => values().prop_map(|values| format!("eq(any).{{{}}}", values.join(","))),
        1 => state.prop_map(|state| format!("is.{state}")),
        1 => (text(), text()).prop_map(|(operator, value)| format!("{operator}.{value}")),
    ];
    (negation, test).prop_map(|(negation, test)| format!("{negation}{test}"))
}

fn group(columns: Columns) -> impl Strategy<Value = String> {
    // A quoted value may contain characters that would end an unquoted one.
    let value =
        text().prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    let quoted = (prop::sample::select(columns), value)
        .prop_map(|(column, value)| format!("{column}.eq.{value}"));
    let condition = prop_oneof![
        5 => quoted,
        1 => (field(columns), test()).prop_map(|(field, test)| format!("{field}.{test}")),
    ];
    let part = condition.prop_recursive(3, 12, 3, |part| {
        let head = prop::sample::select(vec!["and", "or", "not.and", "not.or"]);
        (head, prop::collection::vec(part, 1..4))
            .prop_map(|(head, parts)| format!("{head}({})", parts.join(",")))
    });
    prop::collection::vec(part, 1..4).prop_map(|parts| format!("({})", parts.join(",")))
}

fn select_item(columns: Columns) -> impl Strategy<Value = String> {
    let alias = prop::option::weighted(0.4, prop::sample::select(ALIASES));
    let cast = prop_oneof![
        5 => Just(String::new()),
        4 => prop::sample::select(CASTS).prop_map(|cast| format!("::{cast}")),
        1 => prop::sample::select(HOSTILE).prop_map(|cast| format!("::zz{cast}")),
    ];
    let item = (alias, field(columns), cast).prop_map(|(alias, field, cast)| {
        let alias = alias.map_or_else(String::new, |alias| format!("{alias}:"));
        format!("{alias}{field}{cast}")
    });
    prop_oneof![9 => item, 1 => Just("*".to_owned()), 1 => Just("orders(*)".to_owned())]
}

fn order_term(columns: Columns) -> impl Strategy<Value = String> {
    let ending = vec!["", ".asc", ".desc", ".desc.nullslast", ".nullsfirst", ".zz"];
    (field(columns), prop::sample::select(ending))
        .prop_map(|(field, ending)| format!("{field}{ending}"))
}

fn list(item: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(","))
}

fn body(columns: Columns) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        30 => prop::sample::select(columns).prop_map(str::to_owned),
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

/// What a client library encodes, and no more: the characters of the grammar stay as they are.
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
