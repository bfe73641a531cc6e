//! Every kind of bad event is a dead letter with its reason, or what the documentation says, and the good events around it are delivered.

use keystone_tests::kafka::Record;
use keystone_tests::{Kafka, Result, Worker};

use crate::by_hand::produce_by_hand;
use crate::scenario::{
    END, Outgoing, all_committed, assert_ledger, assert_lines, counter, drain, last_line, route,
    send, values,
};

/// For topics that take events of 20 MB.
pub(crate) const LARGE: &[(&str, &str)] = &[("max.message.bytes", "30000000")];

/// Events that are not JSON, each with words that its reason must hold.
pub(crate) fn not_json() -> Vec<(Vec<u8>, &'static str)> {
    let mut deep = vec![b'['; 100_000];
    deep.extend(vec![b']'; 100_000]);
    vec![
        (b"not json".to_vec(), "not JSON: unexpected 'o'"),
        (b"{\"id\":\"a\xff\"}".to_vec(), "not UTF-8"),
        (b"{\"id\":\"trunc".to_vec(), "it ends inside the string"),
        (Vec::new(), "the payload is empty"),
        (b"  \n".to_vec(), "it ends where a value was expected"),
        (b"\xef\xbb\xbf{}".to_vec(), "a byte order mark"),
        (b"{\"id\":\"\\ud800\"}".to_vec(), "half a surrogate pair"),
        (b"{\"id\":\"nul\0\"}".to_vec(), "must be escaped"),
        (deep, "nested deeper than 128"),
        (b"{} {}".to_vec(), "after the end of the value"),
        (b"{\"n\":NaN}".to_vec(), "unexpected 'N'"),
    ]
}

/// Events that look odd and are good.
fn odd_and_good() -> Vec<String> {
    vec![
        r#"{"id":"first"}"#.to_owned(),
        r#"{"id":"big","n":12345678901234567890123456789.000000000000000000001,"e":1E400,"m":-0}"#
            .to_owned(),
        r#"{"id":"9007199254740993","n":9007199254740993}"#.to_owned(),
        r#"{"id":"shadowed","id":"twice","a":1,"a":2}"#.to_owned(),
        r#"{"id":"escaped \u0000 \ud83d\ude00"}"#.to_owned(),
        "{\r\n  \"id\": \"pretty\",\n  \"a\": [\n    1\n  ]\n}\n".to_owned(),
        r#"{"id":"last"}"#.to_owned(),
    ]
}

/// A good event, a bad one, a good one, …, and the dead letters' reasons in order.
fn good_around_bad() -> (Vec<Outgoing>, Vec<&'static str>) {
    let mut records: Vec<Outgoing> = Vec::new();
    let mut reasons = Vec::new();
    let good = odd_and_good();
    for (at, (value, reason)) in not_json().into_iter().enumerate() {
        records.push(Outgoing::new(good[at % good.len()].as_bytes()));
        records.push(Outgoing {
            key: Some("the key"),
            headers: vec![("trace", Some(b"\x01\xff")), ("empty", None)],
            timestamp: Some(1_700_000_000_000 + at as i64),
            ..Outgoing::new(value)
        });
        reasons.push(reason);
    }
    records.push(Outgoing {
        key: Some("the key"),
        headers: vec![("trace", Some(b"\x01\xff")), ("empty", None)],
        ..Outgoing::default()
    });
    reasons.push("tombstone");
    records.push(Outgoing::new(good[good.len() - 1].as_bytes()));
    (records, reasons)
}

