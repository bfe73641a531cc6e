//! The dead-letter topic: whether it is there, how it is made, and what it takes. No record is written here.

use std::collections::BTreeMap;

use keystone_sinks::kafka::client::{Role, SOURCE_PREFIX, is_refusal, properties};
use keystone_sinks::kafka::complaints::told;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer as _;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{ASK, DeadLetters, MAX_REASON};

/// How large a batch of records may be that a topic takes.
const LIMIT: &str = "max.message.bytes";
/// Room for whatever the source topics could hold.
const ROOM: &str = "100000000";

/// What a dead letter has more than its event, at most: the reason, and the other headers with the names of the route and of a topic.
const HEADERS: u64 = MAX_REASON as u64 + 1_024;
/// No topic can have a higher limit.
const HIGHEST_LIMIT: u64 = i32::MAX as u64;

/// Whether dead letters have a place to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The topic is there. Whether the route may write to it shows when it does.
    There,
    /// The first dead letter makes it: the brokers say that they would let us.
    ToBeMade,
    /// It is not there, and the brokers don't say whether they would let us make it.
    Unclear(Code),
    /// No dead letter can be written. What is wrong and what to do, for a person.
    Missing(String),
}

impl DeadLetters {
    /// Asks whether dead letters have a place to go to. Makes nothing and writes nothing. Fails where the brokers don't answer.
    pub async fn look(&self) -> Result<Place, String> {
        let there = self.exists().await.map_err(|error| {
            format!("the brokers don't answer: {error}; see kafka.bootstrap.servers")
        })?;
        if there {
            return Ok(Place::There);
        }
        match self.create(true).await {
            Ok(()) => Ok(Place::ToBeMade),
            Err(KafkaError::AdminOp(code)) => Ok(place(&self.topic, code)),
            Err(error) => Err(told(&error)),
        }
    }

    /// Says what may be too large for the topic though the route reads it from one of these; `None` where all fits, or Kafka doesn't tell
    /// the limits, for which it wants the right DescribeConfigs.
    pub async fn too_narrow_for(&self, sources: &[String]) -> Option<String> {
        let limits = self.limits(sources).await.ok()?;
        too_narrow(&self.topic, limits)
    }

    /// The limits of the topic and of these, as far as they are told.
    async fn limits(&self, sources: &[String]) -> KafkaResult<BTreeMap<String, u64>> {
        let names = sources.iter().chain([&self.topic]);
        let topics: Vec<_> = names.map(|name| ResourceSpecifier::Topic(name)).collect();
        let admin = self.admin()?;
        let told = admin.describe_configs(&topics, &options()).await?;
        let limit = |topic: ConfigResource| {
            let value = topic.get(LIMIT)?.value.as_ref()?.parse().ok()?;
            match topic.specifier {
                OwnedResourceSpecifier::Topic(name) => Some((name, value)),
                _ => None,
            }
        };
        Ok(told.into_iter().flatten().filter_map(limit).collect())
    }

    /// Whether the topic is there. Asks for all topics: asking for one by name could create it, with the brokers' defaults.
    async fn exists(&self) -> Result<bool, String> {
        let client = self.producer.client();
        let topic = self.topic.clone();
        let (answer, asked) = oneshot::channel();
        // Of a thread that blocks a runtime would wait for the end, and with it a worker that is to end while the brokers are away.
        std::thread::spawn(move || {
            let metadata = client.client().fetch_metadata(None, ASK);
            let is_there = |metadata: Metadata| {
                let mut topics = metadata.topics().iter();
                topics.any(|found| found.name() == topic)
            };
            // Whoever asked may have given up.
            let _gone = answer.send(metadata.map(is_there));
        });
        let asked = asked.await.map_err(|error| error.to_string())?;
        asked.map_err(|error| error.to_string())
    }

    /// Creates the topic before the first dead letter, if the brokers let us. Whether it worked shows when we write.
    pub(super) async fn create_missing(&self) {
        // Held until it is there: a write in between could create it with the brokers' defaults.
        let mut created = self.created.lock().await;
        if *created {
            return;
        }
        *created = true;
        if self.exists().await == Ok(true) {
            return;
        }
        let topic = &self.topic;
        match self.create(false).await {
            Ok(()) => info!("created the dead-letter topic {topic}"),
            Err(KafkaError::AdminOp(Code::TopicAlreadyExists)) => {}
            Err(error) => warn!(
                "the dead-letter topic {topic} could not be created: {}; if it exists, this does no harm",
                told(&error)
            ),
        }
    }

