//! A name that serde_json keeps for itself: the object `{"$serde_json::private::Number": "12.5"}` in a payload becomes the number 12.5 where a
//! value is made of it. An event that has it is no row: nobody could tell which of the two it meant.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memmem};

const NAME: &str = "$serde_json::private::";

/// Whether an object in JSON text has the name, in plain letters or with some of them escaped. A text may mention it.
pub(super) fn is_in(json: &[u8]) -> bool {
    let is_mentioned = |json: &[u8]| memmem::find(json, NAME.as_bytes()).is_some();
    (is_mentioned(json) || is_mentioned(&unescaped(json))) && is_key_of(json)
}

/// The same, slowly.
fn is_key_of(json: &[u8]) -> bool {
    let mut at = 0;
    while let Some(begin) = memchr(b'"', &json[at..]) {
        let start = at + begin;
        let Some(end) = end_of_string(json, start + 1) else {
            return false;
        };
        at = end;
        let is_key = json[end..].trim_ascii_start().starts_with(b":");
        if is_key && is_name(&json[start..end]) {
            return true;
        }
    }
    false
}

/// Behind the closing quote of a string whose characters begin here.
fn end_of_string(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        match json[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

fn is_name(string: &[u8]) -> bool {
    let name = serde_json::from_slice::<String>(string);
    name.is_ok_and(|name| name.starts_with(NAME))
}

/// With ASCII characters in the place of their escapes `\u00..`; nothing where there is none.
fn unescaped(json: &[u8]) -> Cow<'_, [u8]> {
    let ascii = |at: usize| {
        let digits = std::str::from_utf8(json.get(at + 4..at + 6)?).ok()?;
        let code = u8::from_str_radix(digits, 16).ok()?;
        code.is_ascii().then_some(code)
    };
    let mut out = Vec::new();
    let mut start = 0;
    for at in memmem::find_iter(json, b"\\u00") {
        if let Some(code) = ascii(at) {
            out.extend_from_slice(&json[start..at]);
            out.push(code);
            start = at + 6;
        }
    }
    match start {
        0 => Cow::Borrowed(&[]),
        _ => {
            out.extend_from_slice(&json[start..]);
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn the_name_is_found_however_it_is_written() {
        for json in [
            r#"{"$serde_json::private::Number":"12.5"}"#,
            r#"[{"\u0024serde_json::private::Number":"12.5"}]"#,
            r#"{"$serde\u005fjson\u003a:privat\u0065::RawValue":"1"}"#,
            "{\"a\\\\\":\"\\\"\",\"b\":{\"$serde_json::private::Number\"\n :\"1\"}}",
        ] {
            assert!(is_in(json.as_bytes()), "{json}");
        }
        for json in [
            "",
            "{}",
            r#"{"a":"\u00e9\u0026","b":"$serde_json"}"#,
            r#"{"a":"\u00"#,
            r#"{"a":"$serde_json::private::Number"}"#,
            r#"{"a":"\u0024serde_json::private::Number","b":1}"#,
            r#"{"a":"{\"$serde_json::private::Number\":\"1\"}"}"#,
            r#"["$serde_json::private::Number",":"]"#,
            r#"{"a\"$serde_json::private::Number":1}"#,
            r#"{"\\u0024serde_json::private::Number":1}"#,
            r#"{"a":"\"$serde_json::private::Number\"#,
        ] {
            assert!(!is_in(json.as_bytes()), "{json}");
        }
    }
}
