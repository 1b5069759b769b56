//! The result of a run: the verdict and all figures behind it, as a value for programs.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::chaos::Disturbances;
use super::ground::Conditions;
use super::mix::{Kind, Way};
use super::tally::{Attempts, Tally};
use super::{Run, Settings};

/// Below this share of checked operations, a run was too disturbed to show anything.
const CHECKED_PERCENT_MIN: u64 = 50;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All operations were done.
    Operations,
    /// The time was up.
    Seconds,
    /// It was interrupted.
    Interrupted,
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// No leak, every violation caught, nothing unexpected, and enough operations checked.
    pub passed: bool,
    /// Operations that were begun.
    pub operations: u64,
    /// Operations whose answer was received and checked against the tenant that asked.
    pub checked: u64,
    /// Operations that were dropped before their answer came.
    pub cancellations: u64,
    /// Operations that ended with an error explained by the disturbances.
    pub disturbed: u64,
    /// Completed attempts that must be refused.
    pub violations_provoked: u64,
    /// How many of them were correctly refused.
    pub violations_caught: u64,
    /// Findings that a tenant saw, changed or created something of another.
    pub leaks: u64,
    /// Other findings: lost writes, unexpected errors.
    pub unexpected: u64,
    /// The first leaks, in words.
    pub leaks_told: Vec<String>,
    /// The first other findings, in words.
    pub unexpected_told: Vec<String>,
    /// The bound on the rate of leaks, if there were none.
    pub confidence: Option<Confidence>,
    /// Rows in the answers.
    pub rows: u64,
    /// Bytes of answers that were searched.
    pub bytes: u64,
    /// By kind of operation.
    pub kinds: Vec<KindReport>,
    /// By kind of violation.
    pub violations: BTreeMap<String, Attempts>,
    /// Errors explained by disturbances, by code.
    pub errors: BTreeMap<String, u64>,
    /// The disturbances of the run.
    pub disturbances: Disturbances,
    /// The reading of every table at the end.
    pub audit: Audit,
    /// Why it ended.
    pub ended: Ended,
    /// When it began, as RFC 3339.
    pub began_at: String,
    /// How long it took.
    pub duration_secs: f64,
    /// The settings.
    pub settings: Settings,
    /// What was tested.
    pub conditions: Conditions,
    /// The tested components, by name.
    pub versions: BTreeMap<String, String>,
}

/// One kind of operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindReport {
    /// `http` or `library`.
    pub way: String,
    /// What was done.
    pub name: String,
    /// Begun.
    pub operations: u64,
    /// With an answer that was checked.
    pub checked: u64,
    /// Dropped.
    pub cancellations: u64,
    /// Ended with an error explained by disturbances.
    pub disturbed: u64,
}

/// The upper bound that follows from this many trials without a leak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// 0.95.
    pub level: f64,
    /// Trials: the operations that were checked.
    pub trials: u64,
    /// At most this share of such operations leaks.
    pub leak_rate_max: f64,
}

impl Confidence {
    /// The rule of three: after `n` independent trials without an event, 3/n bounds its rate with
    /// 95 % confidence (Hanley and Lippman-Hand 1983; exactly 1 - 0.05^(1/n)).
    pub(crate) fn of(trials: u64) -> Option<Confidence> {
        (trials > 0).then(|| Confidence {
            level: 0.95,
            trials,
            leak_rate_max: (3.0 / trials as f64).min(1.0),
        })
    }
}

impl Report {
    pub(crate) fn new(
        run: &Run,
        tally: Tally,
        disturbances: Disturbances,
        audit: Audit,
        ended: Ended,
        (began_at, began): (SystemTime, Instant),
    ) -> Report {
        let kinds: Vec<_> = Kind::all().map(|kind| KindReport::of(kind, &tally)).collect();
        let sum = |count: fn(&KindReport) -> u64| kinds.iter().map(count).sum::<u64>();
        let (operations, checked) = (sum(|k| k.operations), sum(|k| k.checked));
        let (cancellations, disturbed) = (sum(|k| k.cancellations), sum(|k| k.disturbed));
        let total = |count: fn(&Attempts) -> u64| tally.attempts.values().map(count).sum::<u64>();
        let (provoked, caught) = (total(|a| a.provoked), total(|a| a.caught));
        let (leaks, leaks_told) = run.findings.leaks();
        let (mut unexpected, mut unexpected_told) = run.findings.faults();
        let answered = operations - cancellations;
        if checked * 100 < answered * CHECKED_PERCENT_MIN || checked == 0 {
            unexpected += 1;
            unexpected_told.push(format!(
                "only {checked} of {answered} operations could be checked: the rest ended in errors, \
                 so the run shows little"
            ));
        }
        let versions = [
            ("freehold", env!("CARGO_PKG_VERSION").to_owned()),
            ("postgresql", run.ground.postgres.clone()),
        ];
        Report {
            passed: leaks == 0 && unexpected == 0 && provoked == caught,
            operations,
            checked,
            cancellations,
            disturbed,
            violations_provoked: provoked,
            violations_caught: caught,
            leaks,
            unexpected,
            leaks_told,
            unexpected_told,
            confidence: Confidence::of(checked).filter(|_| leaks == 0),
            rows: tally.rows,
            bytes: tally.bytes,
            kinds,
            violations: tally
                .attempts
                .into_iter()
                .map(|(what, attempts)| (what.to_owned(), attempts))
                .collect(),
            errors: tally.errors,
            disturbances,
            audit,
            ended,
            began_at: jiff::Timestamp::try_from(began_at)
                .map_or_else(|_| String::new(), |at| format!("{at:.0}")),
            duration_secs: began.elapsed().as_secs_f64(),
            settings: run.settings.clone(),
            conditions: run.ground.conditions.clone(),
            versions: versions
                .into_iter()
                .map(|(name, version)| (name.to_owned(), version))
                .collect(),
        }
    }

    /// Panics of the program during the run, which a sound system does not have.
    pub fn add_panics(&mut self, panics: u64) {
        if panics > 0 {
            self.passed = false;
            self.unexpected += panics;
            self.unexpected_told
                .push(format!("{panics} panics in the program; standard error has them"));
        }
    }

    /// Adds another component that was tested.
    pub fn add_version(&mut self, name: &str, version: &str) {
        self.versions.insert(name.to_owned(), version.to_owned());
    }
}

impl KindReport {
    fn of(kind: Kind, tally: &Tally) -> KindReport {
        let share = tally.shares[kind.index()];
        KindReport {
            way: match kind.way() {
                Way::Http => "http",
                Way::Library => "library",
            }
            .to_owned(),
            name: kind.name().to_owned(),
            operations: share.operations,
            checked: share.checked,
            cancellations: share.cancelled,
            disturbed: share.disturbed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_leak_in_n_trials_bounds_the_rate_by_three_over_n() {
        assert_eq!(Confidence::of(0), None);
        assert_eq!(Confidence::of(2).unwrap().leak_rate_max, 1.0);
        let bound = Confidence::of(3_000_000).unwrap().leak_rate_max;
        assert!((bound - 1e-6).abs() < 1e-12);
        // At that rate, all trials pass without a leak in fewer than 5 of 100 runs.
        assert!((1.0 - bound).powi(3_000_000) < 0.05);
    }
}
