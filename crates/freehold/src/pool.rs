//! Connections: how they are made, how many there are, how long one waits for one.
//!
//! A connection is clean whenever it lies in the pool; `tx` sees to that, so taking one costs no
//! round trip. Nothing is ever set on a session.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, PoolError, RecycleError, RecycleResult, Timeouts};
use lru::LruCache;
use tokio_postgres::{CancelToken, Client, Statement};

use crate::error::{Error, ErrorKind, Result};
use crate::tls::{self, Target};

/// Prepared statements kept per connection. One holds 20 to 70 kB in the backend, so a full
/// cache is about 20 MB; fewer than the tenants a connection meets costs a round trip each.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// A connection is replaced after this long, because a backend never gives back the memory that
/// its catalog caches took for the tenants it met.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The most connections open at a time.
    pub connections_max: usize,
    /// How long a caller waits for a connection before it is told to come back later.
    pub wait_max: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { connections_max: 16, wait_max: Duration::from_secs(5) }
    }
}

/// How many connections there are, and who waits for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The limit.
    pub connections_max: usize,
    /// Open now, idle ones included.
    pub connections: usize,
    /// Open and free.
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
}

#[derive(Clone)]
pub(crate) struct Pool(managed::Pool<Manager>);

pub(crate) type Checkout = managed::Object<Manager>;

/// A connection with its prepared statements.
pub(crate) struct Connection {
    pub(crate) client: Arc<Client>,
    pub(crate) doors: Doors,
    /// Keyed by schema, role and text: a plan belongs to one tenant and one role.
    pub(crate) statements: LruCache<String, Statement>,
    pub(crate) cancel: Canceller,
}

/// The prepared calls that begin every transaction.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) enter: Statement,
    pub(crate) enter_catalog: Statement,
}

/// Asks the server to stop what a connection is doing.
#[derive(Clone)]
pub(crate) struct Canceller {
    token: CancelToken,
    target: Arc<Target>,
}

impl Canceller {
    /// Returns once the server has sent the signal to the backend.
    pub(crate) async fn cancel(&self) -> Result<()> {
        Ok(self.token.cancel_query(self.target.tls.clone()).await?)
    }
}

pub(crate) struct Manager {
    target: Arc<Target>,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        let client = connect(&self.target).await?;
        let cancel = Canceller { token: client.cancel_token(), target: Arc::clone(&self.target) };
        let doors = Doors {
            enter: client.prepare("SELECT freehold.enter($1)").await?,
            enter_catalog: client.prepare("SELECT freehold.enter_catalog($1)").await?,
        };
        Ok(Connection {
            client: Arc::new(client),
            doors,
            statements: LruCache::new(STATEMENTS_MAX),
            cancel,
        })
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        if metrics.age() > AGE_MAX {
            return Err(RecycleError::message("old"));
        }
        Ok(())
    }
}

/// Connects, and lets the connection's own task run until the client is dropped.
pub(crate) async fn connect(target: &Target) -> Result<Client> {
    let (client, connection) =
        target.config.connect(target.tls.clone()).await.map_err(|source| {
            let (user, host) = (target.config.get_user().unwrap_or("?"), hosts(&target.config));
            let message = format!("cannot connect to PostgreSQL at {host} as {user}");
            Error::new(ErrorKind::Unavailable, message).because(source)
        })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(client)
}

fn hosts(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let ports = config.get_ports();
    let port = ports.first().copied().unwrap_or(5432);
    let names: Vec<_> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if names.is_empty() { "no host".to_owned() } else { names.join(", ") }
}

impl Pool {
    /// `name` is the setting's name, for messages about a malformed one.
    pub(crate) fn new(url: &str, name: &str, limits: PoolLimits) -> Result<Pool> {
        let mut target = tls::target(url, name)?;
        target.config.connect_timeout(Duration::from_secs(5));
        if target.config.get_application_name().is_none() {
            target.config.application_name("freehold");
        }
        let manager = Manager { target: Arc::new(target) };
        let pool = managed::Pool::builder(manager)
            .max_size(limits.connections_max)
            .runtime(deadpool::Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(limits.wait_max),
                create: Some(Duration::from_secs(10)),
                recycle: None,
            })
            .build()
            .map_err(|source| {
                Error::new(ErrorKind::Internal, "the pool cannot be made").because(source)
            })?;
        Ok(Pool(pool))
    }

    pub(crate) async fn checkout(&self) -> Result<Checkout> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Timeout(managed::TimeoutType::Wait) => Error::new(
                ErrorKind::PoolExhausted,
                "every database connection is busy; try again shortly",
            ),
            PoolError::Backend(error) => error,
            other => {
                Error::new(ErrorKind::Unavailable, "the database is not available").because(other)
            }
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let status = self.0.status();
        PoolStatus {
            connections_max: status.max_size,
            connections: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.0.manager().target)
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}
