//! PostgreSQL's own errors, and their meaning for the caller.

use std::error::Error as StdError;
use std::{fmt, io};

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorResponseBody;
use tokio_postgres::error::{ErrorPosition, SqlState};

use super::raised::{self, is_refused_by_policy};
use super::{Error, ErrorKind};

/// An error as PostgreSQL reports it.
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
    pub(crate) fn parse(body: &ErrorResponseBody) -> io::Result<DbError> {
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
        while let Some(field) = fields.next()? {
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

    /// The message, in the server's language.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Details. May contain values of rows.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// A suggestion for the remedy.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The call stack, innermost first.
    pub fn where_(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The position in the statement, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.position
    }

    /// The position in a statement that a function ran, and that statement.
    pub fn internal(&self) -> Option<(u32, &str)> {
        self.internal_position.zip(self.internal_query.as_deref())
    }

    /// The schema of the table or type concerned.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The table concerned.
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// The column concerned.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// The data type concerned.
    pub fn datatype(&self) -> Option<&str> {
        self.datatype.as_deref()
    }

    /// The constraint that was violated.
    pub fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    /// The routine in PostgreSQL's source that raised the error.
    pub fn routine(&self) -> Option<&str> {
        self.routine.as_deref()
    }
}

/// Converts an error of the driver for set-up work.
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

/// The message with which the database refuses a context. It distinguishes this from a missing privilege.
pub(crate) const VIOLATION_MESSAGE: &str = "freehold: tenant context refused";

/// A prepared statement whose columns a migration has changed ("cached plan must not change result type").
/// Recognised by the routine in PostgreSQL's source, since the text is translated.
pub(crate) fn is_stale_plan(db: &DbError) -> bool {
    *db.code() == SqlState::FEATURE_NOT_SUPPORTED && db.routine() == Some("RevalidateCachedQuery")
}

/// The seal of a context has expired, by the database's clock.
pub(crate) fn is_expired_seal(db: &DbError) -> bool {
    db.message().starts_with(VIOLATION_MESSAGE) && db.detail() == Some("expired")
}

/// The database knows neither the seal's key nor the session.
pub(crate) fn is_unknown_seal(db: &DbError) -> bool {
    db.message().starts_with(VIOLATION_MESSAGE) && db.detail() == Some("unknown seal")
        || is_without_session(db)
}

/// The entry point was given a session number, but no session was opened, or DISCARD SEQUENCES has ended it.
/// Recognised by the entry point's name, since the texts are translated.
fn is_without_session(db: &DbError) -> bool {
    *db.code() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        && db.where_().is_some_and(|place| place.contains("freehold_guard.admit("))
}

/// The application held a lock for longer than a migration may wait.
pub(crate) fn is_lock_timeout(db: &DbError) -> bool {
    *db.code() == SqlState::LOCK_NOT_AVAILABLE
}

/// A write was refused because the transaction is read-only.
pub(crate) fn is_refused_write(db: &DbError) -> bool {
    *db.code() == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// A prepared statement no longer exists in its session, which only SQL can cause.
pub(crate) fn is_lost_statement(db: &DbError) -> bool {
    *db.code() == SqlState::INVALID_SQL_STATEMENT_NAME
}

/// The meaning of PostgreSQL's error for the caller.
fn kind_of(db: &DbError) -> ErrorKind {
    match db.code() {
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            if db.message().starts_with(VIOLATION_MESSAGE) {
                ErrorKind::Violation
            } else if is_refused_by_policy(db) {
                ErrorKind::RowPolicy
            } else {
                ErrorKind::Forbidden
            }
        }
        _ if is_without_session(db) => ErrorKind::Violation,
        code if *code == SqlState::QUERY_CANCELED => ErrorKind::Timeout,
        code if *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
            || *code == SqlState::LOCK_NOT_AVAILABLE =>
        {
            ErrorKind::Retryable
        }
        // The statement has been forgotten, so the same transaction succeeds the next time.
        _ if is_stale_plan(db) || is_lost_statement(db) => ErrorKind::Retryable,
        code if ["08", "53"].contains(&&code.code()[..2]) || code.code().starts_with("57P") => {
            ErrorKind::Unavailable
        }
        // The session was ended: it had a transaction open for too long, or was idle in one.
        code if ["25P03", "25P04"].contains(&code.code()) => ErrorKind::Timeout,
        _ if raised::of(db).is_some() => ErrorKind::Rejected,
        _ => ErrorKind::Statement,
    }
}

/// The message for the caller, which does not repeat what the database said.
pub(crate) fn message_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Violation => "the tenant context was refused",
        ErrorKind::Forbidden => "the database does not permit this",
        ErrorKind::Rejected => "a rule of the database refused this",
        ErrorKind::Timeout => "the query took too long and was cancelled",
        ErrorKind::Retryable => "another transaction was in the way; try again",
        ErrorKind::Unavailable => "the database is not available",
        _ => "the statement failed",
    }
}

impl From<DbError> for Error {
    fn from(source: DbError) -> Self {
        let kind = kind_of(&source);
        let message = match kind {
            ErrorKind::RowPolicy => raised::refused_by_policy(&source),
            _ => message_of(kind).to_owned(),
        };
        Error::new(kind, message).because(source)
    }
}

/// Converts an error of the driver for set-up work.
impl From<tokio_postgres::Error> for Error {
    fn from(source: tokio_postgres::Error) -> Self {
        if let Some(error) = source.as_db_error() {
            return Error::from(DbError::from(error));
        }
        let lost =
            source.is_closed() || source.source().is_some_and(|cause| cause.is::<std::io::Error>());
        let kind = if lost { ErrorKind::Unavailable } else { ErrorKind::Statement };
        Error::new(kind, message_of(kind)).because(source)
    }
}
