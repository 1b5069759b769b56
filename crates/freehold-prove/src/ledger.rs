//! What one worker knows about its rows in one tenant's `ledger`: which must exist, and in which revision.
//! Pure.

use std::collections::BTreeMap;

/// The numbers of a worker's rows are below this.
pub(crate) const ROWS_MAX: i32 = 32;

/// Revision by number.
pub(crate) type Rows = BTreeMap<i32, i32>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    rows: Rows,
    newest: i32,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Done,
    Undone,
    /// Neither: a write was lost, was applied twice, or came from another worker.
    Wrong,
}

impl Ledger {
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whether these rows can be this worker's: each has a revision that it issued. If such rows are
    /// unexpected, a write was lost; any others came from another worker.
    pub(crate) fn wrote(&self, found: &Rows) -> bool {
        found.values().all(|revision| (1..=self.newest).contains(revision))
    }

    /// A revision that no row of this worker has had.
    pub(crate) fn next_revision(&mut self) -> i32 {
        self.newest += 1;
        self.newest
    }

    /// The rows as they are after a write of `numbers` in one revision.
    pub(crate) fn with(&self, numbers: impl IntoIterator<Item = i32>, revision: i32) -> Rows {
        let mut rows = self.rows.clone();
        rows.extend(numbers.into_iter().map(|no| (no, revision)));
        rows
    }

    /// The rows as they are after a change of existing ones.
    pub(crate) fn revised(&self, choose: impl Fn(i32) -> bool, revision: i32) -> Rows {
        let mut rows = self.rows.clone();
        for (_, known) in rows.iter_mut().filter(|(no, _)| choose(**no)) {
            *known = revision;
        }
        rows
    }

    pub(crate) fn without(&self, choose: impl Fn(i32) -> bool) -> Rows {
        self.rows.iter().filter(|(no, _)| !choose(**no)).map(|(no, at)| (*no, *at)).collect()
    }

    /// The write was confirmed.
    pub(crate) fn commit(&mut self, after: Rows) {
        self.rows = after;
    }

    /// The outcome of the write is unknown; `found` is what exists now.
    pub(crate) fn settle(&mut self, after: &Rows, found: Rows) -> Settled {
        let settled = match found {
            ref found if *found == self.rows => Settled::Undone,
            ref found if found == after => Settled::Done,
            _ => Settled::Wrong,
        };
        // A deviation is reported once.
        self.rows = found;
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_done_or_undone_and_all_else_is_wrong() {
        let mut ledger = Ledger::default();
        let first = ledger.next_revision();
        ledger.commit(ledger.with([1, 2, 3], first));
        let second = ledger.next_revision();
        let after = ledger.revised(|no| no < 3, second);
        assert_eq!(after, Rows::from([(1, 2), (2, 2), (3, 1)]));
        assert_eq!(ledger.clone().settle(&after, after.clone()), Settled::Done);
        assert_eq!(ledger.clone().settle(&after, ledger.rows().clone()), Settled::Undone);
        for half in [Rows::from([(1, 2), (2, 1), (3, 1)]), Rows::from([(1, 2)]), Rows::new()] {
            assert_eq!(ledger.clone().settle(&after, half), Settled::Wrong);
        }
        assert_eq!(ledger.without(|no| no == 2).len(), 2);
        assert!(ledger.wrote(&Rows::from([(7, 2)])) && !ledger.wrote(&Rows::from([(1, 3)])));
    }
}
