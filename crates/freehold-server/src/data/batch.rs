//! One operation of a batch: a request to this API, written as a JSON object. Parts of a request line or its
//! headers that could bypass the router are excluded: a path must be this API's, and only headers that a plan
//! reads are accepted.

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{DataError, clip};
use super::request::{DataRequest, Limits, PATH};

/// The headers that an operation may have.
const HEADERS: [HeaderName; 5] = [
    ACCEPT,
    CONTENT_TYPE,
    RANGE,
    HeaderName::from_static("prefer"),
    HeaderName::from_static("range-unit"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Box<RawValue>>,
}

/// The parts of an operation, as the router would provide them.
#[derive(Debug)]
pub(crate) struct Operation {
    method: Method,
    table: String,
    query: String,
    headers: HeaderMap,
    body: String,
}

impl Operation {
    pub(crate) fn parse(json: &str) -> Result<Operation, DataError> {
        let Written { method, path, headers, body } = serde_json::from_str(json)
            .map_err(|error| refused(format!("this is no operation: {error}")))?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| refused("the method is no method of HTTP").with_column("method"))?;
        let (table, query) = parse_path(&path)?;
        let body = body.map_or_else(String::new, |body| body.get().to_owned());
        if !body.is_empty() && method != Method::POST && method != Method::PATCH {
            return Err(refused(format!("a {method} takes no body")).with_column("body"));
        }
        Ok(Operation { method, table, query, headers: parse_headers(&headers)?, body })
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(crate) fn request(&self) -> DataRequest<'_> {
        DataRequest {
            method: &self.method,
            table: &self.table,
            query: &self.query,
            headers: &self.headers,
            body: self.body.as_bytes(),
        }
    }
}

/// The table and the query string of `/v1/data/orders?…` or `/orders?…`.
fn parse_path(path: &str) -> Result<(String, String), DataError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let elsewhere = || {
        refused(format!(
            "an operation is about a table: {PATH}/<table>, or /<table>; not {}",
            clip(path)
        ))
        .with_column("path")
    };
    let below = path.strip_prefix(PATH).filter(|below| below.starts_with('/')).unwrap_or(path);
    let segment = below.strip_prefix('/').ok_or_else(elsewhere)?;
    if segment.is_empty() || segment.contains('/') || path.contains('#') || query.contains('#') {
        return Err(elsewhere());
    }
    // Decoded as by the router: once, and a slash that results is part of a name.
    let table = percent_decode_str(segment).decode_utf8().map_err(|_| elsewhere())?;
    Ok((table.into_owned(), query.to_owned()))
}

fn parse_headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, DataError> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let known = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some(name) = known.filter(|name| HEADERS.contains(name)) else {
            return Err(refused(format!(
                "an operation takes the headers Accept, Content-Type, Prefer, Range and \
                 Range-Unit, and not {}",
                clip(name)
            ))
            .with_column("headers")
            .with_hint("who asks is said once, by the batch"));
        };
        let value = HeaderValue::from_str(value).map_err(|_| {
            refused(format!("the value of {name} is none of a header")).with_column("headers")
        })?;
        if headers.insert(&name, value).is_some() {
            return Err(refused(format!("{name} is there twice")).with_column("headers"));
        }
    }
    Ok(headers)
}

fn refused(message: impl Into<String>) -> DataError {
    DataError::new(StatusCode::BAD_REQUEST, "malformed_operation", message)
}

/// The limits of a whole batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) operations_max: usize,
    /// The most rows of all answers of a batch together.
    pub(crate) rows_max: u64,
}

impl BatchLimits {
    /// Enough for several full pages, or a few rows for each of many operations.
    pub(crate) fn new(operations_max: usize, page_rows_max: u64) -> BatchLimits {
        const PAGES: u64 = 5;
        BatchLimits { operations_max, rows_max: page_rows_max.saturating_mul(PAGES) }
    }

    /// The limits of one operation. The number of rows that a PATCH or DELETE returns is not known in
    /// advance, so each may return its share.
    pub(crate) fn of(&self, operation: &Operation, single: &Limits) -> Limits {
        let mut limits = single.clone();
        if !operation.is_read() {
            let share = self.rows_max / self.operations_max.max(1) as u64;
            limits.page_rows_max = limits.page_rows_max.min(share.max(1));
        }
        limits
    }

    /// Refuses a batch whose answers could have more rows than allowed.
    pub(crate) fn check_rows(&self, asked: u64) -> Result<(), DataError> {
        if asked <= self.rows_max {
            return Ok(());
        }
        Err(DataError::limit_exceeded(format!(
            "the answers of a batch may have {} rows together, and these may have {asked}",
            self.rows_max
        ))
        .with_hint("give each read a limit"))
    }

