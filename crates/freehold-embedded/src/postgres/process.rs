//! Processes that are not our children: inspecting and signalling them, for which std has no functions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;

/// A live process's arguments; `None` if there is no such process or it is a zombie (which a
/// container whose pid 1 reaps nothing may keep for ever).
pub(super) fn arguments(pid: u32) -> Option<Vec<Vec<u8>>> {
    if Path::new("/proc/self/cmdline").exists() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = line.strip_suffix(&[0]).unwrap_or(&line);
        return (!line.is_empty())
            .then(|| line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
    }
    // Without /proc, as on macOS: `ps` prints words only, so a path with spaces is split.
    let output = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let words: Vec<_> = output
        .stdout
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    (!words.is_empty() && !words[0].starts_with(b"(")).then_some(words)
}

/// The working directory of a process, if it is readable: in a container root may lack the permission.
pub(super) fn working_dir(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Every process id, where /proc lists them.
pub(super) fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Sends a signal (`INT`, `QUIT`, `KILL`) by the shell's builtin `kill`: a shell is always present, the
/// program `kill` is not. It runs as the account, which may signal its own processes.
pub(super) fn signal(account: &Account, pid: u32, name: &str) -> io::Result<()> {
    let status = account
        .command("/bin/sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill: {status}"))) }
}
