//! `freehold insight`: what tenants do to the database.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use freehold::control::insight::{TableUsage, TenantUsage, Usage, UsageOrder};
use freehold::control::sizes::{SizeOrder, TenantGrowth};
use freehold::control::slow_queries::SlowStatement;
use freehold::{Freehold, OperatorContext};

use super::output::Output;
use super::{Common, Failure};

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
        #[arg(long, default_value_t = 0)]
        offset: i64,
        /// How many at most (200 a page)
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Show what one tenant's statements cost, by table
    Tenant {
        #[command(flatten)]
        common: Common,
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
        #[arg(long, default_value_t = 0)]
        offset: i64,
        /// How many at most (200 a page)
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Show statements that took long, with their plans; what was slow last comes first
    Slow {
        #[command(flatten)]
        common: Common,
        /// The slug of a tenant: only its own
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// How many to pass over
        #[arg(long, default_value_t = 0)]
        offset: i64,
        /// How many at most (50 a page)
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
}

pub(super) async fn run(command: InsightCommand) -> Result<ExitCode, Failure> {
    match command {
        InsightCommand::Tenants { common, order, hours, offset, limit } => {
            let context = OperatorContext::system("freehold insight tenants");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let order = UsageOrder::parse(&order)?;
            let list = freehold
                .list_usage(&context, order, Some(hours), Some(offset), Some(limit))
                .await?;
            print_tenants(&common, &list);
        }
        InsightCommand::Tenant { common, slug, hours } => {
            let context = OperatorContext::system("freehold insight tenant");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.get_tenant_by_slug(&context, &slug).await?.id;
            print_tables(&common, &freehold.usage_of(&context, id, Some(hours)).await?);
        }
        InsightCommand::Sizes { common, order, measure, offset, limit } => {
            let context = OperatorContext::system("freehold insight sizes");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            if measure {
                freehold.measure_sizes(&context).await?;
            }
            let order = if order == "bytes" { SizeOrder::Bytes } else { SizeOrder::Growth };
            let list = freehold.list_sizes(&context, order, Some(offset), Some(limit)).await?;
            print_sizes(&common, &list);
        }
        InsightCommand::Slow { common, tenant, offset, limit } => {
            let context = OperatorContext::system("freehold insight slow");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let tenant = match tenant {
                Some(slug) => Some(freehold.get_tenant_by_slug(&context, &slug).await?.id),
                None => None,
            };
            let list =
                freehold.list_slow_queries(&context, tenant, Some(offset), Some(limit)).await?;
            print_slow(&common, &list);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_slow(common: &Common, list: &[SlowStatement]) {
    if common.json {
        return Output::json(&list);
    }
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
    for row in list {
        let SlowStatement { slug, table, count, failed, .. } = row;
        let (slowest, all) = (ms(row.slowest_us), ms(row.total_us));
        Output::text(&format!(
            "{slug}  {table}  {count} times, {failed} failed, {all} in all, last at {}",
            row.last_at
        ));
        let request = row.slowest_request_id.as_deref().unwrap_or("-");
        let (rows, at) = (row.slowest_rows, row.slowest_at);
        Output::text(&format!("  slowest {slowest}, {rows} rows, at {at}, request {request}"));
        Output::text(&format!("  {}", row.statement));
        let plan = row.plan_lines();
        let none = (plan.is_empty()).then(|| "no plan yet".to_owned());
        plan.into_iter().chain(none).for_each(|line| Output::text(&format!("    {line}")));
        Output::text("");
    }
}

fn print_sizes(common: &Common, list: &[TenantGrowth]) {
    if common.json {
        return Output::json(&list);
    }
    let heading = ["SLUG", "TENANT", "BYTES", "ROWS", "BYTES A DAY", "IN 30 DAYS", "MEASURED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|row| {
        vec![
            row.slug.clone(),
            row.tenant.to_string(),
            row.bytes.to_string(),
            row.rows.to_string(),
            format!("{:.0}", row.bytes_per_day),
            format!("{:.0}", row.forecast_bytes),
            row.measured_at.to_string(),
        ]
    }));
    Output::table(&rows);
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

fn print_tenants(common: &Common, list: &[TenantUsage]) {
    if common.json {
        return Output::json(&list);
    }
    let mut rows = vec![heading(&["SLUG", "TENANT"])];
    rows.extend(
        list.iter().map(|row| {
            [vec![row.slug.clone(), row.tenant.to_string()], cells(&row.usage)].concat()
        }),
    );
    Output::table(&rows);
}

fn print_tables(common: &Common, list: &[TableUsage]) {
    if common.json {
        return Output::json(&list);
    }
    let mut rows = vec![heading(&["TABLE"])];
    rows.extend(list.iter().map(|row| [vec![row.table.clone()], cells(&row.usage)].concat()));
    Output::table(&rows);
}
