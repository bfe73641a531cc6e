//! One worker: sets up threads and tasks, runs until it is asked to stop or fails, and takes everything down in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use keystone_config::Settings;
use keystone_sinks::kafka::client::{REQUEST_TIMEOUT, Role, SOURCE_PREFIX, millis, properties};
use keystone_sinks::kafka::complaints::told;
use keystone_sinks::{Batch, Sink};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::Consumer;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::backoff::{Backoff, jitter};
use crate::consumer::{Ended, Intake};
use crate::dead_letters::{DeadLetters, Place};
use crate::delivery::Delivery;
use crate::group::{
    CommitRequest, Group, GroupConsumer, commit_regularly, look_regularly, take_answer,
};
use crate::held::Relief;
use crate::lane::{Chunk, Flush, Lane};
use crate::ledger::LedgerView;
use crate::metrics;
use crate::records::RecordQueue;
use crate::route::{DeadLetterPolicy, Route, topics};
use crate::signals;
use crate::state::Shared;
use crate::watchdog;

/// Chunks that wait for a lane: enough to keep it busy while the consumer thread does something else.
const CHUNKS_PER_LANE: usize = 2;
/// Batches that wait for delivery, beside those in flight.
const BATCHES_PER_LANE: usize = 1;
/// How often the sink is asked what time has brought.
const TICK: Duration = Duration::from_millis(200);
/// How long a sink, or the dead-letter topic, may take to say whether it is there.
const CHECK_PATIENCE: Duration = Duration::from_secs(15);
/// Until one that was away at the start is asked again: the first pause, and the longest one.
const CHECK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How long the sink may take to drop what it holds at the end.
const DROP_HELD: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(10);
/// How long tasks and calls of the sink that are under way at the end may take.
const CLOSE: Duration = Duration::from_secs(2);
/// How often the runtime shows that its tasks run.
const RUNTIME_BEAT: Duration = Duration::from_secs(1);

/// Defaults for a consumer with bounded memory; each can be overridden by `kafka.*`.
const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    // librdkafka prefetches up to 64 MiB; this is enough for full speed.
    ("queued.max.messages.kbytes", "2048"),
    // A full queue is looked at again after this time; the default of a second would throttle a small queue.
    ("fetch.queue.backoff.ms", "5"),
    // An answer is unpacked at once, to several times this: the largest single part of a worker's memory.
    ("fetch.max.bytes", "2097152"),
    ("topic.metadata.refresh.interval.ms", "60000"),
    ("statistics.interval.ms", "2000"),
];

/// A worker that has been set up and not yet started.
pub struct Worker {
    pub shared: Arc<Shared>,
    runtime: Runtime,
    /// The admin listener and the signals: they answer where a sink blocks all threads of the other one.
    control: Runtime,
    sink: Arc<dyn Sink>,
    admin_address: std::net::SocketAddr,
}

