//! One cell of a round: its route, its workers, and what a reader finds in its sink.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::events::{COLUMNS, FILTER, PROJECTION};
use crate::kafka::Isolation;
use crate::worker::read_in;
use crate::{Error, Judge, Kafka, Result, Verdict, Worker, wait_for};

use super::servers::{Servers, index};
use super::watch::Reader;
use super::{Cell, Dice, Fault, NOT_KNOWN, Sink, Tradeoff};

/// For workers to start and take their partitions; generous, since two cores serve everything.
const START: Duration = Duration::from_secs(180);
/// For a worker to end after SIGTERM: longer than any drain.
const END: Duration = Duration::from_secs(240);
/// What a worker says when it has subscribed.
const READING: &str = ": reading topics=";
/// The `client.id` of the producers where the sink is slow.
pub(super) const SLOW_PRODUCER: &str = "faults-slow";
/// What a worker says that gave up partitions before it was done with them, with a number of batches.
const GIVEN_UP: &str = "partitions were given up before all was settled; whoever holds them next delivers it again unsettled_batches=";
/// One event in so many is kept by the filter.
const KEPT: u64 = 6;
/// The last words of a worker that could not drain or commit all in time.
const NOT_DRAINED: [&str; 3] = [
    "were not settled within delivery.shutdown.drain.max.ms",
    "was not put into a batch within delivery.shutdown.drain.max.ms",
    "has not acknowledged the commit",
];
/// A worker that ends more often than this is not started again.
const RESTARTS: usize = 5;

pub(super) struct Route {
    pub(super) cell: Cell,
    pub(super) name: String,
    pub(super) workers: Vec<Worker>,
    /// What the faults could have repeated, as the workers said before.
    pub(super) exposed: u64,
    /// The last words of workers that ended by themselves.
    pub(super) ended: Vec<String>,
    pub(super) problems: Vec<String>,
    worker: crate::Route,
    topic: String,
    target: Target,
    /// Sent SIGTERM, not yet ended, with what could be repeated if they don't drain.
    leaving: Vec<(Worker, u64)>,
}

enum Target {
    Topic(String),
    Index { name: String, pressed: bool },
    Directory(PathBuf),
    Prefix(String),
}

impl Route {
    /// Makes the sink's topic, index or directory, and starts the workers.
    pub(super) fn start(
        servers: &mut Servers,
        fault: Fault,
        cell: Cell,
        topic: &str,
    ) -> Result<Route> {
        let name = format!("{topic}-{:?}-{}", cell.sink, cell.tradeoff.name()).to_lowercase();
        let (target, sink) = target(servers, fault, cell, &name)?;
        let small = match fault {
            // What is under way at most is so soon there, and a request gets through before it is given up.
            Fault::SinkSlow => "delivery.batch.max.events = 100\n",
            _ => "",
        };
        let properties = format!(
            "{small}route.name = {name}\nsource.topics = {topic}\nkafka.bootstrap.servers = 127.0.0.1:{}\nfilter = {FILTER}\n\
             projection = {PROJECTION}\ndelivery.tradeoff = {}\ndelivery.shutdown.drain.max.ms = 120000\n{}{sink}",
            servers.kafka.proxy.port(),
            cell.tradeoff.name(),
            match fault {
                // The broker says how long a session is.
                Fault::NewProtocol => "kafka.group.protocol = consumer\n",
                _ if fault.is_to_be_missed() =>
                    "kafka.session.timeout.ms = 6000\nkafka.heartbeat.interval.ms = 500\n",
                _ => "kafka.heartbeat.interval.ms = 500\n",
            }
        );
        let mut worker = crate::Route::new(properties);
        if fault == Fault::ClockJumps {
            for (name, value) in servers.need_clock()?.environment() {
                worker = worker.env(name, &value);
            }
        }
        let mut route = Route {
            cell,
            name,
            workers: Vec::new(),
            exposed: 0,
            ended: Vec::new(),
            problems: Vec::new(),
            worker,
            topic: topic.to_owned(),
            target,
            leaving: Vec::new(),
        };
        for _ in 0..fault.workers() {
            route.join()?;
        }
        Ok(route)
    }

