//! JSONTestSuite: what must be JSON is, what must not be isn't, and what is left open is as the interpreter has it. All of
//! it through validation alone, through a filter and through a projection.

use std::fs;
use std::path::Path;

use keystone_dsl::{EventError, Interpreter, Limits, Program, Record, Stage, Verdict, validate};

/// Each way to read a payload, which must all say the same.
fn read(payload: &[u8]) -> Result<(), EventError> {
    let mut verdicts = vec![validate(payload, Limits::default().max_depth)];
    let expressions = [
        (None, None),
        (Some("a || [0] || `1`"), None),
        (None, Some("[@, a.b, [-1][0]]")),
    ];
    for (filter, projection) in expressions {
        let program = Program::compile(filter, projection, Limits::default()).unwrap();
        let interpreter = Interpreter::compile(filter, projection, Limits::default()).unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let verdict = program.evaluator().apply(&Record::of(payload), &mut ours);
        assert_eq!(
            verdict,
            interpreter.apply(&Record::of(payload), &mut theirs)
        );
        assert_eq!(ours, theirs);
        assert_ne!(verdict, Ok(Verdict::Filtered));
        verdicts.push(verdict.map(|_| ()));
    }
    verdicts.dedup();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    verdicts.remove(0)
}

#[test]
fn the_suite_is_accepted_and_refused_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json-suite");
    let (mut accepted, mut refused, mut open) = (0, 0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let payload = fs::read(&path).unwrap();
        match name.get(..2) {
            Some("y_") => {
                accepted += 1;
                assert_eq!(read(&payload), Ok(()), "{name}");
            }
            Some("n_") => {
                refused += 1;
                assert_eq!(read(&payload).expect_err(&name).stage, Stage::Decode);
            }
            Some("i_") => {
                open += 1;
                let _ = read(&payload);
            }
            _ => {}
        }
    }
    assert_eq!((accepted, refused, open), (95, 186, 35));
}

#[test]
fn what_opens_a_hundred_thousand_times_is_refused() {
    for opening in ["[", "[{\"\":"] {
        let payload = opening.repeat(100_000);
        assert_eq!(read(payload.as_bytes()).unwrap_err().stage, Stage::Decode);
    }
}
