//! A person makes a tenant of their own, if the service lets people do so.

use std::collections::BTreeMap;

use freehold::testing::PASSWORD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Service, Setup, text};

fn wish(slug: &str, email: &str) -> Value {
    json!({"slug": slug, "name": "Initech", "email": email, "password": PASSWORD})
}

async fn sign_up(service: &Service, body: Value) -> Answer {
    service.post("/v1/signup", body).send().await
}

#[tokio::test]
async fn who_signs_up_owns_a_tenant_that_works() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let made = sign_up(&service, wish("initech", "Peter@Initech.example")).await.expect(201).json();
    assert_eq!((&made["slug"], &made["status"]), (&json!("initech"), &json!("active")));
    assert_eq!(made["version"], 3, "the tenant has the whole baseline");
    let tokens = service.log_in("peter@initech.example").await;
    assert_eq!((&tokens["role"], &tokens["tenant"]["id"]), (&json!("owner"), &made["id"]));
    let token = text(&tokens["access_token"]);
    let rows = service.get("/v1/data/orders").bearer(&token).send().await.expect(200).json();
    assert_eq!(rows, json!([]), "a new tenant is empty");
    let product = json!({"sku": "A", "name": "A", "price_cents": 1});
    service.post("/v1/data/products", product).bearer(&token).send().await.expect(201);
}

#[tokio::test]
async fn a_service_that_takes_no_sign_ups_says_so_and_makes_nothing() {
    let service = Service::start(Setup { signup: false, ..Setup::default() }).await;
    service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    sign_up(&service, wish("initech", "peter@initech.example")).await.refused(403, "signup_closed");
    assert_eq!(service.catalog_counts().await, counts);
}

#[tokio::test]
async fn somebody_who_is_known_proves_it_with_their_password() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    let mut stranger = wish("initech", "OWNER@acme.example");
    stranger["password"] = json!("not the password");
    sign_up(&service, stranger).await.refused(409, "email_taken");
    assert_eq!(service.catalog_counts().await, counts, "nothing was made");
    service.log_in(&acme.owner.email).await;

    sign_up(&service, wish("initech", "OWNER@acme.example")).await.expect(201);
    let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": "initech"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
    let me = service.get("/v1/me").bearer(&text(&tokens["access_token"])).send().await.json();
    assert_eq!(me["id"], json!(acme.owner.id));
    assert_eq!(me["tenants"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_rules_for_passwords_names_and_mails_hold_and_name_the_field() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    for (field, value) in [
        ("password", json!("")),
        ("password", json!("seven 7")),
        ("password", json!("          ")),
        ("password", json!("x".repeat(1025))),
        ("email", json!("")),
        ("email", json!("peter")),
        ("email", json!("peter@initech.example\r\nbcc: all@example.com")),
        ("email", json!(format!("{}@initech.example", "p".repeat(250)))),
        ("name", json!("")),
        ("name", json!("  ")),
        ("name", json!("a\u{0}b")),
        ("name", json!("a\r\nb")),
        ("name", json!("n".repeat(201))),
        ("slug", json!("Initech")),
    ] {
        let mut body = wish("initech", "peter@initech.example");
        body[field] = value.clone();
        let answer = sign_up(&service, body).await.refused(400, "invalid_input");
        assert_eq!(answer.json()["field"], field, "{value}: {}", answer.text());
    }
    assert_eq!(service.catalog_counts().await, counts, "nothing was made");
    // Eight characters are eight, in any script.
    let mut body = wish("initech", "peter@initech.example");
    body["password"] = json!("пароль12");
    sign_up(&service, body).await.expect(201);
}

#[tokio::test]
async fn a_taken_slug_makes_neither_tenant_nor_person() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    let answer = sign_up(&service, wish("acme", "peter@initech.example")).await;
    let answer = answer.refused(409, "slug_taken");
    assert_eq!(answer.json()["field"], "slug");
    assert_eq!(service.catalog_counts().await, counts);
    let body = json!({"email": "peter@initech.example", "password": PASSWORD});
    service.post("/v1/auth/login", body).send().await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn sign_ups_of_one_client_are_limited() {
    let service = Service::start(Setup { per_client: 2, ..Setup::default() }).await;
    for n in 0..3 {
        let answer = sign_up(&service, wish(&format!("shop{n}"), &format!("p{n}@x.example"))).await;
        if n < 2 {
            answer.expect(201);
        } else {
            let answer = answer.refused(429, "rate_limited");
            assert!(!answer.header("retry-after").is_empty());
        }
    }
}

/// From one address, within the limits that a server has unless it is told otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_sign_up_for_one_slug_one_gets_it() {
    let service = Service::start(Setup { per_email: 10, per_client: 60, ..Setup::default() }).await;
    for (slug, different) in [("initech", true), ("initrode", false)] {
        let before = service.catalog_counts().await;
        let answers = join_all((0..1000).map(|n| {
            let email = if different { format!("p{n}@x.example") } else { "p@x.example".into() };
            sign_up(&service, wish(slug, &email))
        }));
        let mut tally = BTreeMap::new();
        for answer in answers.await {
            *tally.entry(answer.status).or_insert(0) += 1;
            if answer.status != 201 {
                answer.refused(409, "slug_taken");
            }
        }
        assert_eq!(tally, BTreeMap::from([(201, 1), (409, 999)]), "{slug}");
        let made = service.catalog_counts().await;
        let made: Vec<_> = made.iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(made, [1, 1, 1, 0, 0], "tenant, person, membership, and nothing else");
    }
}

#[tokio::test]
async fn which_slugs_are_taken_cannot_be_asked_without_limit() {
    let service = Service::start(Setup { per_client: 3, ..Setup::default() }).await;
    for slug in ["acme", "globex", "initech", "initrode"] {
        service.tenant(slug).await;
    }
    let ask = async |n: usize, slug: &str| {
        sign_up(&service, wish(slug, &format!("p{n}@x.example"))).await
    };
    for (n, slug) in ["acme", "globex", "initech"].into_iter().enumerate() {
        ask(n, slug).await.refused(409, "slug_taken");
    }
    ask(3, "initrode").await.refused(429, "rate_limited");
    // Who was told a moment ago learns nothing by asking again.
    ask(4, "acme").await.refused(409, "slug_taken");
}

#[tokio::test]
async fn a_slug_whose_first_asker_fails_goes_to_the_next() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let mut stranger = wish("initech", &acme.owner.email);
    stranger["password"] = json!("not the password");
    let answers = join_all((0..6).map(|n| match n {
        0..3 => sign_up(&service, stranger.clone()),
        _ => sign_up(&service, wish("initech", &format!("p{n}@x.example"))),
    }));
    let mut statuses: Vec<_> = answers.await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    // Whether the strangers hear of their password or of the slug depends on who came first.
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_sign_up_that_is_sent_again_is_answered_again() {
    let service = Service::start(Setup::default()).await;
    let send = |body: Value| service.post("/v1/signup", body).header("idempotency-key", "once");
    let body = wish("initech", "peter@initech.example");
    let first = send(body.clone()).send().await.expect(201).json();
    let second = send(body.clone()).send().await.expect(201).json();
    assert_eq!(first, second);
    let mut other = body.clone();
    other["slug"] = json!("initrode");
    send(other).send().await.refused(409, "idempotency_key_reused");
    // Whoever does not know the password gets no answer of the first.
    let mut stranger = body;
    stranger["password"] = json!("not the password");
    send(stranger).send().await.refused(409, "email_taken");
}
