//! `POST /v1/batch`: operations of the data API together, as one transaction or each as its own.
//!
//! Each operation is planned, and its permission checked like that of a single request, before anything is
//! sent; then all go to the database in one flush.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use freehold::postgres_types::ToSql;
use freehold::{
    Action, Answer, ErrorKind, Lsn, Params, Share, TenantContext, TenantTx, TextParam, require,
};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::arrival::held;
use super::auth::TenantCaller;
use super::data::{
    LSN, answer_row, count_query, counted_rows, database_role, execute, freshness, refusal,
};
use super::error::{PROBLEM, Problem};
use super::json::Body;
use super::state::AppState;
use crate::data::{self, Model, Operation, Plan};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchQuery {
    /// `atomic`: one transaction, so that all of it is done or nothing. `independent`: each
    /// operation is a transaction of its own, and one that fails is in nobody's way.
    #[param(inline, nullable = false, required = false)]
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Atomic,
    Independent,
}

/// A request to the data API. Fields that are not known are refused.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `data::Operation` reads")]
pub(super) struct OperationBody {
    /// GET, HEAD, POST, PATCH or DELETE.
    #[schema(example = "GET")]
    method: String,
    /// As in a request, from `/v1/data/` on or without it.
    #[schema(example = "/v1/data/orders?select=id&limit=10")]
    path: String,
    /// Accept, Content-Type, Prefer, Range and Range-Unit; others are refused.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, String>>,
    /// The rows of a POST, or the columns of a PATCH.
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
}

/// Why an atomic batch was not done: a problem, and the answers, of which one at least is the cause.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchProblem {
    #[serde(flatten)]
    problem: Problem,
    answers: Vec<AnswerBody>,
}

/// What one operation came to.
#[derive(Serialize, ToSchema)]
pub(super) struct AnswerBody {
    /// The status that a request of its own would have; 424 if it was not done because of another.
    status: u16,
    headers: BTreeMap<String, String>,
    /// Rows, a problem, or null.
    #[schema(value_type = serde_json::Value)]
    body: Option<Box<RawValue>>,
}

type Outcome = Result<data::Answer, Problem>;
/// Outcomes, and the log position behind which the writes lie, if there are replicas.
type Outcomes = (Vec<Outcome>, Option<Lsn>);

/// Run operations of the data API together.
///
/// They are run in their order. The answers are in that order too, each with a status of its own.
#[utoipa::path(post, operation_id = "run_batch", path = "/v1/batch", tag = "data", params(BatchQuery), request_body = Vec<OperationBody>,
    responses((status = 200, description = "Every operation succeeded", body = Vec<AnswerBody>),
              (status = 207, description = "`independent`: some did not succeed, and each answer says how it went", body = Vec<AnswerBody>),
              (status = 424, description = "`atomic`: nothing was done, because of the operations whose answer is another than 424",
               body = BatchProblem, content_type = "application/problem+json")))]
pub(super) async fn run(
    State(state): State<AppState>,
    TenantCaller(context): TenantCaller,
    Query(BatchQuery { mode }): Query<BatchQuery>,
    operations: Body<Vec<Box<RawValue>>>,
) -> Result<Response, Problem> {
    let limits = state.batch_limits();
    limits.check_operations(operations.value.len())?;
    let model = state.model();
    let ready: Vec<Result<Plan, Problem>> =
        operations.value.iter().map(|json| prepare(&state, &context, &model, json.get())).collect();
    let asked = ready.iter().flatten().fold(0, |sum: u64, plan| sum.saturating_add(plan.rows_max));
    limits.check_rows(asked)?;
    let writes = ready.iter().flatten().any(|plan| plan.write);
    let write = writes.then(|| state.freehold().cache().begin_write(&context, freshness::CACHE));
    let share = state.answer_share(context.tenant());
    let (outcomes, committed_at) = match mode {
        Mode::Atomic => as_one(&state, &context, &model, ready, &share).await?,
        Mode::Independent => {
            // Ends before the request's own timeout, whose answer says that nothing was kept.
            let time_max = state.limits().time_max.mul_f64(0.9);
            let each = each(&state, &context, &model, ready, &share);
            tokio::time::timeout(time_max, each).await.map_err(|_| took_too_long())?
        }
    };
    if let Some(write) = write {
        write.end();
    }
    let done = outcomes.iter().all(Result::is_ok);
    let answers: Vec<_> = outcomes.into_iter().map(AnswerBody::new).collect::<Result<_, _>>()?;
    let mut response = match (done, mode) {
        (true, _) => written_out(StatusCode::OK, &answers, share)?,
        (false, Mode::Independent) => written_out(StatusCode::MULTI_STATUS, &answers, share)?,
        (false, Mode::Atomic) => {
            let detail = "an operation of the batch failed, so nothing of it was done";
            let problem = Problem::new(StatusCode::FAILED_DEPENDENCY, "batch_failed", detail);
            let mut response =
                (problem.status(), Json(BatchProblem { problem, answers })).into_response();
            response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
            response
        }
    };
    if let Some(at) = committed_at.and_then(|lsn| lsn.to_string().try_into().ok()) {
        response.headers_mut().insert(LSN, at);
    }
    Ok(response)
}

