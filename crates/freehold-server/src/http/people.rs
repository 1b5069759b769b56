//! `/v1/people`: all people, for operators.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::people::{Person, PersonDetail};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{OperatorCaller, OperatorChange, WhyQuery, with_reason};
use super::error::Problem;
use super::json::Body;
use super::paths::PersonPath;
use super::sessions::SessionBody;
use super::state::AppState;
use super::tenants::PageQuery;

#[derive(Serialize, ToSchema)]
pub(super) struct PersonBody {
    id: Uuid,
    email: String,
    name: String,
    operator: bool,
    has_password: bool,
    /// RFC 3339, UTC.
    created_at: String,
    /// When the address was proven; absent if it never was. RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_at: Option<String>,
    /// The person themselves, an operator who vouched, or the nil UUID for the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_by: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_why: Option<String>,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
}

impl From<Person> for PersonBody {
    fn from(person: Person) -> Self {
        PersonBody {
            id: person.id.as_uuid(),
            email: person.email,
            name: person.name,
            operator: person.is_operator,
            has_password: person.has_password,
            created_at: person.created_at.to_string(),
            proven_at: person.proven_at.map(|at| at.to_string()),
            proven_by: person.proven_by,
            proven_why: person.proven_why,
            disabled_at: person.disabled_at.map(|at| at.to_string()),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct PersonDetailBody {
    #[serde(flatten)]
    person: PersonBody,
    tenants: Vec<MembershipBody>,
    sessions: Vec<SessionBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MembershipBody {
    slug: String,
    role: &'static str,
}

impl From<PersonDetail> for PersonDetailBody {
    fn from(detail: PersonDetail) -> Self {
        let tenants = detail.tenants.into_iter();
        let sessions = detail.sessions.into_iter();
        PersonDetailBody {
            person: detail.person.into(),
            tenants: tenants.map(|(slug, role)| MembershipBody { slug, role }).collect(),
            sessions: sessions.map(|entry| SessionBody::new(entry, None)).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct PersonPage {
    pub(super) items: Vec<PersonBody>,
}

/// List people in the order of their e-mails.
#[utoipa::path(get, operation_id = "list_people", path = "/v1/people", tag = "people", params(PageQuery),
    responses((status = 200, body = PersonPage), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(page): Query<PageQuery>,
) -> Result<Json<PersonPage>, Problem> {
    let list = state.freehold().people().list(&context, page.after.as_deref(), page.limit).await?;
    Ok(Json(PersonPage { items: list.into_iter().map(PersonBody::from).collect() }))
}

/// One person, with what they belong to and their sessions.
#[utoipa::path(get, operation_id = "get_person", path = "/v1/people/{id}", tag = "people", params(("id" = Uuid, Path)),
    responses((status = 200, body = PersonDetailBody), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    PersonPath(id): PersonPath,
) -> Result<Json<PersonDetailBody>, Problem> {
    Ok(Json(state.freehold().people().get(&context, id).await?.into()))
}

/// Remove a person with all that is theirs. The only owner of a tenant stays until it has another.
#[utoipa::path(delete, operation_id = "remove_person", path = "/v1/people/{id}", tag = "people", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem), (status = 409, response = Problem)))]
pub(super) async fn remove(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    PersonPath(id): PersonPath,
) -> Result<StatusCode, Problem> {
    state.freehold().people().remove(&context, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuse a person everything from now on, on every server; what they belong to stays.
#[utoipa::path(post, operation_id = "disable_person", path = "/v1/people/{id}/disable", tag = "people", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 200, body = PersonBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem),
              (status = 409, response = Problem)))]
pub(super) async fn disable(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    PersonPath(id): PersonPath,
) -> Result<Json<PersonBody>, Problem> {
    Ok(Json(state.freehold().people().disable(&context, id).await?.into()))
}

/// Let a disabled person sign in again.
#[utoipa::path(post, operation_id = "enable_person", path = "/v1/people/{id}/enable", tag = "people", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 200, body = PersonBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn enable(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    PersonPath(id): PersonPath,
) -> Result<Json<PersonBody>, Problem> {
    Ok(Json(state.freehold().people().enable(&context, id).await?.into()))
}

/// Delete a person's password, end their sessions, and send a message with which they choose a new one.
#[utoipa::path(post, operation_id = "reset_person", path = "/v1/people/{id}/reset", tag = "people", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 200, body = PersonBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem),
              (status = 503, response = Problem)))]
pub(super) async fn reset(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    PersonPath(id): PersonPath,
) -> Result<Json<PersonBody>, Problem> {
    state.require_mail()?;
    Ok(Json(state.freehold().people().reset(&context, id, None).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VouchRequest {
    /// Why the address is believed to be the person's.
    #[schema(min_length = 1, max_length = 500, pattern = r"\S")]
    why: String,
}

/// Vouch that a person's address is theirs. If it was never proven, what was under it before is gone.
#[utoipa::path(post, operation_id = "vouch_for_person", path = "/v1/people/{id}/vouch", tag = "people", params(("id" = Uuid, Path)), request_body = VouchRequest,
    responses((status = 200, body = PersonBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem)))]
pub(super) async fn vouch(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    PersonPath(id): PersonPath,
    body: Body<VouchRequest>,
) -> Result<Json<PersonBody>, Problem> {
    Ok(Json(state.freehold().people().vouch_for(&context, id, &body.value.why).await?.into()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EndSessionsQuery {
    /// Only this one.
    #[param(nullable = false, required = false)]
    session: Option<Uuid>,
    /// Why; the record keeps it.
    #[param(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        nullable = false,
        required = false
    )]
    why: Option<String>,
}

/// End all of a person's sessions, or one.
#[utoipa::path(delete, operation_id = "end_person_sessions", path = "/v1/people/{id}/sessions", tag = "people", params(("id" = Uuid, Path), EndSessionsQuery),
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn end_sessions(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    PersonPath(id): PersonPath,
    Query(query): Query<EndSessionsQuery>,
) -> Result<StatusCode, Problem> {
    let context = with_reason(context, query.why.as_deref())?;
    state.freehold().people().end_sessions(&context, id, query.session).await?;
    Ok(StatusCode::NO_CONTENT)
}
