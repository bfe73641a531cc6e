//! The joint commit: what the sink holds and the offsets of its events become durable in one step (see `Sink::commit`).
//!
//! On the committing thread, in this order: wait until no batch is between its first call of the sink and its end; ask for the consumer's
//! place in its group; choose the offsets that hold if every held batch counts as settled; have the sink commit; settle. Where a held event
//! would not be covered by its offset (its partition has moved away, its batch was given up, an earlier event is not settled), nothing is
//! committed and the events are read again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystone_sinks::{Cause, JointCommit, Sink, SinkError};
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::group::{GroupConsumer, list_of, take_durable};
use crate::offsets::Commit;
use crate::state::{Shared, lock};

/// How long batches under way are waited for. A batch that takes longer (its dead letters can't be written) puts the commit off.
const QUIET: Duration = Duration::from_secs(5);

/// A commit that was begun.
struct Begun {
    joint: Arc<JointCommit>,
    offsets: Vec<Commit>,
    /// The held batches that it covers.
    batches: Vec<u64>,
    /// Of the worker when it was begun: a rewind has dropped these batches.
    epoch: u64,
    /// No batch enters the sink before Kafka has answered.
    _whole: OwnedRwLockWriteGuard<()>,
}

/// The joint commits of a worker.
#[derive(Default)]
pub struct JointCommits {
    /// Kafka has not answered; the same commit is asked for again. Or nobody will ever know, and the worker ends.
    unfinished: Mutex<Option<Begun>>,
    begun: AtomicU64,
}

impl JointCommits {
    /// Whether something waits for a joint commit.
    pub fn is_pending(&self, shared: &Shared) -> bool {
        self.is_unfinished() || !shared.held().is_empty()
    }

    /// Whether Kafka has not answered to a commit yet, and may have carried it out.
    pub fn is_unfinished(&self) -> bool {
        lock(&self.unfinished).is_some()
    }

    /// Commits what the sink holds. For the committing thread.
    pub fn commit(
        &self,
        shared: &Shared,
        sink: &dyn Sink,
        runtime: &Handle,
        consumer: &GroupConsumer,
    ) {
        runtime.block_on(async {
            let unfinished = lock(&self.unfinished).take();
            let whole = match &unfinished {
                Some(_) => None,
                None => {
                    let whole = shared.whole.clone().write_owned();
                    let Ok(whole) = tokio::time::timeout(QUIET, whole).await else {
                        return;
                    };
                    Some(whole)
                }
            };
            let alone = shared.gate.write().await;
            let number = || self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let new = || begin(shared, consumer, number(), whole?);
            let Some(begun) = unfinished.or_else(new) else {
                return;
            };
            let is_current = begun.epoch == *shared.epoch.borrow();
            let is_finished = match sink.commit(begun.joint.clone()).await {
                Ok(()) => {
                    finish(shared, &begun);
                    true
                }
                Err(SinkError::Fatal(reason)) => {
                    shared.fail(reason);
                    false // It may be committed: nothing else may be, ever.
                }
                Err(_) if !is_current => true, // The sink has dropped it.
                Err(SinkError::Retry(cause)) => {
                    take_durable(shared, Err(SinkError::Retry(cause)));
                    false
                }
                Err(error) => {
                    shared.commit_failures.fetch_add(1, Ordering::Relaxed);
                    take_durable(shared, Err(error));
                    true
                }
            };
            // Before the batches that wait: one that entered and stood at the gate could be overtaken there.
            drop(alone);
            if !is_finished {
                *lock(&self.unfinished) = Some(begun);
            }
        });
    }
}

/// Chooses the offsets; `None` where there is nothing to commit, or nothing can be.
fn begin(
    shared: &Shared,
    consumer: &GroupConsumer,
    number: u64,
    whole: OwnedRwLockWriteGuard<()>,
) -> Option<Begun> {
    // Before the offsets are looked at: if a partition moves after that, Kafka refuses this place in the group.
    let group = consumer.group_metadata()?;
    if consumer.assignment_lost() {
        return None;
    }
    let (held, all) = {
        let held = shared.held();
        (held.complete_batches(), held.len())
    };
    if all == 0 {
        return None;
    }
    let claims = held.iter().flat_map(|(_, claims)| claims.iter());
    // No batch is under way: one that is not complete was given up, with events of it in the transaction.
    let offsets = (held.len() == all)
        .then(|| shared.offsets().committable_with(claims))
        .flatten();
    let Some(offsets) = offsets else {
        shared.request_rewind(Cause {
            reason: "given_up",
            detail: "events that were given up are in the open transaction; it is aborted, and the others are read again"
                .to_owned(),
            after: None,
        });
        return None;
    };
    Some(Begun {
        joint: Arc::new(JointCommit {
            number,
            offsets: list_of(&offsets),
            group,
        }),
        offsets,
        batches: held.into_iter().map(|(batch, _)| batch).collect(),
        epoch: *shared.epoch.borrow(),
        _whole: whole,
    })
}

fn finish(shared: &Shared, begun: &Begun) {
    for batch in &begun.batches {
        let settled = shared.held().settle_all(*batch);
        if let Some(settled) = settled {
            shared.settle_held(settled);
        }
    }
    let mut offsets = shared.offsets();
    for commit in &begun.offsets {
        offsets.committed(&commit.key, commit.offset);
    }
    drop(offsets);
    shared.commits.fetch_add(1, Ordering::Relaxed);
    shared.all_is_well("sink");
    shared.made_progress();
}
