//! The errors, each with a remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why a private PostgreSQL could not be started or reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(
        "no PostgreSQL 15 or newer was found. Looked at: {looked}.{rejected}\n\
         Install its server: `sudo apt install postgresql` (Debian 12, Ubuntu 24.04 and later; \
         for older ones see https://www.postgresql.org/download), `brew install postgresql@17` \
         (macOS), or name the folder of `postgres` and `initdb` in FREEHOLD_PG_BIN"
    )]
    NotFound { looked: String, rejected: String },

    #[error("FREEHOLD_PG_BIN is {}, which cannot be used: {reason}", bin.display())]
    Override { bin: PathBuf, reason: String },

    #[error(
        "the data in {} was made by PostgreSQL {wanted}, and that version is not here (found: \
         {found}). Install it (`sudo apt install postgresql-{wanted}`, `brew install \
         postgresql@{wanted}`), or give the data up and start over with `--reset`",
        data.display()
    )]
    OtherMajor { data: PathBuf, wanted: u32, found: String },

    #[error(
        "already running{}: a program has {} locked. Stop it first (a folder serves one program \
         at a time)",
        pid.map_or_else(String::new, |pid| format!(", pid {pid}")), dir.display()
    )]
    AlreadyRunning { dir: PathBuf, pid: Option<u32> },

    #[error(
        "{} belongs to {owner}, who ran this here before. Run it as {owner} again, or have \
         {owner} remove {} to start over",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    NotOurs { path: PathBuf, owner: String },

    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` in \
         /etc/passwd to run it. Add one (`useradd --system postgres`) or run as an ordinary user"
    )]
    NoAccount,

    #[error(
        "this process runs as root but may not change to the user `{name}`, which PostgreSQL \
         needs ({source}). Run as an ordinary user, or allow SETUID and SETGID in the container"
    )]
    CannotDrop { name: String, source: io::Error },

    #[error(
        "the user `{name}`, who owns {}, cannot enter it any more. Let others search the folders \
         above it (`chmod o+x`), or start over with `--reset`",
        data.display()
    )]
    CannotEnter { name: String, data: PathBuf },

    #[error(
        "{} is not a complete PostgreSQL data folder ({reason}). Move it away if it is worth \
         something, then start over with `--reset`",
        data.display()
    )]
    Damaged { data: PathBuf, reason: String },

    #[error("`{name}` cannot be set in postgresql.conf: {reason}")]
    Setting { name: String, reason: &'static str },

    #[error("initdb failed in {}:\n{output}", home.display())]
    Initdb { home: PathBuf, output: String },

    #[error("PostgreSQL did not start: {what}. The end of {}:\n{tail}", log.display())]
    Failed { what: String, log: PathBuf, tail: String },

    #[error("a PostgreSQL from a killed run (pid {pid}) could not be stopped; stop it by hand")]
    Orphan { pid: u32 },

    #[error("could not {doing}: {source}")]
    Io { doing: String, source: io::Error },
}

impl StartError {
    /// For `map_err`: which file, and what was being done to it.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }
}

/// The server outlived even SIGKILL.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL (pid {pid}) did not stop; its log may say why: {}", log.display())]
pub struct StopError {
    pub pid: u32,
    pub log: PathBuf,
}
