//! The ends of the logs while lanes are paused: librdkafka learns them from what it fetches, and of paused partitions it fetches nothing.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::GroupConsumer;
use crate::offsets::PartitionKey;
use crate::state::{ASK_TIMEOUT, lock};

/// How often Kafka is asked.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the lag right while lanes are paused, until `end` is dropped.
pub fn look_at_ends(consumer: &GroupConsumer, end: &Receiver<()>) {
    let shared = &consumer.context().shared;
    while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        if !shared.is_paused() || shared.stop_requested() {
            continue;
        }
        match ask(consumer) {
            Ok(found) => {
                let assigned = lock(&consumer.context().assigned);
                let mut ends = lock(&shared.log_ends);
                for (key, high) in found {
                    if assigned.contains_key(&key) {
                        let end = ends.entry(key).or_default();
                        end.high = end.high.max(high);
                    }
                }
            }
            // Kafka is away: others say so.
            Err(error) => debug!("the ends of the logs could not be asked for: {error}"),
        }
    }
}

/// Where each partition that is held ends, where Kafka knows.
fn ask(consumer: &GroupConsumer) -> KafkaResult<Vec<(PartitionKey, i64)>> {
    let mut asked = TopicPartitionList::new();
    for key in lock(&consumer.context().assigned).keys() {
        asked.add_partition_offset(&key.topic, key.partition, Offset::End)?;
    }
    if asked.count() == 0 {
        return Ok(Vec::new());
    }
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let elements = found.elements().into_iter();
    let ends = elements.filter_map(|element| match (element.error(), element.offset()) {
        (Ok(()), Offset::Offset(end)) => {
            let key = PartitionKey::new(element.topic(), element.partition());
            Some((key, end))
        }
        _ => None,
    });
    Ok(ends.collect())
}
