//! The account that runs the server. An ordinary user uses their own account. root must not (PostgreSQL
//! refuses) and switches to `postgres`, otherwise to `nobody`, or to the owner of existing data.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::StartError;

/// Environment variables that a shell may set for other servers, which must not affect this one.
const FOREIGN_ENV: [&str; 9] = [
    "PGDATA",
    "PGPORT",
    "PGHOST",
    "PGUSER",
    "PGDATABASE",
    "PGOPTIONS",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGTZ",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
    /// The program runs as root and switches to this user for everything that touches the data.
    pub(super) dropped: bool,
}

impl Account {
    /// For a data folder that is to be created.
    pub(super) fn for_new_data() -> Result<Self, StartError> {
        let me = effective_uid()?;
        let passwd = passwd();
        if me != 0 {
            return Ok(Self::of(me, 0, &passwd, false));
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| entries(&passwd).find(|entry| entry.0 == *name && entry.1 != 0))
            .map(|(name, uid, gid)| Self { uid, gid, name: name.to_owned(), dropped: true })
            .ok_or(StartError::NoAccount)
    }

    /// For an existing data folder: PostgreSQL requires its owner.
    pub(super) fn owning(data: &Path) -> Result<Self, StartError> {
        let meta = fs::metadata(data).map_err(StartError::io("look at", data))?;
        let me = effective_uid()?;
        let account = Self::of(meta.uid(), meta.gid(), &passwd(), me == 0);
        if meta.uid() == 0 && me == 0 {
            let reason = "it belongs to root, as whom PostgreSQL refuses to run".to_owned();
            return Err(StartError::Damaged { data: data.to_owned(), reason });
        }
        if me != 0 && me != meta.uid() {
            return Err(StartError::NotOurs { path: data.to_owned(), owner: account.name });
        }
        Ok(account)
    }

    fn of(uid: u32, gid: u32, passwd: &str, dropped: bool) -> Self {
        let known = entries(passwd).find(|entry| entry.1 == uid);
        let (name, gid) =
            known.map_or_else(|| (uid.to_string(), gid), |(name, _, gid)| (name.to_owned(), gid));
        Self { uid, gid, name, dropped }
    }

    /// A command that runs as this user, in a process group of its own: Ctrl-C in a terminal
    /// reaches the whole foreground group, and the server must outlive the program's last request.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).current_dir("/").process_group(0);
        // A fixed language, so that the server's messages can be recognised.
        command.env("LC_ALL", "C").env_remove("LANG").env_remove("LANGUAGE");
        for name in FOREIGN_ENV {
            command.env_remove(name);
        }
        if self.dropped {
            // std also clears root's supplementary groups here, before it changes the user, and
            // enters the current directory after it.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

/// The name of a file's owner, for messages.
pub(super) fn owner_name(path: &Path) -> String {
    fs::metadata(path).map_or_else(
        |_| "another user".to_owned(),
        |meta| Account::of(meta.uid(), 0, &passwd(), false).name,
    )
}

/// std has no `geteuid`. The owner of `/proc/self` differs from it for a process that is not dumpable.
pub(super) fn effective_uid() -> Result<u32, StartError> {
    let from_proc = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let from_id = || {
        let output = Command::new("id").arg("-u").output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    from_proc().or_else(from_id).ok_or_else(|| StartError::Io {
        doing: "learn which user this is".to_owned(),
        source: std::io::Error::other("neither /proc/self/status nor `id -u` says"),
    })
}

fn passwd() -> String {
    fs::read("/etc/passwd")
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The name, uid and gid of each complete line.
fn entries(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_that_are_broken_or_negative_are_passed_over() {
        let passwd = "# note\nroot:x:0:0::/root:/bin/sh\nnobody:*:-2:-2::/:/x\n\nshort:x:7\n\
                      postgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
        let found: Vec<_> = entries(passwd).collect();
        assert_eq!(found, [("root", 0, 0), ("postgres", 101, 104)]);
    }

    #[test]
    fn a_dropped_command_keeps_none_of_roots_groups() {
        let account = Account::for_new_data().unwrap();
        let output = account.command("id").arg("-G").output().unwrap();
        let groups = String::from_utf8(output.stdout).unwrap();
        if account.dropped {
            assert_eq!(groups.trim(), account.gid.to_string());
        } else {
            assert!(!groups.trim().is_empty());
        }
    }
}
