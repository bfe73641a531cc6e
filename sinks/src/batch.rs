//! A batch: kept events of one lane in one arena, and the range of offsets that it answers for in each partition.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::arena::{Arena, Arenas};

/// Names one call of the sink with a batch. Never reused within a process.
///
/// A batch may need several calls (its halves, or events that are sent again), and a sink that holds events answers for each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    pub batch: u64,
    /// Counts the calls with this batch.
    pub call: u32,
}

impl BatchId {
    pub fn new(batch: u64) -> BatchId {
        BatchId { batch, call: 0 }
    }

    #[must_use]
    pub fn next_call(self) -> BatchId {
        BatchId {
            call: self.call + 1,
            ..self
        }
    }
}

/// The offsets that a batch answers for in one partition, filtered events included.
///
/// `generation` names the assignment (or rewind) under which the events were read: an answer from a lost one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub topic: Arc<str>,
    pub partition: i32,
    pub generation: u64,
    /// First offset, and the offset after the last. Offsets between may be missing (compaction, transaction markers).
    pub offsets: Range<i64>,
    /// Events among them that are delivered or dead-lettered; the others were filtered or discarded.
    pub events: u32,
}

/// Where an event's parts lie in the arena of its batch.
#[derive(Debug, Clone, Copy)]
struct Record {
    claim: u32,
    offset: i64,
    /// Milliseconds since the epoch; `i64::MIN` where Kafka has none.
    timestamp: i64,
    key: Part,
    payload: Part,
    original: Part,
    headers: Part,
}

/// A slice of the arena; absent where `start` is `u32::MAX`.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
}

impl Part {
    const ABSENT: Part = Part {
        start: u32::MAX,
        len: 0,
    };

    fn of(self, arena: &[u8]) -> Option<&[u8]> {
        if self.start == u32::MAX {
            return None;
        }
        let start = self.start as usize;
        Some(&arena[start..start + self.len as usize])
    }
}

/// The stage at which an event was found bad. The word stands in the dead letter's headers and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Decode,
    Filter,
    Projection,
    Hygiene,
    Sink,
}

impl Stage {
    pub const ALL: [Stage; 5] = [
        Stage::Decode,
        Stage::Filter,
        Stage::Projection,
        Stage::Hygiene,
        Stage::Sink,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Filter => "filter",
            Stage::Projection => "projection",
            Stage::Hygiene => "hygiene",
            Stage::Sink => "sink",
        }
    }
}

/// An event as a sink sees it, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// The record's timestamp in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    /// What to deliver: valid JSON (unless `source.format = raw`), or `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
    /// The record's value as it was read, for a dead letter.
    pub original: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> Event<'a> {
    /// The record's headers in their order; names may repeat.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers }
    }
}

/// Iterates over the headers of an event: name and value, `None` where Kafka has a null value.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take_part(self.rest)?;
        let (value, rest) = take_part(rest)?;
        self.rest = rest;
        // Written from a `&str` by `BatchBuilder::push`.
        let name = std::str::from_utf8(name?).ok()?;
        Some((name, value))
    }
}

/// Reads one length-prefixed part; the length `u32::MAX` is an absent part.
fn take_part(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    match u32::from_le_bytes(*len) {
        u32::MAX => Some((None, rest)),
        len => {
            let (part, rest) = rest.split_at_checked(len as usize)?;
            Some((Some(part), rest))
        }
    }
}

fn put_part(arena: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        None => arena.extend_from_slice(&u32::MAX.to_le_bytes()),
        Some(part) => {
            arena.extend_from_slice(&(part.len() as u32).to_le_bytes());
            arena.extend_from_slice(part);
        }
    }
}

/// Kept events, bad events on their way to the dead-letter topic, and the claims that settle when both are safe.
///
/// Arena and claims are shared by the parts of a batch that was split.
#[derive(Debug)]
pub struct Batch {
    id: BatchId,
    arena: Arc<Arena>,
    records: Vec<Record>,
    dead: Vec<(Record, Stage, String)>,
    claims: Arc<[Claim]>,
}

impl Batch {
    /// The batch and the call of the sink that it is handed over with.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// Gives the next call of the sink an id of its own.
    pub fn begin_call(&mut self) {
        self.id = self.id.next_call();
    }

    /// Number of events to deliver.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes held: payloads, originals, keys and headers.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// What the batch answers for, one claim a partition.
    pub fn claims(&self) -> &Arc<[Claim]> {
        &self.claims
    }

