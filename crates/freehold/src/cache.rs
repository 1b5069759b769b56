//! A cache of values that are expensive to compute and may be slightly stale: in this process, and in Redis
//! if configured.
//!
//! A key names a tenant or is explicitly global ([`CacheKey`]). A value states its owner, which is checked
//! whenever it is returned. Each value belongs to an epoch, and PostgreSQL alone defines the current epoch
//! (`freehold.cache_epoch`), by query or by NOTIFY. So Redis only makes things faster: whatever it loses,
//! keeps too long or invents counts as a miss. While the listener's connection is not proven to work, a known
//! epoch is used for half a second, like a tenant's status.
//!
//! Values are invalidated by epochs rather than deleted, since a deletion fails while Redis is unavailable,
//! and the value returns with it. A tenant has rows in `cache_epoch` only while its values are asked for, so
//! other writes cost nothing. A write ends its tenant's epoch: this server uses no value of the tenant until
//! PostgreSQL has the new epoch, and the others are notified.

mod clock;
pub(crate) mod envelope;
pub(crate) mod epochs;
pub(crate) mod freshness;
pub(crate) mod key;
pub(crate) mod local;
#[cfg(feature = "redis")]
mod redis_server;
mod single_flight;
pub(crate) mod stats;
#[cfg(not(feature = "redis"))]
mod without_redis;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::envelope::{ENVELOPE_BYTES, Entry, Request, Sealer, Verdict, Version};
use self::freshness::Freshness;
use self::key::{CacheKey, KeyDigest, Owner, Scope};
use self::local::{Epoch, Local};
#[cfg(feature = "redis")]
use self::redis_server::Redis;
use self::single_flight::{Outcome, Part, SingleFlight};
use self::stats::{CacheStats, Fault, Lookup};
#[cfg(not(feature = "redis"))]
use self::without_redis::Redis;
use crate::error::{Error, ErrorKind, Result};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::observe::trouble::Trouble;
use crate::pool::Pool;
use crate::pool::seal::ContextKey;
use crate::tx::CatalogTx;
use crate::wire::client;
use crate::wire::tls::Target;

/// The longest time that a value is kept. The catalog keeps an epoch for longer.
pub const CACHE_AGE_MAX: Duration = Duration::from_secs(3600);
/// Longer values are not kept.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// How long a request waits for an epoch before it goes on without the cache.
const LEARN_MAX: Duration = Duration::from_millis(500);
/// The interval between announcements of ended epochs.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after an announcement that failed.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for announcements.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// By then every server has been notified of a suspension.
const HEARD_MAX: Duration = Duration::from_secs(2);
/// By then a write whose request was dropped has been committed or cancelled.
const ABANDONED_MAX: Duration = Duration::from_secs(5);
const PRUNE_EVERY: Duration = Duration::from_secs(1800);

/// How much is kept, for how long, and where.
#[derive(Clone)]
pub struct CacheOptions {
    /// The most bytes that this process keeps. 0 keeps nothing here.
    pub bytes_max: u64,
    /// The longest time that a value is kept, at most [`CACHE_AGE_MAX`]; 0 disables the cache.
    pub age_max: Duration,
    /// How old pages of analytics may be. They are reloaded as soon as figures are published.
    pub analytics_age: Duration,
    /// Redis or Valkey, to share values with other servers.
    pub redis_url: Option<String>,
    /// How long a request waits for Redis before it goes on without it.
    pub redis_timeout: Duration,
}

impl Default for CacheOptions {
    fn default() -> CacheOptions {
        CacheOptions {
            bytes_max: 64 * 1024 * 1024,
            age_max: CACHE_AGE_MAX,
            analytics_age: Duration::from_secs(10),
            redis_url: None,
            redis_timeout: Duration::from_millis(50),
        }
    }
}

/// A value and its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached<T> {
    /// The value as it was loaded.
    pub value: T,
    /// The time since its load began, if it was loaded for another request.
    pub age: Option<Duration>,
}

