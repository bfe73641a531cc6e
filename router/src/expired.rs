//! Events that Kafka deleted, by retention or on request, before this worker had read them.
//!
//! librdkafka goes on at the beginning of what is left and says nothing. Its statistics tell: where the log of a partition now begins behind
//! the place that was to be read next, what lay in between was not read, but for what has arrived since.

use std::collections::HashMap;

use rdkafka::statistics::Partition;

use crate::offsets::PartitionKey;

/// What the statistics say of a partition at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Where its log begins.
    pub low: i64,
    /// The next offset to be fetched.
    pub next: i64,
    /// Records that ever arrived.
    pub received: i64,
}

impl Look {
    /// `None` while librdkafka does not know.
    pub fn at(partition: &Partition) -> Option<Look> {
        (partition.lo_offset >= 0 && partition.next_offset >= 0).then_some(Look {
            low: partition.lo_offset,
            next: partition.next_offset,
            received: i64::try_from(partition.rxmsgs).unwrap_or(i64::MAX),
        })
    }
}

/// Where each partition was looked at last.
#[derive(Debug, Default)]
pub struct Expiry {
    last: HashMap<PartitionKey, Look>,
}

impl Expiry {
    /// A partition was assigned, or sent back, to be read from here (`None`: from wherever its log begins).
    pub fn assigned(&mut self, key: &PartitionKey, from: Option<i64>) {
        let received = self.last.get(key).map_or(0, |look| look.received);
        match from {
            Some(next) => self.last.insert(
                key.clone(),
                Look {
                    low: 0,
                    next,
                    received,
                },
            ),
            None => self.last.remove(key),
        };
    }

    /// Whether at the last look librdkafka had fetched all of the log, and nothing has arrived since. `high` is where the log ends, negative
    /// where that is not known. What was fetched may still wait to be taken in.
    pub fn is_fetched(&self, key: &PartitionKey, now: Look, high: i64) -> bool {
        let last = self.last.get(key);
        high >= 0 && now.next >= high && last.is_some_and(|last| last.received == now.received)
    }

    /// How many events before the log's beginning were deleted unread since the last look; about, where the topic is compacted or written
    /// in transactions, whose markers take offsets too.
    pub fn look(&mut self, key: &PartitionKey, now: Look) -> u64 {
        let kept = Look {
            // What was told of is not told of again.
            next: now.next.max(now.low),
            ..now
        };
        let Some(before) = self.last.insert(key.clone(), kept) else {
            return 0;
        };
        let gone = now.low - before.next;
        let moved = kept.next - before.next;
        let received = now.received - before.received;
        (moved - received).min(gone).max(0).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(low: i64, next: i64, received: i64) -> Look {
        Look {
            low,
            next,
            received,
        }
    }

    /// What each look says, of a partition assigned at this place.
    fn told(from: Option<i64>, looks: &[Look]) -> Vec<u64> {
        let key = PartitionKey::new("events", 0);
        let mut expiry = Expiry::default();
        expiry.assigned(&key, from);
        looks.iter().map(|now| expiry.look(&key, *now)).collect()
    }

    #[test]
    fn a_log_is_fetched_when_its_end_is_fetched_and_nothing_arrives_any_more() {
        let key = PartitionKey::new("events", 0);
        let mut expiry = Expiry::default();
        assert!(
            !expiry.is_fetched(&key, look(0, 10, 9), 10),
            "no look before"
        );
        expiry.look(&key, look(0, 8, 7));
        assert!(!expiry.is_fetched(&key, look(0, 10, 9), 10), "two arrived");
        expiry.look(&key, look(0, 10, 9));
        assert!(expiry.is_fetched(&key, look(0, 10, 9), 10));
        let unknown = -1001;
        assert!(!expiry.is_fetched(&key, look(0, 10, 9), unknown));
        assert!(!expiry.is_fetched(&key, look(0, 10, 9), 12), "two to fetch");
    }

    #[test]
    fn reading_and_waiting_lose_nothing() {
        let looks = [
            look(0, 100, 100),
            look(0, 100, 100),
            look(90, 250, 250),
            look(250, 250, 250),
        ];
        assert_eq!(told(Some(0), &looks), [0; 4]);
        assert_eq!(told(None, &[look(500, 600, 100)]), [0]);
    }

    #[test]
    fn what_went_while_the_worker_was_away_is_counted_once() {
        let looks = [look(900, 1010, 110), look(900, 1010, 110)];
        assert_eq!(told(Some(10), &looks), [890, 0]);
        // Before librdkafka has noticed.
        let looks = [look(900, 10, 0), look(900, 1010, 110)];
        assert_eq!(told(Some(10), &looks), [890, 0]);
    }

    #[test]
    fn what_goes_while_the_worker_stands_or_is_too_slow_is_counted() {
        let stands = [look(0, 10, 10), look(40, 10, 10), look(70, 10, 10)];
        assert_eq!(told(Some(0), &stands), [0, 30, 30]);
        // 20 more were read before the next 30 went; 5 behind them are there already.
        let slow = [look(0, 10, 10), look(60, 65, 35)];
        assert_eq!(told(Some(0), &slow), [0, 30]);
    }

    #[test]
    fn what_goes_while_the_worker_waits_to_read_again_is_counted() {
        let key = PartitionKey::new("events", 0);
        let mut expiry = Expiry::default();
        expiry.assigned(&key, Some(0));
        assert_eq!(expiry.look(&key, look(0, 100, 100)), 0);
        // Sent back to 20; meanwhile retention takes all before 70.
        expiry.assigned(&key, Some(20));
        assert_eq!(expiry.look(&key, look(70, 150, 180)), 50);
        assert_eq!(expiry.look(&key, look(70, 150, 180)), 0);
    }

    #[test]
    fn a_rewind_and_a_topic_made_anew_are_no_loss() {
        let looks = [look(0, 100, 100), look(0, 40, 100), look(0, 100, 160)];
        assert_eq!(told(Some(0), &looks), [0; 3]);
        assert_eq!(told(Some(1_000), &[look(0, 5, 5), look(0, 5, 5)]), [0, 0]);
    }
}
