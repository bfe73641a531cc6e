//! The commands that need no server, as a person or a CI system meets them: `keystone test` and `keystone eval`.

mod command;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use command::{keystone, keystone_with};
use rdkafka::mocking::MockCluster;

/// A file under a directory, and the directories on the way.
fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().expect("it has a parent")).expect("it can be made");
    std::fs::write(&path, text).expect("it can be written");
    path.display().to_string()
}

#[track_caller]
fn assert_says(text: &str, all: &[&str]) {
    for words in all {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

const ROUTE: &str = "route.name = r\nsource.topics = events\nkafka.bootstrap.servers = localhost:9092\nsink.type = stdout\n\
                     filter = n\nprojection = {n: n, at: meta('topic')}\nhygiene.types = n: integer\n";

#[test]
fn the_cases_of_the_examples_pass() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut routes: Vec<PathBuf> = std::fs::read_dir(examples)
        .expect("the examples can be read")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "properties")
        })
        // Every option with its default: nothing to test.
        .filter(|path| !path.ends_with("route.sample.properties"))
        .collect();
    routes.sort();
    assert!(routes.len() >= 4, "{routes:?}");
    let mut args = vec!["test"];
    args.extend(routes.iter().filter_map(|path| path.to_str()));
    let answer = keystone(&args, b"");
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
}

#[test]
fn a_failed_case_shows_the_difference_and_update_accepts_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let route = file(dir, "plays.properties", ROUTE);
    let case = |name: &str, text: &str| file(dir, &format!("plays.tests/some/{name}.ndjson"), text);
    case(
        "input",
        "{\"n\": 1}\n\n{\"n\": 2.0}\r\n{\"m\": 1}\n{\"$record\": {\"topic\": \"other\", \"value\": {\"n\": 3}}}\nno\n",
    );
    case(
        "delivered",
        "{\"at\": \"events\", \"n\": 1}\n{\"n\": 4, \"at\": \"other\"}\n",
    );
    case("dead-letters", "{\"stage\": \"hygiene\"}\n");
    let junit = dir.join("junit.xml").display().to_string();
    let failed = keystone(&["test", &route, "--junit", &junit], b"");
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    assert_says(
        &failed.out,
        &[
            "FAILED",
            "plays.properties: some (5 events: 2 delivered, 1 filtered, 0 discarded, 2 dead letters (decode 1, hygiene 1))",
            "delivered.ndjson",
            "line 2 is not as expected:\n      {\n    -   \"n\": 4,\n    +   \"n\": 3,\n        \"at\": \"other\"\n      }\n",
            "dead-letters.ndjson",
            "not expected:\n    + {\"stage\":\"decode\",\"reason\":\"not JSON: ",
        ],
    );
    assert_eq!(
        failed.err,
        "1 of 1 case failed; if what comes out is right, accept it with --update\n"
    );
    let xml = std::fs::read_to_string(&junit).expect("it was written");
    assert_says(
        &xml,
        &[
            "tests=\"1\" failures=\"1\"",
            "name=\"some\"",
            "<failure message=\"delivered.ndjson",
        ],
    );

    let updated = keystone(&["test", &route, "--update"], b"");
    assert_eq!(updated.code, Some(0), "{}{}", updated.out, updated.err);
    assert_says(&updated.out, &["updated "]);
    let dead_letters = dir.join("plays.tests/some/dead-letters.ndjson");
    let text = std::fs::read_to_string(dead_letters).expect("it is there");
    assert!(
        text.starts_with("{\"stage\":\"hygiene\"}\n{\"stage\":\"decode\","),
        "what was right has changed: {text}"
    );
    let passed = keystone(&["test", &route, "--junit", &junit], b"");
    assert_eq!((passed.code, passed.err.as_str()), (Some(0), ""));
    assert_says(&passed.out, &["ok ", "1 case passed"]);
    let xml = std::fs::read_to_string(&junit).expect("it was written");
    assert_says(&xml, &["tests=\"1\" failures=\"0\""]);
}

