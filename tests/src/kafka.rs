//! A real Kafka broker: one node, KRaft.

mod acl;
mod guarded;
mod request;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::Offset;
use tempfile::TempDir;

pub use request::Request;

use crate::process::{self, LOG4J, Process};
use crate::{Doing, Error, Result, block_on, free_port, provision};

const READY: Duration = Duration::from_secs(90);
const FORMAT: Duration = Duration::from_secs(60);
/// For a clean shutdown; Kafka writes its logs out.
const GRACE: Duration = Duration::from_secs(30);
/// For one request of a client.
const REQUEST: Duration = Duration::from_secs(20);
/// For reading a topic to its end.
const READ: Duration = Duration::from_secs(120);
/// For the broker to abort what a killed worker left open: its `transaction.timeout.ms`, and the ten seconds between two looks.
const TRANSACTIONS: Duration = Duration::from_secs(120);
/// Log4j 2's settings beside [`LOG4J`]: what the coordinators did with groups and transactions, and during a shutdown, too.
const COORDINATORS: &str = "\
shutdownHook = disable
logger.transactions.name = kafka.coordinator.transaction
logger.transactions.level = INFO
logger.groups.name = org.apache.kafka.coordinator.group
logger.groups.level = INFO
";

/// Memory for a broker beside other servers and tests.
const SMALL: &[&str] = &["-Xmx768m"];
/// What Kafka's own start script gives the JVM.
const AS_SHIPPED: &[&str] = &[
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A broker of its own. Ended, and its data removed, when dropped.
pub struct Kafka {
    process: Option<Process>,
    jvm: &'static [&'static str],
    port: u16,
    dir: TempDir,
    lib: PathBuf,
    /// For what is asked again and again while a test waits, by [`Isolation`].
    clients: [OnceLock<BaseConsumer>; 2],
}

/// A record as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value of the first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        value
            .as_deref()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// What a group has committed of a topic, asked by one client.
pub struct GroupOnTopic {
    client: BaseConsumer,
    partitions: TopicPartitionList,
}

impl GroupOnTopic {
    /// By partition; partitions without a commit are left out.
    pub fn committed(&self) -> Result<BTreeMap<i32, i64>> {
        let commits = self.commits()?.into_iter();
        Ok(commits
            .map(|(partition, (offset, _))| (partition, offset))
            .collect())
    }

    /// The same with the metadata of each commit.
    pub fn commits(&self) -> Result<BTreeMap<i32, (i64, String)>> {
        let committed = self
            .client
            .committed_offsets(self.partitions.clone(), REQUEST)
            .doing("asking for the offsets of a group")?;
        Ok(committed
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => {
                    Some((element.partition(), (offset, element.metadata().to_owned())))
                }
                _ => None,
            })
            .collect())
    }
}

/// Broker settings for access control lists, where what has no list is everybody's.
pub const AUTHORIZER: [(&str, &str); 2] = [
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    ("allow.everyone.if.no.acl.found", "true"),
];

