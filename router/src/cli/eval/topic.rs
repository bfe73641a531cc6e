//! The latest events of a route's topics, read beside its consumer group: partitions are assigned by hand, so the group does not
//! notice, and nothing is committed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keystone_config::Settings;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::Metadata;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::cli::Failure;
use crate::cli::asking::{self, Asking, PATIENCE};
use crate::cli::trial::{NamedValues, OwnedRecord};
use crate::records::headers;
use crate::route::topics as names;
use crate::worker::consumer_config;

/// How long reading may take; what is there by then is used.
const TIME: Duration = Duration::from_secs(60);
/// How many events are looked at, at the most, to find the latest among all partitions.
const MOST_READ: i64 = 200_000;
/// How many bytes of values, keys and headers are kept.
const MOST_BYTES: usize = 256 << 20;

/// The latest events of all topics together, by their timestamps, the oldest first; and what is to be said about them.
pub(super) struct Latest {
    pub(super) records: Vec<OwnedRecord>,
    pub(super) remark: Option<String>,
}

/// Reads at most `count` events.
pub(super) fn latest(settings: &Settings, count: usize) -> Result<Latest, Failure> {
    let failed = |what: &str, error: KafkaError| Failure::Failed(format!("{what}: {error}"));
    let mut config = consumer_config(settings);
    // Static membership belongs to the workers; the end of a partition is where reading stops.
    config.remove("group.instance.id");
    config.set("enable.partition.eof", "true");
    let consumer = asking::client(&config).map_err(Failure::Failed)?;
    let metadata = asking::metadata(&consumer, settings).map_err(Failure::Failed)?;
    let (wanted, whole) = (
        settings.list("source.topics"),
        names::is_new_protocol(settings),
    );
    let topics = topics(&wanted, whole, &metadata).map_err(Failure::Failed)?;
    let partitions: usize = topics.values().map(Vec::len).sum();
    let tail = (MOST_READ / partitions.max(1) as i64).clamp(1, count as i64);
    let mut kept = Kept::new(count);
    let deadline = Instant::now() + TIME;
    for (topic, partitions) in &topics {
        let read = read_topic(&consumer, topic, partitions, tail, deadline, &mut kept);
        let whole = read.map_err(|error| failed(&format!("topic {topic} can't be read"), error))?;
        if !whole {
            kept.remark = Some(format!(
                "not all of topic {topic} could be read within {} s; there may be later events",
                TIME.as_secs()
            ));
            break;
        }
    }
    Ok(kept.finish())
}

/// The topics that the route reads, with their partitions.
fn topics(
    wanted: &[String],
    whole: bool,
    metadata: &Metadata,
) -> Result<BTreeMap<String, Vec<i32>>, String> {
    let mut found = BTreeMap::new();
    for wanted in wanted {
        let pattern = match names::is_pattern(wanted) {
            true => {
                let pattern = names::pattern(wanted, whole);
                Some(pattern.map_err(|problem| format!("source.topics: {problem}"))?)
            }
            false => None,
        };
        let before = found.len();
        for topic in metadata.topics() {
            let fits = match &pattern {
                Some(pattern) => pattern.is_match(topic.name()),
                None => topic.name() == wanted,
            };
            if fits && topic.error().is_none() {
                let partitions = topic.partitions().iter().map(|partition| partition.id());
                found.insert(topic.name().to_owned(), partitions.collect());
            }
        }
        if found.len() == before && pattern.is_none() && !found.contains_key(wanted) {
            return Err(format!(
                "topic {wanted} (source.topics) does not exist, or the route's user may not see it"
            ));
        }
    }
    match found.is_empty() {
        true => Err(format!(
            "no topic matches source.topics = {}",
            wanted.join(", ")
        )),
        false => Ok(found),
    }
}

/// Reads the end of each partition, `tail` offsets long. One topic at a time: the end of a partition is reported without its
/// topic. `false` where the time is over.
fn read_topic(
    consumer: &Asking,
    topic: &str,
    partitions: &[i32],
    tail: i64,
    deadline: Instant,
    kept: &mut Kept,
) -> Result<bool, KafkaError> {
    let mut list = TopicPartitionList::new();
    // Where reading ends in each partition that is still to be read.
    let mut ends = BTreeMap::new();
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, *partition, PATIENCE)?;
        if low < high {
            let from = Offset::Offset(low.max(high - tail));
            list.add_partition_offset(topic, *partition, from)?;
            ends.insert(*partition, high);
        }
    }
    consumer.assign(&list)?;
    while !ends.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        match consumer.poll(left.min(Duration::from_millis(200))) {
            None => {}
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let end = ends.get(&partition).copied().unwrap_or(i64::MIN);
                if offset < end {
                    kept.take(&message);
                }
                if offset + 1 >= end {
                    ends.remove(&partition);
                }
            }
            // Also where the last records are marks of transactions, or belong to one that is open.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            // librdkafka connects again by itself; the deadline bounds it.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            ))) => {}
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(true)
}

/// The latest events so far.
struct Kept {
    count: usize,
    /// By timestamp, then by the order in which they were read.
    records: BTreeMap<(i64, u64), OwnedRecord>,
    taken: u64,
    bytes: usize,
    remark: Option<String>,
}

impl Kept {
    fn new(count: usize) -> Kept {
        Kept {
            count,
            records: BTreeMap::new(),
            taken: 0,
            bytes: 0,
            remark: None,
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let timestamp = message.timestamp().to_millis();
        let place = (timestamp.unwrap_or(i64::MIN), self.taken);
        self.taken += 1;
        let full = self.records.len() >= self.count;
        if full
            && self
                .records
                .first_key_value()
                .is_some_and(|(first, _)| place < *first)
        {
            return;
        }
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = headers(message);
        let has_bad_header = headers.is_none();
        let headers = headers
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), owned(value)));
        let record = OwnedRecord {
            value: owned(message.payload()),
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp,
            key: owned(message.key()),
            headers: NamedValues(headers.collect()),
            has_bad_header,
        };
        self.bytes += size(&record);
        self.records.insert(place, record);
        while self.records.len() > self.count || (self.bytes > MOST_BYTES && self.records.len() > 1)
        {
            if self.records.len() <= self.count {
                self.remark = Some(format!(
                    "more than {} MiB of events: the oldest of them are left out",
                    MOST_BYTES >> 20
                ));
            }
            if let Some((_, dropped)) = self.records.pop_first() {
                self.bytes -= size(&dropped);
            }
        }
    }

    fn finish(self) -> Latest {
        Latest {
            records: self.records.into_values().collect(),
            remark: self.remark,
        }
    }
}

fn size(record: &OwnedRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = &record.headers.0;
    let headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + length(value))
        .sum();
    length(&record.value) + length(&record.key) + headers
}
