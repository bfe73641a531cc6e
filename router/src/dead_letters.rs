//! Dead letters: events that can never be delivered, on the dead-letter topic with the reason, durable before their offset is committed.

mod topic;

use std::time::Duration;

use keystone_config::Settings;
use keystone_sinks::kafka::client::{SOURCE_PREFIX, is_refusal};
use keystone_sinks::kafka::producer::{Failure, Outgoing, Producer};
use keystone_sinks::kafka::producer_config;
use keystone_sinks::{Batch, Cause, Event, Stage};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use tracing::warn;

pub use topic::Place;

use crate::route::Route;
use crate::stall::Pulse;

/// Why dead letters are not durable yet, or never will be.
#[derive(Debug)]
pub enum DeadLetterError {
    Retry(Cause),
    Fatal(String),
}

/// What the record headers of a dead letter are called.
pub mod header {
    pub const ROUTE: &str = "keystone.route";
    pub const STAGE: &str = "keystone.stage";
    pub const REASON: &str = "keystone.reason";
    pub const TOPIC: &str = "keystone.source.topic";
    pub const PARTITION: &str = "keystone.source.partition";
    pub const OFFSET: &str = "keystone.source.offset";
    pub const TIMESTAMP: &str = "keystone.source.timestamp";
}

/// How long the brokers may take to tell of the topic, and to create it.
const ASK: Duration = Duration::from_secs(10);
/// Handed back after this time, so that the reason can be told; the worker sends again for as long as it takes.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a send may take: the topic is made, others are sent before it, it is sent itself.
pub const LONGEST_SEND: Duration =
    Duration::from_secs(2 * ASK.as_secs() + 2 * MESSAGE_TIMEOUT.as_secs());

/// Reasons are cut to this many bytes: a header is not the place for a whole payload.
const MAX_REASON: usize = 4_096;
/// And to this many where Kafka refuses the record for its size.
const SHORT_REASON: usize = 200;

/// A bad event with its stage and reason.
type Dead<'a> = (Event<'a>, Stage, &'a str);

/// Properties of the producer of dead letters, on the source cluster.
pub fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = producer_config(
        settings,
        &[SOURCE_PREFIX],
        &[
            ("compression.type", "lz4"),
            ("queue.buffering.max.kbytes", "131072"),
            // The broker's limit counts, not the client's: what was readable is to be writable.
            ("message.max.bytes", "100000000"),
        ],
        Duration::from_millis(5),
    );
    // A limit that `kafka.*` sets is the Kafka sink's.
    config.set(
        "message.timeout.ms",
        MESSAGE_TIMEOUT.as_millis().to_string(),
    );
    config
}

pub struct DeadLetters {
    topic: String,
    route: String,
    producer: Producer,
    settings: Settings,
    /// Whether the topic was looked for, and created where it was missing.
    created: tokio::sync::Mutex<bool>,
}

impl DeadLetters {
    /// Makes the producer on the source cluster; no connection is waited for.
    pub fn new(route: &Route) -> KafkaResult<DeadLetters> {
        Ok(DeadLetters {
            topic: route.dead_letter_topic.clone(),
            route: route.name.clone(),
            producer: Producer::new(client_config(&route.settings), "dead letters")?,
            settings: route.settings.clone(),
            created: tokio::sync::Mutex::new(false),
        })
    }

    /// Writes the bad events of a batch at these ascending indices to the dead-letter topic. Those that are durable leave the list: all of
    /// them when this returns without an error. To be called again with the others: one that Kafka has written without saying so may then be
    /// there twice, never missing. Each turn of the pulse is a send.
    pub async fn publish(
        &self,
        batch: &Batch,
        left: &mut Vec<usize>,
        pulse: &Pulse,
    ) -> Result<(), DeadLetterError> {
        if left.is_empty() {
            return Ok(());
        }
        pulse.turn();
        self.create_missing().await;
        let dead: Vec<Dead<'_>> = batch.dead().collect();
        let failures = self.send(&dead, left, MAX_REASON, pulse).await;
        // An event that its topic took may fit here as well, if its reason is short.
        let shortens = |failure: &Failure| {
            let (.., reason) = dead[failure.index];
            failure.code == RDKafkaErrorCode::MessageSizeTooLarge && reason.len() > SHORT_REASON
        };
        let (large, mut failures): (Vec<Failure>, Vec<Failure>) =
            failures.into_iter().partition(shortens);
        if !large.is_empty() {
            let large: Vec<usize> = large.iter().map(|failure| failure.index).collect();
            failures.extend(self.send(&dead, &large, SHORT_REASON, pulse).await);
            failures.sort_by_key(|failure| failure.index);
        }
        *left = failures.iter().map(|failure| failure.index).collect();
        match failures.first() {
            None => Ok(()),
            Some(failure) => Err(self.error(failure.code, batch, &failures)),
        }
    }

