//! `/v1/auth`: sign in, refresh, sign out, switch tenant.

use axum::Json;
use axum::extract::State;
use freehold::control::sessions::{TenantBrief, Tokens};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::{AnyCaller, ClientIp};
use super::error::Problem;
use super::json::Body;
use super::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogInRequest {
    email: String,
    password: String,
    /// The slug of the tenant to sign in to; needed only by those who belong to several.
    tenant: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokensBody {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// Good once; absent where the present one stays good.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// owner, admin, member, viewer; or operator, outside of any tenant.
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantBriefBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantBriefBody {
    pub(super) id: Uuid,
    pub(super) slug: String,
    pub(super) name: String,
}

impl From<TenantBrief> for TenantBriefBody {
    fn from(tenant: TenantBrief) -> Self {
        TenantBriefBody { id: tenant.id.as_uuid(), slug: tenant.slug.into(), name: tenant.name }
    }
}

impl From<Tokens> for TokensBody {
    fn from(tokens: Tokens) -> Self {
        TokensBody {
            access_token: tokens.access_token,
            token_type: tokens.token_type,
            expires_in: tokens.expires_in,
            refresh_token: tokens.refresh_token,
            role: tokens.role.as_str(),
            tenant: tokens.tenant.map(TenantBriefBody::from),
        }
    }
}

/// Sign in by e-mail and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "sign-in", security(()), request_body = LogInRequest,
    responses((status = 200, body = TokensBody), (status = 401, response = Problem), (status = 403, response = Problem),
              (status = 409, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn log_in(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    body: Body<LogInRequest>,
) -> Result<Json<TokensBody>, Problem> {
    let LogInRequest { email, password, tenant } = body.value;
    let tokens = state.sign_in().log_in(&email, password, tenant.as_deref(), client).await?;
    Ok(Json(tokens.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshRequest {
    refresh_token: String,
}

/// Exchange a refresh token for new tokens. A token that comes twice ends the session.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "sign-in", security(()), request_body = RefreshRequest,
    responses((status = 200, body = TokensBody), (status = 401, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn refresh(
    State(state): State<AppState>,
    body: Body<RefreshRequest>,
) -> Result<Json<TokensBody>, Problem> {
    Ok(Json(state.sign_in().refresh(&body.value.refresh_token).await?.into()))
}

/// End the session of a refresh token.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "sign-in", security(()), request_body = RefreshRequest,
    responses((status = 204)))]
pub(super) async fn log_out(
    State(state): State<AppState>,
    body: Body<RefreshRequest>,
) -> Result<StatusCode, Problem> {
    state.sign_in().log_out(&body.value.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchRequest {
    /// The slug of another tenant that one belongs to.
    tenant: String,
}

/// Move the session to another of one's tenants.
#[utoipa::path(post, path = "/v1/auth/switch", tag = "sign-in", request_body = SwitchRequest,
    responses((status = 200, body = TokensBody), (status = 401, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn switch_tenant(
    State(state): State<AppState>,
    caller: AnyCaller,
    body: Body<SwitchRequest>,
) -> Result<Json<TokensBody>, Problem> {
    Ok(Json(state.sign_in().switch_tenant(caller.claims(), &body.value.tenant).await?.into()))
}
