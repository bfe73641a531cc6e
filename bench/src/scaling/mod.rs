//! How the cost of an event changes with partitions, the size of events, projected fields and lanes; and how soon a worker delivers.
//!
//! From Kafka to Kafka with filter and projection. Each group of rows changes one thing and leaves the others as they are by default.

mod shape;
mod table;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use keystone_tests::kafka::Isolation;
use keystone_tests::{Error, Judge, Result, Worker};

use crate::jobs::{self, Bench, PARTITIONS};
use crate::measure::Cost;
use shape::Shape;

pub(crate) use table::render;

/// Of an event where nothing else is said.
const BYTES: usize = 620;
/// Projected fields where nothing else is said; an event has one field less beside its id.
const FIELDS: usize = 5;
const MOST_FIELDS: usize = 50;
/// How often a starting worker is asked whether it has delivered.
const LOOK: Duration = Duration::from_millis(2);

/// One way of running.
#[derive(Debug, Clone, Copy)]
struct Setting {
    varied: &'static str,
    shape: Shape,
    fields: usize,
    partitions: i32,
    /// `None` is the default: one for each core.
    lanes: Option<u32>,
    /// How often a member of each event is hashed before the filter looks at anything else.
    hashes: usize,
    /// The events are so many times the usual number.
    times: u64,
    /// Records in each batch of the topic; `None` leaves it to the producer, which makes them smaller the more partitions there are.
    batch: Option<u32>,
}

const BATCHES: &str = "records a batch";
/// A filter that keeps the lanes busy, not the thread that fetches.
const HASHED: &str = "lanes, each event hashed 20 times";
/// The same in each partition, so that nothing else is varied with their number.
const BATCH: u32 = 100;

const PLAIN: Setting = Setting {
    varied: "",
    shape: Shape {
        bytes: BYTES,
        short: FIELDS - 1,
    },
    fields: FIELDS,
    partitions: PARTITIONS,
    lanes: None,
    hashes: 0,
    times: 1,
    batch: None,
};

fn settings() -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend([1, 8, 50, 200, 1000].map(|partitions| Setting {
        varied: "partitions",
        partitions,
        // Enough that the price of a start, which rises with the partitions, is spread thin.
        times: 4,
        batch: Some(BATCH),
        ..PLAIN
    }));
    all.extend([10, BATCH, 1000].map(|records| Setting {
        varied: BATCHES,
        batch: Some(records),
        ..PLAIN
    }));
    all.extend([100, 620, 10_000, 100_000].map(|bytes| Setting {
        varied: "bytes an event",
        shape: Shape {
            bytes,
            ..PLAIN.shape
        },
        ..PLAIN
    }));
    all.extend([1, 5, 20, MOST_FIELDS].map(|fields| Setting {
        varied: "projected fields",
        shape: Shape {
            short: MOST_FIELDS - 1,
            ..PLAIN.shape
        },
        fields,
        ..PLAIN
    }));
    all.extend([1, 2, 4].map(|lanes| Setting {
        varied: "lanes",
        lanes: Some(lanes),
        ..PLAIN
    }));
    all.extend([1, 2, 4].map(|lanes| Setting {
        varied: HASHED,
        lanes: Some(lanes),
        hashes: 20,
        ..PLAIN
    }));
    all
}

impl Setting {
    fn value(&self) -> String {
        match self.varied {
            "partitions" => self.partitions.to_string(),
            BATCHES => self.batch.unwrap_or_default().to_string(),
            "projected fields" => self.fields.to_string(),
            "lanes" | HASHED => self.lanes.unwrap_or_default().to_string(),
            _ => self.shape.bytes.to_string(),
        }
    }

    /// As many as asked for, fewer of large events: no topic has more bytes than the usual one.
    fn count(&self, events: u64) -> u64 {
        let most = events
            .min(events * BYTES as u64 / self.shape.bytes as u64)
            .max(1);
        self.times * most
    }

    fn topic(&self) -> String {
        let Shape { bytes, short } = self.shape;
        let batch = self.batch.unwrap_or_default();
        format!(
            "scaling-{}-{bytes}-{short}-{}-{batch}",
            self.partitions, self.times
        )
    }
}

/// One line of the table.
pub(crate) struct Row {
    setting: Setting,
    count: u64,
    costs: Vec<Cost>,
    /// Of `kcat -C` on the same topic, for comparison.
    floor: Vec<Cost>,
    wrong: Option<String>,
}

/// What was measured.
pub(crate) struct Scaling {
    rows: Vec<Row>,
    starts: Vec<Start>,
    /// Of workers that found nothing to read, in each of [`EMPTY`].
    idle: [Vec<Cost>; EMPTY.len()],
    wrong: Option<String>,
}

/// From the start of the process.
struct Start {
    assigned: Duration,
    delivered: Duration,
}

impl Scaling {
    pub(crate) fn failures(&self) -> usize {
        let rows = self.rows.iter().filter(|row| row.wrong.is_some());
        rows.count() + usize::from(self.wrong.is_some())
    }
}

