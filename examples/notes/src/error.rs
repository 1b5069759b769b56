//! What PostgreSQL's refusals mean to a caller. Freehold's own errors are answers already.

use freehold::{Error, ErrorKind};

/// A statement that failed is answered as a fault of ours (500), unless we know better: the names
/// of constraints are ours, so what their violation means is for us to say.
pub(crate) fn explain(error: Error) -> Error {
    let (kind, field, message) = match error.database().and_then(|db| db.constraint()) {
        Some("notes_title_key") => {
            (ErrorKind::Conflict, "title", "the notebook has a note with this title")
        }
        Some("notes_title_length") => {
            (ErrorKind::InvalidInput, "title", "a title has 1 to 200 characters")
        }
        Some("notebooks_name_length") => {
            (ErrorKind::InvalidInput, "notebook", "a notebook's name has 1 to 100 characters")
        }
        _ => return error,
    };
    Error::new(kind, message).field(field).because(error)
}
