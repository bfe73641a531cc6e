//! A small disk that can be full: a file system in memory, mounted for the purpose. Needs the right to mount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Doing, Error, Result, process};

const SIZE: &str = "size=64m";
/// For `mount` and `umount`.
const COMMAND: Duration = Duration::from_secs(20);

/// Unmounted when dropped.
pub(super) struct Disk {
    directory: TempDir,
}

impl Disk {
    pub(super) fn mount() -> Result<Disk> {
        let directory = tempfile::Builder::new()
            .prefix("keystone-disk-")
            .tempdir()?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", SIZE, "none"])
            .arg(directory.path());
        process::run("mount", &mut mount, COMMAND)
            .doing("mounting a small disk; the fault `the disk is full` needs root")?;
        Ok(Disk { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes until there is no room.
    pub(super) fn fill(&self) -> Result<()> {
        let block = vec![7; 64 << 10];
        let mut file = std::fs::File::create(self.ballast())?;
        loop {
            match std::io::Write::write_all(&mut file, &block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(Error::new(format!("filling a disk: {error}"))),
            }
        }
    }

    pub(super) fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).doing("making room on a disk")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join(".ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = process::run("umount", unmount.arg(self.path()), COMMAND);
    }
}