/// The cache of a [`Freehold`](crate::Freehold).
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    options: CacheOptions,
    local: Local,
    remote: Option<Remote>,
    pool: Pool,
    freshness: Arc<Freshness>,
    loads: SingleFlight<(KeyDigest, Version), Arc<Entry>>,
    lessons: SingleFlight<Vec<Scope>, Vec<i64>>,
    ended: ExpiredEpochs,
    /// Failures to read epochs.
    trouble: Trouble,
}

/// A write that is under way: see [`Cache::begin_write`].
pub struct CacheWrite {
    cache: Cache,
    scope: Option<Scope>,
}

impl CacheWrite {
    /// Ends the write, and invalidates as [`Cache::invalidate_soon`] does.
    pub fn end(mut self) {
        if let Some(scope) = self.scope.take() {
            self.cache.0.ended.put(scope);
        }
    }
}

impl Drop for CacheWrite {
    fn drop(&mut self) {
        let Some(scope) = self.scope.take() else { return };
        self.cache.0.ended.put(scope.clone());
        // A statement that was sent may be committed a little after its request was dropped.
        let cache = self.cache.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(ABANDONED_MAX).await;
                cache.0.ended.put(scope);
            });
        }
    }
}

/// Redis, and how values are encoded for it.
#[derive(Clone)]
struct Remote {
    redis: Redis,
    sealer: Sealer,
    /// The prefix of this database's keys: other databases may share the Redis.
    prefix: String,
}

/// Epochs that have ended and are not announced yet. Bounded by tenants times names.
#[derive(Default)]
struct ExpiredEpochs {
    waiting: Mutex<HashSet<Scope>>,
    under_way: Mutex<HashSet<Scope>>,
    due: Notify,
    announcing: tokio::sync::Mutex<()>,
}

impl Cache {
    /// Queries the database only if Redis is used, whose keys begin with the database's identity.
    pub(crate) async fn connect(
        options: &CacheOptions,
        local: Local,
        pool: Pool,
        freshness: Arc<Freshness>,
        key: Option<&ContextKey>,
    ) -> Result<Cache> {
        let remote = match &options.redis_url {
            Some(url) => {
                let redis = Redis::new(url, options.redis_timeout, local.counters().clone())?;
                let identity = identity(&pool.target()).await?;
                let secret = secret(key, &identity);
                // Includes the key: servers with another key cannot read each other's values.
                let fingerprint = hex(&Sha256::digest(secret)[..8]);
                let prefix = format!("freehold:{fingerprint}");
                Some(Remote { redis, sealer: Sealer::new(&secret), prefix })
            }
            None => None,
        };
        Ok(Cache(Arc::new(Inner {
            options: options.clone(),
            local,
            remote,
            pool,
            freshness,
            loads: SingleFlight::new(),
            lessons: SingleFlight::new(),
            ended: ExpiredEpochs::default(),
            trouble: Trouble::default(),
        })))
    }

