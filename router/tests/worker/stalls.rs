//! Parts that stand still, and what must not be taken for that.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use keystone::state::lock;
use keystone_sinks::{Answer, Batch, BoxFuture, Joint, JointCommit, Sink, SinkError};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::watch;

use crate::bench::{Bench, Entry, together, until};
use crate::scripted::{Act, Scripted};

/// The shortest that the option takes.
const LIMIT: Duration = Duration::from_secs(1);
const QUICK: &str = "delivery.stall.max.ms=1000";

#[test]
fn stalls_and_what_is_none() {
    together(&[
        ("a_call_beyond_its_limit", a_call_beyond_its_limit),
        ("a_lane_that_hangs", a_lane_that_hangs),
        ("a_sink_that_blocks_its_threads", a_sink_that_blocks),
        ("a_tick_that_hangs", a_tick_that_hangs),
        ("a_commit_that_hangs", a_commit_that_hangs),
        ("a_producer_that_stands_still", a_producer_that_stands_still),
        (
            "the_sinks_partition_has_no_leader",
            the_sinks_partition_has_no_leader,
        ),
        ("slow_calls", || slow_calls("slow", |sink| sink)),
        ("slow_calls_within_their_limit", || {
            slow_calls("slow-within", |sink| sink.within(Duration::from_secs(60)));
        }),
        ("slow_calls_of_many_steps", || {
            slow_calls("slow-steps", |sink| sink.within(Duration::ZERO).stepping());
        }),
        ("an_outage", an_outage),
        ("a_full_worker", a_full_worker),
        ("a_stopped_process", a_stopped_process),
    ]);
}

/// The next worker delivers everything.
fn recovers(bench: &Bench) {
    bench.assert_commits_safe();
    let running = bench.start(Scripted::new(&bench.record, |_| Act::done()), &[]);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}

/// A sink that bounds its calls, and one that does not come back.
fn a_call_beyond_its_limit() {
    let bench = Bench::new("stalled-call", 1);
    bench.produce(200);
    let sink = Scripted::new(&bench.record, |_| Act::Never).within(Duration::from_millis(50));
    let running = bench.start(sink, &[QUICK]);
    let error = running.ended().expect_err("it has to stop");
    assert!(
        error.starts_with("a call of the sink has stood still for ")
            && error.contains("delivery.stall.max.ms = 1000 has passed twice"),
        "{error}"
    );
    recovers(&bench);
}

/// A deadlock: the lock that a lane needs for each chunk is never given back.
fn a_lane_that_hangs() {
    let bench = Bench::new("stalled-lane", 1);
    let sink = Scripted::new(&bench.record, |_| Act::done());
    // The committing thread needs that lock, too: it is not to come first.
    let options = [
        QUICK,
        "delivery.lanes=1",
        "delivery.commit.interval.ms=600000",
    ];
    let running = bench.start(sink, &options);
    running.until("it has joined", || {
        lock(&running.shared.membership).is_member()
    });
    assert_eq!(running.get("/livez"), (200, "ok\n".to_owned()));
    let shared = running.shared.clone();
    let (give_back, given_back) = mpsc::channel::<()>();
    let (taken, is_taken) = mpsc::channel();
    let holder = std::thread::spawn(move || {
        let offsets = shared.offsets();
        taken.send(()).expect("the test waits");
        // Also where the test fails: then the sender is gone.
        let _given_back = given_back.recv();
        drop(offsets);
    });
    is_taken.recv().expect("the lock is held");
    bench.produce(50);
    until("/livez names the lane", || {
        let (code, text) = running.get("/livez");
        code == 503 && text.starts_with("lane 0 has stood still for ")
    });
    until("/livez says that the worker stops", || {
        let (code, text) = running.get("/livez");
        let stops = |line: &str| {
            line.starts_with("lane 0 has stood still for ")
                && line.contains("has passed twice; start the worker again")
        };
        code == 503 && text.lines().any(stops)
    });
    give_back.send(()).expect("the holder waits");
    holder.join().expect("the lock was given back");
    let error = running.ended().expect_err("it has failed");
    assert!(error.starts_with("lane 0 has stood still for "), "{error}");
    recovers(&bench);
}

