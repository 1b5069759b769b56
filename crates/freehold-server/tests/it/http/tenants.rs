//! Tenants, for operators: races for a slug, repeated requests, and invalid names.

use std::collections::BTreeMap;
use std::time::Duration;

use freehold::Role;
use freehold::control::people::PersonRef;
use freehold::testing::PASSWORD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Person, SOON, Service, Setup, eventually, text};

struct Office {
    service: Service,
    operator: Person,
}

impl Office {
    async fn open() -> Office {
        let service = Service::start(Setup::default()).await;
        let operator = service.operator().await;
        Office { service, operator }
    }

    async fn create(&self, body: Value, key: Option<&str>) -> Answer {
        let call = self.service.post("/v1/tenants", body).by(&self.operator);
        match key {
            Some(key) => call.header("idempotency-key", key).send().await,
            None => call.send().await,
        }
    }

    /// The schemas that look like a tenant's, and the tenants that there are.
    async fn schemas_and_tenants(&self) -> (Vec<String>, Vec<String>) {
        let sql = self.service.sql().await;
        let mut names = Vec::new();
        for query in [
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%' ORDER BY 1",
            "SELECT 'tenant_' || replace(id::text, '-', '') FROM freehold.tenant ORDER BY 1",
        ] {
            let rows = sql.query(query, &[]).await.unwrap();
            names.push(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>());
        }
        let tenants = names.pop().unwrap();
        (names.pop().unwrap(), tenants)
    }
}

fn tally(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.status).or_default() += 1;
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_ask_for_one_slug_one_gets_it() {
    let office = Office::open().await;
    let body = json!({"slug": "acme", "name": "Acme"});
    let answers = join_all((0..1000).map(|_| office.create(body.clone(), None))).await;
    assert_eq!(tally(&answers), BTreeMap::from([(201, 1), (409, 999)]));
    for answer in answers.into_iter().filter(|answer| answer.status == 409) {
        let answer = answer.refused(409, "slug_taken");
        assert_eq!(answer.json()["field"], "slug");
    }
    let (schemas, tenants) = office.schemas_and_tenants().await;
    assert_eq!((schemas.len(), &schemas), (1, &tenants), "a loser left something behind");
}

/// With an owner too, whose password is costly to hash, and under different keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_bring_an_owner_and_a_key_one_gets_the_slug() {
    let office = Office::open().await;
    let answers = join_all((0..1000).map(|n| {
        let owner = json!({"email": format!("owner{n}@acme.example"), "password": PASSWORD});
        let body = json!({"slug": "acme", "name": "Acme", "owner": owner});
        let call = office.service.post("/v1/tenants", body).by(&office.operator);
        call.header("idempotency-key", &format!("key {n}")).send()
    }));
    let answers = answers.await;
    assert_eq!(tally(&answers), BTreeMap::from([(201, 1), (409, 999)]));
    for answer in answers.into_iter().filter(|answer| answer.status == 409) {
        answer.refused(409, "slug_taken");
    }
    let (schemas, tenants) = office.schemas_and_tenants().await;
    assert_eq!((schemas.len(), &schemas), (1, &tenants), "a loser left something behind");
    // One tenant, the operator and its owner, one membership, no invitation, one key.
    assert_eq!(office.service.catalog_counts().await, [1, 2, 1, 0, 1]);
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_first_answer() {
    let office = Office::open().await;
    let owner = json!({"email": "owner@acme.example", "password": PASSWORD});
    let body = json!({"slug": "acme", "name": "Acme", "owner": owner});
    let answers = join_all((0..10).map(|_| office.create(body.clone(), Some("key 1")))).await;
    let first = answers[0].clone().expect(201).json();
    for answer in answers {
        assert_eq!(answer.expect(201).json(), first);
    }
    for other in
        [json!({"slug": "globex", "name": "Globex"}), json!({"slug": "acme", "name": "Acme"})]
    {
        office.create(other, Some("key 1")).await.refused(409, "idempotency_key_reused");
    }
    // Another key is another request, and another operator's key another key.
    office.create(body.clone(), Some("key 2")).await.refused(409, "slug_taken");
    let globex = json!({"slug": "globex", "name": "Globex"});
    let context = freehold::OperatorContext::system("a test");
    let named = PersonRef {
        email: "op@x.example".to_owned(),
        password: Some(PASSWORD.to_owned()),
        existing: false,
    };
    let other = office.service.freehold.operators().create(&context, named);
    let other = other.await.unwrap().id.as_uuid();
    office.service.database().open_session(other).await.unwrap();
    let other = office.service.token(other, None, freehold::Role::Operator);
    let call = office.service.post("/v1/tenants", globex).bearer(&other);
    let made = call.header("idempotency-key", "key 1").send().await.expect(201).json();
    assert_ne!(made["id"], first["id"]);
    let (schemas, tenants) = office.schemas_and_tenants().await;
    assert_eq!((schemas.len(), &schemas), (2, &tenants));
}

