//! `freehold person list|show|disable|enable|remove|reset|vouch|sign-out`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::people::{Person, PersonDetail};
use freehold::{Freehold, OperatorContext};
use uuid::Uuid;

use super::listing::{self, Listing, Wanted};
use super::output::Output;
use super::{Common, Failure, Why};

#[derive(Subcommand)]
pub(super) enum PersonCommand {
    /// List people in the order of their e-mails
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
    /// Show a person, what they belong to, and their sessions
    Show {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
    },
    /// Refuse a person everything within a second; what they belong to stays
    Disable {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        #[command(flatten)]
        why: Why,
    },
    /// Let a disabled person sign in again
    Enable {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove a person with password, sessions and memberships
    Remove {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        #[command(flatten)]
        why: Why,
    },
    /// Delete a person's password and end their sessions; a message lets them choose a new password
    Reset {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        /// Set this password rather than send a message: you vouch that the e-mail is the person's
        #[arg(
            long,
            env = "FREEHOLD_PASSWORD",
            value_name = "FREEHOLD_PASSWORD",
            hide_env_values = true
        )]
        password: Option<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Vouch that an e-mail is its person's; if it was never proven, everything stored under it before is deleted
    Vouch {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        /// Why you believe it; the record keeps it
        #[arg(long)]
        why: String,
    },
    /// End a person's sessions, or one of them
    SignOut {
        #[command(flatten)]
        common: Common,
        /// The person's e-mail
        email: String,
        /// Only the session with this id
        #[arg(long, value_name = "ID")]
        session: Option<Uuid>,
        #[command(flatten)]
        why: Why,
    },
}

pub(super) async fn run(command: PersonCommand) -> Result<ExitCode, Failure> {
    match command {
        PersonCommand::List { common, after, limit } => {
            let context = OperatorContext::system("freehold person list");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let list = listing::by_key(Wanted::of(limit), after, email_of, async |after, size| {
                freehold.people().list(&context, after, Some(size)).await
            });
            print_list(&common, "There are no people.", &list.await?);
        }
        PersonCommand::Show { common, email } => {
            let context = OperatorContext::system("freehold person show");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            print_detail(&common, &freehold.people().get(&context, id).await?);
        }
        PersonCommand::Disable { common, email, why } => {
            let context = why.context("freehold person disable")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            print(&common, &freehold.people().disable(&context, id).await?);
        }
        PersonCommand::Enable { common, email, why } => {
            let context = why.context("freehold person enable")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            print(&common, &freehold.people().enable(&context, id).await?);
        }
        PersonCommand::Remove { common, email, why } => {
            let context = why.context("freehold person remove")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            freehold.people().remove(&context, id).await?;
            match common.json {
                true => Output::json(&serde_json::json!({"id": id, "removed": true})),
                false => Output::text(&format!("{email} is removed")),
            }
        }
        PersonCommand::Reset { common, email, password, why } => {
            let context = why.context("freehold person reset")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            let by_letter = password.is_none();
            print(&common, &freehold.people().reset(&context, id, password).await?);
            if by_letter {
                Output::note(
                    "a server sends the message by which the person chooses a new password",
                );
            }
        }
        PersonCommand::Vouch { common, email, why } => {
            let context = OperatorContext::system("freehold person vouch");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            print(&common, &freehold.people().vouch_for(&context, id, &why).await?);
        }
        PersonCommand::SignOut { common, email, session, why } => {
            let context = why.context("freehold person sign-out")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.people().find_id(&context, &email).await?;
            freehold.people().end_sessions(&context, id, session).await?;
            print_detail(&common, &freehold.people().get(&context, id).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(person: &Person) -> String {
    let proof = match (&person.proven_at, &person.proven_why) {
        (Some(at), Some(why)) => format!("{at}, {why}"),
        _ => "never".to_owned(),
    };
    let disabled = person.disabled_at.map_or_else(|| "no".to_owned(), |at| format!("since {at}"));
    let yes = |is: bool| if is { "yes" } else { "no" };
    format!(
        "email     {}\nid        {}\nname      {}\noperator  {}\nproven    {proof}\npassword  {}\ndisabled  {disabled}\nknown     since {}",
        person.email,
        person.id,
        person.name,
        yes(person.is_operator),
        yes(person.has_password),
        person.created_at,
    )
}

fn print(common: &Common, person: &Person) {
    match common.json {
        true => Output::json(person),
        false => Output::text(&lines(person)),
    }
}

fn print_detail(common: &Common, detail: &PersonDetail) {
    if common.json {
        return Output::json(detail);
    }
    let mut text = lines(&detail.person);
    for (slug, role) in &detail.tenants {
        text.push_str(&format!("\ntenant    {slug}, {role}"));
    }
    for session in &detail.sessions {
        text.push_str(&format!(
            "\nsession   {}, since {}, renewed {}",
            session.id, session.created_at, session.refreshed_at
        ));
    }
    Output::text(&text);
}

/// The cursor of a page of people.
pub(super) fn email_of(person: &Person) -> String {
    person.email.clone()
}

pub(super) fn print_list(common: &Common, none: &str, list: &Listing<Person>) {
    list.print(common.json, "--after", none, rows);
}

fn rows(people: &[Person]) -> Vec<Vec<String>> {
    let heading = ["EMAIL", "PROVEN", "OPERATOR", "DISABLED", "ID", "NAME"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let yes = |is: bool| if is { "yes".to_owned() } else { "-".to_owned() };
    rows.extend(people.iter().map(|person| {
        vec![
            person.email.clone(),
            yes(person.proven_at.is_some()),
            yes(person.is_operator),
            yes(person.disabled_at.is_some()),
            person.id.to_string(),
            person.name.clone(),
        ]
    }));
    rows
}