/// Both threads of the runtime are blocked: none of its timers fires any more.
fn a_sink_that_blocks() {
    let bench = Bench::new("blocked", 2);
    bench.produce(100);
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let blocked = Arc::new(Barrier::new(3));
    let sink = Scripted::new(&bench.record, {
        let blocked = blocked.clone();
        move |call| {
            if call.number < 2 {
                blocked.wait();
                // One has the lock, and both end when the other end is dropped.
                let _released = lock(&released).recv();
            }
            Act::retry()
        }
    });
    let running = bench.start(sink, &[QUICK]);
    blocked.wait();
    running.get("/livez"); // It answers nevertheless.
    until("the worker has failed", || {
        running.shared.failure().is_some()
    });
    drop(release);
    let error = running.ended().expect_err("it has failed");
    assert!(
        error.starts_with("the runtime of delivery and sink has stood still for "),
        "{error}"
    );
    recovers(&bench);
}

/// A sink whose call that time asks for does not come back; its deliveries do.
fn a_tick_that_hangs() {
    let bench = Bench::new("stalled-tick", 1);
    bench.produce(200);
    let sink = Scripted::new(&bench.record, |_| Act::done());
    let running = bench.start(sink.within(Duration::ZERO).with_hanging_tick(), &[QUICK]);
    let error = running.ended().expect_err("it has to stop");
    assert!(
        error.starts_with("a tick of the sink has stood still for "),
        "{error}"
    );
    recovers(&bench);
}

/// Holds all events for a commit that does not come back before it is let go.
#[derive(Default)]
struct StuckCommit {
    let_go: watch::Sender<bool>,
}

impl Sink for StuckCommit {
    fn deliver<'a>(&'a self, _batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async {
            Ok(Answer {
                held: true,
                ..Answer::done()
            })
        })
    }

    fn holds(&self) -> bool {
        true
    }

    fn joint(&self) -> Option<Joint> {
        Some(Joint::Transaction)
    }

    fn commit_due(&self) -> bool {
        true
    }

    fn commit(&self, _joint: Arc<JointCommit>) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            let mut let_go = self.let_go.subscribe();
            let _let_go = let_go.wait_for(|let_go| *let_go).await;
            Err(SinkError::Fatal("the commit was let go".to_owned()))
        })
    }
}

/// A commit has the time that librdkafka takes by its own limits, here 9 s.
fn a_commit_that_hangs() {
    let bench = Bench::new("stalled-commit", 1);
    bench.produce(200);
    let sink = Arc::new(StuckCommit::default());
    let options = [QUICK, "kafka.socket.timeout.ms=1000"];
    let running = bench.start_any(sink.clone(), &options);
    until("the worker has failed", || {
        running.shared.failure().is_some()
    });
    sink.let_go.send_replace(true);
    let error = running.ended().expect_err("it has failed");
    assert!(
        error.starts_with("the committing thread has stood still for "),
        "{error}"
    );
    recovers(&bench);
}

/// The Kafka sink to a cluster of its own, whose requests are answered in a second or never.
fn to_own_cluster(cluster: &MockCluster<'_, DefaultProducerContext>, more: &[&str]) -> Vec<String> {
    cluster
        .create_topic("delivered", 1, 1)
        .expect("the topic is made");
    let mut options = vec![
        QUICK.to_owned(),
        "sink.type=kafka".to_owned(),
        "sink.kafka.topic=delivered".to_owned(),
        "sink.kafka.socket.timeout.ms=1000".to_owned(),
        format!(
            "sink.kafka.bootstrap.servers={}",
            cluster.bootstrap_servers()
        ),
    ];
    options.extend(more.iter().map(|option| (*option).to_owned()));
    options
}

/// Records that wait in librdkafka, though the broker is connected and would take them.
fn a_producer_that_stands_still() {
    let bench = Bench::new("stalled-producer", 1);
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    // librdkafka sends what was refused so once more after its back-off, which is its own wait.
    let pause = [
        "sink.kafka.retry.backoff.ms=300000",
        "sink.kafka.retry.backoff.max.ms=300000",
    ];
    let options = to_own_cluster(&cluster, &pause);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS],
    );
    bench.produce_entries(&[Entry::payload(0, "{}")]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let error = bench
        .start_chosen(&options)
        .ended()
        .expect_err("it has to stop");
    assert!(
        error.starts_with("a call of the sink has stood still for "),
        "{error}"
    );
    let committed = bench.committed();
    assert!(
        committed.values().all(|offset| *offset == 0),
        "{committed:?}"
    );
}

