//! Finding PostgreSQL's server programs. Data folders are not searched for here.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::data_folder::DataFolder;
use super::error::StartError;

pub(super) const MAJOR_MIN: u32 = 15;

const LOOKED: &str = "FREEHOLD_PG_BIN, PATH, `pg_config --bindir`, /usr/lib/postgresql/*/bin, \
                      /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql*/bin, \
                      /usr/local/opt/postgresql*/bin";

/// A folder with `postgres` and `initdb` that the account may run.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) bin: PathBuf,
    pub(super) version: String,
    pub(super) major: u32,
}

/// The server to use: of the data's major version if there are data, otherwise the first that is new enough,
/// in the order of [`candidates`]. An override is used or refused, never ignored.
pub(super) fn find(
    bin: Option<&Path>,
    account: &Account,
    existing: Option<&DataFolder>,
) -> Result<Server, StartError> {
    let wanted = existing.map(DataFolder::major).transpose()?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut rejected = String::new();
    let chosen: Box<dyn Iterator<Item = PathBuf>> = match bin {
        Some(bin) => Box::new(std::iter::once(std::path::absolute(bin).unwrap_or(bin.into()))),
        None => Box::new(candidates()),
    };
    for candidate in chosen {
        if !seen.insert(fs::canonicalize(&candidate).unwrap_or_else(|_| candidate.clone())) {
            continue;
        }
        let server = match inspect(&candidate, account) {
            Ok(server) => server,
            Err(Rejected::CannotDrop(source)) => {
                return Err(StartError::CannotDrop { name: account.name.clone(), source });
            }
            Err(Rejected::Because(reason)) if bin.is_some() => {
                return Err(StartError::Override { bin: candidate, reason });
            }
            Err(Rejected::Because(reason)) => {
                rejected.push_str(&format!("\nNot usable: {}: {reason}.", candidate.display()));
                continue;
            }
            Err(Rejected::Absent) if bin.is_some() => {
                let reason = "there is no `postgres` and `initdb` in it".to_owned();
                return Err(StartError::Override { bin: candidate, reason });
            }
            Err(Rejected::Absent) => continue,
        };
        match wanted {
            None => return Ok(server),
            Some(major) if major == server.major => return Ok(server),
            Some(_) => found.push(format!("{} in {}", server.version, server.bin.display())),
        }
    }
    match (existing, wanted) {
        (Some(folder), Some(wanted)) if !found.is_empty() => {
            Err(StartError::OtherMajor { data: folder.data(), wanted, found: found.join(", ") })
        }
        _ => Err(StartError::NotFound { looked: LOOKED.to_owned(), rejected }),
    }
}

/// Common locations of servers, evaluated lazily: the later ones cost a process or a directory listing.
fn candidates() -> impl Iterator<Item = PathBuf> {
    // The shell knows PATH; only config.rs reads the environment.
    let on_path = || answer(Command::new("/bin/sh").args(["-c", "command -v postgres"]));
    let from_path = std::iter::once_with(on_path).flatten().filter_map(|postgres| {
        // A link, as with Homebrew and some images: all programs are in the folder of its target.
        let bin = postgres.parent()?.to_owned();
        let real =
            fs::canonicalize(&postgres).ok().and_then(|real| Some(real.parent()?.to_owned()));
        Some(real.filter(|real| real.join("initdb").exists()).unwrap_or(bin))
    });
    let bindir = || answer(Command::new("pg_config").arg("--bindir"));
    from_path
        .chain(std::iter::once_with(bindir).flatten())
        .chain(std::iter::once_with(installed).flatten())
}

fn answer(command: &mut Command) -> Option<PathBuf> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let path = PathBuf::from(line.trim());
    (output.status.success() && path.is_absolute()).then_some(path)
}

/// The folders of packages, newest version first within each kind.
fn installed() -> Vec<PathBuf> {
    let kinds = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
    ];
    let mut all = Vec::new();
    for (parent, prefix) in kinds {
        let mut kind: Vec<(u32, PathBuf)> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(prefix)?.trim_start_matches('@');
                let bin = entry.path().join("bin");
                bin.join("postgres").exists().then(|| (version.parse().unwrap_or(0), bin))
            })
            .collect();
        kind.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        all.extend(kind.into_iter().map(|(_, bin)| bin));
    }
    all
}

enum Rejected {
    Absent,
    Because(String),
    CannotDrop(io::Error),
}

fn inspect(bin: &Path, account: &Account) -> Result<Server, Rejected> {
    let postgres = bin.join("postgres");
    if !postgres.exists() || !bin.join("initdb").exists() {
        return Err(Rejected::Absent);
    }
    let output = account.command(&postgres).arg("--version").output().map_err(|error| {
        // EPERM: the user must not be changed. EINVAL: the user does not exist (in a user namespace). EACCES
        // is about the file.
        if account.dropped && matches!(error.raw_os_error(), Some(1 | 22)) {
            return Rejected::CannotDrop(error);
        }
        Rejected::Because(format!("the user `{}` cannot run it ({error})", account.name))
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (version, major) = parse_version(&said)
        .ok_or_else(|| Rejected::Because("`postgres --version` names no version".to_owned()))?;
    if major < MAJOR_MIN {
        return Err(Rejected::Because(format!("it is {version}, and {MAJOR_MIN} is needed")));
    }
    Ok(Server { bin: bin.to_owned(), version, major })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or `… 19beta1`.
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version = said.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_or_without_a_packagers_note() {
        let parse = |said| parse_version(said).map(|(version, major)| format!("{version}/{major}"));
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse(debian).unwrap(), "15.18/15");
        assert_eq!(parse("postgres (PostgreSQL) 19beta1\n").unwrap(), "19beta1/19");
        assert_eq!(parse("postgres (SomethingElse) 9\n"), None);
    }

    #[test]
    fn an_override_is_refused_by_name_and_never_passed_over() {
        let account = Account::for_new_data().unwrap();
        let error = find(Some(Path::new("/nowhere/bin")), &account, None).unwrap_err();
        assert!(matches!(&error, StartError::Override { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/bin"), "{error}");
    }
}
