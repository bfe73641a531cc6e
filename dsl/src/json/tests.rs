use proptest::prelude::*;

use super::*;

fn reason(payload: &[u8]) -> String {
    let error = check(payload, 128).expect_err(&String::from_utf8_lossy(payload));
    assert_eq!(error.stage, Stage::Decode);
    assert_eq!(read(payload, 128).unwrap_err(), error);
    error.reason
}

fn written(payload: &str) -> String {
    let mut out = Vec::new();
    read(payload.as_bytes(), 128)
        .unwrap()
        .write(usize::MAX, &mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_not_json_is_refused_with_the_place() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "the payload is empty"),
        (
            b" \n",
            "not JSON: it ends where a value was expected at byte 2",
        ),
        (
            b"{\"a\":1",
            "ends inside the object that begins at byte 0, at byte 6",
        ),
        (
            b"{\"a\":[1,",
            "ends inside the array that begins at byte 5, at byte 8",
        ),
        (
            b"{\"a\":\"xy",
            "ends inside the string that begins at byte 5, at byte 8",
        ),
        (
            b"{} {}",
            "unexpected '{' after the end of the value at byte 3",
        ),
        (
            b"1 x",
            "unexpected 'x' after the end of the value at byte 2",
        ),
        (
            b"{}\0",
            "unexpected '\\0' after the end of the value at byte 2",
        ),
        (
            b"[1,]",
            "unexpected ']' where a value was expected at byte 3",
        ),
        (
            b"[1 2]",
            "unexpected '2' where ',' or ']' was expected at byte 3",
        ),
        (
            b"{\"a\":1,}",
            "unexpected '}' where a key in double quotes was expected at byte 7",
        ),
        (
            b"{a:1}",
            "unexpected 'a' where a key in double quotes was expected at byte 1",
        ),
        (
            b"{\"a\" 1}",
            "unexpected '1' where ':' was expected at byte 5",
        ),
        (b"[}", "unexpected '}' where a value was expected at byte 1"),
        (
            b"[1}",
            "unexpected '}' where ',' or ']' was expected at byte 2",
        ),
        (b"nul", "it ends in 'null' at byte 3"),
        (b"truE", "unexpected 'E' in 'true' at byte 3"),
        (
            b"NaN",
            "unexpected 'N' where a value was expected at byte 0",
        ),
        (
            b"01",
            "unexpected '1' after a number's leading zero at byte 1",
        ),
        (b"+1", "unexpected '+'"),
        (b"-", "at byte 1"),
        (b".5", "unexpected '.'"),
        (b"1.", "at byte 2"),
        (b"1e+", "at byte 3"),
        (
            b"'a'",
            "unexpected '\\'' where a value was expected at byte 0",
        ),
        (
            b"\"a\x00b\"",
            "unexpected '\\0' in a string, where it must be escaped, at byte 2",
        ),
        (b"\"a\nb\"", "unexpected '\\n' in a string"),
        (b"\"\\x\"", "unexpected 'x' in an escape at byte 2"),
        (b"\"\\u12g4\"", "unexpected 'g' in a \\u escape at byte 5"),
        (b"\"\\ud800\"", "half a surrogate pair at byte 1"),
        (b"\"\\udc00\"", "half a surrogate pair at byte 1"),
        (b"\"\\ud800\\u0041\"", "half a surrogate pair at byte 1"),
        (b"\"\\ud800\\n\"", "half a surrogate pair at byte 1"),
        (b"{\"\\ud800\":1}", "half a surrogate pair at byte 2"),
        (b"\xef\xbb\xbf{}", "byte order mark at byte 0"),
        (
            b"{\"a\":\"\xff\"}",
            "not UTF-8: an invalid sequence at byte 6",
        ),
        (
            b"\"\xed\xa0\x80\"",
            "not UTF-8: an invalid sequence at byte 1",
        ),
        ("{\u{a0}}".as_bytes(), "unexpected '\\u{a0}'"),
    ];
    for (payload, expected) in cases {
        let reason = reason(payload);
        assert!(
            reason.contains(expected),
            "{}: {reason}",
            String::from_utf8_lossy(payload)
        );
    }
}

#[test]
fn what_goes_through_keeps_its_digits_escapes_and_order_but_not_its_white_space() {
    for same in [
        "12345678901234567890123",
        "1.0",
        "1e400",
        "-0",
        "0.1000",
        "1E+2",
        "-1.5e-3",
        "null",
        "true",
        "\"\"",
        r#""\u0061\/\ud83d\ude00\u0000""#,
        r#"{"z":1,"\u0061":[],"m":{}}"#,
        "[[],[{}],\"é\u{7f}\"]",
    ] {
        assert_eq!(written(same), same);
    }
    assert_eq!(written(" [ 1 , { \"a\" :\r\n 2 } ]\t"), "[1,{\"a\":2}]");
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    assert_eq!(
        written(r#"{"a":1,"b":2,"\u0061":3,"a":4}"#),
        r#"{"a":4,"b":2}"#
    );
    let many: Vec<_> = (0..50).map(|n| format!("\"{}\":{n}", n % 20)).collect();
    let last: Vec<_> = (0..20)
        .map(|n| format!("\"{n}\":{}", if n < 10 { n + 40 } else { n + 20 }))
        .collect();
    assert_eq!(
        written(&format!("{{{}}}", many.join(","))),
        format!("{{{}}}", last.join(","))
    );
}

#[test]
fn the_depth_is_limited_and_bounded() {
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    assert!(check(&nested(128), 128).is_ok());
    let deep = check(&nested(129), 128).unwrap_err();
    assert_eq!(deep.reason, "not JSON: nested deeper than 128 at byte 128");
    assert!(check(b"1", 0).is_ok() && check(b"[]", 0).is_err());
    for payload in [
        nested(100_000),
        b"[".repeat(100_000),
        b"{\"a\":".repeat(100_000),
    ] {
        assert!(check(&payload, 128).is_err() && read(&payload, usize::MAX).is_err());
    }
    assert!(read(&nested(MAX_DEPTH), usize::MAX).is_ok());
}

/// Small pieces that make nearly valid payloads.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\u00", "\\", "é", "1", "-", "0", ".", "e",
        "true", "nul", "null", " ", "\n",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    /// serde_json is an independent judge of what is JSON.
    #[test]
    fn accepts_what_serde_json_accepts(payload in prop_oneof![nearly_json(), prop::collection::vec(any::<u8>(), 0..8)]) {
        let ours = check(&payload, 100);
        let theirs = serde_json::from_slice::<serde_json::Value>(&payload);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        prop_assert_eq!(read(&payload, 100).is_ok(), ours.is_ok());
    }

    #[test]
    fn strings_are_decoded_as_serde_json_does(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for payload in [json, format!("\"{escaped}\"")] {
            let Value::String(found) = read(payload.as_bytes(), 1).unwrap() else { unreachable!() };
            prop_assert_eq!(found.as_str(), text.as_str());
            let mut out = Vec::new();
            Value::String(found).write_plain(usize::MAX, &mut out).unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.as_str());
        }
    }
}
