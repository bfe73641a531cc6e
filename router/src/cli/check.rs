//! `keystone check`: is the route right, what does it come down to, are its servers there?

use std::sync::Arc;
use std::time::Duration;

use keystone_config::{Origin, Sources};
use keystone_sinks::Sink;
use keystone_sinks::kafka::complaints::told;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::asking::{self, PATIENCE};
use super::{Failure, RouteArgs, worker_id};
use crate::cli::output::{complain, say};
use crate::dead_letters::{DeadLetters, Place};
use crate::route::{self, DeadLetterPolicy, Route, topics};
use crate::worker::consumer_config;

pub(super) fn check(args: &RouteArgs, offline: bool) -> Result<(), Failure> {
    let sources = args.sources()?;
    if offline {
        return check_offline(&sources);
    }
    let (route, sink) = route::load(&sources, &worker_id())?;
    print_route(&route);
    let problems = ask_servers(&route, sink)?;
    if problems.is_empty() {
        say!(
            "\nthe route {} is valid, and its servers answer",
            route.name
        );
        return Ok(());
    }
    say!("\nthe route {} is valid, but:", route.name);
    Err(Failure::Failed(problems.join("\n")))
}

/// What only the route's workers need to have may be absent here, as in a CI system.
fn check_offline(sources: &Sources) -> Result<(), Failure> {
    let (route, absent) = route::load_elsewhere(sources);
    for problem in &absent {
        complain!("warning: not here, so not checked: {problem}");
    }
    let route = route?;
    print_route(&route);
    say!("\nthe route {} is valid (no server was asked)", route.name);
    Ok(())
}

/// Its effective configuration, and what may surprise.
fn print_route(route: &Route) {
    print_effective(route);
    for warning in route.warnings() {
        complain!("warning: {warning}");
    }
}

fn print_effective(route: &Route) {
    let mut effective = route.settings.effective();
    for entry in &mut effective {
        // Made of other options, or of this machine: the value says more than how it is made.
        match entry.key.as_str() {
            "dead.letter.topic" if entry.origin == Origin::Default => {
                entry.shown.clone_from(&route.dead_letter_topic);
            }
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
        say!("{setting:width$}  # {}", entry.origin);
    }
    say!("# configuration hash {}", route.config_hash);
}

/// What the servers that the route names say; each line names the option.
fn ask_servers(route: &Route, sink: Arc<dyn Sink>) -> Result<Vec<String>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime can't be started: {error}")))?;
    let config = consumer_config(&route.settings);
    let asked =
        asking::client(&config).and_then(|client| asking::metadata(&client, &route.settings));
    let mut problems = match asked {
        Ok(metadata) => {
            let mut problems = source_problems(route, &metadata);
            if route.dead_letter_policy == DeadLetterPolicy::Topic {
                let read = topics_read(route, &metadata);
                problems.extend(runtime.block_on(dead_letter_problem(route, &read)));
            }
            problems
        }
        Err(problem) => vec![format!("source: {problem}")],
    };
    let checked = runtime.block_on(async { tokio::time::timeout(PATIENCE, sink.check()).await });
    match checked {
        Ok(Ok(())) => say!("\nsink {}: answers", route.sink_type),
        Ok(Err(problem)) => problems.push(format!("sink {}: {problem}", route.sink_type)),
        Err(_) => problems.push(format!(
            "sink {}: no answer within {} s",
            route.sink_type,
            PATIENCE.as_secs()
        )),
    }
    if problems.is_empty() {
        // What does not keep events from being delivered, such as a metastore or one of several nodes that is away.
        let state = sink.state();
        problems = [state.problems, state.failures].concat();
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(problems)
}

fn source_problems(route: &Route, metadata: &Metadata) -> Vec<String> {
    say!("\nsource: {} brokers answer", metadata.brokers().len());
    let mut problems = Vec::new();
    let named = |topic: &&String| !topics::is_pattern(topic);
    for topic in route.topics.iter().filter(named) {
        match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => match found.error() {
                None => say!("source: topic {topic} has {} partitions", found.partitions().len()),
                Some(code) => problems.push(format!("source: topic {topic}: {}", RDKafkaErrorCode::from(code))),
            },
            None => problems.push(format!(
                "source: topic {topic} (source.topics) does not exist, or the route's user may not see it"
            )),
        }
    }
    let found: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    let whole = topics::is_new_protocol(&route.settings);
    for pattern in route
        .topics
        .iter()
        .filter(|topic| topics::is_pattern(topic))
    {
        match matched(pattern, whole, &found) {
            Ok(line) => say!("source: {line}"),
            Err(problem) => problems.push(format!("source: {problem}")),
        }
    }
    problems
}

