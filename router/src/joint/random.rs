//! Joint commits through random interleavings of deliver, settle, commit, revoke, crash and restart.
//!
//! The protocol is the worker's own: [`JointCommits`] with `named.rs` and `transaction.rs`, offset windows, held batches, rewinds and the
//! sweep. In memory are Kafka's coordinator and the storage ([`world`]), and what the consumer thread, a lane and delivery do in between ([`worker`]). Requests
//! and their answers get lost, calls of the storage fail or stop half way, workers crash, are thrown out of the group without knowing, and
//! have batches that were given up or come late.
//!
//! After each step: no commit went back; no event is visible twice; none is visible before its offset is committed; each committed one is visible, was
//! filtered, or waits under the name that its own partition's commit has. And once all is well again, every event is visible once and
//! nothing is left hidden.
//!
//! `tests/model` explores the same protocols exhaustively, in a model. What only time decides is left out here: a request that comes to
//! Kafka after its answer was given up has come, or never does, before anything else happens.

mod worker;
mod world;

use keystone_sinks::Joint;
use proptest::prelude::*;

use worker::Worker;
use world::{EVENTS, Fault, PARTITIONS, Place};

const WORKERS: usize = 2;
/// Steps until all is delivered once nothing fails any more.
const PATIENCE: usize = 200;

#[derive(Debug, Clone)]
enum Step {
    /// Reads so many events of a partition, if the worker believes that it has it.
    Read(usize, i32, i64),
    /// Hands a batch that was read to the sink, which holds it; not always the oldest.
    Deliver(usize, usize),
    /// A batch is given up after the sink has taken some of it.
    GiveUp(usize, usize),
    /// The committing thread takes a turn.
    Commit(usize, bool),
    /// The consumer thread looks whether it has to read again.
    Rewind(usize),
    /// A partition goes from its worker to another, which may have had the time to commit.
    Move(i32, usize, bool),
    /// The group throws a worker out; librdkafka may know before the worker does.
    Evict(usize, bool),
    /// The worker finds out, and joins again.
    Learn(usize),
    /// The process ends, and another begins.
    Crash(usize),
    /// What crashes have left is looked for.
    Sweep(usize),
    /// What the next call of its kind meets.
    Fault(Fault),
}

fn step(kind: Joint) -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => (worker.clone(), partition.clone(), 1..=2_i64).prop_map(|(w, p, n)| Step::Read(w, p, n)),
        8 => (worker.clone(), 0..3_usize).prop_map(|(w, i)| Step::Deliver(w, i)),
        1 => (worker.clone(), 0..3_usize).prop_map(|(w, i)| Step::GiveUp(w, i)),
        8 => (worker.clone(), any::<bool>()).prop_map(|(w, asked)| Step::Commit(w, asked)),
        3 => worker.clone().prop_map(Step::Rewind),
        4 => (partition, worker.clone(), any::<bool>()).prop_map(|(p, to, drained)| Step::Move(p, to, drained)),
        1 => (worker.clone(), any::<bool>()).prop_map(|(w, knows)| Step::Evict(w, knows)),
        2 => worker.clone().prop_map(Step::Learn),
        1 => worker.clone().prop_map(Step::Crash),
        1 => worker.prop_map(Step::Sweep),
        6 => fault(kind).prop_map(Step::Fault),
    ]
}

fn fault(kind: Joint) -> BoxedStrategy<Fault> {
    let of_commits = prop_oneof![
        Just(Fault::CommitRefused),
        any::<bool>().prop_map(Fault::CommitUnanswered),
        Just(Fault::Unreadable),
    ];
    match kind {
        Joint::Named => prop_oneof![
            of_commits,
            Just(Fault::HeldLost),
            Just(Fault::PrepareLater),
            any::<bool>().prop_map(Fault::PublishLater),
        ]
        .boxed(),
        Joint::Transaction => prop_oneof![
            of_commits,
            Just(Fault::TransactionNotAsked),
            any::<bool>().prop_map(Fault::TransactionLater),
            Just(Fault::TransactionAborted),
            any::<bool>().prop_map(Fault::TransactionUnknown),
        ]
        .boxed(),
    }
}

/// A group of workers, all under one protocol.
struct Group {
    kind: Joint,
    place: Place,
    workers: Vec<Worker>,
}

impl Group {
    fn new(kind: Joint) -> Group {
        let place = Place::default();
        let workers = (0..WORKERS)
            .map(|slot| Worker::start(kind, slot, &place))
            .collect();
        let mut group = Group {
            kind,
            place,
            workers,
        };
        for partition in 0..PARTITIONS {
            group.give(partition, partition as usize % WORKERS);
        }
        group
    }

    fn give(&mut self, partition: i32, to: usize) {
        let mut world = self.place.world();
        world.owners.insert(partition, to);
        world.generation += 1;
        drop(world);
        self.workers[to].assign(partition);
    }

