//! The operations of the control plane: one function each, called by API, command line and worker alike.
//! Permissions are checked here; the layers below are only SQL.

#[cfg(feature = "sign-in")]
pub mod addresses;
pub mod analytics;
pub mod audit;
#[cfg(feature = "sign-in")]
pub mod credentials;
#[cfg(feature = "sign-in")]
pub(crate) mod guessing;
pub mod health;
pub mod indexes;
pub mod insight;
pub mod invitations;
#[cfg(feature = "sign-in")]
pub mod joining;
pub mod keys;
#[cfg(feature = "sign-in")]
pub mod links;
#[cfg(feature = "sign-in")]
pub mod mail;
pub mod members;
pub mod migrations;
pub mod operators;
pub mod outbox;
pub mod people;
pub mod protection;
#[cfg(feature = "sign-in")]
pub mod sessions;
pub mod sizes;
pub mod slow_queries;
pub mod tenants;
pub mod violations;

use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "sign-in")]
use crate::sign_in::passwords::PasswordError;
#[cfg(feature = "sign-in")]
use crate::sign_in::tokens::KeyError;

/// The most rows in one page of a list.
pub const PAGE_MAX: i64 = 200;

fn clamp_page(limit: Option<i64>) -> i64 {
    limit.unwrap_or(50).clamp(1, PAGE_MAX)
}

/// A page may begin after any text, except that PostgreSQL accepts no NUL in a text. This is checked here,
/// because PostgreSQL's refusal would look like an internal error.
fn check_after(after: Option<&str>) -> Result<Option<&str>> {
    match after {
        Some(text) if text.contains('\0') => {
            Err(Error::new(ErrorKind::InvalidInput, "after must not hold a NUL").field("after"))
        }
        after => Ok(after),
    }
}

#[cfg(feature = "sign-in")]
impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Error {
        match error {
            PasswordError::Busy => Error::rate_limited(1),
            PasswordError::Failed => Error::new(ErrorKind::Internal, error.to_string()),
            _ => Error::new(ErrorKind::InvalidInput, error.to_string()).field("password"),
        }
    }
}

#[cfg(feature = "sign-in")]
impl From<KeyError> for Error {
    fn from(error: KeyError) -> Error {
        Error::new(ErrorKind::Setup, error.to_string())
    }
}
