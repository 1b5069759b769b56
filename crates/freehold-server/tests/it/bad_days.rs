//! Wrong database settings, and what the built program reports about them: each is named once, with the
//! remedy, in the log only.

use std::time::Duration;

use freehold::testing::{self, PASSWORD, TestDatabase};
use serde_json::{Value, json};

use crate::process::{Running, Server, env_of, freehold, http, token, with};
use crate::support::{admin_url, connect, eventually, shop};

/// Generous: the awaited event is tried every second.
const SOON: Duration = Duration::from_secs(60);
const WRONG: &str = "not-the-password";

fn wrong(url: &str) -> String {
    url.replace(PASSWORD, WRONG)
}

/// The lines of a log that hold all of these.
fn lines(running: &Running, parts: &[&str]) -> usize {
    let said = running.said();
    said.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_analytics_password_is_named_once_and_the_server_serves() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let url = wrong(&database.analytics_url());
    let settings = [("DATABASE_ANALYTICS_URL", url.as_str()), ("LOG_LEVEL", "debug")];
    let mut server = Server::start_with(&database, &settings);
    let named = ["DATABASE_ANALYTICS_URL: cannot connect", "freehold init --analytics-password"];
    server.running.wait_for(named[0], SOON);
    // The server keeps retrying, and logs it at a lower level.
    let again = |level| lines(&server.running, &[level, named[0], named[1]]);
    eventually("it is tried again", SOON, async || again("DEBUG") >= 2).await;
    assert_eq!(again("WARN"), 1, "{}", server.running.said());
    let (status, _) = http(server.port, "GET", "/livez", "", &Value::Null).unwrap();
    assert_eq!(status, 200);
    assert!(!server.running.said().contains(WRONG));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_owner_password_is_named_at_the_start_and_where_it_is_not_needed_at_first_use() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, good, bad) = (database.app_url(), database.owner_url(), wrong(&database.owner_url()));
    let named = "DATABASE_OWNER_URL: cannot connect";
    let ran = freehold(&["serve"], &env_of(&app, &bad)).ended(1);
    for part in [named, "the password is wrong", "freehold init --owner-password"] {
        assert!(ran.stderr().contains(part), "{part} is not in {}", ran.stderr());
    }

    // One that is given the key needs the owner to create tenants alone.
    let shown = freehold(&["key", "show", "--json"], &env_of(&app, &good)).ended(0).json();
    let key = shown["context_key"].as_str().unwrap();
    let settings = [("DATABASE_OWNER_URL", bad.as_str()), ("CONTEXT_KEY", key)];
    let server = Server::start_with(&database, &settings);
    let operator = operator_token(&database).await;
    let create = |slug: &str| {
        let new = json!({"slug": slug, "name": slug});
        http(server.port, "POST", "/v1/tenants", &operator, &new).unwrap()
    };
    for slug in ["acme", "globex", "initech"] {
        let (status, problem) = create(slug);
        assert_eq!((status, &problem["code"]), (503, &json!("database_unavailable")), "{problem}");
        for secret in ["127.0.0.1", "freehold_owner", "DATABASE_OWNER_URL", "password"] {
            assert!(!problem.to_string().contains(secret), "{problem}");
        }
    }
    assert_eq!(lines(&server.running, &["WARN", named, "freehold init"]), 1);
}

/// The token of an existing operator.
async fn operator_token(database: &TestDatabase) -> String {
    let sql = connect(&database.superuser_url()).await;
    let row = sql
        .query_one(
            "INSERT INTO freehold.identity (id, email, is_operator, proven_at, proven_by, proven_why)
             SELECT id, 'operator@freehold.example', true, now(), id, 'a test'
             FROM gen_random_uuid() AS id RETURNING id",
            &[],
        )
        .await
        .unwrap();
    let id = row.get(0);
    database.open_session(id).await.unwrap();
    token(id, None, "operator")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_database_stops_the_start_and_one_that_is_retired_is_named_once() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let foreign = format!("1:{}", "0a".repeat(32));
    let env = with(env_of(&app, &owner), "CONTEXT_KEY", &foreign);
    let ran = freehold(&["serve"], &env).ended(1);
    for part in ["the key of CONTEXT_KEY is not", "freehold key show"] {
        assert!(ran.stderr().contains(part), "{part} is not in {}", ran.stderr());
    }
    assert!(!ran.stderr().contains(&foreign[2..]));
    // The command that shows the right key works although the configured one is wrong.
    let shown = freehold(&["key", "show", "--json"], &env).ended(0).json();
    let key = shown["context_key"].as_str().unwrap();

    let fleet = database.freehold().await.unwrap();
    let (acme, _) = testing::create_tenant(&fleet, "acme").await.unwrap();
    let sql = connect(&database.superuser_url()).await;
    let row = sql.query_one("SELECT identity_id FROM freehold.membership", &[]).await.unwrap();
    let person = row.get(0);
    database.open_session(person).await.unwrap();
    let token = token(person, Some(acme.id.as_uuid()), "owner");
    let server = Server::start_with(&database, &[("CONTEXT_KEY", key)]);
    let status = |path: &str| http(server.port, "GET", path, &token, &Value::Null).unwrap().0;
    eventually("ready", SOON, async || status("/readyz") == 200).await;
    assert_eq!(status("/v1/data/orders"), 200);
    freehold(&["key", "rotate", "--retire-after-secs", "0"], &env_of(&app, &owner)).ended(0);
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'freehold_app'";
    sql.batch_execute(end).await.unwrap();
    eventually("not ready", SOON, async || status("/readyz") == 503).await;
    for _ in 0..20 {
        assert_eq!(status("/v1/data/orders"), 503);
    }
    let named = ["the database refuses every context", "CONTEXT_KEY", "freehold key show"];
    assert_eq!(lines(&server.running, &named), 1, "{}", server.running.said());
    let count = "SELECT count(*) FROM freehold.violation";
    assert_eq!(sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
}
