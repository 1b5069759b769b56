//! `freehold init`: prepares the database of DATABASE_URL.

use std::path::PathBuf;
use std::process::ExitCode;

use freehold::{Freehold, InitOptions, MigrateOptions, Options, Passwords, SealMode};

use super::migrate::layout_line;
use super::output::Output;
use super::{Failure, Why};
use crate::config::LayoutSettings;
use crate::database_url::with_user;

#[derive(clap::Args)]
pub(super) struct InitArgs {
    /// PostgreSQL, as a superuser, or as a role with CREATEROLE that owns the database
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// The password to give to freehold_app; made up if there is none yet
    #[arg(
        long,
        env = "FREEHOLD_APP_PASSWORD",
        value_name = "FREEHOLD_APP_PASSWORD",
        hide_env_values = true
    )]
    app_password: Option<String>,

    /// The password to give to freehold_catalog, if it is not to be that of freehold_app
    #[arg(
        long,
        env = "FREEHOLD_CATALOG_PASSWORD",
        value_name = "FREEHOLD_CATALOG_PASSWORD",
        hide_env_values = true
    )]
    catalog_password: Option<String>,

    /// The password to give to freehold_owner; made up if there is none yet
    #[arg(
        long,
        env = "FREEHOLD_OWNER_PASSWORD",
        value_name = "FREEHOLD_OWNER_PASSWORD",
        hide_env_values = true
    )]
    owner_password: Option<String>,

    /// The password to give to freehold_analytics; made up if there is none yet
    #[arg(
        long,
        env = "FREEHOLD_ANALYTICS_PASSWORD",
        value_name = "FREEHOLD_ANALYTICS_PASSWORD",
        hide_env_values = true
    )]
    analytics_password: Option<String>,

    /// How contexts are sealed: best (a superuser's init makes it possible), portable, or plain,
    /// which an SQL injection gets around. If not given: as before, or the best that is possible
    #[arg(long, value_name = "MODE")]
    seal: Option<SealSetting>,

    /// A folder of migrations to make the baseline of, as `freehold migrate up` does
    #[arg(long, value_name = "FOLDER")]
    baseline: Option<PathBuf>,

    #[command(flatten)]
    layout: LayoutSettings,

    #[command(flatten)]
    why: Why,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SealSetting {
    Best,
    Portable,
    Plain,
}

impl From<SealSetting> for SealMode {
    fn from(setting: SealSetting) -> SealMode {
        match setting {
            SealSetting::Best => SealMode::Best,
            SealSetting::Portable => SealMode::Portable,
            SealSetting::Plain => SealMode::Plain,
        }
    }
}

pub(super) async fn run(args: InitArgs) -> Result<ExitCode, Failure> {
    // Given passwords are set. New roles without one get a generated password, which is shown once.
    let given = Passwords {
        app: args.app_password,
        catalog: args.catalog_password,
        owner: args.owner_password,
        analytics: args.analytics_password,
    };
    let seal = args.seal.map(SealMode::from);
    let context = args.why.context("freehold init")?;
    let why = Some(context.reason().to_owned());
    let options = InitOptions { passwords: given.clone(), seal, why: why.clone() };
    let report = freehold::init(&args.database_url, &options).await?;
    let is_new = |role: &str| report.roles_created.iter().any(|created| created == role);
    let made_up =
        |role, given: &Option<String>| (is_new(role) && given.is_none()).then(random_password);
    let made = Passwords {
        app: made_up("freehold_app", &given.app),
        catalog: given.catalog.clone(),
        owner: made_up("freehold_owner", &given.owner),
        analytics: made_up("freehold_analytics", &given.analytics),
    };
    if made.app.is_some() || made.owner.is_some() || made.analytics.is_some() {
        let options = InitOptions { passwords: made.clone(), seal, why: why.clone() };
        freehold::init(&args.database_url, &options).await?;
    }
    let url_for = |role: &str, given: &Option<String>, made: &Option<String>| {
        let password = made.clone().or_else(|| given.clone());
        with_user(&args.database_url, role, password.as_deref().unwrap_or("…"))
    };
    let app_url = url_for("freehold_app", &given.app, &made.app);
    let owner_url = url_for("freehold_owner", &given.owner, &made.owner);
    let analytics_url = url_for("freehold_analytics", &given.analytics, &made.analytics);
    // Without a password of its own, it is the app role's URL with the other user name.
    let catalog_url = given.catalog.as_ref();
    let catalog_url =
        catalog_url.map(|password| with_user(&args.database_url, "freehold_catalog", password));

    if let Some(folder) = &args.baseline {
        let known =
            |given: &Option<String>, made: &Option<String>| given.is_some() || made.is_some();
        if !known(&given.app, &made.app) || !known(&given.owner, &made.owner) {
            return Err("the roles were there before, with passwords that are not known here: \
                        give --app-password and --owner-password, or use `freehold migrate up`"
                .into());
        }
        let baseline = args.layout.read(folder)?;
        if !args.json {
            Output::text(&layout_line(&baseline));
        }
        let mut options = Options::new(&app_url).owner_url(&owner_url);
        options.catalog_url.clone_from(&catalog_url);
        let freehold = Freehold::connect(&options).await?;
        freehold
            .migrations()
            .up(&context, &baseline, MigrateOptions::default(), &|_, _| {})
            .await?;
    }
    if args.json {
        let urls = serde_json::json!({"report": report, "database_url": app_url,
            "database_catalog_url": catalog_url, "database_owner_url": owner_url,
            "database_analytics_url": analytics_url});
        Output::json(&urls);
        return Ok(ExitCode::SUCCESS);
    }
    match report.catalog_before {
        before if before == report.catalog_now => {
            Output::text(&format!("The catalog is at version {before}; nothing to do."));
        }
        0 => Output::text(&format!("The catalog is made, at version {}.", report.catalog_now)),
        before => Output::text(&format!(
            "The catalog went from version {before} to {}.",
            report.catalog_now
        )),
    }
    for removed in &report.settings_removed {
        Output::text(&format!("Removed a setting that was not Freehold's: {removed}."));
    }
    if !report.roles_created.is_empty() {
        Output::text(&format!("Roles made: {}.", report.roles_created.join(", ")));
    }
    Output::text(match report.seal {
        SealMode::Best => "Contexts are sealed, and verified once a transaction (best).",
        SealMode::Portable => "Contexts are sealed, and verified once a query (portable).",
        SealMode::Plain => "Contexts are not sealed (plain).",
    });
    for warning in &report.warnings {
        Output::note(&format!("warning: {warning}"));
    }
    Output::text("\nThe server's settings (passwords that were made up are shown only now):");
    Output::text(&format!("DATABASE_URL={app_url}\nDATABASE_OWNER_URL={owner_url}"));
    if let Some(catalog_url) = catalog_url {
        Output::text(&format!("DATABASE_CATALOG_URL={catalog_url}"));
    }
    Output::text(&format!("DATABASE_ANALYTICS_URL={analytics_url}"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn random_password() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
