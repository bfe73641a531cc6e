//! The joint commit: what the sink holds and the offsets of its events become durable in one step (see [`Joint`]).
//!
//! On the committing thread, in this order: wait until no batch is between its first call of the sink and its end; choose the offsets that
//! hold if every held batch counts as settled; have it committed, as `transaction.rs` or `named.rs` does; settle. Where a held event would
//! not be covered by its offset (its partition has moved away, its batch was given up, an earlier event is not settled), nothing is
//! committed and the events are read again. A commit that was begun is ended before anything else is committed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use keystone_sinks::{Cause, Joint, Sink};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockWriteGuard;
use tracing::debug;

use crate::list::list_of;
use crate::membership::ADVICE;
use crate::named::NamedCommits;
use crate::offsets::{Commit, PartitionKey};
use crate::stall::Pulse;
use crate::state::{Shared, lock};
use crate::transaction::Transactions;

#[cfg(test)]
mod random;

/// How long batches under way are waited for, while no other may begin. One that takes longer (its dead letters can't be written) puts the
/// commit off. Nearly as long as a transaction may take by default: with each attempt that is given up the lanes fill up again, and a slow
/// sink would never come to an end.
const QUIET: Duration = Duration::from_secs(15);

/// For how long commits may fail before that is trouble: a group that rebalances refuses them for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// The consumer group as commits see it.
pub trait Coordinator {
    /// `group.id`.
    fn group(&self) -> &str;
    /// The worker was thrown out of its group, and librdkafka knows.
    fn assignment_lost(&self) -> bool;
    /// The worker's place in its group at this moment.
    fn group_metadata(&self) -> Option<ConsumerGroupMetadata>;
    /// Commits and waits for Kafka's answer. (rdkafka never hands on the answer to an asynchronous commit: librdkafka gives it to a callback
    /// that rdkafka does not set.)
    fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()>;
    /// What the group has committed for these partitions.
    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList>;
}

/// What a commit needs.
#[derive(Clone, Copy)]
pub struct Committing<'c> {
    pub shared: &'c Shared,
    pub sink: &'c dyn Sink,
    pub runtime: &'c Handle,
    pub consumer: &'c dyn Coordinator,
    /// Of the committing thread; each question to Kafka or the sink is a turn.
    pub pulse: &'c Pulse,
}

/// The joint commits of a worker.
pub struct JointCommits {
    kind: Option<Joint>,
    transactions: Transactions,
    pub named: NamedCommits,
}

impl JointCommits {
    pub fn new(shared: &Shared, sink: &dyn Sink) -> JointCommits {
        let route = &shared.route;
        JointCommits {
            kind: sink.joint(),
            transactions: Transactions::default(),
            named: NamedCommits::new(route.backoff_initial, route.backoff_max),
        }
    }

    /// Whether something waits for a joint commit.
    pub fn is_pending(&self, shared: &Shared) -> bool {
        self.is_unfinished() || !shared.held().is_empty()
    }

    /// Whether a commit was begun that has not come to its end, and may have been carried out.
    pub fn is_unfinished(&self) -> bool {
        self.transactions.is_unfinished() || self.named.is_unfinished()
    }

    /// Whether partitions have to wait for the answer to a commit before they are given up: Kafka checks the worker's place in its group
    /// as it is when the request goes out, not as it was when the offsets were chosen.
    pub fn holds_partitions(&self) -> bool {
        self.kind == Some(Joint::Named)
    }

    /// Publishes what earlier commits name, then has a joint sink commit what it holds, if it wants that or is asked to. Answers whether
    /// something else may be committed now. For the committing thread, as the next one.
    pub fn commit_held(&self, at: Committing<'_>, asked: bool) -> bool {
        if !self.named.recover(at) {
            return false;
        }
        let is_due = || at.sink.commit_due() || at.shared.holds_much();
        if self.is_pending(at.shared) && (asked || self.is_unfinished() || is_due()) {
            match self.kind {
                Some(Joint::Transaction) => self.transactions.commit(at),
                Some(Joint::Named) => self.named.commit(at),
                None => {}
            }
        }
        // Beside an unfinished joint commit, lower offsets could take back what it has committed.
        !self.is_unfinished()
    }

