//! `freehold operator create`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::{Freehold, OperatorContext};

use super::output::Output;
use super::{Common, Failure};

#[derive(Subcommand)]
pub(super) enum OperatorCommand {
    /// Make somebody an operator, who may manage tenants through the API
    Create {
        #[command(flatten)]
        common: Common,
        email: String,
        /// Needed for somebody who is new here; from the environment it stays out of the process list
        #[arg(
            long,
            env = "FREEHOLD_PASSWORD",
            value_name = "FREEHOLD_PASSWORD",
            hide_env_values = true
        )]
        password: Option<String>,
    },
}

pub(super) async fn run(command: OperatorCommand) -> Result<ExitCode, Failure> {
    let OperatorCommand::Create { common, email, password } = command;
    let freehold = Freehold::connect(&common.database.options()?).await?;
    let context = OperatorContext::system("freehold operator create");
    let id = freehold.create_operator(&context, &email, password).await?;
    if common.json {
        Output::json(&serde_json::json!({"id": id, "email": email}));
    } else {
        Output::text(&format!("{email} is an operator"));
    }
    Ok(ExitCode::SUCCESS)
}
