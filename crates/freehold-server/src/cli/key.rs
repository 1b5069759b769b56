//! `freehold key show|list|rotate`: the keys that contexts are sealed with.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use freehold::control::keys::SealKey;
use freehold::{ContextKey, Freehold, OperatorContext};

use super::output::Output;
use super::{Common, Failure, Why, words};

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Print the key that seals now, for the setting CONTEXT_KEY of servers without owner connection
    Show {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        why: Why,
    },
    /// List the keys, without their secrets
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Make a new key and print it; the older ones retire after a while
    Rotate {
        #[command(flatten)]
        common: Common,
        /// Seconds that servers with an older CONTEXT_KEY may go on
        #[arg(long, default_value_t = 3600)]
        retire_after_secs: u64,
        #[command(flatten)]
        why: Why,
    },
}

pub(super) async fn run(command: KeyCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyCommand::Show { common, why } => {
            let context = why.context("freehold key show")?;
            let freehold = connect(&common).await?;
            print(&common, &freehold.context_keys().show(&context).await?);
        }
        KeyCommand::List { common } => {
            let context = OperatorContext::system("freehold key list");
            let freehold = connect(&common).await?;
            print_list(&common, &freehold.context_keys().list(&context).await?);
        }
        KeyCommand::Rotate { common, retire_after_secs, why } => {
            let context = why.context("freehold key rotate")?;
            let freehold = connect(&common).await?;
            let grace = Duration::from_secs(retire_after_secs);
            print(&common, &freehold.context_keys().rotate(&context, grace).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// With the key that the owner connection reads: the key in the settings may be the one to be replaced.
async fn connect(common: &Common) -> Result<Freehold, Failure> {
    let mut options = common.database.options()?;
    options.context_key = options.context_key.filter(|_| options.owner_url.is_none());
    Ok(Freehold::connect(&options).await?)
}

fn print(common: &Common, key: &ContextKey) {
    if common.json {
        return Output::json(&serde_json::json!({"id": key.id(), "context_key": key.reveal()}));
    }
    Output::text(&format!("CONTEXT_KEY={}", key.reveal()));
}

fn print_list(common: &Common, keys: &[SealKey]) {
    if common.json {
        return Output::json(&keys);
    }
    let mut rows = vec![["KEY", "MADE", "RETIRES"].map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        let retires = key.retires_at.map_or_else(|| "-".to_owned(), words::time);
        vec![key.id.clone(), words::time(key.created_at), retires]
    }));
    Output::table_or(&rows, "There are no keys: contexts are not sealed.");
}
