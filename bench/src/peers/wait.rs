//! Waits until a sink holds all events, and looks so that the program which delivers them is not disturbed: seldom, over connections that
//! are kept, and without having a server do more than say a number.

use std::time::{Duration, Instant};

use keystone_tests::{Doing, Elasticsearch, Error, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::jobs::{Bench, PARTITIONS, Sink};

/// How often a sink is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// For all events to be delivered: a JVM takes minutes to start on a machine that others use up.
const DELIVERED: Duration = Duration::from_secs(600);

/// For one answer of Kafka.
const ANSWER: Duration = Duration::from_secs(20);

/// Counts what a sink holds.
pub(super) enum Counter<'a> {
    Topic(BaseConsumer, &'a str),
    Index(&'a Elasticsearch, &'a str),
}

impl<'a> Counter<'a> {
    /// Of a topic that is there, or an index that need not be.
    pub(super) fn of(bench: &'a Bench, sink: Sink, place: &'a str) -> Result<Counter<'a>> {
        match sink {
            Sink::Elasticsearch => Ok(Counter::Index(bench.elasticsearch()?, place)),
            _ => {
                let mut client = ClientConfig::new();
                client.set("bootstrap.servers", bench.kafka.bootstrap());
                let client = client.create().doing("making a client of Kafka")?;
                Ok(Counter::Topic(client, place))
            }
        }
    }

    /// Waits until `count` events are there; a program that has ended is not waited for. An error goes on from the program's name.
    pub(super) fn wait_for(&mut self, count: u64, mut ended: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let is_over = ended();
            let missing = match self.found(count) {
                Ok(found) if found >= count && !is_over => return Ok(()),
                Ok(found) => format!("{found} of {count} events delivered"),
                Err(error) => format!("an unknown number of events delivered ({error})"),
            };
            if is_over {
                return Err(Error::new(format!("ended by itself with {missing}")));
            }
            if start.elapsed() >= DELIVERED {
                return Err(Error::new(format!("has {missing} after {DELIVERED:?}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn found(&mut self, wanted: u64) -> Result<u64> {
        match self {
            Counter::Topic(client, topic) => ends(client, topic),
            Counter::Index(server, index) => indexed(server, index, wanted),
        }
    }
}

/// The sum of the ends of a topic's partitions, which is the number of its records where none was ever removed.
fn ends(client: &BaseConsumer, topic: &str) -> Result<u64> {
    let end = |partition| Ok(client.fetch_watermarks(topic, partition, ANSWER)?.1 as u64);
    (0..PARTITIONS).map(end).sum()
}

/// How often a document was indexed; none where there is no index yet. One that was sent again counts again, so when there are enough the
/// documents themselves are counted, for which the server has to make them visible first.
fn indexed(server: &Elasticsearch, index: &str, wanted: u64) -> Result<u64> {
    let path = format!("/{index}/_stats/indexing?ignore_unavailable=true");
    let answer = server.request("GET", &path, None)?;
    let total = &answer["indices"][index]["primaries"]["indexing"]["index_total"];
    match total.as_u64().unwrap_or(0) {
        total if total >= wanted => server.count(index),
        total => Ok(total),
    }
}
