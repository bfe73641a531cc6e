//! What `keystone eval` makes of the results and errors that the official suites of JMESPath and of JSON know: exit code, standard output,
//! standard error. That the language itself agrees with each case of the suites is tested beside it.

mod command;

use command::keystone;

/// Twice: an error of the first must not keep the second from being evaluated.
const EVENTS: &[u8] = b"{\"foo\":{\"bar\":[1,\"2\"]}}\n{\"foo\":{\"bar\":[1,\"2\"]}}\n";

#[test]
fn an_expression_has_a_result_is_refused_or_fails_for_each_event() {
    let cases: [(&str, i32, &str, &str); 9] = [
        ("foo.bar[1]", 0, "\"2\"\n\"2\"\n", "2 evaluated, 0 failed"),
        ("foo.none", 0, "null\nnull\n", "2 evaluated, 0 failed"),
        ("foo.{b: bar[0]}", 0, "{\"b\":1}\n{\"b\":1}\n", "2 events: "),
        // Of each event by itself.
        ("abs(foo)", 0, "", "2 events: 0 evaluated, 2 failed"),
        ("avg(foo.bar)", 0, "", "line 2: projection: avg: "),
        // Before any event is read.
        ("foo.", 64, "", "^"),
        ("unknown(foo)", 64, "", "unknown"),
        ("abs(foo, foo)", 64, "", "abs"),
        ("foo[0:1:0]", 64, "", "step"),
    ];
    for (expression, code, out, err) in cases {
        let answer = keystone(&["eval", "--expression", expression], EVENTS);
        assert_eq!(
            (answer.code, answer.out.as_str()),
            (Some(code), out),
            "{expression}: {answer:?}"
        );
        assert!(answer.err.contains(err), "{expression}: {answer:?}");
    }
}

#[test]
fn a_document_is_an_event_or_none_or_fails() {
    let cases: [(&[u8], &str, &str); 4] = [
        (
            b"[\"laid\",\n\n  \"out\"]",
            "[\"laid\",\"out\"]\n",
            "1 events: 1 evaluated, 0 failed",
        ),
        (b"[1,]", "", "1 events: 0 evaluated, 1 failed"),
        (b"[\"\xff\"]", "", "not UTF-8"),
        // No document is no event.
        (b" ", "", "0 events: "),
    ];
    for (document, out, err) in cases {
        let answer = keystone(&["eval", "--expression=@"], document);
        assert_eq!(
            (answer.code, answer.out.as_str()),
            (Some(0), out),
            "{answer:?}"
        );
        assert!(answer.err.contains(err), "{answer:?}");
    }
}
