//! A route that is checked where it does not run: its secrets and certificates may be elsewhere.

use std::fs::File;

use keystone_config::{Problem, Problems, Settings, Sources, resolve_elsewhere};
use keystone_sinks::Context;
use keystone_sinks::kafka;
use keystone_sinks::kafka::client::{SINK_PREFIX, SOURCE_PREFIX};

use super::{Route, assemble, build_sink, check};
use crate::options;

/// Properties of Kafka's clients that name a file, which they read when they are made.
const FILES: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
];
/// What librdkafka takes for the places where systems have certificates.
const NO_FILE: &str = "probe";
const CA_FILE: &str = "sink.elasticsearch.tls.ca.file";

/// Reads and checks a whole route without the files that only its workers need to have. What can't be read comes second; nothing that may come
/// of that alone is a problem.
pub fn load_elsewhere(sources: &Sources) -> (Result<Route, Problems>, Vec<Problem>) {
    let (settings, Problems(problems), mut absent) = resolve_elsewhere(&options::table(), sources);
    let files = absent_files(&settings);
    let present = without(&settings, &absent, &files);
    absent.extend(files);
    // The Kafka sink's producer would connect as soon as it is made, without its password.
    let build = |context: &Context| match present.get("sink.type") {
        "kafka" => match kafka::refusals(&present, context) {
            problems if problems.is_empty() => Ok(None),
            problems => Err(problems),
        },
        _ => build_sink(&present, context).map(Some),
    };
    let (steps, _, problems) = check(&present, problems, "check", build);
    let route = match steps {
        Some(steps) if problems.is_empty() => Ok(assemble(settings, steps)),
        _ => Err(Problems(problems).in_order()),
    };
    (route, absent)
}

/// Files that options name and that can't be read.
fn absent_files(settings: &Settings) -> Vec<Problem> {
    let mut named: Vec<(String, String)> = Vec::new();
    for prefix in [SOURCE_PREFIX, SINK_PREFIX] {
        let properties = settings.passthrough(prefix).into_iter();
        let files =
            properties.filter(|(name, value)| FILES.contains(&name.as_str()) && value != NO_FILE);
        named.extend(files.map(|(name, path)| (format!("{prefix}{name}"), path)));
    }
    let ca = settings.text(CA_FILE);
    named.extend(ca.map(|path| (CA_FILE.to_owned(), path.to_owned())));
    let absent = named.into_iter().filter_map(|(key, path)| {
        let error = File::open(&path).err()?;
        let problem = format!("can't read the file {path}: {error}");
        Some(settings.problem(&key, problem, "the worker must be able to read it"))
    });
    absent.collect()
}

/// The settings without what names an absent file. Of a Kafka client's key, certificate and password none is of use without the others.
fn without(settings: &Settings, secrets: &[Problem], files: &[Problem]) -> Settings {
    let ends = [".location", ".pem", ".password"];
    let is_tls =
        |key: &str| key.contains("kafka.ssl.") && ends.iter().any(|end| key.ends_with(end));
    let no_tls = secrets.iter().chain(files).any(|it| is_tls(&it.key));
    settings.without(|key| no_tls && is_tls(key) || files.iter().any(|file| file.key == key))
}

#[cfg(test)]
mod tests;
