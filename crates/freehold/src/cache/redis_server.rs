//! The cache that servers share: Redis or Valkey. It may be slow, full, gone, or hold anything; then
//! it is done without, and a task of its own comes back to it. No request waits for it longer than
//! its timeout, and after a few failures none asks before it has answered again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, TlsCertificates};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::stats::{Counters, Fault};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::tls;

/// So many failures one after another, and Redis is left alone until it has answered again.
const FAILURES_MAX: u32 = 3;
/// For a new connection and its first answer.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Between attempts to come back: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a connection that nobody uses is tried.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Values on their way to Redis; more are not stored.
const STORES_MAX: usize = 64;
/// Keys that one step of a sweep looks at.
const SWEEP_STEP: usize = 1000;

#[derive(Clone)]
pub(super) struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    timeout: Duration,
    connection: RwLock<Option<MultiplexedConnection>>,
    failures: AtomicU32,
    /// The connection was given up.
    trouble: Notify,
    stores: Arc<Semaphore>,
    counters: Counters,
}

impl Redis {
    pub(super) fn new(url: &str, timeout: Duration, counters: Counters) -> Result<Redis> {
        let (url, authorities) = tls::split_authorities(url, "REDIS_URL")?;
        if authorities.is_some() && !url.starts_with("rediss://") {
            let why = "REDIS_URL: sslrootcert is for rediss://, which is redis:// with TLS";
            return Err(Error::new(ErrorKind::Setup, why));
        }
        let client = match authorities {
            None => Client::open(url),
            Some(pem) => {
                let trusted = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                Client::build_with_tls(url, trusted)
            }
        };
        // The driver's words may repeat the URL, and so a password.
        let client = client.map_err(|_| {
            Error::new(
                ErrorKind::Setup,
                "REDIS_URL is not understood: it reads redis://user:password@host:6379/0, \
                 rediss://… for TLS, or unix:///path/to/socket",
            )
        })?;
        Ok(Redis(Arc::new(Inner {
            client,
            timeout,
            connection: RwLock::new(None),
            failures: AtomicU32::new(0),
            trouble: Notify::new(),
            stores: Arc::new(Semaphore::new(STORES_MAX)),
            counters,
        })))
    }

    pub(super) fn is_up(&self) -> bool {
        self.0.connection.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What is under a key, at most so many bytes and one: of a value that is too long nothing more
    /// is read. `None` if nothing is there or Redis is done without.
    pub(super) async fn get(&self, key: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(bytes_max);
        let value: Vec<u8> = self.ask(&command).await?;
        (!value.is_empty()).then_some(value)
    }

    /// Stores a value, beside the request that made it.
    pub(super) fn store(&self, key: String, value: Vec<u8>, ttl: Duration) {
        if !self.is_up() {
            return;
        }
        let Ok(place) = Arc::clone(&self.0.stores).try_acquire_owned() else {
            return self.0.counters.fault(Fault::Dropped);
        };
        let redis = self.clone();
        tokio::spawn(async move {
            let mut command = redis::cmd("SET");
            command.arg(key).arg(value).arg("PX").arg(ttl.as_millis().max(1) as u64);
            let _: Option<()> = redis.ask(&command).await;
            drop(place);
        });
    }

    /// Removes all keys with a prefix, in steps, as far as Redis is there to do it.
    pub(super) async fn sweep(&self, prefix: &str) {
        let mut cursor: u64 = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(SWEEP_STEP);
            let Some((next, keys)) = self.ask::<(u64, Vec<Vec<u8>>)>(&scan).await else { return };
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(keys);
                let _: Option<()> = self.ask(&unlink).await;
            }
            if next == 0 {
                return;
            }
            cursor = next;
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let connection = self.0.connection.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = connection?;
        match tokio::time::timeout(self.0.timeout, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => {
                self.0.failures.store(0, Ordering::Relaxed);
                Some(value)
            }
            Ok(Err(error)) => {
                self.fail(fault_of(&error));
                None
            }
            Err(_) => {
                self.fail(Fault::Timeout);
                None
            }
        }
    }

    fn fail(&self, fault: Fault) {
        self.0.counters.fault(fault);
        let gives_up = match fault {
            Fault::Connection => true,
            Fault::Timeout | Fault::Refused => {
                self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX
            }
            // It answers, and what is in it can be read.
            _ => false,
        };
        if gives_up {
            self.leave();
        }
    }

    /// Asks no more over this connection: what comes late over it, comes to nobody.
    fn leave(&self) {
        let left =
            self.0.connection.write().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if left {
            self.0.trouble.notify_one();
        }
    }

    /// Connects, and again whenever the connection was given up. Ends with the task.
    pub(super) async fn keep_connected(self) {
        let mut pause = PAUSE;
        let mut told = false;
        loop {
            let began = Instant::now();
            match self.connect().await {
                Ok(connection) => {
                    tracing::info!("Redis is in use");
                    told = false;
                    self.hold(connection).await;
                    tracing::warn!("Redis does not answer as it should; going on without it");
                }
                // Once for each absence.
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "Redis cannot be reached; going on without it");
                }
                Err(_) => {}
            }
            if began.elapsed() > Duration::from_secs(10) {
                pause = PAUSE;
            }
            tokio::time::sleep(pause.mul_f64(1.0 + super::chance() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let late = |_| Error::new(ErrorKind::Unavailable, "it did not answer in time");
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(CONNECT_MAX));
        let connected = async {
            let mut connection =
                self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        };
        let connection = tokio::time::timeout(CONNECT_MAX, connected).await.map_err(late)?;
        connection.map_err(|error| Error::new(ErrorKind::Unavailable, why(&error)))
    }

    /// Lends the connection to requests until one of them gives it up, or it falls silent.
    async fn hold(&self, connection: MultiplexedConnection) {
        self.0.failures.store(0, Ordering::Relaxed);
        *self.0.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        loop {
            tokio::select! {
                () = self.0.trouble.notified() => return,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            // A failure counts as any other; the third ends this.
            let _: Option<()> = self.ask(&redis::cmd("PING")).await;
            if !self.is_up() {
                return;
            }
        }
    }
}

/// What the log may hold of an error: the words of the operating system and of TLS, and else the kind
/// alone, for a message of Redis may repeat what it was sent.
fn why(error: &RedisError) -> String {
    match (error.is_io_error(), std::error::Error::source(error)) {
        (true, Some(cause)) => cause.to_string(),
        _ => format!("{:?}", error.kind()),
    }
}

fn fault_of(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    if error.is_io_error() || error.is_unrecoverable_error() {
        return Fault::Connection;
    }
    match error.code() {
        Some("OOM") => Fault::Full,
        // Something of another type stands under the key.
        Some("WRONGTYPE") => Fault::Garbage,
        _ => Fault::Refused,
    }
}
