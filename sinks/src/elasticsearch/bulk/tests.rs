use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use super::*;
use crate::{BatchBuilder, BatchId, RecordMeta};

pub(crate) fn plan(index: &str, id: &str, op: Op) -> Plan {
    let mut fields = Fields::default();
    let index = Template::parse(index, &mut fields).unwrap();
    let id = match id {
        "auto" => Id::Auto,
        "offset" => Id::Offset,
        path => Id::Field(fields.slot(path).unwrap()),
    };
    Plan {
        index,
        id,
        op,
        later_wins: false,
        fields,
    }
}

/// Events of partition 3 of `t`, offsets from 100.
pub(crate) fn batch<'a>(payloads: impl IntoIterator<Item = Option<&'a [u8]>>) -> Batch {
    let topic: Arc<str> = "t".into();
    let mut builder = BatchBuilder::default();
    for (at, payload) in payloads.into_iter().enumerate() {
        let offset = 100 + at as i64;
        let claim = builder.claim(&topic, 3, 1, offset);
        let meta = RecordMeta {
            offset,
            timestamp: None,
            key: None,
        };
        builder.keep(claim, meta, payload, std::iter::empty());
    }
    builder.finish(BatchId::new(1))
}

pub(crate) fn texts(payloads: &[&str]) -> Batch {
    batch(payloads.iter().map(|payload| Some(payload.as_bytes())))
}

fn body(payloads: &[&str], plan: &Plan) -> (String, Vec<Rejected>) {
    let request = encode(&texts(payloads), plan);
    (String::from_utf8(request.body).unwrap(), request.rejected)
}

