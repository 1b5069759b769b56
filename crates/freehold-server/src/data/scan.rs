//! The scanner for the small grammar that all parameters share: names, quoted strings, and fields (`total`,
//! `"Unit Price"`, `address->geo->>lat`).

use super::error::{DataError, clip};
use super::model::{Column, Kind, Table};

/// The longest identifier that PostgreSQL does not truncate.
const NAME_BYTES_MAX: usize = 63;
const PATH_STEPS_MAX: usize = 8;

/// A cursor over text. A parser looks ahead by copying it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { rest: text }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn starts_with(&self, token: &str) -> bool {
        self.rest.starts_with(token)
    }

    /// Skips `token` if it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), DataError> {
        if self.eat(token) {
            return Ok(());
        }
        let found = match self.rest.is_empty() {
            true => "the end".to_owned(),
            false => format!("`{}`", clip(self.rest)),
        };
        Err(DataError::malformed_query(format!("expected `{token}` but found {found}")))
    }

    pub(super) fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Everything before the first position at which `stop` holds.
    pub(super) fn take_until(&mut self, stop: impl Fn(char, &str) -> bool) -> &'a str {
        let end = self
            .rest
            .char_indices()
            .find(|(at, next)| stop(*next, &self.rest[*at..]))
            .map_or(self.rest.len(), |(at, _)| at);
        self.take(end)
    }

    /// The next `bytes` of the text.
    pub(super) fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// A string in double quotes, in which a backslash escapes the next
    /// character; `None` if no quote comes next.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, DataError> {
        let Some(inner) = self.rest.strip_prefix('"') else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut chars = inner.char_indices();
        while let Some((at, next)) = chars.next() {
            match next {
                '"' => {
                    self.rest = &inner[at + 1..];
                    return Ok(Some(text));
                }
                '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
                _ => text.push(next),
            }
        }
        Err(DataError::malformed_query(format!(
            "the quote in `{}` is never closed",
            clip(self.rest)
        )))
    }

    /// A quoted name, or the text before any of `stops` or an arrow.
    pub(super) fn name(&mut self, stops: &[char]) -> Result<String, DataError> {
        if let Some(name) = self.quoted()? {
            return Ok(name);
        }
        let name = self.take_until(|next, rest| stops.contains(&next) || rest.starts_with("->"));
        Ok(name.trim().to_owned())
    }

    /// A column, or a path into a JSON column, ending before any of `stops`.
    pub(super) fn field<'m>(
        &mut self,
        table: &'m Table,
        stops: &[char],
    ) -> Result<Field<'m>, DataError> {
        let column = table.get_column(&self.name(stops)?)?;
        let mut path = Vec::new();
        while self.starts_with("->") {
            if path.len() == PATH_STEPS_MAX {
                return Err(DataError::limit_exceeded(format!(
                    "a path may have {PATH_STEPS_MAX} steps at most"
                )));
            }
            let as_text = self.eat("->>");
            if !as_text {
                self.expect("->")?;
            }
            let quoted = self.starts_with("\"");
            let name = self.name(stops)?;
            if name.is_empty() && !quoted {
                return Err(DataError::malformed_query(format!(
                    "the path into {} ends in an arrow",
                    column.name
                )));
            }
            let key = match name.parse::<i32>() {
                Ok(index) if !quoted => PathKey::Index(index),
                _ => PathKey::Name(name),
            };
            path.push(key);
            if as_text {
                return Field::new(column, path, true);
            }
        }
        Field::new(column, path, false)
    }
}

/// A column, or a path into a JSON column.
#[derive(Debug)]
pub(super) struct Field<'m> {
    pub(super) column: &'m Column,
    pub(super) path: Vec<PathKey>,
    /// The path's last arrow was `->>`.
    pub(super) as_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathKey {
    Name(String),
    Index(i32),
}

impl<'m> Field<'m> {
    fn new(column: &'m Column, path: Vec<PathKey>, as_text: bool) -> Result<Self, DataError> {
        if !path.is_empty() && !matches!(column.kind, Kind::Json | Kind::Jsonb) {
            return Err(DataError::malformed_query(format!(
                "{} is {}, and arrows only lead into json and jsonb columns",
                column.name, column.type_name
            ))
            .with_column(&column.name));
        }
        Ok(Field { column, path, as_text })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.as_text {
            true => Kind::Text,
            false => self.column.kind,
        }
    }

    /// The field's key in the answer: the column's name, or the path's last name.
    pub(super) fn default_name(&self) -> &str {
        let name = self.path.iter().rev().find_map(|key| match key {
            PathKey::Name(name) => Some(name.as_str()),
            PathKey::Index(_) => None,
        });
        name.unwrap_or(&self.column.name)
    }
}

/// Checks a key of the answer that the caller chose. It becomes an identifier in the statement, so it may
/// only contain characters that need no escaping.
pub(super) fn check_output_name(name: &str) -> Result<(), DataError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '$' | '@');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(DataError::malformed_query(format!(
            "`{}` cannot name a column of the answer: up to {NAME_BYTES_MAX} bytes of letters, \
             digits, spaces and `_ - . $ @` can",
            clip(name)
        ))
        .with_hint("give it a plain alias, as in select=alias:column"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture;

    #[test]
    fn a_quoted_string_may_hold_quotes_and_backslashes() {
        let mut scanner = Scanner::new(r#""a\"b\\c",rest"#);
        assert_eq!(scanner.quoted().unwrap().unwrap(), r#"a"b\c"#);
        assert_eq!(scanner.rest(), ",rest");
        assert!(Scanner::new(r#""open"#).quoted().is_err());
        assert!(Scanner::new(r#""open\"#).quoted().is_err());
    }

    #[test]
    fn a_path_ends_with_its_text_arrow() {
        let model = fixture::shop();
        let orders = model.find_table("orders").unwrap();
        let mut scanner = Scanner::new(r#"details->lines->0->>"unit price".desc"#);
        let field = scanner.field(orders, &['.']).unwrap();
        assert_eq!(field.column.name, "details");
        assert_eq!(field.path.len(), 3);
        assert_eq!(field.path[1], PathKey::Index(0));
        assert_eq!(field.default_name(), "unit price");
        assert_eq!(field.kind(), Kind::Text);
        assert_eq!(scanner.rest(), ".desc");
    }

    #[test]
    fn a_path_into_a_plain_column_names_the_column() {
        let model = fixture::shop();
        let orders = model.find_table("orders").unwrap();
        let error = Scanner::new("total->x").field(orders, &[]).unwrap_err();
        assert_eq!(error.column.as_deref(), Some("total"));
    }
}
