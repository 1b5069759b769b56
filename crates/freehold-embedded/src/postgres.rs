//! The private PostgreSQL that `freehold dev` and the tests start: finding, initialising, starting,
//! recovering after a kill, and stopping it. The content of its databases is decided elsewhere.
//!
//! One folder is one server. The folder belongs to this module alone and holds:
//!
//! | File | What |
//! |---|---|
//! | `lock` | held for as long as a program owns the folder; the owner's pid is written in it |
//! | `data/` | PostgreSQL's own data folder; it appears complete, by a rename, or not at all |
//! | `password`, `port` | the superuser's password (0600), the TCP port on 127.0.0.1 |
//! | `postgresql.conf` | written anew at every start; it includes `data/postgresql.conf` first |
//! | `run/` | the unix socket, where the path is short enough for one |
//! | `postgres.log` | what the server says |
//! | `location` | only if the data cannot live here: where everything but the lock is instead |
//!
//! Starting blocks its thread for some milliseconds here and there (small files, `postgres
//! --version`): it happens once, at the start of a program.

mod account;
mod binaries;
mod cluster;
mod data_folder;
mod error;
mod files;
mod orphan;
mod ports;
mod postmaster;
mod process;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use account::Account;
use binaries::Server;
use data_folder::DataFolder;
pub use error::{StartError, StopError};
use postmaster::{LaunchError, Postmaster};

/// How long backends of a killed server may hold its shared memory before a start fails.
const STRAGGLERS_MAX: Duration = Duration::from_secs(10);
/// After this time, backends that have not noticed their server's death are terminated.
const STRAGGLERS_PATIENCE: Duration = Duration::from_secs(1);

/// The options of [`EmbeddedPostgres::start`].
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The server's folder, for example `.freehold/pg`. Created if missing, which is best left to
    /// `start`: it then gets the permissions that the server's user needs.
    pub dir: &'a Path,
    /// The folder that holds `postgres` and `initdb`; `None` searches the usual places.
    pub bin: Option<&'a Path>,
    /// Further settings for `postgresql.conf`. They win over this module's own, except for where
    /// the server listens.
    pub settings: &'a [(&'a str, &'a str)],
}

/// A running PostgreSQL of our own. Dropping it stops it, blocking for as long as that takes
/// (about 0.1 s); [`stop`](Self::stop) does the same without blocking, and tells how it went.
pub struct EmbeddedPostgres {
    // Dropped in this order: the lock in `place` goes only when the server is gone.
    postmaster: Postmaster,
    folder: DataFolder,
    server: Server,
    account: Account,
    password: String,
    port: u16,
    data_dir: PathBuf,
}

impl EmbeddedPostgres {
    /// Starts the server of `options.dir`, creating it the first time. Returns when it answers.
    ///
    /// `progress` is called with a sentence about anything slow or unexpected.
    pub async fn start(
        options: Options<'_>,
        mut progress: impl FnMut(&str),
    ) -> Result<Self, StartError> {
        cluster::check_settings(options.settings)?;
        let mut folder = DataFolder::open(options.dir)?;
        folder.follow(&mut progress)?;
        let (account, server) = if folder.has_data()? {
            let account = Account::owning(&folder.data())?;
            let server = binaries::find(options.bin, &account, Some(&folder))?;
            orphan::stop(&folder, &account, &mut progress).await?;
            (account, server)
        } else {
            let account = Account::for_new_data()?;
            let server = binaries::find(options.bin, &account, None)?;
            if folder.settle(&account, &mut progress)? {
                orphan::stop(&folder, &account, &mut progress).await?;
                folder.remove_contents()?;
            }
            cluster::create(&server, &account, &folder, &mut progress).await?;
            (account, server)
        };
        folder.remove_leftovers();
        let password = folder.password()?;
        cluster::configure(&folder, options.settings)?;
        let (postmaster, port) =
            launch(&server, &account, &folder, None, &password, &mut progress).await?;
        let data_dir = folder.data();
        Ok(Self { postmaster, folder, server, account, password, port, data_dir })
    }

    /// `postgres://postgres:<password>@127.0.0.1:<port>/<database>`
    pub fn superuser_url(&self, database: &str) -> String {
        let mut url = format!("postgres://postgres:{}@127.0.0.1:{}/", self.password, self.port);
        for byte in database.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                write!(url, "%{byte:02X}").expect("writing to a String cannot fail");
            }
        }
        url
    }

    /// The TCP port on 127.0.0.1. The same at every start, unless another program took it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's version as it names it, for example `15.18`.
    pub fn version(&self) -> &str {
        &self.server.version
    }

    /// PostgreSQL's data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.log()
    }

    /// Returns how the server ended, once it has ended without being stopped here.
    pub async fn ended(&mut self) -> String {
        self.postmaster.ended().await
    }

    /// Restarts a server that has [`ended`](Self::ended), on the same port: existing URLs stay valid.
    ///
    /// # Errors
    /// The reason if it cannot start, such as another program on its port.
    pub async fn restart(&mut self, mut progress: impl FnMut(&str)) -> Result<(), StartError> {
        let (server, account, folder) = (&self.server, &self.account, &self.folder);
        let port = Some(self.port);
        let (postmaster, _) =
            launch(server, account, folder, port, &self.password, &mut progress).await?;
        self.postmaster = postmaster;
        Ok(())
    }

    /// Stops the server: fast, after 10 s immediately, after 15 s by SIGKILL. No data is lost
    /// in any of these.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.postmaster.stop().await
    }
}

impl fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedPostgres")
            .field("version", &self.server.version)
            .field("port", &self.port)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// Removes the server of `dir` with all its data, and stops it first if a killed program left it
/// running. Refuses while a program owns the folder. A folder that does not exist is fine.
pub async fn reset(dir: &Path) -> Result<(), StartError> {
    if !dir.exists() {
        return Ok(());
    }
    let mut folder = DataFolder::open(dir)?;
    let mut quiet = |_: &str| {};
    folder.follow(&mut quiet)?;
    if folder.data().exists() {
        match Account::owning(&folder.data()) {
            Ok(account) => orphan::stop(&folder, &account, &mut quiet).await?,
            // No server can run on this folder.
            Err(StartError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    folder.remove()
}

/// Starts the server on the given port, or on its usual one, or on another if that is taken; and waits for
/// the remaining backends of a server that was killed.
async fn launch(
    server: &Server,
    account: &Account,
    folder: &DataFolder,
    given: Option<u16>,
    password: &str,
    progress: &mut impl FnMut(&str),
) -> Result<(Postmaster, u16), StartError> {
    let began = Instant::now();
    let mut ports_tried = 0;
    let mut port = match given {
        Some(port) => port,
        None => ports::usable(folder, progress)?,
    };
    loop {
        match Postmaster::launch(server, account, folder, port, password, progress).await {
            Ok(postmaster) => return Ok((postmaster, port)),
            // Another program took the port between the check and the server's start.
            Err(LaunchError::PortTaken(_)) if given.is_none() && ports_tried < 5 => {
                ports_tried += 1;
                port = ports::another(folder)?;
            }
            Err(LaunchError::StillInUse(_)) if began.elapsed() < STRAGGLERS_MAX => {
                if began.elapsed() > STRAGGLERS_PATIENCE {
                    orphan::end_stragglers(folder, account);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
