//! Where files go: a directory (`file://`) or a bucket (`s3://`). A file is hidden until it is complete.
//!
//! | | directory | bucket |
//! |---|---|---|
//! | while it is written | `.<name>.inprogress` in the file's own directory | parts of a multipart upload, invisible |
//! | publish | fsync, rename, fsync of the directory | complete the upload (one put where the file is smaller than a part) |
//! | abandon | remove | abort |
//!
//! Readers of Hive tables skip names that begin with `.` or `_`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::AmazonS3;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::local;

/// How long the abort of an upload may take: the bucket may be away, and that is no reason to wait.
const ABORT: std::time::Duration = std::time::Duration::from_secs(5);

/// S3 wants parts of at least 5 MiB; all but the last are of this size.
const PART: usize = 5 << 20;

/// A table's files.
#[derive(Debug, Clone)]
pub enum Store {
    Local {
        root: PathBuf,
    },
    S3 {
        store: Arc<AmazonS3>,
        bucket: String,
        /// Without slashes at its ends; empty for the whole bucket.
        prefix: String,
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

/// A hidden file that is being written.
#[derive(Debug)]
pub enum Upload {
    Local(local::HiddenFile),
    S3(S3Upload),
}

#[derive(Debug)]
pub struct S3Upload {
    store: Arc<AmazonS3>,
    path: ObjectPath,
    /// Less than a part.
    rest: Vec<u8>,
    multipart: Option<Box<dyn MultipartUpload>>,
    written: u64,
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

    /// Begins a file. `partition` is a path below the location, `name` the file's final name.
    pub async fn create(&self, partition: &str, name: &str) -> Result<Upload, StoreError> {
        match self {
            Store::Local { root } => {
                local::HiddenFile::create(root, partition, name).map(Upload::Local)
            }
            Store::S3 { store, .. } => Ok(Upload::S3(S3Upload {
                store: store.clone(),
                path: self.object(&[partition, name])?,
                rest: Vec::new(),
                multipart: None,
                written: 0,
            })),
        }
    }

    /// Whether a file can be written at the location. `probe` is a file name of our own.
    pub async fn check(&self, probe: &str) -> Result<(), StoreError> {
        match self {
            Store::Local { root } => local::check(root, probe),
            Store::S3 { store, .. } => {
                // Begun and aborted: asks for the right to write and leaves nothing.
                let path = self.object(&["", probe])?;
                let mut upload = store
                    .put_multipart(&path)
                    .await
                    .map_err(|error| s3_error("writing to", &path, error))?;
                let _ = upload.abort().await;
                Ok(())
            }
        }
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

    /// Removes what was written. What can't be removed stays hidden.
    pub async fn abandon(self) {
        match self {
            Upload::Local(file) => super::blocking(|| file.abandon()),
            Upload::S3(mut upload) => {
                let Some(multipart) = &mut upload.multipart else {
                    return;
                };
                let aborted = tokio::time::timeout(ABORT, multipart.abort()).await;
                if !matches!(aborted, Ok(Ok(()))) {
                    tracing::warn!(path = %upload.path, "an upload could not be aborted; a lifecycle rule of the bucket should remove it");
                }
            }
        }
    }

    /// Bytes written or waiting to be.
    pub fn written(&self) -> u64 {
        match self {
            Upload::Local(file) => file.written(),
            Upload::S3(upload) => upload.written,
        }
    }

    /// Bytes held in memory.
    pub fn buffered(&self) -> usize {
        match self {
            Upload::Local(_) => 0,
            Upload::S3(upload) => upload.rest.capacity(),
        }
    }
}

impl S3Upload {
    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.rest.len()));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() == PART {
                let part = std::mem::take(&mut self.rest);
                self.put_part(part).await?;
            }
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Vec<u8>) -> Result<(), StoreError> {
        let upload = match &mut self.multipart {
            Some(upload) => upload,
            none => none.insert(
                self.store
                    .put_multipart(&self.path)
                    .await
                    .map_err(|error| s3_error("beginning", &self.path, error))?,
            ),
        };
        upload
            .put_part(PutPayload::from(part))
            .await
            .map_err(|error| s3_error("writing a part of", &self.path, error))
    }

    async fn publish(&mut self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.rest);
        if self.multipart.is_none() {
            self.store
                .put(&self.path, PutPayload::from(rest))
                .await
                .map_err(|error| s3_error("writing", &self.path, error))?;
            return Ok(());
        }
        if !rest.is_empty() {
            self.put_part(rest).await?;
        }
        if let Some(upload) = &mut self.multipart {
            upload
                .complete()
                .await
                .map_err(|error| s3_error("completing", &self.path, error))?;
        }
        self.multipart = None;
        Ok(())
    }
}

fn s3_error(doing: &str, path: &ObjectPath, error: object_store::Error) -> StoreError {
    use object_store::Error;
    let (reason, hint) = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
            "s3_denied",
            "; check sink.parquet.s3.access.key.id and sink.parquet.s3.secret.access.key, and the bucket's policy",
        ),
        Error::NotFound { .. } => (
            "s3_not_found",
            "; check the bucket in sink.parquet.location, and sink.parquet.s3.region",
        ),
        _ => (
            "s3_failed",
            "; check sink.parquet.s3.endpoint and sink.parquet.s3.region where this lasts",
        ),
    };
    StoreError {
        reason,
        detail: format!("{doing} s3 object {path}: {error}{hint}"),
    }
}

#[cfg(test)]
mod tests;
