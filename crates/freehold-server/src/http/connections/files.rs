//! How many connections the limit of open files permits.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::limits::ConnectionLimits;
use super::registry::SPARE;
use crate::config::HttpSettings;

/// More connections are a reason for another server.
const CONNECTIONS_MAX: u64 = 10_000;
/// With fewer, the server does not start.
const CONNECTIONS_MIN: u64 = 16;
/// Files for logs, timers, the runtime, listeners, Redis, mail, traces, and cancel requests.
const FILES_OF_OTHERS: u64 = 64;

impl ConnectionLimits {
    /// The limits of this process, with its number of connections to databases. The soft limit of open files
    /// is raised to the hard one first.
    pub fn of(
        settings: &HttpSettings,
        database_connections: u64,
    ) -> Result<ConnectionLimits, String> {
        let files = raise_limit();
        let limits = of_files(settings, files, database_connections)?;
        let wanted = wanted(settings);
        if (limits.connections_max as u64) < wanted {
            tracing::warn!(
                files,
                connections = limits.connections_max,
                wanted,
                "the limit of open files leaves room for fewer connections of clients; raise it \
                 (LimitNOFILE of systemd, ulimit -n, --ulimit nofile of containers)"
            );
        }
        Ok(limits)
    }
}

fn wanted(settings: &HttpSettings) -> u64 {
    settings.connections.max_connections.map_or(CONNECTIONS_MAX, u64::from)
}

fn of_files(
    settings: &HttpSettings,
    files: u64,
    database_connections: u64,
) -> Result<ConnectionLimits, String> {
    let others = database_connections + FILES_OF_OTHERS + SPARE as u64;
    let room = files.saturating_sub(others);
    if room < CONNECTIONS_MIN {
        return Err(format!(
            "the limit of open files is {files}; {others} are for the database ({database_connections}) and \
             for the server itself, and that leaves no room for clients. Raise it to {} at least: \
             LimitNOFILE of systemd, ulimit -n, --ulimit nofile of containers; or lower \
             MAX_CONNECTION_POOL",
            others + 1000
        ));
    }
    let all = wanted(settings).min(room);
    let per_client = settings.connections.max_connections_per_client.map_or(all / 2, u64::from);
    let milliseconds = Duration::from_millis;
    Ok(ConnectionLimits {
        connections_max: all as usize,
        per_client_max: (!settings.trust_forwarded_for).then_some(per_client as usize),
        head_max: milliseconds(settings.connections.head_timeout_ms),
        stall_max: milliseconds(settings.connections.body_timeout_ms),
        idle_max: Duration::from_secs(settings.connections.idle_secs),
    })
}

/// The limit of open files, raised as far as this process may.
fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok()
    {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn settings(arguments: &[&str]) -> HttpSettings {
        let command = HttpSettings::augment_args(clap::Command::new("x").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(None));
        HttpSettings::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    #[test]
    fn connections_fit_into_the_limit_of_open_files() {
        let of = |arguments: &[&str], files| of_files(&settings(arguments), files, 30);
        let limits = of(&[], 1024).unwrap();
        assert_eq!((limits.connections_max, limits.per_client_max), (898, Some(449)));
        assert_eq!(of(&[], 1 << 20).unwrap().connections_max, 10_000);
        assert_eq!(of(&["--max-connections", "100"], 1024).unwrap().connections_max, 100);
        assert_eq!(of(&["--max-connections", "5000"], 1024).unwrap().connections_max, 898);
        let own = of(&["--max-connections-per-client", "7"], 1024).unwrap();
        assert_eq!(own.per_client_max, Some(7));
        assert_eq!(of(&["--trust-forwarded-for", "true"], 1024).unwrap().per_client_max, None);
        let refused = of(&[], 140).unwrap_err();
        assert!(refused.contains("140") && refused.contains("LimitNOFILE"), "{refused}");
    }
}