    /// The events to deliver, in the order they were read within each partition.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> + Clone {
        self.records.iter().map(|record| self.view(record))
    }

    /// The event at `index` of [`Batch::events`].
    pub fn event(&self, index: usize) -> Event<'_> {
        self.view(&self.records[index])
    }

    /// Bad events that the lane found, with stage and reason.
    pub fn dead(&self) -> impl ExactSizeIterator<Item = (Event<'_>, Stage, &str)> {
        self.dead
            .iter()
            .map(|(record, stage, reason)| (self.view(record), *stage, reason.as_str()))
    }

    /// Moves the events at these indices to the bad ones, stage `sink`, with their reasons.
    pub fn reject(&mut self, rejected: &[Rejected]) {
        for Rejected { index, reason } in rejected {
            self.dead
                .push((self.records[*index], Stage::Sink, reason.clone()));
        }
    }

    /// Keeps only the events at these ascending indices: those that are to be sent again.
    pub fn retain(&mut self, indices: &[usize]) {
        self.records = indices.iter().map(|&index| self.records[index]).collect();
    }

    /// A batch of only the events at these ascending indices (without the bad ones), beside this one.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Batch {
        Batch {
            id: self.id,
            arena: self.arena.clone(),
            records: indices.iter().map(|&index| self.records[index]).collect(),
            dead: Vec::new(),
            claims: self.claims.clone(),
        }
    }

    /// Takes the second half of the events into a batch of its own (without the bad ones), for a request that was too large.
    pub fn split(&mut self) -> Batch {
        let records = self.records.split_off(self.records.len() / 2);
        Batch {
            id: self.id,
            arena: self.arena.clone(),
            records,
            dead: Vec::new(),
            claims: self.claims.clone(),
        }
    }

    /// Takes back the events of a part that was split off.
    pub fn append(&mut self, part: Batch) {
        self.records.extend(part.records);
    }

    /// Drops the claims that are not to be kept, and their events, bad ones too. Answers with the number of these.
    pub fn keep_claims(&mut self, keep: &[bool]) -> usize {
        let before = self.records.len() + self.dead.len();
        // Where each claim that stays comes to stand.
        let places: Vec<Option<u32>> = keep
            .iter()
            .scan(0, |next, keep| {
                let place = keep.then_some(*next);
                *next += u32::from(*keep);
                Some(place)
            })
            .collect();
        let stays = |record: &mut Record| match places[record.claim as usize] {
            Some(place) => {
                record.claim = place;
                true
            }
            None => false,
        };
        self.records.retain_mut(stays);
        self.dead.retain_mut(|(record, ..)| stays(record));
        let claims = self.claims.iter().zip(keep);
        self.claims = claims
            .filter(|(_, keep)| **keep)
            .map(|(claim, _)| claim.clone())
            .collect();
        before - self.records.len() - self.dead.len()
    }

    /// Number of bad events.
    pub fn dead_len(&self) -> usize {
        self.dead.len()
    }

    /// Drops the bad events: they are durable in the dead-letter topic.
    pub fn clear_dead(&mut self) {
        self.dead.clear();
    }

    fn view<'a>(&'a self, record: &Record) -> Event<'a> {
        let claim = &self.claims[record.claim as usize];
        Event {
            topic: &claim.topic,
            partition: claim.partition,
            offset: record.offset,
            timestamp: (record.timestamp != i64::MIN).then_some(record.timestamp),
            key: record.key.of(&self.arena),
            payload: record.payload.of(&self.arena),
            original: record.original.of(&self.arena),
            headers: record.headers.of(&self.arena).unwrap_or_default(),
        }
    }
}

/// An event that a sink can never take, and why, in words for the owner of the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Index in [`Batch::events`].
    pub index: usize,
    pub reason: String,
}

/// What the lane knows of a record beside its value.
#[derive(Debug, Clone, Copy)]
pub struct RecordMeta<'a> {
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
}

/// Fills one batch. The projection writes straight into [`BatchBuilder::arena`].
#[derive(Debug, Default)]
pub struct BatchBuilder {
    arenas: Arc<Arenas>,
    arena: Vec<u8>,
    records: Vec<Record>,
    dead: Vec<(Record, Stage, String)>,
    claims: Vec<Claim>,
    /// The last claim of each partition and generation.
    last_claims: HashMap<(i32, u64), usize>,
}

