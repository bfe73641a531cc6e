//! The Kafka sink: an idempotent producer with acks=all. Key, headers and timestamp are kept; order within a partition is kept.

pub mod client;
pub mod producer;

use std::time::Duration;

use keystone_config::{Default, Kind, OptionSpec, Problem, Section, Settings, Tradeoff3};
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;

use crate::{
    Answer, Batch, BoxFuture, Cause, Context, Event, Rejected, Sink, SinkError, SinkState,
};
use client::{Role, SINK_PREFIX, SOURCE_PREFIX};
use producer::{Failure, Outgoing, Producer};

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "sink.kafka.topic",
        kind: Kind::Text,
        default: Default::Required,
        secret: false,
        doc: "The topic to deliver to. It must exist, or the brokers must create topics by themselves.",
        example: "plays",
    },
    OptionSpec {
        key: "sink.kafka.linger.ms",
        kind: Kind::Millis {
            min: 0,
            max: 60_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "0",
            balanced: "5",
            no_duplicates: "20",
        }),
        secret: false,
        doc: "How long the producer waits for more events before it sends a request to a broker.",
        example: "",
    },
];

pub const SECTION: Section = Section {
    title: "Sink: Kafka",
    when: Some(("sink.type", "kafka")),
    options: OPTIONS,
    passthrough: Some(client::SINK_PASSTHROUGH),
};

/// Sensible for events of some hundred bytes and bounded memory; each can be overridden.
const DEFAULTS: &[(&str, &str)] = &[
    ("compression.type", "lz4"),
    // The Java client's partitioner: a key goes where the producers of other programs put it.
    ("partitioner", "murmur2_random"),
    // librdkafka's 1 GiB would be most of a worker's memory.
    ("queue.buffering.max.kbytes", "32768"),
    ("batch.size", "262144"),
    // For ever: an outage is waited out in order. A limit would hand the events back and lose their order.
    ("message.timeout.ms", "0"),
];

/// Properties of an idempotent producer on the cluster that these prefixes describe.
pub fn producer_config(
    settings: &Settings,
    prefixes: &[&str],
    defaults: &[(&str, &str)],
    linger: Duration,
) -> ClientConfig {
    let linger = linger.as_millis().to_string();
    let client_id = settings.get("route.name");
    let mut all = vec![("client.id", client_id)];
    all.extend_from_slice(defaults);
    client::properties(
        settings,
        Role::Producer,
        prefixes,
        &all,
        &[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", &linger),
        ],
    )
}

/// Builds the sink from `sink.kafka.*` and `kafka.*`.
pub fn build(settings: &Settings, _context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    let problems = client::problems(settings, SINK_PREFIX);
    if !problems.is_empty() {
        return Err(problems);
    }
    let config = producer_config(
        settings,
        &[SOURCE_PREFIX, SINK_PREFIX],
        DEFAULTS,
        settings.millis("sink.kafka.linger.ms"),
    );
    let producer = Producer::new(config, "sink").map_err(|error| {
        vec![settings.problem(
            "sink.type",
            format!("the Kafka sink's producer can't be made: {error}"),
            "see the kafka.* and sink.kafka.* properties of the route",
        )]
    })?;
    Ok(Box::new(KafkaSink {
        topic: settings.get("sink.kafka.topic").to_owned(),
        producer,
    }))
}

/// Whether the refusal may be meant for another record of the same request.
fn refuses_with_others(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::InvalidMessage
            | Code::InvalidTimestamp
    )
}

struct KafkaSink {
    topic: String,
    producer: Producer,
}

impl KafkaSink {
    fn outgoing<'a>(&'a self, event: Event<'a>) -> Outgoing<'a> {
        Outgoing {
            topic: &self.topic,
            key: event.key,
            payload: event.payload,
            timestamp: event.timestamp,
            headers: producer::headers(event.headers()),
        }
    }

