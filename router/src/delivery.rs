//! Delivery: from a closed batch to settled claims. One task a lane, with several batches under way at once.
//!
//! Retrying, back-off, splitting and dead-lettering live here, once, around every sink. A batch ends in one of three ways: its claims
//! settle; it is held by the sink and settles when the sink names it durable; or it is abandoned, to be read again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use keystone_sinks::{Answer, Batch, Cause, Claim, Event, Rejected, Sink, SinkError, Stage};
use tokio::sync::{OwnedRwLockReadGuard, mpsc, watch};
use tracing::{debug, warn};

use crate::backoff::{Backoff, jitter};
use crate::dead_letters::{DeadLetterError, DeadLetters, LONGEST_SEND};
use crate::held::Timestamps;
use crate::ledger::Ledger;
use crate::limiter::Permit;
use crate::metrics;
use crate::route::DeadLetterPolicy;
use crate::state::{Shared, lock, now_ms};
use crate::troubles::Complaint;

/// How many batches of a lane may be settled before an older one that is still under way.
const MAX_AHEAD: u64 = 1_000;
/// Characters of a reason that are logged; the dead letter has all of it.
const LONGEST_REASON: usize = 500;
/// What is logged in place of a reason that may quote a value.
const NOT_TOLD: &str =
    "the reason may quote the event, and is told here with log.event.values = true";
/// How often a batch that waits for the sink looks whether it is still this worker's.
const LOOK: Duration = Duration::from_secs(1);

/// What the delivery of one lane needs.
pub struct Delivery {
    pub shared: Arc<Shared>,
    pub sink: Arc<dyn Sink>,
    pub dead_letters: Arc<DeadLetters>,
}

/// The batch is not settled by this worker; its events are read again.
struct Abandoned;

