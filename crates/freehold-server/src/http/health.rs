//! Probes and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use freehold::Freehold;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use tokio::sync::Mutex;

use super::error::Problem;
use super::state::AppState;

/// How old the answer may be to whether anything critical is wrong.
const FINDINGS_AGE_MIN: Duration = Duration::from_secs(5);
/// The whole fleet is read for it, so a large one is examined less often: for this many times what
/// the last examination took, its answer stands.
const FINDINGS_AGE_FACTOR: u32 = 20;
/// Longer than this, and the database does not count as reachable.
const READY_MAX: Duration = Duration::from_secs(2);

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", security(()), responses((status = 200, body = str)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// The service can do its work: the database answers, the catalog is at the version this build
/// needs, row-level security binds the app role, and the doctor finds nothing critical.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, response = Problem)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<&'static str, Problem> {
    let unready = |detail: &str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1)
    };
    let checks = async {
        state.freehold().check().await.map_err(Arc::new)?;
        state.findings().list(state.freehold()).await
    };
    match tokio::time::timeout(READY_MAX, checks).await {
        Ok(Ok(findings)) if findings.is_empty() => Ok("ready\n"),
        Ok(Ok(findings)) => {
            tracing::error!(?findings, "tenants are not kept apart as they must be");
            Err(unready(
                "something critical is wrong with the protection of tenants; the log names it, and `freehold doctor` says what to do",
            ))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(unready(error.message()))
        }
        Err(_) => Err(unready(
            "the database does not answer, or the first examination of the fleet is still under way",
        )),
    }
}

/// What the doctor finds critical, as far as the app role can see it. Probes come often and an
/// examination takes seconds for a large fleet, so it runs beside them: they get the last answer,
/// and only the first ones wait.
#[derive(Clone, Default)]
pub(super) struct Findings(Arc<Mutex<Option<Examined>>>);

struct Examined {
    at: Instant,
    took: Duration,
    outcome: Result<Vec<String>, Arc<freehold::Error>>,
    /// The next one is under way.
    is_renewed: bool,
}

impl Findings {
    async fn list(&self, freehold: &Freehold) -> Result<Vec<String>, Arc<freehold::Error>> {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        let Some(examined) = last.as_mut() else {
            // The lock is held meanwhile, so that others wait for this one instead of asking too.
            let freehold = freehold.clone();
            let first = tokio::spawn(async move {
                let examined = examine(&freehold).await;
                let outcome = examined.outcome.clone();
                *last = Some(examined);
                outcome
            });
            return first.await.unwrap_or_else(|_| Err(Arc::new(gone())));
        };
        let outcome = examined.outcome.clone();
        let is_old =
            examined.at.elapsed() > FINDINGS_AGE_MIN.max(examined.took * FINDINGS_AGE_FACTOR);
        // What is wrong may have been repaired, so it is looked at again soon.
        let is_bad = !matches!(&outcome, Ok(findings) if findings.is_empty());
        if !examined.is_renewed && (is_old || is_bad && examined.at.elapsed() > FINDINGS_AGE_MIN) {
            examined.is_renewed = true;
            let (cell, freehold) = (Arc::clone(&self.0), freehold.clone());
            tokio::spawn(async move {
                let examined = examine(&freehold).await;
                *cell.lock().await = Some(examined);
            });
        }
        outcome
    }
}

async fn examine(freehold: &Freehold) -> Examined {
    let began = Instant::now();
    let outcome = freehold.list_critical().await.map_err(Arc::new);
    Examined { at: Instant::now(), took: began.elapsed(), outcome, is_renewed: false }
}

fn gone() -> freehold::Error {
    freehold::Error::new(freehold::ErrorKind::Internal, "the examination ended without an answer")
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
