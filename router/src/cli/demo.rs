//! `keystone demo`: the whole job in this process. The broker is librdkafka's mock cluster, which speaks the Kafka protocol on
//! loopback; the worker is the real one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keystone_config::Sources;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{Failure, run, worker_id};
use crate::cli::output::say;
use crate::ledger::LedgerView;
use crate::route;
use crate::state::Shared;
use crate::worker::Worker;

const TOPIC: &str = "events";
const ROUTE: &str = "demo";
/// The mock cluster keeps 5 MiB a partition and drops the oldest silently: this many partitions, and a producer that is held back.
const PARTITIONS: i32 = 16;
/// At most this many events wait in the broker: 16 × 5 MiB hold twice as many of them.
const MAX_WAITING: u64 = 60_000;

#[derive(Args)]
pub(super) struct DemoArgs {
    /// How many events to make
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,
    /// Where to write the Parquet files, a directory that is new or empty; one under the temporary directory if absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let out = output_directory(args.out.as_deref())?;
    let cluster = MockCluster::new(1).map_err(failed("the embedded broker can't be started"))?;
    for (topic, partitions) in [(TOPIC, PARTITIONS), ("demo.dead-letters", 1)] {
        cluster
            .create_topic(topic, partitions, 1)
            .map_err(failed("the embedded broker can't create a topic"))?;
    }
    let properties = route_properties(&cluster.bootstrap_servers(), &out);
    say!("A Kafka-protocol broker runs in this process. The route:\n");
    for line in properties.lines() {
        say!("    {line}");
    }
    let sources = Sources {
        defaults: None,
        file: Some(("the demo's route".to_owned(), properties)),
        env: Vec::new(),
        sets: Vec::new(),
    };
    let (route, sink) = route::load(&sources, &worker_id())?;
    run::start_logging(&route);
    let worker = Worker::new(route, sink).map_err(Failure::Failed)?;
    say!(
        "\nWatch it at http://{}/metrics and /status while it runs.\n",
        worker.admin_address()
    );
    let shared = worker.shared.clone();
    let started = Instant::now();
    let servers = cluster.bootstrap_servers();
    let count = args.events;
    let making = {
        let shared = shared.clone();
        std::thread::spawn(move || make_events(&servers, count, &shared))
    };
    let watching = {
        let shared = shared.clone();
        std::thread::spawn(move || watch(&shared, count))
    };
    let ended = worker.run();
    let took = started.elapsed();
    let made = making
        .join()
        .unwrap_or_else(|_| Err("the producer broke off".to_owned()));
    let watched = watching
        .join()
        .unwrap_or_else(|_| Err("the progress bar broke off".to_owned()));
    let ledger = made
        .and(watched)
        .and(ended)
        .map_err(|reason| Failure::Failed(format!("the demo failed: {reason}")))?;
    report(&ledger, &out, took)
}

fn failed(what: &'static str) -> impl Fn(KafkaError) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

/// A directory without files: at the end all that are there are counted.
fn output_directory(out: Option<&Path>) -> Result<PathBuf, Failure> {
    let out = match out {
        Some(out) => out.to_owned(),
        None => tempfile::Builder::new()
            .prefix("keystone-demo-")
            .tempdir()
            .map_err(|error| {
                Failure::Failed(format!("no temporary directory can be made: {error}"))
            })?
            .keep(),
    };
    let cannot = |error| Failure::Failed(format!("{} can't be used: {error}", out.display()));
    std::fs::create_dir_all(&out).map_err(cannot)?;
    if std::fs::read_dir(&out).map_err(cannot)?.next().is_some() {
        return Err(Failure::Usage(format!(
            "--out {}: the directory is not empty, and the demo counts all that is in it; name another, or empty it",
            out.display()
        )));
    }
    out.canonicalize().map_err(cannot)
}

fn route_properties(servers: &str, out: &Path) -> String {
    format!(
        "route.name = {ROUTE}\n\
         source.topics = {TOPIC}\n\
         kafka.bootstrap.servers = {servers}\n\
         kafka.session.timeout.ms = 6000\n\
         source.fetch.max.wait.ms = 50\n\
         filter = type == 'play' && duration_ms > `30000`\n\
         projection = {{event_id: id, ts: ts, user: user.id, title: content.title, country: geo.country, duration_ms: duration_ms}}\n\
         sink.type = parquet\n\
         sink.parquet.location = file://{}\n\
         sink.parquet.schema = event_id string, ts timestamp, user string, title string, country string, duration_ms bigint\n\
         sink.parquet.partition.by = dt={{ts:%Y-%m-%d}}\n\
         admin.listen = 127.0.0.1:0\n\
         log.level = warn\n",
        out.display()
    )
}

/// Makes the events: two in three are plays, half of those long enough; one in 5,000 is not JSON.
fn make_events(servers: &str, count: u64, shared: &Shared) -> Result<(), String> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .create()
        .map_err(|error| format!("no producer can be made: {error}"))?;
    for number in 0..count {
        while number > shared.ledger.consumed.load(Ordering::Relaxed) + MAX_WAITING {
            if shared.failure().is_some() || shared.stop_requested() {
                return Ok(());
            }
            producer.poll(Duration::from_millis(20));
        }
        let event = event(number);
        let key = format!("user-{}", number % 1_000);
        let mut record = BaseRecord::to(TOPIC)
            .key(&key)
            .payload(&event)
            .partition((number % PARTITIONS as u64) as i32);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            ) {
                return Err(format!("an event could not be produced: {error}"));
            }
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .map_err(|error| format!("the events could not be produced: {error}"))
}

