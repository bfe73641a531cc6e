//! The Kafka sink: an idempotent producer with acks=all. Key, headers and timestamp are kept; order within a partition is kept.
//!
//! With `sink.kafka.transactions = true` the events and the offsets that they were read from are one transaction (`transaction`).

pub mod client;
pub mod complaints;
mod groups;
pub mod producer;
mod progress;
mod refusal;
pub mod sasl;
mod search;
mod servers;
mod target;
mod transaction;

use std::time::Duration;

use keystone_config::{Default, Kind, OptionSpec, Problem, Section, Settings, Tradeoff3};
use rdkafka::config::ClientConfig;

use crate::{Answer, Batch, BoxFuture, Context, Sink, SinkError, SinkState};
use client::{Role, SINK_PREFIX, SOURCE_PREFIX};
use producer::Producer;
use target::{Sorted, Target};
use transaction::{Bounds, TransactionalSink};

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "sink.kafka.topic",
        kind: Kind::Text,
        default: Default::Required,
        secret: false,
        doc: "The topic to deliver to. It must exist, or the brokers must create topics by themselves. Key, headers and timestamp go along; a timestamp of exactly 0 (the first millisecond of 1970) becomes the present time, which librdkafka takes it for.",
        example: "plays",
    },
    OptionSpec {
        key: "sink.kafka.linger.ms",
        kind: Kind::Millis {
            min: 0,
            max: 60_000,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "0",
            balanced: "5",
            no_duplicates: "20",
        }),
        secret: false,
        doc: "How long the producer waits for more events before it sends a request to a broker.",
        example: "",
    },
    OptionSpec {
        key: "sink.kafka.transactions",
        kind: Kind::Bool,
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "false",
            balanced: "false",
            no_duplicates: "true",
        }),
        secret: false,
        doc: "Writes events and commits the offsets that they were read from in one transaction: a consumer with `isolation.level=read_committed` sees each event exactly once, whatever is killed. Source and sink must be the same cluster. Events can be seen when their transaction ends.",
        example: "",
    },
    OptionSpec {
        key: "sink.kafka.transaction.max.ms",
        kind: Kind::Millis {
            min: 10,
            max: 60_000,
        },
        default: Default::Value("1000"),
        secret: false,
        doc: "A transaction is committed when it has been open for this long: what it adds to the latency, at most.",
        example: "",
    },
    OptionSpec {
        key: "sink.kafka.transaction.max.events",
        kind: Kind::Count {
            min: 1,
            max: 10_000_000,
        },
        default: Default::Value("100000"),
        secret: false,
        doc: "A transaction is committed when it has this many events.",
        example: "",
    },
];

pub const SECTION: Section = Section {
    title: "Sink: Kafka",
    when: Some(("sink.type", "kafka")),
    options: OPTIONS,
    passthrough: Some(client::SINK_PASSTHROUGH),
};

/// Sensible for events of some hundred bytes and bounded memory; each can be overridden.
const DEFAULTS: &[(&str, &str)] = &[
    ("compression.type", "lz4"),
    // The Java client's partitioner: a key goes where the producers of other programs put it.
    ("partitioner", "murmur2_random"),
    // librdkafka's 1 GiB would be most of a worker's memory.
    ("queue.buffering.max.kbytes", "16384"),
    ("batch.size", "262144"),
];

/// An outage is waited out in order. A limit would hand the events back and lose their order. (A transaction has a limit of its own, and
/// when it passes all of it is sent again in order.)
const WAIT_FOR_EVER: (&str, &str) = ("message.timeout.ms", "0");
/// What a killed worker left open keeps readers, and the next worker, waiting for this long (Kafka's default is a minute).
const SHORT_TRANSACTIONS: (&str, &str) = ("transaction.timeout.ms", "20000");

/// How often the producer tells whether it gets on.
const LOOK: Duration = Duration::from_secs(5);

/// Properties of an idempotent producer on the cluster that these prefixes describe.
pub fn producer_config(
    settings: &Settings,
    prefixes: &[&str],
    defaults: &[(&str, &str)],
    linger: Duration,
) -> ClientConfig {
    let linger = linger.as_millis().to_string();
    let client_id = settings.get("route.name");
    let mut all = vec![("client.id", client_id)];
    all.extend_from_slice(defaults);
    let mut config = client::properties(
        settings,
        Role::Producer,
        prefixes,
        &all,
        &[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", &linger),
        ],
    );
    make_room(&mut config);
    config
}

