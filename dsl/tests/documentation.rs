//! Runs the examples of `docs/dsl.md`.
//!
//! An example is a fenced block of lines, each a word and a text. `expression` is followed by `result` or `error`, and a
//! `filter` or `projection` by `delivers`, `verdict` or `error`.

use std::collections::HashMap;

use keystone_dsl::{Expression, Limits, Program, Record, Verdict};

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
        Ok((word, "")) => (word, String::from_utf8(out).unwrap()),
        Ok((word, verdict)) => (word, verdict.to_owned()),
        Err(error) => ("error", error.reason),
    }
}
