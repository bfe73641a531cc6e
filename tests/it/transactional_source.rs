//! A topic that others write in transactions: what was aborted is no event, and what is still open is none yet.

use std::collections::BTreeMap;
use std::time::Duration;

use keystone_tests::kafka::Isolation;
use keystone_tests::{Kafka, Result, Worker, judge};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::scenario::{WORK, assert_ledger, counter, drain, file_url, route, values};

const TOPIC: &str = "written-in";
const EVENTS: u64 = 500;
/// No open transaction is ended by Kafka while a test waits.
const TIMEOUT: Duration = Duration::from_secs(900);

fn producer(kafka: &Kafka, id: &str) -> Result<BaseProducer> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", id)
        .set("transaction.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()?;
    producer.init_transactions(WORK)?;
    Ok(producer)
}

fn event(what: &str, number: u64) -> String {
    format!("{{\"id\":\"{what} {number:03}\"}}")
}

/// Begins a transaction and writes to both partitions in turn.
fn write(producer: &BaseProducer, what: &str) -> Result<()> {
    producer.begin_transaction()?;
    for number in 0..EVENTS {
        let payload = event(what, number);
        let record = BaseRecord::<str, str>::to(TOPIC)
            .partition((number % 2) as i32)
            .payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(WORK)?;
    Ok(())
}

/// Where a worker is that has read all that a reader of committed records sees: the marks of transactions behind it are no events.
fn readable(kafka: &Kafka) -> Result<BTreeMap<i32, i64>> {
    let mut ends = BTreeMap::new();
    kafka.read(TOPIC, Isolation::ReadCommitted, |record| {
        ends.insert(record.partition, record.offset + 1);
    })?;
    Ok(ends)
}

/// Waits until both routes have delivered so much, and the group of each has committed as far as can be read.
fn all_read(kafka: &Kafka, workers: &mut [(&str, &mut Worker)], delivered: u64) -> Result<()> {
    let ends = readable(kafka)?;
    for (name, worker) in workers {
        let group = kafka.group_on(name, TOPIC)?;
        worker.wait_until(WORK, "all that can be read is committed", |_| {
            Ok(group.committed()? == ends)
        })?;
        worker.wait_until(WORK, "all that can be read is delivered", |worker| {
            Ok(counter(worker, "delivered")? >= delivered)
        })?;
        assert_eq!(counter(worker, "delivered")?, delivered, "{name}");
        assert_eq!(counter(worker, "expired")?, 0, "{name}");
        assert_ledger(worker)?;
    }
    Ok(())
}

#[test]
fn a_topic_that_is_written_in_transactions() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic(TOPIC, 2, &[])?;
    kafka.create_topic("written-out", 2, &[])?;
    let directory = tempfile::tempdir()?;
    let (first, open) = (
        producer(kafka, "written-first")?,
        producer(kafka, "written-open")?,
    );
    for (what, is_committed) in [("a", true), ("aborted", false), ("b", true)] {
        write(&first, what)?;
        match is_committed {
            true => first.commit_transaction(WORK)?,
            false => first.abort_transaction(WORK)?,
        }
    }
    write(&open, "c")?;
    // Behind the open one: nobody reads it before that has ended.
    write(&first, "d")?;
    first.commit_transaction(WORK)?;
    let to_topic = route(
        kafka,
        "written-kafka",
        TOPIC,
        "sink.type = kafka\nsink.kafka.topic = written-out",
    );
    let to_files = route(
        kafka,
        "written-parquet",
        TOPIC,
        &format!(
            "sink.type = parquet\nsink.parquet.location = {}\nsink.parquet.schema = id string\n\
             sink.parquet.roll.max.age.ms = 500",
            file_url(directory.path())
        ),
    );
    let (mut topic, mut files) = (Worker::spawn(&to_topic)?, Worker::spawn(&to_files)?);
    let mut workers = [
        ("written-kafka", &mut topic),
        ("written-parquet", &mut files),
    ];
    all_read(kafka, &mut workers, 2 * EVENTS)?;
    open.commit_transaction(WORK)?;
    all_read(kafka, &mut workers, 4 * EVENTS)?;
    for (_, worker) in &mut workers {
        worker.wait_until(WORK, "there is no lag", |worker| {
            let metrics = worker.metrics()?;
            let lags = metrics.samples().iter();
            let lags = lags.filter(|sample| sample.name == "keystone_partition_lag_events");
            // What is not known is no lag either.
            let is_known = lags.count() == 2;
            Ok(is_known && metrics.get("keystone_lag_events", &[]) == Some(0.0))
        })?;
    }
    drain(topic)?;
    drain(files)?;
    let mut expected = Vec::new();
    for what in ["a", "b", "c", "d"] {
        expected.extend((0..EVENTS).map(|number| event(what, number)));
    }
    let mut found = values(kafka, "written-out")?;
    found.sort_unstable();
    assert!(
        found == expected,
        "{} of {}: {found:?}",
        found.len(),
        expected.len()
    );
    let mut rows = Vec::new();
    for file in judge::visible_files(directory.path())? {
        rows.extend(judge::parquet_rows(std::fs::read(file)?.into())?);
    }
    rows.sort_unstable();
    assert!(
        rows == expected,
        "{} of {}: {rows:?}",
        rows.len(),
        expected.len()
    );
    Ok(())
}
