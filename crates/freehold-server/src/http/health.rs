//! Probes, and the health of tenants for operators.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::health::{SampleOf, TenantHealth};
use freehold::{Freehold, ReplicaState};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::OperatorCaller;
use super::error::Problem;
use super::readiness::Verdict;
use super::state::AppState;

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// The service can do its work: the database answers, or has been away for a moment only, and takes
/// writes; the pool gives connections; the catalog is at a version that this build works with;
/// row-level security binds the app role; the doctor finds nothing critical. Not ready once the server is stopping. What
/// it can do without, such as Redis, is named in a second line.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, response = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<String, Problem> {
    match state.readiness().verdict().await {
        Verdict::Ready => Ok(ready(state.freehold())),
        Verdict::NotReady(why) => Err(not_ready(&why)),
    }
}

fn not_ready(why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why).retry_after(1)
}

fn left_out(freehold: &Freehold) -> usize {
    let status = freehold.replica_status();
    status.iter().filter(|replica| replica.state != ReplicaState::Serving).count()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleQuery {
    /// Those that follow this slug, in order; empty begins with the first. Without it, some by chance.
    #[param(pattern = r"^[^\x00]*$", nullable = false, required = false)]
    after: Option<String>,
    /// How many at most, 1 to 100.
    #[param(default = 20, nullable = false, required = false)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TenantHealthBody {
    id: Uuid,
    slug: String,
    /// active, suspended
    status: &'static str,
    healthy: bool,
    /// Whether a transaction came into its schema; absent if it was not tried, because the tenant is
    /// suspended or the time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<bool>,
    /// The newest migration that the tenant has.
    version: i64,
    /// Whether that is the baseline's.
    current: bool,
    tables: i64,
    /// Tables that row-level security does not protect.
    unprotected: i64,
    /// Milliseconds that its database took to answer.
    answer_ms: f64,
    /// What is wrong, for a person.
    problems: Vec<String>,
}

impl From<TenantHealth> for TenantHealthBody {
    fn from(health: TenantHealth) -> Self {
        TenantHealthBody {
            id: health.tenant.id.as_uuid(),
            healthy: health.is_healthy(),
            slug: health.tenant.slug.into(),
            status: health.tenant.status.as_str(),
            reachable: health.is_reachable,
            version: health.tenant.version,
            current: health.is_current,
            tables: health.tables,
            unprotected: health.unprotected,
            answer_ms: health.answer.as_secs_f64() * 1e3,
            problems: health.problems,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct FleetSampleBody {
    /// The newest migration of the baseline.
    version: i64,
    /// How many of the items are healthy.
    healthy: usize,
    items: Vec<TenantHealthBody>,
}

/// Look at some tenants: reachable, at which version, protected by their policies. It ends within
/// some seconds; `freehold doctor` examines all, and more thoroughly.
#[utoipa::path(get, operation_id = "sample_tenant_health", path = "/v1/health/tenants", tag = "operations", params(SampleQuery),
    responses((status = 200, body = FleetSampleBody), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn sample_tenants(
    State(state): State<AppState>,
    OperatorCaller(context): OperatorCaller,
    Query(query): Query<SampleQuery>,
) -> Result<Json<FleetSampleBody>, Problem> {
    let of = query.after.as_deref().map_or(SampleOf::Chance, SampleOf::After);
    let sample = state.freehold().health().sample(&context, of, query.limit).await?;
    let items: Vec<_> = sample.tenants.into_iter().map(TenantHealthBody::from).collect();
    let healthy = items.iter().filter(|item| item.healthy).count();
    Ok(Json(FleetSampleBody { version: sample.version, healthy, items }))
}

/// Optional parts that are missing are named; they do not make the server unready.
fn ready(freehold: &Freehold) -> String {
    // Without replicas, the primary answers all reads.
    let mut text = match left_out(freehold) {
        0 => "ready\n".to_owned(),
        count => format!("ready, without {count} of the replicas; /metrics tells why\n"),
    };
    if freehold.cache().stats().redis_up == Some(false) {
        text += "degraded: Redis does not answer, so each server caches for itself\n";
    }
    for task in freehold.tasks().list().iter().filter(|task| task.is_down) {
        text += &format!(
            "degraded: the task {} has panicked and waits; the log tells why\n",
            task.name
        );
    }
    text
}
