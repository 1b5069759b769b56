//! Batches: the same operations, permissions and answers as by separate requests, as one transaction or each
//! as its own.

use std::time::Duration;

use freehold::{OperatorContext, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Person, Place, Service, Setup, eventually, slow_shop};

struct Shop {
    service: Service,
    acme: Place,
    globex: Place,
}

impl Shop {
    async fn open() -> Shop {
        Shop::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Shop {
        let service = Service::start(setup).await;
        let (acme, globex) = service.two_tenants().await;
        Shop { service, acme, globex }
    }

    async fn batch_as(&self, by: &Person, mode: &str, operations: &Value) -> Answer {
        let path = format!("/v1/batch?mode={mode}");
        self.service.post(&path, operations.clone()).by(by).send().await
    }

    async fn atomic(&self, operations: Value) -> Answer {
        self.batch_as(&self.acme.owner, "atomic", &operations).await
    }

    async fn independent(&self, operations: Value) -> Answer {
        self.batch_as(&self.acme.owner, "independent", &operations).await
    }

    async fn script(&self, sql: &str) {
        let context = OperatorContext::system("a test");
        self.service
            .freehold
            .tenants()
            .run_script(&context, self.acme.tenant.id, sql)
            .await
            .unwrap();
    }
}

/// The answers of a batch, whether it was done or not.
fn answers(answer: &Answer) -> Vec<Value> {
    let json = answer.json();
    let answers = json.as_array().or_else(|| json["answers"].as_array());
    answers.unwrap_or_else(|| panic!("{}", answer.text())).clone()
}

fn statuses(answer: &Answer) -> Vec<u64> {
    answers(answer).iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
}

fn codes(answer: &Answer) -> Vec<String> {
    let code = |answer: &Value| answer["body"]["code"].as_str().unwrap_or_default().to_owned();
    answers(answer).iter().map(code).collect()
}

fn get(path: &str) -> Value {
    json!({"method": "GET", "path": path})
}

/// A product that may be inserted.
fn product(sku: &str) -> Value {
    let body = json!({"sku": sku, "name": sku, "price_cents": 1});
    json!({"method": "POST", "path": "/products", "body": body})
}

const SKUS: &str = "/products?select=sku&order=created_at,sku";

#[tokio::test]
async fn a_batch_is_done_in_its_order_and_whole() {
    let shop = Shop::open().await;
    let id = Uuid::new_v4();
    let customer = json!({"id": id, "email": "x@new.example", "full_name": "X", "city": "X", "country_code": "DE"});
    let answer = shop
        .atomic(json!([
            {"method": "POST", "path": "/v1/data/customers", "body": customer},
            {"method": "POST", "path": "/orders", "body": {"customer_id": id}, "headers": {"Prefer": "return=representation"}},
            get(&format!("/orders?select=status&customer_id=eq.{id}")),
            {"method": "PATCH", "path": format!("/orders?customer_id=eq.{id}"), "body": {"status": "paid"}},
            {"method": "HEAD", "path": format!("/orders?customer_id=eq.{id}"), "headers": {"prefer": "count=exact"}},
            {"method": "GET", "path": format!("/customers?select=full_name&id=eq.{id}"),
             "headers": {"Accept": "application/vnd.pgrst.object+json"}},
            {"method": "DELETE", "path": format!("/orders?customer_id=eq.{id}")},
        ]))
        .await
        .expect(200);
    assert_eq!(statuses(&answer), [201, 201, 200, 204, 200, 200, 204]);
    let answers = answers(&answer);
    assert_eq!(answers[0]["body"], Value::Null);
    assert_eq!(answers[1]["body"][0]["customer_id"], json!(id));
    assert_eq!(answers[2]["body"], json!([{"status": "pending"}]));
    assert_eq!(answers[4]["headers"]["content-range"], "0-0/1");
    assert_eq!(answers[5]["body"], json!({"full_name": "X"}));
    let kept = shop.atomic(json!([get(&format!("/customers?select=city&id=eq.{id}"))])).await;
    assert_eq!(kept.json()[0]["body"], json!([{"city": "X"}]));
}

#[tokio::test]
async fn an_operation_of_a_batch_is_answered_as_a_request_of_its_own() {
    let shop = Shop::open().await;
    let id = shop.acme.id("first");
    let prefer = |value: &str| json!({"Prefer": value});
    for (method, path, headers, body) in [
        ("GET", "/products?order=sku".to_owned(), json!({}), Value::Null),
        ("GET", "/products?order=sku&limit=1".to_owned(), prefer("count=exact"), Value::Null),
        (
            "GET",
            "/products?order=sku&limit=1&offset=9".to_owned(),
            prefer("count=exact"),
            Value::Null,
        ),
        ("GET", "/products?order=sku".to_owned(), json!({"Range": "1-1"}), Value::Null),
        (
            "GET",
            "/products?sku=eq.x".to_owned(),
            json!({"Accept": "application/vnd.pgrst.object+json"}),
            Value::Null,
        ),
        ("GET", "/products".to_owned(), json!({"Accept": "text/csv"}), Value::Null),
        ("GET", "/products?order=nothing".to_owned(), json!({}), Value::Null),
        ("GET", "/nothing".to_owned(), json!({}), Value::Null),
        ("GET", "/products?stock=eq.many".to_owned(), json!({}), Value::Null),
        ("HEAD", "/products".to_owned(), prefer("count=exact"), Value::Null),
        ("PUT", "/products".to_owned(), json!({}), Value::Null),
        ("PATCH", "/products".to_owned(), json!({}), json!({"stock": 1})),
        ("PATCH", "/products?sku=eq.TAPE".to_owned(), json!({}), json!({"stock": -1})),
        (
            "PATCH",
            "/products?sku=eq.TAPE".to_owned(),
            prefer("return=representation"),
            json!({"stock": 3}),
        ),
        (
            "PATCH",
            "/products?stock=gte.0".to_owned(),
            prefer("max-affected=1"),
            json!({"stock": 4}),
        ),
        (
            "POST",
            "/products".to_owned(),
            json!({}),
            json!({"sku": "TAPE", "name": "x", "price_cents": 1}),
        ),
        ("POST", "/products".to_owned(), json!({"Content-Type": "text/csv"}), json!({"sku": "N"})),
        ("POST", "/products".to_owned(), json!({}), json!({"nothing": 1})),
        ("POST", "/products".to_owned(), json!({}), Value::Null),
        ("POST", "/orders".to_owned(), json!({}), json!({"customer_id": Uuid::nil()})),
        (
            "DELETE",
            format!("/order_notes?order_id=eq.{id}"),
            prefer("return=representation"),
            Value::Null,
        ),
        ("DELETE", format!("/order_notes?order_id=eq.{id}"), json!({}), Value::Null),
    ] {
        for mode in ["atomic", "independent"] {
            let mut operation = json!({"method": method, "path": path, "headers": headers});
            let mut call =
                shop.service.call(method, &format!("/v1/data{path}")).by(&shop.acme.owner);
            for (name, value) in headers.as_object().unwrap() {
                call = call.header(name, value.as_str().unwrap());
            }
            if !body.is_null() {
                operation["body"] = body.clone();
                call = call.body(body.to_string());
            }
            let batch = shop.batch_as(&shop.acme.owner, mode, &json!([operation])).await;
            // The change is then made a second time, or finds the row deleted; the answers are of the same
            // kind.
            let single = call.send_unchecked().await;
            let answer = &answers(&batch)[0];
            let asked = format!("{mode} {method} {path} {headers}: {answer}");
            assert_eq!(answer["status"], single.status, "{asked}");
            for (name, value) in answer["headers"].as_object().unwrap() {
                // A second DELETE finds nothing; another router may list methods in another order.
                let gone = method == "DELETE" && name == "content-range" || name == "allow";
                assert!(gone || single.header(name) == value, "{asked}: {name}");
            }
            let done = single.status < 400;
            let expected = if done {
                200
            } else if mode == "atomic" {
                424
            } else {
                207
            };
            assert_eq!(batch.status, expected, "{asked}");
            if method != "HEAD"
                && method != "DELETE"
                && !single.body.is_empty()
                && single.status != 405
            {
                assert_eq!(answer["body"], single.json(), "{asked}");
            }
        }
    }
}

#[tokio::test]
async fn one_that_fails_undoes_all_of_an_atomic_batch() {
    let shop = Shop::open().await;
    let before = shop.service.fingerprint(&shop.acme).await;
    let object = json!({"Accept": "application/vnd.pgrst.object+json"});
    for (failing, status, code) in [
        (product("TAPE"), 409, "unique_violation"),
        (
            json!({"method": "PATCH", "path": "/products?sku=eq.TAPE", "body": {"stock": -1}}),
            400,
            "check_violation",
        ),
        (
            json!({"method": "POST", "path": "/orders", "body": {"customer_id": Uuid::nil()}}),
            409,
            "foreign_key_violation",
        ),
        // Refused because of the form that the answer would have.
        (json!({"method": "GET", "path": "/products", "headers": object}), 406, "not_single"),
        (
            get("/products?offset=99")
                .as_object()
                .map(|read| {
                    let mut read = read.clone();
                    read.insert("headers".into(), json!({"Prefer": "count=exact"}));
                    Value::from(read)
                })
                .unwrap(),
            416,
            "range_not_satisfiable",
        ),
        (
            json!({"method": "PATCH", "path": "/products?stock=gte.0", "body": {"stock": 1}, "headers": {"Prefer": "max-affected=1"}}),
            400,
            "max_affected_exceeded",
        ),
        // Refused before anything is sent.
        (get("/nothing"), 404, "unknown_table"),
        (get("/products?nothing=eq.1"), 400, "unknown_column"),
        (json!({"method": "PATCH", "path": "/products", "body": {}}), 400, "filter_required"),
        (json!({"method": "GET", "path": "/v1/tenants"}), 400, "malformed_operation"),
        (json!({"method": "GET"}), 400, "malformed_operation"),
        (json!(7), 400, "malformed_operation"),
    ] {
        for at in 0..3 {
            let mut operations = vec![product("NEW"), product("NEWER")];
            operations.insert(at, failing.clone());
            let answer = shop.atomic(Value::from(operations)).await.refused(424, "batch_failed");
            let mut expected = ["not_done"; 3];
            expected[at] = code;
            assert_eq!(codes(&answer), expected, "{failing}");
            assert_eq!(statuses(&answer)[at], status, "{failing}");
            assert_eq!(shop.service.fingerprint(&shop.acme).await, before, "{failing}");
        }
    }
    // Each invalid operation gets its own error.
    let answer =
        shop.atomic(json!([get("/nothing"), product("NEW"), get("/products?x=eq.1")])).await;
    assert_eq!(codes(&answer), ["unknown_table", "not_done", "unknown_column"]);
}

#[tokio::test]
async fn one_that_fails_undoes_nothing_of_independent_ones() {
    let shop = Shop::open().await;
    let represent = json!({"Prefer": "return=representation"});
    let answer = shop
        .independent(json!([
            product("A"),
            product("TAPE"),
            get("/nothing"),
            product("B"),
            // Decides by its answer whether to commit, so that it goes alone.
            {"method": "PATCH", "path": "/products?sku=eq.A", "body": {"stock": 7}, "headers": represent},
            {"method": "PATCH", "path": "/products?stock=gte.0", "body": {"stock": 1}, "headers": {"Prefer": "max-affected=1"}},
            get("/products?select=sku,stock&sku=in.(A,B)&order=sku"),
            {"method": "POST", "path": "/orders", "body": {"customer_id": Uuid::nil()}},
            {"method": "DELETE", "path": "/products?sku=eq.B"},
            7,
            get(SKUS),
        ]))
        .await
        .expect(207);
    assert_eq!(statuses(&answer), [201, 409, 404, 201, 200, 400, 200, 409, 204, 400, 200]);
    let answers = answers(&answer);
    assert_eq!(answers[6]["body"], json!([{"sku": "A", "stock": 7}, {"sku": "B", "stock": 0}]));
    let skus = json!([{"sku": "HAMMER"}, {"sku": "DRILL"}, {"sku": "TAPE"}, {"sku": "A"}]);
    assert_eq!(answers[10]["body"], skus);
}

#[tokio::test]
async fn a_constraint_that_waits_for_the_end_is_kept_by_the_batch_or_by_each() {
    let shop = Shop::open().await;
    shop.script(
        "ALTER TABLE order_notes ALTER CONSTRAINT order_notes_order_id_fkey DEFERRABLE INITIALLY DEFERRED",
    )
    .await;
    let before = shop.service.fingerprint(&shop.acme).await;
    let orphan = json!({"method": "POST", "path": "/order_notes",
        "body": {"order_id": Uuid::nil(), "body": "x"}});
    let operations = json!([product("A"), orphan, product("B"), get(SKUS)]);
    let answer = shop.atomic(operations.clone()).await.refused(424, "batch_failed");
    assert_eq!(codes(&answer), ["not_done", "foreign_key_violation", "not_done", "not_done"]);
    assert_eq!(shop.service.fingerprint(&shop.acme).await, before);
    // The same where an answer is looked at before the commit.
    let single = json!({"method": "GET", "path": "/products?sku=eq.TAPE",
        "headers": {"Accept": "application/vnd.pgrst.object+json"}});
    let answer = shop.atomic(json!([orphan, single])).await.refused(424, "batch_failed");
    assert_eq!(codes(&answer), ["foreign_key_violation", "not_done"]);

    let answer = shop.independent(operations).await.expect(207);
    assert_eq!(statuses(&answer), [201, 409, 201, 200]);

    // A child before its parent, which is there when the batch ends.
    let id = Uuid::new_v4();
    let note = json!({"order_id": id, "body": "first"});
    let order = json!({"id": id, "customer_id": shop.acme.id("ada")});
    let operations = json!([
        {"method": "POST", "path": "/order_notes", "body": note},
        {"method": "POST", "path": "/orders", "body": order},
    ]);
    shop.atomic(operations).await.expect(200);
}

#[tokio::test]
async fn who_may_not_write_writes_nothing_by_a_batch() {
    let shop = Shop::open().await;
    let viewer = shop.service.person(&shop.acme, "viewer", Role::Viewer).await;
    let before = shop.service.fingerprint(&shop.acme).await;
    let operations = json!([
        get(SKUS),
        product("NEW"),
        {"method": "PATCH", "path": "/products?sku=eq.TAPE", "body": {"stock": 1}},
        {"method": "DELETE", "path": "/products?sku=eq.TAPE"},
    ]);
    let answer = shop.batch_as(&viewer, "atomic", &operations).await.refused(424, "batch_failed");
    assert_eq!(statuses(&answer), [424, 403, 403, 403]);
    let answer = shop.batch_as(&viewer, "independent", &operations).await.expect(207);
    assert_eq!(statuses(&answer), [200, 403, 403, 403]);
    assert_eq!(shop.service.fingerprint(&shop.acme).await, before);
    let operator = shop.service.operator().await;
    shop.batch_as(&operator, "atomic", &operations).await.refused(403, "wrong_scope");
    let nobody = shop.service.post("/v1/batch", operations).send().await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn no_operation_of_a_batch_leads_anywhere_but_to_ones_own_tables() {
    let shop = Shop::open().await;
    let (acme, globex) = (shop.acme.tenant.id, shop.globex.tenant.id);
    let before = shop.service.fingerprint(&shop.globex).await;
    let schema = globex.schema();
    for path in [
        "/v1/data/../tenants".to_owned(),
        "/v1/data/..%2Ftenants".to_owned(),
        "/v1/data/%2e%2e/tenants".to_owned(),
        "/../v1/tenants".to_owned(),
        "/v1/tenants".to_owned(),
        "/v1%2Ftenants".to_owned(),
        format!("/v1/tenants/{globex}"),
        format!("/v1/tenants/{globex}/suspend"),
        "/v1/members".to_owned(),
        "/v1/batch".to_owned(),
        "/v1/data/batch".to_owned(),
        "/batch".to_owned(),
        "/v1/data//orders".to_owned(),
        "//globex.example/orders".to_owned(),
        "http://localhost/v1/data/orders".to_owned(),
        "/v1/data/orders/../tenants".to_owned(),
        "/metrics".to_owned(),
        "/v1/data/orders HTTP/1.1\r\nX: y".to_owned(),
        "/orders\r\n\r\nGET /v1/tenants".to_owned(),
        "/orders\u{0}".to_owned(),
        format!("/{schema}.orders"),
        format!("/{schema}%2Eorders"),
        format!("/%22{schema}%22.%22orders%22"),
        "/freehold.tenant".to_owned(),
        "/pg_catalog.pg_class".to_owned(),
        "/tenant".to_owned(),
        "/violation".to_owned(),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let operation = json!({"method": method, "path": path});
            for mode in ["atomic", "independent"] {
                let call = shop
                    .service
                    .post(&format!("/v1/batch?mode={mode}"), json!([operation, get(SKUS)]));
                // The caller's own words come back, so the look at all answers is not for this.
                let answer = call.by(&shop.acme.owner).send_unchecked().await;
                let first = &answers(&answer)[0];
                let code = first["body"]["code"].as_str().unwrap();
                assert!(
                    ["malformed_operation", "unknown_table"].contains(&code),
                    "{method} {path}: {first}"
                );
            }
        }
    }
    for (name, value) in [
        ("X-Tenant-Id", globex.to_string()),
        ("x-tenant-id", acme.to_string()),
        ("Authorization", format!("Bearer {}", shop.globex.owner.token)),
        ("Host", "globex.example".to_owned()),
        ("Cookie", "session=x".to_owned()),
        ("X-Forwarded-For", "127.0.0.1".to_owned()),
        ("X-Request-Id", "mine".to_owned()),
        ("Prefer", "return=minimal\r\nX-Tenant-Id: x".to_owned()),
        ("Prefer\r\nX-Tenant-Id", "x".to_owned()),
    ] {
        let operation = json!({"method": "GET", "path": "/orders", "headers": {name: value}});
        let answer = shop.atomic(json!([operation])).await.refused(424, "batch_failed");
        assert_eq!(codes(&answer), ["malformed_operation"], "{name}");
    }
    // The tenant named for the batch must be the token's, as everywhere.
    let call = shop.service.post("/v1/batch", json!([get("/orders")])).by(&shop.acme.owner);
    call.header("x-tenant-id", &globex.to_string()).send().await.refused(403, "tenant_mismatch");
    assert_eq!(shop.service.fingerprint(&shop.globex).await, before);
}

#[tokio::test]
async fn a_batch_is_bounded_in_operations_rows_and_bytes() {
    let mut setup = Setup::default();
    setup.http.max_batch_operations = 10;
    setup.http.max_page_rows = 20;
    let shop = Shop::with(setup).await;
    let of = |count: usize, operation: Value| Value::from(vec![operation; count]);
    shop.atomic(json!([])).await.refused(400, "limit_exceeded");
    shop.atomic(of(10, get("/products?limit=1"))).await.expect(200);
    shop.atomic(of(11, get("/products?limit=1"))).await.refused(400, "limit_exceeded");
    // Five pages in all; a read that names no limit may return a whole one.
    shop.atomic(of(5, get("/products"))).await.expect(200);
    shop.independent(of(6, get("/products"))).await.refused(400, "limit_exceeded");
    shop.atomic(of(10, get("/products?limit=11"))).await.refused(400, "limit_exceeded");
    shop.atomic(of(10, get("/products?limit=10"))).await.expect(200);
    let beyond = shop.atomic(json!([get("/products?limit=21")])).await.refused(424, "batch_failed");
    assert_eq!(codes(&beyond), ["limit_exceeded"]);
    let rows = vec![json!({"body": "x", "order_id": shop.acme.id("first")}); 101];
    let insert = json!([{"method": "POST", "path": "/order_notes", "body": rows,
        "headers": {"Prefer": "return=representation"}}]);
    shop.atomic(insert).await.refused(400, "limit_exceeded");
    // The size of a PATCH's answer is known only afterwards, so it may return its share: 10 rows.
    let note = |at: usize| json!({"body": format!("{at}"), "order_id": shop.acme.id("second")});
    let notes: Vec<Value> = (0..11).map(note).collect();
    shop.atomic(json!([{"method": "POST", "path": "/order_notes", "body": notes}]))
        .await
        .expect(200);
    let patch = json!([{"method": "PATCH", "path": format!("/order_notes?order_id=eq.{}", shop.acme.id("second")),
        "body": {"body": "y"}, "headers": {"Prefer": "return=representation"}}]);
    let refused = shop.atomic(patch.clone()).await.refused(424, "batch_failed");
    assert_eq!(codes(&refused), ["limit_exceeded"]);
    let refused = shop.independent(patch).await.expect(207);
    assert_eq!(codes(&refused), ["limit_exceeded"]);

    let large =
        json!([{"method": "POST", "path": "/products", "body": {"name": "x".repeat(300_000)}}]);
    shop.atomic(large).await.refused(413, "body_too_large");
    for body in ["{}", "7", "null", "[", "", "{\"operations\":[]}", "[{}] x"] {
        let call = shop.service.call("POST", "/v1/batch").by(&shop.acme.owner).body(body);
        call.send().await.refused(400, "invalid_input");
    }
    let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let call = shop.service.call("POST", "/v1/batch").by(&shop.acme.owner).body(nested);
    assert!([400, 424].contains(&call.send().await.status));
    for query in ["mode=both", "mode=", "mode=atomic&mode=independent", "tenant=x"] {
        let path = format!("/v1/batch?{query}");
        let call = shop.service.post(&path, json!([get("/products")])).by(&shop.acme.owner);
        assert_eq!(call.send().await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_dropped_whole() {
    let mut setup = Setup { baseline: slow_shop(60.0), connections: 1, ..Setup::default() };
    setup.http.request_timeout_ms = 700;
    let shop = Shop::with(setup).await;
    for (mode, told) in
        [("atomic", "nothing of it was kept"), ("independent", "may have been done")]
    {
        let operations =
            json!([product(&mode.to_uppercase()), get("/naps"), get("/naps"), product("LATER")]);
        let answer = shop.batch_as(&shop.acme.owner, mode, &operations).await;
        let answer = answer.refused(504, "timeout");
        assert!(answer.text().contains(told), "{mode}: {}", answer.text());
        eventually("no nap is left", Duration::from_secs(40), async || {
            shop.service.naps_under_way().await == 0
        })
        .await;
    }
    // The connection is the only one. The first of the independent ones was done before the nap.
    let skus = shop.atomic(json!([get(SKUS)])).await.expect(200).text();
    assert!(skus.contains("INDEPENDENT") && !skus.contains("ATOMIC"), "{skus}");
}
