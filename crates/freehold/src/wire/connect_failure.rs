//! Why a connection could not be opened, as one sentence for the operator: the setting with the address, and
//! the remedy. API callers do not see it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::error::DbError;

/// The underlying error.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// A failure to connect; its source is the cause.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    sentence: String,
    cause: Cause,
}

/// Where the connection was to lead.
pub(crate) struct Destination<'a> {
    /// The setting that holds the address.
    pub(crate) setting: &'a str,
    pub(crate) hosts: &'a str,
    pub(crate) user: &'a str,
}

impl ConnectFailure {
    pub(crate) fn new(destination: &Destination<'_>, cause: Cause) -> ConnectFailure {
        let Destination { setting, hosts, user } = destination;
        let mut sentence = format!("{setting}: cannot connect to PostgreSQL at {hosts} as {user}");
        if let Some(advice) = advice(destination, &cause) {
            sentence = format!("{sentence}; {advice}");
        }
        ConnectFailure { sentence, cause }
    }
}

/// The diagnosis and the remedy.
fn advice(Destination { setting, user, .. }: &Destination<'_>, cause: &Cause) -> Option<String> {
    let advice = match (find_sqlstate(&**cause).as_deref(), find_io_kind(&**cause)) {
        (Some("28P01"), _) => {
            let flag = user.strip_prefix("freehold_").unwrap_or("app");
            format!(
                "the password is wrong: correct it in {setting}, or give the role this one by \
                 `freehold init --{flag}-password`"
            )
        }
        (Some("28000"), _) => format!(
            "it does not let this role in: see pg_hba.conf there, and whether {setting} names the right role"
        ),
        (Some("3D000"), _) => format!(
            "there is no such database: correct its name in {setting}, or create it and run `freehold init`"
        ),
        (Some("53300"), _) => NO_ROOM.to_owned(),
        (Some("57P03"), _) => "it is starting, stopping or recovering: wait for it".to_owned(),
        (None, Some(io::ErrorKind::ConnectionRefused)) => format!(
            "nothing accepts connections there: start it, or correct host and port in {setting}"
        ),
        (None, Some(io::ErrorKind::TimedOut)) => {
            format!("no answer came: look for a firewall, and at the host in {setting}")
        }
        _ => return None,
    };
    Some(advice)
}

/// The remedy if PostgreSQL has reached its limit of connections.
pub(crate) const NO_ROOM: &str = "the database has no room for more connections (53300): raise \
    max_connections, or the limit of the role or the database, or lower MAX_CONNECTION_POOL";

/// The SQLSTATE of PostgreSQL's answer to an attempt to connect.
pub(crate) fn find_sqlstate(failure: &AnyError) -> Option<String> {
    chain(failure).find_map(|cause| {
        let code = match cause.downcast_ref::<DbError>() {
            Some(error) => Some(error.code()),
            None => cause.downcast_ref::<tokio_postgres::Error>()?.code(),
        };
        Some(code?.code().to_owned())
    })
}

fn find_io_kind(failure: &AnyError) -> Option<io::ErrorKind> {
    chain(failure).find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
}

type AnyError = dyn StdError + 'static;

fn chain(first: &AnyError) -> impl Iterator<Item = &AnyError> {
    std::iter::successors(Some(first), |error| (*error).source())
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl StdError for ConnectFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
