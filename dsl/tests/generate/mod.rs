//! Generated expressions and events. Few names and values, so that expressions meet what they name, each in several
//! spellings.

#![allow(dead_code, reason = "each test uses some of the generators")]

use proptest::prelude::*;
fn scalar() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "1.0",
        "10e-1",
        "2",
        "-3",
        "0.5",
        "0.30000000000000004",
        "0.3",
        "100",
        "1E+2",
        "9007199254740992",
        r#""""#,
        r#""a""#,
        r#""\u0061""#,
        r#""ab""#,
        r#""b""#,
        r#""2""#,
        r#"" 1.5 ""#,
        r#""é""#,
        r#""\u00e9\n""#,
        r#""\ud83d\ude00""#,
        r#""😀""#,
        r#""\"\\\/""#,
        r#""\u0000""#,
    ])
    .prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        r#""a""#,
        r#""b""#,
        r#""c""#,
        r#""\u0061""#,
        r#""é""#,
        r#""""#,
    ])
    .prop_map(str::to_owned)
}

fn space() -> impl Strategy<Value = String> + Clone {
    prop::sample::select(vec!["", "", "", " ", "\n\t", "\r\n "]).prop_map(str::to_owned)
}

fn json() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            (
                prop::collection::vec((inner.clone(), space()), 0..5),
                space()
            )
                .prop_map(|(items, space)| {
                    let items: Vec<_> = items
                        .into_iter()
                        .map(|(item, space)| format!("{space}{item}"))
                        .collect();
                    format!("[{}{space}]", items.join(","))
                }),
            (
                prop::collection::vec((key(), inner, space()), 0..6),
                space()
            )
                .prop_map(|(members, space)| {
                    let members: Vec<_> = members
                        .into_iter()
                        .map(|(key, value, s)| format!("{key}{s}:{value}{s}"))
                        .collect();
                    format!("{{{space}{}}}", members.join(","))
                }),
        ]
    })
}

pub(crate) fn event() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (json(), json(), json()).prop_map(|(a, b, c)| format!(r#"{{"a":{a},"b":[{b},{c}],"c":{{"a":{c},"b":{a}}}}}"#)),
        1 => json(),
    ]
}

