//! Logs, metrics and traces: their destinations. Events are logged and counted where they happen.

pub(crate) mod process;
pub(crate) mod traces;

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use self::traces::Traces;
use crate::config::{self, LogFormat, LogSettings, TraceSettings};

/// Bounds of the histogram of request durations, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Logs, and traces if there is a collector; to be ended with the process.
pub(crate) fn init(logs: &LogSettings, traces: &TraceSettings) -> Result<Option<Traces>, String> {
    let Some(traces) = Traces::new(traces)? else {
        init_logs(logs)?;
        return Ok(None);
    };
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(wants_colours())
        .log_internal_errors(false);
    let lines = match logs.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Pretty => lines.compact().with_target(false).boxed(),
    };
    let installed = tracing_subscriber::registry()
        .with(traces.layer())
        .with(lines.with_filter(filter(logs)?))
        .try_init();
    installed.map_err(|error| error.to_string())?;
    Ok(Some(traces))
}

/// Colours on a terminal, unless NO_COLOR is set. Lines that cannot be written are lost silently: reporting
/// that on the same full disk would panic.
fn wants_colours() -> bool {
    std::io::stderr().is_terminal() && !config::is_without_colours()
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&settings.log_level)
        .map_err(|error| format!("LOG_LEVEL: {error}; try `info` or `freehold=debug`"))
}

/// Logs to standard error, so that it does not mix with a command's output.
pub fn init_logs(settings: &LogSettings) -> Result<(), String> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .with_writer(std::io::stderr)
        .with_ansi(wants_colours())
        .log_internal_errors(false);
    let installed = match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.compact().with_target(false).try_init(),
    };
    installed.map_err(|error| error.to_string())
}

const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The metrics of the process. A second call in one process gets a recorder of its own.
pub(crate) fn init_metrics() -> PrometheusHandle {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .expect("the bounds are not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Only the first recorder of a process is the global one; tests start several services.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    // Present from zero on: `increase()` ignores the initial value of a series.
    metrics::counter!("freehold_http_refused_total").absolute(0);
    for reason in ["head", "idle", "stalled", "evicted", "refused"] {
        metrics::counter!("freehold_http_connections_closed_total", "reason" => reason).absolute(0);
    }
    for outcome in ["published", "failed"] {
        metrics::counter!("freehold_analytics_runs_total", "outcome" => outcome).absolute(0);
    }
    handle
}

/// Moves recorded durations into the histograms: until then each takes memory, which would grow without limit
/// where no Prometheus scrapes.
pub(crate) async fn keep_metrics(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

/// Every metric of the service, with its description.
fn describe() {
    describe_counter!(
        "freehold_http_requests_total",
        "Requests answered, by method, route and status"
    );
    describe_counter!(
        "freehold_http_refused_total",
        "Requests refused because too many were being served, or took too much memory together"
    );
    describe_gauge!("freehold_http_connections", "Connections of clients");
    describe_counter!(
        "freehold_http_connections_closed_total",
        "Connections of clients closed by the server, by reason: head, idle, stalled, evicted, refused"
    );
    describe_counter!("freehold_task_panics_total", "Panics of background tasks, by task");
    describe_gauge!(
        "freehold_task_down",
        "1 while a background task that panicked waits for being started again, by task"
    );
    describe_histogram!(
        "freehold_http_request_seconds",
        Unit::Seconds,
        "Time to answer a request, by route"
    );
    describe_counter!(
        "freehold_isolation_violations_total",
        "Attempts at what is not the caller's, all of them refused, by kind"
    );
    describe_counter!(
        "freehold_violations_dropped_total",
        "Violations that were counted and logged but could not be kept in the catalog"
    );
    describe_counter!(
        "freehold_slow_queries_total",
        "Statements of tenants that took SLOW_QUERY_MS or longer"
    );
    describe_counter!(
        "freehold_slow_queries_dropped_total",
        "Slow queries that were too many to be written down"
    );
    describe_counter!(
        "freehold_slow_query_plans_total",
        "Plans of slow queries, by outcome: made, failed, dropped because they were too many"
    );
    describe_gauge!(
        "freehold_tenant_findings",
        "Objects in single tenants' schemas that the doctor finds critical; they take no server out"
    );
    describe_gauge!("freehold_worker_leads", "1 on the server that does scheduled work, else 0");
    describe_gauge!(
        "freehold_analytics_age_seconds",
        Unit::Seconds,
        "Age of published analytics, by name"
    );
    describe_gauge!(
        "freehold_analytics_oldest_age_seconds",
        Unit::Seconds,
        "Age of the oldest tenant's figures in published analytics, by name"
    );
    describe_gauge!(
        "freehold_analytics_coverage_ratio",
        "Share of active tenants that are fresh in published analytics, by name"
    );
    describe_counter!(
        "freehold_analytics_runs_total",
        "Scheduled runs of analytics on this server, by outcome: published, failed"
    );
    describe_gauge!(
        "freehold_replica_state",
        "1 for the state that a replica is in, else 0: serving, lagging, unreachable, promoted, foreign, unfit"
    );
    describe_gauge!(
        "freehold_replica_lag_seconds",
        Unit::Seconds,
        "How old a replica's data are; NaN if that is not known"
    );
    describe_gauge!(
        "freehold_replica_lag_bytes",
        Unit::Bytes,
        "How much of the primary's log a replica has not replayed; NaN if that is not known"
    );
    describe_counter!(
        "freehold_replica_reads_total",
        "Reads that a replica may answer, by who answered them and why"
    );
    describe_gauge!(
        "freehold_sizes_age_seconds",
        Unit::Seconds,
        "Age of the newest sizes of tenants"
    );
    describe_gauge!("freehold_fleet_bytes", "What all tenants' schemas take");
    describe_gauge!("freehold_fleet_growth_bytes_per_day", "How fast that grows");
    describe_gauge!("freehold_fleet_forecast_bytes", "What they will take in 30 days");
    describe_gauge!(
        "freehold_tenant_growth_bytes_per_day_max",
        "How fast the tenant grows that grows fastest"
    );
    describe_gauge!("freehold_migration_tenants_behind", "Tenants behind the baseline");
    describe_gauge!(
        "freehold_migration_tenants_failed",
        "Tenants that the last run of the migrator failed for"
    );
    describe_counter!(
        "freehold_cache_lookups_total",
        "What came of asking the cache, by name, tier (process, redis, load) and outcome"
    );
    describe_counter!(
        "freehold_cache_errors_total",
        "What went wrong in the cache, by reason; no request fails of it"
    );
    describe_counter!("freehold_cache_invalidations_total", "Epochs that this server has ended");
    describe_gauge!("freehold_cache_entries", "Values in this process");
    describe_gauge!("freehold_cache_bytes", Unit::Bytes, "Size of the values in this process");
    describe_gauge!(
        "freehold_cache_redis_up",
        "1 while Redis is in use, 0 while it is done without"
    );
    describe_gauge!("freehold_pool_connections_max", "The most connections a pool may have");
    describe_gauge!("freehold_pool_connections", "Connections of a pool");
    describe_gauge!("freehold_pool_idle", "Connections of a pool that nobody uses");
    describe_gauge!("freehold_pool_in_use", "Connections of a pool that somebody uses");
    describe_gauge!("freehold_pool_waiting", "Requests that wait for a connection of a pool");
    describe_counter!(
        "freehold_pool_waits_total",
        "Requests that have had to wait for a connection"
    );
    describe_counter!(
        "freehold_pool_refused_total",
        "Requests told to come back because no connection came free in time"
    );
}
