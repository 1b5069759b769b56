//! The command line: parsed here, a file per command, one place that prints.

mod analytics;
mod audit;
mod completions;
mod config;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod help;
mod import;
mod indexes;
mod init;
mod insight;
mod key;
mod listing;
mod migrate;
mod operator;
pub mod output;
mod person;
mod serve;
mod slugs;
mod tenant;
mod top;
mod violations;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use freehold::{OperatorContext, Origin};

#[cfg(feature = "dev")]
use crate::config::DevSettings;
use crate::config::{DatabaseSettings, ServeSettings};
use output::Output;

/// Multi-tenant backend on PostgreSQL: a schema and row-level security for every tenant.
#[derive(Parser)]
#[command(
    name = "freehold",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything for development: a private PostgreSQL, two demo tenants, the API
    #[cfg(feature = "dev")]
    Dev(Box<DevSettings>),
    /// Prepare a database: roles, catalog, template. Safe to repeat
    Init(init::InitArgs),
    /// Serve the API
    Serve(Box<ServeSettings>),
    /// Show every setting, with secrets hidden
    Config(config::ConfigArgs),
    /// Create, list, show, suspend and resume tenants, and give them owners
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// People who run the platform: create, list and revoke them
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// People: who they are, and whether they may come in
    #[command(subcommand)]
    Person(person::PersonCommand),
    /// What was done to people and tenants, by whom
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The keys that contexts are sealed with
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Refused attempts to reach another tenant's data or to exceed a role
    #[command(subcommand)]
    Violations(violations::ViolationsCommand),
    /// What tenants do to the database
    #[command(subcommand)]
    Insight(insight::InsightCommand),
    /// Watch which tenants are busiest, until Ctrl-C
    Top(top::TopArgs),
    /// Indexes of single tenants: advice, made and dropped while they work
    #[command(subcommand)]
    Indexes(indexes::IndexesCommand),
    /// Bring the template and every tenant to the newest migration
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Compare the real database with what must hold, over the whole fleet
    Doctor(doctor::DoctorArgs),
    /// Figures across tenants: apply definitions, run them, show what they give
    #[command(subcommand)]
    Analytics(analytics::AnalyticsCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Print what a shell completes commands and flags by
    Completions(completions::CompletionsArgs),
}

/// What every command on the database needs besides its own arguments.
#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    database: DatabaseSettings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What every command that changes something takes.
#[derive(clap::Args)]
struct Why {
    /// Why; the record keeps it
    #[arg(long, value_name = "REASON")]
    why: Option<String>,
}

impl Why {
    /// The context of a command, which is the reason if none was given.
    fn context(&self, command: &'static str) -> freehold::Result<OperatorContext> {
        let context = OperatorContext::system(command);
        match &self.why {
            Some(why) => context.because(why),
            None => Ok(context),
        }
    }
}

/// Why a command failed, in a sentence for the person who gave it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return tell(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Output::note(&format!("error: the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(freehold::with_origin(command_line(), async {
        match cli.command {
            #[cfg(feature = "dev")]
            Command::Dev(settings) => dev::run(*settings).await,
            Command::Init(args) => init::run(args).await,
            Command::Serve(settings) => serve::run(*settings).await.map(|()| ExitCode::SUCCESS),
            Command::Config(args) => config::run(&args),
            Command::Tenant(command) => tenant::run(command).await,
            Command::Operator(command) => operator::run(command).await,
            Command::Person(command) => person::run(command).await,
            Command::Audit(command) => audit::run(command).await,
            Command::Key(command) => key::run(command).await,
            Command::Violations(command) => violations::run(command).await,
            Command::Insight(command) => insight::run(command).await,
            Command::Top(args) => top::run(args).await,
            Command::Indexes(command) => indexes::run(command).await,
            Command::Migrate(command) => migrate::run(command).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Analytics(command) => analytics::run(command).await,
            Command::Openapi => {
                Output::text(crate::http::openapi_json().trim_end());
                Ok(ExitCode::SUCCESS)
            }
            Command::Completions(args) => {
                completions::run(&args, command());
                Ok(ExitCode::SUCCESS)
            }
        }
    }));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    Output::exit_code(outcome.unwrap_or_else(|failure| {
        Output::note(&format!("error: {failure}"));
        ExitCode::FAILURE
    }))
}

fn command() -> clap::Command {
    help::arranged(Cli::command())
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints a help, or what is wrong with the arguments.
fn tell(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    Output::heed(printed);
    Output::exit_code(ExitCode::SUCCESS)
}

/// Who gives the command, as the record shows it.
fn command_line() -> Origin {
    let account = std::fs::metadata("/proc/self").map(|process| {
        use std::os::unix::fs::MetadataExt as _;
        format!("command line, uid {}", process.uid())
    });
    let from = account.unwrap_or_else(|_| "command line".to_owned());
    Origin { request_id: None, from: Some(from.into()) }
}

#[cfg(test)]
mod tests;
