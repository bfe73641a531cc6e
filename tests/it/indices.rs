//! Indices that a real Elasticsearch does not let a route write to.

use keystone_tests::{Elasticsearch, Events, Judge, Kafka, Result, Worker};
use serde_json::json;

use crate::scenario::{
    END, WORK, all_committed, assert_ledger, counter, drain, last_line, to_elasticsearch, topic_of,
};

/// A person has blocked writing: the route waits until a person ends that, and then each event is there once.
#[test]
fn a_write_block_is_waited_for() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let events = Events::new(47, 20_000);
    topic_of(kafka, "write-block-in", &events)?;
    server.create_index(
        "write-block",
        &json!({"settings": {"index.blocks.write": true}}),
    )?;
    // A request that is sent again would find its own documents.
    let properties = to_elasticsearch(
        kafka,
        "write-block",
        "write-block-in",
        &server.url(),
        "write-block",
    ) + "sink.elasticsearch.request.timeout.ms = 300000\ndelivery.retry.backoff.max.ms = 1000\n";
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "it waits for the end of the block", |worker| {
        let waits = worker.metrics()?.sum(
            "keystone_retries_total",
            &[("part", "sink"), ("reason", "blocked")],
        );
        let (ready, text) = worker.readyz()?;
        Ok(waits > 0.0 && !ready && text.contains("index write (api)"))
    })?;
    assert_eq!(counter(&worker, "delivered")?, 0);
    let unblocked = json!({"index.blocks.write": false});
    server.request("PUT", "/write-block/_settings", Some(&unblocked))?;
    all_committed(kafka, "write-block", "write-block-in", &mut [&mut worker])?;
    assert_ledger(&mut worker)?;
    assert_eq!(counter(&worker, "dead_lettered")?, 0);
    let again = worker
        .metrics()?
        .sum("keystone_elasticsearch_duplicates_total", &[]);
    assert_eq!(again, 0.0);
    drain(worker)?;
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.elasticsearch(server, "write-block")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// An index that is closed takes nothing of the route: it ends, and says what to do.
#[test]
fn a_closed_index_ends_the_worker() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    topic_of(kafka, "closed-in", &Events::new(48, 1_000))?;
    server.create_index("closed", &json!({}))?;
    server.request("POST", "/closed/_close", None)?;
    let properties = to_elasticsearch(kafka, "closed", "closed-in", &server.url(), "closed");
    let mut worker = Worker::spawn(&properties)?;
    let (status, log) = worker.wait_exit(END)?;
    assert_eq!(status.code(), Some(1), "{log}");
    for words in [
        "closed",
        "create or open it, or change sink.elasticsearch.index",
    ] {
        assert!(last_line(&log).contains(words), "{log}");
    }
    assert!(kafka.partitions("closed.dead-letters")?.is_empty());
    Ok(())
}
