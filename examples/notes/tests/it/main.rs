//! The service over real tenants in a database of each test's own. DATABASE_URL leads to a
//! PostgreSQL server for tests; README.md says how to get one.

#![allow(clippy::disallowed_methods, reason = "the test server's address comes from ./dev")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::{Request, StatusCode};
use freehold::control::credentials::Credentials;
use freehold::control::joining::Acceptance;
use freehold::control::mail::Delivery;
use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::testing::{PASSWORD, TestDatabase, create_tenant};
use freehold::{Actor, Freehold, OperatorContext, Role, Tenant, TenantContext};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const SECRET: &str = "a secret for tests, of 32 bytes!";
const TEST: OperatorContext = OperatorContext::system("a test of the notes service");

struct House {
    freehold: Freehold,
    sign_in: Arc<SignIn>,
    app: Router,
    _database: TestDatabase,
}

impl House {
    async fn new() -> House {
        let url = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
        let database = TestDatabase::create(&url, &notes::baseline().unwrap()).await.unwrap();
        let freehold = database.freehold().await.unwrap();
        let sign_in = SignIn::new(freehold.clone(), SignInOptions::new(SECRET).unwrap());
        let sign_in = Arc::new(sign_in);
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let app = notes::router(Arc::clone(&sign_in)).layer(MockConnectInfo(client));
        House { freehold, sign_in, app, _database: database }
    }

