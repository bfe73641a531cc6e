//! The battery of faults: every fault under every sink and tradeoff, on real servers, judged by what a reader finds in the sink.
//!
//! - A [`Cell`] is a sink with a tradeoff. A round takes one [`Fault`] and some cells. All cells of a round read the same topic, each as a
//!   group of its own, so a fault of a server is made once for all of them.
//! - [`servers`] starts the servers behind proxies; [`route`] knows one cell's route and workers; [`round`] produces at a steady rate,
//!   makes the fault at moments drawn from the seed, heals, drains and judges; [`table`] writes the result into the documentation.
//! - What is *lost*: events that the sink does not hold at the end. *Duplicates*: events that a reader of the sink finds more than once (a
//!   consumer with `isolation.level=read_committed`, a search, the Parquet files that are not hidden). The *longest stall*: the longest
//!   time, from the first fault until all is committed, in which the committed offset of some partition did not move.
//! - While the round runs, a reader opens each Parquet file of a directory as soon as it can be seen: it must be whole.
//! - A fault that did not arrive proves nothing: where the workers' metrics or commits would tell, it is looked for there.
//! - The battery stands in for a container platform: a worker that ends by itself is started again, a bounded number of times. That it ended
//!   is a broken promise, but for [`Cell::may_end`].

mod clock;
mod disk;
mod round;
mod route;
mod servers;
pub mod table;
mod watch;

use std::time::Duration;

pub use round::run;
pub use servers::Servers;

/// What a worker says that can't know what has become of its last transaction.
const NOT_KNOWN: &str = "kafka has committed the last transaction is not known";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    Kafka,
    Elasticsearch,
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tradeoff {
    LowLatency,
    Balanced,
    NoDuplicates,
}

impl Tradeoff {
    /// As `delivery.tradeoff` has it.
    pub fn name(self) -> &'static str {
        match self {
            Tradeoff::LowLatency => "low-latency",
            Tradeoff::Balanced => "balanced",
            Tradeoff::NoDuplicates => "no-duplicates",
        }
    }
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub sink: Sink,
    pub tradeoff: Tradeoff,
}

impl Cell {
    /// All columns, in the order of the table.
    pub fn all() -> Vec<Cell> {
        let tradeoffs = [
            Tradeoff::LowLatency,
            Tradeoff::Balanced,
            Tradeoff::NoDuplicates,
        ];
        [Sink::Kafka, Sink::Elasticsearch, Sink::Parquet]
            .into_iter()
            .flat_map(|sink| tradeoffs.map(|tradeoff| Cell { sink, tradeoff }))
            .collect()
    }

    /// Whether a worker may end by itself with these last words: where the broker answers nothing for long, by the fault or on a busy
    /// machine, it can't know whether Kafka has carried out its last transaction, and only a new one can find out.
    fn may_end(self, last: &str) -> bool {
        self.may_lose_answers() && last.contains(NOT_KNOWN)
    }

    /// Whether a worker ends where the answer to a commit was lost for good.
    fn may_lose_answers(self) -> bool {
        self.sink == Sink::Kafka && self.tradeoff == Tradeoff::NoDuplicates
    }

