//! How long something that was loaded is believed: while changes are heard of for as long as none is, and
//! for half a second without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What may be believed without a listener.
pub(crate) const DEAF_MAX: Duration = Duration::from_millis(500);

/// When changes were last heard of for sure.
pub(crate) struct Freshness {
    born: Instant,
    /// Milliseconds since `born` at which the listener was last known to hear; 0: it does not.
    heard_at_ms: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Freshness {
        Freshness { born: Instant::now(), heard_at_ms: AtomicU64::new(0) }
    }
}

impl Freshness {
    /// Whether changes are heard of.
    pub(crate) fn hears(&self) -> bool {
        let heard = self.heard_at_ms.load(Ordering::Acquire);
        let silent = self.born.elapsed().as_millis() as u64;
        heard != 0 && silent.saturating_sub(heard) < (DEAF_MAX.as_millis() as u64)
    }

    /// Whether what was loaded then is still what the catalog has.
    pub(crate) fn believes(&self, loaded_at: Instant) -> bool {
        self.hears() || loaded_at.elapsed() < DEAF_MAX
    }

    /// Everything that was asked before this moment has been answered.
    pub(crate) fn note_heard(&self, asked_at: Instant) {
        let since_born = asked_at.duration_since(self.born).as_millis() as u64;
        self.heard_at_ms.store(since_born.max(1), Ordering::Release);
    }

    /// The listener is lost.
    pub(crate) fn note_deaf(&self) {
        self.heard_at_ms.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_believed_while_the_listener_hears_and_half_a_second_without() {
        let freshness = Freshness::default();
        tokio::time::advance(Duration::from_secs(1)).await;
        let loaded_at = Instant::now();
        assert!(!freshness.hears(), "it never did");
        tokio::time::advance(DEAF_MAX - Duration::from_millis(1)).await;
        assert!(freshness.believes(loaded_at));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!freshness.believes(loaded_at));
        // A listener that was asked and has answered: however old something is.
        let asked_at = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        freshness.note_heard(asked_at);
        assert!(freshness.believes(loaded_at));
        // Since the question, not since the answer.
        tokio::time::advance(DEAF_MAX - Duration::from_millis(101)).await;
        assert!(freshness.believes(loaded_at));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!freshness.believes(loaded_at));
        freshness.note_heard(Instant::now());
        freshness.note_deaf();
        assert!(!freshness.hears());
    }
}
