//! The cache, in this process and in a real Redis: no caller gets another tenant's value or an invalidated
//! one, whatever Redis does.
//!
//! Runs on several threads, since servers that were started here may still be connecting when a test ends:
//! the test's database can be dropped only once they have disconnected.

mod answers;
mod isolation;
mod outages;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use freehold::{CacheKey, CacheOptions, Freehold, TenantContext};
use futures_util::FutureExt as _;

use crate::redis_server::RedisServer;
use crate::support::{Place, Service, Setup, eventually};

const MINUTE: Duration = Duration::from_secs(60);
/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

fn with_cache(cache: CacheOptions) -> Setup {
    Setup { cache, ..Setup::default() }
}

/// A service that uses Redis, and does so already.
async fn service_with(redis: &RedisServer) -> Service {
    let service = Service::start(with_cache(redis.cache())).await;
    wait_for_redis(&service.freehold, true).await;
    service
}

/// Another server with its own memory, over the same database and Redis.
async fn beside(service: &Service, redis: &RedisServer) -> Service {
    let other = service.beside(with_cache(redis.cache())).await;
    wait_for_redis(&other.freehold, true).await;
    other
}

async fn wait_for_redis(freehold: &Freehold, up: bool) {
    let is_so = async || freehold.cache().stats().redis_up == Some(up);
    eventually("Redis is seen as it is", SOON, is_so).await;
}

async fn context_of(service: &Service, place: &Place) -> TenantContext {
    service.freehold.tenant_context(place.tenant.id, place.owner.id.into()).await.unwrap()
}

