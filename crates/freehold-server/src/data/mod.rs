//! The data API, `/v1/data/{table}`: PostgREST's URL dialect over the tables
//! of a baseline, one SQL statement a request.
//!
//! Everything here is pure. [`plan`] turns a request into a statement and its
//! parameters, the caller runs it in the tenant's context, [`answer`] turns the
//! one row it yields into HTTP, and [`from_database`] turns a refusal by
//! PostgreSQL into one that names the column and holds none of its text.
//! Who may do what is PostgreSQL's to decide: this module checks no rights.
//!
//! A request goes through the files in this order:
//!
//! | file | what it does |
//! | --- | --- |
//! | `headers` | reads `Prefer`, `Accept`, `Range` |
//! | `query` | reads the query string: `select`, `order`, paging, and by … |
//! | `filter` | … the filters, whose operators are in `operator`; both read with `scan` |
//! | `body` | finds the columns a JSON body gives |
//! | `plan` | decides, for each method, what all this means together |
//! | `sql` | writes the statement |
//! | `answer` | status, headers and body of the response |
//! | `error`, `database` | refusals: our own, and PostgreSQL's translated |
//!
//! `batch` reads requests that come as JSON, many in one. `shape` says what a
//! request asks, for advice on indexes.
//!
//! `model` is what they all check names against.
//!
//! Left out of the dialect, each refused by name: embedded tables and
//! aggregates in `select` (make a view), full-text search, regular expressions
//! and range operators, `limit` on writes, PUT, and CSV.

mod answer;
mod batch;
mod body;
mod database;
mod error;
mod filter;
#[cfg(test)]
mod fixture;
mod headers;
mod model;
mod operator;
mod plan;
mod query;
mod scan;
mod shape;
mod sql;
#[cfg(test)]
mod tests;

pub(crate) use answer::{Answer, AnswerRow, answer};
pub(crate) use batch::{BatchLimits, Operation};
pub(crate) use database::{DatabaseError, from_database};
pub(crate) use error::DataError;
pub(crate) use model::{MODEL_SQL, Model, Role};
pub(crate) use plan::{Plan, plan};
pub(crate) use shape::{Shape, shape};

/// Where the router mounts this API; `Location` headers begin with it.
pub(crate) const PATH: &str = "/v1/data";

/// One request, as the router has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataRequest<'a> {
    pub(crate) method: &'a http::Method,
    /// The path's segment after [`PATH`], percent-decoded.
    pub(crate) table: &'a str,
    /// The raw query string, without its question mark.
    pub(crate) query: &'a str,
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) body: &'a [u8],
}

/// How much one request may ask. The size of the body is the HTTP layer's to limit.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Rows of a page, and of what a PATCH or DELETE may return.
    pub(crate) page_rows_max: u64,
    pub(crate) insert_rows_max: usize,
    /// Different sets of keys in one insert with `missing=default`.
    pub(crate) insert_groups_max: usize,
    pub(crate) filters_max: usize,
    /// Nesting of `and` and `or`.
    pub(crate) depth_max: usize,
    /// Values of one `in.(…)`, `eq(any).{…}` and their like.
    pub(crate) in_values_max: usize,
    /// Items of `select`, and of `order`.
    pub(crate) columns_max: usize,
    pub(crate) query_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            page_rows_max: 1_000,
            insert_rows_max: 1_000,
            insert_groups_max: 16,
            filters_max: 64,
            depth_max: 8,
            in_values_max: 500,
            columns_max: 200,
            query_bytes_max: 16 * 1024,
        }
    }
}
