//! What is counted of tenants.

use std::time::Duration;

use clap::Args;
use freehold::InsightOptions;

/// What is counted of tenants, and how it is told.
#[derive(Args, Clone)]
#[command(next_help_heading = "Insight")]
pub struct InsightSettings {
    /// How many tenants, the busiest, /metrics names to who has METRICS_TOKEN; the rest are summed
    #[arg(long, env, value_name = "INSIGHT_TENANTS", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(0..=500))]
    pub insight_tenants: u16,

    /// Seconds after which a server adds its figures of tenants to the catalog
    #[arg(long, env, value_name = "INSIGHT_WRITE_SECS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub insight_write_secs: u64,

    /// Milliseconds after which a statement of a tenant is a slow query, kept with its plan and without its
    /// values; 0 keeps none
    #[arg(long, env, value_name = "SLOW_QUERY_MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub slow_query_ms: u64,
}

impl InsightSettings {
    pub fn options(&self) -> InsightOptions {
        InsightOptions {
            tenants_named: self.insight_tenants.into(),
            write_every: Duration::from_secs(self.insight_write_secs),
            slow_after: Some(Duration::from_millis(self.slow_query_ms)).filter(|ms| !ms.is_zero()),
            ..InsightOptions::default()
        }
    }
}
