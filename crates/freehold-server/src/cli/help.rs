//! The layout of the commands' help: a command's own arguments first, followed by the connection settings
//! that are essential. `freehold serve --help` and `freehold config` show all settings.

use clap::builder::Resettable;
use clap::{Arg, Args as _, Command};

use crate::config::{AnalyticsSettings, DatabaseSettings};

/// The settings that a command's help shows.
const SHOWN: [&str; 3] = ["database_url", "database_owner_url", "context_key"];
/// The commands whose own arguments are the settings.
const ALL_SHOWN: [&str; 2] = ["serve", "config"];

const MORE: &str = "More settings of connections, each a variable too: `freehold serve --help`.";

/// The command with its help rearranged.
pub(super) fn arranged(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    let command = names.iter().fold(command, |command, name| {
        if ALL_SHOWN.contains(&name.as_str()) {
            return command;
        }
        command.mut_subcommand(name, arranged)
    });
    if !command.get_arguments().any(|argument| argument.get_id() == "database_url") {
        return command;
    }
    let connection = ids(DatabaseSettings::augment_args(Command::new("connection")));
    let analytics = ids(AnalyticsSettings::augment_args(Command::new("analytics")));
    let runs_analytics =
        command.get_arguments().any(|argument| argument.get_id() == "analytics_connections");
    let command = command.mut_args(|argument| {
        let id = argument.get_id().to_string();
        match id.as_str() {
            "json" => argument.help_heading(Resettable::Reset).display_order(900),
            "database_analytics_url" if runs_analytics => in_connection(argument),
            shown if SHOWN.contains(&shown) => in_connection(argument),
            _ if connection.contains(&id) => argument.hide(true),
            _ if analytics.contains(&id) => argument,
            // An argument after shared settings would inherit their heading, unless it is reset.
            _ => argument.help_heading(Resettable::Reset),
        }
    });
    if command.get_after_help().is_some() { command } else { command.after_help(MORE) }
}

fn in_connection(argument: Arg) -> Arg {
    argument.help_heading("Connection")
}

fn ids(command: Command) -> Vec<String> {
    command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
}
