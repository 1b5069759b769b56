//! `/v1/members`: the members of the tenant.

use axum::Json;
use axum::extract::{Path, Query, State};
use freehold::Role;
use freehold::control::members::Member;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::TenantCaller;
use super::error::{Problem, parse_id};
use super::json::Body;
use super::state::AppState;
use super::tenants::PageQuery;

#[derive(Serialize, ToSchema)]
pub(super) struct MemberBody {
    id: Uuid,
    email: String,
    name: String,
    role: &'static str,
    /// RFC 3339, UTC.
    joined_at: String,
}

impl From<Member> for MemberBody {
    fn from(member: Member) -> Self {
        MemberBody {
            id: member.id.as_uuid(),
            email: member.email,
            name: member.name,
            role: member.role.as_str(),
            joined_at: member.joined_at.to_string(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct MemberPage {
    items: Vec<MemberBody>,
}

/// List the members in the order of their e-mails.
#[utoipa::path(get, operation_id = "list_members", path = "/v1/members", tag = "members", params(PageQuery),
    responses((status = 200, body = MemberPage), (status = 401, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Query(page): Query<PageQuery>,
) -> Result<Json<MemberPage>, Problem> {
    let members =
        state.freehold().members().list(&context, page.after.as_deref(), page.limit).await?;
    Ok(Json(MemberPage { items: members.into_iter().map(MemberBody::from).collect() }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRoleRequest {
    #[schema(pattern = "^(viewer|member|admin|owner)$")]
    role: String,
}

/// Give a member another role. The last owner keeps theirs.
#[utoipa::path(patch, operation_id = "change_member_role", path = "/v1/members/{id}", tag = "members", params(("id" = Uuid, Path)),
    request_body = ChangeRoleRequest,
    responses((status = 204), (status = 403, response = Problem), (status = 404, response = Problem), (status = 409, response = Problem)))]
pub(super) async fn change_role(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Path(id): Path<String>,
    body: Body<ChangeRoleRequest>,
) -> Result<StatusCode, Problem> {
    let role = Role::parse_in_tenant(&body.value.role)?;
    state.freehold().members().change_role(&context, parse_id(&id, "member")?, role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a membership, another person's or the caller's own. The last owner stays.
#[utoipa::path(delete, operation_id = "remove_member", path = "/v1/members/{id}", tag = "members", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 403, response = Problem), (status = 404, response = Problem), (status = 409, response = Problem)))]
pub(super) async fn remove(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    state.freehold().members().remove(&context, parse_id(&id, "member")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