    /// Kafka refuses a whole request for one record in it (too large, no key for a compacted topic), good events among them: only an
    /// event that is refused alone is bad.
    async fn send_alone(&self, batch: &Batch, failures: Vec<Failure>) -> Vec<Failure> {
        let mut remaining = Vec::with_capacity(failures.len());
        for (index, code) in failures {
            if !refuses_with_others(code) || batch.len() == 1 {
                remaining.push((index, code));
                continue;
            }
            let alone = std::iter::once(self.outgoing(batch.event(index)));
            for (_, code) in self.producer.send_all(alone).await {
                remaining.push((index, code));
            }
        }
        remaining
    }

    fn reject_reason(&self, code: RDKafkaErrorCode, event: Event<'_>) -> Option<String> {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => {
                Some(format!(
                    "kafka refuses an event of {} bytes for topic {}: it is larger than sink.kafka.message.max.bytes or the topic's max.message.bytes",
                    event.payload.map_or(0, <[u8]>::len),
                    self.topic
                ))
            }
            RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidTimestamp => Some(format!(
                "kafka refuses the event for topic {}: {code} (a compacted topic takes no event without a key)",
                self.topic
            )),
            _ => None,
        }
    }

    fn answer(&self, batch: &Batch, failures: Vec<Failure>) -> Result<Answer, SinkError> {
        let mut answer = Answer::done();
        for (index, code) in failures {
            if let Some(reason) = self.reject_reason(code, batch.event(index)) {
                answer.rejected.push(Rejected { index, reason });
                continue;
            }
            if client::is_refusal(code) {
                return Err(SinkError::Fatal(format!(
                    "kafka does not let the route write to topic {} (sink.kafka.topic): {code}; give its user the right to write, \
                     or change sink.kafka.sasl.* / kafka.sasl.*",
                    self.topic
                )));
            }
            answer.retry.push(index);
            answer.cause = Some(self.cause(code));
        }
        Ok(answer)
    }

    fn cause(&self, code: RDKafkaErrorCode) -> Cause {
        use RDKafkaErrorCode as Code;
        let (reason, advice) = match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                ("unknown_topic", "; create the topic sink.kafka.topic names")
            }
            Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut => {
                ("timeout", "")
            }
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
                ("not_enough_replicas", "")
            }
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::PurgeQueue
            | Code::PurgeInflight => ("unreachable", ""),
            _ => ("kafka_error", ""),
        };
        Cause {
            reason,
            detail: format!(
                "kafka did not take events for topic {}: {code}{advice}",
                self.topic
            ),
            after: None,
        }
    }
}

impl Sink for KafkaSink {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async move {
            let failures = self
                .producer
                .send_all(batch.events().map(|event| self.outgoing(event)))
                .await;
            let failures = self.send_alone(batch, failures).await;
            self.answer(batch, failures)
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let client = self.producer.client();
            let topic = self.topic.clone();
            let asked = tokio::task::spawn_blocking(move || {
                client
                    .client()
                    .fetch_metadata(Some(&topic), Duration::from_secs(5))
                    .map(|metadata| metadata.topics().first().and_then(|topic| topic.error()))
            })
            .await;
            match asked {
                Ok(Ok(None)) => Ok(()),
                Ok(Ok(Some(code))) => Err(format!(
                    "topic {} (sink.kafka.topic): {}",
                    self.topic,
                    RDKafkaErrorCode::from(code)
                )),
                Ok(Err(error)) => Err(format!(
                    "the Kafka sink's brokers don't answer: {error}; see sink.kafka.bootstrap.servers or kafka.bootstrap.servers"
                )),
                Err(error) => Err(format!("the check of the Kafka sink broke off: {error}")),
            }
        })
    }

    fn state(&self) -> SinkState {
        SinkState {
            problems: self
                .producer
                .reporter()
                .recent_error(Duration::from_secs(60))
                .map(|error| format!("the Kafka sink's producer: {error}"))
                .into_iter()
                .collect(),
            facts: vec![("topic", self.topic.clone())],
        }
    }
}
