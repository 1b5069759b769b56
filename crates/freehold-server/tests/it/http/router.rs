//! Every route × every object of another tenant: it is answered as one that does not exist.

use freehold::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::{self, By, Objects, sample};
use crate::support::{Answer, CANARY, Person, Place, Service, Setup};

/// Operations that name no tenant's object. This list may only shrink.
const EXCEPTIONS: [(&str, &str, &str); 13] = [
    ("POST", "/v1/auth/refresh", "the token is its own authorization: whoever holds it is served"),
    ("POST", "/v1/auth/logout", "the token is its own authorization, as above"),
    ("POST", "/v1/invitations/accept", "the token is its own authorization, as above"),
    ("POST", "/v1/signup/confirm", "the token is its own authorization, as above"),
    ("POST", "/v1/auth/reset/confirm", "the token is its own authorization, as above"),
    ("POST", "/v1/auth/address/confirm", "the token is its own authorization, as above"),
    ("POST", "/v1/links/inspect", "the token is its own authorization, as above"),
    ("DELETE", "/v1/me/sessions", "names nothing; it would end what the other cases stand on"),
    ("POST", "/v1/signup", "a slug is a public name: who signs up must hear that it is taken"),
    ("GET", "/livez", "says that the process runs, to anybody"),
    ("GET", "/readyz", "says that the service can work, to anybody"),
    ("GET", "/metrics", "counts of the whole service; kept from the public by the network"),
    ("GET", "/openapi.json", "the same for everybody"),
];

fn is_exception(method: &str, path: &str) -> bool {
    EXCEPTIONS.iter().any(|(m, p, _)| (*m, *p) == (method, path))
}

#[test]
fn every_endpoint_has_an_isolation_case() {
    let caller = Person { id: Uuid::nil(), email: String::new(), token: String::new() };
    let objects = Objects::of_nobody();
    let operations = operations::all();
    for (method, path) in &operations {
        let case = sample(method, path, &objects, &caller);
        assert!(
            case.is_some(),
            "{method} {path} is new: write its request into operations.rs, so that it is tried \
             with the objects of another tenant"
        );
    }
    assert!(EXCEPTIONS.len() <= 13, "the list of exceptions may only shrink");
    for (method, path, _) in EXCEPTIONS {
        let known = operations.iter().any(|(m, p)| (m.as_str(), p.as_str()) == (method, path));
        assert!(known, "{method} {path} is gone: take it off the list of exceptions");
    }
}

/// Acme's owner asks for globex's things.
struct Burglary {
    service: Service,
    burglar: Person,
    acme: Place,
    globex: Place,
    theirs: Objects,
}

impl Burglary {
    async fn begin() -> Burglary {
        let service = Service::start(Setup::default()).await;
        let (acme, globex) = service.two_tenants().await;
        let theirs = Objects::of(&service, &globex).await;
        // A token of an active session, so that no request fails for lack of one.
        let token = service.sign_in(&acme.owner.email).await;
        let burglar = Person { token, ..acme.owner.clone() };
        Burglary { service, burglar, acme, globex, theirs }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let call = self.service.call(method, path).by(&self.burglar);
        match body {
            Some(body) => call.json(body).send().await,
            None => call.send().await,
        }
    }

    /// An answer to acme must contain nothing of globex.
    fn holds_nothing_of_theirs(&self, asked: &str, answer: &Answer) {
        let text = answer.text();
        let ids = self.theirs.ids().map(|id| id.to_string());
        let values = [format!("globex{CANARY}"), self.globex.owner.email.clone()];
        for value in ids.iter().chain(&values) {
            assert!(!text.contains(value), "{asked}: the answer has {value} of another tenant");
        }
    }
}

#[tokio::test]
async fn another_tenants_objects_look_like_none_on_every_route() {
    let burglary = Burglary::begin().await;
    let Burglary { service, burglar, theirs, .. } = &burglary;
    let before = service.fingerprint(&burglary.globex).await;
    let mut tried = 0;
    for (method, path) in operations::all() {
        if is_exception(&method, &path) {
            continue;
        }
        let of_nobody = Objects::of_nobody();
        let real = sample(&method, &path, theirs, burglar).unwrap();
        let unreal = sample(&method, &path, &of_nobody, burglar).unwrap();
        let asked = format!("{method} {}", real.path);
        let answer = real.call(service).by(burglar).send().await;
        let expected = unreal.call(service).by(burglar).send().await;
        burglary.holds_nothing_of_theirs(&asked, &answer);
        if (method.as_str(), path.as_str()) == ("POST", "/v1/invitations") {
            // Each invitation has its own id and token, so these are not compared.
            let shape = |answer: &Answer| {
                let keys: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
                (answer.status, keys)
            };
            assert_eq!(shape(&answer), shape(&expected), "{asked}");
        } else {
            assert_eq!(answer.bytes(), expected.bytes(), "{asked}");
        }
        if real.by == By::Operator {
            answer.refused(403, "wrong_scope");
        }
        tried += 1;
    }
    assert_eq!(tried + EXCEPTIONS.len(), operations::all().len());
    assert_eq!(service.fingerprint(&burglary.globex).await, before, "something was done to globex");
}

