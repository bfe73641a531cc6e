//! The ledger: what became of every event. consumed = filtered + discarded + delivered + dead-lettered + abandoned + in flight.

use std::sync::atomic::{AtomicU64, Ordering};

use keystone_sinks::Stage;

/// Counters that only rise, since the process started.
#[derive(Debug, Default)]
pub struct Ledger {
    pub consumed: AtomicU64,
    /// The filter was not true.
    pub filtered: AtomicU64,
    /// The projection was null, a tombstone or a violation of hygiene was discarded, or `dead.letter.policy = discard`.
    pub discarded: AtomicU64,
    pub delivered: AtomicU64,
    /// By stage, in the order of `Stage::ALL`.
    pub dead_lettered: [AtomicU64; Stage::ALL.len()],
    /// Given up because the partition moved away or was rewound before they were settled; they are read again, here or elsewhere.
    pub abandoned: AtomicU64,
}

/// The ledger at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LedgerView {
    pub consumed: u64,
    pub filtered: u64,
    pub discarded: u64,
    pub delivered: u64,
    pub dead_lettered: u64,
    pub abandoned: u64,
    pub in_flight: u64,
}

impl Ledger {
    pub fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn dead_lettered(&self, stage: Stage) -> &AtomicU64 {
        &self.dead_lettered[stage as usize]
    }

    /// Outcomes are read before what was consumed: an event in between counts as in flight, never as more than was consumed.
    pub fn view(&self) -> LedgerView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let filtered = read(&self.filtered);
        let discarded = read(&self.discarded);
        let delivered = read(&self.delivered);
        let dead_lettered = self.dead_lettered.iter().map(read).sum();
        let abandoned = read(&self.abandoned);
        let consumed = read(&self.consumed);
        let settled = filtered + discarded + delivered + dead_lettered + abandoned;
        LedgerView {
            consumed,
            filtered,
            discarded,
            delivered,
            dead_lettered,
            abandoned,
            in_flight: consumed.saturating_sub(settled),
        }
    }
}
