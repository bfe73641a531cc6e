//! Two-phase publication: files that are closed and hidden, and the manifest that lists them.
//!
//! ```text
//! close all files ── write the manifest ── (the worker commits its name with the offsets) ── publish each file ── remove the manifest
//! ```
//!
//! The manifest is a small JSON file `_keystone/<route>/<name>.json` below the location: Hive, Spark, DuckDB and pyarrow skip what begins
//! with `_`. It is written when every file of it is durable, and removed when every file of it is visible. So where a commit names a
//! manifest, a manifest that is not there means: all is published. That holds only at the place that was written to: a directory that is
//! not mounted, or an endpoint that answers 404 to everything, has no manifests either. [`Store::assert_written_to`] tells them apart. Each step
//! may be repeated, by several workers at once.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::FutureExt as _;
use futures::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::files::{self, Why};
use super::store::{Parts, Publication, Store, StoreError};
use super::sweep::{self, Suspect};
use crate::{Prepared, Source};

/// Above the manifests of all routes.
pub(super) const DIRECTORY: &str = "_keystone";

/// Manifests in a bucket that one sweep looks at.
const MOST_SUSPECTS: usize = 100;
/// Uploads that one sweep aborts.
const MOST_UPLOADS: usize = 1_000;
/// No manifest that lists a file is as small; one that was emptied is.
const EMPTY_BYTES: u64 = 100;
/// Files that are published at the same time.
const PUBLISHING: usize = 8;
/// How long the other files have after one could not be published: time for those that can be, and not the bucket's outage for each again.
const OTHERS: Duration = Duration::from_secs(10);

/// A complete file, durable and hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) partition: String,
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) why: Why,
    /// In a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<Parts>,
}

impl Closed {
    pub(super) async fn discard(&self, store: &Store) {
        store
            .discard_closed(&self.partition, &self.name, self.upload.as_ref())
            .await;
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) files: Vec<Closed>,
    /// Where the commit that goes with it names it.
    pub(super) source: Source,
}

/// The manifests of a route at one location.
pub(super) struct Manifests {
    store: Store,
    directory: String,
    /// What names of this worker's manifests begin with.
    prefix: String,
    counter: AtomicU64,
}

/// Why a name is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadName {
    /// It was written for another location.
    Elsewhere,
    Unknown,
}

impl Manifests {
    /// `route` and `prefix` are safe in a file name; the prefix is of this process alone.
    pub(super) fn new(store: Store, route: &str, prefix: String) -> Manifests {
        Manifests {
            directory: format!("{DIRECTORY}/{route}"),
            store,
            prefix,
            counter: AtomicU64::new(0),
        }
    }

