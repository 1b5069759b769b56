//! What can go wrong on a connection, and PostgreSQL's own errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use crate::error::{DbError, Error, ErrorKind, message_of};
use crate::model::budget::Excess;

/// Why a batch did not succeed.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The server refused a statement.
    Database(Box<DbError>),
    /// The connection is lost; whether the batch was executed is unknown.
    Lost(io::Error),
    /// The server sent a message that cannot be parsed.
    Unreadable(io::Error),
    /// A parameter has the wrong type. Nothing was sent.
    Parameter(Box<dyn StdError + Send + Sync>),
    /// A message cannot be built, for example because a text contains NUL. Nothing was sent.
    Unsendable(io::Error),
    /// A row exceeds the memory bound and was discarded.
    Excess(Excess),
    /// The server requires an authentication method that is not supported, or authentication failed.
    SignIn(String),
}

impl WireError {
    /// The error of the server or of the operating system, if that is the cause.
    pub(crate) fn into_cause(self) -> Box<dyn StdError + Send + Sync> {
        match self {
            WireError::Database(error) => error,
            WireError::Lost(error) => Box::new(error),
            other => Box::new(other),
        }
    }
}

impl WireError {
    /// Whether the server has reached its limit of connections.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Database(error) if *error.code() == SqlState::TOO_MANY_CONNECTIONS)
    }

    /// The connection is lost, for an unknown reason.
    pub(crate) fn lost() -> WireError {
        WireError::Lost(io::ErrorKind::NotConnected.into())
    }

    /// A copy of the error, for another statement that it concerns.
    pub(crate) fn again(&self) -> WireError {
        match self {
            Self::Database(error) => Self::Database(error.clone()),
            Self::Parameter(error) => Self::Parameter(error.to_string().into()),
            Self::Lost(error) => Self::Lost(error.kind().into()),
            Self::Unreadable(error) => Self::Unreadable(error.kind().into()),
            Self::Unsendable(error) => Self::Unsendable(error.kind().into()),
            Self::Excess(excess) => Self::Excess(*excess),
            Self::SignIn(why) => Self::SignIn(why.clone()),
        }
    }

    /// Whether the server refused something and the connection remains usable.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Excess(_))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Lost(error) => write!(f, "the connection was lost: {error}"),
            Self::Unreadable(error) => write!(f, "the server's answer is not understood: {error}"),
            Self::Parameter(error) => write!(f, "a parameter was refused: {error}"),
            Self::Unsendable(error) => write!(f, "the statement cannot be sent: {error}"),
            Self::Excess(excess) => excess.fmt(f),
            Self::SignIn(why) => f.write_str(why),
        }
    }
}

impl StdError for WireError {}

impl From<WireError> for Error {
    fn from(source: WireError) -> Self {
        let kind = match source {
            WireError::Database(error) => return Error::from(*error),
            WireError::Excess(excess) => return Error::from(excess),
            WireError::Lost(_) | WireError::Unreadable(_) | WireError::SignIn(_) => {
                ErrorKind::Unavailable
            }
            WireError::Parameter(_) | WireError::Unsendable(_) => ErrorKind::Statement,
        };
        Error::new(kind, message_of(kind)).because(source)
    }
}
