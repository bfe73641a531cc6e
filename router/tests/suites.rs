//! The official suites of JMESPath and of JSON through `keystone eval --expression`, a process for each case.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use command::{Answer, keystone};
use serde_json::Value;

/// More processes at once gain nothing on a small machine.
const THREADS: usize = 4;

/// Files of JSONTestSuite with no document in them: for a stream of documents that is no error, and no event.
const EMPTY: &[&str] = &["n_single_space", "n_structure_no_data"];

struct Case {
    file: String,
    /// Twice: an error of the first must not keep the second from being evaluated.
    events: Vec<u8>,
    expression: String,
    expected: Expected,
}

enum Expected {
    Result(Value),
    /// Exit 64, and no event is read.
    Invalid,
    /// Of each event by itself.
    Failed,
}

#[test]
fn every_case_of_the_jmespath_suite_gives_the_expected_result() {
    let mut cases = Vec::new();
    for file in files("compliance") {
        let suite: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for group in suite.as_array().unwrap() {
            let timed = |case: &&Value| case.get("bench").is_some();
            let of_group = group["cases"].as_array().unwrap().iter();
            for case in of_group.filter(|case| !timed(case)) {
                cases.push(Case::new(&file, &group["given"], case));
            }
        }
    }
    assert!(cases.len() > 800, "only {} cases were found", cases.len());
    let failures = failures(&cases, |case| {
        let argument = format!("--expression={}", case.expression);
        let answer = keystone(&["eval", &argument], &case.events);
        check(&case.expected, &answer).map_err(|why| {
            let (file, expression) = (&case.file, &case.expression);
            format!("{file}: {expression}: {why}: {answer:?}")
        })
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Case {
    fn new(file: &Path, given: &Value, case: &Value) -> Self {
        let expected = match case.get("error").map(|error| error.as_str().unwrap()) {
            None => Expected::Result(case["result"].clone()),
            Some("invalid-type") => Expected::Failed,
            // What can be known without an event is an error of the expression.
            Some(_) => Expected::Invalid,
        };
        Case {
            file: name(file),
            events: format!("{given}\n{given}\n").into_bytes(),
            expression: case["expression"].as_str().unwrap().to_owned(),
            expected,
        }
    }
}

fn check(expected: &Expected, answer: &Answer) -> Result<(), &'static str> {
    let agrees = match expected {
        Expected::Invalid => answer.code == Some(64) && answer.out.is_empty(),
        Expected::Failed => {
            answer.code == Some(0)
                && answer.out.is_empty()
                && answer.err.contains("line 2: projection: ")
                && answer.err.contains("2 events: 0 evaluated, 2 failed")
        }
        Expected::Result(expected) => {
            let result =
                |line| serde_json::from_str(line).is_ok_and(|found| same(&found, expected));
            answer.code == Some(0)
                && answer.out.lines().count() == 2
                && answer.out.lines().all(result)
        }
    };
    let wanted = match expected {
        Expected::Invalid => "should be refused with exit 64",
        Expected::Failed => "should fail for each event",
        Expected::Result(_) => "another result was expected",
    };
    agrees.then_some(()).ok_or(wanted)
}

/// Equal as JSON, numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let in_b = |(key, value)| b.get(key).is_some_and(|other| same(value, other));
            a.len() == b.len() && a.iter().all(in_b)
        }
        _ => a == b,
    }
}

#[test]
fn the_json_suite_is_accepted_and_refused_as_it_says() {
    let mut files = files("json-suite");
    files.retain(|file| name(file).starts_with("y_") || name(file).starts_with("n_"));
    assert_eq!(files.len(), 95 + 186);
    let failures = failures(&files, |file| {
        let name = name(file);
        let answer = keystone(&["eval", "--expression=@"], &fs::read(file).unwrap());
        let accepted = answer.code == Some(0) && answer.err.trim_end().ends_with(" 0 failed");
        let expected = name.starts_with("y_") || EMPTY.contains(&name.as_str());
        let in_one = !name.starts_with("y_") || answer.err.starts_with("1 events:");
        if accepted == expected && in_one {
            Ok(())
        } else {
            Err(format!("{name}: {answer:?}"))
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The JSON files of a suite, which is kept with the language.
fn files(suite: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dsl/tests");
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join(suite))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|name| name == "json"));
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// What the check says against the cases.
fn failures<T: Sync>(cases: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let check = &check;
    thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(THREADS));
        let threads: Vec<_> = parts
            .map(|part| {
                scope.spawn(move || part.iter().filter_map(|case| check(case).err()).collect())
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<String>>| thread.join().unwrap();
        threads.into_iter().flat_map(join).collect()
    })
}
