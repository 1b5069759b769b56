//! The JSON body of a write: the columns it contains, and the JSON from which PostgreSQL reads them. Values
//! stay the caller's own text, so that no number loses precision.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{DataError, clip};
use super::model::{Column, Table};
use super::request::Limits;

/// Rows with the same columns, which fit one INSERT.
#[derive(Debug)]
pub(super) struct RowGroup<'m> {
    /// In the table's order, whatever the order in the body, so that the same columns always produce the same
    /// statement.
    pub(super) columns: Vec<&'m Column>,
    /// A JSON array of objects.
    pub(super) json: String,
    /// The number of rows.
    pub(super) rows: u64,
}

/// How the keys of the objects map to columns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyRules<'q, 'm> {
    /// `columns=`: only these keys count.
    pub(super) columns: Option<&'q [&'m Column]>,
    /// `missing=default`: objects may give different columns.
    pub(super) missing_default: bool,
}

/// The body of a POST, an object or an array of objects.
///
/// One group, unless `missing=default` lets the objects differ. An empty
/// array has no group.
pub(super) fn rows_to_insert<'m>(
    table: &'m Table,
    body: &[u8],
    rules: KeyRules<'_, 'm>,
    limits: &Limits,
) -> Result<Vec<RowGroup<'m>>, DataError> {
    let text = text(body)?;
    let rows: Vec<&RawValue> = match text.starts_with('[') {
        true => serde_json::from_str(text).map_err(|error| not_json(&error))?,
        false => vec![serde_json::from_str(text).map_err(|error| not_json(&error))?],
    };
    if rows.len() > limits.insert_rows_max {
        return Err(DataError::limit_exceeded(format!(
            "a request may insert {} rows at most, and this has {}",
            limits.insert_rows_max,
            rows.len()
        )));
    }
    // Keyed by the columns' positions in the table.
    let mut groups: BTreeMap<Vec<usize>, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let given = column_positions(table, row.get(), rules.columns)?;
        let positions = match rules.columns {
            Some(columns) if !rules.missing_default => positions_of(table, columns),
            _ => given,
        };
        groups.entry(positions).or_default().push(row.get());
    }
    if groups.len() > 1 && !rules.missing_default {
        return Err(DataError::malformed_body("all objects of the array must have the same keys")
            .with_hint("list the keys in columns=, or send Prefer: missing=default"));
    }
    if groups.len() > limits.insert_groups_max {
        return Err(DataError::limit_exceeded(format!(
            "with missing=default the objects may have {} different sets of keys at most",
            limits.insert_groups_max
        )));
    }
    // SQL has no INSERT of several rows without columns.
    if groups.get(&[][..]).is_some_and(|rows| rows.len() > 1) {
        return Err(DataError::malformed_body(
            "one object without keys makes a row of defaults; more than one cannot",
        ));
    }
    let group = |(positions, rows): (Vec<usize>, Vec<&str>)| RowGroup {
        columns: positions.iter().map(|at| &table.columns[*at]).collect(),
        json: format!("[{}]", rows.join(",")),
        rows: rows.len() as u64,
    };
    Ok(groups.into_iter().map(group).collect())
}

/// The body of a PATCH: one object, and the columns it sets.
pub(super) fn row_to_update<'m>(
    table: &'m Table,
    body: &[u8],
    columns: Option<&[&'m Column]>,
) -> Result<(Vec<&'m Column>, String), DataError> {
    let text = text(body)?;
    let row: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let positions = column_positions(table, row.get(), columns)?;
    let columns = positions.iter().map(|at| &table.columns[*at]).collect();
    Ok((columns, row.get().to_owned()))
}

fn text(body: &[u8]) -> Result<&str, DataError> {
    std::str::from_utf8(body)
        .map(str::trim)
        .map_err(|_| DataError::malformed_body("the body is not UTF-8"))
}

