//! Limits of what requests hold together, such as the bytes of their answers: for one request, for all, and
//! for those of one holder beside the others'.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, ErrorKind};

/// An amount that many requests hold together, such as the bytes of all answers. Clones are the same budget.
///
/// ```
/// use freehold::{Budget, ErrorKind};
///
/// let budget = Budget::new(1_000_000);
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
pub struct Budget(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    max: u64,
    held: AtomicU64,
    holders: Mutex<HashMap<u128, Weak<Holder>>>,
}

/// What the shares of one holder hold together.
#[derive(Debug)]
struct Holder {
    id: u128,
    held: AtomicU64,
    whole: Arc<Whole>,
}

/// What one request may take, on its own or out of a [`Budget`]. Dropping this frees it.
#[derive(Debug)]
pub struct Share {
    max: u64,
    held: AtomicU64,
    budget: Option<Budget>,
    holder: Option<Arc<Holder>>,
}

/// Why an amount is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// It would exceed this limit of the share.
    OfShare(u64),
    /// Other shares hold the rest of the budget, or those of the same holder too much of it.
    OfBudget,
}

impl Budget {
    /// A budget of this amount.
    pub fn new(max: u64) -> Budget {
        let (held, holders) = (AtomicU64::new(0), Mutex::default());
        Budget(Arc::new(Whole { max, held, holders }))
    }

    /// A share that may take up to this amount and holds nothing yet.
    pub fn share(&self, max: u64) -> Share {
        Share { max, held: AtomicU64::new(0), budget: Some(self.clone()), holder: None }
    }

    /// A share of a holder, such as a tenant or a client. All shares of one holder together take no more than
    /// they leave of the budget, so one holder gets half of it, and `n` greedy ones leave one part in `n + 1`
    /// to all others.
    ///
    /// ```
    /// use freehold::Budget;
    ///
    /// let budget = Budget::new(100);
    /// let (greedy, another) = (budget.share_of(1, 100), budget.share_of(2, 100));
    /// greedy.take(50)?;
    /// assert!(greedy.take(1).is_err());
    /// assert!(budget.share_of(1, 100).take(1).is_err());
    /// another.take(25)?;
    /// assert!(another.take(1).is_err());
    /// budget.share_of(3, 100).take(12)?;
    /// # Ok::<(), freehold::Error>(())
    /// ```
    pub fn share_of(&self, holder: u128, max: u64) -> Share {
        let mut share = self.share(max);
        share.holder = Some(self.0.holder(holder));
        share
    }

    /// The amount that is held.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }
}

impl Whole {
    fn holder(self: &Arc<Self>, id: u128) -> Arc<Holder> {
        let mut holders = self.holders();
        if let Some(holder) = holders.get(&id).and_then(Weak::upgrade) {
            return holder;
        }
        let holder = Arc::new(Holder { id, held: AtomicU64::new(0), whole: Arc::clone(self) });
        holders.insert(id, Arc::downgrade(&holder));
        holder
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<u128, Weak<Holder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut holders = self.whole.holders();
        // Another share may have entered the holder anew.
        if holders.get(&self.id).is_some_and(|holder| holder.strong_count() == 0) {
            holders.remove(&self.id);
        }
    }
}

impl Share {
    /// A share that belongs to no budget.
    pub fn new(max: u64) -> Share {
        Share { max, held: AtomicU64::new(0), budget: None, holder: None }
    }

    /// Takes this amount, all or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::AnswerTooLarge`] if it exceeds the share's limit; [`ErrorKind::Overloaded`] if it exceeds
    /// what the budget has left for it.
    pub fn take(&self, amount: u64) -> Result<(), Error> {
        self.try_take(amount).map_err(Error::from)
    }

    pub(crate) fn try_take(&self, amount: u64) -> Result<(), Excess> {
        add(&self.held, amount, self.max).ok_or(Excess::OfShare(self.max))?;
        let Some(Budget(whole)) = &self.budget else { return Ok(()) };
        let Some(held) = add(&whole.held, amount, whole.max) else {
            self.held.fetch_sub(amount, Ordering::Relaxed);
            return Err(Excess::OfBudget);
        };
        let left = whole.max - held;
        if self.holder.as_ref().is_some_and(|holder| add(&holder.held, amount, left).is_none()) {
            whole.held.fetch_sub(amount, Ordering::Relaxed);
            self.held.fetch_sub(amount, Ordering::Relaxed);
            return Err(Excess::OfBudget);
        }
        Ok(())
    }

    /// Gives back what is no longer held.
    pub(crate) fn give_back(&self, amount: u64) {
        self.held.fetch_sub(amount, Ordering::Relaxed);
        if let Some(holder) = &self.holder {
            holder.held.fetch_sub(amount, Ordering::Relaxed);
        }
        if let Some(Budget(whole)) = &self.budget {
            whole.held.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.give_back(held);
    }
}

/// The sum, if it does not exceed the most.
fn add(held: &AtomicU64, amount: u64, max: u64) -> Option<u64> {
    let sum = |held: u64| held.checked_add(amount).filter(|sum| *sum <= max);
    let before = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).ok()?;
    Some(before + amount)
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::OfShare(max) => write!(f, "the answer is larger than {max} bytes"),
            Excess::OfBudget => f.write_str("other answers leave no room for this one"),
        }
    }
}

impl std::error::Error for Excess {}

impl From<Excess> for Error {
    fn from(excess: Excess) -> Error {
        match excess {
            Excess::OfShare(max) => Error::new(
                ErrorKind::AnswerTooLarge,
                format!(
                    "the answer is larger than {max} bytes, the most there may be; ask for fewer rows or \
                     columns"
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
        let budget = Budget::new(100);
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

    #[test]
    fn a_holder_takes_no_more_than_it_leaves_and_is_forgotten_with_its_last_share() {
        let budget = Budget::new(100);
        let shares = [budget.share_of(7, 100), budget.share_of(7, 100)];
        assert_eq!(shares[0].try_take(30), Ok(()));
        assert_eq!(shares[1].try_take(21), Err(Excess::OfBudget));
        assert_eq!((shares[1].try_take(20), budget.held()), (Ok(()), 50));
        let other = budget.share_of(8, 100);
        assert_eq!((other.try_take(26), other.try_take(25)), (Err(Excess::OfBudget), Ok(())));
        shares[0].give_back(30);
        assert_eq!(shares[1].try_take(17), Ok(()));
        drop(shares);
        assert_eq!((budget.held(), budget.0.holders().len()), (25, 1));
        drop(other);
        assert_eq!((budget.held(), budget.0.holders().len()), (0, 0));
    }
}
