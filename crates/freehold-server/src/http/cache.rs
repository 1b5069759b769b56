//! The cache's metrics for Prometheus.

use freehold::CacheStats;

pub(super) fn record(stats: &CacheStats) {
    for count in &stats.lookups {
        metrics::counter!("freehold_cache_lookups_total", "name" => count.name, "tier" => count.tier,
            "outcome" => count.outcome)
        .absolute(count.count);
    }
    for (reason, count) in &stats.errors {
        metrics::counter!("freehold_cache_errors_total", "reason" => *reason).absolute(*count);
    }
    metrics::counter!("freehold_cache_invalidations_total").absolute(stats.invalidations);
    metrics::gauge!("freehold_cache_entries").set(stats.entries as f64);
    metrics::gauge!("freehold_cache_bytes").set(stats.bytes as f64);
    if let Some(up) = stats.redis_up {
        metrics::gauge!("freehold_cache_redis_up").set(f64::from(u8::from(up)));
    }
}
