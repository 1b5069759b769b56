//! Accounts cannot be taken over: proof of addresses, changes of passwords and addresses, management of
//! people by operators.

use freehold::testing::PASSWORD;
use freehold::{MailKind, OperatorContext, Role};
use freehold_server::config::SignUpMode;
use serde_json::{Value, json};

use super::audit::audit;
use crate::support::{Answer, Person, SOON, Service, Setup, eventually, insert_identity, text};

const OTHER: &str = "another password";

async fn log_in(service: &Service, email: &str, password: &str) -> Answer {
    service.post("/v1/auth/login", json!({"email": email, "password": password})).send().await
}

async fn refresh(service: &Service, tokens: &Value) -> Answer {
    let body = json!({"refresh_token": tokens["refresh_token"]});
    service.post("/v1/auth/refresh", body).send().await
}

/// The access token is refused within moments.
async fn ends(service: &Service, tokens: &Value) {
    let token = text(&tokens["access_token"]);
    eventually("the token is refused", SOON, async || {
        service.get("/v1/me").bearer(&token).send().await.status == 401
    })
    .await;
    refresh(service, tokens).await.refused(401, "unauthenticated");
}

/// A stranger has signed up with another person's address, with open sign-up.
async fn squatted(service: &Service, slug: &str, email: &str) -> Value {
    let body = json!({"slug": slug, "name": slug, "email": email, "password": PASSWORD});
    service.post("/v1/signup", body).send().await.expect(201);
    log_in(service, email, PASSWORD).await.expect(200).json()
}

async fn open() -> Service {
    Service::start(Setup { signup: SignUpMode::Open, ..Setup::default() }).await
}

// ── Passwords ─────────────────────────────────────────────────────────────────────────────────

/// Of "password", with other parameters than ours; from the tests of the reference implementation.
const OUTDATED: &str =
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

#[tokio::test]
async fn an_outdated_hash_is_renewed_but_never_over_a_password_that_was_changed_meanwhile() {
    let service = Service::start(Setup::default()).await;
    let (acme, _) = service.two_tenants().await;
    let ann = service.person(&acme, "ann", Role::Member).await;
    let (reader, mut changer) = (service.sql().await, service.sql().await);
    let stored = async || {
        let sql = "SELECT password_hash FROM freehold.credential WHERE identity_id = $1";
        reader.query_one(sql, &[&ann.id]).await.unwrap().get::<_, String>(0)
    };
    let store = "UPDATE freehold.credential SET password_hash = $2 WHERE identity_id = $1";
    let of_today = stored().await;
    reader.execute(store, &[&ann.id, &OUTDATED]).await.unwrap();
    log_in(&service, &ann.email, "password").await.expect(200);
    assert_ne!(stored().await, OUTDATED);

    reader.execute(store, &[&ann.id, &OUTDATED]).await.unwrap();
    let change = changer.transaction().await.unwrap();
    change.execute(store, &[&ann.id, &of_today]).await.unwrap();
    let (answer, ()) = tokio::join!(log_in(&service, &ann.email, "password"), async {
        eventually("the renewal waits for the change", SOON, async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND query ~ 'UPDATE freehold.credential'";
            reader.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        change.commit().await.unwrap();
    });
    answer.expect(200);
    assert_eq!(stored().await, of_today, "the password that was set meanwhile stands");
}

// ── Operators ─────────────────────────────────────────────────────────────────────────────────

/// The attack of the issue that asked for this: register an address that will be made operator.
#[tokio::test]
async fn whoever_only_typed_an_address_is_not_the_operator_that_it_becomes() {
    let service = open().await;
    let stranger = squatted(&service, "initech", "ops@company.example").await;
    let operator = service.operator().await;
    // With `existing` no person is found: the address was never proven.
    let body = json!({"email": "ops@company.example", "existing": true});
    let call = service.post("/v1/operators", body).by(&operator).send().await;
    call.refused(404, "not_found");
    // With a password the person is a new one and gets that password.
    let body = json!({"email": "ops@company.example", "password": OTHER});
    let made = service.post("/v1/operators", body).by(&operator).send().await.expect(201).json();
    assert_eq!((&made["operator"], &made["proven_by"]), (&json!(true), &json!(operator.id)));
    assert_eq!(made["proven_why"], "POST /v1/operators");
    log_in(&service, "ops@company.example", PASSWORD).await.refused(401, "unauthenticated");
    ends(&service, &stranger).await;
    let tokens = log_in(&service, "ops@company.example", OTHER).await.expect(200).json();
    assert_eq!((&tokens["role"], tokens.get("tenant")), (&json!("operator"), None));
    let me = service.get("/v1/me").bearer(&text(&tokens["access_token"])).send().await.json();
    assert_eq!(me["tenants"], json!([]), "what the stranger owned is not theirs");
}

#[tokio::test]
async fn an_operator_is_made_of_somebody_known_only_if_that_is_said_and_no_password_is_ignored() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let email = acme.owner.email.as_str();
    let make = async |body: Value| service.post("/v1/operators", body).by(&operator).send().await;
    make(json!({"email": email})).await.refused(409, "email_taken");
    make(json!({"email": email, "password": OTHER})).await.refused(409, "email_taken");
    let both = json!({"email": email, "password": OTHER, "existing": true});
    assert_eq!(make(both).await.refused(400, "invalid_input").json()["field"], "password");
    let without = make(json!({"email": "new@x.example"})).await.refused(400, "invalid_input");
    assert_eq!(without.json()["field"], "password");
    make(json!({"email": email, "existing": true})).await.expect(201);
    log_in(&service, email, OTHER).await.refused(401, "unauthenticated");
    assert_eq!(log_in(&service, email, PASSWORD).await.expect(200).json()["role"], "operator");
}

