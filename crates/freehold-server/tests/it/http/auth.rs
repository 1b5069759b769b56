//! Authentication: invalid tokens, tokens for other endpoints, and tokens that were valid a moment ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use freehold::{OperatorContext, Role};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use uuid::Uuid;

use super::operations::{self, By, Objects, sample};
use crate::support::{Answer, Place, SECRET, SOON, Service, Setup, admin_url, connect, eventually};

const RETIRED: &str = "a former secret whose tokens are still good";
const DROPPED: &str = "a former secret that was dropped at once";

/// The name of a secret in tokens: the first 8 bytes of a hash, in hex.
fn kid(secret: &str) -> String {
    let digest = Sha256::digest(["freehold access-token key id v1\0", secret].concat());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "at+jwt", "kid": kid(SECRET)})
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of acme's owner.
fn claims(place: &Place) -> Value {
    let now = now();
    json!({"iss": "freehold", "aud": "freehold", "sub": place.owner.id, "sid": place.owner.id,
           "tid": place.tenant.id, "role": "owner", "iat": now, "nbf": now, "exp": now + 600,
           "jti": Uuid::new_v4()})
}

fn with(mut base: Value, name: &str, value: Value) -> Value {
    base.as_object_mut().unwrap().insert(name.to_owned(), value);
    base
}

fn without(mut base: Value, name: &str) -> Value {
    base.as_object_mut().unwrap().remove(name).unwrap();
    base
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()))
}

/// A token with a signature that matches its header, as far as HMAC goes.
fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let message = unsigned(header, claims);
    let (key, bytes) = (secret.as_bytes(), message.as_bytes());
    let signature = match header["alg"].as_str() {
        Some("HS384") => Hmac::<Sha384>::new_from_slice(key)
            .unwrap()
            .chain_update(bytes)
            .finalize()
            .into_bytes()
            .to_vec(),
        Some("HS512") => Hmac::<Sha512>::new_from_slice(key)
            .unwrap()
            .chain_update(bytes)
            .finalize()
            .into_bytes()
            .to_vec(),
        _ => Hmac::<Sha256>::new_from_slice(key)
            .unwrap()
            .chain_update(bytes)
            .finalize()
            .into_bytes()
            .to_vec(),
    };
    format!("{message}.{}", B64.encode(signature))
}

async fn service() -> Service {
    Service::start(Setup { secrets_retired: &[RETIRED], ..Setup::default() }).await
}

/// Asks to read, and to write.
async fn ask(service: &Service, token: &str) -> [Answer; 2] {
    let product = json!({"sku": "FORGED", "name": "Forged", "price_cents": 1});
    [
        service.get("/v1/data/products").bearer(token).send().await,
        service.post("/v1/data/products", product).bearer(token).send().await,
    ]
}

async fn is_refused_as_no_token(service: &Service, what: &str, token: &str) {
    for answer in ask(service, token).await {
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        // The reason of a refusal would help an attacker, so it is not given. Only for a token that was
        // signed here, expiry is reported, which helps its owner.
        let told = [answer.json()["code"].clone(), answer.json()["detail"].clone()];
        let challenge = answer.header("www-authenticate");
        let known = [
            (
                "invalid_token",
                "the access token is not valid; sign in again",
                r#"Bearer error="invalid_token", error_description="the access token is not valid; sign in again""#,
            ),
            (
                "token_expired",
                "the access token has expired; refresh it, or sign in again",
                r#"Bearer error="invalid_token", error_description="the access token has expired; refresh it, or sign in again""#,
            ),
            (
                "unauthenticated",
                "the header Authorization must read `Bearer` and a token",
                "Bearer",
            ),
        ];
        let as_told = |(code, detail, asked): &(&str, &str, &str)| {
            told == [json!(code), json!(detail)] && challenge == *asked
        };
        assert!(known.iter().any(as_told), "{what}: {told:?}, {challenge}");
        assert_eq!(told[0] == "token_expired", what.starts_with("expired"), "{what}");
    }
}

async fn nothing_was_forged(service: &Service, place: &Place) {
    let path = "/v1/data/products?sku=eq.FORGED";
    let rows = service.get(path).by(&place.owner).send().await.expect(200).json();
    assert_eq!(rows, json!([]));
}