    /// Waits until the workers hold all partitions of the topic.
    pub(super) fn wait_assigned(&self, partitions: i32) -> Result<()> {
        wait_for(
            START,
            &format!("the workers of {} at work", self.name),
            || match self.gauge("keystone_partitions_assigned") == f64::from(partitions) {
                true => Ok(()),
                false => Err(Error::new(
                    self.workers
                        .first()
                        .map(Worker::stderr_tail)
                        .unwrap_or_default(),
                )),
            },
        )
    }

    /// A sum over the workers that answer.
    pub(super) fn gauge(&self, name: &str) -> f64 {
        let metrics = self
            .workers
            .iter()
            .filter_map(|worker| worker.metrics().ok());
        metrics.map(|metrics| metrics.sum(name, &[])).sum()
    }

    /// What a crash at this moment could repeat, as the workers say.
    pub(super) fn exposure(&self) -> u64 {
        self.gauge("keystone_duplicate_exposure_events") as u64
    }

    /// What its workers hold now, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        self.workers.iter().map(Worker::rss).sum()
    }

    pub(super) fn join(&mut self) -> Result<()> {
        self.workers.push(self.worker.spawn()?);
        Ok(())
    }

    /// SIGKILL to one, once it has said what that may repeat.
    pub(super) fn kill_one(&mut self, dice: &mut Dice, kafka: &Kafka) -> Result<()> {
        let victim = dice.below(self.workers.len() as u64) as usize;
        let mut worker = self.workers.remove(victim);
        let announced = Announced::by(&worker);
        worker.sigkill();
        self.exposed += announced.by_now(kafka, &self.topic)? + self.given_up(&worker);
        Ok(())
    }

    /// What a worker says it gave up unsettled in rebalances, as events at most.
    fn given_up(&self, worker: &Worker) -> u64 {
        let log = worker.stderr();
        let batches = log.split(GIVEN_UP).skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        // The defaults of `delivery.batch.max.events`.
        let events = match self.cell.tradeoff {
            Tradeoff::LowLatency => 500,
            Tradeoff::Balanced => 2_000,
            Tradeoff::NoDuplicates => 5_000,
        };
        batches.sum::<u64>() * events
    }

    /// SIGTERM to one; how it ended is looked at in [`Route::finish`].
    pub(super) fn terminate_one(&mut self, dice: &mut Dice, kafka: &Kafka) -> Result<()> {
        let victim = dice.below(self.workers.len() as u64) as usize;
        let mut worker = self.workers.remove(victim);
        // Before it listens for signals, SIGTERM is no request to drain.
        let what = format!("a worker of {} to listen for signals", self.name);
        wait_for(START, &what, || {
            match worker.has_exited() || worker.stderr().contains(READING) {
                true => Ok(()),
                false => Err(Error::new(worker.stderr_tail())),
            }
        })?;
        // What its end may repeat if it can't drain.
        let announced = Announced::by(&worker);
        if !worker.has_exited() {
            worker.sigterm()?;
        }
        let exposed = announced.by_now(kafka, &self.topic)?;
        self.leaving.push((worker, exposed));
        Ok(())
    }

    /// Does what a container platform does: a worker that has ended by itself is started again.
    pub(super) fn restart_ended(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            if !worker.has_exited() {
                continue;
            }
            let log = worker.stderr_tail();
            let last = log.lines().last().unwrap_or_default();
            eprintln!("  {} ended: {last}", self.name);
            self.ended.push(last.to_owned());
            if self.ended.len() > RESTARTS {
                return Err(Error::new(format!(
                    "{} ends again and again\n{log}",
                    self.name
                )));
            }
            *worker = self.worker.spawn()?;
        }
        Ok(())
    }

    /// SIGTERM to all. Each must drain and end with exit code 0; one that had to leave under load may say that it could not: one that a busy
    /// machine has thrown out of its group meanwhile can't commit any more. Then what it had announced may be there twice, where that may be
    /// at all. It is for one or another: where most say so, drains do not work.
    pub(super) fn finish(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.sigterm()?;
        }
        let under_load = std::mem::take(&mut self.leaving);
        let (mut cut, allowed) = (0, under_load.len().div_ceil(2));
        let under_load = under_load
            .into_iter()
            .map(|(worker, exposed)| (worker, Some(exposed)));
        let at_rest = std::mem::take(&mut self.workers);
        let at_rest = at_rest.into_iter().map(|worker| (worker, None));
        for (mut worker, exposed) in under_load.chain(at_rest) {
            let (status, log) = worker.wait_exit(END)?;
            self.exposed += self.given_up(&worker);
            if status.code() == Some(0) {
                continue;
            }
            // The log goes with the worker.
            eprintln!("  {}: {}", self.name, worker.stderr());
            let last = log.lines().last().unwrap_or_default();
            let is_told = NOT_DRAINED.iter().any(|words| last.contains(words))
                || self.cell.may_lose_answers() && last.contains(NOT_KNOWN);
            match exposed.filter(|_| status.code() == Some(1) && is_told && cut < allowed) {
                Some(exposed) => {
                    cut += 1;
                    self.exposed += exposed;
                }
                None => self.problems.push(format!(
                    "a worker ended with {status} after SIGTERM: {last}"
                )),
            }
        }
        Ok(())
    }

    /// Reads its files while they come.
    pub(super) fn reader(&self) -> Option<Reader> {
        match &self.target {
            Target::Directory(path) => Some(Reader::start(path.clone())),
            _ => None,
        }
    }

    /// What a reader finds.
    pub(super) fn judge(
        &self,
        servers: &Servers,
        expected: HashMap<String, String>,
    ) -> Result<Verdict> {
        let missing = || Error::new("the server of this cell was never started");
        let mut judge = Judge::new(expected, "event_id");
        match &self.target {
            Target::Topic(name) => {
                judge.topic(&servers.kafka.server, name, Isolation::ReadCommitted)?;
            }
            Target::Index { name, pressed } => {
                let place = if *pressed {
                    &servers.pressed
                } else {
                    &servers.elasticsearch
                };
                judge.elasticsearch(&place.as_ref().ok_or_else(missing)?.server, name)?;
            }
            Target::Directory(path) => judge.parquet(path)?,
            Target::Prefix(prefix) => {
                judge.parquet_s3(&servers.s3.as_ref().ok_or_else(missing)?.server, prefix)?;
            }
        }
        Ok(judge.verdict())
    }

    /// The keys of the dead letters. The same one may be there twice after a fault; so it is told once.
    pub(super) fn dead_letters(&self, servers: &Servers) -> Result<BTreeSet<String>> {
        let topic = format!("{}.dead-letters", self.name);
        if servers.kafka.server.partitions(&topic)?.is_empty() {
            return Ok(BTreeSet::new());
        }
        let letters = servers.kafka.server.read_all(&topic)?;
        let key = |key: Vec<u8>| String::from_utf8_lossy(&key).into_owned();
        Ok(letters
            .into_iter()
            .filter_map(|letter| letter.key.map(key))
            .collect())
    }
}

