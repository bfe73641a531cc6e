//! Registration of a table and its partitions in a Hive Metastore, beside delivery and never in its way.
//!
//! A task of its own creates the external table where there is none and adds a partition after its first file is published. A metastore
//! that is down delays this and nothing else: what is pending waits (at most [`MAX_PENDING`] partitions; beyond them the location is
//! listed again when the metastore is back), is tried again with back-off, and [`Hive::problems`] says so. A partition that the metastore
//! refuses holds up no other ([`pending`]); it is no problem of the worker, which would stay unready for as long as the files are there and
//! let no roll-out pass, but [`Hive::refusal`] tells of it, and a metric. All of it may be done twice and by several workers at once. Since what is
//! pending dies with the process, a worker lists the location when it starts and registers the newest [`MAX_PENDING`] partitions that it
//! finds there. It does the same when a round finds that the table was dropped and made anew.

pub mod client;
mod options;
mod pending;
mod table;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::lock;
use crate::metric::{Metric, MetricKind};
use crate::parquet::rows::SharedLayout;
use crate::parquet::store::Store;
use client::{CallError, Client, Found, Place};
pub use options::{OPTIONS, SECTION, place};
pub use pending::MAX_PENDING;
use pending::{Next, Pending};
pub use table::{ColumnsError, differences, table_columns};
use trouble::Trouble;

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
        name: "keystone_hive_refused_partitions",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Those of the pending partitions that the metastore refused when it was asked for each alone. They are asked for again and again. Worry when it is above zero: somebody has to see to them; /status and the log have the metastore's reason.",
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
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// The table is known to exist and to fit, with these columns.
    table: Option<Vec<(String, String)>>,
    /// When the table that partitions were registered in was created.
    created: Option<i32>,
    problem: Option<String>,
    /// What the last round that came to its end was refused.
    refusal: Option<String>,
    /// What the log was told of either.
    told_problem: Trouble,
    told_refusal: Trouble,
}