impl BatchBuilder {
    /// For batches of about so many bytes, whose memory is used again. (That of a default one is not.)
    pub fn new(batch_bytes: usize) -> BatchBuilder {
        BatchBuilder {
            arenas: Arc::new(Arenas::of(batch_bytes)),
            ..BatchBuilder::default()
        }
    }

    /// Extends the claim of this partition by one record, filtered ones too. Returns the claim's index for [`BatchBuilder::keep`].
    ///
    /// The last claim is looked at first: events come in runs of one partition.
    pub fn claim(&mut self, topic: &Arc<str>, partition: i32, generation: u64, offset: i64) -> u32 {
        let extends = |claim: &Claim| {
            claim.partition == partition
                && claim.generation == generation
                && (Arc::ptr_eq(&claim.topic, topic) || claim.topic == *topic)
                // Offsets rise, unless the log was cut short and written anew (an unclean leader election): then a claim of its own.
                && claim.offsets.end <= offset
        };
        let next = self.claims.len();
        let key = (partition, generation);
        let known = match self.claims.last() {
            Some(claim) if extends(claim) => Some(next - 1),
            _ => (self.last_claims.get(&key).copied()).filter(|at| extends(&self.claims[*at])),
        };
        let index = known.unwrap_or_else(|| {
            self.claims.push(Claim {
                topic: topic.clone(),
                partition,
                generation,
                offsets: offset..offset,
                events: 0,
            });
            self.last_claims.insert(key, next);
            next
        });
        self.claims[index].offsets.end = offset + 1;
        index as u32
    }

    /// The buffer that a projection appends to. Whoever appends either keeps the event or truncates to where it began.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Keeps an event whose projected payload has been appended to the arena from `start` on; `original` is copied beside it.
    pub fn keep_projected<'h>(
        &mut self,
        claim: u32,
        start: usize,
        meta: RecordMeta<'_>,
        original: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let payload = Part {
            start: start as u32,
            len: (self.arena.len() - start) as u32,
        };
        let original = self.put(original);
        let record = self.record(claim, meta, payload, original, headers);
        self.records.push(record);
    }

    /// Keeps an event as it was read.
    pub fn keep<'h>(
        &mut self,
        claim: u32,
        meta: RecordMeta<'_>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let value = self.put(value);
        let record = self.record(claim, meta, value, value, headers);
        self.records.push(record);
    }

    /// Takes in a bad event for the dead-letter topic.
    pub fn bury<'h>(
        &mut self,
        claim: u32,
        meta: RecordMeta<'_>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
        stage: Stage,
        reason: String,
    ) {
        let value = self.put(value);
        let record = self.record(claim, meta, value, value, headers);
        self.dead.push((record, stage, reason));
    }

    /// Number of events kept or buried so far.
    pub fn len(&self) -> usize {
        self.records.len() + self.dead.len()
    }

    /// Bytes in the arena so far.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Whether nothing was claimed since the last [`BatchBuilder::finish`].
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Closes the batch and begins the next.
    pub fn finish(&mut self, id: BatchId) -> Batch {
        let arena = std::mem::replace(&mut self.arena, self.arenas.take());
        self.last_claims.clear();
        // The next one mostly has as many.
        let records = Vec::with_capacity(self.records.len());
        Batch {
            id,
            arena: Arc::new(Arena::new(arena, self.arenas.clone())),
            records: std::mem::replace(&mut self.records, records),
            dead: std::mem::take(&mut self.dead),
            claims: std::mem::take(&mut self.claims).into(),
        }
    }

    fn put(&mut self, part: Option<&[u8]>) -> Part {
        let Some(part) = part else {
            return Part::ABSENT;
        };
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(part);
        Part {
            start,
            len: part.len() as u32,
        }
    }

    fn record<'h>(
        &mut self,
        claim: u32,
        meta: RecordMeta<'_>,
        payload: Part,
        original: Part,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Record {
        self.claims[claim as usize].events += 1;
        let key = self.put(meta.key);
        let start = self.arena.len();
        for (name, value) in headers {
            put_part(&mut self.arena, Some(name.as_bytes()));
            put_part(&mut self.arena, value);
        }
        let headers = Part {
            start: start as u32,
            len: (self.arena.len() - start) as u32,
        };
        Record {
            claim,
            offset: meta.offset,
            timestamp: meta.timestamp.unwrap_or(i64::MIN),
            key,
            payload,
            original,
            headers,
        }
    }
}

#[cfg(test)]
mod tests;
