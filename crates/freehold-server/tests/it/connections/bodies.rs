//! Bodies: a request that has not arrived does not count, and the memory of all bodies is limited.

use serde_json::{Value, json};

use super::{Client, HOURS, Shop, http};
use crate::process::http_with;

fn unfinished(shop: &Shop, length: usize, sent: &str) -> Client {
    let head = format!(
        "POST /v1/data/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{sent}",
        shop.token
    );
    Client::saying(shop.port(), &head)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_take_nobodys_place() {
    let settings = [("MAX_CONCURRENT_REQUESTS", "4"), ("BODY_TIMEOUT_MS", HOURS)];
    let shop = Shop::open(&settings).await;
    let clients: Vec<_> = (0..50).map(|_| unfinished(&shop, 1000, "{\"sku\":")).collect();
    let chunked = format!(
        "POST /v1/data/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"sku",
        shop.token
    );
    let more: Vec<_> = (0..50).map(|_| Client::saying(shop.port(), &chunked)).collect();
    for _ in 0..10 {
        shop.assert_serves();
    }
    drop((clients, more));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_arrive_in_its_time_is_answered_408() {
    let shop = Shop::open(&[("BODY_TIMEOUT_MS", "300")]).await;
    let heard = unfinished(&shop, 1000, "{\"sku\":").hear_to_the_end();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{heard}");
    assert!(head.contains("connection: close"), "{heard}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], "request_too_slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_says_it_is_too_large_is_not_awaited() {
    let shop = Shop::open(&[("MAX_BODY_BYTES", "2000"), ("BODY_TIMEOUT_MS", HOURS)]).await;
    let heard = unfinished(&shop, 2001, "").hear_to_the_end();
    assert!(heard.starts_with("HTTP/1.1 413 "), "{heard}");
    assert!(heard.contains("larger than 2000 bytes"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunks_is_refused() {
    let shop = Shop::open(&[]).await;
    let head = format!(
        "POST /v1/data/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\n",
        shop.token
    );
    let row = |sku: &str| format!("{{\"sku\":\"{sku}\",\"name\":\"x\",\"price_cents\":1}}");
    let chunks = |sku: &str| format!("{:x}\r\n{}\r\n0\r\n\r\n", row(sku).len(), row(sku));
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let both = [("A1", format!("{length}{coding}")), ("A2", format!("{coding}{length}"))];
    for (taken, both) in both {
        let request = format!("{head}{both}\r\n{}", chunks("N1"));
        let heard = Client::saying(shop.port(), &request).hear_to_the_end();
        assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
        // Behind another one too, which is answered.
        let first = format!("{head}{coding}\r\n{}", chunks(taken));
        let heard = Client::saying(shop.port(), &format!("{first}{request}")).hear_to_the_end();
        assert!(heard.starts_with("HTTP/1.1 201 "), "{heard}");
        assert!(heard.contains("HTTP/1.1 400 "), "{heard}");
    }
    let (_, rows) = shop.get("/v1/data/products?select=sku&sku=eq.N1");
    assert_eq!(rows, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_together_take_so_much_memory() {
    let settings = [
        ("BUFFER_MB", "1"),
        ("MAX_BODY_BYTES", "500000"),
        ("MAX_ANSWER_BYTES", "500000"),
        ("BODY_TIMEOUT_MS", HOURS),
    ];
    let shop = Shop::open(&settings).await;
    let half = "x".repeat(400_000);
    // Of two bodies that do not fit together, the one that was read last is refused.
    let clients = [(); 2].map(|()| unfinished(&shop, 500_000, &half));
    let (told, hears) = std::sync::mpsc::channel();
    for client in &clients {
        let (told, mut client) = (told.clone(), client.again());
        std::thread::spawn(move || told.send(client.hear_to_the_end()));
    }
    let heard = hears.recv_timeout(super::SOON).unwrap();
    assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
    assert!(heard.contains("retry-after: 1") && heard.contains("overloaded"), "{heard}");
    // Small ones have room.
    shop.assert_serves();
    let row = json!({"sku": "N1", "name": "x", "price_cents": 1});
    let (status, answer) = shop.post("/v1/data/products", &row);
    assert_eq!(status, 201, "{answer}");
    clients.iter().for_each(Client::hang_up);
    // The memory of the other body is free again.
    let large = json!({"sku": "N2", "name": "x".repeat(450_000), "price_cents": 1});
    crate::support::eventually("there is room", super::SOON, async || {
        http(shop.port(), "POST", "/v1/data/products", &shop.token, &large)
            .is_ok_and(|(status, _)| status != 503)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_client_leave_room_for_those_of_another() {
    let settings = [
        ("BUFFER_MB", "1"),
        ("MAX_BODY_BYTES", "500000"),
        ("MAX_ANSWER_BYTES", "500000"),
        ("BODY_TIMEOUT_MS", HOURS),
        ("TRUST_FORWARDED_FOR", "true"),
    ];
    let shop = Shop::open(&settings).await;
    // From one network, in which a client can choose its address.
    let greedy: Vec<_> = (0..20)
        .map(|number| {
            let head = format!(
                "POST /v1/data/products HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 2001:db8::{number}\r\n\
                 Content-Length: 100000\r\n\r\n{}",
                "x".repeat(90_000)
            );
            Client::saying(shop.port(), &head)
        })
        .collect();
    let bearer = format!("Bearer {}", shop.token);
    let send = |from: &str, sku: &str| {
        let head = [("Authorization", bearer.as_str()), ("X-Forwarded-For", from)];
        let row = json!({"sku": sku, "name": "x".repeat(190_000), "price_cents": 1});
        http_with(shop.port(), "POST", "/v1/data/products", &head, &row).map(|answer| answer.0)
    };
    crate::support::eventually("the client has its share", super::SOON, async || {
        send("2001:db8::ffff", "N1").is_ok_and(|status| status == 503)
    })
    .await;
    for (number, from) in ["2001:db8:0:1::1", "192.0.2.1"].into_iter().enumerate() {
        assert_eq!(send(from, &format!("N{number}")).unwrap(), 400, "longer than a name may be");
    }
    drop(greedy);
}
