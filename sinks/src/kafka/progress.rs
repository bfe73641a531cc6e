//! Tells a producer that stands still from one that waits for its brokers, by librdkafka's statistics.
//!
//! The sink's calls have no limit of their own, for an outage is waited out in order. So what counts is whether the producer gets on, or has a
//! reason not to: a partition without a leader or with one that is not connected, no producer id yet, no broker at all. A request that
//! is not answered ends by librdkafka's own limit, which disconnects.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::Statistics;
use rdkafka::statistics::Partition;

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    steps: AtomicU64,
    /// What each partition with records that wait had sent when it was looked at last.
    sent: Mutex<HashMap<(String, i32), u64>>,
}

impl Progress {
    /// Rises while no partition stands still.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Something else got on.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Compares with the last look.
    pub fn look(&self, statistics: &Statistics) {
        let mut sent = HashMap::new();
        let mut stands = false;
        let mut before = crate::lock(&self.sent);
        for (name, topic) in &statistics.topics {
            for (number, partition) in &topic.partitions {
                if is_idle(partition) {
                    continue;
                }
                let place = (name.clone(), *number);
                let now = partition.txmsgs + partition.acked_msgid;
                stands |= before.get(&place) == Some(&now) && !is_away(statistics, partition);
                sent.insert(place, now);
            }
        }
        // Calls that wait though no record does have been forgotten.
        let nothing = sent.is_empty() && before.is_empty();
        *before = sent;
        drop(before);
        if has_no_broker(statistics) || has_no_id(statistics) || !stands && !nothing {
            self.step();
        }
    }
}

fn is_idle(partition: &Partition) -> bool {
    partition.msgq_cnt + partition.xmit_msgq_cnt + partition.msgs_inflight == 0
}

/// Whether the partition has no leader that is connected.
fn is_away(statistics: &Statistics, partition: &Partition) -> bool {
    let mut brokers = statistics.brokers.values();
    !brokers.any(|broker| broker.nodeid == partition.leader && broker.state == "UP")
}

fn has_no_broker(statistics: &Statistics) -> bool {
    statistics
        .brokers
        .values()
        .all(|broker| broker.state != "UP")
}

/// Whether the brokers have not given the producer its id, without which nothing is sent.
fn has_no_id(statistics: &Statistics) -> bool {
    let eos = statistics.eos.as_ref();
    eos.is_some_and(|eos| {
        matches!(
            eos.idemp_state.as_str(),
            "RequestPID" | "WaitTransport" | "WaitPID"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::statistics::{Broker, ExactlyOnceSemantics, Topic};

    const NODE: i32 = 1;

    /// One partition, with records that wait and others that were sent.
    fn partition(waiting: i64, sent: u64) -> Statistics {
        let partition = Partition {
            leader: NODE,
            xmit_msgq_cnt: waiting,
            txmsgs: sent,
            ..Partition::default()
        };
        let topic = Topic {
            partitions: HashMap::from([(0, partition)]),
            ..Topic::default()
        };
        let broker = Broker {
            nodeid: NODE,
            state: "UP".to_owned(),
            ..Broker::default()
        };
        let eos = ExactlyOnceSemantics {
            idemp_state: "Assigned".to_owned(),
            ..ExactlyOnceSemantics::default()
        };
        Statistics {
            brokers: HashMap::from([("one".to_owned(), broker)]),
            topics: HashMap::from([("events".to_owned(), topic)]),
            eos: Some(eos),
            ..Statistics::default()
        }
    }

    /// Whether a look counts as a step, after one that saw the same.
    fn steps(statistics: &Statistics) -> bool {
        let progress = Progress::default();
        progress.look(statistics);
        let before = progress.steps();
        progress.look(statistics);
        progress.steps() > before
    }

    #[test]
    fn a_partition_stands_that_sends_nothing_though_its_leader_is_connected() {
        let progress = Progress::default();
        let mut steps = 0;
        for (waiting, sent, step) in [
            (5, 0, true), // It may have come a moment ago.
            (5, 0, false),
            (5, 5, true),
            (5, 5, false),
            (0, 5, true),
            (0, 5, false), // Nobody has anything to wait for.
        ] {
            progress.look(&partition(waiting, sent));
            assert_eq!(progress.steps() > steps, step, "{waiting} {sent}");
            steps = progress.steps();
        }
    }

    #[test]
    fn one_that_waits_for_the_brokers_does_not_stand() {
        let standing = partition(5, 0);
        assert!(!steps(&standing));
        let mut leaderless = standing.clone();
        let topic = leaderless.topics.get_mut("events").expect("it is there");
        topic.partitions.get_mut(&0).expect("it is there").leader = -1;
        assert!(steps(&leaderless));
        let mut down = standing.clone();
        down.brokers.get_mut("one").expect("it is there").state = "CONNECT".to_owned();
        assert!(steps(&down));
        let mut nothing = down.clone();
        nothing.topics.clear();
        assert!(steps(&nothing), "no broker is up");
        let mut nameless = standing;
        nameless.eos.as_mut().expect("it is there").idemp_state = "WaitPID".to_owned();
        assert!(steps(&nameless));
    }

    #[test]
    fn one_partition_that_stands_is_seen_beside_others_that_get_on() {
        let progress = Progress::default();
        let looks = |sent| {
            let mut statistics = partition(5, 0);
            let other = partition(5, sent);
            let other = other.topics.into_values().next().expect("it is there");
            statistics.topics.insert("others".to_owned(), other);
            statistics
        };
        progress.look(&looks(1));
        let before = progress.steps();
        progress.look(&looks(2));
        assert_eq!(progress.steps(), before);
    }
}
