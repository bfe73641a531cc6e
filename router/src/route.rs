//! A route as the worker runs it: checked values, the compiled program, the sink.

mod elsewhere;
mod fields;
pub(crate) mod topics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use keystone_config::{
    Origin, Problem, Problems, Settings, Sources, resolve_partly, resolve_without_secrets,
};
use keystone_dsl::{ExpressionError, Hygiene, Limits, Program, Rules, Secrets, Validation};
use keystone_sinks::kafka::client::{self, Role};
use keystone_sinks::kafka::{self, complaints, sasl};
use keystone_sinks::{Context, Sink};

use crate::dead_letters;
use crate::decision::{NullPayload, Steps};
use crate::options::{self, SECRET_PREFIX};
use crate::trigger::BatchLimits;
use crate::worker::consumer_config;

pub use elsewhere::load_elsewhere;

/// Where a group without commits begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// Milliseconds since the epoch: the first record at or after this time.
    Time(i64),
}

impl Start {
    pub fn parse(text: &str) -> Result<Start, String> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            _ => DateTime::parse_from_rfc3339(text)
                .map(|time| Start::Time(time.timestamp_millis()))
                .map_err(|error| format!("it is neither of the words, and as a time: {error}")),
        }
    }
}

/// `dead.letter.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterPolicy {
    Topic,
    Stop,
    Discard,
}

/// Everything about a route but its sink.
pub struct Route {
    pub name: String,
    pub topics: Vec<String>,
    pub start: Start,
    pub steps: Steps,
    pub sink_type: String,
    pub tradeoff: String,
    pub batch: BatchLimits,
    pub max_in_flight: usize,
    pub lanes: usize,
    pub commit_interval: Duration,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    pub rebalance_drain: Duration,
    pub shutdown_drain: Duration,
    pub stall_max: Duration,
    pub dead_letter_policy: DeadLetterPolicy,
    pub dead_letter_topic: String,
    /// Whether the log and `/status` may quote values of events.
    pub log_event_values: bool,
    pub admin: SocketAddr,
    /// Short hash of the effective configuration.
    pub config_hash: String,
    pub settings: Settings,
}

impl Route {
    /// Whether a topic is named by `source.topics`, and not only matched by a pattern.
    pub fn names(&self, topic: &str) -> bool {
        self.named_topics().any(|named| named == topic)
    }

    /// Items of `source.topics` that are names, not patterns.
    pub fn named_topics(&self) -> impl Iterator<Item = &str> {
        let topics = self.topics.iter().map(String::as_str);
        topics.filter(|topic| !topics::is_pattern(topic))
    }

