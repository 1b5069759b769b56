//! The data API, `/v1/data/{table}`: PostgREST's URL dialect over the tables of a baseline, with one SQL
//! statement per request.
//!
//! Everything here is pure. [`plan`] turns a request into a statement and its parameters, the caller runs it
//! in the tenant's context, [`answer`] turns the one row of the result into HTTP, and [`from_database`] turns
//! an error of PostgreSQL into one that names the column and contains none of PostgreSQL's text. PostgreSQL
//! decides about permissions: this module checks none.
//!
//! A request passes through the files in this order:
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
//! `batch` parses requests in a JSON body, several at once. `shape` derives a request's shape, for advice on
//! indexes.
//!
//! `model` is what names are checked against.
//!
//! Not supported, and refused by name: embedded tables and aggregates in `select` (make a view), full-text
//! search, regular expressions and range operators, `limit` on writes, PUT, and CSV.

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
mod request;
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
pub(crate) use request::{DataRequest, Limits};
pub(crate) use shape::{Shape, shape};
