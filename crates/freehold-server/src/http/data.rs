//! `/v1/data/{table}`: passes the request to `data`, which plans it, and runs the plan in the tenant's
//! context.

pub(super) mod freshness;
mod parameters;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use freehold::control::indexes::{IndexColumn, QueryShape};
use freehold::{
    Action, ErrorKind, Lsn, Params, Role, Row, Share, TenantContext, TextParam, require,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use self::freshness::Freshness;
use self::parameters::{RowBody, RowOrRowsBody, RowsBody};
use super::arrival::held;
use super::auth::TenantCaller;
use super::error::Problem;
use super::json::unread;
use super::state::AppState;
use crate::data::{
    self, AnswerRow, DataRequest, DatabaseError, Limits, Model, Plan, Shape, answer, from_database,
    plan, shape,
};

/// In the answer to a write, the log position behind which it lies. In a read, the position that it must see.
pub(super) const LSN: HeaderName = HeaderName::from_static("freehold-lsn");

/// Read rows: `select`, filters, `order`, `limit`, `offset`, as PostgREST has them.
#[utoipa::path(get, operation_id = "read_rows", path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Read),
    responses((status = 200, description = "The rows, or the one row that was asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 206, description = "A part of the rows, of which Content-Range tells", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json"))),
              (status = 400, response = Problem), (status = 404, response = Problem), (status = 406, response = Problem),
              (status = 414, response = Problem), (status = 416, response = Problem)))]
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
#[utoipa::path(post, operation_id = "insert_rows", path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Insert), request_body = RowOrRowsBody,
    responses((status = 201, description = "Inserted; with `Prefer: return=representation`, the rows",
                   headers(("Freehold-LSN" = String, description = "Where there are replicas: what a read sends to see this write"))),
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
#[utoipa::path(patch, operation_id = "update_rows", path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Change), request_body = RowBody,
    responses((status = 200, description = "The rows, if asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json")),
                   headers(("Freehold-LSN" = String, description = "Where there are replicas: what a read sends to see this write"))),
              (status = 204, description = "Updated",
                   headers(("Freehold-LSN" = String, description = "Where there are replicas: what a read sends to see this write"))),
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
#[utoipa::path(delete, operation_id = "delete_rows", path = "/v1/data/{table}", tag = "data", params(parameters::Table, parameters::Change),
    responses((status = 200, description = "The rows, if asked for", content((RowsBody = "application/json"),
                   (RowsBody = "application/vnd.pgrst.array+json"), (RowBody = "application/vnd.pgrst.object+json")),
                   headers(("Freehold-LSN" = String, description = "Where there are replicas: what a read sends to see this write"))),
              (status = 204, description = "Deleted",
                   headers(("Freehold-LSN" = String, description = "Where there are replicas: what a read sends to see this write"))),
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
    let (schema, role) = (context.tenant().schema(), database_role(&context));
    let plan = plan(&model, &schema, role, &request, state.data_limits())?;
    let count = || {
        count_query(&state, &context, &model, &request, state.data_limits());
    };
    let since = since(&headers)?;
    let write =
        plan.write.then(|| state.freehold().cache().begin_write(&context, freshness::CACHE));
    let freshness = Freshness::declared(&method, &headers);
    let share = state.answer_share(context.tenant());
    let (outcome, age) = match freshness {
        Some(freshness) => {
            // A write that the caller knows of may be newer than a cached value.
            let anew = freshness.anew || since.is_some();
            let freshness = Freshness { anew, ..freshness };
            execute_cached(&state, &context, &plan, freshness, &share, count).await
        }
        None => {
            count();
            (execute(&state, &context, &plan, since, &share).await, None)
        }
    };
    // In any case: the outcome of a commit whose answer was lost is unknown.
    if let Some(write) = write {
        write.end();
    }
    let executed = match outcome {
        Ok(executed) => executed,
        Err(error) => return Err(refusal(&plan, &model, error)),
    };
    let mut answer = executed.answered?;
    if let Some(freshness) = freshness {
        freshness.tell(age, &mut answer.headers);
    }
    let mut response = Response::new(Body::from(held(answer.body, share)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if executed.by_replica {
        let applied = HeaderValue::from_static("read=replica");
        response.headers_mut().append("preference-applied", applied);
    }
    if let Some(at) = executed.committed_at.and_then(|lsn| lsn.to_string().try_into().ok()) {
        response.headers_mut().insert(LSN, at);
    }
    Ok(response)
}

/// The database role of the caller's transaction.
pub(super) fn database_role(context: &TenantContext) -> data::Role {
    match context.role() {
        Role::Viewer => data::Role::Viewer,
        Role::Member => data::Role::Member,
        // An operator has no tenant context.
        Role::Admin | Role::Owner | Role::Operator => data::Role::Admin,
    }
}

/// Counts the request's shape, for advice on indexes.
pub(super) fn count_query(
    state: &AppState,
    context: &TenantContext,
    model: &Model,
    request: &DataRequest<'_>,
    limits: &Limits,
) {
    state.freehold().indexes().count_query(context, || {
        let Shape { table, conditions, order } = shape(model, request, limits)?;
        let by = |(name, descending)| IndexColumn { name, descending };
        Some(QueryShape { table, conditions, order: order.into_iter().map(by).collect() })
    });
}

/// The position that a read must see: everything committed before it.
fn since(headers: &HeaderMap) -> Result<Option<Lsn>, Problem> {
    let mut values = headers.get_all(LSN).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.unwrap_or_default().trim().parse().map(Some).map_err(|error: freehold::Error| {
        let detail = format!("Freehold-LSN must be sent as it was received: {}", error.message());
        Problem::new(StatusCode::BAD_REQUEST, error.kind().code(), detail).field("Freehold-LSN")
    })
}

/// The result of running a plan.
pub(super) struct Executed {
    pub(super) answered: Result<crate::data::Answer, crate::data::DataError>,
    by_replica: bool,
    /// For a write, if there are replicas.
    pub(super) committed_at: Option<Lsn>,
}

/// The answer's row, possibly as loaded for an earlier request, if the caller accepts that. One load may
/// serve several callers, so it must see what was committed: replicas are not used.
async fn execute_cached(
    state: &AppState,
    context: &TenantContext,
    plan: &Plan,
    freshness: Freshness,
    share: &Share,
    count: impl FnOnce(),
) -> (freehold::Result<Executed>, Option<Duration>) {
    let (cache, key) = (state.freehold().cache(), freshness::key(context, plan));
    let load = async {
        count();
        let values = values(plan);
        // The share covers the load only: several callers wait for the same row, and each then holds a copy.
        let tx =
            state.freehold().begin(context).await?.bounded_by(state.answer_share(context.tenant()));
        let tx = tx.counted_for(plan.table(), counted_rows);
        answer_row(&tx.query_and_commit(&plan.sql, &params(&values)).await?)
    };
    let cached = match freshness.anew {
        true => cache.refresh(&key, freshness.max_age, load).await.map(|row| (row, None)),
        false => {
            let cached = cache.get_or_load(&key, freshness.max_age, load).await;
            cached.map(|cached| (cached.value, cached.age))
        }
    };
    match cached {
        Ok((row, age)) => {
            if let Err(error) = share.take(row.body.len() as u64) {
                return (Err(error), None);
            }
            let answered = answer(plan, row);
            (Ok(Executed { answered, by_replica: false, committed_at: None }), age)
        }
        Err(error) => (Err(error), None),
    }
}

/// Runs the plan's one statement: in one flush, unless its answer decides whether to commit.
pub(super) async fn execute(
    state: &AppState,
    context: &TenantContext,
    plan: &Plan,
    since: Option<Lsn>,
    share: &Arc<Share>,
) -> freehold::Result<Executed> {
    let freehold = state.freehold();
    let values = values(plan);
    let params: Params<'_> = &params(&values);
    if plan.replica && freehold.has_replicas() {
        let read = freehold.begin_read(context, since).await?.bounded_by(Arc::clone(share));
        let mut read = read.counted_for(plan.table(), counted_rows);
        match read.query_and_end(&plan.sql, params).await {
            Ok(rows) => {
                let answered = answer(plan, answer_row(&rows)?);
                let by_replica = read.is_on_replica();
                return Ok(Executed { answered, by_replica, committed_at: None });
            }
            // A view of the baseline writes when it is read: the preference is ignored.
            Err(error) if is_refused_as_read_only(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let tx = freehold.begin(context).await?.bounded_by(Arc::clone(share));
    let mut tx = tx.counted_for(plan.table(), counted_rows);
    if !plan.commit_after_answer {
        let (rows, committed_at) = match plan.write {
            true => tx.query_and_commit_at(&plan.sql, params).await?,
            false => (tx.query_and_commit(&plan.sql, params).await?, None),
        };
        let answered = answer(plan, answer_row(&rows)?);
        return Ok(Executed { answered, by_replica: false, committed_at });
    }
    let rows = tx.query(&plan.sql, params).await?;
    let answered = answer(plan, answer_row(&rows)?);
    let committed_at = match &answered {
        Ok(_) => tx.commit_at().await?,
        Err(_) => {
            tx.rollback().await?;
            None
        }
    };
    Ok(Executed { answered, by_replica: false, committed_at })
}

fn is_refused_as_read_only(error: &freehold::Error) -> bool {
    error.database().is_some_and(|db| db.code().code() == "25006")
}

fn values(plan: &Plan) -> Vec<TextParam<'_>> {
    plan.params.iter().map(|p| TextParam(Some(p.value.as_str()))).collect()
}

fn params<'a>(
    values: &'a [TextParam<'a>],
) -> Vec<&'a (dyn freehold::postgres_types::ToSql + Sync)> {
    values.iter().map(|value| value as _).collect()
}

pub(super) fn answer_row(rows: &[Row]) -> freehold::Result<AnswerRow> {
    let row = rows.first().ok_or_else(|| {
        freehold::Error::new(ErrorKind::Internal, "the data API's statement yielded no row")
    })?;
    Ok(AnswerRow { body: row.get("body"), rows: row.get("rows"), total: row.get("total") })
}

/// The number of rows in an answer, for the tenant's figures.
pub(super) fn counted_rows(rows: &[Row]) -> u64 {
    rows.first().map_or(0, |row| row.get::<_, i64>("rows").unsigned_abs())
}

/// PostgreSQL's refusal of the caller's values becomes a data error; any other error is a failure of the
/// server. An error that the baseline's own code raised is answered with its message: under a code of its own
/// as the library answers it, under one of PostgreSQL's codes as if PostgreSQL had raised it.
pub(super) fn refusal(plan: &Plan, model: &crate::data::Model, error: freehold::Error) -> Problem {
    let raised = error.raised();
    let translatable = matches!(
        error.kind(),
        ErrorKind::Statement | ErrorKind::Forbidden | ErrorKind::Retryable | ErrorKind::Rejected
    ) && !raised.as_ref().is_some_and(|raised| raised.is_own_code);
    if error.kind() == ErrorKind::AnswerTooLarge {
        return Problem::from(error)
            .hint("send a smaller limit, or name fewer columns in select; nothing was changed");
    }
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
            routine: db.routine(),
        },
    );
    if let Some(raised) = raised {
        return match refused.status.is_server_error() {
            true => Problem::from(error),
            false => Problem::from(refused).in_words_of(raised),
        };
    }
    if refused.status.is_server_error() {
        tracing::error!(%error, "the data API's statement failed");
    }
    Problem::from(refused)
}
