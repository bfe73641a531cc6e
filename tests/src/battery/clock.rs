//! A wall clock for workers that a test sets, by libfaketime. The monotonic clock is left alone, as a real jump leaves it. Not like a real
//! jump: waits that are under way keep their length.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Doing, Error, Result, process};

/// A few lines of C.
const COMPILE: Duration = Duration::from_secs(60);

pub(super) struct Clock {
    directory: TempDir,
    libfaketime: PathBuf,
    /// `waits.c`, compiled.
    waits: PathBuf,
}

impl Clock {
    /// The right time.
    pub(super) fn new() -> Result<Clock> {
        let directory = tempfile::Builder::new()
            .prefix("keystone-clock-")
            .tempdir()?;
        let clock = Clock {
            libfaketime: libfaketime()?,
            waits: waits(directory.path())?,
            directory,
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
            (
                "LD_PRELOAD",
                format!("{}:{}", text(&self.libfaketime), text(&self.waits)),
            ),
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
fn libfaketime() -> Result<PathBuf> {
    let missing = || Error::new("libfaketime is missing: install Debian's package libfaketime");
    std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}

fn waits(directory: &Path) -> Result<PathBuf> {
    let (source, library) = (directory.join("waits.c"), directory.join("waits.so"));
    std::fs::write(&source, include_str!("waits.c"))?;
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source]);
    process::run("cc", &mut compile, COMPILE).doing("compiling waits.c for a clock that jumps")?;
    Ok(library)
}
