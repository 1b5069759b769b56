//! The time of day that values are dated with. Servers that share a Redis must be able to compare the times.

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "testing")]
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's clock, which a test can move forward.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_millis() as u64 + self.ahead_ms()
    }

    #[cfg(feature = "testing")]
    pub(super) fn advance(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    #[cfg(feature = "testing")]
    fn ahead_ms(&self) -> u64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    #[cfg(not(feature = "testing"))]
    fn ahead_ms(&self) -> u64 {
        0
    }
}
