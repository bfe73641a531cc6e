//! Records as lines of JSON: how a route's test cases and `keystone eval --verdicts` write what goes in and what comes out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keystone_sinks::Stage;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::trial::{NamedValues, OwnedRecord};

/// The only member of a line that describes a record, where another line is the event itself.
const RECORD: &str = "$record";

/// What a line says of a record. A value is JSON, text, or any bytes in base64; without one the record is a tombstone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    text: Option<String>,
    base64: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// Milliseconds since the epoch.
    timestamp: Option<i64>,
    key: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
}

/// `null` is a value, too.
fn present<'d, D: serde::Deserializer<'d>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// Reads a line of input over what holds where it says nothing.
pub(super) fn read_input(line: &[u8], default: OwnedRecord) -> Result<OwnedRecord, String> {
    let Some(described) = described(line)? else {
        return Ok(OwnedRecord {
            value: Some(line.to_vec()),
            ..default
        });
    };
    let value = match (described.value, described.text, described.base64) {
        (None, None, None) => None,
        (Some(value), None, None) => Some(value.to_string().into_bytes()),
        (None, Some(text), None) => Some(text.into_bytes()),
        (None, None, Some(base64)) => {
            let bytes = BASE64.decode(base64);
            Some(bytes.map_err(|error| format!("{RECORD}: base64: {error}"))?)
        }
        _ => {
            return Err(format!(
                "{RECORD}: it has more than one of value, text and base64"
            ));
        }
    };
    let headers = described
        .headers
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, Some(text.into_bytes()))),
            Value::Null => Ok((name, None)),
            _ => Err(format!(
                "{RECORD}: headers: {name}: the value is neither a text nor null"
            )),
        });
    Ok(OwnedRecord {
        value,
        topic: described.topic.unwrap_or(default.topic),
        partition: described.partition.unwrap_or(default.partition),
        offset: described.offset.unwrap_or(default.offset),
        timestamp: described.timestamp.or(default.timestamp),
        key: described.key.map(String::into_bytes).or(default.key),
        headers: NamedValues(headers.collect::<Result<_, _>>()?),
        has_bad_header: false,
    })
}

/// The description of a record, where the line is one.
fn described(line: &[u8]) -> Result<Option<Described>, String> {
    // Another line is taken as it is, whatever it holds.
    let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else {
        return Ok(None);
    };
    if members.len() != 1 {
        return Ok(None);
    }
    let Some(record) = members.remove(RECORD) else {
        return Ok(None);
    };
    let read = serde_json::from_value(record);
    read.map(Some).map_err(|error| format!("{RECORD}: {error}"))
}

/// What a sink would be given, as a line: the event itself where it can stand there, else a description.
pub(super) fn delivered(payload: Option<&[u8]>) -> Value {
    let members = value_members(payload);
    match members.get("value") {
        Some(value) if described(value.to_string().as_bytes()).is_ok_and(|it| it.is_none()) => {
            value.clone()
        }
        _ => json!({ RECORD: members }),
    }
}

/// A dead letter as a line: stage, reason and the value as it was read.
pub(super) fn dead_letter(stage: Stage, reason: &str, payload: Option<&[u8]>) -> Value {
    let mut members = Map::new();
    members.insert("stage".to_owned(), stage.as_str().into());
    members.insert("reason".to_owned(), reason.into());
    members.extend(value_members(payload));
    Value::Object(members)
}

/// The value of a record: as JSON, text, or base64; nothing for a tombstone.
pub(super) fn value_members(payload: Option<&[u8]>) -> Map<String, Value> {
    let Some(payload) = payload else {
        return Map::new();
    };
    let (name, value) = match (
        serde_json::from_slice(payload),
        std::str::from_utf8(payload),
    ) {
        (Ok(value), _) => ("value", value),
        (Err(_), Ok(text)) => ("text", text.into()),
        (Err(_), Err(_)) => ("base64", BASE64.encode(payload).into()),
    };
    Map::from_iter([(name.to_owned(), value)])
}

/// The lines of a file that are not blank, with their numbers from 1.
pub(super) fn numbered(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines
        .map(|(index, line)| (index + 1, line.strip_suffix(b"\r").unwrap_or(line)))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<OwnedRecord, String> {
        let default = OwnedRecord {
            topic: "events".to_owned(),
            offset: 4,
            ..OwnedRecord::default()
        };
        read_input(line.as_bytes(), default)
    }

    #[test]
    fn a_line_is_the_event_itself_or_describes_a_record() {
        for bare in [
            "{\"a\": 1.0}",
            "not JSON",
            "[\"$record\"]",
            "{\"$record\":{},\"a\":1}",
            "{\"$record\"",
        ] {
            let record = read(bare).unwrap();
            assert_eq!(record.value.as_deref(), Some(bare.as_bytes()));
            assert_eq!((record.topic.as_str(), record.offset), ("events", 4));
        }
        let line = r#"{"$record": {"topic": "t", "partition": 3, "offset": 9, "timestamp": 1795431906000, "key": "k",
            "headers": {"a": "1", "b": null}, "value": {"n": 1.00}}}"#;
        let record = read(line).unwrap();
        assert_eq!(record.value.as_deref(), Some(&b"{\"n\":1.00}"[..]));
        assert_eq!(
            (record.topic.as_str(), record.partition, record.offset),
            ("t", 3, 9)
        );
        assert_eq!(
            (record.timestamp, record.key),
            (Some(1_795_431_906_000), Some(b"k".to_vec()))
        );
        assert_eq!(
            record.headers.0,
            [
                ("a".to_owned(), Some(b"1".to_vec())),
                ("b".to_owned(), None)
            ]
        );
        let value = |line| read(line).unwrap().value;
        assert_eq!(value(r#"{"$record":{}}"#), None);
        assert_eq!(
            value(r#"{"$record":{"value":null}}"#),
            Some(b"null".to_vec())
        );
        assert_eq!(value(r#"{"$record":{"text":""}}"#), Some(Vec::new()));
        assert_eq!(
            value(r#"{"$record":{"base64":"/wA="}}"#),
            Some(vec![0xff, 0])
        );
    }

    #[test]
    fn a_mistake_in_a_description_is_named() {
        for (line, words) in [
            (r#"{"$record":{"valu":1}}"#, "unknown field `valu`"),
            (r#"{"$record":7}"#, "invalid type"),
            (r#"{"$record":{"value":1,"text":""}}"#, "more than one of"),
            (r#"{"$record":{"base64":"?"}}"#, "base64: "),
            (r#"{"$record":{"headers":{"a":1}}}"#, "headers: a: "),
        ] {
            let error = read(line).unwrap_err();
            assert!(
                error.starts_with("$record: ") && error.contains(words),
                "{error}"
            );
        }
    }

    #[test]
    fn what_comes_out_can_be_read_again() {
        for payload in [
            Some(&b"{\"a\": [1.0, 12345678901234567890123]}"[..]),
            Some(b"null"),
            Some(b"not JSON \n"),
            Some(b""),
            Some(b"\xff"),
            Some(br#"{"$record":{}}"#),
            Some(br#"{"$record":7}"#),
            None,
        ] {
            let line = delivered(payload).to_string();
            assert!(!line.contains('\n'));
            let again = read(&line).unwrap().value;
            let meaning = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            let same = again.as_deref() == payload
                || again.as_deref().and_then(meaning) == payload.and_then(meaning);
            assert!(same, "{payload:?} became {line}");
        }
        assert_eq!(
            dead_letter(Stage::Decode, "why", Some(b"x")).to_string(),
            r#"{"stage":"decode","reason":"why","text":"x"}"#
        );
    }
}
