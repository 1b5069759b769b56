//! Cached values: answers of the data API by declared freshness, analytics, the model.

use std::time::Duration;

use freehold::{
    AnalyticsDefinition, AnalyticsFolder, AnalyticsOptions, MigrateOptions, OperatorContext, Role,
};
use serde_json::{Value, json};

use super::{SOON, beside, service_with, with_cache};
use crate::redis_server::RedisServer;
use crate::support::{Answer, Person, Service, Setup, eventually, shop_and};

const ORDERS: &str = "/v1/data/orders?select=id,status&order=id";

async fn read(service: &Service, path: &str, by: &Person, freshness: &str) -> Answer {
    service.get(path).by(by).header("cache-control", freshness).send().await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_only_for_who_says_how_old_it_may_be() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    for _ in 0..2 {
        let answer = service.get(ORDERS).by(&acme.owner).send().await.expect(200);
        assert_eq!((answer.header("age"), answer.header("cache-status")), ("", ""));
        for freshness in ["no-store", "no-cache", "max-age=0", "max-age=x", "max-age=60, no-store"]
        {
            let answer = read(&service, ORDERS, &acme.owner, freshness).await;
            assert_eq!((answer.header("age"), answer.header("cache-status")), ("", ""));
        }
    }
    assert_eq!(service.freehold.cache().stats().count("data", "load", "kept"), 0);

    let first = read(&service, ORDERS, &acme.owner, "max-age=60").await;
    let second = read(&service, ORDERS, &acme.owner, "max-age=60").await;
    assert_eq!((first.header("age"), first.header("cache-status")), ("", "freehold; fwd=miss"));
    assert_eq!(second.header("cache-status"), "freehold; hit");
    assert!(second.header("age").parse::<u64>().unwrap() < 60);
    assert_eq!(first.text(), second.text());
    assert_eq!(first.header("content-range"), second.header("content-range"));
    assert_eq!(second.header("cache-control"), "private, no-store", "it is nobody else's to keep");

    // The same row in another form, and with a count: no answer is taken for another.
    let single = service.get("/v1/data/products?sku=eq.DRILL").by(&acme.owner);
    let single = single.header("accept", "application/vnd.pgrst.object+json");
    let single = single.header("cache-control", "max-age=60").send().await.expect(200);
    assert_eq!(single.json()["sku"], "DRILL");
    let list = read(&service, "/v1/data/products?sku=eq.DRILL", &acme.owner, "max-age=60").await;
    assert_eq!(list.json()[0]["sku"], "DRILL");
    let counted = service.get(ORDERS).by(&acme.owner).header("prefer", "count=exact");
    let counted = counted.header("cache-control", "max-age=60").send().await.expect(200);
    assert_eq!(counted.header("content-range"), "0-2/3");

    // Made anew on request, and then kept.
    let anew = read(&service, ORDERS, &acme.owner, "max-age=60, no-cache").await;
    assert_eq!((anew.header("age"), anew.header("cache-status")), ("", "freehold; fwd=request"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_kept() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let single = async || {
        let get = service.get("/v1/data/customers?full_name=eq.Zoe").by(&acme.owner);
        let get = get.header("accept", "application/vnd.pgrst.object+json");
        get.header("cache-control", "max-age=60").send().await.status
    };
    assert_eq!(single().await, 406);
    let zoe = json!({"email": "zoe@acme-canary.example", "full_name": "Zoe", "city": "Bonn", "country_code": "DE"});
    service.post("/v1/data/customers", zoe).by(&acme.owner).send().await.expect(201);
    assert_eq!(single().await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_reads_what_they_wrote_and_the_other_server_hears() {
    let redis = RedisServer::start().await;
    for cache in [redis.cache(), freehold::CacheOptions::default()] {
        let one = Service::start(with_cache(cache.clone())).await;
        let two = one.beside(with_cache(cache)).await;
        let acme = one.tenant("acme").await;
        let order = acme.id("third");
        let path = format!("/v1/data/orders?id=eq.{order}&select=status");
        for (turn, status) in ["paid", "shipped", "cancelled", "pending"].into_iter().enumerate() {
            for server in [&one, &two] {
                read(server, &path, &acme.owner, "max-age=600").await;
            }
            let change = json!({"status": status});
            let batch = json!([{"method": "PATCH", "path": path, "body": change}]);
            let (call, done) = match turn {
                0 => (one.post("/v1/batch", batch), 200),
                1 => (one.post("/v1/batch?mode=independent", batch), 200),
                _ => (one.patch(&path, change), 204),
            };
            call.by(&acme.owner).send().await.expect(done);
            // At once where it was written, though the caller would have taken an older one.
            let own = read(&one, &path, &acme.owner, "max-age=600").await.json();
            assert_eq!(own, json!([{"status": status}]));
            let heard = async || {
                let answer = read(&two, &path, &acme.owner, "max-age=600").await;
                answer.json() == json!([{"status": status}])
            };
            eventually("the other server has heard", SOON, heard).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_can_be_heard_a_kept_answer_is_believed_for_a_moment_only() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let path = "/v1/data/products?sku=eq.TAPE&select=stock";
    read(&service, path, &acme.owner, "max-age=600").await;
    // The listener is cut off and kept off, as is its right to listen.
    let sql = service.sql().await;
    sql.batch_execute(
        "ALTER ROLE freehold_app CONNECTION LIMIT -1;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%LISTEN freehold%' AND pid <> pg_backend_pid()",
    )
    .await
    .unwrap();
    let schema = acme.tenant.id.schema();
    sql.batch_execute(&format!("UPDATE {schema}.products SET stock = 77 WHERE sku = 'TAPE'"))
        .await
        .unwrap();
    sql.execute(
        "UPDATE freehold.cache_epoch SET epoch = nextval('freehold.cache_epoch_seq') WHERE tenant_id = $1",
        &[&acme.tenant.id.as_uuid()],
    )
    .await
    .unwrap();
    let seen = async || {
        read(&service, path, &acme.owner, "max-age=600").await.json() == json!([{"stock": 77}])
    };
    eventually("it is found out without being told", SOON, seen).await;
}

async fn migrate(service: &Service, later: &freehold::Baseline) {
    let context = OperatorContext::system("a later baseline");
    let migrations = service.freehold.migrations();
    migrations.up(&context, later, MigrateOptions::default(), &|_, _| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrated_tenants_answers_are_made_anew() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let path = "/v1/data/products?sku=eq.HAMMER&select=price_cents";
    read(&service, path, &acme.owner, "max-age=600").await;
    let later = shop_and("UPDATE products SET price_cents = 5 WHERE sku = 'HAMMER'");
    migrate(&service, &later).await;
    let seen = async || {
        let answer = read(&service, path, &acme.owner, "max-age=600").await;
        answer.json() == json!([{"price_cents": 5}])
    };
    eventually("the new price", SOON, seen).await;
}

const SALES: &str = "-- name: sales
-- about: Orders in all
-- grain: kind
-- schedule: every 1h
-- minimum group: 1
SELECT 'all' AS kind, count(*) AS orders FROM orders GROUP BY 1";

async fn collect(service: &Service) {
    let context = OperatorContext::system("a test");
    let options = AnalyticsOptions::default();
    service.freehold.analytics().run(&context, None, options, &|_, _| {}).await.unwrap();
}

async fn figure(service: &Service, by: &Person) -> Value {
    let answer = service.get("/v1/analytics/sales").by(by).send().await.expect(200);
    answer.json()["items"][0]["orders"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_kept_until_others_are_published_on_every_server() {
    let redis = RedisServer::start().await;
    let mut cache = redis.cache();
    cache.analytics_age = Duration::from_secs(600);
    let one = Service::start(with_cache(cache.clone())).await;
    let two = one.beside(with_cache(cache)).await;
    let (acme, globex) = one.two_tenants().await;
    let operator = one.operator().await;
    let folder =
        AnalyticsFolder::from_definitions(vec![AnalyticsDefinition::parse(SALES).unwrap()]);
    let context = OperatorContext::system("a test");
    one.freehold.analytics().apply(&context, &folder.unwrap()).await.unwrap();
    collect(&one).await;
    for server in [&one, &two, &one, &two] {
        for (person, count) in [(&operator, 6), (&acme.owner, 3), (&globex.owner, 3)] {
            assert_eq!(figure(server, person).await, count);
        }
    }
    assert!(one.freehold.cache().stats().count("analytics", "process", "hit") >= 3);

    let order = json!({"customer_id": acme.id("ada")});
    one.post("/v1/data/orders", order).by(&acme.owner).send().await.expect(201);
    assert_eq!(figure(&two, &operator).await, 6, "nothing was published");
    collect(&one).await;
    for (person, count) in [(&operator, 7), (&acme.owner, 4), (&globex.owner, 3)] {
        assert_eq!(figure(&one, person).await, count, "at once where it was published");
        let heard = async || figure(&two, person).await == count;
        eventually("the other server has heard", SOON, heard).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_the_model_of_one_baseline_and_no_other() {
    let redis = RedisServer::start().await;
    let one = service_with(&redis).await;
    // The first service began before Redis was in use.
    let two = beside(&one, &redis).await;
    let acme = one.tenant("acme").await;
    let later = shop_and("ALTER TABLE products ADD COLUMN colour text");
    migrate(&one, &later).await;
    for server in [&one, &two] {
        let known = async || {
            let get = server.get("/v1/data/products?select=colour").by(&acme.owner);
            get.send().await.status == 200
        };
        eventually("the new column is known", SOON, known).await;
    }
    eventually("the model is in Redis", SOON, async || !redis.keys("model").await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_role_reads_anew() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let mia = service.person(&acme, "mia", Role::Viewer).await;
    read(&service, ORDERS, &mia, "max-age=60").await;
    let change = service.patch(&format!("/v1/members/{}", mia.id), json!({"role": "member"}));
    change.by(&acme.owner).send().await.expect(204);
    let anew = async || read(&service, ORDERS, &mia, "max-age=60").await.header("age").is_empty();
    eventually("another role, another answer", SOON, anew).await;
}
