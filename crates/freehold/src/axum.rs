//! For axum services: an extractor that authorizes requests, and errors as responses.
//!
//! A handler that takes a [`Tenant`] is reached only with a valid access token, an active tenant and a
//! current membership. It needs `Arc<SignIn>` in the router's state. [`Error`] implements `IntoResponse`, so
//! handlers return it directly.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::extract::State;
//! use axum::routing::get;
//! use axum::{Json, Router};
//! use freehold::axum::Tenant;
//! use freehold::control::sessions::{SignIn, SignInOptions};
//! # use axum::http::{Request, StatusCode};
//! # use freehold::testing::{PASSWORD, TestDatabase, create_tenant};
//! # use freehold::{Baseline, Migration};
//! # use tower::ServiceExt as _;
//!
//! async fn list(
//!     State(sign_in): State<Arc<SignIn>>,
//!     Tenant(context): Tenant,
//! ) -> freehold::Result<Json<Vec<String>>> {
//!     let rows = sign_in.freehold().query(&context, "SELECT body FROM notes", &[]).await?;
//!     Ok(Json(rows.iter().map(|row| row.get("body")).collect()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> freehold::Result<()> {
//! # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
//! # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
//! # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
//! # let database = TestDatabase::create(&server, &baseline).await?;
//! # let freehold = database.freehold().await?;
//! # let secret = "0123456789abcdef0123456789abcdef";
//! let sign_in = Arc::new(SignIn::new(freehold, SignInOptions::new(secret)?));
//! let router: Router = Router::new().route("/notes", get(list)).with_state(sign_in.clone());
//! # create_tenant(sign_in.freehold(), "acme").await?;
//! # let client = std::net::Ipv4Addr::LOCALHOST.into();
//! # let (email, password) = ("owner@acme.example".into(), PASSWORD.into());
//! # let who = freehold::control::credentials::Credentials { email, password, ..Default::default() };
//! # let tokens = sign_in.log_in(who, client).await?;
//! # let bearer = format!("Bearer {}", tokens.access_token);
//! # let signed_in = Request::get("/notes").header("authorization", bearer);
//! # for (request, status) in
//! #     [(Request::get("/notes"), StatusCode::UNAUTHORIZED), (signed_in, StatusCode::OK)]
//! # {
//! #     let request = request.body(axum::body::Body::empty()).unwrap();
//! #     assert_eq!(router.clone().oneshot(request).await.unwrap().status(), status);
//! # }
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
#[cfg(feature = "sign-in")]
use std::sync::Arc;

use axum_core::body::Body;
#[cfg(feature = "sign-in")]
use axum_core::extract::{FromRef, FromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
#[cfg(feature = "sign-in")]
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

#[cfg(feature = "sign-in")]
use crate::control::sessions::{Caller, SignIn};
use crate::error::{Error, ErrorKind};
#[cfg(feature = "sign-in")]
use crate::model::context::TenantContext;
#[cfg(feature = "sign-in")]
use crate::observe::violations::{Violation, ViolationKind};

/// The context of a request in a tenant.
///
/// Without a valid token the request is answered with 401, in a suspended tenant with 403 and the
/// code `tenant_suspended`, with an operator's token with 403.
#[cfg(feature = "sign-in")]
pub struct Tenant(pub TenantContext);

#[cfg(feature = "sign-in")]
impl<S> FromRequestParts<S> for Tenant
where
    S: Send + Sync,
    Arc<SignIn>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let sign_in = Arc::<SignIn>::from_ref(state);
        match sign_in.authenticate(bearer(&parts.headers)?).await? {
            Caller::Tenant(context, _) => Ok(Tenant(context)),
            Caller::Operator(operator, _) => {
                let refused = "this takes a tenant's token, and an operator's was sent";
                let scope = Violation::new(ViolationKind::WrongScope).by_operator(&operator);
                sign_in.freehold().violations().record(scope.because(refused));
                Err(Error::new(ErrorKind::Forbidden, refused))
            }
        }
    }
}