fn event(number: u64) -> String {
    if number % 5_000 == 4_999 {
        return format!("{{\"id\":\"e-{number}\",\"type\":\"pl");
    }
    let kind = if number.is_multiple_of(3) {
        "pause"
    } else {
        "play"
    };
    let duration = if number.is_multiple_of(2) {
        45_000
    } else {
        12_000
    } + number % 1_000;
    format!(
        "{{\"id\":\"e-{number}\",\"type\":\"{kind}\",\"ts\":\"2026-11-23T11:{:02}:{:02}Z\",\"user\":{{\"id\":\"user-{}\",\"plan\":\"standard\"}},\
         \"content\":{{\"title\":\"Title {}\",\"season\":{},\"episode\":{}}},\"geo\":{{\"country\":\"{}\",\"city\":\"Springfield\"}},\
         \"duration_ms\":{duration},\"device\":{{\"model\":\"tv-{}\",\"os\":\"linux\",\"app\":\"11.4.{}\"}}}}",
        number / 60 % 60,
        number % 60,
        number % 1_000,
        number % 500,
        number % 9 + 1,
        number % 24 + 1,
        ["DE", "FR", "US", "BR", "IN", "JP"][(number % 6) as usize],
        number % 40,
        number % 100,
    )
}

/// Shows how far the worker has come, and has it stop when all is read.
fn watch(shared: &Arc<Shared>, count: u64) -> Result<(), String> {
    let bar = ProgressBar::new(count);
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:40} {human_pos}/{human_len} events consumed, {per_sec}, {elapsed} {msg}",
    ) {
        bar.set_style(style);
    }
    let mut last = (0, Instant::now());
    loop {
        let ledger = shared.ledger.view();
        bar.set_position(ledger.consumed);
        if ledger.consumed == 0 {
            bar.set_message("(the consumer group forms)");
        } else {
            bar.set_message("");
        }
        if ledger.consumed >= count {
            break;
        }
        if ledger.consumed > last.0 {
            last = (ledger.consumed, Instant::now());
        }
        if shared.failure().is_some() {
            break;
        }
        if last.1.elapsed() > Duration::from_secs(60) {
            shared.request_stop();
            return Err(format!(
                "nothing was consumed for 60 s; {} of {count} events were",
                ledger.consumed
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bar.finish();
    shared.request_stop();
    Ok(())
}

fn report(ledger: &LedgerView, out: &Path, took: Duration) -> Result<(), Failure> {
    let (files, rows) = read_back(out)
        .map_err(|reason| Failure::Failed(format!("the files can't be read back: {reason}")))?;
    say!("\nThe ledger, after {:.1} s:", took.as_secs_f64());
    for (name, count) in [
        ("consumed", ledger.consumed),
        ("filtered", ledger.filtered),
        ("discarded", ledger.discarded),
        ("delivered", ledger.delivered),
        ("dead-lettered", ledger.dead_lettered),
        ("in flight", ledger.in_flight),
    ] {
        say!("    {name:<14} {count:>12}");
    }
    say!(
        "\nRead back from {files} Parquet files: {rows} rows.\nThey are in {}",
        out.display()
    );
    if rows != ledger.delivered || ledger.in_flight != 0 {
        return Err(Failure::Failed(format!(
            "the demo failed: {} events were delivered, and {rows} rows were read back",
            ledger.delivered
        )));
    }
    Ok(())
}

/// Counts the files and rows below a directory, as a reader would: hidden files don't count.
fn read_back(directory: &Path) -> Result<(u64, u64), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", directory.display());
    let (mut files, mut rows) = (0, 0);
    for entry in std::fs::read_dir(directory).map_err(|error| failed(&error))? {
        let path = entry.map_err(|error| failed(&error))?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with(['.', '_']));
        if hidden {
            continue;
        }
        if path.is_dir() {
            let (more_files, more_rows) = read_back(&path)?;
            files += more_files;
            rows += more_rows;
        } else {
            let file = File::open(&path).map_err(|error| failed(&error))?;
            let reader = SerializedFileReader::new(file).map_err(|error| failed(&error))?;
            files += 1;
            rows += reader.metadata().file_metadata().num_rows() as u64;
        }
    }
    Ok((files, rows))
}