    /// Writes a manifest of these files and answers with its name: `<location>:<file>`, where the first is a hash.
    pub(super) async fn write(
        &self,
        files: &[Closed],
        source: &Source,
    ) -> Result<String, StoreError> {
        let tables: BTreeSet<&str> = files.iter().map(|file| &*file.partition).collect();
        for partition in tables {
            self.store.sync_partition(partition)?; // Also the hidden name is to last.
        }
        for file in files {
            self.store.assert_hidden(&file.partition, &file.name)?;
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{}-{number:06}", self.prefix);
        let manifest = Manifest {
            files: files.to_vec(),
            source: source.clone(),
        };
        let content = serde_json::to_vec(&manifest).map_err(|error| unreadable(&stem, error))?;
        self.store
            .write_whole(&self.directory, &file_name(&stem), content)
            .await?;
        Ok(self.name(&stem))
    }

    fn name(&self, stem: &str) -> String {
        format!("{}:{stem}", location_hash(&self.store.shown()))
    }

    /// Manifests of this route whose writers are gone; the group's commits tell whether they are orphans.
    pub(super) async fn suspects(&self) -> Vec<Prepared> {
        let found = match &self.store {
            Store::Local { root } => super::blocking(|| sweep::suspects(root, &self.directory)),
            Store::S3 { .. } => self.suspects_in_bucket().await,
        };
        let prepared = found.into_iter().map(|suspect| Prepared {
            name: self.name(&suspect.stem),
            source: suspect.manifest.source,
        });
        prepared.collect()
    }

    /// There are no locks in a bucket: the age has to tell that nobody is about to commit a manifest. This worker's own are left alone.
    async fn suspects_in_bucket(&self) -> Vec<Suspect> {
        let age = sweep::BUCKET_AGE;
        let old = match self.store.old_objects(&self.directory, age).await {
            Ok(old) => old,
            Err(error) => {
                tracing::debug!("manifests of crashed workers were not looked for: {error}");
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for (name, bytes) in old {
            if found.len() >= MOST_SUSPECTS {
                break;
            }
            let stem = name.strip_suffix(sweep::MANIFEST_SUFFIX);
            let Some(stem) = stem.filter(|stem| !stem.starts_with(&self.prefix)) else {
                continue;
            };
            if bytes <= EMPTY_BYTES {
                continue;
            }
            match self.read_manifest(stem).await {
                Ok(Some(manifest)) => found.push(Suspect {
                    stem: stem.to_owned(),
                    manifest,
                }),
                Ok(None) => {} // Published meanwhile.
                Err(error) => tracing::warn!("{error}; it is left alone"),
            }
        }
        found
    }

    /// Aborts what crashes have left in a bucket before a manifest listed it: uploads of our files that are as old as a manifest has to be,
    /// and that no manifest of any route lists. Answers with their number.
    pub(super) async fn sweep_uploads(&self) -> Result<u64, StoreError> {
        let mut old = self.store.old_uploads(sweep::BUCKET_AGE).await?;
        old.retain(|upload| {
            sweep::is_file_name(&upload.name) && !upload.name.starts_with(&self.prefix)
        });
        tracing::debug!(old = old.len(), "uploads were looked through");
        if old.is_empty() {
            return Ok(0);
        }
        let listed = self.listed_files().await?;
        old.retain(|upload| !listed.contains(&upload.name));
        let mut aborted = 0;
        for upload in old.iter().take(MOST_UPLOADS) {
            if !self.store.abort(upload).await {
                break; // Not for each of them again.
            }
            tracing::info!(path = %upload.path, "an unfinished upload that a crash has left is aborted");
            aborted += 1;
        }
        Ok(aborted)
    }

    /// The names of the files in all manifests at the location.
    async fn listed_files(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut listed = BTreeSet::new();
        for (directory, name) in self.store.objects_below(DIRECTORY).await? {
            if !name.ends_with(sweep::MANIFEST_SUFFIX) {
                continue;
            }
            let Some(manifest) = self.read_at(&directory, &name).await? else {
                continue; // Published meanwhile.
            };
            listed.extend(manifest.files.into_iter().map(|file| file.name));
        }
        Ok(listed)
    }

    /// The part of a name that is the file's, if the name is of this location.
    pub(super) fn stem<'n>(&self, name: &'n str) -> Result<&'n str, BadName> {
        let (location, stem) = name.split_once(':').ok_or(BadName::Unknown)?;
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if stem.is_empty() || stem.len() > 300 || !stem.chars().all(safe) {
            return Err(BadName::Unknown);
        }
        match location == location_hash(&self.store.shown()) {
            true => Ok(stem),
            false => Err(BadName::Elsewhere),
        }
    }

    /// The files of a manifest; `None` where it is surely not there: the place is the one that it was written to.
    pub(super) async fn read(&self, stem: &str) -> Result<Option<Vec<Closed>>, StoreError> {
        let mut found = self.read_manifest(stem).await?;
        if found.is_none() {
            self.store.assert_written_to(&self.directory).await?;
            // Again: the place may have come back between the two.
            found = self.read_manifest(stem).await?;
        }
        let files = found.map(|found| found.files);
        Ok(files.filter(|files| !files.is_empty()))
    }

    async fn read_manifest(&self, stem: &str) -> Result<Option<Manifest>, StoreError> {
        self.read_at(&self.directory, &file_name(stem)).await
    }

    async fn read_at(&self, directory: &str, name: &str) -> Result<Option<Manifest>, StoreError> {
        let content = self.store.read_whole(directory, name).await?;
        let manifest = content.map(|content| serde_json::from_slice(&content));
        let stem = name.strip_suffix(sweep::MANIFEST_SUFFIX).unwrap_or(name);
        manifest
            .transpose()
            .map_err(|error| unreadable(stem, error))
    }

    /// Publishes the files of a manifest, then removes it. Answers with the files and what became of each; none where it is not there.
    pub(super) async fn publish(
        &self,
        stem: &str,
    ) -> Result<Vec<(Closed, Publication)>, StoreError> {
        let Some(files) = self.read(stem).await? else {
            return Ok(Vec::new());
        };
        let publishing = files.into_iter().map(|file| async {
            let upload = file.upload.as_ref();
            let done = self
                .store
                .publish_closed(&file.partition, &file.name, upload);
            done.await.map(|publication| (file, publication))
        });
        let published = all_soon(stream::iter(publishing).buffer_unordered(PUBLISHING)).await?;
        let partitions: BTreeSet<&str> =
            published.iter().map(|(file, _)| &*file.partition).collect();
        for partition in partitions {
            self.store.sync_partition(partition)?;
        }
        self.remove(stem).await?;
        Ok(published)
    }

    /// Removes hidden files, then their manifest: a crash in between leaves the list of what is left.
    pub(super) async fn discard(&self, stem: &str) -> Result<(), StoreError> {
        let files = self.read(stem).await?.unwrap_or_default();
        let discards = files.iter().map(|file| file.discard(&self.store).boxed());
        files::drop_all(discards.collect()).await;
        self.remove(stem).await
    }

    /// Removes a manifest; where that fails it is emptied, which says the same. (A user may have the right to write and none to remove.)
    async fn remove(&self, stem: &str) -> Result<(), StoreError> {
        let name = file_name(stem);
        let Err(error) = self.store.remove(&self.directory, &name).await else {
            return Ok(());
        };
        tracing::debug!("{error}; it is emptied instead");
        let empty = Manifest {
            files: Vec::new(),
            source: Source::default(),
        };
        let empty = serde_json::to_vec(&empty).map_err(|error| unreadable(stem, error))?;
        self.store.write_whole(&self.directory, &name, empty).await
    }
}

/// All outcomes, or the first failure; after that only for so long more.
async fn all_soon<T>(
    outcomes: impl Stream<Item = Result<T, StoreError>>,
) -> Result<Vec<T>, StoreError> {
    let mut outcomes = pin!(outcomes);
    let mut done = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(outcome) => done.push(outcome),
            Err(error) => {
                let others = outcomes.for_each(|_| std::future::ready(()));
                let _in_time = tokio::time::timeout(OTHERS, others).await;
                return Err(error);
            }
        }
    }
    Ok(done)
}

fn file_name(stem: &str) -> String {
    format!("{stem}{}", sweep::MANIFEST_SUFFIX)
}

fn unreadable(stem: &str, error: serde_json::Error) -> StoreError {
    StoreError {
        reason: "bad_manifest",
        detail: format!("the manifest {stem} can't be read: {error}"),
    }
}

/// 64 bits that differ between locations: FNV-1a.
fn location_hash(location: &str) -> String {
    let hash = location
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
