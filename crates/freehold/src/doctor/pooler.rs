//! FH6xx: poolers between the application and the server.
//!
//! A pooler is detected when two clients, both connected, meet the same server process. Then the two are
//! tested against each other: whether a transaction stays on one session, and what one client leaves for the
//! other.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Example;
use super::check::{Check, Severity};
use super::examination::Examination;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::client;
use crate::wire::connect_failure::find_sqlstate;
use crate::wire::tls::Target;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "FH601",
        severity: Severity::Critical,
        title: "The pooler lets transactions of different clients meet",
        meaning: "What a client set for its transaction alone reached another client, or a transaction went to several server processes: a tenant's context could meet another's query.",
        remedy: "Use PgBouncer with pool_mode = transaction or session, or connect directly.",
        fix_is_safe: false,
    },
    Check {
        code: "FH602",
        severity: Severity::Info,
        title: "Clients share server processes by a pooler",
        meaning: "What one client sets on a session reaches the next. Freehold sets nothing on a session; other programs with this URL must not either.",
        remedy: "Nothing, if it was meant. SET, LISTEN, advisory locks and PREPARE of sessions are not for this URL.",
        fix_is_safe: false,
    },
    Check {
        code: "FH603",
        severity: Severity::Info,
        title: "The pooler loses statements that are prepared by name",
        meaning: "PgBouncer before 1.21, or with max_prepared_statements = 0, mixes up statements that are prepared by name. Freehold has found the pooler out and names none; other programs with this URL must not either.",
        remedy: "Nothing, if nobody else uses it; or PgBouncer 1.21 or newer with max_prepared_statements = 200.",
        fix_is_safe: false,
    },
];

/// A setting that nothing reads: the test only checks whether the other client sees it.
const TRACE: &str = "freehold.doctor_trace";

/// How long the second client waits for the server connection that the first one has.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Timeout of the whole test, including connecting.
const TRIAL_MAX: Duration = Duration::from_secs(30);

pub(super) async fn look(examination: &mut Examination<'_>, app: &Target) {
    if !examination.wants(CHECKS) {
        return;
    }
    match timeout(TRIAL_MAX, try_out(examination, app)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => examination.skip(CHECKS, &error.to_string()),
        Err(_) => examination.skip(CHECKS, "the trial with two clients did not come to an end"),
    }
}

async fn try_out(examination: &mut Examination<'_>, app: &Target) -> Result<()> {
    let (first, second) = (client::connect(app).await?, client::connect(app).await?);
    let process = "SELECT pg_catalog.pg_backend_pid()";
    // PgBouncer gives out the server connection that became free last, so alternating is enough to meet.
    let shared = ask(&first, process).await? == ask(&second, process).await?;
    let settings = settings_of_pooler(app).await;
    if !shared && matches!(settings, Settings::NoPooler) {
        return Ok(());
    }
    let place = Example { object: place(app), detail: String::new() };
    let found = |detail: &str| Example { detail: detail.to_owned(), ..place.clone() };
    for fault in meeting(&first, &second).await? {
        examination.add(&CHECKS[0], found(fault), None, 1);
    }
    if shared {
        let kept = leaves_behind(&first, &second).await?;
        let detail = if kept {
            "two clients met the same server process, and a setting of the first reached the second"
        } else {
            "two clients met the same server process"
        };
        examination.add(&CHECKS[1], found(detail), None, 1);
    }
    match settings {
        Settings::NoPooler => {
            let reason = "something shares connections, and it does not answer as PgBouncer does";
            examination.skip(&CHECKS[2..], reason);
        }
        Settings::Refused(reason) => examination.skip(&CHECKS[2..], &reason),
        Settings::Known { version, statements_max } => {
            if version < (1, 21) || statements_max == Some(0) {
                let statements = statements_max.map_or("unknown".to_owned(), |max| max.to_string());
                let (major, minor) = version;
                let detail =
                    format!("PgBouncer {major}.{minor}, max_prepared_statements is {statements}");
                examination.add(&CHECKS[2], found(&detail), None, 1);
            }
        }
    }
    Ok(())
}

