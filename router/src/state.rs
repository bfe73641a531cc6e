//! What the threads of one worker share: offset windows, ledger, held batches, problems, and the requests to stop or rewind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keystone_dsl::Rule;
use keystone_sinks::{BatchId, Cause, Claim, Sink};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, watch};
use tracing::{error, warn};

use crate::bad_events::BadEvents;
use crate::held::{Completed, HeldBatches, Settled};
use crate::lasting::Lasting;
use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::membership::Membership;
use crate::offsets::{Offsets, PartitionKey, WindowView};
use crate::route::{Route, topics};
use crate::stall::{Pulse, Stall, Stalls};
use crate::troubles::Troubles;

/// Claims and timestamps of batches that are not settled; beyond it the sink is asked to make durable what it holds, however young it is.
/// An entry takes 16 to 85 bytes: some 40 MB in all.
const MAX_ENTRIES: usize = 500_000;

/// The longest single wait of the consumer thread between two beats: for an answer of Kafka.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the consumer thread beats while it waits for the sink.
const BEAT: Duration = Duration::from_millis(500);

/// The log of a partition, from librdkafka's statistics; while it fetches nothing, from Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Log {
    /// Where it begins.
    pub low: Option<i64>,
    /// The offset behind its last event.
    pub high: i64,
}

impl Log {
    /// Takes note of what else is known of the same log.
    pub fn update(&mut self, other: Log) {
        self.low = self.low.max(other.low);
        self.high = self.high.max(other.high);
    }

    /// Events that are not settled; `settled` is `None` where nothing was read yet.
    pub fn lag(&self, settled: Option<i64>) -> Option<i64> {
        Some((self.high - settled.or(self.low)?).max(0))
    }
}

pub struct Shared {
    pub route: Arc<Route>,
    /// The sink commits what it holds together with the offsets: what is repeated was never seen.
    pub joint: bool,
    pub ledger: Ledger,
    /// Events that broke each hygiene rule, in the order of `Rule::ALL`.
    pub violations: [AtomicU64; Rule::ALL.len()],
    pub latency: Latency,
    offsets: Mutex<Offsets>,
    /// Notified whenever something settled, was held or was abandoned: a drain waits for it.
    progress: Condvar,
    held: Mutex<HeldBatches>,
    /// Batches handed to delivery and neither settled, held nor abandoned.
    pub pending_batches: AtomicUsize,
    pub batches: AtomicU64,
    pub troubles: Troubles,
    pub bad_events: Mutex<BadEvents>,
    pub logs: Mutex<HashMap<PartitionKey, Log>>,
    /// When what is asked to end should have ended, from the moment it is asked.
    stop: OnceLock<Instant>,
    fatal: Mutex<Option<String>>,
    rewind: Mutex<Option<Cause>>,
    /// Held for reading around every call of the sink that may take over events; a rewind takes it for writing.
    pub gate: RwLock<()>,
    /// Held for reading by each batch from its first call of a joint sink to its end; a joint commit takes it for writing, and keeps it
    /// until Kafka has answered, so that batches wait in their order.
    pub whole: Arc<RwLock<()>>,
    /// Where the sink asks for it: how many of its calls may be under way.
    pub limiter: Option<Limiter>,
    /// Rises with each rewind: calls of the sink that are under way are dropped.
    pub epoch: watch::Sender<u64>,
    /// All records that had arrived were taken in at a moment since the statistics were looked at last.
    pub queue_was_empty: AtomicBool,
    /// A rewind waits until no call of the sink is under way.
    pub rewind_waits: AtomicBool,
    /// The wall clock's time of `begun`.
    pub started: SystemTime,
    begun: Instant,
    /// Milliseconds from `begun` to when the consumer thread last went round.
    heartbeat: AtomicU64,
    pub stalls: Stalls,
    consumer: Arc<Pulse>,
    loop_ended: AtomicBool,
    pub membership: Mutex<Membership>,
    /// Topics that the group has committed offsets of, or that this worker found missing: what has no offset of them is new.
    pub old_topics: Mutex<BTreeSet<Arc<str>>>,
    /// Commits fail.
    pub uncommitted: Mutex<Lasting>,
    pub rebalances: AtomicU64,
    /// Events that were deleted before they were read.
    pub expired: AtomicU64,
    pub commits: AtomicU64,
    pub commit_failures: AtomicU64,
    pub paused_lanes: AtomicUsize,
    pub retries: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Shared {
    pub fn new(route: Arc<Route>, sink: &dyn Sink) -> Shared {
        let ceiling = route.lanes * route.max_in_flight;
        let stalls = Stalls::default();
        let new_protocol = topics::is_new_protocol(&route.settings);
        Shared {
            consumer: stalls.watch("the consumer thread", ASK_TIMEOUT),
            stalls,
            route,
            joint: sink.joint().is_some(),
            limiter: sink.adapts().then(|| Limiter::new(ceiling)),
            ledger: Ledger::default(),
            violations: Default::default(),
            latency: Latency::default(),
            offsets: Mutex::default(),
            progress: Condvar::new(),
            held: Mutex::default(),
            pending_batches: AtomicUsize::new(0),
            batches: AtomicU64::new(0),
            troubles: Troubles::default(),
            bad_events: Mutex::default(),
            logs: Mutex::default(),
            stop: OnceLock::new(),
            fatal: Mutex::default(),
            rewind: Mutex::default(),
            gate: RwLock::new(()),
            whole: Arc::default(),
            epoch: watch::Sender::new(0),
            queue_was_empty: AtomicBool::new(false),
            rewind_waits: AtomicBool::new(false),
            started: SystemTime::now(),
            begun: Instant::now(),
            heartbeat: AtomicU64::new(0),
            loop_ended: AtomicBool::new(false),
            membership: Mutex::new(Membership::new(new_protocol)),
            old_topics: Mutex::default(),
            uncommitted: Mutex::default(),
            rebalances: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            commit_failures: AtomicU64::new(0),
            paused_lanes: AtomicUsize::new(0),
            retries: Mutex::default(),
        }
    }

    /// The consumer thread goes round.
    pub fn beat(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        self.heartbeat.store(now, Ordering::Relaxed);
        self.consumer.turn();
    }

    /// How long ago the consumer thread last went round.
    pub fn heartbeat_age(&self) -> Duration {
        let last = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }

    /// Has the consumer thread wait for something with a deadline of its own; `None` where the worker has failed meanwhile, or was asked to
    /// stop and the time for that is over.
    pub fn wait_beating<T>(&self, runtime: &Handle, wait: impl Future<Output = T>) -> Option<T> {
        let beating = async {
            let is_over = || self.stop.get().is_some_and(|stop| *stop <= Instant::now());
            while self.failure().is_none() && !is_over() {
                self.beat();
                tokio::time::sleep(BEAT).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                waited_for = wait => Some(waited_for),
                () = beating => None,
            }
        })
    }

