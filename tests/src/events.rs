//! Makes events, and tells what a route must deliver of them.
//!
//! Every event follows from the seed and its number alone, so what is expected is worked out again at any time, in plain Rust, by nothing
//! that the project itself uses to filter and project. An event has 600 to 620 bytes and looks like what a player of films sends:
//!
//! ```json
//! {"id":"…","type":"play","ts":"2026-11-23T10:00:00.000Z","user":{"id":8123456789012345678,…},"content":{"title":"…",…},
//!  "geo":{"country":"DE",…},"duration_ms":41233,…}
//! ```
//!
//! [`FILTER`] keeps one in six. Titles hold quotes, backslashes, line breaks and letters beyond ASCII; user ids go beyond 2^53.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::{Error, Result};

/// Keeps one event in six.
pub const FILTER: &str = "type == 'play' && duration_ms > `30000`";
/// Five fields.
pub const PROJECTION: &str = "{event_id: id, user: user.id, title: content.title, country: geo.country, duration_ms: duration_ms}";
/// The same and the event's time, for tables that are partitioned by it.
pub const PROJECTION_WITH_TIME: &str = "{event_id: id, user: user.id, title: content.title, country: geo.country, duration_ms: duration_ms, ts: ts}";
/// The columns of a table of [`PROJECTION`].
pub const COLUMNS: &str =
    "event_id string, user bigint, title string, country string, duration_ms bigint";
/// The columns of a table of [`PROJECTION_WITH_TIME`].
pub const COLUMNS_WITH_TIME: &str =
    "event_id string, user bigint, title string, country string, duration_ms bigint, ts string";

const TYPES: [&str; 4] = ["pause", "seek", "search", "like"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "BR", "IN", "JP", "NG", "AU"];
const CITIES: [&str; 8] = [
    "Köln",
    "Paris",
    "Austin",
    "São Paulo",
    "Pune",
    "東京",
    "Lagos",
    "Perth",
];
/// As they stand between the quotes of JSON.
const TITLES: [&str; 8] = [
    "The Long Way Home",
    "Das Boot \\\"Director's Cut\\\"",
    "Amélie",
    "七人の侍",
    "C:\\\\Windows",
    "Line one\\nline two",
    "Комиссар",
    "😀 Smile / Frown",
];
/// 2026-11-23T10:00:00Z.
const BASE_MS: i64 = 1_795_428_000_000;
const PRODUCE: Duration = Duration::from_secs(300);
/// Milliseconds, for full batches.
const LINGER: u32 = 20;
/// The most records of a batch where nothing else is said: what librdkafka does by default.
pub const BATCH_RECORDS: u32 = 10_000;

/// A reproducible sequence of events.
#[derive(Debug, Clone)]
pub struct Events {
    seed: u64,
    count: u64,
    partitions: i32,
    base_ms: i64,
    span: Duration,
}

/// What one event holds, drawn from the seed and its number.
struct Drawn {
    id: String,
    kind: &'static str,
    user: u64,
    title: String,
    country: usize,
    duration_ms: u64,
    ts: String,
    bits: u64,
}

impl Events {
    /// `count` events over 8 partitions, their times over the two hours from 2026-11-23T10:00Z.
    pub fn new(seed: u64, count: u64) -> Events {
        Events {
            seed,
            count,
            partitions: 8,
            base_ms: BASE_MS,
            span: Duration::from_secs(7200),
        }
    }

    pub fn partitions(mut self, partitions: i32) -> Events {
        self.partitions = partitions;
        self
    }

