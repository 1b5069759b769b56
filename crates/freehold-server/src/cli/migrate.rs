//! `freehold migrate up|status|import`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use freehold::{Baseline, DryRun, Freehold, MigrateFailure, MigrateOptions, Verdict};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use super::{Common, Failure, Why, import, words};
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
        /// How long a statement waits for a lock that the application holds, in milliseconds
        #[arg(long, default_value_t = 5000)]
        lock_timeout_ms: u64,
        /// Say what would happen, and do nothing: the new files are run in the template and rolled back
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Show how far the fleet is, and whom the last run failed for
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Make a folder of migrations of a dump, and say what is otherwise in it
    Import(import::ImportArgs),
}

/// Reports the layout in which a folder was read.
pub(super) fn layout_line(baseline: &Baseline) -> String {
    format!("Layout: {}", baseline.layout_said().unwrap_or_default())
}

pub(super) async fn run(command: MigrateCommand) -> Result<ExitCode, Failure> {
    match command {
        MigrateCommand::Up { common, baseline, layout, lock_timeout_ms, dry_run, why } => {
            let context = why.context("freehold migrate up")?;
            let baseline = layout.read(&baseline)?;
            if !common.json {
                Output::text(&layout_line(&baseline));
            }
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let options = MigrateOptions {
                parallel: common.database.max_owner_connection_pool.into(),
                lock_timeout: Duration::from_millis(lock_timeout_ms),
            };
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
            }
            Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
                print_failures(&status.failed);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
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
