//! The commands as a person or a control plane meets them: exit codes, what is said and where. `check` has a file of its own.

use std::path::Path;

use keystone_tests::{Kafka, Result, Worker, keystone};
use parquet::file::reader::{FileReader, SerializedFileReader};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::scenario::{END, Outgoing, all_committed, assert_lines, drain, last_line, send};

/// Bad configuration or expression.
pub(crate) const USAGE: Option<i32> = Some(64);

/// Writes a file and gives its path as text.
pub(crate) fn file(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[test]
fn eval_filters_projects_and_explores() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let events = "{\"a\":1,\"n\":12345678901234567890}\n\n{\"a\":0}\r\nnot JSON\n{\"b\":2}\n";
    let path = file(directory.path(), "events.ndjson", events)?;
    let cases: [(&[&str], &str); 4] = [
        (
            &["--filter", "a > `0`"],
            "{\"a\":1,\"n\":12345678901234567890}\n",
        ),
        (
            &["--filter", "a", "--projection", "{x: n}"],
            "{\"x\":12345678901234567890}\n{\"x\":null}\n",
        ),
        (&["--projection", "b"], "2\n"),
        (&["--expression", "b"], "null\nnull\n2\n"),
    ];
    for (args, expected) in cases {
        let from_stdin = keystone(&[&["eval"], args].concat(), events.as_bytes())?;
        let from_file = keystone(&[&["eval"], args, &[path.as_str()]].concat(), b"")?;
        for (answer, name) in [(from_stdin, "standard input"), (from_file, path.as_str())] {
            assert_eq!(answer.code, Some(0), "{}", answer.stderr);
            assert_eq!(answer.stdout, expected, "{args:?}");
            assert_lines(&answer.stderr, &[&[name, "line 4", "not JSON"]]);
        }
    }
    let bad = keystone(
        &["eval", "--filter", "a > `0", "--projection", "{a: }"],
        b"{}",
    )?;
    assert_eq!(bad.code, USAGE);
    assert_eq!(bad.stdout, "");
    assert_lines(
        &bad.stderr,
        &[
            &["filter", "closing `"],
            &["    a > `0"],
            &["        ^"],
            &["projection"],
            &["    {a: }"],
        ],
    );
    let missing = keystone(&["eval", "--filter", "a", "/no/such/file"], b"")?;
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.stderr.contains("/no/such/file"),
        "{}",
        missing.stderr
    );
    Ok(())
}

#[test]
fn eval_takes_the_latest_events_beside_the_group() -> Result<()> {
    let kafka = Kafka::shared()?;
    for topic in ["latest-a", "latest-b", "latest-empty"] {
        kafka.create_topic(topic, 3, &[])?;
    }
    let event = |number: usize| {
        let payload = match number % 5 {
            4 => format!("bad {number}"),
            _ => format!(
                "{{\"number\":{number},\"type\":\"{}\"}}",
                ["play", "pause"][number % 2]
            ),
        };
        Outgoing {
            timestamp: Some(1_795_431_906_000 + number as i64),
            partition: number as i32 % 3,
            key: Some("k"),
            ..Outgoing::new(payload)
        }
    };
    let events: Vec<Outgoing> = (0..200).map(event).collect();
    send(kafka, "latest-a", &events[..150])?;
    let text = format!(
        "route.name = latest\nsource.topics = ^latest-.*\nkafka.bootstrap.servers = {}\nsink.type = blackhole\n\
         filter = type == 'play'\nprojection = {{number: number, topic: meta('topic'), key: meta('key')}}\n\
         delivery.commit.interval.ms = 50\n",
        kafka.bootstrap()
    );
    let mut worker = Worker::spawn(&text)?;
    all_committed(kafka, "latest", "latest-a", &mut [&mut worker])?;
    let rebalances = |worker: &Worker| {
        Ok::<_, keystone_tests::Error>(worker.metrics()?.sum("keystone_rebalances_total", &[]))
    };
    let before = rebalances(&worker)?;
    assert!(before > 0.0);
    send(kafka, "latest-b", &events[150..])?;
    all_committed(kafka, "latest", "latest-b", &mut [&mut worker])?;
    let committed = kafka.committed("latest", "latest-b")?;

    let directory = tempfile::tempdir()?;
    let route = file(directory.path(), "latest.properties", &text)?;
    let eval = |count: &str, more: &[&str]| {
        let args = [&["eval", "--config", &route, "--from-topic", count], more].concat();
        keystone(&args, b"")
    };
    let answer = eval("60", &[])?;
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let play = |number: &usize| number.is_multiple_of(2) && number % 5 != 4;
    let expected: Vec<String> = (140..200)
        .filter(play)
        .map(|number| {
            let topic = if number < 150 { "latest-a" } else { "latest-b" };
            format!("{{\"number\":{number},\"topic\":\"{topic}\",\"key\":\"k\"}}")
        })
        .collect();
    assert_eq!(answer.stdout.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        last_line(&answer.stderr),
        "60 events: 24 delivered, 24 filtered, 0 discarded, 12 dead letters (decode 12)"
    );
    assert_lines(&answer.stderr, &[&["latest-b-", "offset ", "not JSON"]]);
    // More than there are.
    let answer = eval("1000", &["--verdicts"])?;
    assert_eq!(answer.stdout.lines().count(), 200);
    let first: Value = serde_json::from_str(answer.stdout.lines().next().unwrap_or_default())?;
    assert_eq!(first["verdict"], "delivered");
    assert!(
        last_line(&answer.stderr).starts_with("200 events: "),
        "{}",
        answer.stderr
    );
    // Topics without events, and one that is not there.
    let empty = eval("5", &["--set", "source.topics=latest-empty"])?;
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), ""));
    assert!(empty.stderr.starts_with("0 events: "), "{}", empty.stderr);
    let missing = eval("5", &["--set", "source.topics=latest-missing"])?;
    assert_eq!(missing.code, Some(1));
    assert_lines(
        &missing.stderr,
        &[&["latest-missing (source.topics) does not exist"]],
    );

    // Marks of transactions have offsets of their own, and what is not committed is not there yet.
    kafka.create_topic("marked-latest", 1, &[])?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "latest")
        .create()?;
    producer.init_transactions(END)?;
    for committed in [true, false] {
        producer.begin_transaction()?;
        for payload in ["{\"type\":\"play\",\"number\":1}", "{}"] {
            let record = BaseRecord::<str, str>::to("marked-latest").payload(payload);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        if committed {
            producer.commit_transaction(END)?;
        } else {
            producer.flush(END)?;
        }
    }
    let marked = eval("10", &["--set", "source.topics=marked-latest"])?;
    assert_eq!(
        marked.stdout,
        "{\"number\":1,\"topic\":\"marked-latest\",\"key\":null}\n"
    );
    assert!(marked.stderr.starts_with("2 events: "), "{}", marked.stderr);

    // The group has not noticed.
    assert_eq!(rebalances(&worker)?, before);
    assert_eq!(kafka.committed("latest", "latest-b")?, committed);
    drain(worker)?;
    Ok(())
}

