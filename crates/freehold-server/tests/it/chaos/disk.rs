//! A separate file system for the primary, small enough to be filled. Tests cannot create one without rights
//! on the machine; `./dev chaos` does if it may.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The size of the blocks that fill a file.
const PIECE: usize = 64 * 1024;
/// More than the file system of `./dev chaos` holds: a wrong folder must not take a machine's disk.
const FILL_MAX: u64 = 4 << 30;

pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn find() -> Option<Disk> {
        std::env::var_os("FREEHOLD_CHAOS_DISK").map(|folder| Disk(folder.into()))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Takes all that is left, to the last block.
    pub(super) fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.balloon()).unwrap();
        let zeros = vec![0; PIECE];
        let mut size = PIECE;
        while size >= 512 {
            match file.write_all(&zeros[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("{} cannot be filled: {error}", self.0.display()),
            }
            assert!(file.metadata().unwrap().len() < FILL_MAX, "it is larger than it should be");
        }
    }

    pub(super) fn relieve(&self) {
        fs::remove_file(self.balloon()).unwrap();
    }

    fn balloon(&self) -> PathBuf {
        self.0.join("balloon")
    }
}
