//! The location of a server's files: the requested folder, or, if the server's user could not access that, a
//! folder in /var/tmp to which it points. Locking the folder is done here too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::account::{self, Account};
use super::error::StartError;
use super::files::{
    hand_over, is_private_folder, lock, make_private, random_hex, read_path, refuse_link,
    remove_if_there, set_mode, write,
};

/// PostgreSQL's paths have at most 1023 bytes; its files are up to 100 bytes below the data folder.
const HOME_BYTES_MAX: usize = 800;
/// `sun_path` without its final NUL: 108 on Linux, 104 on macOS and the BSDs.
const SOCKET_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
const LOG_BYTES_MAX: u64 = 10 << 20;
/// The location of data that cannot be in the project. It survives a reboot, unlike /tmp.
const ELSEWHERE: &str = "/var/tmp";

#[derive(Debug)]
pub(super) struct DataFolder {
    /// The requested folder. Absolute, without symbolic links.
    dir: PathBuf,
    /// The location of the files; equals `dir` if it can hold them.
    home: PathBuf,
    /// Kept open: the locks on `dir`, and on `home` if it differs.
    locks: Vec<File>,
}

impl DataFolder {
    /// Creates the folder if it is missing, and takes its lock.
    pub(super) fn open(dir: &Path) -> Result<Self, StartError> {
        let path = std::path::absolute(dir).map_err(StartError::io("resolve", dir))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(StartError::io("create", parent))?;
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            // If this is root, the server's user has to pass through to the data; nothing else is readable.
            Ok(()) if account::effective_uid()? == 0 => set_mode(&path, 0o711)?,
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StartError::io("create", &path)(error)),
        }
        let dir = fs::canonicalize(&path).map_err(StartError::io("resolve", &path))?;
        let lock = lock(&dir)?;
        Ok(Self { home: dir.clone(), dir, locks: vec![lock] })
    }

    /// Follows the pointer that an earlier start left. A pointer is ignored if its folder is gone or belongs
    /// to another project, of which this one is a copy.
    pub(super) fn follow(&mut self, progress: &mut impl FnMut(&str)) -> Result<(), StartError> {
        let pointer = self.dir.join("location");
        if !pointer.exists() {
            return Ok(());
        }
        let home = read_path(&pointer)?;
        if !is_private_folder(&home)? || home.parent() != Some(Path::new(ELSEWHERE)) {
            progress(&format!("the data in {} is gone; starting over", home.display()));
            return remove_if_there(&pointer);
        }
        let project = read_path(&home.join("project")).unwrap_or_default();
        if project != self.dir {
            if read_path(&project.join("location")).is_ok_and(|other| other == home) {
                progress(&format!(
                    "the data in {} is that of {}; this copy gets its own",
                    home.display(),
                    project.display()
                ));
                return remove_if_there(&pointer);
            }
            // The project was moved.
            write(&home.join("project"), self.dir.as_os_str().as_bytes(), 0o600)?;
        }
        self.move_to(home)
    }

    /// Whether an earlier start has created the data.
    pub(super) fn has_data(&self) -> Result<bool, StartError> {
        let data = self.data();
        let version = data.join("PG_VERSION");
        if version.try_exists().map_err(StartError::io("look at", &version))? {
            return Ok(true);
        }
        // Our data folders are created by a rename, so they are complete.
        match fs::symlink_metadata(&data) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StartError::io("look at", &data)(error)),
            Ok(_) => Err(StartError::Damaged { data, reason: "it has no PG_VERSION".to_owned() }),
        }
    }

    fn move_to(&mut self, home: PathBuf) -> Result<(), StartError> {
        self.locks.push(lock(&home)?);
        self.home = home;
        Ok(())
    }

    /// Decides the location of new data. True if that location has old data of this folder, from before it
    /// was deleted: these are to be stopped and removed.
    pub(super) fn settle(
        &mut self,
        account: &Account,
        progress: &mut impl FnMut(&str),
    ) -> Result<bool, StartError> {
        let Err(why) = fits(&self.home, account)? else {
            return Ok(false);
        };
        if self.home != self.dir {
            return Err(StartError::io("use", &self.home)(io::Error::other(why)));
        }
        let uid = account::effective_uid()?;
        let name = format!("freehold-{:016x}-{uid}", fnv1a(self.dir.as_os_str().as_bytes()));
        for attempt in 0..100 {
            let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
            let home = Path::new(ELSEWHERE).join(format!("{name}{suffix}"));
            match DirBuilder::new().mode(0o700).create(&home) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // Planted by another user, or data of another folder: leave it alone.
                    let project = read_path(&home.join("project"));
                    if !is_private_folder(&home)? || project.is_ok_and(|other| other != self.dir) {
                        continue;
                    }
                }
                Err(error) => return Err(StartError::io("create", &home)(error)),
            }
            if account.dropped {
                set_mode(&home, 0o711)?;
            }
            self.move_to(home)?;
            write(&self.home.join("project"), self.dir.as_os_str().as_bytes(), 0o600)?;
            write(&self.dir.join("location"), self.home.as_os_str().as_bytes(), 0o600)?;
            progress(&format!(
                "{why}, so PostgreSQL's data goes to {} instead of {}",
                self.home.display(),
                self.dir.display()
            ));
            return self.has_data();
        }
        let every = Path::new(ELSEWHERE).join(name);
        Err(StartError::io("create", &every)(ErrorKind::AlreadyExists.into()))
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    pub(super) fn conf(&self) -> PathBuf {
        self.home.join("postgresql.conf")
    }

    /// The data's major version.
    pub(super) fn major(&self) -> Result<u32, StartError> {
        let file = self.data().join("PG_VERSION");
        let text = fs::read_to_string(&file).map_err(StartError::io("read", &file))?;
        text.trim().parse().map_err(|_| StartError::Damaged {
            data: self.data(),
            reason: format!("its PG_VERSION says {:?}", text.trim()),
        })
    }

    /// A new superuser password, since any server with the old one is gone.
    pub(super) fn new_password(&self) -> Result<String, StartError> {
        let password = random_hex::<16>()?;
        write(&self.home.join("password"), password.as_bytes(), 0o600)?;
        Ok(password)
    }

    pub(super) fn password(&self) -> Result<String, StartError> {
        let file = self.home.join("password");
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let reason = format!("its password in {} is lost", file.display());
            return Err(StartError::Damaged { data: self.data(), reason });
        }
        Ok(text)
    }

    /// An empty folder for the unix socket, or `None` where its path would be too long.
    pub(super) fn socket_dir(&self, account: &Account) -> Result<Option<PathBuf>, StartError> {
        let run = self.home.join("run");
        // The socket and its lock file, of a server that was killed.
        remove_if_there(&run)?;
        if run.join(".s.PGSQL.65535").as_os_str().len() > SOCKET_BYTES_MAX {
            return Ok(None);
        }
        make_private(&run, account)?;
        Ok(Some(run))
    }

    /// Opens the log for appending, and returns its length. A log that has grown too large is set aside
    /// first.
    pub(super) fn open_log(&self) -> Result<(File, u64), StartError> {
        let path = self.log();
        refuse_link(&path)?;
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            let old = self.home.join("postgres.log.1");
            fs::rename(&path, &old).map_err(StartError::io("rename", &path))?;
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let log = log.map_err(StartError::io("open", &path))?;
        hand_over(&path, &self.home)?;
        let end = log.metadata().map_err(StartError::io("look at", &path))?.len();
        Ok((log, end))
    }

    /// The last lines of the log from `start` on.
    pub(super) fn log_tail(&self, start: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.log()).and_then(|mut log| {
            let end = log.metadata()?.len();
            log.seek(io::SeekFrom::Start(start.max(end.saturating_sub(16 << 10))))?;
            log.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            return format!("(unreadable: {error})");
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// A name for an unfinished file; [`remove_leftovers`](Self::remove_leftovers) finds it.
    pub(super) fn unfinished(&self, name: &str) -> Result<PathBuf, StartError> {
        Ok(self.home.join(format!("{name}.tmp-{}", random_hex::<6>()?)))
    }

    /// Removes the unfinished files of a killed start, as far as possible: an initdb that outlived its
    /// program may still be writing, and fails because of this.
    pub(super) fn remove_leftovers(&self) {
        for folder in [&self.dir, &self.home] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().as_bytes().windows(5).any(|part| part == b".tmp-") {
                    let _ = remove_if_there(&entry.path());
                }
            }
        }
    }

    /// Removes the server and its data, but neither the folder nor its lock.
    pub(super) fn remove_contents(&self) -> Result<(), StartError> {
        // The data last: as long as they exist, an interrupted removal does not look like a new folder.
        for name in
            ["run", "port", "postgresql.conf", "postgres.log", "postgres.log.1", "data", "password"]
        {
            remove_if_there(&self.home.join(name))?;
        }
        self.remove_leftovers();
        Ok(())
    }

    /// Removes everything except `dir` and its lock, which this program holds.
    pub(super) fn remove(self) -> Result<(), StartError> {
        self.remove_contents()?;
        if self.home != self.dir {
            remove_if_there(&self.dir.join("location"))?;
            for name in ["project", "lock"] {
                remove_if_there(&self.home.join(name))?;
            }
            fs::remove_dir(&self.home).map_err(StartError::io("remove", &self.home))?;
        }
        Ok(())
    }
}

/// Tests whether the account's data folder can be here: permissions, access lists, and file systems without
/// owners or modes all matter. `Ok(Err(why))` if it cannot.
fn fits(folder: &Path, account: &Account) -> Result<Result<(), String>, StartError> {
    if folder.as_os_str().len() > HOME_BYTES_MAX {
        return Ok(Err(format!("a path over {HOME_BYTES_MAX} bytes is too long for PostgreSQL")));
    }
    let probe = folder.join(format!("probe.tmp-{}", random_hex::<6>()?));
    let made = make_private(&probe, account);
    let verdict = made.map_err(|error| error.to_string()).and_then(|()| {
        let meta = fs::metadata(&probe).map_err(|error| error.to_string())?;
        if meta.uid() != account.uid || meta.mode() & 0o777 != 0o700 {
            return Err(format!("{} keeps no owners and modes", folder.display()));
        }
        match account.command("/bin/sh").args(["-c", ":"]).current_dir(&probe).status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("the user `{}` cannot enter {}", account.name, folder.display())),
        }
    });
    remove_if_there(&probe)?;
    Ok(verdict)
}

/// FNV-1a, 64 bits. It only spreads names; the target of a name is checked.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
