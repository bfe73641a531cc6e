use proptest::prelude::*;
use serde_json::Value as Json;

use super::{Broken, Hygiene, Rule, Rules};

fn compiled(rules: Rules<'_>) -> Hygiene {
    Hygiene::compile(&rules)
        .unwrap_or_else(|errors| panic!("{}", errors[0]))
        .expect("there is a rule")
}

/// What is delivered, or the reason why nothing is.
fn delivered(rules: Rules<'_>, event: &str) -> Result<String, String> {
    let mut out = b"before".to_vec();
    let changed = compiled(rules).apply(event.as_bytes(), &mut out);
    let out = String::from_utf8(out).unwrap();
    let appended = out.strip_prefix("before").unwrap();
    match changed {
        Ok(true) => Ok(appended.to_owned()),
        Ok(false) => {
            assert_eq!(appended, "");
            Ok(event.to_owned())
        }
        Err(Broken { reason, .. }) => {
            assert_eq!(appended, "");
            Err(reason)
        }
    }
}

#[test]
fn no_rule_is_no_hygiene() {
    assert!(Hygiene::compile(&Rules::default()).unwrap().is_none());
}

#[test]
fn required_fields() {
    let rules = Rules {
        required: Some("id, user.id,\"user-agent\".\"a b\""),
        ..Rules::default()
    };
    let good = r#"{ "id": 0, "user": {"id": ""}, "user-agent": {"a b": false} }"#;
    assert_eq!(delivered(rules, good).as_deref(), Ok(good));
    for (event, reason) in [
        (
            "{}",
            "hygiene.required: id is missing; hygiene.required: user.id is missing; \
             hygiene.required: \"user-agent\".\"a b\" is missing",
        ),
        (
            r#"{"id":null,"user":"u-7","user-agent":{"a b":[]}}"#,
            "hygiene.required: id is null; hygiene.required: user.id is missing: user is a string",
        ),
        (
            r#"{"id":1,"user":null,"user-agent":{"a b":1}}"#,
            "hygiene.required: user.id is missing",
        ),
    ] {
        assert_eq!(delivered(rules, event).unwrap_err(), reason);
    }
    let reason = delivered(rules, "[]").unwrap_err();
    assert!(
        reason.starts_with("hygiene.required: id is missing: the event is an array; "),
        "{reason}"
    );
    // A key counts by its meaning, and of a repeated key the last value.
    let event = r#"{"\u0069d":1,"user":{"id":null,"id":2},"user-agent":{"a b":1}}"#;
    assert_eq!(delivered(rules, event).as_deref(), Ok(event));
}

#[test]
fn types_of_fields() {
    let check = |word: &str, value: &str| {
        let types = format!("v: {word}");
        let rules = Rules {
            types: Some(&types),
            ..Rules::default()
        };
        delivered(rules, &format!("{{\"v\":{value}}}"))
            .err()
            .unwrap_or_default()
    };
    let good = [
        ("string", &["\"\"", "\"\\u0041\""][..]),
        (
            "integer",
            &["0", "-0", "-7", "123456789012345678901234567890"],
        ),
        ("number", &["0", "1.0", "1E400"]),
        ("boolean", &["true", "false"]),
        ("object", &["{}", "{\"a\":1}"]),
        ("array", &["[]", "[null]"]),
        (
            "timestamp",
            &[
                "\"2026-11-23T11:05:06Z\"",
                "\"2026-11-23T11:05:06.123+01:00\"",
                "\"2026-11-23T11:05:06\"",
                "\"2026-11-23 11:05:06.5\"",
                "\"2026-11-23\"",
                "\"2026-11-23T11\\u003a05:06Z\"",
                "1795431906",
                "1795431906000",
                "1795431906.5",
                "-1",
            ],
        ),
    ];
    for (word, values) in good {
        for value in values {
            assert_eq!(check(word, value), "", "{word} {value}");
        }
        assert_eq!(check(word, "null"), "", "{word} null");
    }
    for (word, value, reason) in [
        (
            "string",
            "1",
            "hygiene.types: v is a number, expected a string",
        ),
        (
            "integer",
            "1.0",
            "hygiene.types: v is a number with a fraction or an exponent, expected an integer",
        ),
        (
            "integer",
            "\"1\"",
            "hygiene.types: v is a string, expected an integer",
        ),
        (
            "number",
            "\"1\"",
            "hygiene.types: v is a string, expected a number",
        ),
        (
            "boolean",
            "{}",
            "hygiene.types: v is an object, expected a boolean",
        ),
        (
            "object",
            "[]",
            "hygiene.types: v is an array, expected an object",
        ),
        (
            "array",
            "true",
            "hygiene.types: v is a boolean, expected an array",
        ),
        (
            "timestamp",
            "\"yesterday\"",
            "hygiene.types: v is a string that is no time, expected a timestamp",
        ),
        (
            "timestamp",
            "1e300",
            "hygiene.types: v is a number beyond any time, expected a timestamp",
        ),
        (
            "timestamp",
            "[]",
            "hygiene.types: v is an array, expected a timestamp",
        ),
    ] {
        assert_eq!(check(word, value), reason);
    }
}

