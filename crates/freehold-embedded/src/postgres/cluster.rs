//! Creating a data folder, and its settings.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use super::account::Account;
use super::binaries::Server;
use super::data_folder::DataFolder;
use super::error::StartError;
use super::files;

/// For development: a data folder that survives a kill (fsync stays on), at the price of losing
/// the last half second of commits when the machine itself dies (synchronous_commit).
const SETTINGS: [(&str, &str); 13] = [
    ("shared_buffers", "128MB"),
    ("synchronous_commit", "off"),
    // One transaction may lock a whole fleet's tables.
    ("max_locks_per_transaction", "256"),
    ("password_encryption", "scram-sha-256"),
    ("track_activities", "on"),
    ("track_counts", "on"),
    ("track_activity_query_size", "4096"),
    ("timezone", "UTC"),
    ("log_min_messages", "warning"),
    ("log_statement", "none"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("cluster_name", "freehold"),
    // A client that disconnected during authentication delays a DROP DATABASE for up to this long.
    ("authentication_timeout", "5s"),
];

/// After a kill, recovery first syncs the data to disk. Syncing file by file took 3 s for an empty data
/// folder (970 files never synced), syncing the whole file system 0.2 s; and a tenant adds about thirty
/// files.
const RECOVERY: &[(&str, &str)] =
    if cfg!(target_os = "linux") { &[("recovery_init_sync_method", "syncfs")] } else { &[] };

/// Runs initdb in a folder of another name, which is renamed to `data` when it is complete.
pub(super) async fn create(
    server: &Server,
    account: &Account,
    folder: &DataFolder,
    progress: &mut impl FnMut(&str),
) -> Result<(), StartError> {
    progress(&format!(
        "creating a private PostgreSQL {} in {} (some seconds, the first time only)",
        server.major,
        folder.home().display()
    ));
    let password = folder.new_password()?;
    let password_file = folder.unfinished("pwfile")?;
    files::write(&password_file, password.as_bytes(), 0o600)?;
    files::give_to(&password_file, account)?;
    // C.UTF-8 does not exist everywhere (macOS); C sorts alike but knows fewer letters.
    let mut result = Ok(());
    for locale in ["C.UTF-8", "C"] {
        let data = folder.unfinished("data")?;
        files::make_private(&data, account)?;
        result = initdb(server, account, folder, locale, &password_file, &data).await;
        match &result {
            Ok(()) => {
                let finished = folder.data();
                fs::rename(&data, &finished).map_err(StartError::io("rename", &data))?;
                break;
            }
            Err(error) => {
                files::remove_if_there(&data)?;
                if !error.to_string().contains("locale") {
                    break;
                }
            }
        }
    }
    files::remove_if_there(&password_file)?;
    result
}

async fn initdb(
    server: &Server,
    account: &Account,
    folder: &DataFolder,
    locale: &str,
    password_file: &Path,
    data: &Path,
) -> Result<(), StartError> {
    let (log, log_start) = folder.open_log()?;
    let err = log.try_clone().map_err(StartError::io("share", &folder.log()))?;
    let program = server.bin.join("initdb");
    let mut command = account.command(&program);
    command
        .args(["--username=postgres", "--encoding=UTF8", "--auth=scram-sha-256", "--no-sync"])
        .args(["--no-instructions", &format!("--locale={locale}")])
        .arg("--pwfile")
        .arg(password_file)
        .arg("--pgdata")
        .arg(data)
        .stdout(log)
        .stderr(err);
    let mut child = KilledOnDrop(command.spawn().map_err(StartError::io("run", &program))?);
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(StartError::io("wait for", &program))? {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if status.success() && data.join("PG_VERSION").exists() {
        return Ok(());
    }
    let mut output = folder.log_tail(log_start);
    if let Some(signal) = status.signal() {
        let _ = write!(output, "\n(killed by signal {signal})");
    }
    Err(StartError::Initdb { home: folder.home().to_owned(), output })
}

/// Dropping a start must not leave initdb running.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Writes the server's `postgresql.conf`: first what initdb detected on this machine, then our settings for
/// development, then the caller's; the last setting wins.
pub(super) fn configure(folder: &DataFolder, settings: &[(&str, &str)]) -> Result<(), StartError> {
    let mut text = String::from(
        "# Written anew at every start. For settings of your own: data/postgresql.conf, or\n\
         # ALTER SYSTEM, which wins over all that is here.\n\
         include = 'data/postgresql.conf'\n",
    );
    let all = SETTINGS.iter().chain(RECOVERY).chain(settings);
    for (name, value) in all {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        let _ = writeln!(text, "{name} = '{value}'");
    }
    // Readable for the server's user, who does not own it. It contains no secret.
    files::write(&folder.conf(), text.as_bytes(), 0o644)
}

pub(super) fn check_settings(settings: &[(&str, &str)]) -> Result<(), StartError> {
    for (name, value) in settings {
        let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        let reason =
            if !name.bytes().all(part) || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                "it is not the name of a setting"
            } else if value.contains(['\n', '\r', '\0']) {
                "its value has more than one line"
            } else {
                continue;
            };
        return Err(StartError::Setting { name: (*name).to_owned(), reason });
    }
    Ok(())
}
