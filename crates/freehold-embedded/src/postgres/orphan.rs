//! The server of a program that was killed: it runs on, on our data. The folder's lock is ours by
//! now, so nobody uses it; it is stopped, and the data is as after any restart.

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

/// Stops the server that runs on the place's data, if any, and clears away its pid file.
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
    // Dead, or its pid is another process's now. PostgreSQL would believe any live pid, a zombie's
    // too; whether backends of the dead server live on, it finds out by their shared memory.
    files::remove_if_there(&folder.data().join("postmaster.pid"))
}

/// Whether the process of the pid file is a server on our data. Its pid alone proves nothing: in a
/// container it is soon another process's, even another PostgreSQL's.
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
    // Started by hand, perhaps: the server stands in its data folder, or says where that is.
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

/// Ends what is left of a server whose postmaster was killed: a busy backend notices that only
/// when it next waits for something, and PostgreSQL does not start beside it.
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
