//! A program, which is compiled, against the interpreter: the same verdict, the same bytes, the same error, for generated
//! filters, projections and events, valid or damaged.

mod generate;

use keystone_dsl::{
    EventError, ExpressionError, Interpreter, Limits, Program, Record, Stage, Validation, Verdict,
    validate,
};
use proptest::prelude::*;

use generate::{
    damaged, event, nearly_json, odd_event, own_expression, path_expression, scalars, with_scalars,
};

const CASES: u32 = 4000;

type Outcome = (Result<Verdict, EventError>, Vec<u8>);

/// Whether an expression is one of JMESPath that a route refuses, since it means nothing.
fn is_mistake(error: &ExpressionError) -> bool {
    [
        "a comparison or negation",
        "what stands before is true or false",
    ]
    .iter()
    .any(|words| error.message.contains(words))
}

/// What a program and the interpreter make of each event, one after the other.
fn both(
    filter: Option<&str>,
    projection: Option<&str>,
    limits: Limits,
    events: &[&[u8]],
) -> Vec<(Outcome, Outcome)> {
    let program = match Program::compile(filter, projection, limits) {
        Err(errors) if errors.iter().all(is_mistake) => return Vec::new(),
        program => program.unwrap(),
    };
    let interpreter = Interpreter::compile(filter, projection, limits).unwrap();
    let mut evaluator = program.evaluator();
    let mut outcomes = |event: &&[u8]| {
        let (mut ours, mut theirs) = (b"before".to_vec(), b"before".to_vec());
        let verdicts = (
            evaluator.apply(&Record::of(event), &mut ours),
            interpreter.apply(&Record::of(event), &mut theirs),
        );
        ((verdicts.0, ours), (verdicts.1, theirs))
    };
    events.iter().map(&mut outcomes).collect()
}

fn agree(
    filter: Option<&str>,
    projection: Option<&str>,
    limits: Limits,
    events: &[&[u8]],
) -> Result<(), TestCaseError> {
    for ((ours, theirs), event) in both(filter, projection, limits, events).iter().zip(events) {
        prop_assert_eq!(
            ours,
            theirs,
            "filter {:?}, projection {:?}, event {:?}",
            filter,
            projection,
            String::from_utf8_lossy(event)
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_filter_and_projection(
        filter in prop::option::of(own_expression()),
        projection in prop::option::of(own_expression()),
        events in prop::collection::vec(event(), 1..4),
    ) {
        let events: Vec<_> = events.iter().map(String::as_bytes).collect();
        agree(filter.as_deref(), projection.as_deref(), Limits::default(), &events)?;
    }

    /// What the compiled form is made for, on events that repeat keys, nest and lack what is asked for.
    #[test]
    fn paths_on_odd_events(
        filter in prop::option::of(path_expression()),
        projection in prop::option::of(path_expression()),
        events in prop::collection::vec(odd_event(), 1..4),
    ) {
        let events: Vec<_> = events.iter().map(String::as_bytes).collect();
        agree(filter.as_deref(), projection.as_deref(), Limits::default(), &events)?;
    }

    #[test]
    fn damaged_events(
        filter in path_expression(),
        projection in path_expression(),
        payload in damaged(odd_event()),
        max_depth in 0usize..6,
    ) {
        let limits = Limits { max_depth, ..Limits::default() };
        agree(Some(&filter), Some(&projection), limits, &[&payload])?;
    }

    /// What was learnt from an event says nothing wrong of others that look like it.
    #[test]
    fn events_of_one_shape_and_nearly(
        filter in prop::option::of(path_expression()),
        projection in prop::option::of(path_expression()),
        shapes in prop::collection::vec(odd_event(), 1..7),
        likes in prop::collection::vec((any::<prop::sample::Index>(), scalars()), 1..12),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let like = |(shape, scalars): &(prop::sample::Index, Vec<String>)| with_scalars(&shapes[shape.index(shapes.len())], scalars);
        let mut events: Vec<Vec<u8>> = likes.iter().map(|each| like(each).into_bytes()).collect();
        if let Some((at, byte)) = damage {
            let mut last = events[events.len() - 1].clone();
            let at = at.index(last.len());
            last[at] = byte;
            events.push(last.clone());
            last.truncate(at);
            events.push(last);
        }
        let events: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        agree(filter.as_deref(), projection.as_deref(), Limits::default(), &events)?;
    }

    #[test]
    fn payloads_that_are_hardly_json(payload in nearly_json(), filter in path_expression()) {
        let limits = Limits { max_depth: 3, ..Limits::default() };
        agree(Some(&filter), None, limits, &[&payload])?;
        let interpreted = Interpreter::compile(None, None, limits).unwrap().apply(&Record::of(&payload), &mut Vec::new());
        prop_assert_eq!(validate(&payload, 3), interpreted.map(|_| ()));
    }

    /// Without repeated keys, reading no further than needed changes nothing but that the rest may be anything.
    #[test]
    fn lazy_validation_gives_the_same_results(
        filter in prop::option::of(path_expression()),
        projection in prop::option::of(path_expression()),
        event in event(),
        rest in prop::sample::select(vec!["", "}", "\"", " x"]),
    ) {
        let event = without_repeats(&event);
        let payload = format!("{event}{rest}");
        let lazy = Limits { validation: Validation::Lazy, ..Limits::default() };
        let (filter, projection) = (filter.as_deref(), projection.as_deref());
        let program = match Program::compile(filter, projection, lazy) {
            Err(errors) if errors.iter().all(is_mistake) => return Ok(()),
            program => program.unwrap(),
        };
        let mut ours = Vec::new();
        let found = program.evaluator().apply(&Record::of(payload.as_bytes()), &mut ours);
        let interpreter = Interpreter::compile(filter, projection, lazy).unwrap();
        let mut theirs = Vec::new();
        let expected = interpreter.apply(&Record::of(event.as_bytes()), &mut theirs);
        match found {
            Err(error) if error.stage == Stage::Decode => prop_assert!(!rest.is_empty(), "{}", error),
            found => prop_assert_eq!((found, ours), (expected, theirs)),
        }
    }
}

/// The same event with each key once.
fn without_repeats(event: &str) -> String {
    let mut out = Vec::new();
    let interpreter = Interpreter::compile(None, Some("@"), Limits::default()).unwrap();
    match interpreter
        .apply(&Record::of(event.as_bytes()), &mut out)
        .unwrap()
    {
        Verdict::Projected => String::from_utf8(out).unwrap(),
        _ => "null".to_owned(),
    }
}

#[test]
fn each_end_of_an_event_is_refused_in_the_same_words() {
    let event = "{\"a\":[1.5e3,\"x\\u00e9\\ud83d\\ude00é\",{\"b\":null,\"\\u0061\":[true,false]}],\n \"c\" : -0 }";
    let limits = Limits::default();
    for filter in [None, Some("a[-1].b"), Some("c == `0`")] {
        for end in 0..event.len() {
            let (whole, cut) = (event.as_bytes(), &event.as_bytes()[..end]);
            agree(filter, Some("{a: a, c: c}"), limits, &[cut]).unwrap();
            agree(filter, Some("{a: a, c: c}"), limits, &[whole, cut]).unwrap();
            for byte in b"\"\\{}[],:0 \n\0x\xff" {
                let mut changed = event.as_bytes().to_vec();
                changed[end] = *byte;
                agree(filter, Some("{a: a, c: c}"), limits, &[&changed]).unwrap();
                agree(filter, Some("{a: a, c: c}"), limits, &[whole, &changed]).unwrap();
            }
        }
    }
}
