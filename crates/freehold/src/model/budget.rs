//! Limits of memory in bytes: for one holder, and for all together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind};

/// Bytes that many holders may hold together, such as the answers of all requests. Clones are the same
/// budget.
///
/// ```
/// use freehold::{ByteBudget, ErrorKind};
///
/// let budget = ByteBudget::new(1_000_000);
/// let (one, other) = (budget.share(600_000), budget.share(600_000));
/// one.take(500_000)?;
/// // More than it may itself.
/// assert_eq!(one.take(200_000).unwrap_err().kind(), ErrorKind::AnswerTooLarge);
/// // More than is left of the whole.
/// assert_eq!(other.take(550_000).unwrap_err().kind(), ErrorKind::Overloaded);
/// drop(one);
/// other.take(550_000)?;
/// # Ok::<(), freehold::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ByteBudget(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    bytes_max: u64,
    held: AtomicU64,
}

/// What one holder may take, on its own or out of a [`ByteBudget`]. Dropping this frees it.
#[derive(Debug)]
pub struct ByteShare {
    bytes_max: u64,
    held: AtomicU64,
    budget: Option<ByteBudget>,
}

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// They would exceed this limit of the share.
    OfShare(u64),
    /// Other shares hold the rest of the budget.
    OfBudget,
}

impl ByteBudget {
    /// A budget of this many bytes.
    pub fn new(bytes_max: u64) -> ByteBudget {
        ByteBudget(Arc::new(Whole { bytes_max, held: AtomicU64::new(0) }))
    }

    /// A share that may take up to this many bytes and holds none yet.
    pub fn share(&self, bytes_max: u64) -> ByteShare {
        ByteShare { bytes_max, held: AtomicU64::new(0), budget: Some(self.clone()) }
    }

    /// The number of bytes that are held.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }
}

impl ByteShare {
    /// A share that belongs to no budget.
    pub fn new(bytes_max: u64) -> ByteShare {
        ByteShare { bytes_max, held: AtomicU64::new(0), budget: None }
    }

    /// Takes these bytes, all or none.
    ///
    /// # Errors
    /// [`ErrorKind::AnswerTooLarge`] if they exceed the share's limit; [`ErrorKind::Overloaded`] if they
    /// exceed the budget.
    pub fn take(&self, bytes: u64) -> Result<(), Error> {
        self.try_take(bytes).map_err(Error::from)
    }

    pub(crate) fn try_take(&self, bytes: u64) -> Result<(), Excess> {
        add(&self.held, bytes, self.bytes_max).ok_or(Excess::OfShare(self.bytes_max))?;
        let Some(ByteBudget(whole)) = &self.budget else { return Ok(()) };
        if add(&whole.held, bytes, whole.bytes_max).is_none() {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Excess::OfBudget);
        }
        Ok(())
    }

    /// Gives back bytes that are no longer held.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(ByteBudget(whole)) = &self.budget {
            whole.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.give_back(held);
    }
}

fn add(held: &AtomicU64, bytes: u64, bytes_max: u64) -> Option<u64> {
    let sum = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= bytes_max);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).ok()
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::OfShare(bytes_max) => write!(f, "the answer is larger than {bytes_max} bytes"),
            Excess::OfBudget => {
                f.write_str("the answers of other requests leave no room for this one")
            }
        }
    }
}

impl std::error::Error for Excess {}

impl From<Excess> for Error {
    fn from(excess: Excess) -> Error {
        match excess {
            Excess::OfShare(bytes_max) => Error::new(
                ErrorKind::AnswerTooLarge,
                format!(
                    "the answer is larger than {bytes_max} bytes, the most there may be; ask for fewer \
                     rows or columns"
                ),
            ),
            Excess::OfBudget => Error::new(
                ErrorKind::Overloaded,
                "too much is being answered at the moment; try again shortly",
            ),
        }
        .because(excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_not_held_and_what_is_dropped_is_free() {
        let budget = ByteBudget::new(100);
        let one = budget.share(60);
        assert_eq!(one.try_take(60), Ok(()));
        assert_eq!(one.try_take(1), Err(Excess::OfShare(60)));
        assert_eq!(one.try_take(u64::MAX), Err(Excess::OfShare(60)));
        let other = budget.share(60);
        assert_eq!(other.try_take(41), Err(Excess::OfBudget));
        assert_eq!((budget.held(), other.try_take(40)), (60, Ok(())));
        one.give_back(10);
        assert_eq!(budget.held(), 90);
        drop(one);
        assert_eq!(budget.held(), 40);
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
