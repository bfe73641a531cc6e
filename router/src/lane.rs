//! A lane: one thread with its share of the partitions. The hot path of an event, top to bottom.
//!
//! ```text
//! chunk of borrowed records -> filter, projection, hygiene on the borrowed payload -> kept events copied once, into the batch
//!                           -> batch full or due -> its claims are tracked -> handed to delivery (waits while delivery is behind)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select_biased};
use keystone_sinks::{Batch, BatchBuilder, BatchId, Cause, RecordMeta, Stage};
use tokio::sync::mpsc;

use crate::decision::{Decider, Decision};
use crate::ledger::Ledger;
use crate::offsets::{PartitionKey, Tracking};
use crate::records::Record;
use crate::stall::Pulse;
use crate::state::Shared;
use crate::trigger::Trigger;

/// A partition as it is assigned under one generation.
#[derive(Debug)]
pub struct Assigned {
    pub key: PartitionKey,
    pub generation: u64,
    pub lane: usize,
    /// The offset that the consumer thread reads next; `None` is wherever the log begins.
    pub next: Next,
    /// It could not be read at some time: `next` may stand before events that librdkafka takes for read.
    pub faulty: AtomicBool,
}

impl Assigned {
    pub fn new(key: PartitionKey, generation: u64, lane: usize, from: Option<i64>) -> Assigned {
        Assigned {
            key,
            generation,
            lane,
            next: Next::new(from),
            faulty: AtomicBool::new(false),
        }
    }
}

/// Behind the last record that was read, or where reading begins. Only the consumer thread writes it.
#[derive(Debug)]
pub struct Next(AtomicI64);

impl Next {
    pub fn new(from: Option<i64>) -> Next {
        Next(AtomicI64::new(from.unwrap_or(-1)))
    }

    pub fn get(&self) -> Option<i64> {
        let next = self.0.load(Ordering::Relaxed);
        (next >= 0).then_some(next)
    }

    pub fn passed(&self, offset: i64) {
        self.0.store(offset + 1, Ordering::Relaxed);
    }
}

/// Records for one lane, in runs of one partition each.
#[derive(Debug, Default)]
pub struct Chunk<'c> {
    /// The partition of a run, and the end of the run in `records`.
    pub runs: Vec<(Arc<Assigned>, usize)>,
    pub records: Vec<Record<'c>>,
    /// Bytes of the records' values.
    pub bytes: usize,
}

/// Asks a lane to take in all chunks that were sent before and to hand on what it has; it counts itself done.
#[derive(Debug, Clone)]
pub struct Flush {
    pub done: Arc<AtomicUsize>,
}

pub struct Lane<'r> {
    shared: &'r Shared,
    decider: Decider<'r>,
    builder: BatchBuilder,
    trigger: Trigger,
    delivery: mpsc::Sender<Batch>,
    counts: Counts,
    pulse: Arc<Pulse>,
}

/// Counted for a chunk at a time: the ledger's counters are shared between threads.
#[derive(Debug, Default)]
struct Counts {
    consumed: u64,
    filtered: u64,
    discarded: u64,
}

/// Numbers of batches are unique within the process.
static NEXT_BATCH: AtomicU64 = AtomicU64::new(1);

