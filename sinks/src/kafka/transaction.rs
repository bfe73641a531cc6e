//! The Kafka sink in transactions: events, and the offsets that they were read from, become visible together or not at all.
//!
//! One producer a worker with one transaction at a time: the consumer is one, too, and so is its place in the group. The transaction opens
//! with the first event, and [`Sink::commit`] ends it with the offsets. A transaction that fails in any part is aborted as a whole and its
//! events are read again ([`SinkError::Rewind`]). What fences a worker that the group has thrown out is its membership, which goes with
//! the offsets (KIP-447), not the transactional id: that is the worker's own, so that no two live ones share it.
//!
//! Kafka's refusal of one record ends the whole transaction. To find out which record it was, the suspects are sent once more in
//! transactions that are aborted, halved until one is refused alone; it is remembered, and is a dead letter when it is read again. Where
//! it is the batches of records that Kafka refuses, they get smaller.

mod settings;
mod stage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OwnedMutexGuard;
use tracing::{debug, warn};

use super::producer::Failure;
use super::refusal::is_consequence;
use super::search::{Search, is_suspect};
use super::target::Target;
use crate::{
    Answer, Batch, BatchId, BoxFuture, Cause, Event, Joint, JointCommit, Rejected, Sink, SinkError,
    SinkState, lock,
};

pub(super) use settings::{id, problems};
use stage::{Commit, Failed, Stage, classify, unknown};

/// How long a call to the transaction coordinator may take before the worker looks around. (Sending the offsets may take until
/// librdkafka's own request timeout on top, which is that of the transaction.)
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a tick may wait for the coordinator.
const TICK: Duration = Duration::from_secs(1);
/// How long the search for refused events may take at a time.
const PROBE: Duration = Duration::from_secs(30);
/// Events that Kafka has refused and that were not read again yet.
const MAX_REFUSED: usize = 10_000;

/// When a transaction is to be committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_events: u64,
    pub(super) max_age: Duration,
    /// Kafka ends a transaction at this age.
    pub(super) timeout: Duration,
}

/// Where an event was read.
type Place = (Arc<str>, i32, i64);

pub(super) struct TransactionalSink {
    target: Target,
    bounds: Bounds,
    stage: Arc<tokio::sync::Mutex<Stage>>,
    /// Events in the open transaction, and when it was opened.
    events: AtomicU64,
    opened: Mutex<Option<Instant>>,
    /// Events of a broken transaction that may be the ones that Kafka refuses; looked into when it has been aborted.
    suspects: Mutex<Vec<Batch>>,
    /// Found out by `probe`.
    refused: Mutex<HashMap<Place, String>>,
}

