//! `freehold-mutants`: plants faults that would break tenant isolation, one at a time, in a copy of the
//! project, and runs the tests that must catch each. A fault that they miss has survived, and is reported as
//! such. `./dev mutants` runs it.
//!
//! Faults of the database rather than of the code are in the library's `tests/it/mutants.rs`, which is part
//! of every test run.

mod copy;
mod list;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::copy::Copy;
use crate::list::Mutant;
use crate::report::{Report, Verdict};
use crate::run::{ALL_TESTS_MAX, Outcome, Runner, TESTS_MAX};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "Plants faults in a copy of the project and runs the tests that must catch them")]
struct Arguments {
    /// Only the mutants whose name contains one of these, separated by commas
    #[arg(long, value_name = "TEXTS", value_delimiter = ',', default_value = "")]
    only: Vec<String>,

    /// Print the report as JSON rather than as Markdown
    #[arg(long)]
    json: bool,

    /// Name the mutants and what each breaks, and run none
    #[arg(long)]
    list: bool,

    /// The `freehold` that starts a throwaway PostgreSQL for each run
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    freehold: Option<PathBuf>,

    /// Where the copy, its build and the reports are kept
    #[arg(long, value_name = "FOLDER", default_value = "target/mutants")]
    folder: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |mutant: &&Mutant| arguments.only.iter().any(|text| mutant.name.contains(text));
    let chosen: Vec<&Mutant> = list::all().filter(wanted).collect();
    if chosen.is_empty() {
        let only = arguments.only.join(" or ");
        return Err(format!("no mutant has {only} in its name; see --list").into());
    }
    if arguments.list {
        for mutant in chosen {
            println!("{:<44} {}", mutant.name, mutant.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let freehold = arguments.freehold.ok_or("--freehold is needed")?.canonicalize()?;
    let report = try_all(&chosen, &arguments.folder, &freehold)?;
    print!("{}", if arguments.json { report.json()? } else { report.markdown() });
    Ok(if report.all_caught() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_all(chosen: &[&Mutant], folder: &Path, freehold: &Path) -> Result<Report> {
    let copy = Copy::make(folder)?;
    let runner = Runner::new(&copy, freehold)?;
    eprintln!("» the tests as they are, without any fault");
    // Otherwise a test that always fails would seem to catch everything.
    for suite in list::suites(chosen) {
        match runner.run(&suite, ALL_TESTS_MAX)? {
            Outcome::Passed => {}
            outcome => return Err(format!("without a fault: {suite}: {outcome}").into()),
        }
    }
    let mut report = Report::default();
    for (at, mutant) in chosen.iter().enumerate() {
        let began = Instant::now();
        copy.plant(mutant)?;
        let outcome = runner.run(&mutant.suite(), TESTS_MAX);
        copy.mend(mutant)?;
        // A mutant without a verdict must not prevent the verdicts of the others.
        let outcome = outcome.unwrap_or_else(|error| Outcome::Unclear(error.to_string()));
        let verdict = Verdict::of(mutant, &outcome, began.elapsed());
        eprintln!("» {}/{} {verdict}", at + 1, chosen.len());
        report.add(verdict);
        report.write(folder)?;
    }
    Ok(report)
}
