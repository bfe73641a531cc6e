//! Registration of a table and its partitions in a Hive Metastore, beside delivery and never in its way.
//!
//! A task of its own creates the external table where there is none and adds a partition after its first file is published. A metastore
//! that is down delays this and nothing else: what is pending waits (at most [`MAX_PENDING`] partitions; beyond them the location is
//! listed again when the metastore is back), is tried again with back-off, and [`Hive::problems`] says so. All of it may be done twice
//! and by several workers at once. Since what is pending dies with the process, a worker lists the location when it starts and registers
//! the newest [`MAX_PENDING`] partitions that it finds there.

pub mod client;
mod options;
mod table;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::metric::{Metric, MetricKind};
use crate::parquet::rows::SharedLayout;
use crate::parquet::store::Store;
use client::{CallError, Client, Place};
pub use options::{OPTIONS, SECTION, place};
pub use table::{ColumnsError, differences, table_columns};

/// Partitions that wait for the metastore at most, and that are listed at the start.
pub const MAX_PENDING: usize = 10_000;

/// Partitions in one call.
const CHUNK: usize = 100;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub const METRICS: &[Metric] = &[
    Metric {
        name: "keystone_hive_pending_partitions",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Partitions with published files that are not registered in the metastore yet. Worry when it stays above zero: queries miss their data.",
    },
    Metric {
        name: "keystone_hive_partitions_registered_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Partitions that the metastore confirmed, those it had already included.",
    },
    Metric {
        name: "keystone_hive_errors_total",
        kind: MetricKind::Counter,
        labels: &["reason"],
        help: "Failed rounds of registration, by reason: unreachable, refused or mismatch. Each is tried again.",
    },
];

/// The registration of one table. Dropping it ends the task.
pub struct Hive {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    place: Place,
    store: Store,
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    partitions: BTreeSet<String>,
    /// Partitions that this process registered: they are not asked for again.
    known: HashSet<String>,
    /// The location is to be listed.
    list: bool,
    /// The table is known to exist and to fit, with these columns.
    table: Option<Vec<(String, String)>>,
    problem: Option<String>,
}

impl Hive {
    pub fn new(place: Place, store: Store) -> Hive {
        Hive {
            shared: Arc::new(Shared {
                place,
                store,
                pending: Mutex::new(Pending {
                    list: true,
                    ..Pending::default()
                }),
                wake: Notify::new(),
            }),
            task: Mutex::new(None),
        }
    }

    pub fn place(&self) -> &Place {
        &self.shared.place
    }

