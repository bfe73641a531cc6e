use crate::{Expression, ExpressionError, Limits, Record, Secrets, Settings};

fn settings() -> Settings {
    let mut secrets = Secrets::default();
    secrets.insert("users", "hunter2");
    Settings {
        secrets,
        ..Settings::default()
    }
}

/// The result as JSON, or the reason why there is none.
pub(super) fn ask(expression: &str, event: &str) -> Result<String, String> {
    let compiled = Expression::compile_with(expression, settings());
    let compiled = compiled.unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    let outcome = compiled.search(&Record::of(event.as_bytes()), &mut out);
    outcome
        .map(|()| String::from_utf8(out).unwrap())
        .map_err(|error| error.reason)
}

#[track_caller]
pub(super) fn yields(expression: &str, event: &str, expected: &str) {
    let found = ask(expression, event);
    assert_eq!(found.as_deref(), Ok(expected), "{expression} on {event}");
}

/// The event is a dead letter; the place in the expression is left out of the reason.
#[track_caller]
pub(super) fn fails(expression: &str, event: &str, reason: &str) {
    let found = ask(expression, event).expect_err(expression);
    let (found, _) = found.split_once(" (line").unwrap_or((&found, ""));
    assert_eq!(found, reason, "{expression} on {event}");
}

pub(super) fn refused(expression: &str) -> ExpressionError {
    match Expression::compile_with(expression, settings()) {
        Ok(_) => panic!("{expression} was accepted"),
        Err(error) => error,
    }
}

/// The expression is refused, with the caret at that column.
#[track_caller]
pub(super) fn refuses(expression: &str, column: usize, message: &str) {
    let error = refused(expression);
    // Where an argument is wrong, the function is named before it.
    let found = match error.message.split_once(": argument") {
        Some((function, reason)) if expression.contains(function) => format!("argument{reason}"),
        _ => error.message,
    };
    assert_eq!(
        (error.position.1, found.as_str()),
        (column, message),
        "{expression}"
    );
}

#[test]
fn no_two_functions_have_one_name() {
    let names = super::names();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
}

#[test]
fn a_wrong_number_of_arguments_is_found_when_it_is_compiled() {
    refuses("lower()", 1, "lower takes 1 argument, found 0");
    refuses(
        "substring(a)",
        1,
        "substring takes 2 to 3 arguments, found 1",
    );
    refuses(
        "mask(a, `1`, `2`)",
        1,
        "mask takes 1 to 2 arguments, found 3",
    );
    refuses("pick(@)", 1, "pick takes at least 2 arguments, found 1");
    refuses("if(a, b)", 1, "if takes 3 arguments, found 2");
    refuses("merge()", 1, "merge takes at least 1 argument, found 0");
}

#[test]
fn a_misspelt_function_names_the_nearest() {
    for (misspelt, nearest) in [
        ("lowercase", "lower"),
        ("toLower", "lower"),
        ("hmacsha256", "hmac_sha256"),
        ("sha_256", "sha256"),
        ("regexp_extract", "regex_extract"),
        ("regex_matches", "regex_match"),
        ("headers", "header"),
        ("parseJson", "parse_json"),
        ("converttime", "convert_time"),
        ("dropnull", "drop_nulls"),
        ("oneof", "one_of"),
        ("start_with", "starts_with"),
        ("sumstring", "substring"),
    ] {
        let hint = refused(&format!("{misspelt}(a)")).hint;
        assert_eq!(hint, Some(format!("did you mean '{nearest}'?")));
    }
}

#[test]
fn a_wrong_type_names_function_argument_and_type() {
    let event = r#"{"n": 1, "f": 1.5, "s": "x", "l": [1], "o": {}}"#;
    fails(
        "lower(n)",
        event,
        "lower: argument 1 is a number, expected a string",
    );
    fails(
        "replace(s, s, l)",
        event,
        "replace: argument 3 is an array, expected a string",
    );
    fails(
        "substring(s, f)",
        event,
        "substring: argument 2 is a number with a point or an exponent, expected an integer",
    );
    fails(
        "pick(l, 'a')",
        event,
        "pick: argument 1 is an array, expected an object",
    );
    fails(
        "pick(o, 'a', n)",
        event,
        "pick: argument 3 is a number, expected a string",
    );
    fails(
        "to_json(&a) || x",
        event,
        "to_json: argument 1 is a reference to an expression (&…), expected a value",
    );
    fails(
        "[lower(missing)]",
        event,
        "lower: argument 1 is null, expected a string",
    );
}

#[test]
fn literals_of_a_wrong_type_are_found_when_it_is_compiled() {
    refuses("lower(`1`)", 7, "argument 1 is a number, expected a string");
    refuses(
        "a || substring(a, 'x')",
        19,
        "argument 2 is a string, expected an integer",
    );
    refuses(
        "mask(a, `-1`)",
        9,
        "argument 2 is a negative number, expected an integer from 0",
    );
    refuses(
        "truncate(a, `99999999999999999999`)",
        13,
        "argument 2 is a number beyond 64 bits, expected an integer from 0",
    );
    refuses(
        "set(@, `[\"a\", 1]`, a)",
        8,
        "argument 2 is an array whose item 1 is a number, expected a string or an array of strings",
    );
}

/// A small expression must not make much of a small event.
#[test]
fn what_an_expression_makes_is_limited() {
    let doubled = |step: &str| format!("@{}", format!(" | {step}").repeat(60));
    let event = r#"{"a": "aaaaaaaa"}"#;
    for expression in [
        doubled("[@, @]"),
        doubled("{a: @, b: @}"),
        doubled("[@, @][]"),
        doubled("join('', [to_string(@), to_string(@)])"),
        doubled("to_json([@, @])"),
        doubled("drop_nulls([@, @])"),
        format!("a | {}", doubled("replace(@, 'a', 'aa')")),
        format!("a | {}", doubled("replace(@, 'a', @)")),
        format!("a | {}", doubled("upper(join(@, [@, @, @]))")),
        format!("[a] | {}", doubled("map(&join('', [@, @]), [@, @][])")),
        doubled("merge({a: @}, {b: @})"),
        doubled("flatten({a: {b: @, c: @}})"),
        format!("[{0}, {0}] | [0] == [1]", doubled("[@, @]")),
        format!("[{0}, {0}] | contains(@, [0])", doubled("{a: @, b: @}")),
        format!("one_of({0}, {0})", doubled("[@, @]")),
    ] {
        let reason = ask(&expression, event).expect_err(&expression);
        assert!(
            reason.contains("limit of an expression's output")
                || reason.contains("the limit of its output")
                || reason.contains("too often"),
            "{expression}: {reason}"
        );
    }
}

#[test]
fn the_limit_of_the_output_is_exact() {
    let most = |max_output_bytes| Limits {
        max_output_bytes,
        ..Limits::default()
    };
    let event = Record::of(br#"{"a": "12345678"}"#);
    let mut out = b"before".to_vec();
    let fits = Expression::compile_with("a", most(10)).unwrap();
    assert_eq!(fits.search(&event, &mut out), Ok(()));
    assert_eq!(out, b"before\"12345678\"");
    let tight = Expression::compile_with("a", most(9)).unwrap();
    let error = tight.search(&event, &mut out).unwrap_err();
    assert!(error.reason.contains("larger than the limit"), "{error}");
    assert_eq!(out, b"before\"12345678\"");
}
