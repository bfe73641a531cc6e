//! What each word of `delivery.tradeoff` costs with each sink: latency and processor time, at a steady rate and at full speed.
//!
//! Full speed is two runs: a topic that is full already tells the processor time; for the latency, events are written as fast as one producer
//! can while the worker reads, or their age would be all that is measured.
//!
//! The latency is what the worker's own histogram counted between two looks at it: from the record's timestamp, given by the producer, to the
//! moment the event was settled as delivered. A quantile is interpolated within its bucket, as Prometheus does, and never above the maximum.
//! That is the worker's gauge at the end, of the last one to two minutes: a steady window is that long, so the start is not in it.

use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use keystone_tests::metrics::Metrics;
use keystone_tests::{Doing as _, Error, Events, Result, Stream, Worker};

use crate::SEED;
use crate::jobs::{Bench, PARTITIONS, Sent, Sink, ended_well};
use crate::measure::{self, Cost};

const WORDS: [&str; 3] = ["low-latency", "balanced", "no-duplicates"];
const SINKS: [Sink; 3] = [Sink::Kafka, Sink::Elasticsearch, Sink::Parquet];
/// Before the first look: the worker has its partitions, and what piled up at the start is delivered.
const WARM_UP: Duration = Duration::from_secs(6);
/// More events are made than window and warm-up need, for as long as this.
const SPARE: Duration = Duration::from_secs(30);
/// For the worker to take its partitions.
const START: Duration = Duration::from_secs(60);
/// Files are published this often here, milliseconds: the default of minutes would be all that is measured.
const ROLL_MS: u64 = 2_000;
/// The shortest window, in seconds: the worker's maximum is of up to this time.
pub(crate) const MIN_WINDOW: u64 = 120;

/// The broker's own code is compiled while it runs: before that a record takes several times as long.
const BROKER_WARM_UP: Duration = Duration::from_secs(60);
const LOW_LATENCY: &str = "delivery.tradeoff = low-latency\n";
/// The filter keeps one in so many, and what the projection makes of an event has about so many bytes.
const KEPT: u32 = 6;
const BYTES: u32 = 150;

/// p50, p99 and the highest latency of the floor, in seconds.
pub(crate) struct Floor(Result<[f64; 3], String>);

/// One sink under one word.
pub(crate) struct Row {
    sink: Sink,
    word: &'static str,
    full: Result<Cost, String>,
    burst: Result<Burst, String>,
    steady: Result<Steady, String>,
}

impl Row {
    pub(crate) fn is_wrong(&self) -> bool {
        self.full.is_err() || self.burst.is_err() || self.steady.is_err()
    }
}

/// At the steady rate.
struct Steady {
    cpu_seconds_per_million: f64,
    latency: Latency,
}

/// As fast as events are written.
struct Burst {
    /// Events a second that were written.
    rate: f64,
    latency: Latency,
}

struct Latency {
    buckets: Buckets,
    /// In seconds.
    highest: f64,
}

/// A window of a histogram: upper bounds in seconds, ascending, the last infinite, with counts up to each.
struct Buckets(Vec<(f64, f64)>);

/// The rows with these names, `kafka-low-latency` for example; all where none is given.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<(Sink, &'static str)>> {
    let all = SINKS
        .iter()
        .flat_map(|sink| WORDS.map(|word| (*sink, word)));
    let all: Vec<_> = all.collect();
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let mut all = all.iter();
        let found = all.find(|(sink, word)| *name == self::name(*sink, word));
        found.copied().ok_or_else(|| {
            Error::new(format!(
                "there is no row {name}: rows are a sink and a word, for example kafka-low-latency"
            ))
        })
    };
    names.iter().map(find).collect()
}

fn name(sink: Sink, word: &str) -> String {
    format!("{sink:?}-{word}").to_lowercase()
}

