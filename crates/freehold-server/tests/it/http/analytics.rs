//! Figures over HTTP: totals for operators, their own for members, and none of other tenants.

use freehold::{AnalyticsDefinition, AnalyticsFolder, AnalyticsOptions, OperatorContext, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Person, Place, SOON, Service, Setup, project};

static CONTEXT: OperatorContext = OperatorContext::system("a test");

/// A definition with one row per day, shown from one tenant on.
const SALES: &str = "-- name: sales
-- about: Orders by the day
-- grain: day
-- schedule: every 1h
-- minimum group: 1
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS orders FROM orders GROUP BY 1";

struct Office {
    service: Service,
    operator: Person,
    acme: Place,
    globex: Place,
}

impl Office {
    /// Acme and globex, each with three orders on the same three days.
    async fn open() -> Office {
        let service = Service::start(Setup::default()).await;
        let (acme, globex) = service.two_tenants().await;
        let operator = service.operator().await;
        let office = Office { service, operator, acme, globex };
        let parsed = AnalyticsDefinition::parse(SALES).unwrap();
        let folder = AnalyticsFolder::from_definitions(vec![parsed]).unwrap();
        office.service.freehold.analytics().apply(&CONTEXT, &folder).await.unwrap();
        office
    }

    async fn collect(&self) {
        let options = AnalyticsOptions::default();
        let run = self.service.freehold.analytics().run(&CONTEXT, None, options, &|_, _| {});
        run.await.unwrap();
    }

    async fn get(&self, path: &str, by: &Person) -> Value {
        self.service.get(path).by(by).send().await.expect(200).json()
    }
}

#[tokio::test]
async fn operators_read_totals_with_their_age_and_coverage_in_body_and_headers() {
    let office = Office::open().await;
    let before = office.get("/v1/analytics/sales", &office.operator).await;
    assert_eq!((&before["items"], &before["as_of"]), (&json!([]), &Value::Null));
    assert!(before.get("coverage").is_none(), "nothing is published: {before}");

    office.collect().await;
    let answer =
        office.service.get("/v1/analytics/sales?order=asc").by(&office.operator).send().await;
    let body = answer.clone().expect(200).json();
    let expected = json!([
        {"day": "2026-02-01", "tenants": 2, "orders": 2},
        {"day": "2026-03-01", "tenants": 2, "orders": 2},
        {"day": "2026-04-01", "tenants": 2, "orders": 2},
    ]);
    assert_eq!(body["items"], expected);
    assert_eq!(answer.header("x-analytics-as-of"), body["as_of"].as_str().unwrap());
    assert_eq!(answer.header("x-analytics-coverage"), "2/2");
    let coverage = &body["coverage"];
    assert_eq!((&coverage["fresh"], &coverage["tenants"]), (&json!(2), &json!(2)));
    assert_eq!(coverage["complete"], true);

    // One tenant cannot be read: the answer says that it is not the whole.
    let schema = office.globex.tenant.id.schema();
    let sql = office.service.sql().await;
    sql.batch_execute(&format!("ALTER TABLE {schema}.orders RENAME created_at TO made_at"))
        .await
        .unwrap();
    office.collect().await;
    let answer = office.service.get("/v1/analytics/sales").by(&office.operator).send().await;
    assert_eq!(answer.header("x-analytics-coverage"), "1/2");
    let coverage = answer.json()["coverage"].clone();
    assert_eq!((&coverage["complete"], &coverage["failed"]), (&json!(false), &json!(1)));
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 3, "the old figures stay");
}

#[tokio::test]
async fn pages_and_scopes_are_as_asked_and_what_is_malformed_is_refused() {
    let office = Office::open().await;
    office.collect().await;
    let first = office.get("/v1/analytics/sales?limit=2", &office.operator).await;
    assert_eq!(first["items"][0]["day"], "2026-04-01", "the newest first");
    let after: String = form_urlencoded(first["next"].as_str().unwrap());
    let path = format!("/v1/analytics/sales?limit=2&after={after}");
    let second = office.get(&path, &office.operator).await;
    assert_eq!(second["items"], json!([{"day": "2026-02-01", "tenants": 2, "orders": 2}]));
    assert_eq!(second["next"], Value::Null);

    let by_tenant = office.get("/v1/analytics/sales?by=tenant", &office.operator).await;
    assert_eq!(by_tenant["items"].as_array().unwrap().len(), 6);
    assert_eq!(
        by_tenant["items"][0],
        json!({"tenant": "globex", "day": "2026-04-01", "orders": 1})
    );
    let path = format!("/v1/analytics/sales?tenant={}", office.acme.tenant.id);
    let one = office.get(&path, &office.operator).await;
    assert_eq!(one["items"].as_array().unwrap().len(), 3);

    for (query, status, code) in [
        ("?after=nonsense", 400, "invalid_input"),
        ("?by=nobody", 400, "invalid_input"),
        ("?order=up", 400, "invalid_input"),
        ("?limit=many", 400, "invalid_input"),
        ("?colour=red", 400, "invalid_input"),
        ("?tenant=nobody", 404, "not_found"),
        (&format!("?tenant={}", Uuid::new_v4()), 404, "not_found"),
    ] {
        let path = format!("/v1/analytics/sales{query}");
        office.service.get(&path).by(&office.operator).send().await.refused(status, code);
    }
    for name in ["nothing", "sales%22", "fleet_sales", "..", "sales;DROP%20TABLE%20x"] {
        let path = format!("/v1/analytics/{name}");
        office.service.get(&path).by(&office.operator).send().await.refused(404, "not_found");
    }
}

