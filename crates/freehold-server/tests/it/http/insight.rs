//! The load of tenants on the database: counted for each, visible to operators and to clients with the token.

use std::time::Duration;

use freehold::{InsightOptions, Role};
use serde_json::Value;

use crate::support::{Person, Place, Service, Setup, eventually, shop_and, slow_shop};

const TOKEN: &str = "a token that only Prometheus has";
const SOON: Duration = Duration::from_secs(30);

fn with_token() -> Setup {
    let mut setup = Setup::default();
    setup.http.metrics_token = Some(TOKEN.to_owned());
    setup
}

async fn metrics(service: &Service) -> String {
    let call = service.get("/metrics").header("authorization", &format!("Bearer {TOKEN}"));
    call.send().await.expect(200).text()
}

async fn items(service: &Service, operator: &Person, path: &str) -> Vec<Value> {
    let answer = service.get(path).by(operator).send().await.expect(200).json();
    answer["items"].as_array().unwrap().clone()
}

async fn read(service: &Service, place: &Place, path: &str, times: usize) {
    for _ in 0..times {
        service.get(path).by(&place.owner).send().await.expect(200);
    }
}

#[tokio::test]
async fn operators_see_exact_figures_of_every_tenant_and_table_over_all_servers() {
    let service = Service::start(Setup::default()).await;
    let other = service.beside(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    read(&service, &acme, "/v1/data/orders", 3).await;
    read(&other, &acme, "/v1/data/orders", 4).await;
    read(&other, &acme, "/v1/data/customers", 2).await;
    read(&service, &globex, "/v1/data/customers?id=is.null", 5).await;
    let duplicate = serde_json::json!({"sku": "HAMMER", "name": "x", "price_cents": 1});
    let again = service.post("/v1/data/products", duplicate).by(&acme.owner);
    again.send().await.expect(409);
    service.freehold.usage().flush().await.unwrap();
    other.freehold.usage().flush().await.unwrap();

    let tenants = items(&service, &operator, "/v1/insight/tenants?order=queries").await;
    let brief: Vec<_> = tenants
        .iter()
        .map(|t| (t["slug"].clone(), t["queries"].clone(), t["rows"].clone(), t["errors"].clone()))
        .collect();
    let orders = 7 * 3;
    let customers = 2 * 3;
    let expected = [
        ("acme".into(), 10.into(), (orders + customers).into(), 1.into()),
        ("globex".into(), 5.into(), 0.into(), 0.into()),
    ];
    assert_eq!(brief, expected, "{tenants:#?}");
    assert!(tenants.iter().all(|t| t["time_ms"].as_f64().unwrap() > 0.0), "{tenants:#?}");

    let path = format!("/v1/insight/tenants/{}", acme.tenant.id);
    let tables = items(&service, &operator, &path).await;
    let mut counts: Vec<_> =
        tables.iter().map(|t| (t["table"].as_str().unwrap(), t["queries"].clone())).collect();
    counts.sort_by_key(|(table, _)| *table);
    let expected = [("customers", 2.into()), ("orders", 7.into()), ("products", 1.into())];
    assert_eq!(counts, expected);

    let page =
        items(&service, &operator, "/v1/insight/tenants?order=queries&limit=1&offset=1").await;
    assert_eq!(page, tenants[1..]);
    for path in ["acme", "%00", "0"].map(|id| format!("/v1/insight/tenants/{id}")) {
        for path in [path.clone(), format!("{path}/sizes")] {
            service.get(&path).by(&operator).send().await.refused(404, "not_found");
        }
    }
    for query in ["?order=colour", "?hours=x", "?colour=1"] {
        let call = service.get(&format!("/v1/insight/tenants{query}")).by(&operator);
        call.send().await.refused(400, "invalid_input");
    }
}

#[tokio::test]
async fn operations_of_a_batch_and_kept_answers_are_counted_for_their_tables() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let get = |table: &str| serde_json::json!({"method": "GET", "path": format!("/{table}")});
    let duplicate = serde_json::json!({"sku": "HAMMER", "name": "x", "price_cents": 1});
    let wrong = serde_json::json!({"method": "POST", "path": "/products", "body": duplicate});
    let batch = |mode: &str, operations: Value| {
        service.post(&format!("/v1/batch?mode={mode}"), operations).by(&acme.owner)
    };
    for _ in 0..3 {
        let kept = service.get("/v1/data/customers").by(&acme.owner);
        kept.header("cache-control", "max-age=60").send().await.expect(200);
    }
    let reads: Value = vec![get("orders"), get("customers"), get("orders")].into();
    batch("atomic", reads.clone()).send().await.expect(200);
    batch("independent", reads).send().await.expect(200);
    // The failure rolls the first operation back and skips the last.
    let fails: Value = vec![get("orders"), wrong, get("orders")].into();
    batch("atomic", fails.clone()).send().await.expect(424);
    batch("independent", fails).send().await.expect(207);
    service.freehold.usage().flush().await.unwrap();

    let path = format!("/v1/insight/tenants/{}", acme.tenant.id);
    let tables = items(&service, &operator, &path).await;
    let of = |name: &str| {
        let table = tables.iter().find(|t| t["table"] == name).unwrap();
        let figure = |figure: &str| table[figure].as_u64().unwrap();
        (figure("queries"), figure("rows"), figure("errors"))
    };
    assert_eq!(of("orders"), (8, 6 * 3, 0), "{tables:#?}");
    assert_eq!(of("customers"), (3, 3 * 3, 0));
    assert_eq!(of("products"), (2, 0, 2));
    assert_eq!(tables.len(), 3, "{tables:#?}");
}

