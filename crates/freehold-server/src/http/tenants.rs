//! `/v1/tenants`: all tenants, for operators.

use axum::Json;
use axum::extract::{Query, State};
use freehold::Tenant;
use freehold::control::people::PersonRef;
use freehold::control::tenants::{IdempotencyKey, NewOwner, NewTenant};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{OperatorCaller, OperatorChange, WhyQuery};
use super::error::Problem;
use super::json::Body;
use super::paths::TenantPath;
use super::state::AppState;

#[derive(Serialize, ToSchema)]
pub(super) struct TenantBody {
    id: Uuid,
    slug: String,
    name: String,
    /// active, suspended
    status: &'static str,
    /// The newest migration that the tenant has.
    version: i64,
    /// Its part of the connections beside tenants of weight 1; 1 to 100.
    weight: u8,
    /// RFC 3339, UTC.
    created_at: String,
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        TenantBody {
            id: tenant.id.as_uuid(),
            slug: tenant.slug.into(),
            name: tenant.name,
            status: tenant.status.as_str(),
            version: tenant.version,
            weight: tenant.weight.get(),
            created_at: tenant.created_at.to_string(),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTenantRequest {
    /// 3 to 63 of a-z, 0-9 and hyphens, beginning with a letter.
    #[schema(min_length = 3, max_length = 63, pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    slug: String,
    /// 1 to 200 characters, none of them a control character.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
    owner: Option<OwnerRequest>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
    #[serde(default)]
    #[schema(max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    /// The password of a new person, for whom the operator vouches: of 8 characters at least. A new person
    /// without one is invited by mail.
    password: Option<String>,
    /// The e-mail is that of a known person, who keeps their password.
    #[serde(default)]
    existing: bool,
}

impl OwnerRequest {
    fn read(self, state: &AppState) -> Result<NewOwner, Problem> {
        let OwnerRequest { email, name, password, existing } = self;
        if password.is_none() && !existing {
            state.require_mail()?;
        }
        Ok(NewOwner { person: PersonRef { email, password, existing }, name })
    }
}

/// Create a tenant: schema, baseline, policies and first owner, or nothing.
#[utoipa::path(post, operation_id = "create_tenant", path = "/v1/tenants", tag = "tenants", request_body = CreateTenantRequest,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "With the same key and body, the first answer is given again"), WhyQuery),
    responses((status = 201, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem), (status = 409, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn create(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    headers: HeaderMap,
    body: Body<CreateTenantRequest>,
) -> Result<(StatusCode, Json<TenantBody>), Problem> {
    let scope = format!("operator {}", context.actor());
    let idempotency = idempotency_key(&state, &headers, scope, body.hash)?;
    let CreateTenantRequest { slug, name, owner } = body.value;
    let owner = owner.map(|owner| owner.read(&state)).transpose()?;
    let new = NewTenant { slug, name, owner, idempotency };
    let made = state.freehold().tenants().create(&context, new).await?;
    Ok((StatusCode::CREATED, Json(made.tenant.into())))
}

/// Add an owner to a tenant, for example to one that has none.
#[utoipa::path(post, operation_id = "add_tenant_owner", path = "/v1/tenants/{id}/owners", tag = "tenants", params(("id" = Uuid, Path), WhyQuery), request_body = OwnerRequest,
    responses((status = 204), (status = 400, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem), (status = 409, response = Problem), (status = 503, response = Problem)))]
pub(super) async fn add_owner(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    TenantPath(id): TenantPath,
    body: Body<OwnerRequest>,
) -> Result<StatusCode, Problem> {
    let owner = body.value.read(&state)?;
    state.freehold().tenants().add_owner(&context, id, owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses `Idempotency-Key`: 1 to 255 printable characters, once.
pub(super) fn idempotency_key(
    state: &AppState,
    headers: &HeaderMap,
    scope: String,
    body_hash: [u8; 32],
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if values.next().is_some() || key.is_empty() || key.len() > 255 {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_input",
            "Idempotency-Key must come once and have 1 to 255 printable characters",
        )
        .field("Idempotency-Key"));
    }
    let request_hash = state.sign_in().request_hash(&body_hash);
    Ok(Some(IdempotencyKey { scope, key: key.to_owned(), request_hash }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Begin after this one: the last of the page before.
    #[param(pattern = r"^[^\x00]*$", nullable = false, required = false)]
    pub(super) after: Option<String>,
    /// How many at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    pub(super) limit: Option<i64>,
}

/// A page of something, in order.
#[derive(Serialize, ToSchema)]
pub(super) struct TenantPage {
    items: Vec<TenantBody>,
}

/// List tenants in the order of their slugs.
#[utoipa::path(get, operation_id = "list_tenants", path = "/v1/tenants", tag = "tenants", params(PageQuery),
    responses((status = 200, body = TenantPage), (status = 403, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(page): Query<PageQuery>,
) -> Result<Json<TenantPage>, Problem> {
    let tenants =
        state.freehold().tenants().list(&context, page.after.as_deref(), page.limit).await?;
    Ok(Json(TenantPage { items: tenants.into_iter().map(TenantBody::from).collect() }))
}

/// One tenant.
#[utoipa::path(get, operation_id = "get_tenant", path = "/v1/tenants/{id}", tag = "tenants", params(("id" = Uuid, Path)),
    responses((status = 200, body = TenantBody), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    TenantPath(id): TenantPath,
) -> Result<Json<TenantBody>, Problem> {
    Ok(Json(state.freehold().tenants().get(&context, id).await?.into()))
}

/// Refuse the tenant's requests from now on, on every server; its data stays.
#[utoipa::path(post, operation_id = "suspend_tenant", path = "/v1/tenants/{id}/suspend", tag = "tenants", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 200, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn suspend(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    TenantPath(id): TenantPath,
) -> Result<Json<TenantBody>, Problem> {
    Ok(Json(state.freehold().tenants().suspend(&context, id).await?.into()))
}

/// Serve a suspended tenant again.
#[utoipa::path(post, operation_id = "resume_tenant", path = "/v1/tenants/{id}/resume", tag = "tenants", params(("id" = Uuid, Path), WhyQuery),
    responses((status = 200, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn resume(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    TenantPath(id): TenantPath,
) -> Result<Json<TenantBody>, Problem> {
    Ok(Json(state.freehold().tenants().resume(&context, id).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeighRequest {
    /// 1 to 100; a tenant that was never weighed has 1.
    #[schema(minimum = 1, maximum = 100)]
    weight: i16,
}

/// Give a tenant another part of the connections: of tenants that all want more than there are, one of
/// weight 3 has three for each that one of weight 1 has.
#[utoipa::path(put, operation_id = "weigh_tenant", path = "/v1/tenants/{id}/weight", tag = "tenants", params(("id" = Uuid, Path), WhyQuery), request_body = WeighRequest,
    responses((status = 200, body = TenantBody), (status = 400, response = Problem), (status = 403, response = Problem), (status = 404, response = Problem)))]
pub(super) async fn weigh(
    State(state): State<AppState>,
    OperatorChange(context): OperatorChange,
    TenantPath(id): TenantPath,
    body: Body<WeighRequest>,
) -> Result<Json<TenantBody>, Problem> {
    let weight = body.value.weight.try_into()?;
    Ok(Json(state.freehold().tenants().weigh(&context, id, weight).await?.into()))
}
