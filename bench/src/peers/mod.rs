//! The peers of `bench/peers` on the same work, beside the worker in the same run.
//!
//! A peer reads the same topic from its beginning until its sink holds as many events as there must be; then it gets SIGTERM, and so does
//! the worker. What it delivered is compared field by field: peers order the members of an object and escape texts in their own ways.

mod programs;
mod table;
mod wait;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use keystone_tests::kafka::Isolation;
use keystone_tests::process::Process;
use keystone_tests::{Error, Judge, Result, Verdict};
use serde_json::Value;

use crate::jobs::{self, Bench, END, EVENTS, PARTITIONS, Sent, Sink};
use crate::measure::{self, Cost};
use programs::{Place, Ready};
use wait::Counter;

pub(crate) use programs::any_given;
pub(crate) use table::render;

/// One program with one sink.
#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    sink: Sink,
    at_least_once: bool,
    /// Makes its command; absent for the worker itself.
    start: Option<fn(&Place<'_>, Sink) -> Result<Ready>>,
}

const fn peer(
    name: &'static str,
    sink: Sink,
    at_least_once: bool,
    start: fn(&Place<'_>, Sink) -> Result<Ready>,
) -> Peer {
    Peer {
        name,
        sink,
        at_least_once,
        start: Some(start),
    }
}

const fn worker(sink: Sink) -> Peer {
    Peer {
        name: WORKER,
        sink,
        at_least_once: true,
        start: None,
    }
}

const WORKER: &str = "Keystone";
const RSYSLOG: &str = "rsyslog of Debian";
const CONNECT: &str = "Kafka Connect, MirrorMaker 2 (4.3.1)";
const FLINK: &str = "Flink SQL 2.2.1";
const VECTOR: &str = "Vector";
const REDPANDA_CONNECT: &str = "Redpanda Connect";
const REDPANDA_CONNECT_UNORDERED: &str = "Redpanda Connect, unordered";

const PEERS: [Peer; 14] = [
    worker(Sink::Kafka),
    peer(RSYSLOG, Sink::Kafka, false, programs::rsyslog),
    peer(CONNECT, Sink::Kafka, true, programs::connect),
    peer(FLINK, Sink::Kafka, true, programs::flink),
    peer(VECTOR, Sink::Kafka, true, programs::vector),
    peer(
        REDPANDA_CONNECT,
        Sink::Kafka,
        true,
        programs::redpanda_connect,
    ),
    peer(
        REDPANDA_CONNECT_UNORDERED,
        Sink::Kafka,
        true,
        programs::redpanda_connect_unordered,
    ),
    worker(Sink::Elasticsearch),
    peer(RSYSLOG, Sink::Elasticsearch, false, programs::rsyslog),
    peer(CONNECT, Sink::Elasticsearch, true, programs::connect),
    peer(FLINK, Sink::Elasticsearch, true, programs::flink),
    peer(VECTOR, Sink::Elasticsearch, true, programs::vector),
    peer(
        REDPANDA_CONNECT,
        Sink::Elasticsearch,
        true,
        programs::redpanda_connect,
    ),
    peer(
        REDPANDA_CONNECT_UNORDERED,
        Sink::Elasticsearch,
        true,
        programs::redpanda_connect_unordered,
    ),
];

/// The number of SIGTERM.
const TERM: i32 = 15;

/// One line of the table.
pub(crate) struct Row {
    peer: Peer,
    costs: Vec<Cost>,
    /// Why it was not run: what is needed.
    needs: Option<String>,
    /// What was wrong with the delivered set, or why it failed.
    wrong: Option<String>,
}

impl Row {
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }
}

/// What became of one run.
enum Outcome {
    Ran(Cost, Verdict),
    Needs(String),
}

