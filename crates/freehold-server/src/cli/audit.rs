//! `freehold audit list`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::audit::{AuditEntry, AuditFilter};
use freehold::{Freehold, OperatorContext};
use uuid::Uuid;

use super::output::Output;
use super::{Common, Failure};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List what was done, from the newest to the oldest; kept are 400 days
    List {
        #[command(flatten)]
        common: Common,
        /// The slug of a tenant: what was done in it
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// The e-mail of a person: what they did, and what was done to them
        #[arg(long, value_name = "EMAIL")]
        person: Option<String>,
        /// Begin after this id: the last of the page before
        #[arg(long, value_name = "ID")]
        after: Option<Uuid>,
        /// How many at most (200 a page)
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
}

pub(super) async fn run(command: AuditCommand) -> Result<ExitCode, Failure> {
    let AuditCommand::List { common, tenant, person, after, limit } = command;
    let context = OperatorContext::system("freehold audit list");
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let tenant = match tenant {
        Some(slug) => Some(freehold.get_tenant_by_slug(&context, &slug).await?.id),
        None => None,
    };
    let person = match person {
        Some(email) => Some(freehold.find_person_id(&context, &email).await?),
        None => None,
    };
    let filter = AuditFilter { tenant, person };
    print_list(&common, &freehold.list_audit(&context, &filter, after, Some(limit)).await?);
    Ok(ExitCode::SUCCESS)
}

fn print_list(common: &Common, list: &[AuditEntry]) {
    if common.json {
        return Output::json(&list);
    }
    let heading = ["OCCURRED", "ACTION", "ACTOR", "TARGET", "TENANT", "FROM", "WHY", "DETAIL"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(list.iter().map(|entry| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let actor = match entry.actor {
            Some(id) if id.is_nil() => "system".to_owned(),
            other => or_dash(other.map(|id| id.to_string())),
        };
        let target = entry.target_email.clone().or_else(|| entry.target.map(|id| id.to_string()));
        let detail = match entry.detail.as_object() {
            Some(fields) if !fields.is_empty() => entry.detail.to_string(),
            _ => "-".to_owned(),
        };
        vec![
            entry.occurred_at.to_string(),
            entry.action.clone(),
            actor,
            or_dash(target),
            or_dash(entry.tenant.map(|id| id.to_string())),
            or_dash(entry.origin.clone()),
            or_dash(entry.why.clone()),
            detail,
        ]
    }));
    Output::table(&rows);
}
