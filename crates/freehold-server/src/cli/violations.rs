//! `freehold violations list`.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use freehold::control::violations::{RecordedViolation, ViolationFilter, ViolationKind};
use freehold::{Freehold, OperatorContext};
use uuid::Uuid;

use super::output::Output;
use super::{Common, Failure};

#[derive(Subcommand)]
pub(super) enum ViolationsCommand {
    /// List violations from the newest to the oldest
    List {
        #[command(flatten)]
        common: Common,
        /// The slug of a tenant: those that it made, and those that were directed at it
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// Only those of this kind
        #[arg(long, value_parser = PossibleValuesParser::new(ViolationKind::ALL.map(ViolationKind::as_str)))]
        kind: Option<String>,
        /// Begin after this id: the last of the page before
        #[arg(long, value_name = "ID")]
        after: Option<Uuid>,
        /// How many at most (200 a page)
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
}

pub(super) async fn run(command: ViolationsCommand) -> Result<ExitCode, Failure> {
    let ViolationsCommand::List { common, tenant, kind, after, limit } = command;
    let context = OperatorContext::system("freehold violations list");
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let tenant = match tenant {
        Some(slug) => Some(freehold.get_tenant_by_slug(&context, &slug).await?.id),
        None => None,
    };
    let kind = kind.as_deref().map(ViolationKind::parse).transpose()?;
    let filter = ViolationFilter { tenant, kind };
    let list = freehold.list_violations(&context, &filter, after, Some(limit)).await?;
    print_list(&common, &list);
    Ok(ExitCode::SUCCESS)
}

fn print_list(common: &Common, list: &[RecordedViolation]) {
    if common.json {
        return Output::json(&list);
    }
    let heading = [
        "OCCURRED",
        "KIND",
        "COUNT",
        "TENANT",
        "TARGET",
        "ACTOR",
        "REQUEST",
        "STATEMENT OR REASON",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|row| {
        let violation = &row.violation;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            row.occurred_at.to_string(),
            violation.kind.as_str().to_owned(),
            row.count.to_string(),
            or_dash(violation.tenant.map(|t| t.to_string())),
            or_dash(violation.target.map(|t| t.to_string())),
            or_dash(violation.actor.map(|a| a.to_string())),
            or_dash(row.request_id.clone()),
            or_dash(violation.statement.clone().or_else(|| violation.reason.clone())),
        ]
    }));
    Output::table(&rows);
}