impl Worker {
    /// Opens the admin listener and starts serving it. The text of an error is for a person.
    pub fn new(route: Route, sink: Arc<dyn Sink>) -> Result<Worker, String> {
        let runtime = start_runtime("delivery", route.lanes.clamp(2, 16))?;
        let control = start_runtime("control", 1)?;
        let exporter = metrics::install(&route)?;
        let shared = Arc::new(Shared::new(Arc::new(route), sink.as_ref()));
        let listener = control.block_on(admin::bind(shared.route.admin))?;
        let admin_address = listener
            .local_addr()
            .map_err(|error| format!("the admin listener has no address: {error}"))?;
        info!("admin listener on http://{admin_address} (/metrics /livez /readyz /status)");
        let upkeep = exporter.clone();
        control.spawn(async move {
            // Empties the exporter's histogram buffers also when nobody scrapes.
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                upkeep.run_upkeep();
            }
        });
        control.spawn(admin::serve(
            listener,
            Admin {
                shared: shared.clone(),
                sink: sink.clone(),
                exporter,
            },
        ));
        Ok(Worker {
            shared,
            runtime,
            control,
            sink,
            admin_address,
        })
    }

    pub fn admin_address(&self) -> std::net::SocketAddr {
        self.admin_address
    }

    /// Drains the worker and ends it when a signal asks for it.
    pub fn stop_on_signals(&self) -> Result<(), String> {
        signals::stop_on_signals(self.control.handle(), self.shared.clone())
            .map_err(|error| format!("signals can't be listened for: {error}"))
    }

    /// Runs until asked to stop or something fails. `Ok` when everything read is settled and committed; else the reason, for a person.
    pub fn run(self) -> Result<LedgerView, String> {
        let shared = self.shared.clone();
        let _watched = watchdog::start(shared.clone());
        self.start_pulse();
        let dead_letters = DeadLetters::new(&shared.route)
            .map_err(|error| format!("the dead-letter producer can't be made: {}", told(&error)))?;
        let dead_letters = Arc::new(dead_letters);
        self.look_at_sink();
        self.look_at_dead_letters(&dead_letters);
        let deliveries = self.start_deliveries(dead_letters);
        let ticks = self.start_ticks();
        let (flush_senders, flush_receivers): (Vec<_>, Vec<_>) = (0..shared.route.lanes)
            .map(|_| unbounded::<Flush>())
            .unzip();
        let (commits, requests) = unbounded();
        let consumer = Arc::new(self.make_consumer(flush_senders, commits.clone())?);
        let committing = {
            let consumer = consumer.clone();
            let interval = shared.route.commit_interval;
            std::thread::spawn(move || commit_regularly(&consumer, &requests, interval))
        };
        let (looking, end) = bounded::<()>(0);
        let looks = {
            let consumer = consumer.clone();
            std::thread::spawn(move || look_regularly(&consumer, &end))
        };
        let ended = self.run_threads(&consumer, deliveries, &flush_receivers);
        ticks.abort();
        self.drop_held();
        let _ended = commits.send(CommitRequest::End);
        let leave_until = Instant::now() + LEAVE;
        let committing_ended = ended_within(LEAVE, move || drop(committing.join()));
        let rest = leave_until.saturating_duration_since(Instant::now());
        drop(looking);
        // librdkafka waits for brokers that may be gone; the process ends afterwards.
        let leave = move || {
            drop(looks.join());
            drop(consumer);
        };
        if !ended_within(rest, leave) || !committing_ended {
            warn!("the group could not be left in time; it notices by its session timeout");
        }
        let ledger = shared.ledger.view();
        info!(
            consumed = ledger.consumed,
            delivered = ledger.delivered,
            filtered = ledger.filtered,
            discarded = ledger.discarded,
            dead_lettered = ledger.dead_lettered,
            abandoned = ledger.abandoned,
            in_flight = ledger.in_flight,
            "ended"
        );
        end_runtime(self.runtime, committing_ended);
        self.control.shutdown_timeout(CLOSE);
        // The last one who holds the sink: it takes back what it has told others of itself.
        let sink = self.sink;
        if !ended_within(CLOSE, move || drop(sink)) {
            warn!("the sink could not be closed in time");
        }
        match ended {
            Ended::Drained => Ok(ledger),
            Ended::NotDrained { unsettled_batches: 0 } => Err(
                "what was read last was not put into a batch within delivery.shutdown.drain.max.ms; it is read again by the next worker, nothing is lost".to_owned(),
            ),
            Ended::NotDrained { unsettled_batches } => Err(format!(
                "{unsettled_batches} batches were not settled within delivery.shutdown.drain.max.ms; they are delivered again by the next worker, nothing is lost"
            )),
            Ended::NotCommitted => Err(
                "everything read was delivered, but Kafka has not acknowledged the commit; it is delivered again by the next worker, nothing is lost".to_owned(),
            ),
            Ended::NotPublished => Err(
                "everything read was delivered, but files that the group's last commit names could not be published yet: the next worker does that; until then do not reset the group's offsets, which name them".to_owned(),
            ),
            Ended::Failed => Err(shared.failure().unwrap_or_default()),
        }
    }

    /// Shows the watchdog that tasks of the runtime run: a sink that blocks its threads stops them all.
    fn start_pulse(&self) {
        let name = "the runtime of delivery and sink";
        let pulse = self.shared.stalls.watch(name, RUNTIME_BEAT);
        self.runtime.spawn(async move {
            loop {
                pulse.turn();
                tokio::time::sleep(RUNTIME_BEAT).await;
            }
        });
    }

    fn look_at_sink(&self) {
        let sink = self.sink.clone();
        self.look_at("sink", move || {
            let sink = sink.clone();
            async move { sink.check().await }
        });
    }

    /// Before the first bad event, with which the route would stand.
    fn look_at_dead_letters(&self, dead_letters: &Arc<DeadLetters>) {
        if self.shared.route.dead_letter_policy != DeadLetterPolicy::Topic {
            return;
        }
        let dead_letters = dead_letters.clone();
        self.look_at("dead letters", move || {
            let dead_letters = dead_letters.clone();
            async move {
                match dead_letters.look().await? {
                    Place::Missing(problem) => Err(problem),
                    Place::There | Place::ToBeMade | Place::Unclear(_) => Ok(()),
                }
            }
        });
    }

    /// Says early what is wrong with a part that events will need. The worker starts all the same, it may come right later; it is asked again
    /// until all is well or it was used with success.
    fn look_at<F>(&self, part: &'static str, ask: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let complaint = shared.troubles.complaint(part);
            let mut again = Backoff::new(CHECK_AGAIN.0, CHECK_AGAIN.1);
            loop {
                let problem = match tokio::time::timeout(CHECK_PATIENCE, ask()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(problem)) => problem,
                    Err(_) => format!("no answer within {} s", CHECK_PATIENCE.as_secs()),
                };
                complaint.tell(problem);
                tokio::time::sleep(again.next(jitter(), None)).await;
                if !shared.troubles.now().contains_key(part) {
                    return; // Withdrawn by a delivery.
                }
            }
            shared.troubles.all_is_well(part);
        });
    }

    /// What the sink still holds will not become durable: no reader, and no next worker, is to wait for it.
    fn drop_held(&self) {
        if self.sink.holds() {
            let dropped = async { tokio::time::timeout(DROP_HELD, self.sink.abandon()).await };
            if self.runtime.block_on(dropped).is_err() {
                warn!("what the sink holds was not dropped in time");
            }
        }
    }

    /// One delivery task a lane; returns where the lanes put their batches.
    fn start_deliveries(
        &self,
        dead_letters: Arc<DeadLetters>,
    ) -> Vec<(mpsc::Sender<Batch>, JoinHandle<()>)> {
        (0..self.shared.route.lanes)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(BATCHES_PER_LANE);
                let delivery = Delivery {
                    shared: self.shared.clone(),
                    sink: self.sink.clone(),
                    dead_letters: dead_letters.clone(),
                };
                let run = async move { delivery.run(receiver).await };
                (sender, self.runtime.spawn(run))
            })
            .collect()
    }

    fn start_ticks(&self) -> JoinHandle<()> {
        let shared = self.shared.clone();
        let sink = self.sink.clone();
        self.runtime.spawn(async move {
            let mut epoch = shared.epoch.subscribe();
            let longest = sink.longest_step().unwrap_or_default();
            let stalls = &shared.stalls;
            let mut relief = Relief::default();
            let pulse = stalls.watch_calls("a tick of the sink", longest, &sink);
            loop {
                pulse.idle();
                tokio::time::sleep(TICK).await;
                let _open = shared.gate.read().await;
                pulse.turn();
                epoch.borrow_and_update();
                let much = !shared.joint && shared.holds_much();
                let step = match relief.is_due(much, Instant::now()) {
                    true => sink.flush(),
                    false => sink.tick(),
                };
                tokio::select! {
                    biased;
                    answer = step => take_answer(&shared, answer),
                    _ = epoch.changed() => {} // A rewind does not wait for it.
                }
            }
        })
    }

    fn make_consumer(
        &self,
        flushes: Vec<Sender<Flush>>,
        commits: Sender<CommitRequest>,
    ) -> Result<GroupConsumer, String> {
        let route = &self.shared.route;
        let config = consumer_config(&route.settings);
        let group = Group::new(
            config.get("group.id").unwrap_or_default().to_owned(),
            self.shared.clone(),
            self.sink.clone(),
            self.runtime.handle().clone(),
            flushes,
            commits,
            longest_commit(&config),
        );
        let consumer = GroupConsumer::from_config_and_context(&config, group).map_err(|error| {
            format!(
                "the consumer can't be made: {}; see the kafka.* properties",
                told(&error)
            )
        })?;
        let topics: Vec<&str> = route.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| {
            format!(
                "source.topics = {} can't be subscribed to: {error}",
                topics.join(",")
            )
        })?;
        info!(
            topics = topics.join(","),
            sink = route.sink_type,
            lanes = route.lanes,
            "reading"
        );
        Ok(consumer)
    }

    /// The consumer thread (this one) and the lanes, until the consumer's loop ends.
    fn run_threads(
        &self,
        consumer: &GroupConsumer,
        deliveries: Vec<(mpsc::Sender<Batch>, JoinHandle<()>)>,
        flushes: &[Receiver<Flush>],
    ) -> Ended {
        let shared: &Shared = &self.shared;
        let (senders, tasks): (Vec<_>, Vec<_>) = deliveries.into_iter().unzip();
        std::thread::scope(|scope| {
            let mut lanes = Vec::new();
            for (number, (sender, flushes)) in senders.into_iter().zip(flushes).enumerate() {
                let (chunk_sender, chunks) = bounded::<Chunk<'_>>(CHUNKS_PER_LANE);
                lanes.push(chunk_sender);
                scope.spawn(move || Lane::new(number, shared, sender).run(&chunks, flushes));
            }
            let runtime = self.runtime.handle().clone();
            let ended = match RecordQueue::new(consumer) {
                Some(queue) => {
                    Intake::new(consumer, queue, shared, &*self.sink, runtime, lanes).run()
                }
                None => {
                    shared.fail("librdkafka makes no queue for records".to_owned());
                    Ended::Failed
                }
            };
            shared.end_loop();
            consumer.context().close();
            // A lane may be waiting for room with its delivery: that ends with the delivery.
            for task in &tasks {
                task.abort();
            }
            ended
        })
    }
}

