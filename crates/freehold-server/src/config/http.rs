//! The HTTP service.

use std::net::SocketAddr;

use clap::Args;

use super::connections::ConnectionSettings;

#[derive(Args, Clone)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Where to listen
    #[arg(long, env, value_name = "LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Milliseconds that a request may take, from its arrival
    #[arg(long, env, value_name = "REQUEST_TIMEOUT_MS", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub request_timeout_ms: u64,

    /// The largest body of a request, in bytes
    #[arg(long, env, value_name = "MAX_BODY_BYTES", default_value_t = 2 * 1024 * 1024,
          value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_body_bytes: u32,

    /// The most requests served at a time, half of them for one client or tenant; more are told to
    /// come back
    #[arg(long, env, value_name = "MAX_CONCURRENT_REQUESTS", default_value_t = 2048,
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub max_concurrent_requests: u32,

    /// The most rows of a page of the data API
    #[arg(long, env, value_name = "MAX_PAGE_ROWS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub max_page_rows: u64,

    /// The most operations of a batch
    #[arg(long, env, value_name = "MAX_BATCH_OPERATIONS", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=200))]
    pub max_batch_operations: u32,

    /// Take a client's address from the last X-Forwarded-For: only behind a proxy that sets it
    #[arg(long, env, value_name = "TRUST_FORWARDED_FOR", default_value_t = false, action = clap::ArgAction::Set)]
    pub trust_forwarded_for: bool,

    /// Sites whose pages may call the API from a browser, separated by commas: https://app.example.com
    #[arg(long, env, value_name = "CORS_ORIGINS", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origins: Vec<http::HeaderValue>,

    /// Seconds that the database may be away before this server says it is not ready; each server adds
    /// up to as many of its own accord, so that not all say so at once
    #[arg(long, env, value_name = "OUTAGE_SECS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub outage_secs: u64,

    /// Seconds that the database is waited for at the start
    #[arg(long, env, value_name = "STARTUP_SECS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub startup_secs: u64,

    /// Seconds after SIGTERM in which this server says it is not ready and serves on, so that a
    /// balancer notices and sends requests elsewhere; SIGINT ends it without
    #[arg(long, env, value_name = "DRAIN_SECS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub drain_secs: u64,

    /// Seconds that requests under way may then take to finish
    #[arg(long, env, value_name = "SHUTDOWN_SECS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub shutdown_secs: u64,

    /// The bearer token, of 16 characters at least, with which /metrics names tenants; without it,
    /// /metrics names none
    // Checked in `check`, because clap would print a malformed value.
    #[arg(long, env, value_name = "METRICS_TOKEN", hide_env_values = true)]
    pub metrics_token: Option<String>,

    #[command(flatten)]
    pub connections: ConnectionSettings,
}

impl HttpSettings {
    pub fn check(&self) -> Result<(), String> {
        self.connections.check(self.max_body_bytes)?;
        match &self.metrics_token {
            Some(token) if !token.is_empty() && token.len() < 16 => {
                Err("METRICS_TOKEN must have 16 characters at least".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// An origin in the form that browsers send: scheme, host and optional port, and nothing after. `*` is
/// refused, since it would allow every site.
fn parse_origin(text: &str) -> Result<http::HeaderValue, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte);
    match host {
        Some(host) if !host.is_empty() && host.bytes().all(plain) => {
            http::HeaderValue::from_str(text).map_err(|error| error.to_string())
        }
        _ => Err("an origin is like https://app.example.com, in lower case and without a path"
            .to_owned()),
    }
}
