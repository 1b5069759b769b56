//! `freehold indexes advise|apply|drop|restore|list`: indexes of single tenants.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::indexes::{
    AdviceKind, AdviceOptions, AdviceScope, FleetIndexReport, IndexAdvice, IndexColumn,
    IndexReport, TenantIndex,
};
use freehold::{Freehold, OperatorContext, Tenant, TenantId};

use super::output::Output;
use super::{Common, Failure, Why, tenant, words};

#[derive(Subcommand)]
pub(super) enum IndexesCommand {
    /// Say what a tenant's indexes lack and have too many of; without a tenant, what those of all do
    Advise {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: Option<String>,
        /// Days for which PostgreSQL must have counted
        #[arg(long, default_value_t = AdviceOptions::default().days_min)]
        min_days: f64,
        /// Reads of a table, and requests of one kind, below which nothing is said
        #[arg(long, default_value_t = AdviceOptions::default().reads_min)]
        min_reads: i64,
        /// Rows of a table, likewise
        #[arg(long, default_value_t = AdviceOptions::default().rows_min)]
        min_rows: i64,
    },
    /// Make an index for one tenant while it works
    Apply {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: String,
        table: String,
        /// In their order; "created_at desc" for a descending one
        #[arg(required = true)]
        columns: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Drop an index of one tenant while it works: its own, or one of the baseline
    Drop {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: String,
        index: String,
        #[command(flatten)]
        why: Why,
    },
    /// Make an index of the baseline again that was dropped for one tenant
    Restore {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: String,
        index: String,
        #[command(flatten)]
        why: Why,
    },
    /// List the indexes that a tenant, or any, has or lacks on its own account
    List {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema
        #[arg(value_name = "TENANT")]
        slug: Option<String>,
    },
}

pub(super) async fn run(command: IndexesCommand) -> Result<ExitCode, Failure> {
    match command {
        IndexesCommand::Advise { common, slug, min_days, min_reads, min_rows } => {
            let context = OperatorContext::system("freehold indexes advise");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let options =
                AdviceOptions { days_min: min_days, reads_min: min_reads, rows_min: min_rows };
            let Some(slug) = slug else {
                let report = freehold.indexes().advise_fleet(&context, &options).await?;
                print_fleet(&common, &report, &options);
                return Ok(ExitCode::SUCCESS);
            };
            let (tenant, slug) = find(&freehold, &context, &slug).await?;
            let report = freehold.indexes().advise(&context, tenant, &options).await?;
            print_report(&common, &slug, &report);
        }
        IndexesCommand::Apply { common, slug, table, columns, why } => {
            let context = why.context("freehold indexes apply")?;
            let columns: Vec<IndexColumn> =
                columns.iter().map(|text| IndexColumn::parse(text)).collect::<Result<_, _>>()?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let (tenant, slug) = find(&freehold, &context, &slug).await?;
            let index = freehold.indexes().apply(&context, tenant, &table, &columns).await?;
            if common.json {
                Output::json(&index);
            } else {
                Output::text(&format!("{slug} has the index {} now", index.name));
            }
        }
        IndexesCommand::Drop { common, slug, index, why } => {
            let context = why.context("freehold indexes drop")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let (tenant, _) = find(&freehold, &context, &slug).await?;
            freehold.indexes().drop(&context, tenant, &index).await?;
            print_list(&common, &freehold.indexes().list(&context, Some(tenant)).await?);
        }
        IndexesCommand::Restore { common, slug, index, why } => {
            let context = why.context("freehold indexes restore")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let (tenant, _) = find(&freehold, &context, &slug).await?;
            freehold.indexes().restore(&context, tenant, &index).await?;
            print_list(&common, &freehold.indexes().list(&context, Some(tenant)).await?);
        }
        IndexesCommand::List { common, slug } => {
            let context = OperatorContext::system("freehold indexes list");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let tenant = tenant::find_id(&freehold, &context, slug.as_deref()).await?;
            print_list(&common, &freehold.indexes().list(&context, tenant).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(
    freehold: &Freehold,
    context: &OperatorContext,
    name: &str,
) -> Result<(TenantId, String), Failure> {
    let Tenant { id, slug, .. } = tenant::find(freehold, context, name).await?;
    Ok((id, slug.to_string()))
}

fn print_report(common: &Common, slug: &str, report: &IndexReport) {
    if common.json {
        return Output::json(report);
    }
    let asked = match report.shapes_since {
        Some(since) => {
            let kinds = words::count(report.shapes, "kind");
            format!("{kinds} of requests to the data API since {}", since.strftime("%F"))
        }
        None => "no requests to the data API".to_owned(),
    };
    Output::text(&format!(
        "evidence: PostgreSQL's counts since {} ({:.1} days), and {asked}",
        report.counted_since.strftime("%F %H:%MZ"),
        report.counted_days
    ));
    if report.advice.is_empty() {
        Output::text("nothing to do");
    }
    for advice in &report.advice {
        Output::text(&format!("\n{}\n    {}", headline(advice), advice.because));
        if let Some(what) = what_to_do(slug, advice) {
            Output::text(&format!("    → {what}"));
        }
    }
    for note in &report.notes {
        Output::text(&format!("\nnote: {note}"));
    }
}

/// `missing  orders (status, created_at desc)  some 1.2 MB, planner's cost 1250 → 8`
fn headline(advice: &IndexAdvice) -> String {
    let IndexAdvice { kind, table, index, .. } = advice;
    let columns = columns(&advice.columns);
    let mut line = match (kind, index) {
        (AdviceKind::Missing, _) | (_, None) if columns.is_empty() => table.clone(),
        (AdviceKind::Missing, _) | (_, None) => format!("{table} ({columns})"),
        (_, Some(index)) => format!("{index} on {table} ({columns})"),
    };
    line = format!("{}: {line}", kind.as_str());
    if advice.bytes > 0 {
        line.push_str(&format!(", some {}", words::bytes(advice.bytes as f64)));
    }
    if let (Some(before), Some(after)) = (advice.cost_before, advice.cost_after) {
        line.push_str(&format!(", planner's cost {before:.0} → {after:.0} (HypoPG)"));
    }
    line
}

fn what_to_do(slug: &str, advice: &IndexAdvice) -> Option<String> {
    if advice.place == AdviceScope::Baseline {
        let what = match advice.kind {
            AdviceKind::KeptByRls => "a matter of the baseline",
            _ => "the same for every tenant: by a migration",
        };
        return Some(what.to_owned());
    }
    match (advice.kind, &advice.index) {
        (AdviceKind::Missing, _) => {
            let columns = advice.columns.iter().map(|column| quoted(&column.to_string()));
            let columns: Vec<String> = columns.collect();
            let table = quoted(&advice.table);
            Some(format!("freehold indexes apply {slug} {table} {}", columns.join(" ")))
        }
        (_, Some(index)) => Some(format!("freehold indexes drop {slug} {}", quoted(index))),
        (_, None) => None,
    }
}

/// Quotes a text as one word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn print_fleet(common: &Common, report: &FleetIndexReport, options: &AdviceOptions) {
    if common.json {
        return Output::json(report);
    }
    Output::text(&format!(
        "{}; of {} PostgreSQL has counted for {} days or more",
        words::count(report.tenants, "tenant"),
        report.counted,
        options.days_min
    ));
    let heading = ["KIND", "TABLE", "INDEX", "TENANTS", "SIZE", "PLACE", "SUCH AS"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(report.advice.iter().map(|advice| {
        let columns = format!("({})", columns(&advice.columns));
        vec![
            advice.kind.as_str().to_owned(),
            advice.table.clone(),
            match (advice.kind, &advice.index) {
                (AdviceKind::Missing, _) | (_, None) => columns,
                (_, Some(index)) => index.clone(),
            },
            format!("{} of {}", advice.tenants, advice.of),
            words::bytes(advice.bytes as f64),
            advice.place.as_str().to_owned(),
            advice.examples.join(", "),
        ]
    }));
    Output::table_or(&rows, "Nothing is to be said of any.");
    Output::text("\n`freehold indexes advise TENANT` says why, and what the planner makes of it.");
}

fn print_list(common: &Common, list: &[TenantIndex]) {
    if common.json {
        return Output::json(&list);
    }
    let heading = ["SLUG", "INDEX", "TABLE", "STATE", "SINCE", "ERROR"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|index| {
        vec![
            index.slug.clone(),
            index.name.clone(),
            index.table.clone(),
            index.state.as_str().to_owned(),
            index.changed_at.map(words::time).unwrap_or_default(),
            index.error.clone().unwrap_or_default(),
        ]
    }));
    Output::table_or(&rows, "No tenant has or lacks an index on its own account.");
}

fn columns(columns: &[IndexColumn]) -> String {
    columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