/// The dead letter says where it came from, and is otherwise the record that was sent.
pub(crate) fn assert_dead_letter(
    letter: &Record,
    sent: &Record,
    route: &str,
    stage: &str,
    reason: &str,
) {
    let header = |name: &str| letter.header(name).unwrap_or_default();
    let origin = format!("{}@{}", header("keystone.source.topic"), sent.offset);
    assert_eq!(header("keystone.route"), route, "{origin}");
    assert_eq!(header("keystone.stage"), stage, "{origin}");
    assert!(
        header("keystone.reason").contains(reason),
        "{origin}: {:?} and not {reason}",
        header("keystone.reason")
    );
    assert_eq!(
        header("keystone.source.partition"),
        sent.partition.to_string()
    );
    assert_eq!(header("keystone.source.offset"), sent.offset.to_string());
    let timestamp = sent.timestamp.map(|ms| ms.to_string());
    assert_eq!(
        letter.header("keystone.source.timestamp"),
        timestamp,
        "{origin}"
    );
    assert!(
        letter.timestamp > sent.timestamp,
        "{origin}: not dated anew"
    );
    assert!(letter.key == sent.key, "{origin}: another key");
    assert!(letter.value == sent.value, "{origin}: another value");
    let own = letter.headers.len() - 7;
    assert_eq!(letter.headers[..own], sent.headers, "{origin}");
}

/// The letters in the order of their origin.
pub(crate) fn dead_letters(kafka: &Kafka, route: &str) -> Result<Vec<Record>> {
    let mut letters = kafka.read_all(&format!("{route}.dead-letters"))?;
    let number = |letter: &Record, name: &str| {
        let text = letter.header(name).unwrap_or_default();
        text.parse::<i64>().unwrap_or(-1)
    };
    letters.sort_by_key(|letter| {
        (
            number(letter, "keystone.source.partition"),
            number(letter, "keystone.source.offset"),
        )
    });
    Ok(letters)
}

#[test]
fn bad_events_are_dead_letters_and_good_ones_around_them_are_delivered() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("bad-in", 1, LARGE)?;
    kafka.create_topic("bad-out", 1, &[])?;
    let (records, reasons) = good_around_bad();
    send(kafka, "bad-in", &records)?;
    let sink = "sink.type = kafka\nsink.kafka.topic = bad-out";
    let mut worker = Worker::spawn(&route(kafka, "bad", "bad-in", sink))?;
    all_committed(kafka, "bad", "bad-in", &mut [&mut worker])?;
    assert_ledger(&mut worker)?;
    assert_eq!(counter(&worker, "dead_lettered")?, reasons.len() as u64);
    let decoded = [("stage", "decode")];
    let by_stage = worker
        .metrics()?
        .sum("keystone_events_dead_lettered_total", &decoded);
    assert_eq!(by_stage, reasons.len() as f64);
    drain(worker)?;

    let sent = kafka.read_all("bad-in")?;
    let (bad, good): (Vec<_>, Vec<_>) = sent.into_iter().partition(|record| record.key.is_some());
    let letters = dead_letters(kafka, "bad")?;
    assert_eq!(letters.len(), bad.len());
    for ((letter, sent), reason) in letters.iter().zip(&bad).zip(reasons) {
        assert_dead_letter(letter, sent, "bad", "decode", reason);
    }
    let delivered: Vec<_> = kafka
        .read_all("bad-out")?
        .into_iter()
        .map(|r| r.value)
        .collect();
    let good: Vec<_> = good.into_iter().map(|record| record.value).collect();
    assert!(delivered == good, "not byte for byte what was sent");
    Ok(())
}

