//! What is kept of values that are dear to make.

use std::time::Duration;

use clap::Args;
use freehold::CacheOptions;

/// What is kept of values that are dear to make.
#[derive(Args, Clone)]
#[command(next_help_heading = "Cache")]
pub struct CacheSettings {
    /// Redis or Valkey, to share the cache with other servers: redis://user:password@host:6379/0,
    /// rediss://…?sslrootcert=/path/ca.pem for TLS; without it each server has its own
    #[arg(long, env = "REDIS_URL", value_name = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// Milliseconds that a request waits for Redis before it goes on without
    #[arg(long, env, value_name = "REDIS_TIMEOUT_MS", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=5000))]
    pub redis_timeout_ms: u64,

    /// Megabytes that this server keeps in its memory; 0 keeps nothing there
    #[arg(long, env, value_name = "CACHE_MB", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(0..=65_536))]
    pub cache_mb: u64,

    /// The most seconds that anything is kept, whatever max-age a request allows; 0 keeps nothing
    #[arg(long, env, value_name = "CACHE_SECS_MAX", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub cache_secs_max: u64,

    /// Seconds that pages of analytics are kept; they are read anew when figures are published
    #[arg(long, env, value_name = "ANALYTICS_CACHE_SECS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub analytics_cache_secs: u64,
}

impl CacheSettings {
    pub fn options(&self) -> CacheOptions {
        CacheOptions {
            bytes_max: self.cache_mb * 1024 * 1024,
            age_max: Duration::from_secs(self.cache_secs_max),
            analytics_age: Duration::from_secs(self.analytics_cache_secs),
            redis_url: self.redis_url.clone().filter(|url| !url.is_empty()),
            redis_timeout: Duration::from_millis(self.redis_timeout_ms),
        }
    }
}
