//! Locks that belong to a living connection: who leads the servers, and who runs what. PostgreSQL
//! frees them when the connection ends, so a process that was killed holds none.
//!
//! Sessions of the owner's and of analytics may take such locks, and those of the app role may not, where
//! a superuser ran `init`. A transaction of the app role can hold the same number until it ends: nobody
//! leads meanwhile, and nothing is lost.
//!
//! A lock says who begins; it cannot stop what its former holder has under way. What must not be
//! done by two is fenced where it is written.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::client;
use crate::wire::tls::Target;

/// How often the connection is proved, and how long an answer may take.
const HEARTBEAT: Duration = Duration::from_millis(250);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A connection that takes locks, and holds them as long as it lives.
pub(crate) struct Lease(Client);

impl Lease {
    pub(crate) async fn connect(target: &Target) -> Result<Lease> {
        let client = client::connect(target).await?;
        // A machine that vanishes says no farewell; the server then asks after it.
        client
            .batch_execute(
                "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2",
            )
            .await?;
        Ok(Lease(client))
    }

    /// Whether the lock is ours now. It never waits: a statement that waits would hold back
    /// vacuum in the whole database.
    pub(crate) async fn try_take(&self, class: i32, what: &str) -> Result<bool> {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        Ok(answered(self.0.query_one(sql, &[&class, &what])).await?.get(0))
    }

    /// Does some work as long as the connection lives, and drops it where it stands if that ends.
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
