//! Batches that the sink has taken over and not yet made durable. Pure: one piece for each call of the sink.
//!
//! A batch may take several calls (halves of one that was too large, events sent again), and the sink may hold what each of them
//! brought. Each call has an id of its own, so that a call that became durable says nothing of the others. A batch settles when the
//! worker has done its part (dead letters are durable) and every call that is held has been named durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keystone_sinks::{BatchId, Claim};

/// Record timestamps in milliseconds, each with a count of events.
pub type Timestamps = Vec<(i64, u64)>;

/// At most this many are kept of a batch: it may be held for minutes, with thousands of others.
const MAX_TIMESTAMPS: usize = 32;

/// Counts together what is close in time, if there are more than [`MAX_TIMESTAMPS`]: each span of equal length as old as its oldest event.
fn fold(timestamps: &mut Timestamps) {
    if timestamps.len() <= MAX_TIMESTAMPS {
        return;
    }
    let times = || timestamps.iter().map(|(timestamp, _)| *timestamp);
    let oldest = times().min().unwrap_or_default();
    let length = times().max().unwrap_or_default().abs_diff(oldest);
    let span = length / MAX_TIMESTAMPS as u64 + 1;
    let mut spans = [(i64::MAX, 0); MAX_TIMESTAMPS];
    for &(timestamp, count) in timestamps.iter() {
        let (first, events) = &mut spans[(timestamp.abs_diff(oldest) / span) as usize];
        *first = timestamp.min(*first);
        *events += count;
    }
    *timestamps = spans
        .into_iter()
        .filter(|(_, events)| *events > 0)
        .collect();
}

/// A batch that was held and is settled now.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    pub claims: Arc<[Claim]>,
    /// Events that were held.
    pub events: u64,
    pub timestamps: Timestamps,
}

/// What follows when the worker has done its part of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Completed {
    Settled(Settled),
    /// The sink has not made all of it durable yet.
    Waiting,
    /// A rewind came in between: the sink has dropped it.
    Dropped,
}

#[derive(Debug, Default)]
struct Held {
    /// Calls that have not been named durable, those under way included.
    awaited: Vec<u32>,
    events: u64,
    timestamps: Timestamps,
    /// The claims, once the worker has done its part.
    complete: Option<Arc<[Claim]>>,
}

impl Held {
    fn entries(&self) -> usize {
        self.timestamps.len() + self.complete.as_deref().map_or(0, <[Claim]>::len)
    }
}

/// The held batches of a worker, by the number of the batch.
#[derive(Debug, Default)]
pub struct HeldBatches {
    batches: HashMap<u64, Held>,
    /// Claims and timestamps of all batches.
    entries: usize,
}

impl HeldBatches {
    /// Announces a call before the sink sees it: the sink may name it durable before its own call returns.
    pub fn announce(&mut self, call: BatchId) {
        let held = self.batches.entry(call.batch).or_default();
        held.awaited.push(call.call);
    }

    /// The call ended and the sink holds nothing of it.
    pub fn withdraw(&mut self, call: BatchId) {
        if let Some(held) = self.batches.get_mut(&call.batch) {
            held.awaited.retain(|&awaited| awaited != call.call);
        }
    }

    /// The call ended and the sink holds these events of it, or has named them durable already.
    pub fn hold(&mut self, call: BatchId, events: u64, timestamps: Timestamps) {
        if let Some(held) = self.batches.get_mut(&call.batch) {
            self.entries -= held.entries();
            held.events += events;
            held.timestamps.extend(timestamps);
            fold(&mut held.timestamps);
            self.entries += held.entries();
        }
    }

    /// The worker's part of a batch is done.
    pub fn complete(&mut self, batch: u64, claims: Arc<[Claim]>) -> Completed {
        let Some(held) = self.batches.get_mut(&batch) else {
            return Completed::Dropped;
        };
        self.entries += claims.len();
        held.complete = Some(claims);
        match self.settle(batch) {
            Some(settled) => Completed::Settled(settled),
            None => Completed::Waiting,
        }
    }

    /// The sink names a call durable. Ids that are unknown were dropped, and mean nothing.
    pub fn durable(&mut self, call: BatchId) -> Option<Settled> {
        self.withdraw(call);
        self.settle(call.batch)
    }

