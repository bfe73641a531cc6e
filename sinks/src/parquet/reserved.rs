//! A name that serde_json keeps for itself: the object `{"$serde_json::private::Number": "12.5"}` in a payload becomes the number 12.5 where a
//! value is made of it. An event that has it is no row: nobody could tell which of the two it meant.

use std::borrow::Cow;

use memchr::memmem;

const NAME: &[u8] = b"$serde_json::private::";

/// Whether JSON text has the name, in plain letters or with some of them escaped.
pub(super) fn is_in(json: &[u8]) -> bool {
    memmem::find(json, NAME).is_some() || memmem::find(&unescaped(json), NAME).is_some()
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
        ] {
            assert!(is_in(json.as_bytes()), "{json}");
        }
        for json in [
            "",
            "{}",
            r#"{"a":"\u00e9\u0026","b":"$serde_json"}"#,
            r#"{"a":"\u00"#,
        ] {
            assert!(!is_in(json.as_bytes()), "{json}");
        }
    }
}