/// What a worker says that its end could repeat, and how far it has read by then.
struct Announced {
    exposed: u64,
    /// By partition.
    read: BTreeMap<i32, i64>,
}

impl Announced {
    /// One that does not answer has not begun.
    fn by(worker: &Worker) -> Announced {
        let status = worker.status().unwrap_or_default();
        let partitions = status["partitions"].as_array();
        let partitions = partitions.map(Vec::as_slice).unwrap_or_default();
        let exposed = |partition: &Value| partition["exposed_events"].as_u64();
        Announced {
            exposed: partitions.iter().filter_map(exposed).sum(),
            read: read_in(&status),
        }
    }

    /// The same when the worker reads no more, however long that took: it may have read, and delivered, all that had come by then.
    fn by_now(&self, kafka: &Kafka, topic: &str) -> Result<u64> {
        let ends = wait_for(START, "Kafka tells the ends", || kafka.end_offsets(topic))?;
        let unread = self.read.iter().map(|(partition, read)| {
            let end = ends.get(partition).copied().unwrap_or(*read);
            (end - read).max(0) as u64
        });
        let unread: u64 = unread.sum();
        // One in six on average: beside it five times as much as that varies.
        Ok(self.exposed + unread / KEPT + 2 * unread.isqrt())
    }
}

