//! `keystone check`: is the route right, what does it come down to, are its servers there?

use std::sync::Arc;
use std::time::Duration;

use keystone_sinks::Sink;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::{Failure, RouteArgs, worker_id};
use crate::route::{self, Route};
use crate::worker::consumer_config;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn check(args: &RouteArgs, offline: bool) -> Result<(), Failure> {
    let sources = args.sources()?;
    let (route, sink) = route::load(&sources, &worker_id())?;
    print_effective(&route);
    for warning in route.warnings() {
        eprintln!("warning: {warning}");
    }
    if offline {
        println!("\nthe route {} is valid (no server was asked)", route.name);
        return Ok(());
    }
    let problems = ask_servers(&route, sink)?;
    if problems.is_empty() {
        println!(
            "\nthe route {} is valid, and its servers answer",
            route.name
        );
        return Ok(());
    }
    println!("\nthe route {} is valid, but:", route.name);
    Err(Failure::Failed(problems.join("\n")))
}

fn print_effective(route: &Route) {
    let mut effective = route.settings.effective();
    for entry in &mut effective {
        // Made of other options, or of this machine: the value says more than how it is made.
        match entry.key.as_str() {
            "dead.letter.topic" => entry.shown.clone_from(&route.dead_letter_topic),
            "delivery.lanes" => entry.shown = route.lanes.to_string(),
            _ => {}
        }
    }
    let width = effective
        .iter()
        .map(|entry| entry.key.len() + entry.shown.len() + 3)
        .filter(|width| *width <= 70)
        .max()
        .unwrap_or(0);
    for entry in &effective {
        let setting = format!("{} = {}", entry.key, entry.shown);
        println!("{setting:width$}  # {}", entry.origin);
    }
    println!("# configuration hash {}", route.config_hash);
}

/// What the servers that the route names say; each line names the option.
fn ask_servers(route: &Route, sink: Arc<dyn Sink>) -> Result<Vec<String>, Failure> {
    let mut problems = source_problems(route);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime can't be started: {error}")))?;
    let checked = runtime.block_on(async { tokio::time::timeout(PATIENCE, sink.check()).await });
    match checked {
        Ok(Ok(())) => println!("\nsink {}: answers", route.sink_type),
        Ok(Err(problem)) => problems.push(format!("sink {}: {problem}", route.sink_type)),
        Err(_) => problems.push(format!(
            "sink {}: no answer within {} s",
            route.sink_type,
            PATIENCE.as_secs()
        )),
    }
    if problems.is_empty() {
        problems = sink.state().problems; // What does not keep events from being delivered, such as a metastore that is away.
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(problems)
}

fn source_problems(route: &Route) -> Vec<String> {
    let config = consumer_config(&route.settings);
    let consumer = match BaseConsumer::from_config(&config) {
        Ok(consumer) => consumer,
        Err(error) => {
            return vec![format!(
                "source: no client can be made: {error}; see the kafka.* properties"
            )];
        }
    };
    let consumer: BaseConsumer = consumer;
    let metadata = match consumer.fetch_metadata(None, PATIENCE) {
        Ok(metadata) => metadata,
        Err(error) => {
            return vec![format!(
                "source: no Kafka broker answers at kafka.bootstrap.servers = {}: {error}",
                route
                    .settings
                    .text("kafka.bootstrap.servers")
                    .unwrap_or_default()
            )];
        }
    };
    println!("\nsource: {} brokers answer", metadata.brokers().len());
    let mut problems = Vec::new();
    for topic in route.topics.iter().filter(|topic| !topic.starts_with('^')) {
        match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => match found.error() {
                None => println!("source: topic {topic} has {} partitions", found.partitions().len()),
                Some(code) => problems.push(format!("source: topic {topic}: {}", RDKafkaErrorCode::from(code))),
            },
            None => problems.push(format!(
                "source: topic {topic} (source.topics) does not exist, or the route's user may not see it"
            )),
        }
    }
    problems
}
