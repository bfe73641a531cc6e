//! A route as the worker runs it: checked values, the compiled program, the sink.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use keystone_config::{Problem, Problems, Settings, Sources, resolve_partly};
use keystone_dsl::{Limits, Program};
use keystone_sinks::kafka::client;
use keystone_sinks::{Context, Sink};

use crate::options;
use crate::trigger::BatchLimits;

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

/// `source.null.payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullPayload {
    DeadLetter,
    Discard,
    Deliver,
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
    /// `source.format = json`: payloads are validated. With `raw` they are copied as they are.
    pub json: bool,
    pub null_payload: NullPayload,
    pub program: Program,
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
    pub dead_letter_policy: DeadLetterPolicy,
    pub dead_letter_topic: String,
    pub admin: SocketAddr,
    /// Short hash of the effective configuration.
    pub config_hash: String,
    pub settings: Settings,
}

impl Route {
    /// What is allowed and may still surprise: set options without effect, and promises that a sink does not keep yet.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.settings.warnings().to_vec();
        if self.tradeoff == "no-duplicates" && matches!(&*self.sink_type, "kafka" | "parquet") {
            warnings.push(format!(
                "delivery.tradeoff = no-duplicates: the sink {} delivers at least once; after a crash, what was delivered since the last commit is there twice (keystone_duplicate_exposure_events)",
                self.sink_type
            ));
        }
        warnings
    }
}

/// Reads and checks a whole route. Touches no server; all problems are reported at once.
pub fn load(sources: &Sources, context_worker: &str) -> Result<(Route, Arc<dyn Sink>), Problems> {
    let (settings, Problems(mut problems)) = resolve_partly(&options::table(), sources);
    let whole = problems.is_empty();
    problems.extend(client::problems(&settings, client::SOURCE_PREFIX));
    let program = compile(&settings, &mut problems);
    let mut sink = None;
    if whole {
        problems.extend(combinations(&settings));
        let context = Context {
            route: settings.get("route.name").to_owned(),
            worker: context_worker.to_owned(),
        };
        match build_sink(&settings, &context) {
            Ok(built) => sink = Some(built),
            Err(more) => problems.extend(more),
        }
    }
    match (program, sink) {
        (Some(program), Some(sink)) if problems.is_empty() => {
            Ok((assemble(settings, program), Arc::from(sink)))
        }
        _ => Err(Problems(problems).in_order()),
    }
}

fn build_sink(settings: &Settings, context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    use keystone_sinks::{blackhole, elasticsearch, kafka, parquet, stdout};
    match settings.get("sink.type") {
        "elasticsearch" => elasticsearch::build(settings, context),
        "parquet" => parquet::build(settings, context),
        "kafka" => kafka::build(settings, context),
        "stdout" => stdout::build(settings, context),
        _ => blackhole::build(settings, context),
    }
}

/// Values that are right by themselves and wrong together.
fn combinations(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let sink = settings.get("sink.type");
    if settings.get("source.format") == "raw" {
        for key in ["filter", "projection"] {
            if settings.text(key).is_some() {
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
    for topic in settings.list("source.topics") {
        let clash = match sink {
            "kafka" => {
                settings.text("sink.kafka.topic") == Some(&topic)
                    && !settings.is_set("sink.kafka.bootstrap.servers")
            }
            _ => false,
        };
        if clash {
            problems.push(settings.problem(
                "sink.kafka.topic",
                format!(
                    "{topic} is also a source topic: the route would read what it writes, for ever"
                ),
                "deliver to another topic",
            ));
        }
        if dead_letter_topic(settings) == topic {
            problems.push(settings.problem(
                "dead.letter.topic",
                format!("{topic} is also a source topic: the route would read its own dead letters, for ever"),
                "use another topic",
            ));
        }
    }
    problems
}

fn compile(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Program> {
    let limits = settings
        .maybe_count("source.max.depth")
        .map_or_else(Limits::default, |depth| Limits {
            max_depth: depth as usize,
            ..Limits::default()
        });
    match Program::compile(settings.text("filter"), settings.text("projection"), limits) {
        Ok(program) => Some(program),
        Err(errors) => {
            problems.extend(errors.into_iter().map(|error| {
                settings.problem(
                    error.which,
                    error.unnamed().to_string(),
                    "the language is described in docs/dsl.md; try it with `keystone eval`",
                )
            }));
            None
        }
    }
}

fn dead_letter_topic(settings: &Settings) -> String {
    settings.text("dead.letter.topic").map_or_else(
        || format!("{}.dead-letters", settings.get("route.name")),
        str::to_owned,
    )
}

fn assemble(settings: Settings, program: Program) -> Route {
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
        json: settings.get("source.format") == "json",
        null_payload: match settings.get("source.null.payload") {
            "deliver" => NullPayload::Deliver,
            "discard" => NullPayload::Discard,
            _ => NullPayload::DeadLetter,
        },
        program,
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
        dead_letter_policy: match settings.get("dead.letter.policy") {
            "stop" => DeadLetterPolicy::Stop,
            "discard" => DeadLetterPolicy::Discard,
            _ => DeadLetterPolicy::Topic,
        },
        dead_letter_topic: dead_letter_topic(&settings),
        config_hash: settings.hash(),
        settings,
    }
}
