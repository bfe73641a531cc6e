//! The consumer thread: takes records from librdkafka, shares them out among the lanes, rewinds and drains.
//!
//! It is the only thread that talks to the consumer, but for commits (`group::commit_regularly`), and it never waits longer than a moment
//! for a lane: when a lane is behind, its partitions are paused and the thread keeps polling, so the group never throws the worker out.

mod errors;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};
use keystone_sinks::kafka::client::is_refusal;
use keystone_sinks::{Cause, Sink};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tracing::{debug, info, warn};

use crate::backoff::{Backoff, jitter};
use crate::group::{GroupConsumer, no_broker};
use crate::lane::{Assigned, Chunk};
use crate::list::without_errors;
use crate::offsets::PartitionKey;
use crate::records::{self, Fault, Record, RecordQueue};
use crate::rewind::{self, Seek};
use crate::state::{ASK_TIMEOUT, Shared};
use crate::unread::Unread;
use errors::{RIGHTS, ended, is_not_fetched, not_moved, unread};

/// Records read at once: as many as one call takes, or fewer where they are large. Each read wakes the lanes, and two threads that wake each other cost
/// more than deciding about some hundred events.
const READ_RECORDS: usize = records::MOST;
const READ_BYTES: usize = 1024 * 1024;
/// A chunk is handed over as soon as what was read at once is shared out, or with so many bytes: events may suddenly be larger.
const CHUNK_BYTES: usize = READ_BYTES;
/// How long a lane may keep the thread waiting before its partitions are paused. Pausing makes librdkafka fetch again what it had at
/// hand, so a short wait is cheaper.
const LANE_PATIENCE: Duration = Duration::from_millis(250);
/// The longest wait for records; also how late a rebalance or a request to stop is noticed.
const IDLE: Duration = Duration::from_millis(50);
/// The wait for records while a lane has no room.
const BEHIND: Duration = Duration::from_millis(5);
/// How long the last commit may take beyond `delivery.shutdown.drain.max.ms`.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// How long the sink may take to end a commit that is under way and to drop what it holds.
const ABANDON: Duration = Duration::from_secs(180);
/// The longest pause before it is read again, whatever the back-off says: meanwhile nothing is polled, and `max.poll.interval.ms` runs.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How often a seek is tried again.
const SEEK_ATTEMPTS: usize = 20;
/// Errors served between two looks at requests: they come many times a second while no broker is there.
const ERRORS_A_TURN: usize = 100;

/// One lane as the consumer sees it.
struct Outlet<'c> {
    sender: Sender<Chunk<'c>>,
    filling: Chunk<'c>,
    /// Chunks that the lane had no room for; its partitions are paused while there are any. Bounded by what librdkafka has prefetched.
    waiting: VecDeque<Chunk<'c>>,
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to stop, and everything read was settled and committed.
    Drained,
    /// Asked to stop; this much was not settled in time.
    NotDrained { unsettled_batches: usize },
    /// Asked to stop, and everything read was settled, but Kafka has not acknowledged the commit.
    NotCommitted,
    /// Asked to stop, and everything read was settled, but files that the group's commits name are not published.
    NotPublished,
    /// `Shared::failure` says why.
    Failed,
}

pub struct Intake<'c> {
    consumer: &'c GroupConsumer,
    queue: RecordQueue<'c>,
    /// How many records are read at once: few where they are large.
    most: usize,
    shared: &'c Shared,
    sink: &'c dyn Sink,
    runtime: Handle,
    outlets: Vec<Outlet<'c>>,
    assigned: HashMap<PartitionKey, Arc<Assigned>>,
    /// The partition of the last record: records come in runs of one partition.
    last: Option<Arc<Assigned>>,
    unread: Unread,
    rewinds: Backoff,
    /// When the last rewind was, to begin with short pauses again after a quiet time.
    rewound: Option<Instant>,
}

