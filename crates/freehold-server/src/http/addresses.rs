//! `/v1/me/email` and `/v1/auth/address`: change of address, confirmed by both mailboxes.

use axum::Json;
use axum::extract::State;
use freehold::control::addresses::Mailbox;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{AnyCaller, ClientIp};
use super::error::Problem;
use super::json::Body;
use super::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeAddressRequest {
    /// The new one.
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// The present one.
    password: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ChangeAddressTaken {
    /// sent: messages are on their way to both addresses.
    status: &'static str,
}

/// Request a change of address. A message goes to both addresses, and both have to be confirmed.
#[utoipa::path(post, operation_id = "request_email_change", path = "/v1/me/email", tag = "sign-in", request_body = ChangeAddressRequest,
    responses((status = 202, body = ChangeAddressTaken), (status = 400, response = Problem), (status = 401, response = Problem),
              (status = 403, response = Problem), (status = 429, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn request(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    caller: AnyCaller,
    body: Body<ChangeAddressRequest>,
) -> Result<(StatusCode, Json<ChangeAddressTaken>), Problem> {
    state.require_mail()?;
    let ChangeAddressRequest { email, password } = body.value;
    state.sign_in().request_address_change(caller.claims(), &email, password, client).await?;
    Ok((StatusCode::ACCEPTED, Json(ChangeAddressTaken { status: "sent" })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmAddressRequest {
    /// From one of the two messages.
    token: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AddressBody {
    /// The address is the new one now, and all sessions have ended.
    changed: bool,
    /// The mailbox that has not agreed yet: old or new.
    waits_for: Option<&'static str>,
}

/// Confirm a change of address with the token of a message.
#[utoipa::path(post, operation_id = "confirm_email_change", path = "/v1/auth/address/confirm", tag = "sign-in", security(()), request_body = ConfirmAddressRequest,
    responses((status = 200, body = AddressBody), (status = 403, response = Problem), (status = 404, response = Problem),
              (status = 409, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn confirm(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<ConfirmAddressRequest>,
) -> Result<Json<AddressBody>, Problem> {
    let done = state.sign_in().confirm_address(&body.value.token, client).await?;
    let waits_for = done.waits_for.map(|mailbox| match mailbox {
        Mailbox::Old => "old",
        Mailbox::New => "new",
    });
    Ok(Json(AddressBody { changed: done.changed, waits_for }))
}