    /// The times of the events: from `base_ms` (milliseconds since the epoch) evenly over `span`.
    pub fn times(mut self, base_ms: i64, span: Duration) -> Events {
        self.base_ms = base_ms;
        self.span = span;
        self
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The partition that event `number` is sent to.
    pub fn partition(&self, number: u64) -> i32 {
        (number % self.partitions as u64) as i32
    }

    /// Event `number` (from 0) as JSON.
    pub fn event(&self, number: u64) -> String {
        let Drawn {
            id,
            kind,
            user,
            title,
            country,
            duration_ms,
            ts,
            bits,
        } = self.draw(number);
        let (land, city) = (COUNTRIES[country], CITIES[country]);
        let mut json = format!(
            r#"{{"id":"{id}","type":"{kind}","ts":"{ts}","user":{{"id":{user},"plan":"premium","age":{},"tags":["a","b{}"]}},"#,
            18 + bits % 60,
            bits % 7,
        );
        let _ = write!(
            json,
            r#""content":{{"id":"c-{:08x}","title":"{title}","kind":"film","season":null,"rating":{}.{}}},"#,
            bits as u32,
            bits % 5,
            bits % 10,
        );
        let _ = write!(
            json,
            r#""geo":{{"country":"{land}","city":"{city}","lat":{}.25,"lon":-{}.5}},"duration_ms":{duration_ms},"#,
            bits % 90,
            bits % 180,
        );
        let _ = write!(
            json,
            r#""device":{{"os":"tvOS","version":"18.{}","hdr":{},"model":"AppleTV14,1"}},"net":{{"kbps":{},"isp":"AS{}"}},"trace":""#,
            bits % 6,
            bits.is_multiple_of(2),
            1000 + bits % 50_000,
            bits % 65_536,
        );
        // Filled up to 600 to 620 bytes, the closing quote and brace included.
        let length = 598 + (bits % 21) as usize;
        let mut state = bits;
        while json.len() < length {
            state = mixed(state);
            json.push(char::from_digit((state % 16) as u32, 16).expect("a digit of base 16"));
        }
        json.push_str("\"}");
        json
    }

    /// The id of event `number`.
    pub fn id(&self, number: u64) -> String {
        let bits = mixed(self.seed ^ mixed(number));
        format!(
            "{:08x}-{number:012}-{:08x}",
            bits as u32,
            (bits >> 32) as u32
        )
    }

    /// What [`FILTER`] and [`PROJECTION`] make of each event they keep: its id and the exact JSON.
    pub fn expected(&self) -> HashMap<String, String> {
        self.expected_in(0..self.count)
    }

    /// [`Events::expected`] of some of the events.
    pub fn expected_in(&self, numbers: std::ops::Range<u64>) -> HashMap<String, String> {
        numbers
            .filter_map(|number| self.kept(number))
            .map(|drawn| (drawn.id.clone(), five_fields(&drawn) + "}"))
            .collect()
    }

    /// What [`FILTER`] and [`PROJECTION_WITH_TIME`] make of each event they keep.
    pub fn expected_with_time(&self) -> HashMap<String, String> {
        self.expected_with_time_in(0..self.count)
    }

    /// [`Events::expected_with_time`] of some of the events.
    pub fn expected_with_time_in(&self, numbers: std::ops::Range<u64>) -> HashMap<String, String> {
        let json = |drawn: &Drawn| format!("{},\"ts\":\"{}\"}}", five_fields(drawn), drawn.ts);
        numbers
            .filter_map(|number| self.kept(number))
            .map(|drawn| (drawn.id.clone(), json(&drawn)))
            .collect()
    }

    /// All events whole, as a route without filter and projection delivers them.
    pub fn expected_whole(&self) -> HashMap<String, String> {
        (0..self.count)
            .map(|number| (self.id(number), self.event(number)))
            .collect()
    }

    /// Sends all events to a topic of at least as many partitions, with lz4, idempotently; returns when all are acknowledged. The key of
    /// a record is its event's id, its timestamp the time of sending.
    pub fn produce(&self, bootstrap: &str, topic: &str) -> Result<()> {
        self.produce_in(bootstrap, topic, 0..self.count)
    }

    /// [`Events::produce`] of some of the events.
    pub fn produce_in(
        &self,
        bootstrap: &str,
        topic: &str,
        numbers: std::ops::Range<u64>,
    ) -> Result<()> {
        let record = |number| Record {
            partition: self.partition(number),
            key: self.id(number),
            payload: self.event(number),
        };
        produce(bootstrap, topic, numbers.map(record))
    }

    fn kept(&self, number: u64) -> Option<Drawn> {
        let drawn = self.draw(number);
        (drawn.kind == "play" && drawn.duration_ms > 30_000).then_some(drawn)
    }

    fn draw(&self, number: u64) -> Drawn {
        let bits = mixed(self.seed ^ mixed(number));
        let more = mixed(bits);
        let offset = self.span.as_millis() as u64 * number / self.count.max(1);
        let time = DateTime::from_timestamp_millis(self.base_ms + offset as i64)
            .expect("a time that chrono can hold");
        Drawn {
            id: self.id(number),
            // Half are plays, and a third of those take longer than 30 s.
            kind: if more.is_multiple_of(2) {
                "play"
            } else {
                TYPES[(more >> 8) as usize % TYPES.len()]
            },
            user: 1 + (more >> 1) % 9_000_000_000_000_000_000,
            title: format!(
                "{} {}",
                TITLES[(bits >> 16) as usize % TITLES.len()],
                bits % 1000
            ),
            country: (bits >> 24) as usize % COUNTRIES.len(),
            duration_ms: 1 + mixed(more) % 45_000,
            ts: time.to_rfc3339_opts(SecondsFormat::Millis, true),
            bits,
        }
    }
}

/// The projection without its closing brace.
fn five_fields(drawn: &Drawn) -> String {
    let Drawn {
        id,
        user,
        title,
        duration_ms,
        ..
    } = drawn;
    let country = COUNTRIES[drawn.country];
    format!(
        r#"{{"event_id":"{id}","user":{user},"title":"{title}","country":"{country}","duration_ms":{duration_ms}"#
    )
}

/// A record to be produced.
pub struct Record {
    pub partition: i32,
    pub key: String,
    pub payload: String,
}

/// Hands a record to the producer; where its queue is full, as soon as there is room, until the deadline.
pub(crate) fn send<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &ThreadedProducer<C>,
    mut record: BaseRecord<'_, str, str>,
    deadline: Instant,
) -> KafkaResult<()> {
    while let Err((error, refused)) = producer.send(record) {
        let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        if !is_full || Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
        record = refused;
    }
    Ok(())
}

