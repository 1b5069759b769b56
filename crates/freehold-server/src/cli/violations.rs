//! `freehold violations list`.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use freehold::control::violations::{RecordedViolation, ViolationFilter, ViolationKind};
use freehold::{Freehold, OperatorContext};
use uuid::Uuid;

use super::listing::{self, Listing, Wanted};
use super::output::{Output, aligned};
use super::slugs::{self, Slugs};
use super::{Common, Failure, tenant, words};

#[derive(Subcommand)]
pub(super) enum ViolationsCommand {
    /// List violations from the newest to the oldest
    List {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema: those that it made, and those that were directed at it
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Only those of this kind
        #[arg(long, value_parser = PossibleValuesParser::new(ViolationKind::ALL.map(ViolationKind::as_str)))]
        kind: Option<String>,
        /// Begin after this id: the last of the page before
        #[arg(long, value_name = "ID")]
        after: Option<Uuid>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

pub(super) async fn run(command: ViolationsCommand) -> Result<ExitCode, Failure> {
    let ViolationsCommand::List { common, tenant: named, kind, after, limit } = command;
    let context = OperatorContext::system("freehold violations list");
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let tenant = tenant::find_id(&freehold, &context, named.as_deref()).await?;
    let kind = kind.as_deref().map(ViolationKind::parse).transpose()?;
    let filter = ViolationFilter { tenant, kind };
    let after = after.map(|id| id.to_string());
    let id = |row: &RecordedViolation| row.id.to_string();
    let list = listing::by_key(Wanted::of(Some(limit)), after, id, async |after, size| {
        let after = after.and_then(|id| id.parse().ok());
        freehold.violations().list(&context, &filter, after, Some(size)).await
    });
    let list = list.await?;
    let tenants = list.items.iter().flat_map(|row| [row.violation.tenant, row.violation.target]);
    let slugs = slugs::of(&freehold, &context, tenants.flatten()).await?;
    print_list(&common, &list, &slugs);
    Ok(ExitCode::SUCCESS)
}

fn print_list(common: &Common, list: &Listing<RecordedViolation>, slugs: &Slugs) {
    if common.json {
        return Output::json(list);
    }
    if list.items.is_empty() {
        return Output::text("There are no such violations.");
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let heading = ["OCCURRED", "KIND", "COUNT", "TENANT", "TARGET"].map(str::to_owned).to_vec();
    let row = |row: &RecordedViolation| {
        let violation = &row.violation;
        vec![
            words::time(row.occurred_at),
            violation.kind.as_str().to_owned(),
            row.count.to_string(),
            or_dash(violation.tenant.map(|tenant| slugs.name(tenant))),
            or_dash(violation.target.map(|tenant| slugs.name(tenant))),
        ]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(list.items.iter().map(row)).collect();
    let mut lines = aligned(&rows).into_iter();
    lines.by_ref().take(1).for_each(|heading| Output::text(&heading));
    // Long texts have lines of their own, so that the columns fit a terminal.
    for (line, row) in lines.zip(&list.items) {
        let violation = &row.violation;
        Output::line(&line);
        if let Some(what) = violation.statement.as_ref().or(violation.reason.as_ref()) {
            Output::line(&format!("    {what}"));
        }
        let actor = violation.actor.map(|actor| format!("actor {actor}"));
        let request = row.request_id.as_ref().map(|request| format!("request {request}"));
        for who in actor.into_iter().chain(request) {
            Output::line(&format!("    {who}"));
        }
    }
    list.note_more("--after");
}