    /// What is allowed and may still surprise: set options without effect, and promises that a sink does not keep yet.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.settings.warnings().to_vec();
        let apart = match &*self.sink_type {
            "kafka" => !self.settings.flag("sink.kafka.transactions"),
            "parquet" => self.settings.get("sink.parquet.publish") == "direct",
            "elasticsearch" => self.settings.get("sink.elasticsearch.id") == "auto",
            _ => false,
        };
        if self.tradeoff == "no-duplicates" && apart {
            warnings.push(format!(
                "delivery.tradeoff = no-duplicates: the sink {} delivers at least once here; after a crash, what was delivered since the last commit is there twice (keystone_duplicate_exposure_events)",
                self.sink_type
            ));
        }
        let unused = matches!(
            self.dead_letter_policy,
            DeadLetterPolicy::Stop | DeadLetterPolicy::Discard
        );
        let origin = self.settings.origin("dead.letter.topic");
        let managed = matches!(origin, Origin::Default | Origin::Defaults { .. });
        if unused && !managed {
            warnings.push(format!(
                "{origin}: dead.letter.topic has no effect: dead.letter.policy is {}",
                self.settings.get("dead.letter.policy")
            ));
        }
        let drain = "delivery.shutdown.drain.max.ms";
        if let Some(silent) = silent_for(&self.settings, drain) {
            warnings.push(format!(
                "{}: {drain} = {} is as long as a member of the group may be silent ({MAX_POLL} = {silent}): a drain that takes so long costs the worker its place, and what it delivers then is delivered again",
                self.settings.origin(drain),
                self.settings.get(drain)
            ));
        }
        warnings.extend(self.idle_options());
        warnings.extend(fields::warnings(&self.settings, &self.steps.program));
        warnings
    }

    /// Options that are set for this route and do nothing, for what others say.
    fn idle_options(&self) -> Vec<String> {
        let settings = &self.settings;
        let mut idle: Vec<(&str, &str)> = Vec::new();
        let handed_on = settings.passthrough(client::SOURCE_PREFIX);
        let mut without_effect = |keys: &[&'static str], why| {
            let own = |key: &&str| {
                // Those that are handed on are known where they are set.
                let name = key.strip_prefix(client::SOURCE_PREFIX);
                name.is_none_or(|name| handed_on.iter().any(|(set, _)| set == name))
                    && settings.is_set(key)
                    && !matches!(settings.origin(key), Origin::Defaults { .. })
            };
            idle.extend(keys.iter().copied().filter(own).map(|key| (key, why)));
        };
        without_effect(
            &[
                "kafka.acks",
                "kafka.request.required.acks",
                "kafka.enable.idempotence",
            ],
            "all producers are idempotent and wait for all in-sync replicas",
        );
        without_effect(
            &["kafka.linger.ms", "kafka.queue.buffering.max.ms"],
            "the Kafka sink has sink.kafka.linger.ms, and that of dead letters is fixed",
        );
        if !self.has_hygiene() {
            without_effect(&["hygiene.on.violation"], "no hygiene rule is set");
        }
        match &*self.sink_type {
            "kafka" if !settings.flag("sink.kafka.transactions") => without_effect(
                &[
                    "sink.kafka.transaction.max.ms",
                    "sink.kafka.transaction.max.events",
                ],
                "sink.kafka.transactions is false",
            ),
            "parquet" => {
                if settings.get("sink.parquet.location").starts_with("file:") {
                    without_effect(
                        S3_OPTIONS,
                        "sink.parquet.location is a directory, no bucket",
                    );
                }
                if settings.get("sink.parquet.compression") != "zstd" {
                    without_effect(
                        &["sink.parquet.compression.level"],
                        "sink.parquet.compression is not zstd",
                    );
                }
                if settings.text("sink.hive.metastore.uri").is_none() {
                    without_effect(
                        &["sink.hive.database", "sink.hive.location"],
                        "sink.hive.metastore.uri is not set",
                    );
                }
            }
            _ => {}
        }
        let told = |(key, why)| format!("{}: {key} has no effect: {why}", settings.origin(key));
        idle.into_iter().map(told).collect()
    }

    fn has_hygiene(&self) -> bool {
        HYGIENE.iter().any(|key| self.settings.is_set(key))
    }
}

/// What is of no use in a directory.
const S3_OPTIONS: &[&str] = &[
    "sink.parquet.s3.endpoint",
    "sink.parquet.s3.region",
    "sink.parquet.s3.access.key.id",
    "sink.parquet.s3.secret.access.key",
    "sink.parquet.s3.session.token",
    "sink.parquet.s3.path.style",
];

/// Reads and checks a whole route. Touches no server; all problems are reported at once.
pub fn load(sources: &Sources, context_worker: &str) -> Result<(Route, Arc<dyn Sink>), Problems> {
    let (settings, Problems(problems)) = resolve_partly(&options::table(), sources);
    let build = |context: &Context| build_sink(&settings, context).map(Some);
    match check(&settings, problems, context_worker, build) {
        (Some(steps), Some(sink), problems) if problems.is_empty() => {
            Ok((assemble(settings, steps), Arc::from(sink)))
        }
        (.., problems) => Err(Problems(problems).in_order()),
    }
}

/// What building the sink comes to: `None` where it is only checked.
type Built = Result<Option<Box<dyn Sink>>, Vec<Problem>>;

/// Checks whatever can be checked of settings that may be partial. The problems are those before and what was found.
fn check(
    settings: &Settings,
    mut problems: Vec<Problem>,
    worker: &str,
    build: impl FnOnce(&Context) -> Built,
) -> (Option<Steps>, Option<Box<dyn Sink>>, Vec<Problem>) {
    let whole = problems.is_empty();
    let properties = kafka_problems(settings, whole);
    // Of wrong properties no client is made: librdkafka would repeat in its words what is known already.
    let clients_can_be_made = whole && properties.is_empty();
    problems.extend(properties);
    problems.extend(topics::problems(settings));
    let steps = steps(settings, &mut problems);
    let mut sink = None;
    if whole {
        problems.extend(combinations(settings));
        if let Some(steps) = &steps {
            problems.extend(fields::problems(settings, &steps.program));
        }
        let context = Context {
            route: settings.get("route.name").to_owned(),
            worker: worker.to_owned(),
        };
        if settings.get("sink.type") == "kafka" && !clients_can_be_made {
            problems.extend(kafka::problems(settings));
        } else {
            match build(&context) {
                Ok(built) => sink = built,
                Err(more) => problems.extend(more),
            }
        }
    }
    if clients_can_be_made {
        add_new(&mut problems, clients(settings));
    }
    (steps, sink, problems)
}