impl Delivery {
    /// Delivers the batches of one lane until it hangs up. Each batch's first step is taken before the next batch's, so that a sink
    /// that keeps the order of its calls keeps the order of events.
    pub async fn run(&self, mut batches: mpsc::Receiver<Batch>) {
        let limit = self.shared.route.max_in_flight;
        let mut under_way = FuturesUnordered::new();
        let mut numbers = BTreeSet::new();
        let mut next = 0_u64;
        let mut waiting = None;
        let mut open = true;
        while open || waiting.is_some() {
            // One batch that is tried for ever must not let the offset window grow for ever behind it.
            let ahead = numbers.first().map_or(0, |oldest| next - oldest);
            let room = under_way.len() < limit && ahead < MAX_AHEAD;
            tokio::select! {
                biased;
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    numbers.remove(&done);
                }
                entered = self.enter(), if waiting.is_some() => if let Some(batch) = waiting.take() {
                    let number = next;
                    next += 1;
                    let mut delivery = Box::pin(async move {
                        self.deliver(batch).await;
                        drop(entered);
                        number
                    });
                    // Its first step, now and in order.
                    if futures::poll!(&mut delivery).is_pending() {
                        numbers.insert(number);
                        under_way.push(delivery);
                    }
                },
                batch = batches.recv(), if open && room && waiting.is_none() => match batch {
                    Some(batch) => waiting = Some(batch),
                    None => open = false,
                },
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// A joint commit is for whole batches: none begins while one is under way. Batches wait here, before their first step, or a later one
    /// could overtake them.
    async fn enter(&self) -> Option<OwnedRwLockReadGuard<()>> {
        match self.shared.joint {
            true => Some(self.shared.whole.clone().read_owned().await),
            false => None,
        }
    }

    /// Takes one batch to its end.
    async fn deliver(&self, mut batch: Batch) {
        let shared = &self.shared;
        metrics::batch_closed(&batch);
        let claims = batch.claims().clone();
        let events = (batch.len() + batch.dead_len()) as u64;
        let mut counted = 0;
        match self.to_its_end(&mut batch, &mut counted).await {
            Ok(0) => {
                shared.held().forget(batch.id().batch);
                shared.settle(&claims);
            }
            Ok(held) => shared.held_complete(batch.id().batch, claims, held),
            Err(Abandoned) => {
                shared.held().abandon(batch.id().batch, shared.joint);
                Ledger::add(&shared.ledger.abandoned, events - counted);
                debug!(
                    batch = batch.id().batch,
                    "abandoned; its events are read again"
                );
            }
        }
        shared.pending_batches.fetch_sub(1, Ordering::AcqRel);
        shared.made_progress();
    }

    /// Sink first, then dead letters. `counted` is the number of events that the ledger has as delivered, dead-lettered or discarded.
    /// Answers with the number of events that the sink holds, or held and made durable since.
    async fn to_its_end(&self, batch: &mut Batch, counted: &mut u64) -> Result<u64, Abandoned> {
        let held = self.through_sink(batch, counted).await?;
        let dead = batch.dead_len() as u64;
        self.bury(batch).await?;
        *counted += dead;
        Ok(held)
    }

    /// Sends until every event is delivered, held or rejected. Answers with the number held.
    async fn through_sink(&self, batch: &mut Batch, counted: &mut u64) -> Result<u64, Abandoned> {
        let mut attempt = Attempt::new(self, batch);
        let mut parts = Vec::new();
        loop {
            if batch.is_empty() {
                match parts.pop() {
                    Some(part) => batch.append(part),
                    None => return Ok(attempt.held),
                }
            }
            match attempt.call(batch).await? {
                Ok(answer) => attempt.take(batch, answer, counted).await?,
                Err(SinkError::TooLarge(_)) if batch.len() > 1 => parts.push(batch.split()),
                Err(SinkError::TooLarge(reason)) => {
                    batch.reject(&[Rejected { index: 0, reason }]);
                    batch.retain(&[]);
                }
                Err(SinkError::Retry(cause)) => attempt.pause(batch, cause).await?,
                Err(SinkError::Rewind(cause)) => {
                    // No complaint, which would end with this batch: its events are read again, and it shows then how the sink does.
                    if self.is_current(&attempt.claims) {
                        self.shared.troubles.tell("sink", cause.detail.clone());
                    }
                    self.shared.count_retry("sink", cause.reason);
                    self.shared.request_rewind(cause);
                    return Err(Abandoned);
                }
                Err(SinkError::Fatal(reason)) => {
                    self.shared.fail(reason);
                    return Err(Abandoned);
                }
            }
        }
    }

    /// Makes the bad events of a batch durable in the dead-letter topic, or does with them what the policy says.
    async fn bury(&self, batch: &mut Batch) -> Result<(), Abandoned> {
        if batch.dead_len() == 0 {
            return Ok(());
        }
        let shared = &self.shared;
        match shared.route.dead_letter_policy {
            DeadLetterPolicy::Topic => {}
            DeadLetterPolicy::Discard => {
                self.tell_bad(batch, "discarded (dead.letter.policy = discard)");
                Ledger::add(&shared.ledger.discarded, batch.dead_len() as u64);
                batch.clear_dead();
                return Ok(());
            }
            DeadLetterPolicy::Stop => {
                if let Some((event, stage, reason)) = batch.dead().next() {
                    let reason = self.told(stage, reason);
                    shared.fail(format!(
                        "{}-{} offset {} can't be delivered (stage {}): {reason}; dead.letter.policy = stop",
                        event.topic, event.partition, event.offset, stage.as_str()
                    ));
                }
                return Err(Abandoned);
            }
        }
        let mut backoff = self.backoff();
        let claims = batch.claims().clone();
        let pulse = shared.stalls.watch("a dead letter", LONGEST_SEND);
        let complaint = shared.troubles.complaint("dead letters");
        // What is durable is not written again: a partition of the topic may be without a leader for long.
        let mut left = (0..batch.dead_len()).collect();
        loop {
            if !self.is_current(&claims) {
                return Err(Abandoned); // Read again, here or elsewhere, and buried there.
            }
            let published = self.dead_letters.publish(batch, &mut left, &pulse).await;
            pulse.idle();
            match published {
                Ok(()) => break,
                Err(DeadLetterError::Fatal(reason)) => {
                    shared.fail(reason);
                    return Err(Abandoned);
                }
                Err(DeadLetterError::Retry(cause)) => {
                    complaint.tell(cause.detail);
                    shared.count_retry("dead_letters", cause.reason);
                    tokio::time::sleep(backoff.next(jitter(), cause.after)).await;
                }
            }
        }
        shared.troubles.all_is_well("dead letters");
        let topic = &shared.route.dead_letter_topic;
        let fate = format!("written, with the reason, to the dead-letter topic {topic}");
        self.tell_bad(batch, &fate);
        for (_, stage, _) in batch.dead() {
            Ledger::add(shared.ledger.dead_lettered(stage), 1);
        }
        batch.clear_dead();
        Ok(())
    }

    /// Says what is wrong with bad events: of each stage an example now and then.
    fn tell_bad(&self, batch: &Batch, fate: &str) {
        let mut stages = BTreeMap::new();
        for (event, stage, reason) in batch.dead() {
            let entry = stages.entry(stage.as_str());
            let (count, ..) = entry.or_insert((0, event, stage, reason));
            *count += 1;
        }
        let now = Instant::now();
        for (name, (count, event, stage, reason)) in stages {
            let due = lock(&self.shared.bad_events).count(name, count, now);
            let Some(count) = due else { continue };
            let events = if count == 1 {
                "event was"
            } else {
                "events were"
            };
            let reason = self.told(stage, reason).chars();
            let text = format!(
                "{count} bad {events} {fate}; one is {}-{} offset {} (stage {name}): {}",
                event.topic,
                event.partition,
                event.offset,
                reason.take(LONGEST_REASON).collect::<String>()
            );
            warn!("{text}");
            self.shared.troubles.remember(text);
        }
    }

    /// What may be said of a reason in the log and in `/status`. The worker's own reasons quote no value; those of a sink and of its server
    /// do, each in its own way.
    fn told<'r>(&self, stage: Stage, reason: &'r str) -> &'r str {
        match stage == Stage::Sink && !self.shared.route.log_event_values {
            true => NOT_TOLD,
            false => reason,
        }
    }

