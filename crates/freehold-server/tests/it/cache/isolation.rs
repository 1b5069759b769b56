//! No caller gets another tenant's values, and nothing from Redis is used unverified.

use std::time::Duration;

use freehold::{CacheKey, CacheOptions, OperatorContext, Role};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use uuid::Uuid;

use super::{SOON, beside, context_of, get, service_with, with_cache};
use crate::redis_server::RedisServer;
use crate::support::{Service, Setup, eventually, shop_and};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_object_in_two_tenants_is_two_values() {
    let redis = RedisServer::start().await;
    let service = service_with(&redis).await;
    let (acme, globex) = service.two_tenants().await;
    let fresh = beside(&service, &redis).await;
    // The products have the same SKUs everywhere.
    let path = "/v1/data/products?sku=eq.HAMMER&select=name";
    for server in [&service, &service, &fresh] {
        for place in [&acme, &globex] {
            let answer = server.get(path).by(&place.owner).header("cache-control", "max-age=60");
            let answer = answer.send().await.expect(200);
            let name = answer.json()[0]["name"].as_str().unwrap().to_owned();
            assert_eq!(name, format!("Hammer, small, {}-canary", place.tenant.slug));
        }
    }
    eventually("both are in Redis", SOON, async || redis.keys("data").await.len() >= 2).await;
    // Keys of a tenant's entries begin with its id.
    for place in [&acme, &globex] {
        let id = place.tenant.id.to_string();
        let own = redis.keys("data").await.into_iter().filter(|key| key.contains(&id)).count();
        assert!(own >= 1, "{:?}", redis.keys("data").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_copied_under_another_key_or_tenant_is_not_given_out() {
    let redis = RedisServer::start().await;
    let service = service_with(&redis).await;
    let (acme, globex) = service.two_tenants().await;
    let (acme, globex) = (context_of(&service, &acme).await, context_of(&service, &globex).await);
    let keys = [
        CacheKey::of(&acme, "secrets").part("a:b").part("c"),
        CacheKey::of(&acme, "secrets").part("a").part("b:c"),
        CacheKey::of(&globex, "secrets").part("a:b").part("c"),
        CacheKey::global("secrets").part("a:b").part("c"),
    ];
    let mut names: Vec<String> = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        get(&service.freehold, key, &format!("value {n}")).await;
        eventually("it is in Redis", SOON, async || redis.keys("secrets").await.len() == n + 1)
            .await;
        let new = redis.keys("secrets").await.into_iter().find(|name| !names.contains(name));
        names.push(new.unwrap());
    }
    // Gives each key the value of the next one.
    let first: Vec<u8> = redis.command(&[b"GET", names[0].as_bytes()]).await;
    for n in 0..names.len() {
        let next: Vec<u8> = match names.get(n + 1) {
            Some(name) => redis.command(&[b"GET", name.as_bytes()]).await,
            None => first.clone(),
        };
        redis.command::<()>(&[b"SET", names[n].as_bytes(), &next]).await;
    }
    let fresh = beside(&service, &redis).await;
    for (n, key) in keys.iter().enumerate() {
        let own = format!("loaded {n}");
        assert_eq!(get(&fresh.freehold, key, &own).await, (own.clone(), false));
    }
    assert_eq!(fresh.freehold.cache().stats().error("foreign"), keys.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_stands_in_redis_is_a_miss_and_is_counted() {
    let redis = RedisServer::start().await;
    let service = service_with(&redis).await;
    let key = CacheKey::global("garbage");
    get(&service.freehold, &key, "good").await;
    eventually("it is in Redis", SOON, async || redis.keys("garbage").await.len() == 1).await;
    let name = redis.keys("garbage").await.remove(0);
    let name = name.as_bytes();
    let good: Vec<u8> = redis.command(&[b"GET", name]).await;
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let long = vec![b'x'; 8 * 1024 * 1024];
    let garbage: [&[u8]; 5] = [b"x", b"\"good\"", &good[..good.len() - 1], &flipped, &long];
    let mut expected = 0;
    for value in garbage {
        let fresh = beside(&service, &redis).await;
        redis.command::<()>(&[b"SET", name, value]).await;
        assert_eq!(get(&fresh.freehold, &key, "loaded").await, ("loaded".to_owned(), false));
        assert_eq!(fresh.freehold.cache().stats().error("garbage"), 1, "{} bytes", value.len());
        expected += 1;
    }
    assert_eq!(expected, garbage.len());
    let fresh = beside(&service, &redis).await;
    redis.command::<()>(&[b"DEL", name]).await;
    redis.command::<()>(&[b"LPUSH", name, b"a list"]).await;
    assert_eq!(get(&fresh.freehold, &key, "loaded").await.0, "loaded");
    assert_eq!(fresh.freehold.cache().stats().error("garbage"), 1);
    assert_eq!(fresh.freehold.cache().stats().redis_up, Some(true));
}

/// A proxy in front of Redis: once activated, each answer is that of the previous request.
struct LateProxy {
    folder: std::path::PathBuf,
    late: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl LateProxy {
    fn start(redis: &RedisServer) -> LateProxy {
        let folder =
            std::env::temp_dir().join(format!("freehold-late-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("redis.sock")).unwrap();
        let late = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (socket, told) = (redis.socket(), std::sync::Arc::clone(&late));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::UnixStream::connect(&socket).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                let told = std::sync::Arc::clone(&told);
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    let mut buffer = vec![0; 1024 * 1024];
                    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                        let answer = buffer[..read].to_vec();
                        let now = match told.load(std::sync::atomic::Ordering::SeqCst) {
                            true => std::mem::replace(&mut held, answer),
                            false => {
                                held.clone_from(&answer);
                                answer
                            }
                        };
                        if to_client.write_all(&now).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        LateProxy { folder, late }
    }
}

impl Drop for LateProxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_redis_that_belongs_to_an_earlier_question_is_not_given_out() {
    let redis = RedisServer::start().await;
    let service = service_with(&redis).await;
    let (acme, globex) = service.two_tenants().await;
    let contexts = [context_of(&service, &acme).await, context_of(&service, &globex).await];
    let key = |n: usize| CacheKey::of(&contexts[n % 2], "late").part(n.to_string());
    for n in 0..8 {
        get(&service.freehold, &key(n), &format!("value {n}")).await;
    }
    eventually("all are in Redis", SOON, async || redis.keys("late").await.len() == 8).await;

    let proxy = LateProxy::start(&redis);
    let mut options = redis.cache();
    options.redis_url = Some(format!("unix://{}/redis.sock", proxy.folder.display()));
    let other = service.beside(with_cache(options)).await;
    super::wait_for_redis(&other.freehold, true).await;
    // The next request will get the answer to this one, and so on.
    get(&other.freehold, &key(7), "value 7").await;
    proxy.late.store(true, std::sync::atomic::Ordering::SeqCst);
    for n in 0..8 {
        let (value, _) = get(&other.freehold, &key(n), &format!("value {n}")).await;
        assert_eq!(value, format!("value {n}"));
    }
    let stats = other.freehold.cache().stats();
    assert!(stats.error("foreign") > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_may_share_one_redis() {
    let redis = RedisServer::start().await;
    let (one, two) = (service_with(&redis).await, service_with(&redis).await);
    let key = CacheKey::global("whose");
    get(&one.freehold, &key, "of one").await;
    eventually("it is in Redis", SOON, async || redis.keys("whose").await.len() == 1).await;
    assert_eq!(get(&two.freehold, &key, "of two").await, ("of two".to_owned(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_whom_a_policy_shows_different_rows_share_no_answer() {
    let policy = "CREATE TABLE diary (id int PRIMARY KEY, author uuid NOT NULL DEFAULT freehold.actor_id(), body text NOT NULL);
        CREATE POLICY own ON diary AS RESTRICTIVE USING (author = freehold.actor_id())";
    let redis = RedisServer::start().await;
    let setup = Setup { baseline: shop_and(policy), ..with_cache(redis.cache()) };
    let service = Service::start(setup).await;
    super::wait_for_redis(&service.freehold, true).await;
    let acme = service.tenant("acme").await;
    let mut people = vec![acme.owner.clone()];
    for (name, role) in [("mia", Role::Member), ("ann", Role::Admin)] {
        people.push(service.person(&acme, name, role).await);
    }
    for (n, person) in people.iter().enumerate() {
        let row = json!({"id": n, "body": person.email});
        service.post("/v1/data/diary", row).by(person).send().await.expect(201);
    }
    let all_read = async || {
        for person in &people {
            let get = service.get("/v1/data/diary?select=body").by(person);
            let answer = get.header("cache-control", "max-age=60").send().await.expect(200);
            assert_eq!(answer.json(), json!([{"body": person.email}]));
        }
        service.freehold.cache().stats().count("data", "process", "hit") >= 6
    };
    eventually("each was given what was kept", SOON, all_read).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_is_refused_and_leaves_nothing_in_memory_or_redis() {
    let redis = RedisServer::start().await;
    let one = service_with(&redis).await;
    let two = beside(&one, &redis).await;
    let (acme, globex) = one.two_tenants().await;
    for server in [&one, &two] {
        for place in [&acme, &globex] {
            let get = server.get("/v1/data/orders").by(&place.owner);
            get.header("cache-control", "max-age=600").send().await.expect(200);
        }
    }
    let of = |place: &crate::support::Place| format!(":{}:", place.tenant.id);
    let held =
        async |whose: String| redis.keys("data").await.iter().any(|key| key.contains(&whose));
    eventually("both are in Redis", SOON, async || {
        held(of(&acme)).await && held(of(&globex)).await
    })
    .await;
    let before = two.freehold.cache().stats().entries;
    let operator = OperatorContext::system("a test");
    one.freehold.tenants().suspend(&operator, acme.tenant.id).await.unwrap();
    for server in [&one, &two] {
        let refused = async || {
            let get = server.get("/v1/data/orders").by(&acme.owner);
            get.header("cache-control", "max-age=600").send().await.status == 403
        };
        eventually("refused", SOON, refused).await;
    }
    eventually("nothing of it is in Redis", SOON, async || !held(of(&acme)).await).await;
    assert!(held(of(&globex)).await, "the other's is still there");
    let gone = async || two.freehold.cache().stats().entries < before;
    eventually("nothing of it is in the other server's memory", SOON, gone).await;

    // Entries from before the suspension are not used after the tenant is resumed.
    let context = context_of(&one, &globex).await;
    assert_eq!(get(&one.freehold, &CacheKey::of(&context, "x"), "y").await.0, "y");
    one.freehold.tenants().resume(&operator, acme.tenant.id).await.unwrap();
    let answered = async || {
        let get = one.get("/v1/data/orders").by(&acme.owner);
        let answer = get.header("cache-control", "max-age=600").send().await;
        answer.status == 200 && answer.header("age").is_empty()
    };
    eventually("served again, and anew", SOON, answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_gone_and_its_slug_given_to_another_leaves_nothing_to_find() {
    let service = Service::start(Setup::default()).await;
    let old = service.tenant("acme").await;
    let read = |place: &crate::support::Place| {
        let get = service.get("/v1/data/customers?select=email").by(&place.owner);
        get.header("cache-control", "max-age=600").send()
    };
    read(&old).await.expect(200);
    let sql = service.sql().await;
    let id = old.tenant.id.as_uuid();
    sql.execute("DELETE FROM freehold.membership WHERE tenant_id = $1", &[&id]).await.unwrap();
    sql.execute("DELETE FROM freehold.tenant WHERE id = $1", &[&id]).await.unwrap();
    let row = sql
        .query_one("SELECT count(*) FROM freehold.cache_epoch WHERE tenant_id = $1", &[&id])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    let refused = async || read(&old).await.status != 200;
    eventually("the old one is unknown", SOON, refused).await;
    let (new, _) = freehold::testing::create_tenant(&service.freehold, "acme").await.unwrap();
    let owner = service.token(old.owner.id, Some(new.id.as_uuid()), Role::Owner);
    let get = service.get("/v1/data/customers?select=email").bearer(&owner);
    let answer = get.header("cache-control", "max-age=600").send().await.expect(200);
    assert_eq!((answer.json(), answer.header("age")), (json!([]), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_values_age_is_bounded_by_the_setting_whatever_a_caller_allows() {
    let cache = CacheOptions { age_max: Duration::ZERO, ..CacheOptions::default() };
    let service = Service::start(with_cache(cache)).await;
    let key = CacheKey::global("off");
    for n in 0..2 {
        assert_eq!(get(&service.freehold, &key, &n.to_string()).await, (n.to_string(), false));
    }
    assert_eq!(service.freehold.cache().stats().entries, 0);
}