/// Runs every peer that this machine has `repeats` times, in turn.
pub(crate) fn run(bench: &mut Bench, repeats: u32) -> Vec<Row> {
    let mut rows: Vec<Row> = PEERS
        .iter()
        .map(|peer| Row {
            peer: *peer,
            costs: Vec::new(),
            needs: None,
            wrong: None,
        })
        .collect();
    for repeat in 1..=repeats {
        for (index, row) in rows.iter_mut().enumerate() {
            if row.needs.is_some() || row.wrong.is_some() {
                continue;
            }
            let what = format!("{} to {:?}", row.peer.name, row.peer.sink);
            match one(bench, row.peer, &format!("peer-{index}-{repeat}")) {
                Ok(Outcome::Ran(cost, verdict)) if verdict.is_exact() => {
                    eprintln!(
                        "{what}: {:.2} CPU-s, {:.1} s",
                        cost.cpu_seconds, cost.wall_seconds
                    );
                    row.costs.push(cost);
                }
                Ok(Outcome::Ran(_, verdict)) => {
                    eprintln!("{what}: the delivered set is wrong: {verdict}");
                    row.wrong = Some(first_line(&verdict.to_string()));
                }
                Ok(Outcome::Needs(needs)) => row.needs = Some(needs),
                Err(error) => {
                    eprintln!("{what}: {error}");
                    row.wrong = Some(first_line(&error.to_string()));
                }
            }
        }
    }
    rows
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn one(bench: &mut Bench, peer: Peer, run: &str) -> Result<Outcome> {
    let Some(start) = peer.start else {
        return keystone(bench, peer.sink, run);
    };
    if peer.sink == Sink::Elasticsearch {
        bench.start_elasticsearch()?;
    }
    let work = tempfile::tempdir()?;
    let place = Place {
        root: &bench.programs.root,
        work: work.path(),
        brokers: bench.kafka.bootstrap(),
        elasticsearch: match peer.sink {
            Sink::Elasticsearch => bench.elasticsearch()?.url(),
            _ => String::new(),
        },
        source: EVENTS,
        out: run,
        group: run,
    };
    let mut command = match start(&place, peer.sink)? {
        Ok(command) => command,
        Err(needs) => return Ok(Outcome::Needs(needs)),
    };
    command.current_dir(work.path());
    match peer.sink {
        Sink::Elasticsearch => to_elasticsearch(bench, run, peer.name, &mut command),
        _ => to_kafka(bench, run, peer.name, &mut command),
    }
}

/// The worker, waited for as a peer is.
fn keystone(bench: &mut Bench, sink: Sink, run: &str) -> Result<Outcome> {
    let count = bench.events.expected().len() as u64;
    let (cost, verdict) = bench.deliver(sink, run, |bench, route| {
        let mut counter = Counter::of(bench, sink, run)?;
        let started = Instant::now();
        let mut worker = bench.start_worker(run, EVENTS, route)?;
        let all = counter.wait_for(count, || worker.has_exited());
        all.map_err(|error| Error::new(format!("{WORKER} {error}\n{}", worker.stderr_tail())))?;
        let cost = jobs::ended(worker, started)?;
        let events = bench.events.clone();
        let count = events.count();
        Ok((cost, Sent { events, count }))
    })?;
    Ok(Outcome::Ran(cost, verdict))
}

fn to_kafka(bench: &Bench, topic: &str, name: &str, command: &mut Command) -> Result<Outcome> {
    bench.kafka.create_topic(topic, PARTITIONS, &[])?;
    let (mut judge, count) = judge(bench);
    let counter = Counter::of(bench, Sink::Kafka, topic)?;
    let cost = until_delivered(name, command, count, counter)?;
    bench
        .kafka
        .read(topic, Isolation::ReadCommitted, |record| {
            let value = record.value.unwrap_or_default();
            judge.saw(&sorted(&String::from_utf8_lossy(&value)));
        })?;
    bench.kafka.delete_topic(topic)?;
    Ok(Outcome::Ran(cost, judge.verdict()))
}

fn to_elasticsearch(
    bench: &Bench,
    index: &str,
    name: &str,
    command: &mut Command,
) -> Result<Outcome> {
    let server = bench.elasticsearch()?;
    let (mut judge, count) = judge(bench);
    let counter = Counter::of(bench, Sink::Elasticsearch, index)?;
    let cost = until_delivered(name, command, count, counter)?;
    server.search(index, |document| {
        judge.saw(&sorted(&document.source.to_string()))
    })?;
    server.request("DELETE", &format!("/{index}"), None)?;
    Ok(Outcome::Ran(cost, judge.verdict()))
}

/// A judge that looks at fields only, and how many events it expects.
fn judge(bench: &Bench) -> (Judge, u64) {
    let expected = bench.events.expected().into_iter();
    let expected: std::collections::HashMap<_, _> =
        expected.map(|(id, json)| (id, sorted(&json))).collect();
    let count = expected.len() as u64;
    (Judge::new(expected, "event_id"), count)
}

/// An object with its members in the order of their names; any other text as it is.
fn sorted(json: &str) -> String {
    let members: Option<BTreeMap<String, Value>> = serde_json::from_str(json).ok();
    members
        .and_then(|members| serde_json::to_string(&members).ok())
        .unwrap_or_else(|| json.to_owned())
}

/// What a peer costs from its start until it has ended after SIGTERM, which it gets when its sink holds `count` events. Any other end is a
/// failure, with the end of what it said.
fn until_delivered(
    name: &str,
    command: &mut Command,
    count: u64,
    mut counter: Counter<'_>,
) -> Result<Cost> {
    let log = tempfile::NamedTempFile::new()?;
    let started = Instant::now();
    let mut peer = Process::spawn(name, command, log.path(), None)?;
    let failed = |what: String, peer: &Process| Error::new(format!("{what}\n{}", peer.tail()));
    if let Err(error) = counter.wait_for(count, || peer.exited().is_some()) {
        let what = match peer.exited() {
            Some(status) => format!("{name} {error} ({status})"),
            None => format!("{name} {error}"),
        };
        return Err(failed(what, &peer));
    }
    peer.signal("TERM")?;
    let cost = measure::until_ended(peer.pid(), started, END)
        .map_err(|error| failed(format!("{name} after SIGTERM: {error}"), &peer))?;
    let status = peer.wait_exit(END)?;
    match by_sigterm(status) {
        true => Ok(cost),
        false => Err(failed(
            format!("{name} failed after SIGTERM ({status})"),
            &peer,
        )),
    }
}

/// Whether SIGTERM explains an end: with success, by the signal itself, or with what a JVM answers to it.
fn by_sigterm(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(TERM) || status.code() == Some(128 + TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_order_and_escapes_are_looked_over() {
        assert_eq!(
            sorted(r#"{"b": "x\/\u00e9", "a": 12345678901234567890}"#),
            r#"{"a":12345678901234567890,"b":"x/é"}"#
        );
        assert_ne!(sorted(r#"{"a":1}"#), sorted(r#"{"a":"1"}"#));
        assert_eq!(sorted("[1, 2]"), "[1, 2]");
    }

    #[test]
    fn sigterm_explains_an_end_with_success_or_its_own_number_alone() {
        // As `wait` has it: the exit code in the second byte, a signal in the first.
        for fine in [0, TERM, (128 + TERM) << 8] {
            assert!(by_sigterm(ExitStatus::from_raw(fine)), "{fine}");
        }
        for failed in [1 << 8, 9, (128 + 9) << 8] {
            assert!(!by_sigterm(ExitStatus::from_raw(failed)), "{failed}");
        }
    }
}