#[tokio::test]
async fn operators_are_listed_and_revoked_and_the_last_one_stays() {
    let service = Service::start(Setup::default()).await;
    let other_server = service.beside(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let body = json!({"email": "second@x.example", "password": PASSWORD});
    let second = service.post("/v1/operators", body).by(&operator).send().await.expect(201).json();
    let list = service.get("/v1/operators").by(&operator).send().await.expect(200).json();
    let emails: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|p| text(&p["email"])).collect();
    assert_eq!(emails, ["operator@freehold.example", "second@x.example"]);
    let tokens = log_in(&service, "second@x.example", PASSWORD).await.expect(200).json();
    let path = format!("/v1/operators/{}", text(&second["id"]));
    service.delete(&path).by(&acme.owner).send().await.refused(403, "wrong_scope");
    service.delete(&path).by(&operator).send().await.expect(204);
    let token = text(&tokens["access_token"]);
    other_server.get("/v1/tenants").bearer(&token).send().await.refused(401, "invalid_token");
    refresh(&service, &tokens).await.refused(401, "unauthenticated");
    service.delete(&path).by(&operator).send().await.refused(404, "not_found");
    for (method, path) in [
        ("DELETE", format!("/v1/operators/{}", operator.id)),
        ("DELETE", format!("/v1/people/{}", operator.id)),
        ("POST", format!("/v1/people/{}/disable", operator.id)),
    ] {
        service.call(method, &path).by(&operator).send().await.refused(409, "conflict");
    }
}

#[tokio::test]
async fn of_two_operators_who_revoke_each_other_at_once_one_stays() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let first = service.operator().await;
    let body = json!({"email": "second@x.example", "password": PASSWORD});
    let second = service.post("/v1/operators", body).by(&first).send().await.expect(201).json();
    let tokens = log_in(&service, "second@x.example", PASSWORD).await.expect(200).json();
    let paths =
        [format!("/v1/operators/{}", text(&second["id"])), format!("/v1/operators/{}", first.id)];
    let one = service.delete(&paths[0]).by(&first).send();
    let other = service.delete(&paths[1]).bearer(&text(&tokens["access_token"])).send();
    let (one, other) = tokio::join!(one, other);
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    // The second one was no longer an operator, or was the last.
    assert!(statuses[0] == 204 && [401, 409].contains(&statuses[1]), "{statuses:?}");
    let left = "SELECT count(*) FROM freehold.identity WHERE is_operator";
    assert_eq!(service.sql().await.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// Until `count` statements wait for a lock.
async fn waits(service: &Service, count: i64) {
    let sql = service.sql().await;
    eventually("a statement waits for a lock", SOON, async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock'";
        sql.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == count
    })
    .await;
}

