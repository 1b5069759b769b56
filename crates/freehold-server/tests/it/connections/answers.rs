//! Answers: limited in bytes before they are in memory, each and in total; and a refused one has changed
//! nothing.

use serde_json::{Value, json};
use std::fmt::Write as _;

use super::{Client, SOON, Shop, http};
use crate::process::{Server, http_with};
use crate::support::{connect, eventually, shop_and};

/// In kB, the most that a process has ever had in memory.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// `select` with the same column this many times.
fn aliases(column: &str, count: usize) -> String {
    (0..count).fold("select=sku".to_owned(), |mut select, n| {
        let _ = write!(select, ",a{n}:{column}");
        select
    })
}

async fn with_large_value(settings: super::Env<'_>, bytes: usize) -> Shop {
    let papers =
        "CREATE TABLE papers (sku text PRIMARY KEY, name text NOT NULL, price_cents int NOT NULL)";
    let shop =
        Shop::over(shop_and(papers), |database| Server::start_with(database, settings)).await;
    let sql = connect(&shop.database.superuser_url()).await;
    let schema = freehold::TenantId::from(shop.tenant).schema();
    let insert = format!(
        "SET row_security = off;
         INSERT INTO {schema}.papers (sku, name, price_cents) VALUES ('LARGE', repeat('x', {bytes}), 1)"
    );
    sql.batch_execute(&insert).await.unwrap();
    shop
}

