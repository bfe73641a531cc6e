use super::*;
use crate::route::tests::{assert_refused, assert_taken};

const KAFKA: &[&str] = &["sink.type=kafka", "sink.kafka.topic=out"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [KAFKA, more].concat()
}

#[test]
fn a_sink_that_is_a_source_is_a_loop() {
    let loops = "sink.kafka.topic: out is also a source topic: the route would read what it writes, for ever";
    let topics = "source.topics=in, out";
    assert_refused(&with(&[topics]), &[loops]);
    for servers in [
        "sink.kafka.bootstrap.servers=127.0.0.1:1",
        "sink.kafka.bootstrap.servers=other:1, PLAINTEXT://127.0.0.1:1",
        "sink.kafka.metadata.broker.list=127.0.0.1:1",
    ] {
        assert_refused(
            &with(&[topics, servers, "sink.kafka.transactions=false"]),
            &[loops],
        );
    }
    assert_taken(&with(&[topics, "sink.kafka.bootstrap.servers=127.0.0.1:2"]));
    assert_taken(&with(&["source.topics=in, outs"]));
}

#[test]
fn a_pattern_that_matches_what_the_route_writes_is_a_loop() {
    for pattern in ["^out", "^o.*", "^.*t$", "^in|out"] {
        let topics = format!("source.topics=in, {pattern}");
        let says =
            format!("sink.kafka.topic: out is matched by the pattern {pattern} of source.topics: ");
        assert_refused(&with(&[&topics]), &[&says, "deliver to another topic"]);
        // With the brokers' matching it may be none; better safe.
        assert_refused(&with(&[&topics, "kafka.group.protocol=consumer"]), &[&says]);
    }
    assert_taken(&with(&["source.topics=^out-.*"]));
    assert_taken(&with(&[
        "source.topics=^o.*",
        "sink.kafka.bootstrap.servers=127.0.0.1:2",
    ]));
}

#[test]
fn dead_letters_that_are_read_again_are_a_loop() {
    let topics = "source.topics=^r.*";
    assert_refused(
        &[topics],
        &[
            "dead.letter.topic: r.dead-letters is matched by the pattern ^r.* of source.topics: the route would read its own dead letters",
        ],
    );
    assert_refused(
        &["source.topics=a", "dead.letter.topic=a"],
        &["a is also a source topic"],
    );
    // They stay on the source cluster, wherever the sink is.
    assert_refused(
        &with(&[topics, "sink.kafka.bootstrap.servers=127.0.0.1:2"]),
        &["r.dead-letters is matched"],
    );
    assert_taken(&[topics, "dead.letter.topic=other"]);
    assert_taken(&[topics, "dead.letter.policy=stop"]);
}

#[test]
fn dead_letters_stay_apart_from_what_is_delivered() {
    let same = "dead.letter.topic=out";
    assert_refused(
        &with(&[same]),
        &["dead.letter.topic: out is also sink.kafka.topic"],
    );
    assert_taken(&with(&[same, "sink.kafka.bootstrap.servers=127.0.0.1:2"]));
}

#[test]
fn patterns_are_posix() {
    for (pattern, says) in [
        (
            "^a(",
            "the pattern ^a( is no regular expression: unclosed group",
        ),
        ("^a[", "the pattern ^a[ is no regular expression"),
        ("^a{1", "a comma ends it"),
        (
            r"^a\d+",
            r"uses `\d`, which POSIX regular expressions don't have; write it as",
        ),
        (r"^\w", r"`\w`"),
        (r"^[\s]", r"`\s`"),
        (r"^a\b", r"`\b`"),
        ("^(?:a)", "`(?`"),
        ("^[[:word:]]+-plays", "`[:word:]`"),
        ("^[[:^digit:]]", "`[:^digit:]`"),
    ] {
        let topics = format!("source.topics={pattern}");
        assert_refused(&[&topics], &["source.topics: ", says]);
    }
    for pattern in [
        r"^a\.b",
        "^a[.]b",
        r"^[\.]",
        "^[[:digit:]]+$",
        "^(a|b)-[0-9]*",
        r"^a\\d",
    ] {
        assert_taken(&[&format!("source.topics={pattern}")]);
    }
}

#[test]
fn a_pattern_matches_as_the_protocol_says() {
    let matches = |whole| pattern("^a|b", whole).unwrap().is_match("ab");
    assert!(matches(false) && !matches(true));
    assert!(pattern("^a-.*", true).unwrap().is_match("a-b"));
}

#[test]
fn names_are_those_of_kafka() {
    let long = "x".repeat(250);
    for name in ["a b", "a/b", "ü", ".", "..", &long] {
        for key in ["sink.kafka.topic", "dead.letter.topic", "source.topics"] {
            let says = format!("{key}: no topic can be named {name}: ");
            assert_refused(&with(&[&format!("{key}={name}")]), &[&says]);
        }
    }
    assert_refused(
        &with(&["sink.kafka.topic=out-{type}"]),
        &[
            "no topic can be named out-{type}: '{' is not allowed in it; a topic is one name for all events, no template",
        ],
    );
    assert_taken(&with(&[
        "source.topics=A.b_c-1",
        &format!("dead.letter.topic={}", &long[1..]),
    ]));
}

#[test]
fn a_topic_that_is_named_twice_is_refused() {
    assert_refused(
        &["source.topics=a, ^b, a, ^b"],
        &[
            "source.topics: a stands there twice",
            "^b stands there twice",
        ],
    );
}

#[test]
fn all_names_are_reported_at_once() {
    assert_refused(
        &with(&[
            "source.topics=a b, ^(",
            "sink.kafka.topic=c d",
            "dead.letter.topic=e f",
        ]),
        &["named a b", "the pattern ^( is", "named c d", "named e f"],
    );
}
