//! Brokers that ask who is there, and what he may do.

use super::{Kafka, SMALL, acl};
use crate::{Doing, Result, free_port};

impl Kafka {
    /// A private broker with one listener more: it listens on the port `listener`, and says that it is reached on `advertised`, where a
    /// [`crate::proxy::Proxy`] stands. [`Kafka::bootstrap`] goes around the proxy. Sessions of the new consumer protocol last 6 s.
    pub fn start_behind(listener: u16, advertised: u16) -> Result<Kafka> {
        let (port, controller) = (free_port(), free_port());
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{listener}"
        );
        let reached = format!("PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{advertised}");
        let settings = [
            ("listeners", listeners.as_str()),
            ("advertised.listeners", &reached),
            ("inter.broker.listener.name", "PLAINTEXT"),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
            ),
            ("group.consumer.session.timeout.ms", "6000"),
            ("group.consumer.heartbeat.interval.ms", "500"),
        ];
        Kafka::start_on(port, controller, &settings, SMALL)
    }

    /// A private broker with one listener more, on the port `guarded`, which lets in the user `keystone` with this password (SASL PLAIN).
    pub fn start_guarded(guarded: u16, password: &str) -> Result<Kafka> {
        let (port, controller) = (free_port(), free_port());
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{guarded}"
        );
        let reached = format!("PLAINTEXT://127.0.0.1:{port},GUARDED://127.0.0.1:{guarded}");
        let users = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_keystone=\"{password}\";"
        );
        let settings = [
            ("listeners", listeners.as_str()),
            ("advertised.listeners", &reached),
            ("inter.broker.listener.name", "PLAINTEXT"),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
            ),
            ("listener.name.guarded.sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.guarded.plain.sasl.jaas.config", &users),
        ];
        Kafka::start_on(port, controller, &settings, SMALL)
    }

    /// Takes the right to write to a topic from everybody, on a broker with an authorizer; to read it stays allowed.
    pub fn deny_writing(&self, topic: &str) -> Result<()> {
        self.rule(
            acl::TOPIC,
            topic,
            &[(acl::WRITE, acl::DENY), (acl::READ, acl::ALLOW)],
        )
    }

    /// Takes the right to read a topic from everybody; that it is there stays known.
    pub fn deny_reading(&self, topic: &str) -> Result<()> {
        self.rule(
            acl::TOPIC,
            topic,
            &[(acl::READ, acl::DENY), (acl::DESCRIBE, acl::ALLOW)],
        )
    }

    /// Takes all rights to a topic from everybody: it can't even be seen.
    pub fn hide(&self, topic: &str) -> Result<()> {
        self.rule(acl::TOPIC, topic, &[(acl::DESCRIBE, acl::DENY)])
    }

    /// Nobody may join a group or commit as one of it.
    pub fn deny_joining(&self, group: &str) -> Result<()> {
        self.rule(
            acl::GROUP,
            group,
            &[(acl::READ, acl::DENY), (acl::DESCRIBE, acl::ALLOW)],
        )
    }

    fn rule(&self, kind: u8, name: &str, entries: &[(u8, u8)]) -> Result<()> {
        acl::create(&self.bootstrap(), kind, name, entries)
            .doing(format!("making an access control list for {name}"))
    }
}
