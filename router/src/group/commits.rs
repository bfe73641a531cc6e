//! Commits: the thread that makes them, and how others ask for one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use tracing::debug;

use super::{Group, GroupConsumer};
use crate::joint::Committing;
use crate::list::list_of;
use crate::named;
use crate::offsets::{Commit, PartitionKey};
use crate::stall::Pulse;
use crate::state::lock;

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
                let may_commit = group.commit_jointly(consumer, &pulse, false);
                if may_commit && last.elapsed() >= interval {
                    group.commit(consumer, &pulse, None);
                    last = Instant::now();
                }
            }
            Ok(CommitRequest::Now { keys, done }) => {
                if group.commit_jointly(consumer, &pulse, true) {
                    group.commit(consumer, &pulse, keys.as_deref());
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
    /// whether all of it is committed.
    pub fn commit_within(&self, keys: Option<&[PartitionKey]>, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            if self.choose(keys).is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.ask_for_commit(keys, left) {
                return false;
            }
            if !self.choose(keys).is_empty() {
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

    fn choose(&self, keys: Option<&[PartitionKey]>) -> Vec<Commit> {
        let mut commits = self.shared.offsets().committable();
        commits.retain(|commit| keys.is_none_or(|keys| keys.contains(&commit.key)));
        commits
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

    /// Publishes what earlier commits name, then has a joint sink commit what it holds, if it wants that or is asked to. Answers whether
    /// something else may be committed now.
    fn commit_jointly(&self, consumer: &GroupConsumer, pulse: &Pulse, asked: bool) -> bool {
        let at = self.committing(consumer, pulse);
        if !self.joint_commits.named.recover(at) {
            return false;
        }
        if self.shared.joint
            && self.joint_commits.is_pending(&self.shared)
            && (asked || self.joint_commits.is_unfinished() || self.sink.commit_due())
        {
            self.joint_commits.commit(at);
        }
        // Beside an unfinished joint commit, lower offsets could take back what it has committed.
        !self.joint_commits.is_unfinished()
    }

    /// Commits and waits for Kafka's answer: for the committing thread. (rdkafka never hands on the answer to an
    /// asynchronous commit: librdkafka gives it to a callback that rdkafka does not set.)
    fn commit(&self, consumer: &GroupConsumer, pulse: &Pulse, keys: Option<&[PartitionKey]>) {
        let _asking = self
            .joint_commits
            .holds_partitions()
            .then(|| lock(self.joint_commits.named.asked()));
        let commits = self.choose(keys);
        // A partition that came in meanwhile may be among them, with a name to publish first.
        if commits.is_empty() || self.joint_commits.named.has_found() {
            return;
        }
        pulse.turn();
        match consumer.commit(&list_of(&commits, None), CommitMode::Sync) {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                let mut offsets = self.shared.offsets();
                for commit in &commits {
                    offsets.committed(&commit.key, commit.offset);
                }
            }
            Err(error) => self.commit_failed(&error),
        }
    }

    fn commit_failed(&self, error: &KafkaError) {
        self.shared.commit_failures.fetch_add(1, Ordering::Relaxed);
        // A group that is rebalancing refuses commits for a moment: the next one repeats it.
        debug!("offsets were not committed: {error}; the next commit repeats it");
        self.shared
            .remember(format!("offsets were not committed: {error}"));
    }
}