    /// Partitions that this worker had, or nobody, go to those that are in the group.
    fn share_out(&mut self, from: usize) {
        for partition in 0..PARTITIONS {
            let world = self.place.world();
            let owner = world.owners.get(&partition).copied();
            let heir = (0..WORKERS).find(|slot| world.members[*slot] && *slot != from);
            let heir = heir.or(world.members[from].then_some(from));
            drop(world);
            if owner.is_some_and(|owner| owner != from) {
                continue;
            }
            match heir {
                Some(heir) => self.give(partition, heir),
                None => drop(self.place.world().owners.remove(&partition)),
            }
        }
    }

    fn crash(&mut self, slot: usize) {
        self.workers[slot].end();
        self.workers[slot] = Worker::start(self.kind, slot, &self.place);
        self.place.world().join(slot);
        self.share_out(slot);
    }

    fn evict(&mut self, slot: usize, knows: bool) {
        self.place.world().leave(slot);
        self.workers[slot].is_lost(knows);
        self.share_out(slot);
    }

    fn learn(&mut self, slot: usize) {
        if self.place.world().members[slot] {
            return;
        }
        for partition in 0..PARTITIONS {
            self.workers[slot].revoke(partition);
        }
        self.workers[slot].is_lost(false);
        self.place.world().join(slot);
        for partition in 0..PARTITIONS {
            let is_free = !self.place.world().owners.contains_key(&partition);
            if is_free {
                self.give(partition, slot);
            }
        }
    }

    fn move_over(&mut self, partition: i32, to: usize, drained: bool) {
        let owner = {
            let world = self.place.world();
            let owner = world.owners.get(&partition).copied();
            owner.filter(|owner| *owner != to && world.members[to])
        };
        let Some(owner) = owner else { return };
        if drained {
            self.workers[owner].commit(true);
        }
        self.workers[owner].revoke(partition);
        self.give(partition, to);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Read(slot, partition, count) => self.workers[slot].read(partition, count),
            Step::Deliver(slot, index) => self.workers[slot].deliver(index, true),
            Step::GiveUp(slot, index) => self.workers[slot].deliver(index, false),
            Step::Commit(slot, asked) => self.workers[slot].commit(asked),
            Step::Rewind(slot) => self.workers[slot].rewind(),
            Step::Move(partition, to, drained) => self.move_over(partition, to, drained),
            Step::Evict(slot, knows) => self.evict(slot, knows),
            Step::Learn(slot) => self.learn(slot),
            Step::Crash(slot) => self.crash(slot),
            Step::Sweep(slot) => self.workers[slot].sweep(),
            Step::Fault(fault) => self.place.world().faults.push(fault),
        }
        for slot in 0..WORKERS {
            if self.workers[slot].has_failed() {
                self.crash(slot);
            }
        }
    }

    /// Nothing fails any more: every worker is started anew, and all is delivered.
    fn heal(&mut self) {
        self.place.world().faults.clear();
        for slot in 0..WORKERS {
            self.place.world().join(slot);
            self.crash(slot);
        }
        for _ in 0..PATIENCE {
            for slot in 0..WORKERS {
                for partition in 0..PARTITIONS {
                    self.take(&Step::Read(slot, partition, 2));
                }
                self.take(&Step::Deliver(slot, 0));
                self.take(&Step::Commit(slot, true));
                self.take(&Step::Rewind(slot));
            }
            let is_done = self.place.world().is_all_committed();
            if is_done && self.workers.iter().all(Worker::is_idle) {
                break;
            }
        }
        for slot in 0..WORKERS {
            self.take(&Step::Sweep(slot));
        }
    }
}

fn is_kept_through(kind: Joint, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut group = Group::new(kind);
    for (index, step) in steps.iter().enumerate() {
        group.take(step);
        let broken = group.place.world().broken_promise();
        prop_assert_eq!(broken, None, "after step {}, {:?}", index, step);
    }
    group.heal();
    let world = group.place.world();
    prop_assert_eq!(world.broken_promise(), None, "after all was well again");
    prop_assert!(
        world.is_all_committed(),
        "it stands at {:?} of {}",
        world.committed,
        EVENTS
    );
    prop_assert_eq!(world.missing(), vec![]);
    prop_assert!(world.prepared.is_empty(), "left: {:?}", world.prepared);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nothing_is_lost_or_doubled_under_named_commits(steps in prop::collection::vec(step(Joint::Named), 1..160)) {
        is_kept_through(Joint::Named, &steps)?;
    }

    #[test]
    fn nothing_is_lost_or_doubled_under_transactions(steps in prop::collection::vec(step(Joint::Transaction), 1..160)) {
        is_kept_through(Joint::Transaction, &steps)?;
    }
}
