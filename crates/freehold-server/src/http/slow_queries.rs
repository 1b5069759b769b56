//! `/v1/insight/slow`: slow statements with their plans; those of all tenants for operators, a tenant's own
//! for its owners.

use axum::Json;
use axum::extract::{Query, State};
use freehold::TenantId;
use freehold::control::sessions::Caller;
use freehold::control::slow_queries::SlowStatement;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::AnyCaller;
use super::error::{Problem, no_such, parse_id};
use super::state::AppState;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowQuery {
    /// Those of one tenant, by its id; for owners, their own.
    #[param(nullable = false, required = false)]
    tenant: Option<String>,
    /// How many to pass over.
    #[param(default = 0, nullable = false, required = false)]
    offset: Option<i64>,
    /// How many at most; a page has 1 to 50.
    #[param(default = 20, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SlowStatementBody {
    tenant: Uuid,
    slug: String,
    /// A digest of the statement without its values: the same for all tenants.
    shape: String,
    /// `(sql)` if the statement's table was not said.
    table: String,
    /// Without its values; several for a pipeline, which is timed as a whole.
    statement: String,
    /// How often it was slow.
    count: u64,
    /// How often it failed or was given up then.
    failed: u64,
    /// What it took then, all together.
    total_ms: f64,
    /// RFC 3339, UTC.
    first_at: String,
    last_at: String,
    /// The longest that it took.
    slowest_ms: f64,
    slowest_rows: u64,
    slowest_at: String,
    slowest_request_id: Option<String>,
    /// EXPLAIN's JSON, for any values and without those in the statement's text; null if there is none.
    #[schema(value_type = Option<Vec<Object>>)]
    plan: Option<serde_json::Value>,
    planned_at: Option<String>,
}

impl From<SlowStatement> for SlowStatementBody {
    fn from(row: SlowStatement) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        SlowStatementBody {
            tenant: row.tenant.as_uuid(),
            slug: row.slug,
            shape: row.shape,
            table: row.table,
            statement: row.statement,
            count: row.count,
            failed: row.failed,
            total_ms: ms(row.total_us),
            first_at: row.first_at.to_string(),
            last_at: row.last_at.to_string(),
            slowest_ms: ms(row.slowest_us),
            slowest_rows: row.slowest_rows,
            slowest_at: row.slowest_at.to_string(),
            slowest_request_id: row.slowest_request_id,
            plan: row.plan,
            planned_at: row.planned_at.map(|at| at.to_string()),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct SlowStatementPage {
    items: Vec<SlowStatementBody>,
}

/// List statements that took `SLOW_QUERY_MS` or longer, what was slow last first: of all tenants for
/// operators, of their own for a tenant's owners.
#[utoipa::path(get, operation_id = "list_slow_queries", path = "/v1/insight/slow", tag = "insight", params(SlowQuery),
    responses((status = 200, body = SlowStatementPage), (status = 400, response = Problem), (status = 401, response = Problem),
              (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    AnyCaller(caller): AnyCaller,
    Query(SlowQuery { tenant, offset, limit }): Query<SlowQuery>,
) -> Result<Json<SlowStatementPage>, Problem> {
    let freehold = state.freehold();
    let tenant: Option<TenantId> = tenant.map(|text| parse_id(&text, "tenant")).transpose()?;
    let list = match caller {
        Caller::Operator(context, _) => {
            freehold.slow_queries().list(&context, tenant, offset, limit).await?
        }
        // Another tenant's id is answered like one that does not exist.
        Caller::Tenant(context, _) if tenant.is_some_and(|id| id != context.tenant()) => {
            return Err(no_such("tenant"));
        }
        Caller::Tenant(context, _) => {
            freehold.slow_queries().list_own(&context, offset, limit).await?
        }
    };
    Ok(Json(SlowStatementPage { items: list.into_iter().map(Into::into).collect() }))
}
