//! A stranger who has used an address first shares nothing with the person for whom a command names it.

use std::thread;

use freehold::MailKind;
use freehold::testing::PASSWORD;
use freehold_server::config::SignUpMode;
use serde_json::{Value, json};

use crate::process::{Env, env_of, freehold};
use crate::support::{Answer, SOON, Service, Setup, eventually, text};

const OTHER: &str = "another password";

async fn open() -> Service {
    let service = Service::start(Setup { signup: SignUpMode::Open, ..Setup::default() }).await;
    service.tenant("acme").await;
    service
}

async fn log_in(service: &Service, email: &str, password: &str) -> Answer {
    service.post("/v1/auth/login", json!({"email": email, "password": password})).send().await
}

/// Signs up with the address of another person, and invites an accomplice: the stranger's tokens.
async fn squat(service: &Service, slug: &str, email: &str) -> Value {
    let body = json!({"slug": slug, "name": slug, "email": email, "password": PASSWORD});
    service.post("/v1/signup", body).send().await.expect(201);
    let tokens = service.log_in(email).await;
    let body = json!({"email": format!("accomplice@{slug}.example"), "role": "owner"});
    let invite = service.post("/v1/invitations", body).bearer(&text(&tokens["access_token"]));
    invite.send().await.expect(201);
    tokens
}

/// The stranger's password, sessions, memberships and invitations are gone.
async fn has_nothing(service: &Service, slug: &str, email: &str, stranger: &Value) {
    log_in(service, email, PASSWORD).await.refused(401, "unauthenticated");
    let device =
        json!({"email": email, "password": PASSWORD, "device_token": stranger["device_token"]});
    service.post("/v1/auth/login", device).send().await.refused(401, "unauthenticated");
    let token = text(&stranger["access_token"]);
    eventually("the access token is refused", SOON, async || {
        service.get("/v1/me").bearer(&token).send().await.status == 401
    })
    .await;
    let refresh = json!({"refresh_token": stranger["refresh_token"]});
    service.post("/v1/auth/refresh", refresh).send().await.refused(401, "unauthenticated");
    let left = "SELECT (SELECT count(*) FROM freehold.membership m JOIN freehold.tenant t ON t.id = m.tenant_id
                        WHERE t.slug = $1)
                     + (SELECT count(*) FROM freehold.invitation v JOIN freehold.tenant t ON t.id = v.tenant_id
                        WHERE t.slug = $1)";
    let left = service.sql().await.query_one(left, &[&slug]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0, "{slug}");
}

