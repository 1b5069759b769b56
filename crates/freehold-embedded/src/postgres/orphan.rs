//! The server of a program that was killed, which still runs on our data. We hold the folder's lock, so no
//! other program uses the server; it is stopped, and the data are as after any restart.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::account::Account;
use super::data_folder::DataFolder;
use super::error::StartError;
use super::files;
use super::postmaster::{PidFile, STOP_STEPS, connect};
use super::process;

/// Stops the server that runs on these data, if there is one, and removes its pid file.
pub(super) async fn stop(
    folder: &DataFolder,
    account: &Account,
    progress: &mut impl FnMut(&str),
) -> Result<(), StartError> {
    let Some(file) = PidFile::read(&folder.data()) else {
        return Ok(());
    };
    if is_ours(folder, &file).await {
        progress(&format!("stopping the PostgreSQL that a killed run has left (pid {})", file.pid));
        stop_process(account, file.pid).await?;
    }
    // The process has ended, or its pid belongs to another process now. PostgreSQL would believe any live
    // pid, even a zombie's; it detects remaining backends of the dead server by their shared memory.
    files::remove_if_there(&folder.data().join("postmaster.pid"))
}

/// Whether the process of the pid file is a server on our data. The pid alone proves nothing: in a container
/// another process soon has it, possibly another PostgreSQL.
async fn is_ours(folder: &DataFolder, file: &PidFile) -> bool {
    let Some(arguments) = process::arguments(file.pid) else {
        return false;
    };
    let program = arguments[0].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if program != b"postgres" && program != b"postmaster" {
        return false;
    }
    let data = folder.data();
    let named =
        arguments.windows(2).any(|pair| pair[0] == b"-D" && pair[1] == data.as_os_str().as_bytes());
    if named {
        return true;
    }
    // It may have been started by hand: the server's working directory or arguments show its data folder.
    if let Some(working_dir) = process::working_dir(file.pid) {
        return working_dir == data;
    }
    let Ok(password) = folder.password() else {
        return false;
    };
    let Ok(client) = connect(file.port, &password).await else {
        return false;
    };
    let row = client.query_one("SELECT current_setting('data_directory')", &[]).await;
    row.is_ok_and(|row| fs::canonicalize(row.get::<_, String>(0)).is_ok_and(|there| there == data))
}

async fn stop_process(account: &Account, pid: u32) -> Result<(), StartError> {
    let arguments = process::arguments(pid);
    for (signal, patience) in STOP_STEPS {
        let began = Instant::now();
        let _ = process::signal(account, pid, signal);
        while began.elapsed() < patience {
            let now = process::arguments(pid);
            if now.is_none() || now != arguments {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(StartError::Orphan { pid })
}

/// Terminates the backends of a server whose postmaster was killed: a busy backend notices that only when it
/// next waits for something, and PostgreSQL does not start beside it.
pub(super) fn end_stragglers(folder: &DataFolder, account: &Account) {
    let data = folder.data();
    for pid in process::all() {
        let is_postgres = fs::read(Path::new("/proc").join(pid.to_string()).join("comm"))
            .is_ok_and(|name| name.starts_with(b"postgres"));
        if is_postgres && process::working_dir(pid).is_some_and(|there| there == data) {
            let _ = process::signal(account, pid, "KILL");
        }
    }
}
