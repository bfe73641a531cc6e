//! What an event costs: the compiled engine with the `jmespath` crate beside it, and validation alone as the measure of a
//! rejected event.
//!
//! `cargo bench -p keystone-dsl`. Each gets the same payload and writes the same result as JSON text. Because this workspace
//! has `serde_json` keep the digits of numbers, the `jmespath` crate's own `Variable::from_json` takes numbers for objects;
//! its values are made from a `serde_json::Value` here, which costs it some time.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jmespath::ast::Ast;
use jmespath::{Context, DEFAULT_RUNTIME, Rcvar, Variable};
use keystone_dsl::{Interpreter, Limits, Program, Record, Validation, Verdict};
use serde_json::Value;

/// 620 bytes, as a player might send it.
const PLAYED: &str = concat!(
    r#"{"type":"play","id":"0f8fad5b-d9cb-469f-a165-70867728950e","ts":"2026-03-14T15:09:26.535Z","user":{"id":48213377,"#,
    r#""country":"DE","plan":"family","tags":["beta","early"]},"session_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","#,
    r#""track":{"id":"trk_93817265","title":"Für Elise, Bagatelle No. 25","artist":"Ludwig van Beethoven","album":"#,
    r#""Piano Works","explicit":false},"duration_ms":183450,"position_ms":0,"volume":0.75,"device":{"os":"android","#,
    r#""os_version":"14.1","model":"Pixel 8","app":"5.12.3","network":"wifi"},"context":{"source":"playlist","#,
    r#""playlist_id":"pl_5512","referrer":"home_feed_top","shuffle":true,"repeat":null}}"#
);

const FILTER: &str = "type == 'play' && duration_ms > `30000`";
const PROJECTION: &str =
    "{id: id, user: user.id, track: track.title, took: duration_ms, os: device.os}";

fn engine(c: &mut Criterion) {
    assert_eq!(PLAYED.len(), 620);
    let played = PLAYED.as_bytes();
    let stopped = PLAYED.replacen("play", "stop", 1);
    let stopped = stopped.as_bytes();

    let mut out = Vec::new();
    let (filter, projection) = (compiled(FILTER), compiled(PROJECTION));
    let verdict = |payload, out: &mut _| reference(&filter, &projection, payload, out);
    assert_eq!(verdict(PLAYED, &mut out), Verdict::Projected);

    let mut group = c.benchmark_group("kept");
    group.bench_function("keystone", |b| apply(b, Limits::default(), played));
    let interpreter =
        Interpreter::compile(Some(FILTER), Some(PROJECTION), Limits::default()).unwrap();
    group.bench_function("interpreter", |b| {
        b.iter(|| {
            out.clear();
            interpreter
                .apply(&Record::of(black_box(played)), &mut out)
                .unwrap()
        });
    });
    group.bench_function("jmespath", |b| {
        b.iter(|| verdict(black_box(PLAYED), &mut out));
    });
    group.finish();

    let mut group = c.benchmark_group("rejected");
    group.bench_function("keystone", |b| apply(b, Limits::default(), stopped));
    let lazy = Limits {
        validation: Validation::Lazy,
        ..Limits::default()
    };
    group.bench_function("keystone-lazy", |b| apply(b, lazy, stopped));
    group.bench_function("validation-alone", |b| {
        let program = Program::compile(None, None, Limits::default()).unwrap();
        let mut evaluator = program.evaluator();
        b.iter(|| {
            evaluator
                .apply(&Record::of(black_box(stopped)), &mut out)
                .unwrap()
        });
    });
    group.finish();
}

fn apply(b: &mut criterion::Bencher<'_>, limits: Limits, payload: &[u8]) {
    let program = Program::compile(Some(FILTER), Some(PROJECTION), limits).unwrap();
    let mut evaluator = program.evaluator();
    let mut out = Vec::new();
    b.iter(|| {
        out.clear();
        evaluator
            .apply(&Record::of(black_box(payload)), &mut out)
            .unwrap()
    });
}

fn reference(
    filter: &jmespath::Expression<'_>,
    projection: &jmespath::Expression<'_>,
    payload: &str,
    out: &mut Vec<u8>,
) -> Verdict {
    let event = Rcvar::new(variable(serde_json::from_str(payload).unwrap()));
    if !search(filter, &event).is_truthy() {
        return Verdict::Filtered;
    }
    let result = search(projection, &event);
    if result.is_null() {
        return Verdict::Discarded;
    }
    out.clear();
    serde_json::to_writer(out, &result).unwrap();
    Verdict::Projected
}

fn search(expression: &jmespath::Expression<'_>, event: &Rcvar) -> Rcvar {
    let mut context = Context::new(expression.as_str(), &DEFAULT_RUNTIME);
    jmespath::interpret(event, expression.as_ast(), &mut context).unwrap()
}

fn variable(value: Value) -> Variable {
    match value {
        Value::Null => Variable::Null,
        Value::Bool(flag) => Variable::Bool(flag),
        Value::Number(number) => Variable::Number(number),
        Value::String(text) => Variable::String(text),
        Value::Array(items) => {
            Variable::Array(items.into_iter().map(variable).map(Rcvar::new).collect())
        }
        Value::Object(members) => Variable::Object(
            members
                .into_iter()
                .map(|(key, value)| (key, Rcvar::new(variable(value))))
                .collect(),
        ),
    }
}

/// The expression with the number of its literal as a number.
fn compiled(expression: &str) -> jmespath::Expression<'static> {
    let mut ast = jmespath::parse(expression).unwrap();
    if let Ast::And { rhs, .. } = &mut ast
        && let Ast::Comparison { rhs, .. } = &mut **rhs
        && let Ast::Literal { value, .. } = &mut **rhs
    {
        *value = Rcvar::new(Variable::Number(30_000.into()));
    }
    jmespath::Expression::new(expression, ast, &DEFAULT_RUNTIME)
}

criterion_group!(benches, engine);
criterion_main!(benches);
