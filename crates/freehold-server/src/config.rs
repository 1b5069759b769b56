//! Every setting, defined once: as a flag and as an environment variable. Nothing else in the
//! project reads the environment.
//!
//! A setting whose `hide_env_values` is set is a secret: it is never printed.

mod connections;
mod mail;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use freehold::control::sessions::SignInOptions;
use freehold::tokens::{AccessTokens, Keyring};
use freehold::{
    AnalyticsOptions, Baseline, CacheOptions, ContextKey, InsightOptions, Layout, Options,
    PoolLimits, Pooler, Rate, ReplicaLimits, SignInLimits,
};

pub use self::connections::ConnectionSettings;
pub use self::mail::{MailMode, MailSettings};
pub(crate) use self::mail::{SmtpServer, SmtpTls};

/// Whether NO_COLOR asks for output without colours (<https://no-color.org>): no setting of Freehold's own.
#[expect(clippy::disallowed_methods, reason = "this is the reader of the environment")]
pub(crate) fn is_without_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Where the database is.
#[derive(Args, Clone)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// PostgreSQL, as the role freehold_app: postgres://freehold_app:password@host:5432/database
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// PostgreSQL, as the role freehold_catalog; without it, DATABASE_URL with that name and the same password
    #[arg(
        long,
        env = "DATABASE_CATALOG_URL",
        value_name = "DATABASE_CATALOG_URL",
        hide_env_values = true
    )]
    pub database_catalog_url: Option<String>,

    /// PostgreSQL, as the role freehold_owner; without it, no tenant is created or migrated
    #[arg(
        long,
        env = "DATABASE_OWNER_URL",
        value_name = "DATABASE_OWNER_URL",
        hide_env_values = true
    )]
    pub database_owner_url: Option<String>,

    /// PostgreSQL, as the role freehold_analytics, with no pooler in between; without it, no analytics are
    /// collected
    #[arg(
        long,
        env = "DATABASE_ANALYTICS_URL",
        value_name = "DATABASE_ANALYTICS_URL",
        hide_env_values = true
    )]
    pub database_analytics_url: Option<String>,

    /// Replicas, as the role freehold_app, separated by commas: analytics reads tenants there, and so do
    /// requests that say `Prefer: read=replica`
    #[arg(
        long,
        env = "DATABASE_REPLICA_URLS",
        value_name = "DATABASE_REPLICA_URLS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub database_replica_urls: Vec<String>,

    /// Milliseconds that a replica may be behind; beyond them it is left out until it has caught up
    #[arg(long, env, value_name = "MAX_REPLICA_LAG_MS", default_value_t = 5000,
          value_parser = clap::value_parser!(u64).range(1000..=3_600_000))]
    pub max_replica_lag_ms: u64,

    /// Milliseconds that a request waits for a replica to have what it must see, and for a connection
    /// there, before it goes to the primary
    #[arg(long, env, value_name = "REPLICA_WAIT_MS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub replica_wait_ms: u64,

    /// A replica for analytics alone, as the role freehold_analytics, if it is none of those
    #[arg(
        long,
        env = "DATABASE_ANALYTICS_READ_URL",
        value_name = "DATABASE_ANALYTICS_READ_URL",
        hide_env_values = true
    )]
    pub database_analytics_read_url: Option<String>,

    /// The most connections of the app role, to the primary and to each replica
    #[arg(long, env, value_name = "MAX_CONNECTION_POOL", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_connection_pool: u16,

    /// The most connections to the catalog: of sign-in, administration and what goes on in the background
    #[arg(long, env, value_name = "MAX_CATALOG_CONNECTION_POOL", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub max_catalog_connection_pool: u16,

    /// The most connections of the owner role
    #[arg(long, env, value_name = "MAX_OWNER_CONNECTION_POOL", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub max_owner_connection_pool: u16,

    /// Milliseconds that a request waits for a connection before it is told to come back
    #[arg(long, env, value_name = "CONNECTION_WAIT_MS", default_value_t = 5000,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub connection_wait_ms: u64,

    /// A pooler in front of PostgreSQL: detect, session (or none), transaction
    #[arg(long, env = "FREEHOLD_POOLER", value_name = "FREEHOLD_POOLER", default_value = "detect")]
    pub pooler: PoolerSetting,

    /// PostgreSQL itself, as the role freehold_app, where DATABASE_URL leads to a pooler: changes are
    /// listened for there
    #[arg(
        long,
        env = "DATABASE_LISTEN_URL",
        value_name = "DATABASE_LISTEN_URL",
        hide_env_values = true
    )]
    pub database_listen_url: Option<String>,

    /// The key that contexts are sealed with, as `freehold key show` prints it; without one it is
    /// read through DATABASE_OWNER_URL
    #[arg(long, env = "CONTEXT_KEY", value_name = "CONTEXT_KEY", hide_env_values = true)]
    pub context_key: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PoolerSetting {
    /// Looked for at every connection
    Detect,
    /// None, or one that gives each client a session of its own
    #[value(alias = "none")]
    Session,
    /// One that may give each transaction another session, such as PgBouncer's transaction mode
    Transaction,
}