/// Reads and checks what decides about events, for a route that is tried and not run: no sink is made, and the secrets of servers
/// may be absent.
pub fn load_steps(sources: &Sources) -> Result<(Steps, Settings), Problems> {
    let (settings, Problems(mut problems)) = resolve_without_secrets(&options::table(), sources);
    add_new(&mut problems, problems_below(SECRET_PREFIX, sources));
    let whole = problems.is_empty();
    problems.extend(topics::problems(&settings));
    let steps = steps(&settings, &mut problems);
    if whole {
        problems.extend(combinations(&settings));
    }
    match steps {
        Some(steps) if problems.is_empty() => Ok((steps, settings)),
        _ => Err(Problems(problems).in_order()),
    }
}

/// The same for a route whose topics are read: what its Kafka client needs must be right, secrets included.
pub fn load_source(sources: &Sources) -> Result<(Steps, Settings), Problems> {
    let below = problems_below(client::SOURCE_PREFIX, sources);
    let (steps, settings) = match load_steps(sources) {
        Ok(loaded) => loaded,
        Err(Problems(mut problems)) => {
            add_new(&mut problems, below);
            return Err(Problems(problems).in_order());
        }
    };
    let mut problems = below;
    problems.extend(client::problems(&settings, client::SOURCE_PREFIX));
    if problems.is_empty() {
        problems.extend(sasl::problems(&settings, &[client::SOURCE_PREFIX]));
    }
    match problems.is_empty() {
        true => Ok((steps, settings)),
        false => Err(Problems(problems)),
    }
}

/// What is wrong with the options below a prefix, absent secrets included.
fn problems_below(prefix: &str, sources: &Sources) -> Vec<Problem> {
    let (_, Problems(mut problems)) = resolve_partly(&options::table(), sources);
    problems.retain(|problem| problem.key.starts_with(prefix));
    problems
}

/// What is wrong with the properties of Kafka clients, each by itself. What is absent counts only where the settings are whole.
fn kafka_problems(settings: &Settings, whole: bool) -> Vec<Problem> {
    let mut problems = client::problems(settings, client::SOURCE_PREFIX);
    problems.extend(client::problems(settings, client::SINK_PREFIX));
    if whole {
        let (source, sink) = (client::SOURCE_PREFIX, client::SINK_PREFIX);
        add_new(&mut problems, sasl::problems(settings, &[source]));
        if settings.get("sink.type") == "kafka" {
            add_new(&mut problems, sasl::problems(settings, &[source, sink]));
        }
    }
    problems
}

