//! Where the database is, and how it is reached.

use std::time::Duration;

use clap::{Args, ValueEnum};
use freehold::{
    CacheOptions, ContextKey, InsightOptions, Options, PoolLimits, Pooler, ReplicaLimits,
};

use super::worker::AnalyticsSettings;

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
    /// The most connections to databases, for requests and background work.
    pub(crate) fn connections_max(&self, analytics: &AnalyticsSettings) -> u64 {
        let replicas = 1 + self.database_replica_urls.len() as u64;
        u64::from(self.max_connection_pool) * replicas
            + u64::from(self.max_catalog_connection_pool)
            + u64::from(self.max_owner_connection_pool)
            // Readers and writers of analytics, the lead, and the listeners.
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
            // An empty value counts as not set: compose files and shells pass empty values.
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