/// The access token of a request, if there is exactly one.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let refuse = |why: &str| Error::new(ErrorKind::Unauthenticated, why);
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values
        .next()
        .ok_or_else(|| refuse("sign in and send the access token as `Authorization: Bearer …`"))?;
    if values.next().is_some() {
        return Err(refuse("the header Authorization came twice"));
    }
    match value.to_str().unwrap_or_default().split_once(' ') {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
        {
            Ok(token.trim())
        }
        _ => Err(refuse("the header Authorization must read `Bearer` and a token")),
    }
}

/// The status of the answer for an error. For an error that the baseline's own code raised, the code chooses
/// the status, which may be a server error.
pub fn status(error: &Error) -> StatusCode {
    if let Some(raised) = error.raised() {
        return StatusCode::from_u16(raised.status).unwrap_or(StatusCode::BAD_REQUEST);
    }
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Rejected | ErrorKind::AnswerTooLarge => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::Unauthenticated | ErrorKind::InvalidToken | ErrorKind::TokenExpired => {
            StatusCode::UNAUTHORIZED
        }
        ErrorKind::Forbidden
        | ErrorKind::TenantSuspended
        | ErrorKind::Violation
        | ErrorKind::RowPolicy => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::SlugTaken
        | ErrorKind::EmailTaken
        | ErrorKind::Conflict
        | ErrorKind::IdempotencyKeyReused
        | ErrorKind::TenantRequired
        | ErrorKind::Retryable => StatusCode::CONFLICT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::PoolExhausted
        | ErrorKind::Unavailable
        | ErrorKind::Overloaded
        | ErrorKind::Setup => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The additional header of an error's answer, if its status requires one.
pub fn header(error: &Error) -> Option<(HeaderName, HeaderValue)> {
    match error.kind() {
        ErrorKind::Unauthenticated => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        // RFC 6750, 3.1: one code for both; the description distinguishes them.
        ErrorKind::InvalidToken => Some((
            WWW_AUTHENTICATE,
            HeaderValue::from_static(
                r#"Bearer error="invalid_token", error_description="the access token is not valid; sign in again""#,
            ),
        )),
        ErrorKind::TokenExpired => Some((
            WWW_AUTHENTICATE,
            HeaderValue::from_static(
                r#"Bearer error="invalid_token", error_description="the access token has expired; refresh it, or sign in again""#,
            ),
        )),
        ErrorKind::RateLimited => {
            Some((RETRY_AFTER, HeaderValue::from(error.retry_after_secs().unwrap_or(1))))
        }
        ErrorKind::PoolExhausted
        | ErrorKind::Unavailable
        | ErrorKind::Overloaded
        | ErrorKind::Retryable => Some((RETRY_AFTER, HeaderValue::from(1))),
        _ => None,
    }
}

/// The detail that the caller may read. Internal failures are for the log only; messages that the baseline's
/// own code raised are for its callers.
pub fn detail(error: &Error) -> Cow<'_, str> {
    if let Some(raised) = error.raised() {
        return raised.message.into();
    }
    match status(error) {
        StatusCode::INTERNAL_SERVER_ERROR => "something failed on our side".into(),
        // The message names settings and roles, and any client may ask.
        _ if error.kind() == ErrorKind::Setup => {
            "this server is not set up for it; its log tells what is missing".into()
        }
        _ => error.message().into(),
    }
}

/// problem+json (RFC 9457) with a stable `code`, and the invalid `field` if there is one. An error that the
/// baseline's own code raised has its SQLSTATE as code, and its message.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status(&self);
        if status.is_server_error() {
            tracing::error!(error = %self, code = self.kind().code(), "request failed");
        }
        let mut problem = serde_json::json!({
            "status": status.as_u16(),
            "title": status.canonical_reason(),
            "detail": detail(&self),
            "code": self.kind().code(),
        });
        if let Some(field) = self.field_name() {
            problem["field"] = field.into();
        }
        if let Some(raised) = self.raised() {
            problem["code"] = raised.code.into();
            problem["details"] = raised.detail.into();
            problem["hint"] = raised.hint.into();
        }
        let mut response = Response::new(Body::from(problem.to_string()));
        *response.status_mut() = status;
        response.headers_mut().extend(header(&self));
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, problem);
        response
    }
}
