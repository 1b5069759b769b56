//! `/v1/insight`: what tenants do to the database, for operators.

use axum::Json;
use axum::extract::{Path, Query, State};
use freehold::control::insight::{BusyTenant, TableUsage, TenantUsage, Usage, UsageOrder};
use freehold::{OperatorContext, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::OperatorCaller;
use super::error::Problem;
use super::state::AppState;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// The greatest first: time, queries, rows, errors, wait.
    #[param(
        pattern = "^(time|queries|rows|errors|wait)$",
        default = "time",
        nullable = false,
        required = false
    )]
    order: Option<String>,
    /// The current hour and so many before it, 25 in all at most.
    #[param(default = 25, nullable = false, required = false)]
    hours: Option<i32>,
    /// How many to pass over.
    #[param(default = 0, nullable = false, required = false)]
    offset: Option<i64>,
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HoursQuery {
    /// The current hour and so many before it, 25 in all at most.
    #[param(default = 25, nullable = false, required = false)]
    hours: Option<i32>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitQuery {
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct UsageBody {
    /// Statements that ended, whether well or not.
    queries: u64,
    /// Rows returned or changed.
    rows: u64,
    /// Statements that failed or were given up.
    errors: u64,
    /// Between sending statements and their answers.
    time_ms: f64,
    /// What was waited for connections.
    wait_ms: f64,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        let Usage { queries, rows, errors, time_us, wait_us } = usage;
        let ms = |us: u64| us as f64 / 1e3;
        UsageBody { queries, rows, errors, time_ms: ms(time_us), wait_ms: ms(wait_us) }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantUsageBody {
    tenant: Uuid,
    slug: String,
    #[serde(flatten)]
    usage: UsageBody,
}

impl From<TenantUsage> for TenantUsageBody {
    fn from(row: TenantUsage) -> Self {
        TenantUsageBody { tenant: row.tenant.as_uuid(), slug: row.slug, usage: row.usage.into() }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantUsagePage {
    items: Vec<TenantUsageBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TableUsageBody {
    /// `(sql)` for statements whose table was not said.
    table: String,
    #[serde(flatten)]
    usage: UsageBody,
}

impl From<TableUsage> for TableUsageBody {
    fn from(row: TableUsage) -> Self {
        TableUsageBody { table: row.table, usage: row.usage.into() }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TableUsagePage {
    items: Vec<TableUsageBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct BusyTenantBody {
    tenant: Uuid,
    slug: String,
    queries_per_second: f64,
    rows_per_second: f64,
    errors_per_second: f64,
    /// How many of its statements run at a time.
    running: f64,
    /// How many of its callers wait for a connection at a time.
    waiting: f64,
}

impl From<BusyTenant> for BusyTenantBody {
    fn from(row: BusyTenant) -> Self {
        BusyTenantBody {
            tenant: row.tenant.as_uuid(),
            slug: row.slug,
            queries_per_second: row.queries_per_second,
            rows_per_second: row.rows_per_second,
            errors_per_second: row.errors_per_second,
            running: row.running,
            waiting: row.waiting,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct BusyTenantPage {
    items: Vec<BusyTenantBody>,
}

/// List tenants by what their statements cost, of all servers. A server adds its figures every minute.
#[utoipa::path(get, path = "/v1/insight/tenants", tag = "insight", params(UsageQuery),
    responses((status = 200, body = TenantUsagePage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(operator): OperatorCaller,
    Query(query): Query<UsageQuery>,
) -> Result<Json<TenantUsagePage>, Problem> {
    let context = OperatorContext::of(operator.actor(), "GET /v1/insight/tenants");
    let UsageQuery { order, hours, offset, limit } = query;
    let order = order.as_deref().map(UsageOrder::parse).transpose()?.unwrap_or_default();
    let list = state.freehold().list_usage(&context, order, hours, offset, limit).await?;
    Ok(Json(TenantUsagePage { items: list.into_iter().map(Into::into).collect() }))
}

/// What one tenant's statements cost, by table.
#[utoipa::path(get, path = "/v1/insight/tenants/{id}", tag = "insight", params(("id" = Uuid, Path), HoursQuery),
    responses((status = 200, body = TableUsagePage), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    OperatorCaller(operator): OperatorCaller,
    Path(id): Path<Uuid>,
    Query(query): Query<HoursQuery>,
) -> Result<Json<TableUsagePage>, Problem> {
    let context = OperatorContext::of(operator.actor(), "GET /v1/insight/tenants/{id}");
    let list = state.freehold().usage_of(&context, TenantId::from(id), query.hours).await?;
    Ok(Json(TableUsagePage { items: list.into_iter().map(Into::into).collect() }))
}

/// The tenants that are busiest at this moment: rates of the last seconds, of all servers.
#[utoipa::path(get, path = "/v1/insight/busiest", tag = "insight", params(LimitQuery),
    responses((status = 200, body = BusyTenantPage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn busiest(
    State(state): State<AppState>,
    OperatorCaller(operator): OperatorCaller,
    Query(query): Query<LimitQuery>,
) -> Result<Json<BusyTenantPage>, Problem> {
    let context = OperatorContext::of(operator.actor(), "GET /v1/insight/busiest");
    let list = state.freehold().list_busiest(&context, query.limit).await?;
    Ok(Json(BusyTenantPage { items: list.into_iter().map(Into::into).collect() }))
}
