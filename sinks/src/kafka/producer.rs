//! An idempotent producer that answers for a group of records together: who failed, and why. Used by the Kafka sink and by the
//! dead-letter topic.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::statistics::Statistics;
use tracing::warn;

use super::client::Reporter;
use super::complaints::told;
use super::groups::{Groups, Ticket};
use super::refusal::{is_consequence, remedy};
use super::search::{Search, is_suspect};

pub use super::groups::Failure;
use crate::lock;

/// What a record to be produced consists of.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    /// Milliseconds since the epoch; the producer's clock where there is none.
    pub timestamp: Option<i64>,
    pub headers: Option<OwnedHeaders>,
}

/// Collects headers in their order; `None` when there are none.
pub fn headers<'a>(all: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<OwnedHeaders> {
    all.fold(None, |headers: Option<OwnedHeaders>, (key, value)| {
        Some(headers.unwrap_or_default().insert(Header { key, value }))
    })
}

/// librdkafka's callbacks: delivery reports to their groups, the rest to the reporter.
pub struct Deliveries {
    reporter: Arc<Reporter>,
    groups: Arc<Groups>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reporter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.reporter.progress.look(&statistics);
    }
}

impl ProducerContext for Deliveries {
    /// The number of a [`Ticket`].
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let failed = result.as_ref().err();
        let code = failed.map(|(error, _)| code_of(error));
        self.groups.settle(Ticket::of(ticket), code);
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

pub(super) type Client = BaseProducer<Deliveries>;

/// See the module.
pub struct Producer {
    config: Mutex<ClientConfig>,
    reporter: Arc<Reporter>,
    groups: Arc<Groups>,
    client: Mutex<Arc<Client>>,
    /// Records enter librdkafka group by group, so that the order within a partition is the order of the groups.
    entrance: tokio::sync::Mutex<()>,
}

/// How long to wait for room in librdkafka's queue before looking again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for librdkafka to be rid of all records before looking again.
const DRAINED_PAUSE: Duration = Duration::from_millis(2);

impl Producer {
    /// Makes the producer; no connection is waited for.
    pub fn new(config: ClientConfig, client_name: &'static str) -> KafkaResult<Producer> {
        let reporter = Arc::new(Reporter::new(client_name));
        let groups = Arc::default();
        let client = Mutex::new(connect(&config, &reporter, &groups)?);
        Ok(Producer {
            config: Mutex::new(config),
            reporter,
            groups,
            client,
            entrance: tokio::sync::Mutex::new(()),
        })
    }

    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The client, for metadata requests.
    pub fn client(&self) -> Arc<Client> {
        lock(&self.client).clone()
    }

    #[cfg(test)]
    pub(super) fn property(&self, name: &str) -> Option<String> {
        lock(&self.config).get(name).map(str::to_owned)
    }

    /// Produces all records and waits until each is acknowledged by all in-sync replicas or has failed.
    /// Returns the failures in ascending order of index; what is not among them is durable.
    pub async fn send_all<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Vec<Failure> {
        let entered = self.entrance.lock().await;
        self.send_entered(records, entered).await
    }

    /// The producer to oneself, when it has nothing of anybody else's any more: no record of others gets into a batch.
    pub(super) async fn apart(&self) -> Apart<'_> {
        let entered = self.entrance.lock().await;
        while self.client().in_flight_count() > 0 {
            tokio::time::sleep(DRAINED_PAUSE).await;
        }
        Apart {
            producer: self,
            _entered: entered,
        }
    }

