//! `/v1/analytics`: figures over all tenants for operators, a tenant's own for its members.

use axum::Json;
use axum::extract::{Path, Query, State};
use freehold::control::analytics::{
    AnalyticsOutline, AnalyticsPage, AnalyticsPublication, AnalyticsQuery, AnalyticsScope,
    AnalyticsStatus, OwnAnalytics,
};
use freehold::control::sessions::Caller;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::auth::AnyCaller;
use super::error::{Problem, no_such, parse_id};
use super::state::AppState;

const AS_OF: HeaderName = HeaderName::from_static("x-analytics-as-of");
const COVERAGE: HeaderName = HeaderName::from_static("x-analytics-coverage");

#[derive(Serialize, ToSchema)]
pub(super) struct DefinitionBody {
    name: String,
    about: String,
    /// The columns that a row is about.
    grain: Vec<String>,
    /// Its figures.
    measures: Vec<String>,
    /// For members: of when the tenant's own figures are. RFC 3339, UTC; null if there are none.
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_secs: Option<u64>,
    /// What is made of fewer tenants than this is not shown across tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_group: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<CoverageBody>,
    /// Why the last run failed as a whole, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What the published figures are made of.
#[derive(Serialize, ToSchema)]
pub(super) struct CoverageBody {
    /// Active tenants.
    tenants: i32,
    /// Of these, as of this time or later.
    fresh: i32,
    /// Could not be collected; what they had is in the figures.
    failed: i32,
    /// Never collected; not in the figures.
    missing: i32,
    /// Whether every active tenant is fresh.
    complete: bool,
    /// The oldest figures of an active tenant that are in it.
    oldest_as_of: Option<String>,
    published_at: String,
    /// Groups of too few tenants, which are not shown.
    withheld_groups: i32,
}

#[derive(Serialize, ToSchema)]
pub(super) struct DefinitionPage {
    items: Vec<DefinitionBody>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct FiguresBody {
    name: String,
    grain: Vec<String>,
    measures: Vec<String>,
    /// RFC 3339, UTC; null if nothing is there yet.
    as_of: Option<String>,
    /// For operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<CoverageBody>,
    /// One object for each place of the grain.
    #[schema(value_type = Vec<Object>)]
    items: Box<RawValue>,
    /// What to send as `after` for the next page; null at the end.
    next: Option<String>,
}

impl From<AnalyticsPublication> for CoverageBody {
    fn from(publication: AnalyticsPublication) -> Self {
        CoverageBody {
            tenants: publication.tenants,
            fresh: publication.fresh,
            failed: publication.failed,
            missing: publication.missing,
            complete: publication.is_complete(),
            oldest_as_of: publication.oldest_as_of.map(|at| at.to_string()),
            published_at: publication.published_at.to_string(),
            withheld_groups: publication.withheld,
        }
    }
}

impl DefinitionBody {
    fn new(outline: AnalyticsOutline, as_of: Option<String>) -> Self {
        let AnalyticsOutline { name, about, grain, measures } = outline;
        DefinitionBody {
            name,
            about,
            grain,
            measures,
            as_of,
            schedule_secs: None,
            minimum_group: None,
            coverage: None,
            error: None,
        }
    }
}

impl From<AnalyticsStatus> for DefinitionBody {
    fn from(status: AnalyticsStatus) -> Self {
        let as_of = status.publication.as_ref().map(|p| p.as_of.to_string());
        DefinitionBody {
            schedule_secs: Some(status.schedule_secs),
            minimum_group: Some(status.minimum_group),
            coverage: status.publication.map(CoverageBody::from),
            error: status.error,
            ..DefinitionBody::new(status.outline, as_of)
        }
    }
}

impl From<OwnAnalytics> for DefinitionBody {
    fn from(own: OwnAnalytics) -> Self {
        DefinitionBody::new(own.outline, own.as_of.map(|at| at.to_string()))
    }
}

/// List the definitions in the order of their names: for operators with what is published, for
/// members with the age of their own figures.
#[utoipa::path(get, operation_id = "list_analytics", path = "/v1/analytics", tag = "analytics",
    responses((status = 200, body = DefinitionPage), (status = 401, response = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    AnyCaller(caller): AnyCaller,
) -> Result<Json<DefinitionPage>, Problem> {
    let items = match caller {
        Caller::Operator(context, _) => {
            let list = state.freehold().analytics().list(&context).await?;
            list.into_iter().map(DefinitionBody::from).collect()
        }
        Caller::Tenant(context, _) => {
            let list = state.freehold().analytics().list_own(&context).await?;
            list.into_iter().map(DefinitionBody::from).collect()
        }
    };
    Ok(Json(DefinitionPage { items }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FiguresQuery {
    /// `next` of the page before.
    #[param(nullable = false, required = false)]
    after: Option<String>,
    /// How many rows at most; a page has 1 to 200.
    #[param(default = 50, nullable = false, required = false)]
    limit: Option<i64>,
    /// `desc`, the newest first, unless `asc` is asked for.
    #[param(inline, nullable = false, required = false)]
    order: Option<Order>,
    /// For operators: `tenant`, to get the rows of each instead of totals.
    #[param(inline, nullable = false, required = false)]
    by: Option<By>,
    /// The rows of one tenant, by its id; for members, their own.
    #[param(nullable = false, required = false)]
    tenant: Option<String>,
}

#[derive(Deserialize, ToSchema, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Asc,
    Desc,
}

#[derive(Deserialize, ToSchema, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    Tenant,
}

/// Figures: totals over all tenants for operators, the tenant's own rows for its members.
#[utoipa::path(get, operation_id = "get_analytics", path = "/v1/analytics/{name}", tag = "analytics", params(("name" = String, Path), FiguresQuery),
    responses((status = 200, body = FiguresBody, headers(
                 ("X-Analytics-As-Of" = String, description = "As `as_of`"),
                 ("X-Analytics-Coverage" = String, description = "Fresh tenants of all active ones, such as 499/500; for operators"))),
              (status = 400, response = Problem), (status = 401, response = Problem), (status = 403, response = Problem),
              (status = 404, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    AnyCaller(caller): AnyCaller,
    Path(name): Path<String>,
    Query(asked): Query<FiguresQuery>,
) -> Result<(HeaderMap, Json<FiguresBody>), Problem> {
    let query = AnalyticsQuery {
        after: asked.after,
        limit: asked.limit,
        oldest_first: asked.order == Some(Order::Asc),
    };
    let tenant = asked.tenant.map(|text| parse_id(&text, "tenant")).transpose()?;
    let page = match caller {
        Caller::Operator(context, _) => {
            let scope = match tenant {
                Some(id) => {
                    AnalyticsScope::Tenant(state.freehold().tenants().get(&context, id).await?.id)
                }
                None if asked.by.is_some() => AnalyticsScope::EveryTenant,
                None => AnalyticsScope::Fleet,
            };
            state.freehold().analytics().read(&context, &name, scope, &query).await?
        }
        Caller::Tenant(context, _) => {
            if asked.by.is_some() {
                let detail = "only operators see figures by tenant";
                return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_scope", detail));
            }
            // Another tenant's id is answered like one that does not exist.
            if tenant.is_some_and(|id| id != context.tenant()) {
                return Err(no_such("tenant"));
            }
            state.freehold().analytics().read_own(&context, &name, &query).await?
        }
    };
    answer(page)
}

fn answer(page: AnalyticsPage) -> Result<(HeaderMap, Json<FiguresBody>), Problem> {
    let as_of = page.as_of.or_else(|| page.publication.as_ref().map(|p| p.as_of));
    let as_of = as_of.map(|at| at.to_string());
    let mut headers = HeaderMap::new();
    let mut tell = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    if let Some(as_of) = &as_of {
        tell(AS_OF, as_of);
    }
    if let Some(p) = &page.publication {
        tell(COVERAGE, &format!("{}/{}", p.fresh, p.tenants));
    }
    let AnalyticsOutline { name, grain, measures, .. } = page.outline;
    let items = RawValue::from_string(page.rows).map_err(|source| {
        freehold::Error::new(freehold::ErrorKind::Internal, "the rows are no JSON").because(source)
    })?;
    let coverage = page.publication.map(CoverageBody::from);
    Ok((
        headers,
        Json(FiguresBody { name, grain, measures, as_of, coverage, items, next: page.next }),
    ))
}
