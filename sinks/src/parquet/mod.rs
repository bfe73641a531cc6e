//! The Parquet sink: events as rows of Parquet files in a Hive layout, in a directory or a bucket.
//!
//! ```text
//! batch ── rows ──> record batch for each partition ── file ──> row groups ── store ──> hidden file ── publish ──> visible
//! ```
//!
//! A batch is [held](crate::Answer::held) until every file with rows of it is published. A file ends when it reaches its size, rows or
//! age, when too many are open, and at a flush or commit. An error while a file is written loses what is held: the answer is
//! [`SinkError::Rewind`], and the worker reads it again.
//!
//! With `sink.parquet.publish = direct` a file is published when it ends, and its offsets are committed afterwards. With `two-phase` the
//! sink is a joint one ([`Joint::Named`]): files that end are closed, hidden, and wait for the commit that names them; see `manifest.rs`.
//!
//! Memory: one decoded batch for each delivery in flight, and at most 40 MB of rows in all open files; files are written out
//! row group by row group, never held as a whole.

mod column;
mod compressors;
mod contract;
mod encoder;
mod exact;
mod failing;
mod file;
mod files;
pub mod local;
mod manifest;
mod members;
mod mismatch;
mod options;
pub mod partition;
mod reserved;
pub mod rows;
pub mod s3;
pub mod schema;
pub mod store;
mod sweep;
mod uploads;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keystone_config::{Problem, Settings};
use tokio::sync::{Mutex, MutexGuard};

pub use options::{METRICS, OPTIONS, SECTION};

use crate::batch::{Batch, BatchId};
use crate::hive::{self, ColumnsError, Hive};
use crate::{Answer, Cause, Context, Sink, SinkError, Source};
use files::{Due, Files, Why};
use manifest::{BadName, Manifests};
use partition::Partitioning;
use rows::{Layout, SharedLayout};
use schema::Column;
use store::{Publication, Store, StoreError};
use sweep::Alive;

/// Pieces of work on files that were done, and requests to a bucket that came to an end: see [`Sink::steps`]. As with the metrics, it
/// does not matter for which sink of the process.
static STEPS: AtomicU64 = AtomicU64::new(0);
/// A request to the bucket or the metastore, with the pause before it. (A request to a bucket is tried again and again: each attempt counts.)
const LONGEST_STEP: Duration = Duration::from_secs(70);

/// Builds the sink from `sink.parquet.*` and `sink.hive.*`.
pub fn build(settings: &Settings, context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut keep = |problem: Problem| problems.push(problem);
    let store = options::store(settings).map_err(&mut keep).ok();
    let columns = options::columns(settings).map_err(&mut keep).ok();
    let partitioning = options::partitioning(settings).map_err(&mut keep).ok();
    let place = hive::place(settings).map_err(&mut keep).ok();
    if let (Some(Some(columns)), Some(partitioning)) = (&columns, &partitioning)
        && let Some(problem) = overlap(columns, partitioning)
    {
        keep(settings.problem(
            "sink.parquet.partition.by",
            problem,
            "give the partition column another name, or take the column out of sink.parquet.schema",
        ));
    }
    let (Some(store), Some(columns), Some(partitioning), Some(place), true) =
        (store, columns, partitioning, place, problems.is_empty())
    else {
        return Err(problems);
    };
    let two_phase = settings.get("sink.parquet.publish") == "two-phase";
    let started = chrono::Utc::now().timestamp_millis();
    let rolling = options::rolling(settings, context, started);
    let longest_path = store.longest_partition(rolling.longest_name());
    let layout = OnceLock::new();
    if let Some(columns) = columns {
        let declared = Layout::new(columns, partitioning.clone());
        let _ = layout.set(Arc::new(declared.with_longest_path(longest_path)));
    }
    Ok(Box::new(ParquetSink {
        two_phase,
        manifests: Manifests::new(
            store.clone(),
            &options::route_name(context),
            rolling.name.clone(),
        ),
        writer: rolling.name.clone(),
        alive: OnceLock::new(),
        hive: place.map(|place| Hive::new(place, store.clone())),
        marker: options::own_prefix(context),
        inner: Mutex::new(Inner {
            files: Files::new(store.clone(), rolling),
            torn: false,
            failed: None,
        }),
        facts: std::sync::Mutex::new(SinkFacts::default()),
        store,
        partitioning,
        longest_path,
        layout,
    }))
}

/// A partition column can't be a column of the files, too.
fn overlap(columns: &[Column], partitioning: &Partitioning) -> Option<String> {
    let name = partitioning.names().find(|name| {
        columns
            .iter()
            .any(|column| exact::same_but_case(&column.name, name))
    })?;
    Some(format!(
        "the partition column `{name}` is a column of sink.parquet.schema, too"
    ))
}

struct ParquetSink {
    store: Store,
    two_phase: bool,
    manifests: Manifests,
    partitioning: Partitioning,
    longest_path: usize,
    /// Empty until the Hive table was read, where the route declares no columns.
    layout: OnceLock<SharedLayout>,
    hive: Option<Hive>,
    /// Part of the names of this worker's files, whenever it was started.
    marker: String,
    /// What names of this process's files begin with.
    writer: String,
    /// Since the first event, in a directory.
    alive: OnceLock<Alive>,
    inner: Mutex<Inner>,
    facts: std::sync::Mutex<SinkFacts>,
}

