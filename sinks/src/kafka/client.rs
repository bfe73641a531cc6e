//! What every Kafka client of the program shares: its properties from `kafka.*` (and `sink.kafka.*`), librdkafka's complaints about
//! them in our terms, and its log lines and errors.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use keystone_config::{Passthrough, Problem, Settings};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use super::progress::Progress;

/// `kafka.*`: the source cluster, also the default for the dead-letter topic and the Kafka sink.
pub const SOURCE_PREFIX: &str = "kafka.";
/// `sink.kafka.*`: the Kafka sink's own producer properties, laid over `kafka.*`.
pub const SINK_PREFIX: &str = "sink.kafka.";

/// librdkafka properties that hold secrets.
pub fn is_secret(name: &str) -> bool {
    name.contains("password")
        || name.contains("secret")
        || matches!(
            name,
            "ssl.key.pem" | "sasl.oauthbearer.config" | "sasl.jaas.config"
        )
        || name.ends_with(".private.key")
        || name.ends_with("passphrase")
}

/// `kafka.*` as the options table describes it.
pub const SOURCE_PASSTHROUGH: Passthrough = Passthrough {
    prefix: SOURCE_PREFIX,
    doc: "Any other [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), handed on as it is: \
          `kafka.security.protocol`, `kafka.sasl.mechanism`, `kafka.ssl.ca.location`, `kafka.group.instance.id` (static membership), …. \
          They hold for the consumer, for the dead-letter producer and, unless `sink.kafka.*` says otherwise, for the Kafka sink.",
    secret: is_secret,
    reserved: &[
        (
            "enable.auto.commit",
            "offsets are committed by the offset window only, after delivery",
        ),
        (
            "enable.auto.offset.store",
            "offsets are committed by the offset window only, after delivery",
        ),
        ("auto.offset.reset", "use source.start"),
        ("enable.partition.eof", "the worker has no use for it"),
        ("transactional.id", "it is the Kafka sink's to choose"),
    ],
};

/// `sink.kafka.*` as the options table describes it.
pub const SINK_PASSTHROUGH: Passthrough = Passthrough {
    prefix: SINK_PREFIX,
    doc: "Any other librdkafka producer property for the sink alone: another cluster (`sink.kafka.bootstrap.servers`), \
          `sink.kafka.compression.type`, `sink.kafka.partitioner`, `sink.kafka.message.max.bytes`, …. What is not set here is taken from `kafka.*`.",
    secret: is_secret,
    reserved: &[
        ("enable.idempotence", "the sink is always idempotent"),
        ("acks", "the sink always waits for all in-sync replicas"),
        (
            "request.required.acks",
            "the sink always waits for all in-sync replicas",
        ),
        ("transactional.id", "it is the sink's to choose"),
        (
            "statistics.interval.ms",
            "the sink tells by the statistics whether its producer stands still",
        ),
    ],
};

/// Which kind of client a set of properties is for. librdkafka warns of properties of the other kind, so each gets only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Producer,
}

const CONSUMER_ONLY: &[&str] = &[
    "group.",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "coordinator.query.interval.ms",
    "queued.",
    "fetch.",
    "max.partition.fetch.bytes",
    "isolation.level",
    "check.crcs",
    "client.rack",
];

const PRODUCER_ONLY: &[&str] = &[
    "compression.",
    "linger.ms",
    "queue.buffering.",
    "batch.",
    "acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "request.timeout.ms",
    "retries",
    "message.send.max.retries",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transaction.timeout.ms",
    "partitioner",
    "sticky.partitioning.linger.ms",
    "delivery.report.only.error",
];

fn belongs(role: Role, name: &str) -> bool {
    let other = match role {
        Role::Consumer => PRODUCER_ONLY,
        Role::Producer => CONSUMER_ONLY,
    };
    !other
        .iter()
        .any(|entry| name == *entry || (entry.ends_with('.') && name.starts_with(entry)))
}

