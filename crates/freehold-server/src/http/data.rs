//! `/v1/data/{table}`: hands the request to `data`, which plans it, and the plan to the database,
//! in the tenant's context.

mod parameters;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use freehold::{Action, ErrorKind, Params, Row, TenantContext, TextParam, require};
use http::{HeaderMap, Method};

use self::parameters::{RowBody, RowOrRowsBody, RowsBody};
use super::auth::TenantCaller;
use super::error::Problem;
use super::json::unread;
use super::state::AppState;
use crate::data::{AnswerRow, DataRequest, DatabaseError, Plan, answer, from_database, plan};

/// Read rows: `select`, filters, `order`, `limit`, `offset`, as PostgREST has them.
#[utoipa::path(get, path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Read),
    responses((status = 200, description = "The rows, or the one row that was asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 206, description = "A part of the rows, of which Content-Range tells", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 404, response = Problem), (status = 406, response = Problem), (status = 414, response = Problem),
              (status = 416, response = Problem)))]
pub(super) async fn read(
    state: State<AppState>,
    caller: TenantCaller,
    method: Method,
    table: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    run(state, caller, method, table, query, headers, Ok(Bytes::new())).await
}

/// Insert one row or many, or upsert with `Prefer: resolution=merge-duplicates`.
#[utoipa::path(post, path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Insert), request_body = RowOrRowsBody,
    responses((status = 201, description = "Inserted; with `Prefer: return=representation`, the rows"),
              (status = 404, response = Problem), (status = 406, response = Problem), (status = 409, response = Problem),
              (status = 414, response = Problem), (status = 415, response = Problem)))]
pub(super) async fn insert(
    state: State<AppState>,
    caller: TenantCaller,
    method: Method,
    table: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    run(state, caller, method, table, query, headers, body).await
}

/// Update the rows that the filters choose.
#[utoipa::path(patch, path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Change), request_body = RowBody,
    responses((status = 200, description = "The rows, if asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 204, description = "Updated"),
              (status = 404, response = Problem), (status = 406, response = Problem), (status = 409, response = Problem),
              (status = 414, response = Problem), (status = 415, response = Problem)))]
pub(super) async fn update(
    state: State<AppState>,
    caller: TenantCaller,
    method: Method,
    table: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    run(state, caller, method, table, query, headers, body).await
}

/// Delete the rows that the filters choose.
#[utoipa::path(delete, path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Change),
    responses((status = 200, description = "The rows, if asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 204, description = "Deleted"),
              (status = 404, response = Problem), (status = 406, response = Problem), (status = 409, response = Problem),
              (status = 414, response = Problem)))]
pub(super) async fn delete(
    state: State<AppState>,
    caller: TenantCaller,
    method: Method,
    table: Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    run(state, caller, method, table, query, headers, Ok(Bytes::new())).await
}

async fn run(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    method: Method,
    Path(table): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if matches!(method, Method::GET | Method::HEAD) {
        require(context.role(), Action::ReadData)?;
    } else {
        state.freehold().require_write(&context, Action::WriteData)?;
    }
    let body = body.map_err(unread)?;
    let model = state.model();
    let request = DataRequest {
        method: &method,
        table: &table,
        query: query.as_deref().unwrap_or_default(),
        headers: &headers,
        body: &body,
    };
    let plan = plan(&model, &context.tenant().schema(), &request, state.data_limits())?;
    let answer = match execute(&state, &context, &plan).await {
        Ok(answer) => answer?,
        Err(error) => return Err(refusal(&plan, &model, error)),
    };
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

type Answered = Result<crate::data::Answer, crate::data::DataError>;

/// Runs the plan's one statement: in one flush, unless its answer decides whether to commit.
async fn execute(
    state: &AppState,
    context: &TenantContext,
    plan: &Plan,
) -> freehold::Result<Answered> {
    let values: Vec<_> = plan.params.iter().map(|p| TextParam(Some(p.value.as_str()))).collect();
    let params: Vec<_> =
        values.iter().map(|v| v as &(dyn freehold::tokio_postgres::types::ToSql + Sync)).collect();
    let params: Params<'_> = &params;
    if !plan.commit_after_answer {
        let rows = state.freehold().query(context, &plan.sql, params).await?;
        return Ok(answer(plan, answer_row(&rows)?));
    }
    let mut tx = state.freehold().begin(context).await?;
    let rows = tx.query(&plan.sql, params).await?;
    let answered = answer(plan, answer_row(&rows)?);
    match &answered {
        Ok(_) => tx.commit().await?,
        Err(_) => tx.rollback().await?,
    }
    Ok(answered)
}

fn answer_row(rows: &[Row]) -> freehold::Result<AnswerRow> {
    let row = rows.first().ok_or_else(|| {
        freehold::Error::new(ErrorKind::Internal, "the data API's statement yielded no row")
    })?;
    Ok(AnswerRow { body: row.get("body"), rows: row.get("rows"), total: row.get("total") })
}

/// PostgreSQL's refusal of the caller's values becomes a data error; anything else is ours.
fn refusal(plan: &Plan, model: &crate::data::Model, error: freehold::Error) -> Problem {
    let translatable =
        matches!(error.kind(), ErrorKind::Statement | ErrorKind::Forbidden | ErrorKind::Retryable);
    let Some(db) = error.database().filter(|_| translatable) else { return Problem::from(error) };
    let refused = from_database(
        plan,
        model,
        &DatabaseError {
            sqlstate: db.code().code(),
            message: db.message(),
            context: db.where_(),
            table: db.table(),
            column: db.column(),
            data_type: db.datatype(),
            constraint: db.constraint(),
        },
    );
    if refused.status.is_server_error() {
        tracing::error!(%error, "the data API's statement failed");
    }
    Problem::from(refused)
}
