//! Commits: the thread that makes them, and how others ask for one.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaResult;

use super::{Group, GroupConsumer};
use crate::joint::{Committing, Coordinator, committable};
use crate::named;
use crate::offsets::PartitionKey;
use crate::stall::Pulse;
use crate::state::{ASK_TIMEOUT, lock};

/// How often a joint sink is asked whether it wants to commit.
const JOINT_LOOK: Duration = Duration::from_millis(20);
/// How often what crashes left behind is looked for.
const SWEEP: Duration = Duration::from_secs(6 * 60 * 60);

/// What the committing thread is asked for.
pub enum CommitRequest {
    /// Commit now, of these partitions or of all, and say when Kafka has answered.
    Now {
        keys: Option<Vec<PartitionKey>>,
        done: Sender<()>,
    },
    /// The worker ends.
    End,
}

/// The committing thread: commits at every interval, and when asked to.
pub fn commit_regularly(
    consumer: &GroupConsumer,
    requests: &Receiver<CommitRequest>,
    interval: Duration,
) {
    let group = consumer.context();
    let longest = group.sink.longest_step().unwrap_or_default() + group.longest_commit;
    let stalls = &group.shared.stalls;
    let pulse = stalls.watch_calls("the committing thread", longest, &group.sink);
    let mut last = Instant::now();
    let mut swept: Option<Instant> = None;
    loop {
        if swept.is_none_or(|last| last.elapsed() >= SWEEP) && !lock(&group.assigned).is_empty() {
            pulse.turn();
            named::sweep(group.committing(consumer, &pulse), &group.sink);
            swept = Some(Instant::now());
        }
        let wait = match group.shared.joint {
            true => interval.min(JOINT_LOOK),
            false => interval,
        };
        match pulse.waiting(|| requests.recv_timeout(wait)) {
            Err(RecvTimeoutError::Timeout) => {
                let at = group.committing(consumer, &pulse);
                let may_commit = group.joint_commits.commit_held(at, false);
                if may_commit && last.elapsed() >= interval {
                    group.joint_commits.commit_settled(at, None);
                    last = Instant::now();
                }
            }
            Ok(CommitRequest::Now { keys, done }) => {
                let at = group.committing(consumer, &pulse);
                if group.joint_commits.commit_held(at, true) {
                    group.joint_commits.commit_settled(at, keys.as_deref());
                }
                // Whoever asked may have stopped waiting.
                let _heard = done.send(());
            }
            Ok(CommitRequest::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Group {
    /// Has what may be committed committed, of these partitions or of all, and waits for Kafka's answer, at most this long. Answers
    /// whether all of it is committed; of all partitions also whether what commits name is published.
    pub fn commit_within(&self, keys: Option<&[PartitionKey]>, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let is_done = || {
            let is_whole = keys.is_none() && self.shared.failure().is_none();
            let to_publish = is_whole && self.joint_commits.named.has_found();
            !to_publish && committable(&self.shared, keys).is_empty()
        };
        loop {
            if is_done() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.ask_for_commit(keys, left) {
                return false;
            }
            if !is_done() {
                // Refused: a group that rebalances takes commits again in a moment.
                self.shared
                    .wait_progress(left.min(Duration::from_millis(100)));
            }
        }
    }

    /// Answers whether Kafka has answered in time.
    pub(super) fn ask_for_commit(&self, keys: Option<&[PartitionKey]>, at_most: Duration) -> bool {
        let (done, answer) = bounded(1);
        let request = CommitRequest::Now {
            keys: keys.map(<[PartitionKey]>::to_vec),
            done,
        };
        if self.commits.send(request).is_err() {
            return false;
        }
        let deadline = Instant::now() + at_most;
        loop {
            self.shared.beat();
            let left = deadline.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => return false,
            }
        }
    }

    fn committing<'c>(&'c self, consumer: &'c GroupConsumer, pulse: &'c Pulse) -> Committing<'c> {
        Committing {
            pulse,
            shared: &self.shared,
            sink: &*self.sink,
            runtime: &self.runtime,
            consumer,
        }
    }
}

impl Coordinator for GroupConsumer {
    fn group(&self) -> &str {
        &self.context().id
    }

    fn assignment_lost(&self) -> bool {
        Consumer::assignment_lost(self)
    }

    fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        Consumer::group_metadata(self)
    }

    fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        Consumer::commit(self, offsets, CommitMode::Sync)
    }

    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        self.committed_offsets(partitions, ASK_TIMEOUT)
    }
}