    /// The value under a key if it is no older than `max_age`. Otherwise the result of `load`, which is then
    /// kept as long. Of concurrent callers one loads; if its request is dropped, another one does.
    ///
    /// The cache never fails: without it, `load` runs each time. An error of `load` is not kept.
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// use std::time::Duration;
    /// use freehold::{CacheKey, Freehold, Result, TenantContext};
    ///
    /// async fn count_notes(freehold: &Freehold, context: &TenantContext) -> Result<i64> {
    ///     let key = CacheKey::of(context, "note_count");
    ///     let count = async {
    ///         let rows = freehold.query(context, "SELECT count(*) FROM notes", &[]).await?;
    ///         Ok(rows[0].get::<_, i64>(0))
    ///     };
    ///     Ok(freehold.cache().get_or_load(&key, Duration::from_secs(60), count).await?.value)
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// assert_eq!(count_notes(&freehold, &context).await?, 0);
    /// freehold.query(&context, "INSERT INTO notes (body) VALUES ('buy milk')", &[]).await?;
    /// assert_eq!(count_notes(&freehold, &context).await?, 0); // as it was kept
    /// freehold.cache().invalidate(&context, "note_count").await?;
    /// assert_eq!(count_notes(&freehold, &context).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_load<T>(
        &self,
        key: &CacheKey,
        max_age: Duration,
        load: impl Future<Output = Result<T>>,
    ) -> Result<Cached<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        self.serve(key, max_age, false, load).await
    }

    /// Loads a value, ignoring what is cached, and replaces it.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn refresh<T>(
        &self,
        key: &CacheKey,
        max_age: Duration,
        load: impl Future<Output = Result<T>>,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        Ok(self.serve(key, max_age, true, load).await?.value)
    }

    async fn serve<T>(
        &self,
        key: &CacheKey,
        max_age: Duration,
        anew: bool,
        load: impl Future<Output = Result<T>>,
    ) -> Result<Cached<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let max_age = max_age.min(self.0.options.age_max).min(CACHE_AGE_MAX);
        let version = match max_age.is_zero() {
            true => None,
            false => self.version(key).await,
        };
        let Some(version) = version else {
            self.count(key, Lookup::Bypassed);
            return Ok(Cached { value: load.await?, age: None });
        };
        let digest = key.digest();
        let now_ms = || self.0.local.clock().now_ms();
        let ask = || Request { owner: key.owner(), digest, version, max_age, now_ms: now_ms() };
        let lead = loop {
            if !anew && let Some(hit) = self.find_here(key, &ask()) {
                return Ok(hit);
            }
            match self.0.loads.join(&(digest, version)) {
                Part::Lead(lead) => {
                    // The previous load may have ended since the lookup.
                    let kept = self.0.local.find(&digest).filter(|_| !anew);
                    if let Some(hit) = kept.and_then(|entry| self.open(key, &entry, &ask())) {
                        return Ok(hit);
                    }
                    break Some(lead);
                }
                // The other caller's load may have begun before the change that made this one necessary.
                Part::Follow(_) if anew => break None,
                Part::Follow(follow) => match follow.outcome().await {
                    Outcome::Done(entry) => {
                        if let Some(hit) = self.open(key, &entry, &ask()) {
                            self.count(key, Lookup::Shared);
                            return Ok(hit);
                        }
                    }
                    Outcome::Failed => break None,
                    Outcome::Abandoned => {}
                },
            }
        };
        if !anew
            && lead.is_some()
            && let Some((entry, hit)) = self.find_there(key, &ask()).await
        {
            if let Some(lead) = lead {
                lead.finish(Some(entry));
            }
            return Ok(hit);
        }
        let loaded_at_ms = now_ms();
        let loaded = load.await;
        let entry = match &loaded {
            Ok(value) => self.entry(key, &ask(), loaded_at_ms, value),
            Err(_) => None,
        };
        if let Some(entry) = &entry {
            self.keep(key, entry);
        }
        if let Some(lead) = lead {
            lead.finish(entry);
        }
        Ok(Cached { value: loaded?, age: None })
    }

    /// Looks in this process.
    fn find_here<T: DeserializeOwned>(&self, key: &CacheKey, asked: &Request) -> Option<Cached<T>> {
        let entry = self.0.local.find(&asked.digest);
        let hit = entry.and_then(|entry| self.open(key, &entry, asked));
        self.count(key, if hit.is_some() { Lookup::ProcessHit } else { Lookup::ProcessMiss });
        hit
    }

    /// Looks in Redis. A value found there is kept here too.
    async fn find_there<T: DeserializeOwned>(
        &self,
        key: &CacheKey,
        asked: &Request,
    ) -> Option<(Arc<Entry>, Cached<T>)> {
        let remote = self.0.remote.as_ref().filter(|remote| remote.redis.is_up())?;
        let name = remote.name(key, &asked.digest);
        let found = match remote.redis.get(&name, VALUE_BYTES_MAX + ENVELOPE_BYTES).await {
            Some(sealed) => match remote.sealer.open(sealed) {
                Some(entry) => Some(Arc::new(entry)),
                None => {
                    self.0.local.counters().fault(Fault::Garbage);
                    None
                }
            },
            None => None,
        };
        let hit = found.and_then(|entry| {
            let hit = self.open(key, &entry, asked)?;
            self.0.local.keep(Arc::clone(&entry));
            Some((entry, hit))
        });
        self.count(key, if hit.is_some() { Lookup::RedisHit } else { Lookup::RedisMiss });
        hit
    }

    /// Every value that is returned passes this check.
    fn open<T: DeserializeOwned>(
        &self,
        key: &CacheKey,
        entry: &Entry,
        asked: &Request,
    ) -> Option<Cached<T>> {
        match entry.judge(asked) {
            Verdict::Fits(age) => match serde_json::from_slice(&entry.value) {
                Ok(value) => Some(Cached { value, age: Some(age) }),
                // Written by another version of this program, in which values of this name have another form.
                Err(_) => {
                    self.0.local.counters().fault(Fault::Garbage);
                    self.0.local.remove(&asked.digest);
                    None
                }
            },
            Verdict::Stale => None,
            Verdict::Foreign => {
                tracing::error!(?key, found = ?entry.owner, "the cache held another key's value; it is not used");
                self.0.local.counters().fault(Fault::Foreign);
                self.0.local.remove(&asked.digest);
                None
            }
        }
    }

    /// `None` if the value is too long to keep.
    fn entry<T: Serialize>(
        &self,
        key: &CacheKey,
        asked: &Request,
        loaded_at_ms: u64,
        value: &T,
    ) -> Option<Arc<Entry>> {
        let value = serde_json::to_vec(value).ok()?;
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        self.count(key, Lookup::Loaded);
        // Up to a tenth shorter, so that values loaded together do not expire together.
        let ttl = asked.max_age.mul_f64(1.0 - chance() / 10.0);
        Some(Arc::new(Entry {
            owner: asked.owner,
            digest: asked.digest,
            version: asked.version,
            loaded_at_ms,
            expires_at_ms: loaded_at_ms.saturating_add(ttl.as_millis() as u64),
            value: Bytes::from(value),
        }))
    }

    fn keep(&self, key: &CacheKey, entry: &Arc<Entry>) {
        self.0.local.keep(Arc::clone(entry));
        let Some(remote) = &self.0.remote else { return };
        let ttl = self.0.local.time_left(entry);
        if remote.redis.is_up() && !ttl.is_zero() {
            let name = remote.name(key, &entry.digest);
            remote.redis.store(name, remote.sealer.seal(entry), ttl);
        }
    }

    /// The current epochs of a key, if they can be determined.
    async fn version(&self, key: &CacheKey) -> Option<Version> {
        let mut scopes = vec![Scope::new(Owner::Global, key.name())];
        if key.owner() != Owner::Global {
            scopes.push(Scope::new(key.owner(), key.name()));
        }
        if scopes.iter().any(|scope| self.0.ended.holds(scope)) {
            return None;
        }
        let known: Option<Vec<i64>> = scopes.iter().map(|scope| self.believed(scope)).collect();
        let numbers = match known {
            Some(numbers) => numbers,
            None => tokio::time::timeout(LEARN_MAX, self.learn(&scopes)).await.ok().flatten()?,
        };
        Some(Version { everywhere: numbers[0], tenant: numbers.get(1).copied().unwrap_or(0) })
    }

    fn believed(&self, scope: &Scope) -> Option<i64> {
        let epoch = self.0.local.epoch(scope)?;
        self.0.freshness.believes(epoch.learned_at).then_some(epoch.number)
    }

    async fn learn(&self, scopes: &Vec<Scope>) -> Option<Vec<i64>> {
        loop {
            let lead = match self.0.lessons.join(scopes) {
                Part::Lead(lead) => lead,
                Part::Follow(follow) => match follow.outcome().await {
                    Outcome::Done(numbers) => return Some(numbers),
                    Outcome::Failed => return None,
                    Outcome::Abandoned => continue,
                },
            };
            let (generation, learned_at) = (self.0.local.generation(), Instant::now());
            let learned = self.ask_catalog(scopes).await;
            let unused = "the cache is not used: its epochs cannot be read";
            self.0.trouble.note(&learned, unused);
            let numbers = learned.ok();
            for (scope, number) in scopes.iter().zip(numbers.iter().flatten()) {
                let epoch = Epoch { number: *number, learned_at };
                self.0.local.learn(scope, epoch, generation);
            }
            lead.finish(numbers.clone());
            return numbers;
        }
    }

    async fn ask_catalog(&self, scopes: &[Scope]) -> Result<Vec<i64>> {
        let context = OperatorContext::system("learn epochs of the cache");
        epochs::learn(CatalogTx::new(&self.0.pool, &context).await?, scopes).await
    }

    /// Invalidates a tenant's values of one name on every server: when this returns, this server returns no
    /// value that was loaded before, and within a moment no other server does.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] and the like, if PostgreSQL cannot be reached; then the invalidation is not
    /// certain.
    pub async fn invalidate(&self, context: &TenantContext, name: &'static str) -> Result<()> {
        self.end(&[Scope::new(Owner::Tenant(context.tenant()), name)]).await
    }

    /// Invalidates every value of one name, global and of all tenants, on every server.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    pub async fn invalidate_everywhere(
        &self,
        context: &OperatorContext,
        name: &'static str,
    ) -> Result<()> {
        tracing::info!(name, reason = context.reason(), "the cache forgets");
        self.end(&[Scope::new(Owner::Global, name)]).await
    }

    /// [`invalidate`](Self::invalidate) without waiting: from now on this server returns no earlier value,
    /// and other servers stop when they are notified, a moment later. For use after each write: many
    /// invalidations are one message, and if the cache holds nothing of the tenant, nothing is written.
    pub fn invalidate_soon(&self, context: &TenantContext, name: &'static str) {
        self.0.ended.put(Scope::new(Owner::Tenant(context.tenant()), name));
    }

    /// To be held during a write that `invalidate_soon` shall follow in any case: a request that is dropped
    /// may have been committed, or be committed later.
    pub fn begin_write(&self, context: &TenantContext, name: &'static str) -> CacheWrite {
        let scope = Scope::new(Owner::Tenant(context.tenant()), name);
        CacheWrite { cache: self.clone(), scope: Some(scope) }
    }

    /// Values of a name depend on something that has changed, and the notification is under way.
    pub(crate) fn doubt_global(&self, name: &str) {
        self.0.local.forget(&Scope::new(Owner::Global, name));
    }

    async fn end(&self, scopes: &[Scope]) -> Result<()> {
        let context = OperatorContext::system("end epochs of the cache");
        epochs::end(CatalogTx::new(&self.0.pool, &context).await?, scopes).await?;
        for scope in scopes {
            self.0.local.forget(scope);
        }
        self.0.local.counters().invalidated(scopes.len() as u64);
        Ok(())
    }

    /// Invalidates everything of a tenant and removes it from memory: here at once, on other servers when
    /// they are notified of the tenant, and from Redis in the background.
    ///
    /// # Errors
    /// As for [`invalidate`](Self::invalidate).
    pub async fn evict_tenant(&self, context: &OperatorContext, tenant: TenantId) -> Result<()> {
        let mut tx = CatalogTx::new(&self.0.pool, context).await?;
        epochs::end_all(&mut tx, tenant.as_uuid()).await?;
        tx.commit().await?;
        self.drop_tenant(tenant);
        Ok(())
    }

    /// For a tenant whose epochs the catalog has already ended.
    pub(crate) fn drop_tenant(&self, tenant: TenantId) {
        self.0.local.evict(tenant);
        self.0.local.counters().invalidated(1);
        if let Some(remote) = self.0.remote.clone().filter(|remote| remote.redis.is_up()) {
            tokio::spawn(async move {
                let prefix = format!("{}:{tenant}:", remote.prefix);
                remote.redis.sweep(&prefix).await;
                // Removes what another server stored before it was notified.
                tokio::time::sleep(HEARD_MAX).await;
                remote.redis.sweep(&prefix).await;
            });
        }
    }

    /// Moves the cache's clock forward, for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn advance(&self, time: Duration) {
        self.0.local.clock().advance(time.as_millis() as u64);
    }

    /// Counters and current sizes.
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.0.local.size();
        let redis_up = self.0.remote.as_ref().map(|remote| remote.redis.is_up());
        CacheStats { entries, bytes, redis_up, ..self.0.local.counters().read() }
    }

    /// How old pages of analytics may be.
    pub(crate) fn analytics_age(&self) -> Duration {
        self.0.options.analytics_age
    }

    fn count(&self, key: &CacheKey, lookup: Lookup) {
        self.0.local.counters().count(key.name(), lookup);
    }

    /// Announces the epochs that [`invalidate_soon`](Self::invalidate_soon) queued, until it is dropped.
    pub(crate) async fn announce(self) {
        let mut pruned_at = Instant::now();
        let trouble = Trouble::default();
        loop {
            let _ = tokio::time::timeout(PRUNE_EVERY, self.0.ended.due.notified()).await;
            let announced = self.announce_once().await;
            trouble.note(&announced, "other servers cannot be told what to forget; trying again");
            let pause = match announced {
                Ok(()) => ANNOUNCE_PAUSE,
                Err(_) => {
                    self.0.ended.due.notify_one();
                    ANNOUNCE_RETRY
                }
            };
            if pruned_at.elapsed() >= PRUNE_EVERY {
                pruned_at = Instant::now();
                if let Err(error) = self.prune().await {
                    tracing::warn!(%error, "old epochs of the cache cannot be removed");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn announce_once(&self) -> Result<()> {
        let _turn = self.0.ended.announcing.lock().await;
        let scopes = self.0.ended.take();
        if scopes.is_empty() {
            return Ok(());
        }
        let outcome = self.end(&scopes).await;
        self.0.ended.give_back(outcome.is_err());
        outcome
    }

    /// Announces what is queued; for a shutdown.
    pub(crate) async fn flush(&self) -> Result<()> {
        tokio::time::timeout(FLUSH_MAX, self.announce_once()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "other servers could not be told in time"))
        })
    }

    async fn prune(&self) -> Result<()> {
        let context = OperatorContext::system("forget old epochs of the cache");
        epochs::prune(CatalogTx::new(&self.0.pool, &context).await?).await
    }

    /// Keeps the connection to Redis open, if Redis is configured.
    pub(crate) async fn keep_connected(self) {
        if let Some(remote) = &self.0.remote {
            remote.redis.clone().keep_connected().await;
        }
    }
}