/// Which records of transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Kafka {
    /// A private broker, ready.
    pub fn start() -> Result<Kafka> {
        Kafka::start_with(&[])
    }

    /// A private broker with more or other broker settings.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Kafka> {
        Kafka::start_on(free_port(), free_port(), settings, SMALL)
    }

    /// A private broker with the memory and garbage collector that Kafka's own start script gives it: for what is measured.
    pub fn start_as_shipped() -> Result<Kafka> {
        Kafka::start_on(free_port(), free_port(), &[], AS_SHIPPED)
    }

    fn start_on(
        port: u16,
        controller: u16,
        settings: &[(&str, &str)],
        jvm: &'static [&'static str],
    ) -> Result<Kafka> {
        let lib = provision::kafka()?.join("lib");
        let dir = tempfile::Builder::new()
            .prefix("keystone-kafka-")
            .tempdir()?;
        let mut properties = default_properties(port, controller, &dir);
        properties.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let text: String = properties
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        std::fs::write(dir.path().join("server.properties"), text)?;
        std::fs::write(
            dir.path().join("log4j2.properties"),
            format!("{LOG4J}{COORDINATORS}"),
        )?;
        let mut kafka = Kafka {
            process: None,
            jvm,
            port,
            dir,
            lib,
            clients: Default::default(),
        };
        let mut format = kafka.java("kafka.tools.StorageTool", &["-Xmx256m"])?;
        format
            .args([
                "format",
                "--cluster-id",
                "a2V5c3RvbmUtdGVzdHMtMQ",
                "--config",
            ])
            .arg(kafka.properties());
        process::run("Kafka's storage tool", &mut format, FORMAT)?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// The broker that all tests of this process share. Use topics and groups of your own.
    pub fn shared() -> Result<&'static Kafka> {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Kafka::start().map_err(|error| error.to_string()))
            .as_ref()
            .map_err(Error::new)
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it cleanly.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(GRACE);
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Freezes it: connections stay open and nothing answers, until [`Kafka::resume`].
    pub fn pause(&mut self) -> Result<()> {
        self.signal("STOP")
    }

    pub fn resume(&mut self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&mut self, signal: &str) -> Result<()> {
        match &mut self.process {
            Some(process) => process.signal(signal),
            None => Err(Error::new("Kafka is not running")),
        }
    }

    /// Starts it with the same data on the same port (stopping it first where it runs) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = self.java("kafka.Kafka", self.jvm)?;
        command.arg(self.properties());
        let mut process =
            Process::spawn("Kafka", &mut command, &self.log(), Some(self.dir.path()))?;
        let consumer = self.consumer("keystone-tests-ready", Isolation::ReadUncommitted)?;
        process.wait_ready(READY, || {
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(1))?;
            match metadata.brokers().is_empty() {
                false => Ok(()),
                true => Err(Error::new("no broker has registered yet")),
            }
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Sets how many bytes a second the broker takes from producers with this `client.id`; nothing lifts the limit.
    pub fn set_producer_quota(&self, client_id: &str, bytes: Option<u32>) -> Result<()> {
        let mut command = self.java("kafka.admin.ConfigCommand", &["-Xmx256m"])?;
        let quota = "producer_byte_rate";
        let change = match bytes {
            Some(bytes) => ["--add-config".to_owned(), format!("{quota}={bytes}")],
            None => ["--delete-config".to_owned(), quota.to_owned()],
        };
        command
            .args(["--bootstrap-server", &self.bootstrap(), "--alter"])
            .args(change)
            .args(["--entity-type", "clients", "--entity-name", client_id]);
        process::run("Kafka's config command", &mut command, FORMAT)
    }

    /// Creates a topic with one replica. `config` is the topic's own, for example `("max.message.bytes", "30000000")`.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let answers = block_on(self.admin()?.create_topics([&topic], &admin_options()))?;
        // A request that is sent again, since a busy broker did not answer in time, finds what the first one made.
        let exists = RDKafkaErrorCode::TopicAlreadyExists;
        if matches!(answers.first(), Some(Err((_, code))) if *code == exists)
            && self.partitions(name)?.len() == partitions as usize
        {
            return Ok(());
        }
        single(answers.into_iter().next(), "create", name)
    }

    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let answers = block_on(self.admin()?.delete_topics(&[name], &admin_options()))?;
        single(answers.into_iter().next(), "delete", name)
    }

    /// Gives a topic more partitions: this many then.
    pub fn widen(&self, topic: &str, partitions: usize) -> Result<()> {
        let more = NewPartitions::new(topic, partitions);
        let answers = block_on(self.admin()?.create_partitions([&more], &admin_options()))?;
        single(answers.into_iter().next(), "widen", topic)
    }

    /// Deletes the records of a partition before this offset.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        block_on(self.admin()?.delete_records(&before, &admin_options()))?;
        Ok(())
    }

    /// The partitions of a topic; none where the topic does not exist.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self
            .client(Isolation::ReadUncommitted)?
            .fetch_metadata(Some(topic), REQUEST)
            .doing(format!("asking for the partitions of {topic}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found
            .map(|topic| {
                topic
                    .partitions()
                    .iter()
                    .map(|partition| partition.id())
                    .collect()
            })
            .unwrap_or_default())
    }

    /// The offset after the last record, by partition.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.ends(topic, Isolation::ReadUncommitted)
    }

    /// Waits until every transaction on a topic has ended. A reader of committed records stops before one that is open, whatever was
    /// committed behind it, and that of a killed worker is open until the broker aborts it.
    pub fn wait_transactions(&self, topic: &str) -> Result<()> {
        let what = format!("the end of every transaction on {topic}");
        crate::wait_for(TRANSACTIONS, &what, || {
            let (stable, ends) = (
                self.ends(topic, Isolation::ReadCommitted)?,
                self.end_offsets(topic)?,
            );
            match stable == ends {
                true => Ok(()),
                false => Err(Error::new(format!(
                    "the last stable offsets are {stable:?}, the ends {ends:?}"
                ))),
            }
        })
    }

    /// Where a reader's last record of each partition ends.
    fn ends(&self, topic: &str, isolation: Isolation) -> Result<BTreeMap<i32, i64>> {
        let client = self.client(isolation)?;
        let offset = |partition| {
            Ok((
                partition,
                client.fetch_watermarks(topic, partition, REQUEST)?.1,
            ))
        };
        self.partitions(topic)?.into_iter().map(offset).collect()
    }

    /// What a group has committed, by partition; partitions without a commit are left out.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.group_on(group, topic)?.committed()
    }

    /// The same with the metadata of each commit.
    pub fn commits(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, (i64, String)>> {
        self.group_on(group, topic)?.commits()
    }

    /// A group on a topic of the present partitions, to be asked more than once.
    pub fn group_on(&self, group: &str, topic: &str) -> Result<GroupOnTopic> {
        let mut partitions = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            partitions.add_partition(topic, partition);
        }
        Ok(GroupOnTopic {
            client: self.consumer(group, Isolation::ReadUncommitted)?,
            partitions,
        })
    }

    /// Has Kafka throw members of a group of the new protocol out after 6 s of silence: there it is not for the member to say.
    pub fn shorten_sessions(&self, group: &str) -> Result<()> {
        self.set_sessions(group, "6000")
    }

    /// After as long as usual, when the one that was to be missed is gone.
    pub fn lengthen_sessions(&self, group: &str) -> Result<()> {
        self.set_sessions(group, "45000")
    }

    fn set_sessions(&self, group: &str, millis: &str) -> Result<()> {
        let config = AlterConfig::new(ResourceSpecifier::Group(group))
            .set("consumer.session.timeout.ms", millis)
            .set("consumer.heartbeat.interval.ms", "500");
        let answers = block_on(self.admin()?.alter_configs([&config], &admin_options()))?;
        match answers.first() {
            Some(Ok(_)) => Ok(()),
            answer => Err(Error::new(format!(
                "Kafka did not set the sessions of group {group}: {answer:?}"
            ))),
        }
    }

    /// How many members a (classic) group has, and its state, for example `Stable`.
    pub fn group(&self, group: &str) -> Result<(usize, String)> {
        let list = self
            .client(Isolation::ReadUncommitted)?
            .fetch_group_list(Some(group), REQUEST)
            .doing(format!("asking for group {group}"))?;
        let found = list
            .groups()
            .first()
            .ok_or_else(|| Error::new(format!("no group {group}")))?;
        Ok((found.members().len(), found.state().to_owned()))
    }

    /// Reads a topic from its beginning to its present end with a plain consumer, partition by partition in order.
    pub fn read(
        &self,
        topic: &str,
        isolation: Isolation,
        mut each: impl FnMut(Record),
    ) -> Result<()> {
        let consumer = self.consumer("keystone-tests-reader", isolation)?;
        let partitions = self.partitions(topic)?;
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let deadline = std::time::Instant::now() + READ;
        let mut unfinished = partitions.len();
        while unfinished > 0 {
            if std::time::Instant::now() > deadline {
                return Err(Error::new(format!(
                    "reading {topic} to its end took more than {READ:?}"
                )));
            }
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => each(record(&message)),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => unfinished -= 1,
                Some(Err(error)) => return Err(error).doing(format!("reading {topic}")),
                None => {}
            }
        }
        Ok(())
    }

    /// All records of a topic.
    pub fn read_all(&self, topic: &str) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.read(topic, Isolation::ReadCommitted, |record| {
            records.push(record)
        })?;
        Ok(records)
    }

    /// Copies the broker's log, which goes with its directory otherwise.
    pub fn keep_log(&self, to: &Path) -> Result<()> {
        std::fs::copy(self.log(), to).doing(format!("copying Kafka's log to {}", to.display()))?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("kafka.log")
    }

    fn properties(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    fn java(&self, class: &str, jvm: &[&str]) -> Result<Command> {
        let mut command = Command::new(provision::java()?);
        let log4j = self.dir.path().join("log4j2.properties");
        command
            .args(jvm)
            .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.arg("-cp").arg(self.lib.join("*")).arg(class);
        Ok(command)
    }

    fn client(&self, isolation: Isolation) -> Result<&BaseConsumer> {
        let place = &self.clients[isolation as usize];
        if place.get().is_none() {
            // Where another test was faster, its client stays.
            let _ = place.set(self.consumer("keystone-tests", isolation)?);
        }
        Ok(place.get().expect("it was made above"))
    }

    fn consumer(&self, group: &str, isolation: Isolation) -> Result<BaseConsumer> {
        let level = match isolation {
            Isolation::ReadUncommitted => "read_uncommitted",
            Isolation::ReadCommitted => "read_committed",
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", group)
            .set("isolation.level", level);
        config
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "50");
        config
            .set("receive.message.max.bytes", "200000000")
            .set("reconnect.backoff.max.ms", "200");
        Ok(config.create()?)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .create()?)
    }
}