/// An outage for longer than what would be a stall of the producer is waited out.
fn the_sinks_partition_has_no_leader() {
    let bench = Bench::new("sink-away", 1);
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let options = to_own_cluster(&cluster, &[]);
    // (Not a broker that goes: it might find its port taken when it comes back.)
    cluster
        .partition_leader("delivered", 0, None)
        .expect("the leader goes");
    bench.produce_entries(&[Entry::payload(0, "{}")]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let running = bench.start_chosen(&options);
    running.until("it has joined", || {
        lock(&running.shared.membership).is_member()
    });
    let longest = running.sink.longest_step().expect("the sink says it");
    let away = Instant::now();
    running.until("a stall would have ended the worker", || {
        away.elapsed() > longest + 3 * LIMIT
    });
    cluster
        .partition_leader("delivered", 0, Some(1))
        .expect("the leader comes");
    running.until("all is committed", || bench.committed() == bench.ends());
    running.stop().expect("drained");
}

/// Calls that take far longer than the option: within what the sink says that they may take, or without a limit, or while it gets on.
fn slow_calls(name: &str, with: impl FnOnce(Scripted) -> Scripted) {
    let bench = Bench::new(name, 1);
    bench.produce(30);
    let slow = 4 * LIMIT.as_millis() as u64;
    let sink = Scripted::new(&bench.record, move |_| Act::after_ms(slow, Act::done()));
    let running = bench.start(with(sink), &[QUICK]);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}

/// An outage that lasts for four times the option, with a pause between two attempts that is longer than twice the option.
fn an_outage() {
    let bench = Bench::new("outage", 1);
    bench.produce(200);
    let away: Mutex<Option<Instant>> = Mutex::default();
    let sink = Scripted::new(&bench.record, move |_| {
        let since = *lock(&away).get_or_insert_with(Instant::now);
        match since.elapsed() < 4 * LIMIT {
            true => Act::retry(),
            false => Act::done(),
        }
    });
    let options = [
        QUICK,
        "delivery.retry.backoff.ms=5000",
        "delivery.retry.backoff.max.ms=6000",
    ];
    let running = bench.start(sink.within(Duration::ZERO), &options);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}

/// Lanes that wait for room, and partitions that are paused, for four times the option.
fn a_full_worker() {
    let bench = Bench::new("full", 2);
    bench.produce(10_000);
    let open = Arc::new(AtomicBool::new(false));
    let sink = Scripted::new(&bench.record, {
        let open = open.clone();
        move |_| match open.load(Ordering::Relaxed) {
            true => Act::done(),
            false => Act::retry(),
        }
    });
    let running = bench.start(sink.within(LIMIT), &[QUICK]);
    running.until("the lanes wait for room", || {
        running.shared.paused_lanes.load(Ordering::Relaxed) == 2
    });
    let full = Instant::now();
    running.until("four times the option has passed", || {
        full.elapsed() > 4 * LIMIT
    });
    open.store(true, Ordering::Relaxed);
    running.until("all is delivered", || bench.record.complete());
    running.stop().expect("drained");
    bench.assert_finished();
}

/// A process that is stopped for four times the option, as a machine that sleeps is, goes on where it was.
fn a_stopped_process() {
    let bench = Bench::new("stopped", 1);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("route.properties");
    std::fs::write(&file, bench.properties()).expect("the file is written");
    let mut process = Command::new(env!("CARGO_BIN_EXE_keystone"))
        .args(["run", "--set", QUICK, "--set", "log.level=warn", "--config"])
        .arg(&file)
        .spawn()
        .map(Process)
        .expect("the worker starts");
    for _ in 0..2 {
        bench.produce(100);
        until("all is committed", || bench.committed() == bench.ends());
        process.signal("-STOP");
        let stopped = Instant::now();
        until("four times the option has passed", || {
            stopped.elapsed() > 4 * LIMIT
        });
        process.signal("-CONT");
    }
    bench.produce(100);
    until("all is committed", || bench.committed() == bench.ends());
    process.signal("-TERM");
    let ended = process.0.wait().expect("it can be waited for");
    assert!(ended.success(), "{ended}");
}

/// Does not outlive the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        // The shell's own: a small system may lack another.
        let command = format!("kill {signal} {}", self.0.id());
        let sent = Command::new("sh").args(["-c", &command]).status();
        assert!(sent.expect("a shell can be run").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it has ended already, there is nothing to end.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
