//! What librdkafka says against properties, in our terms: with our key, and never with a value.

use keystone_config::{Problem, Settings};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaType;

use super::client::{Role, SOURCE_PREFIX};

/// An error of a client that is made, without the value of the property that it is about: that may be a secret under a name with a slip.
pub fn told(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, complaint, name, _) if complaint.contains(name) => {
            complaint.clone()
        }
        KafkaError::ClientConfig(_, complaint, name, _) => format!("{name}: {complaint}"),
        KafkaError::ClientCreation(complaint) => complaint.clone(),
        other => other.to_string(),
    }
}

/// What librdkafka says against these properties together, each of which is right by itself. No server is asked.
pub fn refusal(config: &ClientConfig, role: Role) -> Option<String> {
    let mut config = config.clone();
    // A client without addresses connects to nothing.
    config.remove("bootstrap.servers");
    let kind = match role {
        Role::Consumer => RDKafkaType::RD_KAFKA_CONSUMER,
        Role::Producer => RDKafkaType::RD_KAFKA_PRODUCER,
    };
    let made = config
        .create_native_config()
        .and_then(|native| Client::new(&config, native, kind, DefaultClientContext));
    made.err().map(|error| told(&error))
}

/// A complaint as a problem with the property that it names: the last of these prefixes that sets one counts.
pub fn problem(settings: &Settings, prefixes: &[&str], complaint: &str) -> Problem {
    let set = prefixes.iter().rev().find_map(|prefix| {
        let names = settings.passthrough(prefix).into_iter();
        let mut named = names.filter(|(name, _)| names_it(complaint, name));
        named.next().map(|(name, _)| format!("{prefix}{name}"))
    });
    let key = set.unwrap_or_else(|| format!("{SOURCE_PREFIX}*"));
    settings.problem(
        &key,
        format!("no Kafka client can be made; librdkafka says: {complaint}"),
        "see librdkafka's CONFIGURATION.md for what goes together",
    )
}

/// Whether a name stands in a text as a whole, and not in a longer name.
fn names_it(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let longer = |c: char| after.starts_with(c) && part(after.chars().nth(1));
        !part(before.chars().next_back())
            && !before.ends_with('.')
            && !part(after.chars().next())
            && !longer('.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_property_is_not_told() {
        for (name, value) in [
            ("sasl.passwd", "hidden"),
            ("ssl.keystore.key", "hidden"),
            ("acks", "hidden"),
        ] {
            let mut config = ClientConfig::new();
            config.set(name, value);
            let error = config.create_native_config().err().expect("it is refused");
            assert!(told(&error).contains(name), "{}", told(&error));
            if name != "acks" {
                assert!(!told(&error).contains(value), "{}", told(&error));
            }
        }
    }

    #[test]
    fn librdkafka_is_asked_about_properties_together() {
        let mut config = ClientConfig::new();
        config
            .set("group.id", "g")
            .set("bootstrap.servers", "127.0.0.1:1");
        assert_eq!(refusal(&config, Role::Consumer), None);
        config.set("session.timeout.ms", "400000");
        let complaint = refusal(&config, Role::Consumer).unwrap();
        assert!(complaint.contains("max.poll.interval.ms"), "{complaint}");
        let mut config = ClientConfig::new();
        config.set("enable.idempotence", "true");
        assert_eq!(refusal(&config, Role::Producer), None);
        config.set("max.in.flight", "10");
        assert!(refusal(&config, Role::Producer).is_some());
    }

    #[test]
    fn a_name_is_found_as_a_whole() {
        let text = "`ssl.ca.location` failed: see ssl.key.location. `acks`";
        for name in ["ssl.ca.location", "ssl.key.location", "acks"] {
            assert!(names_it(text, name), "{name}");
        }
        for name in ["ssl.ca", "ca.location", "ssl.key", "ack", "location"] {
            assert!(!names_it(text, name), "{name}");
        }
    }
}
