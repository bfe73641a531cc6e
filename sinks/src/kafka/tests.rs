//! The sink against librdkafka's mock brokers, which answer with the errors that a test asks for.

use std::sync::Arc;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Code};

use super::*;
use crate::{BatchBuilder, BatchId, RecordMeta};

const TOPIC: &str = "to";
const EVENTS: usize = 40;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Brokers with the topic, of one partition.
fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    cluster
}

fn target(cluster: &Cluster, more: &[(&str, &str)]) -> Target {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("batch.size", "262144")
        // The events of a batch are one request.
        .set("linger.ms", "50");
    for (name, value) in more {
        config.set(*name, *value);
    }
    Target {
        topic: TOPIC.to_owned(),
        producer: Producer::new(config, "sink").expect("a producer"),
        longest_step: LOOK,
    }
}

fn plain(cluster: &Cluster) -> KafkaSink {
    KafkaSink {
        target: target(cluster, &[]),
    }
}

fn transactional(cluster: &Cluster) -> TransactionalSink {
    let bounds = Bounds {
        max_events: 1_000,
        max_age: LOOK,
        timeout: LOOK,
    };
    TransactionalSink::new(target(cluster, &[("transactional.id", "r-w")]), bounds)
}

/// Both kinds of the sink.
fn sinks(cluster: &Cluster) -> [(&'static str, Box<dyn Sink>); 2] {
    [
        ("plain", Box::new(plain(cluster))),
        ("in transactions", Box::new(transactional(cluster))),
    ]
}

fn batch() -> Batch {
    let mut builder = BatchBuilder::default();
    let topic: Arc<str> = "from".into();
    for offset in 0..EVENTS as i64 {
        let claim = builder.claim(&topic, 0, 1, offset);
        let meta = RecordMeta {
            offset,
            timestamp: None,
            key: None,
        };
        builder.keep(claim, meta, Some(b"{}"), [].into_iter());
    }
    builder.finish(BatchId::new(1))
}

/// The text with which the sink ends the worker.
fn fatal(what: &str, answer: Result<Answer, SinkError>) -> String {
    match answer {
        Err(SinkError::Fatal(text)) => text,
        other => panic!("{what}: {other:?}"),
    }
}

/// How many records the topic has.
fn written(target: &Target) -> i64 {
    let client = target.producer.client();
    let watermarks = client.client().fetch_watermarks(TOPIC, 0, LOOK);
    watermarks.expect("the end of the topic").1
}

#[tokio::test]
async fn a_transaction_that_may_not_write_to_the_topic_ends_the_worker() {
    let cluster = cluster();
    let refused = Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(Api::AddPartitionsToTxn, &[refused; 10]);
    let answer = transactional(&cluster).deliver(&batch()).await;
    let text = fatal("topic", answer);
    assert!(
        text.contains("topic to (sink.kafka.topic)") && text.contains("the right to write"),
        "{text}"
    );
}

/// It is not replaced for ever, and the error says what to do.
#[tokio::test]
async fn a_producer_that_kafka_refuses_ends_the_worker() {
    for (code, words) in [
        (
            Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            "IdempotentWrite",
        ),
        (
            Code::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
            "sink.kafka.transaction.timeout.ms",
        ),
        (
            Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "begin with route.name",
        ),
    ] {
        let cluster = cluster();
        cluster.request_errors(Api::InitProducerId, &[code; 20]);
        for (kind, sink) in sinks(&cluster) {
            let text = fatal(kind, sink.deliver(&batch()).await);
            assert!(text.contains(words), "{kind}: {text}");
            let again = fatal(kind, sink.deliver(&batch()).await);
            assert!(again.contains(words), "{kind}: {again}");
        }
    }
}

#[tokio::test]
async fn brokers_without_idempotent_producers_end_the_worker() {
    let cluster = cluster();
    cluster
        .apiversion(Api::InitProducerId, None, None)
        .expect("the mock brokers forget it");
    for (kind, sink) in sinks(&cluster) {
        let text = fatal(kind, sink.deliver(&batch()).await);
        assert!(text.contains("Kafka 0.11 or later"), "{kind}: {text}");
    }
}

/// What is wrong with the producer of a worker without events is told all the same.
#[tokio::test]
async fn a_tick_ends_a_worker_whose_transactions_are_refused() {
    let cluster = cluster();
    let refused = Code::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT;
    cluster.request_errors(Api::InitProducerId, &[refused; 20]);
    let sink = transactional(&cluster);
    for _ in 0..20 {
        match sink.tick().await {
            Ok(_) => {} // The brokers have not answered yet.
            Err(SinkError::Fatal(text)) => {
                assert!(text.contains("transaction.max.timeout.ms"), "{text}");
                return;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("no tick has failed");
}

/// Refused as a whole twice, then taken in halves.
const TOO_LARGE: [Code; 2] = [Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 2];

#[tokio::test]
async fn batches_that_are_too_large_get_smaller() {
    let cluster = cluster();
    let sink = plain(&cluster);
    cluster.request_errors(Api::Produce, &TOO_LARGE);
    let answer = sink.deliver(&batch()).await.expect("all is delivered");
    assert!(
        answer.rejected.is_empty() && answer.retry.is_empty(),
        "{answer:?}"
    );
    assert_eq!(written(&sink.target), EVENTS as i64);
    assert_eq!(
        sink.target.producer.property("batch.size").as_deref(),
        Some("131072")
    );
    let answer = sink.deliver(&batch()).await.expect("all is delivered");
    assert!(answer.rejected.is_empty());
    assert_eq!(written(&sink.target), 2 * EVENTS as i64);
}

#[tokio::test]
async fn batches_of_transactions_that_are_too_large_get_smaller() {
    let cluster = cluster();
    let sink = transactional(&cluster);
    cluster.request_errors(Api::Produce, &TOO_LARGE);
    let broken = sink.deliver(&batch()).await;
    assert!(matches!(broken, Err(SinkError::Rewind(_))), "{broken:?}");
    sink.abandon().await;
    assert_eq!(
        sink.target().producer.property("batch.size").as_deref(),
        Some("131072")
    );
    let answer = sink.deliver(&batch()).await.expect("all is held");
    assert!(answer.held && answer.rejected.is_empty(), "{answer:?}");
}

/// An event that others were refused with, and one that is refused alone.
#[tokio::test]
async fn only_what_is_refused_alone_is_rejected() {
    let cluster = cluster();
    let sink = plain(&cluster);
    let refused = Code::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    // All of them twice, then always the first half, down to the first event.
    cluster.request_errors(Api::Produce, &[refused; 7]);
    let answer = sink.deliver(&batch()).await.expect("an answer");
    let rejected: Vec<usize> = answer.rejected.iter().map(|bad| bad.index).collect();
    assert_eq!(rejected, [0]);
    assert_eq!(written(&sink.target), EVENTS as i64 - 1);
    assert_eq!(
        sink.target.producer.property("batch.size").as_deref(),
        Some("262144")
    );
}

/// Brokers that go away in the middle of a search: those that were not sent yet are not waited for one group after the other.
#[tokio::test]
async fn a_search_ends_where_nothing_is_answered_in_time() {
    let cluster = cluster();
    let target = target(&cluster, &[("message.timeout.ms", "3000")]);
    let batch = batch();
    // The time counts from the connection on, which a busy machine may take long for.
    let failures = target.send(&batch, 0..batch.len()).await;
    assert_eq!(failures, []);
    let away = [Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 1_000];
    cluster.request_errors(Api::Produce, &[&TOO_LARGE[..], &away].concat());
    let failures = target.send(&batch, 0..batch.len()).await;
    assert_eq!(failures.len(), EVENTS);
    let mut turns = 0;
    let record = |index| target.outgoing(batch.event(index));
    let (failures, size) = target
        .producer
        .search(failures, record, || turns += 1)
        .await;
    // The producer, all of them, the first half.
    assert_eq!((turns, size), (3, None));
    let timed_out = rdkafka::error::RDKafkaErrorCode::MessageTimedOut;
    let found: Vec<_> = failures.iter().map(|it| (it.index, it.code)).collect();
    let expected: Vec<_> = (0..EVENTS).map(|index| (index, timed_out)).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_queue_holds_the_largest_record() {
    let room = |queue: &str, largest: Option<&str>| {
        let mut config = ClientConfig::new();
        config.set("queue.buffering.max.kbytes", queue);
        if let Some(largest) = largest {
            config.set("message.max.bytes", largest);
        }
        make_room(&mut config);
        config.get("queue.buffering.max.kbytes").map(str::to_owned)
    };
    assert_eq!(room("16384", None).unwrap(), "16384");
    assert_eq!(room("16384", Some("30000000")).unwrap(), "30321");
    assert_eq!(room("65536", Some("30000000")).unwrap(), "65536");
    assert_eq!(room("1", None).unwrap(), "2001");
}