    /// The consumer thread has ended its loop; what follows takes a moment.
    pub fn end_loop(&self) {
        self.loop_ended.store(true, Ordering::Release);
        self.consumer.idle();
    }

    pub fn loop_ended(&self) -> bool {
        self.loop_ended.load(Ordering::Acquire)
    }

    /// What has stood still for longer than `delivery.stall.max.ms` beyond what it may.
    pub fn stalled(&self) -> Vec<Stall> {
        self.stalls.stalled(self.route.stall_max)
    }

    pub fn offsets(&self) -> MutexGuard<'_, Offsets> {
        lock(&self.offsets)
    }

    /// Every window as `/status` and the metrics show it: with a joint sink nothing is exposed.
    pub fn windows(&self) -> Vec<WindowView> {
        let mut views = self.offsets().views();
        if self.joint {
            for view in &mut views {
                view.exposed = 0;
            }
        }
        views
    }

    /// Settles claims and wakes whoever waits for that.
    pub fn settle(&self, claims: &[Claim]) {
        let mut offsets = self.offsets();
        for claim in claims {
            offsets.settle(claim);
        }
        drop(offsets);
        self.progress.notify_all();
    }

    /// Something other than a settlement happened that a drain may wait for.
    pub fn made_progress(&self) {
        self.progress.notify_all();
    }

    /// Waits for progress, at most this long.
    pub fn wait_progress(&self, at_most: Duration) {
        let guard = self.offsets();
        // Whether it timed out or was woken, the caller looks again.
        drop(self.progress.wait_timeout(guard, at_most));
    }

    // --- held batches

    pub fn held(&self) -> MutexGuard<'_, HeldBatches> {
        lock(&self.held)
    }

    /// The worker's part of a batch is done, and the sink holds or held this many events of it: settles it if the sink's part is done too.
    pub fn held_complete(&self, batch: u64, claims: Arc<[Claim]>, events: u64) {
        let completed = self.held().complete(batch, claims);
        match completed {
            Completed::Settled(settled) => self.settle_held(settled),
            Completed::Waiting => {}
            Completed::Dropped => Ledger::add(&self.ledger.abandoned, events),
        }
    }

    /// The sink names these calls durable.
    pub fn held_durable(&self, calls: &[BatchId]) {
        for call in calls {
            let settled = self.held().durable(*call);
            if let Some(settled) = settled {
                self.settle_held(settled);
            }
        }
    }

    pub fn settle_held(&self, settled: Settled) {
        Ledger::add(&self.ledger.delivered, settled.events);
        self.latency.record_all(now_ms(), &settled.timestamps);
        self.settle(&settled.claims);
    }

    /// Whether so much is held, or read and not settled, that what the sink holds has to become durable before its time.
    pub fn holds_much(&self) -> bool {
        let held = self.held().entries();
        held + self.offsets().claims() > MAX_ENTRIES
    }

    /// Forgets all held batches after the sink has dropped them.
    pub fn abandon_held(&self) {
        let events = self.held().clear();
        Ledger::add(&self.ledger.abandoned, events);
    }

    /// Whether a lane is behind, so that its partitions are not fetched.
    pub fn is_paused(&self) -> bool {
        self.paused_lanes.load(Ordering::Relaxed) > 0
    }

    /// Counts and tells of events that Kafka deleted before they were read: they lay before the offset `low`.
    pub fn count_expired(&self, key: &PartitionKey, count: u64, low: i64) {
        if count == 0 {
            return;
        }
        self.expired.fetch_add(count, Ordering::Relaxed);
        let PartitionKey { topic, partition } = key;
        let text = format!(
            "{count} events of {topic}-{partition} before offset {low} were deleted by kafka before they were read, and are lost to this route: \
             raise retention.ms and retention.bytes of topic {topic} above the longest time that the route or its sink may be away"
        );
        warn!("{text}");
        self.troubles.remember(text);
    }

    pub fn count_retry(&self, part: &'static str, reason: &'static str) {
        *lock(&self.retries).entry((part, reason)).or_default() += 1;
    }

    pub fn retries(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        lock(&self.retries).clone()
    }

    // --- requests to the consumer thread

    /// Asks the worker to drain and end.
    pub fn request_stop(&self) {
        let drain = self.route.shutdown_drain;
        self.stop.get_or_init(|| Instant::now() + drain);
    }

    pub fn stop_requested(&self) -> bool {
        self.stop.get().is_some()
    }

    /// Until when something that ends at this moment may go on: not beyond `delivery.shutdown.drain.max.ms` after a request to stop.
    pub fn until(&self, end: Instant) -> Instant {
        self.stop.get().map_or(end, |stop| end.min(*stop))
    }

    /// Asks the worker to end, with this text as the reason; only what is settled is committed. The first one counts.
    pub fn fail(&self, reason: String) {
        {
            let mut fatal = lock(&self.fatal);
            if fatal.is_some() {
                return;
            }
            *fatal = Some(reason.clone());
        }
        // After the lock: a log that nobody reads may hold this up.
        error!("the worker stops: {reason}");
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.fatal).clone()
    }

    /// Asks the worker to drop what the sink holds and to read again from the lowest unsettled offsets.
    pub fn request_rewind(&self, cause: Cause) {
        lock(&self.rewind).get_or_insert(cause);
    }

    pub fn rewind_requested(&self) -> bool {
        lock(&self.rewind).is_some()
    }

    pub fn take_rewind(&self) -> Option<Cause> {
        lock(&self.rewind).take()
    }
}

/// Locks; a panic elsewhere ends the process anyway, so a poisoned lock is taken as it is.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
pub(crate) mod tests {
    use keystone_config::Sources;

    use super::*;

    /// Of a route named `r`, with its sink.
    pub(crate) fn shared() -> (Shared, Arc<dyn Sink>) {
        let properties = "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = 127.0.0.1:1\nsink.type = blackhole\n";
        let sources = Sources {
            defaults: None,
            file: Some(("r.properties".to_owned(), properties.to_owned())),
            env: Vec::new(),
            sets: Vec::new(),
        };
        let (route, sink) = crate::route::load(&sources, "w").expect("a route");
        (Shared::new(Arc::new(route), &*sink), sink)
    }
}