/// Another server is making the person, too late for the check before a password is hashed.
#[tokio::test]
async fn a_person_who_is_made_meanwhile_keeps_the_password_and_is_not_made_anything() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let (email, given) = ("new@x.example", json!({"email": "new@x.example", "password": OTHER}));
    for (path, body) in [
        ("/v1/operators".to_owned(), given.clone()),
        (format!("/v1/tenants/{}/owners", acme.tenant.id), given.clone()),
        ("/v1/tenants".to_owned(), json!({"slug": "new", "name": "New", "owner": given})),
    ] {
        let (sql, id) = (service.sql().await, uuid::Uuid::new_v4());
        sql.batch_execute("BEGIN").await.unwrap();
        insert_identity(&sql, id, email, false).await;
        let (answer, ()) = tokio::join!(service.post(&path, body).by(&operator).send(), async {
            waits(&service, 1).await;
            sql.batch_execute("COMMIT").await.unwrap();
        });
        answer.refused(409, "email_taken");
        log_in(&service, email, OTHER).await.refused(401, "unauthenticated");
        let shown = service.get(&format!("/v1/people/{id}")).by(&operator).send().await.json();
        assert_eq!((&shown["operator"], &shown["tenants"]), (&json!(false), &json!([])), "{path}");
        service.delete(&format!("/v1/people/{id}")).by(&operator).send().await.expect(204);
    }
}

// ── Passwords ─────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_all_other_sessions_end() {
    let service = Service::start(Setup::default()).await;
    let other_server = service.beside(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    let here = service.log_in(email).await;
    let there = other_server.log_in(email).await;
    let change = async |token: &Value, current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        service.post("/v1/me/password", body).bearer(&text(token)).send().await
    };
    let token = &here["access_token"];
    let refused = change(token, "not the password", OTHER).await.refused(403, "forbidden");
    assert_eq!(refused.json()["field"], "current_password");
    let refused = change(token, PASSWORD, "short").await.refused(400, "invalid_input");
    assert_eq!(refused.json()["field"], "new_password");
    change(token, PASSWORD, OTHER).await.expect(200);
    ends(&other_server, &there).await;
    service.get("/v1/me").bearer(&text(token)).send().await.expect(200);
    refresh(&service, &here).await.expect(200);
    log_in(&service, email, PASSWORD).await.refused(401, "unauthenticated");
    log_in(&service, email, OTHER).await.expect(200);
    let letters = service.letters().await;
    assert_eq!(letters.iter().map(|l| l.kind).collect::<Vec<_>>(), [MailKind::PasswordChanged]);
    assert!(letters[0].token.is_none());
}

#[tokio::test]
async fn a_password_is_chosen_anew_by_who_reads_the_mail_once_and_nothing_old_goes_on() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    let before = service.log_in(email).await;
    let ask = async || {
        let body = json!({"email": email.to_uppercase()});
        let answer = service.post("/v1/auth/reset", body).send().await.expect(202);
        assert_eq!(answer.json(), json!({"status": "sent"}));
        service.letter_token(MailKind::Reset, email).await
    };
    let (first, second) = (ask().await, ask().await);
    let set = async |token: &str, password: &str| {
        let body = json!({"token": token, "password": password});
        service.post("/v1/auth/reset/confirm", body).send().await
    };
    set(&first, "short").await.refused(400, "invalid_input");
    set(&first, OTHER).await.expect(204);
    // Using one message invalidates both.
    for token in [&first, &second, &format!("fhp_{}", "A".repeat(43)), ""] {
        set(token, PASSWORD).await.refused(404, "not_found");
    }
    ends(&service, &before).await;
    log_in(&service, email, PASSWORD).await.refused(401, "unauthenticated");
    let tokens = log_in(&service, email, OTHER).await.expect(200).json();
    assert_eq!(tokens["role"], "owner", "they are what they were");
    // Not after it expired, and not for a disabled person.
    let late = ask().await;
    let end = "UPDATE freehold.password_reset SET expires_at = now()";
    service.sql().await.batch_execute(end).await.unwrap();
    set(&late, PASSWORD).await.refused(404, "not_found");
}

