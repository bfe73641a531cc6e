//! Where reading begins in a partition just assigned.
//!
//! A partition with a commit is read from there. Without one, `source.start` holds, but only where the group is new to the whole
//! topic: a partition added to a topic later is read from its beginning, or what was written to it before this worker noticed would be
//! skipped. A start at the end or at a time is resolved to an offset at once, which the offset window then commits, so that a restart
//! before the first event does not move it.

use std::collections::{BTreeSet, HashMap};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use crate::group::{ASK_TIMEOUT, GroupConsumer};
use crate::offsets::PartitionKey;
use crate::route::{Route, Start};

/// Where one partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStart {
    pub key: PartitionKey,
    /// The first offset to read; `None` for the beginning of the log, whatever its offset is.
    pub from: Option<i64>,
    pub committed: Option<i64>,
}

/// How often the group's commits are asked for before the worker gives up.
const ATTEMPTS: usize = 6;

/// Resolves where each partition begins and writes it into the list. The text of an error is for a person.
pub fn resolve(
    consumer: &GroupConsumer,
    route: &Route,
    list: &mut TopicPartitionList,
) -> Result<Vec<PartitionStart>, String> {
    let committed = committed(consumer, list)?;
    let mut starts = Vec::new();
    for (key, committed) in committed {
        let from = match committed {
            Some(offset) => Some(offset),
            None => first_start(consumer, route.start, &key).map_err(|error| {
                format!(
                    "where to begin in {}-{} could not be found out: {error}",
                    key.topic, key.partition
                )
            })?,
        };
        let offset = from.map_or(Offset::Beginning, Offset::Offset);
        list.set_partition_offset(&key.topic, key.partition, offset)
            .map_err(|error| {
                format!(
                    "the start of {}-{} could not be set: {error}",
                    key.topic, key.partition
                )
            })?;
        starts.push(PartitionStart {
            key,
            from,
            committed,
        });
    }
    Ok(starts)
}

/// The group's commits for these partitions.
fn committed(
    consumer: &GroupConsumer,
    list: &TopicPartitionList,
) -> Result<Vec<(PartitionKey, Option<i64>)>, String> {
    let mut attempt = 1;
    loop {
        match consumer.committed_offsets(list.clone(), ASK_TIMEOUT) {
            Ok(found) => {
                let all: KafkaResult<Vec<_>> = found
                    .elements()
                    .iter()
                    .map(|element| {
                        element.error()?;
                        let offset = match element.offset() {
                            Offset::Offset(offset) => Some(offset),
                            _ => None,
                        };
                        Ok((
                            PartitionKey::new(element.topic(), element.partition()),
                            offset,
                        ))
                    })
                    .collect();
                return all
                    .map_err(|error| format!("the group's commits could not be read: {error}"));
            }
            Err(error) if attempt < ATTEMPTS => {
                warn!(
                    attempt,
                    "the group's commits could not be read: {error}; asked again"
                );
                attempt += 1;
            }
            Err(error) => {
                return Err(format!(
                    "the group's commits could not be read in {attempt} attempts: {error}"
                ));
            }
        }
    }
}

/// Where a partition without a commit begins.
fn first_start(
    consumer: &GroupConsumer,
    start: Start,
    key: &PartitionKey,
) -> KafkaResult<Option<i64>> {
    if start == Start::Earliest {
        return Ok(None);
    }
    if knows_topic(consumer, key)? {
        info!(topic = %key.topic, partition = key.partition, "a new partition of a topic the group knows: read from its beginning");
        return Ok(None);
    }
    let (_, end) = consumer.fetch_watermarks(&key.topic, key.partition, ASK_TIMEOUT)?;
    let Start::Time(time) = start else {
        return Ok(Some(end));
    };
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(&key.topic, key.partition, Offset::Offset(time))?;
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let offset = found.elements().first().map(|element| element.offset());
    Ok(match offset {
        Some(Offset::Offset(offset)) => Some(offset),
        // No record is as young as that.
        _ => Some(end),
    })
}

/// Whether the group has a commit for any partition of the topic.
fn knows_topic(consumer: &GroupConsumer, key: &PartitionKey) -> KafkaResult<bool> {
    let metadata = consumer.fetch_metadata(Some(&key.topic), ASK_TIMEOUT)?;
    let partitions: BTreeSet<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    let mut all = TopicPartitionList::new();
    for partition in partitions {
        all.add_partition(&key.topic, partition);
    }
    let found = consumer.committed_offsets(all, ASK_TIMEOUT)?;
    let offsets: HashMap<(String, i32), Offset> = found.to_topic_map();
    Ok(offsets
        .values()
        .any(|offset| matches!(offset, Offset::Offset(_))))
}
