//! The dead-letter topic where Kafka itself stands in the way.

use keystone_tests::kafka::AUTHORIZER;
use keystone_tests::{Kafka, Result, Worker, keystone};

use crate::cli::file;
use crate::scenario::{
    Outgoing, WORK, all_committed, assert_lines, counter, drain, send, source, values,
};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Events with timestamps that Kafka takes in no other topic, or would delete from it at once: their dead letters are there and stay, and none
/// of them holds back what came with it.
#[test]
fn the_time_of_a_bad_event_does_not_matter() -> Result<()> {
    let kafka = Kafka::shared()?;
    let any_time = [
        ("message.timestamp.after.max.ms", "9223372036854775807"),
        ("retention.ms", "-1"),
    ];
    kafka.create_topic("times-in", 1, &any_time)?;
    kafka.create_topic("times-out", 1, &[])?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64;
    let at = |value: &str, timestamp| Outgoing {
        timestamp: Some(timestamp),
        ..Outgoing::new(value)
    };
    // Microseconds taken for milliseconds is the usual mistake.
    let records = [
        at(r#"{"id":"now"}"#, now),
        at("bad, of the future", now * 1000),
        at(r#"{"id":"good, of the future"}"#, now * 1000),
        at("bad, of the past", now - 30 * 24 * HOUR_MS),
        at("bad, of now", now),
        at(r#"{"id":"last"}"#, now),
    ];
    send(kafka, "times-in", &records)?;
    let properties = format!(
        "{}sink.type = kafka\nsink.kafka.topic = times-out\n",
        source(kafka, "times", "times-in").replace("filter", "# filter")
    );
    let mut worker = Worker::spawn(&properties)?;
    all_committed(kafka, "times", "times-in", &mut [&mut worker])?;
    assert_eq!(counter(&worker, "dead_lettered")?, 4);
    drain(worker)?;
    assert_eq!(
        values(kafka, "times-out")?,
        [r#"{"id":"now"}"#, r#"{"id":"last"}"#]
    );
    let letters = kafka.read_all("times.dead-letters")?;
    assert_eq!(letters.len(), 4);
    for letter in letters {
        assert!(
            letter
                .timestamp
                .is_some_and(|at| (now..now + HOUR_MS).contains(&at)),
            "{letter:?}"
        );
    }
    Ok(())
}

/// A compacted topic takes nothing without a key: the worker says so and ends, with nothing lost, instead of trying for ever.
#[test]
fn a_compacted_dead_letter_topic_is_named() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("compact-letters-in", 1, &[])?;
    kafka.create_topic(
        "compact-letters.dead-letters",
        1,
        &[("cleanup.policy", "compact")],
    )?;
    send(
        kafka,
        "compact-letters-in",
        &[Outgoing::new("bad"), Outgoing::new("{}")],
    )?;
    let properties =
        source(kafka, "compact-letters", "compact-letters-in") + "sink.type = blackhole\n";
    let mut worker = Worker::spawn(&properties)?;
    let (status, log) = worker.wait_exit(WORK)?;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("compact-letters-in-0 offset 0") && log.contains("cleanup.policy"),
        "{log}"
    );
    let committed = kafka.committed("compact-letters", "compact-letters-in")?;
    assert!(
        committed.values().all(|offset| *offset == 0),
        "{committed:?}"
    );
    Ok(())
}

/// Before the first bad event stops the route: `check` says whether dead letters have a place to go to, and so does a worker that starts.
/// Neither makes the topic.
#[test]
fn a_dead_letter_topic_is_looked_for_before_it_is_needed() -> Result<()> {
    let kafka = Kafka::start_with(&[
        // The only broker can't have them: nobody but these tests, which ask for one, can make a topic.
        ("default.replication.factor", "3"),
        AUTHORIZER[0],
        AUTHORIZER[1],
    ])?;
    kafka.create_topic("in", 1, &[])?;
    kafka.create_topic("hidden", 1, &[])?;
    kafka.hide("hidden")?;
    kafka.create_topic("wide", 1, &[("max.message.bytes", "2000000")])?;
    send(&kafka, "in", &[Outgoing::new("{}")])?;
    let properties = format!(
        "route.name = early\nsource.topics = ^in\nkafka.bootstrap.servers = {}\nsink.type = blackhole\n",
        kafka.bootstrap()
    );
    let directory = tempfile::tempdir()?;
    let config = file(directory.path(), "early.properties", &properties)?;
    let check = |set: &str| keystone(&["check", "--config", &config, "--set", set], b"");

    let missing = check("dead.letter.policy=topic")?;
    assert_eq!(missing.code, Some(1), "{}", missing.stderr);
    let words = [
        "dead letters: topic early.dead-letters (dead.letter.topic) does not exist",
        "InvalidReplicationFactor",
    ];
    assert_lines(&missing.stderr, &[&words]);
    let unused = check("dead.letter.policy=stop")?;
    assert_eq!(unused.code, Some(0), "{}", unused.stderr);
    let hidden = check("dead.letter.topic=hidden")?;
    assert_eq!(hidden.code, Some(1), "{}", hidden.stderr);
    assert_lines(
        &hidden.stderr,
        &[&[
            "topic hidden (dead.letter.topic) is there, but",
            "the right to write",
        ]],
    );

    // A worker does its work all the same, and is not ready until somebody has made the topic.
    let mut worker = Worker::spawn(&properties)?;
    worker.wait_until(WORK, "it says that the topic is missing", |worker| {
        let (ready, problems) = worker.readyz()?;
        Ok(!ready && problems.contains(words[0]))
    })?;
    all_committed(&kafka, "early", "in", &mut [&mut worker])?;
    assert!(kafka.partitions("early.dead-letters")?.is_empty());
    let narrow = [("max.message.bytes", "100000")];
    kafka.create_topic("early.dead-letters", 1, &narrow)?;
    worker.wait_ready(WORK)?;
    drain(worker)?;

    let narrow = check("dead.letter.policy=topic")?;
    assert_eq!(narrow.code, Some(0), "{}", narrow.stderr);
    assert_lines(
        &narrow.stdout,
        &[&["dead letters: topic early.dead-letters is there"]],
    );
    assert_lines(
        &narrow.stderr,
        &[&[
            "warning: topic early.dead-letters (dead.letter.topic) takes records of 100000 bytes",
            "topic in,",
            "max.message.bytes of early.dead-letters to 1053708 or more",
        ]],
    );
    let wide = check("dead.letter.topic=wide")?;
    assert_eq!((wide.code, wide.stderr.as_str()), (Some(0), ""));
    Ok(())
}
