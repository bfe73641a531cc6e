//! The offset window: which offset of each partition may be committed. Pure: no clock, no I/O.
//!
//! Nothing else decides a commit. A window knows the claims of its partition in the order they were read; the offset to commit
//! is the end of the longest settled prefix. Claims carry the generation of the assignment (or rewind) under which they were read;
//! a claim of another generation is refused when it is tracked and changes nothing when it is settled.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keystone_sinks::Claim;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl PartitionKey {
    pub fn new(topic: &str, partition: i32) -> PartitionKey {
        PartitionKey {
            topic: topic.into(),
            partition,
        }
    }
}

/// An offset to commit, or one that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub key: PartitionKey,
    /// The next offset to read, as Kafka commits it.
    pub offset: i64,
    pub generation: u64,
}

/// What one window says of itself, for metrics and `/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowView {
    pub key: PartitionKey,
    pub generation: u64,
    /// Everything before is settled; `None` until the first event where the group had no commit.
    pub settled: Option<i64>,
    pub committed: Option<i64>,
    /// The offset after the last one tracked.
    pub tracked: Option<i64>,
    pub unsettled_claims: usize,
    /// Events that a crash at this moment could repeat: tracked, to be delivered, not committed.
    pub exposed: u64,
}

/// What became of a claim that was to be tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    Taken,
    /// It is of another generation: the partition has moved on.
    Stale,
    /// Kafka has sent us back: a rewind has to follow, and what was read is dropped.
    WentBack,
}

/// What can't be read is asked for again every half second: a refusal that has not come again for so long is over.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Settled claims that are remembered one by one until they are committed.
const MAX_UNCOMMITTED: usize = if cfg!(test) { 4 } else { 1_000 };

#[derive(Debug, Clone)]
struct Tracked {
    offsets: Range<i64>,
    events: u32,
    settled: bool,
}

#[derive(Debug, Clone)]
struct Window {
    generation: u64,
    /// Not yet settled from the front on, in the order they were read.
    claims: VecDeque<Tracked>,
    /// Settled but not committed: end offset and number of events.
    uncommitted: VecDeque<(i64, u32)>,
    settled: Option<i64>,
    committed: Option<i64>,
    tracked: Option<i64>,
    /// Nothing was tracked under this generation yet.
    fresh: bool,
}

/// The windows of all partitions that the worker holds.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    windows: HashMap<PartitionKey, Window>,
    last_generation: u64,
    /// When Kafka last refused to let a partition be read.
    refused: HashMap<PartitionKey, Instant>,
}

impl Offsets {
    /// Begins a window for a partition just assigned, and returns its generation. `start` is where reading begins, if it is known;
    /// `committed` is what the group has committed. A start beyond the commit counts as settled: the group is to remember it.
    pub fn assign(&mut self, key: PartitionKey, start: Option<i64>, committed: Option<i64>) -> u64 {
        self.last_generation += 1;
        let window = Window {
            generation: self.last_generation,
            claims: VecDeque::new(),
            uncommitted: VecDeque::new(),
            settled: start,
            committed,
            tracked: start,
            fresh: true,
        };
        self.refused.remove(&key);
        self.windows.insert(key, window);
        self.last_generation
    }

    /// Forgets the unsettled claims of a partition, which is to be read again under the generation returned, from the offset
    /// returned (`None`: nothing was settled yet, read from where the group begins).
    pub fn rewind(&mut self, key: &PartitionKey) -> Option<(u64, Option<i64>)> {
        let window = self.windows.get_mut(key)?;
        self.last_generation += 1;
        window.generation = self.last_generation;
        window.claims.clear();
        window.tracked = window.settled;
        window.fresh = true;
        Some((window.generation, window.settled))
    }

    /// Ends the window of a partition given up, and returns what the group has committed of it. Late answers for it change nothing.
    pub fn revoke(&mut self, key: &PartitionKey) -> Option<i64> {
        self.refused.remove(key);
        self.windows.remove(key)?.committed
    }

    /// The generation of a partition, if the worker holds it.
    pub fn generation(&self, key: &PartitionKey) -> Option<u64> {
        self.windows.get(key).map(|window| window.generation)
    }

