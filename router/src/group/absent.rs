//! Topics that the route names and Kafka does not have. librdkafka tells of them once, without a name, and never that they are there.

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::consumer::Consumer;
use tracing::debug;

use super::GroupConsumer;
use crate::state::{ASK_TIMEOUT, lock};

/// Says which topics are missing, or that none is any more.
pub(super) fn look_at_topics(consumer: &GroupConsumer) {
    let shared = &consumer.context().shared;
    let metadata = match consumer.fetch_metadata(None, ASK_TIMEOUT) {
        Ok(metadata) => metadata,
        // Kafka is away: others say so.
        Err(error) => return debug!("the topics could not be listed: {error}"),
    };
    let there = metadata.topics().iter().map(|topic| topic.name());
    let missing = missing(shared.route.named_topics(), &there.collect());
    if missing.is_empty() {
        return shared.troubles.all_is_well("topics");
    }
    let names = missing.join(", ");
    shared.troubles.tell(
        "topics",
        format!(
            "of source.topics = {} these do not exist (yet): {names}; create them, or correct the option; the others are read",
            shared.route.topics.join(",")
        ),
    );
    let missing = missing.into_iter().map(Arc::from);
    lock(&shared.old_topics).extend(missing);
}

fn missing<'t>(named: impl Iterator<Item = &'t str>, there: &BTreeSet<&str>) -> Vec<&'t str> {
    named.filter(|topic| !there.contains(topic)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_named_and_not_there_is_missing() {
        let there = BTreeSet::from(["plays", "other"]);
        let missing = |named: &[&'static str]| missing(named.iter().copied(), &there);
        assert_eq!(
            missing(&["plays", "payments", "logins"]),
            ["payments", "logins"]
        );
        assert_eq!(missing(&["plays"]), [""; 0]);
    }
}
