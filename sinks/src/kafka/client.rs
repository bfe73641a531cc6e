//! What every Kafka client of the program shares: its properties from `kafka.*` (and `sink.kafka.*`), librdkafka's complaints about
//! them in our terms, and its log lines and errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use keystone_config::{Passthrough, Problem, Settings};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use super::complaints::told;
use super::progress::Progress;
pub use super::servers::{check_servers, without_credentials};

/// `kafka.*`: the source cluster, also the default for the dead-letter topic and the Kafka sink.
pub const SOURCE_PREFIX: &str = "kafka.";
/// `sink.kafka.*`: the Kafka sink's own producer properties, laid over `kafka.*`.
pub const SINK_PREFIX: &str = "sink.kafka.";

/// librdkafka properties that hold secrets, and names that it does not know and that look as if: those of Java's clients, and slips.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], ".");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let ends = |words: &[&str]| words.iter().any(|word| name.ends_with(word));
    has(&["pass", "pwd", "secret", "credential", "jaas", "api.key"])
        || (has(&["private.key", "token"]) && !ends(&[".file", ".location", ".url"]))
        || ends(&[".key", ".pem", "oauthbearer.config"]) && !has(&["certificate", "ssl.ca."])
}

/// rdkafka sets its own. These would only make the check of the properties start librdkafka's background thread.
const EVENTS: (&str, &str) = (
    "enabled_events",
    "which events librdkafka tells of is the worker's to choose",
);

const REPORTS: (&str, &str) = (
    "delivery.report.only.error",
    "events count as delivered when librdkafka reports their success",
);

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
        ("fetch.min.bytes", "use source.fetch.min.bytes"),
        ("fetch.wait.max.ms", "use source.fetch.max.wait.ms"),
        ("enable.partition.eof", "the worker has no use for it"),
        ("transactional.id", "it is the Kafka sink's to choose"),
        REPORTS,
        EVENTS,
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
        REPORTS,
        (
            "statistics.interval.ms",
            "the sink tells by the statistics whether its producer stands still",
        ),
        EVENTS,
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

/// librdkafka's other names of properties, each with the one that is used here. Of two names of one property it takes the one that it is
/// told last, and a [`ClientConfig`] has no order.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("message.send.max.retries", "retries"),
    ("request.required.acks", "acks"),
];

/// Those that are options of their own.
const OPTIONS: [&str; 2] = ["kafka.bootstrap.servers", "sink.kafka.linger.ms"];

