//! `/v1/signup`: a person creates a tenant, after proving an address.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use freehold::control::joining::SignUp;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::ClientIp;
use super::error::Problem;
use super::json::Body;
use super::state::AppState;
use super::tenants::{TenantBody, idempotency_key};
use crate::config::SignUpMode;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignUpRequest {
    /// 3 to 63 of a-z, 0-9 and hyphens, beginning with a letter.
    #[schema(min_length = 3, max_length = 63, pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    slug: String,
    /// 1 to 200 characters, none of them a control character.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// To be given again with the link, so that a person does not confirm a password that a stranger chose;
    /// without one, it is chosen there. Where addresses are not proven: a new one, or that of the
    /// person with this e-mail.
    #[schema(min_length = 8, max_length = 1024, pattern = r"\S")]
    password: Option<String>,
}

/// A sign-up that was taken.
#[derive(Serialize, ToSchema)]
pub(super) struct SignUpTaken {
    /// sent: a message is on its way to the address, and its link creates the tenant.
    status: &'static str,
}

/// Request a tenant. A message is sent to the address, and its link creates the tenant (202); a server whose
/// SIGNUP is `open` makes it at once (201), and one whose SIGNUP is `off` takes none.
#[utoipa::path(post, path = "/v1/signup", tag = "sign-in", security(()), request_body = SignUpRequest,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "With the same key and body, the first answer is given again")),
    responses((status = 201, body = TenantBody), (status = 202, body = SignUpTaken), (status = 400, response = Problem),
              (status = 401, response = Problem), (status = 403, response = Problem), (status = 409, response = Problem),
              (status = 429, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn sign_up(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    body: Body<SignUpRequest>,
) -> Result<Response, Problem> {
    require_open(&state)?;
    let SignUpRequest { slug, name, email, password } = body.value;
    // The key belongs to the given e-mail address, and the body's hash covers the password.
    let scope = format!("signup {email}");
    let idempotency = idempotency_key(&state, &headers, scope, body.hash)?;
    let new = SignUp { slug, name, email, password, idempotency };
    if state.signup() == SignUpMode::Open {
        let made = state.sign_in().sign_up(new, client).await?;
        return Ok((StatusCode::CREATED, Json(TenantBody::from(made.tenant))).into_response());
    }
    state.require_mail()?;
    state.sign_in().request_sign_up(new, client).await?;
    Ok((StatusCode::ACCEPTED, Json(SignUpTaken { status: "sent" })).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmSignUpRequest {
    /// From the message.
    token: String,
    /// The one that was given at sign-up, or that of the person's account; else it is chosen now.
    #[schema(max_length = 1024)]
    password: String,
    /// In the place of the one that was asked for, which may be taken by now.
    #[schema(min_length = 3, max_length = 63, pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    slug: Option<String>,
}

/// Make the tenant of a sign-up, whose address is proven by the token; then sign in.
#[utoipa::path(post, operation_id = "confirm_sign_up", path = "/v1/signup/confirm", tag = "sign-in", security(()), request_body = ConfirmSignUpRequest,
    responses((status = 201, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem), (status = 409, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn confirm(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<ConfirmSignUpRequest>,
) -> Result<(StatusCode, Json<TenantBody>), Problem> {
    require_open(&state)?;
    let ConfirmSignUpRequest { token, password, slug } = body.value;
    let made = state.sign_in().confirm_sign_up(&token, password, slug.as_deref(), client).await?;
    Ok((StatusCode::CREATED, Json(made.tenant.into())))
}

/// A link that was sent before sign-up was turned off creates no tenant either.
fn require_open(state: &AppState) -> Result<(), Problem> {
    if state.signup() != SignUpMode::Off {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "signup_closed",
        "this service takes no sign-ups; ask its operator for a tenant",
    ))
}