impl Hive {
    pub fn new(place: Place, store: Store) -> Hive {
        Hive {
            shared: Arc::new(Shared {
                place,
                store,
                state: Mutex::new(State {
                    pending: Pending::at_start(),
                    ..State::default()
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
        let mut task = lock(&self.task);
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
        let problems = self.shared.differences(&found, layout);
        if problems.is_empty() {
            return Ok(());
        }
        Err(CheckError::Mismatch(format!(
            "table {}.{} does not fit the route: {}; change the table, or sink.parquet.schema and sink.parquet.partition.by, or name another sink.hive.table",
            place.database,
            place.table,
            problems.join("; ")
        )))
    }

    /// A file of this partition was published.
    pub fn published(&self, partition: &str) {
        if self.shared.lock().publish(partition) {
            self.shared.wake.notify_one();
        }
    }

    /// Number of partitions that wait.
    pub fn pending(&self) -> usize {
        self.shared.lock().pending.len()
    }

    /// Whether all is registered that was published.
    pub fn idle(&self) -> bool {
        let state = self.shared.lock();
        state.pending.is_done() && state.table.is_some()
    }

    /// What the metastore refuses while it takes the rest, for a person.
    pub fn refusal(&self) -> Option<String> {
        self.shared.lock().refusal.clone()
    }

    /// What keeps all that waits from being registered, for a person.
    pub fn problems(&self) -> Option<String> {
        let state = self.shared.lock();
        let problem = state.problem.as_ref()?;
        Some(format!(
            "{problem}; {} partition(s) wait to be registered in table {}.{}, delivery goes on",
            state.pending.len(),
            self.shared.place.database,
            self.shared.place.table
        ))
    }

    /// Notes that the metastore can't be reached before the task has found out. The task tells the log, or withdraws it: one that waits for
    /// something to do looks at once. (One whose rounds fail keeps its pauses.)
    pub fn note(&self, problem: String) {
        self.shared.lock().problem = Some(problem);
        self.shared.wake.notify_one();
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        let mut task = lock(&self.task);
        if let Some(task) = task.take() {
            task.abort();
            if let Some(left) = self.shared.lock().left() {
                tracing::warn!(database = %self.shared.place.database, table = %self.shared.place.table, "{left}");
            }
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
    /// The metastore refused partitions; the others are registered.
    Refused(String),
    /// The table does not fit, or its files can't be listed.
    Other(String),
}

impl From<CallError> for RoundError {
    fn from(error: CallError) -> RoundError {
        RoundError::Call(error)
    }
}

impl RoundError {
    fn reason(&self) -> &'static str {
        match self {
            RoundError::Call(error) => error.reason(),
            RoundError::Refused(_) => "refused",
            RoundError::Other(_) => "mismatch",
        }
    }
}

impl State {
    /// Answers whether the task is to be woken.
    fn publish(&mut self, partition: &str) -> bool {
        let news = self.pending.publish(partition);
        self.report();
        news
    }

    /// Notes how a round has ended. Answers with what the log is told: that trouble is over, and what trouble there is.
    fn end_round(&mut self, error: Option<RoundError>, now: Instant) -> (bool, Option<String>) {
        let Some(error) = error else {
            (self.problem, self.refusal) = (None, None);
            // Both are to be ended.
            let over = [self.told_problem.end(), self.told_refusal.end()];
            return (over.contains(&true), None);
        };
        let reason = error.reason();
        match error {
            RoundError::Refused(text) => {
                // It came to its end: the metastore is there, and the table fits.
                self.problem = None;
                self.refusal = Some(text.clone());
                let over = self.told_problem.end();
                (over, self.told_refusal.is_due(reason, now).then_some(text))
            }
            RoundError::Other(text) => (false, self.note(reason, text, now)),
            RoundError::Call(error) => (false, self.note(reason, error.to_string(), now)),
        }
    }

    fn note(&mut self, reason: &'static str, text: String, now: Instant) -> Option<String> {
        self.problem = Some(text.clone());
        self.told_problem.is_due(reason, now).then_some(text)
    }

    /// What the log is told when the process ends before all is registered.
    fn left(&self) -> Option<String> {
        let problem = self.problem.as_ref().or(self.refusal.as_ref());
        let why = problem.map(|problem| format!(" ({problem})"));
        (self.pending.len() > 0).then(|| {
            format!(
                "{} partition(s) were not registered{}: queries miss them until the next worker of the route starts, which lists the location and registers them",
                self.pending.len(),
                why.unwrap_or_default()
            )
        })
    }

    fn report(&self) {
        metrics::gauge!("keystone_hive_pending_partitions").set(self.pending.len() as f64);
        metrics::gauge!("keystone_hive_refused_partitions").set(self.pending.refused() as f64);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn differences(&self, found: &Found, layout: &SharedLayout) -> Vec<String> {
        let location = &self.place.location;
        differences(found, &layout.columns, &layout.partitioning, location)
    }

    async fn run(&self, layout: &SharedLayout) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = self.round(layout).await.err();
            let reason = error.as_ref().map(RoundError::reason);
            self.tell(error);
            match reason {
                None => {
                    pause = FIRST_PAUSE;
                    self.wake.notified().await;
                }
                Some(reason) => {
                    metrics::counter!("keystone_hive_errors_total", "reason" => reason)
                        .increment(1);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Tells the log how a round has ended, where that is news or was told long ago.
    fn tell(&self, error: Option<RoundError>) {
        let mut state = self.lock();
        let (over, problem) = state.end_round(error, Instant::now());
        let waiting = state.pending.len();
        drop(state);
        let table = format!("{}.{}", self.place.database, self.place.table);
        if over {
            tracing::info!(table, waiting, "partitions are registered again");
        }
        if let Some(problem) = problem {
            tracing::warn!(
                table,
                waiting,
                problem,
                "partitions can't be registered; trying again"
            );
        }
    }

    /// Registers all that is pending, but for what the metastore refuses.
    async fn round(&self, layout: &SharedLayout) -> Result<(), RoundError> {
        let client = Client::connect(&self.place.addresses).await?;
        // A metastore that only takes connections is not well, and the table may have changed.
        self.lock().table = None;
        self.ensure_table(&client, layout).await?;
        self.lock().pending.begin_round();
        loop {
            let next = self.lock().pending.next();
            match next {
                Next::Add(chunk) => self.add(&client, layout, chunk).await?,
                Next::List => self.list(layout).await?,
                Next::End => break,
            }
        }
        let state = self.lock();
        state.report();
        match state.pending.refusal() {
            Some(refusal) => Err(RoundError::Refused(refusal)),
            None => Ok(()),
        }
    }

    /// Registers these partitions; those that the metastore refuses are set aside.
    async fn add(
        &self,
        client: &Client,
        layout: &SharedLayout,
        chunk: Vec<String>,
    ) -> Result<(), RoundError> {
        let values = |path: String| {
            let values = layout.partitioning.values(&path);
            (path, values.unwrap_or_default())
        };
        let (partitions, others): (Vec<_>, Vec<_>) = chunk
            .into_iter()
            .map(values)
            .partition(|(_, values)| !values.is_empty());
        // The files of a table without partitions need no registration.
        self.settle(others);
        if partitions.is_empty() {
            return Ok(());
        }
        let columns = self.ensure_table(client, layout).await?;
        let all = client.add_partitions(&self.place, &columns, &partitions);
        match all.await {
            Ok(()) => {
                self.count_and_settle(partitions);
                return Ok(());
            }
            Err(CallError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // The table may have been dropped or changed meanwhile. Else it is for one of them that the metastore refuses all.
        self.lock().table = None;
        let columns = self.ensure_table(client, layout).await?;
        for partition in partitions {
            let alone = std::slice::from_ref(&partition);
            match client.add_partitions(&self.place, &columns, alone).await {
                Ok(()) => self.count_and_settle(vec![partition]),
                Err(CallError::Refused(words)) => {
                    self.lock().pending.set_aside(partition.0, words);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn count_and_settle(&self, registered: Vec<(String, Vec<String>)>) {
        metrics::counter!("keystone_hive_partitions_registered_total")
            .increment(registered.len() as u64);
        self.settle(registered);
    }

    /// Takes partitions off the list for which nothing is left to do.
    fn settle(&self, partitions: Vec<(String, Vec<String>)>) {
        let mut state = self.lock();
        for (path, _) in partitions {
            state.pending.registered(path);
        }
        state.report();
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
        let problems = self.differences(&found, layout);
        if !problems.is_empty() {
            return Err(RoundError::Other(format!(
                "table {}.{} does not fit the route: {}",
                self.place.database,
                self.place.table,
                problems.join("; ")
            )));
        }
        let mut state = self.lock();
        let before = state.created.replace(found.created);
        if before.is_some_and(|before| before != found.created) {
            tracing::info!(database = %self.place.database, table = %self.place.table, "the table was made anew: its partitions are registered again");
            state.pending.forget();
        }
        state.table = Some(found.columns.clone());
        Ok(found.columns)
    }

    /// Adds the partitions that the location holds to those that wait.
    async fn list(&self, layout: &SharedLayout) -> Result<(), RoundError> {
        // Before it is read: a partition that is published meanwhile, and that there is no room for, asks for it again.
        self.lock().pending.begin_list();
        let depth = layout.partitioning.names().len();
        let found = match depth {
            0 => Ok(Vec::new()),
            _ => self.store.partitions(depth, MAX_PENDING).await,
        };
        let mut state = self.lock();
        let found = found.map_err(|error| {
            state.pending.list = true;
            RoundError::Other(error.detail)
        })?;
        for path in found {
            if layout.partitioning.values(&path).is_some() {
                state.pending.found(path);
            }
        }
        state.report();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
