//! Signing in and out, and that an attacker who guesses learns nothing from it.

use std::time::{Duration, Instant};

use freehold::Role;
use freehold::testing::PASSWORD;
use serde_json::{Value, json};

use crate::support::{Answer, SOON, Service, Setup, add_member, eventually, text};

async fn log_in(service: &Service, body: Value) -> Answer {
    service.post("/v1/auth/login", body).send().await
}

async fn refresh(service: &Service, token: &Value) -> Answer {
    service.post("/v1/auth/refresh", json!({"refresh_token": token})).send().await
}

#[tokio::test]
async fn who_signs_in_gets_tokens_for_their_tenant() {
    let service = Service::start(Setup::default()).await;
    let (acme, _) = service.two_tenants().await;
    let tokens = service.log_in("owner@acme.example").await;
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 600);
    assert_eq!(tokens["role"], "owner");
    let tenant = json!({"id": acme.tenant.id, "slug": "acme", "name": "acme"});
    assert_eq!(tokens["tenant"], tenant);
    let me = service.get("/v1/me").bearer(&text(&tokens["access_token"])).send().await;
    assert_eq!(
        me.expect(200).json(),
        json!({"id": acme.owner.id, "email": "owner@acme.example", "name": "", "role": "owner",
               "tenant": tenant,
               "tenants": [{"id": acme.tenant.id, "slug": "acme", "name": "acme", "role": "owner"}]})
    );
    // No hash, no password, and no other tenant.
    assert!(!tokens.to_string().contains("argon2"));
}

#[tokio::test]
async fn an_email_has_no_case_and_a_password_has() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    for email in ["OWNER@ACME.EXAMPLE", " Owner@Acme.Example "] {
        log_in(&service, json!({"email": email, "password": PASSWORD})).await.expect(200);
    }
    for password in [PASSWORD.to_uppercase(), format!("{PASSWORD} "), String::new()] {
        let body = json!({"email": "owner@acme.example", "password": password});
        log_in(&service, body).await.refused(401, "unauthenticated");
    }
}

/// They wait for one row, the budget of their address; requests for data must not wait with them for a
/// connection.
#[tokio::test]
async fn a_crowd_that_signs_in_leaves_connections_to_others() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let mut sql = service.sql().await;
    let held = sql.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE freehold.guess IN EXCLUSIVE MODE").await.unwrap();
    let body = json!({"email": acme.owner.email, "password": PASSWORD});
    let sign_ins: Vec<_> = (0..20)
        .map(|_| tokio::spawn(service.post("/v1/auth/login", body.clone()).send()))
        .collect();
    let stuck =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'freehold.guess'::regclass";
    eventually("half of the catalog's connections wait", Duration::from_secs(20), async || {
        held.query_one(stuck, &[]).await.unwrap().get::<_, i64>(0) == 4
    })
    .await;
    for _ in 0..20 {
        service.get("/v1/data/orders").bearer(&acme.owner.token).send().await.expect(200);
        assert_eq!(held.query_one(stuck, &[]).await.unwrap().get::<_, i64>(0), 4);
    }
    held.rollback().await.unwrap();
    for sign_in in sign_ins {
        let status = sign_in.await.unwrap().status;
        // On a machine that is busy with something else, the last may have waited for too long.
        assert!([200, 429].contains(&status), "{status}");
    }
}

