//! The worker's part in the consumer group: assignment, revocation with a drain. Called by librdkafka on the consumer thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use keystone_sinks::kafka::client::Reporter;
use keystone_sinks::{Cause, Sink, SinkError};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::statistics::{Broker, ConsumerGroup, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::expired::{Expiry, Look};
use crate::joint::JointCommits;
use crate::lane::{Assigned, Flush};
use crate::list::{describe, keys_of};
use crate::offsets::{Commit, PartitionKey};
use crate::records::Entrance;
use crate::start;
use crate::state::{ASK_TIMEOUT, Log, Shared, lock};

mod absent;
mod commits;
mod ends;
mod looks;

pub use commits::{CommitRequest, commit_regularly};
pub use looks::look_regularly;

pub type GroupConsumer = BaseConsumer<Group>;

/// How long a commit that is asked for keeps its partitions from being given up.
const ANSWERED: Duration = Duration::from_secs(180);

/// What librdkafka's callbacks need.
pub struct Group {
    /// `group.id`.
    pub id: String,
    shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
    runtime: Handle,
    flushes: Vec<Sender<Flush>>,
    /// The queue that partitions are led to.
    records: OnceLock<Entrance>,
    reporter: Reporter,
    /// The partitions held, each with its generation and lane.
    assigned: Mutex<HashMap<PartitionKey, Arc<Assigned>>>,
    expiry: Mutex<Expiry>,
    /// `assigned` has changed since the consumer loop last looked.
    changed: AtomicBool,
    /// To the thread that commits: Kafka may take long to answer, and nobody else is to wait for it without a limit.
    commits: Sender<CommitRequest>,
    joint_commits: JointCommits,
    /// How long Kafka's answer to a commit may take.
    longest_commit: Duration,
    /// The lanes are gone: a revocation commits and does not drain.
    closing: AtomicBool,
}

impl Group {
    pub fn new(
        id: String,
        shared: Arc<Shared>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        flushes: Vec<Sender<Flush>>,
        commits: Sender<CommitRequest>,
        longest_commit: Duration,
    ) -> Group {
        Group {
            id,
            joint_commits: JointCommits::new(&shared, &*sink),
            shared,
            sink,
            runtime,
            flushes,
            records: OnceLock::new(),
            reporter: Reporter::new("consumer"),
            assigned: Mutex::default(),
            expiry: Mutex::default(),
            changed: AtomicBool::new(false),
            commits,
            longest_commit,
            closing: AtomicBool::new(false),
        }
    }

    /// Where the records of each partition are to go, before the first is assigned.
    pub fn lead_to(&self, entrance: Entrance) {
        self.records.get_or_init(|| entrance);
    }

    /// What librdkafka last complained of.
    pub fn recent_error(&self) -> Option<String> {
        self.reporter.recent_error(Duration::from_secs(300))
    }

    /// From here on the lanes are gone.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The partitions held, if they have changed since the last call.
    pub fn take_changed(&self) -> Option<HashMap<PartitionKey, Arc<Assigned>>> {
        self.changed
            .swap(false, Ordering::AcqRel)
            .then(|| lock(&self.assigned).clone())
    }

    /// Whether `take_changed` has something to say.
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Gives a partition that is read again, from this offset, its new generation.
    pub fn renew(&self, key: &PartitionKey, generation: u64, from: Option<i64>) {
        let queue_was_empty = &self.shared.queue_was_empty;
        queue_was_empty.store(false, Ordering::Relaxed);
        let mut assigned = lock(&self.assigned);
        // What retention takes before it is read again is lost, though it was read once.
        lock(&self.expiry).assigned(key, from);
        if let Some(entry) = assigned.get_mut(key) {
            *entry = Arc::new(Assigned::new(key.clone(), generation, entry.lane, from));
        }
        self.changed.store(true, Ordering::Release);
    }

    pub fn joint_commits(&self) -> &JointCommits {
        &self.joint_commits
    }

    fn assign(&self, consumer: &GroupConsumer, list: &mut TopicPartitionList) {
        let mut starts = Vec::new();
        if list.count() > 0 {
            match start::resolve(consumer, &self.shared, list) {
                Ok(resolved) => starts = resolved,
                // Nothing of these partitions was read: they are whoever's comes next.
                Err(reason) if self.shared.stop_requested() => warn!("{reason}; the worker ends"),
                Err(reason) => self.shared.fail(reason),
            }
        }
        {
            let mut assigned = lock(&self.assigned);
            let mut offsets = self.shared.offsets();
            let mut expiry = lock(&self.expiry);
            for start in &starts {
                expiry.assigned(&start.key, start.from);
                let generation = offsets.assign(start.key.clone(), start.from, start.committed);
                if let (Some(name), Some(offset)) = (&start.name, start.committed) {
                    let commit = Commit {
                        key: start.key.clone(),
                        offset,
                        generation,
                    };
                    self.joint_commits.named.remember(name, commit);
                }
                let lane = least_loaded(&assigned, self.flushes.len());
                let entry = Assigned::new(start.key.clone(), generation, lane, start.from);
                assigned.insert(start.key.clone(), Arc::new(entry));
            }
        }
        self.changed.store(true, Ordering::Release);
        if !self.closing.load(Ordering::Acquire) {
            self.lead(consumer, list);
        }
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            _ => consumer.assign(list),
        };
        if let Err(error) = done {
            self.shared
                .fail(format!("kafka's assignment could not be taken: {error}"));
        }
        info!(partitions = %describe(list), "assigned");
        self.shared.rebalances.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.membership).assigned();
        self.shared.troubles.all_is_well("group");
        // A call that was under way when partitions were taken away may have failed after that.
        self.shared.troubles.doubt("sink");
    }

    /// Has the records of these partitions arrive where the consumer thread reads.
    fn lead(&self, consumer: &GroupConsumer, list: &TopicPartitionList) {
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let entrance = self.records.get();
            if !entrance.is_some_and(|entrance| entrance.lead(consumer, topic, partition)) {
                self.shared.fail(format!(
                    "librdkafka does not hand over the records of {topic}-{partition}"
                ));
            }
        }
    }

    fn revoke(&self, consumer: &GroupConsumer, list: &TopicPartitionList) {
        let keys = keys_of(list);
        let lost = consumer.assignment_lost();
        info!(partitions = %describe(list), lost, "revoked");
        if !lost {
            if !self.closing.load(Ordering::Acquire) && !keys.is_empty() {
                self.drain(&keys, self.shared.route.rebalance_drain);
            }
            if !self.closing.load(Ordering::Acquire)
                && !self.commit_within(Some(&keys), ASK_TIMEOUT)
            {
                warn!(
                    "the offsets of the partitions that are given up could not be committed in time; whoever holds them next may deliver again what is settled"
                );
            }
        }
        let answered = self.wait_for_answers();
        let unsettled = self.shared.offsets().unsettled(&keys);
        {
            let mut assigned = lock(&self.assigned);
            let mut offsets = self.shared.offsets();
            let mut old_topics = lock(&self.shared.old_topics);
            for key in &keys {
                assigned.remove(key);
                if offsets.revoke(key).is_some() {
                    old_topics.insert(key.topic.clone());
                }
            }
            // Some alone are lost with their topics.
            if lost && assigned.is_empty() {
                lock(&self.shared.membership).lost();
            }
        }
        drop(answered);
        // Events that had the sink fail may have left, and what this worker keeps may be quiet.
        self.shared.troubles.doubt("sink");
        lock(&self.shared.logs).retain(|key, _| !keys.contains(key));
        self.changed.store(true, Ordering::Release);
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        if let Err(error) = done {
            warn!("kafka's revocation could not be carried out: {error}");
        }
        if unsettled > 0 {
            warn!(
                unsettled_batches = unsettled,
                "partitions were given up before all was settled; whoever holds them next delivers it again"
            );
            if self.sink.holds() && !self.closing.load(Ordering::Acquire) {
                self.shared.request_rewind(Cause {
                    reason: "partitions_lost",
                    detail: "partitions were given up while the sink held events of theirs; what it holds is dropped and read again"
                        .to_owned(),
                    after: None,
                });
            }
        }
    }

    /// Waits for the answer to a commit that is asked for at this moment, where it counts; none is asked for while the answer lives.
    fn wait_for_answers(&self) -> Option<MutexGuard<'_, ()>> {
        if !self.joint_commits.holds_partitions() {
            return None;
        }
        let beat = || self.shared.beat();
        let answered = self.joint_commits.named.hold_commits(ANSWERED, beat);
        if answered.is_none() {
            self.shared.fail(format!(
                "kafka has not answered to a commit for {} s, and partitions are to be given up: the worker ends, and the next one reads on from what is committed",
                ANSWERED.as_secs()
            ));
        }
        answered
    }

    /// Waits until everything read of these partitions is settled, at most this long. Answers whether it is.
    pub fn drain(&self, keys: &[PartitionKey], at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let flushed = self.flush_lanes();
        loop {
            self.shared.beat();
            let lanes_done = flushed.load(Ordering::Acquire) >= self.flushes.len();
            let unsettled = self.shared.offsets().unsettled(keys);
            if lanes_done && unsettled == 0 {
                return true;
            }
            let deadline = self.shared.until(deadline);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.failure().is_some() {
                return false;
            }
            if lanes_done && self.shared.rewind_requested() {
                return false; // What is left does not settle any more.
            }
            let delivering = self.shared.pending_batches.load(Ordering::Acquire);
            if lanes_done && delivering == 0 && self.shared.joint {
                self.ask_for_commit(None, left);
            } else if lanes_done && delivering == 0 && self.sink.holds() {
                self.flush_sink(left);
            }
            self.shared
                .wait_progress(left.min(Duration::from_millis(20)));
        }
    }

    /// Asks every lane to hand on what it has. The counter tells how many have.
    fn flush_lanes(&self) -> Arc<AtomicUsize> {
        let done = Arc::new(AtomicUsize::new(0));
        for lane in &self.flushes {
            let flush = Flush { done: done.clone() };
            if lane.send(flush).is_err() {
                done.fetch_add(1, Ordering::Release);
            }
        }
        done
    }

    /// Tells of a place in the group that is lost, or about to be.
    fn look_at_membership(&self, group: &ConsumerGroup) {
        let outside = lock(&self.shared.membership).look(group, Instant::now());
        match outside {
            // Who is asked to end does not come back.
            Some(_) if self.shared.stop_requested() => {}
            Some(outside) => {
                let text = outside.describe(&self.id, &group.rebalance_reason);
                self.shared.troubles.tell("group", text);
            }
            None => self.shared.troubles.all_is_well("group"),
        }
    }

    /// Has the sink publish what it holds, at most this long.
    fn flush_sink(&self, at_most: Duration) {
        let flushing = async {
            let _open = self.shared.gate.read().await;
            tokio::time::timeout(at_most, self.sink.flush()).await
        };
        match self.shared.wait_beating(&self.runtime, flushing) {
            Some(Ok(answer)) => take_answer(&self.shared, answer),
            Some(Err(_)) => warn!("the sink did not publish what it holds in time"),
            None => {}
        }
    }
}