impl TransactionalSink {
    pub(super) fn new(target: Target, bounds: Bounds) -> TransactionalSink {
        TransactionalSink {
            target,
            bounds,
            stage: Arc::new(tokio::sync::Mutex::new(Stage::new())),
            events: AtomicU64::new(0),
            opened: Mutex::default(),
            suspects: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Waits for its turn: whoever had the one before is done.
    async fn stage(&self) -> OwnedMutexGuard<Stage> {
        let stage = self.stage.clone().lock_owned().await;
        self.target.producer.reporter().progress.step();
        stage
    }

    /// Opens a transaction where none is open.
    async fn begin(&self) -> Result<(), SinkError> {
        let mut stage = self.stage().await;
        stage.usable()?;
        if stage.commit != Commit::Not {
            return Err(SinkError::Retry(Cause {
                reason: "committing",
                detail: "a transaction waits for Kafka to commit it".to_owned(),
                after: None,
            }));
        }
        if stage.open {
            return Ok(());
        }
        let client = self.target.producer.client();
        let begun = blocking(move || {
            let begun = stage.begin(&client);
            (stage, begun)
        });
        let (stage, begun) = begun.await?;
        match begun {
            Ok(()) => {
                *lock(&self.opened) = Some(Instant::now());
                Ok(())
            }
            Err(error) => Err(self.failed(stage, error, "begun")),
        }
    }

    /// Turns a failed call into an answer, and marks the transaction.
    fn failed(
        &self,
        mut stage: OwnedMutexGuard<Stage>,
        error: KafkaError,
        verb: &str,
    ) -> SinkError {
        let cause = |reason, error: &KafkaError| Cause {
            reason,
            detail: format!(
                "a transaction for topic {} was not {verb}: {error}",
                self.target.topic
            ),
            after: None,
        };
        match classify(error) {
            Failed::Again(error) => SinkError::Retry(cause("transaction", &error)),
            Failed::Refused(code, error) => self
                .target
                .refusal(code, &error.to_string())
                .unwrap_or_else(|| SinkError::Retry(cause("transaction", &error))),
            Failed::Ended(error) => {
                if stage.commit == Commit::Asked {
                    return SinkError::Fatal(unknown(&error.to_string()));
                }
                self.target.producer.replace();
                let cause = cause("producer_ended", &error);
                let had_events = stage.open;
                stage.forget();
                if !had_events {
                    return SinkError::Retry(cause);
                }
                stage.broken = Some(cause.clone());
                SinkError::Rewind(cause)
            }
            Failed::Abort(error) => {
                // A record that failed is found out before Kafka is asked; after any other error it may have done it.
                let before = matches!(&error, KafkaError::Transaction(detail) if detail.code() == RDKafkaErrorCode::Inconsistent);
                if stage.commit == Commit::Asked && !before {
                    stage.commit = Commit::Unknown;
                    return SinkError::Fatal(unknown(&error.to_string()));
                }
                let cause = cause("transaction_failed", &error);
                stage.commit = Commit::Not;
                stage.broken = Some(cause.clone());
                SinkError::Rewind(cause)
            }
        }
    }

    /// Splits a batch into events to send and those that Kafka has refused before.
    fn known(&self, batch: &Batch) -> (Vec<usize>, Vec<Rejected>) {
        let refused = lock(&self.refused);
        if refused.is_empty() {
            return ((0..batch.len()).collect(), Vec::new());
        }
        let (mut send, mut rejected) = (Vec::new(), Vec::new());
        for (index, event) in batch.events().enumerate() {
            match refused.get(&place(&event)) {
                Some(reason) => rejected.push(Rejected {
                    index,
                    reason: reason.clone(),
                }),
                None => send.push(index),
            }
        }
        (send, rejected)
    }

    async fn deliver_batch(&self, batch: &Batch) -> Result<Answer, SinkError> {
        let (send, mut rejected) = self.known(batch);
        if send.is_empty() {
            return Ok(Answer {
                rejected,
                ..Answer::done()
            });
        }
        self.begin().await?;
        self.events.fetch_add(send.len() as u64, Ordering::Relaxed);
        let failures = self.target.send(batch, send.iter().copied()).await;
        // An event that librdkafka refuses at once has not touched the transaction; any other failure has.
        for Failure {
            index,
            code,
            entered,
        } in &failures
        {
            match self.target.reject_reason(*code, batch.event(*index)) {
                Some(reason) if !entered => rejected.push(Rejected {
                    index: *index,
                    reason,
                }),
                _ => return Err(self.break_up(batch, failures).await),
            }
        }
        rejected.sort_by_key(|rejected| rejected.index);
        Ok(Answer {
            rejected,
            held: true,
            ..Answer::done()
        })
    }

    /// The error behind the failures, which broke the transaction.
    async fn why(
        &self,
        failures: &[Failure],
    ) -> Result<(OwnedMutexGuard<Stage>, RDKafkaErrorCode), SinkError> {
        let stage = self.stage().await;
        let mut codes = failures.iter().map(|failure| failure.code);
        if let Some(own) = codes.find(|code| !is_consequence(*code)) {
            return Ok((stage, own));
        }
        // All were handed back: another one is to blame, or the topic was refused before anything was sent.
        let asked = blocking(move || {
            let code = stage.broken_by();
            (stage, code)
        });
        let (stage, code) = asked.await?;
        Ok((stage, code.unwrap_or(failures[0].code)))
    }

    /// A record has failed, and with it the transaction: finds out why, and which events Kafka will never take.
    async fn break_up(&self, batch: &Batch, failures: Vec<Failure>) -> SinkError {
        let (mut stage, code) = match self.why(&failures).await {
            Ok(found) => found,
            Err(error) => return error,
        };
        let cause = self.target.cause(code);
        stage.broken.get_or_insert(cause.clone());
        drop(stage);
        if let Some(refusal) = self.target.refusal(code, &code.to_string()) {
            return refusal;
        }
        let suspects: Vec<usize> = failures
            .iter()
            .filter(|failure| is_suspect(failure))
            .map(|failure| failure.index)
            .collect();
        if !suspects.is_empty() {
            lock(&self.suspects).push(batch.select(&suspects));
        }
        SinkError::Rewind(cause)
    }

    /// Sends the suspects in transactions that are aborted, halved until one is refused alone (see [`search`](super::search)), or until it
    /// shows that their batches are what Kafka refuses.
    async fn probe(&self) -> KafkaResult<()> {
        let suspects = std::mem::take(&mut *lock(&self.suspects));
        if suspects.is_empty() {
            return Ok(());
        }
        let apart = self.target.producer.apart().await;
        for batch in suspects {
            let mut search = Search::new((0..batch.len()).collect());
            while let Some(group) = search.pop() {
                self.renew_transaction(true).await?;
                let failures = self.target.send_apart(&apart, &batch, group).await;
                self.renew_transaction(false).await?;
                for Failure { index, code, .. } in search.answer(failures) {
                    self.remember(batch.event(index), code);
                }
                if search.batches_are_too_large() {
                    // Smaller ones may be taken as they are: there is no more to be found out before they are sent.
                    self.target.halve_batches(&apart);
                    self.stage().await.forget();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Aborts what is open, and opens a transaction that will be aborted.
    async fn renew_transaction(&self, open: bool) -> KafkaResult<()> {
        let mut stage = self.stage().await;
        let client = self.target.producer.client();
        let done = tokio::task::spawn_blocking(move || {
            stage.abort()?;
            if open { stage.begin(&client) } else { Ok(()) }
        });
        done.await.unwrap_or(Err(KafkaError::Canceled))
    }

    fn remember(&self, event: Event<'_>, code: RDKafkaErrorCode) {
        let Some(reason) = self.target.reject_reason(code, event) else {
            return;
        };
        debug!(
            topic = event.topic,
            partition = event.partition,
            offset = event.offset,
            "{reason}"
        );
        let mut refused = lock(&self.refused);
        // A commit forgets those that it covers; where none comes, the older ones have become dead letters long ago, or are found out again.
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(place(&event), reason);
    }

    async fn commit_with(&self, joint: Arc<JointCommit>) -> Result<(), SinkError> {
        let mut stage = self.stage().await;
        stage.usable()?;
        if stage.commit == Commit::Not && joint.number <= stage.last {
            return Err(SinkError::Rewind(Cause {
                reason: "given_up",
                detail: "the transaction of this commit was aborted".to_owned(),
                after: None,
            }));
        }
        stage.last = joint.number;
        let Some(client) = stage.client.clone().filter(|_| stage.open) else {
            return Err(SinkError::Rewind(Cause {
                reason: "no_transaction",
                detail: "the transaction of these events is gone".to_owned(),
                after: None,
            }));
        };
        let covered = joint.offsets.clone();
        let done = blocking(move || {
            let done = stage.commit(&client, &joint);
            (stage, done)
        });
        let (stage, done) = done.await?;
        match done {
            Ok(()) => {
                self.reset();
                lock(&self.refused).retain(|place, _| !is_covered(place, &covered));
                Ok(())
            }
            Err(error) => Err(self.failed(stage, error, "committed")),
        }
    }

    /// Aborts the open transaction; `false` where it may be committed.
    async fn abort_open(&self) -> bool {
        let mut stage = self.stage().await;
        if matches!(stage.commit, Commit::Asked | Commit::Unknown) {
            stage.commit = Commit::Unknown;
            return false;
        }
        let aborted = blocking(move || {
            let aborted = stage.abort();
            (stage, aborted)
        });
        let Ok((mut stage, aborted)) = aborted.await else {
            return false;
        };
        if let Err(error) = aborted {
            // A new producer with the same id has Kafka abort what this one left open.
            warn!("a transaction could not be aborted: {error}; the producer is replaced");
            self.target.producer.replace();
            stage.forget();
        }
        stage.broken = None;
        self.reset();
        true
    }

    /// Drops what is held, then finds out which events Kafka refuses.
    async fn drop_held(&self) {
        let usable = self.abort_open().await;
        if !usable {
            return;
        }
        match tokio::time::timeout(PROBE, self.probe()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(
                    "which event kafka refuses could not be found out: {error}; it is tried again"
                );
            }
            Err(_) => warn!(
                "which events kafka refuses was not found out within {} s; it is tried again",
                PROBE.as_secs()
            ),
        }
        self.abort_open().await;
    }

    fn reset(&self) {
        self.events.store(0, Ordering::Relaxed);
        *lock(&self.opened) = None;
    }
}

/// Runs a call of librdkafka that blocks. It is not cut off where the caller is: what it holds is released when it ends.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(call).await.map_err(|error| {
        SinkError::Fatal(format!("a call of the kafka producer broke off: {error}"))
    })
}

/// Whether these offsets are beyond the place.
fn is_covered((topic, partition, offset): &Place, offsets: &TopicPartitionList) -> bool {
    let found = offsets.find_partition(topic, *partition);
    found.is_some_and(|found| matches!(found.offset(), Offset::Offset(next) if next > *offset))
}

fn place(event: &Event<'_>) -> Place {
    (event.topic.into(), event.partition, event.offset)
}

impl Sink for TransactionalSink {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(self.deliver_batch(batch))
    }

    /// A commit sends the offsets, which may take as long as a transaction on top, and ends the transaction.
    fn longest_step(&self) -> Option<Duration> {
        Some(self.target.longest_step + self.bounds.timeout + 2 * PATIENCE)
    }

    fn steps(&self) -> u64 {
        self.target.producer.reporter().progress.steps()
    }

    fn holds(&self) -> bool {
        true
    }

    fn joint(&self) -> Option<Joint> {
        Some(Joint::Transaction)
    }

    fn commit_due(&self) -> bool {
        self.events.load(Ordering::Relaxed) >= self.bounds.max_events
            || lock(&self.opened).is_some_and(|opened| opened.elapsed() >= self.bounds.max_age)
    }

    fn commit(&self, joint: Arc<JointCommit>) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(self.commit_with(joint))
    }

    /// Initialises the producer early: an open transaction of its predecessor keeps the group's offsets from being read, and so the worker
    /// from being assigned anything.
    fn tick(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        Box::pin(async {
            let mut stage = self.stage().await;
            if stage.client.is_none() {
                let client = self.target.producer.client();
                let done = blocking(move || stage.initialise(&client, TICK)).await?;
                // Where it fails, the next tick goes on with it, and a delivery says why. What needs no delivery to be known ends the worker.
                if let Err(error) = done
                    && let Failed::Refused(code, error) = classify(error)
                    && let Some(refusal) = self.target.refusal(code, &error.to_string())
                {
                    return Err(refusal);
                }
            }
            Ok(Vec::new())
        })
    }

    fn abandon(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.drop_held())
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.target.check())
    }

    fn state(&self) -> SinkState {
        self.target.state()
    }
}
