//! `freehold config`: every setting of the server, where it comes from, secrets hidden.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;

use super::Failure;
use super::output::Output;
use crate::config::ServeSettings;

/// The settings of `freehold serve`, none of which must be there: what is missing is shown, too.
pub(super) struct ConfigArgs(ArgMatches);

impl Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        let settings = ServeSettings::augment_args(command).mut_args(|arg| arg.required(false));
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
        settings.arg(json.help_heading("Output"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(ConfigArgs(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

#[derive(Serialize)]
struct Setting {
    setting: String,
    /// `None` for a secret and for a setting without a value.
    value: Option<String>,
    is_secret: bool,
    /// environment, flag, default; `None` without a value.
    from: Option<&'static str>,
    is_required: bool,
    meaning: String,
}

pub(super) fn run(ConfigArgs(matches): &ConfigArgs) -> Result<ExitCode, Failure> {
    // Read from the definition, so a new setting needs no line here.
    let definition = ServeSettings::augment_args(Command::new("freehold config"));
    let settings = definition.get_arguments().filter(|argument| argument.get_env().is_some());
    let settings: Vec<Setting> = settings.map(|argument| read(argument, matches)).collect();
    if matches.get_flag("json") {
        Output::json(&settings);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["SETTING", "VALUE", "FROM", "MEANING"].map(str::to_owned).to_vec()];
    rows.extend(settings.into_iter().map(|setting| {
        let value = match (setting.is_secret && setting.from.is_some(), setting.value) {
            (true, _) => "(hidden)".to_owned(),
            (false, Some(value)) => value,
            (false, None) => "-".to_owned(),
        };
        let unset = if setting.is_required { "missing" } else { "-" };
        vec![setting.setting, value, setting.from.unwrap_or(unset).to_owned(), setting.meaning]
    }));
    Output::table(&rows);
    Ok(ExitCode::SUCCESS)
}

fn read(argument: &Arg, matches: &ArgMatches) -> Setting {
    let id = argument.get_id().as_str();
    let from = match matches.value_source(id) {
        Some(ValueSource::EnvVariable) => Some("environment"),
        Some(ValueSource::CommandLine) => Some("flag"),
        Some(_) => Some("default"),
        None => None,
    };
    let given: Option<Vec<_>> = matches
        .get_raw(id)
        .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect());
    let is_secret = argument.is_hide_env_values_set();
    Setting {
        setting: argument
            .get_env()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        value: given.filter(|_| !is_secret).map(|values| values.join(",")),
        is_secret,
        from,
        is_required: argument.is_required_set(),
        meaning: argument.get_help().map(ToString::to_string).unwrap_or_default(),
    }
}