#[test]
fn what_is_wrong_with_a_test_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let bad = file(
        dir,
        "bad.properties",
        &format!("{ROUTE}hygiene.require = n\n"),
    );
    let worse = file(
        dir,
        "worse.properties",
        &ROUTE.replace("filter = n", "filter = n =="),
    );
    let untested = file(dir, "untested.properties", ROUTE);
    let answer = keystone(&["test", &bad, &worse, &untested], b"");
    assert_eq!((answer.code, answer.out.as_str()), (Some(64), ""));
    assert_says(
        &answer.err,
        &[
            "bad.properties:8",
            "did you mean `hygiene.required`",
            "worse.properties:5",
            "filter",
        ],
    );
    let answer = keystone(&["test", "/no/such.properties"], b"");
    assert_eq!(answer.code, Some(64), "{}", answer.err);
    let answer = keystone(&["test", &untested], b"");
    assert_eq!(answer.code, Some(1));
    assert_says(
        &answer.out,
        &["it has no cases", "untested.tests/<case>", "input.ndjson"],
    );

    let broken = file(dir, "broken.properties", ROUTE);
    file(dir, "broken.tests/a/delivered.ndjson", "");
    file(
        dir,
        "broken.tests/b/input.ndjson",
        "{}\n{\"$record\": {\"topc\": 1}}\n",
    );
    file(dir, "broken.tests/c/input.ndjson", "{}\n");
    file(dir, "broken.tests/c/delivered.ndjson", "\nnot JSON\n");
    let answer = keystone(&["test", &broken], b"");
    assert_eq!(answer.code, Some(1));
    assert_says(
        &answer.out,
        &[
            "a/input.ndjson is missing",
            "b/input.ndjson:2: $record: unknown field `topc`",
            "c/delivered.ndjson:2: not JSON",
        ],
    );
    assert_says(&answer.err, &["3 of 3 cases failed"]);
}

#[test]
fn a_route_is_tested_without_its_secrets_and_with_other_options() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let route = file(
        dir,
        "secret.properties",
        &format!("{ROUTE}kafka.sasl.password = ${{file:/no/such/secret}}\n"),
    );
    file(
        dir,
        "secret.tests/a/input.ndjson",
        "{\"n\":1}\n{\"n\":0.5}\n",
    );
    file(
        dir,
        "secret.tests/a/delivered.ndjson",
        "{\"n\":1,\"at\":\"events\"}\n",
    );
    let answer = keystone(
        &["test", &route, "--set", "hygiene.on.violation=discard"],
        b"",
    );
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
    assert_says(
        &answer.out,
        &["1 delivered, 0 filtered, 1 discarded, 0 dead letters"],
    );
}

#[test]
fn eval_reads_one_event_a_line_or_laid_out() {
    let events = "{\n  \"a\": 1.0,\n  \"b\": [\n    \"x  y\"\n  ]\n}\n{\"a\":2}\nnot JSON\n{\"a\":0}\n{\n}{\n\"a\":3}\n";
    let answer = keystone(&["eval", "--filter", "a != `0`"], events.as_bytes());
    assert_eq!(answer.code, Some(0));
    assert_eq!(
        answer.out,
        "{\"a\": 1.0,\"b\": [\"x  y\"]}\n{\"a\":2}\n{}\n{\"a\":3}\n"
    );
    assert_eq!(
        answer.err,
        "standard input, line 8: decode: not JSON: unexpected 'o' in 'null' at byte 1\n\
         6 events: 4 delivered, 1 filtered, 0 discarded, 1 dead letter (decode 1)\n"
    );
}

#[test]
fn eval_reports_a_runtime_error_and_goes_on() {
    let events = b"{\"a\":1}\n{\"a\":\"x\"}\n{\"a\":-2}\n";
    let answer = keystone(&["eval", "--expression", "abs(a)"], events);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "1\n2\n"));
    assert_says(
        &answer.err,
        &[
            "standard input, line 2: projection: abs: argument 1 is a string",
            "3 events: 2 evaluated, 1 failed",
        ],
    );
    let answer = keystone(&["eval", "--expression", "abs('x')"], events);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), ""));
    assert_says(&answer.err, &["3 events: 0 evaluated, 3 failed"]);
    for wrong in ["abs(", "abz(a)", "abs(a, a)"] {
        let answer = keystone(&["eval", "--expression", wrong], events);
        assert_eq!(
            (answer.code, answer.out.as_str()),
            (Some(64), ""),
            "{wrong}"
        );
        assert_says(&answer.err, &[wrong, "^"]);
    }
}

