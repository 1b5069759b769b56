//! A person creates a tenant, if the service permits sign-up.

use std::collections::BTreeMap;

use freehold::MailKind;
use freehold::testing::PASSWORD;
use freehold_server::config::SignUpMode;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, SOON, Service, Setup, text};

/// A service that believes addresses as they are typed.
async fn open() -> Service {
    Service::start(open_setup()).await
}

fn open_setup() -> Setup {
    Setup { signup: SignUpMode::Open, ..Setup::default() }
}

async fn confirm(service: &Service, body: Value) -> Answer {
    service.post("/v1/signup/confirm", body).send().await
}

fn wish(slug: &str, email: &str) -> Value {
    json!({"slug": slug, "name": "Initech", "email": email, "password": PASSWORD})
}

async fn sign_up(service: &Service, body: Value) -> Answer {
    service.post("/v1/signup", body).send().await
}

#[tokio::test]
async fn who_signs_up_and_proves_the_address_owns_a_tenant_that_works() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    // Where the link leads is not the client's to say.
    let call = service.post("/v1/signup", wish("initech", "Peter@Initech.example"));
    let call = call.header("host", "evil.example").header("x-forwarded-host", "evil.example");
    let taken = call.send().await.expect(202);
    assert_eq!(taken.json(), json!({"status": "sent"}));
    assert_eq!(service.catalog_counts().await, counts, "nothing is there before the proof");
    let letters = service.letters().await;
    assert_eq!((letters.len(), letters[0].to.as_str()), (1, "peter@initech.example"));
    let token = letters[0].token.clone().unwrap();
    assert_eq!(letters[0].link, Some(format!("https://app.example.com/confirm#{token}")));

    // Inspecting a link does not use it up, since programs that scan mail open links.
    for _ in 0..2 {
        let look = service.post("/v1/links/inspect", json!({"token": token}));
        let link = look.send().await.expect(200).json();
        assert_eq!((&link["kind"], &link["password"]), (&json!("sign_up"), &json!("repeat")));
        assert_eq!(link["tenant"], json!({"slug": "initech", "name": "Initech"}));
    }
    let body = json!({"token": token, "password": PASSWORD});
    let made = confirm(&service, body.clone()).await.expect(201).json();
    assert_eq!((&made["slug"], &made["status"]), (&json!("initech"), &json!("active")));
    assert_eq!(made["version"], 3, "the tenant has the whole baseline");
    confirm(&service, body).await.refused(404, "not_found");
    let tokens = service.log_in("peter@initech.example").await;
    assert_eq!((&tokens["role"], &tokens["tenant"]["id"]), (&json!("owner"), &made["id"]));
    let token = text(&tokens["access_token"]);
    let rows = service.get("/v1/data/orders").bearer(&token).send().await.expect(200).json();
    assert_eq!(rows, json!([]), "a new tenant is empty");
    let product = json!({"sku": "A", "name": "A", "price_cents": 1});
    service.post("/v1/data/products", product).bearer(&token).send().await.expect(201);
}

/// A stranger who signs a victim up cannot choose the password: it has to be repeated.
#[tokio::test]
async fn nobody_confirms_a_password_that_a_stranger_chose() {
    let service = Service::start(Setup::default()).await;
    sign_up(&service, wish("initech", "victim@x.example")).await.expect(202);
    let token = service.letter_token(MailKind::SignUp, "victim@x.example").await;
    let counts = service.catalog_counts().await;
    for password in ["", "the victim's own", "freehold-tesT"] {
        let answer = confirm(&service, json!({"token": token, "password": password})).await;
        assert_eq!(answer.refused(403, "forbidden").json()["field"], "password");
    }
    assert_eq!(service.catalog_counts().await, counts, "nothing was made");
    // Without a password at sign-up, the holder of the token chooses one.
    let mut without = wish("initech", "victim@x.example");
    without.as_object_mut().unwrap().remove("password");
    sign_up(&service, without).await.expect(202);
    let token = service.letter_token(MailKind::SignUp, "victim@x.example").await;
    let look = service.post("/v1/links/inspect", json!({"token": token})).send().await;
    assert_eq!(look.expect(200).json()["password"], "choose");
    let short = confirm(&service, json!({"token": token, "password": "short"})).await;
    short.refused(400, "invalid_input");
    confirm(&service, json!({"token": token, "password": "the victim's own"})).await.expect(201);
}

