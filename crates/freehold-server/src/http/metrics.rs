//! `/metrics`: metrics for Prometheus. Those of the whole service are available to any client that reaches
//! the address; those that name tenants need the token of `METRICS_TOKEN`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use freehold::control::sizes::{SizeOrder, TenantGrowth};
use freehold::{Freehold, OperatorContext, PoolStatus, ReplicaState, TenantId, TenantSeries};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::error::Problem;
use super::state::AppState;

/// After this time, sizes are left out of the answer.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Metrics in Prometheus's text format. With the token of `METRICS_TOKEN`, those of the busiest
/// tenants too.
#[utoipa::path(get, operation_id = "get_metrics", path = "/metrics", tag = "operations", security((), ("bearer" = [])),
    responses((status = 200, body = str), (status = 401, response = Problem)))]
pub(super) async fn get(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let tenants = may_see_tenants(&state, &headers)?;
    let pools = pools(state.freehold());
    record_pools(&pools);
    record_replicas(state.freehold());
    record_tasks(state.freehold());
    record_violations(&state);
    record_slow_queries(state.freehold());
    super::cache::record(&state.freehold().cache().stats());
    let mut text = state.metrics().render();
    write_pool_waits(&mut text, &pools);
    crate::telemetry::process::write(&mut text);
    if tenants {
        write_replicas(&mut text, state.freehold());
        let series = state.freehold().usage().series();
        let slugs = state.slugs().of(state.freehold(), &series).await;
        write_tenants(&mut text, &series, &slugs);
        write_sizes(&mut text, &largest(&state).await);
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// Whether the caller has the token. A wrong token is refused, so that the operator notices; a token is
/// ignored if none is configured.
fn may_see_tenants(state: &AppState, headers: &HeaderMap) -> Result<bool, Problem> {
    let (Some(expected), true) = (state.metrics_token(), headers.contains_key(AUTHORIZATION))
    else {
        return Ok(false);
    };
    let given = freehold::axum::bearer(headers)?;
    // Digests are compared, so that the duration reveals nothing.
    if Sha256::digest(given) == Sha256::digest(expected) {
        return Ok(true);
    }
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "the token is not that of METRICS_TOKEN",
    ))
}

type Pools = Vec<(String, PoolStatus)>;

fn pools(freehold: &Freehold) -> Pools {
    let mut pools = vec![("app".to_owned(), freehold.pool_status())];
    pools.push(("catalog".to_owned(), freehold.catalog_pool_status()));
    pools.extend(freehold.owner_pool_status().map(|status| ("owner".to_owned(), status)));
    let replicas = freehold.replica_status().into_iter().zip(1_usize..);
    pools.extend(replicas.map(|(replica, number)| (format!("replica {number}"), replica.pool)));
    pools
}

fn record_pools(pools: &Pools) {
    for (pool, status) in pools {
        let gauge = |name: &'static str, value: usize| {
            metrics::gauge!(name, "pool" => pool.clone()).set(value as f64);
        };
        gauge("freehold_pool_connections_max", status.connections_max);
        gauge("freehold_pool_connections", status.connections);
        gauge("freehold_pool_idle", status.idle);
        gauge("freehold_pool_in_use", status.connections.saturating_sub(status.idle));
        gauge("freehold_pool_waiting", status.waiting);
        let counter = |name: &'static str, value: u64| {
            metrics::counter!(name, "pool" => pool.clone()).absolute(value);
        };
        counter("freehold_pool_waits_total", status.waited);
        counter("freehold_pool_refused_total", status.refused);
    }
}

/// Written by hand, since the counters of the crate `metrics` are integers.
fn write_pool_waits(text: &mut String, pools: &Pools) {
    let name = "freehold_pool_wait_seconds_total";
    let help = "Time of waiting for connections of a pool";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (pool, status) in pools {
        let (pool, seconds) = (escaped(pool), status.wait_time.as_secs_f64());
        let _ = writeln!(text, "{name}{{pool=\"{pool}\"}} {seconds}");
    }
}

fn record_tasks(freehold: &Freehold) {
    for task in freehold.tasks().list() {
        metrics::counter!("freehold_task_panics_total", "task" => task.name).absolute(task.panics);
        let is_down = f64::from(u8::from(task.is_down));
        metrics::gauge!("freehold_task_down", "task" => task.name).set(is_down);
    }
}

