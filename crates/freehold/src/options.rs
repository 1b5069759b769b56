//! What a handle is made from.

use crate::cache::CacheOptions;
use crate::observe::insight::InsightOptions;
use crate::pool::PoolLimits;
use crate::pool::pooler::Pooler;
use crate::pool::seal::ContextKey;
use crate::replicas::ReplicaLimits;

/// Where the database is, and how much of it may be used.
#[derive(Clone)]
pub struct Options {
    /// Connects as `freehold_app`, which runs tenants' transactions.
    pub app_url: String,
    /// Connects as `freehold_catalog`, which reads and writes the catalog. Without it, `app_url` with that
    /// name and the same password, which [`init()`](crate::init()) has given to both.
    pub catalog_url: Option<String>,
    /// Connects as `freehold_owner`. Without it, this server creates and migrates nothing.
    pub owner_url: Option<String>,
    /// Connects as `freehold_analytics`, directly. Without it, this server collects no analytics.
    pub analytics_url: Option<String>,
    /// The replica that analytics reads tenants on, as `freehold_analytics`, if it is none of
    /// `replica_urls`.
    pub analytics_read_url: Option<String>,
    /// Replicas, each as `freehold_app`: for analytics, and for reads by
    /// [`Freehold::begin_read`](crate::Freehold::begin_read).
    pub replica_urls: Vec<String>,
    /// How old what they answer may be.
    pub replica_limits: ReplicaLimits,
    /// Limits of the connections as `freehold_app`, to the primary and to each replica.
    pub app_pool: PoolLimits,
    /// Limits of the connections as `freehold_catalog`: sign-in and what goes on in the background does not
    /// wait for tenants, nor they for it.
    pub catalog_pool: PoolLimits,
    /// Limits of the connections as `freehold_owner`.
    pub owner_pool: PoolLimits,
    /// What lies between this server and PostgreSQL.
    pub pooler: Pooler,
    /// Where to LISTEN for changes if `app_url` leads to a pooler: PostgreSQL itself, as the same
    /// role. Without it nothing is heard there, and what is cached is good for half a second.
    pub listen_url: Option<String>,
    /// What contexts are sealed with. Without it the key is read through `owner_url`, and a new
    /// one is taken up as soon as there is one.
    pub context_key: Option<ContextKey>,
    /// What is counted of tenants' statements, and how it is told.
    pub insight: InsightOptions,
    /// What is kept of values that are dear to make.
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

    /// Reads a replica too, as `freehold_app`; may be called for each.
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