#[tokio::test]
async fn no_id_of_another_tenant_is_known_in_any_path() {
    let burglary = Burglary::begin().await;
    let Burglary { service, burglar, theirs, globex, .. } = &burglary;
    let before = service.fingerprint(globex).await;
    for (method, path) in operations::all().iter().filter(|(_, path)| path.contains("{id}")) {
        let body = sample(method, path, theirs, burglar).unwrap().body;
        let expected = path.replace("{id}", &Uuid::new_v4().to_string());
        let expected = burglary.ask(method, &expected, body.as_ref()).await;
        assert!([403, 404].contains(&expected.status), "{method} {path}: {}", expected.status);
        for id in theirs.ids() {
            let asked = path.replace("{id}", &id.to_string());
            let answer = burglary.ask(method, &asked, body.as_ref()).await;
            assert_eq!(answer.bytes(), expected.bytes(), "{method} {asked}");
        }
    }
    assert_eq!(service.fingerprint(globex).await, before, "something was done to globex");
}

/// Requests to the data API; `{id}` becomes the id of another tenant's row, or of none.
const DATA: [(&str, &str, &str, &str); 16] = [
    ("GET", "/v1/data/{table}?id=eq.{id}", "", ""),
    ("HEAD", "/v1/data/{table}?id=eq.{id}", "", "count=exact"),
    ("GET", "/v1/data/{table}?id=in.({id})&select=id", "", "count=exact"),
    ("GET", "/v1/data/{table}?or=(id.eq.{id},and(id.eq.{id},id.not.is.null))", "", ""),
    ("GET", "/v1/data/order_summary?id=eq.{id}", "", ""),
    ("GET", "/v1/data/order_items?order_id=eq.{id}", "", "count=exact"),
    ("PATCH", "/v1/data/{table}?id=eq.{id}", r#"{"created_at":"2020-01-01"}"#, ""),
    (
        "PATCH",
        "/v1/data/{table}?id=eq.{id}",
        r#"{"created_at":"2020-01-01"}"#,
        "return=representation",
    ),
    ("DELETE", "/v1/data/{table}?id=eq.{id}", "", ""),
    ("DELETE", "/v1/data/{table}?id=eq.{id}", "", "return=representation, count=exact"),
    ("POST", "/v1/data/orders", r#"{"customer_id":"{id}"}"#, "return=representation"),
    ("POST", "/v1/data/order_notes", r#"{"order_id":"{id}","body":"x"}"#, ""),
    (
        "POST",
        "/v1/data/order_items",
        r#"{"order_id":"{id}","product_id":"{id}","unit_price_cents":1}"#,
        "",
    ),
    ("PATCH", "/v1/data/orders?status=eq.paid", r#"{"customer_id":"{id}"}"#, ""),
    (
        "POST",
        "/v1/data/customers",
        r#"{"id":"{id}","email":"{n}@x.example","full_name":"X","city":"X","country_code":"DE"}"#,
        "return=minimal",
    ),
    (
        "POST",
        "/v1/data/products",
        r#"{"id":"{id}","sku":"N{n}","name":"X","price_cents":1}"#,
        "resolution=merge-duplicates",
    ),
];

#[tokio::test]
async fn the_data_api_knows_no_row_of_another_tenant() {
    let burglary = Burglary::begin().await;
    let Burglary { service, burglar, theirs, globex, acme, .. } = &burglary;
    let before = service.fingerprint(globex).await;
    let tables = ["customers", "products", "orders", "order_items", "order_notes"];
    let mut n = 0;
    for (method, path, body, prefer) in DATA {
        let tables = if path.contains("{table}") { &tables[..] } else { &tables[..1] };
        for table in tables {
            for id in theirs.ids().into_iter().chain([globex.id("item"), globex.id("first")]) {
                let mut answers = Vec::new();
                for id in [id, Uuid::new_v4()] {
                    n += 1;
                    let path = path.replace("{table}", table).replace("{id}", &id.to_string());
                    let body = body.replace("{id}", &id.to_string()).replace("{n}", &n.to_string());
                    let mut call = service.call(method, &path).by(burglar).body(body);
                    if !prefer.is_empty() {
                        call = call.header("prefer", prefer);
                    }
                    answers.push(call.send().await);
                }
                let asked = format!("{method} {path} {body} on {table}");
                assert_eq!(answers[0].bytes(), answers[1].bytes(), "{asked}");
            }
        }
    }
    assert_eq!(service.fingerprint(globex).await, before, "something was done to globex");
    let rows = service.get("/v1/data/orders?select=id&order=id").by(&acme.owner).send().await;
    assert_eq!(rows.json().as_array().unwrap().len(), 3, "acme's own orders are as they were");
}

#[tokio::test]
async fn no_operation_of_a_batch_knows_a_row_of_another_tenant() {
    let burglary = Burglary::begin().await;
    let Burglary { service, theirs, globex, acme, .. } = &burglary;
    let before = service.fingerprint(globex).await;
    const INDEPENDENT: &str = "/v1/batch?mode=independent";
    // Except requests that insert a row with this id, which would exist the second time.
    let cases: Vec<_> =
        DATA.into_iter().filter(|(_, _, body, _)| !body.contains(r#""id":"#)).collect();
    let mut n = 0;
    let mut operations = |table: &str, id: Uuid| -> Value {
        let operation = |(method, path, body, prefer): &(&str, &str, &str, &str)| {
            n += 1;
            let path = path.replace("{table}", table).replace("{id}", &id.to_string());
            let path = if *method == "GET" { format!("{path}&limit=9") } else { path };
            let body = body.replace("{id}", &id.to_string()).replace("{n}", &format!("B{n}"));
            let mut operation = json!({"method": method, "path": path});
            if !body.is_empty() {
                operation["body"] = serde_json::from_str(&body).unwrap();
            }
            if !prefer.is_empty() {
                operation["headers"] = json!({"Prefer": prefer});
            }
            operation
        };
        cases.iter().map(operation).collect()
    };
    for table in ["customers", "products", "orders", "order_items", "order_notes"] {
        for id in theirs.ids().into_iter().chain([globex.id("item"), globex.id("first")]) {
            let mut answers = Vec::new();
            for id in [id, Uuid::new_v4()] {
                let body = operations(table, id);
                let answer = burglary.ask("POST", INDEPENDENT, Some(&body)).await.expect(207);
                burglary.holds_nothing_of_theirs(INDEPENDENT, &answer);
                answers.push(answer.bytes());
            }
            assert_eq!(answers[0], answers[1], "{table}");
        }
        // One at a time, so that the one which fails first does not hide the rest.
        for (at, case) in cases.iter().enumerate() {
            let mut answers = Vec::new();
            for id in [globex.id("first"), Uuid::new_v4()] {
                let body = json!([operations(table, id)[at]]);
                answers.push(burglary.ask("POST", "/v1/batch", Some(&body)).await.bytes());
            }
            assert_eq!(answers[0], answers[1], "{table}: {case:?}");
        }
    }
    assert_eq!(service.fingerprint(globex).await, before, "something was done to globex");
    let rows = service.get("/v1/data/orders?select=id&order=id").by(&acme.owner).send().await;
    assert_eq!(rows.json().as_array().unwrap().len(), 3, "acme's own orders are as they were");
}

#[tokio::test]
async fn no_spelling_of_a_table_leads_into_another_schema() {
    let burglary = Burglary::begin().await;
    let schema = burglary.globex.tenant.id.schema();
    for table in [
        format!("{schema}.orders"),
        format!("{schema}%2Eorders"),
        format!("%22{schema}%22.%22orders%22"),
        "freehold.tenant".to_owned(),
        "tenant".to_owned(),
        "membership".to_owned(),
        "freehold_template.orders".to_owned(),
        "pg_class".to_owned(),
        "pg_catalog.pg_class".to_owned(),
        "information_schema.tables".to_owned(),
        "orders%00".to_owned(),
        "ORDERS".to_owned(),
        "orders;select".to_owned(),
        "..%2Forders".to_owned(),
    ] {
        let path = format!("/v1/data/{table}");
        let call = burglary.service.get(&path).by(&burglary.burglar);
        // The caller's own text comes back in the message, so the helper's rule is not for this.
        if table.contains("tenant_") {
            let answer = call.send_unchecked().await;
            assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("unknown_table")));
        } else {
            call.send().await.refused(404, "unknown_table");
        }
    }
}

#[tokio::test]
async fn what_one_tenant_cached_is_not_served_to_the_other() {
    let service = Service::start(Setup { connections: 1, ..Setup::default() }).await;
    let (acme, globex) = service.two_tenants().await;
    let viewer = service.person(&globex, "viewer", Role::Viewer).await;
    // The same words, on one connection, in turn: statements and plans are there by the end.
    for round in 0..8 {
        for (person, name) in
            [(&acme.owner, "acme"), (&globex.owner, "globex"), (&viewer, "globex")]
        {
            let path = "/v1/data/products?select=sku,name&order=sku&limit=10";
            let rows = service.get(path).by(person).send().await.expect(200).json();
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), 3, "round {round}");
            let own = rows.iter().all(|row| row["name"].as_str().unwrap().contains(name));
            assert!(own, "round {round}: {name} was given {rows:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_method_are_problems_too() {
    let service = Service::start(Setup::default()).await;
    service.get("/").send().await.refused(404, "not_found");
    service.get("/v1/nothing").send().await.refused(404, "not_found");
    service.get("/v1/me/").send().await.refused(404, "not_found");
    for (method, path, allowed) in [
        ("PUT", "/v1/data/orders", "GET"),
        ("DELETE", "/v1/me", "GET"),
        ("GET", "/v1/auth/login", "POST"),
        ("POST", "/livez", "GET"),
        ("TRACE", "/v1/tenants", "POST"),
    ] {
        let answer = service.call(method, path).send().await.refused(405, "method_not_allowed");
        assert!(answer.header("allow").contains(allowed), "{method} {path}: {answer:?}");
    }
}