/// One in sixteen is counted, on behalf of all: by columns and operators, never by a value.
#[tokio::test]
async fn what_the_data_api_is_asked_is_counted_by_its_shape() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    for number in 0..480 {
        let path =
            format!("/v1/data/orders?status=eq.paid&total_cents=gt.{number}&order=created_at.desc");
        service.get(&path).by(&acme.owner).send().await.expect(200);
    }
    let operation = |number| serde_json::json!({"method": "GET", "path": format!("/customers?city=eq.c{number}&limit=5")});
    for number in 0..24 {
        let operations: Vec<_> = (0..20).map(|n| operation(20 * number + n)).collect();
        service
            .post("/v1/batch", Value::from(operations))
            .by(&globex.owner)
            .send()
            .await
            .expect(200);
    }
    service.freehold.usage().flush().await.unwrap();
    let sql = "SELECT tenant_id, shape, requests FROM freehold.query_shape";
    let rows = service.sql().await.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let (tenant, shape, requests): (uuid::Uuid, &str, i64) =
            (row.get(0), row.get(1), row.get(2));
        let expected = match tenant == acme.tenant.id.as_uuid() {
            true => {
                r#"{"table":"orders","conditions":[["status","="],["total_cents",">"]],"order":[{"name":"created_at","descending":true}]}"#
            }
            false => r#"{"table":"customers","conditions":[["city","="]],"order":[]}"#,
        };
        assert_eq!(shape, expected);
        assert!((400..560).contains(&requests), "{requests} of 480");
    }
}

#[tokio::test]
async fn who_is_busy_is_seen_within_seconds() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let mut busiest = Vec::new();
    eventually("acme is the busiest", SOON, async || {
        read(&service, &acme, "/v1/data/orders", 8).await;
        read(&service, &globex, "/v1/data/orders", 1).await;
        busiest = items(&service, &operator, "/v1/insight/busiest").await;
        busiest.len() == 2
    })
    .await;
    let rate = |of: usize| busiest[of]["queries_per_second"].as_f64().unwrap();
    assert_eq!(busiest[0]["slug"], "acme", "{busiest:#?}");
    assert!(rate(0) > rate(1) && rate(1) > 0.0, "{busiest:#?}");
}

