//! The options from which a handle is made.

use crate::cache::CacheOptions;
use crate::observe::insight::InsightOptions;
use crate::pool::PoolLimits;
use crate::pool::pooler::Pooler;
use crate::pool::seal::ContextKey;
use crate::replicas::ReplicaLimits;

/// The connections to the database, and their limits.
#[derive(Clone)]
pub struct Options {
    /// Connects as `freehold_app`, which runs tenants' transactions.
    pub app_url: String,
    /// Connects as `freehold_catalog`, which reads and writes the catalog. By default, `app_url` with that
    /// user name and the same password, which [`init()`](crate::init()) gives to both roles.
    pub catalog_url: Option<String>,
    /// Connects as `freehold_owner`. Without it, this server creates and migrates nothing.
    pub owner_url: Option<String>,
    /// Connects as `freehold_analytics`, directly. Without it, this server collects no analytics.
    pub analytics_url: Option<String>,
    /// The replica on which analytics reads tenants, as `freehold_analytics`, if it is not one of
    /// `replica_urls`.
    pub analytics_read_url: Option<String>,
    /// Replicas, each as `freehold_app`: for analytics, and for reads by
    /// [`Freehold::begin_read`](crate::Freehold::begin_read).
    pub replica_urls: Vec<String>,
    /// How old the data of a replica may be.
    pub replica_limits: ReplicaLimits,
    /// Limits of the connections as `freehold_app`, to the primary and to each replica.
    pub app_pool: PoolLimits,
    /// Limits of the connections as `freehold_catalog`. Sign-in and background work do not wait for tenants,
    /// nor tenants for them.
    pub catalog_pool: PoolLimits,
    /// Limits of the connections as `freehold_owner`.
    pub owner_pool: PoolLimits,
    /// What lies between this server and PostgreSQL.
    pub pooler: Pooler,
    /// Where to LISTEN for changes if `app_url` leads to a pooler: PostgreSQL itself, as the same role.
    /// Without it, no notifications arrive, and cached entries are valid for half a second.
    pub listen_url: Option<String>,
    /// The key that seals contexts. Without it the key is read through `owner_url`, and each new key is
    /// adopted at once.
    pub context_key: Option<ContextKey>,
    /// What is counted of tenants' statements, and how it is reported.
    pub insight: InsightOptions,
    /// The cache of values that are expensive to compute.
    pub cache: CacheOptions,
}

impl Options {
    /// Connects as `freehold_app` alone, with the default limits.
    pub fn new(app_url: impl Into<String>) -> Options {
        Options {
            app_url: app_url.into(),
            catalog_url: None,
            owner_url: None,
            analytics_url: None,
            analytics_read_url: None,
            replica_urls: Vec::new(),
            replica_limits: ReplicaLimits::default(),
            app_pool: PoolLimits::default(),
            catalog_pool: PoolLimits { connections_max: 8, ..PoolLimits::default() },
            owner_pool: PoolLimits { connections_max: 4, ..PoolLimits::default() },
            pooler: Pooler::default(),
            listen_url: None,
            context_key: None,
            insight: InsightOptions::default(),
            cache: CacheOptions::default(),
        }
    }

    /// Connects as `freehold_owner` too, to create and migrate tenants.
    pub fn owner_url(mut self, url: impl Into<String>) -> Options {
        self.owner_url = Some(url.into());
        self
    }

    /// Reads a replica too, as `freehold_app`; call it once for each replica.
    pub fn replica_url(mut self, url: impl Into<String>) -> Options {
        self.replica_urls.push(url.into());
        self
    }

    /// Connects as `freehold_analytics` too, to collect analytics across tenants.
    pub fn analytics_url(mut self, url: impl Into<String>) -> Options {
        self.analytics_url = Some(url.into());
        self
    }
}