    /// Whether a claim belongs to a current generation.
    pub fn is_current(&self, claim: &Claim) -> bool {
        self.window_of(claim).is_some()
    }

    /// Takes note of a claim before its batch is handed to delivery.
    ///
    /// A claim may lie before what was tracked: the topic was made anew, or its log was cut short by an unclean leader election and
    /// written again, and Kafka has sent us back. The first claim of a generation then begins the window; with a later one the
    /// window goes back to it, and the partition is to be read again from there, since other claims are under way.
    pub fn track(&mut self, claim: &Claim) -> Tracking {
        let next_generation = self.last_generation + 1;
        let Some(window) = self.window_of_mut(claim) else {
            return Tracking::Stale;
        };
        if window.tracked.is_some_and(|end| claim.offsets.start < end) {
            let back = claim.offsets.start;
            window.settled = window.settled.map(|settled| settled.min(back));
            window.committed = None;
            window.uncommitted.clear();
            if !window.fresh {
                // No answer that is still to come may move the window past what has to be read again.
                window.claims.clear();
                window.generation = next_generation;
                self.last_generation = next_generation;
                return Tracking::WentBack;
            }
        }
        window.fresh = false;
        window.settled.get_or_insert(claim.offsets.start);
        window.tracked = Some(claim.offsets.end);
        window.claims.push_back(Tracked {
            offsets: claim.offsets.clone(),
            events: claim.events,
            settled: false,
        });
        Tracking::Taken
    }

    /// Settles a claim: each of its events is delivered, filtered, discarded or in the dead-letter topic. Answers whether it counted.
    pub fn settle(&mut self, claim: &Claim) -> bool {
        let Some(window) = self.window_of_mut(claim) else {
            return false;
        };
        let Ok(index) = window
            .claims
            .binary_search_by_key(&claim.offsets.start, |tracked| tracked.offsets.start)
        else {
            return false;
        };
        let tracked = &mut window.claims[index];
        if tracked.settled || tracked.offsets != claim.offsets {
            return false;
        }
        tracked.settled = true;
        if index > 0 {
            join_settled(&mut window.claims, index);
        }
        while window.claims.front().is_some_and(|front| front.settled) {
            let Some(front) = window.claims.pop_front() else {
                break;
            };
            window.settled = Some(front.offsets.end);
            window
                .uncommitted
                .push_back((front.offsets.end, front.events));
            if window.uncommitted.len() > MAX_UNCOMMITTED {
                // Commits fail for long: the exposure stays right, what a commit in between takes off it gets coarser.
                let last = window.uncommitted.pop_back().unwrap_or_default();
                if let Some(previous) = window.uncommitted.back_mut() {
                    *previous = (last.0, previous.1.saturating_add(last.1));
                }
            }
        }
        true
    }

    /// Kafka has refused to let the partition be read, and would refuse a commit of it, and all others' with it. Nothing of it is committed
    /// until [`Offsets::forgive`].
    pub fn refuse(&mut self, key: &PartitionKey, now: Instant) {
        self.refused.insert(key.clone(), now);
    }

    /// Forgets refusals that have not come again for a while.
    pub fn forgive(&mut self, now: Instant) {
        self.refused
            .retain(|_, last| now.duration_since(*last) < REFUSED_FOR);
    }

    /// What may be committed now and is not yet: the lowest unsettled offset of each partition.
    pub fn committable(&self) -> Vec<Commit> {
        let mut commits: Vec<Commit> = self
            .windows
            .iter()
            .filter(|(key, _)| !self.refused.contains_key(*key))
            .filter_map(|(key, window)| {
                let offset = window.settled?;
                window
                    .committed
                    .is_none_or(|committed| committed < offset)
                    .then(|| Commit {
                        key: key.clone(),
                        offset,
                        generation: window.generation,
                    })
            })
            .collect();
        commits.sort_by(|a, b| a.key.cmp(&b.key));
        commits
    }