/// Clients share properties, and so what is wrong with them.
fn add_new(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    for problem in more {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

fn build_sink(settings: &Settings, context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    use keystone_sinks::{blackhole, elasticsearch, parquet, stdout};
    match settings.get("sink.type") {
        "elasticsearch" => elasticsearch::build(settings, context),
        "parquet" => parquet::build(settings, context),
        "kafka" => kafka::build(settings, context),
        "stdout" => stdout::build(settings, context),
        _ => blackhole::build(settings, context),
    }
}

/// `kafka.*` properties that librdkafka takes one by one and refuses together.
fn clients(settings: &Settings) -> Vec<Problem> {
    let mut refused = vec![complaints::refusal(
        &consumer_config(settings),
        Role::Consumer,
    )];
    if settings.get("dead.letter.policy") == "topic" {
        refused.push(complaints::refusal(
            &dead_letters::client_config(settings),
            Role::Producer,
        ));
    }
    let refused = refused.into_iter().flatten();
    refused
        .map(|complaint| complaints::problem(settings, &[client::SOURCE_PREFIX], &complaint))
        .collect()
}

/// Options that look into events.
const NEED_JSON: [&str; 6] = [
    "filter",
    "projection",
    "hygiene.required",
    "hygiene.types",
    "hygiene.drop.nulls",
    "hygiene.trim.strings",
];

/// Rules for what is delivered.
const HYGIENE: [&str; 5] = [
    "hygiene.required",
    "hygiene.types",
    "hygiene.max.event.bytes",
    "hygiene.drop.nulls",
    "hygiene.trim.strings",
];

/// Values that are right by themselves and wrong together.
fn combinations(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let sink = settings.get("sink.type");
    if settings.get("source.format") == "raw" {
        for key in NEED_JSON {
            let off = key.starts_with("hygiene.") && settings.text(key) == Some("false");
            if settings.text(key).is_some() && !off {
                problems.push(settings.problem(
                    key,
                    "it needs JSON events, and source.format is raw",
                    "leave it out, or set source.format = json",
                ));
            }
        }
        if !matches!(sink, "kafka" | "blackhole") {
            problems.push(settings.problem(
                "source.format",
                format!("raw events can't go to the sink {sink}"),
                "set source.format = json, or sink.type = kafka",
            ));
        }
    }
    if settings.get("source.null.payload") == "deliver" && !matches!(sink, "kafka" | "blackhole") {
        problems.push(settings.problem(
            "source.null.payload",
            format!("tombstones can't be delivered to the sink {sink}"),
            "set it to dead-letter or discard",
        ));
    }
    problems.extend(times(settings));
    let managed = matches!(settings.origin("sink.hive.table"), Origin::Defaults { .. });
    if sink == "parquet"
        && settings.is_set("sink.hive.table")
        && settings.text("sink.hive.metastore.uri").is_none()
        && !managed
    {
        problems.push(settings.problem(
            "sink.hive.table",
            "nothing registers it: sink.hive.metastore.uri is not set",
            "set that, or leave both out",
        ));
    }
    problems
}

/// For how long a member of the group may be silent, where that is no longer than a drain.
fn silent_for(settings: &Settings, drain: &str) -> Option<String> {
    let own = settings.passthrough(client::SOURCE_PREFIX).into_iter();
    let mut set =
        own.filter(|(name, _)| MAX_POLL.strip_prefix(client::SOURCE_PREFIX) == Some(name));
    let silent = set
        .next()
        .map_or(MAX_POLL_INTERVAL.to_owned(), |(_, value)| value);
    let most = silent.trim().parse().map(Duration::from_millis).ok()?;
    (settings.millis(drain) >= most).then_some(silent)
}

const MAX_POLL: &str = "kafka.max.poll.interval.ms";
/// librdkafka's default.
const MAX_POLL_INTERVAL: &str = "300000";

/// Times of which one must be shorter than another.
fn times(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (first, longest) = ("delivery.retry.backoff.ms", "delivery.retry.backoff.max.ms");
    if settings.millis(first) > settings.millis(longest) {
        let key = if settings.is_set(first) {
            first
        } else {
            longest
        };
        problems.push(settings.problem(
            key,
            format!(
                "the first pause ({first} = {}) is longer than the longest ({longest} = {})",
                settings.get(first),
                settings.get(longest)
            ),
            "make the first the shorter one",
        ));
    }
    let drain = "delivery.rebalance.drain.max.ms";
    if let Some(silent) = silent_for(settings, drain) {
        problems.push(settings.problem(
            if settings.is_set(drain) { drain } else { MAX_POLL },
            format!(
                "a drain ({drain} = {}) that takes as long as a member of the group may be silent ({MAX_POLL} = {silent}) costs the worker its partitions",
                settings.get(drain)
            ),
            "make the drain the shorter one",
        ));
    }
    problems
}

/// What decides about events. Looks at nothing but what is there: settings may be partial.
fn steps(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Steps> {
    let is = |key: &str, word: &str| settings.text(key) == Some(word);
    let rules = Rules {
        required: settings.text("hygiene.required"),
        types: settings.text("hygiene.types"),
        max_event_bytes: settings.maybe_bytes("hygiene.max.event.bytes"),
        drop_nulls: is("hygiene.drop.nulls", "true"),
        trim_strings: is("hygiene.trim.strings", "true"),
    };
    let mut report = |errors: Vec<ExpressionError>| {
        problems.extend(errors.into_iter().map(|error| {
            let (line, column) = error.position;
            let problem = match settings.is_hidden(error.which) {
                true => format!(
                    "it is wrong at line {line}, column {column} (it comes from a file, and is not shown)"
                ),
                false => error.unnamed().to_string(),
            };
            settings.problem(
                error.which,
                problem,
                "the language is described in docs/dsl.md; try it with `keystone eval`",
            )
        }));
    };
    let (filter, projection) = (settings.text("filter"), settings.text("projection"));
    let program = Program::compile(filter, projection, language(settings)).map_err(&mut report);
    let hygiene = Hygiene::compile(&rules).map_err(&mut report);
    problems.extend(empty_secrets(settings));
    Some(Steps {
        json: !is("source.format", "raw"),
        null_payload: match settings.text("source.null.payload") {
            Some("deliver") => NullPayload::Deliver,
            Some("discard") => NullPayload::Discard,
            _ => NullPayload::DeadLetter,
        },
        program: program.ok()?,
        hygiene: hygiene.ok()?,
        discard_violations: is("hygiene.on.violation", "discard"),
    })
}

/// What the route's expressions are compiled with. Options that are set wrong are reported elsewhere.
pub fn language(settings: &Settings) -> keystone_dsl::Settings {
    let default = Limits::default();
    let depth = settings.maybe_count("source.max.depth");
    let output = settings.maybe_bytes("dsl.max.output.bytes");
    let mut secrets = Secrets::default();
    for (name, key) in settings.passthrough(SECRET_PREFIX) {
        secrets.insert(name, key);
    }
    keystone_dsl::Settings {
        limits: Limits {
            max_depth: depth.map_or(default.max_depth, |depth| depth as usize),
            max_output_bytes: output.map_or(default.max_output_bytes, |bytes| bytes as usize),
            validation: match settings.text("source.validation") {
                Some("lazy") => Validation::Lazy,
                _ => Validation::Full,
            },
        },
        secrets,
    }
}

fn empty_secrets(settings: &Settings) -> Vec<Problem> {
    let secrets = settings.passthrough(SECRET_PREFIX).into_iter();
    let empty = secrets.filter(|(_, key)| key.is_empty());
    empty
        .map(|(name, _)| {
            settings.problem(
                &format!("{SECRET_PREFIX}{name}"),
                "it is empty, and a hash with an empty key hides nothing",
                "set it to a long random text",
            )
        })
        .collect()
}

fn assemble(settings: Settings, steps: Steps) -> Route {
    let lanes = settings.maybe_count("delivery.lanes").unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(2, |cores| cores.get() as u64)
    });
    Route {
        name: settings.get("route.name").to_owned(),
        topics: settings.list("source.topics"),
        // The option's own check has parsed both before.
        start: Start::parse(settings.get("source.start")).unwrap_or(Start::Earliest),
        admin: settings
            .get("admin.listen")
            .parse()
            .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 9464))),
        steps,
        sink_type: settings.get("sink.type").to_owned(),
        tradeoff: settings.get("delivery.tradeoff").to_owned(),
        batch: BatchLimits {
            max_events: settings.count("delivery.batch.max.events") as usize,
            max_bytes: settings.bytes("delivery.batch.max.bytes") as usize,
            max_age: settings.millis("delivery.batch.max.age.ms"),
        },
        max_in_flight: settings.count("delivery.max.in.flight") as usize,
        lanes: lanes as usize,
        commit_interval: settings.millis("delivery.commit.interval.ms"),
        backoff_initial: settings.millis("delivery.retry.backoff.ms"),
        backoff_max: settings.millis("delivery.retry.backoff.max.ms"),
        rebalance_drain: settings.millis("delivery.rebalance.drain.max.ms"),
        shutdown_drain: settings.millis("delivery.shutdown.drain.max.ms"),
        stall_max: settings.millis("delivery.stall.max.ms"),
        dead_letter_policy: match settings.get("dead.letter.policy") {
            "stop" => DeadLetterPolicy::Stop,
            "discard" => DeadLetterPolicy::Discard,
            _ => DeadLetterPolicy::Topic,
        },
        dead_letter_topic: topics::dead_letter_topic(&settings).unwrap_or_default(),
        log_event_values: settings.flag("log.event.values"),
        config_hash: settings.hash(options::PER_WORKER),
        settings,
    }
}

#[cfg(test)]
mod tests;
