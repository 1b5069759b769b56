//! Probes and metrics.

use std::time::{Duration, Instant};

use freehold::testing::PASSWORD;
use freehold::{CATALOG_VERSION, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Service, Setup, admin_url, connect, eventually, slow_shop, text};

/// Generous: a server looks at its database less often where looking takes long.
const SOON: Duration = Duration::from_secs(120);

async fn readiness(service: &Service) -> u16 {
    service.get("/readyz").send().await.status
}

/// Waits until it is not ready, and returns a probe's answer.
async fn becomes_not_ready(service: &Service) -> Answer {
    eventually("not ready", SOON, async || readiness(service).await == 503).await;
    service.get("/readyz").send().await.refused(503, "not_ready")
}

async fn becomes_ready(service: &Service) {
    eventually("ready", SOON, async || readiness(service).await == 200).await;
}

/// Refuses connections to the database, and ends the existing ones.
async fn close_database(service: &Service) {
    let admin = connect(&admin_url()).await;
    let database = name_of_database(service);
    let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    admin.batch_execute(&sql).await.unwrap();
    let end = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    admin.batch_execute(&end).await.unwrap();
}

async fn open_database(service: &Service) {
    let database = name_of_database(service);
    let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true");
    connect(&admin_url()).await.batch_execute(&sql).await.unwrap();
}

fn name_of_database(service: &Service) -> String {
    service.database().superuser_url().rsplit_once('/').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_server_that_works_is_alive_and_ready() {
    let service = Service::start(Setup::default()).await;
    assert_eq!(service.get("/livez").send().await.expect(200).text(), "ok\n");
    becomes_ready(&service).await;
    assert_eq!(service.get("/readyz").send().await.expect(200).text(), "ready\n");
}

#[tokio::test]
async fn a_server_without_its_database_is_alive_and_not_ready_until_it_is_back() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    becomes_ready(&service).await;
    close_database(&service).await;

    let answer = becomes_not_ready(&service).await;
    assert_eq!(answer.header("retry-after"), "1");
    service.get("/livez").send().await.expect(200);
    let answer = service.get("/v1/data/orders").by(&acme.owner).send().await;
    let answer = answer.refused(503, "database_unavailable");
    assert!(!answer.header("retry-after").is_empty());

    open_database(&service).await;
    becomes_ready(&service).await;
    service.get("/v1/data/orders").by(&acme.owner).send().await.expect(200);
}

