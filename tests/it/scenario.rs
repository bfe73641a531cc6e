//! What the scenarios share: routes to each sink, and waiting for a route to come so far.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use keystone_tests::events::{COLUMNS_WITH_TIME, FILTER, PROJECTION, PROJECTION_WITH_TIME};
use keystone_tests::worker::read_in;
use keystone_tests::{Error, Events, Kafka, Result, Worker, block_on, wait_for};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

pub(crate) const MEBIBYTE: u64 = 1024 * 1024;
/// For a route to do its work; generous, since two cores serve everything.
pub(crate) const WORK: Duration = Duration::from_secs(240);
/// For a worker to end after SIGTERM: longer than any drain.
pub(crate) const END: Duration = Duration::from_secs(240);
/// For routes that are drained with much on its way, which may take a busy machine longer than the default allows.
pub(crate) const LONG_DRAIN: &str = "delivery.shutdown.drain.max.ms = 50000\n";

/// The classic protocol of groups, in which a member says how long it may be silent; short, so that one that is gone is soon missed.
pub(crate) const QUICK_SESSION: &str =
    "kafka.session.timeout.ms = 6000\nkafka.heartbeat.interval.ms = 500\n";
/// KIP-848: the brokers assign, and say how long a member may be silent (see [`Kafka::shorten_sessions`]).
pub(crate) const NEW_PROTOCOL: &str = "kafka.group.protocol = consumer\n";

/// A route that keeps everything, with these lines more.
pub(crate) fn route(kafka: &Kafka, name: &str, topic: &str, more: &str) -> String {
    format!(
        "route.name = {name}\nsource.topics = {topic}\nkafka.bootstrap.servers = {}\n{more}\n",
        kafka.bootstrap()
    )
}

/// The part of a route that every sink shares.
pub(crate) fn source(kafka: &Kafka, name: &str, topic: &str) -> String {
    format!(
        "route.name = {name}\nsource.topics = {topic}\nkafka.bootstrap.servers = {}\nfilter = {FILTER}\n",
        kafka.bootstrap()
    )
}

pub(crate) fn to_kafka(kafka: &Kafka, name: &str, from: &str, to: &str) -> String {
    let source = source(kafka, name, from);
    format!("{source}projection = {PROJECTION}\nsink.type = kafka\nsink.kafka.topic = {to}\n")
}

pub(crate) fn to_elasticsearch(
    kafka: &Kafka,
    name: &str,
    from: &str,
    url: &str,
    index: &str,
) -> String {
    let source = source(kafka, name, from);
    format!(
        "{source}projection = {PROJECTION}\nsink.type = elasticsearch\n\
         sink.elasticsearch.urls = {url}\nsink.elasticsearch.index = {index}\n"
    )
}

/// A table partitioned by the hour of the event's time.
pub(crate) fn to_parquet(kafka: &Kafka, name: &str, from: &str, location: &str) -> String {
    let source = source(kafka, name, from);
    format!(
        "{source}projection = {PROJECTION_WITH_TIME}\nsink.type = parquet\n\
         sink.parquet.location = {location}\nsink.parquet.schema = {COLUMNS_WITH_TIME}\n\
         sink.parquet.partition.by = dt={{ts:%Y-%m-%d}}, hour={{ts:%H}}\n"
    )
}

/// For each of these there is a line with all its words.
#[track_caller]
pub(crate) fn assert_lines(found: &str, expected: &[&[&str]]) {
    for words in expected {
        assert!(
            found
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word))),
            "no line with {words:?} in\n{found}"
        );
    }
}

/// The URL of a server that takes connections and never answers.
pub(crate) fn silent_server() -> Result<String> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((stream, _)) = silent.accept() {
            open.push(stream);
        }
    });
    Ok(url)
}

/// The location of a directory.
pub(crate) fn file_url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

