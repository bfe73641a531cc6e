//! Where files go: a directory (`file://`) or a bucket (`s3://`). A file is hidden until it is complete.
//!
//! | | directory | bucket |
//! |---|---|---|
//! | while it is written | `.<name>.inprogress` in the file's own directory | parts of a multipart upload, invisible |
//! | publish | fsync, rename, fsync of the directory | complete the upload (one put where the file is smaller than a part) |
//! | close, to be published later | fsync | upload the last part |
//! | publish what was closed | rename, fsync of the directory | complete the upload |
//! | abandon | remove | abort |
//!
//! Readers of Hive tables skip names that begin with `.` or `_`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::{ObjectMeta, ObjectStore, path::Path as ObjectPath};
use serde::{Deserialize, Serialize};

use super::local;
use super::options::SHORT_PATIENCE;
use super::s3::{self, S3Upload, s3_error};
use super::sweep::has_passed;
use super::uploads::Uploads;

/// The longest key of an object in S3, in bytes of UTF-8. A longer one is refused for good (`KeyTooLongError`).
const LONGEST_KEY: usize = 1_024;

/// The longest path that Linux takes, without the zero at its end.
const LONGEST_PATH: usize = 4_095;

/// A table's files.
#[derive(Debug, Clone)]
pub enum Store {
    Local {
        root: PathBuf,
    },
    S3 {
        store: Arc<AmazonS3>,
        /// The same, where it may fail soon: nothing is lost by that.
        impatient: Arc<AmazonS3>,
        bucket: String,
        /// Without slashes at its ends; empty for the whole bucket.
        prefix: String,
        uploads: Uploads,
    },
}

/// Why a file could not be written, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// For the metric `keystone_retries_total`.
    pub reason: &'static str,
    pub detail: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// The parts of a complete upload to a bucket that was not completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    pub id: String,
    pub parts: Vec<String>,
}

/// An upload to a bucket, of a file of this name, that was neither completed nor aborted for long.
#[derive(Debug)]
pub struct OldUpload {
    pub name: String,
    pub path: ObjectPath,
    pub id: String,
}

/// What became of a closed file that was to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    Now,
    /// It was visible already.
    Before,
    /// It is neither hidden nor visible: it was published before and has been removed since, or it was removed while it was hidden.
    Gone,
}

/// A hidden file that is being written.
#[derive(Debug)]
pub enum Upload {
    Local(local::HiddenFile),
    S3(S3Upload),
}

