//! Filters: `status=eq.paid`, `id=not.in.(1,2)`, `or=(total.gt.10,not.and(…))`: how conditions nest, and
//! where each value ends.

use super::error::{DataError, clip};
use super::model::{Column, Table};
use super::operator::{Operator, check_in, is_state, no_operator};
use super::request::Limits;
use super::scan::{Field, Scanner};

#[derive(Debug)]
pub(super) enum Filter<'m> {
    Condition(Condition<'m>),
    Group { negated: bool, joiner: Joiner, parts: Vec<Filter<'m>> },
}

impl<'m> Filter<'m> {
    /// The recursion is bounded by the depth of groups that the parser allows.
    pub(super) fn add_columns(&self, columns: &mut Vec<&'m Column>) {
        match self {
            Filter::Condition(condition) => columns.push(condition.field.column),
            Filter::Group { parts, .. } => parts.iter().for_each(|part| part.add_columns(columns)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joiner {
    And,
    Or,
}

#[derive(Debug)]
pub(super) struct Condition<'m> {
    pub(super) field: Field<'m>,
    pub(super) negated: bool,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    /// `field operator value`
    Compare { operator: &'static str, value: String },
    /// `field operator ANY (array)`, or `ALL`; the value is an array literal.
    CompareArray { operator: &'static str, quantifier: &'static str, value: String },
    /// `field IS state`
    Is(&'static str),
}

/// Parses the filters of one request and counts their conditions.
pub(super) struct FilterParser<'m, 'l> {
    table: &'m Table,
    limits: &'l Limits,
    conditions: usize,
}

impl<'m, 'l> FilterParser<'m, 'l> {
    pub(super) fn new(table: &'m Table, limits: &'l Limits) -> Self {
        FilterParser { table, limits, conditions: 0 }
    }

    /// The parameter `key=value`, where the key names a field.
    pub(super) fn condition(&mut self, key: &str, value: &str) -> Result<Filter<'m>, DataError> {
        let mut scanner = Scanner::new(key);
        let field = scanner.field(self.table, &[])?;
        if !scanner.is_empty() {
            return Err(DataError::malformed_query(format!("`{}` names no column", clip(key))));
        }
        self.test(field, &mut Scanner::new(value), Place::Parameter)
    }

    /// The parameter `and=(…)`, `or=(…)`, `not.and=(…)` or `not.or=(…)`.
    pub(super) fn group(
        &mut self,
        negated: bool,
        joiner: Joiner,
        value: &str,
    ) -> Result<Filter<'m>, DataError> {
        let mut scanner = Scanner::new(value);
        let group = self.group_parts(negated, joiner, &mut scanner, 1)?;
        match scanner.is_empty() {
            true => Ok(group),
            false => Err(DataError::malformed_query(format!(
                "`{}` follows the closing parenthesis",
                clip(scanner.rest())
            ))),
        }
    }

    /// `depth` bounds the recursion: groups hold groups.
    fn group_parts(
        &mut self,
        negated: bool,
        joiner: Joiner,
        scanner: &mut Scanner,
        depth: usize,
    ) -> Result<Filter<'m>, DataError> {
        if depth > self.limits.depth_max {
            return Err(DataError::limit_exceeded(format!(
                "and/or groups may nest {} deep at most",
                self.limits.depth_max
            )));
        }
        scanner.expect("(")?;
        let mut parts = Vec::new();
        loop {
            scanner.skip_spaces();
            parts.push(match group_head(scanner) {
                Some((negated, joiner)) => self.group_parts(negated, joiner, scanner, depth + 1)?,
                None => {
                    let field = scanner.field(self.table, &['.', ',', '(', ')'])?;
                    scanner.expect(".")?;
                    self.test(field, scanner, Place::Group)?
                }
            });
            scanner.skip_spaces();
            if !scanner.eat(",") {
                break;
            }
        }
        scanner.expect(")")?;
        Ok(Filter::Group { negated, joiner, parts })
    }

    /// The part after a field: `eq.5`, `not.in.(1,2)`, `like(any).{a*,b*}`.
    fn test(
        &mut self,
        field: Field<'m>,
        scanner: &mut Scanner,
        place: Place,
    ) -> Result<Filter<'m>, DataError> {
        self.conditions += 1;
        if self.conditions > self.limits.filters_max {
            return Err(DataError::limit_exceeded(format!(
                "a request may hold {} filters at most",
                self.limits.filters_max
            )));
        }
        let negated = scanner.eat("not.");
        let start = *scanner;
        let name = scanner.take_until(|next, _| matches!(next, '.' | '(' | ',' | ')'));
        let quantifier = if scanner.eat("(any)") {
            Some("ANY")
        } else if scanner.eat("(all)") {
            Some("ALL")
        } else {
            None
        };
        if !scanner.eat(".") {
            return Err(no_operator(&field, start.rest()));
        }
        let test = match (name, quantifier) {
            ("is", None) => Test::Is(is_state(&field, &place.value(scanner))?),
            ("in", None) => self.in_list(&field, scanner, place)?,
            _ => self.compare(name, quantifier, &field, place.value(scanner))?,
        };
        Ok(Filter::Condition(Condition { field, negated, test }))
    }

    fn compare(
        &self,
        name: &str,
        quantifier: Option<&'static str>,
        field: &Field,
        value: String,
    ) -> Result<Test, DataError> {
        let operator = Operator::get(name, quantifier.is_some(), field)?;
        let value = operator.value(value);
        let operator = operator.sql;
        let Some(quantifier) = quantifier else {
            return Ok(Test::Compare { operator, value });
        };
        self.check_list_length(value.split(',').count())?;
        Ok(Test::CompareArray { operator, quantifier, value })
    }

    /// `in.(…)` is one array parameter, so a list of any length is the same
    /// statement, and PostgreSQL takes the array's type from the column.
    fn in_list(
        &self,
        field: &Field,
        scanner: &mut Scanner,
        place: Place,
    ) -> Result<Test, DataError> {
        check_in(field)?;
        scanner.expect("(")?;
        let mut values = Vec::new();
        if !scanner.eat(")") {
            loop {
                values.push(list_value(scanner));
                self.check_list_length(values.len())?;
                if !scanner.eat(",") {
                    break;
                }
            }
            scanner.expect(")")?;
        }
        if place == Place::Parameter && !scanner.is_empty() {
            return Err(DataError::malformed_query(format!(
                "`{}` follows the list of `in`; quote values that hold commas or parentheses",
                clip(scanner.rest())
            ))
            .with_column(&field.column.name));
        }
        Ok(Test::CompareArray { operator: "=", quantifier: "ANY", value: array_literal(&values) })
    }

    fn check_list_length(&self, length: usize) -> Result<(), DataError> {
        if length > self.limits.in_values_max {
            return Err(DataError::limit_exceeded(format!(
                "a list may hold {} values at most",
                self.limits.in_values_max
            )));
        }
        Ok(())
    }
}

/// The context of a test, which determines where its value ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The value is the rest of the parameter.
    Parameter,
    /// The value ends at a comma or parenthesis, unless it is quoted.
    Group,
}

impl Place {
    fn value(self, scanner: &mut Scanner) -> String {
        match self {
            Place::Parameter => scanner.take(scanner.rest().len()).to_owned(),
            Place::Group if scanner.starts_with("{") => braced_value(scanner).to_owned(),
            Place::Group => list_value(scanner),
        }
    }
}

/// A value in a list. Quotes count only around the whole value.
fn list_value(scanner: &mut Scanner) -> String {
    let mut ahead = *scanner;
    if let Ok(Some(value)) = ahead.quoted()
        && (ahead.starts_with(",") || ahead.starts_with(")"))
    {
        *scanner = ahead;
        return value;
    }
    scanner.take_until(|next, _| matches!(next, ',' | ')')).to_owned()
}

/// `{…}`, an array or a JSON object, up to its closing brace.
fn braced_value<'a>(scanner: &mut Scanner<'a>) -> &'a str {
    let (mut depth, mut in_quotes, mut escaped) = (0_usize, false, false);
    for (at, next) in scanner.rest().char_indices() {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_quotes = !in_quotes,
            '{' if !in_quotes => depth += 1,
            '}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return scanner.take(at + 1);
                }
            }
            _ => {}
        }
    }
    scanner.take_until(|next, _| matches!(next, ',' | ')'))
}

/// Skips `and`, `or`, `not.and` or `not.or` if a parenthesis follows.
fn group_head(scanner: &mut Scanner) -> Option<(bool, Joiner)> {
    let mut ahead = *scanner;
    let negated = ahead.eat("not.");
    let joiner = if ahead.eat("and") {
        Joiner::And
    } else if ahead.eat("or") {
        Joiner::Or
    } else {
        return None;
    };
    if !ahead.starts_with("(") {
        return None;
    }
    *scanner = ahead;
    Some((negated, joiner))
}

/// The values as a PostgreSQL array literal. Every value is quoted, so that none is read as NULL, a brace or
/// a comma.
fn array_literal(values: &[String]) -> String {
    let mut literal = String::from("{");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            literal.push(',');
        }
        literal.push('"');
        for next in value.chars() {
            if matches!(next, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(next);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}
