//! Events whose size and number of fields are chosen, and what must come out of them.
//!
//! ```json
//! {"id":"000000000042","type":"play","duration_ms":31337,"f0":512,"f1":256,…,"x0":"<64 digits>",…,"pad":"<what is missing>"}
//! ```

use std::collections::HashMap;
use std::fmt::Write;

use keystone_tests::events::{self, Record, mixed};
use keystone_tests::{Kafka, Result};

/// `bits` decides what an event holds; one in six is kept.
const FILTER: &str = "type == 'play' && duration_ms > `30000`";
/// The shortest member that fills up: `,"pad":""`.
const PAD: usize = 9;
/// Digits in a member of filling.
const FILLING: usize = 64;

/// What all events of a topic have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Of each event.
    pub(super) bytes: usize,
    /// Fields `f0`, `f1`, … of three digits.
    pub(super) short: usize,
}

impl Shape {
    /// Event `number` (from 0) as JSON.
    pub(super) fn event(&self, number: u64) -> String {
        let bits = mixed(number);
        let (kind, duration_ms) = (kind(bits), duration_ms(bits));
        let mut json = format!(
            r#"{{"id":"{}","type":"{kind}","duration_ms":{duration_ms}"#,
            id(number)
        );
        for field in 0..self.short {
            // Writing to memory can't fail, here and below.
            let _ = write!(json, r#","f{field}":{}"#, value(bits, field));
        }
        let mut state = bits;
        for member in 0.. {
            let name = format!(r#","x{member}":""#);
            if json.len() + name.len() + FILLING + 1 + PAD + 1 > self.bytes {
                break;
            }
            json.push_str(&name);
            digits(&mut json, &mut state, FILLING);
            json.push('"');
        }
        json.push_str(r#","pad":""#);
        let missing = self.bytes.saturating_sub(json.len() + 2);
        digits(&mut json, &mut state, missing);
        json.push_str("\"}");
        json
    }

    /// Sends `count` events to a topic, to its partitions in turn: one each, or a batch of so many each.
    pub(super) fn produce(
        &self,
        kafka: &Kafka,
        topic: &str,
        partitions: i32,
        batch: Option<u32>,
        count: u64,
    ) -> Result<()> {
        let run = u64::from(batch.unwrap_or(1));
        let record = |number| Record {
            partition: (number / run % partitions as u64) as i32,
            key: id(number),
            payload: self.event(number),
        };
        let most = batch.unwrap_or(events::BATCH_RECORDS);
        let records = (0..count).map(record);
        events::produce_in_batches(&kafka.bootstrap(), topic, most, records)
    }
}

/// Keeps one event in six, after hashing a member of each event so often.
pub(super) fn filter(hashes: usize) -> String {
    match hashes {
        0 => FILTER.to_owned(),
        hashes => {
            let (open, close) = ("sha256(".repeat(hashes), ")".repeat(hashes));
            format!("{open}x0{close} != 'no hash' && {FILTER}")
        }
    }
}

/// A projection of this many fields: the id, and `f0` and on.
pub(super) fn projection(fields: usize) -> String {
    let mut text = "{event_id: id".to_owned();
    for field in 0..fields - 1 {
        let _ = write!(text, ", f{field}: f{field}");
    }
    text + "}"
}

/// What [`filter`] and [`projection`] make of the first `count` events, by id.
pub(super) fn expected(count: u64, fields: usize) -> HashMap<String, String> {
    let kept = |number: &u64| {
        let bits = mixed(*number);
        kind(bits) == "play" && duration_ms(bits) > 30_000
    };
    let projected = |number| {
        let mut json = format!(r#"{{"event_id":"{}""#, id(number));
        for field in 0..fields - 1 {
            let _ = write!(json, r#","f{field}":{}"#, value(mixed(number), field));
        }
        (id(number), json + "}")
    };
    (0..count).filter(kept).map(projected).collect()
}

fn id(number: u64) -> String {
    format!("{number:012}")
}

fn kind(bits: u64) -> &'static str {
    ["play", "seek", "like"][(bits % 3) as usize]
}

fn duration_ms(bits: u64) -> u64 {
    10_000 + (bits >> 8) % 40_000
}

fn value(bits: u64, field: usize) -> u64 {
    100 + mixed(bits ^ field as u64) % 900
}

fn digits(json: &mut String, state: &mut u64, count: usize) {
    let end = json.len() + count;
    while json.len() < end {
        *state = mixed(*state);
        let _ = write!(json, "{state:016x}");
    }
    json.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_of_the_size_asked_for() {
        for (bytes, short) in [(100, 4), (620, 4), (620, 49), (10_000, 4), (100_000, 4)] {
            let shape = Shape { bytes, short };
            for number in [0, 1, 2, 999_999] {
                let json = shape.event(number);
                assert_eq!(json.len(), bytes, "{json}");
                let members = json.matches("\":").count();
                assert!(json.ends_with("\"}") && members >= short + 4, "{json}");
            }
        }
    }

    #[test]
    fn one_in_six_is_expected_with_what_its_event_holds() {
        let expected = expected(6_000, 3);
        assert!((850..1_150).contains(&expected.len()), "{}", expected.len());
        let shape = Shape {
            bytes: 620,
            short: 4,
        };
        let number = (0..6_000).find(|number| expected.contains_key(&id(*number)));
        let event = shape.event(number.unwrap());
        assert!(event.contains(r#""type":"play""#));
        let projected = &expected[&id(number.unwrap())];
        let fields = projected.split_once(",").unwrap().1.trim_end_matches('}');
        assert!(event.contains(fields), "{event} lacks {fields}");
    }

    #[test]
    fn a_projection_has_as_many_fields_as_asked_for() {
        assert_eq!(projection(1), "{event_id: id}");
        assert_eq!(projection(3), "{event_id: id, f0: f0, f1: f1}");
    }
}
