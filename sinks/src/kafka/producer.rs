//! An idempotent producer that answers for a group of records together: who failed, and why. Used by the Kafka sink and by the
//! dead-letter topic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::statistics::Statistics;
use tokio::sync::Notify;
use tracing::warn;

use super::client::Reporter;

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

/// A record that was not produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the group.
    pub index: usize,
    pub code: RDKafkaErrorCode,
    /// It was handed to librdkafka, and Kafka may have seen it; else it was refused at once and touched nothing.
    pub entered: bool,
}

/// The state of one group of records on its way.
#[derive(Debug, Default)]
struct Group {
    outstanding: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    done: Notify,
}

impl Group {
    fn fail(&self, failure: Failure) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(failure);
    }

    fn finish_one(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn wait(&self) -> Vec<Failure> {
        while self.outstanding.load(Ordering::Acquire) > 0 {
            // `notify_one` leaves a permit, so a notification between the check and this line is not missed.
            self.done.notified().await;
        }
        let mut failures =
            std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        failures.sort_by_key(|failure| failure.index);
        failures
    }
}

/// Travels with each record through librdkafka.
pub struct Ticket {
    group: Arc<Group>,
    index: usize,
}

/// librdkafka's callbacks: delivery reports to their groups, the rest to the reporter.
pub struct Deliveries {
    reporter: Arc<Reporter>,
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
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            ticket.group.fail(Failure {
                index: ticket.index,
                code,
                entered: true,
            });
        }
        ticket.group.finish_one();
    }
}

pub(super) type Client = BaseProducer<Deliveries>;

/// See the module.
pub struct Producer {
    config: ClientConfig,
    reporter: Arc<Reporter>,
    client: Mutex<Arc<Client>>,
    /// Records enter librdkafka group by group, so that the order within a partition is the order of the groups.
    entrance: tokio::sync::Mutex<()>,
}

/// How long to wait for room in librdkafka's queue before looking again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

impl Producer {
    /// Makes the producer; no connection is waited for.
    pub fn new(config: ClientConfig, client_name: &'static str) -> KafkaResult<Producer> {
        let reporter = Arc::new(Reporter::new(client_name));
        let client = Mutex::new(connect(&config, &reporter)?);
        Ok(Producer {
            config,
            reporter,
            client,
            entrance: tokio::sync::Mutex::new(()),
        })
    }

    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The client, for metadata requests.
    pub fn client(&self) -> Arc<Client> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Produces all records and waits until each is acknowledged by all in-sync replicas or has failed.
    /// Returns the failures in ascending order of index; what is not among them is durable.
    pub async fn send_all<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Vec<Failure> {
        let group = Arc::new(Group::default());
        // One for this call itself: the group can't be done before all have entered.
        group.outstanding.store(1, Ordering::Release);
        {
            let _entered = self.entrance.lock().await;
            let client = self.client();
            for (index, record) in records.enumerate() {
                group.outstanding.fetch_add(1, Ordering::AcqRel);
                if let Err(code) = enter(&client, &group, index, record).await {
                    group.fail(Failure {
                        index,
                        code,
                        entered: false,
                    });
                    group.finish_one();
                }
            }
        }
        group.finish_one();
        let failures = group.wait().await;
        if failures
            .iter()
            .any(|failure| failure.code == RDKafkaErrorCode::Fatal)
        {
            self.renew();
        }
        if failures.is_empty() {
            self.reporter.all_is_well();
        }
        failures
    }

    /// A fatal error ends an idempotent producer (its sequence is broken): a new one takes over, the caller sends again.
    fn renew(&self) {
        let fatal = self.client().client().fatal_error();
        if let Some((code, reason)) = fatal {
            warn!("the kafka producer met a fatal error and is replaced: {code}: {reason}");
            self.replace();
        }
    }

    /// A new producer takes over.
    pub(super) fn replace(&self) {
        match connect(&self.config, &self.reporter) {
            Ok(new) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = new,
            Err(error) => warn!("the kafka producer could not be replaced: {error}"),
        }
    }
}

/// How long the thread that serves a producer's callbacks waits for one at a time, and how long it outlives the producer's last user.
/// rdkafka spins through the last millisecond of each wait; its own `ThreadedProducer`, which waits for 100 ms, so takes up to a
/// hundredth of a core where nothing is produced.
const POLL: Duration = Duration::from_secs(1);

fn connect(config: &ClientConfig, reporter: &Arc<Reporter>) -> KafkaResult<Arc<Client>> {
    let context = Deliveries {
        reporter: reporter.clone(),
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
    group: &Arc<Group>,
    index: usize,
    record: Outgoing<'_>,
) -> Result<(), RDKafkaErrorCode> {
    let ticket = Box::new(Ticket {
        group: group.clone(),
        index,
    });
    let mut base: BaseRecord<'_, [u8], [u8], Box<Ticket>> =
        BaseRecord::with_opaque_to(record.topic, ticket);
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
            Err((error, _)) => {
                return Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
            }
        }
    }
}