/// Blocks a sign-in and a reset at once: the second one finds nothing left to use.
#[tokio::test]
async fn a_session_that_begins_while_the_password_is_replaced_does_not_outlive_the_former() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    for round in 0..4 {
        let body = json!({"email": email});
        service.post("/v1/auth/reset", body).send().await.expect(202);
        let token = service.letter_token(MailKind::Reset, email).await;
        let (old, new) = (format!("password {round}"), format!("password {}", round + 1));
        let old = if round == 0 { PASSWORD.to_owned() } else { old };
        let reset = json!({"token": token, "password": new});
        let reset = service.post("/v1/auth/reset/confirm", reset).send();
        let (signed_in, set) = tokio::join!(log_in(&service, email, &old), reset);
        set.expect(204);
        if signed_in.status == 200 {
            refresh(&service, &signed_in.json()).await.refused(401, "unauthenticated");
        }
        let hour = "UPDATE freehold.outbox SET created_at = created_at - interval '2 hours'";
        service.sql().await.batch_execute(hour).await.unwrap();
    }
}

// ── Addresses ─────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_address_is_replaced_when_both_mailboxes_have_agreed() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    let session = service.log_in(email).await;
    let ask = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        service.post("/v1/me/email", body).by(&acme.owner).send().await
    };
    ask("new@acme.example", "not the password").await.refused(403, "forbidden");
    ask(email, PASSWORD).await.refused(400, "invalid_input");
    ask("new@acme.example", PASSWORD).await.expect(202);
    let letters = service.letters().await;
    let told: Vec<_> = letters.iter().map(|l| (l.kind, l.to.as_str())).collect();
    let expected = [(MailKind::AddressLeave, email), (MailKind::AddressProof, "new@acme.example")];
    assert_eq!(told, expected);
    let confirm = async |at: usize| {
        let body = json!({"token": letters[at].token});
        service.post("/v1/auth/address/confirm", body).send().await
    };
    let half = confirm(1).await.expect(200).json();
    assert_eq!(half, json!({"changed": false, "waits_for": "old"}));
    log_in(&service, "new@acme.example", PASSWORD).await.refused(401, "unauthenticated");
    confirm(1).await.refused(404, "not_found");
    let done = confirm(0).await.expect(200).json();
    assert_eq!(done, json!({"changed": true, "waits_for": null}));
    ends(&service, &session).await;
    log_in(&service, email, PASSWORD).await.refused(401, "unauthenticated");
    let tokens = log_in(&service, "new@acme.example", PASSWORD).await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
    let told = service.letters().await;
    let told: Vec<_> = told.iter().map(|l| (l.kind, l.to.as_str())).collect();
    let expected =
        [(MailKind::AddressChanged, email), (MailKind::AddressChanged, "new@acme.example")];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_address_that_is_somebody_elses_is_not_taken_over_and_the_asker_is_not_told() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let ask = async |email: &str| {
        let body = json!({"email": email, "password": PASSWORD});
        service.post("/v1/me/email", body).by(&acme.owner).send().await.expect(202).bytes()
    };
    let free = ask("free@x.example").await;
    let taken = ask(&globex.owner.email).await;
    assert_eq!(free, taken);
    let letters = service.letters().await;
    let to_other = letters.iter().rfind(|letter| letter.to == globex.owner.email).unwrap();
    assert_eq!((to_other.kind, &to_other.token), (MailKind::AddressTaken, &None));
    // The second request replaced the first, so the link to the free address is invalid.
    let first = letters.iter().find(|letter| letter.to == "free@x.example");
    assert!(first.is_none(), "its letter was dropped with it");
    let own = letters.iter().rfind(|letter| letter.to == acme.owner.email).unwrap();
    let body = json!({"token": own.token});
    let half = service.post("/v1/auth/address/confirm", body).send().await.expect(200).json();
    assert_eq!(half["changed"], false);
}