/// However long an outage may last: a read-only database is not a short outage.
#[tokio::test]
async fn a_server_whose_database_takes_no_writes_is_not_ready_until_it_does_again() {
    let mut setup = Setup::default();
    setup.http.outage_secs = 600;
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    becomes_ready(&service).await;
    let sql = connect(&admin_url()).await;
    let database = name_of_database(&service);
    let spell = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    sql.batch_execute(&spell).await.unwrap();
    // Once that is committed: sessions that are opened meanwhile begin as they did before.
    let end = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = '{database}' AND usename LIKE 'freehold%'"
    );
    sql.batch_execute(&end).await.unwrap();

    let product = json!({"sku": "NEW-1", "name": "New", "price_cents": 1});
    let write =
        async || service.post("/v1/data/products", product.clone()).by(&acme.owner).send().await;
    let answer = write().await.refused(503, "database_unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    service.get("/v1/data/orders").by(&acme.owner).send().await.expect(200);
    let credentials = json!({"email": acme.owner.email, "password": PASSWORD});
    let answer = service.post("/v1/auth/login", credentials).send().await;
    answer.refused(503, "database_unavailable");
    let answer = becomes_not_ready(&service).await;
    assert!(answer.text().contains("takes no writes"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "1");

    let end = format!("ALTER DATABASE {database} RESET default_transaction_read_only");
    sql.batch_execute(&end).await.unwrap();
    becomes_ready(&service).await;
    eventually("it writes", SOON, async || write().await.status == 201).await;
}

/// All servers that share a database see the same short outage.
#[tokio::test]
async fn a_blink_of_the_database_takes_no_server_out() {
    let mut setup = Setup::default();
    setup.http.outage_secs = 60;
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    becomes_ready(&service).await;
    close_database(&service).await;
    let began = Instant::now();
    // Long enough for several looks.
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(readiness(&service).await, 200, "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.get("/v1/data/orders").by(&acme.owner).send().await.expect(503);
    open_database(&service).await;
    service.get("/v1/data/orders").by(&acme.owner).send().await.expect(200);
}

/// The check waits behind the requests that hold the connections, which is no reason to send more of them to
/// the other servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_connections_are_all_busy_stays_ready() {
    let setup = Setup { connections: 1, baseline: slow_shop(6.0), ..Setup::default() };
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    becomes_ready(&service).await;
    let nap = service.get("/v1/data/naps").by(&acme.owner).send();
    let watch = async {
        eventually("the nap began", SOON, async || service.naps_under_way().await == 1).await;
        while service.naps_under_way().await == 1 {
            assert_eq!(readiness(&service).await, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (nap, ()) = tokio::join!(nap, watch);
    nap.expect(200);
}

#[tokio::test]
async fn a_server_whose_role_came_to_own_a_tenants_table_is_not_ready() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let sql = service.sql().await;
    becomes_ready(&service).await;
    let table = format!("{}.customers", acme.tenant.id.schema());
    sql.batch_execute(&format!("ALTER TABLE {table} OWNER TO freehold_app")).await.unwrap();
    // The background examination may notice it first. In either case the public answer names neither role nor
    // table.
    eventually("its rights are asked about", SOON, async || {
        let answer = becomes_not_ready(&service).await;
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(!detail.contains("freehold_") && !detail.contains("customers"), "{detail}");
        detail == "the database is not as this server needs it; the log tells what is wrong"
    })
    .await;
    sql.batch_execute(&format!("ALTER TABLE {table} OWNER TO freehold_owner")).await.unwrap();
    becomes_ready(&service).await;
}

/// Any critical finding about the whole fleet that the app role can see.
#[tokio::test]
async fn a_server_is_not_ready_while_tenants_are_not_kept_apart_and_tells_nobody_where() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    becomes_ready(&service).await;
    let sql = service.sql().await;
    let open = "ALTER POLICY tenant_isolation ON freehold_template.orders USING (true)";
    sql.batch_execute(open).await.unwrap();
    let answer = becomes_not_ready(&service).await;
    let text = answer.text();
    assert!(text.contains("freehold doctor") && !text.contains("orders"), "{text}");
    let closed = "ALTER POLICY tenant_isolation ON freehold_template.orders
        USING ((SELECT freehold.require_tenant('1a169cdf-4117-86b9-a8ac-a5eeab7a958f')))";
    sql.batch_execute(closed).await.unwrap();
    becomes_ready(&service).await;
}

/// Otherwise a tenant that can cause such a state would stop every server for all others. The server closes
/// the table instead, and reports it.
#[tokio::test]
async fn what_is_wrong_in_one_tenants_schema_is_closed_and_takes_no_server_out() {
    let service = Service::start(Setup::default()).await;
    let (acme, _) = (service.tenant("acme").await, service.tenant("globex").await);
    becomes_ready(&service).await;
    let table = format!("{}.orders", acme.tenant.id.schema());
    let sql = service.sql().await;
    sql.batch_execute(&format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).await.unwrap();
    let is_closed = format!(
        "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = '{table}'::regclass"
    );
    eventually("closed", SOON, async || {
        assert_eq!(readiness(&service).await, 200);
        sql.query_one(&is_closed, &[]).await.unwrap().get(0)
    })
    .await;
}

#[tokio::test]
async fn a_server_is_not_ready_beside_a_catalog_of_another_version() {
    let service = Service::start(Setup::default()).await;
    let sql = service.sql().await;
    let newer = "INSERT INTO freehold.catalog_migration (version, name) VALUES (999, 'newer')";
    sql.batch_execute(newer).await.unwrap();
    let answer = becomes_not_ready(&service).await;
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("the log tells what is wrong"), "{detail}");
    sql.batch_execute("DELETE FROM freehold.catalog_migration WHERE version = 999").await.unwrap();
    becomes_ready(&service).await;
}

/// Additions of the next release are unknown to this one, and not a fault: both serve during an upgrade.
#[tokio::test]
async fn a_server_stays_ready_beside_a_newer_catalog_that_serves_it() {
    let service = Service::start(Setup::default()).await;
    becomes_ready(&service).await;
    let sql = service.sql().await;
    let newer = format!(
        "SET ROLE freehold_owner;
         CREATE TABLE freehold.new_in_this_test (id int);
         INSERT INTO freehold.catalog_migration (version, name, serves_from) VALUES (999, 'newer', {CATALOG_VERSION})"
    );
    sql.batch_execute(&newer).await.unwrap();
    let began = Instant::now();
    // The role and the version are looked at every two seconds, the catalog every five.
    while began.elapsed() < Duration::from_secs(12) {
        let answer = service.get("/readyz").send().await;
        assert_eq!(answer.status, 200, "after {:?}: {}", began.elapsed(), answer.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // One that starts now, because its machine was moved, must start too.
    becomes_ready(&service.beside(Setup::default()).await).await;
    // Without the leave of the newer release, the same is a fault.
    sql.batch_execute("UPDATE freehold.catalog_migration SET serves_from = NULL").await.unwrap();
    becomes_not_ready(&service).await;
}

#[tokio::test]
async fn metrics_count_by_route_and_show_the_pools_and_name_no_tenant() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    for _ in 0..3 {
        service.get("/v1/data/orders").by(&acme.owner).send().await.expect(200);
    }
    service.get("/v1/data/nothing").by(&acme.owner).send().await.expect(404);
    service.get("/no/such/route").send().await.expect(404);
    let answer = service.get("/metrics").send().await.expect(200);
    assert!(answer.header("content-type").starts_with("text/plain"));
    let text = answer.text();
    let counter = |route: &str, status: u16| {
        format!(
            "freehold_http_requests_total{{method=\"GET\",route=\"{route}\",status=\"{status}\"}}"
        )
    };
    for line in [
        format!("{} 3", counter("/v1/data/{table}", 200)),
        format!("{} 1", counter("/v1/data/{table}", 404)),
        format!("{} 1", counter("unmatched", 404)),
        "freehold_http_request_seconds_count{route=\"/v1/data/{table}\"} 4".to_owned(),
        "freehold_pool_connections_max{pool=\"app\"} 8".to_owned(),
        "freehold_pool_connections_max{pool=\"owner\"} 4".to_owned(),
        "freehold_pool_connections_max{pool=\"catalog\"} ".to_owned(),
        "freehold_pool_wait_seconds_total{pool=\"catalog\"} ".to_owned(),
        "freehold_pool_connections{pool=\"app\"} ".to_owned(),
        "freehold_pool_idle{pool=\"app\"} ".to_owned(),
        "freehold_pool_waiting{pool=\"app\"} 0".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    // Another path a request must not mean another series, nor a tenant's id.
    assert!(!text.contains("/no/such/route") && !text.contains("/v1/data/orders"), "{text}");
    assert!(!text.contains(&acme.tenant.id.to_string()));
}

#[tokio::test]
async fn a_server_beside_a_fleet_without_protection_is_not_ready() {
    let service = Service::start(Setup::default()).await;
    let mut sql = String::new();
    for slug in ["acme", "globex"] {
        let schema = service.tenant(slug).await.tenant.id.schema();
        sql += &format!("ALTER TABLE {schema}.customers DISABLE ROW LEVEL SECURITY;");
    }
    service.sql().await.batch_execute(&sql).await.unwrap();
    let answer = becomes_not_ready(&service).await;
    assert!(!answer.text().contains("customers"), "a probe tells no names");
}

/// For each tenant in an answer, the slug and one of its figures.
fn figures(answer: &Answer, figure: &str) -> Vec<(String, Value)> {
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| (text(&item["slug"]), item[figure].clone())).collect()
}

#[tokio::test]
async fn operators_see_of_a_sample_of_tenants_what_is_wrong_with_each() {
    let service = Service::start(Setup::default()).await;
    let mut schemas = Vec::new();
    for slug in ["aaa", "bbb", "ccc", "ddd", "eee"] {
        schemas.push(service.tenant(slug).await.tenant.id.schema());
    }
    let operator = service.operator().await;
    let look = async |query: &str| {
        let path = format!("/v1/health/tenants{query}");
        service.get(&path).by(&operator).send().await.expect(200)
    };
    let answer = look("?after=").await;
    assert_eq!((&answer.json()["healthy"], &answer.json()["version"]), (&json!(5), &json!(3)));
    assert!(figures(&answer, "tables").iter().all(|(_, tables)| *tables == json!(5)));

    let sql = service.sql().await;
    for fault in [
        format!("ALTER TABLE {}.orders NO FORCE ROW LEVEL SECURITY", schemas[0]),
        // A policy for another tenant does not count as protection.
        format!(
            "ALTER POLICY tenant_isolation ON {}.orders USING ((SELECT freehold.require_tenant('{}')))",
            schemas[1],
            Uuid::nil()
        ),
        format!("DROP SCHEMA {} CASCADE", schemas[2]),
        "UPDATE freehold.tenant SET version = 2 WHERE slug = 'ddd'".to_owned(),
        "UPDATE freehold.tenant SET status = 'suspended' WHERE slug = 'eee'".to_owned(),
    ] {
        sql.batch_execute(&fault).await.unwrap();
    }
    let answer = look("?after=").await;
    let of = |figure| figures(&answer, figure);
    let pairs = |values: [Value; 5]| -> Vec<(String, Value)> {
        ["aaa", "bbb", "ccc", "ddd", "eee"].map(str::to_owned).into_iter().zip(values).collect()
    };
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(of("healthy"), pairs([no.clone(), no.clone(), no.clone(), no.clone(), yes.clone()]));
    assert_eq!(of("unprotected"), pairs([json!(1), json!(1), json!(0), json!(0), json!(0)]));
    assert_eq!(
        of("reachable"),
        pairs([yes.clone(), yes.clone(), no.clone(), yes.clone(), Value::Null])
    );
    assert_eq!(of("current"), pairs([yes.clone(), yes.clone(), yes.clone(), no, yes]));
    assert_eq!(answer.json()["healthy"], 1);
}

#[tokio::test]
async fn a_sample_is_bounded_and_by_chance_or_in_order_and_for_operators_alone() {
    let service = Service::start(Setup::default()).await;
    for n in 0..6 {
        service.tenant(&format!("shop{n}")).await;
    }
    let operator = service.operator().await;
    let slugs = async |query: &str| -> Vec<String> {
        let path = format!("/v1/health/tenants{query}");
        let answer = service.get(&path).by(&operator).send().await.expect(200);
        figures(&answer, "slug").into_iter().map(|(slug, _)| slug).collect()
    };
    assert_eq!(slugs("?after=&limit=2").await, ["shop0", "shop1"]);
    assert_eq!(slugs("?after=shop3").await, ["shop4", "shop5"]);
    assert_eq!(slugs("?limit=0").await.len(), 1);
    // All of them, each once, wherever chance begins.
    let mut all = slugs("?limit=100000").await;
    all.sort();
    assert_eq!(all, ["shop0", "shop1", "shop2", "shop3", "shop4", "shop5"]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.extend(slugs("?limit=1").await);
    }
    assert!(seen.len() > 1, "chance always chooses {seen:?}");
    service.get("/v1/health/tenants?after=%00").by(&operator).send().await.expect(400);
    let owner = service.person(&service.tenant("last").await, "o", Role::Owner).await;
    service.get("/v1/health/tenants").by(&owner).send().await.refused(403, "wrong_scope");
}
