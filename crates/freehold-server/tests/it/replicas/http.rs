//! Replicas and the data API: the request headers.

use std::sync::Arc;

use serde_json::json;

use super::{SOON, patient};
use crate::cluster::{Primary, Replica};
use crate::support::{Answer, Place, Service, Setup, eventually, shop};

const TOKEN: &str = "a token that only Prometheus has";

fn with_token() -> Setup {
    let mut setup = Setup::default();
    setup.http.metrics_token = Some(TOKEN.to_owned());
    setup
}

struct Shop {
    service: Service,
    acme: Place,
    replica: Replica,
    _primary: Primary,
}

async fn open_shop() -> Shop {
    let primary = Primary::start().await;
    let database = Arc::new(primary.database(&shop()).await);
    let replica = primary.replica().await;
    let setup = Setup {
        replica_urls: vec![replica.url(&database.app_url())],
        replica_limits: patient(),
        ..with_token()
    };
    let service = Service::over(database, setup).await;
    let acme = service.tenant("acme").await;
    let shop = Shop { service, acme, replica, _primary: primary };
    eventually("the replica is read", SOON, async || {
        shop.read("replica", "").await.header("preference-applied").contains("read=replica")
    })
    .await;
    shop
}

impl Shop {
    async fn read(&self, prefer: &str, lsn: &str) -> Answer {
        let mut call = self.service.get("/v1/data/products?select=sku").by(&self.acme.owner);
        if !prefer.is_empty() {
            call = call.header("prefer", &format!("read={prefer}"));
        }
        if !lsn.is_empty() {
            call = call.header("freehold-lsn", lsn);
        }
        call.send().await
    }

    async fn add(&self, sku: &str) -> String {
        let row = json!({"sku": sku, "name": sku, "price_cents": 1});
        let call = self.service.post("/v1/data/products", row).by(&self.acme.owner);
        call.send().await.expect(201).header("freehold-lsn").to_owned()
    }
}

