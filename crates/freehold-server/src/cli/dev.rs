//! `freehold dev`: everything on one machine, starting from nothing.

mod beside;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use freehold::control::people::PersonRef;
use freehold::control::sessions::SignIn;
use freehold::control::tenants::{NewOwner, NewTenant};
use freehold::{
    AnalyticsFolder, AnalyticsOptions, Baseline, ErrorKind, Freehold, InitOptions, Layout,
    MigrateOptions, OperatorContext, Options, Passwords,
};
use freehold_embedded::pgbouncer::PgBouncer;
use freehold_embedded::postgres::{self, EmbeddedPostgres};
use tokio_postgres::NoTls;

use super::init::random_password;
use super::output::Output;
use super::serve::{bind, serve};
use super::{Failure, migrate};
use crate::config::{DevSettings, HttpSettings, MailSettings, SignInSettings, WorkerSettings};
use crate::database_url::with_user;
use crate::http::connections::ConnectionLimits;
use crate::http::{AppState, PeopleSettings};
use crate::mail::{Postman, Transport};
use crate::telemetry;
use crate::worker::Worker;

const DATABASE: &str = "freehold";
const PASSWORD: &str = "freehold-demo";
const DEMO_TENANTS: [(&str, &str); 2] = [("acme", "Acme Trading"), ("globex", "Globex Supplies")];

/// The data of a test run are thrown away, so durability is traded for speed.
const THROWAWAY: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "300"),
];

/// The most connections that `freehold dev` opens to its database: the pools' defaults, and some more.
const DATABASE_CONNECTIONS: u64 = 40;

pub(super) async fn run(settings: DevSettings) -> Result<ExitCode, Failure> {
    let folder = settings.dir.join("pg");
    if settings.reset {
        postgres::reset(&folder).await?;
        progress("The former data is gone.");
    }
    std::fs::create_dir_all(&settings.dir)
        .map_err(|e| format!("cannot create {}: {e}", settings.dir.display()))?;
    let options = postgres::Options {
        dir: &folder,
        bin: settings.postgres_bin.as_deref(),
        settings: if settings.database_only { THROWAWAY } else { &[] },
    };
    let mut server = EmbeddedPostgres::start(options, progress).await?;
    let outcome = if settings.database_only {
        run_command(&mut server, &settings).await
    } else {
        serve_demo(&mut server, &settings).await.map(|()| ExitCode::SUCCESS)
    };
    server.stop().await?;
    outcome
}

fn progress(message: &str) {
    Output::note(message);
}

