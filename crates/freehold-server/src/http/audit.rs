//! `/v1/audit`: the record of what was done to people and tenants. Operators read all of it, owners that of
//! their tenant.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::audit::{AuditEntry, AuditFilter};
use freehold::control::sessions::Caller;
use freehold::{IdentityId, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::AnyCaller;
use super::error::Problem;
use super::state::AppState;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Only what was done in this tenant; an owner names none, or their own.
    #[param(nullable = false, required = false)]
    tenant: Option<Uuid>,
    /// Only what this person did, and what was done to them.
    #[param(nullable = false, required = false)]
    person: Option<Uuid>,
    /// Only what is about this e-mail, and about people who had it at any time, including removed ones.
    #[param(max_length = 254, nullable = false, required = false)]
    email: Option<String>,
    /// Begin after this one: the last of the page before.
    #[param(nullable = false, required = false)]
    after: Option<Uuid>,
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AuditBody {
    id: Uuid,
    /// RFC 3339, UTC.
    occurred_at: String,
    /// Such as member.remove.
    action: String,
    /// Who did it: a person, or the nil UUID for the command line and the system; absent if the person had
    /// not signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Uuid>,
    /// To whom it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Uuid>,
    /// A client's address, or the account at a command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl From<AuditEntry> for AuditBody {
    fn from(entry: AuditEntry) -> Self {
        AuditBody {
            id: entry.id,
            occurred_at: entry.occurred_at.to_string(),
            action: entry.action,
            actor: entry.actor,
            target: entry.target,
            target_email: entry.target_email,
            tenant: entry.tenant,
            origin: entry.origin,
            request_id: entry.request_id,
            why: entry.why,
            detail: entry.detail,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    items: Vec<AuditBody>,
}

/// List what was done, from the newest to the oldest; kept are 400 days.
#[utoipa::path(get, operation_id = "list_audit", path = "/v1/audit", tag = "people", params(AuditQuery),
    responses((status = 200, body = AuditPage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    AnyCaller(caller): AnyCaller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let AuditQuery { tenant, person, email, after, limit } = query;
    let filter = AuditFilter {
        tenant: tenant.map(TenantId::from),
        person: person.map(IdentityId::from),
        address: email,
    };
    let freehold = state.freehold();
    let list = match caller {
        Caller::Operator(context, _) => {
            freehold.audit().list(&context, &filter, after, limit).await?
        }
        // Another tenant's record is as empty as that of a tenant that does not exist.
        Caller::Tenant(context, _) => {
            let list = freehold.audit().list_own(&context, &filter, after, limit).await?;
            let named = tenant.is_none_or(|tenant| tenant == context.tenant().as_uuid());
            if named { list } else { Vec::new() }
        }
    };
    Ok(Json(AuditPage { items: list.into_iter().map(AuditBody::from).collect() }))
}