/// The topics that the route reads now, those of patterns among them.
fn topics_read(route: &Route, metadata: &Metadata) -> Vec<String> {
    let patterns = topics::patterns(&route.settings);
    let is_read = |name: &str| {
        route.topics.iter().any(|item| item == name)
            || patterns.iter().any(|pattern| pattern.is_match(name))
    };
    let all = metadata.topics().iter().map(|topic| topic.name());
    all.filter(|name| is_read(name))
        .map(str::to_owned)
        .collect()
}

/// Why dead letters can't be written, if they can't; that some would be too large is a warning.
async fn dead_letter_problem(route: &Route, read: &[String]) -> Option<String> {
    let topic = &route.dead_letter_topic;
    let letters = match DeadLetters::new(route) {
        Ok(letters) => letters,
        Err(error) => return Some(format!("dead letters: {}", told(&error))),
    };
    match letters.look().await {
        Ok(Place::There) => {
            say!("dead letters: topic {topic} is there");
            if let Some(warning) = letters.too_narrow_for(read).await {
                complain!("warning: {warning}");
            }
            None
        }
        Ok(Place::ToBeMade) => {
            say!("dead letters: topic {topic} is not there; the first dead letter creates it");
            None
        }
        Ok(Place::Unclear(code)) => {
            complain!(
                "warning: topic {topic} (dead.letter.topic) is not there, and the brokers don't say whether they would create it: {code}"
            );
            None
        }
        Ok(Place::Missing(problem)) | Err(problem) => Some(format!("dead letters: {problem}")),
    }
}

/// How many topics that a pattern matches are named.
const NAMED: usize = 10;

/// What a pattern matches at present.
fn matched(pattern: &str, whole: bool, topics: &[&str]) -> Result<String, String> {
    let regex = topics::pattern(pattern, whole)?;
    let mut names: Vec<&str> = topics.to_vec();
    names.retain(|name| regex.is_match(name));
    names.sort_unstable();
    let plural = if names.len() == 1 { "" } else { "s" };
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    match names.len() {
        0 => Err(format!(
            "no topic matches the pattern {pattern} (source.topics) now, or the route's user may not see it{}",
            if whole {
                "; with kafka.group.protocol=consumer the whole name must match"
            } else {
                ""
            }
        )),
        count => Ok(format!(
            "the pattern {pattern} matches {count} topic{plural} now: {}{more}",
            names[..count.min(NAMED)].join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::matched;

    #[test]
    fn the_topics_of_a_pattern_are_named() {
        let topics = ["plays-b", "other", "plays-a"];
        assert_eq!(
            matched("^plays-", false, &topics).unwrap(),
            "the pattern ^plays- matches 2 topics now: plays-a, plays-b"
        );
        assert_eq!(
            matched("^o", false, &topics).unwrap(),
            "the pattern ^o matches 1 topic now: other"
        );
        let many: Vec<String> = (0..12).map(|n| format!("t{n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let line = matched("^t", false, &many).unwrap();
        assert!(
            line.contains("12 topics now: t00, ") && line.ends_with("t09, and 2 more"),
            "{line}"
        );
    }

    #[test]
    fn a_pattern_without_topics_is_a_problem() {
        let problem = matched("^x", false, &["plays"]).unwrap_err();
        assert!(
            problem.starts_with("no topic matches the pattern ^x (source.topics) now"),
            "{problem}"
        );
        let problem = matched("^pl", true, &["plays"]).unwrap_err();
        assert!(problem.contains("the whole name must match"), "{problem}");
    }
}
