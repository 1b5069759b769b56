//! Programs in separate processes: the built `freehold`, and HTTP to it over a socket.

use std::process::Command;
use std::time::{Duration, SystemTime};

use freehold::testing::TestDatabase;
use freehold::tokens::{AccessTokens, Keyring, Subject};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{SECRET, text};

pub(crate) use freehold_test_support::process::{
    Env, Folder, Ran, Running, child_of, free_port, http, http_with, send_signal,
};
use freehold_test_support::process::{command, run};

fn freehold_command(arguments: &[&str], env: Env) -> Command {
    command(env!("CARGO_BIN_EXE_freehold"), arguments, env)
}

/// Runs `freehold` to its end.
pub(crate) fn freehold(arguments: &[&str], env: Env) -> Ran {
    run(freehold_command(arguments, env))
}

/// Starts `freehold`.
pub(crate) fn start_freehold(arguments: &[&str], env: Env) -> Running {
    Running::spawn(freehold_command(arguments, env))
}

pub(crate) fn env_of<'a>(app: &'a str, owner: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("DATABASE_URL", app),
        ("DATABASE_OWNER_URL", owner),
        ("JWT_SECRET", SECRET),
        ("LISTEN", "127.0.0.1:0"),
        ("STARTUP_SECS", "0"),
        ("DRAIN_SECS", "0"),
    ]
}

pub(crate) fn with<'a>(
    mut env: Vec<(&'a str, &'a str)>,
    name: &'a str,
    value: &'a str,
) -> Vec<(&'a str, &'a str)> {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
    env
}

/// A `freehold serve` over a database.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(database: &TestDatabase) -> Server {
        Server::start_with(database, &[])
    }

    /// With settings of the test's choice.
    pub(crate) fn start_with(database: &TestDatabase, settings: Env) -> Server {
        Server::start_program(None, database, settings)
    }

    /// Another build of it, from a file.
    pub(crate) fn start_program(
        program: Option<&str>,
        database: &TestDatabase,
        settings: Env,
    ) -> Server {
        let (app, owner) = (database.app_url(), database.owner_url());
        let env = with(env_of(&app, &owner), "LOG_FORMAT", "json");
        let env = settings.iter().fold(env, |env, (name, value)| with(env, name, value));
        let program = program.unwrap_or(env!("CARGO_BIN_EXE_freehold"));
        Server::running(Running::spawn(command(program, &["serve"], &env)))
    }

    /// With a limit of open files.
    pub(crate) fn start_with_files(database: &TestDatabase, files: u32, settings: Env) -> Server {
        let (app, owner) = (database.app_url(), database.owner_url());
        let env = with(env_of(&app, &owner), "LOG_FORMAT", "json");
        let env = settings.iter().fold(env, |env, (name, value)| with(env, name, value));
        Server::running(Running::spawn(limited_to(files, &env)))
    }

    fn running(mut running: Running) -> Server {
        let line = running.wait_for("\"message\":\"serving\"", Duration::from_secs(60));
        let line: Value = serde_json::from_str(&line).unwrap();
        let port = text(&line["address"]).rsplit_once(':').unwrap().1.parse().unwrap();
        Server { running, port }
    }
}

/// `freehold serve` with a limit of open files.
pub(crate) fn limited_to(files: u32, env: Env) -> Command {
    let script = format!("ulimit -n {files}; exec \"$0\" serve");
    command("sh", &["-c", &script, env!("CARGO_BIN_EXE_freehold")], env)
}

/// An access token of the session that has the person's own id.
pub(crate) fn token(identity: Uuid, tenant: Option<Uuid>, role: &str) -> String {
    let keyring = Keyring::new(SECRET, &[] as &[&str]).unwrap();
    let tokens = AccessTokens::new(keyring, "freehold", "freehold");
    let subject = Subject { identity, session: identity, tenant, role: role.to_owned() };
    tokens.issue(&subject, Duration::from_secs(600), SystemTime::now()).unwrap()
}
