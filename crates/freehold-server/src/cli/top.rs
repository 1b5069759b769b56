//! `freehold top`: the busiest tenants at this moment.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use freehold::control::insight::BusyTenant;
use freehold::{Freehold, OperatorContext};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Output, aligned};
use super::{Common, Failure};

/// One page: more tenants than are shown, so that shares refer to all busy tenants.
const ALL: i64 = 200;

const NONE: &str = "no tenant is busy";

#[derive(clap::Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    common: Common,
    /// Print one table and end; so it is too with --json, and where the output is no terminal
    #[arg(long)]
    once: bool,
    /// Seconds between two tables; servers say every five who is busy
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// How many tenants at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    limit: u64,
}

/// A tenant and its share of the time of all statements.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    tenant: BusyTenant,
    time_share: f64,
}

pub(super) async fn run(args: TopArgs) -> Result<ExitCode, Failure> {
    let freehold = Freehold::connect(&args.common.database.options()?).await?;
    let limit = usize::try_from(args.limit)?;
    if args.common.json {
        Output::json(&busiest(&freehold, limit).await?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.once || !std::io::stdout().is_terminal() {
        Output::table_or(&rows(&busiest(&freehold, limit).await?), NONE);
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let watch = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(args.interval));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            Output::screen(&match busiest(&freehold, limit).await {
                Ok(list) if list.is_empty() => vec![NONE.to_owned()],
                Ok(list) => aligned(&rows(&list)),
                // The command is used when the database is in trouble; the next attempt may succeed.
                Err(failure) => vec![format!("error: {failure}")],
            });
        }
    };
    tokio::select! {
        () = watch => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn busiest(freehold: &Freehold, limit: usize) -> Result<Vec<Shown>, Failure> {
    let context = OperatorContext::system("freehold top");
    let list = freehold.usage().list_busiest(&context, Some(ALL)).await?;
    let all: f64 = list.iter().map(|tenant| tenant.running).sum();
    let share = |running: f64| if all > 0.0 { running / all } else { 0.0 };
    let shown = |tenant: BusyTenant| Shown { time_share: share(tenant.running), tenant };
    Ok(list.into_iter().take(limit).map(shown).collect())
}

fn rows(list: &[Shown]) -> Vec<Vec<String>> {
    let heading = ["TENANT", "QUERIES/S", "ROWS/S", "TIME", "ERRORS/S", "WAITING"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|Shown { tenant, time_share }| {
        vec![
            tenant.slug.clone(),
            format!("{:.1}", tenant.queries_per_second),
            format!("{:.1}", tenant.rows_per_second),
            format!("{:.1}%", time_share * 100.0),
            format!("{:.1}", tenant.errors_per_second),
            format!("{:.2}", tenant.waiting),
        ]
    }));
    rows
}