/// The properties of a client: `defaults`, then those of each prefix in turn, then `fixed`.
pub fn properties(
    settings: &Settings,
    role: Role,
    prefixes: &[&str],
    defaults: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> ClientConfig {
    let mut merged: BTreeMap<String, String> = defaults
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    if let Some(servers) = settings.text("kafka.bootstrap.servers") {
        merged.insert("bootstrap.servers".to_owned(), servers.to_owned());
    }
    for prefix in prefixes {
        for (name, value) in settings.passthrough(prefix) {
            if belongs(role, &name) {
                merged.insert(name, value);
            }
        }
    }
    let mut config = ClientConfig::new();
    for (name, value) in merged {
        config.set(name, value);
    }
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    config
}

/// librdkafka's default of `socket.timeout.ms`: how long one request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A property in milliseconds, `default` (librdkafka's) where it is not set.
pub fn millis(config: &ClientConfig, name: &str, default: Duration) -> Duration {
    let set = config.get(name).and_then(|value| value.parse().ok());
    set.map_or(default, Duration::from_millis)
}

/// Asks librdkafka about each property below a prefix: every wrong name or value becomes a problem with our key and origin.
pub fn problems(settings: &Settings, prefix: &str) -> Vec<Problem> {
    settings
        .passthrough(prefix)
        .into_iter()
        .filter_map(|(name, value)| {
            let mut alone = ClientConfig::new();
            alone.set(&name, &value);
            let complaint = match alone.create_native_config() {
                Ok(_) => return None,
                Err(KafkaError::ClientConfig(_, complaint, _, _)) => complaint,
                Err(other) => other.to_string(),
            };
            let complaint = if is_secret(&name) {
                "librdkafka refuses this value".to_owned()
            } else {
                format!("librdkafka says: {complaint}")
            };
            Some(settings.problem(
                &format!("{prefix}{name}"),
                complaint,
                "see librdkafka's CONFIGURATION.md for its properties and their values",
            ))
        })
        .collect()
}

/// Takes a client's log lines and errors: into our log with the client's part in the route, and the last error for `/status`.
#[derive(Debug)]
pub struct Reporter {
    client: &'static str,
    /// Of a producer.
    pub progress: Progress,
    state: Mutex<ReporterState>,
}

#[derive(Debug, Default)]
struct ReporterState {
    /// The last error and when it came.
    last: Option<(Instant, String)>,
    /// When each kind of error was last logged: librdkafka repeats `AllBrokersDown` twenty times a second.
    logged: BTreeMap<String, Instant>,
}

/// The same kind of error is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Reporter {
    /// `client` is its part in the route: `consumer`, `dead letters`, `sink`.
    pub fn new(client: &'static str) -> Reporter {
        Reporter {
            client,
            progress: Progress::default(),
            state: Mutex::default(),
        }
    }

    /// The last error, if it came within `age`.
    pub fn recent_error(&self, age: Duration) -> Option<String> {
        let state = self.lock();
        let (at, text) = state.last.as_ref()?;
        (at.elapsed() < age).then(|| text.clone())
    }

    /// Forgets the last error: the client has since done its work.
    pub fn all_is_well(&self) {
        self.lock().last = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReporterState> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn due(&self, kind: &str) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        match state.logged.get(kind) {
            Some(at) if now.duration_since(*at) < LOG_INTERVAL => false,
            _ => {
                // Kinds are few (librdkafka's codes and facilities); the bound is for the unforeseen.
                if state.logged.len() > 200 {
                    state.logged.clear();
                }
                state.logged.insert(kind.to_owned(), now);
                true
            }
        }
    }
}

impl ClientContext for Reporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(client, facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                if self.due(facility) {
                    warn!(client, facility, "kafka client: {message}");
                }
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(client, facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Debug => debug!(client, facility, "kafka client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let kind = error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string());
        self.lock().last = Some((Instant::now(), format!("{kind}: {reason}")));
        if self.due(&kind) {
            warn!(
                client = self.client,
                "kafka client: {kind}: {reason}; it reconnects by itself"
            );
        }
    }
}

/// Whether Kafka refuses us for who we are: trying again will not help.
pub fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
    )
}