/// As many label values as there are replicas in the settings, in which each has a number. Only callers who
/// may see tenants learn which server that is.
fn record_replicas(freehold: &Freehold) {
    for (replica, number) in freehold.replica_status().into_iter().zip(1_usize..) {
        let number = number.to_string();
        for state in ReplicaState::ALL {
            let value = f64::from(u8::from(replica.state == state));
            metrics::gauge!("freehold_replica_state", "replica" => number.clone(), "state" => state.as_str())
                .set(value);
        }
        // An unknown lag has no value for a gauge.
        let lag = replica.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
        let bytes = replica.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        metrics::gauge!("freehold_replica_lag_seconds", "replica" => number.clone()).set(lag);
        metrics::gauge!("freehold_replica_lag_bytes", "replica" => number).set(bytes);
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

fn write_replicas(text: &mut String, freehold: &Freehold) {
    if !freehold.has_replicas() {
        return;
    }
    let name = "freehold_replica_info";
    let _ = writeln!(text, "# HELP {name} Where each replica is\n# TYPE {name} gauge");
    for (replica, number) in freehold.replica_status().into_iter().zip(1_usize..) {
        let host = escaped(&replica.name);
        let _ = writeln!(text, "{name}{{replica=\"{number}\",host=\"{host}\"}} 1");
    }
}

fn record_violations(state: &AppState) {
    let violations = state.freehold().violations().counts();
    for (kind, count) in violations.by_kind {
        metrics::counter!("freehold_isolation_violations_total", "kind" => kind.as_str())
            .absolute(count);
    }
    metrics::counter!("freehold_violations_dropped_total").absolute(violations.dropped);
}

fn record_slow_queries(freehold: &Freehold) {
    let counts = freehold.slow_queries().counts();
    metrics::counter!("freehold_slow_queries_total").absolute(counts.seen);
    metrics::counter!("freehold_slow_queries_dropped_total").absolute(counts.dropped);
    for (outcome, count) in
        [("made", counts.plans), ("failed", counts.plans_failed), ("dropped", counts.plans_dropped)]
    {
        metrics::counter!("freehold_slow_query_plans_total", "outcome" => outcome).absolute(count);
    }
}

type Value = fn(&TenantSeries) -> f64;

/// The metric families by tenant and table. Both labels are bounded: `INSIGHT_TENANTS` tenants and `other`,
/// 64 tables.
const FAMILIES: [(&str, &str, Value); 5] = [
    ("freehold_tenant_queries_total", "Statements, by tenant and table", |s| {
        s.usage.queries as f64
    }),
    ("freehold_tenant_rows_total", "Rows returned or changed", |s| s.usage.rows as f64),
    ("freehold_tenant_errors_total", "Statements that failed or were given up", |s| {
        s.usage.errors as f64
    }),
    ("freehold_tenant_query_seconds_total", "Time between statements and their answers", |s| {
        s.usage.time_us as f64 / 1e6
    }),
    ("freehold_tenant_wait_seconds_total", "Time of waiting for a connection", |s| {
        s.usage.wait_us as f64 / 1e6
    }),
];

fn write_tenants(text: &mut String, series: &[TenantSeries], slugs: &HashMap<TenantId, String>) {
    for (name, help, value) in FAMILIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for series in series {
            let tenant = series.tenant.map_or("other".to_owned(), |tenant| tenant.to_string());
            let table = escaped(&series.table);
            let value = value(series);
            let _ = writeln!(text, "{name}{{tenant=\"{tenant}\",table=\"{table}\"}} {value}");
        }
    }
    let name = "freehold_tenant_info";
    let _ =
        writeln!(text, "# HELP {name} Slugs of the tenants that are named\n# TYPE {name} gauge");
    let mut slugs: Vec<_> = slugs.iter().collect();
    slugs.sort_unstable();
    for (tenant, slug) in slugs {
        let _ = writeln!(text, "{name}{{tenant=\"{tenant}\",slug=\"{}\"}} 1", escaped(slug));
    }
}

/// The fastest-growing and the largest tenants; empty while the catalog is slow.
async fn largest(state: &AppState) -> Vec<TenantGrowth> {
    let context = OperatorContext::system("sizes of the largest tenants");
    let freehold = state.freehold();
    let limit = i64::try_from(freehold.usage().tenants_named()).unwrap_or(i64::MAX);
    if limit == 0 {
        return Vec::new();
    }
    let read = async {
        let mut list =
            freehold.sizes().list(&context, SizeOrder::Growth, None, Some(limit)).await?;
        list.extend(freehold.sizes().list(&context, SizeOrder::Bytes, None, Some(limit)).await?);
        Ok::<_, freehold::Error>(list)
    };
    let Ok(Ok(mut list)) = tokio::time::timeout(WAIT_MAX, read).await else { return Vec::new() };
    list.sort_unstable_by_key(|size| size.tenant);
    list.dedup_by_key(|size| size.tenant);
    list
}

type SizeValue = fn(&TenantGrowth) -> f64;

const SIZE_FAMILIES: [(&str, &str, SizeValue); 3] = [
    ("freehold_tenant_bytes", "What a tenant's schema takes", |size| size.bytes as f64),
    ("freehold_tenant_growth_bytes_per_day", "How fast it grows", |size| size.bytes_per_day),
    ("freehold_tenant_forecast_bytes", "What it will take in 30 days", |size| size.forecast_bytes),
];

fn write_sizes(text: &mut String, sizes: &[TenantGrowth]) {
    for (name, help, value) in SIZE_FAMILIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for size in sizes {
            let _ = writeln!(text, "{name}{{tenant=\"{}\"}} {}", size.tenant, value(size));
        }
    }
}

/// A label's value, escaped for the format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_cannot_break_out_of_its_label() {
        assert_eq!(escaped("a\"} 1\nx\\"), "a\\\"} 1\\nx\\\\");
    }
}
