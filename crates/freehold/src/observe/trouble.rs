//! Lasting trouble, logged when it begins and when it ends rather than at every attempt.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Trouble that comes and goes is logged at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The state of one task or operation, which may be trying or failing.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<Option<LastReport>>);

#[derive(Debug)]
struct LastReport {
    text: String,
    at: Instant,
    is_over: bool,
}

impl Trouble {
    /// Logs the outcome of an attempt if it is news; `what` names the failing operation. A different error is
    /// news, too.
    pub fn note<T, E: fmt::Display>(&self, outcome: &Result<T, E>, what: &str) {
        let now = Instant::now();
        match outcome {
            Ok(_) if self.ends() => tracing::info!("over: {what}"),
            Ok(_) => {}
            Err(error) if self.begins(&error.to_string(), now) => tracing::warn!(%error, "{what}"),
            Err(error) => tracing::debug!(%error, "{what}"),
        }
    }

    /// Whether to log that trouble has begun.
    fn begins(&self, text: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = told.as_ref().is_some_and(|told| {
            let is_recent = now.saturating_duration_since(told.at) < TOLD_EVERY;
            told.text == text && (!told.is_over || is_recent)
        });
        if !is_known {
            *told = Some(LastReport { text: text.to_owned(), at: now, is_over: false });
        }
        !is_known
    }

    /// Whether to log that it is over.
    fn ends(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_mut().is_some_and(|told| !std::mem::replace(&mut told.is_over, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_when_it_changes_and_when_it_is_over() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        assert!(!trouble.ends(), "there was none");
        assert!(trouble.begins("refused", now));
        assert!(!trouble.begins("refused", now + 100 * TOLD_EVERY), "however long it lasts");
        assert!(trouble.begins("a wrong password", now));
        assert!(trouble.ends());
        assert!(!trouble.ends());
        assert!(trouble.begins("a wrong password", now + TOLD_EVERY));
    }

    #[test]
    fn what_comes_and_goes_is_told_now_and_then() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        let told: u32 = (0..100)
            .map(|tenths| {
                let now = now + tenths * TOLD_EVERY / 10;
                u32::from(trouble.begins("full", now)) + u32::from(trouble.ends())
            })
            .sum();
        assert_eq!(told, 20);
        // The last message must not be that it is over while it is not.
        assert!(trouble.begins("full", now + 11 * TOLD_EVERY));
    }
}
