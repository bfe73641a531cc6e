use crate::{EventError, Expression, Limits, Program, Stage, Verdict};

fn search(expression: &str, event: &str) -> Result<String, EventError> {
    let mut out = Vec::new();
    let expression = Expression::compile(expression).unwrap_or_else(|error| panic!("{error}"));
    expression
        .search(event.as_bytes(), &mut out)
        .map(|()| String::from_utf8(out).unwrap())
}

#[track_caller]
fn yields(expression: &str, event: &str, expected: &str) {
    assert_eq!(
        search(expression, event).as_deref(),
        Ok(expected),
        "{expression} on {event}"
    );
}

#[test]
fn keys_stand_in_the_order_of_the_expression() {
    yields(
        "{z: a, a: z, m: {y: a, b: a}}",
        r#"{"a":1,"z":2}"#,
        r#"{"z":1,"a":2,"m":{"y":1,"b":1}}"#,
    );
    yields("{a: a, b: b, a: b}", r#"{"a":1,"b":2}"#, r#"{"a":2,"b":2}"#);
    yields(
        "`{\"z\": 1.0, \"a\": 12345678901234567890123}`",
        "1",
        r#"{"z":1.0,"a":12345678901234567890123}"#,
    );
    yields("merge(@, {b: a})", r#"{"b":1,"a":2}"#, r#"{"b":2,"a":2}"#);
}

#[test]
fn numbers_pass_through_digit_for_digit() {
    for digits in [
        "12345678901234567890123",
        "1.0",
        "1e400",
        "-0",
        "0.1000",
        "1E+2",
    ] {
        let event = format!("{{\"n\": {digits}}}");
        yields("n", &event, digits);
        yields(
            "{x: [n, not_null(n), to_number(n)]}",
            &event,
            &format!("{{\"x\":[{digits},{digits},{digits}]}}"),
        );
        yields("to_number(to_string(n))", &event, digits);
    }
}

#[test]
fn integers_are_compared_exactly_and_fractions_as_floats() {
    let event = r#"{"a": 9007199254740993, "b": 9007199254740992, "h": 123456789012345678901234567890, "z": -0, "huge": 1e400}"#;
    for (expression, expected) in [
        ("a == b", "false"),
        ("a > b", "true"),
        ("a <= b", "false"),
        ("h > a", "true"),
        ("h == `123456789012345678901234567890`", "true"),
        ("h < `123456789012345678901234567891`", "true"),
        ("`-5` < `-4`", "true"),
        ("`-10` < `-9`", "true"),
        ("`-1` < z", "true"),
        ("z == `0`", "true"),
        ("`1.0` == `1`", "true"),
        ("`1e2` == `100`", "true"),
        ("`0.30000000000000004` == `0.3`", "true"),
        ("huge > h", "true"),
        ("huge == huge", "true"),
        ("contains([a], b)", "false"),
        ("contains([a], a)", "true"),
        ("'1' == `1`", "false"),
        ("'1' < `1`", "null"),
        ("max([b, a])", "9007199254740993"),
        ("sort([h, b, a])[0]", "9007199254740992"),
    ] {
        yields(expression, event, expected);
    }
}

#[test]
fn arithmetic_keeps_integers_integers() {
    for (expression, expected) in [
        ("abs(`-5`)", "5"),
        ("abs(`-1.50`)", "1.50"),
        ("abs(`-12345678901234567890123`)", "12345678901234567890123"),
        ("ceil(`1.2`)", "2"),
        ("floor(`-1.2`)", "-2"),
        ("ceil(`-0.5`)", "0"),
        ("floor(`1e300`)", "1e300"),
        ("floor(`7`)", "7"),
        ("sum(`[1, 2]`)", "3"),
        ("sum(`[]`)", "0"),
        ("sum(`[9007199254740993, 1]`)", "9007199254740994"),
        ("sum(`[0.5, 0.5]`)", "1.0"),
        ("avg(`[1, 2]`)", "1.5"),
        ("avg(`[]`)", "null"),
    ] {
        yields(expression, "null", expected);
    }
    let error = search("sum(@)", "[1e308, 1e308]").unwrap_err();
    assert_eq!(
        error.reason,
        "sum: the result is too large for a number (line 1, column 1)"
    );
}

#[test]
fn strings_are_compared_by_meaning_and_written_as_they_came() {
    let event = r#"{"\u0061": "\u0061\/", "p": "a/", "bell": "\u0007"}"#;
    yields("a == p", event, "true");
    yields("a", event, r#""\u0061\/""#);
    yields(
        "@",
        event,
        r#"{"\u0061":"\u0061\/","p":"a/","bell":"\u0007"}"#,
    );
    yields(
        "to_string(@)",
        event,
        r#""{\"a\":\"a/\",\"p\":\"a/\",\"bell\":\"\\u0007\"}""#,
    );
    yields("join('\"', [a, bell])", event, r#""a/\"\u0007""#);
    yields("length(@)", r#""\ud83d\ude00""#, "1");
}

#[test]
fn sorting_a_mixture_of_integers_and_fractions_does_not_panic() {
    let numbers: Vec<_> = (0..60)
        .map(|n| {
            format!(
                "900719925474099{}{}",
                n % 7,
                if n % 3 == 0 { ".0" } else { "" }
            )
        })
        .collect();
    search(
        "[sort(@), sort_by(@, &@), max(@), min_by(@, &@)]",
        &format!("[{}]", numbers.join(",")),
    )
    .unwrap();
}

#[test]
fn an_error_names_the_function_the_argument_and_the_type() {
    for (expression, event, reason) in [
        (
            "abs('x')",
            "1",
            "abs: argument 1 is a string, expected a number (line 1, column 1)",
        ),
        (
            "a ||\nabs(b)",
            "{}",
            "abs: argument 1 is null, expected a number (line 2, column 1)",
        ),
        (
            "starts_with(a, `1`)",
            r#"{"a":"x"}"#,
            "starts_with: argument 2 is a number, expected a string (line 1, column 1)",
        ),
        (
            "sum(@)",
            "[1,\"x\"]",
            "sum: argument 1 is an array whose item 1 is a string, expected an array of numbers (line 1, column 1)",
        ),
        (
            "merge(@, a)",
            "{}",
            "merge: argument 2 is null, expected an object (line 1, column 1)",
        ),
        (
            "sort_by(@, &a)",
            "[{\"a\":1},{}]",
            "sort_by: argument 2 yields null for item 1, expected a number (line 1, column 1)",
        ),
        (
            "sort_by(@, 'a')",
            "[1]",
            "sort_by: argument 2 is a string, expected a reference to an expression (&…) (line 1, column 1)",
        ),
        (
            "not_null(&a)",
            "1",
            "the result holds a reference to an expression (&…), which is no JSON value",
        ),
    ] {
        let error = search(expression, event).unwrap_err();
        assert_eq!(
            (error.reason.as_str(), error.stage),
            (reason, Stage::Projection)
        );
    }
}

#[test]
fn a_program_decides_by_filter_then_projection() {
    /// Filter, projection, event, and what is expected: the verdict and what is appended.
    type Case = (
        Option<&'static str>,
        Option<&'static str>,
        &'static str,
        Result<Verdict, Stage>,
        &'static str,
    );
    let cases: &[Case] = &[
        (None, None, " {\"a\" : 1} ", Ok(Verdict::Unchanged), ""),
        (None, None, "{\"a\" : 1", Err(Stage::Decode), ""),
        (Some("a"), None, "{\"a\":0}", Ok(Verdict::Unchanged), ""),
        (Some("a"), None, "{\"a\":[]}", Ok(Verdict::Filtered), ""),
        (Some("a"), None, "{\"a\":{}}", Ok(Verdict::Filtered), ""),
        (Some("a"), None, "{\"a\":\"\"}", Ok(Verdict::Filtered), ""),
        (Some("a"), None, "{\"b\":1}", Ok(Verdict::Filtered), ""),
        (
            Some("a"),
            Some("abs(b)"),
            "{\"b\":\"x\"}",
            Ok(Verdict::Filtered),
            "",
        ),
        (
            Some("a"),
            Some("abs(b)"),
            "{\"a\":1,\"b\":\"x\"}",
            Err(Stage::Projection),
            "",
        ),
        (
            Some("abs(b)"),
            Some("b"),
            "{\"b\":\"x\"}",
            Err(Stage::Filter),
            "",
        ),
        (
            Some("a"),
            Some("b"),
            "{\"a\":1,\"b\":2} x",
            Err(Stage::Decode),
            "",
        ),
        (
            Some("a"),
            Some("b"),
            "{\"a\":1}",
            Ok(Verdict::Discarded),
            "",
        ),
        (
            None,
            Some("[b]"),
            "{\"b\":false}",
            Ok(Verdict::Projected),
            "[false]",
        ),
        (
            None,
            Some("[b, not_null(&b)]"),
            "{\"b\":1}",
            Err(Stage::Projection),
            "",
        ),
    ];
    for (filter, projection, event, expected, appended) in cases {
        let program = Program::compile(*filter, *projection, Limits::default()).unwrap();
        assert_eq!(
            (program.has_filter(), program.has_projection()),
            (filter.is_some(), projection.is_some())
        );
        let mut out = b"before".to_vec();
        let verdict = program
            .evaluator()
            .apply(event.as_bytes(), &mut out)
            .map_err(|error| error.stage);
        assert_eq!(
            (verdict, String::from_utf8(out).unwrap()),
            (*expected, format!("before{appended}")),
            "{event}"
        );
    }
}

#[test]
fn the_errors_of_both_expressions_are_reported() {
    let errors = Program::compile(Some("a =="), Some("{a"), Limits::default()).unwrap_err();
    assert_eq!(
        errors.iter().map(|error| error.which).collect::<Vec<_>>(),
        ["filter", "projection"]
    );
}

#[test]
fn a_program_is_shared_by_threads() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    shared(&Program::compile(Some("a == `{\"b\": [1]}`"), None, Limits::default()).unwrap());
}

#[test]
fn large_and_deep_events_are_handled_on_a_small_stack() {
    let work = || {
        let text = "x".repeat(20_000_000);
        let event = format!("{{\"a\":\"{text}\",\"b\":1}}");
        assert_eq!(search("length(a)", &event).unwrap(), "20000000");
        let many: Vec<_> = (0..500_000).map(|n| format!("\"k{n}\":[{n}]")).collect();
        assert_eq!(
            search("k499999[0]", &format!("{{{}}}", many.join(","))).unwrap(),
            "499999"
        );
        // The deepest event through the deepest expression.
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        let expression = format!("{}@ == @{}", "[".repeat(95), "]".repeat(95));
        let program = Program::compile(
            None,
            Some(&expression),
            Limits {
                max_depth: usize::MAX,
                ..Limits::default()
            },
        )
        .unwrap();
        let mut out = Vec::new();
        assert_eq!(
            program.evaluator().apply(deep.as_bytes(), &mut out),
            Ok(Verdict::Projected)
        );
        let calls = format!("{}@{}", "map(&".repeat(45), ", @)".repeat(45));
        assert!(search(&calls, "[]").is_ok());
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}
