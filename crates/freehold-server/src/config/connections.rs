//! What clients may take of the server: connections, time, memory.

use std::time::Duration;

use clap::Args;

/// How long a client may let the server wait, how many connections there may be, and how much memory
/// bodies and answers may take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct ConnectionSettings {
    /// The most connections of clients; without it, as many as the limit of open files leaves room for,
    /// up to 10000
    #[arg(long, env, value_name = "MAX_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: Option<u32>,

    /// The most connections of one client address; without it, half of all. Not counted with
    /// TRUST_FORWARDED_FOR, where the addresses are the proxies'
    #[arg(long, env, value_name = "MAX_CONNECTIONS_PER_CLIENT",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections_per_client: Option<u32>,

    /// Milliseconds that the head of a request may take to arrive
    #[arg(long, env, value_name = "HEAD_TIMEOUT_MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub head_timeout_ms: u64,

    /// Milliseconds that the body of a request may take to arrive, and in which a client must take
    /// something of its answer
    #[arg(long, env, value_name = "BODY_TIMEOUT_MS", default_value_t = 30_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub body_timeout_ms: u64,

    /// Seconds that a connection may be idle between two requests; longer than proxies keep theirs
    #[arg(long, env, value_name = "IDLE_SECS", default_value_t = 75,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub idle_secs: u64,

    /// The largest answer of the data API, in bytes; of a batch, all its answers together
    #[arg(long, env, value_name = "MAX_ANSWER_BYTES", default_value_t = 8 * 1024 * 1024,
          value_parser = clap::value_parser!(u64).range(64 * 1024..=512 * 1024 * 1024))]
    pub max_answer_bytes: u64,

    /// Megabytes that the bodies of all requests may take together, and as many again the answers of
    /// the data API; at least twice the largest one, since one client or tenant gets half. What finds
    /// no room is told to come back
    #[arg(long, env, value_name = "BUFFER_MB", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub buffer_mb: u64,
}

impl Default for ConnectionSettings {
    fn default() -> ConnectionSettings {
        ConnectionSettings {
            max_connections: None,
            max_connections_per_client: None,
            head_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_secs: 75,
            max_answer_bytes: 8 * 1024 * 1024,
            buffer_mb: 64,
        }
    }
}

impl ConnectionSettings {
    pub(crate) fn body_max(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.buffer_mb * 1024 * 1024
    }

    /// Checks that no request would always fail for lack of room.
    pub(crate) fn check(&self, body_bytes_max: u32) -> Result<(), String> {
        // One tenant or client gets half.
        let least = 2 * self.max_answer_bytes.max(body_bytes_max.into());
        if self.buffer_bytes() >= least {
            return Ok(());
        }
        Err(format!(
            "BUFFER_MB is {}, and less than twice MAX_ANSWER_BYTES or MAX_BODY_BYTES; set {} at least",
            self.buffer_mb,
            least.div_ceil(1024 * 1024)
        ))
    }
}
