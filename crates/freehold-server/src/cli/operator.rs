//! `freehold operator create|list|revoke`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use freehold::control::people::PersonRef;
use freehold::{Freehold, OperatorContext};

use super::listing::{self, Wanted};
use super::output::Output;
use super::person::{email_of, print_list};
use super::{Common, Failure, Why};

#[derive(Subcommand)]
pub(super) enum OperatorCommand {
    /// Make a person an operator, who may manage tenants and people through the API
    Create {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        #[command(flatten)]
        means: Means,
        #[command(flatten)]
        why: Why,
    },
    /// List operators in the order of their e-mails
    List {
        #[command(flatten)]
        common: Common,
        /// Begin after this e-mail
        #[arg(long)]
        after: Option<String>,
        /// How many at most; all, if not given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Make an operator an ordinary person again, within a second; ends the operator's sessions
    Revoke {
        #[command(flatten)]
        common: Common,
        /// The operator's e-mail
        email: String,
        #[command(flatten)]
        why: Why,
    },
}

/// Whether an e-mail means a new person or a known one.
#[derive(Args)]
pub(super) struct Means {
    /// The password of a new person, for whose e-mail you vouch; from the environment it stays out of
    /// the process list
    #[arg(
        long,
        env = "FREEHOLD_PASSWORD",
        value_name = "FREEHOLD_PASSWORD",
        hide_env_values = true,
        conflicts_with = "existing"
    )]
    password: Option<String>,
    /// The e-mail is that of a known person, who keeps their password
    #[arg(long)]
    pub(super) existing: bool,
}

impl Means {
    pub(super) fn named(self, email: String) -> PersonRef {
        PersonRef { email, password: self.password, existing: self.existing }
    }

    /// A new person, for whom the caller does not vouch.
    pub(super) fn invites(&self) -> bool {
        self.password.is_none() && !self.existing
    }
}

pub(super) async fn run(command: OperatorCommand) -> Result<ExitCode, Failure> {
    match command {
        OperatorCommand::Create { common, email, means, why } => {
            let context = why.context("freehold operator create")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let made = freehold.operators().create(&context, means.named(email)).await?;
            match common.json {
                true => Output::json(&made),
                false => Output::text(&format!("{} is an operator", made.email)),
            }
        }
        OperatorCommand::List { common, after, limit } => {
            let context = OperatorContext::system("freehold operator list");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let list = listing::by_key(Wanted::of(limit), after, email_of, async |after, size| {
                freehold.operators().list(&context, after, Some(size)).await
            });
            print_list(&common, "There are no operators.", &list.await?);
        }
        OperatorCommand::Revoke { common, email, why } => {
            let context = why.context("freehold operator revoke")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            let person = freehold.operators().revoke(&context, id).await?;
            match common.json {
                true => Output::json(&person),
                false => Output::text(&format!("{} is no operator any more", person.email)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
