//! What the route's settings say of transactions.

use keystone_config::{Problem, Settings};

use crate::Context;
use crate::kafka::client::{SINK_PREFIX, SOURCE_PREFIX, same_cluster};

/// The value of a librdkafka property below a prefix.
fn property(settings: &Settings, prefix: &str, name: &str) -> Option<String> {
    let mut all = settings.passthrough(prefix).into_iter();
    all.find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Unique among live workers of a cluster, also of the same route in another group. A static member has the same one after a restart, which ends what the one before it left open at once;
/// otherwise `transaction.timeout.ms` does.
pub(in crate::kafka) fn id(settings: &Settings, context: &Context) -> String {
    let instance = property(settings, SOURCE_PREFIX, "group.instance.id");
    let member = instance.as_ref().unwrap_or(&context.worker);
    match property(settings, SOURCE_PREFIX, "group.id") {
        Some(group) if group != context.route => format!("{}-{group}-{member}", context.route),
        _ => format!("{}-{member}", context.route),
    }
}

/// Offsets can only be part of a transaction on the cluster that they belong to.
pub(in crate::kafka) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !same_cluster(settings) {
        let key = match property(settings, SINK_PREFIX, "bootstrap.servers") {
            Some(_) => "sink.kafka.bootstrap.servers",
            None => "sink.kafka.metadata.broker.list",
        };
        problems.push(settings.problem(
            key,
            "a transaction carries the consumed offsets, so source and sink must be the same cluster",
            "leave it out; for another cluster set sink.kafka.transactions = false: delivery is at least once then",
        ));
    }
    let found = |name: &str| {
        [SINK_PREFIX, SOURCE_PREFIX]
            .into_iter()
            .find_map(|prefix| Some((format!("{prefix}{name}"), property(settings, prefix, name)?)))
    };
    if let Some((key, level)) = found("isolation.level")
        && level != "read_committed"
    {
        problems.push(settings.problem(
            &key,
            "with transactions, offsets that are about to be committed have to be waited for",
            "leave it out, or set sink.kafka.transactions = false",
        ));
    }
    let age = "sink.kafka.transaction.max.ms";
    let (key, timeout) = found("transaction.timeout.ms").unwrap_or_else(|| {
        (
            age.to_owned(),
            crate::kafka::SHORT_TRANSACTIONS.1.to_owned(),
        )
    });
    let longest = settings.millis(age).as_millis() * 2;
    if timeout.parse().is_ok_and(|timeout: u128| timeout < longest) {
        problems.push(settings.problem(
            &key,
            format!("kafka ends a transaction after {timeout} ms, before it can be committed"),
            "set sink.kafka.transaction.timeout.ms to twice sink.kafka.transaction.max.ms, or more",
        ));
    }
    problems
}