#[test]
fn where_later_events_win_the_offset_is_the_version() {
    let plan = Plan {
        later_wins: true,
        ..plan("events", "a", Op::Index)
    };
    let (text, rejected) = body(&[r#"{"a":"x"}"#], &plan);
    assert_eq!(
        text,
        "{\"index\":{\"_index\":\"events\",\"_id\":\"x\",\"version\":100,\"version_type\":\"external\"}}\n{\"a\":\"x\"}\n"
    );
    assert!(rejected.is_empty());
}

#[test]
fn an_event_is_an_action_line_and_a_document_line() {
    let (text, rejected) = body(
        &[r#"{"a":1}"#, r#"{"a":2}"#],
        &plan("events", "offset", Op::Create),
    );
    assert_eq!(
        text,
        "{\"create\":{\"_index\":\"events\",\"_id\":\"t-3-100\"}}\n{\"a\":1}\n\
         {\"create\":{\"_index\":\"events\",\"_id\":\"t-3-101\"}}\n{\"a\":2}\n"
    );
    assert!(rejected.is_empty());

    let (text, _) = body(&[r#"{"a":1}"#], &plan("events", "auto", Op::Index));
    assert_eq!(text, "{\"index\":{\"_index\":\"events\"}}\n{\"a\":1}\n");
}

#[test]
fn names_and_ids_from_fields_are_escaped() {
    let payload = r#"{"user":{"id":"a\"b\nc"},"no":12345678901234567890123,"ts":1795431906}"#;
    let (text, rejected) = body(&[payload], &plan("e-{ts:%Y.%m}", "user.id", Op::Index));
    assert_eq!(rejected, []);
    assert!(
        text.starts_with(r#"{"index":{"_index":"e-2026.11","_id":"a\"b\nc"}}"#),
        "{text}"
    );
    let (text, _) = body(&[payload], &plan("e", "no", Op::Index));
    assert!(
        text.contains(r#""_id":"12345678901234567890123""#),
        "{text}"
    );
}

#[test]
fn pretty_printed_json_goes_on_one_line() {
    let (text, _) = body(
        &["\r\n {\r\n  \"a\": \"x\\ny\"\n}\n"],
        &plan("e", "auto", Op::Create),
    );
    assert_eq!(
        text,
        "{\"create\":{\"_index\":\"e\"}}\n   {    \"a\": \"x\\ny\" } \n"
    );
}

#[test]
fn what_elasticsearch_can_never_take_is_rejected_here_with_the_reason() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(513));
    let cases = [
        ("e", "auto", "42", "JSON objects only, and the event is 42"),
        ("e", "auto", " [{}]", "JSON objects only"),
        ("e", "auto", "", "JSON objects only"),
        ("e", "auto", "\"{}\"", "JSON objects only"),
        (
            "e",
            "id",
            "{}",
            "no id can be made for the event: it has no field \"id\"",
        ),
        (
            "e",
            "id",
            r#"{"id":""}"#,
            "its field \"id\" is an empty text",
        ),
        (
            "e",
            "id",
            r#"{"id":[1]}"#,
            "its field \"id\" is [1], not a text or a number",
        ),
        ("e", "id", &long, "its id has 513 bytes, more than the 512"),
        (
            "e-{x}",
            "auto",
            "{}",
            "no index name can be made for the event: it has no field \"x\"",
        ),
        (
            "e-{x}",
            "auto",
            r#"{"x":"Acme"}"#,
            "its index name \"e-Acme\" has upper-case letters",
        ),
        (
            "e-{x}",
            "auto",
            r#"{"x":"a/b"}"#,
            "its index name \"e-a/b\" holds '/'",
        ),
        ("{x}", "auto", r#"{"x":"_all"}"#, "begins with"),
        ("{x}", "auto", r#"{"x":".security"}"#, "begins with a dot"),
        (
            "e-{x:%Y}",
            "auto",
            r#"{"x":"soon"}"#,
            "its field \"x\" is \"soon\", not an RFC 3339",
        ),
        ("e-{x}", "auto", r#"{"x":1"#, "its fields can't be read: "),
    ];
    for (index, id, payload, expected) in cases {
        let plan = plan(index, id, Op::Create);
        // A good event beside it goes its way.
        let good = r#"{"id":"1","x":"2026-11-23"}"#;
        let request = encode(&texts(&[good, payload, good]), &plan);
        let sent: Vec<usize> = request.sent.iter().map(|sent| sent.index).collect();
        assert_eq!(sent, [0, 2], "{payload}");
        assert_eq!(request.rejected.len(), 1);
        assert_eq!(request.rejected[0].index, 1);
        let reason = &request.rejected[0].reason;
        assert!(reason.contains(expected), "{reason}");
        assert!(reason.len() < 400);
        assert_eq!(
            request.body.iter().filter(|byte| **byte == b'\n').count(),
            4
        );
    }
    let request = encode(&batch([None]), &plan("e", "auto", Op::Create));
    assert!(request.rejected[0].reason.starts_with("a tombstone"));
    assert!(request.body.is_empty());
}

#[test]
fn index_names_follow_elasticsearchs_rules() {
    for good in ["a", "a.b-c_d+1", ".hidden", "ä", "1", &"x".repeat(255)] {
        assert_eq!(check_index(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "-a",
        "_a",
        "+a",
        "A",
        "Ä",
        "a b",
        "a,b",
        "a#",
        "a:b",
        "a\\",
        "a/b",
        "a*",
        "a?",
        "a\"",
        "<a>",
        "a|b",
        "a\n",
        &"x".repeat(256),
    ] {
        assert!(check_index(bad).is_err(), "{bad}");
    }
}

/// Objects in any layout: white space of every kind between tokens, texts with every character.
fn document(
    named: impl Strategy<Value = Option<(Value, Value)>>,
) -> impl Strategy<Value = (Value, String)> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\n\\r\"\\\\{}\\u2028\\u0000 ]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let object = prop::collection::hash_map(any::<String>(), value, 0..4);
    (object, named, any::<bool>(), "[ \\t\\r\\n]{0,4}").prop_map(
        |(object, named, pretty, space)| {
            let mut object: Value = object.into_iter().collect::<Map<_, _>>().into();
            if let Some((id, name)) = named {
                object["id"] = id;
                object["name"] = name;
            }
            let text = if pretty {
                let unix = serde_json::to_string_pretty(&object).unwrap();
                // Raw line breaks are only between tokens here.
                unix.replace('\n', "\r\n")
            } else {
                object.to_string()
            };
            (object, format!("{space}{text}{space}"))
        },
    )
}

/// What a name and an id can be made of, and what not.
fn named() -> impl Strategy<Value = Option<(Value, Value)>> {
    let id = prop_oneof![
        4 => any::<String>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let name = prop_oneof![
        8 => "[a-z0-9.]{1,8}".prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ];
    prop::option::weighted(0.9, (id, name))
}

/// Whatever the payloads: two lines for each event that is sent, each line JSON, the document unchanged in meaning.
#[test]
fn the_body_stays_well_formed() {
    // Of those by a field alone.
    let (ids, names) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::default();
    let ways = (
        prop_oneof![Just("auto"), Just("offset"), Just("id")],
        prop_oneof![Just("e"), Just("e-{name}")],
    );
    let inputs = (prop::collection::vec(document(named()), 0..6), ways);
    let result = runner.run(&inputs, |(documents, (id, index))| {
        let payloads: Vec<&str> = documents.iter().map(|(_, text)| text.as_str()).collect();
        let request = encode(&texts(&payloads), &plan(index, id, Op::Create));
        prop_assert_eq!(request.sent.len() + request.rejected.len(), documents.len());
        let text = String::from_utf8(request.body.clone()).unwrap();
        prop_assert!(text.is_empty() || text.ends_with('\n'));
        let lines: Vec<&str> = text.split('\n').collect();
        prop_assert_eq!(lines.len(), 2 * request.sent.len() + 1);
        for (sent, pair) in request.sent.iter().zip(lines.chunks(2)) {
            let (value, _) = &documents[sent.index];
            let action: Value = serde_json::from_str(pair[0]).unwrap();
            prop_assert_eq!(action["create"]["_id"].as_str(), request.id(sent));
            let document: Value = serde_json::from_str(pair[1]).unwrap();
            prop_assert_eq!(&document, value);
            if id == "id" {
                let expected = match &value["id"] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                prop_assert_eq!(request.id(sent), Some(expected.as_str()));
                ids.set(ids.get() + 1);
            }
            if index != "e" {
                let expected = format!("e-{}", value["name"].as_str().unwrap());
                prop_assert_eq!(action["create"]["_index"].as_str(), Some(expected.as_str()));
                names.set(names.get() + 1);
            }
        }
        Ok(())
    });
    result.unwrap();
    assert!(ids.get() > 0 && names.get() > 0, "{ids:?} {names:?}");
}

proptest! {
    /// Bytes that are no JSON at all break no other event's lines.
    #[test]
    fn raw_bytes_stay_on_their_line(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let batch = batch(payloads.iter().map(|payload| Some(payload.as_slice())));
        let request = encode(&batch, &plan("e", "offset", Op::Index));
        let breaks = request.body.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(breaks, 2 * request.sent.len());
    }
}
