//! The counts and the findings of a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::mix::{KINDS, Kind};

/// The most findings that are described, per kind and in total; all are counted.
const TOLD_OF_A_KIND_MAX: usize = 4;
const TOLD_MAX: usize = 40;
const WORDS_MAX: usize = 600;

/// The counts of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) operations: u64,
    /// Operations whose answer was received and found correct.
    pub(crate) checked: u64,
    pub(crate) cancelled: u64,
    /// Ended with an error explained by disturbances.
    pub(crate) disturbed: u64,
}

/// Attempts that must be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempts {
    /// How often it was tried to completion.
    pub provoked: u64,
    /// How often it was correctly refused.
    pub caught: u64,
}

/// The counts of one worker; they are added up at the end.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) shares: [Share; KINDS],
    pub(crate) attempts: BTreeMap<&'static str, Attempts>,
    /// Errors explained by disturbances, by code.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            shares: [Share::default(); KINDS],
            attempts: BTreeMap::new(),
            errors: BTreeMap::new(),
            rows: 0,
            bytes: 0,
        }
    }
}

impl Tally {
    pub(crate) fn share(&mut self, kind: Kind) -> &mut Share {
        &mut self.shares[kind.index()]
    }

    pub(crate) fn error(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    pub(crate) fn attempt(&mut self, what: &'static str, caught: bool) {
        let attempts = self.attempts.entry(what).or_default();
        attempts.provoked += 1;
        attempts.caught += u64::from(caught);
    }

    pub(crate) fn add(&mut self, other: Tally) {
        for (own, other) in self.shares.iter_mut().zip(other.shares) {
            own.operations += other.operations;
            own.checked += other.checked;
            own.cancelled += other.cancelled;
            own.disturbed += other.disturbed;
        }
        for (what, other) in other.attempts {
            let own = self.attempts.entry(what).or_default();
            own.provoked += other.provoked;
            own.caught += other.caught;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// Deviations; shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    leaks: Found,
    faults: Found,
}

#[derive(Debug, Default)]
struct Found {
    count: AtomicU64,
    told: Mutex<Vec<(String, String)>>,
}

impl Found {
    fn note(&self, kind: &str, words: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this_kind = told.iter().filter(|(other, _)| other == kind).count();
        if of_this_kind < TOLD_OF_A_KIND_MAX && told.len() < TOLD_MAX {
            told.push((kind.to_owned(), words.chars().take(WORDS_MAX).collect()));
        }
    }

    fn take(&self) -> (u64, Vec<String>) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let words = told.iter().map(|(kind, words)| format!("{kind}: {words}")).collect();
        (self.count.load(Ordering::Relaxed), words)
    }
}

impl Findings {
    /// A tenant saw, changed or created something of another.
    pub(crate) fn leak(&self, kind: &str, words: &str) {
        self.leaks.note(kind, words);
    }

    /// Any other deviation.
    pub(crate) fn fault(&self, kind: &str, words: &str) {
        self.faults.note(kind, words);
    }

    pub(crate) fn leaks_so_far(&self) -> u64 {
        self.leaks.count.load(Ordering::Relaxed)
    }

    pub(crate) fn leaks(&self) -> (u64, Vec<String>) {
        self.leaks.take()
    }

    pub(crate) fn faults(&self) -> (u64, Vec<String>) {
        self.faults.take()
    }
}
