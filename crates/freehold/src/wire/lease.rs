//! Locks that belong to a living connection: they decide which server leads, and which server runs what.
//! PostgreSQL releases them when the connection ends, so a killed process holds none.
//!
//! Sessions of the owner role and of analytics may take these locks; where a superuser ran `init`, sessions
//! of the app role may not. A transaction of the app role can take a lock of the same number until it ends:
//! no server leads meanwhile, and nothing is lost.
//!
//! A lock decides which server begins; it cannot stop work that its former holder has under way. Work that
//! must not be done twice is fenced where it writes.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::client;
use crate::wire::tls::Target;

/// How often the connection is checked, and how long an answer may take.
const HEARTBEAT: Duration = Duration::from_millis(250);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A connection that takes locks and holds them as long as it lives.
pub(crate) struct Lease(Client);

impl Lease {
    pub(crate) async fn connect(target: &Target) -> Result<Lease> {
        let client = client::connect(target).await?;
        // A machine that vanishes closes no connection, so the server sends keepalives.
        client
            .batch_execute(
                "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2",
            )
            .await?;
        Ok(Lease(client))
    }

    /// Whether this connection holds the lock now. Never waits: a waiting statement would hold back vacuum in
    /// the whole database.
    pub(crate) async fn try_take(&self, class: i32, what: &str) -> Result<bool> {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        Ok(answered(self.0.query_one(sql, &[&class, &what])).await?.get(0))
    }

    /// Runs `work` while the connection lives, and drops it if the connection ends.
    pub(crate) async fn hold_while<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            lost = self.lost() => Err(lost),
            outcome = work => outcome,
        }
    }

    async fn lost(&self) -> Error {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = answered(self.0.check_connection()).await {
                return Error::new(
                    ErrorKind::Unavailable,
                    "the connection that holds the lock was lost",
                )
                .because(error);
            }
        }
    }
}

async fn answered<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(SILENCE_MAX, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "the database does not answer")),
    }
}