    fn settle(&mut self, batch: u64) -> Option<Settled> {
        let held = self.batches.get_mut(&batch)?;
        if !held.awaited.is_empty() || held.complete.is_none() {
            return None;
        }
        let held = self.remove(batch)?;
        Some(Settled {
            claims: held.complete?,
            events: held.events,
            timestamps: held.timestamps,
        })
    }

    /// The batches of which the worker has done its part, with their claims, oldest first.
    pub fn complete_batches(&self) -> Vec<(u64, Arc<[Claim]>)> {
        let complete = |(batch, held): (&u64, &Held)| Some((*batch, held.complete.clone()?));
        let mut all: Vec<_> = self.batches.iter().filter_map(complete).collect();
        all.sort_unstable_by_key(|(batch, _)| *batch);
        all
    }

    /// The sink has made everything durable that it holds of a complete batch.
    pub fn settle_all(&mut self, batch: u64) -> Option<Settled> {
        self.batches.get_mut(&batch)?.awaited.clear();
        self.settle(batch)
    }

    /// Drops a batch that will be read again, unless the sink may hold some of it and a joint commit would make that durable: such a
    /// batch stays, never complete, until the sink has dropped all.
    pub fn abandon(&mut self, batch: u64, joint: bool) {
        let is_free = |held: &Held| held.events == 0 && held.awaited.is_empty();
        if !joint || self.batches.get(&batch).is_none_or(is_free) {
            self.forget(batch);
        }
    }

    /// Drops a batch of which the sink holds nothing.
    pub fn forget(&mut self, batch: u64) {
        self.remove(batch);
    }

    fn remove(&mut self, batch: u64) -> Option<Held> {
        let held = self.batches.remove(&batch)?;
        self.entries -= held.entries();
        Some(held)
    }

    /// Drops all, because the sink did. Answers with the events of complete batches: the others answer for themselves.
    pub fn clear(&mut self) -> u64 {
        let HeldBatches { batches, .. } = std::mem::take(self);
        let complete = batches.values().filter(|held| held.complete.is_some());
        complete.map(|held| held.events).sum()
    }