/// Runs a command with the database, and returns its exit code.
async fn run_command(
    server: &mut EmbeddedPostgres,
    settings: &DevSettings,
) -> Result<ExitCode, Failure> {
    let (program, arguments) =
        settings.command.split_first().ok_or("no command was given after `--`")?;
    let pooler = match &settings.pgbouncer {
        Some(user) => {
            let (user, password) = user.split_once(':').ok_or("--pgbouncer takes USER:PASSWORD")?;
            let url = with_user(&server.superuser_url("postgres"), user, password);
            Some(PgBouncer::start(&url).await?)
        }
        None => None,
    };
    // Ctrl-C reaches the command as well, which may still need the database to finish. Since the signal is
    // caught, it does not end this program.
    let _caught = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", server.superuser_url("postgres"))
        .envs(pooler.as_ref().map(|pooler| ("FREEHOLD_TEST_POOLER", pooler.address())))
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let lost = tokio::select! {
        status = child.wait() => Ok(status?),
        failure = beside::keep_running(server) => Err(failure),
    };
    let status = match lost {
        Ok(status) => status,
        Err(failure) => {
            progress(&format!("error: {failure}"));
            // The command continues, and may not need the database any more.
            child.wait().await?
        }
    };
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn serve_demo(server: &mut EmbeddedPostgres, settings: &DevSettings) -> Result<(), Failure> {
    telemetry::init_logs(&settings.log)?;
    // Before any work, so that a port in use is reported at once.
    let listener = bind(([127, 0, 0, 1], settings.port).into()).await?;
    // With --port 0 the system chose the port.
    let port = listener.local_addr()?.port();
    let baseline = settings
        .layout
        .read(&settings.baseline)
        .map_err(|error| format!("{error}; name your folder of migrations with --baseline"))?;
    progress(&migrate::layout_line(&baseline));
    let freehold = prepare(server, &settings.baseline, &baseline).await?;
    let secret = keep_secret(&settings.dir.join("jwt-secret"))?;
    let sign_in: SignInSettings = defaults(&["--jwt-secret", &secret])?;
    let mailbox = settings.dir.join("mail");
    let public_url = format!("http://127.0.0.1:{port}");
    let mail: MailSettings = defaults(&[
        "--mail=log",
        "--mail-folder",
        &mailbox.to_string_lossy(),
        "--public-url",
        &public_url,
    ])?;
    let transport = Transport::new(&mail)?;
    // There is no balancer in front of this server.
    let http: HttpSettings = defaults(&["--drain-secs", "0"])?;
    let people = PeopleSettings { signup: sign_in.signup, mail: true };
    let sign_in = Arc::new(SignIn::new(freehold.clone(), sign_in.options(public_url)?));
    let state = AppState::new(freehold.clone(), Arc::clone(&sign_in), &http, people).await?;
    let worker: WorkerSettings = defaults(&[])?;
    let worker = Worker::start(freehold.clone(), &worker);
    let _postman = transport.map(|transport| Postman::start(&sign_in, transport));
    welcome(port, server, &mailbox, find_table(server).await?.as_deref());
    let limits = ConnectionLimits::of(&http, DATABASE_CONNECTIONS)?;
    tokio::select! {
        outcome = serve(listener, state, worker, &http, limits) => outcome,
        () = beside::follow(&freehold, &settings.baseline, &settings.layout) => Ok(()),
        failure = beside::keep_running(server) => Err(failure),
    }
}

/// A table for the data API's example: the demo's orders, or the first table.
async fn find_table(server: &EmbeddedPostgres) -> Result<Option<String>, Failure> {
    let (client, connection) =
        tokio_postgres::connect(&server.superuser_url(DATABASE), NoTls).await?;
    tokio::spawn(connection);
    let sql = "SELECT c.relname FROM pg_class c
               WHERE c.relnamespace = 'freehold_template'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                 AND NOT c.relispartition
               ORDER BY c.relname <> 'orders', c.relkind = 'v', c.oid LIMIT 1";
    Ok(client.query_opt(sql, &[]).await?.map(|row| row.get(0)))
}

/// The default settings; `freehold dev` is not configured by the environment.
fn defaults<T: clap::Args>(arguments: &[&str]) -> Result<T, Failure> {
    let command =
        T::augment_args(clap::Command::new("dev").no_binary_name(true)).mut_args(|a| a.env(None));
    Ok(T::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
}

/// Roles, catalog, baseline and the demo tenants: only what is missing.
async fn prepare(
    server: &EmbeddedPostgres,
    folder: &Path,
    baseline: &Baseline,
) -> Result<Freehold, Failure> {
    ensure_database(server).await?;
    let admin_url = server.superuser_url(DATABASE);
    // The passwords are not needed by anybody, so every start generates new ones.
    let passwords = Passwords {
        app: Some(random_password()),
        catalog: None,
        owner: Some(random_password()),
        analytics: Some(random_password()),
    };
    let options = InitOptions { passwords: passwords.clone(), ..InitOptions::default() };
    freehold::init(&admin_url, &options).await?;
    let url_for = |role, password: &Option<String>| {
        with_user(&admin_url, role, password.as_deref().unwrap_or_default())
    };
    let options = Options::new(url_for("freehold_app", &passwords.app))
        .owner_url(url_for("freehold_owner", &passwords.owner))
        .analytics_url(url_for("freehold_analytics", &passwords.analytics));
    let freehold = Freehold::connect(&options).await?;

    let bar = migrate::progress_bar();
    let report = freehold
        .migrations()
        .up(
            &OperatorContext::system("freehold dev"),
            baseline,
            MigrateOptions::default(),
            &|done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            },
        )
        .await
        .map_err(beside::explain)?;
    bar.finish_and_clear();
    beside::tell(&report);
    // In another tool's layout, files beside the folder belong to that tool and may be about other tables.
    let seed = folder.parent().map(|parent| parent.join("seed.sql")).filter(|seed| seed.exists());
    let is_own = baseline.layout() == Some(Layout::Freehold);
    if let Some(seed) = seed.as_ref().filter(|_| !is_own) {
        progress(&format!("{} was not run.", seed.display()));
    }
    ensure_people(&freehold, seed.filter(|_| is_own).as_deref()).await?;
    ensure_analytics(&freehold, folder).await?;
    Ok(freehold)
}

/// The definitions beside the baseline, and their first figures; from then on the worker updates them.
async fn ensure_analytics(freehold: &Freehold, baseline: &Path) -> Result<(), Failure> {
    let folder = baseline.parent().map(|parent| parent.join("analytics"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else { return Ok(()) };
    let context = OperatorContext::system("freehold dev");
    let applied = freehold.analytics().apply(&context, &AnalyticsFolder::read(folder)?).await?;
    let fresh: Vec<String> = applied.added.into_iter().chain(applied.rebuilt).collect();
    if !fresh.is_empty() {
        let options = AnalyticsOptions::default();
        freehold.analytics().run(&context, Some(&fresh), options, &|_, _| {}).await?;
        progress(&format!("Collected the analytics {}.", fresh.join(", ")));
    }
    Ok(())
}

async fn ensure_database(server: &EmbeddedPostgres) -> Result<(), Failure> {
    let (client, connection) =
        tokio_postgres::connect(&server.superuser_url("postgres"), NoTls).await?;
    tokio::spawn(connection);
    let known =
        client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE]).await?;
    if known.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
    }
    Ok(())
}

