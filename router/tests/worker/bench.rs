//! The bench of one scenario: its topic, its group, its record, and the workers that run on it.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use keystone::ledger::LedgerView;
use keystone::route::{self, Route};
use keystone::state::{Shared, lock};
use keystone::worker::Worker;
use keystone_config::Sources;
use keystone_sinks::Sink;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::cluster::{cluster, create_topic};
use crate::judge::{Place, Record};
use crate::scripted::Scripted;

/// Nothing here takes this long; a condition that is not met by then never will be.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs scenarios side by side and names those that failed.
pub(crate) fn together(scenarios: &[(&str, fn())]) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> = scenarios
            .iter()
            .map(|(name, scenario)| {
                let thread = std::thread::Builder::new().name((*name).to_owned());
                let handle = thread
                    .spawn_scoped(scope, scenario)
                    .expect("a thread starts");
                (*name, handle)
            })
            .collect();
        running
            .into_iter()
            .filter_map(|(name, handle)| handle.join().is_err().then_some(name))
            .collect()
    });
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// Waits for a condition, with a deadline.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {DEADLINE:?} in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A record to produce, or one that was read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: Option<i64>,
}

impl Entry {
    pub(crate) fn payload(partition: i32, payload: impl Into<Vec<u8>>) -> Entry {
        Entry {
            partition,
            payload: Some(payload.into()),
            ..Entry::default()
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().rfind(|(key, _)| key == name);
        let value = found.and_then(|(_, value)| value.as_deref());
        std::str::from_utf8(value.unwrap_or_else(|| panic!("no header {name} in {self:?}")))
            .expect("our own headers are text")
    }
}

/// One scenario: a topic, a group of the same name, and the record of what its sinks did.
pub(crate) struct Bench {
    pub(crate) name: String,
    partitions: i32,
    pub(crate) record: Arc<Record>,
    produced: Mutex<BTreeMap<i32, i64>>,
}

impl Bench {
    pub(crate) fn new(name: &str, partitions: i32) -> Bench {
        create_topic(name, partitions);
        create_topic(&format!("{name}.dead-letters"), 1);
        Bench {
            name: name.to_owned(),
            partitions,
            record: Arc::default(),
            produced: Mutex::default(),
        }
    }

    /// Produces records and returns their places, in the same order.
    pub(crate) fn produce_entries(&self, entries: &[Entry]) -> Vec<Place> {
        let sent: Vec<_> = entries
            .iter()
            .map(|entry| {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &entry.headers {
                    let value = value.as_ref();
                    headers = headers.insert(Header { key, value });
                }
                let mut record = FutureRecord::<[u8], [u8]>::to(&self.name)
                    .partition(entry.partition)
                    .headers(headers);
                record.key = entry.key.as_deref();
                record.payload = entry.payload.as_deref();
                record.timestamp = entry.timestamp;
                cluster()
                    .producer
                    .send_result(record)
                    .map_err(|(error, _)| error)
                    .expect("the record is queued")
            })
            .collect();
        let mut produced = lock(&self.produced);
        sent.into_iter()
            .map(|sent| {
                let done = block_on(sent)
                    .expect("the producer lives")
                    .expect("produced");
                let end = produced.entry(done.partition).or_default();
                *end = (*end).max(done.offset + 1);
                (done.partition, done.offset)
            })
            .collect()
    }

    /// Produces this many plain events, over all partitions in turn, which are to be delivered as they are.
    pub(crate) fn produce(&self, count: usize) {
        let entries: Vec<Entry> = (0..count)
            .map(|number| {
                let payload = format!("{{\"id\":\"{}-{number}\",\"n\":{number}}}", self.name);
                Entry::payload(number as i32 % self.partitions, payload)
            })
            .collect();
        let places = self.produce_entries(&entries);
        for (place, entry) in places.into_iter().zip(entries) {
            self.record.expect(place, entry.payload);
        }
    }

    /// Starts a worker with our defaults, changed by these `key=value`.
    pub(crate) fn start(&self, sink: Scripted, options: &[&str]) -> Running {
        let sink = Arc::new(sink);
        let running = self.start_any(sink.clone(), options);
        assert!(sink.worker.set(running.shared.clone()).is_ok());
        running
    }

    /// Our defaults, quick and small, into a black hole.
    pub(crate) fn properties(&self) -> String {
        format!(
            "route.name = {}\nsource.topics = {}\nkafka.bootstrap.servers = {}\n\
             kafka.session.timeout.ms = 6000\nkafka.heartbeat.interval.ms = 300\nsource.fetch.max.wait.ms = 20\n\
             sink.type = blackhole\nadmin.listen = 127.0.0.1:0\n\
             delivery.lanes = 2\ndelivery.batch.max.events = 10\ndelivery.batch.max.age.ms = 20\n\
             delivery.commit.interval.ms = 20\ndelivery.retry.backoff.ms = 1\ndelivery.retry.backoff.max.ms = 20\n\
             delivery.shutdown.drain.max.ms = 20000\n",
            self.name,
            self.name,
            cluster().servers
        )
    }

    pub(crate) fn start_any<S: Sink + 'static>(
        &self,
        sink: Arc<S>,
        options: &[&str],
    ) -> Running<S> {
        let (route, _) = self.route(options);
        self.run(route, sink.clone(), sink)
    }

    /// Starts a worker with the sink that these options choose. The record knows nothing of it.
    pub(crate) fn start_chosen(&self, options: &[&str]) -> Running<dyn Sink> {
        let (route, sink) = self.route(options);
        self.run(route, sink.clone(), sink)
    }

