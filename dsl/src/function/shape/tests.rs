use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::tests::{ask, fails, refuses, yields};

#[test]
fn members_are_picked_and_omitted() {
    let event = r#"{"id": 1.0, "user": "\u0061", "\u0074mp": null, "n": [1]}"#;
    // In the order of the object, whatever the order of the names; what passes keeps its digits and escapes.
    yields(
        "pick(@, 'n', 'id', 'missing')",
        event,
        r#"{"id":1.0,"n":[1]}"#,
    );
    yields("pick(@, 'tmp', user)", event, r#"{"\u0074mp":null}"#);
    yields(
        "omit(@, 'tmp', 'n', 'missing')",
        event,
        r#"{"id":1.0,"user":"\u0061"}"#,
    );
    yields("omit(pick(@, 'id'), 'id')", event, "{}");
}

#[test]
fn members_are_renamed() {
    let event = r#"{"a": 1, "b": 2, "c": 3}"#;
    yields("rename(@, {a: 'x'})", event, r#"{"x":1,"b":2,"c":3}"#);
    yields("rename(@, {missing: 'x'})", event, r#"{"a":1,"b":2,"c":3}"#);
    // All at once, so two names can be exchanged.
    yields(
        "rename(@, {a: 'b', b: 'a'})",
        event,
        r#"{"b":1,"a":2,"c":3}"#,
    );
    // What is renamed replaces what has the name.
    yields("rename(@, {a: 'c'})", event, r#"{"c":1,"b":2}"#);
    yields("rename(@, {c: 'a'})", event, r#"{"b":2,"a":3}"#);
    yields("rename(@, {a: 'x', c: 'x'})", event, r#"{"x":3,"b":2}"#);
    yields("rename(@, {\"a\": 'a'})", event, r#"{"a":1,"b":2,"c":3}"#);
    fails(
        "rename(@, {a: b})",
        event,
        "rename: argument 2 has a member that is a number, expected new names as strings",
    );
}

#[test]
fn objects_inside_an_object_are_flattened_by_one_level() {
    let event = r#"{"id": 1, "labels": {"host": "a", "os": {"name": "x"}}, "empty": {}, "list": [{"a": 1}]}"#;
    yields(
        "flatten(@)",
        event,
        r#"{"id":1,"labels.host":"a","labels.os":{"name":"x"},"empty":{},"list":[{"a":1}]}"#,
    );
    yields(
        "flatten(labels, '_')",
        event,
        r#"{"host":"a","os_name":"x"}"#,
    );
    // Of names that meet, the last counts.
    yields("flatten(@)", r#"{"a": {"b": 1}, "a.b": 2}"#, r#"{"a.b":2}"#);
}

#[test]
fn a_value_is_set_at_a_path() {
    let event = r#"{"id": 1, "labels": {"host": "a", "n": null}, "s": "x", "l": [1]}"#;
    yields("set(@, 'id', `2`) | pick(@, 'id')", event, r#"{"id":2}"#);
    yields(
        "set(@, 'labels.host', upper(labels.host)).labels",
        event,
        r#"{"host":"A","n":null}"#,
    );
    yields(
        "set(@, 'labels.n.x.y', id).labels",
        event,
        r#"{"host":"a","n":{"x":{"y":1}}}"#,
    );
    yields("set(`{}`, 'a.b', [id])", event, r#"{"a":{"b":[1]}}"#);
    yields(
        "set(`{\"a.b\": 1}`, [\"s\", 'a.b'], `2`)",
        event,
        r#"{"a.b":1,"x":{"a.b":2}}"#,
    );
    fails(
        "set(@, 's.x', id)",
        event,
        "set: argument 1 has a string on the path, expected an object or nothing",
    );
    fails(
        "set(@, 'l.x', id)",
        event,
        "set: argument 1 has an array on the path, expected an object or nothing",
    );
    let rule = "argument 2: a path is made of names such as 'labels.host', none of them empty";
    for path in ["''", "'a..b'", "'a.'", "`[]`", "`[\"a\", \"\"]`"] {
        refuses(&format!("set(@, {path}, id)"), 8, rule);
    }
    fails("set(@, labels.e || '', id)", event, &format!("set: {rule}"));
    refuses(
        &format!("set(@, '{}', id)", ["a"; 33].join(".")),
        8,
        "argument 2: a path has at most 32 names",
    );
}

#[test]
fn json_inside_text() {
    let event = r#"{"message": "{\"a\": [1.50, \"\\u0061\"], \"b\": 1, \"b\": 2}", "bad": "{\"a\": secret", "deep": "[[1]]"}"#;
    yields("parse_json(message)", event, r#"{"a":[1.50,"a"],"b":2}"#);
    yields("parse_json(message).a[0]", event, "1.50");
    yields(
        "to_json(parse_json(message))",
        event,
        r#""{\"a\":[1.50,\"a\"],\"b\":2}""#,
    );
    // Unlike to_string, which leaves text as it is.
    yields("[to_json('x'), to_string('x')]", event, r#"["\"x\"","x"]"#);
    fails(
        "parse_json(bad)",
        event,
        "parse_json: argument 1 is a string that is not JSON: unexpected 's' where a value was expected at its byte 6",
    );
    fails(
        "parse_json('')",
        event,
        "parse_json: argument 1 is a string that is not JSON: it ends where a value was expected at its byte 0",
    );
}

#[test]
fn nulls_are_dropped_at_every_depth_but_not_from_lists() {
    let event = r#"{"a": null, "b": [null, {"c": null, "d": 0}], "e": {"f": null}, "g": false}"#;
    yields(
        "drop_nulls(@)",
        event,
        r#"{"b":[null,{"d":0}],"e":{},"g":false}"#,
    );
    yields("[drop_nulls(a), drop_nulls(`1`)]", event, "[null,1]");
}

#[test]
fn one_branch_alone_is_evaluated() {
    let event = r#"{"a": 1, "s": "x"}"#;
    yields("if(a == `1`, 'one', 'other')", event, r#""one""#);
    yields("if(missing, 'one', if(s, s, a))", event, r#""x""#);
    // The other would fail, whose place is told once.
    yields(
        "[if(type(a) == 'string', upper(a), to_string(a)), if(`true`, a, abs(s))]",
        event,
        r#"["1",1]"#,
    );
    assert_eq!(
        ask("if(a, abs(s), a)", event).unwrap_err(),
        "abs: argument 1 is a string, expected a number (line 1, column 7)"
    );
    yields("map(&if(@ > `1`, @, `0`), `[1, 2]`)", event, "[0,2]");
}

#[test]
fn ranges_and_choices() {
    let event = r#"{"n": 9007199254740993, "s": "b", "level": "\u0065rror"}"#;
    yields(
        "[between(n, `9007199254740993`, `9007199254740993`), between(n, `0`, `9007199254740992`)]",
        event,
        "[true,false]",
    );
    yields(
        "[between(s, 'a', 'b'), between(s, 'c', 'a'), between('é', 'e', 'z')]",
        event,
        "[true,false,false]",
    );
    fails(
        "between(n, `0`, s)",
        event,
        "between: argument 3 is a string, expected a number like argument 1",
    );
    fails(
        "between(missing, `0`, `1`)",
        event,
        "between: argument 1 is null, expected a number or a string",
    );
    yields(
        "[one_of(level, 'warn', 'error'), one_of(level, 'warn'), one_of(n, `[1]`, `9007199254740993`)]",
        event,
        "[true,false,true]",
    );
    yields("one_of(missing, 'a', missing)", event, "true");
}

/// JSON with nulls in it, nested a little.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(false)),
        (0..9).prop_map(|n| json!(n)),
        Just(json!("s"))
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

fn computed(expression: &str, event: &Value) -> Value {
    serde_json::from_str(&ask(expression, &event.to_string()).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn drop_nulls_is_a_recursion_and_does_nothing_twice(event in value()) {
        let once = computed("drop_nulls(@)", &event);
        prop_assert_eq!(&once, &without_nulls(&event));
        prop_assert_eq!(&computed("drop_nulls(@)", &once), &once);
    }

    #[test]
    fn json_that_is_written_is_read_again(event in value()) {
        prop_assert_eq!(&computed("parse_json(to_json(@))", &event), &event);
    }

    #[test]
    fn flatten_keeps_every_member_of_a_member(event in proptest::collection::btree_map("[a-d]", value(), 0..4)) {
        let mut expected = Map::new();
        for (outer, value) in &event {
            match value.as_object().filter(|members| !members.is_empty()) {
                Some(members) => expected.extend(members.iter().map(|(inner, value)| (format!("{outer}.{inner}"), value.clone()))),
                None => {
                    expected.insert(outer.clone(), value.clone());
                }
            }
        }
        prop_assert_eq!(computed("flatten(@)", &json!(event)), Value::from(expected));
    }

    #[test]
    fn what_is_picked_and_what_is_omitted_make_the_whole(event in proptest::collection::btree_map("[a-d]", value(), 0..4)) {
        let event = json!(event);
        prop_assert_eq!(&computed("merge(pick(@, 'a', 'c'), omit(@, 'a', 'c'))", &event), &event);
        prop_assert_eq!(computed("pick(omit(@, 'a', 'c'), 'a', 'c')", &event), json!({}));
    }

    #[test]
    fn what_is_set_is_found_and_the_rest_stays(event in proptest::collection::btree_map("[a-d]", 0..9, 0..4), name in "[a-d]") {
        let event = json!(event);
        let found = computed(&format!("set(@, 'x.{name}', `[1]`)"), &event);
        prop_assert_eq!(&found["x"][&name], &json!([1]));
        prop_assert_eq!(&computed("omit(@, 'x')", &found), &event);
    }
}
