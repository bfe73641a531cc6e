//! What crashes leave in a directory, and only that: hidden files and manifests of workers that are gone.
//!
//! Each worker that writes holds a lock on `_keystone/locks/<what its names begin with>.lock` while it lives; the system gives the lock up
//! with the process. A hidden file is an orphan when nobody holds its writer's lock, no manifest lists it, and it is a day old: the age is
//! for file systems whose locks don't reach other machines. A manifest of such a writer is a *suspect*: it is an orphan if the group's
//! commits don't name it, which the worker finds out.
//!
//! In a bucket there are no locks: manifests are suspects when they are a month old, and so old have uploads to be that none lists.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::local::{self, HIDDEN_SUFFIX};
use super::manifest::{DIRECTORY, Manifest};
use super::store::StoreError;

const LOCKS: &str = "locks";
const LOCK_SUFFIX: &str = ".lock";
pub(super) const MANIFEST_SUFFIX: &str = ".json";
/// Nothing younger is touched.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Nothing younger is touched in a bucket. A manifest is committed within seconds, or when Kafka is there again: an outage is to be shorter.
pub(super) const BUCKET_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Directories below the location that are looked into, at most, in one sweep.
const MAX_DIRECTORIES: usize = 1_000_000;

/// Says that a worker lives, until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Alive {
    path: PathBuf,
    _lock: File,
}

impl Alive {
    /// For the writer of files whose names begin with `writer`.
    pub(super) fn new(root: &Path, writer: &str) -> Result<Alive, StoreError> {
        let directory = root.join(DIRECTORY).join(LOCKS);
        local::make_directory(&directory)?;
        let path = directory.join(format!("{writer}{LOCK_SUFFIX}"));
        let file = File::create(&path).map_err(|error| local::failed("creating", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError {
                    reason: "file_exists",
                    detail: format!(
                        "{} is locked by another process: two workers have the same name and started in the same millisecond",
                        path.display()
                    ),
                });
            }
            // Without locks the age of files has to do.
            Err(TryLockError::Error(error)) => {
                tracing::debug!("{} can't be locked: {error}", path.display());
            }
        }
        Ok(Alive { path, _lock: file })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Err(error) = local::remove(&self.path) {
            tracing::debug!("{error}");
        }
    }
}

/// A manifest in the directory of this route whose writer is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) stem: String,
    pub(super) manifest: Manifest,
}

/// The suspects among the manifests of one directory. Looked for before the group is asked: a writer that is gone commits no more.
pub(super) fn suspects(root: &Path, directory: &str) -> Vec<Suspect> {
    let mut writers = Writers::new(root);
    let mut found = Vec::new();
    for name in local::names(&root.join(directory)) {
        let Some(stem) = name.strip_suffix(MANIFEST_SUFFIX) else {
            continue;
        };
        let path = root.join(directory).join(&name);
        if name.starts_with('.') || !is_old(&path) || !writers.is_gone(stem) {
            continue;
        }
        if let Some(manifest) = read(&path) {
            found.push(Suspect {
                stem: stem.to_owned(),
                manifest,
            });
        }
    }
    found
}

/// Removes orphans and the locks of writers that are gone. Answers with the number of hidden files removed.
pub(super) fn sweep(root: &Path) -> u64 {
    // Before the files are looked at: a writer that is gone lists no more of them.
    let Some(listed) = listed(root) else {
        return 0;
    };
    let own = root.join(DIRECTORY);
    let mut writers = Writers::new(root);
    let mut removed = 0;
    // Partitions and our own: another directory below is of a table of its own, with locks and manifests of its own.
    let mut directories = vec![root.to_owned()];
    let mut looked = 0;
    while let Some(directory) = directories.pop() {
        looked += 1;
        if looked > MAX_DIRECTORIES {
            tracing::warn!(
                "more than {MAX_DIRECTORIES} directories: hidden files in the others were not looked for"
            );
            break;
        }
        for name in local::names(&directory) {
            let path = directory.join(&name);
            let hidden = name
                .strip_prefix('.')
                .and_then(|name| name.strip_suffix(HIDDEN_SUFFIX));
            match hidden {
                Some(hidden)
                    if !listed.contains(hidden)
                        && path.is_file()
                        && is_old(&path)
                        && writers.is_gone(hidden) =>
                {
                    tracing::info!(path = %path.display(), "an unfinished file that a crash has left is removed");
                    local::remove_hidden(&path);
                    removed += 1;
                }
                Some(_) => {}
                None if (name.contains('=') || path.starts_with(&own))
                    && path.is_dir()
                    && !path.is_symlink() =>
                {
                    directories.push(path);
                }
                None => {}
            }
        }
    }
    sweep_locks(root, &mut writers);
    removed
}

