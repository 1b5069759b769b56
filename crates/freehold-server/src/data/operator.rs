//! The operators of filters: their SQL, the types to which they apply, and the errors for unknown or
//! unsuitable operators.

use super::error::{DataError, clip};
use super::model::Kind;
use super::scan::Field;

pub(super) struct Operator {
    name: &'static str,
    pub(super) sql: &'static str,
    takes: Takes,
    /// `name(any)` and `name(all)` exist.
    quantified: bool,
}

/// The types to which an operator applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Comparable,
    /// A pattern follows, in which `*` means `%`.
    Text,
    ArrayOrJsonb,
    Array,
}

const fn operator(
    name: &'static str,
    sql: &'static str,
    takes: Takes,
    quantified: bool,
) -> Operator {
    Operator { name, sql, takes, quantified }
}

const OPERATORS: [Operator; 12] = [
    operator("eq", "=", Takes::Comparable, true),
    operator("neq", "<>", Takes::Comparable, false),
    operator("gt", ">", Takes::Comparable, true),
    operator("gte", ">=", Takes::Comparable, true),
    operator("lt", "<", Takes::Comparable, true),
    operator("lte", "<=", Takes::Comparable, true),
    operator("isdistinct", "IS DISTINCT FROM", Takes::Comparable, false),
    operator("like", "LIKE", Takes::Text, true),
    operator("ilike", "ILIKE", Takes::Text, true),
    operator("cs", "@>", Takes::ArrayOrJsonb, false),
    operator("cd", "<@", Takes::ArrayOrJsonb, false),
    operator("ov", "&&", Takes::Array, false),
];

const OPERATORS_LISTED: &str = "eq, neq, gt, gte, lt, lte, like, ilike, in, is, isdistinct, cs, \
     cd and ov, each with `not.` before it; eq, gt, gte, lt, lte, like and ilike also with (any) \
     and (all)";

impl Operator {
    /// The operator `name`, if it applies to the field's type; `listed` means `name(any)` or `name(all)`.
    pub(super) fn get(
        name: &str,
        listed: bool,
        field: &Field,
    ) -> Result<&'static Operator, DataError> {
        let known = |operator: &&Operator| operator.name == name;
        let Some(operator) = OPERATORS.iter().find(known) else {
            return Err(not_an_operator(name).with_column(&field.column.name));
        };
        operator.takes.check(name, field)?;
        if listed && !operator.quantified {
            return Err(not_an_operator(&format!("{name}(any)")).with_column(&field.column.name));
        }
        if listed {
            refuse_array(name, field)?;
        }
        Ok(operator)
    }

    /// The value in the form that the operator's SQL expects.
    pub(super) fn value(&self, value: String) -> String {
        match self.takes {
            Takes::Text => value.replace('*', "%"),
            _ => value,
        }
    }
}

/// Checks that `in` applies to the field's type.
pub(super) fn check_in(field: &Field) -> Result<(), DataError> {
    Takes::Comparable.check("in", field)?;
    refuse_array("in", field)
}

/// The state that `is.value` tests for, in SQL.
pub(super) fn is_state(field: &Field, value: &str) -> Result<&'static str, DataError> {
    let state = match value.to_ascii_lowercase().as_str() {
        "null" => "NULL",
        "not_null" => "NOT NULL",
        "true" => "TRUE",
        "false" => "FALSE",
        "unknown" => "UNKNOWN",
        _ => {
            return Err(DataError::malformed_query(format!(
                "`is` takes null, not_null, true, false or unknown, not `{}`",
                clip(value)
            ))
            .with_column(&field.column.name));
        }
    };
    if !state.ends_with("NULL") && field.kind() != Kind::Boolean {
        return Err(wrong_type(&format!("is.{value}"), field, "boolean columns"));
    }
    Ok(state)
}

impl Takes {
    fn check(self, operator: &str, field: &Field) -> Result<(), DataError> {
        let kind = field.kind();
        let (fits, wanted) = match self {
            Takes::Comparable => (kind != Kind::Json, "types that compare, which json does not"),
            Takes::Text => (kind == Kind::Text, "text columns"),
            Takes::Array => (kind == Kind::Array, "array columns"),
            Takes::ArrayOrJsonb => {
                (matches!(kind, Kind::Array | Kind::Jsonb), "array and jsonb columns")
            }
        };
        match fits {
            true => Ok(()),
            false => Err(wrong_type(operator, field, wanted)),
        }
    }
}

fn refuse_array(operator: &str, field: &Field) -> Result<(), DataError> {
    match field.kind() {
        Kind::Array => {
            Err(wrong_type(operator, field, "single values; for arrays there are cs, cd and ov"))
        }
        _ => Ok(()),
    }
}

fn wrong_type(operator: &str, field: &Field, wanted: &str) -> DataError {
    let column = field.column;
    DataError::malformed_query(format!(
        "{} is {}, and `{}` works on {wanted}",
        column.name,
        column.type_name,
        clip(operator)
    ))
    .with_column(&column.name)
}

fn not_an_operator(name: &str) -> DataError {
    let error = match name {
        "match" | "imatch" => DataError::not_supported(
            "regular expressions are not supported: one can keep the database busy for as long \
             as it likes",
        ),
        _ => DataError::not_supported(format!("`{}` is not an operator", clip(name))),
    };
    error.with_hint(format!("there are {OPERATORS_LISTED}"))
}

/// The error for `column=value`.
pub(super) fn no_operator(field: &Field, found: &str) -> DataError {
    let column = &field.column.name;
    DataError::malformed_query(format!(
        "`{}` has no operator between {column} and its value",
        clip(found)
    ))
    .with_column(column)
    .with_hint(format!("write {column}=eq.value; there are {OPERATORS_LISTED}"))
}
