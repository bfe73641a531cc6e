//! Where reading begins in a partition just assigned.
//!
//! A partition with a commit is read from there. Without one, `source.start` holds, but only where the group is new to the whole
//! topic: a partition added to a topic later is read from its beginning, or what was written to it before this worker noticed would be
//! skipped. With `latest` so is a topic that comes to a pattern of which the group has read others, and one that this worker has
//! found missing or has committed offsets of: it was made, or made anew, meanwhile. A start at the end or at a time is resolved to an offset
//! at once, which the offset window then commits, so that a restart before the first event does not move it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keystone_sinks::kafka::client::is_refusal;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use crate::backoff::{Backoff, jitter};
use crate::group::GroupConsumer;
use crate::list::without_errors;
use crate::named;
use crate::offsets::PartitionKey;
use crate::route::{Start, topics};
use crate::state::{ASK_TIMEOUT, Shared, lock};

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

/// How long Kafka is asked before the worker gives up: a coordinator that was away finds its feet within seconds, an open transaction
/// that holds the group's commits back ends by its timeout.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two attempts: the first pause, and the longest one. Refusals come back at once.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Resolves where each partition begins and writes it into the list. The text of an error is for a person; it also ends early, with an
/// error, where the worker is asked to stop meanwhile.
pub fn resolve(
    consumer: &GroupConsumer,
    shared: &Shared,
    list: &mut TopicPartitionList,
) -> Result<Vec<PartitionStart>, String> {
    if shared.stop_requested() {
        return Err("partitions came after the worker was asked to stop".to_owned());
    }
    let asking = Asking {
        shared,
        deadline: Instant::now() + PATIENCE,
    };
    let committed = committed(consumer, &asking, list)?;
    // The topics of patterns first: another worker that starts changes that answer by its first commits.
    let later = later_topics(consumer, &asking, &committed)?;
    let mut known = known_topics(consumer, &asking, &committed)?;
    known.extend(later);
    if shared.route.start == Start::Latest {
        known.extend(lock(&shared.old_topics).iter().cloned());
    }
    let mut starts = Vec::new();
    for Committed { key, offset, name } in committed {
        let from = match offset {
            Some(_) => offset,
            None if known.contains(&key.topic) => {
                info!(topic = %key.topic, partition = key.partition, "new, of a topic that is new or that the group knows: read from its beginning");
                None
            }
            None => first_start(consumer, &asking, &key)?,
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

/// Questions to Kafka, with one patience for all of them.
struct Asking<'s> {
    shared: &'s Shared,
    deadline: Instant,
}

impl Asking<'_> {
    /// Asks until there is an answer. `what` could not be done otherwise: words for an error. Beats before each attempt: it may take its
    /// time. Nothing more is asked once the worker is to stop: there may be a question for each of thousands of partitions.
    fn ask<T>(&self, what: &str, question: impl Fn() -> KafkaResult<T>) -> Result<T, String> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            self.shared.beat();
            if self.shared.stop_requested() {
                return Err(format!("{what}: the worker is to stop"));
            }
            let error = match question() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let failed = format!("{what}: {error}");
            let is_refused = error.rdkafka_error_code().is_some_and(is_refusal);
            let is_ending = self.shared.stop_requested() || self.shared.failure().is_some();
            if is_refused || is_ending {
                return Err(failed);
            }
            if Instant::now() >= self.deadline {
                return Err(format!("{failed}, for {} s", PATIENCE.as_secs()));
            }
            warn!("{failed}; asked again");
            std::thread::sleep(backoff.next(jitter(), None));
        }
    }
}

/// The group's commits for these partitions.
fn committed(
    consumer: &GroupConsumer,
    asking: &Asking<'_>,
    list: &TopicPartitionList,
) -> Result<Vec<Committed>, String> {
    let found = asking
        .ask("the group's commits could not be read", || {
            committed_offsets(consumer, list)
        })
        .map_err(|error| match asking.shared.stop_requested() {
            true => error,
            false => format!("{error} (an open transaction holds them back until kafka ends it: see transaction.timeout.ms of its producer, and `kafka-transactions.sh find-hanging`)"),
        })?;
    found.elements().iter().map(read_commit).collect()
}