/// The sink's place, made, and the route's lines for it.
fn target(servers: &mut Servers, fault: Fault, cell: Cell, name: &str) -> Result<(Target, String)> {
    match cell.sink {
        Sink::Kafka => {
            let topic = format!("{name}-out");
            servers.kafka.server.create_topic(&topic, 8, &[])?;
            let mut lines = format!("sink.type = kafka\nsink.kafka.topic = {topic}\n");
            if fault == Fault::SinkSlow {
                lines += &format!("sink.kafka.client.id = {SLOW_PRODUCER}\n");
            } else if cell.tradeoff == Tradeoff::NoDuplicates {
                lines += "sink.kafka.transaction.max.ms = 200\n";
                if fault.is_to_be_missed() {
                    // What a killed worker leaves behind is soon gone.
                    lines += "sink.kafka.transaction.timeout.ms = 6000\n";
                }
            }
            Ok((Target::Topic(topic), lines))
        }
        Sink::Elasticsearch => {
            let pressed = fault == Fault::Pressure;
            let place = servers.need_elasticsearch(pressed)?;
            place.server.create_index(name, &index())?;
            let mut lines = format!(
                "sink.type = elasticsearch\nsink.elasticsearch.urls = {}\nsink.elasticsearch.index = {name}\n\
                 delivery.retry.backoff.max.ms = 2000\n",
                place.url()
            );
            if fault == Fault::SinkHangs {
                lines += "sink.elasticsearch.request.timeout.ms = 5000\n";
            }
            if fault == Fault::SinkLate {
                lines += "sink.elasticsearch.request.timeout.ms = 1000\n";
            }
            if pressed {
                // A request fits by itself, several at a time do not.
                lines += "delivery.batch.max.events = 100\ndelivery.batch.max.age.ms = 2000\n";
            }
            let name = name.to_owned();
            Ok((Target::Index { name, pressed }, lines))
        }
        Sink::Parquet => {
            let lines = format!(
                "sink.type = parquet\nsink.parquet.schema = {COLUMNS}\nsink.parquet.roll.max.age.ms = 1000\n\
                 delivery.retry.backoff.max.ms = 2000\n"
            );
            if fault.has_bucket() {
                let s3 = servers.need_s3()?;
                let bucket = format!(
                    "sink.parquet.location = s3://{}/{name}\n{}",
                    crate::S3::BUCKET,
                    crate::S3::properties(&s3.url())
                );
                return Ok((Target::Prefix(format!("{name}/")), lines + &bucket));
            }
            let root = match fault {
                Fault::DiskFull => servers.need_disk()?.path(),
                _ => servers.directory.path(),
            };
            let directory = root.join(name);
            std::fs::create_dir(&directory)?;
            let mut place = format!("sink.parquet.location = file://{}\n", directory.display());
            if fault == Fault::MetastoreDown {
                let uri = servers.need_metastore()?.uri();
                let table = name.replace('-', "_");
                place += &format!("sink.hive.metastore.uri = {uri}\nsink.hive.table = {table}\n");
            }
            Ok((Target::Directory(directory), lines + &place))
        }
    }
}
