//! `freehold-bench NAME`: measures what a tenant's context costs.
//!
//! Absolute figures depend on the machine and its other load, so the ratio of two cases that alternated in
//! one run is what counts (see `rounds`). DATABASE_URL leads to a throwaway PostgreSQL as a superuser; `./dev
//! bench NAME` provides one.

#![allow(clippy::disallowed_methods, reason = "the server's address comes from ./dev")]

mod analytics;
mod batch;
mod client;
mod context;
mod fairness;
mod fixtures;
mod fleet;
mod http;
mod migrate;
mod onboarding;
mod pace;
mod people;
mod report;
mod rounds;
mod seal;
mod soak;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::report::{Machine, Report};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "Runs one benchmark against the PostgreSQL of DATABASE_URL")]
struct Arguments {
    /// What to measure
    #[arg(required_unless_present = "list")]
    name: Option<Bench>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Seconds to measure for, all cases together, besides the time to prepare
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,

    /// Only the cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,

    /// Tenants, where a benchmark lets one choose
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    tenants: u32,

    /// List the benchmarks
    #[arg(long)]
    list: bool,

    /// A throwaway PostgreSQL, as a superuser
    #[arg(long, env, hide_env_values = true, required_unless_present = "list")]
    database_url: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// A 20-row query in a tenant's context, against the bare query and the usual idiom
    Context,
    /// The same page over HTTP by the data API, against a bare handler
    Http,
    /// Ten reads by one batch or pipeline, against ten one after the other
    Batch,
    /// What a sealed context costs, against a plain one and against tables without policies
    Seal,
    /// Pages at half the machine's rate, alone and beside 60 clients that sign in
    People,
    /// One tenant's pages beside a hundred slow requests of five others
    Fairness,
    /// Creating tenants, one after the other and in parallel
    Onboarding,
    /// Collecting and publishing the demo's analytics beside live load, against a view over all schemas
    Analytics,
    /// An ADD COLUMN and a CREATE TABLE over a fleet, against bare DDL, and a run without work
    Migrate,
    /// Pages of a whole fleet against those of a hundred tenants of it, and what the fleet's chores take
    Fleet,
    /// Whether a server grows, at half the machine's rate of a mixed load
    Soak,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for bench in Bench::value_variants() {
            let value = bench.to_possible_value().expect("no benchmark is hidden");
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            println!("{:<12}{help}", value.get_name());
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(report) if arguments.json => println!("{}", report.json()),
        Ok(report) => print!("{}", report.table()),
        Err(error) => {
            eprintln!("freehold-bench: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments) -> Result<Report> {
    let name = arguments.name.ok_or("no benchmark was named")?;
    let url = arguments.database_url.as_deref().ok_or("DATABASE_URL is not set")?;
    let (seconds, only) = (arguments.seconds, arguments.only.as_str());
    // Fixed, so that figures from machines of any size are comparable.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let machine = Machine::look(url).await?;
        let (bench, rows) = match name {
            Bench::Context => ("context", context::run(url, seconds.unwrap_or(50), only).await?),
            Bench::Http => ("http", http::run(url, seconds.unwrap_or(20), only).await?),
            Bench::Batch => ("batch", batch::run(url, seconds.unwrap_or(20), only).await?),
            Bench::Seal => ("seal", seal::run(url, seconds.unwrap_or(90), only).await?),
            Bench::People => ("people", people::run(url, seconds.unwrap_or(70)).await?),
            Bench::Fairness => ("fairness", fairness::run(url, seconds.unwrap_or(90), only).await?),
            Bench::Onboarding => {
                ("onboarding", onboarding::run(url, seconds.unwrap_or(20), only).await?)
            }
            Bench::Analytics => {
                let tenants = arguments.tenants as usize;
                ("analytics", analytics::run(url, seconds.unwrap_or(60), tenants).await?)
            }
            Bench::Fleet => {
                let tenants = arguments.tenants as usize;
                ("fleet", fleet::run(url, seconds.unwrap_or(60), tenants).await?)
            }
            Bench::Soak => ("soak", soak::run(url, seconds.unwrap_or(3600)).await?),
            Bench::Migrate => {
                let tenants = arguments.tenants as usize;
                ("migrate", migrate::run(url, seconds.unwrap_or(40), tenants).await?)
            }
        };
        Ok(Report { bench, machine, rows })
    })
}
