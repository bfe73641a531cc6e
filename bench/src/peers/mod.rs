//! The peers of `bench/peers` on the same work, beside the worker in the same run.
//!
//! A peer reads the same topic from its beginning until its sink holds as many events as there must be; then it gets SIGTERM. What it
//! delivered is compared field by field: peers order the members of an object and escape texts in their own ways.

mod programs;
mod table;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use keystone_tests::kafka::Isolation;
use keystone_tests::process::Process;
use keystone_tests::{Error, Judge, Result, Verdict, wait_for};
use serde_json::Value;

use crate::jobs::{Bench, END, EVENTS, PARTITIONS, Sink};
use crate::measure::{self, Cost};
use programs::{Place, Ready};

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

const PEERS: [Peer; 12] = [
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
];

/// For a peer to deliver all events: a JVM takes minutes to start on a machine that others use up.
const DELIVERED: Duration = Duration::from_secs(600);

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
                    let text = verdict.to_string();
                    row.wrong = Some(text.lines().next().unwrap_or_default().to_owned());
                }
                Ok(Outcome::Needs(needs)) => row.needs = Some(needs),
                Err(error) => {
                    eprintln!("{what}: {error}");
                    row.wrong = Some("it failed".to_owned());
                }
            }
        }
    }
    rows
}

fn one(bench: &mut Bench, peer: Peer, run: &str) -> Result<Outcome> {
    let Some(start) = peer.start else {
        let (cost, verdict) = bench.project(peer.sink, run, "")?;
        let verdict = verdict.ok_or_else(|| Error::new("nothing was delivered"))?;
        return Ok(Outcome::Ran(cost, verdict));
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
        Sink::Elasticsearch => to_elasticsearch(bench, run, &mut command),
        _ => to_kafka(bench, run, &mut command),
    }
}

fn to_kafka(bench: &Bench, topic: &str, command: &mut Command) -> Result<Outcome> {
    bench.kafka.create_topic(topic, PARTITIONS, &[])?;
    let (mut judge, count) = judge(bench);
    let cost = until_delivered(command, count, || {
        let ends = bench.kafka.end_offsets(topic)?;
        Ok(ends.values().sum::<i64>() as u64)
    })?;
    bench
        .kafka
        .read(topic, Isolation::ReadCommitted, |record| {
            let value = record.value.unwrap_or_default();
            judge.saw(&sorted(&String::from_utf8_lossy(&value)));
        })?;
    bench.kafka.delete_topic(topic)?;
    Ok(Outcome::Ran(cost, judge.verdict()))
}

fn to_elasticsearch(bench: &Bench, index: &str, command: &mut Command) -> Result<Outcome> {
    let server = bench.elasticsearch()?;
    let (mut judge, count) = judge(bench);
    // An index that is not there yet holds nothing.
    let cost = until_delivered(command, count, || Ok(server.count(index).unwrap_or(0)))?;
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

/// What a peer costs from its start until it has ended after SIGTERM, which it gets when `delivered` counts enough.
fn until_delivered(
    command: &mut Command,
    count: u64,
    delivered: impl Fn() -> Result<u64>,
) -> Result<Cost> {
    let log = tempfile::NamedTempFile::new()?;
    let name = command.get_program().display().to_string();
    let started = Instant::now();
    let mut peer = Process::spawn(&name, command, log.path(), None)?;
    let all = wait_for(DELIVERED, "all events were delivered", || {
        match (peer.exited(), delivered()?) {
            (_, found) if found >= count => Ok(None),
            (None, found) => Err(Error::new(format!("{found} of {count} are there"))),
            (Some(status), _) => Ok(Some(status)),
        }
    });
    match all {
        Ok(None) => {}
        Ok(Some(status)) => {
            return Err(Error::new(format!(
                "{name} ended ({status}):\n{}",
                peer.tail()
            )));
        }
        Err(error) => return Err(Error::new(format!("{error}\n{}", peer.tail()))),
    }
    peer.signal("TERM")?;
    measure::until_ended(peer.pid(), started, END)
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
}
