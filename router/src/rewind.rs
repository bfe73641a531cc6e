//! A rewind: what the sink holds is dropped, and all partitions are read again from their lowest unsettled offsets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use keystone_sinks::{Cause, Sink};

use crate::joint::JointCommits;
use crate::offsets::PartitionKey;
use crate::state::Shared;

/// A partition to be read again under a new generation, from this offset; `None` is from where the group begins.
pub type Seek = (PartitionKey, u64, Option<i64>);

/// New generations for all partitions, with every call of the sink at rest. `None` where it can't be now, and is asked for again.
pub async fn abandon_all(
    shared: &Shared,
    sink: &dyn Sink,
    commits: &JointCommits,
    cause: &Cause,
) -> Option<Vec<Seek>> {
    let waiting = Waiting::begin(&shared.rewind_waits);
    let alone = shared.gate.write();
    futures::pin_mut!(alone);
    // First in the queue, then the calls under way are dropped: a call that begins now waits behind us.
    let free = futures::poll!(&mut alone);
    shared.epoch.send_modify(|epoch| *epoch += 1);
    let _alone = match free {
        Poll::Ready(free) => free,
        Poll::Pending => alone.await,
    };
    drop(waiting);
    if commits.named.is_unfinished() {
        // Begun while this waited for the gate: what it covers is not to be read again.
        shared.request_rewind(cause.clone());
        return None;
    }
    let seeks: Vec<_> = {
        let mut offsets = shared.offsets();
        let keys = offsets.keys().into_iter();
        let seeks = keys.filter_map(|key| {
            let (generation, from) = offsets.rewind(&key)?;
            Some((key, generation, from))
        });
        seeks.collect()
    };
    sink.abandon().await;
    shared.abandon_held();
    Some(seeks)
}

/// Shows that a rewind waits, until it is dropped.
struct Waiting<'w>(&'w AtomicBool);

impl Waiting<'_> {
    fn begin(shown: &AtomicBool) -> Waiting<'_> {
        shown.store(true, Ordering::Release);
        Waiting(shown)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