fn default_properties(port: u16, controller: u16, dir: &TempDir) -> BTreeMap<String, String> {
    let properties = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller}"),
        ),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
        ),
        (
            "advertised.listeners",
            format!("PLAINTEXT://127.0.0.1:{port}"),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("log.dirs", dir.path().join("data").display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("offsets.topic.num.partitions", "4".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("transaction.state.log.num.partitions", "4".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        (
            "share.coordinator.state.topic.replication.factor",
            "1".to_owned(),
        ),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        // For groups that shorten theirs.
        ("group.consumer.min.session.timeout.ms", "6000".to_owned()),
        ("group.consumer.min.heartbeat.interval.ms", "500".to_owned()),
        // A topic may allow larger records than the default of 1 MiB; replication does not matter with one node.
        ("socket.request.max.bytes", "209715200".to_owned()),
    ];
    properties
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(REQUEST))
        .request_timeout(Some(REQUEST))
}

fn single(answer: Option<rdkafka::admin::TopicResult>, verb: &str, name: &str) -> Result<()> {
    match answer {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(Error::new(format!(
            "Kafka did not {verb} the topic {name}: {code}"
        ))),
        None => Err(Error::new(format!(
            "Kafka did not say whether it could {verb} the topic {name}"
        ))),
    }
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}