/// Of two operands. One that is written out and no number has no order, which is an error of the expression: it is wrapped.
fn comparison(operand: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = String> {
    fn ordered(operand: String) -> String {
        let is_number = |json: &str| json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        match operand.strip_prefix('`') {
            Some(json) if is_number(json) => operand,
            None if !operand.starts_with('\'') => operand,
            _ => format!("not_null({operand})"),
        }
    }
    prop_oneof![
        (operand.clone(), "(==|!=)", operand.clone())
            .prop_map(|(a, operator, b)| format!("({a}) {operator} ({b})")),
        (operand.clone(), "(<|<=|>|>=)", operand).prop_map(|(a, operator, b)| format!(
            "({}) {operator} ({})",
            ordered(a),
            ordered(b)
        )),
    ]
}

pub(crate) fn expression() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec![
        "@",
        "a",
        "b",
        "c",
        "c.a",
        "c.b",
        "b[0]",
        "b[-1]",
        "\"\\u0061\"",
        "\"\\u00e9\"",
        "*",
        "b[*]",
        "c.*",
        "missing",
    ])
    .prop_map(str::to_owned);
    let literal = prop_oneof![
        scalar().prop_map(|json| format!("`{json}`")),
        Just("'a'".to_owned()),
        Just("`[1, \"a\", 2.0]`".to_owned()),
        Just("`{\"a\": 1, \"b\": [2]}`".to_owned()),
    ];
    prop_oneof![4 => path, 1 => literal].prop_recursive(4, 24, 4, |inner| {
        let pair = || (inner.clone(), inner.clone());
        let one = "(abs|ceil|floor|length|keys|values|max|min|reverse|sort|sum|avg|to_array|to_number|type|not_null|merge)";
        let two = "(contains|starts_with|ends_with|join|not_null|merge)";
        prop_oneof![
            pair().prop_map(|(a, b)| format!("({a}) || {b}")),
            pair().prop_map(|(a, b)| format!("{a} && ({b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            comparison(inner.clone()),
            pair().prop_map(|(a, b)| format!("({a}) | {b}")),
            pair().prop_map(|(a, b)| format!("[{a}, {b}]")),
            pair().prop_map(|(a, b)| format!("{{z: {a}, a: {b}}}")),
            (inner.clone(), "(a|b|c|\\*|\\[a, b\\]|\\{x: a, y: @\\})").prop_map(|(a, step)| format!("({a}).{step}")),
            (inner.clone(), "\\[(0|1|-1|-2|\\*|:|1:|:1|-2:|::2|::-1|3:0:-2|:-1)\\](\\.a|\\[0\\]|)")
                .prop_map(|(a, step)| format!("({a}){step}")),
            (inner.clone(), "\\[\\](\\.a|\\[0\\]|)").prop_map(|(a, step)| format!("({a}){step}")),
            (inner.clone(), inner.clone(), "(\\.a|\\[0\\]|)").prop_map(|(a, test, step)| format!("({a})[?{test}]{step}")),
            (one, inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            (two, inner.clone(), inner.clone()).prop_map(|(function, a, b)| format!("{function}({a}, {b})")),
            pair().prop_map(|(by, a)| format!("map(&{by}, {a})")),
            ("(sort_by|min_by|max_by)", inner.clone(), inner.clone()).prop_map(|(f, a, by)| format!("{f}({a}, &{by})")),
            inner.clone().prop_map(|a| format!("sort_by(({a})[?type(@) == 'number'], &@)")),
            inner.prop_map(|a| format!("max(({a})[?type(@) == 'string'])")),
        ]
    })
}

/// With the functions that JMESPath doesn't have.
pub(crate) fn own_expression() -> impl Strategy<Value = String> {
    let own = || own_call(expression(), expression());
    prop_oneof![
        2 => expression(),
        2 => own(),
        1 => own_call(own(), own()),
        1 => (own(), expression()).prop_map(|(a, b)| format!("({a}) | {b}")),
        1 => (expression(), own()).prop_map(|(a, b)| format!("({a})[*].[{b}]")),
    ]
    .prop_filter("nested too deep", |text| is_shallow(text))
}

/// Of each `parse_json` so deep a result is expected that four after each other are refused.
fn is_shallow(expression: &str) -> bool {
    expression.matches("parse_json").count() < 4
}

/// A call of a function that JMESPath doesn't have. A literal of the wrong type would be an error of the expression, so
/// those that may be are wrapped: then it is the event's.
fn own_call(
    a: impl Strategy<Value = String>,
    b: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let call = prop::sample::select(vec![
        "lower(T)",
        "upper(T)",
        "trim(T)",
        "trim(X)",
        "split(T, 'a')",
        "split(T, Y)",
        "replace(T, 'a', U)",
        "substring(T, `1`)",
        "substring(X, `-2`, `1`)",
        "substring(T, Y)",
        "regex_match(T, '^(a|1)')",
        "regex_extract(T, '([a-z0-9]+)$')",
        "regex_extract(X, T)",
        "sha256(T)",
        "mask(T)",
        "mask(T, `2`)",
        "truncate(X, `1`)",
        "truncate(T, Y)",
        "ip_prefix(X)",
        "ip_prefix(join('', ['192.0.2.', T]))",
        "pick(X, 'a', 'b')",
        "pick(c, 'a', T)",
        "omit(X, 'a')",
        "omit(@, 'b', T)",
        "rename(X, {a: 'b', c: T})",
        "rename(@, {b: 'z', a: 'a'})",
        "flatten(X)",
        "flatten(@, '_')",
        "set(X, 'a', Y)",
        "set(@, 'c.z', Y)",
        "set({a: X}, 'a.b', Y)",
        "parse_json(T)",
        "parse_json(X)",
        "to_json(X)",
        "parse_json(to_json(X))",
        "drop_nulls(X)",
        "drop_nulls({a: X, b: [Y, {c: X}]})",
        "if(X, Y, X)",
        "if(X == Y, a, abs(Y))",
        "if(X, abs(X), lower(Y))",
        "if(!X, {a: Y}, {b: X})",
        "if(@, c, X).a",
        "(X) | if(a, b, @)",
        "between(X, Y, X)",
        "between(T, 'a', U)",
        "between(to_number(T), `0`, `2`)",
        "one_of(X, Y, `1`, 'a')",
        "convert_time(X, 'seconds', 'rfc3339')",
        "convert_time(T, 'rfc3339', 'millis')",
        "meta('topic')",
        "meta('offset')",
        "header('none')",
        "header(X)",
    ]);
    (call, a, b).prop_map(|(call, a, b)| {
        let mut text = String::new();
        for letter in call.chars() {
            match letter {
                'X' => text.push_str(&format!("not_null({a})")),
                'Y' => text.push_str(&format!("not_null({b})")),
                'T' => text.push_str(&format!("to_string({a})")),
                'U' => text.push_str(&format!("to_string({b})")),
                other => text.push(other),
            }
        }
        text
    })
}

pub(crate) fn token_soup() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a", "b", "\"c\"", "'s'", "`1`", "@", "*", ".", "[", "]", "[]", "[?", "{", "}", "(", ")",
        ",", ":", "&&", "||", "|", "!", "==", "<", "&", "0", "-1", "type", "length", " ",
    ]);
    prop::collection::vec(token, 1..10).prop_map(|tokens| tokens.concat())
}

