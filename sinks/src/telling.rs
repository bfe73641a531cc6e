//! When something that lasts, or comes again and again, is told of. Pure: the time is told to it.

use std::time::{Duration, Instant};

/// At once, and then now and then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Telling(Option<Instant>);

impl Telling {
    /// Whether it is to be told of now: it was not yet, or `every` ago. Then it counts as told.
    pub fn is_due(&mut self, now: Instant, every: Duration) -> bool {
        let is_due = self.0.is_none_or(|told| now.duration_since(told) >= every);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}
