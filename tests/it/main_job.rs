//! A million events through each sink: every expected id there exactly as projected, the ledger exact, memory bounded, nothing twice after
//! SIGTERM.

use std::collections::HashMap;
use std::sync::OnceLock;

use keystone_tests::kafka::{Isolation, Record};
use keystone_tests::{Elasticsearch, Error, Events, Judge, Kafka, Result, Worker};

use crate::scenario::{
    LONG_DRAIN, MEBIBYTE, Outgoing, all_committed, assert_ledger, consumed, counter, drain,
    file_url, route, send, to_elasticsearch, to_kafka, to_parquet, topic_of,
};

const COUNT: u64 = 1_000_000;
const TOPIC: &str = "million";

fn million() -> Events {
    Events::new(1, COUNT)
}

/// The broker with the million events, made once.
fn source() -> Result<&'static Kafka> {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    let kafka = Kafka::shared()?;
    MADE.get_or_init(|| topic_of(kafka, TOPIC, &million()).map_err(|error| error.to_string()))
        .clone()
        .map_err(Error::new)?;
    Ok(kafka)
}

/// Waits until all is consumed, drains, and checks ledger, commits and memory. Says what it cost.
fn run_to_the_end(kafka: &Kafka, route: &str, properties: &str) -> Result<()> {
    let mut worker = Worker::spawn(&format!("{properties}{LONG_DRAIN}"))?;
    consumed(&mut worker, COUNT)?;
    let kept = million().expected().len() as u64;
    assert_eq!(counter(&worker, "filtered")?, COUNT - kept);
    let (memory, cpu, age) = (worker.peak_rss()?, worker.cpu_seconds()?, worker.age());
    eprintln!(
        "{route}: {:.1} s, {cpu:.1} CPU-s, at most {} MiB",
        age.as_secs_f64(),
        memory / MEBIBYTE
    );
    assert!(memory < 200 * MEBIBYTE, "{} MiB at most", memory / MEBIBYTE);
    // Files wait for more rows: the drain commits them.
    if !properties.contains("sink.type = parquet") {
        all_committed(kafka, route, TOPIC, &mut [&mut worker])?;
        assert_ledger(&mut worker)?;
    }
    let log = drain(worker)?;
    assert!(log.contains(&format!("delivered={kept}")), "{log}");
    assert_eq!(kafka.committed(route, TOPIC)?, kafka.end_offsets(TOPIC)?);
    Ok(())
}

/// A new worker of the same route finds nothing left to deliver.
fn nothing_left(properties: &str) -> Result<()> {
    let mut worker = Worker::spawn(properties)?;
    worker.wait_ready(crate::scenario::WORK)?;
    worker.wait_until(crate::scenario::WORK, "the lag is known", |worker| {
        let metrics = worker.metrics()?;
        let partitions = metrics.get("keystone_partitions_assigned", &[]);
        let lags = metrics
            .samples()
            .iter()
            .filter(|sample| sample.name == "keystone_partition_lag_events");
        Ok(partitions == Some(8.0) && lags.count() == 8)
    })?;
    assert_eq!(counter(&worker, "consumed")?, 0);
    assert_eq!(worker.metrics()?.get("keystone_lag_events", &[]), Some(0.0));
    drain(worker).map(|_| ())
}

#[test]
fn a_million_events_reach_kafka() -> Result<()> {
    let kafka = source()?;
    kafka.create_topic("million-out", 8, &[])?;
    let properties = to_kafka(kafka, "million-kafka", TOPIC, "million-out");
    run_to_the_end(kafka, "million-kafka", &properties)?;
    nothing_left(&properties)?;
    let mut judge = Judge::new(million().expected(), "event_id");
    judge.topic(kafka, "million-out", Isolation::ReadCommitted)?;
    judge.verdict().assert_exact();
    Ok(())
}

#[test]
fn a_million_events_reach_elasticsearch() -> Result<()> {
    let kafka = source()?;
    let server = Elasticsearch::shared()?;
    let properties = to_elasticsearch(
        kafka,
        "million-elasticsearch",
        TOPIC,
        &server.url(),
        "million",
    );
    run_to_the_end(kafka, "million-elasticsearch", &properties)?;
    nothing_left(&properties)?;
    let mut judge = Judge::new(million().expected(), "event_id");
    judge.elasticsearch(server, "million")?;
    judge.verdict().assert_exact();
    Ok(())
}

#[test]
fn a_million_events_reach_parquet_files() -> Result<()> {
    let kafka = source()?;
    let directory = tempfile::tempdir()?;
    let properties = to_parquet(kafka, "million-parquet", TOPIC, &file_url(directory.path()));
    run_to_the_end(kafka, "million-parquet", &properties)?;
    nothing_left(&properties)?;
    let mut judge = Judge::new(million().expected_with_time(), "event_id");
    judge.parquet(directory.path())?;
    judge.verdict().assert_exact();
    Ok(())
}

/// What producers in other languages send: a header twice, without a value, empty, of no text; a tombstone; a time long ago.
fn odd_records() -> Vec<Outgoing> {
    let plain = |key| Outgoing {
        partition: 3,
        key: Some(key),
        ..Outgoing::new("odd")
    };
    let headers = vec![
        ("twice", Some(&b"one"[..])),
        ("none", None),
        ("twice", Some(b"two")),
        ("empty", Some(b"")),
        ("bytes", Some(b"\xff\x00")),
    ];
    let with_headers = Outgoing {
        headers: headers.clone(),
        ..plain("headers")
    };
    let tombstone = Outgoing {
        value: None,
        ..plain("tombstone")
    };
    let tombstone_with_headers = Outgoing {
        headers,
        ..tombstone.clone()
    };
    let old = Outgoing {
        timestamp: Some(1_000),
        ..plain("old")
    };
    let empty = Outgoing {
        value: Some(Vec::new()),
        ..plain("empty")
    };
    vec![with_headers, tombstone, tombstone_with_headers, old, empty]
}

/// Without a filter and a projection, key, headers, timestamp and payload arrive byte for byte, tombstones too; and in their order.
#[test]
fn a_mirror_copies_byte_for_byte() -> Result<()> {
    let kafka = Kafka::shared()?;
    let events = Events::new(3, 50_000);
    topic_of(kafka, "mirror-in", &events)?;
    send(kafka, "mirror-in", &odd_records())?;
    kafka.create_topic("mirror-out", 8, &[])?;
    let mut worker = Worker::spawn(&route(
        kafka,
        "mirror",
        "mirror-in",
        "source.format = raw\nsource.null.payload = deliver\nsink.type = kafka\nsink.kafka.topic = mirror-out",
    ))?;
    all_committed(kafka, "mirror", "mirror-in", &mut [&mut worker])?;
    drain(worker)?;
    let content = |record: Record| (record.key, record.value, record.timestamp, record.headers);
    let mut places = HashMap::new();
    for record in kafka.read_all("mirror-in")? {
        let place = (record.partition, record.offset);
        assert_eq!(places.insert(content(record), place), None, "sent twice");
    }
    let mut last = HashMap::new();
    for record in kafka.read_all("mirror-out")? {
        let to = record.partition;
        let what = format!("{record:?}");
        let (from, offset) = places
            .remove(&content(record))
            .unwrap_or_else(|| panic!("not what was sent, or twice: {what}"));
        let before = last.insert((from, to), offset).unwrap_or(-1);
        assert!(
            before < offset,
            "{what} comes after offset {before} of {from}"
        );
    }
    assert!(places.is_empty(), "{} are lost: {places:?}", places.len());
    Ok(())
}
