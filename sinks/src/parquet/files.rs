//! The open files of a sink, one for each partition of the table, and the batches that wait for them.
//!
//! Where files are published at once, a batch is durable when every file that holds rows of it is published. In two phases, a file that
//! ends is closed under its hidden name and waits for the next commit, which takes all files along, open ones too. After an error the content of open files is not known to
//! match the batches: the owner abandons everything and the worker reads it again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, StreamExt, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::encoder::Codec;
use super::file::OpenFile;
use super::manifest::Closed;
use super::rows::{Group, SharedLayout};
use super::store::{Store, StoreError};
use crate::batch::BatchId;

/// Memory for encoded rows in all open files together. Beyond it, row groups end early.
const MEMORY_BYTES: usize = 40 << 20;

/// Less than this is not worth ending a row group for.
const MIN_ROW_GROUP_BYTES: usize = 64 << 10;

/// Files that a flush publishes at the same time: each takes a few requests to a bucket.
const PUBLISHING: usize = 8;

/// Hidden files that are dropped at the same time: each takes one short request to a bucket.
const DROPPING: usize = 16;

/// How long it may take to drop any number of them. A bucket that is away answers to none, and a rewind waits for this.
const DROP_ALL: Duration = Duration::from_secs(20);

/// When a file ends, and how it is written.
#[derive(Debug, Clone)]
pub(super) struct Rolling {
    pub(super) max_bytes: u64,
    pub(super) max_rows: u64,
    pub(super) max_age: Duration,
    pub(super) max_open: usize,
    pub(super) codec: Codec,
    /// Whether a file that ends waits for a commit, instead of being published at once.
    pub(super) two_phase: bool,
    /// What names of files begin with: the route, the worker and the start of the process.
    pub(super) name: String,
}

impl Rolling {
    /// The name of this process's file of this number.
    fn file_name(&self, number: u64) -> String {
        format!("{}-{number:06}.parquet", self.name)
    }

    /// Bytes of the longest of these names.
    pub(super) fn longest_name(&self) -> usize {
        self.file_name(u64::MAX).len()
    }
}

/// What ended a file: a label of `keystone_parquet_files_published_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    Bytes,
    Rows,
    Age,
    OpenFiles,
    Memory,
    Flush,
    /// A commit of other files took it along.
    Commit,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Why::Bytes => "bytes",
            Why::Rows => "rows",
            Why::Age => "age",
            Why::OpenFiles => "open_files",
            Why::Memory => "memory",
            Why::Flush => "flush",
            Why::Commit => "commit",
        }
    }
}

/// A file that readers see now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) partition: String,
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) why: Why,
}

/// When files that wait want to be committed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due {
    pub(super) at: Option<Instant>,
    pub(super) now: bool,
}

/// What is open and what waits for it.
pub(super) struct Files {
    store: Store,
    rolling: Rolling,
    open: HashMap<String, OpenFile>,
    /// Files that wait for a commit, hidden.
    closed: Vec<Closed>,
    /// When the first file was opened of those that wait.
    waiting_since: Option<Instant>,
    /// For each batch the number of unpublished pieces of it.
    held: HashMap<BatchId, usize>,
    durable: Vec<BatchId>,
    published: Vec<Published>,
    counter: u64,
}

impl Files {
    pub(super) fn new(store: Store, rolling: Rolling) -> Files {
        Files {
            store,
            rolling,
            open: HashMap::new(),
            closed: Vec::new(),
            waiting_since: None,
            held: HashMap::new(),
            durable: Vec::new(),
            published: Vec::new(),
            counter: 0,
        }
    }

    pub(super) fn open_files(&self) -> usize {
        self.open.len()
    }

    /// Files that wait for a commit.
    pub(super) fn waiting_files(&self) -> usize {
        self.closed.len()
    }

    /// Rows that readers don't see yet.
    pub(super) fn open_rows(&self) -> u64 {
        let open = self.open.values().map(|file| file.rows);
        open.chain(self.closed.iter().map(|file| file.rows)).sum()
    }

    /// When a commit is due by age, and whether it is due because of what waits: as many files are full as are open (so that at least
    /// half of what a commit publishes has its full size), or as many as may be open.
    pub(super) fn due(&self) -> Due {
        let oldest = self.open.values().map(|file| file.opened);
        let oldest = oldest.chain(self.waiting_since).min();
        let full = self.closed.len();
        Due {
            at: oldest.map(|oldest| oldest + self.rolling.max_age),
            now: full > 0 && (full >= self.open.len() || full >= self.rolling.max_open),
        }
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        self.open.values().map(OpenFile::memory).sum()
    }

    /// Batches that became durable since the last call.
    pub(super) fn take_durable(&mut self) -> Vec<BatchId> {
        std::mem::take(&mut self.durable)
    }

