//! `freehold insight`: what tenants do to the database.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use freehold::control::insight::{TableUsage, TenantUsage, Usage, UsageOrder};
use freehold::control::sizes::{SizeOrder, TenantGrowth};
use freehold::control::slow_queries::SlowStatement;
use freehold::{Freehold, OperatorContext};

use super::listing::{self, Listing, Wanted};
use super::output::Output;
use super::{Common, Failure, tenant, words};

/// The most slow queries that the library returns per page.
const SLOW_PAGE_MAX: i64 = 50;

#[derive(Subcommand)]
pub(super) enum InsightCommand {
    /// List tenants by what their statements cost, the greatest first
    Tenants {
        #[command(flatten)]
        common: Common,
        /// What to order by
        #[arg(long, default_value = "time", value_parser = PossibleValuesParser::new(UsageOrder::ALL.map(UsageOrder::as_str)))]
        order: String,
        /// The current hour and so many before it
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(i32).range(1..=25))]
        hours: i32,
        /// How many to pass over
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show what one tenant's statements cost, by table
    Tenant {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: String,
        /// The current hour and so many before it
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(i32).range(1..=25))]
        hours: i32,
    },
    /// List tenants by what their schemas take, or how fast that grows
    Sizes {
        #[command(flatten)]
        common: Common,
        /// What to order by
        #[arg(long, default_value = "growth", value_parser = ["growth", "bytes"])]
        order: String,
        /// Measure first
        #[arg(long)]
        measure: bool,
        /// How many to pass over
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show statements that took long, with their plans; what was slow last comes first
    Slow {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema: only its own
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// How many to pass over
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

pub(super) async fn run(command: InsightCommand) -> Result<ExitCode, Failure> {
    match command {
        InsightCommand::Tenants { common, order, hours, offset, limit } => {
            let context = OperatorContext::system("freehold insight tenants");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let order = UsageOrder::parse(&order)?;
            let wanted = Wanted::of(Some(limit));
            let list = listing::by_offset(wanted, offset, async |offset, size| {
                freehold.usage().list(&context, order, Some(hours), Some(offset), Some(size)).await
            });
            let list = list.await?;
            list.print(common.json, OFFSET, "No tenant has run a statement.", tenants);
            note_window(&common, hours);
        }
        InsightCommand::Tenant { common, slug, hours } => {
            let context = OperatorContext::system("freehold insight tenant");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = tenant::find(&freehold, &context, &slug).await?.id;
            print_tables(&common, &freehold.usage().get(&context, id, Some(hours)).await?);
            note_window(&common, hours);
        }
        InsightCommand::Sizes { common, order, measure, offset, limit } => {
            let context = OperatorContext::system("freehold insight sizes");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            if measure {
                freehold.sizes().measure(&context).await?;
            }
            let order = if order == "bytes" { SizeOrder::Bytes } else { SizeOrder::Growth };
            let wanted = Wanted::of(Some(limit));
            let list = listing::by_offset(wanted, offset, async |offset, size| {
                freehold.sizes().list(&context, order, Some(offset), Some(size)).await
            });
            list.await?.print(
                common.json,
                OFFSET,
                "Nothing has been measured yet: a server does it every SIZES_EVERY_SECS, --measure now.",
                sizes,
            );
        }
        InsightCommand::Slow { common, tenant, offset, limit } => {
            let context = OperatorContext::system("freehold insight slow");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let tenant = tenant::find_id(&freehold, &context, tenant.as_deref()).await?;
            let wanted = Wanted { limit: Some(limit), page_max: SLOW_PAGE_MAX };
            let list = listing::by_offset(wanted, offset, async |offset, size| {
                freehold.slow_queries().list(&context, tenant, Some(offset), Some(size)).await
            });
            print_slow(&common, &list.await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The flag for the next page.
const OFFSET: &str = "--offset";

/// Prints the period of the figures, and what they may lack.
fn note_window(common: &Common, hours: i32) {
    if common.json {
        return;
    }
    let before = match hours - 1 {
        0 => String::new(),
        more => format!(" and the {} before it", words::count(more, "hour")),
    };
    Output::note(&format!(
        "Of the current hour{before}. Servers add what they have counted every INSIGHT_WRITE_SECS, 60 s if not set."
    ));
}

fn print_slow(common: &Common, list: &Listing<SlowStatement>) {
    if common.json {
        return Output::json(list);
    }
    if list.items.is_empty() {
        return Output::text("No statement has taken SLOW_QUERY_MS or longer.");
    }
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
    for row in &list.items {
        let SlowStatement { slug, table, count, failed, .. } = row;
        let (slowest, all) = (ms(row.slowest_us), ms(row.total_us));
        Output::text(&format!(
            "{slug}  {table}  {}, {failed} failed, {all} in all, last at {}",
            words::count(*count, "time"),
            words::time(row.last_at)
        ));
        let request = row.slowest_request_id.as_deref().unwrap_or("-");
        let (rows, at) = (words::count(row.slowest_rows, "row"), words::time(row.slowest_at));
        Output::text(&format!("  slowest {slowest}, {rows}, at {at}, request {request}"));
        Output::text(&format!("  {}", row.statement));
        let plan = row.plan_lines();
        let none = (plan.is_empty()).then(|| "no plan yet".to_owned());
        plan.into_iter().chain(none).for_each(|line| Output::text(&format!("    {line}")));
        Output::text("");
    }
    list.note_more(OFFSET);
}

fn sizes(list: &[TenantGrowth]) -> Vec<Vec<String>> {
    let heading = ["SLUG", "TENANT", "SIZE", "ROWS", "A DAY", "IN 30 DAYS", "MEASURED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|row| {
        vec![
            row.slug.clone(),
            row.tenant.to_string(),
            words::bytes(row.bytes as f64),
            row.rows.to_string(),
            words::bytes(row.bytes_per_day),
            words::bytes(row.forecast_bytes),
            words::time(row.measured_at),
        ]
    }));
    rows
}

fn cells(usage: &Usage) -> Vec<String> {
    let ms = |us: u64| format!("{:.1}", us as f64 / 1e3);
    vec![
        usage.queries.to_string(),
        usage.rows.to_string(),
        usage.errors.to_string(),
        ms(usage.time_us),
        ms(usage.wait_us),
    ]
}

fn heading(first: &[&str]) -> Vec<String> {
    let rest = ["QUERIES", "ROWS", "ERRORS", "TIME MS", "WAIT MS"];
    first.iter().chain(&rest).map(|cell| (*cell).to_owned()).collect()
}

fn tenants(list: &[TenantUsage]) -> Vec<Vec<String>> {
    let mut rows = vec![heading(&["SLUG", "TENANT"])];
    rows.extend(
        list.iter().map(|row| {
            [vec![row.slug.clone(), row.tenant.to_string()], cells(&row.usage)].concat()
        }),
    );
    rows
}

fn print_tables(common: &Common, list: &[TableUsage]) {
    if common.json {
        return Output::json(&list);
    }
    let mut rows = vec![heading(&["TABLE"])];
    rows.extend(list.iter().map(|row| [vec![row.table.clone()], cells(&row.usage)].concat()));
    Output::table_or(&rows, "It has run no statement.");
}