    /// How many claims and timestamps are kept: a measure of the memory taken.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Number of batches, those with a call under way included.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// When a sink that holds much is to make it durable before its time. Where that brings no relief, since what is in the way is not the sink's,
/// it is asked less and less often: each time makes small files. Pure.
#[derive(Debug, Default)]
pub struct Relief {
    next: Option<Instant>,
    pause: Duration,
}

/// Between two times without relief: at first, and at most.
const RELIEF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl Relief {
    /// `much`: whether much is held at this moment.
    pub fn is_due(&mut self, much: bool, now: Instant) -> bool {
        if !much {
            *self = Relief::default();
        }
        let is_due = much && self.next.is_none_or(|next| next <= now);
        if is_due {
            self.pause = (self.pause * 2).clamp(RELIEF.0, RELIEF.1);
            self.next = Some(now + self.pause);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_sink_that_can_bring_no_relief_is_asked_seldom() {
        let (mut relief, start) = (Relief::default(), Instant::now());
        let tick = |at: u32| start + at * Duration::from_millis(200);
        // Ten minutes.
        let asked = (0..3_000)
            .filter(|at| relief.is_due(true, tick(*at)))
            .count();
        assert!((20..30).contains(&asked), "{asked}");
        // Once it has brought some, the next time is the first.
        assert!(!relief.is_due(false, tick(3_000)));
        assert!(relief.is_due(true, tick(3_001)));
        assert!(relief.is_due(true, tick(3_002)));
        assert!(!relief.is_due(true, tick(3_003)));
    }

    /// What may happen to one batch, in any order that the worker and the sink can bring about.
    #[derive(Debug, Clone)]
    enum Step {
        /// The worker makes another call.
        Call,
        /// The call under way ends: held or not.
        Answer(bool),
        /// The sink publishes all that it has, and the worker learns of the ids at once or only later.
        Publish {
            at_once: bool,
        },
        /// The worker learns of ids published before.
        Learn,
        Complete,
        /// A rewind: the sink drops what it has not published.
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Call),
            3 => any::<bool>().prop_map(Step::Answer),
            2 => any::<bool>().prop_map(|at_once| Step::Publish { at_once }),
            2 => Just(Step::Learn),
            1 => Just(Step::Complete),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// No event is forgotten, none becomes younger, and none older than the span that it is counted with is long.
        #[test]
        fn folded_timestamps_are_few_and_near(
            mut timestamps in prop::collection::vec((prop_oneof![any::<i64>(), 0..100_000_i64], 1..5_u64), 0..200),
        ) {
            let before = timestamps.clone();
            fold(&mut timestamps);
            prop_assert!(timestamps.len() <= MAX_TIMESTAMPS);
            let total = |all: &Timestamps| all.iter().map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(total(&timestamps), total(&before));
            let oldest = |all: &Timestamps| all.iter().map(|(timestamp, _)| *timestamp).min();
            prop_assert_eq!(oldest(&timestamps), oldest(&before));
            let newest = before.iter().map(|(timestamp, _)| *timestamp).max().unwrap_or_default();
            let span = newest.abs_diff(oldest(&before).unwrap_or_default()) / MAX_TIMESTAMPS as u64;
            for (timestamp, _) in before {
                let near = |(first, _): &(i64, u64)| *first <= timestamp && timestamp.abs_diff(*first) <= span;
                prop_assert!(timestamps.iter().any(near));
            }
        }

        /// Whatever the order, a batch settles when it is complete and each held call is durable: not before, and not never.
        #[test]
        fn settles_exactly_when_all_is_durable(steps in prop::collection::vec(step(), 1..60)) {
            let claim = Claim {
                topic: "events".into(),
                partition: 0,
                generation: 1,
                offsets: 0..1,
                events: 1,
            };
            let claims: Arc<[Claim]> = Arc::new([claim]);
            let mut held = HeldBatches::default();
            let mut batch = BatchId::new(1);
            let mut under_way: Option<BatchId> = None;
            let (mut in_sink, mut named) = (Vec::new(), Vec::new());
            let mut durable = HashSet::new();
            let (mut taken, mut complete, mut settled) = (Vec::new(), false, false);
            for step in steps {
                let mut now = None;
                match step {
                    Step::Call if under_way.is_none() && !complete => {
                        batch = batch.next_call();
                        held.announce(batch);
                        under_way = Some(batch);
                    }
                    Step::Answer(holds) => if let Some(call) = under_way.take() {
                        if holds {
                            in_sink.push(call);
                            taken.push(call);
                            held.hold(call, 1, vec![(0, 1)]);
                        } else {
                            held.withdraw(call);
                        }
                    },
                    Step::Publish { at_once } => {
                        durable.extend(in_sink.iter().copied());
                        named.append(&mut in_sink);
                        if at_once {
                            now = named.drain(..).filter_map(|id| held.durable(id)).next();
                        }
                    }
                    Step::Learn => now = named.drain(..).filter_map(|id| held.durable(id)).next(),
                    Step::Complete if under_way.is_none() && !complete && !taken.is_empty() => {
                        complete = true;
                        now = match held.complete(batch.batch, claims.clone()) {
                            Completed::Settled(settled) => Some(settled),
                            Completed::Waiting => None,
                            Completed::Dropped => panic!("it is known"),
                        };
                    }
                    Step::Clear => {
                        let events = held.clear();
                        prop_assert_eq!(events, if complete && !settled { taken.len() as u64 } else { 0 });
                        prop_assert!(held.is_empty());
                        // The batch is read again under another number; late names of this one mean nothing.
                        for id in named.drain(..) {
                            prop_assert_eq!(held.durable(id), None);
                        }
                        batch = BatchId::new(batch.batch + 1);
                        (under_way, complete, settled) = (None, false, false);
                        (in_sink, taken) = (Vec::new(), Vec::new());
                    }
                    _ => {}
                }
                if let Some(now) = now {
                    prop_assert!(complete && !settled);
                    prop_assert_eq!(now.events, taken.len() as u64);
                    let counted: u64 = now.timestamps.iter().map(|(_, count)| count).sum();
                    prop_assert_eq!(counted, now.events);
                    settled = true;
                }
                let entries: usize = held.batches.values().map(Held::entries).sum();
                prop_assert_eq!(held.entries(), entries);
                let all_named = taken.iter().all(|id| durable.contains(id) && !named.contains(id));
                prop_assert_eq!(settled, complete && all_named);
            }
        }
    }
}
