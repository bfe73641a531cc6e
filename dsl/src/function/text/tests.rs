use proptest::prelude::*;
use serde_json::json;

use super::super::tests::{ask, fails, refused, refuses, yields};

#[test]
fn case_and_white_space() {
    let event = r#"{"s": "\t Straße ÉTÉ\u00a0\n"}"#;
    yields(
        "lower(s)",
        event,
        r#""\t straße été\u00a0\n""#.replace("\\u00a0", "\u{a0}").as_str(),
    );
    yields("upper(trim(s))", event, r#""STRASSE ÉTÉ""#);
    yields("trim('')", event, r#""""#);
}

#[test]
fn pieces_of_a_text() {
    let event = r#"{"s": "a,b,,c", "e": "\u0061\ud83d\ude00b"}"#;
    yields("split(s, ',')", event, r#"["a","b","","c"]"#);
    yields("split(s, ';')", event, r#"["a,b,,c"]"#);
    yields("split('', ',')", event, r#"[""]"#);
    yields("replace(s, ',', ', ')", event, r#""a, b, , c""#);
    yields("replace(s, ',', '')", event, r#""abc""#);
    yields(
        "[substring(s, `2`), substring(s, `-1`), substring(s, `1`, `3`)]",
        event,
        r#"["b,,c","c",",b"]"#,
    );
    yields(
        "[substring(e, `1`, `2`), substring(e, `0`, `-1`), substring(e, `5`), substring(e, `2`, `1`)]",
        event,
        r#"["😀","a😀","",""]"#,
    );
    yields(
        "substring(e, `-9223372036854775808`, `9223372036854775807`)",
        event,
        r#""a😀b""#,
    );
}

#[test]
fn nothing_can_be_looked_for_in_nothing() {
    refuses("split(a, '')", 10, "argument 2: it is empty");
    refuses("replace(a, '', 'x')", 12, "argument 2: it is empty");
    fails(
        "split(a, b)",
        r#"{"a": "x", "b": ""}"#,
        "split: argument 2: it is empty",
    );
}

#[test]
fn regular_expressions() {
    let event = r#"{"path": "/users/4711/plays", "p": "[0-9]+", "bad": "secret(", "n": 9}"#;
    yields("regex_match(path, '^/users/\\d+/')", event, "true");
    yields("regex_match(path, '^users')", event, "false");
    yields("regex_extract(path, '[0-9]+')", event, r#""4711""#);
    yields(
        "regex_extract(path, '/users/(\\d+)/(\\w+)')",
        event,
        r#""4711""#,
    );
    yields(
        "regex_extract(path, '/users/(\\d+)/(\\w+)', `2`)",
        event,
        r#""plays""#,
    );
    yields(
        "regex_extract(path, '/users/(\\d+)/(\\w+)', `0`)",
        event,
        r#""/users/4711/plays""#,
    );
    yields(
        "regex_extract(path, '/(?P<what>\\w+)$', 'what')",
        event,
        r#""plays""#,
    );
    yields(
        "[regex_extract(path, 'x(y)'), regex_extract(path, 'users|x(y)')]",
        event,
        "[null,null]",
    );
    // A pattern of the event is compiled for it; the reason does not tell it.
    yields(
        "[regex_match(path, p), regex_extract(path, p)]",
        event,
        r#"[true,"4711"]"#,
    );
    fails(
        "regex_match(path, bad)",
        event,
        "regex_match: argument 2: it is no regular expression: unclosed group",
    );
    fails(
        "regex_extract(path, p, n)",
        event,
        "regex_extract: argument 3: the regular expression has the groups 0 to 0",
    );
}

#[test]
fn a_bad_pattern_is_found_when_it_is_compiled() {
    refuses(
        "regex_match(a, '(x')",
        16,
        "argument 2: it is no regular expression: unclosed group",
    );
    refuses(
        "regex_match(a, 'x(?=y)')",
        16,
        "argument 2: it is no regular expression: look-around, including look-ahead and look-behind, is not supported",
    );
    refuses(
        "regex_extract(a, '(x)', `2`)",
        25,
        "argument 3: the regular expression has the groups 0 to 1",
    );
    refuses(
        "regex_extract(a, '(x)', 'y')",
        25,
        "argument 3: the regular expression has no group of this name",
    );
    let error = refused("regex_match(a, '((a{99}){99}){99}')");
    assert!(
        error.message.contains("takes more than 1048576 bytes"),
        "{error}"
    );
    assert!(
        error.to_string().contains("\n                   ^"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn what_is_split_is_joined_again(text in "[ab,é]{0,12}") {
        let event = json!({ "s": text }).to_string();
        prop_assert_eq!(ask("join(',', split(s, ','))", &event), Ok(json!(text).to_string()));
    }

    /// A substring is what a slice is of the list of characters.
    #[test]
    fn a_substring_is_a_slice(text in "[aé😀]{0,6}", start in -8_i32..8, stop in -8_i32..8) {
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let event = json!({ "s": text, "l": chars }).to_string();
        let found = ask(&format!("substring(s, `{start}`, `{stop}`) == join('', l[{start}:{stop}])"), &event);
        prop_assert_eq!(found, Ok("true".to_owned()));
    }
}
