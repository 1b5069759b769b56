//! Where the work comes from that a task does: which request, from which client. Nothing but records
//! depends on it.

use std::future::Future;
use std::sync::Arc;

/// The longest text that is kept of what came from outside.
const TEXT_CHARS_MAX: usize = 400;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Where work comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The request's id, where there is a request.
    pub request_id: Option<Arc<str>>,
    /// The client's address, or the account at a command line.
    pub from: Option<Arc<str>>,
}

/// Does work. What is recorded meanwhile, by the task itself, says where it came from; a task that the
/// work spawns knows nothing of it.
pub async fn with_origin<T>(origin: Origin, work: impl Future<Output = T>) -> T {
    ORIGIN.scope(origin, work).await
}

/// Text that the catalog takes whatever is in it: of bounded length, in one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where the work at hand comes from, and its request's id.
pub(crate) fn of_request() -> (Option<String>, Option<String>) {
    let read = |text: &Option<Arc<str>>| text.as_deref().map(plain);
    ORIGIN.try_with(|origin| (read(&origin.from), read(&origin.request_id))).unwrap_or_default()
}
