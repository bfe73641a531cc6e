//! Where reading begins in a partition just assigned.
//!
//! A partition with a commit is read from there. Without one, `source.start` holds, but only where the group is new to the whole
//! topic: a partition added to a topic later is read from its beginning, or what was written to it before this worker noticed would be
//! skipped. A start at the end or at a time is resolved to an offset at once, which the offset window then commits, so that a restart
//! before the first event does not move it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use crate::group::GroupConsumer;
use crate::named;
use crate::offsets::PartitionKey;
use crate::route::Start;
use crate::state::{ASK_TIMEOUT, Shared};

/// Where one partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStart {
    pub key: PartitionKey,
    /// The first offset to read; `None` for the beginning of the log, whatever its offset is.
    pub from: Option<i64>,
    pub committed: Option<i64>,
    /// What that commit names, to be published (see `named.rs`).
    pub name: Option<String>,
}

/// A commit of the group.
struct Committed {
    key: PartitionKey,
    offset: Option<i64>,
    name: Option<String>,
}

/// How often the group's commits are asked for before the worker gives up.
const ATTEMPTS: usize = 6;

/// Resolves where each partition begins and writes it into the list. The text of an error is for a person. Beats before each question to
/// Kafka: there may be many, and each may take its time.
pub fn resolve(
    consumer: &GroupConsumer,
    shared: &Shared,
    list: &mut TopicPartitionList,
) -> Result<Vec<PartitionStart>, String> {
    let committed = committed(consumer, shared, list)?;
    let known = known_topics(consumer, shared, &committed)
        .map_err(|error| format!("the group's commits could not be read: {error}"))?;
    let mut starts = Vec::new();
    for Committed { key, offset, name } in committed {
        let from = match offset {
            Some(_) => offset,
            None if known.contains(&key.topic) => {
                info!(topic = %key.topic, partition = key.partition, "a new partition of a topic the group knows: read from its beginning");
                None
            }
            None => first_start(consumer, shared, &key).map_err(|error| {
                format!(
                    "where to begin in {}-{} could not be found out: {error}",
                    key.topic, key.partition
                )
            })?,
        };
        let begin = from.map_or(Offset::Beginning, Offset::Offset);
        list.set_partition_offset(&key.topic, key.partition, begin)
            .map_err(|error| {
                format!(
                    "the start of {}-{} could not be set: {error}",
                    key.topic, key.partition
                )
            })?;
        starts.push(PartitionStart {
            key,
            from,
            committed: offset,
            name,
        });
    }
    Ok(starts)
}

/// The group's commits for these partitions.
fn committed(
    consumer: &GroupConsumer,
    shared: &Shared,
    list: &TopicPartitionList,
) -> Result<Vec<Committed>, String> {
    let mut attempt = 1;
    loop {
        shared.beat();
        match consumer.committed_offsets(list.clone(), ASK_TIMEOUT) {
            Ok(found) => {
                let elements = found.elements();
                return elements.iter().map(read_commit).collect();
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
                    "the group's commits could not be read in {attempt} attempts: {error} (an open transaction holds them back until kafka ends it: see transaction.timeout.ms of its producer, and `kafka-transactions.sh find-hanging`)"
                ));
            }
        }
    }
}

fn read_commit(element: &TopicPartitionListElem<'_>) -> Result<Committed, String> {
    element
        .error()
        .map_err(|error| format!("the group's commits could not be read: {error}"))?;
    Ok(Committed {
        key: PartitionKey::new(element.topic(), element.partition()),
        offset: match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        },
        name: named::name_in(element.metadata())?.map(str::to_owned),
    })
}

/// Where a partition without a commit begins.
fn first_start(
    consumer: &GroupConsumer,
    shared: &Shared,
    key: &PartitionKey,
) -> KafkaResult<Option<i64>> {
    let start = shared.route.start;
    if start == Start::Earliest {
        return Ok(None);
    }
    shared.beat();
    let (_, end) = consumer.fetch_watermarks(&key.topic, key.partition, ASK_TIMEOUT)?;
    let Start::Time(time) = start else {
        return Ok(Some(end));
    };
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(&key.topic, key.partition, Offset::Offset(time))?;
    shared.beat();
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let offset = found.elements().first().map(|element| element.offset());
    Ok(match offset {
        Some(Offset::Offset(offset)) => Some(offset),
        // No record is as young as that.
        _ => Some(end),
    })
}

/// The topics of partitions without a commit for which the group has a commit in another partition. Asked once a topic and before anything
/// else: another worker that starts at the same moment commits where it begins within `delivery.commit.interval.ms`, and partitions that
/// are looked at after that would be taken for new ones and read from their beginning (repeating old events, never skipping any).
fn known_topics(
    consumer: &GroupConsumer,
    shared: &Shared,
    committed: &[Committed],
) -> KafkaResult<BTreeSet<Arc<str>>> {
    if shared.route.start == Start::Earliest {
        return Ok(BTreeSet::new());
    }
    let fresh = committed
        .iter()
        .filter(|commit| commit.offset.is_none())
        .map(|commit| commit.key.topic.clone());
    let mut known = BTreeSet::new();
    for topic in fresh.collect::<BTreeSet<_>>() {
        shared.beat();
        let metadata = consumer.fetch_metadata(Some(&topic), ASK_TIMEOUT)?;
        let mut all = TopicPartitionList::new();
        for partition in metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
        {
            all.add_partition(&topic, partition.id());
        }
        shared.beat();
        let found = consumer.committed_offsets(all, ASK_TIMEOUT)?;
        let offsets = found.to_topic_map();
        if offsets
            .values()
            .any(|offset| matches!(offset, Offset::Offset(_)))
        {
            known.insert(topic);
        }
    }
    Ok(known)
}
