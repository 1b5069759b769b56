//! The cache that servers share: Redis or Valkey. It may be slow, full or gone, or contain anything. On a
//! failure requests do without it, and a task reconnects. No request waits for it longer than its timeout,
//! and after a few failures none uses it until it has answered again.

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

/// After this many failures in a row, Redis is not used until it has answered again.
const FAILURES_MAX: u32 = 3;
/// Timeout for a new connection and its first answer.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The first and the longest pause between attempts to reconnect.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often an idle connection is checked.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The most values that are being stored at a time; further ones are not stored.
const STORES_MAX: usize = 64;
/// The number of keys that one step of a sweep examines.
const SWEEP_STEP: usize = 1000;

#[derive(Clone)]
pub(super) struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    timeout: Duration,
    connection: RwLock<Option<MultiplexedConnection>>,
    failures: AtomicU32,
    /// Notified when the connection was given up.
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
        // The driver's message may repeat the URL, and so a password.
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

    /// The value under a key, reading at most `bytes_max` bytes and one: of a longer value nothing more is
    /// read. `None` if there is none or Redis is not in use.
    pub(super) async fn get(&self, key: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(bytes_max);
        let value: Vec<u8> = self.ask(&command).await?;
        (!value.is_empty()).then_some(value)
    }

    /// Stores a value in the background of the request that loaded it.
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

    /// Removes all keys with a prefix, in steps, if Redis is available.
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
            // Redis answers, and its content is readable.
            _ => false,
        };
        if gives_up {
            self.leave();
        }
    }

    /// Stops using this connection: late answers on it reach no caller.
    fn leave(&self) {
        let left =
            self.0.connection.write().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if left {
            self.0.trouble.notify_one();
        }
    }

    /// Connects, and reconnects whenever the connection was given up. Runs until the task is dropped.
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
                // Logged once per outage.
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

    /// Lends the connection to requests until one of them gives it up, or a check fails.
    async fn hold(&self, connection: MultiplexedConnection) {
        self.0.failures.store(0, Ordering::Relaxed);
        *self.0.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        loop {
            tokio::select! {
                () = self.0.trouble.notified() => return,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            // A failed check counts like any other failure; the third one ends this.
            let _: Option<()> = self.ask(&redis::cmd("PING")).await;
            if !self.is_up() {
                return;
            }
        }
    }
}

/// What may be logged of an error: the message of the operating system or of TLS, otherwise only the kind,
/// since a message from Redis may repeat the data it was sent.
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
        // A value of another type is stored under the key.
        Some("WRONGTYPE") => Fault::Garbage,
        _ => Fault::Refused,
    }
}