struct Inner {
    files: Files,
    /// A call was dropped in the middle: what the files hold is not known.
    torn: bool,
    /// Why they are torn, where it is known.
    failed: Option<StoreError>,
}

/// For [`Sink::state`], which can't wait for the files.
#[derive(Debug, Clone, Default)]
struct SinkFacts {
    open_files: usize,
    waiting_files: usize,
    due: Due,
    open_rows: u64,
    buffered_bytes: usize,
    files_published: u64,
}

impl ParquetSink {
    /// The table's layout; reads the columns from the Hive table the first time, where the route declares none.
    async fn layout(&self) -> Result<SharedLayout, SinkError> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout.clone());
        }
        let Some(hive) = &self.hive else {
            return Err(SinkError::Fatal(
                "sink.parquet.schema is missing".to_owned(),
            ));
        };
        match hive::table_columns(hive.place()).await {
            Ok((columns, keys)) => {
                let wanted: Vec<String> =
                    self.partitioning.names().map(str::to_lowercase).collect();
                if keys != wanted {
                    return Err(SinkError::Fatal(format!(
                        "the table {}.{} is partitioned by ({}), but sink.parquet.partition.by gives ({})",
                        hive.place().database,
                        hive.place().table,
                        keys.join(", "),
                        wanted.join(", ")
                    )));
                }
                let layout = Layout::new(columns, self.partitioning.clone());
                let layout = layout.with_longest_path(self.longest_path);
                Ok(self.layout.get_or_init(|| Arc::new(layout)).clone())
            }
            Err(ColumnsError::Call(error)) => {
                let detail = format!(
                    "the columns can't be read from the Hive table ({error}); sink.parquet.schema would make the start independent of the metastore"
                );
                hive.note(detail.clone());
                Err(SinkError::Retry(Cause {
                    reason: "metastore",
                    detail,
                    after: None,
                }))
            }
            Err(ColumnsError::Unusable(text)) => Err(SinkError::Fatal(text)),
        }
    }

    /// Lets sweeps know that this worker lives, before it creates a file.
    fn live(&self) -> Result<(), StoreError> {
        if let (Store::Local { root }, None) = (&self.store, self.alive.get()) {
            let alive = blocking(|| Alive::new(root, &self.writer))?;
            let _ = self.alive.set(alive); // One batch at a time: nobody else has.
        }
        Ok(())
    }

    /// The files, for one change. [`ParquetSink::end`] must follow; a call that was dropped in between is found by the next one.
    async fn begin(&self) -> Result<MutexGuard<'_, Inner>, SinkError> {
        let mut inner = self.inner.lock().await;
        if std::mem::replace(&mut inner.torn, true) {
            let error = inner.failed.take().unwrap_or_else(|| StoreError {
                reason: "interrupted",
                detail: "an earlier write to the open files was interrupted".to_owned(),
            });
            return Err(self.fail(inner, error).await);
        }
        Ok(inner)
    }

    /// Ends a change: answers with what became durable and hands published partitions to Hive.
    async fn end(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        changed: Result<(), StoreError>,
    ) -> Result<Vec<BatchId>, SinkError> {
        let published = inner.files.take_published();
        for file in &published {
            self.count_published(&file.partition, file.rows, file.bytes, file.why);
        }
        let durable = inner.files.take_durable();
        match changed {
            Err(error) if durable.is_empty() => return Err(self.fail(inner, error).await),
            // What was published is durable, whatever failed after it: said now, the failure with the next call.
            Err(error) => inner.failed = Some(error),
            Ok(()) => inner.torn = false,
        }
        self.report(&inner.files, published.len() as u64);
        Ok(durable)
    }

    /// Drops everything held. In two phases nothing more is taken before the worker has given up what it counts as held, too: a commit
    /// would cover it.
    async fn fail(&self, mut inner: MutexGuard<'_, Inner>, error: StoreError) -> SinkError {
        self.drop_held(&mut inner).await;
        if self.two_phase {
            inner.torn = true;
            inner.failed = Some(error.clone());
        }
        SinkError::Rewind(Cause {
            reason: error.reason,
            detail: format!(
                "{}; the events of unpublished files are read again",
                error.detail
            ),
            after: None,
        })
    }

    async fn drop_held(&self, inner: &mut Inner) {
        inner.torn = true;
        metrics::counter!("keystone_parquet_abandoned_rows_total")
            .increment(inner.files.open_rows());
        inner.files.abandon().await;
        inner.torn = false;
        self.report(&inner.files, 0);
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, SinkFacts> {
        crate::lock(&self.facts)
    }

    /// Counts a file that readers see now, and tells Hive.
    fn count_published(&self, partition: &str, rows: u64, bytes: u64, why: Why) {
        metrics::counter!("keystone_parquet_files_published_total", "cause" => why.as_str())
            .increment(1);
        metrics::counter!("keystone_parquet_published_bytes_total").increment(bytes);
        metrics::counter!("keystone_parquet_published_rows_total").increment(rows);
        if let Some(hive) = &self.hive {
            hive.published(partition);
        }
    }

    /// Closes all files and writes the manifest.
    async fn prepare_all(&self, source: &Source) -> Result<String, SinkError> {
        let mut inner = self.begin().await?;
        let prepared = match inner.files.close_all().await {
            Ok([]) => Err(StoreError {
                reason: "nothing_held",
                detail: "there is no file to commit".to_owned(),
            }),
            Ok(closed) => self.manifests.write(closed, source).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok(name) => {
                inner.files.forget_closed();
                inner.torn = false;
                self.report(&inner.files, 0);
                Ok(name)
            }
            Err(error) => Err(self.fail(inner, error).await),
        }
    }

    /// The file name of a manifest that a commit names.
    fn stem<'n>(&self, name: &'n str) -> Result<&'n str, SinkError> {
        self.manifests.stem(name).map_err(|bad| {
            SinkError::Fatal(match bad {
                BadName::Elsewhere => format!(
                    "the group's last commit names files at another location that may not be published yet ({name}): start the route once with its former sink.parquet.location, or set the group's offsets anew if those files are not wanted"
                ),
                BadName::Unknown => format!(
                    "the group's last commit names files in a form that this version does not know ({name}): start the route once with the version that wrote it"
                ),
            })
        })
    }

    async fn publish_named(&self, name: &str) -> Result<(), SinkError> {
        let stem = self.stem(name)?;
        let published = self.manifests.publish(stem).await.map_err(retry)?;
        let mut now = 0;
        for (file, publication) in &published {
            match publication {
                Publication::Now => {
                    now += 1;
                    self.count_published(&file.partition, file.rows, file.bytes, file.why);
                }
                // Whoever published it may have died before Hive knew.
                Publication::Before => {
                    if let Some(hive) = &self.hive {
                        hive.published(&file.partition);
                    }
                }
                Publication::Gone => tracing::error!(
                    partition = file.partition,
                    name = file.name,
                    rows = file.rows,
                    "a committed file is neither hidden nor visible: unless it was published before and has been removed since, its rows are lost"
                ),
            }
        }
        tracing::debug!(name, files = published.len(), now, "files published");
        self.facts().files_published += now;
        Ok(())
    }

    fn report(&self, files: &Files, published: u64) {
        let mut facts = self.facts();
        facts.waiting_files = files.waiting_files();
        facts.due = files.due();
        metrics::gauge!("keystone_parquet_waiting_files").set(facts.waiting_files as f64);
        facts.open_files = files.open_files();
        facts.open_rows = files.open_rows();
        facts.buffered_bytes = files.memory();
        facts.files_published += published;
        metrics::gauge!("keystone_parquet_open_files").set(facts.open_files as f64);
        metrics::gauge!("keystone_parquet_open_rows").set(facts.open_rows as f64);
        metrics::gauge!("keystone_parquet_buffered_bytes").set(facts.buffered_bytes as f64);
    }

    async fn deliver_batch(&self, batch: &Batch) -> Result<Answer, SinkError> {
        let layout = self.layout().await?;
        let decoded = blocking(|| layout.decode(batch.events())).map_err(|error| {
            SinkError::TooLarge(format!(
                "it does not fit into one Arrow record batch: {error}"
            ))
        })?;
        if decoded.groups.is_empty() {
            return Ok(Answer {
                rejected: decoded.rejected,
                ..Answer::done()
            });
        }
        let mut inner = self.begin().await?;
        let appended = match self.live() {
            Ok(()) => {
                let files = &mut inner.files;
                files.append(batch.id(), &layout, decoded.groups).await
            }
            Err(error) => Err(error),
        };
        let durable = self.end(inner, appended).await?;
        Ok(Answer {
            rejected: decoded.rejected,
            held: true,
            durable,
            ..Answer::done()
        })
    }

    async fn check_all(&self) -> Result<(), String> {
        self.store
            .check(&format!("{}check", self.marker))
            .await
            .map_err(|error| format!("sink.parquet.location can't be written: {error}"))?;
        let Some(hive) = &self.hive else {
            return Ok(());
        };
        let layout = match self.layout().await {
            Ok(layout) => layout,
            Err(error) => return Err(error.to_string()),
        };
        match hive.check(&layout).await {
            Ok(()) => Ok(()),
            // Delivery does not wait for it: the state tells.
            Err(hive::CheckError::Unreachable(problem)) => {
                hive.note(problem);
                Ok(())
            }
            Err(hive::CheckError::Mismatch(problem)) => Err(problem),
        }
    }
}

/// The store may do it later.
fn retry(error: StoreError) -> SinkError {
    SinkError::Retry(Cause {
        reason: error.reason,
        detail: error.detail,
        after: None,
    })
}

/// Runs what takes long without an await (encoding, files) so that the other tasks of this thread go on. A step when it is done.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let done = match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    };
    STEPS.fetch_add(1, Ordering::Relaxed);
    done
}

#[cfg(test)]
mod tests;
