//! librdkafka's lists of partitions: what they name, and what is to be committed.

use std::collections::BTreeMap;

use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::warn;

use crate::offsets::{Commit, PartitionKey};

pub fn keys_of(list: &TopicPartitionList) -> Vec<PartitionKey> {
    list.elements()
        .iter()
        .map(|element| PartitionKey::new(element.topic(), element.partition()))
        .collect()
}

/// An answer counts when Kafka has given it for each partition.
pub fn without_errors(found: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    let elements = found.elements();
    elements.iter().try_for_each(|element| element.error())?;
    Ok(found)
}

/// A list to commit, with this metadata at each partition.
pub fn list_of(commits: &[Commit], metadata: Option<&str>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for commit in commits {
        let mut element = list.add_partition(&commit.key.topic, commit.key.partition);
        // Only an offset that librdkafka can't represent fails, and those never come out of a window.
        if element.set_offset(Offset::Offset(commit.offset)).is_err() {
            warn!(offset = commit.offset, "an offset can't be committed");
        }
        if let Some(metadata) = metadata {
            element.set_metadata(metadata);
        }
    }
    list
}

/// `events[0,1,5]` for a log line, cut where there are many.
pub fn describe(list: &TopicPartitionList) -> String {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for element in list.elements() {
        topics
            .entry(element.topic().to_owned())
            .or_default()
            .push(element.partition());
    }
    let parts: Vec<String> = topics
        .into_iter()
        .map(|(topic, mut partitions)| {
            partitions.sort_unstable();
            let shown: Vec<String> = partitions.iter().take(20).map(i32::to_string).collect();
            let more = if partitions.len() > 20 { ",…" } else { "" };
            format!("{topic}[{}{more}]", shown.join(","))
        })
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(" ")
    }
}