impl DatabaseSettings {
    /// How many connections there may be to databases, of requests and of what goes on beside them.
    pub(crate) fn connections_max(&self, analytics: &AnalyticsSettings) -> u64 {
        let replicas = 1 + self.database_replica_urls.len() as u64;
        u64::from(self.max_connection_pool) * replicas
            + u64::from(self.max_catalog_connection_pool)
            + u64::from(self.max_owner_connection_pool)
            // Readers and writers of analytics, the lead, and one that listens for each.
            + u64::from(analytics.analytics_connections) * 2
            + replicas
            + 4
    }

    pub fn options(&self) -> Result<Options, freehold::Error> {
        let wait_max = Duration::from_millis(self.connection_wait_ms);
        let limits =
            |connections: u16| PoolLimits { connections_max: connections.into(), wait_max };
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Options {
            app_url: self.database_url.clone(),
            // Set to nothing is not set: compose files and shells do that.
            catalog_url: set(&self.database_catalog_url),
            owner_url: set(&self.database_owner_url),
            analytics_url: set(&self.database_analytics_url),
            analytics_read_url: set(&self.database_analytics_read_url),
            replica_urls: self
                .database_replica_urls
                .iter()
                .map(|url| url.trim().to_owned())
                .filter(|url| !url.is_empty())
                .collect(),
            replica_limits: ReplicaLimits {
                lag_max: Duration::from_millis(self.max_replica_lag_ms),
                wait_max: Duration::from_millis(self.replica_wait_ms),
            },
            app_pool: limits(self.max_connection_pool),
            catalog_pool: limits(self.max_catalog_connection_pool),
            owner_pool: limits(self.max_owner_connection_pool),
            pooler: match self.pooler {
                PoolerSetting::Detect => Pooler::Detect,
                PoolerSetting::Session => Pooler::Session,
                PoolerSetting::Transaction => Pooler::Transaction,
            },
            listen_url: set(&self.database_listen_url),
            context_key: set(&self.context_key).map(|key| ContextKey::parse(&key)).transpose()?,
            insight: InsightOptions::default(),
            cache: CacheOptions::default(),
        })
    }
}

/// What a server needs to serve.
#[derive(Args, Clone)]
pub struct ServeSettings {
    #[command(flatten)]
    pub database: DatabaseSettings,

    #[command(flatten)]
    pub cache: CacheSettings,

    #[command(flatten)]
    pub sign_in: SignInSettings,

    #[command(flatten)]
    pub mail: MailSettings,

    #[command(flatten)]
    pub http: HttpSettings,

    #[command(flatten)]
    pub worker: WorkerSettings,

    #[command(flatten)]
    pub insight: InsightSettings,

    #[command(flatten)]
    pub log: LogSettings,

    #[command(flatten)]
    pub traces: TraceSettings,
}

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

#[derive(Args, Clone)]
#[command(next_help_heading = "Sign-in")]
pub struct SignInSettings {
    /// The secret that signs access tokens: at least 32 bytes, the same on every server
    // Checked in `options`: clap would show a malformed value.
    #[arg(long, env, value_name = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: String,

    /// Former secrets whose tokens are still good, separated by commas
    #[arg(
        long,
        env,
        value_name = "JWT_SECRETS_RETIRED",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub jwt_secrets_retired: Vec<String>,

    /// The issuer named in tokens, and demanded of them
    #[arg(long, env, value_name = "JWT_ISSUER", default_value = "freehold")]
    pub jwt_issuer: String,

    /// The audience named in tokens, and demanded of them
    #[arg(long, env, value_name = "JWT_AUDIENCE", default_value = "freehold")]
    pub jwt_audience: String,

    /// Seconds that an access token is good for
    #[arg(long, env, value_name = "ACCESS_TOKEN_SECS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub access_token_secs: u64,

    /// Days after which a session ends
    #[arg(long, env, value_name = "SESSION_DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub session_days: u64,

    /// Whether people may create tenants themselves: verified, open, off
    #[arg(long, env, value_name = "SIGNUP", default_value = "verified")]
    pub signup: SignUpMode,

