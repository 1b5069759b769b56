//! What the tests of several crates stand on: programs in processes of their own, a test server, waiting.

#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "only tests use it, and they panic"
)]

pub mod process;

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// A server that is only for tests; `./dev test` starts one and sets this.
pub fn admin_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL leads to a PostgreSQL server for tests; run ./dev test")
}

/// A session of one's own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// For what comes within a second or two where the machine is not busy. No test is about its pace.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until something holds; fails after so long.
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