/// Fields, indices, comparisons, logic, pipes and functions of one value: what runs compiled.
pub(crate) fn path_expression() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec![
        "a",
        "b",
        "\"a b\"",
        "longer_than_eight",
        "longer_than_nine",
    ]);
    let index = prop::sample::select(vec!["[0]", "[1]", "[-1]", "[-2]", "[7]"]);
    let path = (step.clone(), prop::collection::vec(prop_oneof![3 => step.prop_map(|s| format!(".{s}")), 2 => index.prop_map(str::to_owned)], 0..3))
        .prop_map(|(first, rest)| format!("{first}{}", rest.concat()));
    let literal = prop_oneof![
        scalar().prop_map(|json| format!("`{json}`")),
        Just("'a'".to_owned()),
        Just("`[1, \"a\"]`".to_owned())
    ];
    let leaf = prop_oneof![6 => path, 2 => literal, 1 => Just("@".to_owned()), 1 => Just("[0]".to_owned())];
    leaf.prop_recursive(4, 16, 3, |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            pair().prop_map(|(a, b)| format!("({a}) || {b}")),
            pair().prop_map(|(a, b)| format!("{a} && ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            comparison(inner.clone()),
            pair().prop_map(|(a, b)| format!("({a}) | ({b})")),
            pair().prop_map(|(a, b)| format!("({a}) | [{b}, a, {b}]")),
            pair().prop_map(|(a, b)| format!("{{z: {a}, \"a b\": {b}, m: [{a}]}}")),
            (
                inner.clone(),
                "(length|type|to_number|to_string|not_null|keys|abs)"
            )
                .prop_map(|(a, function)| format!("{function}({a})")),
            // Never of the wrong type.
            (inner.clone(), "(length|to_number)")
                .prop_map(|(a, function)| format!("{function}(to_string({a}))")),
            (
                inner.clone(),
                inner.clone(),
                "(starts_with|ends_with|contains)"
            )
                .prop_map(|(a, b, function)| format!("{function}(to_string({a}), to_string({b}))")),
            (pair(), "(contains|not_null|starts_with)")
                .prop_map(|((a, b), function)| format!("{function}({a}, {b})")),
            own_call(inner.clone(), inner.clone()),
            inner.prop_map(|a| format!("({a})[*]")),
        ]
    })
    .prop_filter("nested too deep", |text| is_shallow(text))
}

