//! What the threads of one worker share: offset windows, ledger, held batches, problems, and the requests to stop or rewind.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keystone_dsl::Rule;
use keystone_sinks::{BatchId, Cause, Claim, Sink};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, watch};
use tracing::{error, info, warn};

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

/// How many errors `/status` remembers.
const REMEMBERED_ERRORS: usize = 20;

/// Something that is wrong now, until it is withdrawn.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub text: String,
    logged: Instant,
    /// Told by [`Shared::trouble`], and so not only as long as a [`Complaint`] lives.
    lasting: bool,
}

/// What is wrong now, and how many complaints each part has.
#[derive(Default)]
struct Troubles {
    now: BTreeMap<&'static str, Trouble>,
    complaints: BTreeMap<&'static str, usize>,
}

impl Troubles {
    /// Takes a trouble out if nobody is left who would meet that it is over.
    fn take_orphan(&mut self, part: &str) -> Option<Trouble> {
        let is_orphan = |trouble: &&Trouble| {
            !trouble.lasting && self.complaints.get(part).is_none_or(|count| *count == 0)
        };
        self.now.get(part).filter(is_orphan)?;
        self.now.remove(part)
    }
}

/// Of one who meets a trouble for as long as this lives: a batch that is tried again. With the last complaint of a part its trouble is
/// withdrawn, however the batch has ended: the one that was abandoned will not see the part work again.
pub struct Complaint<'s> {
    shared: &'s Shared,
    part: &'static str,
}

impl Complaint<'_> {
    /// As [`Shared::trouble`], for as long as there are complaints.
    pub fn tell(&self, text: String) {
        self.shared.tell(self.part, text, false);
    }
}

impl Drop for Complaint<'_> {
    fn drop(&mut self) {
        self.shared.let_go(self.part, |troubles| {
            if let Some(count) = troubles.complaints.get_mut(self.part) {
                *count -= 1;
            }
        });
    }
}

/// Trouble that lasts is logged again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

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
    troubles: Mutex<Troubles>,
    errors: Mutex<VecDeque<(SystemTime, String)>>,
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
            troubles: Mutex::default(),
            errors: Mutex::default(),
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

    // --- troubles and errors

    /// Says that a part of the worker is in trouble, until [`Shared::all_is_well`]. The text is for a person. It is logged at once, and
    /// now and then while the trouble lasts: many batches meet the same one.
    pub fn trouble(&self, part: &'static str, text: String) {
        self.tell(part, text, true);
    }

    /// For one who may meet the trouble of a part, and may end before it is over.
    pub fn complaint(&self, part: &'static str) -> Complaint<'_> {
        *lock(&self.troubles).complaints.entry(part).or_default() += 1;
        Complaint { shared: self, part }
    }

    fn tell(&self, part: &'static str, text: String, lasting: bool) {
        self.remember(format!("{part}: {text}"));
        let now = Instant::now();
        let mut troubles = lock(&self.troubles);
        let due = match troubles.now.get_mut(part) {
            Some(trouble) => {
                trouble.lasting |= lasting;
                trouble.text.clone_from(&text);
                let due = now.duration_since(trouble.logged) >= LOG_INTERVAL;
                if due {
                    trouble.logged = now;
                }
                due
            }
            None => {
                let trouble = Trouble {
                    since: now,
                    text: text.clone(),
                    logged: now,
                    lasting,
                };
                troubles.now.insert(part, trouble);
                true
            }
        };
        drop(troubles);
        if due {
            warn!("{part}: {text}; it is tried again");
        }
    }

    /// The part works again.
    pub fn all_is_well(&self, part: &'static str) {
        // Not held meanwhile: a log that nobody reads may hold this up, and `/readyz` asks for them.
        let removed = lock(&self.troubles).now.remove(part);
        if let Some(trouble) = removed {
            let seconds = trouble.since.elapsed().as_secs_f64();
            info!("{part}: works again after {seconds:.1} s");
        }
    }

    /// What it was about may have moved away: from here on the trouble lasts no longer than the complaints of the part. Who meets it
    /// again says so again.
    pub fn doubt(&self, part: &'static str) {
        self.let_go(part, |troubles| {
            if let Some(trouble) = troubles.now.get_mut(part) {
                trouble.lasting = false;
            }
        });
    }

    /// Changes what a trouble is held by, and withdraws it if nothing holds it any more.
    fn let_go(&self, part: &'static str, change: impl FnOnce(&mut Troubles)) {
        let orphan = {
            let mut troubles = lock(&self.troubles);
            change(&mut troubles);
            troubles.take_orphan(part)
        };
        if let Some(trouble) = orphan {
            let seconds = trouble.since.elapsed().as_secs_f64();
            info!(
                "{part}: was in trouble for {seconds:.1} s; nothing of this worker's waits for it any more"
            );
        }
    }

    pub fn troubles(&self) -> BTreeMap<&'static str, Trouble> {
        lock(&self.troubles).now.clone()
    }

    /// Keeps an error for `/status`; a repetition of the last one is not kept twice.
    pub fn remember(&self, text: String) {
        let mut errors = lock(&self.errors);
        if errors.back().is_some_and(|(_, last)| *last == text) {
            return;
        }
        if errors.len() == REMEMBERED_ERRORS {
            errors.pop_front();
        }
        errors.push_back((SystemTime::now(), text));
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
        self.remember(text);
    }

    pub fn last_errors(&self) -> Vec<(SystemTime, String)> {
        lock(&self.errors).iter().cloned().collect()
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

    fn told(shared: &Shared) -> Vec<(&'static str, String)> {
        let troubles = shared.troubles().into_iter();
        troubles
            .map(|(part, trouble)| (part, trouble.text))
            .collect()
    }

    #[test]
    fn a_trouble_lasts_as_long_as_the_last_complaint() {
        let (shared, _) = shared();
        let (first, second) = (shared.complaint("sink"), shared.complaint("sink"));
        let other = shared.complaint("dead letters");
        first.tell("away".to_owned());
        second.tell("still away".to_owned());
        other.tell("no topic".to_owned());
        drop(first);
        let (sink, dead) = (
            ("sink", "still away".to_owned()),
            ("dead letters", "no topic".to_owned()),
        );
        assert_eq!(told(&shared), [dead.clone(), sink]);
        drop(second);
        assert_eq!(told(&shared), [dead]);
        drop(other);
        assert_eq!(told(&shared), []);
    }

    #[test]
    fn a_part_that_works_is_well_and_may_be_in_trouble_again() {
        let (shared, _) = shared();
        let complaint = shared.complaint("sink");
        complaint.tell("away".to_owned());
        shared.all_is_well("sink");
        assert_eq!(told(&shared), []);
        complaint.tell("away again".to_owned());
        assert_eq!(told(&shared), [("sink", "away again".to_owned())]);
        drop(complaint);
        assert_eq!(told(&shared), []);
    }

    #[test]
    fn what_others_tell_outlives_complaints_until_it_is_doubted() {
        let (shared, _) = shared();
        let complaint = shared.complaint("sink");
        complaint.tell("away".to_owned());
        shared.trouble("sink", "all is read again".to_owned());
        drop(complaint);
        let lasting = [("sink", "all is read again".to_owned())];
        assert_eq!(told(&shared), lasting);
        let complaint = shared.complaint("sink");
        shared.doubt("sink");
        assert_eq!(told(&shared), lasting, "somebody meets it still");
        drop(complaint);
        assert_eq!(told(&shared), []);
        shared.trouble("sink", "away".to_owned());
        shared.doubt("sink");
        assert_eq!(told(&shared), []);
    }
}