/// Whether a transaction stays on one session, and what the other client sees of it.
async fn meeting(first: &Client, second: &Client) -> Result<Vec<&'static str>> {
    let mut faults = Vec::new();
    let process = "SELECT pg_catalog.pg_backend_pid()";
    let set = format!("SELECT pg_catalog.set_config('{TRACE}', 'local', true)");
    let see = format!("SELECT pg_catalog.current_setting('{TRACE}', true)");
    // The pooler must keep the server process for the first client while its transaction lasts.
    if first.batch_execute("BEGIN").await.is_err() {
        return Ok(vec!["it refuses transactions: every statement may go to another process"]);
    }
    let outcome = async {
        let here = ask(first, process).await?;
        ask(first, &set).await?;
        // A pooler with a single server connection makes the second client wait, which is also a valid
        // result.
        let meets = async {
            Ok::<_, Error>(
                ask(second, process).await? == here || ask(second, &see).await? == "local",
            )
        };
        if let Ok(met) = timeout(WAIT_MAX, meets).await
            && met?
        {
            faults.push("a second client came into the transaction of the first");
        }
        if ask(first, process).await? != here || ask(first, &see).await? != "local" {
            faults.push("a transaction did not stay with one server process");
        }
        Ok::<_, Error>(())
    }
    .await;
    first.batch_execute("ROLLBACK").await?;
    outcome?;
    if ask(second, &see).await? == "local" || ask(first, &see).await? == "local" {
        faults.push("a setting that was local to a transaction outlived it");
    }
    Ok(faults)
}

/// Whether the second client sees what the first one set outside of a transaction. Both clients reset it,
/// since only one of them meets the process that has it.
async fn leaves_behind(first: &Client, second: &Client) -> Result<bool> {
    let see = format!("SELECT pg_catalog.current_setting('{TRACE}', true)");
    first.batch_execute(&format!("SET {TRACE} = 'kept'")).await?;
    let kept = ask(second, &see).await? == "kept";
    for client in [first, second] {
        client.batch_execute(&format!("RESET {TRACE}")).await?;
    }
    Ok(kept)
}

/// The first column of the first row. A simple query, since a pooler may not support prepared statements.
async fn ask(client: &Client, sql: &str) -> Result<String> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    row.ok_or_else(|| Error::new(ErrorKind::Internal, "the pooler gave no answer"))
}

enum Settings {
    /// The database `pgbouncer`, which every PgBouncer has, does not exist.
    NoPooler,
    /// It exists and refuses this role.
    Refused(String),
    Known {
        version: (u32, u32),
        statements_max: Option<u32>,
    },
}

async fn settings_of_pooler(app: &Target) -> Settings {
    let mut target = app.clone();
    target.config.dbname("pgbouncer");
    let client = match client::connect(&target).await {
        Ok(client) => client,
        // PostgreSQL's own answer for a database that does not exist.
        Err(error) if find_sqlstate(&error).as_deref() == Some("3D000") => {
            return Settings::NoPooler;
        }
        Err(error) => return Settings::Refused(refused(&error)),
    };
    let version = match ask(&client, "SHOW VERSION").await {
        Ok(version) => version,
        Err(error) => return Settings::Refused(refused(&error)),
    };
    let Some(version) = parse_version(&version) else {
        return Settings::Refused(format!("its version cannot be read: {version}"));
    };
    Settings::Known { version, statements_max: statements_max(&client).await }
}

fn refused(error: &Error) -> String {
    format!("PgBouncer does not show its settings to the app role (stats_users): {error}")
}

/// `PgBouncer 1.18.0` is (1, 18).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once(' ')?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

async fn statements_max(client: &Client) -> Option<u32> {
    let messages = client.simple_query("SHOW CONFIG").await.ok()?;
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get("key") == Some("max_prepared_statements") => {
            row.get("value")?.parse().ok()
        }
        _ => None,
    })
}

fn place(target: &Target) -> String {
    let port = target.config.get_ports().first().copied().unwrap_or(5432);
    match target.config.get_hosts().first() {
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "DATABASE_URL".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_pgbouncer_is_read() {
        assert_eq!(parse_version("PgBouncer 1.18.0"), Some((1, 18)));
        assert_eq!(parse_version("PgBouncer 1.24.1 (Debian)"), Some((1, 24)));
        assert_eq!(parse_version("something else"), None);
    }
}
