//! All errors of the service, as problem+json (RFC 9457). Each is logged here, once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};
use uuid::Uuid;

/// The content type of all errors.
pub(super) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What a caller reads when something went wrong.
#[derive(Clone, Debug, Serialize, ToSchema, ToResponse)]
#[response(description = "What went wrong", content_type = "application/problem+json")]
pub(super) struct Problem {
    /// The status code again, for those who only see the body.
    status: u16,
    title: &'static str,
    /// What went wrong, for a person.
    detail: String,
    /// What went wrong, for a program; stable.
    code: String,
    /// The field or column at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// More of it: the DETAIL of what a function or trigger of the tables has raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    /// The same as `detail`: where clients of PostgREST look for it.
    message: String,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> Problem {
        let detail = detail.into();
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error"),
            message: detail.clone(),
            detail,
            code: code.into(),
            field: None,
            hint: None,
            details: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn field(mut self, field: impl Into<String>) -> Problem {
        self.field = Some(field.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// With the texts of the code that raised it.
    pub(super) fn in_words_of(mut self, raised: freehold::Raised) -> Problem {
        self.message.clone_from(&raised.message);
        self.detail = raised.message;
        self.details = raised.detail;
        self.hint = raised.hint;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub(super) fn retry_after(self, secs: u64) -> Problem {
        self.header(RETRY_AFTER, HeaderValue::from(secs))
    }
}

impl From<freehold::Error> for Problem {
    fn from(error: freehold::Error) -> Problem {
        let kind = error.kind();
        let status = freehold::axum::status(&error);
        if status.is_server_error() {
            tracing::error!(%error, code = kind.code(), "request failed");
        }
        let mut problem = Problem::new(status, kind.code(), freehold::axum::detail(&error));
        problem.field = error.field_name().map(str::to_owned);
        if let Some(raised) = error.raised() {
            problem.code = raised.code;
            problem.details = raised.detail;
            problem.hint = raised.hint;
        }
        problem.headers.extend(freehold::axum::header(&error));
        problem
    }
}

impl From<crate::data::DataError> for Problem {
    fn from(error: crate::data::DataError) -> Problem {
        let mut problem = Problem::new(error.status, error.code, error.message);
        problem.field = error.column;
        problem.hint = error.hint;
        problem.headers.extend(error.header.map(|header| *header));
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let headers = self.headers.clone();
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
        response.headers_mut().extend(headers);
        response
    }
}

/// Parses an id in a path or a query. A text that is not a UUID is answered 404, as an unknown id is.
pub(super) fn parse_id<T: From<Uuid>>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse::<Uuid>().map(T::from).map_err(|_| no_such(what))
}

/// The error that `what`, such as "tenant", does not exist or is not the caller's.
pub(super) fn no_such(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
}

pub(super) async fn no_such_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this address; see /openapi.json",
    )
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address does not take this method",
    )
}
