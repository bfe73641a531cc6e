//! Partitions that could not be read, until they are read again. Pure: the time is told to it.
//!
//! librdkafka takes the offset of an error for read (see [`Fault`](crate::records::Fault)), so the consumer thread seeks to the one that was
//! to be read next. Not at once: a seek ends librdkafka's own pause after a failed fetch, and would have it ask a broker that is in trouble
//! again without end. Until then, what comes of the partition is dropped: it comes once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use keystone_sinks::telling::Telling;

use crate::lane::Assigned;
use crate::offsets::PartitionKey;

/// From an error to the seek; librdkafka's own pause (`fetch.error.backoff.ms`) is as long by default.
pub const PAUSE: Duration = Duration::from_millis(500);
/// How often it is said of a partition that it can't be read: the same comes again with each attempt.
pub const TELL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Unread {
    waiting: HashMap<PartitionKey, Waiting>,
    told: HashMap<PartitionKey, Telling>,
}

#[derive(Debug)]
struct Waiting {
    assigned: Arc<Assigned>,
    due: Instant,
}

impl Unread {
    /// A partition could not be read. Answers whether the log is to be told.
    pub fn failed(&mut self, assigned: &Arc<Assigned>, now: Instant) -> bool {
        let key = &assigned.key;
        assigned.faulty.store(true, Ordering::Relaxed);
        self.waiting.entry(key.clone()).or_insert_with(|| Waiting {
            assigned: assigned.clone(),
            due: now + PAUSE,
        });
        let told = self.told.entry(key.clone()).or_default();
        told.is_due(now, TELL)
    }

    /// The partitions whose records are dropped.
    pub fn waiting(&self) -> impl Iterator<Item = &PartitionKey> {
        self.waiting.keys()
    }

    /// Takes out those that are to be read again now.
    pub fn take_due(&mut self, now: Instant) -> Vec<Arc<Assigned>> {
        let due = self
            .waiting
            .extract_if(|_, waiting| waiting.due <= now)
            .map(|(_, waiting)| waiting.assigned);
        due.collect()
    }

    /// A partition that left, or is read anew under another generation, begins where it was assigned.
    pub fn retain(&mut self, assigned: &HashMap<PartitionKey, Arc<Assigned>>) {
        self.waiting.retain(|key, waiting| {
            let now = assigned.get(key);
            now.is_some_and(|now| Arc::ptr_eq(now, &waiting.assigned))
        });
        self.told.retain(|key, _| assigned.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(partition: i32, generation: u64) -> Arc<Assigned> {
        let key = PartitionKey::new("events", partition);
        Arc::new(Assigned::new(key, generation, 0, Some(7)))
    }

    fn partitions(due: &[Arc<Assigned>]) -> Vec<i32> {
        due.iter().map(|due| due.key.partition).collect()
    }

    #[test]
    fn a_partition_is_read_again_after_the_pause_however_many_errors_come() {
        let (mut unread, start, one) = (Unread::default(), Instant::now(), assigned(1, 1));
        for ms in 0..500 {
            let now = start + Duration::from_millis(ms);
            unread.failed(&one, now);
            assert!(unread.take_due(now).is_empty());
            assert_eq!(unread.waiting().count(), 1);
        }
        assert_eq!(partitions(&unread.take_due(start + PAUSE)), [1]);
        assert_eq!(unread.waiting().count(), 0);
        // The next error begins the next pause.
        unread.failed(&one, start + PAUSE);
        assert!(unread.take_due(start + PAUSE).is_empty());
        assert_eq!(partitions(&unread.take_due(start + 2 * PAUSE)), [1]);
    }

    #[test]
    fn it_is_said_of_each_partition_now_and_then() {
        let (mut unread, start) = (Unread::default(), Instant::now());
        let (one, two) = (assigned(1, 1), assigned(2, 2));
        assert!(unread.failed(&one, start));
        assert!(!unread.failed(&one, start + TELL / 2));
        assert!(unread.failed(&two, start + TELL / 2));
        assert!(unread.failed(&one, start + TELL));
    }

    #[test]
    fn a_partition_that_left_or_has_another_generation_is_forgotten() {
        let (mut unread, start) = (Unread::default(), Instant::now());
        let all = [assigned(1, 1), assigned(2, 2), assigned(3, 3)];
        for assigned in &all {
            unread.failed(assigned, start);
        }
        let now = [all[0].clone(), assigned(2, 4)];
        unread.retain(&now.map(|now| (now.key.clone(), now)).into());
        assert_eq!(partitions(&unread.take_due(start + PAUSE)), [1]);
    }
}
