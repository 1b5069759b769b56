//! `/v1/me/password` and `/v1/auth/reset`: changing and resetting a password.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{AnyCaller, ClientIp};
use super::error::Problem;
use super::json::Body;
use super::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangePasswordRequest {
    current_password: String,
    #[schema(min_length = 8, max_length = 1024, pattern = r"\S")]
    new_password: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct DeviceBody {
    /// In the place of the one that the sign-in gave.
    device_token: String,
}

/// Change one's password. This session goes on; all others and all outstanding links end.
#[utoipa::path(post, operation_id = "change_password", path = "/v1/me/password", tag = "sign-in", request_body = ChangePasswordRequest,
    responses((status = 200, body = DeviceBody), (status = 400, response = Problem), (status = 401, response = Problem),
              (status = 403, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn change(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    caller: AnyCaller,
    body: Body<ChangePasswordRequest>,
) -> Result<Json<DeviceBody>, Problem> {
    let ChangePasswordRequest { current_password, new_password } = body.value;
    let sign_in = state.sign_in();
    let device_token =
        sign_in.change_password(caller.claims(), current_password, new_password, client).await?;
    Ok(Json(DeviceBody { device_token }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ResetTaken {
    /// sent: if a person has the address, a message is on its way to it.
    status: &'static str,
}

/// Request a message with which the person chooses a new password. The answer does not show whether the
/// address is known.
#[utoipa::path(post, operation_id = "request_password_reset", path = "/v1/auth/reset", tag = "sign-in", security(()), request_body = ResetRequest,
    responses((status = 202, body = ResetTaken), (status = 400, response = Problem), (status = 429, response = Problem),
              (status = 503, response = Problem)))]
pub(super) async fn request_reset(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<ResetRequest>,
) -> Result<(StatusCode, Json<ResetTaken>), Problem> {
    state.require_mail()?;
    state.sign_in().request_reset(&body.value.email, client).await?;
    Ok((StatusCode::ACCEPTED, Json(ResetTaken { status: "sent" })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmResetRequest {
    /// From the message.
    token: String,
    #[schema(min_length = 8, max_length = 1024, pattern = r"\S")]
    password: String,
}

/// Choose a new password with the token of a message; then sign in. All sessions end.
#[utoipa::path(post, operation_id = "confirm_password_reset", path = "/v1/auth/reset/confirm", tag = "sign-in", security(()), request_body = ConfirmResetRequest,
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn confirm_reset(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<ConfirmResetRequest>,
) -> Result<StatusCode, Problem> {
    let ConfirmResetRequest { token, password } = body.value;
    state.sign_in().confirm_reset(&token, password, client).await?;
    Ok(StatusCode::NO_CONTENT)
}