impl<'r> Lane<'r> {
    pub fn new(number: usize, shared: &'r Shared, delivery: mpsc::Sender<Batch>) -> Lane<'r> {
        Lane {
            shared,
            decider: Decider::new(&shared.route.steps),
            builder: BatchBuilder::new(shared.route.batch.max_bytes),
            trigger: Trigger::new(shared.route.batch),
            delivery,
            counts: Counts::default(),
            pulse: shared
                .stalls
                .watch(format!("lane {number}"), Duration::ZERO),
        }
    }

    /// Runs until the consumer hangs up, or delivery does.
    pub fn run(mut self, chunks: &Receiver<Chunk<'_>>, flushes: &Receiver<Flush>) {
        while self.step(chunks, flushes).is_some() {}
    }

    /// One turn; `None` when the lane is to end.
    fn step(&mut self, chunks: &Receiver<Chunk<'_>>, flushes: &Receiver<Flush>) -> Option<()> {
        let due = self
            .trigger
            .due()
            .map_or_else(crossbeam_channel::never, crossbeam_channel::at);
        self.pulse.idle();
        select_biased! {
            recv(due) -> _ => {
                self.pulse.turn();
                self.close()
            }
            recv(chunks) -> chunk => self.take(&chunk.ok()?),
            recv(flushes) -> flush => {
                let flush = flush.ok()?;
                self.pulse.turn();
                for chunk in chunks.try_iter() {
                    self.take(&chunk)?;
                }
                self.close()?;
                flush.done.fetch_add(1, Ordering::Release);
                self.shared.made_progress();
                Some(())
            }
        }
    }

    fn take(&mut self, chunk: &Chunk<'_>) -> Option<()> {
        self.pulse.turn();
        let mut now = Instant::now();
        let mut start = 0;
        for (assigned, end) in &chunk.runs {
            let records = &chunk.records[start..*end];
            start = *end;
            let current = self.shared.offsets().generation(&assigned.key);
            if current != Some(assigned.generation) {
                continue; // The partition has moved on: these are read again, here or elsewhere.
            }
            for record in records {
                self.trigger.opened(now);
                self.event(assigned, record);
                if self.trigger.full(self.builder.len(), self.builder.bytes()) {
                    self.close()?;
                    // Handing over may have taken long; the next batch begins only now.
                    now = Instant::now();
                }
            }
        }
        self.count();
        Some(())
    }

    /// Decides about one event.
    fn event(&mut self, assigned: &Assigned, record: &Record<'_>) {
        let offset = record.offset();
        let key = &assigned.key;
        let claim = self
            .builder
            .claim(&key.topic, key.partition, assigned.generation, offset);
        self.counts.consumed += 1;
        let start = self.builder.arena().len();
        let decision = match record.payload() {
            None => self.decider.tombstone(),
            Some(payload) => self.decider.decide(
                &keystone_dsl::Record {
                    payload,
                    topic: &key.topic,
                    partition: key.partition,
                    offset,
                    timestamp: record.timestamp(),
                    key: record.key(),
                    headers: &RecordHeaders(record),
                },
                self.builder.arena(),
            ),
        };
        match decision {
            Decision::Filtered => self.counts.filtered += 1,
            decision => self.carry_out(decision, claim, start, record),
        }
    }

    /// Copies what is kept; `start` is where an event written anew begins.
    fn carry_out(&mut self, decision: Decision, claim: u32, start: usize, record: &Record<'_>) {
        let meta = RecordMeta {
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: record.key(),
        };
        let value = record.payload();
        let (headers, decision) = match record.headers() {
            Some(headers) => (headers, decision),
            None => {
                let reason = format!("{BAD_HEADER_NAME}; this copy has no headers");
                (Vec::new(), Decision::Bury(Stage::Decode, reason))
            }
        };
        let headers = headers.into_iter();
        match decision {
            Decision::Filtered => {}
            Decision::Discard(_) => self.counts.discarded += 1,
            Decision::Keep => self.builder.keep(claim, meta, value, headers),
            Decision::KeepRewritten => {
                self.builder
                    .keep_projected(claim, start, meta, value, headers);
            }
            Decision::Bury(stage, reason) => {
                self.builder.arena().truncate(start);
                self.builder
                    .bury(claim, meta, value, headers, stage, reason);
            }
        }
    }

    /// Closes the batch: from here on its claims hold the commit back.
    fn close(&mut self) -> Option<()> {
        if let Some(age) = self.trigger.age(Instant::now()) {
            metrics::histogram!("keystone_batch_age_seconds").record(age.as_secs_f64());
        }
        self.trigger.closed();
        self.count();
        if self.builder.is_empty() {
            return Some(());
        }
        let id = BatchId::new(NEXT_BATCH.fetch_add(1, Ordering::Relaxed));
        let mut batch = self.builder.finish(id);
        let mut offsets = self.shared.offsets();
        let tracked: Vec<Tracking> = batch
            .claims()
            .iter()
            .map(|claim| offsets.track(claim))
            .collect();
        let stale = tracked.iter().any(|tracking| *tracking != Tracking::Taken);
        // Looked at now that all are tracked: one that went back has made those before it stale.
        let current: Option<Vec<bool>> = stale.then(|| {
            let claims = batch.claims().iter();
            claims.map(|claim| offsets.is_current(claim)).collect()
        });
        drop(offsets);
        if tracked.contains(&Tracking::WentBack) {
            self.shared.request_rewind(Cause {
                reason: "log_cut",
                detail: "kafka has sent the consumer back: a log was cut short and written again"
                    .to_owned(),
                after: None,
            });
        }
        if let Some(current) = current {
            // Read before a rewind, or before their partition left: beside what is read again they would come twice, and a sink that
            // holds them could commit nothing.
            let dropped = batch.keep_claims(&current);
            Ledger::add(&self.shared.ledger.abandoned, dropped as u64);
            if batch.claims().is_empty() {
                return Some(());
            }
        }
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        if batch.is_empty() && batch.dead_len() == 0 {
            // Nothing to wait for: every event of it was filtered or discarded.
            self.shared.settle(batch.claims());
            return Some(());
        }
        self.shared.pending_batches.fetch_add(1, Ordering::AcqRel);
        // For room, as long as an outage of the sink lasts: delivery is watched by itself.
        let sent = self.pulse.waiting(|| self.delivery.blocking_send(batch));
        sent.ok()
    }

    fn count(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        let ledger = &self.shared.ledger;
        Ledger::add(&ledger.consumed, counts.consumed);
        Ledger::add(&ledger.filtered, counts.filtered);
        Ledger::add(&ledger.discarded, counts.discarded);
        for (counter, count) in self
            .shared
            .violations
            .iter()
            .zip(self.decider.take_violations())
        {
            Ledger::add(counter, count);
        }
    }
}

/// The headers of a record as expressions ask for them.
struct RecordHeaders<'a, 'c>(&'a Record<'c>);

impl keystone_dsl::Headers for RecordHeaders<'_, '_> {
    fn last(&self, name: &str) -> Result<Option<&[u8]>, String> {
        let headers = self.0.headers().ok_or(BAD_HEADER_NAME)?;
        let found = headers.iter().rev().find(|(known, _)| *known == name);
        Ok(found.and_then(|(_, value)| *value))
    }
}

pub const BAD_HEADER_NAME: &str = "the name of a header is not UTF-8";