#[test]
fn help_version_and_mistakes_on_the_command_line() -> Result<()> {
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["eval", "--help"],
        &["test", "--help"],
    ] {
        let answer = keystone(args, b"")?;
        assert_eq!(
            (answer.code, answer.stderr.as_str()),
            (Some(0), ""),
            "{args:?}"
        );
        assert!(answer.stdout.contains("keystone"), "{}", answer.stdout);
    }
    let wrong: [&[&str]; 4] = [
        &[],
        &["frobnicate"],
        &["run", "--confg", "x"],
        &["run", "--config", "/no/such/file"],
    ];
    for args in wrong {
        let answer = keystone(args, b"")?;
        assert_eq!(answer.code, USAGE, "{args:?}: {}", answer.stderr);
        assert!(!answer.stderr.is_empty(), "{args:?}");
    }
    Ok(())
}

#[test]
fn every_log_line_has_the_route() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("log-in", 2, &[])?;
    send(
        kafka,
        "log-in",
        &[Outgoing::new("{}"), Outgoing::new("bad")],
    )?;
    for format in ["text", "json"] {
        let text = format!(
            "route.name = logged-{format}\nsource.topics = log-in\nkafka.bootstrap.servers = {}\nsink.type = blackhole\n\
             log.format = {format}\nlog.level = debug\n# Has no effect: a warning.\nsink.kafka.topic = x\n",
            kafka.bootstrap()
        );
        let name = format!("logged-{format}");
        let mut worker = Worker::spawn(&text)?;
        all_committed(kafka, &name, "log-in", &mut [&mut worker])?;
        let log = drain(worker)?;
        assert!(log.lines().count() > 3, "{log}");
        for line in log.lines() {
            if format == "text" {
                assert!(line.contains(&format!(" {name}: ")), "{line}");
            } else {
                let line: Value = serde_json::from_str(line)?;
                assert_eq!(line["route"], name.as_str(), "{line}");
                assert!(
                    line["message"].is_string() && line["level"].is_string(),
                    "{line}"
                );
                assert!(
                    line["time"]
                        .as_str()
                        .is_some_and(|time| time.ends_with('Z')),
                    "{line}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_demo_delivers_and_its_ledger_adds_up() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().display().to_string();
    let answer = keystone(&["demo", "--events", "20000", "--out", &out], b"")?;
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let entry = |name: &str| -> u64 {
        let line = answer
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let count = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
        count.unwrap_or_else(|| panic!("no {name} in {}", answer.stdout))
    };
    assert_eq!(entry("consumed"), 20_000);
    assert_eq!(entry("dead-lettered"), 4);
    assert_eq!(entry("in flight"), 0);
    let outcomes = ["filtered", "discarded", "delivered", "dead-lettered"].map(entry);
    assert_eq!(outcomes.iter().sum::<u64>(), 20_000);
    assert!(entry("delivered") > 5_000);
    let mut rows = 0;
    for file in keystone_tests::judge::visible_files(directory.path())? {
        let reader = SerializedFileReader::new(std::fs::File::open(file)?)?;
        rows += reader.metadata().file_metadata().num_rows();
    }
    assert_eq!(rows as u64, entry("delivered"));
    Ok(())
}