/// Measures the floor and these rows; `rate` is events a second, looked at for `window`.
pub(crate) fn run(
    bench: &mut Bench,
    chosen: &[(Sink, &'static str)],
    rate: u64,
    window: Duration,
) -> ([Floor; 2], Vec<Row>) {
    eprintln!("warming up");
    let (kafka, run) = (Sink::Kafka, "warm-up");
    if let Err(error) = steady(bench, kafka, run, LOW_LATENCY, rate, BROKER_WARM_UP) {
        said(run, &error);
    }
    eprintln!("the floor of latency");
    let before = floor(bench, "floor-before", rate, window);
    let mut rows = Vec::new();
    for &(sink, word) in chosen {
        let run = name(sink, word);
        eprintln!("{run}");
        let mut more = format!("delivery.tradeoff = {word}\n");
        if sink == Sink::Parquet {
            more += &format!("sink.parquet.roll.max.age.ms = {ROLL_MS}\n");
        }
        let full = bench.project(sink, &format!("full-{run}"), &more);
        let full = full.and_then(|(cost, verdict)| match verdict {
            Some(verdict) if !verdict.is_exact() => Err(Error::new(verdict.to_string())),
            _ => Ok(cost),
        });
        let burst = burst(bench, sink, &format!("burst-{run}"), &more);
        let steady = steady(bench, sink, &format!("steady-{run}"), &more, rate, window);
        let said = |error: Error| said(&run, &error);
        rows.push(Row {
            sink,
            word,
            full: full.map_err(said),
            burst: burst.map_err(said),
            steady: steady.map_err(said),
        });
    }
    eprintln!("the floor of latency, once more");
    let after = floor(bench, "floor-after", rate, window);
    let floors =
        [before, after].map(|floor| Floor(floor.map_err(|error| said("the floor", &error))));
    (floors, rows)
}

/// Says what went wrong; answers with its first line, for the table.
fn said(run: &str, error: &Error) -> String {
    eprintln!("{run}: {error}");
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// What a loop in C takes for one event in six, consumed and produced at once, at the steady rate.
fn floor(bench: &Bench, run: &str, rate: u64, window: Duration) -> Result<[f64; 3]> {
    let events = Events::new(SEED, rate * (WARM_UP + window + SPARE).as_secs());
    let topic = format!("{run}-events");
    bench.kafka.create_topic(&topic, PARTITIONS, &[])?;
    bench.kafka.create_topic(run, PARTITIONS, &[])?;
    let bootstrap = bench.kafka.bootstrap();
    let stream = Stream::start(events, &bootstrap, &topic, rate, |_| None)?;
    let mut program = Command::new(&bench.programs.latency);
    program.args([&bootstrap, &topic, run, run]);
    program.args([KEPT, BYTES].map(|number| number.to_string()));
    program.args([WARM_UP, window].map(|time| time.as_secs().to_string()));
    let done = program.output().doing("running the floor of latency");
    stream.stop()?;
    let done = done?;
    for topic in [&topic, run] {
        bench.kafka.delete_topic(topic)?;
    }
    let (seen, said) = (text(&done.stdout), text(&done.stderr));
    let numbers: Option<Vec<f64>> = seen
        .split_whitespace()
        .map(|number| number.parse().ok())
        .collect();
    match numbers.as_deref() {
        Some(&[p50, p99, highest]) if done.status.success() => {
            Ok([p50, p99, highest].map(|ms| ms / 1_000.0))
        }
        _ => Err(Error::new(format!(
            "the floor of latency failed ({}): {seen} {said}",
            done.status
        ))),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn steady(
    bench: &mut Bench,
    sink: Sink,
    run: &str,
    more: &str,
    rate: u64,
    window: Duration,
) -> Result<Steady> {
    let events = Events::new(SEED, rate * (WARM_UP + window + SPARE).as_secs());
    live(bench, sink, run, more, &events, |bench, topic, worker| {
        let none = |_| None;
        let bootstrap = bench.kafka.bootstrap();
        let stream = Stream::start(events.clone(), &bootstrap, topic, rate, none)?;
        // The window is time itself, not a condition.
        std::thread::sleep(WARM_UP);
        let before = Look::at(worker)?;
        std::thread::sleep(window);
        let after = Look::at(worker)?;
        let count = stream.stop()?;
        let latency = after.since(&before)?;
        let consumed = after.consumed - before.consumed;
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        let steady = Steady {
            cpu_seconds_per_million: cpu_seconds * 1e6 / consumed,
            latency,
        };
        Ok((steady, count))
    })
}

fn burst(bench: &mut Bench, sink: Sink, run: &str, more: &str) -> Result<Burst> {
    let events = bench.events.clone();
    let count = events.count();
    live(bench, sink, run, more, &events, |bench, topic, worker| {
        let before = Look::at(worker)?;
        let start = Instant::now();
        events.produce_in(&bench.kafka.bootstrap(), topic, 0..count)?;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        worker.wait_until(measure::RUN, "all events were delivered", |worker| {
            let metrics = worker.metrics()?;
            let in_flight = metrics.sum("keystone_events_in_flight", &[]);
            Ok(metrics.sum(CONSUMED, &[]) as u64 >= count && in_flight == 0.0)
        })?;
        let latency = Look::at(worker)?.since(&before)?;
        Ok((Burst { rate, latency }, count))
    })
}

/// Starts a worker on an empty topic and has `load` write events to it, which answers with what it saw and the number of events written.
fn live<T>(
    bench: &mut Bench,
    sink: Sink,
    run: &str,
    more: &str,
    events: &Events,
    load: impl FnOnce(&Bench, &str, &mut Worker) -> Result<(T, u64)>,
) -> Result<T> {
    let topic = format!("{run}-events");
    bench.kafka.create_topic(&topic, PARTITIONS, &[])?;
    let (seen, verdict) = bench.deliver(sink, run, |bench, route| {
        let mut worker = bench.start_worker(run, &topic, &(route.to_owned() + more))?;
        worker.wait_until(START, "all partitions are assigned", |worker| {
            let assigned = worker.metrics()?.sum("keystone_partitions_assigned", &[]);
            Ok(assigned == f64::from(PARTITIONS))
        })?;
        let (seen, count) = load(bench, &topic, &mut worker)?;
        worker.wait_until(measure::RUN, "all events were consumed", |worker| {
            Ok(worker.metrics()?.sum(CONSUMED, &[]) as u64 >= count)
        })?;
        worker.sigterm()?;
        ended_well(worker)?;
        let events = events.clone();
        Ok((seen, Sent { events, count }))
    })?;
    bench.kafka.delete_topic(&topic)?;
    match verdict.is_exact() {
        true => Ok(seen),
        false => Err(Error::new(verdict.to_string())),
    }
}

const CONSUMED: &str = "keystone_events_consumed_total";

/// What a worker has done so far.
struct Look {
    cpu_seconds: f64,
    consumed: f64,
    latency: Vec<(f64, f64)>,
    highest: f64,
}

impl Look {
    fn at(worker: &Worker) -> Result<Look> {
        let metrics = worker.metrics()?;
        Ok(Look {
            cpu_seconds: worker.cpu_seconds()?,
            consumed: metrics.sum(CONSUMED, &[]),
            latency: buckets(&metrics),
            highest: metrics.sum("keystone_delivery_latency_max_seconds", &[]),
        })
    }

    fn since(&self, before: &Look) -> Result<Latency> {
        let latency = self.latency.iter().zip(&before.latency);
        let latency: Vec<_> = latency.map(|(now, then)| (now.0, now.1 - then.1)).collect();
        let is_idle = self.consumed <= before.consumed;
        if is_idle || latency.last().is_none_or(|(_, count)| *count <= 0.0) {
            return Err(Error::new("nothing was delivered while it was looked at"));
        }
        Ok(Latency {
            buckets: Buckets(latency),
            highest: self.highest,
        })
    }
}

impl Latency {
    /// p50, p99 and the maximum, as columns.
    fn columns(&self) -> String {
        let quantile = |share| shown(self.buckets.quantile(share).min(self.highest));
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        format!("{p50} | {p99} | {}", shown(self.highest))
    }
}

fn buckets(metrics: &Metrics) -> Vec<(f64, f64)> {
    let samples = metrics.samples().iter();
    let buckets =
        samples.filter(|sample| sample.name == "keystone_delivery_latency_seconds_bucket");
    let bound = |labels: &[(String, String)]| {
        let (_, value) = labels.iter().find(|(name, _)| name == "le")?;
        match value.as_str() {
            "+Inf" => Some(f64::INFINITY),
            number => number.parse().ok(),
        }
    };
    buckets
        .filter_map(|sample| Some((bound(&sample.labels)?, sample.value)))
        .collect()
}

impl Buckets {
    /// In seconds; the lower bound of the last bucket where it falls into that.
    fn quantile(&self, share: f64) -> f64 {
        let total = self.0.last().map_or(0.0, |(_, count)| *count);
        let rank = total * share;
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, count) in &self.0 {
            if *count >= rank && *count > below {
                return match upper.is_finite() {
                    true => lower + (upper - lower) * (rank - below) / (count - below),
                    false => lower,
                };
            }
            (lower, below) = (*upper, *count);
        }
        lower
    }
}

/// The table, with what it says of itself.
pub(crate) fn render(
    floors: &[Floor; 2],
    rows: &[Row],
    events: u64,
    rate: u64,
    window: Duration,
) -> String {
    let bursts = rows.iter().filter_map(|row| row.burst.as_ref().ok());
    let rates = bursts.map(|burst| burst.rate / 1_000.0);
    let (least, most) = rates.fold((f64::INFINITY, 0.0_f64), |(least, most), rate| {
        (least.min(rate), most.max(rate))
    });
    let mut text = format!(
        "\nOne run. Full speed: {events} events that are there already (CPU-seconds, wall), and as many that one producer writes as fast as it can beside the worker, {least:.0},000 to {most:.0},000 a second (latency). Steady: {rate} events a second, looked at for {} s; the maximum is of the last one to two minutes of that. Parquet files are rolled every {} s here.\n\n\
         | sink | `delivery.tradeoff` | full speed: CPU-seconds per million | wall | p50 | p99 | max | {rate}/s: CPU-seconds per million | p50 | p99 | max |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        window.as_secs(),
        ROLL_MS / 1_000
    );
    for row in rows {
        let full = match &row.full {
            Ok(cost) => format!(
                "{:.2} | {:.1} s",
                cost.cpu_seconds * 1e6 / events as f64,
                cost.wall_seconds
            ),
            Err(problem) => format!("wrong: {problem} | -"),
        };
        let burst = match &row.burst {
            Ok(burst) => burst.latency.columns(),
            Err(problem) => format!("wrong: {problem} | - | -"),
        };
        let steady = match &row.steady {
            Ok(steady) => format!(
                "{:.2} | {}",
                steady.cpu_seconds_per_million,
                steady.latency.columns()
            ),
            Err(problem) => format!("wrong: {problem} | - | - | -"),
        };
        let _ = writeln!(
            text,
            "| {:?} | {} | {full} | {burst} | {steady} |",
            row.sink, row.word
        );
    }
    for (floor, when) in floors.iter().zip(["before", "after"]) {
        let columns = match &floor.0 {
            Ok(seen) => seen.map(shown).join(" | "),
            Err(problem) => format!("wrong: {problem} | - | -"),
        };
        let _ = writeln!(
            text,
            "| C on librdkafka, to Kafka | (commits nothing; {when} the others) | - | - | - | - | - | - | {columns} |"
        );
    }
    text.push('\n');
    text
}

fn shown(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1_000.0),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = Buckets(vec![
            (0.01, 0.0),
            (0.02, 50.0),
            (0.04, 100.0),
            (f64::INFINITY, 100.0),
        ]);
        assert_eq!(shown(buckets.quantile(0.5)), "20 ms");
        assert_eq!(shown(buckets.quantile(0.75)), "30 ms");
        let beyond = Buckets(vec![(0.01, 1.0), (f64::INFINITY, 2.0)]);
        assert_eq!(shown(beyond.quantile(0.99)), "10 ms");
    }

    #[test]
    fn the_buckets_of_a_scrape_are_found_by_their_bounds() {
        let name = "keystone_delivery_latency_seconds_bucket";
        let text = format!("{name}{{le=\"0.01\"}} 3\n{name}{{le=\"+Inf\"}} 4\n");
        let metrics = Metrics::parse(&text).unwrap();
        assert_eq!(buckets(&metrics), [(0.01, 3.0), (f64::INFINITY, 4.0)]);
    }
}
