//! The contract of a sink, then one module per sink.
//!
//! # Life of a sink
//!
//! 1. `build` (a function of each module) turns the route's settings into a sink, or into all that is wrong with them. It touches nothing.
//! 2. [`Sink::check`] asks the servers whether they are there and let us in: `keystone check` and the start of a worker.
//! 3. [`Sink::deliver`] is called for each batch, several at once (`delivery.max.in.flight`), each from its own task.
//! 4. [`Sink::tick`] is called several times a second, and [`Sink::flush`] before partitions are given up and at shutdown.
//! 5. [`Sink::abandon`] where the worker could not wait: what the sink holds is dropped, it will be read again.
//!
//! # Who answers for what
//!
//! **Nothing is delivered by default.** An event is delivered when the sink says so: its batch came back in [`Answer::done`] and the event is
//! neither in `rejected` nor in `retry`, or its batch was [`Answer::held`] and its id came back later in a list of durable batches.
//! A call that never returns leaves its batch pending, and nothing of it is committed.
//!
//! # Joint commits
//!
//! A sink that has a [`Sink::joint`] makes what it holds durable together with the offsets of the events, or not at all. The worker commits
//! with no other call of the sink under way, and with offsets that cover exactly what is held. There are two ways:
//!
//! - [`Joint::Transaction`]: the sink commits the offsets itself, by [`Sink::commit`].
//! - [`Joint::Named`]: [`Sink::prepare`] puts what is held away, hidden, under a name; the worker commits the offsets with that name as their
//!   metadata; [`Sink::publish`] makes it visible. Whoever is assigned one of the partitions and finds a name there publishes it before it
//!   commits anything itself. What was prepared and not committed comes to nothing, by [`Sink::discard`].
//!
//! # What a sink does not do
//!
//! A sink neither retries nor waits nor writes dead letters: it answers, and the worker does those once, for all sinks.
//! (A client library's own short retries of one request are fine.)
//!
//! This crate knows nothing of the consumer; only a joint sink sees offsets, and only those it is given to commit.
#![forbid(unsafe_code)]

mod arena;
pub mod batch;
pub mod blackhole;
pub mod elasticsearch;
pub mod event_time;
pub mod hive;
pub mod kafka;
pub mod metric;
pub mod parquet;
pub mod stdout;
pub mod telling;
pub mod template;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

pub use batch::{Batch, BatchBuilder, BatchId, Claim, Event, RecordMeta, Rejected, Stage};
pub use futures::future::BoxFuture;

/// What a mutex holds, also where a thread has panicked meanwhile: each change under one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The consumer group and the partitions of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    pub group: String,
    /// Topics and partitions.
    pub partitions: Vec<(String, i32)>,
}

/// What a sink has prepared ([`Sink::prepare`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub name: String,
    /// Whose commit names it, if there was one and it is not published yet: in one of the partitions at least.
    pub source: Source,
}

/// What became of a batch. Three outcomes for each event: delivered, rejected, to be sent again; or the whole batch is held.
#[derive(Debug, Default)]
pub struct Answer {
    /// Events that the sink can never take, in ascending order of index, each with the sink's own reason.
    pub rejected: Vec<Rejected>,
    /// Events to send again, in ascending order of index.
    pub retry: Vec<usize>,
    /// Why `retry` is not empty.
    pub cause: Option<Cause>,
    /// All events that are in neither list are taken over but not durable yet: the id that the batch had in this call comes back in
    /// `durable`, of this or another answer, of a tick or of a flush, when they are.
    pub held: bool,
    /// Calls held earlier (or this one) whose events are all durable now.
    pub durable: Vec<BatchId>,
}

impl Answer {
    /// Every event is delivered.
    pub fn done() -> Answer {
        Answer::default()
    }
}

/// Why events are sent again: `reason` is a short label for the metric `keystone_retries_total`, `detail` is for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Few and fixed, for example `http_429`, `unreachable`, `timeout`.
    pub reason: &'static str,
    pub detail: String,
    /// The sink asked for this pause (`Retry-After`); the worker's own back-off holds where it is longer.
    pub after: Option<Duration>,
}

/// An answer about a whole call, not about single events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Nothing is known to be delivered: send the same batch again, for as long as it takes.
    #[error("{}", .0.detail)]
    Retry(Cause),
    /// The batch is too large for one request, or one of its events spoils all of it: the worker sends its halves.
    #[error("the batch can't be one request: {0}")]
    TooLarge(String),
    /// What the sink holds is lost (a file could not be written to its end): the worker abandons it all and reads again from the last commit.
    /// A joint sink answers so until [`Sink::abandon`] is called.
    #[error("{}", .0.detail)]
    Rewind(Cause),
    /// Trying again can't help: the worker stops with exit code 1 and this text, which names the option to change. What is settled is committed, nothing else.
    #[error("{0}")]
    Fatal(String),
}

/// What a sink says of itself for `/status`, `/readyz` and the logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkState {
    /// Empty when all is well; else what is wrong and what to do, a line each. It does not stop delivery by itself, but the worker is not
    /// ready meanwhile: a problem must also end where no event comes.
    pub problems: Vec<String>,
    /// What failed when it was used last and is made up for, such as one of several nodes, a line each: for `/status` and `keystone check`.
    pub failures: Vec<String>,
    /// Facts for a person: name and value, for example `open_files`, `metastore_pending_partitions`.
    pub facts: Vec<(&'static str, String)>,
}

