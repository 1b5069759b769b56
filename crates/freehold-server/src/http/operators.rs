//! `/v1/operators`: the operators of the platform.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::people::PersonRef;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{OperatorCaller, OperatorChange, WhyQuery};
use super::error::Problem;
use super::json::Body;
use super::paths::PersonPath;
use super::people::{PersonBody, PersonPage};
use super::state::AppState;
use super::tenants::PageQuery;

/// List operators in the order of their e-mails.
#[utoipa::path(get, operation_id = "list_operators", path = "/v1/operators", tag = "people", params(PageQuery),
    responses((status = 200, body = PersonPage), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(page): Query<PageQuery>,
) -> Result<Json<PersonPage>, Problem> {
    let list =
        state.freehold().operators().list(&context, page.after.as_deref(), page.limit).await?;
    Ok(Json(PersonPage { items: list.into_iter().map(PersonBody::from).collect() }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateOperatorRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// The password of a new person, for whom the caller vouches.
    password: Option<String>,
    /// The e-mail is that of a known person, who keeps their password.
    #[serde(default)]
    existing: bool,
}

/// Make a person an operator: a new one with a password, or a known one.
#[utoipa::path(post, operation_id = "create_operator", path = "/v1/operators", tag = "people", params(WhyQuery), request_body = CreateOperatorRequest,
    responses((status = 201, body = PersonBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem), (status = 409, response = Problem)))]
pub(super) async fn create(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    body: Body<CreateOperatorRequest>,
) -> Result<(StatusCode, Json<PersonBody>), Problem> {
    let CreateOperatorRequest { email, password, existing } = body.value;
    let named = PersonRef { email, password, existing };
    let made = state.freehold().operators().create(&context, named).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Make an operator an ordinary person again, within a second. The last operator stays.
#[utoipa::path(delete, operation_id = "revoke_operator", path = "/v1/operators/{id}", tag = "people", params(("id" = uuid::Uuid, Path), WhyQuery),
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem), (status = 409, response = Problem)))]
pub(super) async fn revoke(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    PersonPath(id): PersonPath,
) -> Result<StatusCode, Problem> {
    state.freehold().operators().revoke(&context, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
