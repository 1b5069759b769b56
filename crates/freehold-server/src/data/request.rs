//! A request to the data API, and its limits.

use http::Method;

use super::error::DataError;

/// The path at which the router mounts this API; `Location` headers begin with it.
pub(crate) const PATH: &str = "/v1/data";

/// One request, as the router passes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataRequest<'a> {
    pub(crate) method: &'a Method,
    /// The path's segment after [`PATH`], percent-decoded.
    pub(crate) table: &'a str,
    /// The raw query string, without its question mark.
    pub(crate) query: &'a str,
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The action of a request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read { head: bool },
    Insert,
    Update,
    Delete,
}

impl Action {
    pub(super) fn of(method: &Method) -> Result<Action, DataError> {
        match *method {
            Method::GET => Ok(Action::Read { head: false }),
            Method::HEAD => Ok(Action::Read { head: true }),
            Method::POST => Ok(Action::Insert),
            Method::PATCH => Ok(Action::Update),
            Method::DELETE => Ok(Action::Delete),
            _ => Err(DataError::method_not_allowed()),
        }
    }
}

/// The limits of one request. The HTTP layer limits the size of the body.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The most rows of a page, and of the result of a PATCH or DELETE.
    pub(crate) page_rows_max: u64,
    pub(crate) insert_rows_max: usize,
    /// The most different sets of keys in one insert with `missing=default`.
    pub(crate) insert_groups_max: usize,
    pub(crate) filters_max: usize,
    /// The deepest nesting of `and` and `or`.
    pub(crate) depth_max: usize,
    /// The most values of one `in.(…)`, `eq(any).{…}` and the like.
    pub(crate) in_values_max: usize,
    /// The most items of `select`, and of `order`.
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
