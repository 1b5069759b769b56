//! `/v1/links`: the purpose of a message's link, so that a page can show it before the link is used.

use axum::Json;
use axum::extract::State;
use freehold::control::links::PasswordPrompt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::ClientIp;
use super::error::Problem;
use super::json::Body;
use super::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InspectRequest {
    /// What follows the `#` of the link.
    token: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LinkBody {
    /// sign_up, invitation, reset, address_leave, address_proof
    kind: &'static str,
    /// The address that the message was sent to.
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<LinkTenant>,
    /// Which role an invitation gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// What has to come with the token. choose: a new password; repeat: the one that was given at
    /// sign-up; own: that of the person's account; none.
    password: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<LinkAddresses>,
    /// RFC 3339, UTC.
    expires_at: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LinkTenant {
    slug: String,
    name: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LinkAddresses {
    old: String,
    new: String,
}

/// What a link is for. Uses nothing up.
#[utoipa::path(post, operation_id = "inspect_link", path = "/v1/links/inspect", tag = "sign-in", security(()), request_body = InspectRequest,
    responses((status = 200, body = LinkBody), (status = 404, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn inspect(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<InspectRequest>,
) -> Result<Json<LinkBody>, Problem> {
    let link = state.sign_in().inspect_link(&body.value.token, client).await?;
    Ok(Json(LinkBody {
        kind: link.kind.as_str(),
        email: link.email,
        tenant: link.tenant.map(|(slug, name)| LinkTenant { slug, name }),
        role: link.role,
        password: match link.password {
            PasswordPrompt::None => "none",
            PasswordPrompt::Choose => "choose",
            PasswordPrompt::Repeat => "repeat",
            PasswordPrompt::Own => "own",
        },
        addresses: link.addresses.map(|(old, new)| LinkAddresses { old, new }),
        expires_at: link.expires_at.to_string(),
    }))
}
