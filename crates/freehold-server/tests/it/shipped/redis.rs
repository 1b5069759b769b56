//! The shipped Redis configuration, over TLS, between servers; and a Redis that cannot be verified.

use std::process::Command;
use std::time::Duration;

use freehold::testing::{self, TestDatabase};
use serde_json::{Value, json};

use super::{replaced, shipped};
use crate::process::{Folder, Running, Server, free_port, http_with, token};
use crate::support::{admin_url, eventually, shop};
use crate::tls::Authority;

/// Redis as it is shipped, with the lines about TLS that it shows, and the rights that it names.
fn redis(folder: &Folder, authority: &Authority, port: u16) -> Running {
    let mut conf = shipped("redis.conf");
    let rights = conf.split('`').find(|part| part.starts_with("user freehold ")).unwrap();
    let acl = rights.replace(">password", ">a-secret") + "\nuser default off\n";
    let (certificate, key) = authority.sign("localhost");
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (from, to) in [
        ("bind 0.0.0.0", "bind 127.0.0.1"),
        ("\nport 6379", "\nport 0"),
        ("#tls-port 6379", &format!("tls-port {port}")),
        (
            "#tls-cert-file /etc/redis/tls/server.crt",
            &format!("tls-cert-file {}", at("server.crt")),
        ),
        ("#tls-key-file /etc/redis/tls/server.key", &format!("tls-key-file {}", at("server.key"))),
        ("#tls-auth-clients no", "tls-auth-clients no"),
        ("/etc/redis/users.acl", &at("users.acl")),
    ] {
        conf = replaced(&conf, from, to);
    }
    for (name, text) in [
        ("server.crt", &certificate),
        ("server.key", &key),
        ("users.acl", &acl),
        ("redis.conf", &conf),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let has = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let program = ["redis-server", "valkey-server"].into_iter().find(has);
    let mut command = Command::new(program.expect("redis-server is here: ./dev test installs it"));
    command.arg(at("redis.conf")).current_dir(folder.path());
    let mut running = Running::spawn(command);
    running.wait_for("Ready to accept connections", Duration::from_secs(60));
    running
}

/// The value of a line of `/metrics` that begins so; 0 if there is none.
fn metric(port: u16, line: &str) -> f64 {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let value = answer.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_redis_serves_over_tls_and_one_that_cannot_be_verified_is_done_without() {
    let (folder, port) = (Folder::new(), free_port());
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut redis = redis(&folder, &authority, port);
    let ca = authority.write(&folder.path().join("ca.pem"));
    let stranger = stranger.write(&folder.path().join("stranger.pem"));
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (tenant, context) = testing::create_tenant(&fleet, "acme").await.unwrap();
    let token = token(context.actor().id.as_uuid(), Some(tenant.id.as_uuid()), "owner");
    let bearer = format!("Bearer {token}");
    let read = |server: &Server| {
        let headers = [("Authorization", bearer.as_str()), ("Cache-Control", "max-age=600")];
        http_with(server.port, "GET", "/v1/data/orders", &headers, &Value::Null).unwrap()
    };
    let url =
        |host: &str, ca: &str| format!("rediss://freehold:a-secret@{host}:{port}?sslrootcert={ca}");
    let start = |url: &str| {
        let settings = [("REDIS_URL", url), ("REDIS_TIMEOUT_MS", "5000")];
        Server::start_with(&database, &settings)
    };
    const SOON: Duration = Duration::from_secs(60);
    let shared = "freehold_cache_lookups_total{name=\"data\",tier=\"redis\",outcome=\"hit\"}";

    // A value stored by one server is found by the other, and the shipped rights suffice for all commands.
    let (one, two) = (start(&url("localhost", &ca)), start(&url("localhost", &ca)));
    for server in [&one, &two] {
        eventually("Redis is in use", SOON, async || {
            metric(server.port, "freehold_cache_redis_up") > 0.0
        })
        .await;
    }
    assert_eq!(read(&one), (200, json!([])));
    eventually("it is shared", SOON, async || {
        assert_eq!(read(&two), (200, json!([])));
        metric(two.port, shared) > 0.0
    })
    .await;
    assert_eq!(metric(one.port, "freehold_cache_errors_total{reason=\"refused\"}"), 0.0);

    // Another authority, another host, the system's authorities: served all the same, without it.
    for (url, why) in [
        (url("localhost", &stranger), "invalid peer certificate"),
        (url("127.0.0.1", &ca), "certificate not valid for name"),
        (url("localhost", "system"), "UnknownIssuer"),
    ] {
        let mut server = start(&url);
        let line = server.running.wait_for("Redis cannot be reached; going on without it", SOON);
        assert!(line.contains(why), "{line}");
        assert_eq!(read(&server), (200, json!([])));
        assert_eq!(metric(server.port, "freehold_cache_redis_up"), 0.0);
        assert!(!server.running.said().contains("a-secret"), "{}", server.running.said());
        server.running.stop();
    }
    fleet.close();
    drop((one, two));
    redis.kill();
}
