//! Runs the examples of `docs/dsl.md`.
//!
//! An example is a fenced block of lines, each a word and a text. `expression` is followed by `result` or `error`, and a
//! `filter`, `projection` or hygiene rule by `delivers`, `verdict` or `error`.

use std::collections::HashMap;

use keystone_dsl::{Expression, Hygiene, Limits, Program, Record, Rules, Verdict};

#[test]
fn the_examples_of_the_language_page_hold() {
    let page = include_str!("../../docs/dsl.md");
    let examples: Vec<_> = page
        .split("```example\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(
        examples.len() >= 15,
        "only {} examples were found",
        examples.len()
    );
    for example in examples {
        let lines: HashMap<_, _> = example
            .lines()
            .map(|line| line.split_once(' ').expect(line))
            .map(|(word, text)| (word, text.trim()))
            .collect();
        let expected: Vec<_> = ["result", "delivers", "verdict", "error"]
            .into_iter()
            .filter_map(|word| lines.get(word).map(|text| (word, text.to_string())))
            .collect();
        assert_eq!(vec![run(&lines)], expected, "{example}");
    }
}

fn run(lines: &HashMap<&str, &str>) -> (&'static str, String) {
    let event = lines["event"].as_bytes();
    let mut out = Vec::new();
    let outcome = match lines.get("expression") {
        Some(expression) => Expression::compile(expression)
            .unwrap()
            .search(&Record::of(event), &mut out)
            .map(|()| ("result", "")),
        None => {
            let program = Program::compile(
                lines.get("filter").copied(),
                lines.get("projection").copied(),
                Limits::default(),
            );
            program
                .unwrap()
                .evaluator()
                .apply(&Record::of(event), &mut out)
                .map(|verdict| match verdict {
                    Verdict::Projected => ("delivers", ""),
                    Verdict::Filtered => ("verdict", "filtered"),
                    Verdict::Discarded => ("verdict", "discarded"),
                    Verdict::Unchanged => ("verdict", "unchanged"),
                })
        }
    };
    match outcome {
        Ok((word, verdict)) => hygiene(lines, word, verdict, event, out),
        Err(error) => ("error", error.reason),
    }
}

/// Applies the rules of an example to what is to be delivered.
fn hygiene(
    lines: &HashMap<&str, &str>,
    word: &'static str,
    verdict: &str,
    event: &[u8],
    out: Vec<u8>,
) -> (&'static str, String) {
    let text = |out: Vec<u8>| String::from_utf8(out).unwrap();
    let rules = Rules {
        required: lines.get("hygiene.required").copied(),
        types: lines.get("hygiene.types").copied(),
        max_event_bytes: None,
        drop_nulls: lines.contains_key("hygiene.drop.nulls"),
        trim_strings: lines.contains_key("hygiene.trim.strings"),
    };
    let unchanged = match verdict {
        "" => text(out.clone()),
        verdict => verdict.to_owned(),
    };
    let Some(hygiene) = Hygiene::compile(&rules).unwrap() else {
        return (word, unchanged);
    };
    let mut right = Vec::new();
    let event = if out.is_empty() { event } else { &out };
    match hygiene.apply(event, &mut right) {
        Ok(false) => (word, unchanged),
        Ok(true) => ("delivers", text(right)),
        Err(broken) => ("error", broken.reason),
    }
}
