//! Probes and metrics.

use std::time::{Duration, Instant};

use axum::extract::State;
use freehold::Freehold;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use tokio::sync::Mutex;

use super::error::Problem;
use super::state::AppState;

/// How old the answer may be to whether every table is protected.
const UNPROTECTED_AGE_MAX: Duration = Duration::from_secs(5);
/// Longer than this, and the database does not count as reachable.
const READY_MAX: Duration = Duration::from_secs(2);

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// The service can do its work: the database answers, the catalog is at the version this build
/// needs, and row-level security binds the app role and protects every tenant's tables.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, response = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<&'static str, Problem> {
    let unready = |detail: &str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1)
    };
    let checks = async {
        state.freehold().check().await?;
        state.unprotected().list(state.freehold()).await
    };
    match tokio::time::timeout(READY_MAX, checks).await {
        Ok(Ok(unprotected)) if unprotected.is_empty() => Ok("ready\n"),
        Ok(Ok(unprotected)) => {
            tracing::error!(?unprotected, "tables without row-level security");
            Err(unready(
                "a tenant's table is not protected by row-level security; the log names it",
            ))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(unready(error.message()))
        }
        Err(_) => Err(unready("the database does not answer")),
    }
}

/// The tables that lack protection, looked up at most once in [`UNPROTECTED_AGE_MAX`]: the whole
/// fleet is read for it, and probes come often.
#[derive(Default)]
pub(super) struct Unprotected(Mutex<Option<(Instant, Vec<String>)>>);

impl Unprotected {
    async fn list(&self, freehold: &Freehold) -> freehold::Result<Vec<String>> {
        let mut last = self.0.lock().await;
        if let Some((at, list)) = last.as_ref()
            && at.elapsed() < UNPROTECTED_AGE_MAX
        {
            return Ok(list.clone());
        }
        let list = freehold.list_unprotected_tables(5).await?;
        *last = Some((Instant::now(), list.clone()));
        Ok(list)
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