/// librdkafka's own `message.max.bytes`.
const LARGEST: u64 = 1_000_000;
/// For the headers of a record, which `message.max.bytes` does not count, in kilobytes.
const HEADERS: u64 = 1024;

/// A record for which the queue is too small even when it is empty would wait for room for ever: the queue grows to hold the largest one.
fn make_room(config: &mut ClientConfig) {
    let number = |name| config.get(name).and_then(|value| value.parse::<u64>().ok());
    let largest = number("message.max.bytes").unwrap_or(LARGEST);
    let needed = largest.div_ceil(1024) + HEADERS;
    if number("queue.buffering.max.kbytes").is_some_and(|kbytes| kbytes < needed) {
        config.set("queue.buffering.max.kbytes", needed.to_string());
    }
}

/// Options of the sink that are right by themselves and wrong together.
pub fn problems(settings: &Settings) -> Vec<Problem> {
    match settings.flag("sink.kafka.transactions") {
        true => transaction::problems(settings),
        false => Vec::new(),
    }
}

/// As [`problems`], and what librdkafka says against the producer's properties. No producer is made that would connect.
pub fn refusals(settings: &Settings, context: &Context) -> Vec<Problem> {
    let mut problems = problems(settings);
    if problems.is_empty() {
        let refused = complaints::refusal(&config(settings, context), Role::Producer);
        problems.extend(refused.map(|complaint| problem(settings, &complaint)));
    }
    problems
}

fn problem(settings: &Settings, complaint: &str) -> Problem {
    complaints::problem(settings, &[SOURCE_PREFIX, SINK_PREFIX], complaint)
}

/// Properties of the sink's producer.
fn config(settings: &Settings, context: &Context) -> ClientConfig {
    let transactions = settings.flag("sink.kafka.transactions");
    let mut defaults = DEFAULTS.to_vec();
    defaults.push(if transactions {
        SHORT_TRANSACTIONS
    } else {
        WAIT_FOR_EVER
    });
    let mut config = producer_config(
        settings,
        &[SOURCE_PREFIX, SINK_PREFIX],
        &defaults,
        settings.millis("sink.kafka.linger.ms"),
    );
    if transactions {
        config.set("transactional.id", transaction::id(settings, context));
    }
    config.set("statistics.interval.ms", LOOK.as_millis().to_string());
    config
}

/// Builds the sink from `sink.kafka.*` and `kafka.*`, of which `client::problems` has found nothing wrong.
pub fn build(settings: &Settings, context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    let problems = problems(settings);
    if !problems.is_empty() {
        return Err(problems);
    }
    let config = config(settings, context);
    let longest_step = longest_step(&config);
    let timeout = client::millis(&config, "transaction.timeout.ms", Duration::from_secs(60));
    let producer = Producer::new(config, "sink")
        .map_err(|error| vec![problem(settings, &complaints::told(&error))])?;
    let target = Target {
        topic: settings.get("sink.kafka.topic").to_owned(),
        producer,
        longest_step,
    };
    if settings.flag("sink.kafka.transactions") {
        let bounds = Bounds {
            max_events: settings.count("sink.kafka.transaction.max.events"),
            max_age: settings.millis("sink.kafka.transaction.max.ms"),
            timeout,
        };
        return Ok(Box::new(TransactionalSink::new(target, bounds)));
    }
    Ok(Box::new(KafkaSink { target }))
}

/// The longest between two steps of the producer: its records wait for company, then their request for an answer; that is seen by two looks.
fn longest_step(config: &ClientConfig) -> Duration {
    let linger = client::millis(config, "linger.ms", Duration::ZERO);
    let request = client::millis(config, "socket.timeout.ms", client::REQUEST_TIMEOUT);
    linger + request + 2 * LOOK
}

struct KafkaSink {
    target: Target,
}

impl Sink for KafkaSink {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async move {
            let failures = self.target.send(batch, 0..batch.len()).await;
            let record = |index| self.target.outgoing(batch.event(index));
            let (failures, size) = self.target.producer.search(failures, record, || {}).await;
            if let Some(size) = size {
                self.target.tell_halved(size);
            }
            let Sorted {
                rejected,
                retry,
                cause,
            } = self.target.sort(batch, failures)?;
            Ok(Answer {
                rejected,
                retry,
                cause,
                ..Answer::done()
            })
        })
    }

    fn longest_step(&self) -> Option<Duration> {
        Some(self.target.longest_step)
    }

    fn steps(&self) -> u64 {
        self.target.producer.reporter().progress.steps()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.target.check())
    }

    fn state(&self) -> SinkState {
        self.target.state()
    }
}

#[cfg(test)]
mod tests;