/// Ends the runtime if the committing thread has ended. Else that waits in `block_on` for the sink, and would panic without the runtime's
/// timers before anybody has said why the worker ends: the runtime stays as it is, and ends with the process.
fn end_runtime(runtime: Runtime, committing_ended: bool) {
    match committing_ended {
        true => runtime.shutdown_timeout(CLOSE),
        false => std::mem::forget(runtime),
    }
}

fn start_runtime(name: &str, threads: usize) -> Result<Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| format!("the {name} runtime can't be started: {error}"))
}

/// The consumer's properties: our defaults, `kafka.*`, and what the guarantee rests on.
pub fn consumer_config(settings: &Settings) -> ClientConfig {
    let name = settings.get("route.name");
    let mut defaults = vec![("group.id", name), ("client.id", name)];
    defaults.extend_from_slice(CONSUMER_DEFAULTS);
    let least = settings.bytes("source.fetch.min.bytes").to_string();
    let wait = settings.millis("source.fetch.max.wait.ms").as_millis();
    let wait = wait.to_string();
    defaults.push(("fetch.min.bytes", &least));
    defaults.push(("fetch.wait.max.ms", &wait));
    if !topics::is_new_protocol(settings) {
        // With `group.protocol = consumer` the broker's assignor counts and this property is refused.
        defaults.push(("partition.assignment.strategy", "cooperative-sticky"));
    }
    properties(
        settings,
        Role::Consumer,
        &[SOURCE_PREFIX],
        &defaults,
        &[
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // Also when a committed offset is gone: rather read again than skip. Where a new group begins is `start::resolve`'s.
            ("auto.offset.reset", "earliest"),
        ],
    )
}