/// How a joint sink commits what it holds together with the offsets; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    Transaction,
    Named,
}

/// Offsets that become committed together with what a sink holds.
pub struct JointCommit {
    /// Rises with each commit; one that is asked for again keeps its number.
    pub number: u64,
    /// The next offset to read of every partition with something new.
    pub offsets: TopicPartitionList,
    /// The consumer's place in its group, as it was before the offsets were looked at: once the group has moved on, Kafka refuses it.
    pub group: ConsumerGroupMetadata,
}

/// The part of a route that delivers. See the module for its life and duties.
pub trait Sink: Send + Sync {
    /// Delivers a batch, or says why not. May be called again with the same events after any error.
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>>;

    /// The longest that a call of any kind may be under way by design without a [step](Sink::steps) of the sink; one that takes much longer
    /// is taken for a stall, and the worker stops. `None` where nothing true can be said: `stdout` waits for its reader.
    fn longest_step(&self) -> Option<Duration> {
        None
    }

    /// A number that rises while the sink gets on with the calls under way, or waits out an outage within one. It stays the same where a call
    /// is as short as a step: at most one request with a limit of its own (`elasticsearch`).
    fn steps(&self) -> u64 {
        0
    }

    /// Whether the number of calls under way follows the sink's load: fewer after a [`Cause`] of `http_429`, `http_5xx` or `timeout`, none
    /// before the pause ends that one of them asked for.
    fn adapts(&self) -> bool {
        false
    }

    /// Does what time asks for (a file reached its age) and names held batches that became durable. Called several times a second,
    /// never twice at once.
    fn tick(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Makes all that is held durable now: partitions are about to be given up, or the worker stops. The worker bounds the call in time
    /// and may drop the future; the sink must stay usable (or answer [`SinkError::Rewind`] to the next call).
    fn flush(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        self.tick()
    }

    /// Drops all that is held and hidden; it will be read again. A file being published at this moment may still appear: that is a
    /// duplicate, not a loss.
    fn abandon(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Whether batches can come back `held`. The worker then flushes before it gives up partitions.
    fn holds(&self) -> bool {
        false
    }

    /// Whether, and how, what is held becomes durable by joint commits and by nothing else. Such a sink names no durable batches.
    fn joint(&self) -> Option<Joint> {
        None
    }

    /// Whether a joint sink wants what it holds committed now. Asked many times a second.
    fn commit_due(&self) -> bool {
        false
    }

    /// Commits all that is held and the offsets, in one ([`Joint::Transaction`]). After [`SinkError::Retry`] the same commit is asked for again, and until it
    /// succeeds the sink takes no events; after [`SinkError::Rewind`] nothing of it was committed; where that is not known, the answer
    /// is [`SinkError::Fatal`], and the next worker reads on from what is committed.
    fn commit(&self, _joint: Arc<JointCommit>) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            Err(SinkError::Fatal(
                "the sink has nothing to commit".to_owned(),
            ))
        })
    }

    /// Makes all that is held durable, still hidden, and answers with the name under which any worker of the route finds it: at most 1,000
    /// printable ASCII characters. From then on the sink holds nothing, and an abandon does not touch what was prepared.
    /// `source` is where the commit will name it.
    fn prepare<'a>(&'a self, _source: &'a Source) -> BoxFuture<'a, Result<String, SinkError>> {
        Box::pin(async {
            Err(SinkError::Fatal(
                "the sink has nothing to prepare".to_owned(),
            ))
        })
    }

    /// Makes visible what was prepared under this name, by this worker or another. Repeated until it succeeds, also by several workers at
    /// once and while other calls are under way; what is visible already stays as it is. Any sink may be asked: the route may have had
    /// another one before.
    fn publish<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            Err(SinkError::Fatal(format!(
                "the group's last commit names files that are not published yet ({name}): start the route once with the Parquet sink that it had"
            )))
        })
    }

    /// Whether something is prepared under this name and neither published nor discarded, by any worker.
    fn is_prepared<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<bool, SinkError>> {
        Box::pin(async { Ok(false) })
    }

    /// Drops what was prepared under this name: Kafka has not committed it, and never will. What can't be removed stays hidden.
    fn discard<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// What workers that are gone have prepared, to be discarded where the group's commits don't name it.
    fn suspects(&self) -> BoxFuture<'_, Vec<Prepared>> {
        Box::pin(async { Vec::new() })
    }

    /// Removes what workers that are gone have left hidden and never prepared. May take minutes; what is cut off is found again.
    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Asks the servers whether they are there and let us in. The text is for a person and names the option to change.
    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self) -> SinkState {
        SinkState::default()
    }
}

/// What a sink is told of its surroundings when it is built.
#[derive(Debug, Clone)]
pub struct Context {
    /// `route.name`.
    pub route: String,
    /// Unique for this process among the workers of the route; safe in a file name.
    pub worker: String,
}
