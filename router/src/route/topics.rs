//! The topics of a route: names that Kafka can have, patterns that librdkafka understands, and no way from the route back into itself.

use keystone_config::{Problem, Settings};
use keystone_sinks::kafka::client;
use regex::Regex;

const SOURCE: &str = "source.topics";
const SINK: &str = "sink.kafka.topic";
const DEAD_LETTERS: &str = "dead.letter.topic";

/// The classes of POSIX.
const CLASSES: [&str; 12] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

/// Kafka's own limit.
const LONGEST: usize = 249;

/// Whether an item of `source.topics` is a regular expression.
pub(crate) fn is_pattern(item: &str) -> bool {
    item.starts_with('^')
}

/// Whether `kafka.group.protocol` is `consumer` (KIP-848). Then it is the broker that matches patterns, and each has to match the whole name
/// of a topic.
pub(crate) fn is_new_protocol(settings: &Settings) -> bool {
    let own = settings.passthrough(client::SOURCE_PREFIX).into_iter();
    let mut protocol = own.filter(|(name, _)| name == "group.protocol");
    protocol.any(|(_, value)| value.eq_ignore_ascii_case("consumer"))
}

/// A pattern of `source.topics` as a program of ours: near enough to POSIX for names of topics.
pub(crate) fn pattern(item: &str, whole: bool) -> Result<Regex, String> {
    if let Some(syntax) = perl_only(item) {
        return Err(format!(
            "the pattern {item} uses `{syntax}`, which POSIX regular expressions don't have"
        ));
    }
    let anchored = match whole {
        true => format!("^(?:{item})$"),
        false => item.to_owned(),
    };
    Regex::new(&anchored).map_err(|error| {
        // The lines before it draw the pattern.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("the pattern {item} is no regular expression: {reason}")
    })
}

/// The patterns of `source.topics`, which were checked before.
pub(crate) fn patterns(settings: &Settings) -> Vec<Regex> {
    let whole = is_new_protocol(settings);
    let items = settings.list(SOURCE).into_iter();
    items
        .filter(|item| is_pattern(item))
        .filter_map(|item| pattern(&item, whole).ok())
        .collect()
}

/// Syntax that librdkafka's POSIX engine takes for something else, or refuses.
fn perl_only(pattern: &str) -> Option<String> {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next)) if next.is_ascii_alphanumeric() => return Some(format!("\\{next}")),
            ('\\', _) => drop(chars.next()),
            ('(', Some('?')) => return Some("(?".to_owned()),
            _ => {}
        }
    }
    let classes = pattern.split("[:").skip(1);
    let mut names = classes.filter_map(|rest| rest.split_once(":]"));
    let (name, _) = names.find(|(name, _)| !CLASSES.contains(name))?;
    Some(format!("[:{name}:]"))
}

/// Where the dead letters go.
pub(super) fn dead_letter_topic(settings: &Settings) -> Option<String> {
    let set = settings.text(DEAD_LETTERS).map(str::to_owned);
    set.or_else(|| Some(format!("{}.dead-letters", settings.text("route.name")?)))
}

/// Names and patterns that are wrong, and loops. Settings may be partial.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut problems = names(settings);
    if problems.is_empty() {
        problems = loops(settings);
    }
    problems
}

fn names(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let items = settings.list(SOURCE);
    for (index, item) in items.iter().enumerate() {
        if items[..index].contains(item) {
            problems.push(settings.problem(
                SOURCE,
                format!("{item} stands there twice"),
                "leave it out once: Kafka's client refuses to read a topic twice",
            ));
            continue;
        }
        if is_pattern(item) {
            problems.extend(pattern(item, false).err().map(|problem| {
                settings.problem(
                    SOURCE,
                    problem,
                    "write it as a POSIX extended regular expression, with [0-9] for a digit and [[:alnum:]_] for a letter, digit or `_`; \
                     a comma ends it, so {2,3} can't be written",
                )
            }));
        }
    }
    let mut written: Vec<(&str, &str)> = items
        .iter()
        .filter(|item| !is_pattern(item))
        .map(|item| (SOURCE, item.as_str()))
        .collect();
    for key in [SINK, DEAD_LETTERS] {
        written.extend(settings.text(key).map(|name| (key, name)));
    }
    for (key, name) in written {
        if let Err(problem) = check_name(name) {
            let hint = match name.contains(['{', '}']) {
                true => "a topic is one name for all events, no template",
                false => "allowed: 1 to 249 letters, digits, `.`, `_` or `-`",
            };
            problems.push(settings.problem(key, problem, hint));
        }
    }
    problems
}

/// What no topic of Kafka can be named.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = match name.chars().find(|c| !fits(*c)) {
        Some(bad) => format!("{bad:?} is not allowed in it"),
        None if name.len() > LONGEST => format!("it has {} characters", name.len()),
        None if matches!(name, "." | "..") => "Kafka reserves it".to_owned(),
        None => return Ok(()),
    };
    Err(format!("no topic can be named {name}: {reason}"))
}

/// A route that reads what it writes never ends.
fn loops(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let sink = settings
        .text(SINK)
        .filter(|_| client::same_cluster(settings));
    let dead = dead_letter_topic(settings)
        .filter(|_| settings.text("dead.letter.policy") == Some("topic"));
    if let Some(topic) = sink
        && let Some(way) = way_back(settings, topic)
    {
        problems.push(settings.problem(
            SINK,
            format!("{topic} {way}: the route would read what it writes, for ever"),
            "deliver to another topic, or read fewer by source.topics",
        ));
    }
    let Some(dead) = dead else {
        return problems;
    };
    if let Some(way) = way_back(settings, &dead) {
        problems.push(settings.problem(
            DEAD_LETTERS,
            format!("{dead} {way}: the route would read its own dead letters, for ever"),
            "use another topic, or a narrower pattern in source.topics",
        ));
    }
    if sink == Some(dead.as_str()) {
        problems.push(settings.problem(
            DEAD_LETTERS,
            format!(
                "{dead} is also sink.kafka.topic: dead letters would stand among what is delivered"
            ),
            "use another topic for one of them",
        ));
    }
    problems
}

/// How the route would read this topic of the source cluster. A pattern counts also where it matches only the beginning of the name:
/// that is enough for one of the group protocols.
fn way_back(settings: &Settings, topic: &str) -> Option<String> {
    settings.list(SOURCE).into_iter().find_map(|item| {
        if item == topic {
            return Some("is also a source topic".to_owned());
        }
        let reads = is_pattern(&item) && pattern(&item, false).is_ok_and(|it| it.is_match(topic));
        reads.then(|| format!("is matched by the pattern {item} of source.topics"))
    })
}

#[cfg(test)]
mod tests;