/// Digits, escapes and the last of duplicate keys come through a projection; what an expression can't do is a dead letter.
#[test]
fn a_projection_keeps_digits_and_takes_the_last_of_duplicate_keys() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("odd-in", 1, &[])?;
    kafka.create_topic("odd-out", 1, &[])?;
    let mut records: Vec<_> = odd_and_good()
        .iter()
        .map(|event| Outgoing::new(event.as_bytes()))
        .collect();
    records.push(Outgoing::new(r#"{"id":"x","n":"text"}"#));
    records.push(Outgoing::new(r#"{"id":"x","a":{"b":1}}"#));
    records.push(Outgoing::new("7"));
    send(kafka, "odd-in", &records)?;
    let more = "filter = n == `null` || abs(n) > `0`\nprojection = {id: id, n: n, e: e, m: m, a: a && sum(to_array(a))}\n\
                sink.type = kafka\nsink.kafka.topic = odd-out";
    let mut worker = Worker::spawn(&route(kafka, "odd", "odd-in", more))?;
    all_committed(kafka, "odd", "odd-in", &mut [&mut worker])?;
    drain(worker)?;
    let found = values(kafka, "odd-out")?;
    assert_eq!(
        found,
        [
            r#"{"id":"first","n":null,"e":null,"m":null,"a":null}"#,
            r#"{"id":"big","n":12345678901234567890123456789.000000000000000000001,"e":1E400,"m":-0,"a":null}"#,
            r#"{"id":"9007199254740993","n":9007199254740993,"e":null,"m":null,"a":null}"#,
            r#"{"id":"twice","n":null,"e":null,"m":null,"a":2}"#,
            r#"{"id":"escaped \u0000 \ud83d\ude00","n":null,"e":null,"m":null,"a":null}"#,
            r#"{"id":"pretty","n":null,"e":null,"m":null,"a":1}"#,
            r#"{"id":"last","n":null,"e":null,"m":null,"a":null}"#,
            r#"{"id":null,"n":null,"e":null,"m":null,"a":null}"#,
        ]
    );
    let letters = dead_letters(kafka, "odd")?;
    let sent = kafka.read_all("odd-in")?;
    assert_eq!(letters.len(), 2);
    assert_dead_letter(&letters[0], &sent[7], "odd", "filter", "abs: ");
    assert_dead_letter(&letters[1], &sent[8], "odd", "projection", "sum: ");
    Ok(())
}

/// What is put right is delivered; what breaks a rule is a dead letter, or is discarded, and is counted by rule.
#[test]
fn events_that_break_hygiene_rules() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("hygiene-in", 1, &[])?;
    let records = [
        r#"{ "id": "kept as it is" }"#,
        r#"{"id":" put right\t","ms":7,"gone":null,"n":1.0}"#,
        r#"{"id":null,"ms":"7"}"#,
        r#"{"id":"\u0020","ms":7.5}"#,
        r#"{"id":"0123456789012345678901234567890123456789"}"#,
    ];
    let reasons = [
        (
            2,
            "hygiene.required: id is missing; hygiene.types: ms is a string, expected an integer",
        ),
        (
            3,
            "hygiene.types: ms is a number with a fraction or an exponent, expected an integer",
        ),
        (
            4,
            "hygiene.max.event.bytes: the event has 49 bytes, at most 40 are allowed",
        ),
    ];
    send(kafka, "hygiene-in", &records.map(Outgoing::new))?;
    let rules = "hygiene.required = id\nhygiene.types = ms: integer\nhygiene.max.event.bytes = 40\n\
                 hygiene.drop.nulls = true\nhygiene.trim.strings = true\nsink.type = kafka\n";
    for (name, more) in [
        ("hygiene", ""),
        ("hygiene-discard", "hygiene.on.violation = discard"),
    ] {
        let out = format!("{name}-out");
        kafka.create_topic(&out, 1, &[])?;
        let more = format!("{rules}sink.kafka.topic = {out}\n{more}");
        let mut worker = Worker::spawn(&route(kafka, name, "hygiene-in", &more))?;
        all_committed(kafka, name, "hygiene-in", &mut [&mut worker])?;
        assert_ledger(&mut worker)?;
        let metrics = worker.metrics()?;
        for (rule, count) in [("required", 1.0), ("types", 2.0), ("max.event.bytes", 1.0)] {
            let rule = [("rule", rule), ("route", name)];
            assert_eq!(
                metrics.get("keystone_hygiene_violations_total", &rule),
                Some(count)
            );
        }
        let outcome = if more.ends_with("discard") {
            "discarded"
        } else {
            "dead_lettered"
        };
        assert_eq!(counter(&worker, outcome)?, 3);
        drain(worker)?;
        assert_eq!(
            values(kafka, &out)?,
            [records[0], r#"{"id":"put right","ms":7,"n":1.0}"#]
        );
    }
    let sent = kafka.read_all("hygiene-in")?;
    let letters = dead_letters(kafka, "hygiene")?;
    assert_eq!(letters.len(), reasons.len());
    for (letter, (at, reason)) in letters.iter().zip(reasons) {
        assert_dead_letter(letter, &sent[at], "hygiene", "hygiene", reason);
    }
    Ok(())
}

#[test]
fn the_policies_stop_and_discard() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("policy-in", 1, &[])?;
    let records = [
        Outgoing::new(r#"{"id":"before"}"#),
        Outgoing::new("bad"),
        Outgoing::default(),
        Outgoing::new(r#"{"id":"after"}"#),
    ];
    send(kafka, "policy-in", &records)?;
    kafka.create_topic("stop-out", 1, &[])?;
    let sink = "sink.type = kafka\nsink.kafka.topic = stop-out\ndead.letter.policy = stop";
    let mut worker = Worker::spawn(&route(kafka, "policy-stop", "policy-in", sink))?;
    let (status, log) = worker.wait_exit(END)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert_lines(
        last_line(&log),
        &[&["policy-in", "offset 1", "not JSON", "dead.letter.policy"]],
    );
    let committed = kafka.committed("policy-stop", "policy-in")?;
    assert!(
        committed.get(&0).is_none_or(|offset| *offset <= 1),
        "{committed:?}"
    );

    kafka.create_topic("discard-out", 1, &[])?;
    let sink = "sink.type = kafka\nsink.kafka.topic = discard-out\ndead.letter.policy = discard";
    let mut worker = Worker::spawn(&route(kafka, "policy-discard", "policy-in", sink))?;
    all_committed(kafka, "policy-discard", "policy-in", &mut [&mut worker])?;
    assert_eq!(counter(&worker, "discarded")?, 2);
    assert_eq!(counter(&worker, "dead_lettered")?, 0);
    assert_ledger(&mut worker)?;
    drain(worker)?;
    assert_eq!(
        values(kafka, "discard-out")?,
        [r#"{"id":"before"}"#, r#"{"id":"after"}"#]
    );
    for route in ["policy-stop", "policy-discard"] {
        assert!(
            kafka
                .partitions(&format!("{route}.dead-letters"))?
                .is_empty()
        );
    }
    Ok(())
}

/// A producer in another language may send a header whose name is not UTF-8. Ours can't: the request is written by hand.
#[test]
fn a_header_whose_name_is_not_utf8() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("header-in", 1, &[])?;
    kafka.create_topic("header-out", 1, &[])?;
    send(kafka, "header-in", &[Outgoing::new(r#"{"id":"before"}"#)])?;
    produce_by_hand(kafka, "header-in", br#"{"id":"odd header"}"#, b"na\xffme")?;
    send(kafka, "header-in", &[Outgoing::new(r#"{"id":"after"}"#)])?;
    let sink = "sink.type = kafka\nsink.kafka.topic = header-out";
    let mut worker = Worker::spawn(&route(kafka, "header", "header-in", sink))?;
    all_committed(kafka, "header", "header-in", &mut [&mut worker])?;
    drain(worker)?;
    assert_eq!(
        values(kafka, "header-out")?,
        [r#"{"id":"before"}"#, r#"{"id":"after"}"#]
    );
    let letters = dead_letters(kafka, "header")?;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].value.as_deref(),
        Some(&br#"{"id":"odd header"}"#[..])
    );
    assert_eq!(
        letters[0].header("keystone.source.offset").as_deref(),
        Some("1")
    );
    assert_eq!(
        letters[0].header("keystone.stage").as_deref(),
        Some("decode")
    );
    let reason = letters[0].header("keystone.reason").unwrap_or_default();
    assert!(
        reason.contains("the name of a header is not UTF-8"),
        "{reason}"
    );
    assert_eq!(letters[0].headers.len(), 7);
    Ok(())
}