impl<'c> Intake<'c> {
    pub fn new(
        consumer: &'c GroupConsumer,
        queue: RecordQueue<'c>,
        shared: &'c Shared,
        sink: &'c dyn Sink,
        runtime: Handle,
        lanes: Vec<Sender<Chunk<'c>>>,
    ) -> Intake<'c> {
        let outlets = lanes
            .into_iter()
            .map(|sender| Outlet {
                sender,
                filling: Chunk::default(),
                waiting: VecDeque::new(),
            })
            .collect();
        consumer.context().lead_to(queue.entrance());
        Intake {
            consumer,
            queue,
            most: READ_RECORDS,
            shared,
            sink,
            runtime,
            outlets,
            assigned: HashMap::new(),
            last: None,
            unread: Unread::default(),
            rewinds: Backoff::new(shared.route.backoff_initial, shared.route.backoff_max),
            rewound: None,
        }
    }

    /// Runs until asked to stop or something fails; then drains as far as the time allows.
    pub fn run(mut self) -> Ended {
        loop {
            self.look_around();
            if self.shared.failure().is_some() {
                self.consumer.context().commit_within(None, ASK_TIMEOUT);
                return Ended::Failed;
            }
            if self.shared.stop_requested() {
                return self.drain();
            }
            if !self
                .consumer
                .context()
                .joint_commits()
                .named
                .is_unfinished()
                && let Some(cause) = self.shared.take_rewind()
            {
                self.rewind(&cause);
            }
            self.take_records();
        }
    }

    /// What has changed since the last turn: assignment, room in the lanes.
    fn look_around(&mut self) {
        self.shared.beat();
        self.shared.offsets().forgive(Instant::now());
        if let Some(assigned) = self.consumer.context().take_changed() {
            self.assigned = assigned;
            self.unread.retain(&self.assigned);
            self.last = None;
            // librdkafka keeps a pause beyond the assignment: a partition that left paused would never be read when it comes back.
            for lane in 0..self.outlets.len() {
                match self.outlets[lane].waiting.is_empty() {
                    true => self.resume(lane),
                    false => self.pause(lane),
                }
            }
        }
        for lane in 0..self.outlets.len() {
            self.hand_over_waiting(lane);
        }
    }

    /// Reads what is at hand, or waits a moment for it, and shares it out.
    fn take_records(&mut self) {
        self.serve();
        if self.consumer.context().has_changed() {
            // The group has moved, or a rewind was just done: generations first. A record that is sorted in under a generation that
            // is over is dropped, and what follows it would pass for the beginning.
            return;
        }
        let waiting = self.outlets.iter().any(|outlet| !outlet.waiting.is_empty());
        let wait = if waiting { BEHIND } else { IDLE };
        self.read_again();
        let mut records = Vec::with_capacity(self.most);
        let faults = self.queue.read(self.most, wait, &mut records);
        if records.len() < self.most && faults.is_empty() {
            let queue_was_empty = &self.shared.queue_was_empty;
            queue_was_empty.store(true, Ordering::Relaxed);
        }
        if !faults.is_empty() || self.unread.waiting().next().is_some() {
            self.leave_out(&faults, &mut records);
        }
        let count = records.len();
        let mut bytes = 0;
        for record in records {
            let size = record.payload().map_or(0, <[u8]>::len);
            bytes += size;
            self.sort_in(record, size);
        }
        self.take_faults(&faults);
        if let Some(size) = bytes.checked_div(count) {
            self.most = (READ_BYTES / size.max(1)).clamp(1, READ_RECORDS);
        }
        for lane in 0..self.outlets.len() {
            self.hand_over(lane);
        }
    }

    /// Leaves out what comes of partitions that could not be read, from there on: it comes once more.
    fn leave_out(&self, faults: &[Fault], records: &mut Vec<Record<'c>>) {
        let mut at = 0;
        records.retain(|record| {
            at += 1;
            let is_behind = |fault: &Fault| {
                let key = fault.partition.as_ref();
                at > fault.after && key.is_some_and(|key| record.is_of(key))
            };
            let mut waiting = self.unread.waiting();
            !waiting.any(|key| record.is_of(key)) && !faults.iter().any(is_behind)
        });
    }

    /// Tells of errors, and notes which partitions could not be read.
    fn take_faults(&mut self, faults: &[Fault]) {
        for Fault {
            error, partition, ..
        } in faults
        {
            let key = partition.as_ref();
            let Some(assigned) = key.and_then(|key| self.assigned.get(key)) else {
                self.poll_error(error, key);
                continue;
            };
            let is_told = self.act_on(error, key);
            if self.unread.failed(assigned, Instant::now()) && !is_told {
                let text = unread(assigned, error);
                warn!("{text}");
                self.shared.troubles.remember(text);
            }
        }
    }

    /// Has partitions that could not be read go on where they were to be read next.
    fn read_again(&mut self) {
        for assigned in self.unread.take_due(Instant::now()) {
            let (key, next) = (&assigned.key, assigned.next.get());
            let seeks = [(key.clone(), assigned.generation, next)];
            match self.seek(&seeks) {
                Ok(()) => {}
                // It has no leader or no topic any more, and is not fetched; when it is again, that is by an assignment.
                Err(error) if is_not_fetched(&error) => {
                    debug!(?key, "not read again from {next:?}: {error}");
                }
                Err(_) => {
                    if let Err(reason) = self.seek_with_patience(&seeks) {
                        self.shared.fail(reason);
                    }
                }
            }
        }
    }

    /// Serves what is not a record: rebalances, statistics, errors.
    fn serve(&mut self) {
        for _ in 0..ERRORS_A_TURN {
            match self.consumer.poll(Duration::ZERO) {
                None => return,
                Some(Err(error)) => self.poll_error(&error, None),
                Some(Ok(record)) => self.shared.fail(format!(
                    "librdkafka has handed over {}-{} offset {} by a way that is not read",
                    record.topic(),
                    record.partition(),
                    record.offset()
                )),
            }
        }
    }

    /// Puts a record, whose value has so many bytes, into the chunk of its lane.
    fn sort_in(&mut self, record: Record<'c>, size: usize) {
        let last = self.last.as_ref();
        let is_of_last = last.is_some_and(|last| record.is_of(&last.key));
        if !is_of_last {
            self.last = self.partition_of(&record);
        }
        let Some(assigned) = &self.last else {
            return; // Given up in the meantime: whoever holds it now reads it.
        };
        let lane = assigned.lane;
        let chunk = &mut self.outlets[lane].filling;
        chunk.bytes += size;
        assigned.next.passed(record.offset());
        chunk.records.push(record);
        let end = chunk.records.len();
        match chunk.runs.last_mut() {
            Some((run, run_end)) if Arc::ptr_eq(run, assigned) => *run_end = end,
            _ => chunk.runs.push((assigned.clone(), end)),
        }
        if chunk.bytes >= CHUNK_BYTES {
            self.hand_over(lane);
        }
    }

    fn partition_of(&self, record: &Record<'_>) -> Option<Arc<Assigned>> {
        let topic = std::str::from_utf8(record.topic()).ok()?;
        let key = PartitionKey::new(topic, record.partition());
        self.assigned.get(&key).cloned()
    }

    /// Hands the filling chunk of a lane over; pauses its partitions where it has no room.
    fn hand_over(&mut self, lane: usize) {
        let outlet = &mut self.outlets[lane];
        if outlet.filling.records.is_empty() {
            return;
        }
        let chunk = std::mem::take(&mut outlet.filling);
        if !outlet.waiting.is_empty() {
            outlet.waiting.push_back(chunk);
            return;
        }
        match outlet.sender.send_timeout(chunk, LANE_PATIENCE) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(chunk)) => {
                outlet.waiting.push_back(chunk);
                self.pause(lane);
                self.count_paused();
            }
            Err(SendTimeoutError::Disconnected(_)) => self.lane_ended(lane),
        }
    }

    fn hand_over_waiting(&mut self, lane: usize) {
        let outlet = &mut self.outlets[lane];
        if outlet.waiting.is_empty() {
            return;
        }
        while let Some(chunk) = outlet.waiting.pop_front() {
            match outlet.sender.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk)) => {
                    outlet.waiting.push_front(chunk);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return self.lane_ended(lane),
            }
        }
        self.resume(lane);
        self.count_paused();
    }

    fn lane_ended(&self, lane: usize) {
        self.shared
            .fail(format!("lane {lane} has ended unexpectedly"));
    }

    fn pause(&self, lane: usize) {
        let list = self.partitions_of_lane(lane);
        if let Err(error) = self.consumer.pause(&list) {
            warn!(lane, "partitions could not be paused: {error}");
        }
    }

    /// Does nothing to partitions that are not paused.
    fn resume(&self, lane: usize) {
        let list = self.partitions_of_lane(lane);
        if let Err(error) = self.consumer.resume(&list) {
            warn!(lane, "partitions could not be resumed: {error}");
        }
    }

    fn count_paused(&self) {
        let paused = self
            .outlets
            .iter()
            .filter(|outlet| !outlet.waiting.is_empty());
        self.shared
            .paused_lanes
            .store(paused.count(), Ordering::Relaxed);
    }

    fn partitions_of_lane(&self, lane: usize) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for entry in self.assigned.values().filter(|entry| entry.lane == lane) {
            list.add_partition(&entry.key.topic, entry.key.partition);
        }
        list
    }

    fn poll_error(&self, error: &KafkaError, partition: Option<&PartitionKey>) {
        if !self.act_on(error, partition) {
            self.shared
                .troubles
                .remember(format!("kafka consumer: {error}"));
        }
    }

    /// Does what an error, of this partition or of the consumer, asks for, and says so; `false` where it asks for nothing.
    fn act_on(&self, error: &KafkaError, partition: Option<&PartitionKey>) -> bool {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(code), _) => {
                // What librdkafka hands out says only that it was fatal.
                let why = self.consumer.client().fatal_error();
                let (code, reason) = why.unwrap_or_else(|| (*code, error.to_string()));
                self.shared
                    .fail(ended(code, &reason, &self.consumer.context().id));
            }
            (_, Some(code)) if is_refusal(code) => {
                let route = &self.shared.route;
                let what = match partition {
                    // One of the topics that a pattern leads to; the others can be read.
                    Some(key) if !route.names(&key.topic) => {
                        self.shared.offsets().refuse(key, Instant::now());
                        return false;
                    }
                    Some(key) => format!("topic {} (source.topics)", key.topic),
                    None => format!("{:?} (source.topics)", route.topics),
                };
                self.shared.fail(format!(
                    "kafka does not let the route read {what} as group {}: {code}; {RIGHTS}",
                    self.consumer.context().id
                ));
            }
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => {
                self.shared.troubles.tell(
                    "topics",
                    format!(
                        "a topic of source.topics = {} does not exist (yet)",
                        self.shared.route.topics.join(",")
                    ),
                );
            }
            // One that is down alone is librdkafka's to get around.
            (_, Some(Code::AllBrokersDown)) => {
                let detail = self.consumer.context().recent_error();
                let detail = detail.unwrap_or_else(|| error.to_string());
                self.shared.troubles.tell("source", no_broker(&detail));
            }
            (_, Some(Code::PollExceeded)) => {
                warn!(
                    "the group has thrown the worker out: it did not poll within max.poll.interval.ms; it joins again"
                );
                self.shared.troubles.remember(error.to_string());
            }
            _ => return false,
        }
        true
    }

    /// Reads again from the lowest unsettled offsets, after the sink has dropped what it holds.
    fn rewind(&mut self, cause: &Cause) {
        if self
            .rewound
            .is_some_and(|at| at.elapsed() > 2 * self.shared.route.backoff_max)
        {
            self.rewinds.reset();
        }
        self.rewound = Some(Instant::now());
        warn!(
            reason = cause.reason,
            "reading again from the last settled offsets: {}", cause.detail
        );
        for outlet in &mut self.outlets {
            outlet.filling = Chunk::default();
        }
        let Some(seeks) = self.abandon_all(cause) else {
            return;
        };
        let pause = self.rewinds.next(jitter(), cause.after);
        self.pause_for(pause.min(LONGEST_PAUSE));
        if self.shared.stop_requested() {
            return; // Nothing is read any more: what was read and not settled is another worker's.
        }
        if let Err(reason) = self.seek_with_patience(&seeks) {
            self.shared.fail(reason);
            return;
        }
        for (key, generation, from) in seeks {
            self.consumer.context().renew(&key, generation, from);
        }
    }

    /// [`rewind::abandon_all`] within a time; `None` where it can't be now.
    fn abandon_all(&mut self, cause: &Cause) -> Option<Vec<Seek>> {
        let shared = self.shared;
        let commits = self.consumer.context().joint_commits();
        let abandoning = rewind::abandon_all(shared, self.sink, commits, cause);
        let in_time = async { tokio::time::timeout(ABANDON, abandoning).await };
        match shared.wait_beating(&self.runtime, in_time)? {
            Ok(seeks) => seeks,
            Err(_) => {
                shared.fail(format!(
                    "the sink did not drop what it holds within {} s",
                    ABANDON.as_secs()
                ));
                None
            }
        }
    }

    /// Waits without reading; requests to stop end the wait.
    fn pause_for(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.shared.stop_requested() {
            self.shared.beat();
            self.shared.wait_progress(Duration::from_millis(50));
        }
    }

    /// A partition that was assigned a moment ago can't be moved yet: tried again for a while.
    fn seek_with_patience(&self, seeks: &[Seek]) -> Result<(), String> {
        for _ in 0..SEEK_ATTEMPTS {
            match self.seek(seeks) {
                Ok(()) => return Ok(()),
                Err(error) => warn!("{}; tried again", not_moved(&error)),
            }
            self.pause_for(Duration::from_millis(500));
        }
        self.seek(seeks).map_err(|error| not_moved(&error))
    }

    /// Moves the consumer back. Until the new generations are known to the intake, what it reads is taken for stale and dropped.
    fn seek(&self, seeks: &[Seek]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (key, _, from) in seeks {
            let offset = from.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&key.topic, key.partition, offset)?;
        }
        if seeks.is_empty() {
            return Ok(());
        }
        let done = self.consumer.seek_partitions(list, ASK_TIMEOUT)?;
        without_errors(done).map(drop)
    }

    /// After a request to stop: everything read is to be settled and committed.
    fn drain(mut self) -> Ended {
        let shared = self.shared;
        let context = self.consumer.context();
        let deadline = shared.until(Instant::now() + shared.route.shutdown_drain);
        info!(
            "draining, for at most {} ms",
            shared.route.shutdown_drain.as_millis()
        );
        // What the lanes have not taken in yet was not consumed: it is simply read again.
        for outlet in &mut self.outlets {
            outlet.filling = Chunk::default();
            outlet.waiting.clear();
        }
        let keys = shared.offsets().keys();
        // On a machine out of breath the last of it may be settled just after the time was over.
        let drained = context.drain(&keys, shared.route.shutdown_drain)
            || (shared.offsets().unsettled(&keys) == 0 && shared.ledger.view().in_flight == 0);
        let mut committed = context.commit_within(None, LAST_COMMIT);
        // Who was thrown out of the group can't commit, and does not come back while it drains.
        let may_commit = || shared.failure().is_none() && !self.consumer.assignment_lost();
        while drained && !committed && may_commit() && Instant::now() < deadline {
            committed = context.commit_within(None, LAST_COMMIT);
        }
        if shared.failure().is_some() {
            return Ended::Failed;
        }
        if drained && committed {
            return Ended::Drained;
        }
        if drained {
            return match context.joint_commits().named.has_found() {
                true => Ended::NotPublished,
                false => Ended::NotCommitted,
            };
        }
        Ended::NotDrained {
            unsettled_batches: shared.offsets().unsettled(&keys),
        }
    }
}
