//! How long a loaded value may be used: until a change is notified while the listener works, and for half a
//! second otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a value may be used without a working listener.
pub(crate) const DEAF_MAX: Duration = Duration::from_millis(500);

/// When the listener was last proven to work.
pub(crate) struct Freshness {
    born: Instant,
    /// Milliseconds since `born` at which the listener was last proven to work; 0 if it is disconnected.
    heard_at_ms: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Freshness {
        Freshness { born: Instant::now(), heard_at_ms: AtomicU64::new(0) }
    }
}

impl Freshness {
    /// Whether the listener is proven to work.
    pub(crate) fn hears(&self) -> bool {
        let heard = self.heard_at_ms.load(Ordering::Acquire);
        let silent = self.born.elapsed().as_millis() as u64;
        heard != 0 && silent.saturating_sub(heard) < (DEAF_MAX.as_millis() as u64)
    }

    /// Whether a value that was loaded at that moment still is what the catalog has.
    pub(crate) fn believes(&self, loaded_at: Instant) -> bool {
        self.hears() || loaded_at.elapsed() < DEAF_MAX
    }

    /// Records that the check sent at this moment has been answered, so every notification before it was
    /// received.
    pub(crate) fn note_heard(&self, asked_at: Instant) {
        let since_born = asked_at.duration_since(self.born).as_millis() as u64;
        self.heard_at_ms.store(since_born.max(1), Ordering::Release);
    }

    /// Records that the listener is disconnected.
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
        // While the listener is proven to work, the age of a value does not matter.
        let asked_at = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        freshness.note_heard(asked_at);
        assert!(freshness.believes(loaded_at));
        // The half second counts from the check that was sent, not from its answer.
        tokio::time::advance(DEAF_MAX - Duration::from_millis(101)).await;
        assert!(freshness.believes(loaded_at));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!freshness.believes(loaded_at));
        freshness.note_heard(Instant::now());
        freshness.note_deaf();
        assert!(!freshness.hears());
    }
}