    /// Sends the bad events at these ascending indices, with at most so many bytes of their reasons. Kafka refuses a whole request for one
    /// record in it: only a record that is refused alone is a failure. Failures carry the index among the bad events.
    async fn send(
        &self,
        dead: &[Dead<'_>],
        chosen: &[usize],
        longest: usize,
        pulse: &Pulse,
    ) -> Vec<Failure> {
        let record = |index: usize| {
            let (event, stage, reason) = dead[index];
            self.record(event, stage, beginning(reason, longest))
        };
        pulse.turn();
        let records = chosen.iter().map(|index| record(*index));
        let mut failures = self.producer.send_all(records).await;
        for failure in &mut failures {
            failure.index = chosen[failure.index];
        }
        let turn = || pulse.turn();
        let (failures, size) = self.producer.search(failures, record, turn).await;
        if let Some(size) = size {
            warn!(
                "topic {} (dead.letter.topic) refuses batches for their size, though it takes each of their records: batches have at most \
                 {size} bytes until the worker ends; raise the topic's max.message.bytes",
                self.topic
            );
        }
        failures
    }

    /// Dated when it is written, not when the event was: Kafka would refuse one from the future, and would delete one from the past by the
    /// topic's retention, soon after its offset is committed. The event's own time is among the headers.
    fn record<'a>(&'a self, event: Event<'a>, stage: Stage, reason: &str) -> Outgoing<'a> {
        Outgoing {
            topic: &self.topic,
            key: event.key,
            payload: event.original,
            timestamp: None,
            headers: Some(headers(&self.route, event, stage, reason)),
        }
    }

    fn error(
        &self,
        code: RDKafkaErrorCode,
        batch: &Batch,
        failures: &[Failure],
    ) -> DeadLetterError {
        let event = failures
            .first()
            .and_then(|failure| batch.dead().nth(failure.index))
            .map(|(event, ..)| {
                let size = event.original.map_or(0, <[u8]>::len);
                format!(
                    "{}-{} offset {} ({size} bytes)",
                    event.topic, event.partition, event.offset
                )
            })
            .unwrap_or_default();
        let topic = &self.topic;
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => DeadLetterError::Fatal(format!(
                "the dead letter of {event} is too large for topic {topic} (dead.letter.topic): raise that topic's max.message.bytes to that of the source topic, then start the worker again; nothing is lost"
            )),
            RDKafkaErrorCode::InvalidRecord => DeadLetterError::Fatal(format!(
                "kafka refuses the dead letter of {event} for topic {topic} (dead.letter.topic): {code}; a compacted topic takes none without a key: set that topic's cleanup.policy to delete, then start the worker again; nothing is lost"
            )),
            code if is_refusal(code) => DeadLetterError::Fatal(format!(
                "kafka does not let the route write dead letters to topic {topic} (dead.letter.topic): {code}; give its user the right to write, or choose another dead.letter.topic or dead.letter.policy"
            )),
            code => {
                let missing = matches!(
                    code,
                    RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition
                );
                if missing && let Ok(mut created) = self.created.try_lock() {
                    *created = false;
                }
                let advice = if missing {
                    "; create the topic dead.letter.topic names"
                } else {
                    ""
                };
                DeadLetterError::Retry(Cause {
                    reason: if missing {
                        "unknown_topic"
                    } else {
                        "kafka_error"
                    },
                    detail: format!(
                        "the dead letter of {event} is not in topic {topic} yet: {code}{advice}"
                    ),
                    after: None,
                })
            }
        }
    }
}

