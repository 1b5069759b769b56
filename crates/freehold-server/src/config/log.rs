//! Logs and traces.

use std::collections::HashMap;

use clap::{Args, ValueEnum};

#[derive(Args, Clone)]
#[command(next_help_heading = "Logs")]
pub struct LogSettings {
    /// Lines for people or for machines
    #[arg(long, env, value_name = "LOG_FORMAT", default_value = "pretty")]
    pub log_format: LogFormat,

    /// What to log: error, warn, info, debug, trace, or directives such as freehold=debug
    #[arg(long, env, value_name = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Pretty,
    Json,
}

/// Where traces go.
#[derive(Args, Clone)]
#[command(next_help_heading = "Traces")]
pub struct TraceSettings {
    /// A collector that takes OpenTelemetry's traces by OTLP over HTTP: http://collector:4318; without it
    /// there are none
    #[arg(long, env = "OTLP_ENDPOINT", value_name = "OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// What the collector wants in headers, separated by commas: authorization=Bearer …
    // Checked in `headers`, because clap would print a malformed value.
    #[arg(long, env = "OTLP_HEADERS", value_name = "OTLP_HEADERS", hide_env_values = true)]
    pub otlp_headers: Option<String>,

    /// The percentage of requests that are traced, of those whose caller has not decided it
    #[arg(long, env, value_name = "TRACE_PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trace_percent: u8,
}

impl TraceSettings {
    /// The URL to which traces are sent, if they are.
    pub fn url(&self) -> Result<Option<http::Uri>, String> {
        let Some(base) = self.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let wrong = || "OTLP_ENDPOINT must be like http://collector:4318".to_owned();
        let url =
            format!("{}/v1/traces", base.trim_end_matches('/').trim_end_matches("/v1/traces"));
        let url: http::Uri = url.parse().map_err(|_| wrong())?;
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        if known && url.host().is_some_and(|host| !host.is_empty()) {
            Ok(Some(url))
        } else {
            Err(wrong())
        }
    }

    pub fn headers(&self) -> Result<HashMap<String, String>, String> {
        let wrong = || "OTLP_HEADERS must be like name=value,other=value".to_owned();
        let text = self.otlp_headers.as_deref().unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (name, value) = part.split_once('=').ok_or_else(wrong)?;
                let name = http::HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
                http::HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
                Ok((name.to_string(), value.trim().to_owned()))
            })
            .collect()
    }
}