    fn backoff(&self) -> Backoff {
        let route = &self.shared.route;
        Backoff::new(route.backoff_initial, route.backoff_max)
    }

    fn is_current(&self, claims: &[Claim]) -> bool {
        let offsets = self.shared.offsets();
        claims.iter().any(|claim| offsets.is_current(claim))
    }
}

/// The attempts to deliver one batch.
struct Attempt<'d> {
    delivery: &'d Delivery,
    claims: Arc<[Claim]>,
    backoff: Backoff,
    /// Events that the sink holds, or held and made durable since.
    held: u64,
    /// While the sink asks to send again.
    complaint: Option<Complaint<'d>>,
}

impl<'d> Attempt<'d> {
    fn new(delivery: &'d Delivery, batch: &Batch) -> Attempt<'d> {
        Attempt {
            backoff: delivery.backoff(),
            delivery,
            claims: batch.claims().clone(),
            held: 0,
            complaint: None,
        }
    }

    /// One call of the sink, dropped if a rewind comes in between.
    async fn call(&self, batch: &mut Batch) -> Result<Result<Answer, SinkError>, Abandoned> {
        let shared = &self.delivery.shared;
        let mut epoch = shared.epoch.subscribe();
        epoch.borrow_and_update();
        // Before the gate: a rewind does not wait for those who wait here.
        let mut permit = self.enter(&mut epoch).await?;
        let _open = shared.gate.read().await;
        if !self.delivery.is_current(&self.claims) {
            return Err(Abandoned);
        }
        batch.begin_call();
        if self.delivery.sink.holds() {
            shared.held().announce(batch.id());
        }
        let started = Instant::now();
        let sink = &self.delivery.sink;
        let longest = sink.longest_step().unwrap_or(Duration::MAX);
        let pulse = shared
            .stalls
            .watch_calls("a call of the sink", longest, sink);
        pulse.turn();
        let answer = tokio::select! {
            biased;
            answer = sink.deliver(batch) => answer,
            _ = epoch.changed() => return Err(Abandoned),
        };
        drop(pulse);
        metrics::sink_request(started.elapsed(), answer.is_ok());
        if let Some(permit) = &mut permit {
            permit.answered(&answer, batch.bytes());
        }
        let takes_over = |answer: &Answer| answer.held && taken(batch, answer) > 0;
        if !answer.as_ref().is_ok_and(takes_over) {
            shared.held().withdraw(batch.id());
        }
        Ok(answer)
    }

    /// Waits until the sink may be called, where it adapts; gives up as soon as the batch is not this worker's any more.
    async fn enter(
        &self,
        epoch: &mut watch::Receiver<u64>,
    ) -> Result<Option<Permit<'d>>, Abandoned> {
        let delivery = self.delivery;
        let Some(limiter) = &delivery.shared.limiter else {
            return Ok(None);
        };
        let mut enter = pin!(limiter.enter());
        loop {
            tokio::select! {
                biased;
                permit = &mut enter => return Ok(Some(permit)),
                _ = epoch.changed() => return Err(Abandoned),
                () = tokio::time::sleep(LOOK) => if !delivery.is_current(&self.claims) {
                    return Err(Abandoned);
                },
            }
        }
    }