#[tokio::test]
async fn a_token_with_another_header_is_none() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let claims = claims(&acme);
    for answer in ask(&service, &signed(&header(), &claims, SECRET)).await {
        assert!(answer.status < 300, "the tests' own tokens are good: {}", answer.text());
    }
    let path = "/v1/data/products?sku=eq.FORGED";
    service.delete(path).by(&acme.owner).send().await.expect(204);

    for alg in [
        "none", "None", "NONE", "nOnE", "", " none", "HS384", "HS512", "hs256", "RS256", "ES256",
        "PS256", "EdDSA", "HS256 ",
    ] {
        let header = with(header(), "alg", json!(alg));
        let named = format!("alg {alg:?}");
        is_refused_as_no_token(&service, &named, &signed(&header, &claims, SECRET)).await;
        is_refused_as_no_token(&service, &named, &format!("{}.", unsigned(&header, &claims))).await;
        is_refused_as_no_token(&service, &named, &unsigned(&header, &claims)).await;
    }
    let dropped = signed(&with(header(), "kid", json!(kid(DROPPED))), &claims, DROPPED);
    let path_like = |kid: &str| signed(&with(header(), "kid", json!(kid)), &claims, "");
    for (what, token) in [
        ("no alg", signed(&without(header(), "alg"), &claims, SECRET)),
        ("alg null", signed(&with(header(), "alg", Value::Null), &claims, SECRET)),
        ("alg a list", signed(&with(header(), "alg", json!(["HS256"])), &claims, SECRET)),
        ("no kid", signed(&without(header(), "kid"), &claims, SECRET)),
        (
            "an unknown kid",
            signed(&with(header(), "kid", json!("0123456789abcdef")), &claims, SECRET),
        ),
        ("kid of nothing", path_like("/dev/null")),
        ("kid of a file", path_like("../../../../etc/passwd")),
        ("kid of SQL", path_like("' OR 1=1 --")),
        ("a dropped secret", dropped),
        ("a dropped secret under the kid of the present one", signed(&header(), &claims, DROPPED)),
        (
            "the retired secret under the kid of the present one",
            signed(&header(), &claims, RETIRED),
        ),
        ("no typ", signed(&without(header(), "typ"), &claims, SECRET)),
        ("typ of any JWT", signed(&with(header(), "typ", json!("JWT")), &claims, SECRET)),
        (
            "jku",
            signed(&with(header(), "jku", json!("https://evil.example/keys")), &claims, SECRET),
        ),
        (
            "jwk",
            signed(&with(header(), "jwk", json!({"kty": "oct", "k": "AAAA"})), &claims, SECRET),
        ),
        ("x5u", signed(&with(header(), "x5u", json!("https://evil.example/x")), &claims, SECRET)),
        ("crit", signed(&with(header(), "crit", json!(["exp"])), &claims, SECRET)),
        ("a long one", format!("{}.{}", signed(&header(), &claims, SECRET), "a".repeat(5000))),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("a word", "hello".to_owned()),
    ] {
        is_refused_as_no_token(&service, what, &token).await;
    }
    nothing_was_forged(&service, &acme).await;
}

#[tokio::test]
async fn a_token_with_other_claims_is_none() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let good = claims(&acme);
    let mut tokens = Vec::new();
    for name in ["iss", "aud", "sub", "sid", "role", "iat", "nbf", "exp", "jti"] {
        tokens.push((format!("without {name}"), without(good.clone(), name)));
    }
    let now = now();
    for (name, value) in [
        ("iss", json!("someone")),
        ("aud", json!("elsewhere")),
        ("aud", json!(["freehold", "elsewhere"])),
        ("exp", json!(now - 60)),
        ("exp", json!(now + 100_000)),
        ("exp", json!((now + 60).to_string())),
        ("nbf", json!(now + 300)),
        ("iat", json!(now + 300)),
        ("tid", Value::Null),
        ("tid", json!(Uuid::nil())),
        ("tid", json!(Uuid::new_v4())),
        ("sub", json!(Uuid::nil())),
        ("sub", json!(Uuid::new_v4())),
        ("role", json!("operator")),
        ("role", json!("root")),
    ] {
        tokens.push((format!("{name} {value}"), with(good.clone(), name, value)));
    }
    let past = [("iat", now - 660), ("nbf", now - 660), ("exp", now - 60)];
    let expired =
        past.into_iter().fold(good.clone(), |claims, (name, at)| with(claims, name, json!(at)));
    tokens.push(("expired".to_owned(), expired));
    for (what, claims) in tokens {
        is_refused_as_no_token(&service, &what, &signed(&header(), &claims, SECRET)).await;
    }
    // One bit of it, in each part.
    let token = signed(&header(), &good, SECRET);
    for at in [3, token.len() / 2, token.len() - 3] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        is_refused_as_no_token(&service, &format!("changed at {at}"), &changed).await;
    }
    nothing_was_forged(&service, &acme).await;
}