    pub(crate) fn check_operations(&self, count: usize) -> Result<(), DataError> {
        match (1..=self.operations_max).contains(&count) {
            true => Ok(()),
            false => Err(DataError::limit_exceeded(format!(
                "a batch has 1 to {} operations, and this has {count}",
                self.operations_max
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_table_or_nowhere() {
        for (path, table, query) in [
            ("/v1/data/orders", "orders", ""),
            ("/orders", "orders", ""),
            ("/orders?id=eq.1&select=id", "orders", "id=eq.1&select=id"),
            ("/orders?x=eq./v1/tenants?y", "orders", "x=eq./v1/tenants?y"),
            ("/order%20items", "order items", ""),
            // Names of tables that do not exist, as with the router.
            ("/v1/data/..", "..", ""),
            ("/v1/data/..%2Ftenants", "../tenants", ""),
            ("/v1%2Ftenants", "v1/tenants", ""),
            ("/%252e%252e", "%2e%2e", ""),
            ("/v1", "v1", ""),
            ("/orders;x=y", "orders;x=y", ""),
            ("/\\tenants", "\\tenants", ""),
        ] {
            let parsed = parse_path(path);
            assert_eq!(parsed, Ok((table.to_owned(), query.to_owned())), "{path}");
        }
        for path in [
            "",
            "/",
            "orders",
            "?id=eq.1",
            "/v1/data",
            "/v1/data/",
            "/v1/batch",
            "/v1/tenants",
            "/v1/data/../tenants",
            "/v1/data/orders/../../tenants",
            "/v1/data//orders",
            "//other.example/orders",
            "/v1/data/orders/",
            "/orders#fragment",
            "/orders?id=eq.1#fragment",
            "http://other.example/v1/data/orders",
            "HTTP://other.example/orders",
            "/%ff",
        ] {
            assert_eq!(parse_path(path).unwrap_err().code, "malformed_operation", "{path}");
        }
    }

    #[test]
    fn an_operation_sends_along_what_a_plan_reads_and_nothing_else() {
        let operation = |headers: &str| {
            Operation::parse(&format!(r#"{{"method":"GET","path":"/orders","headers":{headers}}}"#))
        };
        let taken = operation(r#"{"Prefer":"count=exact","accept":"*/*","Range":"0-1"}"#).unwrap();
        assert_eq!(taken.headers.len(), 3);
        for headers in [
            r#"{"Authorization":"Bearer x"}"#,
            r#"{"X-Tenant-Id":"x"}"#,
            r#"{"host":"x"}"#,
            r#"{"Cookie":"x"}"#,
            r#"{"Content-Length":"0"}"#,
            r#"{"Transfer-Encoding":"chunked"}"#,
            r#"{"Idempotency-Key":"x"}"#,
            r#"{"X-Forwarded-For":"x"}"#,
            r#"{"Prefer ":"x"}"#,
            r#"{"Prefer\r\nAuthorization":"x"}"#,
            r#"{"Prefer":"x\r\nAuthorization: Bearer x"}"#,
            r#"{"Prefer":"a","prefer":"b"}"#,
            r#"{"":"x"}"#,
            r#"{"Prefer":7}"#,
            r#"["Prefer"]"#,
        ] {
            assert_eq!(operation(headers).unwrap_err().code, "malformed_operation", "{headers}");
        }
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        for json in [
            "7",
            "null",
            "[]",
            r#"{"method":"GET"}"#,
            r#"{"path":"/orders"}"#,
            r#"{"method":"GET","path":"/orders","tenant":"x"}"#,
            r#"{"method":"GET","path":"/orders","method":"DELETE"}"#,
            r#"{"method":"GET","path":"/orders","path":"/customers"}"#,
            r#"{"method":"GET /v1","path":"/orders"}"#,
            r#"{"method":"","path":"/orders"}"#,
            r#"{"method":"GET","path":"/orders","body":{}}"#,
            r#"{"method":"DELETE","path":"/orders?id=eq.1","body":[]}"#,
        ] {
            assert_eq!(Operation::parse(json).unwrap_err().code, "malformed_operation", "{json}");
        }
    }

    #[test]
    fn numbers_of_a_body_keep_their_digits() {
        let json = r#"{"method":"POST","path":"/t","body":{"n":1.00000000000000000000001}}"#;
        let operation = Operation::parse(json).unwrap();
        assert_eq!(operation.request().body, br#"{"n":1.00000000000000000000001}"#);
    }

    #[test]
    fn a_batch_returns_so_many_rows_in_all() {
        let limits = BatchLimits::new(50, 1_000);
        assert!(limits.check_rows(5_000).is_ok());
        assert_eq!(limits.check_rows(5_001).unwrap_err().code, "limit_exceeded");
        assert!(limits.check_operations(50).is_ok());
        for count in [0, 51] {
            assert_eq!(limits.check_operations(count).unwrap_err().code, "limit_exceeded");
        }
        let single = Limits::default();
        let patch = r#"{"method":"PATCH","path":"/t?id=eq.1","body":{}}"#;
        let patch = Operation::parse(patch).unwrap();
        assert_eq!(limits.of(&patch, &single).page_rows_max, 100);
        let read = Operation::parse(r#"{"method":"GET","path":"/t"}"#).unwrap();
        assert_eq!(limits.of(&read, &single).page_rows_max, 1_000);
    }
}
