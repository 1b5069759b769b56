//! Probes and metrics.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};

use super::error::Problem;
use super::state::AppState;

/// Longer than this, and the database does not count as reachable.
const READY_MAX: Duration = Duration::from_secs(2);

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// The service can do its work: the database answers, the catalog is at the version this build
/// needs, and row-level security binds the app role.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, body = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<&'static str, Problem> {
    let unready = |detail: &str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1)
    };
    match tokio::time::timeout(READY_MAX, state.freehold().check()).await {
        Ok(Ok(())) => Ok("ready\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(unready(error.message()))
        }
        Err(_) => Err(unready("the database does not answer")),
    }
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
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics().render())
}