    /// Starts the task, once; to be called from a tokio task.
    pub fn start(&self, layout: &SharedLayout) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let (shared, layout) = (self.shared.clone(), layout.clone());
            *task = Some(tokio::spawn(async move { shared.run(&layout).await }));
        }
    }

    /// Compares the table, where it exists and the metastore is up, with the route.
    pub async fn check(&self, layout: &SharedLayout) -> Result<(), CheckError> {
        let place = &self.shared.place;
        let unreachable = |error: CallError| CheckError::Unreachable(error.to_string());
        let client = Client::connect(&place.addresses)
            .await
            .map_err(unreachable)?;
        let Some(found) = client.table(place).await.map_err(unreachable)? else {
            return match client.has_database(place).await.map_err(unreachable)? {
                true => Ok(()),
                false => Err(CheckError::Mismatch(place.no_database())),
            };
        };
        let keys: Vec<String> = layout.partitioning.names().map(str::to_owned).collect();
        let problems = differences(&found, &layout.columns, &keys);
        if problems.is_empty() {
            return Ok(());
        }
        Err(CheckError::Mismatch(format!(
            "table {}.{} does not fit the route: {}; change sink.parquet.schema, or name another sink.hive.table",
            place.database,
            place.table,
            problems.join("; ")
        )))
    }

    /// A file of this partition was published.
    pub fn published(&self, partition: &str) {
        let mut pending = self.shared.lock();
        if pending.known.contains(partition) {
            return;
        }
        if pending.partitions.len() < MAX_PENDING {
            pending.partitions.insert(partition.to_owned());
        } else {
            pending.list = true;
        }
        metrics::gauge!("keystone_hive_pending_partitions").set(pending.partitions.len() as f64);
        drop(pending);
        self.shared.wake.notify_one();
    }

    /// Number of partitions that wait.
    pub fn pending(&self) -> usize {
        self.shared.lock().partitions.len()
    }

    /// Whether all is registered that was published.
    pub fn idle(&self) -> bool {
        let pending = self.shared.lock();
        pending.partitions.is_empty() && !pending.list && pending.table.is_some()
    }

    /// What is wrong, for a person.
    pub fn problems(&self) -> Option<String> {
        let pending = self.shared.lock();
        let problem = pending.problem.as_ref()?;
        Some(format!(
            "{problem}; {} partition(s) wait to be registered in table {}.{}, delivery goes on",
            pending.partitions.len(),
            self.shared.place.database,
            self.shared.place.table
        ))
    }

    /// Notes that the metastore can't be reached before the task has found out.
    pub fn note(&self, problem: String) {
        self.shared.lock().problem = Some(problem);
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckError {
    /// The metastore can't be asked now: registration waits, delivery does not.
    Unreachable(String),
    /// The table has other columns than the route.
    Mismatch(String),
}

/// A round of registration that failed.
enum RoundError {
    Call(CallError),
    /// The table does not fit, or its files can't be listed.
    Other(String),
}

impl From<CallError> for RoundError {
    fn from(error: CallError) -> RoundError {
        RoundError::Call(error)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, layout: &SharedLayout) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.round(layout).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.wake.notified().await;
                }
                Err(error) => {
                    if matches!(&error, RoundError::Call(CallError::Refused(_))) {
                        // The table may have been dropped meanwhile: look at it again.
                        self.lock().table = None;
                    }
                    let (reason, text) = match error {
                        RoundError::Call(error) => (error.reason(), error.to_string()),
                        RoundError::Other(text) => ("mismatch", text),
                    };
                    metrics::counter!("keystone_hive_errors_total", "reason" => reason)
                        .increment(1);
                    let news = self.lock().problem.replace(text.clone()).as_ref() != Some(&text);
                    if news {
                        tracing::warn!(problem = %text, "partitions can't be registered; trying again");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Registers all that is pending.
    async fn round(&self, layout: &SharedLayout) -> Result<(), RoundError> {
        let client = Client::connect(&self.place.addresses).await?;
        let columns = self.ensure_table(&client, layout).await?;
        self.list(layout).await?;
        loop {
            let chunk: Vec<String> = {
                let pending = self.lock();
                pending
                    .partitions
                    .iter()
                    .rev()
                    .take(CHUNK)
                    .cloned()
                    .collect()
            };
            let partitions: Vec<(String, Vec<String>)> = chunk
                .iter()
                .filter_map(|path| Some((path.clone(), layout.partitioning.values(path)?)))
                .filter(|(_, values)| !values.is_empty())
                .collect();
            if !partitions.is_empty() {
                client
                    .add_partitions(&self.place, &columns, &partitions)
                    .await?;
            }
            metrics::counter!("keystone_hive_partitions_registered_total")
                .increment(partitions.len() as u64);
            if self.settle(chunk) {
                return Ok(());
            }
        }
    }

    /// Takes registered partitions off the list; `true` where nothing is left.
    fn settle(&self, chunk: Vec<String>) -> bool {
        let mut pending = self.lock();
        for path in chunk {
            pending.partitions.remove(&path);
            if pending.known.len() >= MAX_PENDING {
                // Registering again does no harm.
                pending.known.clear();
            }
            pending.known.insert(path);
        }
        metrics::gauge!("keystone_hive_pending_partitions").set(pending.partitions.len() as f64);
        pending.problem = None;
        pending.partitions.is_empty() && !pending.list
    }

    async fn ensure_table(
        &self,
        client: &Client,
        layout: &SharedLayout,
    ) -> Result<Vec<(String, String)>, RoundError> {
        if let Some(columns) = self.lock().table.clone() {
            return Ok(columns);
        }
        let keys: Vec<String> = layout.partitioning.names().map(str::to_owned).collect();
        let found = match client.table(&self.place).await? {
            Some(found) => found,
            None => {
                if !client.has_database(&self.place).await? {
                    return Err(RoundError::Other(self.place.no_database()));
                }
                if client
                    .create_table(&self.place, &layout.columns, &keys)
                    .await?
                {
                    tracing::info!(database = %self.place.database, table = %self.place.table, "table created in the metastore");
                }
                // Whoever created it: it must fit.
                client.table(&self.place).await?.ok_or_else(|| {
                    RoundError::Other("the table was dropped while it was created".to_owned())
                })?
            }
        };
        let problems = differences(&found, &layout.columns, &keys);
        if !problems.is_empty() {
            return Err(RoundError::Other(format!(
                "table {}.{} does not fit the route: {}",
                self.place.database,
                self.place.table,
                problems.join("; ")
            )));
        }
        self.lock().table = Some(found.columns.clone());
        Ok(found.columns)
    }

    /// Adds the partitions that the location holds to those that wait.
    async fn list(&self, layout: &SharedLayout) -> Result<(), RoundError> {
        if !self.lock().list {
            return Ok(());
        }
        let depth = layout.partitioning.names().len();
        let found = match depth {
            0 => Vec::new(),
            _ => self
                .store
                .partitions(depth, MAX_PENDING)
                .await
                .map_err(|error| RoundError::Other(error.detail))?,
        };
        let mut pending = self.lock();
        pending.list = false;
        for path in found {
            if !pending.known.contains(&path) && layout.partitioning.values(&path).is_some() {
                pending.partitions.insert(path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