/// Takes an answer of the sink that is about no batch: settles what it names durable, or does what its error asks for.
pub fn take_answer(shared: &Shared, answer: Result<Vec<keystone_sinks::BatchId>, SinkError>) {
    match answer {
        Ok(durable) => shared.held_durable(&durable),
        Err(SinkError::Fatal(reason)) => shared.fail(reason),
        Err(SinkError::Rewind(cause)) => {
            shared.troubles.tell("sink", cause.detail.clone());
            shared.count_retry("sink", cause.reason);
            shared.request_rewind(cause);
        }
        Err(SinkError::Retry(cause)) => {
            shared.count_retry("sink", cause.reason);
            shared.troubles.tell("sink", cause.detail);
        }
        Err(SinkError::TooLarge(detail)) => shared.troubles.tell("sink", detail),
    }
}

/// Why nothing is read, for a person.
pub fn no_broker(detail: &str) -> String {
    format!(
        "no Kafka broker can be reached ({detail}); see kafka.bootstrap.servers, and kafka.security.protocol and kafka.sasl.* where brokers ask who is there"
    )
}

fn least_loaded(assigned: &HashMap<PartitionKey, Arc<Assigned>>, lanes: usize) -> usize {
    let mut loads = vec![0; lanes.max(1)];
    for entry in assigned.values() {
        loads[entry.lane] += 1;
    }
    (0..loads.len())
        .min_by_key(|lane| loads[*lane])
        .unwrap_or(0)
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reporter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }

    /// Keeps what is known of the log of each partition, and notices what was deleted unread and when no broker can be reached.
    fn stats(&self, statistics: Statistics) {
        let mut logs = HashMap::new();
        let is_paused = self.shared.is_paused();
        let is_taken_in = self.shared.queue_was_empty.swap(false, Ordering::Relaxed);
        {
            let assigned = lock(&self.assigned);
            let mut expiry = lock(&self.expiry);
            for topic in statistics.topics.values() {
                for partition in topic.partitions.values() {
                    let key = PartitionKey::new(&topic.topic, partition.partition);
                    let Some(entry) = assigned.get(&key) else {
                        continue;
                    };
                    let low = (partition.lo_offset >= 0).then_some(partition.lo_offset);
                    let mut high = partition.hi_offset;
                    if let Some(now) = Look::at(partition) {
                        let is_read =
                            !is_paused && is_taken_in && expiry.is_fetched(&key, now, high);
                        let is_faulty = entry.faulty.load(Ordering::Relaxed);
                        if let (true, false, Some(next)) = (is_read, is_faulty, entry.next.get()) {
                            // What lies between are markers of transactions and events that were aborted.
                            high = next;
                        }
                        let count = expiry.look(&key, now);
                        self.shared.count_expired(&key, count, now.low);
                    }
                    if high >= 0 {
                        logs.insert(key, Log { low, high });
                    }
                }
            }
            let mut known = lock(&self.shared.logs);
            if is_paused {
                // Of paused partitions librdkafka has old ends or none: see `look_at_ends`.
                known.retain(|key, _| assigned.contains_key(key));
                for (key, before) in known.iter() {
                    logs.entry(key.clone()).or_default().update(*before);
                }
            }
            *known = logs;
        }
        // A group's coordinator is listed once more, without an address of its own.
        let is_real = |broker: &&Broker| broker.nodeid >= 0 || broker.source == "configured";
        let mut real = statistics.brokers.values().filter(is_real);
        if real.any(|broker| broker.state == "UP") {
            self.shared.troubles.all_is_well("source");
            if let Some(group) = &statistics.cgrp {
                self.look_at_membership(group);
            }
        } else {
            let detail = self.recent_error();
            let detail = detail.unwrap_or_else(|| "no connection is up".to_owned());
            self.shared.troubles.tell("source", no_broker(&detail));
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &GroupConsumer,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
        // Nothing was taken in meanwhile.
        let queue_was_empty = &self.shared.queue_was_empty;
        queue_was_empty.store(false, Ordering::Relaxed);
    }
}