fn count(answer: &Answer) -> usize {
    answer.json().as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_tells_its_lsn_and_a_read_that_sends_it_back_sees_the_write() {
    let shop = open_shop().await;
    shop.replica.pause().await;
    let written = shop.add("NEW").await;
    assert!(written.contains('/'), "{written:?}");
    // With the preference only, the replica's rows are returned.
    let old = shop.read("replica", "").await.expect(200);
    assert_eq!((count(&old), old.header("preference-applied")), (3, "read=replica"));
    let fresh = shop.read("replica", &written).await.expect(200);
    assert_eq!((count(&fresh), fresh.header("preference-applied")), (4, ""));
    for prefer in ["", "primary"] {
        assert_eq!(count(&shop.read(prefer, "").await.expect(200)), 4);
    }
    shop.replica.resume().await;
    eventually("the replica has it too", SOON, async || {
        let read = shop.read("replica", &written).await.expect(200);
        assert_eq!(count(&read), 4);
        read.header("preference-applied") == "read=replica"
    })
    .await;

    // Each kind of write returns the position, whether or not its answer decides about the commit.
    let one = format!("/v1/data/products?id=eq.{}", shop.acme.id("tape"));
    let owner = &shop.acme.owner;
    let changed = shop.service.patch(&one, json!({"stock": 1})).by(owner);
    let changed = changed.header("prefer", "max-affected=1").send().await.expect(204);
    let deleted = shop.service.delete("/v1/data/products?sku=eq.NEW").by(owner).send().await;
    let batch = |mode: &str| {
        let row = json!({"sku": mode.to_uppercase(), "name": mode, "price_cents": 1});
        let insert = json!({"method": "POST", "path": "/products", "body": row});
        let batch = json!([insert, {"method": "GET", "path": "/products?select=sku"}]);
        shop.service.post(&format!("/v1/batch?mode={mode}"), batch).by(owner)
    };
    let together = batch("atomic").send().await.expect(200);
    let apart = batch("independent").send().await.expect(200);
    for answer in [changed, deleted.expect(204), together, apart] {
        assert!(answer.header("freehold-lsn").contains('/'), "{answer:?}");
    }
    assert_eq!(shop.read("", "").await.header("freehold-lsn"), "", "a read tells none");
    let reads = json!([{"method": "GET", "path": "/products"}]);
    let reads = shop.service.post("/v1/batch", reads).by(owner).send().await.expect(200);
    assert_eq!(reads.header("freehold-lsn"), "", "nor does a batch of reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_lsn_is_refused_in_words_that_help() {
    let shop = open_shop().await;
    for malformed in ["", "0", "0/", "x/1", "0/1/2", "0/1, 0/2", "100000000/0", "-1/0"] {
        let call = shop.service.get("/v1/data/products").by(&shop.acme.owner);
        let answer = call.header("freehold-lsn", malformed).send().await;
        let refused = answer.refused(400, "invalid_input").json();
        assert_eq!(refused["field"], "Freehold-LSN");
        assert!(refused["detail"].as_str().unwrap().contains("16/B374D848"), "{refused}");
    }
    let twice = shop.service.get("/v1/data/products").by(&shop.acme.owner);
    let twice = twice.header("freehold-lsn", "0/1").header("freehold-lsn", "0/2");
    twice.send().await.refused(400, "invalid_input");
    // One that no server has reached yet costs a moment, and is right.
    let far = shop.read("replica", "FFFFFFFF/FFFFFFFF").await.expect(200);
    assert_eq!((count(&far), far.header("preference-applied")), (3, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_replica_is_gone_is_ready_and_says_so() {
    let mut shop = open_shop().await;
    let ready = shop.service.get("/readyz").send_unchecked().await.expect(200).text();
    assert_eq!(ready, "ready\n");
    let metrics = async || shop.service.get("/metrics").send_unchecked().await.expect(200).text();
    let text = metrics().await;
    for line in [
        "state=\"serving\"} 1",
        "state=\"unreachable\"} 0",
        "freehold_replica_lag_seconds{",
        "freehold_replica_lag_bytes{",
        "freehold_replica_reads_total{answered_by=\"replica\",reason=\"fit\"}",
        "freehold_pool_connections{pool=\"replica 1\"}",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // Only callers who may see tenants' metrics see the replica's address.
    let url = shop.replica.url("postgres://x@127.0.0.1:1/y");
    let (_, server) = url.rsplit_once('@').unwrap();
    let (host, port) = server.split_once('/').unwrap().0.split_once(':').unwrap();
    assert!(!text.contains(host) && !text.contains(&format!(":{port}")), "{text}");
    let told = shop.service.get("/metrics").header("authorization", &format!("Bearer {TOKEN}"));
    let told = told.send_unchecked().await.expect(200).text();
    let line = format!("freehold_replica_info{{replica=\"1\",host=\"{host}:{port}\"}} 1");
    assert!(told.contains(&line), "{line}\n{told}");
    shop.replica.kill();
    eventually("it is seen", SOON, async || {
        let answer = shop.service.get("/readyz").send_unchecked().await.expect(200);
        answer.text().starts_with("ready, without 1 of the replicas")
    })
    .await;
    let text = shop.service.get("/metrics").send_unchecked().await.expect(200).text();
    assert!(text.contains("state=\"unreachable\"} 1"), "{text}");
    assert_eq!(count(&shop.read("replica", "").await.expect(200)), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_the_preference_changes_nothing() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let call = service.get("/v1/data/products").by(&acme.owner);
    let call = call.header("prefer", "read=replica, handling=strict").header("freehold-lsn", "0/1");
    let answer = call.send().await.expect(200);
    assert_eq!((count(&answer), answer.header("preference-applied")), (3, ""));
    let row = json!({"sku": "NEW", "name": "New", "price_cents": 1});
    let answer = service.post("/v1/data/products", row).by(&acme.owner).send().await.expect(201);
    assert_eq!(answer.header("freehold-lsn"), "");
}
