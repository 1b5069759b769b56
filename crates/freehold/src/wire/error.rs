//! What can go wrong on a connection, and PostgreSQL's own errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorResponseBody;
use tokio_postgres::error::{ErrorPosition, SqlState};

use crate::budget::Excess;

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

/// An error as PostgreSQL tells it.
#[derive(Clone, Debug)]
pub struct DbError {
    code: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    place: Option<String>,
    position: Option<u32>,
    internal_position: Option<u32>,
    internal_query: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    column: Option<String>,
    datatype: Option<String>,
    constraint: Option<String>,
    routine: Option<String>,
}

impl DbError {
    pub(super) fn parse(body: &ErrorResponseBody) -> Result<DbError, WireError> {
        let mut error = DbError {
            code: SqlState::INTERNAL_ERROR,
            message: String::new(),
            detail: None,
            hint: None,
            place: None,
            position: None,
            internal_position: None,
            internal_query: None,
            schema: None,
            table: None,
            column: None,
            datatype: None,
            constraint: None,
            routine: None,
        };
        let mut fields = body.fields();
        while let Some(field) = fields.next().map_err(WireError::Unreadable)? {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.code = SqlState::from_code(&value),
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'W' => error.place = Some(value),
                b'P' => error.position = value.parse().ok(),
                b'p' => error.internal_position = value.parse().ok(),
                b'q' => error.internal_query = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'c' => error.column = Some(value),
                b'd' => error.datatype = Some(value),
                b'n' => error.constraint = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        Ok(error)
    }

    /// The SQLSTATE.
    pub fn code(&self) -> &SqlState {
        &self.code
    }

    /// What happened, in the server's language.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// More of it. May hold values of rows.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What may be done about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The calls it happened in, the innermost first.
    pub fn where_(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// Where in the statement it happened, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.position
    }

    /// Where in a statement that a function ran, and that statement.
    pub fn internal(&self) -> Option<(u32, &str)> {
        self.internal_position.zip(self.internal_query.as_deref())
    }

    /// The schema of the table or type at fault.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The table at fault.
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// The column at fault.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// The data type at fault.
    pub fn datatype(&self) -> Option<&str> {
        self.datatype.as_deref()
    }

    /// The constraint that was violated.
    pub fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    /// The routine of PostgreSQL's source that raised it.
    pub fn routine(&self) -> Option<&str> {
        self.routine.as_deref()
    }
}

/// From the driver that set-up work uses.
impl From<&tokio_postgres::error::DbError> for DbError {
    fn from(error: &tokio_postgres::error::DbError) -> DbError {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (position, internal_position, internal_query) = match error.position() {
            Some(ErrorPosition::Original(at)) => (Some(*at), None, None),
            Some(ErrorPosition::Internal { position, query }) => {
                (None, Some(*position), Some(query.clone()))
            }
            None => (None, None, None),
        };
        DbError {
            code: error.code().clone(),
            message: error.message().to_owned(),
            detail: owned(error.detail()),
            hint: owned(error.hint()),
            place: owned(error.where_()),
            position,
            internal_position,
            internal_query,
            schema: owned(error.schema()),
            table: owned(error.table()),
            column: owned(error.column()),
            datatype: owned(error.datatype()),
            constraint: owned(error.constraint()),
            routine: owned(error.routine()),
        }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.code())
    }
}

impl StdError for DbError {}
