//! A server process: starting it, waiting until it answers, stopping it.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::account::Account;
use super::binaries::Server;
use super::data_folder::DataFolder;
use super::error::{StartError, StopError};
use super::process;

/// The ways to stop a server, and the time for each: fast (clients are disconnected, a checkpoint is
/// written), immediate (recovery at the next start), and SIGKILL.
pub(super) const STOP_STEPS: [(&str, Duration); 3] = [
    ("INT", Duration::from_secs(10)),
    ("QUIT", Duration::from_secs(5)),
    ("KILL", Duration::from_secs(5)),
];

/// Recovery after a kill may take long; a server that still reports "starting" is waited for.
const READY_MAX: Duration = Duration::from_secs(300);
/// How soon an unexpected end of the server is noticed.
const WATCH: Duration = Duration::from_millis(100);
const READY_POLL: Duration = Duration::from_millis(20);
/// A start takes about 0.1 s; longer than this it is a recovery, and the user is told.
const SLOW: Duration = Duration::from_millis(1500);

/// A server process, stopped when dropped.
pub(super) struct Postmaster {
    child: Child,
    account: Account,
    log: PathBuf,
}

/// Why a server did not start: the first two are worth another attempt.
pub(super) enum LaunchError {
    PortTaken(StartError),
    /// Backends of a killed server still use its shared memory.
    StillInUse(StartError),
    Final(StartError),
}

impl From<StartError> for LaunchError {
    fn from(error: StartError) -> Self {
        Self::Final(error)
    }
}

impl From<LaunchError> for StartError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::PortTaken(e) | LaunchError::StillInUse(e) | LaunchError::Final(e) => e,
        }
    }
}

impl Postmaster {
    /// Starts the server on the data and returns when it accepts a connection.
    pub(super) async fn launch(
        server: &Server,
        account: &Account,
        folder: &DataFolder,
        port: u16,
        password: &str,
        progress: &mut impl FnMut(&str),
    ) -> Result<Self, LaunchError> {
        let (log, log_start) = folder.open_log()?;
        let mut postmaster = Self::spawn(server, account, folder, port, log)?;
        let result = postmaster.ready(folder, port, password, progress).await;
        if let Err(what) = result {
            // Dropped first, so that the log has its last messages.
            drop(postmaster);
            let tail = folder.log_tail(log_start);
            let port_taken = tail.contains("could not bind IPv4 address");
            let still_in_use = tail.contains("pre-existing shared memory block");
            let error = StartError::Failed { what, log: folder.log(), tail };
            return Err(match (port_taken, still_in_use) {
                (true, _) => LaunchError::PortTaken(error),
                (_, true) => LaunchError::StillInUse(error),
                _ => LaunchError::Final(error),
            });
        }
        Ok(postmaster)
    }

    fn spawn(
        server: &Server,
        account: &Account,
        folder: &DataFolder,
        port: u16,
        log: fs::File,
    ) -> Result<Self, StartError> {
        let data = folder.data();
        let mut config_file = OsString::from("config_file=");
        config_file.push(folder.conf());
        // On the command line, so that neither a configuration file nor ALTER SYSTEM can change them.
        let mut sockets = OsString::from("unix_socket_directories=");
        if let Some(folder) = folder.socket_dir(account)? {
            // A list: a comma or a space in the path must be quoted.
            let quoted = format!("\"{}\"", folder.to_string_lossy().replace('"', "\"\""));
            if folder.to_str().is_some() {
                sockets.push(quoted);
            }
        }
        let err = log.try_clone().map_err(StartError::io("share", &folder.log()))?;
        let program = server.bin.join("postgres");
        let spawned = account
            .command(&program)
            .current_dir(&data)
            .arg("-D")
            .arg(&data)
            .arg("-c")
            .arg(config_file)
            .arg("-c")
            .arg("listen_addresses=127.0.0.1")
            .arg("-c")
            .arg(format!("port={port}"))
            .arg("-c")
            .arg(sockets)
            .stdout(log)
            .stderr(err)
            .spawn();
        let child = spawned.map_err(|error| match error.kind() {
            // The program itself has been run before, to read its version.
            ErrorKind::PermissionDenied => {
                StartError::CannotEnter { name: account.name.clone(), data }
            }
            _ => StartError::io("run", &program)(error),
        })?;
        Ok(Self { child, account: account.clone(), log: folder.log() })
    }

