//! Properties that hold for any request, with a real database: no internal errors, and nothing of another
//! tenant. `./dev fuzz` tries many more cases than a test run.

use freehold::{Role, TenantId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use tokio::runtime::Runtime;

use self::requests::{Names, encode, requests, text};
use crate::support::{Answer, CANARY, Service, Setup};

/// The same that the plan's own properties are made of.
#[path = "../../../src/data/tests/requests.rs"]
mod requests;

/// Of the demo shop.
const NAMES: Names = &[
    ("customers", &["id", "email", "full_name", "phone", "city", "country_code", "created_at"]),
    ("products", &["id", "sku", "name", "price_cents", "stock", "created_at"]),
    ("orders", &["id", "customer_id", "status", "shipped_at", "created_at", "total_cents"]),
    ("order_items", &["id", "order_id", "product_id", "quantity", "unit_price_cents"]),
    ("order_notes", &["id", "order_id", "author_id", "body", "created_at"]),
    (
        "order_summary",
        &[
            "id",
            "created_at",
            "status",
            "total_cents",
            "customer_id",
            "customer_name",
            "line_count",
            "unit_count",
        ],
    ),
];

/// Checks a property of a service. Each case is a request, so there are fewer cases than for a pure property:
/// one in `share`.
fn hold<T: std::fmt::Debug>(
    share: u32,
    strategy: impl Strategy<Value = T>,
    prepare: impl AsyncFnOnce(&Service),
    property: impl AsyncFn(&Service, T) -> Result<(), TestCaseError>,
) {
    let runtime = Runtime::new().unwrap();
    let service = runtime.block_on(async {
        let service = Service::start(Setup::default()).await;
        prepare(&service).await;
        service
    });
    let cases = (Config::default().cases / share).max(1);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome =
        TestRunner::new(config).run(&strategy, |value| runtime.block_on(property(&service, value)));
    let _inside = runtime.enter();
    drop(service);
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// An answer is not an internal error, and a refusal is a problem without data of rows.
fn check(answer: &Answer) -> Result<(), TestCaseError> {
    let body = answer.text();
    prop_assert!(answer.status < 500, "{}: {}", answer.status, body);
    if answer.status >= 400 {
        prop_assert_eq!(answer.header("content-type"), "application/problem+json");
        prop_assert!(!body.contains(CANARY), "a refusal repeats what a row holds: {}", body);
    }
    Ok(())
}

#[test]
fn no_request_to_the_data_api_is_a_fault_or_reaches_another_tenant() {
    let tenants = std::sync::OnceLock::new();
    hold(
        1,
        requests(NAMES),
        async |service| {
            let (acme, globex) = service.two_tenants().await;
            // Its rows may be changed; so that acme's are there to the end, acme only reads.
            let writer = service.tenant("initech").await;
            let before = service.fingerprint(&globex).await;
            tenants.set((acme, globex, writer, before)).ok().unwrap();
        },
        async |service, request| {
            let (acme, _, writer, _) = tenants.get().unwrap();
            let by = match request.method {
                "GET" | "HEAD" => &acme.owner,
                _ => &writer.owner,
            };
            let path = format!("/v1/data/{}?{}", encode(&request.table), request.query);
            let mut call = service.call(request.method, &path).by(by).body(request.body);
            for (name, value) in request.headers {
                call = call.header(name, value);
            }
            let answer = call.send_unchecked().await;
            check(&answer)?;
            prop_assert!(!answer.text().contains("globex"), "{}", answer.text());
            Ok(())
        },
    );
}

#[test]
fn what_writes_do_to_one_tenant_they_do_to_no_other() {
    let tenants = std::sync::OnceLock::new();
    let writes = requests(NAMES).prop_filter("writes", |r| !["GET", "HEAD"].contains(&r.method));
    hold(
        8,
        writes,
        async |service| {
            let (acme, globex) = service.two_tenants().await;
            let before = service.fingerprint(&globex).await;
            tenants.set((acme, globex, before)).ok().unwrap();
        },
        async |service, request| {
            let (acme, globex, before) = tenants.get().unwrap();
            let path = format!("/v1/data/{}?{}", encode(&request.table), request.query);
            let call = service.call(request.method, &path).by(&acme.owner).body(request.body);
            check(&call.send_unchecked().await)?;
            prop_assert_eq!(&service.fingerprint(globex).await, before);
            Ok(())
        },
    );
}

#[test]
fn no_token_but_the_services_own_is_taken() {
    let token = std::sync::OnceLock::new();
    // A change at a place: the token's own character there is swapped, dropped or doubled.
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<char>());
    hold(
        1,
        change,
        async |service| {
            let acme = service.tenant("acme").await;
            token.set((acme.owner.token.clone(), acme)).ok().unwrap();
        },
        async |service, (at, how, by)| {
            let (token, _) = token.get().unwrap();
            let mut changed: Vec<char> = token.chars().collect();
            let at = at.index(changed.len());
            match how {
                0 => changed[at] = by,
                1 => drop(changed.remove(at)),
                2 => changed.insert(at, changed[at]),
                _ => changed.truncate(at),
            }
            let changed: String = changed.into_iter().collect();
            let fits = changed.chars().all(|c| c == '\t' || !c.is_control());
            if changed.trim() == token || !fits {
                return Ok(());
            }
            let answer = service.get("/v1/me").bearer(&changed).send_unchecked().await;
            prop_assert_eq!(answer.status, 401, "{}", changed);
            Ok(())
        },
    );
}

#[test]
fn no_body_of_sign_in_is_a_fault() {
    let paths = ["/v1/auth/refresh", "/v1/auth/logout", "/v1/auth/login", "/v1/invitations/accept"];
    let body = prop_oneof![
        (text(), text(), text()).prop_map(|(one, two, three)| {
            json!({"refresh_token": one, "email": one, "password": two, "tenant": three, "token": one, "name": three})
                .to_string()
        }),
        text().prop_map(|token| json!({"refresh_token": token}).to_string()),
        text().prop_map(|token| json!({"refresh_token": format!("fhr_{token}")}).to_string()),
        (text(), text()).prop_map(|(email, tenant)| {
            json!({"email": email, "password": "x", "tenant": tenant}).to_string()
        }),
        (text(), text()).prop_map(|(token, name)| {
            json!({"token": format!("fhi_{token}"), "password": "a password", "name": name}).to_string()
        }),
        any::<String>(),
    ];
    hold(
        4,
        (prop::sample::select(paths.to_vec()), body),
        async |service| drop(service.tenant("acme").await),
        async |service, (path, body)| {
            let call = service.call("POST", path).header("content-type", "application/json");
            check(&call.body(body).send_unchecked().await)
        },
    );
}

#[test]
fn no_page_and_no_path_is_a_fault() {
    let people = std::sync::OnceLock::new();
    let lists = vec!["/v1/members", "/v1/invitations", "/v1/tenants"];
    let objects = vec![
        ("DELETE", "/v1/members/"),
        ("PATCH", "/v1/members/"),
        ("DELETE", "/v1/invitations/"),
        ("GET", "/v1/tenants/"),
        ("POST", "/v1/tenants/zz/suspend/"),
        ("GET", "/v1/data/"),
    ];
    let list = (prop::sample::select(lists), text(), text()).prop_map(|(list, after, limit)| {
        ("GET", format!("{list}?after={}&limit={}", encode(&after), encode(&limit)))
    });
    let object = (prop::sample::select(objects), text())
        .prop_map(|((method, path), id)| (method, format!("{path}{}", encode(&id))));
    hold(
        2,
        prop_oneof![list, object],
        async |service| {
            let acme = service.tenant("acme").await;
            people.set((acme.owner.clone(), service.operator().await)).ok().unwrap();
        },
        async |service, (method, path)| {
            let (owner, operator) = people.get().unwrap();
            let by = if path.starts_with("/v1/tenants") { operator } else { owner };
            let call =
                service.call(method, &path).by(by).header("content-type", "application/json");
            check(&call.body(r#"{"role":"viewer"}"#).send_unchecked().await)
        },
    );
}

/// For any slug, name and key: a tenant or a refusal; the same request again has the same answer, and the
/// same key with another body is refused.
#[test]
fn any_slug_name_and_idempotency_key_make_a_tenant_once_or_none() {
    let operator = std::sync::OnceLock::new();
    let slug = prop_oneof!["[a-z][a-z0-9-]{1,12}", text()];
    let key = prop_oneof!["[ -~]{1,40}", text()];
    hold(
        8,
        (slug, text(), key),
        async |service| operator.set(service.operator().await).ok().unwrap(),
        async |service, (slug, name, key)| {
            let operator = operator.get().unwrap();
            let Ok(key) = http::HeaderValue::from_str(&key) else { return Ok(()) };
            let post = async |name: &str| {
                let body = json!({"slug": slug, "name": name});
                let call = service.post("/v1/tenants", body).by(operator);
                call.header_value("idempotency-key", key.clone()).send_unchecked().await
            };
            let first = post(&name).await;
            check(&first)?;
            prop_assert!([201, 400, 409].contains(&first.status), "{}", first.status);
            if first.status != 201 {
                return Ok(());
            }
            let made = first.json();
            prop_assert_eq!(&made["slug"], &json!(slug));
            prop_assert_eq!(post(&name).await.json(), made.clone());
            prop_assume!(name.trim() != "Another");
            prop_assert_eq!(post("Another").await.status, 409);
            let id: uuid::Uuid = made["id"].as_str().unwrap().parse().unwrap();
            let schema = TenantId::from(id).schema();
            let count = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
            let row = service.sql().await.query_one(count, &[&schema]).await.unwrap();
            prop_assert_eq!(row.get::<_, i64>(0), 1);
            Ok(())
        },
    );
}

#[test]
fn no_role_is_read_from_a_text_that_is_none() {
    let runner = &mut TestRunner::default();
    let property = |text: String| {
        let known = ["viewer", "member", "admin", "owner"].contains(&text.as_str());
        prop_assert_eq!(Role::parse_in_tenant(&text).is_ok(), known);
        Ok(())
    };
    runner.run(&prop_oneof![text(), "[a-z]{5,6}", Just("operator".to_owned())], property).unwrap();
}