#[test]
fn an_absent_field_has_no_wrong_type() {
    let rules = Rules {
        types: Some("a.b : integer"),
        ..Rules::default()
    };
    for event in ["{}", "{\"a\":null}", "{\"a\":1}", "[]", "null", "7"] {
        assert_eq!(delivered(rules, event).as_deref(), Ok(event));
    }
}

#[test]
fn what_is_put_right_is_judged_afterwards() {
    let rules = Rules {
        required: Some("id"),
        max_event_bytes: Some(16),
        drop_nulls: true,
        trim_strings: true,
        ..Rules::default()
    };
    let event = r#"{ "id": " \u0041b\n", "gone": null, "n": [null, 1.0] }"#;
    assert_eq!(
        delivered(rules, event).unwrap_err(),
        "hygiene.max.event.bytes: the event has 26 bytes, at most 16 are allowed"
    );
    assert_eq!(
        delivered(rules, r#"{"id":"   x   ","a":null}"#).as_deref(),
        Ok(r#"{"id":"x"}"#)
    );
    let broken = compiled(rules)
        .apply(br#"{"a":"0123456789"}"#, &mut Vec::new())
        .unwrap_err();
    assert_eq!(broken.rules, [Rule::Required, Rule::MaxEventBytes]);
}

#[test]
fn what_is_not_touched_keeps_its_form() {
    let rules = Rules {
        drop_nulls: true,
        trim_strings: true,
        ..Rules::default()
    };
    // Nothing to do: byte for byte.
    let same = "{ \"a\" : [ 1.0, null, \"x\\u0020y\" ], \"a\":2 }\n";
    assert_eq!(delivered(rules, same).as_deref(), Ok(same));
    // Something to do: digits, escapes and order of the rest stay; keys are not trimmed, empty objects not dropped.
    let event = r#"{"z": 1.00, " k ": {"n": null}, "s": "\u00e9 ", "t": "\u00e9\/"}"#;
    assert_eq!(
        delivered(rules, event).as_deref(),
        Ok(r#"{"z":1.00," k ":{},"s":"é","t":"\u00e9\/"}"#)
    );
    assert_eq!(delivered(rules, "null").as_deref(), Ok("null"));
}

#[test]
fn bytes_are_counted_without_looking_into_the_event() {
    let rules = Rules {
        max_event_bytes: Some(8),
        ..Rules::default()
    };
    assert_eq!(delivered(rules, "not JSON").as_deref(), Ok("not JSON"));
    assert_eq!(
        delivered(rules, "not JSON!").unwrap_err(),
        "hygiene.max.event.bytes: the event has 9 bytes, at most 8 are allowed"
    );
}

#[test]
fn what_a_projection_nested_too_deep_is_broken_by_no_rule() {
    let hygiene = compiled(Rules {
        drop_nulls: true,
        ..Rules::default()
    });
    let event = [vec![b'['; 1001], vec![b']'; 1001]].concat();
    let broken = hygiene.apply(&event, &mut Vec::new()).unwrap_err();
    assert_eq!(broken.rules, []);
    assert!(
        broken.reason.contains("nested deeper than 1000"),
        "{broken:?}"
    );
}

#[test]
fn mistakes_in_the_lists_have_a_place_and_a_hint() {
    for (required, types, shown) in [
        (
            "a,,b",
            "a",
            &[
                "hygiene.required: unexpected ',' where a field was expected (line 1, column 3)",
                "hygiene.types: unexpected the end where ':' and a type were expected",
                "duration_ms: integer",
            ][..],
        ),
        (
            "a.",
            "a:int",
            &["there is no type 'int'", "integer, number"],
        ),
        (
            "user-agent",
            "a: integer b",
            &["double quotes", "unexpected 'b'"],
        ),
        ("tags[0]", "a:", &["inside a list", "a type was expected"]),
        ("\"a", "a:b:c", &["the closing \" is missing", "'b'"]),
        ("", "tags[]: array", &["where a field was expected"]),
    ] {
        let rules = Rules {
            required: Some(required),
            types: Some(types),
            ..Rules::default()
        };
        let errors = Hygiene::compile(&rules).unwrap_err();
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        assert_eq!(errors.len(), 2, "{text}");
        for words in shown {
            assert!(text.contains(words), "no {words} in {text}");
        }
    }
}

#[test]
fn each_field_has_one_type() {
    let rules = Rules {
        types: Some("a: string, b.c: integer, \"a\": string, b . c: number, c: array"),
        ..Rules::default()
    };
    let errors = Hygiene::compile(&rules).unwrap_err();
    let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert_eq!(errors.len(), 2, "{text}");
    for words in [
        "hygiene.types: the field \"a\" is named twice (line 1, column 26)",
        "the field b . c is named twice",
        "name each field once",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        (-9.0..9.0).prop_map(Json::from),
        "[ a\\n\u{a0}é\"\\\\]{0,4}".prop_map(Json::from),
        Just(Json::from("2026-11-23")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[abc ]", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<Json>()),
        ]
    })
}

/// The same rules, written the simple way.
fn naive(rules: Rules<'_>, event: &Json) -> Result<Json, Vec<Rule>> {
    fn clean(rules: Rules<'_>, value: &Json) -> Json {
        match value {
            Json::String(text) if rules.trim_strings => text.trim().into(),
            Json::Array(items) => items.iter().map(|item| clean(rules, item)).collect(),
            Json::Object(members) => members
                .iter()
                .filter(|(_, value)| !(rules.drop_nulls && value.is_null()))
                .map(|(key, value)| (key.clone(), clean(rules, value)))
                .collect(),
            other => other.clone(),
        }
    }
    let event = clean(rules, event);
    let at = |path: &str| event.pointer(&format!("/{}", path.trim().replace('.', "/")));
    let mut broken = Vec::new();
    for field in rules.required.unwrap_or_default().split_terminator(',') {
        if at(field).is_none_or(Json::is_null) {
            broken.push(Rule::Required);
        }
    }
    for field in rules.types.unwrap_or_default().split_terminator(',') {
        let (path, word) = field.split_once(':').unwrap();
        let fits = |value: &Json| match word {
            "string" => value.is_string(),
            "integer" => value.is_number() && !value.to_string().contains(['.', 'e']),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "array" => value.is_array(),
            _ => value.is_number() || value == "2026-11-23",
        };
        if at(path).is_some_and(|value| !value.is_null() && !fits(value)) {
            broken.push(Rule::Types);
        }
    }
    let bytes = serde_json::to_vec(&event).unwrap().len() as u64;
    if rules.max_event_bytes.is_some_and(|most| bytes > most) {
        broken.push(Rule::MaxEventBytes);
    }
    broken.dedup();
    if broken.is_empty() {
        Ok(event)
    } else {
        Err(broken)
    }
}

/// `pointer` would take a number for an index, and the paths of the tests hold none.
const PATHS: [&str; 5] = ["a", "b", "a.b", "a.b.c", "c.a"];
const WORDS: [&str; 7] = [
    "string",
    "integer",
    "number",
    "boolean",
    "object",
    "array",
    "timestamp",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_rules_do_what_they_say(
        event in json(),
        required in prop::collection::vec(prop::sample::select(&PATHS[..]), 0..3),
        types in prop::collection::btree_map(prop::sample::select(&PATHS[..]), prop::sample::select(&WORDS[..]), 0..3),
        max_event_bytes in prop::option::of(0_u64..80),
        drop_nulls in any::<bool>(),
        trim_strings in any::<bool>(),
        pretty in any::<bool>(),
    ) {
        let required = required.join(",");
        let types: Vec<_> = types.iter().map(|(path, word)| format!("{path}:{word}")).collect();
        let types = types.join(",");
        let text = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        let (required, types) = (text(&required), text(&types));
        let rules = Rules {
            required: required.as_deref(),
            types: types.as_deref(),
            // White space of the payload counts where nothing is put right, which the simple way does not know.
            max_event_bytes: max_event_bytes.filter(|_| !pretty),
            drop_nulls,
            trim_strings,
        };
        let payload = if pretty { serde_json::to_vec_pretty(&event) } else { serde_json::to_vec(&event) }.unwrap();
        let Some(hygiene) = Hygiene::compile(&rules).unwrap() else { return Ok(()) };
        let mut out = Vec::new();
        let found = hygiene.apply(&payload, &mut out);
        match (found, naive(rules, &event)) {
            (Ok(changed), Ok(expected)) => {
                let delivered = if changed { &out } else { &payload };
                prop_assert_eq!(serde_json::from_slice::<Json>(delivered).unwrap(), expected.clone());
                prop_assert_eq!(changed, expected != event);
                prop_assert!(changed || out.is_empty());
                // What was put right needs nothing more.
                let mut again = Vec::new();
                prop_assert_eq!(hygiene.apply(delivered, &mut again), Ok(false));
            }
            (Err(broken), Err(expected)) => {
                prop_assert_eq!(broken.rules, expected);
                prop_assert!(out.is_empty());
            }
            (found, expected) => prop_assert!(false, "found {:?}, expected {:?}", found, expected),
        }
    }
}