#[tokio::test]
async fn a_retired_secrets_tokens_are_good_and_a_dropped_ones_are_not() {
    let former = Service::start(Setup { secret: RETIRED, ..Setup::default() }).await;
    let acme = former.tenant("acme").await;
    let token = former.sign_in(&acme.owner.email).await;
    let rotated = Setup { secrets_retired: &[RETIRED], ..Setup::default() };
    let rotated = former.beside(rotated).await;
    let dropped = former.beside(Setup::default()).await;
    for service in [&former, &rotated] {
        service.get("/v1/me").bearer(&token).send().await.expect(200);
    }
    is_refused_as_no_token(&dropped, "a dropped secret", &token).await;
    // The new secret is the one that signs.
    let fresh = rotated.sign_in(&acme.owner.email).await;
    dropped.get("/v1/me").bearer(&fresh).send().await.expect(200);
    former.get("/v1/me").bearer(&fresh).send().await.refused(401, "invalid_token");
}

#[tokio::test]
async fn the_role_in_a_token_counts_for_nothing() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let viewer = service.person(&acme, "viewer", Role::Viewer).await;
    let token = service.token(viewer.id, Some(acme.tenant.id.as_uuid()), Role::Owner);
    let [read, write] = ask(&service, &token).await;
    read.expect(200);
    write.refused(403, "forbidden");
    let me = service.get("/v1/me").bearer(&token).send().await.expect(200).json();
    assert_eq!(me["role"], "viewer");
}

#[tokio::test]
async fn without_a_token_there_is_a_challenge() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let token = &acme.owner.token;
    for value in
        ["", "Bearer", "Bearer ", "Basic b3duZXI6cGFzcw==", "Token x", token.as_str(), "bearer\tx"]
    {
        let answer = service.get("/v1/me").header("authorization", value).send().await;
        let answer = answer.refused(401, "unauthenticated");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{value:?}");
    }
    let answer = service.get("/v1/me").send().await.refused(401, "unauthenticated");
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    // Nor is one taken from anywhere else.
    let path = format!("/v1/me?access_token={token}");
    service.get(&path).send().await.expect(401);
    let cookie = format!("access_token={token}");
    service.get("/v1/me").header("cookie", &cookie).send().await.expect(401);
    // The scheme's case does not matter (RFC 9110).
    let value = format!("bearer {token}");
    service.get("/v1/me").header("authorization", &value).send().await.expect(200);
}

// ── Another tenant by header, path or body ────────────────────────────────────────────────────

