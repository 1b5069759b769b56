//! The errors of the data API: a status, a stable code, and a sentence that says what to do. None of them
//! ever contains text from the database.

use http::header::{ALLOW, CONTENT_RANGE};
use http::{HeaderName, HeaderValue, StatusCode};

/// Methods of `/v1/data/{table}`, as the `Allow` header of a 405 lists them.
const METHODS_ALLOWED: &str = "GET, HEAD, POST, PATCH, DELETE";

/// Why a request was refused, to be returned as problem+json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataError {
    pub(crate) status: StatusCode,
    /// Stable: clients may compare it, so its meaning never changes.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// The column concerned, if known.
    pub(crate) column: Option<String>,
    pub(crate) hint: Option<String>,
    /// A header that the status requires: `Allow` of a 405, `Content-Range` of a 416, `Retry-After` of a 503.
    pub(crate) header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl DataError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> DataError {
        DataError { status, code, message: message.into(), column: None, hint: None, header: None }
    }

    pub(super) fn with_column(mut self, column: &str) -> DataError {
        self.column = Some(column.to_owned());
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> DataError {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn malformed_query(message: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, "malformed_query", message)
    }

    pub(super) fn malformed_body(message: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, "malformed_body", message)
    }

    /// A part of PostgREST's dialect that this API does not support.
    pub(super) fn not_supported(message: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, "not_supported", message)
    }

    pub(super) fn limit_exceeded(message: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, "limit_exceeded", message)
    }

    pub(super) fn bad_value(message: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, "bad_value", message)
    }

    pub(super) fn method_not_allowed() -> DataError {
        let mut error = DataError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("a table answers to {METHODS_ALLOWED}"),
        );
        error.header = Some(Box::new((ALLOW, HeaderValue::from_static(METHODS_ALLOWED))));
        error
    }

    pub(super) fn range_not_satisfiable(offset: u64, total: i64) -> DataError {
        let mut error = DataError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            format!("offset {offset} is past the end: there are {total} rows"),
        );
        error.header = HeaderValue::try_from(format!("*/{total}"))
            .ok()
            .map(|value| Box::new((CONTENT_RANGE, value)));
        error
    }
}

impl std::fmt::Display for DataError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for DataError {}

/// The caller's own text, shortened for a message.
pub(super) fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The candidate that is most similar to `name`, if one is similar enough.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const NAME_BYTES_MAX: usize = 63; // PostgreSQL has no longer names
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row of the matrix at a time.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_only_when_it_is_near() {
        let names = ["customers", "orders", "order_items"];
        let near = |name| nearest(name, names.into_iter());
        assert_eq!(near("order"), Some("orders"));
        assert_eq!(near("Orders"), Some("orders"));
        assert_eq!(near("orderitems"), Some("order_items"));
        assert_eq!(near("invoices"), None);
        assert_eq!(near(&"x".repeat(10_000)), None);
    }

    #[test]
    fn long_names_are_not_repeated_whole() {
        assert_eq!(clip("status"), "status");
        assert_eq!(clip(&"é".repeat(500)).chars().count(), 65);
    }
}
