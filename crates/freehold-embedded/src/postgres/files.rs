//! Operations on files and folders: locks, private folders, atomic writes, protection against planted links,
//! and ownership that lets each user continue what another one started.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::account::{self, Account};
use super::error::StartError;

/// Takes the lock of a folder and writes our pid into it. The system releases it when the process ends.
pub(super) fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join("lock");
    refuse_link(&path)?;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied if path.exists() => {
            StartError::NotOurs { owner: account::owner_name(&path), path: path.clone() }
        }
        _ => StartError::io("open", &path)(error),
    })?;
    hand_over(&path, folder)?;
    // A child that another thread is starting holds a copy of every lock until its exec, so a lock that was
    // just released may seem taken for some milliseconds.
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tries < 10 => {
                tries += 1;
                sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(StartError::AlreadyRunning { dir: folder.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(StartError::io("lock", &path)(error)),
        }
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(StartError::io("write", &path))?;
    Ok(file)
}

/// Creates a folder that only the account may enter.
pub(super) fn make_private(folder: &Path, account: &Account) -> Result<(), StartError> {
    DirBuilder::new().mode(0o700).create(folder).map_err(StartError::io("create", folder))?;
    give_to(folder, account)
}

pub(super) fn give_to(path: &Path, account: &Account) -> Result<(), StartError> {
    if account.dropped {
        chown(path, Some(account.uid), Some(account.gid)).map_err(StartError::io("chown", path))?;
    }
    Ok(())
}

/// Gives a file that root writes in another user's folder to that user, who could not start the server again
/// otherwise.
pub(super) fn hand_over(path: &Path, folder: &Path) -> Result<(), StartError> {
    let (file, owner) = (fs::symlink_metadata(path), fs::metadata(folder));
    if let (Ok(file), Ok(owner)) = (file, owner)
        && file.uid() == 0
        && owner.uid() != 0
    {
        chown(path, Some(owner.uid()), Some(owner.gid())).map_err(StartError::io("chown", path))?;
    }
    Ok(())
}

/// Replaces a file atomically.
pub(super) fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), StartError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", random_hex::<6>()?));
    let temporary = PathBuf::from(temporary);
    // create_new follows no link; the mode is set again because the umask may have taken from it.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(StartError::io("create", &temporary))?;
    file.write_all(contents)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .map_err(StartError::io("write", &temporary))?;
    if let Some(folder) = path.parent() {
        hand_over(&temporary, folder)?;
    }
    fs::rename(&temporary, path).map_err(StartError::io("write", path))
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StartError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StartError::io("set the mode of", path))
}

/// Whether this is a folder, not a link to one, that is ours and that no other user can write to.
pub(super) fn is_private_folder(path: &Path) -> Result<bool, StartError> {
    let me = account::effective_uid()?;
    Ok(fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == me && meta.mode() & 0o022 == 0))
}

/// If root opened a planted link in another user's folder, it would write to the link's target.
pub(super) fn refuse_link(path: &Path) -> Result<(), StartError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(StartError::io("open", path)(io::Error::other("it is not an ordinary file")))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), StartError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StartError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn read_path(file: &Path) -> Result<PathBuf, StartError> {
    let bytes = fs::read(file).map_err(StartError::io("read", file))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Io {
        doing: "get random bytes".to_owned(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

pub(super) fn random_hex<const N: usize>() -> Result<String, StartError> {
    Ok(random::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
