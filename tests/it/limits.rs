//! What a Kafka cluster does not let a route do: rights that it lacks, limits of the brokers and of a topic.

use keystone_tests::kafka::AUTHORIZER;
use keystone_tests::{Kafka, Result, Worker, free_port};

use crate::scenario::{
    END, Outgoing, WORK, all_committed, assert_ledger, counter, drain, last_line, send, values,
};

/// The tradeoffs with and without transactions.
const TRADEOFFS: [&str; 2] = ["no-duplicates", "balanced"];

fn route(kafka: &Kafka, name: &str, from: &str, to: &str, tradeoff: &str) -> String {
    format!(
        "route.name = {name}\nsource.topics = {from}\nkafka.bootstrap.servers = {}\nsink.type = kafka\n\
         sink.kafka.topic = {to}\ndelivery.tradeoff = {tradeoff}\n\
         delivery.retry.backoff.ms = 50\ndelivery.retry.backoff.max.ms = 200\n",
        kafka.bootstrap()
    )
}

/// The worker ends with these words on its last line.
fn ends(properties: &str, words: &[&str]) -> Result<()> {
    let mut worker = Worker::spawn(properties)?;
    let (status, _) = worker.wait_exit(END)?;
    let log = worker.stderr();
    let last = last_line(&log);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(words.iter().all(|word| last.contains(word)), "{log}");
    Ok(())
}

/// Whichever right the route lacks, its user is told: to the topic it writes to, that it reads, that of its dead letters, and as its group.
#[test]
fn without_a_right_the_worker_ends() -> Result<()> {
    let kafka = Kafka::start_with(&AUTHORIZER)?;
    for topic in ["in", "secret", "out", "forbidden", "letters.dead-letters"] {
        kafka.create_topic(topic, 1, &[])?;
        send(&kafka, topic, &[Outgoing::new("not JSON")])?;
    }
    send(&kafka, "in", &[Outgoing::new("{}")])?;
    kafka.deny_writing("forbidden")?;
    kafka.deny_writing("letters.dead-letters")?;
    kafka.deny_reading("secret")?;
    kafka.deny_joining("stranger")?;
    for tradeoff in TRADEOFFS {
        let properties =
            route(&kafka, tradeoff, "in", "forbidden", tradeoff) + "dead.letter.policy = discard\n";
        ends(&properties, &["topic forbidden", "the right to write"])?;
    }
    let cases = [
        (
            "letters",
            "in",
            ["letters.dead-letters", "the right to write"],
        ),
        ("reader", "secret", ["secret", "give its user the rights"]),
        (
            "stranger",
            "in",
            ["as group stranger", "give its user the rights"],
        ),
    ];
    for (name, from, words) in cases {
        ends(&route(&kafka, name, from, "out", "balanced"), &words)?;
    }
    for topic in ["forbidden", "letters.dead-letters"] {
        assert_eq!(values(&kafka, topic)?, ["not JSON"], "{topic}");
    }
    Ok(())
}

/// Kafka's brokers allow a quarter of an hour.
#[test]
fn a_transaction_timeout_beyond_that_of_the_brokers_ends_the_worker() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("long-in", 1, &[])?;
    kafka.create_topic("long-out", 1, &[])?;
    let properties = route(kafka, "long", "long-in", "long-out", "no-duplicates")
        + "sink.kafka.transaction.timeout.ms = 3600000\n";
    ends(&properties, &["sink.kafka.transaction.timeout.ms"])
}

/// A password that the brokers refuse is waited for, and told of: they may take it later.
#[test]
fn a_password_that_kafka_refuses_is_waited_for() -> Result<()> {
    let guarded = free_port();
    let kafka = Kafka::start_guarded(guarded, "right")?;
    kafka.create_topic("in", 1, &[])?;
    kafka.create_topic("out", 1, &[])?;
    send(&kafka, "in", &[Outgoing::new("{}")])?;
    let sink = |name: &str, password: &str| {
        route(&kafka, name, "in", "out", "balanced")
            + &format!(
                "sink.kafka.bootstrap.servers = 127.0.0.1:{guarded}\nsink.kafka.security.protocol = sasl_plaintext\n\
                 sink.kafka.sasl.mechanism = PLAIN\nsink.kafka.sasl.username = keystone\nsink.kafka.sasl.password = {password}\n"
            )
    };
    let source = sink("source", "wrong")
        .replace(&kafka.bootstrap(), &format!("127.0.0.1:{guarded}"))
        .replace("sink.kafka.s", "kafka.s");
    for properties in [sink("sink", "wrong"), source] {
        let mut worker = Worker::spawn(&properties)?;
        worker.wait_until(WORK, "it waits, and its log says for what", |worker| {
            let (ready, _) = worker.readyz()?;
            Ok(!ready && worker.stderr().contains("Authentication"))
        })?;
    }
    let mut worker = Worker::spawn(&sink("sink", "right"))?;
    all_committed(&kafka, "sink", "in", &mut [&mut worker])?;
    drain(worker)?;
    assert_eq!(values(&kafka, "out")?, ["{}"]);
    Ok(())
}

/// A topic takes less at once than a produce batch has, and each event: all are delivered, none is a dead letter, and the worker says what
/// is to be set.
#[test]
fn a_topic_that_takes_less_than_a_batch_gets_all_events() -> Result<()> {
    let kafka = Kafka::shared()?;
    kafka.create_topic("narrow-in", 2, &[])?;
    let event = |number: i32| Outgoing {
        partition: number % 2,
        ..Outgoing::new(format!("{{\"n\":{number},\"t\":\"{}\"}}", "x".repeat(80)))
    };
    let all: Vec<Outgoing> = (0..60_000).map(event).collect();
    send(kafka, "narrow-in", &all)?;
    let mut expected = values(kafka, "narrow-in")?;
    expected.sort_unstable();
    for tradeoff in TRADEOFFS {
        let (name, to) = (
            format!("narrow-{tradeoff}"),
            format!("narrow-{tradeoff}-out"),
        );
        kafka.create_topic(&to, 1, &[("max.message.bytes", "65536")])?;
        let properties = route(kafka, &name, "narrow-in", &to, tradeoff)
            // Or they would be small enough.
            + "sink.kafka.compression.type = none\n";
        let mut worker = Worker::spawn(&properties)?;
        worker.wait_ready(WORK)?;
        all_committed(kafka, &name, "narrow-in", &mut [&mut worker])?;
        assert_eq!(counter(&worker, "dead_lettered")?, 0);
        assert_ledger(&mut worker)?;
        let log = drain(worker)?;
        assert!(
            log.contains("lower sink.kafka.batch.size") && log.contains("max.message.bytes"),
            "{log}"
        );
        let mut found = values(kafka, &to)?;
        found.sort_unstable();
        assert!(
            found == expected,
            "{tradeoff}: {} of {}",
            found.len(),
            expected.len()
        );
    }
    Ok(())
}
