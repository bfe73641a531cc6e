//! Events that are in order and do not fit where they are to go: too large, or not what an index or a table takes.

use keystone_tests::events::noise;
use keystone_tests::{Elasticsearch, Kafka, Result, Worker, http, judge};
use serde_json::json;

use crate::bad_events::{LARGE, assert_dead_letter, dead_letters, not_json};
use crate::scenario::{
    END, Outgoing, all_committed, assert_ledger, assert_lines, drain, file_url, last_line, route,
    send, values,
};

const TWENTY_MEGABYTES: usize = 20_000_000;

/// 20 MB are delivered where the target takes them. Where it does not, the event is a dead letter that names the limit.
#[test]
fn events_of_twenty_megabytes() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("large-in", 1, LARGE)?;
    kafka.create_topic("large-out", 1, LARGE)?;
    kafka.create_topic("small-out", 1, &[])?;
    let filler = noise(1, TWENTY_MEGABYTES);
    let records = [
        Outgoing::new(r#"{"id":"before"}"#),
        Outgoing::new(format!(r#"{{"id":"large","t":"{filler}"}}"#)),
        Outgoing::new(r#"{"id":"between"}"#),
        Outgoing::new(format!(r#"{{"id":"bad","t":"{filler}"#)),
        Outgoing::new(r#"{"id":"after"}"#),
    ];
    send(kafka, "large-in", &records)?;
    let sent = kafka.read_all("large-in")?;
    let limit = "sink.kafka.message.max.bytes = 30000000";
    // The name, the sink's topic, the client's limit, and whether the large event gets through.
    let routes = [
        ("large", "large-out", limit, true),
        ("large-client", "small-out", "", false),
        ("large-topic", "small-out", limit, false),
    ];
    for (name, to, limit, fits) in routes {
        let more = format!("sink.type = kafka\nsink.kafka.topic = {to}\n{limit}");
        let mut worker = Worker::spawn(&route(kafka, name, "large-in", &more))?;
        all_committed(kafka, name, "large-in", &mut [&mut worker])?;
        assert_ledger(&mut worker)?;
        drain(worker)?;
        let mut letters = dead_letters(kafka, name)?;
        if !fits {
            let limits =
                "it is larger than sink.kafka.message.max.bytes or the topic's max.message.bytes";
            assert_dead_letter(&letters.remove(0), &sent[1], name, "sink", limits);
        }
        assert_eq!(letters.len(), 1);
        assert_dead_letter(&letters[0], &sent[3], name, "decode", "it ends inside");
        let found: Vec<_> = kafka.read_all(to)?;
        let expected: &[usize] = if fits { &[0, 1, 2, 4] } else { &[0, 2, 4] };
        let tail = &found[found.len() - expected.len()..];
        assert!(
            tail.iter()
                .map(|r| &r.value)
                .eq(expected.iter().map(|at| &sent[*at].value)),
            "{name}: {} records, not those expected",
            found.len()
        );
    }
    Ok(())
}

/// The worker stops rather than lose a dead letter, and says what to do; then it goes on.
#[test]
fn a_dead_letter_that_does_not_fit_stops_the_worker_until_its_topic_takes_it() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("unburied-in", 1, LARGE)?;
    kafka.create_topic("unburied-out", 1, &[])?;
    kafka.create_topic(
        "unburied.dead-letters",
        1,
        &[("max.message.bytes", "100000")],
    )?;
    let records = [
        Outgoing::new(r#"{"id":"before"}"#),
        Outgoing::new(noise(1, 2_000_000)),
        Outgoing::new("small and bad"),
        Outgoing::new(r#"{"id":"after"}"#),
    ];
    send(kafka, "unburied-in", &records)?;
    let sink = "sink.type = kafka\nsink.kafka.topic = unburied-out";
    let properties = route(kafka, "unburied", "unburied-in", sink);
    let mut worker = Worker::spawn(&properties)?;
    let (status, log) = worker.wait_exit(END)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert_lines(
        last_line(&log),
        &[&[
            "unburied-in-0 offset 1",
            "unburied.dead-letters",
            "dead.letter.topic",
            "raise that topic's max.message.bytes",
        ]],
    );
    let committed = kafka.committed("unburied", "unburied-in")?;
    assert!(
        committed.get(&0).is_none_or(|offset| *offset <= 1),
        "{committed:?}"
    );
    kafka.delete_topic("unburied.dead-letters")?;
    keystone_tests::wait_until(END, "the topic is gone", || {
        kafka
            .partitions("unburied.dead-letters")
            .is_ok_and(|found| found.is_empty())
    });
    let mut worker = Worker::spawn(&properties)?;
    all_committed(kafka, "unburied", "unburied-in", &mut [&mut worker])?;
    drain(worker)?;
    let letters = dead_letters(kafka, "unburied")?;
    let sent = kafka.read_all("unburied-in")?;
    assert_eq!(letters.len(), 2);
    assert_dead_letter(&letters[0], &sent[1], "unburied", "decode", "not JSON");
    assert_dead_letter(&letters[1], &sent[2], "unburied", "decode", "not JSON");
    let found = values(kafka, "unburied-out")?;
    assert!(
        found.contains(&r#"{"id":"before"}"#.to_owned()),
        "{found:?}"
    );
    assert!(found.contains(&r#"{"id":"after"}"#.to_owned()), "{found:?}");
    Ok(())
}

/// The event fits into the topic of the dead letters, and with a long reason it would not: it is written with the beginning of the reason.
#[test]
fn a_dead_letter_that_its_reason_makes_too_large_has_less_of_it() -> Result<()> {
    let kafka = Kafka::shared()?;
    let limit = [("max.message.bytes", "100000")];
    kafka.create_topic("long-reason-in", 1, &[])?;
    kafka.create_topic("long-reason.dead-letters", 1, &limit)?;
    let large = format!(r#"{{"t":"{}"}}"#, noise(1, 97_500));
    let records = [
        Outgoing::new("{}"),
        Outgoing::new(large),
        Outgoing::new("{}"),
    ];
    send(kafka, "long-reason-in", &records)?;
    let fields: Vec<String> = (0..300).map(|n| format!("required_field_{n}")).collect();
    // The reason repeats itself, and would fit compressed.
    let more = format!(
        "sink.type = blackhole\nkafka.compression.type = none\nhygiene.required = {}",
        fields.join(", ")
    );
    let mut worker = Worker::spawn(&route(kafka, "long-reason", "long-reason-in", &more))?;
    all_committed(kafka, "long-reason", "long-reason-in", &mut [&mut worker])?;
    assert_ledger(&mut worker)?;
    drain(worker)?;
    let letters = dead_letters(kafka, "long-reason")?;
    let sent = kafka.read_all("long-reason-in")?;
    let reason = "hygiene.required: required_field_0 is missing";
    let lengths = [4_096, 200, 4_096];
    assert_eq!(letters.len(), lengths.len());
    for ((letter, sent), length) in letters.iter().zip(&sent).zip(lengths) {
        assert_dead_letter(letter, sent, "long-reason", "hygiene", reason);
        let reason = letter.header("keystone.reason").unwrap_or_default();
        assert_eq!(reason.len(), length, "offset {}", sent.offset);
    }
    Ok(())
}

/// The text of `_source` as Elasticsearch keeps it.
fn source(server: &Elasticsearch, index: &str, id: &str) -> Result<String> {
    let url = format!("{}/{index}/_source/{id}", server.url());
    Ok(http().get(url).send()?.text()?)
}

#[test]
fn odd_and_bad_events_on_the_way_to_elasticsearch() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    server.create_index(
        "odd",
        &json!({"mappings": {"dynamic": false, "properties": {"n": {"type": "long"}}}}),
    )?;
    kafka.create_topic("odd-es-in", 1, LARGE)?;
    let pretty = "{\r\n  \"id\": \"pretty\",\n\t\"a\": [\n    1,\n  \"b \\n c\"]\n}\n";
    let big = r#"{"id":"big","n":9007199254740993,"o":12345678901234567890123456789.00001}"#;
    let index_line = r#"{"id":"meta","index":{"_index":"other","_id":"1"}}"#;
    let mut records = vec![
        Outgoing::new(pretty),
        Outgoing::new(big),
        Outgoing::new(index_line),
        Outgoing::new(r#"{"id":"escaped","t":"\u0000\ud83d\ude00\n"}"#),
        Outgoing::new(r#"{"id":"conflict","n":"no number"}"#),
        Outgoing::new("[1, 2]"),
        Outgoing::new(r#"{"no":"id"}"#),
        Outgoing::default(),
    ];
    records.extend(
        not_json()
            .into_iter()
            .map(|(value, _)| Outgoing::new(value)),
    );
    records.push(Outgoing::new(r#"{"id":"last"}"#));
    send(kafka, "odd-es-in", &records)?;
    let more = format!(
        "sink.type = elasticsearch\nsink.elasticsearch.urls = {}\nsink.elasticsearch.index = odd\nsink.elasticsearch.id = id",
        server.url()
    );
    let mut worker = Worker::spawn(&route(kafka, "odd-es", "odd-es-in", &more))?;
    all_committed(kafka, "odd-es", "odd-es-in", &mut [&mut worker])?;
    assert_ledger(&mut worker)?;
    drain(worker)?;

    assert_eq!(server.count("odd")?, 5);
    assert_eq!(source(server, "odd", "big")?, big);
    assert_eq!(source(server, "odd", "meta")?, index_line);
    assert_eq!(
        source(server, "odd", "escaped")?,
        r#"{"id":"escaped","t":"\u0000\ud83d\ude00\n"}"#
    );
    // White space between tokens carries nothing. A line break would end the bulk line: it is a space.
    let unbroken = pretty.replace(['\n', '\r'], " ");
    assert_eq!(source(server, "odd", "pretty")?, unbroken);

    let letters = dead_letters(kafka, "odd-es")?;
    let sent = kafka.read_all("odd-es-in")?;
    assert_eq!(letters.len(), 4 + not_json().len());
    let expected = [
        (4, "sink", "no number"),
        (5, "sink", "object"),
        (
            6,
            "sink",
            "no id can be made for the event: it has no field \"id\"",
        ),
        (7, "decode", "tombstone"),
    ];
    for (letter, (at, stage, reason)) in letters.iter().zip(expected) {
        assert_dead_letter(letter, &sent[at], "odd-es", stage, reason);
    }
    let conflict = letters[0].header("keystone.reason").unwrap_or_default();
    for words in ["odd", "[n]", "long", "conflict"] {
        assert!(conflict.contains(words), "{conflict}");
    }
    for ((letter, sent), (_, reason)) in letters[4..].iter().zip(&sent[8..]).zip(not_json()) {
        assert_dead_letter(letter, sent, "odd-es", "decode", reason);
    }
    Ok(())
}

#[test]
fn events_that_do_not_fit_a_parquet_schema() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("unfit-in", 1, LARGE)?;
    let directory = tempfile::tempdir()?;
    let good = [
        r#"{"id":"a","n":9007199254740993,"d":12345678901234567890.12,"ts":"2026-11-23T11:59:59Z"}"#,
        r#"{"id":"hidden","id":"b","n":1,"n":2,"d":null,"ts":"2026-11-23T11:00:00Z"}"#,
    ];
    let bad = [
        (
            r#"{"id":7,"ts":"2026-11-23T11:00:00Z"}"#,
            "column id expects string, got the number 7",
        ),
        (
            r#"{"id":"c","n":"7","ts":"2026-11-23T11:00:00Z"}"#,
            "column n expects bigint, got the string \"7\"",
        ),
        (
            r#"{"id":"c","n":9223372036854775808,"ts":"2026-11-23T11:00:00Z"}"#,
            "column n expects bigint, got the number 9223372036854775808",
        ),
        (
            r#"{"id":"c","d":1.234,"ts":"2026-11-23T11:00:00Z"}"#,
            "column d expects decimal(38,2), got the number 1.234",
        ),
        (r#"{"id":"c","ts":"soon"}"#, "soon"),
        (r#"{"id":"c"}"#, "ts"),
        ("[1]", "object"),
        ("", "the payload is empty"),
    ];
    let mut records = vec![Outgoing::new(good[0])];
    records.extend(bad.iter().map(|(event, _)| Outgoing::new(*event)));
    records.push(Outgoing::new(good[1]));
    send(kafka, "unfit-in", &records)?;
    let more = format!(
        "sink.type = parquet\nsink.parquet.location = {}\nsink.parquet.schema = id string, n bigint, d decimal(38,2)\n\
         sink.parquet.partition.by = dt={{ts:%Y-%m-%d}}, hour={{ts:%H}}\nsink.parquet.roll.max.age.ms = 500",
        file_url(directory.path())
    );
    let mut worker = Worker::spawn(&route(kafka, "unfit", "unfit-in", &more))?;
    all_committed(kafka, "unfit", "unfit-in", &mut [&mut worker])?;
    assert_ledger(&mut worker)?;
    let status = worker.status()?.to_string();
    let said = status + &drain(worker)?;
    assert!(said.contains("(stage sink)"), "{said}");
    assert!(
        !said.contains("column id expects") && !said.contains("soon"),
        "values of events are in the log: {said}"
    );
    let mut rows = Vec::new();
    for file in judge::visible_files(directory.path())? {
        assert!(file.to_string_lossy().contains("/dt=2026-11-23/hour=11/"));
        rows.extend(judge::parquet_rows(std::fs::read(file)?.into())?);
    }
    rows.sort();
    // Arrow's JSON writes a decimal as its digits.
    assert_eq!(
        rows,
        [
            r#"{"id":"a","n":9007199254740993,"d":12345678901234567890.12}"#,
            r#"{"id":"b","n":2,"d":null}"#
        ]
    );
    let letters = dead_letters(kafka, "unfit")?;
    let sent = kafka.read_all("unfit-in")?;
    assert_eq!(letters.len(), bad.len());
    for (at, (event, reason)) in bad.iter().enumerate() {
        let stage = if event.is_empty() { "decode" } else { "sink" };
        assert_dead_letter(&letters[at], &sent[at + 1], "unfit", stage, reason);
    }
    Ok(())
}
