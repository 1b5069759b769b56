//! Rows of COPY's text format as values of an INSERT. Pure.

use super::reading::Words;
use crate::schema::policy::quote_literal;

/// A row of COPY's text format.
pub(super) fn values(row: &str) -> String {
    let value = |field: &str| match field {
        "\\N" => "NULL".to_owned(),
        field => quote_literal(&unescaped(field)),
    };
    row.split('\t').map(value).collect::<Vec<_>>().join(", ")
}

fn unescaped(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

/// How many rows the VALUES of an INSERT has.
pub(super) fn inserted(insert: &Words<'_>) -> usize {
    let Some(values) = insert.place_of(&["values"]) else { return 0 };
    let (mut depth, mut rows) = (0_usize, 0);
    for token in &insert.tokens[values + 1..] {
        if token.is_symbol("(") {
            rows += usize::from(depth == 0);
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && !token.is_symbol(",") {
            break;
        }
    }
    rows
}