    /// A tenant, a context of its owner, and the owner's access token.
    async fn tenant(&self, slug: &str) -> (Tenant, TenantContext, String) {
        let (tenant, context) = create_tenant(&self.freehold, slug).await.unwrap();
        let who = json!({"email": format!("owner@{slug}.example"), "password": PASSWORD});
        let (status, answer) = self.send("POST", "/login", None, Some(who)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        (tenant, context, answer["access_token"].as_str().unwrap().to_owned())
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(json) => {
                request = request.header("content-type", "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        let response = self.app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str, token: &str) -> Value {
        let (status, answer) = self.send("GET", path, Some(token), None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        self.send("POST", path, Some(token), Some(body)).await
    }

    async fn note(&self, token: &str, notebook: &str, title: &str) -> i64 {
        let new = json!({"notebook": notebook, "title": title});
        let (status, note) = self.post("/notes", token, new).await;
        assert_eq!(status, StatusCode::CREATED, "{note}");
        note["id"].as_i64().unwrap()
    }
}

#[tokio::test]
async fn two_tenants_do_not_see_each_others_notes() {
    let house = House::new().await;
    let (_, owner, acme) = house.tenant("acme").await;
    let (_, _, globex) = house.tenant("globex").await;
    let id = house.note(&acme, "ideas", "only for acme").await;

    let seen = house.get("/notes?title=only%20for%20acme", &acme).await;
    assert_eq!(seen.as_array().unwrap().len(), 1);
    assert_eq!(seen[0]["notebook"], "ideas");
    assert_eq!(seen[0]["author"], owner.actor().id.to_string());
    assert_eq!(house.get("/notes", &globex).await, json!([]));
    assert_eq!(house.get("/stats", &globex).await["notes"], 0);
    assert_eq!(house.get("/stats", &acme).await["notes"], 1);

    let target = json!({"notebook": "stolen"});
    let (status, answer) = house.post(&format!("/notes/{id}/move"), &globex, target).await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_within_a_second() {
    let house = House::new().await;
    let (acme, _, token) = house.tenant("acme").await;
    let (_, _, globex) = house.tenant("globex").await;
    house.get("/notes", &token).await;

    house.freehold.tenants().suspend(&TEST, acme.id).await.unwrap();
    let suspended_at = Instant::now();
    let answer = loop {
        let (status, answer) = house.send("GET", "/notes", Some(&token), None).await;
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::FORBIDDEN);
            break answer;
        }
        assert!(suspended_at.elapsed() < Duration::from_secs(1), "still served");
    };
    assert_eq!(answer["code"], "tenant_suspended");
    house.get("/notes", &globex).await;
}

#[tokio::test]
async fn a_rolled_back_transaction_leaves_nothing() {
    let house = House::new().await;
    let (_, _, token) = house.tenant("acme").await;
    house.note(&token, "ideas", "first").await;

    // The new notebook is made before it turns out that there is no such note.
    let (status, _) = house.post("/notes/999/move", &token, json!({"notebook": "archive"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(house.get("/stats", &token).await["notebooks"], 1);

    let new = json!({"notebook": "archive", "title": ""});
    let (status, answer) = house.post("/notes", &token, new).await;
    assert_eq!((status, &answer["field"]), (StatusCode::BAD_REQUEST, &json!("title")));
    assert_eq!(house.get("/stats", &token).await["notebooks"], 1);
}

#[tokio::test]
async fn a_move_changes_the_notebook_and_counts_both() {
    let house = House::new().await;
    let (_, _, token) = house.tenant("acme").await;
    house.note(&token, "ideas", "stays").await;
    let id = house.note(&token, "ideas", "moves").await;

    let path = format!("/notes/{id}/move");
    let (status, answer) = house.post(&path, &token, json!({"notebook": "archive"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer, json!({"left_in_old": 1, "now_in_new": 1}));
    assert_eq!(house.get("/notes?title=moves", &token).await[0]["notebook"], "archive");

    // A title that the other notebook has already.
    let twin = house.note(&token, "ideas", "moves").await;
    let path = format!("/notes/{twin}/move");
    let (status, answer) = house.post(&path, &token, json!({"notebook": "archive"})).await;
    assert_eq!((status, &answer["field"]), (StatusCode::CONFLICT, &json!("title")));
}

#[tokio::test]
async fn every_route_but_login_needs_a_token() {
    let house = House::new().await;
    let (_, _, token) = house.tenant("acme").await;
    let wrong = format!("{token}x");
    for (method, path) in
        [("GET", "/notes"), ("POST", "/notes"), ("POST", "/notes/1/move"), ("GET", "/stats")]
    {
        for (token, code) in [(None, "unauthenticated"), (Some(wrong.as_str()), "invalid_token")] {
            let body = json!({"notebook": "ideas", "title": "no"});
            let (status, answer) = house.send(method, path, token, Some(body)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(answer["code"], code);
        }
    }
    let who = json!({"email": "owner@acme.example", "password": "a wrong password"});
    let (status, _) = house.send("POST", "/login", None, Some(who)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_write() {
    let house = House::new().await;
    let (_, owner, token) = house.tenant("acme").await;
    house.note(&token, "ideas", "first").await;
    house.freehold.invitations().create(&owner, "vera@acme.example", Role::Viewer).await.unwrap();
    // What a service hands to its sender of mail.
    let mut token = None;
    let sent = house.sign_in.deliver_letter(async |letter| {
        token = letter.token.clone();
        Ok(())
    });
    assert_eq!(sent.await.unwrap(), Delivery::Sent);
    let client = Ipv4Addr::LOCALHOST.into();
    let acceptance = Acceptance {
        token: token.unwrap(),
        password: Some(PASSWORD.to_owned()),
        name: "Vera".to_owned(),
        claims: None,
    };
    house.sign_in.accept_invitation(acceptance, client).await.unwrap();
    let credentials = Credentials {
        email: "vera@acme.example".to_owned(),
        password: PASSWORD.to_owned(),
        ..Credentials::default()
    };
    let tokens = house.sign_in.log_in(credentials, client).await.unwrap();

    let notes = house.get("/notes", &tokens.access_token).await;
    assert_eq!(notes.as_array().unwrap().len(), 1);
    let new = json!({"notebook": "ideas", "title": "second"});
    let (status, answer) = house.post("/notes", &tokens.access_token, new).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
}

#[tokio::test]
async fn the_background_task_counts_in_each_active_tenant() {
    let house = House::new().await;
    let (acme, _, acme_token) = house.tenant("acme").await;
    let (globex, globex_owner, globex_token) = house.tenant("globex").await;
    house.note(&globex_token, "ideas", "first").await;

    assert_eq!(notes::count_everywhere(&house.freehold).await.unwrap(), 2);
    assert_eq!(notes::count_everywhere(&house.freehold).await.unwrap(), 2);
    assert_eq!(house.get("/stats", &acme_token).await["days_counted"], 1);
    let sql = "SELECT notes FROM daily_counts";
    let rows = house.freehold.query(&globex_owner, sql, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 1);

    house.freehold.tenants().suspend(&TEST, acme.id).await.unwrap();
    assert_eq!(notes::count_everywhere(&house.freehold).await.unwrap(), 1);
    assert!(house.freehold.tenant_context_as(globex.id, Actor::SYSTEM).await.is_ok());
}
