//! The topic that a Kafka sink delivers to: records from events, and what Kafka's refusals mean.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;
use tracing::warn;

use super::producer::{self, Apart, Failure, Outgoing, Producer};
use super::refusal::remedy;
use crate::{Batch, Cause, Event, Rejected, SinkError, SinkState};

/// How long the check waits for the brokers.
const CHECK: Duration = Duration::from_secs(5);

pub(super) struct Target {
    pub(super) topic: String,
    pub(super) producer: Producer,
    /// Of the producer.
    pub(super) longest_step: Duration,
}

/// What the failures of a batch come to.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) rejected: Vec<Rejected>,
    pub(super) retry: Vec<usize>,
    pub(super) cause: Option<Cause>,
}

impl Target {
    pub(super) fn outgoing<'a>(&'a self, event: Event<'a>) -> Outgoing<'a> {
        Outgoing {
            topic: &self.topic,
            key: event.key,
            payload: event.payload,
            timestamp: event.timestamp,
            headers: producer::headers(event.headers()),
        }
    }

    /// Sends these events of a batch. The failures carry indices of the batch.
    pub(super) async fn send(
        &self,
        batch: &Batch,
        indices: impl Iterator<Item = usize> + Clone,
    ) -> Vec<Failure> {
        let records = indices
            .clone()
            .map(|index| self.outgoing(batch.event(index)));
        let failures = self.producer.send_all(records).await;
        of_batch(failures, indices)
    }

    /// The same by one who has the producer to himself.
    pub(super) async fn send_apart(
        &self,
        apart: &Apart<'_>,
        batch: &Batch,
        indices: &[usize],
    ) -> Vec<Failure> {
        let indices = indices.iter().copied();
        let records = indices
            .clone()
            .map(|index| self.outgoing(batch.event(index)));
        let failures = apart.send_all(records).await;
        of_batch(failures, indices)
    }

    /// The topic takes less in a batch than the producer makes, which would have every batch searched. Remembered until the worker ends.
    pub(super) fn halve_batches(&self, apart: &Apart<'_>) {
        if let Some(size) = apart.halve_batches() {
            self.tell_halved(size);
        }
    }

    pub(super) fn tell_halved(&self, size: u64) {
        warn!(
            "topic {} (sink.kafka.topic) refuses batches for their size, though it takes each of their events: batches have at most \
             {size} bytes until the worker ends; raise the topic's max.message.bytes, or lower sink.kafka.batch.size to it",
            self.topic
        );
    }

    /// Why Kafka never takes this event; `None` where the code does not say that.
    pub(super) fn reject_reason(&self, code: Code, event: Event<'_>) -> Option<String> {
        match code {
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some(format!(
                "kafka refuses an event of {} bytes for topic {}: it is larger than sink.kafka.message.max.bytes or the topic's max.message.bytes",
                event.payload.map_or(0, <[u8]>::len),
                self.topic
            )),
            Code::InvalidTimestamp => Some(format!(
                "kafka refuses the event for topic {}: the record's timestamp is outside what the topic allows \
                 (message.timestamp.before.max.ms, message.timestamp.after.max.ms)",
                self.topic
            )),
            Code::InvalidRecord | Code::InvalidMessage => Some(format!(
                "kafka refuses the event for topic {}: {code} (a compacted topic takes no event without a key)",
                self.topic
            )),
            _ => None,
        }
    }

    /// Tells failures that are final for their events from those that may pass. Fails where every event would meet the same answer.
    pub(super) fn sort(&self, batch: &Batch, failures: Vec<Failure>) -> Result<Sorted, SinkError> {
        let mut sorted = Sorted::default();
        for Failure { index, code, .. } in failures {
            if let Some(reason) = self.reject_reason(code, batch.event(index)) {
                sorted.rejected.push(Rejected { index, reason });
                continue;
            }
            if let Some(refusal) = self.refusal(code, &code.to_string()) {
                return Err(refusal);
            }
            sorted.retry.push(index);
            sorted.cause = Some(self.cause(code));
        }
        Ok(sorted)
    }

    /// The end of the route where every event would meet the same answer.
    pub(super) fn refusal(&self, code: Code, detail: &str) -> Option<SinkError> {
        let remedy = remedy(code)?;
        Some(SinkError::Fatal(format!(
            "kafka does not let the route write to topic {} (sink.kafka.topic): {detail}; {remedy}",
            self.topic
        )))
    }

    pub(super) fn cause(&self, code: Code) -> Cause {
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

    /// Asks the brokers for the topic. The text of an error is for a person.
    pub(super) async fn check(&self) -> Result<(), String> {
        let client = self.producer.client();
        let topic = self.topic.clone();
        let asked = tokio::task::spawn_blocking(move || {
            client
                .client()
                .fetch_metadata(Some(&topic), CHECK)
                .map(|metadata| metadata.topics().first().and_then(|topic| topic.error()))
        })
        .await;
        match asked {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(code))) => Err(format!(
                "topic {} (sink.kafka.topic): {}",
                self.topic,
                Code::from(code)
            )),
            Ok(Err(error)) => Err(format!(
                "the Kafka sink's brokers don't answer: {error}{}; see bootstrap.servers, security.protocol and sasl.* of sink.kafka.* or kafka.*",
                self.reason()
            )),
            Err(error) => Err(format!("the check of the Kafka sink broke off: {error}")),
        }
    }

    /// What librdkafka has met meanwhile.
    fn reason(&self) -> String {
        let met = self
            .producer
            .reporter()
            .recent_error(Duration::from_secs(60));
        met.map(|reason| format!(" ({reason})")).unwrap_or_default()
    }

    pub(super) fn state(&self) -> SinkState {
        SinkState {
            problems: self
                .producer
                .reporter()
                .recent_error(Duration::from_secs(60))
                .map(|error| format!("the Kafka sink's producer: {error}"))
                .into_iter()
                .collect(),
            facts: vec![("topic", self.topic.clone())],
            ..SinkState::default()
        }
    }
}

/// Failures of a group, with the indices of the batch that it was made of.
fn of_batch(mut failures: Vec<Failure>, indices: impl Iterator<Item = usize>) -> Vec<Failure> {
    if !failures.is_empty() {
        let indices: Vec<usize> = indices.collect();
        for failure in &mut failures {
            failure.index = indices[failure.index];
        }
    }
    failures
}