#[test]
fn eval_decides_as_a_route_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let route = file(
        dir,
        "r.properties",
        &format!("{ROUTE}kafka.sasl.password = ${{file:/no/such/secret}}\n"),
    );
    let events = file(dir, "events.json", "{\"n\": 1}\n{\"n\": 1.5}\n{}\n[\n");
    let answer = keystone(&["eval", "--config", &route, "--verdicts", &events], b"");
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let at = |line: u8| format!("{{\"at\":\"{events}, line {line}\",\"verdict\":");
    let expected = [
        at(1) + "\"delivered\",\"value\":{\"n\":1,\"at\":\"\"}}",
        at(2)
            + "\"dead-letter\",\"stage\":\"hygiene\",\"reason\":\"hygiene.types: n is a number with a fraction or an exponent, expected an integer\",\"value\":{\"n\":1.5}}",
        at(3) + "\"filtered\",\"value\":{}}",
        at(4)
            + "\"dead-letter\",\"stage\":\"decode\",\"reason\":\"not JSON: it ends inside the array that begins at byte 0, at byte 1\",\"text\":\"[\"}",
    ];
    assert_eq!(answer.out, expected.join("\n") + "\n");
    assert_eq!(
        answer.err,
        "4 events: 1 delivered, 1 filtered, 0 discarded, 2 dead letters (decode 1, hygiene 1)\n"
    );
    // What is given on the command line counts instead.
    let args = [
        "eval",
        "--config",
        &route,
        "--projection",
        "{x: n, y: `\"${z}\"`}",
        "--set",
        "hygiene.types=x: number",
        &events,
    ];
    let answer = keystone(&args, b"");
    assert_eq!(
        answer.out, "{\"x\":1,\"y\":\"${z}\"}\n{\"x\":1.5,\"y\":\"${z}\"}\n",
        "{}",
        answer.err
    );
    for (args, words) in [
        (&["--from-topic", "3"][..], "--config"),
        (
            &["--config", &route, "--from-topic", "3", &events],
            "--from-topic",
        ),
        (&["--set", "hygiene.required=a"], "--config"),
        (&["--config", &route, "--filter", "n =="], "filter"),
        (
            &["--config", &route, "--from-topic", "3"],
            "/no/such/secret",
        ),
    ] {
        let answer = keystone(&[&["eval"], args].concat(), b"");
        assert_eq!(answer.code, Some(64), "{}", answer.err);
        assert_says(&answer.err, &[words]);
    }
}

#[test]
fn eval_from_a_topic_without_a_broker_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = ROUTE.replace("localhost:9092", "127.0.0.1:1");
    let route = file(directory.path(), "r.properties", &text);
    let answer = keystone(&["eval", "--config", &route, "--from-topic", "3"], b"");
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (Some(1), ""),
        "{}",
        answer.err
    );
    assert_says(
        &answer.err,
        &["no Kafka broker answers at kafka.bootstrap.servers = 127.0.0.1:1"],
    );
}

#[test]
fn a_keyed_hash_is_tried_with_a_key_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    let key = file(dir, "key", "a key\n");
    let projection = "{h: hmac_sha256(n, 'users')}";
    let event = b"{\"n\":\"x\"}";
    let secret = format!("users={key}");
    let answer = keystone(
        &["eval", "--secret", &secret, "--projection", projection],
        event,
    );
    assert_says(&answer.out, &["{\"h\":\""]);
    assert_eq!(
        answer.out.len(),
        "{\"h\":\"\"}\n".len() + 64,
        "{}",
        answer.err
    );
    let text = ROUTE.replace(
        "projection = {n: n, at: meta('topic')}\nhygiene.types = n: integer",
        &format!("projection = {projection}"),
    );
    let route = file(
        dir,
        "r.properties",
        &format!("{text}dsl.secret.users = ${{file:/no/such/key}}\n"),
    );
    file(dir, "r.tests/a/input.ndjson", "{\"n\":\"x\"}\n");
    file(dir, "r.tests/a/delivered.ndjson", &answer.out);
    let absent = keystone(&["test", &route], b"");
    assert_eq!(absent.code, Some(64), "{}", absent.out);
    assert_says(&absent.err, &["dsl.secret.users", "/no/such/key"]);
    let given = keystone(&["test", &route, "--set", "dsl.secret.users=a key"], b"");
    assert_eq!(given.code, Some(0), "{}{}", given.out, given.err);
    let args = [
        "eval",
        "--config",
        &route,
        "--set",
        "dsl.secret.users=a key",
        "--expression",
        projection,
    ];
    assert_eq!(keystone(&args, event).out, answer.out);
}