    /// Has the brokers create the topic, or only say whether they would.
    async fn create(&self, only_asked: bool) -> KafkaResult<()> {
        let admin = self.admin()?;
        let options = options().validate_only(only_asked);
        // As many partitions and replicas as the brokers choose.
        let topic = || NewTopic::new(&self.topic, -1, TopicReplication::Fixed(-1));
        let made = create(&admin, &options, &topic().set(LIMIT, ROOM)).await;
        match made {
            // Brokers may cap that limit, or let nobody set it.
            Err(KafkaError::AdminOp(Code::InvalidConfig | Code::PolicyViolation)) => {
                warn!(
                    "the brokers refuse {LIMIT} = {ROOM} for the dead-letter topic {}: it has their default; an event that is larger by then stops the worker",
                    self.topic
                );
                create(&admin, &options, &topic()).await
            }
            made => made,
        }
    }

    fn admin(&self) -> KafkaResult<AdminClient<DefaultClientContext>> {
        properties(&self.settings, Role::Producer, &[SOURCE_PREFIX], &[], &[]).create()
    }
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topic: &NewTopic<'_>,
) -> KafkaResult<()> {
    let answers = admin.create_topics([topic], options).await?;
    match answers.into_iter().next() {
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK))
}

/// What it means that the brokers would not make the topic, which we don't see.
fn place(topic: &str, code: Code) -> Place {
    match code {
        Code::TopicAlreadyExists => Place::Missing(format!(
            "topic {topic} (dead.letter.topic) is there, but the route's user may not see it: give its user the right to write to it"
        )),
        code if is_refusal(code) => Place::Missing(format!(
            "topic {topic} (dead.letter.topic) does not exist, or the route's user may not see it, and that user may not create it: create it, and \
             give its user the right to write to it"
        )),
        // No answer, or brokers that can't be asked in this way: before 2.4 they don't choose the number of partitions.
        Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::NotController
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion => Place::Unclear(code),
        code => Place::Missing(format!(
            "topic {topic} (dead.letter.topic) does not exist, and the brokers refuse to create it: {code}; create it"
        )),
    }
}

/// Compares the limit of the dead-letter topic with the highest one of the others.
fn too_narrow(topic: &str, mut limits: BTreeMap<String, u64>) -> Option<String> {
    let takes = limits.remove(topic)?;
    let (source, most) = limits.into_iter().max_by_key(|(_, limit)| *limit)?;
    let needed = most.saturating_add(HEADERS).min(HIGHEST_LIMIT);
    (takes < needed).then(|| {
        format!(
            "topic {topic} (dead.letter.topic) takes records of {takes} bytes and topic {source}, which is read, of {most}: a dead letter is \
             larger than its event by its headers, and one that does not fit stops the worker; set {LIMIT} of {topic} to {needed} or more"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(dead: u64, sources: &[(&str, u64)]) -> Option<String> {
        let sources = sources.iter().map(|(name, limit)| (*name, *limit));
        let limits = sources.chain([("dead", dead)]);
        let limits = limits.map(|(name, limit)| (name.to_owned(), limit));
        too_narrow("dead", limits.collect())
    }

    #[test]
    fn a_topic_that_takes_less_than_the_largest_source_and_the_headers_is_too_narrow() {
        let sources = [("a", 1_000), ("b", 100_000), ("c", 10)];
        let warning = narrow(100_000, &sources).expect("it is narrow");
        for words in [
            "topic dead (dead.letter.topic) takes records of 100000 bytes",
            "topic b, which is read, of 100000",
            "max.message.bytes of dead to 105120 or more",
        ] {
            assert!(warning.contains(words), "{warning}");
        }
        assert_eq!(narrow(105_120, &sources), None);
        assert_eq!(narrow(HIGHEST_LIMIT, &[("a", HIGHEST_LIMIT)]), None);
    }

    #[test]
    fn limits_that_kafka_does_not_tell_are_no_warning() {
        assert_eq!(narrow(1, &[]), None);
        let only_source = BTreeMap::from([("a".to_owned(), 1_000)]);
        assert_eq!(too_narrow("dead", only_source), None);
    }

    #[test]
    fn it_is_told_what_to_do_where_the_brokers_would_not_make_the_topic() {
        for (code, words) in [
            (Code::TopicAlreadyExists, "the right to write to it"),
            (
                Code::TopicAuthorizationFailed,
                "that user may not create it",
            ),
            (
                Code::ClusterAuthorizationFailed,
                "that user may not create it",
            ),
            (Code::InvalidReplicationFactor, "InvalidReplicationFactor"),
            (Code::PolicyViolation, "the brokers refuse to create it"),
        ] {
            match place("dead", code) {
                Place::Missing(problem) => assert!(
                    problem.starts_with("topic dead (dead.letter.topic) ")
                        && problem.contains(words),
                    "{problem}"
                ),
                other => panic!("{code}: {other:?}"),
            }
        }
        for code in [Code::OperationTimedOut, Code::UnsupportedVersion] {
            assert_eq!(place("dead", code), Place::Unclear(code));
        }
    }
}
