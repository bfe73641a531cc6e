//! A wall clock for workers that a test sets, by libfaketime. The monotonic clock is left alone, as a real jump leaves it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Doing, Error, Result};

pub(super) struct Clock {
    directory: TempDir,
    library: PathBuf,
}

impl Clock {
    /// The right time.
    pub(super) fn new() -> Result<Clock> {
        let clock = Clock {
            directory: tempfile::Builder::new()
                .prefix("keystone-clock-")
                .tempdir()?,
            library: library()?,
        };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets what is added to the right time, for example `+1h`; workers see it within a second.
    pub(super) fn set(&self, offset: &str) -> Result<()> {
        // Renamed into place: a worker never reads half of it.
        let new = self.directory.path().join("new");
        std::fs::write(&new, offset)?;
        std::fs::rename(&new, self.file()).doing("setting a clock")
    }

    /// What makes a worker see this clock.
    pub(super) fn environment(&self) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}

/// Where Debian and Ubuntu put the variant for threads.
fn library() -> Result<PathBuf> {
    let missing = || Error::new("libfaketime is missing: install Debian's package libfaketime");
    std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}