impl Store {
    /// The location as a URL, without a slash at its end.
    pub fn shown(&self) -> String {
        match self {
            Store::Local { root } => format!("file://{}", root.display()),
            Store::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}")
                .trim_end_matches('/')
                .to_owned(),
        }
    }

    /// Bytes that the path of a partition may have, so that files with names of so many bytes can be in it.
    pub fn longest_partition(&self, name: usize) -> usize {
        let (most, around) = match self {
            Store::Local { root } => (LONGEST_PATH, root.as_os_str().len() + local::HIDDEN_BYTES),
            Store::S3 { prefix, .. } => (LONGEST_KEY, prefix.len()),
        };
        // And two slashes.
        most.saturating_sub(around + name + 2)
    }

    /// Begins a file. `partition` is a path below the location, `name` the file's final name.
    pub async fn create(&self, partition: &str, name: &str) -> Result<Upload, StoreError> {
        match self {
            Store::Local { root } => {
                local::HiddenFile::create(root, partition, name).map(Upload::Local)
            }
            Store::S3 { store, .. } => {
                let path = self.object(&[partition, name])?;
                Ok(Upload::S3(S3Upload::new(store.clone(), path)))
            }
        }
    }

    /// Whether a file can be written at the location. `probe` is a file name of our own.
    pub async fn check(&self, probe: &str) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => local::check(root, probe),
            Store::S3 {
                impatient: store, ..
            } => {
                // Begun and aborted: asks for the right to write and leaves nothing.
                let path = self.object(&["", probe])?;
                let id = store
                    .create_multipart(&path)
                    .await
                    .map_err(|error| s3_error("writing to", &path, error))?;
                s3::abort(store, &path, &id).await;
                Ok(())
            }
        }
    }

    /// Publishes a closed file; `upload` is what [`Upload::close`] answered. In a directory the name is durable after
    /// [`Store::sync_partition`].
    pub async fn publish_closed(
        &self,
        partition: &str,
        name: &str,
        upload: Option<&Parts>,
    ) -> Result<Publication, StoreError> {
        match (self, upload) {
            (Store::Local { root }, _) => {
                super::blocking(|| local::publish_closed(root, partition, name))
            }
            (
                Store::S3 {
                    store, impatient, ..
                },
                Some(parts),
            ) => {
                let path = self.object(&[partition, name])?;
                s3::publish_closed(store, impatient, &path, parts).await
            }
            (Store::S3 { .. }, None) => Ok(Publication::Gone),
        }
    }

    /// Makes the names of a partition's files durable.
    pub fn sync_partition(&self, partition: &str) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => super::blocking(|| local::sync(&root.join(partition))),
            Store::S3 { .. } => Ok(()),
        }
    }

    /// Fails where a closed file is not there any more, before a commit counts on it: another program may have emptied its partition.
    pub fn assert_hidden(&self, partition: &str, name: &str) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => {
                super::blocking(|| local::assert_hidden(&root.join(partition), name))
            }
            // An upload that is aborted shows when it is completed; nobody does that but this route's sweep.
            Store::S3 { .. } => Ok(()),
        }
    }

    /// Removes a closed file that was not published. What can't be removed stays hidden.
    pub async fn discard_closed(&self, partition: &str, name: &str, upload: Option<&Parts>) {
        match (self, upload) {
            (Store::Local { root }, _) => {
                super::blocking(|| local::discard(root, partition, name));
            }
            (Store::S3 { store, .. }, Some(parts)) => {
                if let Ok(path) = self.object(&[partition, name]) {
                    s3::abort(store, &path, &parts.id).await;
                }
            }
            (Store::S3 { .. }, None) => {}
        }
    }

    /// Writes a small file, durable, whole or not at all.
    pub async fn write_whole(
        &self,
        directory: &str,
        name: &str,
        content: Vec<u8>,
    ) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => {
                super::blocking(|| local::write_whole(&root.join(directory), name, &content))
            }
            Store::S3 { store, .. } => {
                s3::put(store, &self.object(&[directory, name])?, content).await
            }
        }
    }

    /// The content of a small file, `None` where there is none.
    pub async fn read_whole(
        &self,
        directory: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Store::Local { root } => {
                super::blocking(|| local::read_whole(&root.join(directory).join(name)))
            }
            Store::S3 { store, .. } => {
                s3::read_whole(store, &self.object(&[directory, name])?).await
            }
        }
    }

    /// Makes sure that small files in this directory were written here, so that one that is missing was removed. A directory stays when it
    /// is empty; a bucket has none, but it can be listed.
    pub async fn assert_written_to(&self, directory: &str) -> Result<(), StoreError> {
        let doubt = match self {
            Store::Local { root } => {
                let path = root.join(directory);
                match super::blocking(|| local::is_directory(&path))? {
                    true => return Ok(()),
                    false => format!(
                        "there is no directory {}, which whoever committed has made; mount what belongs there or correct the location; if it was removed on purpose, and the files of the last commit are not wanted, make that directory again",
                        path.display()
                    ),
                }
            }
            Store::S3 { store, .. } => {
                let path = self.object(&[directory])?;
                // The first page will do.
                match store.list(Some(&path)).try_next().await {
                    Ok(_) => return Ok(()),
                    Err(error) => s3_error("listing", &path, error).detail,
                }
            }
        };
        Err(StoreError {
            reason: "wrong_location",
            detail: format!(
                "whether files that were committed are published can't be told, since {} may not be the place that they were written to, or is not mounted or reachable: {doubt}",
                self.shown()
            ),
        })
    }

    /// Removes a small file; one that is not there is no error. Fails soon. In a bucket it is removed by a request of its own: some servers
    /// know no `DeleteObjects`, which the client always asks for, and which is asked here only where the other has failed.
    pub async fn remove(&self, directory: &str, name: &str) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => {
                super::blocking(|| local::remove(&root.join(directory).join(name)))
            }
            Store::S3 {
                impatient, uploads, ..
            } => {
                let path = self.object(&[directory, name])?;
                match tokio::time::timeout(SHORT_PATIENCE, uploads.remove_object(&path)).await {
                    Ok(Ok(())) => Ok(()),
                    _ => s3::remove(impatient, &path).await,
                }
            }
        }
    }

    /// Names and bytes of the small files of a directory that are older than this, in a bucket. Elsewhere the [sweep](super::sweep) looks
    /// itself.
    pub async fn old_objects(
        &self,
        directory: &str,
        age: Duration,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let Store::S3 { store, .. } = self else {
            return Ok(Vec::new());
        };
        let path = self.object(&[directory])?;
        let listed = store
            .list_with_delimiter(Some(&path))
            .await
            .map_err(|error| s3_error("listing", &path, error))?;
        let is_old = |object: &ObjectMeta| has_passed(age, object.last_modified.into());
        let old = listed.objects.iter().filter(|object| is_old(object));
        let named = old.filter_map(|object| Some((object.location.filename()?, object.size)));
        Ok(named
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .collect())
    }

    /// Uploads to partitions of this place in a bucket that were begun longer ago than this and neither completed nor aborted. What lies
    /// in another directory below is of a table of its own, with manifests of its own.
    pub async fn old_uploads(&self, age: Duration) -> Result<Vec<OldUpload>, StoreError> {
        let Store::S3 { uploads, .. } = self else {
            return Ok(Vec::new());
        };
        let open = uploads.open(&self.object(&[""])?).await?;
        let old = open
            .into_iter()
            .filter(|upload| has_passed(age, upload.begun));
        let named = old.filter_map(|upload| {
            let (partition, name) = self.below(&upload.path)?;
            let is_partition = partition.split('/').all(|part| part.contains('='));
            (partition.is_empty() || is_partition).then_some(OldUpload {
                name,
                path: upload.path,
                id: upload.id,
            })
        });
        Ok(named.collect())
    }

    /// Gives such an upload up; answers whether it is gone.
    pub async fn abort(&self, upload: &OldUpload) -> bool {
        match self {
            Store::Local { .. } => false,
            Store::S3 { store, .. } => s3::abort(store, &upload.path, &upload.id).await,
        }
    }

    /// The small files below a directory of a bucket: directory and name.
    pub async fn objects_below(
        &self,
        directory: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let Store::S3 { store, .. } = self else {
            return Ok(Vec::new());
        };
        let path = self.object(&[directory])?;
        let listed: Vec<ObjectMeta> = store
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|error| s3_error("listing", &path, error))?;
        let below = |object: &ObjectMeta| {
            self.below(&object.location).ok_or_else(|| StoreError {
                reason: "bad_path",
                detail: format!("{} was listed below {path}", object.location),
            })
        };
        listed.iter().map(below).collect()
    }

    /// Directory and name of an object, as seen from the location; `None` where it is elsewhere.
    fn below(&self, path: &ObjectPath) -> Option<(String, String)> {
        let root = self.object(&[""]).ok()?;
        let below = path.as_ref().strip_prefix(root.as_ref())?;
        let below = match root.as_ref() {
            "" => below,
            _ => below.strip_prefix('/')?,
        };
        let (directory, name) = below.rsplit_once('/').unwrap_or(("", below));
        Some((directory.to_owned(), name.to_owned()))
    }

    /// Partition paths that exist below the location, at `depth` levels: the greatest `limit` of them by name, which are the newest where
    /// the first key is a date.
    pub async fn partitions(&self, depth: usize, limit: usize) -> Result<Vec<String>, StoreError> {
        match self {
            Store::Local { root } => Ok(local::partitions(root, depth, limit)),
            Store::S3 { .. } => self.s3_partitions(depth, limit).await,
        }
    }

    async fn s3_partitions(&self, depth: usize, limit: usize) -> Result<Vec<String>, StoreError> {
        let Store::S3 { store, .. } = self else {
            return Ok(Vec::new());
        };
        let root = self.object(&[""])?;
        let mut level = vec![String::new()];
        for _ in 0..depth {
            let mut next = Vec::new();
            for parent in level {
                let path = self.object(&[&parent])?;
                let listed = store
                    .list_with_delimiter(Some(&path))
                    .await
                    .map_err(|error| s3_error("listing", &path, error))?;
                let below = listed.common_prefixes.iter().filter_map(|found| {
                    let found = found.as_ref().strip_prefix(root.as_ref())?;
                    let found = found.trim_start_matches('/');
                    found.contains('=').then(|| found.to_owned())
                });
                let mut below: Vec<String> = below.collect();
                below.sort_unstable_by(|a, b| b.cmp(a));
                next.extend(below);
                if next.len() >= limit {
                    break;
                }
            }
            next.truncate(limit);
            level = next;
        }
        Ok(level)
    }

    fn object(&self, below: &[&str]) -> Result<ObjectPath, StoreError> {
        let prefix = match self {
            Store::Local { .. } => "",
            Store::S3 { prefix, .. } => prefix,
        };
        let parts: Vec<&str> = std::iter::once(prefix)
            .chain(below.iter().copied())
            .filter(|part| !part.is_empty())
            .collect();
        let path = parts.join("/");
        ObjectPath::parse(&path).map_err(|error| StoreError {
            reason: "bad_path",
            detail: format!("{path} can't be a name in a bucket: {error}"),
        })
    }
}

