//! What is said of bad events: of each stage one now and then, with how many there were. Pure: the time is told to it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keystone_sinks::telling::Telling;

/// How often it is said of a stage.
pub const TELL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct BadEvents {
    stages: HashMap<&'static str, Stage>,
}

#[derive(Debug, Default)]
struct Stage {
    told: Telling,
    /// Not told of yet.
    count: u64,
}

impl BadEvents {
    /// So many more were bad in this stage. Answers with the number of all that were not told of, if it is to be said now.
    pub fn count(&mut self, stage: &'static str, events: u64, now: Instant) -> Option<u64> {
        let stage = self.stages.entry(stage).or_default();
        stage.count += events;
        let is_due = stage.told.is_due(now, TELL);
        is_due.then(|| std::mem::take(&mut stage.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_of_at_once_and_the_others_together_later() {
        let (mut bad, start) = (BadEvents::default(), Instant::now());
        assert_eq!(bad.count("sink", 1, start), Some(1));
        assert_eq!(bad.count("sink", 3, start + TELL / 2), None);
        assert_eq!(bad.count("filter", 2, start + TELL / 2), Some(2));
        assert_eq!(bad.count("sink", 4, start + TELL), Some(7));
    }
}