    /// Waits for the status in the server's pid file, which costs the server nothing, then connects.
    async fn ready(
        &mut self,
        folder: &DataFolder,
        port: u16,
        password: &str,
        progress: &mut impl FnMut(&str),
    ) -> Result<(), String> {
        let began = Instant::now();
        let mut told = false;
        loop {
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(format!("it ended with {status}")),
                Err(error) => return Err(error.to_string()),
            }
            let file = PidFile::read(&folder.data());
            if file.is_some_and(|file| file.pid == self.child.id() && file.ready) {
                break;
            }
            if began.elapsed() > SLOW && !told {
                told = true;
                progress("waiting for PostgreSQL, which recovers from a stop that was not clean");
            }
            if began.elapsed() > READY_MAX {
                return Err(format!("it was not ready after {} s", READY_MAX.as_secs()));
            }
            tokio::time::sleep(READY_POLL).await;
        }
        match connect(port, password).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Err(format!(
                "it does not accept the password in {}; if that was changed by hand, change it \
                 back, or start over with `--reset`",
                folder.home().join("password").display()
            )),
            Err(error) => Err(format!("it runs but cannot be connected to ({error})")),
        }
    }

    pub(super) async fn stop(&mut self) -> Result<(), StopError> {
        for (signal, patience) in STOP_STEPS {
            let began = Instant::now();
            if self.has_ended() {
                return Ok(());
            }
            self.send(signal);
            while began.elapsed() < patience {
                if self.has_ended() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Err(StopError { pid: self.child.id(), log: self.log.clone() })
    }

    /// A child that has not been waited for keeps its pid, so the signal cannot reach another process.
    fn send(&mut self, signal: &str) {
        if process::signal(&self.account, self.child.id(), signal).is_err() {
            let _ = self.child.kill();
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns how the server ended, once it has.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            match self.child.try_wait() {
                Ok(None) => tokio::time::sleep(WATCH).await,
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        for (signal, patience) in STOP_STEPS {
            let began = Instant::now();
            if self.has_ended() {
                return;
            }
            self.send(signal);
            while began.elapsed() < patience && !self.has_ended() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What a server writes about itself in `postmaster.pid` (PostgreSQL's `pidfile.h`).
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) ready: bool,
}

impl PidFile {
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read(data.join("postmaster.pid")).ok()?)
    }

    /// Lines: pid, data folder, start time, port, socket folder, address, shared memory, status.
    /// While the server comes up only the first are there. The paths may be of any bytes.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let lines: Vec<_> =
            bytes.split(|byte| *byte == b'\n').map(String::from_utf8_lossy).collect();
        let line = |number: usize| lines.get(number - 1).map_or("", |line| line.trim());
        Some(Self {
            pid: line(1).parse().ok()?,
            port: line(4).parse().unwrap_or(0),
            ready: line(8) == "ready",
        })
    }
}

/// A connection of the superuser's to the database `postgres`.
pub(super) async fn connect(port: u16, password: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .password(password)
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(10))
        .connect(NoTls)
        .await?;
    // It ends when the client is dropped; its errors reach the client.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_that_is_still_being_written_is_not_ready() {
        let whole = b"42\n/da\xffta\n1700000000\n17001\n/run\n127.0.0.1\n  5 6\nready   \n";
        let file = PidFile::parse(whole).unwrap();
        assert_eq!((file.pid, file.port, file.ready), (42, 17001, true));
        let file = PidFile::parse(b"42\n/data\n1700000000\n17001\n").unwrap();
        assert_eq!((file.pid, file.ready), (42, false));
        assert!(PidFile::parse(b"").is_none());
    }
}
