//! The library's one error type, and the table of stable codes.
//!
//! `message` is written for the caller and never names another tenant, a schema or SQL; `source`
//! is for the log. An error is logged where it is handled, once.

use std::error::Error as StdError;
use std::fmt;

mod database;
mod raised;

pub use self::database::DbError;
pub(crate) use self::database::{
    is_expired_seal, is_lock_timeout, is_lost_statement, is_refused_write, is_stale_plan,
    is_unknown_seal, message_of,
};
pub use self::raised::Raised;

/// What went wrong, with a message for the caller and a source for the log.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    field: Option<&'static str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of error. Callers may match on them; [`ErrorKind::code`] is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something that was sent is malformed; [`Error::field_name`] says what.
    InvalidInput,
    /// No token, or wrong credentials.
    Unauthenticated,
    /// The access token was not issued by this server, or its session has ended.
    InvalidToken,
    /// The access token has expired.
    TokenExpired,
    /// The actor's role does not allow the action, or the database refused it.
    Forbidden,
    /// It does not exist, or belongs to another tenant: the two are answered alike.
    NotFound,
    /// Another tenant has this slug.
    SlugTaken,
    /// An identity with this e-mail exists already.
    EmailTaken,
    /// The current state forbids it: the last owner, an invalid transition.
    Conflict,
    /// The same `Idempotency-Key` was sent with another body.
    IdempotencyKeyReused,
    /// The identity belongs to several tenants and none was named.
    TenantRequired,
    /// The tenant is suspended.
    TenantSuspended,
    /// Too many attempts; [`Error::retry_after_secs`] says when to try again.
    RateLimited,
    /// A context was missing or named another tenant: row-level security refused the query.
    Violation,
    /// No connection became free in time.
    PoolExhausted,
    /// The database cannot be reached, closed the connection, has no room, or takes no writes.
    Unavailable,
    /// The query exceeded its time limit.
    Timeout,
    /// The rows of a query exceed the memory that they may take.
    AnswerTooLarge,
    /// The memory of all requests together is exhausted at this moment.
    Overloaded,
    /// A conflict between two transactions; trying again may succeed.
    Retryable,
    /// A policy of the baseline's own refused a row: one that this actor may not write, or may not see. Not a
    /// violation, since the row is the tenant's.
    RowPolicy,
    /// The baseline's own code refused it, by RAISE; [`Error::raised`] has the message and the status.
    Rejected,
    /// A statement that the caller wrote failed; the source is PostgreSQL's error.
    Statement,
    /// A migration cannot be applied as it stands.
    Migration,
    /// The installation is misconfigured: roles, catalog, settings.
    Setup,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// A code that programs may rely on; it never changes once published.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidToken => "invalid_token",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::SlugTaken => "slug_taken",
            Self::EmailTaken => "email_taken",
            Self::Conflict => "conflict",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::TenantRequired => "tenant_required",
            Self::TenantSuspended => "tenant_suspended",
            Self::RateLimited => "rate_limited",
            Self::Violation => "isolation_violation",
            Self::PoolExhausted => "pool_exhausted",
            Self::Unavailable => "database_unavailable",
            Self::Timeout => "timeout",
            Self::AnswerTooLarge => "answer_too_large",
            Self::Overloaded => "overloaded",
            Self::Retryable => "retryable_conflict",
            Self::RowPolicy => "row_policy",
            Self::Rejected => "rejected",
            Self::Statement => "statement_failed",
            Self::Migration => "migration_failed",
            Self::Setup => "setup",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of the application, answered like one of Freehold's. `message` is written for the API's
    /// caller.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), field: None, source: None }
    }

    /// Names the field of the input that is invalid.
    pub fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// Attaches the cause, for the log. API callers never see it.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of the error, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field of the input that is invalid, if there is one.
    pub fn field_name(&self) -> Option<&'static str> {
        self.field
    }

    /// Seconds after which another attempt may succeed.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let source = self.source.as_deref()?.downcast_ref::<RetryAfter>()?;
        Some(source.0)
    }

    pub(crate) fn rate_limited(wait_secs: u64) -> Self {
        Error::new(ErrorKind::RateLimited, format!("too many attempts; try again in {wait_secs} s"))
            .because(RetryAfter(wait_secs))
    }

    /// Whether the database takes no writes: it is a standby, or an operator or provider made it read-only,
    /// as on a full disk. Reads may succeed meanwhile.
    pub fn is_read_only(&self) -> bool {
        let is_of_server = self.source.as_deref().is_some_and(|source| source.is::<ReadOnly>());
        self.kind == ErrorKind::Unavailable
            && (is_of_server || self.database().is_some_and(is_refused_write))
    }

    /// The error for a database that takes no writes.
    pub(crate) fn read_only() -> Self {
        Error::new(ErrorKind::Unavailable, TAKES_NO_WRITES).because(ReadOnly)
    }

    /// Turns the refusal of a write into an outage: the server is read-only, not only the transaction.
    pub(crate) fn into_read_only(self) -> Self {
        let (kind, message) = (ErrorKind::Unavailable, TAKES_NO_WRITES.to_owned());
        Error { kind, message, ..self }
    }

    /// PostgreSQL's own error, if the database returned one.
    ///
    /// The library cannot know what a violated constraint of the application means to a caller; its name
    /// tells:
    ///
    /// ```
    /// use freehold::{Error, ErrorKind};
    ///
    /// fn explain(error: Error) -> Error {
    ///     match error.database().and_then(|db| db.constraint()) {
    ///         Some("notes_body_key") => {
    ///             Error::new(ErrorKind::Conflict, "there is such a note").field("body")
    ///         }
    ///         _ => error,
    ///     }
    /// }
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let insert = "INSERT INTO notes (body) VALUES ('buy milk')";
    /// freehold.query(&context, insert, &[]).await?;
    /// let refused = freehold.query(&context, insert, &[]).await.map_err(explain).unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Conflict);
    /// # Ok(())
    /// # }
    /// ```
    pub fn database(&self) -> Option<&DbError> {
        self.source.as_deref()?.downcast_ref::<DbError>()
    }

    /// The refusal by the baseline's own code, if it is one: the message of RAISE in a function or trigger,
    /// and the HTTP status, with which `freehold::axum` answers [`ErrorKind::Rejected`].
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, ErrorKind, Migration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> freehold::Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// let quota = "
    ///     CREATE TABLE notes (body text);
    ///     CREATE FUNCTION quota() RETURNS trigger LANGUAGE plpgsql AS $$
    ///     BEGIN
    ///       RAISE EXCEPTION 'quota reached' USING ERRCODE = 'PT402', HINT = 'upgrade the plan';
    ///     END $$;
    ///     CREATE TRIGGER quota BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION quota()";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", quota)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let (_, context) = create_tenant(&freehold, "acme").await?;
    /// let insert = "INSERT INTO notes VALUES ('buy milk')";
    /// let error = freehold.query(&context, insert, &[]).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Rejected);
    /// let raised = error.raised().expect("the trigger refuses");
    /// assert_eq!((raised.status, raised.message.as_str()), (402, "quota reached"));
    /// assert_eq!(raised.hint.as_deref(), Some("upgrade the plan"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn raised(&self) -> Option<Raised> {
        if self.kind != ErrorKind::Rejected {
            return None;
        }
        raised::of(self.database()?)
    }
}

#[derive(Debug)]
struct RetryAfter(u64);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "retry after {} s", self.0)
    }
}

impl StdError for RetryAfter {}

const TAKES_NO_WRITES: &str = "the database takes no writes at present; try again shortly";

#[derive(Debug)]
struct ReadOnly;

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is a standby, or default_transaction_read_only is on")
    }
}

impl StdError for ReadOnly {}

/// The message and its causes, for operators and logs; HTTP answers use `message()`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(db) = self.database() {
            if self.message.contains(db.message()) {
                return Ok(());
            }
            return write!(f, ": {} ({})", db.message(), db.code().code());
        }
        // An error that wraps another may repeat its message, which is printed only once.
        let mut said = self.message.clone();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// A result whose error is this crate's by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;