/// As many whole characters as fit into so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn headers(route: &str, event: Event<'_>, stage: Stage, reason: &str) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in event.headers() {
        headers = headers.insert(Header { key, value });
    }
    let timestamp = event.timestamp.map(|timestamp| timestamp.to_string());
    let own = [
        (header::ROUTE, Some(route)),
        (header::STAGE, Some(stage.as_str())),
        (header::REASON, Some(reason)),
        (header::TOPIC, Some(event.topic)),
        (header::PARTITION, Some(&*event.partition.to_string())),
        (header::OFFSET, Some(&*event.offset.to_string())),
        (header::TIMESTAMP, timestamp.as_deref()),
    ];
    for (key, value) in own {
        headers = headers.insert(Header { key, value });
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keystone_config::Sources;
    use keystone_sinks::{BatchBuilder, BatchId, RecordMeta};
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Headers as _, Message as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::Producer as _;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;
    use crate::stall::Stalls;

    const TOPIC: &str = "r.dead-letters";
    const BAD: usize = 50;

    fn route(brokers: &str) -> Route {
        let properties = format!(
            "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = {brokers}\nsink.type = blackhole\n"
        );
        let sources = Sources {
            defaults: None,
            file: Some(("r.properties".to_owned(), properties)),
            env: Vec::new(),
            sets: Vec::new(),
        };
        crate::route::load(&sources, "w").expect("a route").0
    }

    fn bad_events() -> Batch {
        bad(BAD, "not JSON")
    }

    fn bad(count: usize, reason: &str) -> Batch {
        let mut builder = BatchBuilder::default();
        let topic: Arc<str> = "in".into();
        for offset in 0..count as i64 {
            let claim = builder.claim(&topic, 0, 1, offset);
            let key = offset.to_string();
            let meta = RecordMeta {
                offset,
                timestamp: None,
                key: Some(key.as_bytes()),
            };
            let reason = reason.to_owned();
            builder.bury(
                claim,
                meta,
                Some(b"{"),
                [].into_iter(),
                Stage::Decode,
                reason,
            );
        }
        builder.finish(BatchId::new(1))
    }

    /// Records in both partitions of the topic.
    fn written(letters: &DeadLetters) -> i64 {
        let client = letters.producer.client();
        let end = |partition| {
            let watermarks = client.client().fetch_watermarks(TOPIC, partition, ASK);
            watermarks.expect("the end of the topic").1
        };
        end(0) + end(1)
    }

    #[tokio::test]
    async fn only_what_is_not_durable_is_written_again() {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        cluster.create_topic(TOPIC, 2, 1).expect("a topic");
        let letters = DeadLetters::new(&route(&cluster.bootstrap_servers())).expect("a producer");
        let pulse = Stalls::default().watch("a test", LONGEST_SEND);
        let batch = bad_events();
        let mut left = (0..BAD).collect();
        // The first request, with what is for one of the partitions, is refused.
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS;
        cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
        let first = letters.publish(&batch, &mut left, &pulse).await;
        assert!(matches!(first, Err(DeadLetterError::Retry(_))), "{first:?}");
        assert!(!left.is_empty() && left.len() < BAD, "{left:?}");
        assert_eq!(written(&letters), (BAD - left.len()) as i64);
        let second = letters.publish(&batch, &mut left, &pulse).await;
        assert!(second.is_ok() && left.is_empty(), "{second:?} {left:?}");
        assert_eq!(written(&letters), BAD as i64);
    }

    const TOO_LARGE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;

    /// Writes them to a topic whose brokers refuse so many requests for their size, the first ones.
    async fn publish(batch: &Batch, refused: usize) -> (Result<(), DeadLetterError>, Vec<String>) {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let letters = DeadLetters::new(&route(&cluster.bootstrap_servers())).expect("a producer");
        let pulse = Stalls::default().watch("a test", LONGEST_SEND);
        cluster.request_errors(RDKafkaApiKey::Produce, &vec![TOO_LARGE; refused]);
        let mut left = (0..batch.dead_len()).collect();
        let answer = letters.publish(batch, &mut left, &pulse).await;
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "reads")
            .create()
            .expect("a consumer");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(TOPIC, 0, Offset::Beginning)
            .and_then(|()| reader.assign(&from))
            .expect("it is assigned");
        let mut reasons = Vec::new();
        while reasons.len() + left.len() < batch.dead_len() {
            let record = reader.poll(ASK).expect("a record").expect("a good one");
            let headers = record.headers().expect("headers");
            let mut named = headers.iter().filter(|it| it.key == header::REASON);
            let reason = named.next().and_then(|it| it.value).expect("a reason");
            reasons.push(String::from_utf8_lossy(reason).into_owned());
        }
        (answer, reasons)
    }

    #[tokio::test]
    async fn a_letter_that_is_refused_for_its_size_has_the_beginning_of_its_reason() {
        let reason = "ä".repeat(3_000);
        let (answer, reasons) = publish(&bad(1, &reason), 0).await;
        assert!(answer.is_ok() && reasons[0].len() == MAX_REASON);
        // With others as it may be, then alone.
        let (answer, reasons) = publish(&bad(1, &reason), 2).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert!(reason.starts_with(&reasons[0]) && reasons[0].len() == SHORT_REASON);
        // The short one is refused, too; and where there is nothing to shorten it is not tried.
        for (reason, refused) in [(&*reason, 4), ("not JSON", 2)] {
            let (answer, _) = publish(&bad(1, reason), refused).await;
            match answer {
                Err(DeadLetterError::Fatal(text)) => assert!(
                    text.contains("in-0 offset 0") && text.contains("max.message.bytes"),
                    "{text}"
                ),
                other => panic!("{refused}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn letters_that_are_refused_together_are_written_from_smaller_batches() {
        let (answer, reasons) = publish(&bad_events(), 2).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(reasons, vec!["not JSON"; BAD]);
    }

    #[test]
    fn a_runtime_ends_while_brokers_that_are_away_are_asked() {
        let letters = DeadLetters::new(&route("127.0.0.1:1")).expect("a producer");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (begins, begun) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let mut looks = std::pin::pin!(letters.look());
            assert!(futures::poll!(&mut looks).is_pending());
            begins.send(()).expect("the test waits");
            looks.await
        });
        begun.blocking_recv().expect("it asks");
        let ends = std::time::Instant::now();
        runtime.shutdown_timeout(ASK);
        assert!(ends.elapsed() < ASK / 2, "{:?}", ends.elapsed());
    }
}
