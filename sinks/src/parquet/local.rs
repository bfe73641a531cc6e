//! Files in a directory: hidden while they are written, then renamed. All calls block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::store::{Publication, StoreError};

/// Ends the name of a file that is being written.
pub const HIDDEN_SUFFIX: &str = ".inprogress";

/// By how many bytes a hidden name is longer: a dot before it, and the suffix.
pub const HIDDEN_BYTES: usize = 1 + HIDDEN_SUFFIX.len();

/// A file under its hidden name.
#[derive(Debug)]
pub struct HiddenFile {
    file: File,
    hidden: PathBuf,
    path: PathBuf,
    written: u64,
}

impl HiddenFile {
    pub fn create(root: &Path, partition: &str, name: &str) -> Result<HiddenFile, StoreError> {
        let directory = root.join(partition);
        make_directory(&directory)?;
        let hidden = hidden_path(&directory, name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&hidden)
            .map_err(|error| failed("creating", &hidden, error))?;
        Ok(HiddenFile {
            file,
            path: directory.join(name),
            hidden,
            written: 0,
        })
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|error| failed("writing", &self.hidden, error))
    }

    /// Makes what was written durable, still hidden.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(|error| failed("syncing", &self.hidden, error))
    }

    pub fn publish(&mut self) -> Result<(), StoreError> {
        self.close()?;
        // A rename would replace it. Names are unique, so this is another program's file.
        if self.path.exists() {
            return Err(exists(&self.path));
        }
        fs::rename(&self.hidden, &self.path)
            .map_err(|error| failed("renaming to", &self.path, error))?;
        sync(self.path.parent().unwrap_or(Path::new("/")))
    }

    pub fn abandon(self) {
        remove_hidden(&self.hidden);
    }

    pub fn written(&self) -> u64 {
        self.written
    }
}

/// Fails where the hidden file of this name is not in the directory.
pub fn assert_hidden(directory: &Path, name: &str) -> Result<(), StoreError> {
    let hidden = hidden_path(directory, name);
    match hidden.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError {
            reason: "file_removed",
            detail: format!(
                "{} was removed while it was written: another program has emptied the partition",
                hidden.display()
            ),
        }),
        Err(error) => Err(failed("looking at", &hidden, error)),
    }
}

/// Gives a closed file its name. Whether another worker does the same at this moment does not matter.
pub fn publish_closed(root: &Path, partition: &str, name: &str) -> Result<Publication, StoreError> {
    let directory = root.join(partition);
    let (hidden, path) = (hidden_path(&directory, name), directory.join(name));
    match hidden.try_exists() {
        // A rename would replace it. Names are unique, so this is another program's file.
        Ok(true) if path.exists() && hidden.exists() => Err(exists(&path)),
        Ok(true) => match fs::rename(&hidden, &path) {
            Ok(()) => Ok(Publication::Now),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(published_before(&path)),
            Err(error) => Err(failed("renaming to", &path, error)),
        },
        Ok(false) => Ok(published_before(&path)),
        Err(error) => Err(failed("looking at", &hidden, error)),
    }
}

fn published_before(path: &Path) -> Publication {
    match path.exists() {
        true => Publication::Before,
        false => Publication::Gone,
    }
}

/// Removes a file that was closed or is being written.
pub fn discard(root: &Path, partition: &str, name: &str) {
    remove_hidden(&hidden_path(&root.join(partition), name));
}

/// Makes the names in a directory durable; one that is gone has none.
pub fn sync(directory: &Path) -> Result<(), StoreError> {
    match sync_directory(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed("syncing the directory", directory, error))
        }
        _ => Ok(()),
    }
}

/// Writes a small file, durable and complete or not at all.
pub fn write_whole(directory: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    make_directory(directory)?;
    let (path, hidden) = (directory.join(name), hidden_path(directory, name));
    let written = File::create(&hidden).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&hidden, &path))
        .map_err(|error| failed("writing", &path, error))?;
    sync(directory)
}

/// The content of a file, `None` where there is none.
pub fn read_whole(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", path, error)),
    }
}

/// Whether there is such a directory.
pub fn is_directory(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("looking at", path, error)),
    }
}

pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("removing", path, error)),
        _ => Ok(()),
    }
}

fn hidden_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}{HIDDEN_SUFFIX}"))
}

pub(super) fn remove_hidden(hidden: &Path) {
    if let Err(error) = remove(hidden) {
        tracing::warn!("an unfinished file could not be removed: {error}");
    }
}

fn exists(path: &Path) -> StoreError {
    StoreError {
        reason: "file_exists",
        detail: format!("{} exists already", path.display()),
    }
}

pub(super) fn make_directory(directory: &Path) -> Result<(), StoreError> {
    if directory.is_dir() {
        return Ok(());
    }
    create_directories(directory).map_err(|error| failed("creating directory", directory, error))
}

/// Creates a directory with its parents, each durable in its own parent.
fn create_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create_directories(parent)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => {}
        // Another worker was first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) => return Err(error),
    }
    directory.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Tries to write at the location, or above it where it is not there yet: it is created with the first file.
pub fn check(root: &Path, probe: &str) -> Result<(), StoreError> {
    let place = root.ancestors().find(|place| place.exists());
    let path = place
        .unwrap_or(root)
        .join(format!(".{probe}{HIDDEN_SUFFIX}"));
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(b"keystone")?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written
        .and(removed)
        .map_err(|error| failed("writing", &path, error))
}

/// Paths of partitions that hold a published file.
pub fn partitions(root: &Path, depth: usize, limit: usize) -> Vec<String> {
    let mut found = directories(root, depth, limit);
    found
        .retain(|directory| names(&root.join(directory)).any(|name| !name.starts_with(['.', '_'])));
    found
}

/// Directories of the form `key=value` at `depth` levels below the root, at most `limit`, the greatest names first.
fn directories(root: &Path, depth: usize, limit: usize) -> Vec<String> {
    let mut level = vec![String::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for parent in level {
            let mut below: Vec<String> = names(&root.join(&parent))
                .filter(|name| name.contains('=') && !name.starts_with(['.', '_']))
                .map(|name| {
                    if parent.is_empty() {
                        name
                    } else {
                        format!("{parent}/{name}")
                    }
                })
                .collect();
            below.sort_unstable_by(|a, b| b.cmp(a));
            next.extend(below);
            if next.len() >= limit {
                break;
            }
        }
        next.truncate(limit);
        level = next;
    }
    level
}

/// The names in a directory, none where there is no such directory. Unlike [`names`] it leaves none out that it can't read.
pub(super) fn all_names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // No name of ours is anything but text.
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

pub(super) fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> StoreError {
    let (reason, hint) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
            "disk_full",
            "; free some space, or point sink.parquet.location elsewhere",
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (
            "permission_denied",
            "; let the worker's user write there, or point sink.parquet.location elsewhere",
        ),
        _ => ("file_failed", ""),
    };
    StoreError {
        reason,
        detail: format!("{doing} {}: {error}{hint}", path.display()),
    }
}