/// The demo tenants with their owners and data, and an operator.
async fn ensure_people(freehold: &Freehold, seed: Option<&Path>) -> Result<(), Failure> {
    let context = OperatorContext::system("freehold dev");
    for (slug, name) in DEMO_TENANTS {
        match freehold.tenants().get_by_slug(&context, slug).await {
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let owner =
            NewOwner { person: vouched_for(format!("owner@{slug}.example")), name: String::new() };
        let new = NewTenant {
            slug: slug.into(),
            name: name.into(),
            owner: Some(owner),
            idempotency: None,
        };
        let tenant = freehold.tenants().create(&context, new).await?.tenant;
        if let Some(seed) = seed {
            let sql = std::fs::read_to_string(seed)?;
            // The seed produces different data for each slug. A slug needs no quoting.
            let sql = format!("SELECT set_config('freehold.seed', '{slug}', true);\n{sql}");
            freehold.tenants().run_script(&context, tenant.id, &sql).await?;
        }
        progress(&format!("Created the tenant {slug}."));
    }
    if freehold.operators().list(&context, None, Some(1)).await?.is_empty() {
        let operator = vouched_for("operator@freehold.example".to_owned());
        freehold.operators().create(&context, operator).await?;
    }
    Ok(())
}

/// A person of the demo.
fn vouched_for(email: String) -> PersonRef {
    PersonRef { email, password: Some(PASSWORD.to_owned()), existing: false }
}

/// The secret that signs tokens, stored so that sessions survive a restart.
fn keep_secret(path: &Path) -> Result<String, Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Ok(secret) = std::fs::read_to_string(path)
        && secret.len() >= 32
    {
        return Ok(secret);
    }
    let secret = random_password();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())?;
    Ok(secret)
}

fn welcome(port: u16, server: &EmbeddedPostgres, mailbox: &Path, table: Option<&str>) {
    let base = format!("http://127.0.0.1:{port}");
    let (what, path) = match table {
        Some(table) => {
            let encode = percent_encoding::utf8_percent_encode;
            let name = encode(table, percent_encoding::NON_ALPHANUMERIC).to_string();
            (format!("read rows of {table}"), format!("data/{}?limit=3", name.replace("%5F", "_")))
        }
        None => ("see who you are".to_owned(), "me".to_owned()),
    };
    Output::text(&format!(
        "
Freehold is at {base} (PostgreSQL {version} on port {pg_port}). Ctrl-C stops it.

  Tenants    acme: owner@acme.example    globex: owner@globex.example
  Operator   operator@freehold.example
  Password   {PASSWORD}, for all of them
  Mail       goes nowhere: letters are written to {mailbox}

Sign in, and {what} in a tenant:

  TOKEN=$(curl -s {base}/v1/auth/login -H 'Content-Type: application/json' \\
    -d '{{\"email\":\"owner@acme.example\",\"password\":\"{PASSWORD}\"}}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')
  curl -s \"{base}/v1/{path}\" -H \"Authorization: Bearer $TOKEN\"

Every address is described at {base}/openapi.json
",
        version = server.version(),
        mailbox = mailbox.display(),
        pg_port = server.port(),
    ));
}
