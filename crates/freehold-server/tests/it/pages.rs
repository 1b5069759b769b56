//! The page behind the link in a message: as it is served, and in a browser.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use freehold::MailKind;
use freehold::testing::PASSWORD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{Service, Setup, text};

/// The script ends by itself after a minute; the browser's start is not counted in that.
const BROWSE_MAX: Duration = Duration::from_secs(120);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const FILES: [(&str, &str); 3] = [
    ("/confirm", "text/html; charset=utf-8"),
    ("/confirm.js", "text/javascript; charset=utf-8"),
    ("/confirm.css", "text/css; charset=utf-8"),
];

#[tokio::test]
async fn the_page_and_its_files_are_served_under_a_policy_that_lets_in_nothing_else() {
    let service = Service::start(Setup::default()).await;
    for (path, content_type) in FILES {
        for method in ["GET", "HEAD"] {
            let answer = service.call(method, path).send().await.expect(200);
            for (header, value) in [
                ("content-type", content_type),
                ("content-security-policy", POLICY),
                ("cache-control", "private, no-store"),
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
            ] {
                assert_eq!(answer.header(header), value, "{method} {path}: {header}");
            }
            assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {path}");
        }
        // Only the script's own calls may have an effect.
        let answer = service.call("POST", path).send().await.refused(405, "method_not_allowed");
        assert!(answer.header("allow").contains("GET"), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_page_holds_no_script_or_style_and_loads_nothing_from_elsewhere() {
    let service = Service::start(Setup::default()).await;
    let page = service.get("/confirm").send().await.expect(200).text();
    for inline in ["<style", " style=", " onclick=", " onload=", " onsubmit=", "javascript:"] {
        assert!(!page.contains(inline), "{inline} would be refused by the page's own policy");
    }
    for tag in page.split("<script").skip(1) {
        let (attributes, rest) = tag.split_once('>').unwrap();
        assert!(attributes.contains(" src=") && rest.starts_with("</script>"), "{tag}");
    }
    for (path, _) in FILES {
        let file = service.get(path).send().await.expect(200).text();
        assert!(!file.contains("://") && !file.contains("=\"//"), "{path} names another place");
        // Text written by other people may only be inserted by textContent.
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!file.contains(way), "{path}: {way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_a_token_asks_nothing_and_says_what_to_do() {
    let service = Service::start(Setup::default()).await;
    let seen = browse(&service, json!({})).await;
    assert_eq!(seen["requests"], json!([]));
    let view = &seen["views"][0];
    assert_eq!(view["title"], "This link does not work");
    assert!(text(&view["text"]).contains("Open the link in your letter once more"), "{view}");
    assert_eq!((&view["button"], &view["fields"]), (&json!(""), &json!([])));
}

/// A person signs up, and the link of the message creates the tenant: only by the button.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_up_is_confirmed_by_the_button_once_however_often_it_is_pressed() {
    let service = Service::start(Setup::default()).await;
    service.tenant("taken").await;
    let name = format!("<b>Initech</b> \u{202e}{}", "very long ".repeat(15));
    let wish = json!({"slug": "initech", "name": name.trim(), "email": "peter@x.example", "password": PASSWORD});
    service.post("/v1/signup", wish).send().await.expect(202);
    let token = service.letter_token(MailKind::SignUp, "peter@x.example").await;
    // The slug is taken by the time of the proof, so the page asks for another one.
    let rename = "UPDATE freehold.tenant SET slug = 'initech' WHERE slug = 'taken'";
    service.sql().await.batch_execute(rename).await.unwrap();
    let presses = json!([
        {"fill": {"password": "not the password"}},
        {"fill": {"password": PASSWORD}},
        {"fill": {"slug": "initrode"}, "twice": true},
    ]);
    let seen =
        browse(&service, json!({"token": token, "presses": presses, "look": {"width": 320}})).await;
    let first = &seen["views"][0];
    assert!(text(&first["text"]).contains("<b>Initech</b>"), "{first}");
    let password = |view: &Value| {
        let fields = view["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == "password").unwrap().clone()
    };
    assert_eq!(password(first)["autocomplete"], "current-password", "{first}");
    let refused = text(&password(&seen["views"][1])["error"]);
    assert!(refused.contains("not the password that was given at sign-up"), "{refused}");
    assert_eq!(seen["views"][3]["title"], "Your address is confirmed");
    let asked =
        ["inspect 200", "confirm 403", "confirm 409", "confirm 201"].map(|asked| match asked {
            "inspect 200" => "POST /v1/links/inspect 200".to_owned(),
            other => format!("POST /v1/signup/{other}"),
        });
    assert_eq!(seen["requests"], json!(asked));
    let body = json!({"email": "peter@x.example", "password": PASSWORD});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["tenant"]["slug"], "initrode");
    // The link is used up.
    let seen = browse(&service, json!({"token": token})).await;
    assert_eq!(seen["views"][0]["title"], "This link does not work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_accepted_by_somebody_new_and_by_somebody_known() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let mut tokens = Vec::new();
    for email in ["ann@x.example", globex.owner.email.as_str()] {
        let body = json!({"email": email, "role": "member"});
        service.post("/v1/invitations", body).by(&acme.owner).send().await.expect(201);
        tokens.push(service.letter_token(MailKind::Invitation, email).await);
    }
    let presses = json!([{"fill": {"password": PASSWORD, "name": "Ann"}, "keys": true}]);
    let look = json!({"dark": true});
    let seen =
        browse(&service, json!({"token": tokens[0], "presses": presses, "look": look})).await;
    assert_eq!(seen["views"][1]["title"], "You have joined", "{seen}");
    let autocomplete = |seen: &Value| {
        let fields = seen["views"][0]["fields"].as_array().unwrap().clone();
        let password = fields.into_iter().find(|field| field["name"] == "password").unwrap();
        text(&password["autocomplete"])
    };
    assert_eq!(autocomplete(&seen), "new-password");
    let presses = json!([{"fill": {"password": PASSWORD}}]);
    let seen = browse(&service, json!({"token": tokens[1], "presses": presses})).await;
    assert_eq!(seen["views"][1]["title"], "You have joined", "{seen}");
    assert_eq!(autocomplete(&seen), "current-password");
    let members = service.get("/v1/members").by(&acme.owner).send().await.expect(200).json();
    assert_eq!(members["items"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_chosen_and_an_address_changed_behind_their_links() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let email = acme.owner.email.as_str();
    service.post("/v1/auth/reset", json!({"email": email})).send().await.expect(202);
    let token = service.letter_token(MailKind::Reset, email).await;
    let presses =
        json!([{"fill": {"password": "short"}}, {"fill": {"password": "a new password"}}]);
    let seen = browse(&service, json!({"token": token, "presses": presses})).await;
    let last = seen["views"].as_array().unwrap().last().unwrap();
    assert_eq!(last["title"], "Your new password is set", "{seen}");
    let body = json!({"email": email, "password": "a new password"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();

    let body = json!({"email": "new@x.example", "password": "a new password"});
    let ask =
        service.post("/v1/me/email", body).bearer(&text(&tokens["access_token"])).send().await;
    ask.expect(202);
    let letters = service.letters().await;
    let [leave, proof] = [MailKind::AddressLeave, MailKind::AddressProof].map(|kind| {
        letters.iter().find(|letter| letter.kind == kind).unwrap().token.clone().unwrap()
    });
    // Both in one tab, as for a person who reads both mailboxes.
    let plan = json!({"token": proof, "presses": [{}], "then": leave});
    let seen = browse(&service, plan).await;
    assert_eq!(seen["views"][1]["title"], "This half is done", "{seen}");
    let seen = browse(&service, json!({"token": leave, "presses": [{}]})).await;
    assert_eq!(seen["views"][1]["title"], "Your address is changed", "{seen}");
    let body = json!({"email": "new@x.example", "password": "a new password"});
    service.post("/v1/auth/login", body).send().await.expect(200);
}

/// Opens the page in Chromium over a socket and performs the plan; `tests/clients/confirm.mjs` describes
/// plans and results. Fails on any error of the page or its console, any breach of its policy, and a token in
/// a place where it could be logged.
async fn browse(service: &Service, mut plan: Value) -> Value {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(
        clients.join("node_modules/playwright-core").exists(),
        "the client libraries are not installed: run `npm ci` in {}, or ./dev test, which does",
        clients.display()
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    plan["base"] = json!(format!("http://{}", listener.local_addr().unwrap()));
    let router = service.router().into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async { axum::serve(listener, router).await });

    let mut browser = Command::new("node")
        .arg("confirm.mjs")
        .current_dir(&clients)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs; ./dev test installs it");
    let mut stdin = browser.stdin.take().unwrap();
    stdin.write_all(plan.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(BROWSE_MAX, browser.wait_with_output());
    let output = output.await.expect("the browser comes to its end").unwrap();
    serving.abort();

    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{plan}\n{said}{complaint}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}
