//! Where the logs begin and end while lanes are paused: librdkafka learns it from what it fetches, and of paused partitions it fetches
//! nothing.

use std::collections::HashMap;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::GroupConsumer;
use crate::offsets::{PartitionKey, WindowView};
use crate::state::{ASK_TIMEOUT, Log, lock};

/// Keeps the lag right while lanes are paused.
pub(super) fn look_at_ends(consumer: &GroupConsumer) {
    let shared = &consumer.context().shared;
    match look(consumer) {
        Ok(found) => {
            let assigned = lock(&consumer.context().assigned);
            let mut logs = lock(&shared.logs);
            for (key, log) in found {
                if assigned.contains_key(&key) {
                    logs.entry(key).or_default().update(log);
                }
            }
        }
        // Kafka is away: others say so.
        Err(error) => debug!("the ends of the logs could not be asked for: {error}"),
    }
}

/// Where each partition that is held ends, and where those begin of which nothing has been read, where Kafka knows.
fn look(consumer: &GroupConsumer) -> KafkaResult<HashMap<PartitionKey, Log>> {
    let shared = &consumer.context().shared;
    let held: Vec<_> = lock(&consumer.context().assigned).keys().cloned().collect();
    let ends = ask(consumer, &held, Offset::End)?;
    let is_fresh = |view: &WindowView| view.settled.is_none();
    let fresh = shared.windows().into_iter().filter(is_fresh);
    let fresh: Vec<_> = fresh.map(|view| view.key).collect();
    Ok(logs(ends, ask(consumer, &fresh, Offset::Beginning)?))
}

/// Of a log whose end is not known, its beginning is of no use.
fn logs(
    ends: Vec<(PartitionKey, i64)>,
    beginnings: Vec<(PartitionKey, i64)>,
) -> HashMap<PartitionKey, Log> {
    let ends = ends.into_iter();
    let mut logs: HashMap<_, _> = ends
        .map(|(key, high)| (key, Log { low: None, high }))
        .collect();
    for (key, low) in beginnings {
        if let Some(log) = logs.get_mut(&key) {
            log.low = Some(low);
        }
    }
    logs
}

fn ask(
    consumer: &GroupConsumer,
    partitions: &[PartitionKey],
    what: Offset,
) -> KafkaResult<Vec<(PartitionKey, i64)>> {
    let mut asked = TopicPartitionList::new();
    for key in partitions {
        asked.add_partition_offset(&key.topic, key.partition, what)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_whose_end_is_not_known_is_not_known() {
        let key = |partition| PartitionKey::new("events", partition);
        let found = logs(vec![(key(0), 10)], vec![(key(0), 3), (key(1), 5)]);
        let known = Log {
            low: Some(3),
            high: 10,
        };
        assert_eq!(found, HashMap::from([(key(0), known)]));
    }
}
