//! Kafka's coordinator and the storage, which outlive the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use keystone_sinks::{
    BatchId, BoxFuture, Cause, Joint, JointCommit, Prepared, Sink, SinkError, Source,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::Coordinator;
use super::WORKERS;
use crate::named::name_in;
use crate::state::lock;

pub(super) const TOPIC: &str = "t";
pub(super) const PARTITIONS: i32 = 3;
/// In each partition.
pub(super) const EVENTS: i64 = 12;

/// Partition and offset.
pub(super) type Event = (i32, i64);

/// What a call meets. Where something may have been done or not, `true` says that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    CommitRefused,
    CommitUnanswered(bool),
    /// What is committed can't be read.
    Unreadable,
    /// The sink has lost what it holds.
    HeldLost,
    PrepareLater,
    /// The storage fails, perhaps after the first file.
    PublishLater(bool),
    /// Kafka was not asked yet.
    TransactionNotAsked,
    TransactionLater(bool),
    TransactionAborted,
    TransactionUnknown(bool),
}

/// Files under a name.
#[derive(Debug)]
pub(super) struct Hidden {
    writer: u64,
    source: Source,
    events: Vec<Event>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    /// The next offset and the metadata of each partition.
    pub(super) committed: BTreeMap<i32, (i64, String)>,
    /// Which workers the group knows.
    pub(super) members: [bool; WORKERS],
    pub(super) owners: BTreeMap<i32, usize>,
    /// Of the group: rises whenever a partition moves.
    pub(super) generation: u64,
    pub(super) prepared: BTreeMap<String, Hidden>,
    visible: Vec<Event>,
    /// Commits below what was committed: partition, before and after.
    went_back: Vec<(i32, i64, i64)>,
    pub(super) faults: Vec<Fault>,
    /// Processes begun, and those that have ended.
    processes: u64,
    ended: BTreeSet<u64>,
    names: u64,
}

/// The filter keeps it: two, and not the next two.
fn is_kept((partition, offset): Event) -> bool {
    (offset / 2 + i64::from(partition / 2)) % 2 == 0
}

/// The kept ones of these offsets.
pub(super) fn kept(partition: i32, offsets: std::ops::Range<i64>) -> Vec<Event> {
    let events = offsets.map(|offset| (partition, offset));
    events.filter(|event| is_kept(*event)).collect()
}

impl World {
    pub(super) fn join(&mut self, slot: usize) {
        self.members[slot] = true;
        self.generation += 1;
    }

    pub(super) fn leave(&mut self, slot: usize) {
        self.members[slot] = false;
        self.generation += 1;
    }

    pub(super) fn begin_process(&mut self, slot: usize) -> u64 {
        self.join(slot);
        self.processes += 1;
        self.processes
    }

    pub(super) fn end_process(&mut self, process: u64) {
        self.ended.insert(process);
    }

    /// The first fault of a kind.
    fn meets<T>(&mut self, kind: impl Fn(Fault) -> Option<T>) -> Option<T> {
        let (index, met) = self
            .faults
            .iter()
            .enumerate()
            .find_map(|(index, fault)| Some((index, kind(*fault)?)))?;
        self.faults.remove(index);
        Some(met)
    }

    fn commit(&mut self, offsets: &TopicPartitionList) {
        for element in offsets.elements() {
            if let Offset::Offset(next) = element.offset() {
                let partition = element.partition();
                let metadata = element.metadata().to_owned();
                let before = self.committed.insert(partition, (next, metadata));
                if let Some((before, _)) = before.filter(|(before, _)| *before > next) {
                    self.went_back.push((partition, before, next));
                }
            }
        }
    }

    fn publish(&mut self, name: &str) {
        if let Some(hidden) = self.prepared.remove(name) {
            self.visible.extend(hidden.events);
        }
    }

    pub(super) fn is_all_committed(&self) -> bool {
        let at = |partition| self.committed.get(&partition).map(|(next, _)| *next);
        (0..PARTITIONS).all(|partition| at(partition) == Some(EVENTS))
    }

    /// Events that should be visible in the end and are not.
    pub(super) fn missing(&self) -> Vec<Event> {
        let all = (0..PARTITIONS).flat_map(|partition| kept(partition, 0..EVENTS));
        all.filter(|event| !self.visible.contains(event)).collect()
    }

    /// What must never be; see the module above.
    pub(super) fn broken_promise(&self) -> Option<String> {
        if let Some((partition, before, next)) = self.went_back.first() {
            return Some(format!(
                "the commit of partition {partition} went back from {before} to {next}"
            ));
        }
        let mut seen = BTreeSet::new();
        for event in &self.visible {
            if !seen.insert(event) {
                return Some(format!("{event:?} is visible twice"));
            }
            let committed = self.committed.get(&event.0);
            if committed.is_none_or(|(next, _)| *next <= event.1) {
                return Some(format!("{event:?} is visible and not committed"));
            }
        }
        for (partition, (next, metadata)) in &self.committed {
            let named = name_in(metadata).ok().flatten();
            let hidden = named.and_then(|name| self.prepared.get(name));
            for event in kept(*partition, 0..*next) {
                let waits = hidden.is_some_and(|hidden| hidden.events.contains(&event));
                if !waits && !seen.contains(&event) {
                    return Some(format!("{event:?} is committed and lost"));
                }
            }
        }
        None
    }
}

