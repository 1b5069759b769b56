//! A separate clock for one program, by libfaketime if it is installed: it can be changed while the program
//! runs. Monotonic time is unaffected, as on a machine whose clock is set.

use std::path::PathBuf;

use crate::process::Folder;

pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
    _folder: Folder,
}

impl Clock {
    /// `None` without libfaketime.
    pub(super) fn find() -> Option<Clock> {
        let beside = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
        let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
        let library = folders.map(|entry| beside(entry.path())).find(|path| path.exists())?;
        let folder = Folder::new();
        let clock = Clock { library, file: folder.path().join("clock"), _folder: folder };
        clock.put(0);
        Some(clock)
    }

    /// This many seconds ahead of the right time, or behind.
    pub(super) fn put(&self, seconds: i64) {
        // By a rename: a reader of a half-written time would take it for another one.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// The environment of a program that uses this clock.
    pub(super) fn settings(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}