/// The answers as JSON, which holds its share of memory until it is sent.
fn written_out(
    status: StatusCode,
    answers: &[AnswerBody],
    share: Arc<Share>,
) -> Result<Response, Problem> {
    let json = serde_json::to_vec(answers).map_err(no_json)?;
    let mut response = (status, ResponseBody::from(held(json, share))).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Plans an operation, if the actor may perform it.
fn prepare(
    state: &AppState,
    context: &TenantContext,
    model: &Model,
    json: &str,
) -> Result<Plan, Problem> {
    let operation = Operation::parse(json)?;
    if operation.is_read() {
        require(context.role(), Action::ReadData)?;
    } else {
        state.freehold().require_write(context, Action::WriteData)?;
    }
    let limits = state.batch_limits().of(&operation, state.data_limits());
    let schema = context.tenant().schema();
    let plan = data::plan(model, &schema, database_role(context), &operation.request(), &limits)?;
    count_query(state, context, model, &operation.request(), &limits);
    Ok(plan)
}

/// All operations in one transaction.
async fn as_one(
    state: &AppState,
    context: &TenantContext,
    model: &Model,
    ready: Vec<Result<Plan, Problem>>,
    share: &Arc<Share>,
) -> Result<Outcomes, Problem> {
    if ready.iter().any(Result::is_err) {
        let undone = ready.into_iter().map(|plan| Err(plan.err().unwrap_or_else(not_done)));
        return Ok((undone.collect(), None));
    }
    let plans: Vec<Plan> = ready.into_iter().flatten().collect();
    let run = run_as_one(state, context, &plans, share).await;
    let (at, error) = match run {
        Ok((outcomes, at)) if outcomes.iter().all(Result::is_ok) => return Ok((outcomes, at)),
        Ok((outcomes, _)) => {
            let undone = outcomes.into_iter().map(|outcome| outcome.and_then(|_| Err(not_done())));
            return Ok((undone.collect(), None));
        }
        Err(error) => (error.at(), error.into_error()),
    };
    let whole = matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::Overloaded
            | ErrorKind::PoolExhausted
            | ErrorKind::Internal
    );
    let at = at.or_else(|| culprit(&plans, &error));
    let Some(at) = at.filter(|_| !whole) else { return Err(Problem::from(error)) };
    let mut outcomes: Vec<Outcome> = plans.iter().map(|_| Err(not_done())).collect();
    outcomes[at] = Err(refusal(&plans[at], model, error));
    Ok((outcomes, None))
}

/// The operation that violated a constraint which is checked at the commit: the last one that wrote to its
/// table.
fn culprit(plans: &[Plan], error: &freehold::Error) -> Option<usize> {
    let table = error.database()?.table();
    let by_table = plans.iter().rposition(|plan| plan.write && Some(plan.table()) == table);
    by_table.or_else(|| plans.iter().rposition(|plan| plan.write))
}

/// In one flush with COMMIT, unless an answer decides whether to commit.
async fn run_as_one(
    state: &AppState,
    context: &TenantContext,
    plans: &[Plan],
    share: &Arc<Share>,
) -> Result<Outcomes, freehold::PipelineError> {
    let values: Vec<Values<'_>> = plans.iter().map(Values::of).collect();
    let params: Vec<Vec<&(dyn ToSql + Sync)>> = values.iter().map(Values::params).collect();
    let statements = statements(plans.iter(), &params);
    let mut tx = begin(state, context, plans).await?.bounded_by(Arc::clone(share));
    let tells_place = state.freehold().has_replicas() && plans.iter().any(|plan| plan.write);
    // Answers may be too large, which must be known before anything is committed.
    let may_exceed = plans.iter().any(|plan| plan.write) && plans.iter().any(Plan::returns_rows);
    if !tells_place && !may_exceed && !plans.iter().any(Plan::may_be_refused) {
        let answers = tx.pipeline_and_commit(&statements).await?;
        return Ok((answered(plans, answers)?, None));
    }
    let answers = tx.pipeline(&statements).await?;
    let outcomes = answered(plans, answers)?;
    if outcomes.iter().all(Result::is_ok) {
        let committed_at = tx.commit_at().await?;
        return Ok((outcomes, committed_at));
    }
    tx.rollback().await?;
    Ok((outcomes, None))
}

/// A transaction whose statements count for the tables of these plans.
async fn begin(
    state: &AppState,
    context: &TenantContext,
    plans: &[Plan],
) -> freehold::Result<TenantTx> {
    let tables: Vec<&str> = plans.iter().map(Plan::table).collect();
    Ok(state.freehold().begin(context).await?.counted_for_each(&tables, counted_rows))
}

fn answered(plans: &[Plan], answers: Vec<Answer>) -> Result<Vec<Outcome>, freehold::PipelineError> {
    let mut outcomes = Vec::with_capacity(plans.len());
    for (plan, answer) in plans.iter().zip(answers) {
        outcomes.push(data::answer(plan, answer_row(&answer.rows)?).map_err(Problem::from));
    }
    Ok(outcomes)
}

