//! Operators see refused attempts: one event and one count for each, with actor and tenant; the refused
//! caller learns no more than before.

use std::time::Duration;

use freehold::Role;
use freehold::control::violations::{Violation, ViolationKind};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Answer, Call, Person, Place, SOON, Service, Setup, admin_url, connect, eventually, text,
};

/// The whole list, after the violations so far have been written down.
async fn list(service: &Service, operator: &Person, query: &str) -> Vec<Value> {
    service.freehold.violations().flush().await.unwrap();
    let path = format!("/v1/violations{query}");
    let page = service.get(&path).by(operator).send().await.expect(200).json();
    page["items"].as_array().unwrap().clone()
}

/// The value of `/metrics` for a kind.
async fn counted(service: &Service, kind: &str) -> u64 {
    let text = service.get("/metrics").send().await.expect(200).text();
    let name = format!("freehold_isolation_violations_total{{kind=\"{kind}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

/// Makes a table of one tenant require another tenant's context, like a mistake in its policy; the database
/// names the tenant, for operators.
async fn mislead(service: &Service, place: &Place, table: &str, target: &Place) {
    let (schema, target) = (place.tenant.id.schema(), target.tenant.id);
    service
        .sql()
        .await
        .batch_execute(&format!(
            "CREATE FUNCTION public.refuse() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
             BEGIN
               RAISE EXCEPTION 'freehold: tenant context refused'
                 USING ERRCODE = '42501', DETAIL = 'tenant={target}';
             END $$;
             ALTER POLICY tenant_isolation ON {schema}.{table} USING ((SELECT public.refuse()))"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn each_kind_is_one_event_and_one_count_with_who_and_where() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let viewer = service.person(&acme, "viewer", Role::Viewer).await;
    mislead(&service, &acme, "customers", &globex).await;
    let (own, other) = (acme.tenant.id.to_string(), globex.tenant.id.to_string());
    let nobodys = uuid::Uuid::new_v4().to_string();
    let forged = format!("{}x", acme.owner.token);
    let product = json!({"sku": "X", "name": "X", "price_cents": 1});

    let id = |person: &Person| person.id.to_string();
    let (owner, viewer_id, operator_id) = (id(&acme.owner), id(&viewer), id(&operator));
    let orders = || service.get("/v1/data/orders");
    let by_acme = || orders().by(&acme.owner);

    // The request; status and code of its answer; and the event: kind, tenant, actor, target, SQLSTATE.
    type Case<'a> = (Call, u16, &'a str, [&'a str; 5]);
    let (mismatch, scope) = ("token_tenant_mismatch", "wrong_scope");
    let cases: Vec<Case> = vec![
        (
            service.get("/v1/data/customers?email=neq.hush").by(&acme.owner),
            403,
            "isolation_violation",
            ["context_refused", &own, &owner, &other, "42501"],
        ),
        (
            by_acme().header("x-tenant-id", &other),
            403,
            "tenant_mismatch",
            [mismatch, &own, &owner, &other, ""],
        ),
        (
            by_acme().header("x-tenant-id", &own).header("x-tenant-id", &nobodys),
            403,
            "tenant_mismatch",
            [mismatch, &own, &owner, &nobodys, ""],
        ),
        (
            by_acme().header("x-tenant-id", "globex"),
            403,
            "tenant_mismatch",
            [mismatch, &own, &owner, "", ""],
        ),
        (
            service.get("/v1/tenants").by(&operator).header("x-tenant-id", &other),
            403,
            "tenant_mismatch",
            [mismatch, "", &operator_id, &other, ""],
        ),
        (
            service.get("/v1/tenants").by(&acme.owner),
            403,
            "wrong_scope",
            [scope, &own, &owner, "", ""],
        ),
        (orders().by(&operator), 403, "wrong_scope", [scope, "", &operator_id, "", ""]),
        (
            service.post("/v1/data/products", product).by(&viewer),
            403,
            "forbidden",
            ["write_refused", &own, &viewer_id, "", ""],
        ),
        (
            service.delete(&format!("/v1/members/{owner}")).by(&viewer),
            403,
            "forbidden",
            ["write_refused", &own, &viewer_id, "", ""],
        ),
        (
            service.get("/v1/me").bearer(&forged),
            401,
            "invalid_token",
            ["forged_token", "", "", "", ""],
        ),
    ];
    for (n, (call, status, code, expected)) in cases.into_iter().enumerate() {
        let kind = expected[0];
        let (events, count) =
            (list(&service, &operator, "").await.len(), counted(&service, kind).await);
        let id = format!("case-{n}");
        let answer = call.header("x-request-id", &id).send().await.refused(status, code);
        assert!(!answer.text().contains(&other), "{id}: the answer names another tenant");
        let now = list(&service, &operator, "").await;
        assert_eq!(now.len(), events + 1, "{id}: {now:#?}");
        assert_eq!(counted(&service, kind).await, count + 1, "{id}");
        let event = &now[0];
        let told = ["kind", "tenant", "actor", "target", "sqlstate"]
            .map(|name| event[name].as_str().unwrap_or_default());
        assert_eq!(told, expected, "{id}");
        assert_eq!((&event["count"], &event["request_id"]), (&json!(1), &json!(id)));
        assert!(!event.to_string().contains("hush"), "{id}: a value is kept: {event}");
        if kind == "context_refused" {
            assert!(text(&event["statement"]).contains("customers"), "{event}");
        }
    }
}

/// The answer to a refused caller, byte for byte the same as without any record.
#[tokio::test]
async fn a_refusal_tells_the_caller_nothing_of_what_was_recorded() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    mislead(&service, &acme, "customers", &globex).await;
    let problem = |answer: Answer, detail: &str, status: u16, title: &str, code: &str| {
        let expected = json!({
            "status": status, "title": title, "detail": detail, "code": code, "message": detail,
        });
        assert_eq!(answer.json(), expected);
        let mut headers: Vec<_> =
            answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
        headers.sort();
        headers.retain(|name| !["content-length", "www-authenticate"].contains(&name.as_str()));
        let usual = [
            "cache-control",
            "content-security-policy",
            "content-type",
            "referrer-policy",
            "x-content-type-options",
            "x-frame-options",
            "x-request-id",
        ];
        assert_eq!(headers, usual);
    };
    let get = async |path: &str, header: (&str, &str)| {
        service.get(path).by(&acme.owner).header(header.0, header.1).send().await
    };
    let refused = get("/v1/data/customers", ("accept", "*/*")).await;
    let detail = "the tenant context was refused";
    problem(refused, detail, 403, "Forbidden", "isolation_violation");
    let other = globex.tenant.id.to_string();
    let mismatch = get("/v1/data/orders", ("x-tenant-id", &other)).await;
    let detail = "the header X-Tenant-Id and the token do not name the same tenant";
    problem(mismatch, detail, 403, "Forbidden", "tenant_mismatch");
    let scope = get("/v1/violations", ("accept", "*/*")).await;
    let detail = "this takes an operator's token, and a tenant's was sent";
    problem(scope, detail, 403, "Forbidden", "wrong_scope");
    let forged = service.get("/v1/me").bearer(&format!("{}x", acme.owner.token)).send().await;
    let detail = "the access token is not valid; sign in again";
    problem(forged, detail, 401, "Unauthorized", "invalid_token");
}

#[tokio::test]
async fn a_write_that_the_database_refuses_is_recorded_by_its_statement() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let member = service.person(&acme, "member", Role::Member).await;
    let schema = acme.tenant.id.schema();
    let revoke = format!("REVOKE INSERT ON {schema}.products FROM freehold_member");
    service.sql().await.batch_execute(&revoke).await.unwrap();
    let product = json!({"sku": "hush", "name": "hush", "price_cents": 1});
    service.post("/v1/data/products", product).by(&member).send().await.refused(403, "forbidden");
    let events = list(&service, &operator, "").await;
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!((&event["kind"], &event["sqlstate"]), (&json!("write_refused"), &json!("42501")));
    assert_eq!(event["actor"], json!(member.id));
    assert!(text(&event["statement"]).contains("products"), "{event}");
    assert!(!event.to_string().contains("hush"), "a value is kept: {event}");
}

#[tokio::test]
async fn what_is_refused_without_anybody_reaching_for_anything_is_no_event() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let viewer = service.person(&acme, "viewer", Role::Viewer).await;
    let id = acme.tenant.id.to_string();
    let expired = freehold::tokens::Subject {
        identity: acme.owner.id,
        session: uuid::Uuid::new_v4(),
        tenant: Some(acme.tenant.id.as_uuid()),
        role: "owner".to_owned(),
    };
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    let expired = service.tokens.issue(&expired, Duration::from_secs(60), past).unwrap();
    for (call, status) in [
        (service.get("/v1/data/orders").by(&acme.owner).header("x-tenant-id", &id), 200),
        (service.get("/v1/data/nothing").by(&acme.owner), 404),
        (service.get("/v1/data/orders?colour=eq.1").by(&acme.owner), 400),
        (service.get("/v1/invitations").by(&viewer), 403),
        (service.get("/v1/me").bearer(&expired), 401),
        (service.get("/v1/me").bearer("hello"), 401),
        (service.get("/v1/me"), 401),
    ] {
        call.send().await.expect(status);
    }
    assert_eq!(list(&service, &operator, "").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_flood_is_a_few_rows_and_every_one_of_it_is_counted() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let began = std::time::Instant::now();
    let forged = format!("{}x", acme.owner.token);
    let answers = join_all((0..500).map(|_| service.get("/v1/me").bearer(&forged).send())).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    let seconds = began.elapsed().as_secs() as usize;
    let events = list(&service, &operator, "?kind=forged_token").await;
    assert!(events.len() <= seconds + 2, "{} rows in {seconds} s", events.len());
    assert_eq!(events.iter().map(|event| event["count"].as_u64().unwrap()).sum::<u64>(), 500);
    assert_eq!(counted(&service, "forged_token").await, 500);
}

#[tokio::test]
async fn while_the_database_is_away_refusals_are_as_quick_and_are_written_later() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let url = service.database().superuser_url();
    let database = url.rsplit_once('/').unwrap().1;
    let admin = connect(&admin_url()).await;
    let allow = async |allowed: bool| {
        let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}");
        admin.batch_execute(&sql).await.unwrap();
    };
    allow(false).await;
    let end = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    admin.batch_execute(&end).await.unwrap();
    let began = std::time::Instant::now();
    let forged = format!("{}x", acme.owner.token);
    for _ in 0..50 {
        let call = service.get("/v1/me").bearer(&forged).header("x-request-id", "away");
        call.send().await.refused(401, "invalid_token");
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for n in 0..1200 {
        let violation = Violation::new(ViolationKind::WrongScope).because(n.to_string());
        service.freehold.violations().record(violation);
    }
    let metrics = service.get("/metrics").send().await.expect(200).text();
    let dropped =
        metrics.lines().find_map(|l| l.strip_prefix("freehold_violations_dropped_total "));
    let dropped: u64 = dropped.unwrap().parse().unwrap();
    assert!(dropped >= 200, "{metrics}");
    allow(true).await;
    eventually("those that waited are written", SOON, async || {
        let sql = service.sql().await;
        let sum = "SELECT coalesce(sum(count), 0)::bigint FROM freehold.violation";
        let written: i64 = sql.query_one(sum, &[]).await.unwrap().get(0);
        written as u64 + dropped == 1250
    })
    .await;
    assert_eq!(list(&service, &operator, "?limit=1").await.len(), 1);
}

#[tokio::test]
async fn operators_page_and_choose_and_nobody_else_sees_any() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let (own, other) = (acme.tenant.id.to_string(), globex.tenant.id.to_string());
    for _ in 0..3 {
        let call = service.get("/v1/data/orders").by(&acme.owner).header("x-tenant-id", &other);
        call.send().await.expect(403);
        service.freehold.violations().flush().await.unwrap();
        service.get("/v1/tenants").by(&globex.owner).send().await.expect(403);
    }
    let all = list(&service, &operator, "").await;
    let by = |tenant: &str| {
        all.iter().filter(|e| e["tenant"] == tenant || e["target"] == tenant).count()
    };
    for (tenant, kind) in [(&own, None), (&other, None), (&other, Some("wrong_scope"))] {
        let kind_query = kind.map(|kind| format!("&kind={kind}")).unwrap_or_default();
        let chosen = list(&service, &operator, &format!("?tenant={tenant}{kind_query}")).await;
        match kind {
            None => assert_eq!(chosen.len(), by(tenant)),
            Some(kind) => assert!(!chosen.is_empty() && chosen.iter().all(|e| e["kind"] == kind)),
        }
    }
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page = list(&service, &operator, &format!("?limit=2{after}")).await;
        let Some(last) = page.last() else { break };
        after = format!("&after={}", text(&last["id"]));
        paged.extend(page);
    }
    assert_eq!(paged, all);
    for query in ["?kind=other", "?tenant=acme", "?after=1", "?limit=x", "?colour=1"] {
        let path = format!("/v1/violations{query}");
        service.get(&path).by(&operator).send().await.refused(400, "invalid_input");
        service.get(&path).by(&acme.owner).send().await.refused(403, "wrong_scope");
        service.get(&path).send().await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn an_event_appears_without_anybody_asking_for_it() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    service.get("/v1/tenants").by(&acme.owner).send().await.expect(403);
    eventually("it is listed", SOON, async || {
        let page = service.get("/v1/violations").by(&operator).send().await.expect(200).json();
        page["items"].as_array().unwrap().len() == 1
    })
    .await;
}
