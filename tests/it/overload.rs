//! A sink that is overloaded and says so.

use keystone_tests::elasticsearch::Options;
use keystone_tests::{Elasticsearch, Kafka, Result, Worker};

use crate::scenario::{Outgoing, WORK, all_committed, assert_ledger, counter, drain, send};

const LANES: usize = 2;
const IN_FLIGHT: usize = 8;

fn limit(worker: &Worker) -> Result<usize> {
    let limit = worker
        .metrics()?
        .sum("keystone_sink_concurrency_limit", &[]);
    Ok(limit as usize)
}

/// Elasticsearch has room for a few of the large batches and for all of the small ones: fewer requests are under way with the large ones,
/// and more again with the small ones.
#[test]
fn requests_follow_the_room_that_elasticsearch_has() -> Result<()> {
    let kafka = Kafka::shared()?;
    let pressure = ("indexing_pressure.memory.limit", "1mb");
    let server = Elasticsearch::start(Options {
        settings: vec![(pressure.0.to_owned(), pressure.1.to_owned())],
        ..Options::default()
    })?;
    kafka.create_topic("overload-in", 4, &[])?;
    let padding = "x".repeat(10_000);
    let large: Vec<String> = (0..3_000)
        .map(|n| format!(r#"{{"n":{n},"padding":"{padding}"}}"#))
        .collect();
    let large: Vec<_> = large
        .iter()
        .map(|event| Outgoing::new(event.as_str()))
        .collect();
    send(kafka, "overload-in", &large)?;
    let mut worker = Worker::spawn(&format!(
        "route.name = overload\nsource.topics = overload-in\nkafka.bootstrap.servers = {}\nsink.type = elasticsearch\n\
         sink.elasticsearch.urls = {}\nsink.elasticsearch.index = overload\ndelivery.lanes = {LANES}\n\
         delivery.max.in.flight = {IN_FLIGHT}\ndelivery.batch.max.events = 25\n",
        kafka.bootstrap(),
        server.url()
    ))?;
    all_committed(kafka, "overload", "overload-in", &mut [&mut worker])?;
    let metrics = worker.metrics()?;
    let lowered = metrics.sum(
        "keystone_sink_concurrency_decreases_total",
        &[("reason", "http_429")],
    );
    let refused = metrics.sum(
        "keystone_retries_total",
        &[("part", "sink"), ("reason", "http_429")],
    );
    assert!(lowered > 0.0 && refused >= lowered);
    let low = limit(&worker)?;
    eprintln!("limit {low} after {refused} refusals, lowered {lowered} times");
    assert!(low < LANES * IN_FLIGHT, "{low}");
    let small: Vec<String> = (0..40_000).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    let small: Vec<_> = small
        .iter()
        .map(|event| Outgoing::new(event.as_str()))
        .collect();
    send(kafka, "overload-in", &small)?;
    worker.wait_until(WORK, "the limit has risen again", |worker| {
        Ok(limit(worker)? > low)
    })?;
    all_committed(kafka, "overload", "overload-in", &mut [&mut worker])?;
    eprintln!("limit {} after the small batches", limit(&worker)?);
    assert_eq!(counter(&worker, "delivered")?, 43_000);
    assert_eq!(counter(&worker, "dead_lettered")?, 0);
    assert_ledger(&worker)?;
    drain(worker)?;
    server.request("POST", "/overload/_refresh", None)?;
    assert_eq!(server.count("overload")?, 43_000);
    Ok(())
}