/// The world, shared.
#[derive(Debug, Clone, Default)]
pub(super) struct Place(Arc<Mutex<World>>);

impl Place {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.0)
    }
}

/// One worker's connection to the coordinator.
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) slot: usize,
    pub(super) process: u64,
    /// librdkafka knows that the worker was thrown out.
    pub(super) lost: bool,
    /// The group's generation when its metadata was asked for.
    snapshot: Arc<Mutex<u64>>,
}

impl Member {
    pub(super) fn new(place: Place, slot: usize, process: u64) -> Member {
        Member {
            place,
            slot,
            process,
            lost: false,
            snapshot: Arc::default(),
        }
    }

    /// A process that has ended asks for nothing; one that was thrown out is refused.
    fn is_known(&self, world: &World) -> bool {
        world.members[self.slot] && !world.ended.contains(&self.process)
    }
}

/// Never connected: only the type of its metadata is needed.
fn unconnected() -> &'static BaseConsumer {
    static CONSUMER: OnceLock<BaseConsumer> = OnceLock::new();
    CONSUMER.get_or_init(|| {
        let mut config = ClientConfig::new();
        config.set("group.id", "g");
        config.create().expect("a consumer without brokers")
    })
}

impl Coordinator for Member {
    fn group(&self) -> &str {
        "g"
    }

    fn assignment_lost(&self) -> bool {
        self.lost
    }

    fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        *lock(&self.snapshot) = self.place.world().generation;
        unconnected().group_metadata()
    }

    fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        use RDKafkaErrorCode as Code;
        let mut world = self.place.world();
        let met = world.meets(|fault| match fault {
            Fault::CommitRefused | Fault::CommitUnanswered(_) => Some(fault),
            _ => None,
        });
        let is_carried_out = match met {
            Some(Fault::CommitRefused) => {
                return Err(KafkaError::ConsumerCommit(Code::RebalanceInProgress));
            }
            Some(Fault::CommitUnanswered(done)) => done,
            _ => true,
        };
        let is_known = self.is_known(&world);
        if is_carried_out && is_known {
            world.commit(offsets);
        }
        match met {
            Some(_) => Err(KafkaError::ConsumerCommit(Code::RequestTimedOut)),
            None if is_known => Ok(()),
            None => Err(KafkaError::ConsumerCommit(Code::IllegalGeneration)),
        }
    }

    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        let mut world = self.place.world();
        let unreadable = |fault| (fault == Fault::Unreadable).then_some(());
        if world.meets(unreadable).is_some() {
            let code = RDKafkaErrorCode::RequestTimedOut;
            return Err(KafkaError::OffsetFetch(code));
        }
        let mut answer = TopicPartitionList::new();
        for asked in partitions.elements() {
            let mut element = answer.add_partition(asked.topic(), asked.partition());
            if let Some((next, metadata)) = world.committed.get(&asked.partition()) {
                element.set_offset(Offset::Offset(*next))?;
                element.set_metadata(metadata.clone());
            }
        }
        Ok(answer)
    }
}

/// A sink in memory, of either kind.
pub(super) struct Storage {
    kind: Joint,
    place: Place,
    slot: usize,
    process: u64,
    snapshot: Arc<Mutex<u64>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Vec<Event>,
    /// What was held is lost, until it is abandoned.
    broken: bool,
    /// A commit was begun, and Kafka not asked.
    begun: bool,
    /// Of the transaction that Kafka was asked to commit: its number, and whether it did.
    asked: Option<(u64, bool)>,
    /// Nobody will ever know what became of the transaction.
    unknown: bool,
    last: u64,
}

impl Storage {
    pub(super) fn new(kind: Joint, member: &Member) -> Storage {
        Storage {
            kind,
            place: member.place.clone(),
            slot: member.slot,
            process: member.process,
            snapshot: member.snapshot.clone(),
            state: Mutex::default(),
        }
    }

    /// Takes events over, as a delivery would have it do.
    pub(super) fn hold(&self, events: &[Event]) -> Result<(), SinkError> {
        let mut state = lock(&self.state);
        if state.unknown {
            return Err(fatal());
        }
        if state.begun || state.asked.is_some() {
            return Err(SinkError::Retry(cause()));
        }
        if state.broken {
            return Err(SinkError::Rewind(cause()));
        }
        state.held.extend(events);
        Ok(())
    }

    /// Kafka ends the transaction; `false` where it refuses the worker's place in the group.
    fn carry_out(&self, state: &mut State, joint: &JointCommit) -> bool {
        let mut world = self.place.world();
        if !world.members[self.slot] || *lock(&self.snapshot) != world.generation {
            return false;
        }
        world.commit(&joint.offsets);
        world.visible.append(&mut state.held);
        true
    }

