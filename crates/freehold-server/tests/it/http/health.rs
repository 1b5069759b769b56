//! Probes that mean something, and counts for those who watch.

use std::time::Duration;

use crate::support::{Service, Setup, admin_url, connect, eventually};

const SOON: Duration = Duration::from_secs(5);

async fn readiness(service: &Service) -> u16 {
    service.get("/readyz").send().await.status
}

#[tokio::test]
async fn a_server_that_works_is_alive_and_ready() {
    let service = Service::start(Setup::default()).await;
    assert_eq!(service.get("/livez").send().await.expect(200).text(), "ok\n");
    assert_eq!(service.get("/readyz").send().await.expect(200).text(), "ready\n");
}

#[tokio::test]
async fn a_server_without_its_database_is_alive_and_not_ready_until_it_is_back() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let database = service.database().superuser_url();
    let (_, database) = database.rsplit_once('/').unwrap();
    let admin = connect(&admin_url()).await;
    let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    admin.batch_execute(&sql).await.unwrap();
    let end = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    admin.batch_execute(&end).await.unwrap();

    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    assert_eq!(answer.header("retry-after"), "1");
    service.get("/livez").send().await.expect(200);
    let answer = service.get("/v1/data/orders").by(&acme.owner).send().await;
    let answer = answer.refused(503, "database_unavailable");
    assert!(!answer.header("retry-after").is_empty());

    let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true");
    admin.batch_execute(&sql).await.unwrap();
    eventually("ready again", SOON, async || readiness(&service).await == 200).await;
    service.get("/v1/data/orders").by(&acme.owner).send().await.expect(200);
}

#[tokio::test]
async fn a_server_whose_role_came_to_own_a_tenants_table_is_not_ready() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let sql = service.sql().await;
    let table = format!("{}.customers", acme.tenant.id.schema());
    sql.batch_execute(&format!("ALTER TABLE {table} OWNER TO freehold_app")).await.unwrap();
    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("freehold_app is an owner of"), "{detail}");
    sql.batch_execute(&format!("ALTER TABLE {table} OWNER TO freehold_owner")).await.unwrap();
    assert_eq!(readiness(&service).await, 200);
}

/// Whatever the doctor finds critical, and the app role can see.
#[tokio::test]
async fn a_server_is_not_ready_while_tenants_are_not_kept_apart_and_tells_nobody_where() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    assert_eq!(readiness(&service).await, 200);
    let schema = acme.tenant.id.schema();
    let sql = service.sql().await;
    let open = format!("ALTER POLICY tenant_isolation ON {schema}.orders USING (true)");
    sql.batch_execute(&open).await.unwrap();
    let late = Duration::from_secs(30);
    eventually("not ready", late, async || readiness(&service).await == 503).await;
    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    let text = answer.text();
    assert!(text.contains("freehold doctor") && !text.contains(&schema), "{text}");
    let closed = format!(
        "ALTER POLICY tenant_isolation ON {schema}.orders USING ((SELECT freehold.require_tenant('{}')))",
        acme.tenant.id
    );
    sql.batch_execute(&closed).await.unwrap();
    eventually("ready again", late, async || readiness(&service).await == 200).await;
}

#[tokio::test]
async fn a_server_is_not_ready_beside_a_catalog_of_another_version() {
    let service = Service::start(Setup::default()).await;
    let sql = service.sql().await;
    let newer = "INSERT INTO freehold.catalog_migration (version, name) VALUES (999, 'newer')";
    sql.batch_execute(newer).await.unwrap();
    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("999") && detail.contains("newer build"), "{detail}");
    sql.batch_execute("DELETE FROM freehold.catalog_migration").await.unwrap();
    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("run `freehold init`"), "{detail}");
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
async fn a_server_beside_a_table_without_protection_is_not_ready() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let table = format!("{}.customers", acme.tenant.id.schema());
    let sql = format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY");
    service.sql().await.batch_execute(&sql).await.unwrap();
    let answer = service.get("/readyz").send().await.refused(503, "not_ready");
    assert!(!answer.text().contains("customers"), "a probe tells no names");
}
