//! A program, which is compiled, against the interpreter. The input is a filter, a projection and events, in lines; an
//! empty first or second line is no filter or projection.

#![no_main]

use keystone_dsl::{Record, Interpreter, Limits, Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut expression = || {
        let text = std::str::from_utf8(lines.next().unwrap_or_default()).ok()?;
        Some((!text.is_empty()).then_some(text))
    };
    let (Some(filter), Some(projection)) = (expression(), expression()) else {
        return;
    };
    let limits = Limits {
        max_depth: 20,
        ..Limits::default()
    };
    let Ok(program) = Program::compile(filter, projection, limits) else {
        return;
    };
    let interpreter = Interpreter::compile(filter, projection, limits).expect("it compiles");
    let mut evaluator = program.evaluator();
    for event in lines {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let verdict = evaluator.apply(&Record::of(event), &mut ours);
        assert_eq!(verdict, interpreter.apply(&Record::of(event), &mut theirs));
        assert_eq!(ours, theirs);
    }
});
