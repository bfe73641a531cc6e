//! The joint commit: what the sink holds and the offsets of its events become durable in one step (see `Sink::commit`).
//!
//! On the committing thread, in this order: wait until no batch is between its first call of the sink and its end; ask for the consumer's
//! place in its group; choose the offsets that hold if every held batch counts as settled; have the sink commit; settle. Where a held event
//! would not be covered by its offset (its partition has moved away, or an earlier event of it is not settled), nothing is committed and the
//! events are read again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystone_sinks::{Cause, JointCommit, Sink, SinkError};
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;

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
}

/// The joint commits of a worker.
#[derive(Default)]
pub struct JointCommits {
    /// Kafka has not answered; the same commit is asked for again.
    unfinished: Mutex<Option<Begun>>,
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
            // While a commit is unfinished the sink takes nothing, so batches under way are not waited for.
            let whole = match &unfinished {
                Some(_) => None,
                None => match tokio::time::timeout(QUIET, shared.whole.write()).await {
                    Ok(whole) => Some(whole),
                    Err(_) => return,
                },
            };
            let _alone = shared.gate.write().await;
            let Some(begun) = unfinished.or_else(|| begin(shared, consumer)) else {
                return;
            };
            match sink.commit(begun.joint.clone()).await {
                Ok(()) => finish(shared, &begun),
                Err(SinkError::Retry(cause)) => {
                    take_durable(shared, Err(SinkError::Retry(cause)));
                    *lock(&self.unfinished) = Some(begun);
                }
                Err(error) => {
                    shared.commit_failures.fetch_add(1, Ordering::Relaxed);
                    take_durable(shared, Err(error));
                }
            }
            drop(whole);
        });
    }
}

/// Chooses the offsets; `None` where there is nothing to commit, or nothing can be.
fn begin(shared: &Shared, consumer: &GroupConsumer) -> Option<Begun> {
    // Before the offsets are looked at: if a partition moves after that, Kafka refuses this place in the group.
    let group = consumer.group_metadata()?;
    let held = shared.held().complete_batches();
    if held.is_empty() {
        return None;
    }
    let claims = held.iter().flat_map(|(_, claims)| claims.iter());
    let Some(offsets) = shared.offsets().committable_with(claims) else {
        shared.request_rewind(Cause {
            reason: "partitions_moved",
            detail:
                "events of partitions that were given up are in the open transaction; it is aborted"
                    .to_owned(),
            after: None,
        });
        return None;
    };
    Some(Begun {
        joint: Arc::new(JointCommit {
            offsets: list_of(&offsets),
            group,
        }),
        offsets,
        batches: held.into_iter().map(|(batch, _)| batch).collect(),
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
