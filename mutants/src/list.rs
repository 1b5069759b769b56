//! The mutants: each a small change to one file, and the tests that must catch it. Data, one file per area.

mod analytics;
mod beside;
mod clients;
mod connections;
mod context;
mod data;
mod database;
mod http;
mod indexes;
mod layouts;
mod lifecycle;
mod mail;
mod outside;
mod people;
mod replicas;
mod scheduler;
mod sessions;
mod sign_in;
mod sizes;
mod snapshots;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::Result;

pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// The guarantee that it breaks.
    pub(crate) breaks: &'static str,
    pub(crate) file: &'static str,
    /// Occurs in the file exactly once.
    from: &'static str,
    to: &'static str,
    tests: Tests,
    /// For a mutant that no test can catch: what else prevents harm.
    pub(crate) survives_because: Option<&'static str>,
}

/// Tests of one binary.
#[derive(Clone, Copy)]
enum Tests {
    Library(&'static [&'static str]),
    LibraryUnit(&'static [&'static str]),
    Server(&'static [&'static str]),
    ServerUnit(&'static [&'static str]),
}

/// Tests that are run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) package: &'static str,
    pub(crate) target: &'static str,
    pub(crate) tests: BTreeSet<&'static str>,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.package, self.target)
    }
}

impl Mutant {
    pub(crate) fn suite(&self) -> Suite {
        let (package, target, tests) = match self.tests {
            Tests::Library(tests) => ("freehold", "it", tests),
            Tests::LibraryUnit(tests) => ("freehold", "lib", tests),
            Tests::Server(tests) => ("freehold-server", "it", tests),
            Tests::ServerUnit(tests) => ("freehold-server", "lib", tests),
        };
        Suite { package, target, tests: tests.iter().copied().collect() }
    }

    /// The file's text with the fault.
    pub(crate) fn planted_in(&self, text: &str) -> Result<String> {
        match text.matches(self.from).count() {
            1 => Ok(text.replacen(self.from, self.to, 1)),
            n => Err(format!("{}: its text stands {n} times in {}", self.name, self.file).into()),
        }
    }
}

pub(crate) fn all() -> impl Iterator<Item = &'static Mutant> {
    [
        context::MUTANTS,
        analytics::MUTANTS,
        connections::MUTANTS,
        scheduler::MUTANTS,
        database::MUTANTS,
        sessions::MUTANTS,
        sign_in::MUTANTS,
        people::MUTANTS,
        lifecycle::MUTANTS,
        replicas::MUTANTS,
        data::MUTANTS,
        http::MUTANTS,
        mail::MUTANTS,
        outside::MUTANTS,
        indexes::MUTANTS,
        layouts::MUTANTS,
        sizes::MUTANTS,
        snapshots::MUTANTS,
        beside::MUTANTS,
        clients::MUTANTS,
        texts::MUTANTS,
    ]
    .into_iter()
    .flatten()
}

/// All the tests that these mutants name, by binary.
pub(crate) fn suites(mutants: &[&Mutant]) -> Vec<Suite> {
    let mut suites: BTreeMap<(&str, &str), Suite> = BTreeMap::new();
    for suite in mutants.iter().map(|mutant| mutant.suite()) {
        suites
            .entry((suite.package, suite.target))
            .and_modify(|known| known.tests.extend(&suite.tests))
            .or_insert(suite);
    }
    suites.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn every_mutant_can_be_planted() {
        let mut misfits = Vec::new();
        for mutant in all() {
            let text = std::fs::read_to_string(project().join(mutant.file)).unwrap();
            match mutant.planted_in(&text) {
                Ok(planted) if planted != text => {}
                Ok(_) => misfits.push(format!("{} changes nothing", mutant.name)),
                Err(error) => misfits.push(error.to_string()),
            }
        }
        assert!(misfits.is_empty(), "{misfits:#?}");
    }

    #[test]
    fn every_test_that_must_catch_one_is_there() {
        let mut texts = BTreeMap::new();
        for suite in suites(&all().collect::<Vec<_>>()) {
            let folder = if suite.target == "lib" { "src" } else { "tests/it" };
            let folder = project().join("crates").join(suite.package).join(folder);
            let text = texts.entry(folder.clone()).or_insert_with(|| text_under(&folder));
            for test in &suite.tests {
                let (_, name) = test.rsplit_once("::").unwrap();
                // As a function, or by a macro with a name and a text.
                let is_there = [format!("fn {name}("), format!("\n    {name}: ")];
                let is_there = is_there.iter().any(|mark| text.contains(mark));
                assert!(is_there, "{suite}: there is no {test}");
            }
        }
    }

    /// The text of all Rust files below a folder.
    fn text_under(folder: &std::path::Path) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &text_under(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
        text
    }

    #[test]
    fn there_are_forty_at_least_and_each_has_a_name_of_its_own_and_a_test() {
        let names: BTreeSet<&str> = all().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.len() >= 40, "{}", names.len());
        assert!(all().all(|mutant| !mutant.suite().tests.is_empty()));
    }
}