/// Sends records in their order, with lz4, idempotently; returns when all are acknowledged.
pub fn produce(bootstrap: &str, topic: &str, records: impl Iterator<Item = Record>) -> Result<()> {
    produce_in_batches(bootstrap, topic, BATCH_RECORDS, records)
}

/// [`produce`] with at most so many records in a batch.
pub fn produce_in_batches(
    bootstrap: &str,
    topic: &str,
    most: u32,
    records: impl Iterator<Item = Record>,
) -> Result<()> {
    let failures = Failures::default();
    let producer = producer(bootstrap, LINGER, most, failures.clone())?;
    let deadline = Instant::now() + PRODUCE;
    for record in records {
        let sent = BaseRecord::to(topic)
            .key(&*record.key)
            .payload(&*record.payload)
            .partition(record.partition);
        send(&producer, sent, deadline).map_err(|error| {
            Error::new(format!(
                "producing event {} to {topic}: {error}",
                record.key
            ))
        })?;
    }
    producer.flush(deadline.saturating_duration_since(Instant::now()))?;
    match failures.0.load(Ordering::SeqCst) {
        0 => Ok(()),
        count => Err(Error::new(format!(
            "Kafka did not take {count} events of {topic}"
        ))),
    }
}

/// SplitMix64: the next number of a sequence that looks random.
pub fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Text without a pattern, of letters and digits: compression can't halve it.
pub fn noise(seed: u64, length: usize) -> String {
    const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    let digit = |at| DIGITS[mixed(seed.wrapping_add(at)) as usize % DIGITS.len()];
    (0..length as u64).map(|at| char::from(digit(at))).collect()
}

/// Counts the records that were not acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Failures(pub(crate) Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A producer that repeats nothing and waits for all in-sync replicas; a record waits `linger` milliseconds for others, and `most`
/// of them make a batch.
pub(crate) fn producer(
    bootstrap: &str,
    linger: u32,
    most: u32,
    failures: Failures,
) -> Result<ThreadedProducer<Failures>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true");
    config
        .set("compression.type", "lz4")
        .set("linger.ms", linger.to_string())
        .set("batch.num.messages", most.to_string())
        .set("batch.size", "1000000");
    config
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "262144");
    config.set("message.timeout.ms", PRODUCE.as_millis().to_string());
    Ok(config.create_with_context(failures)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn events_are_valid_of_the_promised_length_and_reproducible() {
        let events = Events::new(7, 20_000);
        for number in 0..events.count() {
            let json = events.event(number);
            assert!(
                (600..=620).contains(&json.len()),
                "event {number} has {} bytes: {json}",
                json.len()
            );
            assert_eq!(json, events.event(number));
            let event: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(event["id"], Value::from(events.id(number)));
        }
        assert_ne!(events.event(1), Events::new(8, 20_000).event(1));
    }

    #[test]
    fn what_is_expected_is_what_the_fields_say() {
        let events = Events::new(7, 20_000);
        let (expected, with_time) = (events.expected(), events.expected_with_time());
        let mut kept = 0;
        for number in 0..events.count() {
            let event: Value = serde_json::from_str(&events.event(number)).unwrap();
            let id = event["id"].as_str().unwrap();
            if event["type"] != "play" || event["duration_ms"].as_u64().unwrap() <= 30_000 {
                assert!(!expected.contains_key(id));
                continue;
            }
            kept += 1;
            let mut projected = serde_json::Map::new();
            projected.insert("event_id".to_owned(), event["id"].clone());
            projected.insert("user".to_owned(), event["user"]["id"].clone());
            projected.insert("title".to_owned(), event["content"]["title"].clone());
            projected.insert("country".to_owned(), event["geo"]["country"].clone());
            projected.insert("duration_ms".to_owned(), event["duration_ms"].clone());
            assert_eq!(expected[id], serde_json::to_string(&projected).unwrap());
            projected.insert("ts".to_owned(), event["ts"].clone());
            assert_eq!(with_time[id], serde_json::to_string(&projected).unwrap());
        }
        assert_eq!(expected.len(), kept);
        assert!(
            (3_100..3_570).contains(&kept),
            "{kept} of 20,000 are kept, that is not one in six"
        );
    }

    #[test]
    fn times_spread_evenly_over_the_span() {
        let events = Events::new(1, 4).times(0, Duration::from_secs(4));
        let ts =
            |number| serde_json::from_str::<Value>(&events.event(number)).unwrap()["ts"].clone();
        assert_eq!(ts(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(ts(3), "1970-01-01T00:00:03.000Z");
    }
}