/// What the group has committed for each of these partitions.
fn committed_offsets(
    consumer: &GroupConsumer,
    list: &TopicPartitionList,
) -> KafkaResult<TopicPartitionList> {
    let found = consumer.committed_offsets(list.clone(), ASK_TIMEOUT)?;
    without_errors(found)
}

fn read_commit(element: &TopicPartitionListElem<'_>) -> Result<Committed, String> {
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
    asking: &Asking<'_>,
    key: &PartitionKey,
) -> Result<Option<i64>, String> {
    let start = asking.shared.route.start;
    if start == Start::Earliest {
        return Ok(None);
    }
    let (topic, partition) = (&key.topic, key.partition);
    let what = format!("where to begin in {topic}-{partition} could not be found out");
    let (_, end) = asking.ask(&what, || {
        consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT)
    })?;
    let Start::Time(time) = start else {
        return Ok(Some(end));
    };
    let found = asking.ask(&what, || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(time))?;
        let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
        without_errors(found)
    })?;
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
    asking: &Asking<'_>,
    committed: &[Committed],
) -> Result<BTreeSet<Arc<str>>, String> {
    if asking.shared.route.start == Start::Earliest {
        return Ok(BTreeSet::new());
    }
    let fresh = committed
        .iter()
        .filter(|commit| commit.offset.is_none())
        .map(|commit| commit.key.topic.clone());
    let mut known = BTreeSet::new();
    for topic in fresh.collect::<BTreeSet<_>>() {
        let what = format!("the partitions of topic {topic} could not be listed");
        let all = asking.ask(&what, || {
            let metadata = consumer.fetch_metadata(Some(&topic), ASK_TIMEOUT)?;
            let found = metadata.topics().first();
            let partitions = found.map_or(&[][..], MetadataTopic::partitions);
            let error = found.and_then(MetadataTopic::error);
            list_all(&topic, error, partitions.iter().map(MetadataPartition::id))
        })?;
        if has_commits(consumer, asking, &all)? {
            known.insert(topic);
        }
    }
    Ok(known)
}

/// Topics without commits that only a pattern leads to, if it has led the group to others already. One question for all of them: another
/// worker that starts at the same moment commits soon.
fn later_topics(
    consumer: &GroupConsumer,
    asking: &Asking<'_>,
    committed: &[Committed],
) -> Result<BTreeSet<Arc<str>>, String> {
    let route = &asking.shared.route;
    let by_pattern = || {
        committed
            .iter()
            .filter(|commit| !route.names(&commit.key.topic))
    };
    let later = by_pattern().filter(|commit| commit.offset.is_none());
    let later: BTreeSet<_> = later.map(|commit| commit.key.topic.clone()).collect();
    if route.start != Start::Latest || later.is_empty() {
        return Ok(BTreeSet::new());
    }
    if by_pattern().any(|commit| commit.offset.is_some()) {
        return Ok(later);
    }
    let patterns = topics::patterns(&route.settings);
    let is_of_pattern =
        |name: &str| !route.names(name) && patterns.iter().any(|pattern| pattern.is_match(name));
    let what = "whether the group has read topics of the pattern could not be found out";
    let has_read_others = asking.ask(what, || {
        let metadata = consumer.fetch_metadata(None, ASK_TIMEOUT)?;
        let topics = metadata.topics().iter();
        let topics = topics.filter(|topic| is_of_pattern(topic.name()));
        let listed = topics.map(|topic| {
            let partitions = topic.partitions().iter().map(MetadataPartition::id);
            list_all(topic.name(), topic.error(), partitions)
        });
        one_has_commits(listed, |partitions| committed_offsets(consumer, partitions))
    })?;
    Ok(match has_read_others {
        true => later,
        false => BTreeSet::new(),
    })
}

