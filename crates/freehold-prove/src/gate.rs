//! Gates: states that change while requests run, such as a tenant that is suspended and resumed, or a person
//! whose role changes. A gate tells what must hold for a request, by the time at which the request began.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Freehold's guarantee: a suspension or a change of role takes effect on every server within this time.
pub(crate) const HEEDED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    open: bool,
    /// When the change was confirmed; `None` while it is in progress.
    since: Option<Instant>,
    /// Increases with every step.
    steps: u64,
}

/// What a request that begins now may rely on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    state: State,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Open,
    Closed,
    /// The state changed during the request or shortly before.
    Either,
}

impl Gate {
    /// Has always been open.
    pub(crate) fn open() -> Gate {
        let long_ago = Instant::now().checked_sub(HEEDED_WITHIN);
        Gate(Mutex::new(State { open: true, since: long_ago.or(Some(Instant::now())), steps: 0 }))
    }

    fn step(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.steps += 1;
    }

    /// Before the change is requested.
    pub(crate) fn begin(&self) {
        self.step(|state| state.since = None);
    }

    /// After the change was confirmed.
    pub(crate) fn done(&self, open: bool) {
        self.step(|state| (state.open, state.since) = (open, Some(Instant::now())));
    }

    pub(crate) fn look(&self) -> Look {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Look { state, at: Instant::now() }
    }

    /// What must have held for a request that began with `look` and has ended.
    pub(crate) fn expect(&self, look: &Look) -> Expect {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner).steps;
        let settled =
            look.state.since.is_some_and(|since| look.at.duration_since(since) >= HEEDED_WITHIN);
        match (settled && steps == look.state.steps, look.state.open) {
            (false, _) => Expect::Either,
            (true, true) => Expect::Open,
            (true, false) => Expect::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_a_second_after_it_was_confirmed() {
        let gate = Gate::open();
        assert_eq!(gate.expect(&gate.look()), Expect::Open);
        let before = gate.look();
        gate.begin();
        assert_eq!(gate.expect(&before), Expect::Either, "it changed during the request");
        gate.done(false);
        let mut look = gate.look();
        assert_eq!(gate.expect(&look), Expect::Either);
        look.at += HEEDED_WITHIN;
        assert_eq!(gate.expect(&look), Expect::Closed);
        gate.begin();
        assert_eq!(gate.expect(&look), Expect::Either);
    }
}