impl Upload {
    /// Writes the next bytes of the file.
    pub async fn append(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        match self {
            Upload::Local(file) => super::blocking(|| file.append(&bytes)),
            Upload::S3(upload) => upload.append(&bytes).await,
        }
    }

    /// Makes the complete file visible and durable.
    pub async fn publish(&mut self) -> Result<(), StoreError> {
        match self {
            Upload::Local(file) => super::blocking(|| file.publish()),
            Upload::S3(upload) => upload.publish().await,
        }
    }

    /// Makes the complete file durable, still hidden; answers with what it takes to publish it later ([`Store::publish_closed`]).
    pub async fn close(&mut self) -> Result<Option<Parts>, StoreError> {
        match self {
            Upload::Local(file) => super::blocking(|| file.close()).map(|()| None),
            Upload::S3(upload) => upload.close().await.map(Some),
        }
    }

    /// Removes what was written. What can't be removed stays hidden.
    pub async fn abandon(self) {
        match self {
            Upload::Local(file) => super::blocking(|| file.abandon()),
            Upload::S3(upload) => upload.abandon().await,
        }
    }

    /// Bytes written or waiting to be.
    pub fn written(&self) -> u64 {
        match self {
            Upload::Local(file) => file.written(),
            Upload::S3(upload) => upload.written(),
        }
    }

    /// Bytes held in memory.
    pub fn buffered(&self) -> usize {
        match self {
            Upload::Local(_) => 0,
            Upload::S3(upload) => upload.buffered(),
        }
    }
}

#[cfg(test)]
mod tests;
