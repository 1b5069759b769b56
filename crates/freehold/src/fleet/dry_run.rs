//! Dry runs: reports what the migrator would do, by running the new files and rolling them back.
//!
//! All of them run in one transaction on the template.

use crate::catalog::{baseline, tenants};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::migrator::{Former, MigrateOptions, OtherRun, pending, rehearsed};
use crate::model::context::OperatorContext;
use crate::pool::Pool;
use crate::schema::migration::{Baseline, Layout};
use crate::tx::{CatalogTx, OwnerTx};

/// What a run of the migrator would do.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct DryRun {
    /// The tool whose layout the folder has.
    pub layout: Option<Layout>,
    /// The newest migration of the folder.
    pub version: i64,
    /// The new files in order, and the outcome of each.
    pub files: Vec<(String, Verdict)>,
    /// How many tenants would be migrated from each older version.
    pub behind: Vec<(i64, i64)>,
    /// The parts of the new files that work differently from how they read.
    pub notices: Vec<String>,
}

/// The outcome for a new file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
#[non_exhaustive]
pub enum Verdict {
    /// The template accepts it.
    Taken,
    /// It is refused, with its line and what to do.
    Refused(String),
    /// It was not tried, or not in the way it would run; the reason.
    Unknown(String),
}

impl DryRun {
    /// Whether no file would be refused, as far as is known.
    pub fn would_succeed(&self) -> bool {
        !self.files.iter().any(|(_, verdict)| matches!(verdict, Verdict::Refused(_)))
    }
}

pub(crate) async fn run(
    owner: &Pool,
    folder: &Baseline,
    options: &MigrateOptions,
) -> Result<DryRun> {
    let new = pending(owner, folder).await?;
    let version = folder.migrations().last().map_or(0, |m| m.version);
    let mut tx = CatalogTx::new(owner, &OperatorContext::system("migration dry run")).await?;
    let mut behind = tenants::count_by_version(&mut tx).await?;
    tx.commit().await?;
    behind.retain(|(at, _)| *at < version);
    let mut outcome = DryRun { layout: folder.layout(), version, behind, ..DryRun::default() };
    if new.is_empty() {
        return Ok(outcome);
    }
    // Always dropped without a commit.
    let mut tx = OwnerTx::new(owner, &OperatorContext::system("migration dry run")).await?;
    baseline::lock(tx.catalog()).await?;
    let timeout = format!("SET LOCAL lock_timeout = {}", options.lock_timeout.as_millis());
    tx.batch_execute(&timeout).await?;
    let mut former = Former::of(baseline::newest_snapshot(tx.catalog()).await?);
    for (at, migration) in new.iter().enumerate() {
        let tried = rehearsed(&mut tx, &former, migration, OtherRun::Never).await;
        let verdict = match tried {
            Ok(made) => {
                if let Some((made, notices)) = made {
                    former = Former { version: migration.version, template: made };
                    let label = migration.label.clone();
                    let notices = notices.iter().map(|notice| format!("{label}: {notice}"));
                    outcome.notices.extend(notices);
                }
                Verdict::Taken
            }
            // A real run commits between the two.
            Err(error) if at > 0 && is_of_one_transaction(&error) => Verdict::Unknown(format!(
                "it needs what a file before it has added to be committed: {error}"
            )),
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => Verdict::Refused(error.to_string()),
        };
        let goes_on = verdict == Verdict::Taken;
        outcome.files.push((migration.label.clone(), verdict));
        if !goes_on {
            let untried = Verdict::Unknown("a file before it was not taken".into());
            let rest = new[at + 1..].iter().map(|later| (later.label.clone(), untried.clone()));
            outcome.files.extend(rest);
            break;
        }
    }
    let labels: Vec<String> = outcome.files.iter().map(|(label, _)| label.clone()).collect();
    outcome.notices.extend(folder.notices(&labels));
    Ok(outcome)
}

/// Errors that occur in the transaction that added an enum value, but not in a later one.
fn is_of_one_transaction(error: &Error) -> bool {
    error.database().is_some_and(|db| db.code().code() == "55P04")
}
