//! The origin of a task's work: the request and its client. Only records depend on it.

use std::future::Future;
use std::sync::Arc;

/// The most characters that are kept of a text from outside.
const TEXT_CHARS_MAX: usize = 400;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// The origin of work.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The request's id, if there is a request.
    pub request_id: Option<Arc<str>>,
    /// The client's address, or the account on the command line.
    pub from: Option<Arc<str>>,
}

/// Runs work. What the task itself records meanwhile has this origin; a task that the work spawns does not
/// inherit it.
pub async fn with_origin<T>(origin: Origin, work: impl Future<Output = T>) -> T {
    ORIGIN.scope(origin, work).await
}

/// Text that the catalog accepts, whatever the input: of bounded length, on one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The origin of the current work, and its request's id.
pub(crate) fn of_request() -> (Option<String>, Option<String>) {
    let read = |text: &Option<Arc<str>>| text.as_deref().map(plain);
    ORIGIN.try_with(|origin| (read(&origin.from), read(&origin.request_id))).unwrap_or_default()
}
