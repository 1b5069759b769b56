//! `/v1/insight`: the load that tenants put on the database, for operators.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::insight::{BusyTenant, TableUsage, TenantUsage, Usage, UsageOrder};
use freehold::control::sizes::{SizeOrder, TenantGrowth, TenantSize};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::OperatorCaller;
use super::error::Problem;
use super::paths::TenantPath;
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
#[utoipa::path(get, operation_id = "list_tenant_usage", path = "/v1/insight/tenants", tag = "insight", params(UsageQuery),
    responses((status = 200, body = TenantUsagePage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(query): Query<UsageQuery>,
) -> Result<Json<TenantUsagePage>, Problem> {
    let UsageQuery { order, hours, offset, limit } = query;
    let order = order.as_deref().map(UsageOrder::parse).transpose()?.unwrap_or_default();
    let list = state.freehold().usage().list(&context, order, hours, offset, limit).await?;
    Ok(Json(TenantUsagePage { items: list.into_iter().map(Into::into).collect() }))
}

/// What one tenant's statements cost, by table.
#[utoipa::path(get, operation_id = "get_tenant_usage", path = "/v1/insight/tenants/{id}", tag = "insight", params(("id" = Uuid, Path), HoursQuery),
    responses((status = 200, body = TableUsagePage), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    TenantPath(id): TenantPath,
    Query(query): Query<HoursQuery>,
) -> Result<Json<TableUsagePage>, Problem> {
    let list = state.freehold().usage().get(&context, id, query.hours).await?;
    Ok(Json(TableUsagePage { items: list.into_iter().map(Into::into).collect() }))
}

/// The tenants that are busiest at this moment: rates of the last seconds, of all servers.
#[utoipa::path(get, operation_id = "list_busiest_tenants", path = "/v1/insight/busiest", tag = "insight", params(LimitQuery),
    responses((status = 200, body = BusyTenantPage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn busiest(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(query): Query<LimitQuery>,
) -> Result<Json<BusyTenantPage>, Problem> {
    let list = state.freehold().usage().list_busiest(&context, query.limit).await?;
    Ok(Json(BusyTenantPage { items: list.into_iter().map(Into::into).collect() }))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SizeOrderQuery {
    #[default]
    Growth,
    Bytes,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SizesQuery {
    /// The greatest first: growth, bytes.
    #[param(inline, default = "growth", nullable = false, required = false)]
    order: Option<SizeOrderQuery>,
    /// How many to pass over.
    #[param(default = 0, nullable = false, required = false)]
    offset: Option<i64>,
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantGrowthBody {
    tenant: Uuid,
    slug: String,
    /// RFC 3339, UTC.
    measured_at: String,
    /// Tables with their indexes and what is stored out of line.
    bytes: i64,
    /// As PostgreSQL estimates them.
    rows: i64,
    /// Of a straight line through the sizes of the last seven days; of one who is known for less
    /// than a day, by what they grew since.
    bytes_per_day: f64,
    /// What it will take in 30 days if it goes on like this.
    forecast_bytes: f64,
}

impl From<TenantGrowth> for TenantGrowthBody {
    fn from(row: TenantGrowth) -> Self {
        TenantGrowthBody {
            tenant: row.tenant.as_uuid(),
            slug: row.slug,
            measured_at: row.measured_at.to_string(),
            bytes: row.bytes,
            rows: row.rows,
            bytes_per_day: row.bytes_per_day,
            forecast_bytes: row.forecast_bytes,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantGrowthPage {
    items: Vec<TenantGrowthBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantSizeBody {
    /// RFC 3339, UTC.
    measured_at: String,
    bytes: i64,
    /// As PostgreSQL estimates them.
    rows: i64,
}

impl From<TenantSize> for TenantSizeBody {
    fn from(row: TenantSize) -> Self {
        let TenantSize { measured_at, bytes, rows, .. } = row;
        TenantSizeBody { measured_at: measured_at.to_string(), bytes, rows }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantSizePage {
    items: Vec<TenantSizeBody>,
}

/// List tenants by what their schemas take, or how fast that grows.
#[utoipa::path(get, operation_id = "list_tenant_sizes", path = "/v1/insight/sizes", tag = "insight", params(SizesQuery),
    responses((status = 200, body = TenantGrowthPage), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn sizes(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(query): Query<SizesQuery>,
) -> Result<Json<TenantGrowthPage>, Problem> {
    let order = match query.order.unwrap_or_default() {
        SizeOrderQuery::Growth => SizeOrder::Growth,
        SizeOrderQuery::Bytes => SizeOrder::Bytes,
    };
    let list = state.freehold().sizes().list(&context, order, query.offset, query.limit).await?;
    Ok(Json(TenantGrowthPage { items: list.into_iter().map(Into::into).collect() }))
}

/// The sizes of one tenant, the newest first: all of two days, then one a day, for 90 days.
#[utoipa::path(get, operation_id = "get_tenant_size_history", path = "/v1/insight/tenants/{id}/sizes", tag = "insight", params(("id" = Uuid, Path), LimitQuery),
    responses((status = 200, body = TenantSizePage), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem)))]
pub(super) async fn size_history(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    TenantPath(id): TenantPath,
    Query(query): Query<LimitQuery>,
) -> Result<Json<TenantSizePage>, Problem> {
    let list = state.freehold().sizes().history(&context, id, query.limit).await?;
    Ok(Json(TenantSizePage { items: list.into_iter().map(Into::into).collect() }))
}