#[tokio::test]
async fn a_token_of_one_tenant_opens_no_other_that_the_request_names() {
    let service = service().await;
    let (acme, globex) = service.two_tenants().await;
    let theirs = Objects::of(&service, &globex).await;
    let before = [service.fingerprint(&acme).await, service.fingerprint(&globex).await];
    let own = acme.tenant.id.to_string();
    let other = globex.tenant.id.to_string();
    let read = || service.get("/v1/data/orders").by(&acme.owner);
    let product = json!({"sku": "FORGED", "name": "Forged", "price_cents": 1});
    let write = || service.post("/v1/data/products", product.clone()).by(&acme.owner);

    for wrong in [
        &other,
        "globex",
        "",
        "*",
        "acme",
        &own.to_uppercase(),
        &format!("{own},{other}"),
        &format!("{own} "),
    ] {
        // The HTTP parser trims trailing blanks, so these never arrive.
        if wrong.ends_with(' ') {
            continue;
        }
        for call in [read(), write()] {
            call.header("x-tenant-id", wrong).send().await.refused(403, "tenant_mismatch");
        }
    }
    for (first, second) in [(&own, &other), (&other, &own), (&own, &own)] {
        for call in [read(), write()] {
            let call = call.header("x-tenant-id", first).header("x-tenant-id", second);
            call.send().await.refused(403, "tenant_mismatch");
        }
    }
    let theirs_too = format!("Bearer {}", globex.owner.token);
    for call in [read(), write()] {
        call.header("authorization", &theirs_too).send().await.refused(401, "unauthenticated");
    }
    for call in [read(), write()] {
        let own_twice = format!("Bearer {}", acme.owner.token);
        call.header("authorization", &own_twice).send().await.refused(401, "unauthenticated");
    }
    // Headers from which other systems read the tenant are ignored here.
    for name in ["host", "x-forwarded-host", "x-tenant", "accept-profile", "content-profile"] {
        let rows = read().header(name, "globex.example").send().await.expect(200).json();
        assert_eq!(rows.as_array().unwrap().len(), 3);
        let ours = rows.as_array().unwrap().iter().all(|row| row["id"] != json!(theirs.order));
        assert!(ours, "{name}");
    }
    read().header("x-tenant-id", &own).send().await.expect(200);
    let member = format!("/v1/members/{}", theirs.member);
    service.delete(&member).by(&acme.owner).send().await.refused(404, "not_found");
    let after = [service.fingerprint(&acme).await, service.fingerprint(&globex).await];
    assert_eq!(after, before, "something was done");
}

#[tokio::test]
async fn an_operators_token_names_no_tenant() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let id = acme.tenant.id.to_string();
    let call = service.get("/v1/tenants").by(&operator).header("x-tenant-id", &id);
    call.send().await.refused(403, "tenant_mismatch");
}

// ── Tokens of the wrong scope ─────────────────────────────────────────────────────────────────

#[tokio::test]
async fn tenants_and_operators_have_no_say_in_each_others_affairs() {
    let service = service().await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let objects = Objects::of(&service, &globex).await;
    let before = [service.fingerprint(&acme).await, service.fingerprint(&globex).await];
    let counts = service.catalog_counts().await;
    for (method, path) in operations::all() {
        let request = sample(&method, &path, &objects, &acme.owner).unwrap();
        // These are open to every signed-in person.
        let for_all = [
            "/v1/me",
            "/v1/auth/switch",
            "/v1/analytics",
            "/v1/analytics/{name}",
            "/v1/insight/slow",
            "/v1/audit",
            "/v1/me/sessions",
            "/v1/me/sessions/{id}",
            "/v1/me/password",
            "/v1/me/email",
        ];
        if for_all.contains(&path.as_str()) {
            continue;
        }
        let wrong = match request.by {
            By::Anybody => continue,
            By::Member => &operator,
            By::Operator => &acme.owner,
        };
        request.call(&service).by(wrong).send().await.refused(403, "wrong_scope");
        request.call(&service).send().await.refused(401, "unauthenticated");
    }
    assert_eq!([service.fingerprint(&acme).await, service.fingerprint(&globex).await], before);
    assert_eq!(service.catalog_counts().await, counts);
}

// ── What changes while a token lives ──────────────────────────────────────────────────────────

/// Two servers over one database, both of which have seen the token.
async fn two_servers() -> (Service, Service) {
    let one = service().await;
    let two = one.beside(Setup::default()).await;
    (one, two)
}

async fn status_of(service: &Service, token: &str) -> (u16, Value) {
    let answer = service.get("/v1/data/orders?limit=1").bearer(token).send().await;
    let code = if answer.status == 200 { Value::Null } else { answer.json()["code"].clone() };
    (answer.status, code)
}

