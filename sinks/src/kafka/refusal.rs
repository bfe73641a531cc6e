//! What Kafka's errors ask of whoever runs the route, where trying again will not help.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::client;

/// What is to be done where Kafka refuses the route for who it is, or for how it is set up; `None` where it may take it later.
pub(super) fn remedy(code: Code) -> Option<&'static str> {
    let remedy = match code {
        Code::TransactionalIdAuthorizationFailed => {
            "give its user the right to the transactional ids that begin with route.name, or set sink.kafka.transactions = false"
        }
        Code::ClusterAuthorizationFailed => {
            "give its user the right IdempotentWrite on the cluster, which brokers before 3.0 ask for"
        }
        Code::GroupAuthorizationFailed => {
            "give its user the right to read as the consumer group of the route"
        }
        Code::InvalidTransactionTimeout => {
            "lower sink.kafka.transaction.timeout.ms, or raise the brokers' transaction.max.timeout.ms"
        }
        Code::UnsupportedFeature => {
            "its brokers know no idempotent producers or no transactions: the sink needs Kafka 0.11 or later, with transactions 2.5 or later"
        }
        code if client::is_refusal(code) => {
            "give its user the right to write, or change sink.kafka.sasl.* / kafka.sasl.*"
        }
        _ => return None,
    };
    Some(remedy)
}

/// Whether a record has failed only since something else has: librdkafka hands back all that it holds when a transaction or a producer
/// is broken, and takes nothing more.
pub(super) fn is_consequence(code: Code) -> bool {
    matches!(
        code,
        Code::PurgeQueue | Code::PurgeInflight | Code::State | Code::Fatal
    )
}