    /// Files published since the last call.
    pub(super) fn take_published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.published)
    }

    /// Takes over the rows of a batch.
    pub(super) async fn append(
        &mut self,
        batch: BatchId,
        layout: &SharedLayout,
        groups: Vec<Group>,
    ) -> Result<(), StoreError> {
        // A piece of its own keeps the batch from being durable while the rest of it is still to come.
        self.hold(batch);
        for Group { partition, rows } in groups {
            self.append_rows(batch, layout, &partition, rows).await?;
            self.bound_memory().await?;
        }
        self.release(batch);
        Ok(())
    }

    async fn append_rows(
        &mut self,
        batch: BatchId,
        layout: &SharedLayout,
        partition: &str,
        mut rows: RecordBatch,
    ) -> Result<(), StoreError> {
        while rows.num_rows() > 0 {
            if !self.open.contains_key(partition) {
                let file = self.create(layout, partition).await?;
                self.open.insert(partition.to_owned(), file);
            }
            let Some(file) = self.open.get_mut(partition) else {
                continue;
            };
            if !self.rolling.two_phase && file.batches.last() != Some(&batch) {
                file.batches.push(batch);
                *self.held.entry(batch).or_default() += 1;
            }
            let room = self.rolling.max_rows.saturating_sub(file.rows).max(1);
            let now = rows
                .num_rows()
                .min(usize::try_from(room).unwrap_or(usize::MAX));
            file.append(rows.slice(0, now)).await?;
            let why = if file.rows >= self.rolling.max_rows {
                Some(Why::Rows)
            } else if file.size() >= self.rolling.max_bytes {
                Some(Why::Bytes)
            } else {
                None
            };
            if let Some(why) = why {
                self.finish(partition, why).await?;
            }
            rows = rows.slice(now, rows.num_rows() - now);
        }
        Ok(())
    }

    async fn create(
        &mut self,
        layout: &SharedLayout,
        partition: &str,
    ) -> Result<OpenFile, StoreError> {
        while self.open.len() >= self.rolling.max_open {
            let idle = self.idle();
            match idle {
                Some(idle) => self.finish(&idle, Why::OpenFiles).await?,
                None => break,
            }
        }
        let name = self.rolling.file_name(self.counter);
        self.counter += 1;
        OpenFile::create(
            &self.store,
            partition,
            name,
            layout.schema.clone(),
            self.rolling.codec,
        )
        .await
    }

    /// Ends row groups, the largest first, then publishes idle files, until the memory is within bounds.
    async fn bound_memory(&mut self) -> Result<(), StoreError> {
        while self.memory() > MEMORY_BYTES {
            let largest = self.open.values_mut().max_by_key(|file| file.unflushed());
            match largest {
                Some(file) if file.unflushed() >= MIN_ROW_GROUP_BYTES => file.flush().await?,
                _ => match self.idle() {
                    Some(idle) => self.finish(&idle, Why::Memory).await?,
                    None => break,
                },
            }
        }
        Ok(())
    }

    /// The partition whose file was written to least recently.
    fn idle(&self) -> Option<String> {
        self.open
            .values()
            .min_by_key(|file| file.touched)
            .map(|file| file.partition.clone())
    }

    /// Publishes files that reached their age.
    pub(super) async fn roll_by_age(&mut self) -> Result<(), StoreError> {
        let max_age = self.rolling.max_age;
        self.publish_all(Why::Age, |file| file.opened.elapsed() >= max_age)
            .await
    }

    /// Publishes everything.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.publish_all(Why::Flush, |_| true).await
    }

    async fn publish_all(
        &mut self,
        why: Why,
        due: impl Fn(&OpenFile) -> bool,
    ) -> Result<(), StoreError> {
        // Those under way come to their end, so that no file is published that counts as unpublished. But none is begun after a failure: in
        // an outage of the bucket each would take as long again.
        let failed = &AtomicBool::new(false);
        let publishing: Vec<_> = self
            .open
            .values_mut()
            .filter(|file| due(file))
            .map(|file| async move {
                if failed.load(Ordering::Relaxed) {
                    return None;
                }
                let outcome = file.publish().await;
                failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                Some((file.partition.clone(), outcome))
            })
            .collect();
        let outcomes: Vec<(String, Result<u64, StoreError>)> = stream::iter(publishing)
            .buffer_unordered(PUBLISHING)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let mut first_error = Ok(());
        for (partition, outcome) in outcomes {
            match outcome {
                Ok(bytes) => self.settle(&partition, bytes, why),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error
    }

    /// Closes all files, for a commit, and hands over all that wait. They stay in here until [`Files::forget_closed`].
    pub(super) async fn close_all(&mut self) -> Result<&[Closed], StoreError> {
        let max_age = self.rolling.max_age;
        let closing: Vec<_> = self
            .open
            .values_mut()
            .map(|file| async {
                let why = match file.opened.elapsed() >= max_age {
                    true => Why::Age,
                    false => Why::Commit,
                };
                file.close(why).await
            })
            .collect();
        // After a failure everything is abandoned: the others need not come to their end.
        let closed: Vec<Closed> = stream::iter(closing)
            .buffer_unordered(PUBLISHING)
            .try_collect()
            .await?;
        for closed in closed {
            self.put_aside(closed);
        }
        Ok(&self.closed)
    }

    /// What was closed is in a manifest's care.
    pub(super) fn forget_closed(&mut self) {
        self.closed.clear();
        self.waiting_since = None;
    }

    /// Ends a file: publishes it, or closes it where it waits for a commit.
    async fn finish(&mut self, partition: &str, why: Why) -> Result<(), StoreError> {
        // It stays in the map until it is published, so that an abandon finds it whatever happens here.
        let Some(file) = self.open.get_mut(partition) else {
            return Ok(());
        };
        if self.rolling.two_phase {
            let closed = file.close(why).await?;
            self.put_aside(closed);
        } else {
            let bytes = file.publish().await?;
            self.settle(partition, bytes, why);
        }
        Ok(())
    }

    /// Notes a closed file.
    fn put_aside(&mut self, closed: Closed) {
        if let Some(file) = self.open.remove(&closed.partition) {
            self.waiting_since = self.waiting_since.into_iter().chain([file.opened]).min();
        }
        self.closed.push(closed);
    }

    /// A batch has a piece in here; in two phases nobody asks for it.
    fn hold(&mut self, batch: BatchId) {
        if !self.rolling.two_phase {
            *self.held.entry(batch).or_default() += 1;
        }
    }

    /// Notes a published file.
    fn settle(&mut self, partition: &str, bytes: u64, why: Why) {
        let Some(file) = self.open.remove(partition) else {
            return;
        };
        for batch in &file.batches {
            self.release(*batch);
        }
        self.published.push(Published {
            partition: file.partition,
            name: file.name,
            rows: file.rows,
            bytes,
            why,
        });
    }

    /// One piece of a batch is safe.
    fn release(&mut self, batch: BatchId) {
        if let Some(pieces) = self.held.get_mut(&batch) {
            *pieces -= 1;
            if *pieces == 0 {
                self.held.remove(&batch);
                self.durable.push(batch);
            }
        }
    }

    /// Drops everything held and removes the hidden files, as far as there is time.
    pub(super) async fn abandon(&mut self) {
        self.held.clear();
        self.durable.clear();
        self.waiting_since = None;
        let closed = std::mem::take(&mut self.closed);
        let open = std::mem::take(&mut self.open);
        let discards = closed.iter().map(|file| file.discard(&self.store).boxed());
        let abandons = open.into_values().map(|file| file.abandon().boxed());
        drop_all(discards.chain(abandons).collect()).await;
    }
}

/// Drops hidden files, some at a time. What there is no time for stays hidden.
pub(super) async fn drop_all(files: Vec<BoxFuture<'_, ()>>) {
    let left = drop_within(DROP_ALL, files).await;
    if left > 0 {
        tracing::warn!(
            left,
            "hidden files could not be removed within {} s; a later sweep does it, or a lifecycle rule of the bucket",
            DROP_ALL.as_secs()
        );
    }
}

/// Answers with the number of those that are left.
async fn drop_within(limit: Duration, files: Vec<BoxFuture<'_, ()>>) -> usize {
    let mut left = files.len();
    let dropping = stream::iter(files)
        .buffer_unordered(DROPPING)
        .for_each(|()| {
            left -= 1;
            std::future::ready(())
        });
    let _in_time = tokio::time::timeout(limit, dropping).await;
    left
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn files_are_dropped_some_at_a_time_and_all_of_them() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let files = (0..100).map(|_| {
            async {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, Ordering::Relaxed);
            }
            .boxed()
        });
        assert_eq!(drop_within(DROP_ALL, files.collect()).await, 0);
        assert_eq!(most.into_inner(), DROPPING);
    }

    #[tokio::test]
    async fn files_of_a_bucket_that_never_answers_hold_nobody_up() {
        let files = (0..1_000).map(|number| match number % 10 {
            0 => std::future::ready(()).boxed(),
            _ => std::future::pending().boxed(),
        });
        let begun = Instant::now();
        let left = drop_within(Duration::from_millis(100), files.collect()).await;
        assert!((900..1_000).contains(&left), "{left}");
        assert!(begun.elapsed() < DROP_ALL);
    }
}
