//! `freehold migrate up|status|pause|resume|import`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use freehold::{
    Baseline, DryRun, Freehold, MigrateFailure, MigrateOptions, OperatorContext, Verdict,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use super::{Common, Failure, Why, import, tenant, words};
use crate::config::LayoutSettings;

#[derive(Subcommand)]
pub(super) enum MigrateCommand {
    /// Apply what is new to the template, then to every tenant
    Up {
        #[command(flatten)]
        common: Common,
        /// The folder of migrations, as Freehold's own or as one of many tools wrote it
        #[arg(long, env = "BASELINE", value_name = "BASELINE", default_value = "migrations")]
        baseline: PathBuf,
        #[command(flatten)]
        layout: LayoutSettings,
        #[command(flatten)]
        pace: Pace,
        /// Say what would happen, and do nothing: the new files are run in the template and rolled back
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Show how far the fleet is, which tenants failed in the last run, and whether migrations are paused
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Stop the run that is under way, after the tenants it is at, and let none begin
    Pause {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        why: Why,
    },
    /// Permit migrations again; begins none
    Resume {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        why: Why,
    },
    /// Make a folder of migrations of a dump, and say what is otherwise in it
    Import(import::ImportArgs),
}

/// In which order tenants are migrated, and when the run stops.
#[derive(Args)]
pub(super) struct Pace {
    /// A tenant to migrate before all others, by its slug, id or schema; if it fails, the run stops.
    /// May be given several times
    #[arg(long = "canary", value_name = "TENANT")]
    canaries: Vec<String>,
    /// Per cent of the other tenants, rising, after each of which the run waits: `1,10` is after the
    /// first hundredth, and after the first tenth
    #[arg(long, value_name = "PERCENT", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(1..100))]
    waves: Vec<u8>,
    /// Seconds to wait between canaries and waves, for a look at how the tenants fare that have it
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Stop once this many tenants have failed
    #[arg(long, value_name = "TENANTS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..))]
    stop_after: u32,
    /// How long a statement waits for a lock that the application holds, in milliseconds; the tenant's
    /// requests wait behind it meanwhile
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    lock_timeout_ms: u64,
    /// How often a tenant is tried whose tables are locked, after the others of its wave
    #[arg(long, value_name = "TIMES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    lock_attempts: u32,
}

impl Pace {
    async fn options(
        self,
        freehold: &Freehold,
        context: &OperatorContext,
        parallel: usize,
    ) -> Result<MigrateOptions, Failure> {
        let mut canaries = Vec::new();
        for name in &self.canaries {
            canaries.push(tenant::find(freehold, context, name).await?.id);
        }
        Ok(MigrateOptions {
            parallel,
            lock_timeout: Duration::from_millis(self.lock_timeout_ms),
            lock_attempts: self.lock_attempts,
            canaries,
            waves: self.waves,
            between_waves: Duration::from_secs(self.wait),
            failures_max: self.stop_after as usize,
        })
    }
}

/// Reports the layout in which a folder was read.
pub(super) fn layout_line(baseline: &Baseline) -> String {
    format!("Layout: {}", baseline.layout_said().unwrap_or_default())
}

pub(super) async fn run(command: MigrateCommand) -> Result<ExitCode, Failure> {
    match command {
        MigrateCommand::Up { common, baseline, layout, pace, dry_run, why } => {
            let context = why.context("freehold migrate up")?;
            let baseline = layout.read(&baseline)?;
            if !common.json {
                Output::text(&layout_line(&baseline));
            }
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let parallel = common.database.max_owner_connection_pool.into();
            let options = pace.options(&freehold, &context, parallel).await?;
            if dry_run {
                let outcome = freehold.migrations().dry_run(&baseline, options).await?;
                return Ok(print_dry_run(&outcome, common.json));
            }
            let bar = progress_bar();
            let report = freehold
                .migrations()
                .up(&context, &baseline, options, &|done, total| {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                })
                .await?;
            bar.finish_and_clear();
            if common.json {
                Output::json(&report);
            } else {
                for name in &report.adopted {
                    Output::text(&format!("{name}: new in the template"));
                }
                for notice in &report.notices {
                    Output::text(&format!("note: {notice}"));
                }
                Output::text(&format!(
                    "{} brought to version {}",
                    words::count(report.migrated, "tenant"),
                    report.version
                ));
                print_failures(&report.failed);
                if let Some(reason) = &report.stopped {
                    let left = words::count(report.left, "tenant");
                    Output::note(&format!("Stopped: {reason}. Not tried: {left}"));
                }
            }
            Ok(if report.failed.is_empty() && report.stopped.is_none() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        MigrateCommand::Import(args) => import::run(&args),
        MigrateCommand::Status { common } => {
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let status = freehold.migrations().status().await?;
            if common.json {
                Output::json(&status);
            } else {
                Output::text(&format!("The baseline is at version {}.", status.version));
                for (version, count) in &status.tenants {
                    let behind = if *version < status.version { "  (behind)" } else { "" };
                    Output::text(&format!("Tenants at version {version}: {count}{behind}"));
                }
                if let Some(pause) = &status.paused {
                    Output::text(&format!("Migrations are {pause}"));
                }
                print_failures(&status.failed);
            }
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Pause { common, why } => {
            let context = why.context("freehold migrate pause")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let changed = freehold.migrations().pause(&context).await?;
            print_pause(&common, true, changed);
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Resume { common, why } => {
            let context = why.context("freehold migrate resume")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let changed = freehold.migrations().resume(&context).await?;
            print_pause(&common, false, changed);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print_pause(common: &Common, paused: bool, changed: bool) {
    if common.json {
        return Output::json(&serde_json::json!({"paused": paused, "changed": changed}));
    }
    Output::text(match (paused, changed) {
        (true, true) => "Migrations are paused. `freehold migrate resume` permits them again",
        (true, false) => "Migrations are paused already",
        (false, true) => "Migrations are permitted again. `freehold migrate up` goes on",
        (false, false) => "Migrations are not paused",
    });
}

fn print_dry_run(outcome: &DryRun, json: bool) -> ExitCode {
    if json {
        Output::json(outcome);
    } else {
        for (name, verdict) in &outcome.files {
            Output::text(&match verdict {
                Verdict::Taken => format!("{name}: would be new in the template"),
                // It begins with the file and the line.
                Verdict::Refused(why) => format!("would be refused: {why}"),
                Verdict::Unknown(why) => format!("{name}: not tried, because {why}"),
                _ => name.clone(),
            });
        }
        for notice in &outcome.notices {
            Output::text(&format!("note: {notice}"));
        }
        for (version, count) in &outcome.behind {
            let to = outcome.version;
            Output::text(&format!(
                "{} would be brought from version {version} to {to}",
                words::count(*count, "tenant")
            ));
        }
        if outcome.files.is_empty() && outcome.behind.is_empty() {
            Output::text("Nothing is new, and no tenant is behind");
        }
        Output::text("Nothing was changed");
    }
    if outcome.would_succeed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_failures(failed: &[MigrateFailure]) {
    for MigrateFailure { tenant, version, error } in failed {
        Output::note(&format!("failed: {tenant} at {version:04}: {error}"));
    }
    if !failed.is_empty() {
        Output::note(&format!(
            "Tenants that failed and are as they were: {}. Run `freehold migrate up` again once the cause is gone",
            failed.len()
        ));
    }
}

pub(super) fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {eta} left")
        .expect("the template is well-formed");
    ProgressBar::new(0).with_style(style)
}
