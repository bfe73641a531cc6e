use crate::{Limits, Program, Record, Stage, Validation, Verdict};

#[track_caller]
fn explains(filter: Option<&str>, projection: Option<&str>, expected: &[&str]) {
    let program = Program::compile(filter, projection, Limits::default()).unwrap();
    assert_eq!(program.explain(), expected.join("\n"));
}

#[test]
fn an_explanation_names_what_is_read_and_what_is_interpreted() {
    explains(
        Some("type == 'play' && user.\"a b\"[-1] > `3`"),
        None,
        &[
            "filter: compiled",
            "  reads type, user.\"a b\"[-1]",
            "projection: none",
        ],
    );
    explains(
        Some("tags[*].name"),
        Some("{id: id, names: spans[?took > `1`].name | sort(@), by: max_by(spans, &took)}"),
        &[
            "filter: in the interpreter",
            "  reads tags",
            "  interprets [*] on tags",
            "projection: compiled, but for 2 parts in the interpreter",
            "  reads id, spans",
            "  interprets [?…], then sort() (line 1, column 43) on spans",
            "  interprets the expressions given to max_by()",
        ],
    );
}

#[test]
fn the_keys_of_a_projection_are_known_where_it_makes_an_object_by_them() {
    let keys = |projection: &str| {
        let program = Program::compile(None, Some(projection), Limits::default()).unwrap();
        program.projected_keys()
    };
    for (projection, expected) in [
        (r#"{a: b, "c d": {e: f}}"#, &["a", "c d"][..]),
        ("user.{id: id}", &["id"]),
        ("spans[?ok] | {all: @, n: length(@)}", &["all", "n"]),
        ("{a: b, a: c}", &["a", "a"]),
    ] {
        assert_eq!(keys(projection).unwrap(), expected, "{projection}");
    }
    for projection in [
        "@",
        "user",
        "{a: b}.a",
        "{a: b} || c",
        "spans[*].{a: b}",
        "merge(@, {a: b})",
        "[{a: b}]",
    ] {
        assert_eq!(keys(projection), None, "{projection}");
    }
}

fn lazily(filter: Option<&str>, projection: Option<&str>, event: &str) -> Result<Verdict, Stage> {
    let limits = Limits {
        validation: Validation::Lazy,
        ..Limits::default()
    };
    let program = Program::compile(filter, projection, limits).unwrap();
    let verdict = program
        .evaluator()
        .apply(&Record::of(event.as_bytes()), &mut Vec::new());
    verdict.map_err(|error| error.stage)
}

#[test]
fn lazy_validation_stops_where_nothing_more_is_needed() {
    let filter = Some("type == 'play'");
    let broken = r#"{"type":"stop","id":1 and no more JSON"#;
    assert_eq!(lazily(filter, Some("id"), broken), Ok(Verdict::Filtered));
    let broken = r#"{"type":"play","id":1,"no":more JSON"#;
    assert_eq!(
        lazily(filter, Some("{id: id}"), broken),
        Ok(Verdict::Projected)
    );
    assert_eq!(lazily(filter, None, broken), Ok(Verdict::Unchanged));
    for (filter, projection) in [
        (filter, Some("[id, other]")),
        (filter, Some("@")),
        (None, None),
    ] {
        assert_eq!(lazily(filter, projection, broken), Err(Stage::Decode));
    }
}

/// The filter has rejected when the repeat of its key comes, and values of the projection were passed over.
#[test]
fn a_repeated_key_changes_the_mind_of_the_filter() {
    let program = Program::compile(
        Some("type == 'play'"),
        Some("[id, user.id]"),
        Limits::default(),
    );
    let program = program.unwrap();
    let mut evaluator = program.evaluator();
    let mut out = Vec::new();
    for event in [
        r#"{"type":"stop","id":1,"user":{"id":2},"type":"play"}"#,
        r#"{"type":"stop","id":1,"user":{"id":2},"\u0074ype":"play"}"#,
        r#"{"t\u0079pe":"stop","id":1,"mode":"x","user":{"id":2},"type":"play"}"#,
    ] {
        out.clear();
        assert_eq!(
            evaluator.apply(&Record::of(event.as_bytes()), &mut out),
            Ok(Verdict::Projected),
            "{event}"
        );
        assert_eq!(out, b"[1,2]", "{event}");
    }
    let event = br#"{"type":"play","id":1,"user":{"id":2},"type":"stop"}"#;
    assert_eq!(
        evaluator.apply(&Record::of(event), &mut out),
        Ok(Verdict::Filtered)
    );
}
