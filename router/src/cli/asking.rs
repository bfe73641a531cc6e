//! A client that asks the source's brokers from the command line, and says why they don't answer.

use std::time::{Duration, Instant};

use keystone_config::Settings;
use keystone_sinks::kafka::client::Reporter;
use keystone_sinks::kafka::complaints::told;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

/// It is in no group.
pub(super) type Asking = BaseConsumer<Reporter>;

/// How long all brokers together may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first question waits. The next one waits for all the time that is left: a broker answers one after the other.
const FIRST: Duration = Duration::from_millis(500);
/// How long what librdkafka has met is listened to, between questions: at most, and while nothing comes.
const LISTEN: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_millis(20);

/// Makes the client. The text of an error is for a person.
pub(super) fn client(config: &ClientConfig) -> Result<Asking, String> {
    let made = config.create_with_context(Reporter::new("check"));
    made.map_err(|error| {
        format!(
            "no client can be made with the kafka.* properties: {}",
            told(&error)
        )
    })
}

/// What the brokers know. An error names the options and what librdkafka has met.
pub(super) fn metadata(client: &Asking, settings: &Settings) -> Result<Metadata, String> {
    let end = Instant::now() + PATIENCE;
    let mut wait = FIRST;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let error = match client.fetch_metadata(None, left.min(wait)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        wait = PATIENCE;
        let refused = listen(client);
        if refused || Instant::now() >= end {
            return Err(no_answer(client, settings, &error));
        }
    }
}

/// Hands what has been met to the client's reporter; whether a broker refuses us, which no patience helps against.
fn listen(client: &Asking) -> bool {
    let mut refused = false;
    let end = Instant::now() + LISTEN;
    while let Some(event) = client.poll(SILENCE) {
        let code = event.err().and_then(|error| error.rdkafka_error_code());
        refused |= code == Some(RDKafkaErrorCode::Authentication);
        if Instant::now() >= end {
            break;
        }
    }
    refused
}

fn no_answer(client: &Asking, settings: &Settings, error: &KafkaError) -> String {
    let servers = settings.text("kafka.bootstrap.servers").unwrap_or_default();
    let met = client.context().recent_error(2 * PATIENCE);
    let met = met.map(|reason| format!(" ({reason})")).unwrap_or_default();
    settings.redact(&format!(
        "no Kafka broker answers at kafka.bootstrap.servers = {servers}: {error}{met}; see also kafka.security.protocol, kafka.sasl.* and kafka.ssl.*"
    ))
}