/// The value under a key, loaded if it must be; and how often it was.
async fn get(freehold: &Freehold, key: &CacheKey, value: &str) -> (String, bool) {
    let cached =
        freehold.cache().get_or_load(key, MINUTE, async { Ok(value.to_owned()) }).await.unwrap();
    (cached.value, cached.age.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_under_way_is_shared_by_those_who_ask_for_the_same_and_by_nobody_else() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let (loads, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for n in 0..60 {
        let place = if n % 2 == 0 { &acme } else { &globex };
        let context = context_of(&service, place).await;
        let (freehold, loads) = (service.freehold.clone(), Arc::clone(&loads));
        let asked = Arc::clone(&asked);
        let slug = place.tenant.slug.to_string();
        tasks.push(tokio::spawn(async move {
            let key = CacheKey::of(&context, "shared").part("42");
            let load = async {
                loads.fetch_add(1, Ordering::SeqCst);
                while asked.load(Ordering::SeqCst) < 60 {
                    tokio::task::yield_now().await;
                }
                Ok(slug.clone())
            };
            asked.fetch_add(1, Ordering::SeqCst);
            let value = freehold.cache().get_or_load(&key, MINUTE, load).await.unwrap().value;
            assert_eq!(value, slug);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_request_that_loads_is_dropped_another_loads() {
    let service = Service::start(Setup::default()).await;
    let key = CacheKey::global("dropped");
    // So that the epoch is known, and the first to ask is the first to load.
    get(&service.freehold, &CacheKey::global("dropped").part("other"), "x").await;
    let (began, first) = tokio::sync::oneshot::channel();
    let (freehold, same) = (service.freehold.clone(), key.clone());
    let stuck = tokio::spawn(async move {
        let load = async {
            began.send(()).unwrap();
            std::future::pending::<freehold::Result<String>>().await
        };
        freehold.cache().get_or_load(&same, MINUTE, load).await
    });
    first.await.unwrap();
    let freehold = service.freehold.clone();
    let mut waiting = pin!(get(&freehold, &key, "of the second"));
    assert!(waiting.as_mut().now_or_never().is_none(), "it waits for the first");
    stuck.abort();
    assert_eq!(waiting.await, ("of the second".to_owned(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_kept_by_nobody() {
    let service = Service::start(Setup::default()).await;
    let key = CacheKey::global("errors");
    let failed = freehold::Error::new(freehold::ErrorKind::Internal, "not today");
    let load = async { Err::<String, _>(failed) };
    service.freehold.cache().get_or_load(&key, MINUTE, load).await.unwrap_err();
    assert_eq!(get(&service.freehold, &key, "today").await, ("today".to_owned(), false));
    assert_eq!(get(&service.freehold, &key, "later").await, ("today".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_as_old_as_the_caller_permits_and_no_older() {
    let service = Service::start(Setup::default()).await;
    let (key, cache) = (CacheKey::global("ages"), service.freehold.cache());
    get(&service.freehold, &key, "first").await;
    cache.advance(Duration::from_millis(1100));
    let strict = cache.get_or_load(&key, Duration::from_secs(1), async { Ok("second".to_owned()) });
    assert_eq!(strict.await.unwrap().value, "second");
    // A value stored by a caller with a short maximum age is valid for that age.
    cache.advance(Duration::from_millis(1100));
    assert_eq!(get(&service.freehold, &key, "third").await.0, "third");
    let anew = cache.refresh(&key, MINUTE, async { Ok("fourth".to_owned()) }).await.unwrap();
    assert_eq!(
        (anew.as_str(), get(&service.freehold, &key, "x").await.0.as_str()),
        ("fourth", "fourth")
    );
    let never = cache.get_or_load(&key, Duration::ZERO, async { Ok("fifth".to_owned()) });
    assert_eq!(never.await.unwrap().value, "fifth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_here_is_bounded() {
    let bytes_max = 256 * 1024;
    let service =
        Service::start(with_cache(CacheOptions { bytes_max, ..CacheOptions::default() })).await;
    let value = "x".repeat(10 * 1024);
    for n in 0..100_u32 {
        get(&service.freehold, &CacheKey::global("bulk").part(n.to_be_bytes()), &value).await;
    }
    let stats = service.freehold.cache().stats();
    assert!(stats.bytes <= bytes_max && stats.entries <= 25, "{stats:?}");
    // More than is kept of one value is not kept, and no fault.
    let long = "x".repeat(2 * 1024 * 1024);
    for _ in 0..2 {
        let key = CacheKey::global("long");
        assert_eq!(get(&service.freehold, &key, &long).await, (long.clone(), false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_values_by_redis_and_each_asks_it_once() {
    let redis = RedisServer::start().await;
    let one = service_with(&redis).await;
    let two = beside(&one, &redis).await;
    let key = CacheKey::global("shared");
    get(&one.freehold, &key, "of one").await;
    eventually("it is in Redis", SOON, async || redis.keys("shared").await.len() == 1).await;
    for _ in 0..3 {
        assert_eq!(get(&two.freehold, &key, "of two").await, ("of one".to_owned(), true));
    }
    let stats = two.freehold.cache().stats();
    assert_eq!(stats.count("shared", "redis", "hit"), 1);
    assert_eq!(stats.count("shared", "process", "hit"), 2);
    let ttl: i64 = redis.command(&[b"PTTL", redis.keys("shared").await[0].as_bytes()]).await;
    assert!((1..=60_000).contains(&ttl), "it ends by itself: {ttl}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_forgets_all_do() {
    let redis = RedisServer::start().await;
    for cache in [redis.cache(), CacheOptions::default()] {
        let one = Service::start(with_cache(cache.clone())).await;
        let two = one.beside(with_cache(cache)).await;
        let acme = one.tenant("acme").await;
        let context = context_of(&one, &acme).await;
        let key = CacheKey::of(&context, "settings");
        get(&one.freehold, &key, "old").await;
        get(&two.freehold, &key, "old").await;
        one.freehold.cache().invalidate(&context, "settings").await.unwrap();
        assert_eq!(get(&one.freehold, &key, "new").await.0, "new");
        let heard = async || get(&two.freehold, &key, "new").await.0 == "new";
        eventually("the other has heard", SOON, heard).await;

        // The same for all entries of a name, of whichever tenant.
        let operator = freehold::OperatorContext::system("a test");
        two.freehold.cache().invalidate_everywhere(&operator, "settings").await.unwrap();
        assert_eq!(get(&two.freehold, &key, "newer").await.0, "newer");
        let heard = async || get(&one.freehold, &key, "newer").await.0 == "newer";
        eventually("the other has heard", SOON, heard).await;
    }
}
