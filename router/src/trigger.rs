//! When a batch closes: by count, by bytes, or by age. Pure: time is passed in.

use std::time::{Duration, Instant};

/// The limits of a batch (`delivery.batch.max.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub max_events: usize,
    /// Bytes of payloads, originals, keys and headers. The event that passes the limit still belongs to the batch.
    pub max_bytes: usize,
    /// Counted from the first record that the batch answers for, filtered ones too: filtered offsets are to be committed in time.
    pub max_age: Duration,
}

/// Watches one batch at a time.
#[derive(Debug)]
pub struct Trigger {
    limits: BatchLimits,
    opened: Option<Instant>,
}

impl Trigger {
    pub fn new(limits: BatchLimits) -> Trigger {
        Trigger {
            limits,
            opened: None,
        }
    }

    /// A record entered the batch at `now`.
    pub fn opened(&mut self, now: Instant) {
        self.opened.get_or_insert(now);
    }

    /// The batch was closed.
    pub fn closed(&mut self) {
        self.opened = None;
    }

    /// Whether the batch is full at this size.
    pub fn full(&self, events: usize, bytes: usize) -> bool {
        events >= self.limits.max_events || bytes >= self.limits.max_bytes
    }

    /// When the open batch is due by age.
    pub fn due(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.limits.max_age)
    }

    /// How old the open batch is.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.opened
            .map(|opened| now.saturating_duration_since(opened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a naive model: a batch never exceeds its limits by more than one event, and is due exactly `max_age` after its first record.
        #[test]
        fn batches_close_in_time(sizes in prop::collection::vec((1..200usize, 0..50u64), 1..200)) {
            let limits = BatchLimits { max_events: 10, max_bytes: 500, max_age: Duration::from_millis(100) };
            let mut trigger = Trigger::new(limits);
            let mut now = Instant::now();
            let (mut events, mut bytes, mut first) = (0, 0, None);
            for (size, wait) in sizes {
                now += Duration::from_millis(wait);
                if trigger.due().is_some_and(|due| due <= now) {
                    prop_assert!(now.duration_since(first.unwrap()) >= limits.max_age);
                    trigger.closed();
                    (events, bytes, first) = (0, 0, None);
                }
                trigger.opened(now);
                first.get_or_insert(now);
                events += 1;
                bytes += size;
                prop_assert_eq!(trigger.due(), first.map(|first| first + limits.max_age));
                if trigger.full(events, bytes) {
                    prop_assert!(events == limits.max_events || bytes >= limits.max_bytes);
                    trigger.closed();
                    (events, bytes, first) = (0, 0, None);
                }
                prop_assert!(events < limits.max_events && bytes < limits.max_bytes);
            }
        }
    }
}
