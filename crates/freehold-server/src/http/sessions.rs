//! `/v1/auth`: sign in, refresh, sign out, switch tenant; `/v1/me/sessions`: the person's own sessions.

use axum::Json;
use axum::extract::{Path, State};
use freehold::control::credentials::Credentials;
use freehold::control::sessions::{SessionEntry, TenantBrief, Tokens};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::{AnyCaller, ClientIp};
use super::error::{Problem, parse_id};
use super::json::Body;
use super::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogInRequest {
    email: String,
    password: String,
    /// The slug of the tenant to sign in to; needed only by those who belong to several.
    tenant: Option<String>,
    /// From the last sign-in on this device: with it, wrong passwords from elsewhere do not lock the person out.
    device_token: Option<String>,
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
    /// To be kept beyond the session and sent with the next sign-in. It opens nothing. Only a sign-in
    /// gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_token: Option<String>,
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
            device_token: tokens.device_token,
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
    let LogInRequest { email, password, tenant, device_token } = body.value;
    let credentials = Credentials { email, password, tenant, device_token };
    Ok(Json(state.sign_in().log_in(credentials, client).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshRequest {
    refresh_token: String,
}

/// Exchange a refresh token for new tokens. For ten seconds the same token gives the same successor; one
/// that comes again later ends the session.
#[utoipa::path(post, operation_id = "refresh_session", path = "/v1/auth/refresh", tag = "sign-in", security(()), request_body = RefreshRequest,
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

/// Move the session to another of one's tenants. The new access token ends when the present one does.
#[utoipa::path(post, path = "/v1/auth/switch", tag = "sign-in", request_body = SwitchRequest,
    responses((status = 200, body = TokensBody), (status = 401, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn switch_tenant(
    State(state): State<AppState>,
    caller: AnyCaller,
    body: Body<SwitchRequest>,
) -> Result<Json<TokensBody>, Problem> {
    Ok(Json(state.sign_in().switch_tenant(caller.claims(), &body.value.tenant).await?.into()))
}

#[derive(Serialize, ToSchema)]
pub(super) struct SessionBody {
    id: Uuid,
    /// The tenant that it is in now; absent for an operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Uuid>,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC.
    refreshed_at: String,
    /// RFC 3339, UTC.
    expires_at: String,
    /// Whether it is the one that asks.
    current: bool,
}

impl SessionBody {
    pub(super) fn new(entry: SessionEntry, current: Option<Uuid>) -> SessionBody {
        SessionBody {
            id: entry.id,
            tenant: entry.tenant,
            created_at: entry.created_at.to_string(),
            refreshed_at: entry.refreshed_at.to_string(),
            expires_at: entry.expires_at.to_string(),
            current: current == Some(entry.id),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct SessionPage {
    items: Vec<SessionBody>,
}

/// List one's sessions that go on, the newest first; 200 at most.
#[utoipa::path(get, operation_id = "list_sessions", path = "/v1/me/sessions", tag = "sign-in",
    responses((status = 200, body = SessionPage), (status = 401, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: AnyCaller,
) -> Result<Json<SessionPage>, Problem> {
    let claims = caller.claims();
    let list = state.sign_in().list_sessions(claims).await?;
    let items = list.into_iter().map(|entry| SessionBody::new(entry, Some(claims.sid))).collect();
    Ok(Json(SessionPage { items }))
}

/// End one of one's sessions: its tokens are refused within a second.
#[utoipa::path(delete, operation_id = "end_session", path = "/v1/me/sessions/{id}", tag = "sign-in", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 401, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn end(
    State(state): State<AppState>,
    caller: AnyCaller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    state.sign_in().end_session(caller.claims(), parse_id(&id, "session")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End all of one's sessions but this one.
#[utoipa::path(delete, operation_id = "end_other_sessions", path = "/v1/me/sessions", tag = "sign-in",
    responses((status = 204), (status = 401, response = Problem)))]
pub(super) async fn end_others(
    State(state): State<AppState>,
    caller: AnyCaller,
) -> Result<StatusCode, Problem> {
    state.sign_in().end_other_sessions(caller.claims()).await?;
    Ok(StatusCode::NO_CONTENT)
}
