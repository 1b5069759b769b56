//! `/v1/me`: the person who is signed in, and that person's tenants.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::AnyCaller;
use super::error::Problem;
use super::sessions::TenantBriefBody;
use super::state::AppState;

#[derive(Serialize, ToSchema)]
pub(super) struct MeBody {
    id: Uuid,
    email: String,
    name: String,
    /// The role of the present session.
    role: &'static str,
    /// The tenant of the present session; absent for an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantBriefBody>,
    /// All tenants that one belongs to.
    tenants: Vec<MyTenantBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MyTenantBody {
    #[serde(flatten)]
    tenant: TenantBriefBody,
    role: &'static str,
}

/// The person behind the token.
#[utoipa::path(get, operation_id = "get_me", path = "/v1/me", tag = "sign-in",
    responses((status = 200, body = MeBody), (status = 401, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: AnyCaller,
) -> Result<Json<MeBody>, Problem> {
    let me = state.sign_in().me(&caller.0).await?;
    Ok(Json(MeBody {
        id: me.id.as_uuid(),
        email: me.email,
        name: me.name,
        role: me.role.as_str(),
        tenant: me.tenant.map(TenantBriefBody::from),
        tenants: me
            .tenants
            .into_iter()
            .map(|mine| MyTenantBody { tenant: mine.tenant.into(), role: mine.role.as_str() })
            .collect(),
    }))
}