#[tokio::test]
async fn a_known_address_gets_the_same_answer_and_confirms_with_its_own_password() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let mut stranger = wish("initech", &acme.owner.email);
    stranger["password"] = json!("not the password");
    let known = sign_up(&service, stranger).await.expect(202);
    let unknown = sign_up(&service, wish("initrode", "nobody@x.example")).await.expect(202);
    assert_eq!(known.bytes(), unknown.bytes());
    let token = service.letter_token(MailKind::SignUp, &acme.owner.email).await;
    let look = service.post("/v1/links/inspect", json!({"token": token})).send().await;
    assert_eq!(look.expect(200).json()["password"], "own");
    let wrong = json!({"token": token, "password": "not the password"});
    confirm(&service, wrong).await.refused(403, "forbidden");
    confirm(&service, json!({"token": token, "password": PASSWORD})).await.expect(201);
    let body = json!({"email": acme.owner.email, "password": PASSWORD, "tenant": "initech"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
}

/// Measured by the database's statements, not by the clock: the same statements, the same hash.
#[tokio::test]
async fn for_a_known_and_an_unknown_address_a_sign_up_and_a_reset_leave_rows_of_one_shape() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let mut shapes = Vec::new();
    for email in [acme.owner.email.as_str(), "nobody@x.example"] {
        sign_up(&service, wish("initech", email)).await.expect(202);
        let reset = service.post("/v1/auth/reset", json!({"email": email})).send().await;
        reset.expect(202);
        let sql = service.sql().await;
        let count = "SELECT (SELECT count(*) FROM freehold.sign_up WHERE email = $1 AND password_hash LIKE '$argon2id$%'),
                            (SELECT count(*) FROM freehold.outbox WHERE email = $1 AND kind = 'sign_up'),
                            (SELECT count(*) FROM freehold.outbox WHERE email = $1 AND kind = 'reset'),
                            (SELECT count(*) FROM freehold.password_reset)";
        let row = sql.query_one(count, &[&email]).await.unwrap();
        shapes.push([0, 1, 2, 3].map(|at| row.get::<_, i64>(at)));
    }
    assert_eq!(shapes, [[1, 1, 1, 0]; 2]);
    // A reset for an unknown address sends no message; this is noticed when it is composed.
    let letters = service.letters().await;
    let resets = letters.iter().filter(|letter| letter.kind == MailKind::Reset);
    assert_eq!(resets.map(|l| l.to.as_str()).collect::<Vec<_>>(), [acme.owner.email.as_str()]);
}

#[tokio::test]
async fn a_slug_that_was_taken_meanwhile_is_replaced_at_the_proof() {
    let service = Service::start(Setup::default()).await;
    for email in ["a@x.example", "b@x.example"] {
        sign_up(&service, wish("initech", email)).await.expect(202);
    }
    let letters = service.letters().await;
    let body = |at: usize, slug: Option<&str>| json!({"token": letters[at].token, "password": PASSWORD, "slug": slug});
    confirm(&service, body(0, None)).await.expect(201);
    let answer = confirm(&service, body(1, None)).await.refused(409, "slug_taken");
    assert_eq!(answer.json()["field"], "slug");
    let answer = confirm(&service, body(1, Some("Initrode"))).await.refused(400, "invalid_input");
    assert_eq!(answer.json()["field"], "slug");
    let made = confirm(&service, body(1, Some("initrode"))).await.expect(201).json();
    assert_eq!(made["slug"], "initrode");
}