    /// Sends again, in halves (see [`search`](super::search)), what Kafka has refused with others: each of `failures` has the index of a
    /// record. Before each send `turn` is called. Returns what nothing else is to blame for, in ascending order of index, and, where batches
    /// are what Kafka refuses for their size, how many bytes they have from now on.
    pub async fn search<'a>(
        &self,
        failures: Vec<Failure>,
        record: impl Fn(usize) -> Outgoing<'a>,
        mut turn: impl FnMut(),
    ) -> (Vec<Failure>, Option<u64>) {
        let (suspects, mut remaining): (Vec<Failure>, Vec<Failure>) =
            failures.into_iter().partition(is_suspect);
        if suspects.is_empty() {
            return (remaining, None);
        }
        turn();
        let apart = self.apart().await;
        let mut search = Search::new(suspects.iter().map(|suspect| suspect.index).collect());
        let mut away = false;
        while let Some(group) = search.pop() {
            let mut failures = match away {
                false => {
                    turn();
                    apart
                        .send_all(group.iter().map(|index| record(*index)))
                        .await
                }
                // Others wait to have the producer: not for as long as it takes to find each group in vain.
                true => timed_out(group.len()),
            };
            away |= failures
                .iter()
                .any(|failure| failure.code == RDKafkaErrorCode::MessageTimedOut);
            for failure in &mut failures {
                failure.index = group[failure.index];
            }
            remaining.extend(search.answer(failures));
        }
        let size = match search.batches_are_too_large() {
            true => apart.halve_batches(),
            false => None,
        };
        remaining.sort_by_key(|failure| failure.index);
        (remaining, size)
    }

    /// What lets the records in is dropped as soon as they are.
    async fn send_entered<'a, T>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        entered: T,
    ) -> Vec<Failure> {
        let (mut entry, answered) = self.groups.open();
        let client = self.client();
        for record in records {
            match enter(&client, entry.ticket(), record).await {
                Ok(()) => entry.taken(),
                Err(code) => entry.refused(code),
            }
        }
        drop(entry);
        drop(entered);
        // One that is replaced meanwhile hands back what it still holds when nobody has it any more.
        let sent_by = Arc::downgrade(&client);
        drop(client);
        let mut failures = answered.await.expect("a group answers before it is gone");
        if failures.iter().any(|failure| is_consequence(failure.code))
            && let Some(client) = sent_by.upgrade()
        {
            self.look_for_end(&client, &mut failures);
        }
        if failures.is_empty() {
            self.reporter.all_is_well();
        }
        failures
    }

    /// A fatal error ends an idempotent producer (its sequence is broken): a new one takes over, the caller sends again. Where a new one
    /// would meet the same answer, the failures say so instead.
    fn look_for_end(&self, client: &Arc<Client>, failures: &mut [Failure]) {
        let Some((code, reason)) = client.client().fatal_error() else {
            return;
        };
        if remedy(code).is_some() {
            let consequences = failures.iter_mut();
            for failure in consequences.filter(|failure| is_consequence(failure.code)) {
                failure.code = code;
            }
        } else if Arc::ptr_eq(client, &self.client()) {
            warn!("the kafka producer met a fatal error and is replaced: {code}: {reason}");
            self.replace();
        }
    }

    /// A new producer takes over.
    pub(super) fn replace(&self) {
        let config = lock(&self.config).clone();
        match connect(&config, &self.reporter, &self.groups) {
            Ok(new) => {
                let old = std::mem::replace(&mut *lock(&self.client), new);
                // Where it is the last reference, what it still held fails now, which may take its time.
                drop(old);
            }
            Err(error) => warn!("the kafka producer could not be replaced: {}", told(&error)),
        }
    }
}

/// A group of which nothing was sent.
fn timed_out(count: usize) -> Vec<Failure> {
    let failure = |index| Failure {
        index,
        code: RDKafkaErrorCode::MessageTimedOut,
        entered: false,
    };
    (0..count).map(failure).collect()
}

/// See [`Producer::apart`].
pub(super) struct Apart<'a> {
    producer: &'a Producer,
    _entered: tokio::sync::MutexGuard<'a, ()>,
}

impl Apart<'_> {
    pub(super) async fn send_all<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
    ) -> Vec<Failure> {
        self.producer.send_entered(records, ()).await
    }

    /// Has produce batches of half the size from now on, from a new producer. Returns that size in bytes; `None` where it can't be halved:
    /// each record is a batch.
    pub(super) fn halve_batches(&self) -> Option<u64> {
        let half = {
            let mut config = lock(&self.producer.config);
            let size = config.get(BATCH).and_then(|size| size.parse().ok());
            let half = size.unwrap_or(LARGEST_BATCH) / 2;
            if half == 0 {
                return None;
            }
            config.set(BATCH, half.to_string());
            half
        };
        self.producer.replace();
        Some(half)
    }
}

/// How many bytes of records a produce batch may have, and librdkafka's own value for it.
const BATCH: &str = "batch.size";
const LARGEST_BATCH: u64 = 1_000_000;

/// How long the thread that serves a producer's callbacks waits for one at a time, and how long it outlives the producer's last user.
/// rdkafka spins through the last millisecond of each wait; its own `ThreadedProducer`, which waits for 100 ms, so takes up to a
/// hundredth of a core where nothing is produced.
const POLL: Duration = Duration::from_secs(1);

fn connect(
    config: &ClientConfig,
    reporter: &Arc<Reporter>,
    groups: &Arc<Groups>,
) -> KafkaResult<Arc<Client>> {
    let context = Deliveries {
        reporter: reporter.clone(),
        groups: groups.clone(),
    };
    let client = Arc::new(Client::from_config_and_context(config, context)?);
    let served = Arc::downgrade(&client);
    let serve = move || {
        while let Some(client) = served.upgrade() {
            client.poll(POLL);
        }
    };
    std::thread::Builder::new()
        .name("kafka producer".to_owned())
        .spawn(serve)
        .map_err(|error| {
            KafkaError::ClientCreation(format!("starting the thread of a producer: {error}"))
        })?;
    Ok(client)
}

/// Puts one record into librdkafka's queue, waiting while it is full.
async fn enter(
    client: &Client,
    ticket: Ticket,
    record: Outgoing<'_>,
) -> Result<(), RDKafkaErrorCode> {
    let mut base: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(record.topic, ticket.number());
    base.key = record.key;
    base.payload = record.payload;
    base.timestamp = record.timestamp;
    base.headers = record.headers;
    loop {
        match client.send(base) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                base = back;
                tokio::time::sleep(QUEUE_FULL_PAUSE).await;
            }
            Err((error, _)) => return Err(code_of(&error)),
        }
    }
}