#[tokio::test]
async fn a_change_of_password_ends_what_else_was_under_way() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    let body = json!({"email": "new@acme.example", "password": PASSWORD});
    service.post("/v1/me/email", body).by(&acme.owner).send().await.expect(202);
    service.post("/v1/auth/reset", json!({"email": email})).send().await.expect(202);
    let letters = service.letters().await;
    let change = json!({"current_password": PASSWORD, "new_password": OTHER});
    service.post("/v1/me/password", change).by(&acme.owner).send().await.expect(200);
    for letter in letters {
        let (path, body) = match letter.kind {
            MailKind::Reset => {
                ("/v1/auth/reset/confirm", json!({"token": letter.token, "password": PASSWORD}))
            }
            _ => ("/v1/auth/address/confirm", json!({"token": letter.token})),
        };
        service.post(path, body).send().await.refused(404, "not_found");
    }
}

// ── People, as operators govern them ──────────────────────────────────────────────────────────

#[tokio::test]
async fn somebody_who_is_disabled_is_refused_everything_on_every_server_within_a_second() {
    let service = Service::start(Setup::default()).await;
    let other_server = service.beside(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let admin = service.person(&acme, "admin", Role::Admin).await;
    let tokens = service.log_in(&admin.email).await;
    let body = json!({"email": "x@x.example", "role": "viewer"});
    service.post("/v1/invitations", body).by(&admin).send().await.expect(201);
    let invitation = service.letter_token(MailKind::Invitation, "x@x.example").await;
    service.post("/v1/auth/reset", json!({"email": admin.email})).send().await.expect(202);
    let reset = service.letter_token(MailKind::Reset, &admin.email).await;
    for server in [&service, &other_server] {
        server.get("/v1/me").by(&admin).send().await.expect(200);
    }
    let wrong = log_in(&service, &admin.email, "not the password").await.bytes();
    let path = format!("/v1/people/{}", admin.id);
    service.call("POST", &format!("{path}/disable")).by(&operator).send().await.expect(200);
    for server in [&service, &other_server] {
        ends(server, &tokens).await;
        eventually("the other token is refused", SOON, async || {
            server.get("/v1/me").by(&admin).send().await.status == 401
        })
        .await;
    }
    assert_eq!(log_in(&service, &admin.email, PASSWORD).await.bytes(), wrong);
    // Nor does an invitation that was sent later tell whether the password is right.
    let globex = service.tenant("globex").await;
    let body = json!({"email": admin.email, "role": "viewer"});
    service.post("/v1/invitations", body).by(&globex.owner).send().await.expect(201);
    let later = service.letter_token(MailKind::Invitation, &admin.email).await;
    let accept = async |password: &str| {
        let body = json!({"token": later, "password": password});
        let answer = service.post("/v1/invitations/accept", body).send().await;
        answer.refused(401, "unauthenticated").bytes()
    };
    assert_eq!(accept(PASSWORD).await, accept("not the password").await);
    let body = json!({"token": invitation, "password": OTHER});
    service.post("/v1/invitations/accept", body).send().await.refused(404, "not_found");
    let body = json!({"token": reset, "password": OTHER});
    service.post("/v1/auth/reset/confirm", body).send().await.refused(404, "not_found");
    service.post("/v1/auth/reset", json!({"email": admin.email})).send().await.expect(202);
    assert!(service.letters().await.iter().all(|letter| letter.kind != MailKind::Reset));
    // The library's own context knows of it too.
    let context = service.freehold.tenant_context(acme.tenant.id, admin.id.into());
    assert_eq!(context.await.unwrap_err().kind(), freehold::ErrorKind::NotFound);
    service.call("POST", &format!("{path}/enable")).by(&operator).send().await.expect(200);
    assert_eq!(log_in(&service, &admin.email, PASSWORD).await.expect(200).json()["role"], "admin");
}

#[tokio::test]
async fn support_resets_a_person_without_making_them_anything_and_ends_what_was_open() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let tokens = service.log_in(&acme.owner.email).await;
    let path = format!("/v1/people/{}/reset", acme.owner.id);
    let person = service.call("POST", &path).by(&operator).send().await.expect(200).json();
    assert_eq!((&person["operator"], &person["has_password"]), (&json!(false), &json!(false)));
    ends(&service, &tokens).await;
    log_in(&service, &acme.owner.email, PASSWORD).await.refused(401, "unauthenticated");
    let token = service.letter_token(MailKind::Reset, &acme.owner.email).await;
    let body = json!({"token": token, "password": OTHER});
    service.post("/v1/auth/reset/confirm", body).send().await.expect(204);
    let tokens = log_in(&service, &acme.owner.email, OTHER).await.expect(200).json();
    assert_eq!(tokens["role"], "owner");
}