    /// Wrong passwords a minute for one e-mail, at all servers together; a device that has signed in
    /// before has as many of its own
    #[arg(long, env, value_name = "SIGN_IN_PER_EMAIL", default_value = "10")]
    pub sign_in_per_email: NonZeroU32,

    /// Wrong passwords, sign-ups and the like a minute for one client address, at all servers together
    #[arg(long, env, value_name = "SIGN_IN_PER_CLIENT", default_value = "60")]
    pub sign_in_per_client: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignUpMode {
    /// Once they have proven their address by a letter
    Verified,
    /// At once, by whatever address they type: for development and closed networks alone
    Open,
    /// Not at all
    Off,
}

impl SignInSettings {
    /// `public_url`: where the links of letters lead.
    pub fn options(&self, public_url: String) -> Result<SignInOptions, String> {
        let retired: Vec<_> =
            self.jwt_secrets_retired.iter().filter(|secret| !secret.is_empty()).collect();
        let keyring = Keyring::new(&self.jwt_secret, &retired)
            .map_err(|error| format!("JWT_SECRET or JWT_SECRETS_RETIRED: {error}"))?;
        let rate = |count| Rate { burst: count, per_minute: count };
        Ok(SignInOptions {
            tokens: AccessTokens::new(keyring, &self.jwt_issuer, &self.jwt_audience),
            access_lifetime: Duration::from_secs(self.access_token_secs),
            session_lifetime: Duration::from_secs(self.session_days * 24 * 3600),
            limits: SignInLimits {
                per_email: rate(self.sign_in_per_email),
                per_client: rate(self.sign_in_per_client),
            },
            public_url,
        })
    }
}

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

    /// The most requests served at a time; more are told to come back
    #[arg(long, env, value_name = "MAX_CONCURRENT_REQUESTS", default_value_t = 2048,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
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
    // Checked in `check`: clap would show a malformed value.
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

/// As a browser sends it: scheme, host and perhaps a port, and nothing behind. `*` is none: it would
/// be every site's.
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
    // Checked in `headers`: clap would show a malformed value.
    #[arg(long, env = "OTLP_HEADERS", value_name = "OTLP_HEADERS", hide_env_values = true)]
    pub otlp_headers: Option<String>,

    /// The percentage of requests that are traced, of those whose caller has not decided it
    #[arg(long, env, value_name = "TRACE_PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trace_percent: u8,
}

impl TraceSettings {
    /// Where they are sent, if they are.
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

/// How a folder of migrations is read.
#[derive(Args, Clone)]
pub struct LayoutSettings {
    /// The tool whose layout the folder has; if not given, it is found out by what lies in it
    #[arg(long, value_name = "LAYOUT", value_parser = layouts())]
    pub layout: Option<Layout>,
}

fn layouts() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::ALL.map(Layout::as_str)).try_map(|name| name.parse())
}

impl LayoutSettings {
    /// Reads a folder, in this layout or in the one that it has.
    pub fn read(&self, folder: &Path) -> freehold::Result<Baseline> {
        match self.layout {
            Some(layout) => Baseline::read_as(folder, layout),
            None => Baseline::read(folder),
        }
    }
}

/// The private PostgreSQL of `freehold dev`.
#[derive(Args, Clone)]
pub struct DevSettings {
    /// The port of the API; 0 takes one that is free, and prints it
    #[arg(long, default_value_t = 8080)]
    pub port: u16,

    /// Where the private PostgreSQL and its data are kept
    #[arg(long, value_name = "FOLDER", default_value = ".freehold")]
    pub dir: PathBuf,

    /// The migrations that make up a tenant's schema; new ones are taken while it runs
    #[arg(long, value_name = "FOLDER", default_value = "demo/migrations")]
    pub baseline: PathBuf,

    #[command(flatten)]
    pub layout: LayoutSettings,

    /// Forget all data and start over
    #[arg(long)]
    pub reset: bool,

    /// Only start PostgreSQL; run the command after `--` with DATABASE_URL set to its superuser
    #[arg(long, requires = "command")]
    pub database_only: bool,

    /// With --database-only: start a PgBouncer in transaction mode too, for this user and password;
    /// FREEHOLD_TEST_POOLER tells the command where it listens
    #[arg(long, value_name = "USER:PASSWORD", requires = "database_only")]
    pub pgbouncer: Option<String>,

    /// The folder of initdb and postgres, if they are not where they usually are
    #[arg(long, env = "FREEHOLD_PG_BIN", value_name = "FREEHOLD_PG_BIN")]
    pub postgres_bin: Option<PathBuf>,

    #[command(flatten)]
    pub log: LogSettings,

    /// The command to run with the database
    #[arg(last = true)]
    pub command: Vec<String>,
}
