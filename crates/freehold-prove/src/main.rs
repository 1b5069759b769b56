//! `freehold-prove`: tries to find one tenant's data in another's answers, and reports.

mod scratch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser as _;
use freehold::SealMode;
use freehold_embedded::pgbouncer::PgBouncer;
use freehold_prove::{BaselineCode, Failure, Ground, Progress, Report, Settings, System};
use freehold_server::cli::output::Output;
use freehold_server::config::{LogFormat, LogSettings};
use freehold_server::telemetry;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::scratch::{Preparation, Scratch};

/// Tries to find one tenant's data in another's answers, by millions of hostile operations
#[derive(clap::Parser)]
#[command(
    name = "freehold-prove",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 nothing was found, 1 something was or the proof failed, 2 wrong usage."
)]
struct Arguments {
    /// A PostgreSQL server, as a superuser: the proof makes a database of its own there, and drops it
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// The password of freehold_app, if the server has that role already
    #[arg(
        long,
        env = "FREEHOLD_APP_PASSWORD",
        value_name = "FREEHOLD_APP_PASSWORD",
        hide_env_values = true
    )]
    app_password: Option<String>,

    /// The password of freehold_owner, if the server has that role already
    #[arg(
        long,
        env = "FREEHOLD_OWNER_PASSWORD",
        value_name = "FREEHOLD_OWNER_PASSWORD",
        hide_env_values = true
    )]
    owner_password: Option<String>,

    /// End after so many operations
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    operations: u64,

    /// End after so many seconds, if the operations are not done by then
    #[arg(long, value_name = "S", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// What the choices follow from; made up and reported if not given
    #[arg(long)]
    seed: Option<u64>,

    /// Tenants
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=100))]
    tenants: u16,

    /// Workers, each of which does one operation at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    workers: u16,

    /// Milliseconds between two disturbances of database sessions
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    disturb_ms: u64,

    /// Start a PgBouncer in transaction mode, and connect by it
    #[arg(long, conflicts_with = "pooler_url")]
    pgbouncer: bool,

    /// Connect by this pooler, as freehold_app; `{database}` in it is the name of the proof's database
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pooler_url: Option<String>,

    /// How contexts are verified; by default the best way that is possible
    #[arg(long, value_name = "MODE", value_parser = parse_seal)]
    seal: Option<SealMode>,

    /// Prepare the database as on managed servers: by a role that owns it and has CREATEROLE
    #[arg(long)]
    without_superuser: bool,

    /// What the baseline's own code does: run its input as SQL, so that anything can be left on a session, or
    /// change settings, so that servers clean only those
    #[arg(long, value_name = "CODE", default_value = "executes-text")]
    baseline: BaselineCode,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Write the report to this file too: JSON if its name ends in .json, else Markdown
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,

    /// What the server under proof is to log: the violations that it is provoked to are left out
    #[arg(
        long,
        env = "LOG_LEVEL",
        value_name = "LOG_LEVEL",
        default_value = "error,freehold::observe::violations=off,freehold::doctor=off"
    )]
    log_level: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = prove(Arguments::parse()).await;
    Output::exit_code(outcome.unwrap_or_else(|failure| {
        Output::note(&format!("error: {failure}"));
        ExitCode::FAILURE
    }))
}

async fn prove(args: Arguments) -> Result<ExitCode, Failure> {
    // From here on Ctrl-C ends the run rather than the program, which has to clean up.
    let interrupts = Interrupts::listen()?;
    let settings = Settings {
        operations: args.operations,
        seconds: args.seconds,
        seed: args.seed.unwrap_or_else(made_up_seed),
        tenants: args.tenants.into(),
        workers: args.workers.into(),
        disturb_ms: args.disturb_ms,
    };
    let log_level = args.log_level.clone();
    telemetry::init_logs(&LogSettings { log_format: LogFormat::Pretty, log_level })?;
    Output::note(&format!("Seed {}.", settings.seed));
    count_panics();
    let preparation = Preparation {
        app_password: args.app_password.clone(),
        owner_password: args.owner_password.clone(),
        code: args.baseline,
        seal: args.seal,
        without_superuser: args.without_superuser,
    };
    let scratch = Scratch::create(&args.database_url, preparation).await?;
    let outcome =
        prove_on(scratch.system.clone(), scratch.name(), &args, settings, interrupts).await;
    scratch.remove().await?;
    let report = outcome?;
    for file in &args.report {
        write(file, &report)?;
    }
    match args.json {
        true => Output::json(&report),
        false => Output::text(&report.markdown()),
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn prove_on(
    mut system: System,
    database: &str,
    args: &Arguments,
    settings: Settings,
    interrupts: Interrupts,
) -> Result<Report, Failure> {
    let pooler = match args.pgbouncer {
        true => Some(PgBouncer::start(&system.app_url).await?),
        false => None,
    };
    system.pooler_url = match (&pooler, &args.pooler_url) {
        (Some(pooler), _) => Some(pooler.url().to_owned()),
        (None, Some(url)) => Some(url.replace("{database}", database)),
        (None, None) => None,
    };
    let ground = Ground::prepare(&system, &settings).await?;
    let bar = progress_bar(settings.operations);
    let progress = |progress: Progress| {
        bar.set_position(progress.operations);
        bar.set_message(format!("{} dropped, {} leaks", progress.cancellations, progress.leaks));
    };
    let report = freehold_prove::run(ground, settings, interrupts.first(), &progress).await;
    bar.finish_and_clear();
    let mut report = report?;
    report.add_panics(PANICS.load(Ordering::Relaxed));
    if let Some(pooler) = &pooler {
        report.add_version("pgbouncer", pooler.version());
        report.disturbances.pooler_restarts = pooler.restarts();
    }
    Ok(report)
}

/// Stop signals, recorded from the moment at which this is created.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Interrupts, Failure> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn first(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics: in a task that nothing waits for, such as one that cleans up a connection, a panic ends
/// only that task and would go unnoticed.
fn count_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        tell(panic);
    }));
}

/// In the mode plain every injected statement would succeed.
fn parse_seal(text: &str) -> Result<SealMode, String> {
    [SealMode::Best, SealMode::Portable]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| "the modes that can be proven are best and portable".to_owned())
}

fn made_up_seed() -> u64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    u32::from_le_bytes(bytes).into()
}

fn write(file: &Path, report: &Report) -> Result<(), Failure> {
    let text = if file.extension().is_some_and(|extension| extension == "json") {
        serde_json::to_string_pretty(report)?
    } else {
        report.markdown()
    };
    std::fs::write(file, text).map_err(|error| {
        format!("the report cannot be written to {}: {error}", file.display()).into()
    })
}

fn progress_bar(operations: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} operations, {eta} left, {msg}")
        .expect("the template is well-formed");
    ProgressBar::new(operations).with_style(style)
}