#[tokio::test]
async fn a_person_is_removed_whole_but_not_from_a_tenant_that_nobody_else_owns() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let owner = format!("/v1/people/{}", acme.owner.id);
    let refused = service.delete(&owner).by(&operator).send().await.refused(409, "conflict");
    assert!(refused.text().contains("acme"));
    let other = service.person(&acme, "other", Role::Owner).await;
    let tokens = service.log_in(&acme.owner.email).await;
    service.delete(&owner).by(&operator).send().await.expect(204);
    ends(&service, &tokens).await;
    service.get(&owner).by(&operator).send().await.refused(404, "not_found");
    let members = service.get("/v1/members").by(&other).send().await.expect(200).json();
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
    // The record outlives them.
    let lines = audit(&service, &operator, &format!("&person={}", acme.owner.id)).await;
    assert_eq!(lines[0]["action"], "person.remove");
    assert_eq!(lines[0]["target_email"], json!(acme.owner.email));
}

#[tokio::test]
async fn of_two_owners_who_are_removed_at_once_one_stays() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let other = service.person(&acme, "other", Role::Owner).await;
    // What another server does meanwhile.
    let sql = service.sql().await;
    sql.batch_execute("BEGIN").await.unwrap();
    let remove = "DELETE FROM freehold.identity WHERE id = $1";
    sql.execute(remove, &[&other.id]).await.unwrap();
    let path = format!("/v1/people/{}", acme.owner.id);
    let (answer, ()) = tokio::join!(service.delete(&path).by(&operator).send(), async {
        waits(&service, 1).await;
        sql.batch_execute("COMMIT").await.unwrap();
    });
    answer.refused(409, "conflict");
}

