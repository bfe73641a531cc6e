//! What a case expects beside what came of it: are they the same, and if not, where do they differ?
//!
//! Lines are compared as JSON: the order of keys, white space and escapes don't matter, the digits of numbers do (`1.0` is
//! not `1`), and so does the order of lines.

use std::fmt::Write as _;

use serde_json::Value;
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff, capture_diff_slices};

/// So many differences of a file are shown; a route gone wrong has thousands.
const SHOWN: usize = 10;
/// Lines around a difference inside an event.
const CONTEXT: usize = 3;

/// Whether a line is what was expected. In an expected dead letter, `reason` and the value may be left out.
pub(super) fn same_dead_letter(expected: &Value, found: &Value) -> bool {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
        return false;
    };
    expected.contains_key("stage")
        && expected
            .iter()
            .all(|(name, value)| found.get(name) == Some(value))
}

/// What differs, for a person; `None` where nothing does. `expected` is minus, `found` is plus.
pub(super) fn difference(
    expected: &[Value],
    found: &[Value],
    same: fn(&Value, &Value) -> bool,
) -> Option<String> {
    let equal =
        expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| same(e, f));
    if equal {
        return None;
    }
    let found = as_expected(expected, found, same);
    let (old, new): (Vec<String>, Vec<String>) = (canonical(expected), canonical(&found));
    let mut shown = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let (removed, added) = match op {
            DiffOp::Equal { .. } => continue,
            op => (op.old_range(), op.new_range()),
        };
        let pairs = removed.len().min(added.len());
        for pair in 0..pairs {
            let (e, f) = (removed.start + pair, added.start + pair);
            let text = inside(&expected[e], &found[f]);
            shown.push(format!("  line {} is not as expected:\n{text}", e + 1));
        }
        for e in removed.skip(pairs) {
            let line = &expected[e];
            shown.push(format!("  line {} is missing:\n    - {line}\n", e + 1));
        }
        for f in added.skip(pairs) {
            shown.push(format!("  not expected:\n    + {}\n", found[f]));
        }
    }
    let more = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    let mut text = shown.concat();
    if more > 0 {
        let _written = writeln!(text, "  and {more} more");
    }
    Some(text)
}

/// What was found, each line in the words of an expected one that it fulfils.
pub(super) fn as_expected(
    expected: &[Value],
    found: &[Value],
    same: fn(&Value, &Value) -> bool,
) -> Vec<Value> {
    let mut left: Vec<&Value> = expected.iter().collect();
    found
        .iter()
        .map(|line| match left.iter().position(|e| same(e, line)) {
            Some(place) => left.remove(place).clone(),
            None => line.clone(),
        })
        .collect()
}

/// One text for all spellings of a value.
fn canonical(lines: &[Value]) -> Vec<String> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(sorted).collect(),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(name, _)| *name);
                members
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect()
            }
            other => other.clone(),
        }
    }
    lines.iter().map(|line| sorted(line).to_string()).collect()
}

/// The differences inside one event, laid out over lines.
fn inside(expected: &Value, found: &Value) -> String {
    let pretty = |value: &Value| format!("{value:#}\n");
    let (old, new) = (pretty(expected), pretty(&in_order_of(expected, found)));
    let mut text = String::new();
    let diff = TextDiff::from_lines(&old, &new);
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            text.push_str("      …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let _written = writeln!(text, "    {sign} {}", change.value().trim_end());
        }
    }
    text
}

/// The value with its keys in the order of another, so that only real differences show.
fn in_order_of(model: &Value, value: &Value) -> Value {
    match (model, value) {
        (Value::Object(model), Value::Object(members)) => {
            let known = model.iter().filter_map(|(name, model)| {
                Some((name.clone(), in_order_of(model, members.get(name)?)))
            });
            let others = members
                .iter()
                .filter(|(name, _)| !model.contains_key(*name))
                .map(|(name, value)| (name.clone(), value.clone()));
            known.chain(others).collect()
        }
        (Value::Array(model), Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(index, item)| match model.get(index) {
                Some(model) => in_order_of(model, item),
                None => item.clone(),
            })
            .collect(),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).unwrap();
        text.lines().map(line).collect()
    }

    fn of(expected: &str, found: &str) -> Option<String> {
        difference(&lines(expected), &lines(found), |e, f| e == f)
    }

    #[test]
    fn spelling_does_not_matter_and_digits_do() {
        assert_eq!(
            of(r#"{ "a": "\u0041", "b": [1.0] }"#, r#"{"b":[1.0],"a":"A"}"#),
            None
        );
        for (expected, found) in [
            ("1.0", "1"),
            ("1", "1.0"),
            ("1e2", "100"),
            ("12345678901234567890", "12345678901234567891"),
            ("1\n2", "2\n1"),
            ("1", ""),
            ("", "null"),
            ("{\"a\":null}", "{}"),
        ] {
            assert!(of(expected, found).is_some(), "{expected} {found}");
        }
    }

    #[test]
    fn a_difference_shows_the_field() {
        let text = of(
            "{\"id\":1,\"user\":{\"id\":\"u\",\"plan\":\"a\"},\"n\":1}\n{\"id\":2}\n{\"id\":3}",
            "{\"n\":1,\"user\":{\"plan\":\"b\",\"id\":\"u\"},\"id\":1}\n{\"id\":3}\n{\"id\":4}",
        )
        .unwrap();
        let expected = "  line 1 is not as expected:\n        \"id\": 1,\n        \"user\": {\n          \"id\": \"u\",\n    -     \"plan\": \"a\"\n    +     \"plan\": \"b\"\n        },\n        \"n\": 1\n      }\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains("  line 2 is missing:\n    - {\"id\":2}\n"),
            "{text}"
        );
        assert!(
            text.contains("  not expected:\n    + {\"id\":4}\n"),
            "{text}"
        );
    }

    #[test]
    fn only_so_many_differences_are_shown() {
        let many: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let text = of("", &many.join("\n")).unwrap();
        assert!(text.ends_with("  and 490 more\n"), "{text}");
    }

    #[test]
    fn a_dead_letter_is_compared_by_what_is_expected_of_it() {
        let found = lines(
            "{\"stage\":\"decode\",\"reason\":\"r\",\"text\":\"x\"}\n{\"stage\":\"filter\",\"reason\":\"q\",\"value\":1}",
        );
        let of = |expected: &str| difference(&lines(expected), &found, same_dead_letter);
        assert_eq!(
            of("{\"stage\":\"decode\"}\n{\"stage\":\"filter\",\"value\":1}"),
            None
        );
        let text = of("{\"stage\":\"decode\"}\n{\"stage\":\"filter\",\"value\":2}").unwrap();
        assert!(!text.contains("decode"), "{text}");
        assert!(of("{\"stage\":\"decode\"}\n{\"value\":1}").is_some());
        assert!(of("{\"stage\":\"decode\"}").is_some());
    }
}
