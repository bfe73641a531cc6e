//! What is said of the consumer's errors, and which of them mean nothing.

use keystone_sinks::kafka::client::is_refusal;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::lane::Assigned;
use crate::offsets::PartitionKey;

pub(super) const RIGHTS: &str = "give its user the rights, or change kafka.sasl.*";

/// What is said of a partition that can't be read.
pub(super) fn unread(assigned: &Assigned, error: &KafkaError) -> String {
    let PartitionKey { topic, partition } = &assigned.key;
    let place = match assigned.next.get() {
        Some(next) => format!("offset {next}"),
        None => "its beginning".to_owned(),
    };
    let advice = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression) => {
            "if that lasts, the batch there is damaged: restore it on the broker, or move the group's offset behind it"
        }
        Some(code) if is_refusal(code) => {
            "give the route's user the right to read that topic, or have no pattern of source.topics match it"
        }
        _ => "if that lasts, see the broker's log",
    };
    format!(
        "{topic}-{partition} could not be read at {place}: {error}; it is tried again; {advice}"
    )
}

/// What is said of a consumer that librdkafka has ended.
pub(super) fn ended(code: RDKafkaErrorCode, reason: &str, group: &str) -> String {
    use RDKafkaErrorCode as Code;
    match code {
        code if is_refusal(code) => {
            format!("kafka does not let the route be in group {group}: {reason}; {RIGHTS}")
        }
        Code::FencedInstanceId | Code::UnreleasedInstanceId => format!(
            "kafka has ended this consumer of group {group}: {reason}; each worker needs a kafka.group.instance.id of its own, and one that was \
             killed keeps its place until kafka.session.timeout.ms is over"
        ),
        _ => format!("kafka has ended this consumer of group {group}: {reason} ({code})"),
    }
}

pub(super) fn not_moved(error: &KafkaError) -> String {
    format!("the consumer could not be moved back: {error}")
}

/// Whether librdkafka has no use for a seek of a partition: it does not fetch from it.
pub(super) fn is_not_fetched(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::State
                | Code::UnknownPartition
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
        )
    )
}
