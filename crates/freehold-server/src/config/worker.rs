//! Scheduled work.

use std::time::Duration;

use clap::Args;
use freehold::AnalyticsOptions;

/// Scheduled work.
#[derive(Args, Clone)]
#[command(next_help_heading = "Scheduled work")]
pub struct WorkerSettings {
    /// Whether this server may do scheduled work; of all that may, one does
    #[arg(long, env, value_name = "WORKER", default_value_t = true, action = clap::ArgAction::Set)]
    pub worker: bool,

    /// Seconds after which tenants' sizes are measured again
    #[arg(long, env, value_name = "SIZES_EVERY_SECS", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub sizes_every_secs: u64,

    #[command(flatten)]
    pub analytics: AnalyticsSettings,
}

/// How tenants are collected.
#[derive(Args, Clone)]
#[command(next_help_heading = "Scheduled work")]
pub struct AnalyticsSettings {
    /// Connections that read tenants at a time for analytics; as many write what they read
    #[arg(long, env, value_name = "ANALYTICS_CONNECTIONS", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=32))]
    pub analytics_connections: u16,

    /// Milliseconds that the SELECT of a definition may take in one tenant
    #[arg(long, env, value_name = "ANALYTICS_TENANT_TIMEOUT_MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub analytics_tenant_timeout_ms: u64,
}

impl AnalyticsSettings {
    pub fn options(&self) -> AnalyticsOptions {
        AnalyticsOptions {
            connections: self.analytics_connections.into(),
            tenant_timeout: Duration::from_millis(self.analytics_tenant_timeout_ms),
            changed_only: false,
        }
    }
}