/// Both servers answer so within a generous timeout of the machine's clock. The resolver's own tests, whose
/// clock is paused, show that half a second is enough.
async fn both_answer(one: &Service, two: &Service, token: &str, status: u16, code: Value) {
    for service in [one, two] {
        eventually("the answer changes", SOON, async || {
            status_of(service, token).await == (status, code.clone())
        })
        .await;
    }
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_on_every_server_within_a_second_and_resumed_is_served() {
    let (one, two) = two_servers().await;
    let (acme, globex) = one.two_tenants().await;
    let operator = one.operator().await;
    let (token, theirs) = (&acme.owner.token, &globex.owner.token);
    let session = one.log_in(&acme.owner.email).await;
    let post = |what: &str| one.post(&format!("/v1/tenants/{}/{what}", acme.tenant.id), json!({}));
    for round in 0..3 {
        both_answer(&one, &two, token, 200, Value::Null).await;
        let answer = post("suspend").by(&operator).send().await.expect(200);
        assert_eq!(answer.json()["status"], "suspended", "round {round}");
        both_answer(&one, &two, token, 403, json!("tenant_suspended")).await;
        // Every entry point refuses them, and only them.
        let product = json!({"sku": "LATE", "name": "Late", "price_cents": 1});
        for service in [&one, &two] {
            let refused = "tenant_suspended";
            service
                .post("/v1/data/products", product.clone())
                .bearer(token)
                .send()
                .await
                .refused(403, refused);
            service.get("/v1/members").bearer(token).send().await.refused(403, refused);
            service.get("/v1/me").bearer(token).send().await.refused(403, refused);
            let body = json!({"email": acme.owner.email, "password": freehold::testing::PASSWORD});
            service.post("/v1/auth/login", body).send().await.refused(403, refused);
            let body = json!({"refresh_token": session["refresh_token"]});
            service.post("/v1/auth/refresh", body).send().await.refused(403, refused);
            service.get("/v1/data/orders").bearer(theirs).send().await.expect(200);
        }
        let answer = post("resume").by(&operator).send().await.expect(200);
        assert_eq!(answer.json()["status"], "active");
        both_answer(&one, &two, token, 200, Value::Null).await;
    }
    // A refusal used up no refresh token.
    let body = json!({"refresh_token": session["refresh_token"]});
    two.post("/v1/auth/refresh", body).send().await.expect(200);
    // A person who is not a member does not learn that the tenant is suspended.
    let context = OperatorContext::system("a test");
    one.freehold.tenants().suspend(&context, acme.tenant.id).await.unwrap();
    let stranger = one.token(globex.owner.id, Some(acme.tenant.id.as_uuid()), Role::Owner);
    both_answer(&one, &two, &stranger, 401, json!("invalid_token")).await;
}

#[tokio::test]
async fn a_member_who_was_removed_is_refused_on_every_server_within_a_second() {
    let (one, two) = two_servers().await;
    let acme = one.tenant("acme").await;
    let member = one.person(&acme, "member", Role::Member).await;
    both_answer(&one, &two, &member.token, 200, Value::Null).await;
    let path = format!("/v1/members/{}", member.id);
    let before = one.log_in(&member.email).await;
    one.delete(&path).by(&acme.owner).send().await.expect(204);
    both_answer(&one, &two, &member.token, 401, json!("invalid_token")).await;
    let refresh = json!({"refresh_token": before["refresh_token"]});
    two.post("/v1/auth/refresh", refresh).send().await.refused(401, "unauthenticated");
    let session = json!({"email": member.email, "password": freehold::testing::PASSWORD});
    two.post("/v1/auth/login", session).send().await.refused(403, "forbidden");
}

/// Without any notification: what a token names has been deleted from the catalog.
#[tokio::test]
async fn a_tenant_that_is_gone_is_refused_on_every_server_within_a_second() {
    let (one, two) = two_servers().await;
    let (acme, globex) = one.two_tenants().await;
    let session = one.log_in(&acme.owner.email).await;
    both_answer(&one, &two, &acme.owner.token, 200, Value::Null).await;
    let gone = "DELETE FROM freehold.tenant WHERE slug = 'acme'";
    one.sql().await.batch_execute(gone).await.unwrap();
    both_answer(&one, &two, &acme.owner.token, 401, json!("invalid_token")).await;
    for service in [&one, &two] {
        let body = json!({"refresh_token": session["refresh_token"]});
        service.post("/v1/auth/refresh", body).send().await.refused(401, "unauthenticated");
        let body = json!({"email": acme.owner.email, "password": freehold::testing::PASSWORD});
        service.post("/v1/auth/login", body).send().await.refused(403, "forbidden");
        service.get("/v1/data/orders").by(&globex.owner).send().await.expect(200);
    }
}

/// A server that receives no notifications uses nothing for long.
#[tokio::test]
async fn a_suspension_that_a_server_cannot_hear_of_is_heeded_within_a_second() {
    let (one, two) = two_servers().await;
    let acme = one.tenant("acme").await;
    both_answer(&one, &two, &acme.owner.token, 200, Value::Null).await;
    let sql = one.sql().await;
    let deafen = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND starts_with(query, 'LISTEN freehold')";
    let rows = sql.query(deafen, &[]).await.unwrap();
    assert!(!rows.is_empty(), "nobody listened");
    let context = OperatorContext::system("a test");
    one.freehold.tenants().suspend(&context, acme.tenant.id).await.unwrap();
    both_answer(&one, &two, &acme.owner.token, 403, json!("tenant_suspended")).await;
    // A connection that is being made when the database is dropped would hold that up.
    eventually("both listen again", Duration::from_secs(10), async || {
        let rows = sql.query(&deafen.replace("pg_terminate_backend(pid)", "pid"), &[]).await;
        rows.unwrap().len() >= 2
    })
    .await;
}

#[tokio::test]
async fn an_operator_who_is_none_any_more_is_refused_at_once() {
    let (one, two) = two_servers().await;
    one.tenant("acme").await;
    let operator = one.operator().await;
    let list = async |service: &Service| service.get("/v1/tenants").by(&operator).send().await;
    for service in [&one, &two] {
        list(service).await.expect(200);
    }
    let demote = "UPDATE freehold.identity SET is_operator = false WHERE email LIKE 'operator@%'";
    one.sql().await.batch_execute(demote).await.unwrap();
    for service in [&one, &two] {
        list(service).await.refused(401, "invalid_token");
    }
    // An unknown person is refused too, even with a correctly signed token.
    let stranger = one.token(Uuid::new_v4(), None, Role::Operator);
    one.get("/v1/tenants").bearer(&stranger).send().await.refused(401, "invalid_token");
}

#[tokio::test]
async fn a_changed_role_counts_on_every_server_within_a_second() {
    let (one, two) = two_servers().await;
    let acme = one.tenant("acme").await;
    let person = one.person(&acme, "person", Role::Member).await;
    let path = format!("/v1/members/{}", person.id);
    let mut stock = 100;
    for (role, status) in [("viewer", 403), ("member", 204), ("viewer", 403), ("admin", 204)] {
        one.patch(&path, json!({"role": role})).by(&acme.owner).send().await.expect(204);
        for service in [&one, &two] {
            eventually("the role counts", SOON, async || {
                stock += 1;
                let call = service.patch("/v1/data/products?sku=eq.TAPE", json!({"stock": stock}));
                call.by(&person).send().await.status == status
            })
            .await;
        }
    }
}

/// Notifications update a server's cached state. A server that receives none must query.
#[tokio::test]
async fn a_server_that_cannot_listen_hears_of_a_suspension_all_the_same() {
    let service = service().await;
    let acme = service.tenant("acme").await;
    let token = &acme.owner.token;
    assert_eq!(status_of(&service, token).await.0, 200);
    let sql = service.sql().await;
    let database = service.database().superuser_url();
    let (_, database) = database.rsplit_once('/').unwrap();
    // Open connections stay open; the listener's is ended and cannot be opened again.
    let close = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    connect(&admin_url()).await.batch_execute(&close).await.unwrap();
    let listeners = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                     WHERE datname = current_database() AND usename = 'freehold_app'
                       AND (query = '' OR starts_with(query, 'LISTEN freehold'))";
    let ended: i64 = sql.query_one(listeners, &[]).await.unwrap().get(0);
    assert!(ended > 0, "no listener was found");
    sql.batch_execute("UPDATE freehold.tenant SET status = 'suspended'").await.unwrap();
    eventually("the suspension is known", SOON, async || status_of(&service, token).await.0 == 403)
        .await;
}
