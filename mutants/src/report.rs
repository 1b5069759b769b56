//! The results of the mutants, for people and for programs.

use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::list::Mutant;
use crate::run::Outcome;

#[derive(Default)]
pub(crate) struct Report(Vec<Verdict>);

#[derive(Serialize)]
pub(crate) struct Verdict {
    name: &'static str,
    breaks: &'static str,
    file: &'static str,
    result: Fate,
    /// The tests that failed, or why there is no verdict.
    by: Vec<String>,
    /// For an expected survivor: what else prevents harm.
    expected: Option<&'static str>,
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    Caught,
    Survived,
    /// It was not tried, or the result is unknown: the list has to be corrected.
    Unclear,
}

impl Verdict {
    pub(crate) fn of(mutant: &Mutant, outcome: &Outcome, took: Duration) -> Verdict {
        let (result, by) = match outcome {
            Outcome::Passed => (Fate::Survived, Vec::new()),
            Outcome::Failed(tests) => (Fate::Caught, tests.clone()),
            Outcome::Hung => (Fate::Caught, vec!["the tests did not end".to_owned()]),
            Outcome::Unbuildable(_) | Outcome::Unclear(_) => {
                (Fate::Unclear, vec![outcome.to_string()])
            }
        };
        Verdict {
            name: mutant.name,
            breaks: mutant.breaks,
            file: mutant.file,
            result,
            by,
            expected: mutant.survives_because,
            seconds: took.as_secs(),
        }
    }

    fn is_as_expected(&self) -> bool {
        match self.result {
            Fate::Caught => self.expected.is_none(),
            Fate::Survived => self.expected.is_some(),
            Fate::Unclear => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} s)", self.name, self.result, self.seconds)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Caught => "caught",
            Fate::Survived => "**survived**",
            Fate::Unclear => "**unclear**",
        })
    }
}

impl Report {
    pub(crate) fn add(&mut self, verdict: Verdict) {
        self.0.push(verdict);
    }

    /// Whether every mutant was caught, except those that are declared harmless. A declared one that is
    /// caught means that the list is outdated.
    pub(crate) fn all_caught(&self) -> bool {
        self.0.iter().all(Verdict::is_as_expected)
    }

    fn count(&self, fate: Fate) -> usize {
        self.0.iter().filter(|verdict| verdict.result == fate).count()
    }

    /// Called after each mutant, so that an interrupted run has reported its results.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("report.md"), self.markdown())?;
        Ok(std::fs::write(folder.join("report.json"), self.json()?)?)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "# Mutants\n\n{} planted, {} caught, {} survived, {} unclear.\n\n\
             | Mutant | What it breaks | Result | By |\n|---|---|---|---|\n",
            self.0.len(),
            self.count(Fate::Caught),
            self.count(Fate::Survived),
            self.count(Fate::Unclear)
        );
        for verdict in &self.0 {
            let quoted = |by: &String| format!("`{}`", by.replace(['`', '|'], "'"));
            let by: Vec<String> = verdict.by.iter().map(quoted).collect();
            let by =
                verdict.expected.map_or_else(|| by.join(", "), |why| format!("harmless: {why}"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {by} |",
                verdict.name, verdict.breaks, verdict.result
            );
        }
        text
    }

    pub(crate) fn json(&self) -> Result<String> {
        let report = serde_json::json!({
            "planted": self.0.len(),
            "caught": self.count(Fate::Caught),
            "survived": self.count(Fate::Survived),
            "unclear": self.count(Fate::Unclear),
            "mutants": self.0,
        });
        Ok(format!("{report:#}\n"))
    }
}
