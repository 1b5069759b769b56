//! `/v1/invitations`: memberships that wait to be accepted.

use axum::Json;
use axum::extract::{Path, Query, State};
use freehold::Role;
use freehold::control::invitations::{Invitation, TenantInvitation};
use freehold::control::joining::Acceptance;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{ClientIp, MaybeCaller, OperatorCaller, OperatorChange, TenantCaller, WhyQuery};
use super::error::{Problem, parse_id};
use super::json::Body;
use super::paths::TenantPath;
use super::sessions::TenantBriefBody;
use super::state::AppState;
use super::tenants::PageQuery;

#[derive(Serialize, ToSchema)]
pub(super) struct InvitationBody {
    id: Uuid,
    email: String,
    role: &'static str,
    /// RFC 3339, UTC.
    expires_at: String,
}

impl From<Invitation> for InvitationBody {
    fn from(invitation: Invitation) -> Self {
        InvitationBody {
            id: invitation.id,
            email: invitation.email,
            role: invitation.role.as_str(),
            expires_at: invitation.expires_at.to_string(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct InvitationPage {
    items: Vec<InvitationBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InviteRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// Not above one's own.
    #[schema(pattern = "^(viewer|member|admin|owner)$")]
    role: String,
}

/// Invite a person, to whom a message is sent. Inviting the same e-mail again replaces the former
/// invitation.
#[utoipa::path(post, operation_id = "create_invitation", path = "/v1/invitations", tag = "members", request_body = InviteRequest,
    responses((status = 201, body = InvitationBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 409, response = Problem), (status = 429, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn invite(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    body: Body<InviteRequest>,
) -> Result<(StatusCode, Json<InvitationBody>), Problem> {
    state.require_mail()?;
    let role = Role::parse_in_tenant(&body.value.role)?;
    let made = state.freehold().invitations().create(&context, &body.value.email, role).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Send the message of an invitation again; the former link becomes invalid.
#[utoipa::path(post, operation_id = "resend_invitation", path = "/v1/invitations/{id}/resend", tag = "members", params(("id" = Uuid, Path)),
    responses((status = 202, body = InvitationBody), (status = 403, response = Problem), (status = 404, response = Problem),
              (status = 429, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn resend(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<InvitationBody>), Problem> {
    state.require_mail()?;
    let id = parse_id(&id, "invitation")?;
    let made = state.freehold().invitations().resend(&context, id).await?;
    Ok((StatusCode::ACCEPTED, Json(made.into())))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitQuery {
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

/// List the invitations that wait.
#[utoipa::path(get, operation_id = "list_invitations", path = "/v1/invitations", tag = "members", params(LimitQuery),
    responses((status = 200, body = InvitationPage), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Query(query): Query<LimitQuery>,
) -> Result<Json<InvitationPage>, Problem> {
    let list = state.freehold().invitations().list(&context, query.limit).await?;
    Ok(Json(InvitationPage { items: list.into_iter().map(InvitationBody::from).collect() }))
}

/// Take an invitation back.
#[utoipa::path(delete, operation_id = "revoke_invitation", path = "/v1/invitations/{id}", tag = "members", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn revoke(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id, "invitation")?;
    state.freehold().invitations().revoke(&context, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantInvitationBody {
    #[serde(flatten)]
    invitation: InvitationBody,
    /// The person who invites; the nil UUID for the command line.
    invited_by: Uuid,
    /// Whether that person invites as an operator rather than as a member.
    by_operator: bool,
}

impl From<TenantInvitation> for TenantInvitationBody {
    fn from(listed: TenantInvitation) -> Self {
        TenantInvitationBody {
            invitation: listed.invitation.into(),
            invited_by: listed.invited_by.as_uuid(),
            by_operator: listed.by_operator,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantInvitationPage {
    items: Vec<TenantInvitationBody>,
}

/// List a tenant's invitations that have not been accepted, by members and operators, in the order of
/// their e-mails.
#[utoipa::path(get, operation_id = "list_tenant_invitations", path = "/v1/tenants/{id}/invitations", tag = "tenants", params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = TenantInvitationPage), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn list_of(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    TenantPath(tenant): TenantPath,
    Query(page): Query<PageQuery>,
) -> Result<Json<TenantInvitationPage>, Problem> {
    let invitations = state.freehold().invitations();
    let list = invitations.list_of(&context, tenant, page.after.as_deref(), page.limit).await?;
    Ok(Json(TenantInvitationPage { items: list.into_iter().map(Into::into).collect() }))
}

/// Withdraw an invitation of a tenant, by a member or an operator.
#[utoipa::path(delete, operation_id = "withdraw_tenant_invitation", path = "/v1/tenants/{id}/invitations/{invitation}", tag = "tenants",
    params(("id" = Uuid, Path), ("invitation" = Uuid, Path), WhyQuery),
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn withdraw(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    TenantPath(tenant): TenantPath,
    Path((_, invitation)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let invitation = parse_id(&invitation, "invitation")?;
    state.freehold().invitations().withdraw(&context, tenant, invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptRequest {
    /// From the message.
    token: String,
    /// A new person chooses it now; a known one gives their own, unless they send an access token.
    #[schema(max_length = 1024)]
    password: Option<String>,
    /// The name of a new person.
    #[serde(default)]
    #[schema(max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
}

/// Accept an invitation, signed in or by password; then sign in to the tenant.
#[utoipa::path(post, operation_id = "accept_invitation", path = "/v1/invitations/accept", tag = "sign-in", security((), ("bearer" = [])), request_body = AcceptRequest,
    responses((status = 200, body = TenantBriefBody), (status = 400, response = Problem), (status = 401, response = Problem),
              (status = 403, response = Problem), (status = 404, response = Problem), (status = 429, response = Problem)))]
pub(super) async fn accept(
    State(state): State<AppState>,
    ClientIp(client): ClientIp,
    MaybeCaller(caller): MaybeCaller,
    body: Body<AcceptRequest>,
) -> Result<Json<TenantBriefBody>, Problem> {
    let AcceptRequest { token, password, name } = body.value;
    let claims = caller.map(|caller| caller.claims().clone());
    let acceptance = Acceptance { token, password, name, claims };
    Ok(Json(state.sign_in().accept_invitation(acceptance, client).await?.into()))
}