    /// Whether a reader must see no event twice, whatever happens. Elsewhere what was exposed may be there twice.
    pub fn is_exact(self) -> bool {
        match (self.sink, self.tradeoff) {
            (_, Tradeoff::LowLatency) | (Sink::Kafka, Tradeoff::Balanced) => false,
            // Files of Parquet are published in two phases.
            (Sink::Kafka | Sink::Elasticsearch | Sink::Parquet, _) => true,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    KillBucket,
    Terminate,
    ComeAndGo,
    NewProtocol,
    BrokerRestart,
    BrokerFrozen,
    BrokerUnreachable,
    BrokerHalf,
    BrokerLate,
    SinkRestart,
    SinkUnreachable,
    SinkHangs,
    SinkUnavailable,
    SinkLate,
    SinkSlow,
    Pressure,
    Conflict,
    Undeliverable,
    MetastoreDown,
    DiskFull,
    ClockJumps,
}

impl Fault {
    /// All rows, in the order of the table.
    pub const ALL: [Fault; 22] = [
        Fault::Kill,
        Fault::KillBucket,
        Fault::Terminate,
        Fault::ComeAndGo,
        Fault::NewProtocol,
        Fault::BrokerRestart,
        Fault::BrokerFrozen,
        Fault::BrokerUnreachable,
        Fault::BrokerHalf,
        Fault::BrokerLate,
        Fault::SinkRestart,
        Fault::SinkUnreachable,
        Fault::SinkHangs,
        Fault::SinkUnavailable,
        Fault::SinkLate,
        Fault::SinkSlow,
        Fault::Pressure,
        Fault::Conflict,
        Fault::Undeliverable,
        Fault::MetastoreDown,
        Fault::DiskFull,
        Fault::ClockJumps,
    ];

    /// What a reader of the table is told.
    pub fn title(self) -> &'static str {
        match self {
            Fault::Kill => "one of two workers killed (SIGKILL) at a random moment, three times",
            Fault::KillBucket => "the same, with files in a bucket",
            Fault::Terminate => "one of two workers ended (SIGTERM) under load, three times",
            Fault::ComeAndGo => "workers join and leave about once a second",
            Fault::NewProtocol => {
                "workers join, leave and are killed under the new consumer protocol (KIP-848)"
            }
            Fault::BrokerRestart => "the only broker restarts",
            Fault::BrokerFrozen => "the only broker hangs for longer than a session",
            Fault::BrokerUnreachable => "the broker can't be reached for longer than a session",
            Fault::BrokerHalf => "the broker's answers don't arrive for longer than a session",
            Fault::BrokerLate => "the broker's answers arrive later than a session lasts",
            Fault::SinkRestart => "the sink's server restarts",
            Fault::SinkUnreachable => "the sink's server can't be reached",
            Fault::SinkHangs => "the sink's server hangs for longer than a request may take",
            Fault::SinkUnavailable => "the sink's server answers 503",
            Fault::SinkLate => "answers arrive after the worker gave up",
            Fault::SinkSlow => "the sink is slower than the source, for two minutes",
            Fault::Pressure => "429 from Elasticsearch's indexing pressure",
            Fault::Conflict => "one event in a hundred does not fit the mapping",
            Fault::Undeliverable => "one event in a hundred can never be delivered",
            Fault::MetastoreDown => "the metastore is down",
            Fault::DiskFull => "the disk is full",
            Fault::ClockJumps => "the clock jumps an hour ahead, then back, then right",
        }
    }

    /// Whether the fault makes sense under a sink. (Source and sink are one cluster for the Kafka sink here.)
    pub fn applies_to(self, sink: Sink) -> bool {
        match self {
            Fault::SinkRestart
            | Fault::SinkUnreachable
            | Fault::SinkHangs
            | Fault::SinkUnavailable => sink != Sink::Kafka,
            Fault::SinkLate | Fault::Pressure | Fault::Conflict => sink == Sink::Elasticsearch,
            Fault::KillBucket | Fault::MetastoreDown | Fault::DiskFull => sink == Sink::Parquet,
            _ => true,
        }
    }

    /// Whether files go to an object store, not to a directory: also where the sink's server is what fails.
    fn has_bucket(self) -> bool {
        matches!(
            self,
            Fault::KillBucket
                | Fault::SinkRestart
                | Fault::SinkUnreachable
                | Fault::SinkHangs
                | Fault::SinkUnavailable
                | Fault::SinkLate
                | Fault::SinkSlow
        )
    }

    fn workers(self) -> usize {
        if self.is_of_workers() { 2 } else { 1 }
    }

    fn is_of_the_broker(self) -> bool {
        matches!(
            self,
            Fault::BrokerRestart
                | Fault::BrokerFrozen
                | Fault::BrokerUnreachable
                | Fault::BrokerHalf
                | Fault::BrokerLate
        )
    }

    /// Whether Kafka has to miss workers soon. Elsewhere none is to be thrown out, or to lose its transaction, because the machine is busy.
    fn is_to_be_missed(self) -> bool {
        self.is_of_the_broker()
            || matches!(self, Fault::Kill | Fault::KillBucket | Fault::NewProtocol)
    }

    /// Whether workers end and join: what is announced just before counts then, and each repetition.
    fn is_of_workers(self) -> bool {
        matches!(
            self,
            Fault::Kill
                | Fault::KillBucket
                | Fault::Terminate
                | Fault::ComeAndGo
                | Fault::NewProtocol
        )
    }

    /// Whether one event in a hundred of those that are kept can't be delivered.
    fn has_bad_events(self) -> bool {
        matches!(self, Fault::Conflict | Fault::Undeliverable)
    }
}

/// What became of a cell.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub expected: u64,
    pub lost: u64,
    pub duplicates: u64,
    /// The most duplicates that the workers announced: before each crash those of the victim, and at most during a fault that lasts. `None`
    /// where there must be none.
    pub allowed: Option<u64>,
    pub stall: Duration,
    /// Workers that ended by themselves and were started again.
    pub restarts: usize,
    /// Promises that were not kept.
    pub problems: Vec<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} events, {} lost, {} twice",
            self.expected, self.lost, self.duplicates
        )?;
        if let Some(allowed) = self.allowed {
            write!(out, " (exposed {allowed})")?;
        }
        write!(
            out,
            ", longest stall {:.1} s, {} restarts",
            self.stall.as_secs_f64(),
            self.restarts
        )?;
        for problem in &self.problems {
            write!(out, "\n    PROBLEM: {problem}")?;
        }
        Ok(())
    }
}

/// Numbers that look random and follow from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// From 0 to less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::events::mixed(self.0) % end.max(1)
    }

    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + Duration::from_millis(self.below((to - from).as_millis() as u64))
    }
}