/// Whether the group has a commit in one of these topics. Of one that could not be listed nobody knows.
fn one_has_commits(
    topics: impl Iterator<Item = KafkaResult<TopicPartitionList>>,
    committed: impl Fn(&TopicPartitionList) -> KafkaResult<TopicPartitionList>,
) -> KafkaResult<bool> {
    let mut all = TopicPartitionList::new();
    let mut unknown = None;
    for topic in topics {
        match topic {
            Ok(partitions) => {
                for element in partitions.elements() {
                    all.add_partition(element.topic(), element.partition());
                }
            }
            Err(error) => unknown = Some(error),
        }
    }
    match has_commit(&committed(&all)?) {
        false => unknown.map_or(Ok(false), Err),
        true => Ok(true),
    }
}

/// Whether the group has a commit in one of these partitions.
fn has_commits(
    consumer: &GroupConsumer,
    asking: &Asking<'_>,
    partitions: &TopicPartitionList,
) -> Result<bool, String> {
    let found = asking.ask("the group's commits could not be read", || {
        committed_offsets(consumer, partitions)
    })?;
    Ok(has_commit(&found))
}

fn has_commit(found: &TopicPartitionList) -> bool {
    let elements = found.elements().into_iter();
    elements
        .map(|element| element.offset())
        .any(|offset| matches!(offset, Offset::Offset(_)))
}

/// All partitions of a topic, from a broker's answer. One that has just started may name an error, or no partitions: asked again, since a
/// topic without partitions would pass for one that the group does not know.
fn list_all(
    topic: &str,
    error: Option<RDKafkaRespErr>,
    partitions: impl Iterator<Item = i32>,
) -> KafkaResult<TopicPartitionList> {
    if let Some(error) = error {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let mut all = TopicPartitionList::new();
    for partition in partitions {
        all.add_partition(topic, partition);
    }
    match all.count() {
        0 => Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_an_error_or_without_partitions_is_asked_for_again() {
        let code = |error, partitions: &[i32]| {
            let listed = list_all("t", error, partitions.iter().copied());
            let failed = listed.err()?;
            failed.rdkafka_error_code()
        };
        let no_leader = Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        let expected = Some(RDKafkaErrorCode::LeaderNotAvailable);
        assert_eq!(code(no_leader, &[]), expected);
        assert_eq!(code(no_leader, &[0, 1]), expected, "perhaps not all");
        let expected = Some(RDKafkaErrorCode::UnknownTopicOrPartition);
        assert_eq!(code(None, &[]), expected);

        let listed = list_all("t", None, [0, 2].into_iter()).expect("an answer");
        let found: Vec<_> = listed.elements().iter().map(|e| e.partition()).collect();
        assert_eq!(found, [0, 2]);
    }

    #[test]
    fn a_topic_that_could_not_be_listed_may_be_one_that_the_group_has_read() {
        let listed = |topic: &str| list_all(topic, None, [0, 1].into_iter());
        let empty = || list_all("empty", None, [].into_iter());
        let committed_in = |wanted: &'static str| {
            move |asked: &TopicPartitionList| {
                let mut found = TopicPartitionList::new();
                for element in asked.elements() {
                    let topic = element.topic();
                    let offset = match topic == wanted && element.partition() == 1 {
                        true => Offset::Offset(7),
                        false => Offset::Invalid,
                    };
                    found.add_partition_offset(topic, element.partition(), offset)?;
                }
                Ok(found)
            }
        };
        let both = || [listed("a"), listed("b")].into_iter();
        assert_eq!(one_has_commits(both(), committed_in("b")), Ok(true));
        assert_eq!(one_has_commits(both(), committed_in("c")), Ok(false));
        let some = || [listed("a"), empty(), listed("b")].into_iter();
        assert_eq!(one_has_commits(some(), committed_in("b")), Ok(true));
        assert!(one_has_commits(some(), committed_in("c")).is_err());
        assert_eq!(
            one_has_commits([].into_iter(), committed_in("a")),
            Ok(false)
        );
    }
}