#[tokio::test]
async fn to_vouch_for_an_address_takes_a_reason_and_drops_what_was_under_it_before() {
    let service = open().await;
    let stranger = squatted(&service, "initech", "real@x.example").await;
    let operator = service.operator().await;
    let list = service.get("/v1/people").by(&operator).send().await.expect(200).json();
    let people = list["items"].as_array().unwrap();
    let real = people.iter().find(|person| person["email"] == "real@x.example").unwrap();
    assert_eq!(real.get("proven_at"), None);
    let path = format!("/v1/people/{}/vouch", text(&real["id"]));
    for why in ["", "   ", &"x".repeat(501), "a\nb"] {
        let call = service.post(&path, json!({"why": why})).by(&operator).send().await;
        call.refused(400, "invalid_input");
    }
    let call = service.post(&path, json!({"why": "seen in person"})).by(&operator).send().await;
    let vouched = call.expect(200).json();
    assert_eq!(vouched["proven_why"], "seen in person");
    assert_eq!(
        (&vouched["proven_by"], &vouched["has_password"]),
        (&json!(operator.id), &json!(false))
    );
    ends(&service, &stranger).await;
    let path = format!("/v1/people/{}", text(&real["id"]));
    let shown = service.get(&path).by(&operator).send().await.expect(200).json();
    assert_eq!((&shown["tenants"], &shown["sessions"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn operators_see_and_end_the_sessions_of_a_person() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let (one, two) =
        (service.log_in(&acme.owner.email).await, service.log_in(&acme.owner.email).await);
    let path = format!("/v1/people/{}", acme.owner.id);
    let shown = service.get(&path).by(&operator).send().await.expect(200).json();
    assert_eq!(shown["tenants"], json!([{"slug": "acme", "role": "owner"}]));
    let newest = text(&shown["sessions"][0]["id"]);
    let call = service.delete(&format!("{path}/sessions?session={newest}")).by(&operator);
    call.send().await.expect(204);
    ends(&service, &two).await;
    service.get("/v1/me").bearer(&text(&one["access_token"])).send().await.expect(200);
    service.delete(&format!("{path}/sessions")).by(&operator).send().await.expect(204);
    ends(&service, &one).await;
}

#[tokio::test]
async fn a_tenant_without_an_owner_is_given_one() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let body = json!({"slug": "initech", "name": "Initech"});
    let made = service.post("/v1/tenants", body).by(&operator).send().await.expect(201).json();
    let path = format!("/v1/tenants/{}/owners", text(&made["id"]));
    let give = async |body: Value| service.post(&path, body).by(&operator).send().await;
    give(json!({"email": acme.owner.email})).await.refused(409, "email_taken");
    give(json!({"email": "nobody@x.example", "existing": true})).await.refused(404, "not_found");
    // A new person is invited, and becomes the owner after proving the address.
    give(json!({"email": "bill@x.example"})).await.expect(204);
    let token = service.letter_token(MailKind::Invitation, "bill@x.example").await;
    let look = service.post("/v1/links/inspect", json!({"token": token})).send().await;
    assert_eq!(look.expect(200).json()["role"], "owner");
    let body = json!({"token": token, "password": OTHER, "name": "Bill"});
    service.post("/v1/invitations/accept", body).send().await.expect(200);
    let tokens = log_in(&service, "bill@x.example", OTHER).await.expect(200).json();
    assert_eq!((&tokens["role"], &tokens["tenant"]["slug"]), (&json!("owner"), &json!("initech")));
    // A known person, named with `existing`, becomes the owner at once.
    give(json!({"email": acme.owner.email, "existing": true})).await.expect(204);
    let nowhere = format!("/v1/tenants/{}/owners", uuid::Uuid::new_v4());
    let body = json!({"email": acme.owner.email, "existing": true});
    service.post(&nowhere, body).by(&operator).send().await.refused(404, "not_found");
}

#[tokio::test]
async fn an_owner_who_is_invited_by_an_operator_joins_only_while_that_is_one() {
    let service = Service::start(Setup::default()).await;
    service.tenant("acme").await;
    let operator = service.operator().await;
    let second = json!({"email": "second@x.example", "password": PASSWORD});
    let second =
        service.post("/v1/operators", second).by(&operator).send().await.expect(201).json();
    let tokens = log_in(&service, "second@x.example", PASSWORD).await.expect(200).json();
    let body = json!({"slug": "initech", "name": "Initech", "owner": {"email": "bill@x.example"}});
    let call = service.post("/v1/tenants", body).bearer(&text(&tokens["access_token"]));
    call.send().await.expect(201);
    let token = service.letter_token(MailKind::Invitation, "bill@x.example").await;
    let path = format!("/v1/operators/{}", text(&second["id"]));
    service.delete(&path).by(&operator).send().await.expect(204);
    let body = json!({"token": token, "password": OTHER});
    service.post("/v1/invitations/accept", body).send().await.refused(404, "not_found");
}

// ── Letters ───────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_letter_that_cannot_be_sent_is_tried_again_with_a_new_token_and_given_up_at_last() {
    use freehold::control::mail::{Delivery, Undelivered};
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let sql = service.sql().await;
    let due = async || {
        sql.batch_execute("UPDATE freehold.outbox SET next_at = now()").await.unwrap();
    };
    let ask = json!({"email": acme.owner.email});
    service.post("/v1/auth/reset", ask.clone()).send().await.expect(202);
    let mut tokens = Vec::new();
    let mut fail = async |permanent: bool| {
        let deliver = service.sign_in.deliver_letter(async |letter| {
            tokens.push(letter.token.clone().unwrap());
            Err(Undelivered { error: "451 come back later".to_owned(), permanent })
        });
        deliver.await.unwrap()
    };
    assert_eq!(fail(false).await, Delivery::Delayed);
    assert_eq!(fail(false).await, Delivery::Nothing, "not before its time");
    for _ in 0..6 {
        due().await;
        assert_eq!(fail(false).await, Delivery::Delayed);
    }
    due().await;
    assert_eq!(fail(false).await, Delivery::Failed, "given up");
    due().await;
    assert_eq!(fail(false).await, Delivery::Nothing);
    service.post("/v1/auth/reset", ask).send().await.expect(202);
    assert_eq!(fail(true).await, Delivery::Failed);
    due().await;
    assert_eq!(fail(true).await, Delivery::Nothing);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 9, "each attempt has a token of its own");
    // Of no token is there anything but a hash.
    for token in tokens {
        let look = "SELECT (SELECT count(*) FROM freehold.outbox o WHERE o::text LIKE '%' || $1 || '%')
                         + (SELECT count(*) FROM freehold.password_reset r WHERE r::text LIKE '%' || $1 || '%')";
        assert_eq!(sql.query_one(look, &[&token]).await.unwrap().get::<_, i64>(0), 0);
    }
    let context = OperatorContext::system("a test");
    assert_eq!(service.freehold.outbox().count(&context).await.unwrap(), (0, 2));
}

