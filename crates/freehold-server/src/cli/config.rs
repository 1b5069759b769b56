//! `freehold config`: every setting of the server, where it comes from, secrets hidden.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args as _, Command};

use super::Failure;
use super::output::Output;
use crate::config::ServeSettings;

pub(super) fn run() -> Result<ExitCode, Failure> {
    // The definition is asked itself, so a new setting needs no line here.
    let command = ServeSettings::augment_args(Command::new("freehold config"));
    let arguments = std::env::args_os().skip(1);
    let matches = command.clone().try_get_matches_from(arguments)?;
    let mut rows = vec![["SETTING", "VALUE", "FROM", "MEANING"].map(str::to_owned).to_vec()];
    for argument in command.get_arguments().filter(|a| a.get_env().is_some()) {
        let id = argument.get_id().as_str();
        let source = match matches.value_source(id) {
            Some(ValueSource::EnvVariable) => "environment",
            Some(ValueSource::CommandLine) => "flag",
            Some(_) => "default",
            None => "-",
        };
        let given: Vec<_> = matches
            .get_raw(id)
            .map(|values| values.map(|v| v.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let value = match (given.is_empty(), argument.is_hide_env_values_set()) {
            (true, _) => "-".to_owned(),
            (false, true) => "(hidden)".to_owned(),
            (false, false) => given.join(","),
        };
        let name =
            argument.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        rows.push(vec![name, value, source.to_owned(), help]);
    }
    Output::table(&rows);
    Ok(ExitCode::SUCCESS)
}
