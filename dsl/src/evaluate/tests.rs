use std::cell::Cell;

use proptest::prelude::*;

use crate::{EventError, Expression, Limits, Program, Record, Stage, Verdict};

thread_local! {
    static EVALUATED: Cell<usize> = const { Cell::new(0) };
}

/// Called for each node that is evaluated.
pub(super) fn count() {
    EVALUATED.with(|count| count.set(count.get() + 1));
}

/// How many nodes are evaluated, and why there is no result.
fn work(expression: &str, event: &str) -> (usize, Option<String>) {
    EVALUATED.with(|count| count.set(0));
    let failed = search(expression, event).err().map(|error| error.reason);
    (EVALUATED.with(Cell::get), failed)
}

fn search(expression: &str, event: &str) -> Result<String, EventError> {
    let mut out = Vec::new();
    let expression = Expression::compile(expression).unwrap_or_else(|error| panic!("{error}"));
    expression
        .search(&Record::of(event.as_bytes()), &mut out)
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
            .apply(&Record::of(event.as_bytes()), &mut out)
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
        let limits = Limits {
            max_depth: usize::MAX,
            ..Limits::default()
        };
        let program = Program::compile(None, Some(&expression), limits).unwrap();
        let mut out = Vec::new();
        let record = Record::of(deep.as_bytes());
        let verdict = program.evaluator().apply(&record, &mut out);
        assert_eq!(verdict, Ok(Verdict::Projected));
        // The deepest value that a chain can make of it, through the functions that recurse.
        let chain = format!("@{}", " | [@]".repeat(399));
        let recursing =
            format!("[drop_nulls({chain}) == @, to_json({chain}) == to_string({chain})]");
        for expression in [chain, recursing] {
            let program = Program::compile(None, Some(&expression), limits).unwrap();
            let verdict = program.evaluator().apply(&record, &mut out);
            assert_eq!(verdict, Ok(Verdict::Projected));
        }
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

/// Loops inside loops over what is shared, of which nothing is kept.
#[test]
fn going_through_a_shared_part_again_and_again_is_limited() {
    let shared = |depth: usize| format!("@{}", " | [@, @]".repeat(depth));
    let nested = |open: &str, inner: &str, close: &str, depth| {
        open.repeat(depth) + inner + &close.repeat(depth)
    };
    for depth in [22, 26, 30] {
        for loops in [
            nested("@[?", "@.nosuch", "]", depth),
            nested("@[*].[", "nosuch", "][?nosuch]", depth / 2),
            nested("map(&", "nosuch", ", @)", depth),
            nested("sort_by(@, &length(", "to_array(nosuch)", "))", 20),
            nested("max_by(@, &length(to_array(", "nosuch", ")))", 20),
            nested("@[?length(", "to_array(nosuch)", ") < `0`]", 20),
        ] {
            let expression = format!("{} | {loops}", shared(depth));
            let (evaluated, failed) = work(&expression, "{}");
            assert!(
                evaluated < 12_000_000,
                "{evaluated} of {expression}: {failed:?}"
            );
        }
    }
    let (_, failed) = work(
        &format!("{} | {}", shared(26), nested("@[?", "nosuch", "]", 26)),
        "{}",
    );
    assert!(
        failed
            .as_deref()
            .is_some_and(|why| why.contains("too often: more than 67108992 bytes")),
        "{failed:?}"
    );
}

/// What is paid for is what is gone through, also where one look at an item is a look at much.
#[test]
fn a_large_part_that_is_looked_at_for_each_item_is_paid_for() {
    let many: Vec<_> = (0..5_000).map(|n| format!("\"k{n}\":null")).collect();
    let object = format!("{{{}}}", many.join(","));
    let event = format!(
        "{{\"o\":{object},\"t\":\"{}\",\"e\":[{}]}}",
        "x".repeat(50_000),
        vec!["[]"; 20_000].join(",")
    );
    let thousands = " | [@, @, @, @, @, @, @, @, @, @][]".repeat(5);
    for step in [
        "[?nosuch]",
        "[?length(@) < `0`]",
        "[?drop_nulls([@])[0].nosuch]",
        "[?@ == 'x'].nosuch",
        "[?contains(@, 'y')]",
        "[?type(@) == 'array' && @[] && `false`]",
    ] {
        for part in ["o", "t", "e"] {
            let expression = format!("[{part}] | [[0], [0]]{thousands} | {step}");
            let passed = work(&expression, &event);
            assert!(passed.0 < 3_000_000, "{expression}: {passed:?}");
        }
    }
    let (_, failed) = work(&format!("[o]{thousands} | [?nosuch]"), &event);
    assert!(failed.is_some_and(|why| why.contains("too often")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// One pass is never too much, however long the event and however many fields are asked for.
    #[test]
    fn a_long_event_is_gone_through_with_every_field(items in 1_usize..3_000, fields in 1_usize..30) {
        let members: Vec<_> = (0..fields).map(|n| format!("\"f{n}\":{n}")).collect();
        let item = format!("{{{}}}", members.join(","));
        let event = format!("[{}]", vec![item.as_str(); items].join(","));
        let taken: Vec<_> = (0..fields).map(|n| format!("f{n}: f{n}")).collect();
        let limits = Limits { max_output_bytes: usize::MAX >> 4, ..Limits::default() };
        let expression = format!("[?f0 == `0` && length(@) > `0`].{{{}}}", taken.join(", "));
        let compiled = Expression::compile_with(&expression, limits).unwrap();
        let mut out = Vec::new();
        compiled.search(&Record::of(event.as_bytes()), &mut out).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap(), event);
    }
}