#[tokio::test]
async fn a_confirmation_is_good_once_however_many_send_it_and_not_after_its_end() {
    let service = Service::start(Setup::default()).await;
    sign_up(&service, wish("initech", "a@x.example")).await.expect(202);
    let token = service.letter_token(MailKind::SignUp, "a@x.example").await;
    let body = json!({"token": token, "password": PASSWORD});
    let answers = join_all((0..4).map(|_| confirm(&service, body.clone()))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201, "{statuses:?}");
    assert!(statuses[1..].iter().all(|status| [403, 404, 409].contains(status)), "{statuses:?}");
    assert_eq!(service.catalog_counts().await, [1, 1, 1, 0, 0]);

    sign_up(&service, wish("initrode", "b@x.example")).await.expect(202);
    let token = service.letter_token(MailKind::SignUp, "b@x.example").await;
    let end = "UPDATE freehold.sign_up SET expires_at = now()";
    service.sql().await.batch_execute(end).await.unwrap();
    let body = json!({"token": token, "password": PASSWORD});
    confirm(&service, body).await.refused(404, "not_found");
    for token in ["", "fhs_", &format!("fhs_{}", "A".repeat(43)), "fhi_AAAA"] {
        let body = json!({"token": token, "password": PASSWORD});
        confirm(&service, body).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn letters_to_one_address_are_bounded_and_it_shows_to_nobody() {
    let service = Service::start(Setup::default()).await;
    for n in 0..8 {
        let body = wish(&format!("shop{n}"), "victim@x.example");
        sign_up(&service, body).await.expect(202);
    }
    assert_eq!(service.letters().await.len(), 5);
    let reset = json!({"email": "victim@x.example"});
    service.post("/v1/auth/reset", reset).send().await.expect(202);
    assert_eq!(service.letters().await.len(), 0);
    // An hour later there is room again.
    let later = "UPDATE freehold.outbox SET created_at = created_at - interval '61 minutes'";
    service.sql().await.batch_execute(later).await.unwrap();
    sign_up(&service, wish("later", "victim@x.example")).await.expect(202);
    assert_eq!(service.letters().await.len(), 1);
}

#[tokio::test]
async fn a_service_without_mail_refuses_what_would_end_in_a_letter() {
    let service = Service::start(Setup { mail: false, ..Setup::default() }).await;
    let acme = service.tenant("acme").await;
    sign_up(&service, wish("initech", "a@x.example")).await.refused(503, "mail_off");
    let reset = service.post("/v1/auth/reset", json!({"email": acme.owner.email}));
    reset.send().await.refused(503, "mail_off");
    let invite = json!({"email": "a@x.example", "role": "viewer"});
    let invite = service.post("/v1/invitations", invite).by(&acme.owner).send().await;
    invite.refused(503, "mail_off");
    let body = json!({"email": "a@x.example", "password": PASSWORD});
    let change = service.post("/v1/me/email", body).by(&acme.owner).send().await;
    change.refused(503, "mail_off");
    let rows = "SELECT count(*) FROM freehold.outbox";
    assert_eq!(service.sql().await.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 0);
}

// ── Addresses that are believed as they are typed ─────────────────────────────────────────────

#[tokio::test]
async fn where_sign_up_is_open_a_tenant_is_made_at_once_and_whoever_proves_the_address_takes_it() {
    let service = open().await;
    let made = sign_up(&service, wish("initech", "ops@company.example")).await.expect(201).json();
    let stranger = service.log_in("ops@company.example").await;
    let token = text(&stranger["access_token"]);
    service.get("/v1/members").bearer(&token).send().await.expect(200);
    // The owner of the address chooses a password by mail: the first proof.
    let reset = json!({"email": "ops@company.example"});
    service.post("/v1/auth/reset", reset).send().await.expect(202);
    let reset = service.letter_token(MailKind::Reset, "ops@company.example").await;
    let body = json!({"token": reset, "password": "the owner's own"});
    service.post("/v1/auth/reset/confirm", body).send().await.expect(204);
    // The stranger's password, session, refresh token and membership are gone.
    let body = json!({"email": "ops@company.example", "password": PASSWORD});
    service.post("/v1/auth/login", body).send().await.refused(401, "unauthenticated");
    let refresh = json!({"refresh_token": stranger["refresh_token"]});
    service.post("/v1/auth/refresh", refresh).send().await.refused(401, "unauthenticated");
    crate::support::eventually("the token is refused", SOON, async || {
        service.get("/v1/members").bearer(&token).send().await.status == 401
    })
    .await;
    let body = json!({"email": "ops@company.example", "password": "the owner's own"});
    service.post("/v1/auth/login", body).send().await.refused(403, "forbidden");
    // The tenant has no owner until an operator adds one.
    let operator = service.operator().await;
    let path = format!("/v1/tenants/{}/owners", text(&made["id"]));
    let owner = json!({"email": "ops@company.example", "existing": true});
    service.post(&path, owner).by(&operator).send().await.expect(204);
    let body = json!({"email": "ops@company.example", "password": "the owner's own"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
}

#[tokio::test]
async fn a_service_that_takes_no_sign_ups_says_so_and_makes_nothing() {
    let service = Service::start(Setup { signup: SignUpMode::Off, ..Setup::default() }).await;
    service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    sign_up(&service, wish("initech", "peter@initech.example")).await.refused(403, "signup_closed");
    // Nor does a link that was sent while it still took some.
    let before = service.beside(Setup::default()).await;
    sign_up(&before, wish("initech", "peter@initech.example")).await.expect(202);
    let token = before.letter_token(MailKind::SignUp, "peter@initech.example").await;
    let body = json!({"token": token, "password": PASSWORD});
    confirm(&service, body).await.refused(403, "signup_closed");
    assert_eq!(service.catalog_counts().await, counts);
}

#[tokio::test]
async fn somebody_who_is_known_proves_it_with_their_password() {
    let service = open().await;
    let acme = service.tenant("acme").await;
    let counts = service.catalog_counts().await;
    let mut stranger = wish("initech", "OWNER@acme.example");
    stranger["password"] = json!("not the password");
    sign_up(&service, stranger).await.refused(401, "unauthenticated");
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
    let service = open().await;
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
    let service = open().await;
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
    let service = Service::start(Setup { per_client: 2, ..open_setup() }).await;
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

/// From one address, within the default limits of a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_sign_up_for_one_slug_one_gets_it() {
    let service = Service::start(Setup { per_email: 10, per_client: 60, ..open_setup() }).await;
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
    let service = Service::start(Setup { per_client: 3, ..open_setup() }).await;
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
    // A slug that was just found taken may be requested again without being counted.
    ask(4, "acme").await.refused(409, "slug_taken");
}

#[tokio::test]
async fn a_slug_whose_first_asker_fails_goes_to_the_next() {
    let service = open().await;
    let acme = service.tenant("acme").await;
    let mut stranger = wish("initech", &acme.owner.email);
    stranger["password"] = json!("not the password");
    let answers = join_all((0..6).map(|n| match n {
        0..3 => sign_up(&service, stranger.clone()),
        _ => sign_up(&service, wish("initech", &format!("p{n}@x.example"))),
    }));
    let mut statuses: Vec<_> = answers.await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    // The strangers get 401 or 409, depending on which request came first.
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 401, 409].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_sign_up_that_is_sent_again_is_answered_again() {
    let service = open().await;
    let send = |body: Value| service.post("/v1/signup", body).header("idempotency-key", "once");
    let body = wish("initech", "peter@initech.example");
    let first = send(body.clone()).send().await.expect(201).json();
    let second = send(body.clone()).send().await.expect(201).json();
    assert_eq!(first, second);
    let mut other = body.clone();
    other["slug"] = json!("initrode");
    send(other).send().await.refused(409, "idempotency_key_reused");
    // A repetition with another password does not get the first one's answer.
    let mut stranger = body;
    stranger["password"] = json!("not the password");
    send(stranger).send().await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_sign_up_that_is_sent_again_before_its_proof_sends_no_second_letter() {
    let service = Service::start(Setup::default()).await;
    let send = |body: Value| service.post("/v1/signup", body).header("idempotency-key", "once");
    let body = wish("initech", "peter@initech.example");
    let first = send(body.clone()).send().await.expect(202);
    let second = send(body.clone()).send().await.expect(202);
    assert_eq!(first.bytes(), second.bytes());
    assert_eq!(service.letters().await.len(), 1);
    let mut other = body;
    other["slug"] = json!("initrode");
    send(other).send().await.refused(409, "idempotency_key_reused");
}

/// With a plain hash of the body, a reader of the catalog could guess a password.
#[tokio::test]
async fn what_is_kept_of_a_request_that_may_be_repeated_tells_nothing_and_is_forgotten_after_a_day()
{
    use sha2::{Digest as _, Sha256};
    let service = open().await;
    let body = wish("initech", "peter@initech.example");
    let call = service.post("/v1/signup", body.clone()).header("idempotency-key", "once");
    call.send().await.expect(201);
    let sql = service.sql().await;
    let kept = sql.query_one("SELECT request_hash FROM freehold.idempotency", &[]).await.unwrap();
    let plain = Sha256::digest(body.to_string());
    assert_ne!(kept.get::<_, Vec<u8>>(0), plain.as_slice());
    assert_eq!(kept.get::<_, Vec<u8>>(0), service.sign_in.request_hash(&plain.into()));
    let count = async || -> i64 {
        let count = "SELECT count(*) FROM freehold.idempotency";
        sql.query_one(count, &[]).await.unwrap().get(0)
    };
    service.freehold.people().prune().await.unwrap();
    assert_eq!(count().await, 1);
    let later = "UPDATE freehold.idempotency SET created_at = now() - interval '25 hours'";
    sql.batch_execute(later).await.unwrap();
    service.freehold.people().prune().await.unwrap();
    assert_eq!(count().await, 0);
}