    /// Commits what is settled of these partitions, or of all, and waits for Kafka's answer.
    pub fn commit_settled(&self, at: Committing<'_>, keys: Option<&[PartitionKey]>) {
        let _asking = self
            .holds_partitions()
            .then(|| lock(self.named.commit_lock()));
        let commits = committable(at.shared, keys);
        if commits.is_empty() && keys.is_none() {
            commits_are_well(at.shared);
        }
        // A partition that came in meanwhile may be among them, with a name to publish first.
        if commits.is_empty() || self.named.has_found() {
            return;
        }
        at.pulse.turn();
        let asked = Instant::now();
        match at.consumer.commit(&list_of(&commits, None)) {
            Ok(()) => committed(at.shared, &commits),
            Err(error) => commit_failed(at, asked, &error),
        }
    }
}

/// What may be committed now, of these partitions or of all.
pub fn committable(shared: &Shared, keys: Option<&[PartitionKey]>) -> Vec<Commit> {
    let mut commits = shared.offsets().committable();
    commits.retain(|commit| keys.is_none_or(|keys| keys.contains(&commit.key)));
    commits
}

/// Takes note of a commit that Kafka has acknowledged.
fn committed(shared: &Shared, commits: &[Commit]) {
    let mut offsets = shared.offsets();
    for commit in commits {
        offsets.committed(&commit.key, commit.offset);
    }
    drop(offsets);
    shared.commits.fetch_add(1, Ordering::Relaxed);
    commits_are_well(shared);
}

/// Kafka has acknowledged a commit, or there is nothing to commit.
pub fn commits_are_well(shared: &Shared) {
    lock(&shared.uncommitted).is_over();
    shared.troubles.all_is_well("commits");
}

/// Takes note of a commit that was asked for at that moment, and failed. The next one repeats it.
pub fn commit_failed(at: Committing<'_>, asked: Instant, error: &KafkaError) {
    let shared = at.shared;
    shared.commit_failures.fetch_add(1, Ordering::Relaxed);
    let lasts = lock(&shared.uncommitted).lasts(asked, Instant::now(), PATIENCE);
    if lasts {
        let text = format!(
            "the offsets of group {} are not committed: {error}; delivery goes on, and what is not committed is delivered again after a restart; {ADVICE}",
            at.consumer.group()
        );
        shared.troubles.tell("commits", text);
    } else {
        debug!("offsets were not committed: {error}; the next commit repeats it");
        shared
            .troubles
            .remember(format!("offsets were not committed: {error}"));
    }
}

/// What a commit is to cover.
pub struct Chosen {
    pub offsets: Vec<Commit>,
    /// The held batches that it covers.
    pub batches: Vec<u64>,
}

/// Waits until no batch is between its first call of the sink and its end, and keeps others out while the answer lives.
pub async fn wait_for_whole_batches(shared: &Shared) -> Option<OwnedRwLockWriteGuard<()>> {
    let whole = shared.whole.clone().write_owned();
    tokio::time::timeout(QUIET, whole).await.ok()
}

/// Chooses the offsets; `None` where there is nothing to commit, or nothing can be. The gate is held for writing.
pub fn choose_offsets(shared: &Shared) -> Option<Chosen> {
    let (held, all) = {
        let held = shared.held();
        (held.complete_batches(), held.len())
    };
    if all == 0 {
        return None;
    }
    let claims = held.iter().flat_map(|(_, claims)| claims.iter());
    // No batch is under way here. One that is held in part was given up halfway: its events in the sink must not be committed.
    let offsets = (held.len() == all)
        .then(|| shared.offsets().committable_with(claims))
        .flatten()
        .filter(|offsets| !offsets.is_empty());
    let Some(offsets) = offsets else {
        shared.request_rewind(Cause {
            reason: "given_up",
            detail: "events that were given up are among those to be committed; all of them are dropped, and read again where they are this worker's"
                .to_owned(),
            after: None,
        });
        return None;
    };
    Some(Chosen {
        offsets,
        batches: held.into_iter().map(|(batch, _)| batch).collect(),
    })
}

/// Settles what was committed.
pub fn settle_committed(shared: &Shared, chosen: &Chosen) {
    for batch in &chosen.batches {
        let settled = shared.held().settle_all(*batch);
        if let Some(settled) = settled {
            shared.settle_held(settled);
        }
    }
    committed(shared, &chosen.offsets);
    shared.troubles.all_is_well("sink");
    shared.made_progress();
}
