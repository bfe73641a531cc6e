use super::*;

fn error(expression: &str) -> ExpressionError {
    match parse_for_route("filter", expression, &Settings::default()) {
        Ok(node) => panic!("{expression} was accepted as {node:?}"),
        Err(error) => error,
    }
}

#[test]
fn an_error_shows_the_expression_with_a_caret_and_a_hint() {
    assert_eq!(
        error("level == 'x' &&").to_string(),
        "filter: unexpected the end of the expression where a value was expected (line 1, column 16)\n\
         \x20   level == 'x' &&\n\
         \x20                  ^"
    );
    assert_eq!(
        error("a ||\n  start_with(b, 'x')").to_string(),
        "filter: there is no function 'start_with' (line 2, column 3)\n\
         \x20     start_with(b, 'x')\n\
         \x20     ^\n\
         \x20 hint: did you mean 'starts_with'?"
    );
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (expression, position, message) in [
        ("", (1, 1), "unexpected the end of the expression"),
        (
            "a.",
            (1, 3),
            "unexpected the end of the expression after '.'",
        ),
        (
            "a b",
            (1, 3),
            "unexpected 'b' after the end of the expression",
        ),
        ("'é' == b]", (1, 9), "unexpected ']' after the end"),
        ("a = b", (1, 3), "'=' is no operator"),
        ("'abc", (1, 1), "the closing ' is missing"),
        (
            "a == `x`",
            (1, 6),
            "the literal is not JSON: unexpected 'x' where a value was expected at its byte 0",
        ),
        ("\"\\x\"", (1, 3), "the quoted name is not a JSON string"),
        ("a == 5", (1, 6), "unexpected the number 5"),
        (
            "a[99999999999]",
            (1, 3),
            "the number 99999999999 is out of range",
        ),
        (
            "a[b]",
            (1, 3),
            "unexpected 'b' where a number, ':' or '*' was expected",
        ),
        ("a[1:2:0]", (1, 3), "a slice's step can't be 0"),
        ("a[1:2:3:4]", (1, 8), "unexpected ':'"),
        ("{a: b,}", (1, 7), "unexpected '}' where a key was expected"),
        (
            "[a b]",
            (1, 4),
            "unexpected 'b' where ',' or ']' was expected",
        ),
        (
            "length(a b)",
            (1, 10),
            "unexpected 'b' where ',' or ')' was expected",
        ),
        ("(a", (1, 3), "where ')' was expected"),
        ("a[?b", (1, 5), "where ']' was expected"),
        ("\"length\"(a)", (1, 1), "a function's name is not quoted"),
        (
            "&a",
            (1, 1),
            "'&' is allowed only before a function's argument",
        ),
        ("ä", (1, 1), "unexpected 'ä'"),
        ("length()", (1, 1), "length takes 1 argument, found 0"),
        (
            "not_null()",
            (1, 1),
            "not_null takes at least 1 argument, found 0",
        ),
        (
            "b || contains(a)",
            (1, 6),
            "contains takes 2 arguments, found 1",
        ),
    ] {
        let error = error(expression);
        assert_eq!(error.position, position, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert_eq!(
            (error.which, error.expression.as_str()),
            ("filter", expression)
        );
    }
}

#[test]
fn a_misspelt_function_gets_the_nearest_name() {
    for (written, meant) in [
        ("lenght", "length"),
        ("len", "length"),
        ("startsWith", "starts_with"),
        ("toString", "to_string"),
        ("typeof", "type"),
        ("sortby", "sort_by"),
        ("notnull", "not_null"),
        ("contain", "contains"),
    ] {
        assert_eq!(
            error(&format!("{written}(a)")).hint.unwrap(),
            format!("did you mean '{meant}'?")
        );
    }
    assert!(
        error("xyzzy(a)")
            .hint
            .unwrap()
            .starts_with("the functions are abs, avg, ")
    );
}

#[test]
fn only_the_surroundings_of_the_place_are_shown_of_a_long_line() {
    let shown = error(&format!("{}=", "abcdefgh || ".repeat(500))).to_string();
    let lines: Vec<_> = shown.lines().collect();
    let caret = lines[2].chars().position(|c| c == '^').unwrap();
    assert_eq!(lines[1].chars().nth(caret), Some('='), "{shown}");
    assert!(lines[1].chars().count() < 120, "{shown}");
}

#[test]
fn nesting_is_bounded_whatever_its_kind() {
    let nested: [(&str, &str, &str); 12] = [
        ("(", "a", ")"),
        ("[", "a", "]"),
        ("{a: ", "a", "}"),
        ("!", "a", ""),
        ("a[?", "a", "]"),
        ("length(", "a", ")"),
        ("map(&", "a", ", a)"),
        ("", "a", "[]"),
        ("", "a", " == a"),
        ("", "a", ".*"),
        ("a || (b && ", "c", ")"),
        ("", "a", "[*]"),
    ];
    for (before, inside, after) in nested {
        let text =
            |depth: usize| format!("{}{inside}{}", before.repeat(depth), after.repeat(depth));
        assert!(
            parse("filter", &text(25), &Settings::default()).is_ok(),
            "{}",
            text(25)
        );
        for depth in [200, 10_000, 100_000] {
            let error = error(&text(depth));
            assert!(error.message.contains("nested deeper"), "{}", error.message);
        }
    }
}

#[test]
fn long_chains_are_not_nested() {
    for step in [".a", " | a", " || a", " && a", "[0]"] {
        assert!(
            parse(
                "filter",
                &format!("a{}", step.repeat(10_000)),
                &Settings::default()
            )
            .is_ok(),
            "{step}"
        );
    }
}

#[test]
fn what_a_chain_makes_is_not_nested_without_limit() {
    for (step, most) in [
        ("[@]", 400),
        ("{a: @}", 400),
        ("to_array(@)", 400),
        ("set(@, 'a.b', @)", 200),
        ("set(@, a, @)", 12),
        ("parse_json(@)", 3),
        ("map(&[@], @)", 200),
    ] {
        let chain = |steps: usize| {
            let text = vec![step; steps].join(" | ");
            parse("filter", &text, &Settings::default())
        };
        assert!(chain(most).is_ok(), "{step}");
        let error = chain(most + 1).unwrap_err();
        assert_eq!(
            error.message,
            "a value may be nested 400 deeper than the event"
        );
    }
}

/// What is left out of the result may be as deep on the way.
#[test]
fn what_is_compared_or_tested_is_not_nested_without_limit() {
    let deep = vec!["[@]"; 401].join(" | ");
    for expression in [
        format!("!(@ | {deep})"),
        format!("(@ | {deep}) == a"),
        format!("a[?({deep})]"),
        format!("length({deep})"),
        format!("parse_json({deep})"),
    ] {
        let error = parse("filter", &expression, &Settings::default()).unwrap_err();
        assert!(
            error.message.starts_with("a value may be nested 400"),
            "{error}"
        );
    }
}

/// As messages inside messages are.
#[test]
fn json_in_text_in_json_in_text_can_be_read() {
    for expression in [
        "{e: parse_json(parse_json(body).Message)}",
        "parse_json(a).{x: parse_json(y)}",
        "map(&parse_json(@), parse_json(body).records)",
    ] {
        let parsed = parse("projection", expression, &Settings::default());
        assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
    }
}

#[test]
fn a_comparison_that_no_event_makes_true_is_refused() {
    for (expression, column, message) in [
        (
            "ts > '2026-01-01'",
            6,
            "'>' takes numbers, and with a string it is always null",
        ),
        (
            "'2026-01-01' <= ts",
            1,
            "'<=' takes numbers, and with a string",
        ),
        (
            "a || ts < (('x'))",
            11,
            "'<' takes numbers, and with a string",
        ),
        (
            "ts >= `\"2026\"`",
            7,
            "'>=' takes numbers, and with a string",
        ),
        ("a < `null`", 5, "'<' takes numbers, and with null"),
        ("`[1]` > a", 1, "'>' takes numbers, and with an array"),
        ("a[?b > 'x'].c", 8, "'>' takes numbers"),
        ("{late: ts > '2026'}", 13, "'>' takes numbers"),
        ("max_by(a, &(b < 'x'))", 17, "'<' takes numbers"),
        ("deleted == true", 12, "'true' is the name of a field here"),
        ("false != deleted", 1, "'false' is the name of a field here"),
        ("a && true == b", 6, "'true' is the name of a field here"),
        ("a[?b == false]", 9, "'false' is the name of a field here"),
        ("a == true && b", 6, "'true' is the name of a field here"),
        (
            "`1` < a < `9`",
            9,
            "'<' takes numbers, and a comparison or negation is none",
        ),
        ("!a > `5`", 4, "'>' takes numbers, and a comparison"),
        ("b < (a == c)", 3, "'<' takes numbers, and a comparison"),
        (
            "!a == 'x'",
            4,
            "a comparison or negation is true or false: with a string, '==' is always false",
        ),
        (
            "'x' != (a < b)",
            5,
            "a comparison or negation is true or false: with a string, '!=' is always true",
        ),
        ("!a.b", 3, "what stands before is true or false"),
        ("!a.\"b\"", 3, "what stands before is true or false"),
        ("!a.*", 3, "what stands before is true or false"),
        ("!a[]", 3, "what stands before is true or false"),
        ("(a == b)[?c]", 9, "what stands before is true or false"),
        ("true", 1, "'true' is the name of a field here"),
        ("(true)", 2, "'true' is the name of a field here"),
        ("a && true", 6, "'true' is the name of a field here"),
        ("false || a", 1, "'false' is the name of a field here"),
        ("!true", 2, "'true' is the name of a field here"),
        ("{live: true}", 8, "'true' is the name of a field here"),
        ("[a, false]", 5, "'false' is the name of a field here"),
        ("a[?true]", 4, "'true' is the name of a field here"),
        (
            "if(a, true, `false`)",
            7,
            "'true' is the name of a field here",
        ),
        (
            "one_of(a, `1`, false)",
            16,
            "'false' is the name of a field here",
        ),
    ] {
        let error = error(expression);
        // JMESPath has a meaning for it.
        assert!(parse("expression", expression, &Settings::default()).is_ok());
        assert_eq!(error.position, (1, column), "{error}");
        assert!(error.message.starts_with(message), "{error}");
    }
    assert_eq!(
        error("deleted == true").hint.unwrap(),
        "write `true` in backticks; a field of this name is written \"true\", in double quotes"
    );
    let hint = error("ts > '2026'").hint.unwrap();
    assert!(
        hint.contains("convert_time(field, 'rfc3339', 'millis')"),
        "{hint}"
    );
    for call in [
        "between(ts, '2026-01-01', '2027')",
        "convert_time(ts, 'rfc3339', 'millis') > `1`",
        "to_number(ts) < `5`",
    ] {
        assert!(
            parse_for_route("filter", call, &Settings::default()).is_ok(),
            "{call}"
        );
    }
}

#[test]
fn fields_of_any_name_and_comparisons_that_can_be_true_are_accepted() {
    for expression in [
        "deleted == \"true\"",
        "\"null\" != a",
        "\"false\" < `1`",
        "one_of(a, \"null\")",
        "not_null(true.a, b)",
        "deleted == `true`",
        "a.true == b",
        "true.a == b",
        "b == null.a",
        "a == trues",
        "\"true\"",
        "\"true\" && !\"false\"",
        "{true: \"true\", null: null}",
        "(a == b) == c",
        "(a == b) == `true`",
        "!a == `false`",
        "(a < b) != `null`",
        "!(a.b)",
        // A bracket binds tighter still.
        "!a[0]",
        "!a | [@]",
        "(a == b).[@]",
        "(a == b).to_string(@)",
        "a == 'true'",
        "a != 'x'",
        "a < b",
        "a < `1` && b == 'x'",
        "'x' == a || `2` > b",
        "'2' | to_number(@) < `3`",
        "a == `null`",
        // Null, unless an event has a field of that name.
        "a != null",
    ] {
        let parsed = parse_for_route("filter", expression, &Settings::default());
        assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
    }
}
