//! Where tenants are read: on a replica that is fit for it, or on the primary.
//!
//! A run begins with a replica that has everything the primary had counted. If a read fails there, it is
//! repeated on the primary, which is never older.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::analytics::Connections;
use crate::error::{Error, ErrorKind, Result};
use crate::replicas::{self, Replica};
use crate::wire::client;
use crate::wire::tls::Target;

/// How long a replica may take to reach the state that the primary had counted.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// A replica that has not answered by then is not used.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The server that a run reads.
pub(crate) struct Source {
    /// `None`: the primary.
    replica: Option<Server>,
    /// Changes that were committed before this time can be read; `None`: everything that was counted.
    pub(super) behind: Option<Timestamp>,
}

struct Server {
    target: Arc<Target>,
    /// Reports when the replica is gone.
    watched: Option<Arc<Replica>>,
}

impl Source {
    /// Called after counting, so that the server has what was counted.
    pub(super) async fn choose(connections: &Connections, primary: &Client) -> Result<Source> {
        let from_primary = Source { replica: None, behind: None };
        let Some(server) = Server::find(connections) else { return Ok(from_primary) };
        let caught_up = async {
            replicas::require_replica(&server.target, &connections.primary).await?;
            catch_up(&server.target, primary).await
        };
        let caught_up = tokio::time::timeout(ANSWER_MAX, caught_up).await;
        let silent = |_| Err(Error::new(ErrorKind::Unavailable, "it does not answer"));
        match caught_up.unwrap_or_else(silent) {
            Ok(behind) => Ok(Source { replica: Some(server), behind }),
            Err(error) => {
                tracing::warn!(%error, "analytics reads the primary: its replica is not fit");
                Ok(from_primary)
            }
        }
    }
}

impl Server {
    fn find(connections: &Connections) -> Option<Server> {
        if let Some(target) = &connections.reader {
            return Some(Server { target: Arc::clone(target), watched: None });
        }
        let replica = connections.replicas.find_direct()?;
        let mut target = Target::clone(&replica.pool().target());
        let ours = &connections.primary.config;
        if let Some(user) = ours.get_user() {
            target.config.user(user);
        }
        if let Some(password) = ours.get_password() {
            target.config.password(password);
        }
        if let Some(name) = ours.get_application_name() {
            target.config.application_name(name);
        }
        Some(Server { target: Arc::new(target), watched: Some(replica) })
    }
}

/// A replica that reads tenants must have everything that the primary had counted: a change that was counted
/// and not read would never be noticed again. If it does not get there in time, returns the time of its data.
async fn catch_up(replica: &Target, primary: &Client) -> Result<Option<Timestamp>> {
    let replica = client::connect(replica).await?;
    let reached: String =
        primary.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
    let started = Instant::now();
    loop {
        let row = replica
            .query_one(
                "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() >= $1::text::pg_lsn,
                        coalesce(pg_last_xact_replay_timestamp(), to_timestamp(0))",
                &[&reached],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            return Err(Error::new(ErrorKind::Unavailable, "it was promoted"));
        }
        if row.get(1) {
            return Ok(None);
        }
        if started.elapsed() > CATCH_UP_MAX {
            tracing::warn!("analytics reads a replica that is behind its primary");
            return Ok(Some(row.get(2)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection on which tenants are read.
pub(super) struct Reader {
    client: Client,
    /// The client is connected to a replica.
    on_replica: bool,
    watched: Option<Arc<Replica>>,
    primary: Arc<Target>,
    /// To the primary, opened on demand.
    second: OnceCell<Client>,
    settings: String,
}

impl Reader {
    pub(super) async fn open(
        source: &Source,
        primary: &Arc<Target>,
        settings: String,
    ) -> Result<Reader> {
        let replica = source.replica.as_ref();
        let first = match replica {
            Some(server) => open(&server.target, &settings).await,
            None => open(primary, &settings).await,
        };
        let (client, on_replica) = match first {
            Ok(client) => (client, replica.is_some()),
            // The replica has just become unavailable.
            Err(_) if replica.is_some() => (open(primary, &settings).await?, false),
            Err(error) => return Err(error),
        };
        let watched = replica.and_then(|server| server.watched.clone());
        let primary = Arc::clone(primary);
        Ok(Reader { client, on_replica, watched, primary, second: OnceCell::new(), settings })
    }

    /// Runs a message of SQL, which ends the transaction that it begins. If a replica fails, the primary is
    /// asked, except after a timeout, which would occur there as well.
    pub(super) async fn ask(
        &self,
        message: &str,
    ) -> Result<Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>> {
        let asked = async { Ok(run(&self.client, message).await) };
        if !self.on_replica {
            return asked.await;
        }
        let answer = match &self.watched {
            Some(replica) => replica.unless_gone(asked).await,
            None => asked.await,
        };
        match answer {
            Ok(Ok(answers)) => Ok(Ok(answers)),
            Ok(Err(error)) if error.code() == Some(&SqlState::QUERY_CANCELED) => Ok(Err(error)),
            _ => {
                let second = || open(&self.primary, &self.settings);
                let client = self.second.get_or_try_init(second).await?;
                Ok(run(client, message).await)
            }
        }
    }
}

async fn run(
    client: &Client,
    message: &str,
) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
    let answers = client.simple_query(message).await;
    if answers.is_err() {
        // If this fails, the connection is lost, as the next message finds out.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    answers
}

async fn open(target: &Target, settings: &str) -> Result<Client> {
    let client = client::connect(target).await?;
    client.batch_execute(settings).await?;
    Ok(client)
}
