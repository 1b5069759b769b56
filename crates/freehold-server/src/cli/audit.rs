//! `freehold audit list`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::audit::{AuditEntry, AuditFilter};
use freehold::{ErrorKind, Freehold, IdentityId, OperatorContext, TenantId};
use uuid::Uuid;

use super::listing::{self, Listing, Wanted};
use super::slugs::Slugs;
use super::{Common, Failure, slugs, tenant, words};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List what was done, from the newest to the oldest; kept are 400 days
    List {
        #[command(flatten)]
        common: Common,
        /// A tenant, by its slug, id or schema: what was done in it
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// A person, by e-mail or id: what they did, and what was done to them, also if they were removed
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
        /// Begin after this id: the last of the page before
        #[arg(long, value_name = "ID")]
        after: Option<Uuid>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

pub(super) async fn run(command: AuditCommand) -> Result<ExitCode, Failure> {
    let AuditCommand::List { common, tenant: named, person, after, limit } = command;
    let context = OperatorContext::system("freehold audit list");
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let tenant = tenant::find_id(&freehold, &context, named.as_deref()).await?;
    let (person, address) = match person {
        Some(person) => about(&freehold, &context, person).await?,
        None => (None, None),
    };
    let filter = AuditFilter { tenant, person, address };
    let after = after.map(|id| id.to_string());
    let id = |entry: &AuditEntry| entry.id.to_string();
    let list = listing::by_key(Wanted::of(Some(limit)), after, id, async |after, size| {
        let after = after.and_then(|id| id.parse().ok());
        freehold.audit().list(&context, &filter, after, Some(size)).await
    });
    let list = list.await?;
    let tenants = list.items.iter().filter_map(|entry| entry.tenant.map(TenantId::from));
    let slugs = slugs::of(&freehold, &context, tenants).await?;
    print_list(&common, &list, &slugs);
    Ok(ExitCode::SUCCESS)
}

/// The person with this id or e-mail. The record may have the e-mail of a person who was removed.
async fn about(
    freehold: &Freehold,
    context: &OperatorContext,
    person: String,
) -> Result<(Option<IdentityId>, Option<String>), Failure> {
    if let Ok(id) = person.parse::<Uuid>() {
        return Ok((Some(id.into()), None));
    }
    match freehold.people().find_id(context, &person).await {
        Ok(id) => Ok((Some(id), Some(person))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((None, Some(person))),
        Err(error) => Err(error.into()),
    }
}

fn print_list(common: &Common, list: &Listing<AuditEntry>, slugs: &Slugs) {
    list.print(common.json, "--after", "The record has no such line.", |list| rows(list, slugs));
}

fn rows(list: &[AuditEntry], slugs: &Slugs) -> Vec<Vec<String>> {
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
            words::time(entry.occurred_at),
            entry.action.clone(),
            actor,
            or_dash(target),
            or_dash(entry.tenant.map(|id| slugs.name(id.into()))),
            or_dash(entry.origin.clone()),
            or_dash(entry.why.clone()),
            detail,
        ]
    }));
    rows
}