impl Remote {
    /// Begins with the tenant's id, in characters that need no quoting.
    fn name(&self, key: &CacheKey, digest: &KeyDigest) -> String {
        let owner = match key.owner() {
            Owner::Global => "global".to_owned(),
            Owner::Tenant(tenant) => tenant.to_string(),
        };
        format!("{}:{owner}:{}:{}", self.prefix, key.name(), hex(digest))
    }
}

impl ExpiredEpochs {
    fn put(&self, scope: Scope) {
        lock(&self.waiting).insert(scope);
        self.due.notify_one();
    }

    /// Whether the epoch has ended and the announcement is outstanding.
    fn holds(&self, scope: &Scope) -> bool {
        lock(&self.waiting).contains(scope) || lock(&self.under_way).contains(scope)
    }

    fn take(&self) -> Vec<Scope> {
        let (mut waiting, mut under_way) = (lock(&self.waiting), lock(&self.under_way));
        // Takes over what a dropped announcement left.
        under_way.extend(waiting.drain());
        under_way.iter().cloned().collect()
    }

    fn give_back(&self, failed: bool) {
        let (mut waiting, mut under_way) = (lock(&self.waiting), lock(&self.under_way));
        match failed {
            true => waiting.extend(under_way.drain()),
            false => under_way.clear(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Identifies the database, so that several databases, even copies of one another, can share a Redis.
async fn identity(target: &Target) -> Result<String> {
    let client = client::connect_to_read(target).await?;
    let row = client
        .query_one(
            "SELECT oid::text || ' ' || datname FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await?;
    // The server's identity is not readable everywhere. Without it, databases of two servers may look alike:
    // these must not share a Redis.
    let server = client
        .query_one("SELECT system_identifier::text FROM pg_control_system()", &[])
        .await
        .map(|row| row.get::<_, String>(0))
        .unwrap_or_default();
    client.batch_execute("ROLLBACK").await?;
    Ok(format!("{} {server}", row.get::<_, String>(0)))
}

/// The secret that seals values, derived from the key that seals contexts, which every server has. In plain
/// mode there is no such key, and the seal only detects accidents.
fn secret(key: Option<&ContextKey>, identity: &str) -> [u8; 32] {
    let secret = key.map(ContextKey::reveal).unwrap_or_default();
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    hmac.update(b"freehold cache ");
    hmac.update(identity.as_bytes());
    hmac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number from 0 to 1; 0 if the system has no random numbers.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}