#[tokio::test]
async fn a_key_whose_first_request_failed_is_still_good() {
    let office = Office::open().await;
    let body = json!({"slug": "acme", "name": "Acme"});
    let made = office.create(body.clone(), None).await.expect(201).json();
    office.create(body.clone(), Some("key")).await.refused(409, "slug_taken");
    let globex = json!({"slug": "globex", "name": "Globex"});
    let second = office.create(globex, Some("key")).await.expect(201).json();
    assert_ne!(second["id"], made["id"]);
}

#[tokio::test]
async fn an_idempotency_key_comes_once_and_is_plain() {
    let office = Office::open().await;
    let body = json!({"slug": "acme", "name": "Acme"});
    for key in ["", &"k".repeat(256), "schlüssel"] {
        let answer = office.create(body.clone(), Some(key)).await.refused(400, "invalid_input");
        assert_eq!(answer.json()["field"], "Idempotency-Key");
    }
    let call = office.service.post("/v1/tenants", body).by(&office.operator);
    let call = call.header("idempotency-key", "a").header("idempotency-key", "a");
    call.send().await.refused(400, "invalid_input");
    assert_eq!(office.schemas_and_tenants().await.1.len(), 0);
}

#[tokio::test]
async fn slugs_that_are_no_plain_names_are_refused_and_leave_nothing() {
    let office = Office::open().await;
    let long = "a".repeat(64);
    for slug in [
        "",
        "ab",
        &long,
        "Acme",
        "ACME",
        "1acme",
        "-acme",
        "acme-",
        "a--b",
        "xn--80ak6aa92e",
        "ac me",
        " acme",
        "acme ",
        "acme\n",
        "acme\r\nSet-Cookie: a=b",
        "acme\u{0}",
        "ac_me",
        "acme.example",
        "acme'",
        "acme\"",
        "acme;drop schema public",
        "acme/../globex",
        "acme%2e",
        "асme",
        "ａcme",
        "ac\u{200b}me",
        "acme\u{301}",
        "ﬁsh",
        "pg-catalog",
        "pg_catalog",
        "public",
        "admin",
        "api",
        "www",
        "freehold",
        "freehold-template",
        "template",
        "postgres",
        "tenant",
        "operator",
        "signup",
        "me",
    ] {
        let answer = office.create(json!({"slug": slug, "name": "X"}), None).await;
        let answer = answer.refused(400, "invalid_input");
        assert_eq!(answer.json()["field"], "slug", "{slug:?}: {}", answer.text());
    }
    assert_eq!(office.schemas_and_tenants().await, (vec![], vec![]));
    for slug in ["abc", "a1b", "a-b-c", &"a".repeat(63), "pgx", "publicity"] {
        let made = office.create(json!({"slug": slug, "name": "X"}), None).await.expect(201);
        assert_eq!(made.json()["slug"], slug);
    }
}

