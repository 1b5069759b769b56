//! The limits of every request, and the headers of every answer.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Service, Setup, eventually, slow_shop};

/// Long before a nap is over.
const SOON: Duration = Duration::from_secs(60);
const NAP_SECS: f64 = 3600.0;

#[tokio::test]
async fn every_answer_carries_the_requests_id() {
    let service = Service::start(Setup::default()).await;
    for path in ["/livez", "/v1/me", "/nothing", "/v1/data/orders"] {
        let answer = service.get(path).header("x-request-id", "abc-123_x.Y").send().await;
        assert_eq!(answer.header("x-request-id"), "abc-123_x.Y", "{path}");
        // One that could spoil a log or a header is replaced.
        for id in ["", "a b", "a\tb", "{\"a\":1}", &"x".repeat(65), "ünï"] {
            let answer = service.get(path).header("x-request-id", id).send().await;
            let given = answer.header("x-request-id");
            assert!(given.len() == 32 && given.bytes().all(|b| b.is_ascii_hexdigit()), "{given}");
        }
        let first = service.get(path).send().await;
        let second = service.get(path).send().await;
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_stopped_and_so_is_its_query() {
    let mut setup = Setup { baseline: slow_shop(NAP_SECS), ..Setup::default() };
    setup.http.request_timeout_ms = 400;
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    let nap = service.get("/v1/data/naps").by(&acme.owner).send();
    tokio::time::timeout(SOON, nap).await.expect("it is stopped").refused(504, "timeout");
    eventually("the query is gone", SOON, async || service.naps_under_way().await == 0).await;
    // On a busy machine this may take too long too.
    eventually("others are served", SOON, async || {
        service.get("/v1/data/orders").by(&acme.owner).send().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_query_along_and_leaves_a_clean_connection() {
    let setup = Setup { baseline: slow_shop(NAP_SECS), connections: 1, ..Setup::default() };
    let service = Service::start(setup).await;
    let (acme, globex) = service.two_tenants().await;
    for _ in 0..3 {
        let nap = service.get("/v1/data/naps").by(&acme.owner).send();
        let began = async || service.naps_under_way().await == 1;
        tokio::select! {
            answer = nap => panic!("no nap: {}", answer.text()),
            _ = eventually("the nap began", SOON, began) => {}
        }
        // The only connection serves the next tenant, without a trace of the former one.
        let rows = service.get("/v1/data/products?select=name").by(&globex.owner);
        let rows = rows.send().await.expect(200).json();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row["name"].as_str().unwrap().contains("globex")));
        eventually("the query is gone", SOON, async || service.naps_under_way().await == 0).await;
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_is_done_wholly_or_not_at_all() {
    let service = Service::start(Setup { connections: 1, ..Setup::default() }).await;
    let acme = service.tenant("acme").await;
    for n in 0..15_u64 {
        let rows: Vec<_> = (0..20)
            .map(|i| json!({"sku": format!("N{n}-{i}"), "name": "x", "price_cents": 1}))
            .collect();
        let call = service.post("/v1/data/products", json!(rows)).by(&acme.owner).send();
        let _ = tokio::time::timeout(Duration::from_micros(400 * n), call).await;
        let path = format!("/v1/data/products?select=sku&sku=like.N{n}-*");
        let there = service.get(&path).by(&acme.owner).send().await.expect(200).json();
        let there = there.as_array().unwrap().len();
        assert!([0, 20].contains(&there), "{there} of 20 rows were written");
    }
}

#[tokio::test]
async fn more_requests_than_fit_are_told_to_come_back_and_probes_still_answer() {
    let mut setup = Setup { baseline: slow_shop(6.0), ..Setup::default() };
    setup.http.max_concurrent_requests = 6;
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    let naps = (0..10).map(|_| service.get("/v1/data/naps").by(&acme.owner).send());
    let others = async {
        eventually("three naps", SOON, async || service.naps_under_way().await == 3).await;
        let answer = service.get("/v1/me").by(&acme.owner).send().await.refused(503, "overloaded");
        assert_eq!(answer.header("retry-after"), "1");
        for path in ["/livez", "/readyz", "/metrics"] {
            service.get(path).send().await.expect(200);
        }
        assert_eq!(service.naps_under_way().await, 3, "nobody had to wait for a place");
    };
    let (answers, ()) = tokio::join!(join_all(naps), others);
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(served, 3);
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.refused(503, "overloaded").header("retry-after"), "1");
    }
    service.get("/v1/me").by(&acme.owner).send().await.expect(200);
}

#[tokio::test]
async fn requests_of_one_tenant_or_client_leave_room_for_those_of_others() {
    let mut setup = Setup { baseline: slow_shop(6.0), ..Setup::default() };
    setup.http.max_concurrent_requests = 8;
    setup.http.trust_forwarded_for = true;
    let service = Service::start(setup).await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let call = |client: &str, path, person| {
        service.get(path).header("x-forwarded-for", client).by(person).send()
    };
    let naps = (0..4).map(|_| call("192.0.2.1", "/v1/data/naps", &acme.owner));
    let others = async {
        eventually("four naps", SOON, async || service.naps_under_way().await == 4).await;
        for (client, person, whose) in
            [("192.0.2.2", &acme.owner, "this tenant"), ("192.0.2.1", &globex.owner, "this client")]
        {
            let refused = call(client, "/v1/me", person).await.refused(503, "overloaded");
            assert!(refused.text().contains(whose), "{}", refused.text());
        }
        call("192.0.2.2", "/v1/me", &globex.owner).await.expect(200);
        assert_eq!(service.naps_under_way().await, 4);
    };
    let (answers, ()) = tokio::join!(join_all(naps), others);
    answers.into_iter().for_each(|answer| drop(answer.expect(200)));
}

#[tokio::test]
async fn requests_beyond_a_limit_are_refused_at_once() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let filters = "stock=gt.0&".repeat(65);
    let nested = format!("and=({}stock.gt.0{})", "and(".repeat(9), ")".repeat(9));
    let long_list = format!("sku=in.({})", vec!["X"; 501].join(","));
    let aliases: Vec<_> = (0..201).map(|n| format!("a{n}:sku")).collect();
    for (path, status, code) in [
        ("/v1/data/products?limit=101".to_owned(), 400, "limit_exceeded"),
        ("/v1/data/products?limit=99999999999999999999".to_owned(), 400, "malformed_query"),
        ("/v1/data/products?limit=-1".to_owned(), 400, "malformed_query"),
        ("/v1/data/products?offset=9223372036854775808".to_owned(), 400, "malformed_query"),
        (format!("/v1/data/products?{filters}"), 400, "limit_exceeded"),
        (format!("/v1/data/products?{nested}"), 400, "limit_exceeded"),
        (format!("/v1/data/products?{long_list}"), 400, "limit_exceeded"),
        (format!("/v1/data/products?select={}", aliases.join(",")), 400, "limit_exceeded"),
        (format!("/v1/data/products?sku=eq.{}", "x".repeat(20_000)), 414, "limit_exceeded"),
        (format!("/v1/members?after={}", "x".repeat(30_000)), 200, ""),
        ("/v1/members?limit=99999999999999999999".to_owned(), 400, "invalid_input"),
        ("/v1/members?nonsense=1".to_owned(), 400, "invalid_input"),
        ("/v1/invitations?limit=many".to_owned(), 400, "invalid_input"),
        ("/v1/invitations?after=x".to_owned(), 400, "invalid_input"),
    ] {
        let answer = service.get(&path).by(&acme.owner).send().await;
        if status == 200 {
            answer.expect(200);
        } else {
            answer.refused(status, code);
        }
    }
    let product = |n: usize| json!({"sku": format!("N{n}"), "name": "x", "price_cents": 1});
    let many: Vec<_> = (0..1001).map(product).collect();
    let call = service.post("/v1/data/products", json!(many)).by(&acme.owner);
    call.send().await.refused(400, "limit_exceeded");
    // With missing=default, each set of keys is an INSERT of its own.
    let keys = ["id", "stock", "created_at", "name", "price_cents"];
    let unlike: Vec<_> = (0..17_usize)
        .map(|set| {
            let mut row = json!({"sku": format!("U{set}")});
            for (bit, key) in keys.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1) {
                row[key] = json!(bit);
            }
            row
        })
        .collect();
    let call = service.post("/v1/data/products", json!(unlike)).by(&acme.owner);
    call.header("prefer", "missing=default").send().await.refused(400, "limit_exceeded");
    let counted = service.get("/v1/data/products").by(&acme.owner).header("prefer", "count=exact");
    assert_eq!(counted.send().await.expect(200).header("content-range"), "0-2/3");
}

#[tokio::test]
async fn deep_values_are_refused_before_or_by_the_database_but_never_as_our_fault() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    for depth in [100, 5_000, 50_000, 120_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"sku":"DEEP","name":{deep},"price_cents":1}}"#);
        let began = Instant::now();
        let call = service.call("POST", "/v1/data/products").by(&acme.owner).body(body);
        let answer = call.send().await;
        // A text column takes a shallow one, as its JSON text.
        assert!((200..500).contains(&answer.status), "{depth}: {}", answer.text());
        assert!(began.elapsed() < SOON, "{depth}: {:?}", began.elapsed());
    }
    service.get("/v1/data/products").by(&acme.owner).send().await.expect(200);
}

