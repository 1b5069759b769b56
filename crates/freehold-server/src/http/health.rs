//! Probes and metrics.

use axum::extract::State;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};

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
pub(super) async fn readyz(State(state): State<AppState>) -> Result<&'static str, Problem> {
    match state.readiness().verdict().await {
        Verdict::Ready => Ok("ready\n"),
        Verdict::NotReady(why) => Err(not_ready(&why)),
    }
}

fn not_ready(why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why).retry_after(1)
}

/// Metrics in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn metrics(
    State(state): State<AppState>,
) -> ([(HeaderName, &'static str); 1], String) {
    let pools = [
        ("app", Some(state.freehold().pool_status())),
        ("owner", state.freehold().owner_pool_status()),
    ];
    for (pool, status) in pools.into_iter().filter_map(|(pool, status)| Some((pool, status?))) {
        let gauge = |name: &'static str, value: usize| {
            metrics::gauge!(name, "pool" => pool).set(value as f64);
        };
        gauge("freehold_pool_connections_max", status.connections_max);
        gauge("freehold_pool_connections", status.connections);
        gauge("freehold_pool_idle", status.idle);
        gauge("freehold_pool_waiting", status.waiting);
    }
    let violations = state.freehold().violation_counts();
    for (kind, count) in violations.by_kind {
        metrics::counter!("freehold_isolation_violations_total", "kind" => kind.as_str())
            .absolute(count);
    }
    metrics::counter!("freehold_violations_dropped_total").absolute(violations.dropped);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics().render())
}