/// How many partitions a worker holds.
pub(crate) fn assigned(worker: &Worker) -> Result<u64> {
    let assigned = worker.metrics()?.get("keystone_partitions_assigned", &[]);
    Ok(assigned.unwrap_or_default() as u64)
}

/// Waits until it holds so many.
pub(crate) fn holds(worker: &mut Worker, partitions: u64) -> Result<()> {
    let what = format!("it holds {partitions} partitions");
    worker.wait_until(WORK, &what, |worker| Ok(assigned(worker)? == partitions))
}

/// A counter of the ledger.
pub(crate) fn counter(worker: &Worker, name: &str) -> Result<u64> {
    Ok(worker
        .metrics()?
        .sum(&format!("keystone_events_{name}_total"), &[]) as u64)
}

/// Waits until the worker has consumed this many events.
pub(crate) fn consumed(worker: &mut Worker, count: u64) -> Result<()> {
    worker.wait_until(WORK, &format!("{count} events were consumed"), |worker| {
        Ok(counter(worker, "consumed")? >= count)
    })
}

/// Waits until the group has committed everything that the topic holds.
pub(crate) fn all_committed(
    kafka: &Kafka,
    group: &str,
    topic: &str,
    workers: &mut [&mut Worker],
) -> Result<()> {
    // A broker that was restarted may not lead its partitions yet.
    let ends = wait_for(WORK, &format!("the ends of {topic}"), || {
        let ends = kafka.end_offsets(topic)?;
        match ends.is_empty() {
            false => Ok(ends),
            true => Err(Error::new("it has no partitions")),
        }
    })?;
    let group = kafka.group_on(group, topic)?;
    let (first, others) = workers.split_first_mut().expect("at least one worker");
    first.wait_until(WORK, &format!("all of {topic} is committed"), |_| {
        for other in others.iter_mut() {
            if other.has_exited() {
                return Err(Error::new(format!(
                    "another worker has ended\n{}",
                    other.stderr_tail()
                )));
            }
        }
        let committed = group.committed()?;
        Ok(ends
            .iter()
            .all(|(partition, end)| *end == 0 || committed.get(partition) == Some(end)))
    })
}

/// Waits until the workers have read everything that the topic holds. (Files wait for more rows: a commit may come with the drain only.)
pub(crate) fn all_read(kafka: &Kafka, topic: &str, workers: &mut [&mut Worker]) -> Result<()> {
    let ends = kafka.end_offsets(topic)?;
    wait_for(WORK, &format!("all of {topic} is read"), || {
        let mut read = BTreeMap::new();
        for worker in workers.iter_mut() {
            assert!(!worker.has_exited(), "{}", worker.stderr_tail());
            read.extend(read_in(&worker.status()?));
        }
        match read == ends {
            true => Ok(()),
            false => Err(Error::new(format!("{read:?} of {ends:?}"))),
        }
    })
}

/// Events a second that come while workers come and go.
pub(crate) const RATE: u64 = 20_000;

/// SIGKILL in the middle of the work: at a moment when the group has not committed all that the worker has read.
pub(crate) fn kill_at_work(
    kafka: &Kafka,
    group: &str,
    topic: &str,
    worker: &mut Worker,
) -> Result<()> {
    let group = kafka.group_on(group, topic)?;
    wait_for(WORK, "a moment in the middle of the work", || {
        let read = read_in(&worker.status()?);
        // Or it would get on between the look and its end.
        worker.signal("STOP")?;
        let committed = group.committed();
        if let Ok(committed) = &committed
            && read
                .iter()
                .any(|(partition, read)| committed.get(partition).unwrap_or(&0) < read)
        {
            worker.sigkill();
            return Ok(());
        }
        worker.signal("CONT")?;
        Err(Error::new(format!(
            "it has read {read:?}, {committed:?} is committed"
        )))
    })
}

/// What becomes of an event that is consumed.
const OUTCOMES: [&str; 5] = [
    "filtered",
    "discarded",
    "delivered",
    "dead_lettered",
    "abandoned",
];