fn refused(answer: &(u16, Value)) {
    let (status, problem) = answer;
    assert_eq!((*status, &problem["code"]), (400, &json!("answer_too_large")), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_large_is_refused_before_it_is_in_memory() {
    let shop = with_large_value(&[], 2_000_000).await;
    let path = |count| format!("/v1/data/papers?sku=eq.LARGE&{}", aliases("name", count));
    shop.assert_serves();
    let before = peak(shop.server.running.pid());
    let answer = shop.get(&path(60));
    refused(&answer);
    let problem = answer.1;
    assert!(problem["detail"].as_str().unwrap().contains("8388608"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("limit"), "{problem}");
    // The kernel counts in batches, so the most may seem to become less.
    let grown = peak(shop.server.running.pid()).saturating_sub(before);
    assert!(grown < 20_000, "the server grew by {grown} kB");
    let head =
        [("Cache-Control", "max-age=60"), ("Authorization", &*format!("Bearer {}", shop.token))];
    refused(&http_with(shop.port(), "GET", &path(60), &head, &Value::Null).unwrap());
    // Answers that fit are still sent, on any connection.
    for _ in 0..5 {
        let (status, rows) = shop.get(&path(3));
        assert_eq!((status, rows[0]["a2"].as_str().unwrap().len()), (200, 2_000_000));
        refused(&shop.get(&path(6)));
        shop.assert_serves();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_too_large_is_not_done() {
    let shop = with_large_value(&[("MAX_ANSWER_BYTES", "100000")], 1_000).await;
    let bearer = format!("Bearer {}", shop.token);
    let returning = [("Authorization", bearer.as_str()), ("Prefer", "return=representation")];
    let row = |sku: &str| json!({"sku": sku, "name": "x".repeat(10_000), "price_cents": 1});
    let select = aliases("name", 20);
    let path = format!("/v1/data/papers?{select}");
    refused(&http_with(shop.port(), "POST", &path, &returning, &row("N1")).unwrap());
    let path = format!("/v1/data/papers?sku=eq.LARGE&{}", aliases("name", 150));
    let change = json!({"price_cents": 77});
    refused(&http_with(shop.port(), "PATCH", &path, &returning, &change).unwrap());
    refused(&http_with(shop.port(), "DELETE", &path, &returning, &Value::Null).unwrap());

    let operation = |sku: &str, query: &str| {
        let headers = json!({"Prefer": "return=representation"});
        let path = format!("/papers?{query}");
        json!({"method": "POST", "path": path, "headers": headers, "body": row(sku)})
    };
    let read =
        json!({"method": "GET", "path": format!("/papers?sku=eq.LARGE&{}", aliases("name", 150))});
    let small = json!({"method": "POST", "path": "/papers", "body": {"sku": "N3", "name": "x", "price_cents": 1}});
    // Together too: each of these has room, and not both.
    let atomic =
        json!([small, operation("N4", &aliases("name", 5)), operation("N5", &aliases("name", 5))]);
    let (status, problem) = shop.post("/v1/batch", &atomic);
    assert_eq!((status, &problem["answers"][2]["body"]["code"]), (424, &json!("answer_too_large")));
    let (status, problem) = shop.post("/v1/batch", &json!([small, read]));
    assert_eq!((status, &problem["answers"][1]["body"]["code"]), (424, &json!("answer_too_large")));
    let (_, rows) = shop.get("/v1/data/papers?select=sku&or=(sku.like.N*,price_cents.eq.77)");
    assert_eq!(rows, json!([]));
    assert_eq!(
        shop.get("/v1/data/papers?sku=eq.LARGE&select=price_cents").1,
        json!([{"price_cents": 1}])
    );

    // The reported outcome of each operation is the real one.
    let each = json!([read, small, operation("N4", &select), operation("N6", "select=sku")]);
    let (status, answers) = shop.post("/v1/batch?mode=independent", &each);
    let statuses: Vec<_> = (0..4).map(|n| answers[n]["status"].as_u64().unwrap()).collect();
    assert_eq!((status, statuses), (207, vec![400, 201, 400, 201]), "{answers}");
    let (_, rows) = shop.get("/v1/data/papers?select=sku&sku=like.N*&order=sku");
    assert_eq!(rows, json!([{"sku": "N3"}, {"sku": "N6"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_together_take_so_much_memory() {
    let settings =
        [("BUFFER_MB", "14"), ("MAX_ANSWER_BYTES", "7000000"), ("BODY_TIMEOUT_MS", super::HOURS)];
    let shop = with_large_value(&settings, 2_000_000).await;
    let path = format!("/v1/data/papers?sku=eq.LARGE&{}", aliases("name", 3));
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", shop.token);
    // A client that does not read its answers, which exceed the socket buffers.
    let slow = Client::saying(shop.port(), &head.repeat(10));
    eventually("there is no room for another", SOON, async || {
        let (status, problem) = shop.get(&path);
        status == 503 && problem["code"] == "overloaded"
    })
    .await;
    shop.assert_serves();
    drop(slow);
    eventually("there is room again", SOON, async || {
        http(shop.port(), "GET", &path, &shop.token, &Value::Null)
            .is_ok_and(|(status, _)| status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_one_tenant_leave_room_for_those_to_another() {
    let settings =
        [("BUFFER_MB", "26"), ("MAX_ANSWER_BYTES", "7000000"), ("BODY_TIMEOUT_MS", super::HOURS)];
    let shop = with_large_value(&settings, 2_000_000).await;
    let path = format!("/v1/data/papers?sku=eq.LARGE&{}", aliases("name", 3));
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", shop.token);
    // Each holds 6 MB.
    let slow: Vec<_> = (0..8).map(|_| Client::saying(shop.port(), &head)).collect();
    eventually("the tenant has its share", SOON, async || {
        let (status, problem) = shop.get(&path);
        status == 503 && problem["code"] == "overloaded"
    })
    .await;
    for _ in 0..3 {
        let large = json!({"sku": "L", "name": "x".repeat(1_500_000), "price_cents": 1});
        let sku = json!({"sku": "L"});
        let call = |method, path, body| {
            http(shop.port(), method, path, &shop.others_token, body).unwrap().0
        };
        assert_eq!(call("POST", "/v1/data/papers", &large), 201);
        let path = format!("/v1/data/papers?sku=eq.L&{}", aliases("name", 3));
        assert_eq!(call("GET", &path, &Value::Null), 200);
        assert_eq!(call("DELETE", "/v1/data/papers?sku=eq.L", &sku), 204);
    }
    assert_eq!(shop.get(&path).0, 503, "the first tenant still has its share");
    drop(slow);
}

/// Megabytes that the shipped deployment gives a container.
fn containers_limit() -> u64 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/base/deployment.yaml");
    let deployment = std::fs::read_to_string(path).unwrap();
    let (_, limit) = deployment.split_once("limits: { memory: ").unwrap();
    limit.split_once("Mi").unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clients_ask_for_a_server_stays_within_its_containers_memory() {
    let settings = [("BODY_TIMEOUT_MS", super::HOURS), ("HEAD_TIMEOUT_MS", super::HOURS)];
    let shop = with_large_value(&settings, 2_000_000).await;
    let port = shop.port();
    let path = format!("/v1/data/papers?sku=eq.LARGE&{}", aliases("name", 3));
    let asks =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", shop.token);
    // Clients that do not read their answers, or that send most of a body or a head and then stop.
    let sends = format!(
        "POST /v1/data/papers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2000000\r\n\r\n\"{}",
        shop.token,
        "x".repeat(1_900_000)
    );
    let never_ends = format!("{}{}", super::HALF_A_HEAD, "x".repeat(60_000));
    let mut clients = Vec::new();
    for number in 0..300 {
        let mut client = Client::connect(port);
        let says = [&asks, &sends, &never_ends][number % 3];
        // A client that gets no room is refused before it has sent everything.
        let _ = client.say(says);
        clients.push(client);
    }
    // Beside them, clients that read their answers.
    let hurried: Vec<_> = (0..16)
        .map(|_| {
            let (path, token) = (path.clone(), shop.token.clone());
            std::thread::spawn(move || {
                (0..10).for_each(|_| {
                    let (status, answer) = http(port, "GET", &path, &token, &Value::Null).unwrap();
                    assert!(status == 200 || status == 503, "{status}: {answer}");
                });
            })
        })
        .collect();
    hurried.into_iter().for_each(|thread| thread.join().unwrap());
    let (peak_mb, limit) = (peak(shop.server.running.pid()) / 1024, containers_limit());
    assert!(peak_mb < limit, "the server took {peak_mb} MB of {limit}");
    drop(clients);
    eventually("all is as before", SOON, async || {
        http(port, "GET", "/v1/data/orders?limit=1", &shop.token, &Value::Null)
            .is_ok_and(|(status, _)| status == 200)
    })
    .await;
}
