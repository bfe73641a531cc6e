//! A covered expression allocates nothing for an event, once the evaluator and the output have been used. The exceptions are
//! an object that is written whole and repeats a key, two containers that are compared, and `starts_with`, `ends_with` and
//! `contains` on text with escapes: those are decoded first.

use keystone_dsl::{Limits, Program, Record, Validation, Verdict};

const EVENTS: [&str; 4] = [
    r#"{"type":"play","id":"a1","duration_ms":183450,"price":1.50,"user":{"id":7,"tags":["x","y"]},"title":"F\u00fcr \"Elise\""}"#,
    r#"{ "title": "short", "duration_ms": 12345678901234567890, "user": {"tags": [], "id": null}, "type": "\u0070lay", "id": "b" }"#,
    r#"{"type":"stop","id":"c","user":[1,2,{"id":3}]}"#,
    r#"{"type":"stop","type":"play","duration_ms":40000,"id":"d"}"#,
];

const COVERED: &[(Option<&str>, Option<&str>)] = &[
    (None, None),
    (
        Some("type == 'play' && duration_ms > `30000`"),
        Some("{id: id, user: user.id, took: duration_ms, title: title, tags: user.tags}"),
    ),
    (
        Some("!(user.id == id) || price <= `2` && id != `null`"),
        Some("[id, user, user.tags[0], user[-1].id, price]"),
    ),
    (
        Some("starts_with(id, 'a') || ends_with(id, 'c') || contains(id, 'a')"),
        Some(
            "{n: length(id), t: type(user), s: to_string(duration_ms), k: to_number(id), first: not_null(price, id)}",
        ),
    ),
    (
        Some("user | (tags || `true`)"),
        Some("user | {whole: @, again: [id, 'text', `1.0`]}"),
    ),
    (
        Some("contains(user.tags || `[]`, 'y') || length(title || '') >= `0`"),
        Some("user"),
    ),
];

#[test]
fn covered_expressions_allocate_nothing_for_an_event() {
    for validation in [Validation::Full, Validation::Lazy] {
        for (filter, projection) in COVERED {
            let limits = Limits {
                validation,
                ..Limits::default()
            };
            let program = Program::compile(*filter, *projection, limits).unwrap();
            let mut evaluator = program.evaluator();
            let mut out = Vec::new();
            let mut each = |count_verdicts: &mut u32| {
                for event in EVENTS {
                    out.clear();
                    let verdict = evaluator
                        .apply(&Record::of(event.as_bytes()), &mut out)
                        .unwrap();
                    *count_verdicts += u32::from(verdict != Verdict::Filtered);
                }
            };
            let mut kept = (0, 0);
            each(&mut kept.0);
            let counted = allocation_counter::measure(|| each(&mut kept.1));
            assert_eq!(
                counted.count_total, 0,
                "filter {filter:?}, projection {projection:?}: {counted:?}"
            );
            assert!(kept.0 > 0 && kept.0 == kept.1);
        }
    }
}

/// The count counts: what the interpreter is needed for does allocate.
#[test]
fn interpreted_expressions_allocate() {
    let program = Program::compile(None, Some("user.tags[*]"), Limits::default()).unwrap();
    let mut evaluator = program.evaluator();
    let mut out = Vec::with_capacity(100);
    let counted = allocation_counter::measure(|| {
        evaluator
            .apply(&Record::of(EVENTS[0].as_bytes()), &mut out)
            .unwrap();
    });
    assert!(counted.count_total > 0);
}