/// Each event that was consumed has its outcome, once. What is in flight is computed of the others: one that was never counted stays there.
#[track_caller]
fn assert_adds_up(ledger: &str, entry: impl Fn(&str) -> Option<u64>) {
    let entry = |name: &str| entry(name).unwrap_or_else(|| panic!("no {name} in {ledger}"));
    assert_eq!(entry("in_flight"), 0, "{ledger}");
    let outcomes: u64 = OUTCOMES.into_iter().map(entry).sum();
    assert_eq!(entry("consumed"), outcomes, "{ledger}");
}

/// The ledger of a worker that has done everything adds up: consumed = filtered + discarded + delivered + dead-lettered + abandoned.
pub(crate) fn assert_ledger(worker: &mut Worker) -> Result<()> {
    // A transaction is counted when the worker hears that it is committed; others hear sooner.
    worker.wait_until(WORK, "nothing is in flight", |worker| {
        Ok(worker.status()?["ledger"]["in_flight"] == 0)
    })?;
    let ledger = &worker.status()?["ledger"];
    assert_adds_up(&ledger.to_string(), |name| ledger[name].as_u64());
    Ok(())
}

/// SIGTERM; the worker must drain and end with exit code 0, and its last words about the ledger add up.
pub(crate) fn drain(mut worker: Worker) -> Result<String> {
    worker.sigterm()?;
    let (status, _) = worker.wait_exit(END)?;
    let log = worker.stderr();
    assert_eq!(status.code(), Some(0), "{log}");
    let ended = log.lines().rfind(|line| line.contains("in_flight"));
    let ended = ended.unwrap_or_else(|| panic!("no ledger in {log}"));
    // As text `consumed=7`, as JSON `"consumed":7`.
    assert_adds_up(ended, |name| {
        let (_, after) = ended.rsplit_once(name)?;
        let digits = after.trim_start_matches(['"', ':', '=']);
        let end = digits.find(|next: char| !next.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().ok()
    });
    Ok(log)
}

/// Makes a topic of these events.
pub(crate) fn topic_of(kafka: &Kafka, topic: &str, events: &Events) -> Result<()> {
    kafka.create_topic(topic, 8, &[])?;
    events.produce(&kafka.bootstrap(), topic)
}

/// A record to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outgoing {
    pub(crate) partition: i32,
    pub(crate) key: Option<&'static str>,
    /// `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Option<&'static [u8]>)>,
    /// Milliseconds since the epoch; `None` is now.
    pub(crate) timestamp: Option<i64>,
}

impl Outgoing {
    /// To partition 0.
    pub(crate) fn new(value: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing {
            value: Some(value.into()),
            ..Outgoing::default()
        }
    }
}

/// Sends records, in order, each acknowledged before this returns. A record may have 30 MB.
pub(crate) fn send(kafka: &Kafka, topic: &str, records: &[Outgoing]) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "30000000")
        .create()?;
    let sent = records.iter().map(|outgoing| {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &outgoing.headers {
            headers = headers.insert(Header { key, value: *value });
        }
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(topic)
            .partition(outgoing.partition)
            .headers(headers);
        record.key = outgoing.key;
        record.payload = outgoing.value.as_deref();
        record.timestamp = outgoing.timestamp;
        producer.send(record, WORK)
    });
    let sent: Vec<_> = sent.collect();
    for answer in block_on(futures::future::join_all(sent)) {
        answer.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// The values of a topic as text, in the order of partitions and offsets.
pub(crate) fn values(kafka: &Kafka, topic: &str) -> Result<Vec<String>> {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let records = kafka.read_all(topic)?;
    Ok(records
        .into_iter()
        .map(|record| record.value.map_or_else(|| "(tombstone)".to_owned(), text))
        .collect())
}

/// The last line of a log that is not empty.
pub(crate) fn last_line(log: &str) -> &str {
    log.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default()
}
