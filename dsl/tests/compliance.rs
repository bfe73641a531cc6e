//! The official JMESPath compliance suite, every case but its benchmarks.
//!
//! `KEYSTONE_JMESPATH_SUITE` may name a folder with another copy of the suite.

use std::fs;
use std::path::{Path, PathBuf};

use keystone_dsl::{Expression, Record, Stage};
use serde_json::Value;

/// Cases where this language means to differ: file, expression, reason.
const DEVIATIONS: &[(&str, &str, &str)] = &[];

#[test]
fn every_case_of_the_suite_gives_the_expected_result() {
    let folder = std::env::var_os("KEYSTONE_JMESPATH_SUITE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compliance"),
        PathBuf::from,
    );
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    let (mut run, mut failures) = (0, Vec::new());
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let suite: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for group in suite.as_array().unwrap() {
            let event = serde_json::to_vec(&group["given"]).unwrap();
            for case in group["cases"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|case| case.get("bench").is_none())
            {
                run += 1;
                let expression = case["expression"].as_str().unwrap();
                let deviates = DEVIATIONS
                    .iter()
                    .any(|(file, text, _)| (*file, *text) == (name, expression));
                match (check(&event, expression, case), deviates) {
                    (Ok(()), false) | (Err(_), true) => {}
                    (Ok(()), true) => failures.push(format!(
                        "{name}: {expression}: is listed as a deviation, but agrees"
                    )),
                    (Err(why), false) => failures.push(format!("{name}: {expression}: {why}")),
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {run} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        run > 800,
        "only {run} cases were found in {}",
        folder.display()
    );
}

fn check(event: &[u8], expression: &str, case: &Value) -> Result<(), String> {
    let compiled = Expression::compile(expression);
    let mut out = Vec::new();
    let result = compiled
        .as_ref()
        .map(|compiled| compiled.search(&Record::of(event), &mut out));
    match (
        case.get("error").map(|error| error.as_str().unwrap()),
        result,
    ) {
        // What can be known without an event is an error of the expression.
        (Some("syntax" | "unknown-function" | "invalid-arity" | "invalid-value"), Err(_)) => Ok(()),
        (Some("invalid-type"), Ok(Err(error))) if error.stage == Stage::Projection => Ok(()),
        (Some(error), result) => Err(format!(
            "expected the error {error}, found {result:?} {:?}",
            String::from_utf8_lossy(&out)
        )),
        (None, Ok(Ok(()))) => {
            let found: Value = serde_json::from_slice(&out).map_err(|error| error.to_string())?;
            let expected = &case["result"];
            if same(&found, expected) {
                Ok(())
            } else {
                Err(format!("expected {expected}, found {found}"))
            }
        }
        (None, result) => Err(format!("{result:?}")),
    }
}

/// Equal as JSON, numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}
