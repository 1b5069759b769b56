//! `/v1/signup`: a person makes a tenant of their own.

use axum::Json;
use axum::extract::State;
use freehold::control::joining::SignUp;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::ClientIp;
use super::error::Problem;
use super::json::Body;
use super::state::AppState;
use super::tenants::{TenantBody, idempotency_key};

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
    /// A new one, or that of the identity with this e-mail.
    #[schema(min_length = 8, max_length = 1024, pattern = r"\S")]
    password: String,
}

/// Create a tenant and become its owner; then sign in. A setting of the server turns it off.
#[utoipa::path(post, path = "/v1/signup", tag = "sign-in", security(()), request_body = SignUpRequest,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "With the same key and body, the first answer is given again")),
    responses((status = 201, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 409, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn sign_up(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    body: Body<SignUpRequest>,
) -> Result<(StatusCode, Json<TenantBody>), Problem> {
    if !state.signup_open() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "signup_closed",
            "this service takes no sign-ups; ask its operator for a tenant",
        ));
    }
    let SignUpRequest { slug, name, email, password } = body.value;
    // The key belongs to whoever gives the same e-mail, and the body's hash covers the password.
    let idempotency = idempotency_key(&headers, format!("signup {email}"), body.hash)?;
    let new = SignUp { slug, name, email, password, idempotency };
    let made = state.sign_in().sign_up(new, client).await?;
    Ok((StatusCode::CREATED, Json(made.tenant.into())))
}
