//! Redis gone, slow, full, available again: no request fails, and every figure is right.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use freehold::{CacheKey, CacheOptions};
use serde_json::json;

use super::{SOON, beside, context_of, get, service_with, wait_for_redis, with_cache};
use crate::redis_server::RedisServer;
use crate::support::{Service, Setup, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_killed_stopped_and_filled_no_request_fails_and_figures_are_right() {
    let mut redis = RedisServer::start().await;
    let one = Arc::new(service_with(&redis).await);
    let two = Arc::new(beside(&one, &redis).await);
    let acme = Arc::new(one.tenant("acme").await);
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for n in 0..6_usize {
        let (one, two, acme) = (Arc::clone(&one), Arc::clone(&two), Arc::clone(&acme));
        let (stop, requests) = (Arc::clone(&stop), Arc::clone(&requests));
        callers.push(tokio::spawn(async move {
            let email = format!("caller{n}@acme-canary.example");
            let new =
                json!({"email": email, "full_name": "0", "city": "Bonn", "country_code": "DE"});
            one.post("/v1/data/customers", new).by(&acme.owner).send().await.expect(201);
            let path = format!("/v1/data/customers?email=eq.{email}&select=full_name");
            for round in 1.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let server = if (n + round) % 2 == 0 { &one } else { &two };
                let change = json!({"full_name": round.to_string()});
                server.patch(&path, change).by(&acme.owner).send().await.expect(204);
                for _ in 0..3 {
                    let get = server.get(&path).by(&acme.owner);
                    let answer =
                        get.header("cache-control", "max-age=600").send().await.expect(200);
                    assert_eq!(answer.json(), json!([{"full_name": round.to_string()}]));
                    requests.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    let some = async || {
        let before = requests.load(Ordering::SeqCst);
        let more = async || requests.load(Ordering::SeqCst) > before + 30;
        eventually("requests are served", SOON, more).await;
    };
    some().await;
    redis.kill();
    some().await;
    wait_for_redis(&one.freehold, false).await;
    redis.start_again().await;
    wait_for_redis(&one.freehold, true).await;
    some().await;
    redis.stop();
    some().await;
    wait_for_redis(&two.freehold, false).await;
    some().await;
    redis.go_on();
    wait_for_redis(&one.freehold, true).await;
    wait_for_redis(&two.freehold, true).await;
    some().await;
    redis.command::<()>(&[b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction"]).await;
    redis.command::<()>(&[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;
    let full = async || one.freehold.cache().stats().error("full") > 0;
    eventually("it is seen that Redis is full", SOON, full).await;
    some().await;
    redis.command::<()>(&[b"CONFIG", b"SET", b"maxmemory", b"0"]).await;
    redis.command::<()>(&[b"FLUSHALL"]).await;
    some().await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    let stored = async || !redis.keys("after").await.is_empty();
    // It came back to Redis by itself.
    get(&one.freehold, &CacheKey::global("after"), "all").await;
    eventually("Redis is in use again", SOON, stored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_of_yesterday_brings_back_is_not_believed() {
    let mut redis = RedisServer::start().await;
    let one = service_with(&redis).await;
    let acme = one.tenant("acme").await;
    let context = context_of(&one, &acme).await;
    let key = CacheKey::of(&context, "prices");
    get(&one.freehold, &key, "of yesterday").await;
    eventually("it is in Redis", SOON, async || redis.keys("prices").await.len() == 1).await;
    redis.command::<()>(&[b"SAVE"]).await;
    redis.kill();
    // The invalidation cannot reach Redis; PostgreSQL records it.
    one.freehold.cache().invalidate(&context, "prices").await.unwrap();
    redis.start_again().await;
    assert_eq!(redis.keys("prices").await.len(), 1, "the value of yesterday is back");
    wait_for_redis(&one.freehold, true).await;
    assert_eq!(get(&one.freehold, &key, "of today").await.0, "of today");
    // A server that starts only now does not use the old value either.
    let fresh = beside(&one, &redis).await;
    assert_ne!(get(&fresh.freehold, &key, "of today").await.0, "of yesterday");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_holds_up_a_few_requests_for_its_timeout_and_no_more() {
    let redis = RedisServer::start().await;
    let mut cache = redis.cache();
    cache.redis_timeout = Duration::from_millis(200);
    let service = Service::start(with_cache(cache)).await;
    wait_for_redis(&service.freehold, true).await;
    redis.stop();
    let load = |n: usize| CacheKey::global("hangs").part(n.to_string());
    for n in 0..3 {
        get(&service.freehold, &load(n), "x").await;
    }
    wait_for_redis(&service.freehold, false).await;
    assert!(service.freehold.cache().stats().error("timeout") >= 1);
    let before = service.freehold.cache().stats();
    for n in 3..50 {
        get(&service.freehold, &load(n), "x").await;
    }
    // Redis was not queried, so no request waited.
    let after = service.freehold.cache().stats();
    assert_eq!(after.count("hangs", "redis", "miss"), before.count("hangs", "redis", "miss"));
    redis.go_on();
    wait_for_redis(&service.freehold, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_server_starts_is_ready_and_says_what_it_lacks() {
    let redis_url = Some("unix:///nowhere/redis.sock".to_owned());
    let cache = CacheOptions { redis_url, ..CacheOptions::default() };
    let service = Service::start(with_cache(cache)).await;
    // Once the fleet was examined.
    let ready = async |service: &Service, text: &str| {
        let ready = async || service.get("/readyz").send().await.text().starts_with(text);
        eventually(text, SOON, ready).await;
    };
    ready(&service, "ready\ndegraded: Redis").await;
    let key = CacheKey::global("alone");
    get(&service.freehold, &key, "x").await;
    assert_eq!(get(&service.freehold, &key, "y").await, ("x".to_owned(), true));

    let plain = Service::start(Setup::default()).await;
    ready(&plain, "ready\n").await;
    let text = plain.get("/readyz").send().await.expect(200).text();
    assert_eq!(text, "ready\n", "what nobody asked for is not missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_is_none_stops_the_start_and_is_not_repeated() {
    let service = Service::start(Setup::default()).await;
    let mut options = service.database().options();
    options.cache.redis_url = Some("http://user:hush@somewhere".to_owned());
    let error = freehold::Freehold::connect(&options).await.err().unwrap();
    assert_eq!(error.kind(), freehold::ErrorKind::Setup);
    assert!(error.to_string().contains("REDIS_URL") && !error.to_string().contains("hush"));
}