/// Runs every setting `repeats` times, in turn.
pub(crate) fn run(bench: &Bench, events: u64, repeats: u32) -> Result<Scaling> {
    let row = |setting: Setting| Row {
        setting,
        count: setting.count(events),
        costs: Vec::new(),
        floor: Vec::new(),
        wrong: None,
    };
    let mut scaling = Scaling {
        rows: settings().into_iter().map(row).collect(),
        starts: Vec::new(),
        idle: Default::default(),
        wrong: None,
    };
    let mut made = HashSet::new();
    for row in &scaling.rows {
        let (setting, topic) = (row.setting, row.setting.topic());
        if made.insert(topic.clone()) {
            eprintln!("making {} events for {topic}", row.count);
            bench.kafka.create_topic(&topic, setting.partitions, &[])?;
            let (partitions, batch) = (setting.partitions, setting.batch);
            setting
                .shape
                .produce(&bench.kafka, &topic, partitions, batch, row.count)?;
        }
    }
    for partitions in EMPTY {
        bench
            .kafka
            .create_topic(&empty(partitions), partitions, &[])?;
    }
    for repeat in 1..=repeats {
        for (index, row) in scaling.rows.iter_mut().enumerate() {
            let run = format!("scaling-{index}-{repeat}");
            let what = format!("{} {}", row.setting.varied, row.setting.value());
            if row.wrong.is_some() {
                continue;
            }
            let floor = || bench.kcat(&row.setting.topic(), row.count);
            match route(bench, &row.setting, row.count, &run, jobs::consumed)
                .and_then(|cost| Ok((cost, floor()?)))
            {
                Ok((cost, floor)) => {
                    eprintln!(
                        "{what}: {:.2} CPU-s, kcat {:.2}",
                        cost.cpu_seconds, floor.cpu_seconds
                    );
                    row.costs.push(cost);
                    row.floor.push(floor);
                }
                Err(error) => row.wrong = Some(said(&what, &error)),
            }
        }
        let count = PLAIN.count(events);
        match start(bench, count, &format!("scaling-start-{repeat}")) {
            Ok(start) => scaling.starts.push(start),
            Err(error) => scaling.wrong = Some(said("start", &error)),
        }
        for (partitions, costs) in EMPTY.into_iter().zip(&mut scaling.idle) {
            let run = format!("scaling-idle-{partitions}-{repeat}");
            match idle(bench, &empty(partitions), &run) {
                Ok(cost) => costs.push(cost),
                Err(error) => scaling.wrong = Some(said("nothing to read", &error)),
            }
        }
    }
    Ok(scaling)
}

/// Partitions of the topics without events.
const EMPTY: [i32; 2] = [PARTITIONS, 1000];

fn empty(partitions: i32) -> String {
    format!("scaling-empty-{partitions}")
}

/// Starts a worker on the setting's topic, has `work` see it through its `count` events, and judges what it delivered.
fn route<T>(
    bench: &Bench,
    setting: &Setting,
    count: u64,
    run: &str,
    work: impl FnOnce(Worker, Instant, u64) -> Result<T>,
) -> Result<T> {
    bench.kafka.create_topic(run, PARTITIONS, &[])?;
    let mut route = format!(
        "filter = {}\nprojection = {}\nsink.type = kafka\nsink.kafka.topic = {run}\n",
        shape::filter(setting.hashes),
        shape::projection(setting.fields)
    );
    if let Some(lanes) = setting.lanes {
        route += &format!("delivery.lanes = {lanes}\n");
    }
    let started = Instant::now();
    let worker = bench.start_worker(run, &setting.topic(), &route)?;
    let found = work(worker, started, count)?;
    let mut judge = Judge::new(shape::expected(count, setting.fields), "event_id");
    judge.topic(&bench.kafka, run, Isolation::ReadCommitted)?;
    bench.kafka.delete_topic(run)?;
    let verdict = judge.verdict();
    match verdict.is_exact() {
        true => Ok(found),
        false => Err(Error::new(verdict.to_string())),
    }
}

/// How soon a worker has its partitions, and has delivered an event. The broker lets a group begin at once.
fn start(bench: &Bench, count: u64, run: &str) -> Result<Start> {
    route(bench, &PLAIN, count, run, |worker, started, count| {
        let assigned = first(&worker, started, "keystone_partitions_assigned")?;
        let delivered = first(&worker, started, "keystone_events_delivered_total")?;
        jobs::consumed(worker, started, count)?;
        Ok(Start {
            assigned,
            delivered,
        })
    })
}

/// When a metric was first seen above zero.
fn first(worker: &Worker, started: Instant, metric: &str) -> Result<Duration> {
    while started.elapsed() < jobs::END {
        // The worker does not listen from its first moment on.
        if worker
            .metrics()
            .is_ok_and(|metrics| metrics.sum(metric, &[]) > 0.0)
        {
            return Ok(started.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    Err(Error::new(format!(
        "{metric} stayed at 0:\n{}",
        worker.stderr_tail()
    )))
}

/// What a worker costs that starts, joins, finds nothing and ends.
fn idle(bench: &Bench, topic: &str, run: &str) -> Result<Cost> {
    let started = Instant::now();
    let worker = bench.start_worker(run, topic, "sink.type = blackhole\n")?;
    first(&worker, started, "keystone_partitions_assigned")?;
    jobs::ended(worker, started)
}

/// Shows an error, and makes it short enough for a table.
fn said(what: &str, error: &Error) -> String {
    let text = error.to_string();
    eprintln!("{what}: {text}");
    text.lines().next().unwrap_or_default().to_owned()
}
