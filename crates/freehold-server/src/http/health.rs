//! Probes and metrics, and for operators the health of tenants.

use axum::Json;
use axum::extract::{Query, State};
use freehold::control::health::{SampleOf, TenantHealth};
use freehold::{Freehold, OperatorContext, PoolStatus, ReplicaState};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
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

/// The service can do its work: the database answers, or has been away for a moment only; the pool
/// gives connections; the catalog is at a version that this build works with; row-level security
/// binds the app role; the doctor finds nothing critical. Not ready once the server is stopping.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, response = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<String, Problem> {
    match state.readiness().verdict().await {
        // Without replicas the primary answers all.
        Verdict::Ready => Ok(match left_out(state.freehold()) {
            0 => "ready\n".to_owned(),
            count => format!("ready, without {count} of the replicas; /metrics tells why\n"),
        }),
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
    version: i32,
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
    version: i32,
    /// How many of the items are healthy.
    healthy: usize,
    items: Vec<TenantHealthBody>,
}

/// Look at some tenants: reachable, at which version, protected by their policies. It ends within
/// some seconds; `freehold doctor` examines all, and more thoroughly.
#[utoipa::path(get, path = "/v1/health/tenants", tag = "operations", params(SampleQuery),
    responses((status = 200, body = FleetSampleBody), (status = 400, response = Problem), (status = 403, response = Problem)))]
pub(super) async fn sample_tenants(
    State(state): State<AppState>,
    OperatorCaller(operator): OperatorCaller,
    Query(query): Query<SampleQuery>,
) -> Result<Json<FleetSampleBody>, Problem> {
    let context = OperatorContext::of(operator.actor(), "GET /v1/health/tenants");
    let of = query.after.as_deref().map_or(SampleOf::Chance, SampleOf::After);
    let sample = state.freehold().sample_tenants(&context, of, query.limit).await?;
    let items: Vec<_> = sample.tenants.into_iter().map(TenantHealthBody::from).collect();
    let healthy = items.iter().filter(|item| item.healthy).count();
    Ok(Json(FleetSampleBody { version: sample.version, healthy, items }))
}

/// Metrics in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn metrics(
    State(state): State<AppState>,
) -> ([(HeaderName, &'static str); 1], String) {
    tell_pool("app", state.freehold().pool_status());
    if let Some(status) = state.freehold().owner_pool_status() {
        tell_pool("owner", status);
    }
    tell_replicas(state.freehold());
    let violations = state.freehold().violation_counts();
    for (kind, count) in violations.by_kind {
        metrics::counter!("freehold_isolation_violations_total", "kind" => kind.as_str())
            .absolute(count);
    }
    metrics::counter!("freehold_violations_dropped_total").absolute(violations.dropped);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics().render())
}

fn tell_pool(pool: &str, status: PoolStatus) {
    let gauge = |name: &'static str, value: usize| {
        metrics::gauge!(name, "pool" => pool.to_owned()).set(value as f64);
    };
    gauge("freehold_pool_connections_max", status.connections_max);
    gauge("freehold_pool_connections", status.connections);
    gauge("freehold_pool_idle", status.idle);
    gauge("freehold_pool_waiting", status.waiting);
}

/// As many label values as there are replicas in the settings.
fn tell_replicas(freehold: &Freehold) {
    for replica in freehold.replica_status() {
        tell_pool(&format!("replica {}", replica.name), replica.pool);
        for state in ReplicaState::ALL {
            let value = f64::from(u8::from(replica.state == state));
            metrics::gauge!("freehold_replica_state", "replica" => replica.name.clone(), "state" => state.as_str())
                .set(value);
        }
        // A lag that is not known is none that a gauge could hold.
        let lag = replica.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
        let bytes = replica.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        metrics::gauge!("freehold_replica_lag_seconds", "replica" => replica.name.clone()).set(lag);
        metrics::gauge!("freehold_replica_lag_bytes", "replica" => replica.name).set(bytes);
    }
    if freehold.has_replicas() {
        let reads = freehold.replica_reads();
        for (answered_by, reason, count) in [
            ("replica", "fit", reads.replica),
            ("primary", "none_fit", reads.none_fit),
            ("primary", "behind", reads.behind),
            ("primary", "failed", reads.failed),
        ] {
            metrics::counter!("freehold_replica_reads_total", "answered_by" => answered_by, "reason" => reason)
                .absolute(count);
        }
    }
}