fn fails(arguments: &[&str], env: Env, told: &str) {
    let ran = freehold(arguments, env).ended(1);
    assert!(ran.stderr().contains(told), "{arguments:?}: {}", ran.stderr());
    assert_eq!(ran.stdout(), "", "{arguments:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_made_by_command_shares_nothing_with_who_had_the_address_before() {
    let service = open().await;
    let (app, owner) = (service.database().app_url(), service.database().owner_url());
    let env = env_of(&app, &owner);
    let email = "ops@company.example";
    let stranger = squat(&service, "initech", email).await;
    fails(&["operator", "create", email], &env, "give a password too");
    fails(&["operator", "create", email, "--existing"], &env, "no person has proven this e-mail");
    let made = freehold(&["operator", "create", email, "--password", OTHER, "--json"], &env);
    let made = made.ended(0).json();
    assert_eq!((&made["is_operator"], &made["has_password"]), (&json!(true), &json!(true)));
    has_nothing(&service, "initech", email, &stranger).await;
    let tokens = log_in(&service, email, OTHER).await.expect(200).json();
    assert_eq!((&tokens["role"], tokens.get("tenant")), (&json!("operator"), None));
    let shown = freehold(&["person", "show", email, "--json"], &env).ended(0).json();
    assert_eq!(shown["tenants"], json!([]));
    // The tenant that the stranger made has no owner until it is given one.
    let lines = freehold(&["audit", "list", "--tenant", "initech", "--json"], &env).ended(0).json();
    let actions: Vec<_> =
        lines["items"].as_array().unwrap().iter().map(|line| text(&line["action"])).collect();
    assert_eq!(actions[..2], ["member.invite_end", "member.remove"], "{actions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_named_by_command_shares_nothing_with_who_had_the_address_before() {
    let service = open().await;
    let (app, owner) = (service.database().app_url(), service.database().owner_url());
    let env = env_of(&app, &owner);
    freehold(&["tenant", "create", "empty"], &env).ended(0);
    let with_password: [&[&str]; 2] =
        [&["tenant", "create", "globex", "--owner"], &["tenant", "owner", "empty"]];
    for (at, command) in with_password.into_iter().enumerate() {
        let (slug, email) = (format!("trap{at}"), format!("ann{at}@company.example"));
        let stranger = squat(&service, &slug, &email).await;
        fails(
            &[command, &[&email, "--existing"]].concat(),
            &env,
            "no person has proven this e-mail",
        );
        freehold(&[command, &[&email, "--password", OTHER]].concat(), &env).ended(0);
        has_nothing(&service, &slug, &email, &stranger).await;
        let tokens = log_in(&service, &email, OTHER).await.expect(200).json();
        let named = if at == 0 { "globex" } else { "empty" };
        assert_eq!((&tokens["role"], &tokens["tenant"]["slug"]), (&json!("owner"), &json!(named)));
        // The person is known from now on, and keeps this password.
        fails(
            &[command, &[&email, "--password", PASSWORD]].concat(),
            &env,
            match at {
                0 => "the slug globex is taken",
                _ => "a person with this e-mail is known",
            },
        );
        log_in(&service, &email, OTHER).await.expect(200);
    }

    let invited: [&[&str]; 2] =
        [&["tenant", "create", "hooli", "--owner"], &["tenant", "owner", "empty"]];
    for (at, command) in invited.into_iter().enumerate() {
        let (slug, email) = (format!("snare{at}"), format!("ben{at}@company.example"));
        let stranger = squat(&service, &slug, &email).await;
        let ran = freehold(&[command, &[&email]].concat(), &env).ended(0);
        let told = format!("{}{}", ran.stdout(), ran.stderr());
        assert!(told.contains(&format!("{email} is invited")), "{told}");
        // The stranger has no part in it, and cannot accept what was sent to the mailbox.
        let me = service.get("/v1/me").bearer(&text(&stranger["access_token"])).send().await;
        assert_eq!(me.expect(200).json()["tenants"].as_array().unwrap().len(), 1);
        let token = service.letter_token(MailKind::Invitation, &email).await;
        let accept = json!({"token": token, "password": OTHER});
        service.post("/v1/invitations/accept", accept).send().await.expect(200);
        has_nothing(&service, &slug, &email, &stranger).await;
        log_in(&service, &email, OTHER).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_given_by_command_is_used_or_refused() {
    let service = open().await;
    let (app, owner) = (service.database().app_url(), service.database().owner_url());
    let env = env_of(&app, &owner);
    let with_password = [&env[..], &[("FREEHOLD_PASSWORD", OTHER)]].concat();
    let ann = "ann@company.example";
    freehold(&["operator", "create", ann, "--password", PASSWORD], &env).ended(0);
    let known = "a person with this e-mail is known";
    for (command, told) in [
        (&["operator", "create", ann][..], known),
        (&["tenant", "create", "globex", "--owner", ann], known),
        (&["tenant", "owner", "acme", ann], known),
        (&["tenant", "create", "globex"], "give --owner too"),
    ] {
        fails(&[command, &["--password", OTHER]].concat(), &env, told);
        fails(command, &with_password, told);
    }
    for command in [
        &["operator", "create", ann, "--existing"][..],
        &["tenant", "create", "globex", "--owner", ann, "--existing"],
        &["tenant", "owner", "acme", ann, "--existing"],
    ] {
        freehold(command, &with_password).ended(2);
    }
    log_in(&service, ann, PASSWORD).await.expect(200);
    // A message lets a person choose one whom support has reset; a command does not choose it by the way.
    freehold(&["person", "reset", ann], &env).ended(0);
    fails(&["operator", "create", ann, "--password", OTHER], &env, known);
    log_in(&service, ann, OTHER).await.refused(401, "unauthenticated");
    freehold(&["person", "reset", ann], &with_password).ended(0);
    log_in(&service, ann, OTHER).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_commands_at_once_for_one_new_address_one_gives_the_password() {
    let service = open().await;
    let (app, owner) = (service.database().app_url(), service.database().owner_url());
    let passwords = ["first password", "second password", "third password"];
    for email in ["one@company.example", "two@company.example"] {
        let started: Vec<_> = passwords
            .into_iter()
            .map(|password| {
                let (app, owner) = (app.clone(), owner.clone());
                thread::spawn(move || {
                    let create = ["operator", "create", email, "--password", password];
                    let ran = freehold(&create, &env_of(&app, &owner));
                    (ran.code(), ran.stderr())
                })
            })
            .collect();
        let mut made = Vec::new();
        for (running, password) in started.into_iter().zip(passwords) {
            match running.join().unwrap() {
                (0, _) => made.push(password),
                (_, told) => assert!(told.contains("a person with this e-mail"), "{told}"),
            }
        }
        assert_eq!(made.len(), 1, "{email}: {made:?}");
        for password in passwords {
            let answer = log_in(&service, email, password).await;
            assert_eq!(answer.status == 200, made == [password], "{password}: {}", answer.text());
        }
    }
}