#[test]
fn the_value_of_a_misspelt_secret_is_printed_nowhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = ROUTE.replace(
        "sink.type = stdout",
        "sink.type = kafka\nsink.kafka.topic = out",
    );
    let route = file(directory.path(), "r.properties", &text);
    let env = [("KEYSTONE_KAFKA_SASL_PASSWD", OsStr::new("R3ALPASSWORD"))];
    for args in [
        &["run", "--config", &route][..],
        &["check", "--config", &route],
        &["check", "--offline", "--config", &route],
        &["eval", "--from-topic", "1", "--config", &route],
    ] {
        let answer = keystone_with(&env, args, b"");
        assert_eq!(answer.code, Some(64), "{}", answer.err);
        assert_says(
            &answer.err,
            &["KEYSTONE_KAFKA_SASL_PASSWD: kafka.sasl.passwd: librdkafka says: No such"],
        );
        let said = answer.out + &answer.err;
        assert!(!said.contains("R3ALPASSWORD"), "{said}");
    }
}

#[test]
fn a_variable_that_is_no_text_is_told_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let route = file(directory.path(), "r.properties", ROUTE);
    let env = [
        ("KEYSTONE_FILTER", OsStr::from_bytes(b"hidden\xff")),
        ("OTHER", OsStr::from_bytes(b"\xff")),
    ];
    let answer = keystone_with(&env, &["check", "--offline", "--config", &route], b"");
    assert_eq!(answer.code, Some(64), "{}", answer.out);
    assert_eq!(
        answer.err,
        "KEYSTONE_FILTER: the variable is not valid UTF-8; set it to text in UTF-8\n"
    );
}

/// As in a CI system, which has none of its files.
#[test]
fn a_route_is_checked_offline_without_its_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "{ROUTE}kafka.security.protocol = SASL_SSL\nkafka.sasl.mechanism = PLAIN\nkafka.sasl.username = me\n\
         kafka.sasl.password = ${{file:/no/such/secret}}\nkafka.ssl.ca.location = /no/such/ca\n"
    );
    let route = file(directory.path(), "r.properties", &text);
    let offline = |more: &[&str]| {
        let args = ["check", "--offline", "--config", &route];
        keystone(&[&args[..], more].concat(), b"")
    };
    let right = offline(&[]);
    assert_eq!(right.code, Some(0), "{}", right.err);
    assert_says(
        &right.err,
        &[
            "warning: not here, so not checked: ",
            "r.properties:11: kafka.sasl.password: can't take the value from the file /no/such/secret: No such file",
            "r.properties:12: kafka.ssl.ca.location: can't read the file /no/such/ca: No such file",
        ],
    );
    assert_eq!(right.err.lines().count(), 2, "{}", right.err);
    assert_says(
        &right.out,
        &[
            "kafka.sasl.password = ${file:/no/such/secret}",
            "kafka.ssl.ca.location = /no/such/ca",
            "the route r is valid (no server was asked)",
        ],
    );
    let wrong = offline(&["--set", "filter=n =="]);
    assert_eq!(wrong.code, Some(64), "{}", wrong.err);
    assert_says(&wrong.err, &["warning: ", "--set: filter: "]);
    // A worker needs them.
    let online = keystone(&["check", "--config", &route], b"");
    assert_eq!(online.code, Some(64), "{}", online.err);
}

#[test]
fn the_demo_wants_an_empty_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    file(directory.path(), "left", "");
    let out = directory.path().display().to_string();
    let answer = keystone(&["demo", "--events", "1", "--out", &out], b"");
    assert_eq!(answer.code, Some(64), "{}{}", answer.out, answer.err);
    assert_says(&answer.err, &["the directory is not empty", &out]);
}

/// A broker of librdkafka's own speaks neither TLS nor SASL.
#[test]
fn why_no_broker_answers_is_told() {
    let cluster = MockCluster::new(1).expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let text = ROUTE.replace("localhost:9092", &cluster.bootstrap_servers());
    let route = file(directory.path(), "r.properties", &text);
    let args = [
        "check",
        "--config",
        &route,
        "--set",
        "kafka.security.protocol=SSL",
    ];
    let answer = keystone(&args, b"");
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    assert_says(
        &answer.err,
        &[
            "source: no Kafka broker answers at kafka.bootstrap.servers = 127.0.0.1:",
            // "SSL handshake failed", or disconnected "in state SSL_HANDSHAKE": as the connection breaks.
            "SSL",
            "kafka.security.protocol",
        ],
    );
    // Too long for a name, so that nobody is asked for it.
    let host = "x".repeat(70);
    let text = ROUTE.replace("localhost", &host);
    let route = file(directory.path(), "r.properties", &text);
    let answer = keystone(&["eval", "--config", &route, "--from-topic", "3"], b"");
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    assert_says(&answer.err, &[&host, "resolve"]);
}