#[tokio::test]
async fn a_tenants_schema_is_named_by_its_id_alone() {
    let office = Office::open().await;
    let name = r#"Robert'); DROP SCHEMA "freehold" CASCADE; -- 🏡"#;
    let made = office.create(json!({"slug": "acme", "name": name}), None).await.expect(201).json();
    assert_eq!(made["name"], name);
    let schema = format!("tenant_{}", text(&made["id"]).replace('-', ""));
    assert_eq!(office.schemas_and_tenants().await, (vec![schema.clone()], vec![schema]));
}

#[tokio::test]
async fn an_owner_who_cannot_be_made_leaves_no_tenant() {
    let office = Office::open().await;
    let service = &office.service;
    let counts = service.catalog_counts().await;
    for (owner, field) in [
        (json!({"email": "owner", "password": PASSWORD}), "email"),
        (json!({"email": "owner@acme.example", "password": "short"}), "password"),
    ] {
        let body = json!({"slug": "acme", "name": "Acme", "owner": owner});
        let answer = office.create(body, None).await.refused(400, "invalid_input");
        assert_eq!(answer.json()["field"], field, "{}", answer.text());
    }
    assert_eq!(service.catalog_counts().await, counts);
    let owner = json!({"email": "owner@acme.example", "password": PASSWORD});
    let body = json!({"slug": "acme", "name": "Acme", "owner": owner});
    office.create(body, None).await.expect(201);
    // A known person must be named explicitly, and keeps their own password.
    let with = |owner: Value| json!({"slug": "globex", "name": "Globex", "owner": owner});
    for (owner, status, code, field) in [
        (json!({"email": "OWNER@acme.example"}), 409, "email_taken", "email"),
        (
            json!({"email": "owner@acme.example", "password": "another one"}),
            409,
            "email_taken",
            "email",
        ),
        (
            json!({"email": "owner@acme.example", "password": "another one", "existing": true}),
            400,
            "invalid_input",
            "password",
        ),
        (json!({"email": "x@acme.example", "existing": true}), 404, "not_found", "email"),
    ] {
        let answer = office.create(with(owner), None).await.refused(status, code);
        assert_eq!(answer.json()["field"], field, "{}", answer.text());
    }
    let owner = json!({"email": "OWNER@acme.example", "existing": true});
    office.create(with(owner), None).await.expect(201);
    let body = json!({"email": "owner@acme.example", "password": PASSWORD, "tenant": "globex"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
}

#[tokio::test]
async fn the_fleet_is_listed_in_pages() {
    let office = Office::open().await;
    for slug in ["ccc", "aaa", "ddd", "bbb"] {
        office.create(json!({"slug": slug, "name": slug}), None).await.expect(201);
    }
    let list = async |query: &str| {
        let answer = office.service.get(&format!("/v1/tenants{query}")).by(&office.operator);
        let page = answer.send().await.expect(200).json();
        let slugs: Vec<_> =
            page["items"].as_array().unwrap().iter().map(|t| text(&t["slug"])).collect();
        slugs.join(" ")
    };
    assert_eq!(list("").await, "aaa bbb ccc ddd");
    assert_eq!(list("?limit=2").await, "aaa bbb");
    assert_eq!(list("?limit=2&after=bbb").await, "ccc ddd");
    assert_eq!(list("?after=ddd").await, "");
    assert_eq!(list("?limit=0").await, "aaa", "a page has a row at least");
    assert_eq!(list("?limit=100000000").await, "aaa bbb ccc ddd");
    for query in
        ["?limit=x", "?limit=1.5", "?limit=99999999999999999999", "?page=2", "?limit=1&limit=2"]
    {
        let call = office.service.get(&format!("/v1/tenants{query}")).by(&office.operator);
        call.send().await.refused(400, "invalid_input");
    }
}

#[tokio::test]
async fn a_tenant_is_shown_suspended_and_resumed_and_twice_is_no_error() {
    let office = Office::open().await;
    let made =
        office.create(json!({"slug": "acme", "name": "Acme"}), None).await.expect(201).json();
    let path = format!("/v1/tenants/{}", text(&made["id"]));
    let shown = office.service.get(&path).by(&office.operator).send().await.expect(200).json();
    assert_eq!(shown, made);
    for (what, status) in [
        ("suspend", "suspended"),
        ("suspend", "suspended"),
        ("resume", "active"),
        ("resume", "active"),
    ] {
        let call = office.service.call("POST", &format!("{path}/{what}")).by(&office.operator);
        assert_eq!(call.send().await.expect(200).json()["status"], status);
    }
    for id in
        [Uuid::new_v4().to_string(), Uuid::nil().to_string(), "acme".to_owned(), "%00".to_owned()]
    {
        for (method, path) in [
            ("GET", "/v1/tenants/{id}"),
            ("POST", "/v1/tenants/{id}/suspend"),
            ("POST", "/v1/tenants/{id}/resume"),
        ] {
            let call = office.service.call(method, &path.replace("{id}", &id)).by(&office.operator);
            call.send().await.refused(404, "not_found");
        }
    }
}

#[tokio::test]
async fn an_operator_weighs_a_tenant() {
    let office = Office::open().await;
    let made =
        office.create(json!({"slug": "acme", "name": "Acme"}), None).await.expect(201).json();
    assert_eq!(made["weight"], 1);
    let path = format!("/v1/tenants/{}", text(&made["id"]));
    let weigh = |body: Value| {
        office.service.call("PUT", &format!("{path}/weight")).by(&office.operator).json(&body)
    };
    assert_eq!(weigh(json!({"weight": 3})).send().await.expect(200).json()["weight"], 3);
    for weight in [0, -1, 101, 40_000] {
        weigh(json!({"weight": weight})).send().await.refused(400, "invalid_input");
    }
    weigh(json!({})).send().await.refused(400, "invalid_input");
    let shown = office.service.get(&path).by(&office.operator).send().await.expect(200).json();
    assert_eq!(shown["weight"], 3);
    let path = format!("/v1/tenants/{}/weight", Uuid::new_v4());
    let call = office.service.call("PUT", &path).by(&office.operator);
    call.json(&json!({"weight": 3})).send().await.refused(404, "not_found");
}

#[tokio::test]
async fn a_creation_that_is_given_up_leaves_nothing() {
    let office = Office::open().await;
    office.create(json!({"slug": "warm", "name": "Warm"}), None).await.expect(201);
    let mut made = 0;
    for n in 0..12 {
        let slug = format!("gone{n}");
        let create = office.create(json!({"slug": slug, "name": slug}), None);
        // The client goes away at another moment each time.
        let within = Duration::from_millis(3 * n);
        made += usize::from(tokio::time::timeout(within, create).await.is_ok());
    }
    // The pending transaction is rolled back before its owner connection is used again.
    office.create(json!({"slug": "after", "name": "After"}), None).await.expect(201);
    eventually("nothing is half there", SOON, async || {
        let (schemas, tenants) = office.schemas_and_tenants().await;
        schemas == tenants && tenants.len() >= made + 2
    })
    .await;
    let (row, baseline) = (
        "SELECT count(*) FROM freehold.tenant t WHERE version <> 3
           OR (SELECT count(*) FROM freehold.ledger l WHERE l.tenant_id = t.id) <> 3",
        0_i64,
    );
    let half: i64 = office.service.sql().await.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(half, baseline, "a tenant is half made");
}

#[tokio::test]
async fn a_key_is_its_callers_own() {
    let office = Office::open().await;
    office.create(json!({"slug": "aaa", "name": "A"}), Some("one key")).await.expect(201);
    let other = Uuid::new_v4();
    let insert =
        "INSERT INTO freehold.identity (id, email, is_operator, proven_at, proven_by, proven_why)
                  VALUES ($1, 'other@freehold.example', true, now(), $1, 'a test')";
    office.service.sql().await.execute(insert, &[&other]).await.unwrap();
    office.service.database().open_session(other).await.unwrap();
    let token = office.service.token(other, None, Role::Operator);
    let post = office.service.post("/v1/tenants", json!({"slug": "bbb", "name": "B"}));
    let made = post.bearer(&token).header("idempotency-key", "one key").send().await.expect(201);
    assert_eq!(made.json()["slug"], "bbb");
}
