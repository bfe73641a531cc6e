//! A sink that does what a script says, and records what it answered for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use keystone::state::{Shared, lock};
use keystone_sinks::{
    Answer, Batch, BatchId, BoxFuture, Cause, Claim, Event, Rejected, Sink, SinkError, SinkState,
};

use crate::judge::{Delivery, Place, Record};

/// What the sink says has failed.
pub(crate) const NODE_AWAY: &str = "one of the nodes is away";

/// What the sink does with one call.
#[derive(Debug)]
pub(crate) enum Act {
    Answer {
        rejected: Vec<usize>,
        retry: Vec<usize>,
        held: bool,
        /// Makes everything durable that is held, this batch included where `held`.
        publish: bool,
    },
    Error(SinkError),
    /// The answer never comes.
    Never,
    After(Duration, Box<Act>),
}

impl Act {
    pub(crate) fn done() -> Act {
        Act::parts(Vec::new(), Vec::new())
    }

    pub(crate) fn hold() -> Act {
        Act::Answer {
            rejected: Vec::new(),
            retry: Vec::new(),
            held: true,
            publish: false,
        }
    }

    /// Some events rejected, some to be sent again, the others delivered.
    pub(crate) fn parts(rejected: Vec<usize>, retry: Vec<usize>) -> Act {
        Act::Answer {
            rejected,
            retry,
            held: false,
            publish: false,
        }
    }

    pub(crate) fn retry() -> Act {
        Act::Error(SinkError::Retry(cause("scripted")))
    }

    pub(crate) fn rewind() -> Act {
        Act::Error(SinkError::Rewind(cause("scripted_rewind")))
    }

    pub(crate) fn too_large() -> Act {
        Act::Error(SinkError::TooLarge("by the script".to_owned()))
    }

    pub(crate) fn after_ms(ms: u64, act: Act) -> Act {
        Act::After(Duration::from_millis(ms), Box::new(act))
    }
}

pub(crate) fn cause(reason: &'static str) -> Cause {
    Cause {
        reason,
        detail: format!("the script says {reason}"),
        after: None,
    }
}

/// One call of the sink, as the script sees it.
pub(crate) struct Call<'a> {
    /// Counted from 0 over all lanes.
    pub(crate) number: u64,
    /// How many rewinds were carried out before it.
    pub(crate) rewinds: u64,
    pub(crate) batch: &'a Batch,
}

impl Call<'_> {
    /// Indices of the events that a condition on (partition, offset) chooses.
    pub(crate) fn chosen(&self, choose: impl Fn(Place) -> bool) -> Vec<usize> {
        let events = self.batch.events().enumerate();
        events
            .filter(|(_, event)| choose((event.partition, event.offset)))
            .map(|(index, _)| index)
            .collect()
    }
}

