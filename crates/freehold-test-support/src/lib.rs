//! Shared by the tests of several crates: separate processes, a test server, waiting.

#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "only tests use it, and they panic"
)]

pub mod process;

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// A server for tests only; `./dev test` starts one and sets this variable.
pub fn admin_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL leads to a PostgreSQL server for tests; run ./dev test")
}

/// A session outside of any pool.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The timeout for what takes a second or two on an idle machine. No test is about its duration.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until a condition holds; fails after a timeout.
pub async fn eventually(
    what: &str,
    within: Duration,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}
