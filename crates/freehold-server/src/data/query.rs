//! Parses the query string: `select`, `order`, `limit`, `offset`, `columns`, `on_conflict`, and every other
//! parameter as a filter.

use percent_encoding::percent_decode_str;

use super::error::{DataError, clip};
use super::filter::{Filter, FilterParser, Joiner};
use super::model::{Column, Kind, Table};
use super::request::Limits;
use super::scan::{Field, Scanner, check_output_name};

/// The parsed query string, checked against the table.
#[derive(Debug, Default)]
pub(super) struct Query<'m> {
    /// Empty means every column.
    pub(super) select: Vec<SelectItem<'m>>,
    /// All of them must hold.
    pub(super) filters: Vec<Filter<'m>>,
    pub(super) order: Vec<OrderTerm<'m>>,
    pub(super) limit: Option<u64>,
    pub(super) offset: Option<u64>,
    /// The keys of the body to write; others are ignored.
    pub(super) columns: Option<Vec<&'m Column>>,
    pub(super) on_conflict: Option<Vec<&'m Column>>,
}

#[derive(Debug)]
pub(super) enum SelectItem<'m> {
    /// `*`
    All,
    Field {
        field: Field<'m>,
        cast: Option<&'static str>,
        /// Its key in the answer.
        name: String,
    },
}

impl SelectItem<'_> {
    /// The column's name, if the item is a plain column.
    fn plain_column(&self) -> Option<&str> {
        match self {
            SelectItem::Field { field, cast: None, name }
                if field.path.is_empty() && *name == field.column.name =>
            {
                Some(name)
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct OrderTerm<'m> {
    pub(super) field: Field<'m>,
    pub(super) descending: bool,
    pub(super) nulls_first: Option<bool>,
}

/// The type names that `select=column::name` accepts, and their types.
const CASTS: [(&str, &str); 22] = [
    ("bigint", "bigint"),
    ("bool", "boolean"),
    ("boolean", "boolean"),
    ("date", "date"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("int", "integer"),
    ("int2", "smallint"),
    ("int4", "integer"),
    ("int8", "bigint"),
    ("integer", "integer"),
    ("interval", "interval"),
    ("json", "json"),
    ("jsonb", "jsonb"),
    ("numeric", "numeric"),
    ("real", "real"),
    ("smallint", "smallint"),
    ("text", "text"),
    ("time", "time"),
    ("timestamp", "timestamp"),
    ("timestamptz", "timestamptz"),
    ("uuid", "uuid"),
];

impl<'m> Query<'m> {
    pub(super) fn parse(
        table: &'m Table,
        text: &str,
        limits: &Limits,
    ) -> Result<Query<'m>, DataError> {
        let mut query = Query::default();
        let mut filters = FilterParser::new(table, limits);
        let mut seen = Vec::new();
        for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            let filter = match key.as_str() {
                "and" => filters.group(false, Joiner::And, &value)?,
                "or" => filters.group(false, Joiner::Or, &value)?,
                "not.and" => filters.group(true, Joiner::And, &value)?,
                "not.or" => filters.group(true, Joiner::Or, &value)?,
                "select" | "order" | "limit" | "offset" | "columns" | "on_conflict" => {
                    if seen.contains(&key) {
                        return Err(DataError::malformed_query(format!("{key} is given twice")));
                    }
                    query.set(table, &key, &value, limits)?;
                    seen.push(key);
                    continue;
                }
                _ => filters.condition(&key, &value)?,
            };
            query.filters.push(filter);
        }
        Ok(query)
    }

    /// Every column that is selected, compared or sorted by.
    pub(super) fn columns_read(&self) -> Vec<&'m Column> {
        let selected = self.select.iter().filter_map(|item| match item {
            SelectItem::All => None,
            SelectItem::Field { field, .. } => Some(field.column),
        });
        let mut columns: Vec<&Column> = selected.collect();
        self.filters.iter().for_each(|filter| filter.add_columns(&mut columns));
        columns.extend(self.order.iter().map(|term| term.field.column));
        columns.extend(self.on_conflict.iter().flatten());
        columns
    }

    fn set(
        &mut self,
        table: &'m Table,
        key: &str,
        value: &str,
        limits: &Limits,
    ) -> Result<(), DataError> {
        match key {
            "select" => self.select = select_list(table, value, limits)?,
            "order" => self.order = order_terms(table, value, limits)?,
            "limit" => self.limit = Some(whole_number(key, value)?),
            "offset" => self.offset = Some(whole_number(key, value)?),
            "columns" => self.columns = Some(column_list(table, value)?),
            _ => self.on_conflict = Some(column_list(table, value)?),
        }
        Ok(())
    }
}

/// One part of a query string. A plus is a space, as in HTML forms: `URLSearchParams`, which browser clients
/// use, encodes it so.
fn decode(text: &str) -> Result<String, DataError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| DataError::malformed_query("the query string is not UTF-8"))?;
    match decoded.contains('\0') {
        true => Err(DataError::malformed_query(
            "the query string holds a NUL, which PostgreSQL cannot store",
        )),
        false => Ok(decoded.into_owned()),
    }
}

fn whole_number(key: &str, value: &str) -> Result<u64, DataError> {
    match value.parse::<u64>() {
        Ok(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => Err(DataError::malformed_query(format!(
            "{key} is a whole number from 0 on, not `{}`",
            clip(value)
        ))),
    }
}

/// `columns="a","b"` and `on_conflict=a,b`.
fn column_list<'m>(table: &'m Table, value: &str) -> Result<Vec<&'m Column>, DataError> {
    let mut scanner = Scanner::new(value);
    let mut columns: Vec<&Column> = Vec::new();
    loop {
        scanner.skip_spaces();
        let column = table.get_column(&scanner.name(&[','])?)?;
        if !columns.iter().any(|earlier| earlier.name == column.name) {
            columns.push(column);
        }
        if !scanner.eat(",") {
            break;
        }
    }
    match scanner.is_empty() {
        true => Ok(columns),
        false => Err(unexpected(&scanner)),
    }
}

