//! Runs the examples of `docs/dsl.md`.
//!
//! A row of a table of functions has an expression and its result in the last two of its four cells; they are about the event of
//! the block `event`. Any other example is a fenced block of lines, each a word and a text. `expression` is followed by `result` or `error`, and a
//! `filter`, `projection` or hygiene rule by `delivers`, `verdict` or `error`.

use std::collections::HashMap;

use keystone_dsl::{Expression, Hygiene, Limits, Program, Record, Rules, Settings, Verdict};

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

/// The cells of a row of a table of functions: the expression and the result.
fn rows(page: &str) -> Vec<(String, String)> {
    let code = |cell: &str| {
        let cell = cell.trim().replace('\u{0}', "|");
        let inside = cell
            .strip_prefix("`` ")
            .and_then(|cell| cell.strip_suffix(" ``"));
        inside.unwrap_or(cell.trim_matches('`')).to_owned()
    };
    let rows = page.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|line| {
        let line = line.replace("\\|", "\0");
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let function = cells.len() == 4 && cells[2].trim() != "example";
        function.then(|| (code(cells[2]), code(cells[3])))
    })
    .collect()
}

#[test]
fn the_tables_of_functions_hold_and_name_every_function() {
    let page = include_str!("../../docs/dsl.md");
    let event = page.split("```event\n").nth(1).unwrap();
    let headers = vec![("trace", Some(b"b2".as_slice()))];
    let record = Record {
        payload: event.lines().next().unwrap().as_bytes(),
        topic: "plays",
        partition: 3,
        offset: 42,
        timestamp: Some(1_795_431_906_123),
        key: Some(b"user-7"),
        headers: &headers,
    };
    let rows = rows(page);
    let mut wrong = Vec::new();
    for (expression, expected) in &rows {
        let mut settings = Settings::default();
        settings.secrets.insert("users", "an example");
        let compiled = Expression::compile_with(expression, settings).unwrap();
        let mut out = Vec::new();
        let outcome = compiled.search(&record, &mut out);
        outcome.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let found = String::from_utf8(out).unwrap();
        if found != *expected {
            wrong.push(format!("{expression} is {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // A name that is like no other gets the names of all functions.
    let hint = Expression::compile("qqqq()").unwrap_err().hint.unwrap();
    let names = hint.strip_prefix("the functions are ").unwrap();
    for name in names.split(", ") {
        let call = format!("{name}(");
        let shown = rows
            .iter()
            .any(|(expression, _)| expression.contains(&call));
        assert!(shown, "there is no example of {name}");
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