/// Each operation in a transaction of its own. Consecutive reads go out in one flush, and so do consecutive
/// writes. An operation goes alone if its answer decides whether to commit, or if its log position is to be
/// returned.
async fn each(
    state: &AppState,
    context: &TenantContext,
    model: &Model,
    ready: Vec<Result<Plan, Problem>>,
    share: &Arc<Share>,
) -> Outcomes {
    let has_replicas = state.freehold().has_replicas();
    let mut committed_at = None;
    let mut outcomes = Vec::with_capacity(ready.len());
    let mut together: Vec<Plan> = Vec::new();
    for plan in ready {
        let plan = match plan {
            Ok(plan) if !(plan.commit_after_answer || has_replicas && plan.write) => {
                // Reads may return too much. A write that returns nothing has been committed by then.
                if together.last().is_some_and(|last| last.write != plan.write) {
                    let former = std::mem::take(&mut together);
                    outcomes.extend(run_each(state, context, model, &former, share).await);
                }
                together.push(plan);
                continue;
            }
            other => other,
        };
        // In order: the earlier operations are run first.
        let former = std::mem::take(&mut together);
        outcomes.extend(run_each(state, context, model, &former, share).await);
        outcomes.push(match plan {
            Ok(plan) => match execute(state, context, &plan, None, share).await {
                Ok(executed) => {
                    committed_at = executed.committed_at.or(committed_at);
                    executed.answered.map_err(Problem::from)
                }
                Err(error) => Err(refusal(&plan, model, error)),
            },
            Err(problem) => Err(problem),
        });
    }
    outcomes.extend(run_each(state, context, model, &together, share).await);
    (outcomes, committed_at)
}

async fn run_each(
    state: &AppState,
    context: &TenantContext,
    model: &Model,
    plans: &[Plan],
    share: &Arc<Share>,
) -> Vec<Outcome> {
    if plans.is_empty() {
        return Vec::new();
    }
    let values: Vec<Values<'_>> = plans.iter().map(Values::of).collect();
    let params: Vec<Vec<&(dyn ToSql + Sync)>> = values.iter().map(Values::params).collect();
    let statements = statements(plans.iter(), &params);
    let answers = async {
        let tx = begin(state, context, plans).await?;
        let tx = match plans.iter().any(|plan| plan.write) {
            true => tx,
            false => tx.bounded_by(Arc::clone(share)),
        };
        tx.pipeline_each(&statements).await
    };
    let answers = match answers.await {
        Ok(answers) => answers,
        Err(error) => {
            let problem = Problem::from(error);
            return plans.iter().map(|_| Err(problem.clone())).collect();
        }
    };
    let outcome = |(plan, answer): (&Plan, freehold::Result<Answer>)| {
        let row = answer.and_then(|answer| answer_row(&answer.rows));
        match row {
            Ok(row) => data::answer(plan, row).map_err(Problem::from),
            Err(error) => Err(refusal(plan, model, error)),
        }
    };
    plans.iter().zip(answers).map(outcome).collect()
}

/// The parameters of a plan, as text.
struct Values<'p>(Vec<TextParam<'p>>);

impl<'p> Values<'p> {
    fn of(plan: &'p Plan) -> Values<'p> {
        Values(plan.params.iter().map(|param| TextParam(Some(param.value.as_str()))).collect())
    }

    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
    }
}

fn statements<'p>(
    plans: impl Iterator<Item = &'p Plan>,
    params: &'p [Vec<&'p (dyn ToSql + Sync)>],
) -> Vec<(&'p str, Params<'p>)> {
    plans.zip(params).map(|(plan, params)| (plan.sql.as_str(), params.as_slice())).collect()
}

fn took_too_long() -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "timeout",
        "the batch took longer than it may; some of its operations may have been done",
    )
}

fn not_done() -> Problem {
    Problem::new(
        StatusCode::FAILED_DEPENDENCY,
        "not_done",
        "another operation of the batch failed, so nothing of it was done",
    )
}

impl AnswerBody {
    fn new(outcome: Outcome) -> Result<AnswerBody, Problem> {
        match outcome {
            Ok(answer) => {
                let body = (!answer.body.is_empty()).then(|| RawValue::from_string(answer.body));
                Ok(AnswerBody {
                    status: answer.status.as_u16(),
                    headers: written(answer.headers.iter()),
                    body: body.transpose().map_err(no_json)?,
                })
            }
            Err(problem) => {
                let headers = problem.headers().iter().map(|(name, value)| (name, value));
                Ok(AnswerBody {
                    status: problem.status().as_u16(),
                    headers: written(headers.chain([(&CONTENT_TYPE, &PROBLEM)])),
                    body: Some(serde_json::value::to_raw_value(&problem).map_err(no_json)?),
                })
            }
        }
    }
}

fn written<'h>(
    headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
) -> BTreeMap<String, String> {
    headers
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

fn no_json(source: serde_json::Error) -> Problem {
    let error = freehold::Error::new(ErrorKind::Internal, "an answer is no JSON").because(source);
    Problem::from(error)
}