    fn commit_transaction(&self, joint: &JointCommit) -> Result<(), SinkError> {
        let mut state = lock(&self.state);
        if state.unknown {
            return Err(fatal());
        }
        if state.broken {
            return Err(SinkError::Rewind(cause()));
        }
        if let Some((number, true)) = state.asked
            && number == joint.number
        {
            state.asked = None;
            return Ok(());
        }
        let goes_on = std::mem::take(&mut state.begun) || state.asked.is_some();
        if !goes_on && joint.number <= state.last {
            return Err(SinkError::Rewind(cause()));
        }
        state.last = joint.number;
        let met = self.place.world().meets(|fault| match fault {
            Fault::TransactionNotAsked
            | Fault::TransactionLater(_)
            | Fault::TransactionAborted
            | Fault::TransactionUnknown(_) => Some(fault),
            _ => None,
        });
        match met {
            Some(Fault::TransactionNotAsked) if state.asked.is_none() => {
                state.begun = true;
                return Err(SinkError::Retry(cause()));
            }
            Some(Fault::TransactionLater(done)) => {
                let done = done && self.carry_out(&mut state, joint);
                state.asked = Some((joint.number, done));
                return Err(SinkError::Retry(cause()));
            }
            Some(Fault::TransactionUnknown(done)) => {
                if done {
                    self.carry_out(&mut state, joint);
                }
                state.unknown = true;
                return Err(fatal());
            }
            Some(_) => {}
            None if self.carry_out(&mut state, joint) => {
                state.asked = None;
                return Ok(());
            }
            None => {}
        }
        state.asked = None;
        state.broken = true;
        Err(SinkError::Rewind(cause()))
    }
}

fn cause() -> Cause {
    Cause {
        reason: "test",
        detail: "of a test".to_owned(),
        after: None,
    }
}

fn fatal() -> SinkError {
    SinkError::Fatal("nobody knows whether the transaction was committed".to_owned())
}

impl Sink for Storage {
    fn deliver<'a>(
        &'a self,
        _batch: &'a keystone_sinks::Batch,
    ) -> BoxFuture<'a, Result<keystone_sinks::Answer, SinkError>> {
        Box::pin(async { Err(SinkError::Fatal("batches come by `hold`".to_owned())) })
    }

    fn holds(&self) -> bool {
        true
    }

    fn joint(&self) -> Option<Joint> {
        Some(self.kind)
    }

    fn commit_due(&self) -> bool {
        lock(&self.state).held.len() >= 4
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn abandon(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut state = lock(&self.state);
            if state.asked.is_some() {
                state.unknown = true;
                return;
            }
            state.held.clear();
            state.begun = false;
            state.broken = false;
        })
    }

    fn commit(&self, joint: Arc<JointCommit>) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move { self.commit_transaction(&joint) })
    }

    fn prepare<'a>(&'a self, source: &'a Source) -> BoxFuture<'a, Result<String, SinkError>> {
        Box::pin(async {
            let mut state = lock(&self.state);
            let mut world = self.place.world();
            let met = world.meets(|fault| match fault {
                Fault::HeldLost | Fault::PrepareLater => Some(fault),
                _ => None,
            });
            match met {
                Some(Fault::PrepareLater) => return Err(SinkError::Retry(cause())),
                Some(_) => state.broken = true,
                None => {}
            }
            if state.broken {
                return Err(SinkError::Rewind(cause()));
            }
            world.names += 1;
            let name = format!("{}-{}", self.process, world.names);
            let hidden = Hidden {
                writer: self.process,
                source: source.clone(),
                events: std::mem::take(&mut state.held),
            };
            world.prepared.insert(name.clone(), hidden);
            Ok(name)
        })
    }

    fn publish<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let mut world = self.place.world();
            let met = world.meets(|fault| match fault {
                Fault::PublishLater(partly) => Some(partly),
                _ => None,
            });
            match met {
                Some(partly) => {
                    let hidden = world.prepared.get_mut(name).filter(|_| partly);
                    let first = hidden.and_then(|hidden| hidden.events.pop());
                    world.visible.extend(first);
                    Err(SinkError::Retry(cause()))
                }
                None => {
                    world.publish(name);
                    Ok(())
                }
            }
        })
    }

    fn is_prepared<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, SinkError>> {
        Box::pin(async move { Ok(self.place.world().prepared.contains_key(name)) })
    }

    fn discard<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { drop(self.place.world().prepared.remove(name)) })
    }

    fn suspects(&self) -> BoxFuture<'_, Vec<Prepared>> {
        Box::pin(async {
            let world = self.place.world();
            let gone = world
                .prepared
                .iter()
                .filter(|(_, hidden)| world.ended.contains(&hidden.writer));
            gone.map(|(name, hidden)| Prepared {
                name: name.clone(),
                source: hidden.source.clone(),
            })
            .collect()
        })
    }
}
