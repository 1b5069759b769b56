//! How the OpenAPI document describes the data API: its parameters, and rows, of which it can only say that
//! they are objects. `crate::data` defines their meaning.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// A row: columns and their values.
pub(super) struct RowBody;
/// Rows of the table.
pub(super) struct RowsBody;
/// One row or many.
pub(super) struct RowOrRowsBody;

impl ToSchema for RowBody {}
impl ToSchema for RowsBody {}
impl ToSchema for RowOrRowsBody {}

impl PartialSchema for RowBody {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Object).into()
    }
}

impl PartialSchema for RowsBody {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(RowBody::schema()).into()
    }
}

impl PartialSchema for RowOrRowsBody {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new().item(RowBody::schema()).item(RowsBody::schema()).into()
    }
}

/// The path.
pub(super) struct Table;
/// Of GET and HEAD.
pub(super) struct Read;
/// Of POST.
pub(super) struct Insert;
/// Of PATCH and DELETE.
pub(super) struct Change;

const SELECT: (&str, &str) =
    ("select", "Columns to return, as in `select=id,alias:name,details->>city,total::text`");
const ORDER: (&str, &str) = ("order", "As in `order=created_at.desc.nullslast,id`");
const FILTERS: [(&str, &str); 2] = [
    ("or", "Any of these must hold, as in `or=(status.eq.paid,total.gt.10)`"),
    (
        "and",
        "All of these must hold. Any other parameter names a column and is a filter, as in `status=eq.paid`",
    ),
];

impl IntoParams for Table {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            ParameterBuilder::from(text(
                "table",
                ParameterIn::Path,
                "A table or view of the baseline",
            ))
            .required(Required::True)
            .build(),
        ]
    }
}

impl IntoParams for Read {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = texts([SELECT, ORDER]);
        parameters.extend(texts(FILTERS));
        parameters.push(number("limit", "How many rows at most"));
        parameters.push(number("offset", "How many rows to pass over"));
        parameters.push(prefer(
            "`count=exact`, and `read=replica` for rows that may be some seconds old, where there are replicas",
        ));
        parameters.push(text(
            "Freehold-LSN",
            ParameterIn::Header,
            "With `read=replica`: the `Freehold-LSN` of a write that must be seen",
        ));
        parameters.push(text("Range", ParameterIn::Header, "First and last row, as in `0-24`"));
        parameters.push(text(
            "Cache-Control",
            ParameterIn::Header,
            "`max-age=N` takes an answer that was made for the same person up to N seconds ago, with its `Age`; of GET",
        ));
        parameters
    }
}

impl IntoParams for Insert {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = texts([
            SELECT,
            ("columns", "The body's keys to write; others are left alone"),
            ("on_conflict", "The columns of the unique key that an upsert goes by"),
        ]);
        parameters.push(prefer(
            "`return=representation`, `return=headers-only`, `resolution=merge-duplicates`, \
             `resolution=ignore-duplicates`, `missing=default`",
        ));
        parameters
    }
}

impl IntoParams for Change {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = texts([SELECT, ORDER]);
        parameters.extend(texts(FILTERS));
        parameters.push(prefer("`return=representation`, `max-affected=1`, `allow-unfiltered`"));
        parameters
    }
}

fn texts<const N: usize>(parameters: [(&str, &str); N]) -> Vec<Parameter> {
    parameters.map(|(name, description)| text(name, ParameterIn::Query, description)).into()
}

fn prefer(preferences: &str) -> Parameter {
    text("Prefer", ParameterIn::Header, &format!("RFC 7240, among others {preferences}"))
}

fn text(name: &str, place: ParameterIn, description: &str) -> Parameter {
    parameter(name, place, description, ObjectBuilder::new().schema_type(Type::String))
}

fn number(name: &str, description: &str) -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    parameter(name, ParameterIn::Query, description, schema)
}

fn parameter(
    name: &str,
    place: ParameterIn,
    description: &str,
    schema: ObjectBuilder,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(Schema::from(schema)))
        .build()
}
