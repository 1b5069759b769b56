//! `freehold analytics apply|list|run|show`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use freehold::control::PAGE_MAX;
use freehold::control::analytics::{
    AnalyticsPage, AnalyticsQuery, AnalyticsScope, AnalyticsStatus,
};
use freehold::{
    AnalyticsFolder, AnalyticsOptions, AnalyticsRun, ErrorKind, Freehold, OperatorContext,
};
use serde_json::{Map, Value, json};

use super::output::Output;
use super::{Common, Failure, Why, migrate, tenant, words};
use crate::config::AnalyticsSettings;

const NONE: &str = "There are no analytics: `freehold analytics apply` makes them.";

/// The interval at which to check whether another run has ended.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

#[derive(Subcommand)]
pub(super) enum AnalyticsCommand {
    /// Make the definitions those of a folder: new ones are added, others rebuilt or removed
    Apply {
        #[command(flatten)]
        common: Common,
        /// The folder of SQL files, one for each definition
        #[arg(long, value_name = "FOLDER", default_value = "analytics")]
        folder: PathBuf,
        #[command(flatten)]
        why: Why,
    },
    /// List the definitions, how old their figures are and of how many tenants
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Collect and publish now: all definitions, or one
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        analytics: AnalyticsSettings,
        /// One of them; all, if not given
        name: Option<String>,
        /// Read only what changed since the last run, as the schedule does
        #[arg(long)]
        changed_only: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Show figures across tenants, the newest first, and whom they lack
    Show {
        #[command(flatten)]
        common: Common,
        /// Which of them
        name: String,
        /// The rows of one tenant, by its slug, id or schema
        #[arg(long, conflicts_with = "by_tenant")]
        tenant: Option<String>,
        /// The rows of each tenant
        #[arg(long)]
        by_tenant: bool,
        /// How many rows at most
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
}

pub(super) async fn run(command: AnalyticsCommand) -> Result<ExitCode, Failure> {
    match command {
        AnalyticsCommand::Apply { common, folder, why } => apply(&common, folder, &why).await,
        AnalyticsCommand::List { common } => list(&common).await,
        AnalyticsCommand::Run { common, analytics, name, changed_only, why } => {
            let options = AnalyticsOptions { changed_only, ..analytics.options() };
            run_now(&common, options, name, &why).await
        }
        AnalyticsCommand::Show { common, name, tenant, by_tenant, limit } => {
            show(&common, &name, tenant.as_deref(), by_tenant, limit as usize).await
        }
    }
}

async fn apply(common: &Common, folder: PathBuf, why: &Why) -> Result<ExitCode, Failure> {
    let folder = AnalyticsFolder::read(folder)?;
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let context = why.context("freehold analytics apply")?;
    let applied = freehold.analytics().apply(&context, &folder).await?;
    if common.json {
        Output::json(&applied);
        return Ok(ExitCode::SUCCESS);
    }
    let before = [&applied.added, &applied.rebuilt, &applied.kept, &applied.removed];
    if before.iter().all(|names| names.is_empty()) {
        Output::text("Nothing has changed.");
    }
    let said =
        ["added", "changed, to be collected anew", "changed in its schedule or words", "removed"];
    for (names, what) in before.iter().zip(said) {
        for name in *names {
            Output::text(&format!("{name}: {what}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(common: &Common) -> Result<ExitCode, Failure> {
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let list =
        freehold.analytics().list(&OperatorContext::system("freehold analytics list")).await?;
    if common.json {
        Output::json(&list);
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["NAME", "EVERY", "AS OF", "TENANTS", "OLDEST", "ABOUT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|status| {
        let AnalyticsStatus { outline, schedule_secs, publication, .. } = status;
        let published =
            |text: &dyn Fn(&freehold::control::analytics::AnalyticsPublication) -> String| {
                publication.as_ref().map_or_else(|| "-".to_owned(), text)
            };
        vec![
            outline.name.clone(),
            words::duration(*schedule_secs),
            published(&|p| words::time(p.as_of)),
            published(&|p| format!("{} of {}", p.fresh, p.tenants)),
            published(&|p| p.oldest_as_of.map_or_else(|| "-".to_owned(), words::time)),
            outline.about.clone(),
        ]
    }));
    Output::table_or(&rows, NONE);
    for status in &list {
        if let Some(error) = &status.error {
            Output::note(&format!("failed: the last run of {}: {error}", status.outline.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_now(
    common: &Common,
    options: AnalyticsOptions,
    name: Option<String>,
    why: &Why,
) -> Result<ExitCode, Failure> {
    let context = why.context("freehold analytics run")?;
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let names = name.map(|name| vec![name]);
    let bar = migrate::progress_bar();
    let mut is_told = false;
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let runs = loop {
        let run = freehold.analytics().run(&context, names.as_deref(), options, &progress);
        match run.await {
            // Usually a server's scheduled run: it ends, and what it published may be outdated by then.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if !is_told {
                    Output::note(&format!("{}; waiting for that", error.message()));
                    is_told = true;
                }
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => {
                return Err(or_nearest(&freehold, &context, error, names.as_deref()).await);
            }
            Ok(runs) => break runs,
        }
    };
    bar.finish_and_clear();
    if common.json {
        Output::json(&runs);
    } else if runs.is_empty() {
        Output::text(NONE);
    } else {
        runs.iter().for_each(print_run);
    }
    let whole = runs.iter().all(|run| run.failed == 0);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The error for an unknown definition, with similar names.
async fn or_nearest(
    freehold: &Freehold,
    context: &OperatorContext,
    error: freehold::Error,
    names: Option<&[String]>,
) -> Failure {
    let ([name], ErrorKind::NotFound) = (names.unwrap_or_default(), error.kind()) else {
        return error.into();
    };
    let Ok(list) = freehold.analytics().list(context).await else { return error.into() };
    let known = || list.iter().map(|status| status.outline.name.as_str());
    let advice = match words::nearest(name, known()) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None if list.is_empty() => NONE.to_owned(),
        None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
    };
    format!("there are no analytics {name}; {advice}").into()
}

fn print_run(run: &AnalyticsRun) {
    let AnalyticsRun { name, tenants, collected, unchanged, failed, withheld, .. } = run;
    Output::text(&format!(
        "{name}: published; {collected} of {} collected, {unchanged} had not changed",
        words::count(*tenants, "tenant")
    ));
    if *withheld > 0 {
        Output::text(&format!("  {}", withheld_line(*withheld)));
    }
    for failure in &run.failures {
        Output::note(&format!("failed: {name} of {}: {}", failure.tenant, failure.error));
    }
    if *failed > 0 {
        Output::note(&format!(
            "Tenants that failed: {failed}. Their figures are as old as they were"
        ));
    }
}

async fn show(
    common: &Common,
    name: &str,
    tenant: Option<&str>,
    by_tenant: bool,
    limit: usize,
) -> Result<ExitCode, Failure> {
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let context = OperatorContext::system("freehold analytics show");
    let scope = match tenant {
        Some(slug) => AnalyticsScope::Tenant(tenant::find(&freehold, &context, slug).await?.id),
        None if by_tenant => AnalyticsScope::EveryTenant,
        None => AnalyticsScope::Fleet,
    };
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut query = AnalyticsQuery::default();
    let page = loop {
        let wanted = (limit - rows.len()).min(PAGE_MAX as usize);
        query.limit = Some(wanted as i64);
        let page = match freehold.analytics().read(&context, name, scope, &query).await {
            Ok(page) => page,
            Err(error) => {
                return Err(or_nearest(&freehold, &context, error, Some(&[name.to_owned()])).await);
            }
        };
        rows.append(&mut serde_json::from_str(&page.rows)?);
        query.after = page.next.clone();
        if page.next.is_none() || rows.len() >= limit {
            break page;
        }
    };
    let stale = freehold.analytics().list_stale_tenants(&context, name, None).await?;
    if common.json {
        Output::json(&json!({
            "name": name, "rows": rows, "publication": page.publication, "as_of": page.as_of,
            "stale_tenants": stale,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    print_rows(&page, &rows);
    match (&page.publication, page.as_of) {
        (_, Some(as_of)) => Output::text(&format!("\nAs of {}.", words::time(as_of))),
        (Some(p), None) => {
            let oldest = p.oldest_as_of.map_or_else(|| "-".to_owned(), words::time);
            Output::text(&format!(
                "\nAs of {}; {} of {} fresh, the oldest figures are of {oldest}.",
                words::time(p.as_of),
                p.fresh,
                words::count(p.tenants, "tenant")
            ));
            if p.withheld > 0 {
                Output::text(&format!("{}.", withheld_line(p.withheld)));
            }
        }
        (None, None) => {
            Output::text("\nNothing is published yet: `freehold analytics run` does it.");
        }
    }
    for tenant in stale {
        Output::note(&format!("stale: {}: {}", tenant.tenant, tenant.error));
    }
    Ok(ExitCode::SUCCESS)
}

fn withheld_line(groups: impl TryInto<u64>) -> String {
    format!("{} of too few tenants withheld", words::count(groups, "group"))
}

fn print_rows(page: &AnalyticsPage, rows: &[Map<String, Value>]) {
    let mut names: Vec<&str> = page.outline.grain.iter().map(String::as_str).collect();
    // The additional columns are the tenant, or the number of tenants.
    let first = rows.first();
    if first.is_some_and(|row| row.contains_key("tenant")) {
        names.insert(0, "tenant");
    }
    if first.is_some_and(|row| row.contains_key("tenants")) {
        names.push("tenants");
    }
    names.extend(page.outline.measures.iter().map(String::as_str));
    let mut table = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    table.extend(rows.iter().map(|row| names.iter().map(|name| cell(row.get(*name))).collect()));
    Output::table_or(&table, "There are no figures.");
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
