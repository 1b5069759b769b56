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
    /// The connection is gone; whether the batch was carried out is not known.
    Lost(io::Error),
    /// The server sent what cannot be understood.
    Unreadable(io::Error),
    /// A parameter does not fit its place. Nothing was sent.
    Parameter(Box<dyn StdError + Send + Sync>),
    /// A message cannot be built: a text with a NUL, say. Nothing was sent.
    Unsendable(io::Error),
    /// A row of the answer is more than may be kept; it was thrown away.
    Excess(Excess),
    /// The server cannot be signed in to in a way that is known here.
    SignIn(String),
}

impl WireError {
    /// The server's own words, or the system's, where they are the reason.
    pub(crate) fn into_cause(self) -> Box<dyn StdError + Send + Sync> {
        match self {
            WireError::Database(error) => error,
            WireError::Lost(error) => Box::new(error),
            other => Box::new(other),
        }
    }
}

impl WireError {
    /// Whether the server has as many clients as it takes.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Database(error) if *error.code() == SqlState::TOO_MANY_CONNECTIONS)
    }

    /// The connection is gone, and more is not known.
    pub(crate) fn lost() -> WireError {
        WireError::Lost(io::ErrorKind::NotConnected.into())
    }

    /// The same error once more, for another statement that it concerns.
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

    /// Whether something was refused, and the connection goes on.
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