/// The one name of a property.
pub(super) fn one_name(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, one)| one)
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
            let name = one_name(&name);
            if belongs(role, name) {
                merged.insert(name.to_owned(), value);
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

const SERVERS: &str = "bootstrap.servers";

/// Whether the Kafka sink writes to the cluster that the route reads from, as far as the addresses tell: the sink has none of its own, or
/// shares one.
pub fn same_cluster(settings: &Settings) -> bool {
    let sink = servers(settings, SINK_PREFIX);
    sink.is_empty() || !sink.is_disjoint(&servers(settings, SOURCE_PREFIX))
}

/// The brokers set below a prefix, in one form.
fn servers(settings: &Settings, prefix: &str) -> BTreeSet<String> {
    let own = settings.passthrough(prefix).into_iter();
    let own = own.filter(|(name, _)| one_name(name) == SERVERS);
    let mut lists: Vec<String> = own.map(|(_, value)| value).collect();
    if prefix == SOURCE_PREFIX {
        lists.extend(settings.text("kafka.bootstrap.servers").map(str::to_owned));
    }
    let all = lists.iter().flat_map(|list| list.split(','));
    all.map(address)
        .filter(|address| !address.is_empty())
        .collect()
}

/// `PLAINTEXT://Host` as `host:9092`: librdkafka's default port.
fn address(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let text = text.split_once("://").map_or(&*text, |(_, rest)| rest);
    let port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    match port || text.is_empty() {
        true => text.to_owned(),
        false => format!("{text}:9092"),
    }
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
    let all = settings.passthrough(prefix);
    let is_set = |name: &str| {
        OPTIONS.contains(&&*format!("{prefix}{name}")) || all.iter().any(|(other, _)| other == name)
    };
    all.iter()
        .filter_map(|(name, value)| {
            if let Err((problem, hint)) = unfit(name, value) {
                return Some(settings.problem(&format!("{prefix}{name}"), problem, hint));
            }
            let one = one_name(name);
            if one != name.as_str() && is_set(one) {
                return Some(settings.problem(
                    &format!("{prefix}{name}"),
                    format!("it is another name of {prefix}{one}"),
                    "set that one alone",
                ));
            }
            let mut alone = ClientConfig::new();
            alone.set(name, value);
            let complaint = match alone.create_native_config() {
                Ok(_) => return None,
                Err(error) => told(&error),
            };
            // That a name is unknown says nothing of its value.
            let complaint = if is_secret(name) && !complaint.starts_with("No such") {
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

const MECHANISMS: &str =
    "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or certificates (kafka.security.protocol = SSL)";

/// What librdkafka takes and can't be meant.
fn unfit(name: &str, value: &str) -> Result<(), (String, &'static str)> {
    let number = || value.trim().parse::<u64>();
    match one_name(name) {
        SERVERS => check_servers(value).map_err(|problem| (problem, "a list of `host:port`")),
        "group.id" if value.trim().is_empty() => Err((
            "it is empty, and offsets are committed for a consumer group".to_owned(),
            "name the group, or leave the option out: the group is named as the route then",
        )),
        "sasl.mechanism" if value.trim().eq_ignore_ascii_case("OAUTHBEARER") => Err((
            "this program can't fetch tokens, and would wait for one for ever".to_owned(),
            MECHANISMS,
        )),
        "sasl.mechanism" if value.trim().eq_ignore_ascii_case("GSSAPI") => Err((
            "this program is built without Kerberos".to_owned(),
            MECHANISMS,
        )),
        "statistics.interval.ms" if !number().is_ok_and(|ms| (1..=60_000).contains(&ms)) => Err((
            "lag, expired events and the end of an outage are learned from the statistics"
                .to_owned(),
            "1 to 60000, or leave the option out: 2000",
        )),
        _ => Ok(()),
    }
}

/// Takes a client's log lines and errors: into our log with the client's part in the route, and the last error for `/status`.
#[derive(Debug)]
pub struct Reporter {
    client: &'static str,
    /// Whether a producer gets anywhere; a consumer leaves it as it is.
    pub progress: Progress,
    state: Mutex<ReporterState>,
}

#[derive(Debug, Default)]
struct ReporterState {
    /// Of the last errors the one that says most.
    last: Option<Told>,
    /// When each kind of error was last logged: librdkafka repeats `AllBrokersDown` twenty times a second.
    logged: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// When an error came last, this one or one that says less: the trouble lasts.
    seen: Instant,
    says: u8,
    text: String,
}

/// How much an error says: a refused password is followed by a connection that is gone, and that by all brokers that are down.
fn says(error: &KafkaError) -> u8 {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) => 0,
        Some(RDKafkaErrorCode::BrokerTransportFailure) => 1,
        _ => 2,
    }
}

/// An error that says less than another does not take its place within this time.
const ECHO: Duration = Duration::from_secs(60);

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

    /// The error that says most, if any came within `age`.
    pub fn recent_error(&self, age: Duration) -> Option<String> {
        self.error_within(age, Instant::now())
    }

    fn error_within(&self, age: Duration, now: Instant) -> Option<String> {
        let state = self.lock();
        let last = state.last.as_ref()?;
        let is_recent = now.saturating_duration_since(last.seen) < age;
        is_recent.then(|| last.text.clone())
    }

    /// Forgets the last error: the client has since done its work.
    pub fn all_is_well(&self) {
        self.lock().last = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReporterState> {
        crate::lock(&self.state)
    }

    fn remember(&self, error: &KafkaError, text: String, now: Instant) {
        let says = says(error);
        let mut state = self.lock();
        match &mut state.last {
            Some(last) if last.says > says && now.saturating_duration_since(last.at) < ECHO => {
                last.seen = now;
            }
            last => {
                let (at, seen) = (now, now);
                *last = Some(Told {
                    at,
                    seen,
                    says,
                    text,
                });
            }
        }
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
        self.remember(&error, format!("{kind}: {reason}"), Instant::now());
        if self.due(&kind) {
            warn!(
                client = self.client,
                "kafka client: {kind}: {reason}; it reconnects by itself"
            );
        }
    }
}

/// Of a consumer that is in no group.
impl ConsumerContext for Reporter {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers_are_compared_in_one_form() {
        for text in ["Host", " host:9092 ", "PLAINTEXT://host:9092", "SSL://HOST"] {
            assert_eq!(address(text), "host:9092");
        }
        assert_eq!(address("[::1]:9093"), "[::1]:9093");
        assert_eq!(address("[::1]"), "[::1]:9092");
        assert_eq!(address(""), "");
    }

    #[test]
    fn the_error_that_says_most_is_remembered() {
        use RDKafkaErrorCode as Code;
        let reporter = Reporter::new("test");
        for (code, remembered) in [
            (Code::AllBrokersDown, "AllBrokersDown"),
            (Code::BrokerTransportFailure, "BrokerTransportFailure"),
            (Code::Authentication, "Authentication"),
            (Code::BrokerTransportFailure, "Authentication"),
            (Code::AllBrokersDown, "Authentication"),
            (Code::Resolve, "Resolve"),
        ] {
            reporter.error(KafkaError::Global(code), remembered);
            let last = reporter.recent_error(ECHO).expect("an error");
            assert!(last.ends_with(remembered), "{last}");
        }
    }

    #[test]
    fn properties_that_hold_secrets_are_known() {
        for secret in [
            "sasl.password",
            "ssl.key.pem",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            // Names that librdkafka does not know.
            "sasl.passwd",
            "SASL.PASSWORD",
            "ssl_key_pem",
            "sasl_password",
            "ssl.keystore.key",
            "sasl.jaas.config",
            "sasl.token",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in [
            "sasl.oauthbearer.assertion.private.key.file",
            "ssl.key.location",
            "ssl.keystore.location",
            "ssl.certificate.pem",
            "ssl.ca.pem",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.kerberos.keytab",
            "sasl.username",
        ] {
            assert!(!is_secret(plain), "{plain}");
        }
    }

    /// librdkafka tells each kind of error again only now and then.
    #[test]
    fn an_error_that_says_less_keeps_the_other_one_recent() {
        use RDKafkaErrorCode as Code;
        let (reporter, start) = (Reporter::new("test"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let say = |code: Code, text: &str, now| {
            reporter.remember(&KafkaError::Global(code), text.to_owned(), now);
        };
        let told = |now| reporter.error_within(ECHO, now);
        say(Code::RequestTimedOut, "timed out", at(0));
        say(Code::BrokerTransportFailure, "refused", at(35));
        assert_eq!(told(at(70)).as_deref(), Some("timed out"));
        assert_eq!(told(at(95)), None);
        // The cause of the trouble before that is not that of a new one.
        say(Code::BrokerTransportFailure, "refused again", at(95));
        assert_eq!(told(at(95)).as_deref(), Some("refused again"));
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        assert!(unfit("group.id", " ").is_err());
        assert!(unfit("group.id", "g").is_ok() && unfit("client.rack", "").is_ok());
        for name in [SERVERS, "metadata.broker.list"] {
            assert!(unfit(name, "u:p@b").is_err() && unfit(name, "b").is_ok());
        }
        for name in ["sasl.mechanism", "sasl.mechanisms"] {
            assert!(unfit(name, "OAuthBearer").is_err() && unfit(name, "GSSAPI").is_err());
            assert!(unfit(name, "PLAIN").is_ok());
        }
        for value in ["0", "60001", "x"] {
            assert!(unfit("statistics.interval.ms", value).is_err());
        }
        assert!(unfit("statistics.interval.ms", "500").is_ok());
    }

    /// What librdkafka is told by either name reads the same by both.
    #[test]
    fn the_other_names_of_properties_are_librdkafkas() {
        for (alias, one) in ALIASES {
            let value = match *one {
                "compression.type" => "zstd",
                "sasl.mechanism" => "PLAIN",
                SERVERS => "host:9092",
                "acks" => "1",
                _ => "4321",
            };
            let told = |by: &str| {
                let mut config = ClientConfig::new();
                config.set(by, value);
                let native = config.create_native_config().expect("it is taken");
                let read = |name| native.get(name).ok();
                (read(alias), read(one))
            };
            assert_eq!(told(alias), told(one), "{alias} and {one}");
        }
    }
}