/// The names of the files in all manifests; `None` where one, or a directory of them, can't be read.
fn listed(root: &Path) -> Option<BTreeSet<String>> {
    let mut listed = BTreeSet::new();
    for route in local::all_names(&root.join(DIRECTORY)).ok()? {
        let directory = root.join(DIRECTORY).join(route);
        match std::fs::metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        }
        for name in local::all_names(&directory).ok()? {
            let path = directory.join(&name);
            if name.starts_with('.') || !name.ends_with(MANIFEST_SUFFIX) {
                continue;
            }
            match read(&path) {
                Some(manifest) => {
                    listed.extend(manifest.files.into_iter().map(|file| file.name));
                }
                None if path.try_exists().unwrap_or(true) => return None,
                // Published meanwhile.
                None => {}
            }
        }
    }
    Some(listed)
}

fn read(path: &Path) -> Option<Manifest> {
    let content = local::read_whole(path).ok()??;
    match serde_json::from_slice(&content) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            tracing::warn!(path = %path.display(), "a manifest can't be read, and what it may list is left alone: {error}");
            None
        }
    }
}

fn sweep_locks(root: &Path, writers: &mut Writers) {
    let directory = root.join(DIRECTORY).join(LOCKS);
    for name in local::names(&directory) {
        let path = directory.join(&name);
        if let Some(writer) = name.strip_suffix(LOCK_SUFFIX)
            && is_old(&path)
            && writers.is_unlocked(writer)
            && let Err(error) = local::remove(&path)
        {
            tracing::debug!("{error}");
        }
    }
}

/// Which writers are gone, as far as it was looked at.
struct Writers {
    locks: PathBuf,
    gone: HashMap<String, bool>,
}

impl Writers {
    fn new(root: &Path) -> Writers {
        Writers {
            locks: root.join(DIRECTORY).join(LOCKS),
            gone: HashMap::new(),
        }
    }

    /// Whether whoever wrote a file of this name is gone: it is `<writer>-<number>…`. Names of another form are none of ours.
    fn is_gone(&mut self, name: &str) -> bool {
        let Some((writer, number)) = name.rsplit_once('-') else {
            return false;
        };
        number.starts_with(|c: char| c.is_ascii_digit()) && self.is_unlocked(writer)
    }

    fn is_unlocked(&mut self, writer: &str) -> bool {
        if let Some(gone) = self.gone.get(writer) {
            return *gone;
        }
        let gone = is_unlocked(&self.locks.join(format!("{writer}{LOCK_SUFFIX}")));
        self.gone.insert(writer.to_owned(), gone);
        gone
    }
}

/// Whether nobody holds this lock. What can't be found out counts as held.
fn is_unlocked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// By the clock of the machine that looks; what can't be found out is young.
fn is_old(path: &Path) -> bool {
    let modified = path.symlink_metadata().and_then(|facts| facts.modified());
    modified.is_ok_and(|time| has_passed(AGE, time))
}

/// Whether files of ours are named so: `<route>-<worker>-<start of the process, hexadecimal milliseconds>-<number>.parquet`.
pub(super) fn is_file_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".parquet") else {
        return false;
    };
    let mut parts = stem.rsplitn(4, '-');
    let (number, start) = (parts.next(), parts.next());
    let is_number = |text: &str| text.len() >= 6 && text.bytes().all(|c| c.is_ascii_digit());
    let is_start = |text: &str| text.len() == 11 && u64::from_str_radix(text, 16).is_ok();
    number.is_some_and(is_number)
        && start.is_some_and(is_start)
        && parts.next().is_some_and(|worker| !worker.is_empty())
        && parts.next().is_some_and(|route| !route.is_empty())
}

/// Whether so much time has passed since then.
pub(super) fn has_passed(age: Duration, since: SystemTime) -> bool {
    SystemTime::now()
        .duration_since(since)
        .is_ok_and(|passed| passed >= age)
}

#[cfg(test)]
mod tests;
