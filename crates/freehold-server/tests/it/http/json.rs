//! Bodies: fields that may not be set are refused by name, and malformed bodies at once.

use std::time::Instant;

use serde_json::{Value, json};

use super::operations::{self, By, Objects, sample};
use crate::support::{SOON, Service, Setup};

/// Fields that clients may try to set, and an unknown word.
const FORBIDDEN: [&str; 9] = [
    "tenant_id",
    "role",
    "id",
    "status",
    "is_operator",
    "version",
    "created_at",
    "__proto__",
    "zzz",
];

#[tokio::test]
async fn a_field_that_may_not_be_set_is_refused_as_unknown_on_every_endpoint() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let mut tried = 0;
    for (method, path) in operations::all() {
        let objects = Objects::of(&service, &acme).await;
        let request = sample(&method, &path, &objects, &acme.owner).unwrap();
        let Some(Value::Object(body)) = request.body.clone() else { continue };
        let counts = service.catalog_counts().await;
        let before = service.fingerprint(&acme).await;
        // The objects that a body may nest have fields of their own.
        let mut places = vec![None];
        places.extend(body.iter().filter(|(_, v)| v.is_object()).map(|(key, _)| Some(key.clone())));
        for field in FORBIDDEN {
            for place in &places {
                let mut body = Value::Object(body.clone());
                let target = match place {
                    Some(key) => &mut body[key],
                    None => &mut body,
                };
                // The columns of a table are the baseline's: a row may well have an id.
                let known = target.get(field).is_some()
                    || path == "/v1/data/{table}"
                        && ["id", "status", "created_at"].contains(&field);
                if known {
                    continue;
                }
                target[field] = json!(globex.tenant.id);
                let request = operations::Sample {
                    body: Some(body),
                    ..sample(&method, &path, &objects, &acme.owner).unwrap()
                };
                let call = request.call(&service);
                let call = match request.by {
                    By::Anybody => call,
                    By::Member => call.by(&acme.owner),
                    By::Operator => call.by(&operator),
                };
                let answer = call.send().await.expect(400);
                let problem = answer.json();
                let asked = format!("{method} {path} with {field}: {problem}");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(field), "{asked}");
                if path == "/v1/data/{table}" {
                    assert_eq!(problem["code"], "unknown_column", "{asked}");
                    assert_eq!(problem["field"], field, "{asked}");
                } else {
                    assert_eq!(problem["code"], "invalid_input", "{asked}");
                    assert!(detail.contains("unknown field"), "{asked}");
                }
                tried += 1;
            }
        }
        assert_eq!(service.catalog_counts().await, counts, "{method} {path} did something");
        assert_eq!(service.fingerprint(&acme).await, before, "{method} {path} did something");
    }
    assert!(tried > 80, "only {tried} bodies were tried");
}

#[tokio::test]
async fn what_is_no_sane_body_is_a_400_on_every_endpoint() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let objects = Objects::of_nobody();
    let deep = "[".repeat(100_000);
    let deep_object = format!("{}1{}", r#"{"slug":"#.repeat(20_000), "}".repeat(20_000));
    for (method, path) in operations::all() {
        let request = sample(&method, &path, &objects, &acme.owner).unwrap();
        if request.body.is_none() {
            continue;
        }
        for body in [
            &b""[..],
            b"null",
            b"[]1",
            b"\"x\"",
            b"{",
            b"{} {}",
            b"\xff\xfe",
            br#"{"email":1,"role":[],"slug":{},"tenant":5,"token":null,"refresh_token":0,"stock":{}}"#,
            deep.as_bytes(),
            deep_object.as_bytes(),
        ] {
            let caller = if request.by == By::Operator { &operator } else { &acme.owner };
            let call = service.call(&method, &request.path).by(caller);
            let began = Instant::now();
            let answer = call.header("content-type", "application/json").body(body).send().await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(answer.status, 400, "{method} {path} {shown}: {}", answer.text());
            assert!(began.elapsed() < SOON, "{method} {path} {shown}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_on_every_endpoint() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let objects = Objects::of_nobody();
    let large = format!(r#"{{"slug":"{}"}}"#, "x".repeat(300 * 1024));
    for (method, path) in operations::all() {
        let request = sample(&method, &path, &objects, &acme.owner).unwrap();
        if request.body.is_none() {
            continue;
        }
        let caller = if request.by == By::Operator { &operator } else { &acme.owner };
        let call = service.call(&method, &request.path).by(caller).body(large.clone());
        call.send().await.refused(413, "body_too_large");
    }
}