#[tokio::test]
async fn metrics_name_tenants_to_nobody_without_the_token() {
    let service = Service::start(with_token()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    read(&service, &acme, "/v1/data/orders", 3).await;
    let id = acme.tenant.id.to_string();
    let public = service.get("/metrics").send().await.expect(200).text();
    assert!(!public.contains(&id) && !public.contains("acme"), "{public}");
    for wrong in [acme.owner.token.as_str(), operator.token.as_str(), "", "x"] {
        let call = service.get("/metrics").header("authorization", &format!("Bearer {wrong}"));
        call.send().await.refused(401, "unauthenticated");
    }
    let without = service.beside(Setup::default()).await;
    read(&without, &acme, "/v1/data/orders", 1).await;
    for token in [TOKEN, ""] {
        let call = without.get("/metrics").header("authorization", &format!("Bearer {token}"));
        let text = call.send().await.expect(200).text();
        assert!(!text.contains(&id), "nobody has set a token, so it opens nothing: {text}");
    }

    let named = format!("freehold_tenant_queries_total{{tenant=\"{id}\"");
    let at_nothing = format!("{named},table=\"(sql)\"}} 0");
    eventually("acme is named, before it grows", SOON, async || {
        metrics(&service).await.contains(&at_nothing)
    })
    .await;
    read(&service, &acme, "/v1/data/orders", 4).await;
    let text = metrics(&service).await;
    for line in [
        format!("{named},table=\"orders\"}} 4"),
        format!("freehold_tenant_rows_total{{tenant=\"{id}\",table=\"orders\"}} 12"),
        "freehold_tenant_queries_total{tenant=\"other\",table=\"orders\"} 3".to_owned(),
        format!("freehold_tenant_info{{tenant=\"{id}\",slug=\"acme\"}} 1"),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
}

#[tokio::test]
async fn series_stay_bounded_however_many_tables_there_are() {
    let tables: String =
        (0..80).map(|n| format!("CREATE TABLE t{n} (id int PRIMARY KEY);")).collect();
    let service = Service::start(Setup { baseline: shop_and(&tables), ..with_token() }).await;
    let acme = service.tenant("acme").await;
    metrics(&service).await;
    for round in 0..2 {
        for n in 0..80 {
            read(&service, &acme, &format!("/v1/data/t{n}"), 1).await;
        }
        let text = metrics(&service).await;
        let series =
            text.lines().filter(|l| l.starts_with("freehold_tenant_queries_total{")).count();
        assert!(series <= 2 * 64, "round {round}: {series}");
    }
}

#[tokio::test]
async fn a_request_that_took_too_long_is_counted_with_its_time_as_an_error() {
    let mut setup = Setup { baseline: slow_shop(30.0), ..Setup::default() };
    setup.http.request_timeout_ms = 700;
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    service.get("/v1/data/naps").by(&acme.owner).send().await.refused(504, "timeout");
    service.freehold.usage().flush().await.unwrap();
    let tenants = items(&service, &operator, "/v1/insight/tenants").await;
    assert_eq!((&tenants[0]["queries"], &tenants[0]["errors"]), (&1.into(), &1.into()));
    assert!(tenants[0]["time_ms"].as_f64().unwrap() > 300.0, "{tenants:#?}");
}

#[tokio::test]
async fn a_pool_tells_who_waited_how_long_and_who_was_turned_away() {
    let setup = Setup { baseline: slow_shop(0.4), connections: 1, ..with_token() };
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    metrics(&service).await;
    let nap = || async { service.get("/v1/data/naps").by(&acme.owner).send().await.expect(200) };
    tokio::join!(nap(), nap());
    let text = metrics(&service).await;
    let value = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert!(value("freehold_pool_wait_seconds_total{pool=\"app\"}") > 0.2);
    assert!(value("freehold_pool_waits_total{pool=\"app\"}") >= 1.0);
    assert!(value("freehold_pool_refused_total{pool=\"app\"}").abs() < 0.1);
    let waited = text
        .lines()
        .filter(|line| line.starts_with("freehold_tenant_wait_seconds_total{tenant="))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum::<f64>();
    assert!(waited > 0.2, "{text}");
}

// ── Slow queries ──────────────────────────────────────────────────────────────────────────────

fn all_is_slow() -> Setup {
    let insight = InsightOptions { slow_after: Some(Duration::ZERO), ..InsightOptions::default() };
    Setup { insight, ..with_token() }
}

/// The tenant's slow statements whose text holds this, once each has a plan.
async fn slow(service: &Service, by: &Person, query: &str, text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(&format!("{text} is planned"), Duration::from_secs(60), async || {
        found = items(service, by, &format!("/v1/insight/slow?limit=50{query}")).await;
        found.retain(|item| item["statement"].as_str().unwrap().contains(text));
        !found.is_empty() && found.iter().all(|item| !item["plan"].is_null())
    })
    .await;
    found
}

#[tokio::test]
async fn slow_requests_are_seen_with_their_plan_and_nothing_that_a_caller_wrote() {
    let service = Service::start(all_is_slow()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let path = "/v1/data/customers?select=id,SECRETalias:city&city=eq.SECRETfilter&limit=7";
    for id in ["request-1", "request-2"] {
        let call = service.get(path).by(&acme.owner).header("x-request-id", id);
        call.send().await.expect(200);
    }
    let body = serde_json::json!({"sku": "SECRET-1", "name": "SECRETname", "price_cents": 424_242});
    service.post("/v1/data/products", body).by(&acme.owner).send().await.expect(201);

    let query = format!("&tenant={}", acme.tenant.id);
    let read = slow(&service, &operator, &query, "SELECT t.\"id\"").await;
    assert_eq!(read.len(), 1, "{read:#?}");
    assert_eq!((&read[0]["table"], &read[0]["slug"]), (&"customers".into(), &"acme".into()));
    assert_eq!((&read[0]["count"], &read[0]["slowest_rows"]), (&2.into(), &0.into()));
    let id = read[0]["slowest_request_id"].as_str().unwrap();
    assert!(["request-1", "request-2"].contains(&id), "{id}");
    let plan = read[0]["plan"].to_string();
    assert!(plan.contains("customers") && plan.contains("city = $1"), "{plan}");
    assert!(!plan.contains("Filter: false"), "{plan}");
    slow(&service, &operator, &query, "INSERT INTO \"products\"").await;

    let rows = service.sql().await.query("SELECT s::text FROM freehold.slow_query s", &[]).await;
    for row in rows.unwrap() {
        let row: String = row.get(0);
        for value in ["SECRET", "424242", "tenant_"] {
            assert!(!row.contains(value), "{value} in {row}");
        }
    }
    let metrics = metrics(&service).await;
    let counted = |line: &str| metrics.lines().any(|l| l.starts_with(line) && !l.ends_with(" 0"));
    assert!(counted("freehold_slow_queries_total "), "{metrics}");
    assert!(counted("freehold_slow_query_plans_total{outcome=\"made\"}"), "{metrics}");
}

#[tokio::test]
async fn an_owner_sees_the_slow_queries_of_their_tenant_and_an_operator_all() {
    let service = Service::start(all_is_slow()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    read(&service, &acme, "/v1/data/orders", 1).await;
    read(&service, &globex, "/v1/data/customers", 1).await;
    let all = slow(&service, &operator, "", "SELECT").await;
    let slugs: Vec<_> = all.iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert!(slugs.contains(&"acme") && slugs.contains(&"globex"), "{slugs:?}");
    for (place, own) in [(&acme, "acme"), (&globex, "globex")] {
        let by_id = format!("&tenant={}", place.tenant.id);
        for query in ["", &by_id] {
            let list = slow(&service, &place.owner, query, "SELECT").await;
            assert!(list.iter().all(|item| item["slug"] == own), "{own}: {list:#?}");
        }
    }
    let admin = service.person(&acme, "ann", Role::Admin).await;
    service.get("/v1/insight/slow").by(&admin).send().await.refused(403, "forbidden");
    for tenant in [globex.tenant.id.to_string(), uuid::Uuid::new_v4().to_string(), "x".to_owned()] {
        let path = format!("/v1/insight/slow?tenant={tenant}");
        service.get(&path).by(&acme.owner).send().await.refused(404, "not_found");
    }
    for wrong in ["?colour=1", "?limit=x", "?offset=-"] {
        let call = service.get(&format!("/v1/insight/slow{wrong}")).by(&operator);
        call.send().await.refused(400, "invalid_input");
    }
    let call = service.get("/v1/insight/slow?tenant=00000000-0000-4000-8000-000000000009");
    call.by(&operator).send().await.refused(404, "not_found");
}
