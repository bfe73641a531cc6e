//! What workers that are gone have left prepared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keystone_sinks::{BoxFuture, Sink};
use rdkafka::TopicPartitionList;
use tracing::{debug, info};

use super::is_named;
use crate::joint::Committing;

/// How long a sweep may take: commits wait meanwhile. The rest is for the next one.
const AT_MOST: Duration = Duration::from_secs(15);

/// Discards what workers that are gone have prepared and not committed, and has the sink remove the rest beside the other work.
pub fn sweep(at: Committing<'_>, sink: &Arc<dyn Sink>) {
    let deadline = Instant::now() + AT_MOST;
    let suspects = within(at, deadline, sink.suspects()).unwrap_or_default();
    for prepared in suspects {
        if Instant::now() >= deadline || at.shared.stop_requested() {
            break;
        }
        if prepared.source.group != at.consumer.group() {
            continue; // Nobody here knows what that group has committed.
        }
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &prepared.source.partitions {
            list.add_partition(topic, *partition);
        }
        match is_named(at, &prepared.name, &list) {
            // Whoever is assigned the partition does that, too; but its topic may be none of the route's any more.
            Ok(true) => {
                if let Some(Err(error)) = within(at, deadline, sink.publish(&prepared.name)) {
                    debug!("{} is not published yet: {error:?}", prepared.name);
                }
            }
            Ok(false) => {
                info!(
                    name = prepared.name,
                    "files that a crash has left before their commit are removed; their events are read again"
                );
                within(at, deadline, sink.discard(&prepared.name));
            }
            Err(error) => {
                debug!(
                    "whether {} was committed could not be asked: {error}",
                    prepared.name
                );
                break;
            }
        }
    }
    let sink = sink.clone();
    // A task, which the end of the runtime drops.
    at.runtime.spawn(async move { sink.sweep().await });
}

/// What comes of a sink's work on what crashes have left, if it is done in time. What is cut off is found again.
fn within<T>(at: Committing<'_>, deadline: Instant, work: BoxFuture<'_, T>) -> Option<T> {
    at.pulse.turn();
    let timed = async { tokio::time::timeout_at(deadline.into(), work).await };
    let done = at.runtime.block_on(timed);
    if done.is_err() {
        debug!("the storage is slow: what crashes have left is looked for later");
    }
    done.ok()
}