    fn route(&self, options: &[&str]) -> (Route, Arc<dyn Sink>) {
        let sources = Sources {
            defaults: None,
            file: Some(("route.properties".to_owned(), self.properties())),
            env: Vec::new(),
            sets: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        route::load(&sources, "test").unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// `sink` is `called` as the test sees it.
    fn run<S: ?Sized>(&self, route: Route, called: Arc<dyn Sink>, sink: Arc<S>) -> Running<S> {
        let worker = Worker::new(route, called).expect("the worker is set up");
        let shared = worker.shared.clone();
        let admin = worker.admin_address();
        let thread = std::thread::spawn(move || worker.run());
        let over = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (record, shared, over) = (self.record.clone(), shared.clone(), over.clone());
            std::thread::spawn(move || {
                let mut verified = BTreeMap::new();
                while !over.load(Ordering::Relaxed) {
                    record.check_windows(&shared, &mut verified);
                    std::thread::sleep(Duration::from_millis(5));
                }
                record.check_windows(&shared, &mut verified);
            })
        };
        Running {
            shared,
            sink,
            record: self.record.clone(),
            admin,
            thread,
            over,
            watcher,
        }
    }

    /// What the group has committed, by partition.
    pub(crate) fn committed(&self) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &cluster().servers)
            .set("group.id", &self.name)
            .create()
            .expect("a consumer can be made");
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition(&self.name, partition);
        }
        let found = consumer
            .committed_offsets(asked, Duration::from_secs(20))
            .expect("the commits can be read");
        let offsets: HashMap<(String, i32), Offset> = found.to_topic_map();
        offsets
            .into_iter()
            .filter_map(|((_, partition), offset)| match offset {
                Offset::Offset(offset) => Some((partition, offset)),
                _ => None,
            })
            .collect()
    }

    /// The offset after the last produced one, by partition.
    pub(crate) fn ends(&self) -> BTreeMap<i32, i64> {
        lock(&self.produced).clone()
    }

    /// Whether everything produced is settled. After a rewind that comes later than the last delivery: what was in flight is read again.
    pub(crate) fn settled(&self, shared: &Shared) -> bool {
        let views = shared.offsets().views();
        let settled = views
            .iter()
            .filter_map(|view| Some((view.key.partition, view.settled?)));
        settled.collect::<BTreeMap<_, _>>() == self.ends()
    }

    /// Nothing is committed that the sink has not answered for.
    pub(crate) fn assert_commits_safe(&self) {
        self.record.assert_sound();
        for (partition, offset) in self.committed() {
            self.record.assert_answered(partition, offset);
        }
    }

    /// Everything produced was answered for, and is committed.
    pub(crate) fn assert_finished(&self) {
        self.record.assert_complete();
        assert_eq!(self.committed(), self.ends(), "commits against log ends");
    }

    /// Reads the dead-letter topic of the route to its end, which is this many records.
    pub(crate) fn dead_letters(&self, count: usize) -> Vec<Entry> {
        let topic = format!("{}.dead-letters", self.name);
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &cluster().servers)
            .set("group.id", "reads-dead-letters")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .create()
            .expect("a consumer can be made");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning)
            .expect("an offset");
        consumer.assign(&list).expect("assigned");
        let deadline = Instant::now() + DEADLINE;
        let mut read = Vec::new();
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => read.push(entry_of(&record)),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {
                    assert_eq!(read.len(), count, "dead letters: {read:?}");
                    return read;
                }
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        panic!(
            "the end of {topic} was not reached; {} were read",
            read.len()
        );
    }
}

fn entry_of(record: &impl Message) -> Entry {
    let headers = record.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    Entry {
        partition: record.partition(),
        key: record.key().map(<[u8]>::to_vec),
        payload: record.payload().map(<[u8]>::to_vec),
        headers,
        timestamp: record.timestamp().to_millis(),
    }
}

/// A worker that runs on a thread of its own, with a watcher.
pub(crate) struct Running<S: ?Sized = Scripted> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sink: Arc<S>,
    record: Arc<Record>,
    admin: SocketAddr,
    thread: JoinHandle<Result<LedgerView, String>>,
    over: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

impl<S: ?Sized> Running<S> {
    /// Asks the worker to stop, as SIGTERM does, and waits for its end.
    pub(crate) fn stop(self) -> Result<LedgerView, String> {
        self.shared.request_stop();
        self.ended()
    }

    /// Waits until the worker has ended.
    pub(crate) fn ended(self) -> Result<LedgerView, String> {
        until("the worker has ended", || self.thread.is_finished());
        self.over.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher ran");
        self.thread.join().expect("the worker did not panic")
    }

    /// A condition is waited for while the worker runs; its end is an error.
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition() {
            let shared = &self.shared;
            assert!(
                !self.thread.is_finished(),
                "the worker ended ({:?}) before {what}",
                shared.failure()
            );
            assert!(
                Instant::now() < deadline,
                "waited {DEADLINE:?} in vain until {what}: {}, {:#?}",
                self.record.describe(),
                (
                    shared.ledger.view(),
                    shared.offsets().views(),
                    shared.pending_batches.load(Ordering::Relaxed),
                    shared.held().len(),
                    shared.troubles.last_errors(),
                )
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `/status` over HTTP.
    pub(crate) fn status(&self) -> Value {
        let body = self.get("/status").1;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    }

    /// Status code and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener is there");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a time limit can be set");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status code"), body.to_owned())
    }
}