#[tokio::test]
async fn letters_of_one_tenant_and_to_one_address_by_all_tenants_are_bounded() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let invite = async |by: &Person, email: &str| {
        let body = json!({"email": email, "role": "viewer"});
        service.post("/v1/invitations", body).by(by).send().await
    };
    for by in [&acme.owner, &acme.owner, &acme.owner, &globex.owner, &globex.owner] {
        invite(by, "victim@x.example").await.expect(201);
    }
    for by in [&acme.owner, &globex.owner] {
        let refused = invite(by, "victim@x.example").await.refused(429, "rate_limited");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() > 60);
    }
    let sql = service.sql().await;
    let many = "INSERT INTO freehold.outbox (id, kind, email, tenant_id)
                SELECT gen_random_uuid(), 'invitation', 'n' || n || '@x.example', $1 FROM generate_series(1, 200) n";
    sql.execute(many, &[&acme.tenant.id.as_uuid()]).await.unwrap();
    invite(&acme.owner, "other@x.example").await.refused(429, "rate_limited");
    invite(&globex.owner, "other@x.example").await.expect(201);
}

#[tokio::test]
async fn what_has_ended_is_forgotten() {
    let setup = Setup { per_email: 3, per_client: 30, ..Setup::default() };
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    let wish =
        json!({"slug": "initech", "name": "x", "email": "a@x.example", "password": PASSWORD});
    service.post("/v1/signup", wish).send().await.expect(202);
    service.post("/v1/auth/reset", json!({"email": acme.owner.email})).send().await.expect(202);
    service.letters().await;
    log_in(&service, &acme.owner.email, "not the password").await.expect(401);
    let sql = service.sql().await;
    let counts = async || {
        let mut counts = Vec::new();
        for table in ["sign_up", "password_reset", "outbox", "guess", "session", "audit"] {
            let count = format!("SELECT count(*) FROM freehold.{table}");
            counts.push(sql.query_one(&count, &[]).await.unwrap().get::<_, i64>(0));
        }
        counts
    };
    let before = counts().await;
    service.freehold.people().prune().await.unwrap();
    assert_eq!(counts().await, before, "nothing has ended");
    sql.batch_execute(
        "UPDATE freehold.sign_up SET expires_at = now() - interval '1 second';
         UPDATE freehold.password_reset SET expires_at = now() - interval '1 second';
         UPDATE freehold.outbox SET created_at = now() - interval '25 hours';
         UPDATE freehold.guess SET free_at = now() - interval '1 second';
         UPDATE freehold.session SET expires_at = now() - interval '2 days';
         UPDATE freehold.audit SET occurred_at = now() - interval '401 days'",
    )
    .await
    .unwrap();
    service.freehold.people().prune().await.unwrap();
    assert_eq!(counts().await, [0; 6]);
}
