//! What applies to every request: its id, its log line, its metrics, its limits.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use freehold::Origin;
use futures_util::FutureExt as _;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tracing::Instrument as _;
use uuid::Uuid;

use super::auth::{TenantOfRequest, client_ip};
use super::error::Problem;
use super::state::AppState;
use crate::telemetry::traces;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id from the client is replaced.
const REQUEST_ID_BYTES_MAX: usize = 64;
const DETAIL_BYTES_MAX: usize = 2048;

/// Gives the request an id, logs and counts it, and marks the answer as not to be cached.
pub(super) async fn observe(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let client = client_ip(request.headers(), request.extensions(), &state);
    let tenant = TenantOfRequest::default();
    request.extensions_mut().insert(tenant.clone());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
    let trace = traces::request(&request, &route, &id);

    let work = next.run(request).instrument(span.clone()).instrument(trace.clone());
    let origin = Origin {
        request_id: id.to_str().ok().map(Into::into),
        from: Some(client.to_string().into()),
    };
    let mut response = freehold::with_origin(origin, work).await;

    let status = response.status();
    let elapsed = started.elapsed();
    traces::answered(&trace, status, tenant.get());
    metrics::counter!("freehold_http_requests_total", "method" => method_label(&method),
        "route" => route.clone(), "status" => status.as_u16().to_string())
    .increment(1);
    metrics::histogram!("freehold_http_request_seconds", "route" => route.clone())
        .record(elapsed.as_secs_f64());
    span.in_scope(|| {
        let tenant = tenant.get().map(ToString::to_string).unwrap_or_default();
        let (status, ms) = (status.as_u16(), elapsed.as_secs_f64() * 1e3);
        // Probes come every few seconds and are not worth a log line.
        match route.as_str() {
            "/livez" | "/readyz" | "/metrics" => {
                tracing::debug!(%method, route, status, ms, "answered");
            }
            _ => tracing::info!(%method, route, status, ms, tenant, "answered"),
        }
    });

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An answer is data. If a browser displays one, it must run no script, be in no frame and send no
    // referrer. A page has a policy of its own.
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
    if state.readiness().is_draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A label needs few values, so a method that a client made up is not one.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The caller's id if it is a plain word, otherwise a new one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    request.headers().get(REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::now_v7().simple().to_string()).expect("hex is a header value")
    })
}

/// Waits until the request has arrived, and then limits how many are served at a time and how long each may
/// take. A request that takes longer is dropped: its transaction is rolled back and its query cancelled.
pub(super) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let client = client_ip(request.headers(), request.extensions(), &state);
    let request = match state.bodies().await_body(request, client).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let _place = match state.places().of_client(client) {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let work = catch_panic(next.run(request));
    match tokio::time::timeout(state.limits().time_max, work).await {
        Ok(response) => speak_problem(response).await,
        Err(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "the request took longer than it may; nothing of it was kept",
        )
        .into_response(),
    }
}

/// Turns the framework's own errors, for a path or query that cannot be parsed, into problems.
async fn speak_problem(response: Response) -> Response {
    let status = response.status();
    let plain = response
        .headers()
        .get(CONTENT_TYPE)
        .is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let detail = match axum::body::to_bytes(response.into_body(), DETAIL_BYTES_MAX).await {
        Ok(bytes) if !bytes.is_empty() => String::from_utf8_lossy(&bytes).into_owned(),
        _ => "the request is malformed".to_owned(),
    };
    Problem::new(status, "invalid_input", detail).into_response()
}

/// A panic in a handler affects only its own request.
async fn catch_panic(work: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("a handler panicked; its message is above");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "something failed on our side",
            )
            .into_response()
        }
    }
}