type Decide = dyn Fn(&Call<'_>) -> Act + Send + Sync;
type Publish = dyn Fn(&Scripted, u64) -> Result<Vec<BatchId>, SinkError> + Send + Sync;

pub(crate) struct Scripted {
    record: Arc<Record>,
    decide: Box<Decide>,
    tick: Box<Publish>,
    flush: Box<Publish>,
    holds: bool,
    longest: Option<Duration>,
    /// Rises with each look at it, where the script says that the sink gets on.
    steps: Option<AtomicU64>,
    /// No tick comes back.
    tick_hangs: bool,
    calls: AtomicU64,
    ticks: AtomicU64,
    flushes: AtomicU64,
    /// Calls under way, those without an end included.
    pub(crate) under_way: AtomicUsize,
    pub(crate) abandons: AtomicU64,
    held: Mutex<BTreeMap<BatchId, Vec<Delivery>>>,
    /// The worker, to check what it hands over.
    pub(crate) worker: OnceLock<Arc<Shared>>,
}

impl Scripted {
    /// A sink that answers each call by itself.
    pub(crate) fn new(
        record: &Arc<Record>,
        decide: impl Fn(&Call<'_>) -> Act + Send + Sync + 'static,
    ) -> Scripted {
        Scripted {
            record: record.clone(),
            decide: Box::new(decide),
            tick: Box::new(|_, _| Ok(Vec::new())),
            flush: Box::new(|sink, _| Ok(sink.publish_all())),
            holds: false,
            longest: None,
            steps: None,
            tick_hangs: false,
            calls: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            abandons: AtomicU64::new(0),
            held: Mutex::default(),
            worker: OnceLock::new(),
        }
    }

    /// The sink may hold batches; a flush publishes them, a tick does not.
    pub(crate) fn holding(mut self) -> Scripted {
        self.holds = true;
        self
    }

    /// The sink gets on, whatever its calls do.
    pub(crate) fn stepping(mut self) -> Scripted {
        self.steps = Some(AtomicU64::new(0));
        self
    }

    pub(crate) fn with_hanging_tick(mut self) -> Scripted {
        self.tick_hangs = true;
        self
    }

    /// A step may take this long by design.
    pub(crate) fn within(mut self, longest: Duration) -> Scripted {
        self.longest = Some(longest);
        self
    }

    pub(crate) fn on_tick(
        mut self,
        tick: impl Fn(&Scripted, u64) -> Result<Vec<BatchId>, SinkError> + Send + Sync + 'static,
    ) -> Scripted {
        self.tick = Box::new(tick);
        self
    }

    pub(crate) fn on_flush(
        mut self,
        flush: impl Fn(&Scripted, u64) -> Result<Vec<BatchId>, SinkError> + Send + Sync + 'static,
    ) -> Scripted {
        self.flush = Box::new(flush);
        self
    }

    pub(crate) fn held_events(&self) -> usize {
        lock(&self.held).values().map(Vec::len).sum()
    }

    /// Makes all held events durable.
    pub(crate) fn publish_all(&self) -> Vec<BatchId> {
        let held = std::mem::take(&mut *lock(&self.held));
        let mut ids = Vec::new();
        for (id, events) in held {
            self.record.delivered(events);
            ids.push(id);
        }
        ids
    }

    fn answer(&self, batch: &Batch, act: Act) -> Result<Answer, SinkError> {
        let (rejected, retry, held, publish) = match act {
            Act::Answer {
                rejected,
                retry,
                held,
                publish,
            } => (rejected, retry, held, publish),
            Act::Error(error) => return Err(error),
            Act::Never | Act::After(..) => unreachable!("waited for by the caller"),
        };
        let taken = batch.events().enumerate();
        let taken: Vec<_> = taken
            .filter(|(index, _)| !rejected.contains(index) && !retry.contains(index))
            .map(|(_, event)| (place(&event), event.payload.map(<[u8]>::to_vec)))
            .collect();
        for index in &rejected {
            self.record.rejected(place(&batch.event(*index)));
        }
        if held {
            lock(&self.held)
                .entry(batch.id())
                .or_default()
                .extend(taken);
        } else {
            self.record.delivered(taken);
        }
        let durable = if publish {
            self.publish_all()
        } else {
            Vec::new()
        };
        Ok(Answer {
            rejected: rejected
                .into_iter()
                .map(|index| Rejected {
                    index,
                    reason: reason(place(&batch.event(index))),
                })
                .collect(),
            cause: (!retry.is_empty()).then(|| cause("scripted_partly")),
            retry,
            held,
            durable,
        })
    }

    /// What is settled under the present generation is never handed over again.
    fn check_call(&self, batch: &Batch) {
        let Some(worker) = self.worker.get() else {
            return;
        };
        let views = worker.offsets().views();
        let claims = batch.claims();
        for claim in claims.iter() {
            let others = |other: &&Claim| {
                other.partition == claim.partition && other.generation != claim.generation
            };
            if let Some(other) = claims.iter().find(others) {
                self.record
                    .complain(format!("{claim:?} and {other:?} are in one batch"));
            }
            let settled = views
                .iter()
                .find(|view| {
                    view.key.partition == claim.partition && view.generation == claim.generation
                })
                .and_then(|view| view.settled);
            let Some(settled) = settled else { continue };
            for event in batch.events() {
                if event.partition == claim.partition
                    && claim.offsets.contains(&event.offset)
                    && event.offset < settled
                {
                    self.record.complain(format!(
                        "{:?} is settled (up to {settled}) and was handed to the sink again",
                        place(&event)
                    ));
                }
            }
        }
    }
}

/// Counts the calls under way, dropped ones too.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sink for Scripted {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(async move {
            let number = self.calls.fetch_add(1, Ordering::SeqCst);
            self.under_way.fetch_add(1, Ordering::SeqCst);
            let _under_way = UnderWay(&self.under_way);
            self.check_call(batch);
            let rewinds = self.abandons.load(Ordering::SeqCst);
            let mut act = (self.decide)(&Call {
                number,
                rewinds,
                batch,
            });
            loop {
                match act {
                    Act::Never => futures::future::pending().await,
                    Act::After(wait, next) => {
                        tokio::time::sleep(wait).await;
                        act = *next;
                    }
                    act => return self.answer(batch, act),
                }
            }
        })
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        let number = self.ticks.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if self.tick_hangs {
                return futures::future::pending().await;
            }
            (self.tick)(self, number)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        let number = self.flushes.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { (self.flush)(self, number) })
    }

    fn abandon(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            lock(&self.held).clear();
            self.abandons.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn longest_step(&self) -> Option<Duration> {
        self.longest
    }

    fn steps(&self) -> u64 {
        let steps = self.steps.as_ref();
        steps.map_or(0, |steps| steps.fetch_add(1, Ordering::Relaxed))
    }

    fn holds(&self) -> bool {
        self.holds
    }

    /// As if one of several nodes were away, which is no problem.
    fn state(&self) -> SinkState {
        SinkState {
            failures: vec![NODE_AWAY.to_owned()],
            ..SinkState::default()
        }
    }
}

fn place(event: &Event<'_>) -> Place {
    (event.partition, event.offset)
}

/// Why the script rejects an event.
pub(crate) fn reason((partition, offset): Place) -> String {
    format!("no room for {partition}/{offset}")
}