/// An object whose keys are repeated, spelt in other ways, nested in each other, or of the same beginning and length.
pub(crate) fn odd_event() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "a",
        "a",
        "b",
        "\\u0061",
        "a b",
        "a\\u0020b",
        "longer_than_eight",
        "longer_than_nine",
        "longer_th\\u0061n_nine",
        "longer_than_night",
        "c",
        "",
    ]);
    let key = (key, space()).prop_map(|(key, space)| format!("\"{key}\"{space}"));
    let long = prop::sample::select(vec![
        "\"sixteen bytes in\"",
        "\"more than sixteen bytes in it\"",
        "\"é and \\\"quotes\\\" and \\ud83d\\ude00, all in one\"",
        "12345678901234567890",
        "-1234567890.1234567890e-5",
        "[ ]",
        "{ }",
        "{\"a\":1,\"a\":2}",
        "\"0123456789abcde\\n\"",
    ])
    .prop_map(str::to_owned);
    let value = prop_oneof![3 => scalar(), 1 => long].prop_recursive(4, 24, 5, move |inner| {
        let inner = (space(), inner, space())
            .prop_map(|(before, inner, after)| format!("{before}{inner}{after}"));
        let items = prop::collection::vec(inner.clone(), 0..4)
            .prop_map(|items| format!("[{}]", items.join(",")));
        let members = prop::collection::vec((key.clone(), inner), 0..5);
        prop_oneof![items, members.prop_map(object)]
    });
    let key = prop::sample::select(vec![
        "\"a\"",
        "\"b\"",
        "\"\\u0062\"",
        "\"a b\"",
        "\"longer_than_eight\"",
        "\"longer_than_nine\"",
    ]);
    prop_oneof![
        8 => prop::collection::vec((key.prop_map(str::to_owned), value.clone()), 0..8).prop_map(object),
        1 => value,
    ]
}

fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// One byte put in, taken out, changed, or all from one on.
pub(crate) fn damaged(event: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"\"\\{}[],:-0e. \n\0\xff".to_vec()),
        any::<u8>()
    ];
    (event, any::<prop::sample::Index>(), byte, 0..4).prop_map(|(event, place, byte, how)| {
        let mut bytes = event.into_bytes();
        let at = place.index(bytes.len());
        match how {
            0 => bytes.insert(at, byte),
            1 => drop(bytes.remove(at)),
            2 => bytes[at] = byte,
            _ => bytes.truncate(at),
        }
        bytes
    })
}

/// Small pieces that make payloads which are nearly JSON.
pub(crate) fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"",
        "\\u00",
        "\\ud83d",
        "\\ude00",
        "\\",
        "é",
        "1",
        "-",
        "0",
        ".",
        "e",
        "true",
        "false",
        "nul",
        "null",
        " ",
        "\n",
        "0123456789abcdef",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// The same event with other scalars in the places of its own, keys aside; how many, and which, as `scalars` says.
pub(crate) fn with_scalars(event: &str, scalars: &[String]) -> String {
    let mut out = String::new();
    let (mut rest, mut next) = (event, scalars.iter().cycle());
    while let Some(first) = rest.chars().next() {
        let is_between = "{}[]:, \n\r\t".contains(first);
        let length = match first {
            '"' => string_length(rest),
            _ if is_between => 1,
            _ => rest
                .find([',', ']', '}', ' ', '\n', '\r', '\t'])
                .unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        let is_key = first == '"' && after.trim_start().starts_with(':');
        match next.next() {
            Some(scalar) if !is_key && !is_between => out.push_str(scalar),
            _ => out.push_str(token),
        }
        rest = after;
    }
    out
}

/// Bytes of the string that the text begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = true;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 1)
}

pub(crate) fn scalars() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(scalar(), 1..8)
}