fn form_urlencoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn members_of_every_role_read_their_own_rows_and_no_others() {
    let office = Office::open().await;
    office.collect().await;
    let sql = office.service.sql().await;
    sql.batch_execute(
        "UPDATE freehold_analytics.rollup_sales SET orders = 7777 WHERE tenant_id NOT IN
        (SELECT id FROM freehold.tenant WHERE slug = 'acme')",
    )
    .await
    .unwrap();
    for role in [Role::Viewer, Role::Member, Role::Admin, Role::Owner] {
        let name = format!("another-{}", role.as_str());
        let member = office.service.person(&office.acme, &name, role).await;
        let body = office.get("/v1/analytics/sales", &member).await;
        let rows = body["items"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row["orders"] == 1), "{rows:?}");
        assert!(body["as_of"].is_string() && body.get("coverage").is_none(), "{body}");
        let list = office.get("/v1/analytics", &member).await;
        assert_eq!(list["items"][0]["name"], "sales");
        assert!(list["items"][0].get("coverage").is_none(), "{list}");
    }
    // Another tenant's id is one that no tenant has, by every parameter.
    let owner = &office.acme.owner;
    let ask = async |query: String| {
        office.service.get(&format!("/v1/analytics/sales?{query}")).by(owner).send().await
    };
    let theirs = ask(format!("tenant={}", office.globex.tenant.id)).await.refused(404, "not_found");
    let nobodys = ask(format!("tenant={}", Uuid::new_v4())).await;
    assert_eq!(theirs.bytes(), nobodys.bytes());
    ask("by=tenant".to_owned()).await.refused(403, "wrong_scope");
    let own = ask(format!("tenant={}", office.acme.tenant.id)).await.expect(200).json();
    assert_eq!(own["items"][0]["orders"], 1);
    office.service.get("/v1/analytics/sales").send().await.refused(401, "unauthenticated");
    office.service.freehold.tenants().suspend(&CONTEXT, office.acme.tenant.id).await.unwrap();
    crate::support::eventually("acme is refused", SOON, async || {
        office.service.get("/v1/analytics/sales").by(owner).send().await.status == 403
    })
    .await;
}

/// The data API reaches tables of the tenant's schema; a rollup is none.
#[tokio::test]
async fn the_data_api_knows_no_rollup() {
    let office = Office::open().await;
    office.collect().await;
    for table in
        ["rollup_sales", "freehold_analytics.rollup_sales", "published_sales", "fleet_sales"]
    {
        let path = format!("/v1/data/{table}");
        office.service.get(&path).by(&office.acme.owner).send().await.refused(404, "unknown_table");
    }
}

#[tokio::test]
async fn the_demos_definitions_are_collected_from_the_demos_shop() {
    let office = Office::open().await;
    let folder = AnalyticsFolder::read(project().join("demo/analytics")).unwrap();
    office.service.freehold.analytics().apply(&CONTEXT, &folder).await.unwrap();
    office.collect().await;
    let list = office.get("/v1/analytics", &office.operator).await;
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(
        names,
        ["active_customers_per_day", "growth_per_month", "orders_per_day", "revenue_per_day"]
    );
    let asked = async |name: &str| {
        office.get(&format!("/v1/analytics/{name}?order=asc"), &office.operator).await["items"]
            .clone()
    };
    assert_eq!(
        asked("revenue_per_day").await,
        json!([
            {"day": "2026-02-01", "tenants": 2, "revenue_cents": 7560},
            {"day": "2026-03-01", "tenants": 2, "revenue_cents": 17800},
            {"day": "2026-04-01", "tenants": 2, "revenue_cents": 5940},
        ])
    );
    assert_eq!(
        asked("active_customers_per_day").await[1],
        json!({"day": "2026-03-01", "tenants": 2, "customers": 2})
    );
    assert_eq!(
        asked("orders_per_day").await[2],
        json!({"day": "2026-04-01", "tenants": 2, "orders": 2, "cancelled": 0})
    );
    let growth = asked("growth_per_month").await;
    assert_eq!(growth[0]["new_customers"], 6);
    // 3780 to 8900 cents in each, and then 2970.
    assert_eq!(growth[2]["growth_percent"].as_f64(), Some(135.4));
    assert_eq!(growth[3]["growth_percent"].as_f64(), Some(-66.6));
}
