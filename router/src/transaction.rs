//! Joint commits of a sink that commits the offsets itself, in a transaction ([`Joint::Transaction`](keystone_sinks::Joint)).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use keystone_sinks::{JointCommit, SinkError};
use tokio::sync::OwnedRwLockWriteGuard;

use crate::group::take_answer;
use crate::joint::{Chosen, Committing, choose_offsets, settle_committed, wait_for_whole_batches};
use crate::list::list_of;
use crate::state::lock;

/// A commit that was begun.
struct Begun {
    joint: Arc<JointCommit>,
    chosen: Chosen,
    /// Of the worker when it was begun: a rewind has dropped these batches.
    epoch: u64,
    /// No batch enters the sink before Kafka has answered.
    _whole: OwnedRwLockWriteGuard<()>,
}

/// The transactions of a worker.
#[derive(Default)]
pub struct Transactions {
    /// Kafka has not answered; the same commit is asked for again. Or nobody will ever know, and the worker ends.
    unfinished: Mutex<Option<Begun>>,
    begun: AtomicU64,
}

impl Transactions {
    pub fn is_unfinished(&self) -> bool {
        lock(&self.unfinished).is_some()
    }

    /// Commits what the sink holds. For the committing thread.
    pub fn commit(&self, at: Committing<'_>) {
        let shared = at.shared;
        at.runtime.block_on(async {
            let unfinished = lock(&self.unfinished).take();
            let whole = match &unfinished {
                Some(_) => None,
                None => match wait_for_whole_batches(shared).await {
                    None => return,
                    whole => whole,
                },
            };
            let alone = shared.gate.write().await;
            let begun = unfinished.or_else(|| self.begin(at, whole?));
            let Some(begun) = begun else {
                return;
            };
            at.pulse.turn();
            let is_current = begun.epoch == *shared.epoch.borrow();
            let is_finished = match at.sink.commit(begun.joint.clone()).await {
                Ok(()) => {
                    settle_committed(shared, &begun.chosen);
                    true
                }
                Err(SinkError::Fatal(reason)) => {
                    shared.fail(reason);
                    false // It may be committed: nothing else may be, ever.
                }
                Err(_) if !is_current => true, // The sink has dropped it.
                Err(SinkError::Retry(cause)) => {
                    take_answer(shared, Err(SinkError::Retry(cause)));
                    false
                }
                Err(error) => {
                    shared.commit_failures.fetch_add(1, Ordering::Relaxed);
                    take_answer(shared, Err(error));
                    true
                }
            };
            // The gate opens before batches may enter: one that has entered and waits at the gate could be overtaken there.
            drop(alone);
            if !is_finished {
                *lock(&self.unfinished) = Some(begun);
            }
        });
    }

    fn begin(&self, at: Committing<'_>, whole: OwnedRwLockWriteGuard<()>) -> Option<Begun> {
        // Before the offsets are looked at: if a partition moves after that, Kafka refuses this place in the group.
        let group = at.consumer.group_metadata()?;
        if at.consumer.assignment_lost() {
            return None;
        }
        let chosen = choose_offsets(at.shared)?;
        Some(Begun {
            joint: Arc::new(JointCommit {
                number: self.begun.fetch_add(1, Ordering::Relaxed) + 1,
                offsets: list_of(&chosen.offsets, None),
                group,
            }),
            chosen,
            epoch: *at.shared.epoch.borrow(),
            _whole: whole,
        })
    }
}