/// The ways to fail that an attacker may try.
fn guesses() -> [(&'static str, Value); 6] {
    let (mail, wrong) = ("owner@acme.example", "not the password");
    [
        ("wrong password", json!({"email": mail, "password": wrong})),
        ("unknown mail", json!({"email": "nobody@acme.example", "password": wrong})),
        (
            "unknown mail, a good password",
            json!({"email": "nobody@acme.example", "password": PASSWORD}),
        ),
        ("no such tenant", json!({"email": mail, "password": PASSWORD, "tenant": "nowhere"})),
        (
            "somebody else's tenant",
            json!({"email": mail, "password": PASSWORD, "tenant": "globex"}),
        ),
        ("no mail at all", json!({"email": "x", "password": wrong})),
    ]
}

#[tokio::test]
async fn every_wrong_guess_is_answered_in_the_same_bytes() {
    let service = Service::start(Setup::default()).await;
    service.two_tenants().await;
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (what, body) in guesses() {
        let answer = log_in(&service, body).await.refused(401, "unauthenticated");
        seen.push((what, answer.bytes()));
    }
    for (what, bytes) in &seen {
        assert_eq!(bytes, &seen[0].1, "{what} differs from {}", seen[0].0);
    }
}

/// Without the same work for unknown people, one would take a tenth of another's time.
#[tokio::test]
async fn every_wrong_guess_takes_as_long() {
    const ROUNDS_MAX: usize = 400;
    let service = Service::start(Setup::default()).await;
    service.two_tenants().await;
    let guesses = guesses();
    log_in(&service, guesses[0].1.clone()).await;
    // The minimum time of each, over as many rounds as needed: delays by a busy machine drop out of all of
    // them sooner or later.
    let mut quickest = vec![Duration::MAX; guesses.len()];
    let mut rounds = 0;
    let (least, most) = loop {
        for (guess, quickest) in guesses.iter().zip(&mut quickest) {
            let began = Instant::now();
            log_in(&service, guess.1.clone()).await.expect(401);
            *quickest = began.elapsed().min(*quickest);
        }
        rounds += 1;
        let (least, most) = (*quickest.iter().min().unwrap(), *quickest.iter().max().unwrap());
        if rounds == ROUNDS_MAX || rounds >= 10 && most.div_duration_f64(least) < 1.5 {
            break (least, most);
        }
    };
    let named: Vec<_> = guesses.iter().map(|guess| guess.0).zip(&quickest).collect();
    assert!(most.div_duration_f64(least) < 1.5, "they differ: {named:?}");
    assert!(least > Duration::from_millis(3), "no password was hashed: {named:?}");
}

#[tokio::test]
async fn guesses_at_one_address_are_limited_whoever_makes_them() {
    let service = Service::start(Setup { per_email: 4, ..Setup::default() }).await;
    service.two_tenants().await;
    let guess = |email: &str, client: [u8; 4]| {
        let body = json!({"email": email, "password": "not the password"});
        service.post("/v1/auth/login", body).from(client)
    };
    for n in 0..4 {
        guess("owner@acme.example", [10, 0, 0, n]).send().await.expect(401);
    }
    let answer = guess("OWNER@acme.example ", [10, 0, 0, 9]).send().await;
    let answer = answer.refused(429, "rate_limited");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Not even the right password gets through: the limit is before the look at it.
    let body = json!({"email": "owner@acme.example", "password": PASSWORD});
    log_in(&service, body).await.refused(429, "rate_limited");
    service.log_in("owner@globex.example").await;
    // An unknown address is limited as well, so a limit does not reveal which addresses are known.
    for n in 0..4 {
        guess("nobody@acme.example", [10, 0, 1, n]).send().await.expect(401);
    }
    guess("nobody@acme.example", [10, 0, 1, 9]).send().await.refused(429, "rate_limited");
}

#[tokio::test]
async fn guesses_of_one_client_are_limited_whatever_header_it_sends() {
    let service = Service::start(Setup { per_client: 5, ..Setup::default() }).await;
    service.two_tenants().await;
    let guess = |n: usize, client: [u8; 4]| {
        let body = json!({"email": format!("nobody{n}@acme.example"), "password": "no password"});
        let call = service.post("/v1/auth/login", body).from(client);
        call.header("x-forwarded-for", &format!("192.0.2.{n}"))
    };
    for n in 0..5 {
        guess(n, [10, 0, 0, 1]).send().await.expect(401);
    }
    let answer = guess(6, [10, 0, 0, 1]).send().await.refused(429, "rate_limited");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    guess(7, [10, 0, 0, 2]).send().await.expect(401);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_last_forwarded_address_counts() {
    let mut setup = Setup { per_client: 2, ..Setup::default() };
    setup.http.trust_forwarded_for = true;
    let service = Service::start(setup).await;
    service.tenant("acme").await;
    let guess = |forwarded: &str| {
        let body = json!({"email": "nobody@acme.example", "password": "no password"});
        service.post("/v1/auth/login", body).header("x-forwarded-for", forwarded)
    };
    // The client's own entry comes before the one that the proxy added.
    guess("1.1.1.1, 192.0.2.1").send().await.expect(401);
    guess("2.2.2.2, 192.0.2.1").send().await.expect(401);
    guess("3.3.3.3, 192.0.2.1").send().await.refused(429, "rate_limited");
    guess("3.3.3.3, 192.0.2.2").send().await.expect(401);
}

// ── Several tenants ───────────────────────────────────────────────────────────────────────────

/// Acme's owner is a viewer at globex as well.
async fn person_of_two() -> (Service, crate::support::Place, crate::support::Place) {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let sql = service.sql().await;
    add_member(&sql, globex.tenant.id.as_uuid(), acme.owner.id, Role::Viewer).await;
    (service, acme, globex)
}

#[tokio::test]
async fn who_belongs_to_several_tenants_names_one() {
    let (service, acme, globex) = person_of_two().await;
    let body = json!({"email": acme.owner.email, "password": PASSWORD});
    let answer = log_in(&service, body).await.refused(409, "tenant_required");
    assert_eq!(answer.json()["field"], "tenant");
    assert!(answer.json()["detail"].as_str().unwrap().contains("acme, globex"));
    for (slug, role, id) in
        [("acme", "owner", acme.tenant.id), ("globex", "viewer", globex.tenant.id)]
    {
        let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": slug});
        let tokens = log_in(&service, body).await.expect(200).json();
        assert_eq!((&tokens["role"], &tokens["tenant"]["id"]), (&json!(role), &json!(id)));
    }
    // A wrong password does not learn of the tenants.
    let body = json!({"email": acme.owner.email, "password": "not the password"});
    log_in(&service, body).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_session_moves_between_ones_own_tenants_only() {
    let (service, acme, globex) = person_of_two().await;
    service.tenant("initech").await;
    let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": "acme"});
    let tokens = log_in(&service, body).await.expect(200).json();
    let at_acme = text(&tokens["access_token"]);
    let switch = |token: &str, slug: &str| {
        service.post("/v1/auth/switch", json!({"tenant": slug})).bearer(token)
    };
    for slug in ["initech", "nowhere", "", "Globex", "../globex"] {
        switch(&at_acme, slug).send().await.refused(404, "not_found");
    }
    let moved = switch(&at_acme, "globex").send().await.expect(200).json();
    assert_eq!(
        (&moved["role"], &moved["tenant"]["id"]),
        (&json!("viewer"), &json!(globex.tenant.id))
    );
    assert_eq!(moved.get("refresh_token"), None, "the refresh token stays as it is");
    let path = "/v1/data/products?select=name";
    let rows = service.get(path).bearer(&text(&moved["access_token"])).send().await.json();
    assert!(rows.to_string().contains("globex") && !rows.to_string().contains("acme"));
    // The refresh token goes with the session.
    let renewed = refresh(&service, &tokens["refresh_token"]).await.expect(200).json();
    assert_eq!(renewed["tenant"]["slug"], "globex");
    let product = json!({"sku": "X", "name": "X", "price_cents": 1});
    let call = service.post("/v1/data/products", product);
    call.bearer(&text(&moved["access_token"])).send().await.refused(403, "forbidden");
    // A session that was ended moves nowhere.
    let body = json!({"refresh_token": renewed["refresh_token"]});
    service.post("/v1/auth/logout", body).send().await.expect(204);
    // Refused by the session that is looked up, or by the token once that is heard of.
    switch(&at_acme, "acme").send().await.expect(401);
}

/// More tenants than are listed to a person: each of them is still theirs.
#[tokio::test]
async fn who_belongs_to_more_tenants_than_are_listed_works_in_each() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    // The one that is asked for sorts behind the thousand and more.
    service.tenant("zenith").await;
    let sql = service.sql().await;
    sql.batch_execute(
        "INSERT INTO freehold.tenant (id, slug, name) SELECT gen_random_uuid(), 'many-' || n, 'Many' FROM generate_series(1, 1100) n",
    )
    .await
    .unwrap();
    sql.execute(
        "INSERT INTO freehold.membership (tenant_id, identity_id, role) SELECT id, $1, 'member' FROM freehold.tenant WHERE slug <> 'acme'",
        &[&acme.owner.id],
    )
    .await
    .unwrap();
    let body = json!({"email": acme.owner.email, "password": PASSWORD});
    log_in(&service, body.clone()).await.refused(409, "tenant_required");
    let mut named = body;
    named["tenant"] = json!("zenith");
    let tokens = log_in(&service, named).await.expect(200).json();
    assert_eq!(tokens["tenant"]["slug"], "zenith");
    let fresh = refresh(&service, &tokens["refresh_token"]).await.expect(200).json();
    assert_eq!(fresh["tenant"]["slug"], "zenith");
    let me = service.get("/v1/me").bearer(fresh["access_token"].as_str().unwrap());
    let me = me.send().await.expect(200).json();
    assert_eq!(me["tenant"]["slug"], "zenith");
    assert_eq!(me["tenants"].as_array().unwrap().len(), 1000);
    for slug in ["acme", "zenith"] {
        let token = fresh["access_token"].as_str().unwrap();
        let call = service.post("/v1/auth/switch", json!({"tenant": slug})).bearer(token);
        assert_eq!(call.send().await.expect(200).json()["tenant"]["slug"], slug);
    }
}

#[tokio::test]
async fn a_tenant_that_is_no_slug_is_one_that_there_is_not() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let token = service.sign_in(&acme.owner.email).await;
    let wrong = json!({"email": acme.owner.email, "password": "not the password"});
    let expected = log_in(&service, wrong).await.refused(401, "unauthenticated");
    for slug in ["", "ACME", "acme ", "acme\u{0}", "acme' OR true --", "аcme", &"a".repeat(10_000)]
    {
        let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": slug});
        assert_eq!(log_in(&service, body).await.bytes(), expected.bytes(), "{slug:?}");
        let call = service.post("/v1/auth/switch", json!({"tenant": slug})).bearer(&token);
        call.send().await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn an_operator_signs_in_outside_of_any_tenant() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let operator = service.operator().await;
    let tokens = service.log_in(&operator.email).await;
    assert_eq!((&tokens["role"], tokens.get("tenant")), (&json!("operator"), None));
    let token = text(&tokens["access_token"]);
    let me = service.get("/v1/me").bearer(&token).send().await.expect(200).json();
    assert_eq!((&me["role"], &me["tenants"]), (&json!("operator"), &json!([])));
    service.get("/v1/tenants").bearer(&token).send().await.expect(200);
    let renewed = refresh(&service, &tokens["refresh_token"]).await.expect(200).json();
    assert_eq!(renewed["role"], "operator");
    let body = json!({"tenant": "acme"});
    let answer = service.post("/v1/auth/switch", body).bearer(&token).send().await;
    answer.refused(404, "not_found");
    // A former operator's session ends at its next refresh.
    service
        .sql()
        .await
        .execute("UPDATE freehold.identity SET is_operator = false", &[])
        .await
        .unwrap();
    refresh(&service, &renewed["refresh_token"]).await.refused(401, "unauthenticated");
}

// ── Refresh tokens ────────────────────────────────────────────────────────────────────────────

/// As if a token had been exchanged that long ago, by the database's clock.
async fn some_time_later(service: &Service) {
    let later = "UPDATE freehold.refresh_token SET used_at = used_at - interval '11 seconds'";
    service.sql().await.batch_execute(later).await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_late_second_use_ends_the_session() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let first = service.log_in(&acme.owner.email).await;
    let other_device = service.log_in(&acme.owner.email).await;
    let second = refresh(&service, &first["refresh_token"]).await.expect(200).json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_ne!(first["access_token"], second["access_token"]);
    service.get("/v1/me").bearer(&text(&second["access_token"])).send().await.expect(200);
    let third = refresh(&service, &second["refresh_token"]).await.expect(200).json();
    some_time_later(&service).await;
    let reused = refresh(&service, &first["refresh_token"]).await.refused(401, "unauthenticated");
    assert!(reused.header("www-authenticate").starts_with("Bearer"));
    // Both holders of the token lose the session and its access tokens; the person's other sessions stay.
    refresh(&service, &third["refresh_token"]).await.refused(401, "unauthenticated");
    let token = text(&third["access_token"]);
    eventually("the access token is refused", SOON, async || {
        service.get("/v1/me").bearer(&token).send().await.status == 401
    })
    .await;
    refresh(&service, &other_device["refresh_token"]).await.expect(200);
}

/// Two tabs, or an answer that was lost: for some seconds the same token has the same successor.
#[tokio::test]
async fn who_refreshes_at_once_or_again_within_seconds_goes_on_with_one_successor() {
    let service = Service::start(Setup::default()).await;
    let other_server = service.beside(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let tokens = service.log_in(&acme.owner.email).await;
    let attempts = (0..8).map(|n| {
        let server = if n % 2 == 0 { &service } else { &other_server };
        refresh(server, &tokens["refresh_token"])
    });
    let answers = futures_util::future::join_all(attempts).await;
    let answers: Vec<Value> = answers.into_iter().map(|answer| answer.expect(200).json()).collect();
    let next = &answers[0]["refresh_token"];
    assert!(answers.iter().all(|answer| answer["refresh_token"] == *next));
    // The client that refreshed first does not invalidate the other one's token, nor the reverse.
    let ahead = refresh(&service, next).await.expect(200).json();
    assert_eq!(
        refresh(&service, &tokens["refresh_token"]).await.expect(200).json()["refresh_token"],
        *next
    );
    let behind = refresh(&service, next).await.expect(200).json();
    assert_eq!(ahead["refresh_token"], behind["refresh_token"]);
    refresh(&service, &ahead["refresh_token"]).await.expect(200);
    // The token is not stored in clear text.
    let stored = "SELECT count(*) FROM freehold.refresh_token t WHERE position($1 IN t::text) > 0";
    let row = service.sql().await.query_one(stored, &[&text(next)]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

/// A stolen access token is not made to live longer by itself.
#[tokio::test]
async fn what_a_switch_returns_ends_when_the_presented_token_does_and_nothing_outlives_its_session()
{
    let (service, acme, _) = person_of_two().await;
    let exp = |token: &Value| {
        use base64::Engine as _;
        let claims = text(token).split('.').nth(1).unwrap().to_owned();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
        serde_json::from_slice::<Value>(&claims).unwrap()["exp"].as_u64().unwrap()
    };
    let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": "acme"});
    let tokens = log_in(&service, body).await.expect(200).json();
    let session: uuid::Uuid = {
        let list =
            service.get("/v1/me/sessions").bearer(&text(&tokens["access_token"])).send().await;
        let list = list.expect(200).json();
        let own = list["items"].as_array().unwrap().iter().find(|s| s["current"] == true);
        text(&own.unwrap()["id"]).parse().unwrap()
    };
    let subject = freehold::tokens::Subject {
        identity: acme.owner.id,
        session,
        tenant: Some(acme.tenant.id.as_uuid()),
        role: "owner".to_owned(),
    };
    let short =
        service.tokens.issue(&subject, Duration::from_secs(60), std::time::SystemTime::now());
    let short = short.unwrap();
    let switch = service.post("/v1/auth/switch", json!({"tenant": "globex"})).bearer(&short);
    let moved = switch.send().await.expect(200).json();
    assert_eq!(exp(&moved["access_token"]), exp(&json!(short)));
    assert!(moved["expires_in"].as_u64().unwrap() <= 60);
    let end =
        "UPDATE freehold.session SET expires_at = now() + interval '100 seconds' WHERE id = $1";
    service.sql().await.execute(end, &[&session]).await.unwrap();
    let renewed = refresh(&service, &tokens["refresh_token"]).await.expect(200).json();
    assert!(renewed["expires_in"].as_u64().unwrap() <= 100, "{renewed}");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner_and_nobody_else() {
    let service = Service::start(Setup::default()).await;
    let other_server = service.beside(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let here = service.log_in(&acme.owner.email).await;
    let there = service.log_in(&acme.owner.email).await;
    let (here, there_token) = (text(&here["access_token"]), text(&there["access_token"]));
    let list = async |token: &str| {
        let answer = service.get("/v1/me/sessions").bearer(token).send().await.expect(200).json();
        answer["items"].as_array().unwrap().clone()
    };
    // The tests' own, and the two that signed in.
    assert_eq!(list(&here).await.len(), 3);
    let current: Vec<_> =
        list(&there_token).await.into_iter().filter(|s| s["current"] == true).collect();
    assert_eq!(current.len(), 1);
    let path = format!("/v1/me/sessions/{}", text(&current[0]["id"]));
    service.delete(&path).by(&globex.owner).send().await.refused(404, "not_found");
    other_server.get("/v1/me").bearer(&there_token).send().await.expect(200);
    service.delete(&path).bearer(&here).send().await.expect(204);
    service.delete(&path).bearer(&here).send().await.refused(404, "not_found");
    for server in [&service, &other_server] {
        eventually("the ended session's token is refused", SOON, async || {
            server.get("/v1/me").bearer(&there_token).send().await.status == 401
        })
        .await;
    }
    refresh(&service, &there["refresh_token"]).await.refused(401, "unauthenticated");
    service.delete("/v1/me/sessions").bearer(&here).send().await.expect(204);
    let left = list(&here).await;
    assert_eq!((left.len(), &left[0]["current"]), (1, &json!(true)));
}

// ── Guesses ───────────────────────────────────────────────────────────────────────────────────

/// A sign-in with the device token of the last one on this device.
fn from_device(email: &str, password: &str, device: &Value) -> Value {
    json!({"email": email, "password": password, "device_token": device})
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_keep_the_owners_device_out() {
    let service = Service::start(Setup { per_email: 3, per_client: 5, ..Setup::default() }).await;
    let (acme, globex) = service.two_tenants().await;
    let device = service.log_in(&acme.owner.email).await["device_token"].clone();
    let other = service.log_in(&globex.owner.email).await["device_token"].clone();
    let guess = |body: Value, client: [u8; 4]| service.post("/v1/auth/login", body).from(client);
    let wrong = || json!({"email": acme.owner.email, "password": "not the password"});
    for n in 0..3 {
        guess(wrong(), [10, 0, 0, n]).send().await.expect(401);
    }
    let right = json!({"email": acme.owner.email, "password": PASSWORD});
    guess(right, [10, 0, 0, 9]).send().await.refused(429, "rate_limited");
    // The device has a budget of its own, even from where the guesses came, and is made anew.
    let body = from_device(&acme.owner.email, PASSWORD, &device);
    let again = guess(body.clone(), [10, 0, 0, 0]).send().await.expect(200).json();
    assert_ne!(again["device_token"], device);
    guess(body, [10, 0, 0, 1]).send().await.expect(200);
    // It is one person's, has its own end, and no other text is one.
    let fake = json!(text(&device).replace("fhd_", "fhr_"));
    for device in [&other, &fake, &json!("fhd_"), &json!("x".repeat(5000)), &Value::Null] {
        let body = from_device(&acme.owner.email, PASSWORD, device);
        guess(body, [10, 0, 0, 9]).send().await.refused(429, "rate_limited");
    }
    for _ in 0..3 {
        let body = from_device(&acme.owner.email, "not the password", &device);
        guess(body, [10, 0, 1, 1]).send().await.expect(401);
    }
    let body = from_device(&acme.owner.email, PASSWORD, &device);
    guess(body, [10, 0, 1, 1]).send().await.refused(429, "rate_limited");
    let body = from_device(&acme.owner.email, PASSWORD, &again["device_token"]);
    guess(body, [10, 0, 1, 1]).send().await.expect(200);
}

#[tokio::test]
async fn a_device_is_forgotten_when_the_password_changes() {
    let service = Service::start(Setup { per_email: 2, ..Setup::default() }).await;
    let acme = service.tenant("acme").await;
    let device = service.log_in(&acme.owner.email).await["device_token"].clone();
    let change = json!({"current_password": PASSWORD, "new_password": "another password"});
    let call = service.post("/v1/me/password", change).by(&acme.owner).send().await;
    let fresh = call.expect(200).json()["device_token"].clone();
    for n in 0..2 {
        let body = json!({"email": acme.owner.email, "password": "wrong wrong"});
        service.post("/v1/auth/login", body).from([10, 0, 0, n]).send().await.expect(401);
    }
    let body = from_device(&acme.owner.email, "another password", &device);
    log_in(&service, body).await.refused(429, "rate_limited");
    let body = from_device(&acme.owner.email, "another password", &fresh);
    log_in(&service, body).await.expect(200);
}

#[tokio::test]
async fn guesses_are_counted_for_all_servers_together_and_right_passwords_are_none() {
    let setup = Setup { per_email: 4, per_client: 100, ..Setup::default() };
    let one = Service::start(setup.clone()).await;
    let two = one.beside(setup).await;
    let acme = one.tenant("acme").await;
    for _ in 0..10 {
        one.log_in(&acme.owner.email).await;
    }
    let wrong = json!({"email": acme.owner.email, "password": "not the password"});
    for server in [&one, &two, &one, &two] {
        log_in(server, wrong.clone()).await.expect(401);
    }
    for server in [&one, &two] {
        log_in(server, wrong.clone()).await.refused(429, "rate_limited");
    }
    // By the database's clock there is one more after a quarter of a minute.
    let later = "UPDATE freehold.guess SET free_at = free_at - interval '15 seconds'";
    one.sql().await.batch_execute(later).await.unwrap();
    let three = one.beside(Setup { per_email: 4, per_client: 100, ..Setup::default() }).await;
    log_in(&three, wrong.clone()).await.expect(401);
    log_in(&three, wrong).await.refused(429, "rate_limited");
}

/// Otherwise the count would reveal whether a password is right.
#[tokio::test]
async fn a_right_password_for_a_wrong_tenant_counts_like_a_wrong_one() {
    let service = Service::start(Setup { per_email: 3, ..Setup::default() }).await;
    service.two_tenants().await;
    let body = json!({"email": "owner@acme.example", "password": PASSWORD, "tenant": "globex"});
    for _ in 0..3 {
        log_in(&service, body.clone()).await.refused(401, "unauthenticated");
    }
    log_in(&service, body).await.refused(429, "rate_limited");
}

#[tokio::test]
async fn many_guesses_at_once_are_no_more_than_one_after_another() {
    let service = Service::start(Setup { per_email: 5, ..Setup::default() }).await;
    service.tenant("acme").await;
    let wrong = json!({"email": "owner@acme.example", "password": "not the password"});
    let answers = futures_util::future::join_all((0..40).map(|_| log_in(&service, wrong.clone())));
    let tried = answers.await.iter().filter(|answer| answer.status == 401).count();
    assert_eq!(tried, 5);
}

#[tokio::test]
async fn who_signs_out_is_out_and_may_say_so_twice() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let tokens = service.log_in(&acme.owner.email).await;
    let body = json!({"refresh_token": tokens["refresh_token"]});
    for _ in 0..2 {
        let answer = service.post("/v1/auth/logout", body.clone()).send().await.expect(204);
        assert!(answer.body.is_empty());
    }
    refresh(&service, &tokens["refresh_token"]).await.refused(401, "unauthenticated");
    let token = text(&tokens["access_token"]);
    eventually("the access token is refused", SOON, async || {
        service.get("/v1/me").bearer(&token).send().await.status == 401
    })
    .await;
    for unknown in ["", "fhr_", "fhi_AAAA", &"x".repeat(9000)] {
        let body = json!({"refresh_token": unknown});
        service.post("/v1/auth/logout", body).send().await.expect(204);
        refresh(&service, &json!(unknown)).await.refused(401, "unauthenticated");
    }
    // An access token is no refresh token.
    refresh(&service, &tokens["access_token"]).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn tokens_are_kept_as_hashes_only() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let tokens = service.log_in(&acme.owner.email).await;
    let secret = text(&tokens["refresh_token"]);
    let row = service
        .sql()
        .await
        .query_one(
            "SELECT (SELECT count(*) FROM freehold.refresh_token t WHERE t::text LIKE '%' || $1 || '%'),
                    (SELECT count(*) FROM freehold.refresh_token WHERE token_hash = sha256($1::text::bytea)),
                    (SELECT count(*) FROM freehold.credential c WHERE c::text LIKE '%' || $2 || '%')",
            &[&secret, &PASSWORD],
        )
        .await
        .unwrap();
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(counts, [0, 1, 0]);
}

#[tokio::test]
async fn a_session_ends_at_its_end_however_often_it_was_refreshed() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let tokens = service.log_in(&acme.owner.email).await;
    let tokens = refresh(&service, &tokens["refresh_token"]).await.expect(200).json();
    let end = "UPDATE freehold.session SET expires_at = now()";
    service.sql().await.batch_execute(end).await.unwrap();
    refresh(&service, &tokens["refresh_token"]).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn who_belongs_to_a_suspended_tenant_neither_signs_in_nor_refreshes_nor_moves_there() {
    let (service, acme, globex) = person_of_two().await;
    let email = &acme.owner.email;
    let body = |slug: &str| json!({"email": email, "password": PASSWORD, "tenant": slug});
    let there = log_in(&service, body("globex")).await.expect(200).json();
    let here = log_in(&service, body("acme")).await.expect(200).json();
    let operator = service.operator().await;
    let suspend = format!("/v1/tenants/{}/suspend", globex.tenant.id);
    service.call("POST", &suspend).by(&operator).send().await.expect(200);
    log_in(&service, body("globex")).await.refused(403, "tenant_suspended");
    refresh(&service, &there["refresh_token"]).await.refused(403, "tenant_suspended");
    let switch = service.post("/v1/auth/switch", json!({"tenant": "globex"}));
    switch.bearer(&text(&here["access_token"])).send().await.refused(403, "tenant_suspended");
    // The token that was presented in vain is good again when the tenant is.
    let resume = suspend.replace("suspend", "resume");
    service.call("POST", &resume).by(&operator).send().await.expect(200);
    refresh(&service, &there["refresh_token"]).await.expect(200);
}

#[tokio::test]
async fn who_is_no_operator_any_more_refreshes_no_operators_session() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let operator = service.operator().await;
    let tokens = service.log_in(&operator.email).await;
    assert_eq!(tokens["role"], "operator");
    let demote = "UPDATE freehold.identity SET is_operator = false";
    service.sql().await.batch_execute(demote).await.unwrap();
    refresh(&service, &tokens["refresh_token"]).await.refused(401, "unauthenticated");
}