    /// What may be committed if these claims count as settled; `None` where one of them would not be covered: it is of another generation,
    /// or an earlier one of its partition is not settled.
    pub fn committable_with<'c>(
        &self,
        claims: impl Iterator<Item = &'c Claim> + Clone,
    ) -> Option<Vec<Commit>> {
        let mut then = self.clone();
        for claim in claims.clone() {
            if !then.settle(claim) {
                return None;
            }
        }
        let covered = |claim: &Claim| {
            let window = then.window_of(claim);
            let key = PartitionKey::new(&claim.topic, claim.partition);
            window.is_some_and(|window| window.settled >= Some(claim.offsets.end))
                && !then.refused.contains_key(&key)
        };
        claims.into_iter().all(covered).then(|| then.committable())
    }

    /// Takes note of a commit that Kafka has acknowledged.
    pub fn committed(&mut self, key: &PartitionKey, offset: i64) {
        let Some(window) = self.windows.get_mut(key) else {
            return;
        };
        // An answer to a commit of an earlier assignment of this partition may come late: never claim more than is settled.
        if window.settled.is_none_or(|settled| offset > settled) {
            return;
        }
        if window.committed.is_none_or(|committed| committed < offset) {
            window.committed = Some(offset);
        }
        while window
            .uncommitted
            .front()
            .is_some_and(|(end, _)| *end <= offset)
        {
            window.uncommitted.pop_front();
        }
    }

    /// Number of claims of these partitions that are not settled.
    pub fn unsettled(&self, keys: &[PartitionKey]) -> usize {
        keys.iter()
            .filter_map(|key| self.windows.get(key))
            .map(|window| window.claims.iter().filter(|claim| !claim.settled).count())
            .sum()
    }

    /// Number of claims that are remembered: those not settled, and those settled behind them, of which some may be one by now.
    pub fn claims(&self) -> usize {
        self.windows
            .values()
            .map(|window| window.claims.len())
            .sum()
    }

    /// The partitions held.
    pub fn keys(&self) -> Vec<PartitionKey> {
        self.windows.keys().cloned().collect()
    }

    /// Every window, ordered by topic and partition.
    pub fn views(&self) -> Vec<WindowView> {
        let mut views: Vec<WindowView> = self
            .windows
            .iter()
            .map(|(key, window)| WindowView {
                key: key.clone(),
                generation: window.generation,
                settled: window.settled,
                committed: window.committed,
                tracked: window.tracked,
                unsettled_claims: window.claims.iter().filter(|claim| !claim.settled).count(),
                exposed: window
                    .claims
                    .iter()
                    .map(|claim| u64::from(claim.events))
                    .chain(
                        window
                            .uncommitted
                            .iter()
                            .map(|(_, events)| u64::from(*events)),
                    )
                    .sum(),
            })
            .collect();
        views.sort_by(|a, b| a.key.cmp(&b.key));
        views
    }

    fn window_of(&self, claim: &Claim) -> Option<&Window> {
        self.windows
            .get(&PartitionKey {
                topic: claim.topic.clone(),
                partition: claim.partition,
            })
            .filter(|window| window.generation == claim.generation)
    }

    fn window_of_mut(&mut self, claim: &Claim) -> Option<&mut Window> {
        self.windows
            .get_mut(&PartitionKey {
                topic: claim.topic.clone(),
                partition: claim.partition,
            })
            .filter(|window| window.generation == claim.generation)
    }
}

/// Makes one of a settled claim and of those beside it that are settled: behind one that can't be delivered, others that were filtered
/// may come for hours. Nobody asks for a settled claim again.
fn join_settled(claims: &mut VecDeque<Tracked>, index: usize) {
    let is_settled = |claims: &VecDeque<Tracked>, index: usize| {
        let claim: Option<&Tracked> = claims.get(index);
        claim.is_some_and(|claim| claim.settled)
    };
    for left in [index, index - 1] {
        if is_settled(claims, left)
            && is_settled(claims, left + 1)
            && let Some(right) = claims.remove(left + 1)
        {
            let joined = &mut claims[left];
            joined.offsets.end = right.offsets.end;
            joined.events = joined.events.saturating_add(right.events);
        }
    }
}

#[cfg(test)]
mod tests;