fn select_list<'m>(
    table: &'m Table,
    value: &str,
    limits: &Limits,
) -> Result<Vec<SelectItem<'m>>, DataError> {
    let mut items = Vec::new();
    let mut names: Vec<String> = Vec::new();
    // `select('', { head: true })` is how clients request a count only.
    if value.trim().is_empty() {
        return Ok(items);
    }
    let mut scanner = Scanner::new(value);
    loop {
        scanner.skip_spaces();
        let item = select_item(table, &mut scanner)?;
        if !repeats_a_column(&items, &item) {
            let added: Vec<String> = match &item {
                SelectItem::All => table.columns.iter().map(|c| c.name.clone()).collect(),
                SelectItem::Field { name, .. } => vec![name.clone()],
            };
            if let Some(twice) = added.iter().find(|name| names.contains(name)) {
                return Err(DataError::malformed_query(format!(
                    "the answer would have two keys {}",
                    clip(twice)
                ))
                .with_hint("give one of them an alias, as in select=alias:column"));
            }
            names.extend(added);
            items.push(item);
        }
        check_count("select", items.len(), limits)?;
        scanner.skip_spaces();
        if !scanner.eat(",") {
            break;
        }
    }
    match scanner.is_empty() {
        true => Ok(items),
        false => Err(unexpected(&scanner)),
    }
}

/// `*,id` and `id,id` are harmless, and some clients send them.
fn repeats_a_column(items: &[SelectItem], item: &SelectItem) -> bool {
    let Some(column) = item.plain_column() else {
        return false;
    };
    items.iter().any(|earlier| match earlier {
        SelectItem::All => true,
        field => field.plain_column() == Some(column),
    })
}

/// `*`, `column`, `alias:column`, `column::type`, `alias:column->key::type`.
fn select_item<'m>(table: &'m Table, scanner: &mut Scanner) -> Result<SelectItem<'m>, DataError> {
    const STOPS: [char; 4] = [',', ':', '(', '!'];
    let mut ahead = *scanner;
    if ahead.eat("*") {
        *scanner = ahead;
        return Ok(SelectItem::All);
    }
    let first = ahead.name(&STOPS)?;
    let alias = match ahead.starts_with(":") && !ahead.starts_with("::") {
        true => {
            ahead.eat(":");
            *scanner = ahead;
            ahead.name(&STOPS)?;
            Some(first)
        }
        false => None,
    };
    if ahead.starts_with("(") || ahead.starts_with("!") || scanner.starts_with("...") {
        return Err(DataError::not_supported(format!(
            "`{}` asks for an embedded table or an aggregate, and neither is supported",
            clip(scanner.rest())
        ))
        .with_hint("select columns of one table, or make a view that joins or aggregates"));
    }
    let field = scanner.field(table, &STOPS)?;
    let cast = match scanner.eat("::") {
        true => Some(cast(scanner.take_until(|next, _| next == ','))?),
        false => None,
    };
    let chosen = alias.is_some() || !field.path.is_empty();
    let name = alias.unwrap_or_else(|| field.default_name().to_owned());
    if chosen {
        check_output_name(&name)?;
    }
    Ok(SelectItem::Field { field, cast, name })
}

fn cast(name: &str) -> Result<&'static str, DataError> {
    let name = name.trim();
    match CASTS.iter().find(|(known, _)| *known == name) {
        Some((_, sql)) => Ok(sql),
        None => {
            let known: Vec<&str> = CASTS.iter().map(|(known, _)| *known).collect();
            Err(DataError::not_supported(format!("a column cannot be cast to `{}`", clip(name)))
                .with_hint(format!("there are {}", known.join(", "))))
        }
    }
}

/// `column`, then `.asc` or `.desc`, then `.nullsfirst` or `.nullslast`.
fn order_terms<'m>(
    table: &'m Table,
    value: &str,
    limits: &Limits,
) -> Result<Vec<OrderTerm<'m>>, DataError> {
    let mut scanner = Scanner::new(value);
    let mut terms = Vec::new();
    loop {
        scanner.skip_spaces();
        let field = scanner.field(table, &['.', ',', '('])?;
        if field.kind() == Kind::Json {
            let message = format!("{} is json, which has no order", field.column.name);
            return Err(DataError::malformed_query(message).with_column(&field.column.name));
        }
        let descending = scanner.eat(".desc");
        if !descending {
            scanner.eat(".asc");
        }
        let nulls_first = if scanner.eat(".nullsfirst") {
            Some(true)
        } else if scanner.eat(".nullslast") {
            Some(false)
        } else {
            None
        };
        terms.push(OrderTerm { field, descending, nulls_first });
        check_count("order", terms.len(), limits)?;
        scanner.skip_spaces();
        if !scanner.eat(",") {
            break;
        }
    }
    match scanner.is_empty() {
        true => Ok(terms),
        false => Err(unexpected(&scanner)
            .with_hint("order=column.desc.nullslast, with .asc or .desc and the nulls optional")),
    }
}

fn check_count(what: &str, count: usize, limits: &Limits) -> Result<(), DataError> {
    if count > limits.columns_max {
        return Err(DataError::limit_exceeded(format!(
            "{what} may name {} columns at most",
            limits.columns_max
        )));
    }
    Ok(())
}

fn unexpected(scanner: &Scanner) -> DataError {
    DataError::malformed_query(format!("`{}` was not expected", clip(scanner.rest())))
}
