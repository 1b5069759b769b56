//! `freehold doctor`: reports deviations for people, for programs and for code scanners.

mod sarif;

use std::fmt::Write as _;
use std::process::ExitCode;

use freehold::doctor::{Check, DoctorOptions, DoctorReport, Finding, Severity, checks, examine};
use freehold::{Freehold, OperatorContext, Options};

use super::Failure;
use super::output::Output;
use super::slugs::{self, Slugs};
use super::words;

/// The exit code after a critical finding.
const FOUND: u8 = 3;

#[derive(clap::Args)]
#[command(after_help = "Exit codes: 0 nothing critical was found, 1 the examination failed, \
                        2 wrong usage, 3 something critical was found (with --strict: a warning, \
                        or a check that could not be made).")]
pub(super) struct DoctorArgs {
    /// PostgreSQL, as the role freehold_app
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "DATABASE_URL",
        hide_env_values = true,
        required_unless_present = "list"
    )]
    database_url: Option<String>,

    /// PostgreSQL, as the role freehold_owner; without it some checks cannot be made
    #[arg(
        long,
        env = "DATABASE_OWNER_URL",
        value_name = "DATABASE_OWNER_URL",
        hide_env_values = true
    )]
    database_owner_url: Option<String>,

    /// Repair what can be repaired safely, then examine again
    #[arg(long)]
    fix: bool,

    /// Only these checks, such as FH101; may be given several times or separated by commas
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    only: Vec<String>,

    /// Warnings count as well, and so do checks that could not be made
    #[arg(long)]
    strict: bool,

    /// The most examples of one finding
    #[arg(long, value_name = "COUNT", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    examples: u16,

    /// Show every check and what it means
    #[arg(long)]
    list: bool,

    /// Print JSON
    #[arg(long, conflicts_with = "sarif")]
    json: bool,

    /// Print SARIF 2.1.0, which code scanners read
    #[arg(long)]
    sarif: bool,
}

pub(super) async fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    if args.list {
        list(args.json);
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = Options::new(args.database_url.unwrap_or_default());
    options.owner_url = args.database_owner_url.filter(|url| !url.is_empty());
    let doctor = DoctorOptions {
        only: args.only.iter().map(|code| code.trim().to_ascii_uppercase()).collect(),
        fix: args.fix,
        examples_max: args.examples.into(),
    };
    let report = examine(&options, &doctor).await?;
    if args.sarif {
        Output::json(&sarif::log(&report));
    } else if args.json {
        Output::json(&report);
    } else {
        Output::text(&describe(&report, &slugs_in(&report, &options).await));
    }
    let bad = report.count(Severity::Critical) > 0
        || args.strict && (report.count(Severity::Warning) > 0 || !report.not_checked.is_empty());
    Ok(if bad { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn list(json: bool) {
    if json {
        return Output::json(&checks());
    }
    let heading = ["CODE", "SEVERITY", "FIX", "WHAT IT FINDS"].map(str::to_owned).to_vec();
    let row = |check: Check| {
        let fix = if check.fix_is_safe { "--fix" } else { "" };
        [check.code, check.severity.as_str(), fix, check.title].map(str::to_owned).to_vec()
    };
    let rows: Vec<_> = std::iter::once(heading).chain(checks().into_iter().map(row)).collect();
    Output::table(&rows);
}

/// The slugs of the tenants whose schemas the report names. Empty if the installation cannot answer; the
/// report says why.
async fn slugs_in(report: &DoctorReport, options: &Options) -> Slugs {
    let examples = report.findings.iter().flat_map(|finding| &finding.examples);
    let texts = examples.flat_map(|example| [&example.object, &example.detail]);
    let tenants: Vec<_> = texts.flat_map(|text| slugs::schemas_in(text)).collect();
    if tenants.is_empty() {
        return Slugs::default();
    }
    let context = OperatorContext::system("freehold doctor");
    let Ok(freehold) = Freehold::connect(options).await else { return Slugs::default() };
    slugs::of(&freehold, &context, tenants.into_iter()).await.unwrap_or_default()
}

/// The report for people: the worst first, each finding with its meaning and the remedy.
fn describe(report: &DoctorReport, slugs: &Slugs) -> String {
    let mut text = String::new();
    for repair in &report.repairs {
        let outcome = match &repair.error {
            None => "repaired".to_owned(),
            Some(error) => format!("not repaired, {error}"),
        };
        let _ = writeln!(
            text,
            "{} {}: {outcome}\n      {}",
            repair.code, repair.object, repair.statement
        );
    }
    for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
        let findings = report.findings.iter().filter(|f| f.check.severity == severity);
        for (place, finding) in findings.enumerate() {
            if place == 0 {
                let _ = writeln!(text, "\n{}", severity.as_str().to_uppercase());
            }
            describe_finding(&mut text, finding, slugs);
        }
    }
    if !report.not_checked.is_empty() {
        let _ = writeln!(text, "\nNOT CHECKED");
        for missing in &report.not_checked {
            let _ = writeln!(
                text,
                "{} {}\n      because {}",
                missing.code, missing.title, missing.reason
            );
        }
    }
    let _ = write!(
        text,
        "\nPostgreSQL {}, {}, {:.1} s: {} critical, {}, {}, {} not checked.",
        report.server_version,
        words::count(report.tenants, "tenant"),
        report.duration_ms as f64 / 1000.0,
        report.count(Severity::Critical),
        words::count(report.count(Severity::Warning) as u64, "warning"),
        words::count(report.count(Severity::Info) as u64, "note"),
        report.not_checked.len(),
    );
    text.trim_start().to_owned()
}

fn describe_finding(text: &mut String, finding: &Finding, slugs: &Slugs) {
    let check = finding.check;
    let _ = writeln!(text, "{} {} ({})", check.code, check.title, finding.count);
    let mut shown = 0;
    let mut last = "";
    for example in &finding.examples {
        let of = match slugs.named_in(&format!("{} {}", example.object, example.detail))[..] {
            [] => String::new(),
            ref named => format!(" [{}]", named.join(", ")),
        };
        let _ = writeln!(text, "      {}{of}: {}", example.object, example.detail);
        shown += u64::from(example.object != last);
        last = &example.object;
    }
    if finding.count > shown {
        let _ = writeln!(text, "      … and {} more", finding.count - shown);
    }
    let _ = writeln!(text, "    Meaning: {}", check.meaning);
    let fix = if check.fix_is_safe { " `freehold doctor --fix` does it." } else { "" };
    let _ = writeln!(text, "    To do: {}{fix}", check.remedy);
}