/// The positions of the columns that an object gives, in the table's order.
fn column_positions(
    table: &Table,
    object: &str,
    columns: Option<&[&Column]>,
) -> Result<Vec<usize>, DataError> {
    if !object.starts_with('{') {
        return Err(DataError::malformed_body(format!(
            "a row is a JSON object, not `{}`",
            clip(object)
        )));
    }
    let Keys(keys) = serde_json::from_str(object).map_err(|error| not_json(&error))?;
    let mut positions = Vec::with_capacity(keys.len());
    for key in keys {
        if columns.is_some_and(|columns| columns.iter().all(|column| column.name != key)) {
            continue;
        }
        positions.push(position(table, table.get_column(&key)?));
    }
    positions.sort_unstable();
    if let Some(twice) = positions.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = &table.columns[twice[0]].name;
        return Err(DataError::malformed_body(format!("an object has the key {name} twice"))
            .with_column(name));
    }
    let read_only = |at: &&usize| table.columns[**at].read_only;
    match positions.iter().find(read_only) {
        Some(at) => Err(read_only_column(&table.columns[*at])),
        None => Ok(positions),
    }
}

fn positions_of(table: &Table, columns: &[&Column]) -> Vec<usize> {
    let mut positions: Vec<usize> = columns.iter().map(|c| position(table, c)).collect();
    positions.sort_unstable();
    positions
}

fn position(table: &Table, column: &Column) -> usize {
    let same = |other: &Column| other.name == column.name;
    table.columns.iter().position(same).unwrap_or_default()
}

/// The refusal to write a generated column.
pub(super) fn read_only_column(column: &Column) -> DataError {
    DataError::new(
        http::StatusCode::BAD_REQUEST,
        "read_only_column",
        format!("{} is read-only: the database generates its value", column.name),
    )
    .with_column(&column.name)
}

fn not_json(error: &serde_json::Error) -> DataError {
    DataError::malformed_body(format!("the body is not JSON: {error}"))
}

/// The keys of an object, including repeated ones, without values.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(KeysVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture;

    fn groups(body: &str, missing_default: bool) -> Result<Vec<(String, String)>, String> {
        let model = fixture::shop();
        let rules = KeyRules { columns: None, missing_default };
        let customers = model.find_table("customers").unwrap();
        rows_to_insert(customers, body.as_bytes(), rules, &Limits::default())
            .map(|groups| {
                let names = |group: &RowGroup| {
                    let names: Vec<&str> = group.columns.iter().map(|c| &*c.name).collect();
                    names.join(",")
                };
                let pairs = groups.iter().map(|group| (names(group), group.json.clone()));
                pairs.collect()
            })
            .map_err(|error| error.message)
    }

    fn one(columns: &str, json: &str) -> Result<Vec<(String, String)>, String> {
        Ok(vec![(columns.to_owned(), json.to_owned())])
    }

    #[test]
    fn the_order_of_keys_changes_nothing_and_values_keep_their_text() {
        let json = r#"{"name": "A", "email": 1.000000000000000000001}"#;
        assert_eq!(groups(json, false), one("email,name", &format!("[{json}]")));
        assert_eq!(
            groups(r#" [{"name":"A","email":"a"}, {"email":"b","name":"B"}] "#, false),
            one("email,name", r#"[{"name":"A","email":"a"},{"email":"b","name":"B"}]"#)
        );
        assert_eq!(groups("[]", false), Ok(vec![]));
    }

    #[test]
    fn objects_may_differ_only_where_defaults_fill_them() {
        let body = r#"[{"name":"A"},{"email":"b"},{"name":"C"}]"#;
        let message = "all objects of the array must have the same keys";
        assert_eq!(groups(body, false), Err(message.to_owned()));
        let by_keys = vec![
            ("email".to_owned(), r#"[{"email":"b"}]"#.to_owned()),
            ("name".to_owned(), r#"[{"name":"A"},{"name":"C"}]"#.to_owned()),
        ];
        assert_eq!(groups(body, true), Ok(by_keys));
    }

    #[test]
    fn a_body_that_cannot_be_written_is_refused_before_the_database_sees_it() {
        for (body, part) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[1]", "a row is a JSON object"),
            ("\"{}\"", "a row is a JSON object"),
            (r#"{"name":1,"name":2}"#, "the key name twice"),
            (r#"{"name":1,"n\u0061me":2}"#, "the key name twice"),
            (r#"{"nmae":1}"#, "customers has no column nmae"),
            (r#"{"search":1}"#, "search is read-only"),
            (r#"{"name":1} {"name":2}"#, "not JSON"),
        ] {
            let message = groups(body, false).unwrap_err();
            assert!(message.contains(part), "{body}: {message}");
        }
    }
}