/// The longest that librdkafka may take over a commit: it waits for the coordinator, then asks three times at most.
fn longest_commit(config: &ClientConfig) -> Duration {
    let coordinator = millis(config, "session.timeout.ms", Duration::from_secs(45));
    coordinator + 3 * millis(config, "socket.timeout.ms", REQUEST_TIMEOUT)
}

/// Does what may hang on a thread of its own; answers whether it came to its end in time.
pub(crate) fn ended_within(at_most: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, finished) = bounded::<()>(1);
    std::thread::spawn(move || {
        work();
        drop(done);
    });
    finished.recv_timeout(at_most) != Err(RecvTimeoutError::Timeout)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_thread_that_still_waits_for_the_sink_does_not_panic_at_the_end() {
        let runtime = start_runtime("test", 1).expect("a runtime");
        let handle = runtime.handle().clone();
        let (waits, waiting) = bounded::<()>(1);
        let (answer, answered) = oneshot::channel::<()>();
        let committing = std::thread::spawn(move || {
            handle.block_on(async {
                let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::from_secs(3_600)));
                assert!(futures::poll!(&mut sleep).is_pending());
                waits.send(()).expect("the test waits");
                tokio::select! {
                    biased;
                    () = sleep => {}
                    answer = answered => answer.expect("an answer"),
                }
            });
        });
        waiting.recv().expect("the thread waits");
        end_runtime(runtime, false);
        answer.send(()).expect("the thread waits still");
        assert!(committing.join().is_ok(), "it has panicked");
    }

    #[test]
    fn a_runtime_that_nobody_needs_is_ended() {
        let runtime = start_runtime("test", 1).expect("a runtime");
        let (held, dropped) = oneshot::channel::<()>();
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        end_runtime(runtime, true);
        assert!(dropped.blocking_recv().is_err(), "its tasks are dropped");
    }
}
