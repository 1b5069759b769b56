//! `/v1/violations`: refused attempts, for operators.

use axum::Json;
use axum::extract::{Query, State};
use freehold::TenantId;
use freehold::control::violations::{RecordedViolation, ViolationFilter, ViolationKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::OperatorCaller;
use super::error::Problem;
use super::state::AppState;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ViolationQuery {
    /// Only those that this tenant made, and those that were directed at it.
    #[param(nullable = false, required = false)]
    tenant: Option<Uuid>,
    #[param(
        pattern = "^(context_refused|token_tenant_mismatch|wrong_scope|write_refused|forged_token)$",
        nullable = false,
        required = false
    )]
    kind: Option<String>,
    /// Begin after this one: the last of the page before.
    #[param(nullable = false, required = false)]
    after: Option<Uuid>,
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ViolationBody {
    id: Uuid,
    /// RFC 3339, UTC; of the first, if it happened several times.
    occurred_at: String,
    /// context_refused, token_tenant_mismatch, wrong_scope, write_refused, forged_token
    kind: &'static str,
    /// How often within a second the same was tried.
    count: i64,
    /// The tenant of the person who tried; absent outside of any, or if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Uuid>,
    /// Who tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Uuid>,
    /// The tenant that was claimed or reached for, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Uuid>,
    /// Of PostgreSQL, if that is what refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<String>,
    /// The `x-request-id` of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The beginning of the statement, without its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<RecordedViolation> for ViolationBody {
    fn from(row: RecordedViolation) -> Self {
        let violation = row.violation;
        ViolationBody {
            id: row.id,
            occurred_at: row.occurred_at.to_string(),
            kind: violation.kind.as_str(),
            count: row.count,
            tenant: violation.tenant.map(|t| t.as_uuid()),
            actor: violation.actor.map(|a| a.as_uuid()),
            target: violation.target.map(|t| t.as_uuid()),
            sqlstate: violation.sqlstate,
            request_id: row.request_id,
            statement: violation.statement,
            reason: violation.reason,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct ViolationPage {
    items: Vec<ViolationBody>,
}

/// List violations from the newest to the oldest. One appears a moment after it happened.
#[utoipa::path(get, operation_id = "list_violations", path = "/v1/violations", tag = "violations", params(ViolationQuery),
    responses((status = 200, body = ViolationPage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(query): Query<ViolationQuery>,
) -> Result<Json<ViolationPage>, Problem> {
    let kind = query.kind.as_deref().map(ViolationKind::parse).transpose()?;
    let filter = ViolationFilter { tenant: query.tenant.map(TenantId::from), kind };
    let list =
        state.freehold().violations().list(&context, &filter, query.after, query.limit).await?;
    Ok(Json(ViolationPage { items: list.into_iter().map(ViolationBody::from).collect() }))
}