#[tokio::test]
async fn what_fails_inside_is_not_told() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let rename = "ALTER TABLE freehold.invitation RENAME TO elsewhere";
    service.sql().await.batch_execute(rename).await.unwrap();
    let answer = service.get("/v1/invitations").by(&acme.owner).send_unchecked().await;
    let answer = answer.expect(500);
    assert_eq!(answer.json()["detail"], "something failed on our side");
    assert!(!answer.text().contains("invitation"), "{}", answer.text());
}

#[tokio::test]
async fn no_answer_runs_anything_in_a_browser() {
    let service = Service::start(Setup::default()).await;
    for path in ["/livez", "/v1/me", "/no/such/route", "/openapi.json"] {
        let answer = service.get(path).send().await;
        for (header, value) in [
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(header), value, "{path}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn pages_of_the_sites_that_are_named_may_call_and_others_may_not() {
    const APP: &str = "https://app.example.com";
    let mut setup = Setup::default();
    setup.http.cors_origins = vec![APP.parse().unwrap()];
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;

    let ask = |origin: &str| {
        let call = service.call("OPTIONS", "/v1/data/orders").header("origin", origin);
        call.header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization")
    };
    let answer = ask(APP).send().await.expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert!(answer.header("access-control-allow-methods").contains("PATCH"));
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(answer.header("access-control-allow-credentials"), "", "there are no cookies");

    let read = |origin| service.get("/v1/data/orders").by(&acme.owner).header("origin", origin);
    let answer = read(APP).send().await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert!(answer.header("access-control-expose-headers").contains("content-range"));
    assert_eq!(answer.header("vary"), "origin");
    // An error is the page's to read, too.
    let answer = service.get("/v1/me").header("origin", APP).send().await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), APP);

    for stranger in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "null",
        "http://app.example.com",
    ] {
        let answer = ask(stranger).send().await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{stranger}");
        let answer = read(stranger).send().await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{stranger}");
        assert_eq!(answer.header("vary"), "origin", "{stranger}");
    }
}