    /// Takes note of an answer; what is to be sent again remains in the batch, after a pause.
    async fn take(
        &mut self,
        batch: &mut Batch,
        answer: Answer,
        counted: &mut u64,
    ) -> Result<(), Abandoned> {
        let shared = &self.delivery.shared;
        let taken = taken(batch, &answer) as u64;
        let timestamps = taken_timestamps(batch, &answer);
        if answer.held {
            self.held += taken;
            shared.held().hold(batch.id(), taken, timestamps);
        } else {
            Ledger::add(&shared.ledger.delivered, taken);
            *counted += taken;
            shared.latency.record_all(now_ms(), &timestamps);
        }
        batch.reject(&answer.rejected);
        batch.retain(&answer.retry);
        shared.held_durable(&answer.durable);
        match answer.cause {
            Some(cause) if !answer.retry.is_empty() => self.pause(batch, cause).await,
            _ => {
                shared.troubles.all_is_well("sink");
                self.complaint = None;
                self.backoff.reset();
                Ok(())
            }
        }
    }

    /// Waits before the next attempt.
    async fn pause(&mut self, batch: &Batch, cause: Cause) -> Result<(), Abandoned> {
        let shared = &self.delivery.shared;
        let pause = self.backoff.next(jitter(), cause.after);
        shared.count_retry("sink", cause.reason);
        self.complaint
            .get_or_insert_with(|| shared.troubles.complaint("sink"))
            .tell(cause.detail.clone());
        debug!(
            reason = cause.reason,
            events = batch.len(),
            attempt = self.backoff.attempts(),
            "the batch is sent again in {} ms: {}",
            pause.as_millis(),
            cause.detail
        );
        let mut epoch = shared.epoch.subscribe();
        epoch.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = epoch.changed() => {}
        }
        if self.delivery.is_current(&self.claims) {
            Ok(())
        } else {
            Err(Abandoned)
        }
    }
}

/// How many events an answer delivers or holds.
fn taken(batch: &Batch, answer: &Answer) -> usize {
    batch.len() - answer.rejected.len() - answer.retry.len()
}

/// The record timestamps of the events that an answer delivers or holds; runs of the same one are counted together.
fn taken_timestamps(batch: &Batch, answer: &Answer) -> Timestamps {
    let timestamps = |(_, event): (usize, Event<'_>)| event.timestamp;
    let events = batch.events().enumerate();
    if answer.rejected.is_empty() && answer.retry.is_empty() {
        return count_runs(events.filter_map(timestamps));
    }
    let taken = events.filter(|(index, _)| {
        answer.retry.binary_search(index).is_err()
            && answer
                .rejected
                .binary_search_by_key(index, |rejected| rejected.index)
                .is_err()
    });
    count_runs(taken.filter_map(timestamps))
}

fn count_runs(timestamps: impl Iterator<Item = i64>) -> Timestamps {
    let mut runs = Timestamps::new();
    for timestamp in timestamps {
        match runs.last_mut() {
            Some((last, count)) if *last == timestamp => *count += 1,
            _ => runs.push((timestamp, 1)),
        }
    }
    runs
}
