//! Which other sites' pages may call the API from a browser: those that the operator configures, by default
//! none. A page sends its token explicitly and never as a cookie, so credentials are not allowed.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, StatusCode};

use super::state::AppState;

/// All methods of the API.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, prefer, range, range-unit, accept, idempotency-key, x-tenant-id, x-request-id, freehold-lsn",
);
/// The headers that a page may read in addition to the default ones.
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-range, location, preference-applied, retry-after, x-request-id, freehold-lsn",
);
/// The longest time that browsers keep it.
const PREFLIGHT_SECS: HeaderValue = HeaderValue::from_static("7200");

/// Answers preflight requests, and marks answers as readable for a page.
pub(super) async fn allow(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let allowed = &state.limits().cors_origins;
    let origin = request.headers().get(ORIGIN).filter(|origin| allowed.contains(origin)).cloned();
    let is_question = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, is_question) {
        (Some(_), true) => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Also without an origin, so that a cache does not keep that answer for a page.
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        if is_question {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECS);
        }
    }
    response
}
