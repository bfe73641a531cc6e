//! The search for the records that Kafka refuses.
//!
//! Kafka answers for a produce batch as a whole: it refuses one for a record in it (no key for a compacted topic), and one that is larger
//! than the topic's `max.message.bytes` though each of its records is not. Only a record that is refused alone is meant. So the suspects
//! are sent in halves, by a caller who has the producer to itself: nobody else's records are in their batches.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::groups::Failure;
use super::refusal::is_consequence;

/// Whether the refusal may be meant for another record of the same request.
fn refuses_with_others(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::InvalidMessage
            | Code::InvalidTimestamp
    )
}

/// Whether Kafka has refused this record, or another one with it.
pub(super) fn is_suspect(failure: &Failure) -> bool {
    failure.entered && refuses_with_others(failure.code)
}

/// The first or the second half of a group that was refused for its size, or any other group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Second,
    Other,
}

/// How often in turn a group is sent again that was handed back with nothing refused in it. It happens after a refusal in a transaction: it
/// left a gap in the sequence of a partition, at which the next transaction breaks off, once.
const PATIENCE: usize = 3;

/// See the module. Records are known by an index of the caller's.
#[derive(Debug)]
pub(super) struct Search {
    /// Groups to send, the next one last.
    groups: Vec<(Part, Vec<usize>)>,
    /// What was sent last.
    sent: (Part, Vec<usize>),
    /// The first half was taken whole, the second one is next.
    first_taken: bool,
    /// How often the group may still be handed back.
    patience: usize,
    batches_too_large: bool,
}

impl Search {
    pub(super) fn new(suspects: Vec<usize>) -> Search {
        Search {
            groups: vec![(Part::Other, suspects)],
            sent: (Part::Other, Vec::new()),
            first_taken: false,
            patience: PATIENCE,
            batches_too_large: false,
        }
    }

    /// The group to be sent next, alone; to be followed by its [`Search::answer`]. Groups come in the order of their records.
    pub(super) fn pop(&mut self) -> Option<&[usize]> {
        self.sent = self.groups.pop()?;
        Some(&self.sent.1)
    }

    /// What became of the group. Returns the failures that nothing else is to blame for.
    pub(super) fn answer(&mut self, failures: Vec<Failure>) -> Vec<Failure> {
        let (part, sent) = (self.sent.0, self.sent.1.len());
        let first_taken = std::mem::replace(&mut self.first_taken, false);
        let patience = std::mem::replace(&mut self.patience, PATIENCE);
        if failures.is_empty() {
            self.first_taken = part == Part::First;
            self.batches_too_large |= part == Part::Second && first_taken;
            return failures;
        }
        let refused = failures.iter().any(is_suspect);
        let meant = |failure: &Failure| match refused {
            true => sent == 1 || !is_suspect(failure) && !is_consequence(failure.code),
            false => patience == 0 || !is_consequence(failure.code),
        };
        let (settled, again): (Vec<Failure>, Vec<Failure>) = failures.into_iter().partition(meant);
        let too_large = again
            .iter()
            .any(|failure| failure.code == Code::MessageSizeTooLarge);
        let mut again: Vec<usize> = again.iter().map(|failure| failure.index).collect();
        if again.is_empty() {
            return settled;
        }
        if !refused {
            // Nothing is known of the group yet.
            self.patience = patience - 1;
            self.first_taken = first_taken;
            let part = if again.len() == sent {
                part
            } else {
                Part::Other
            };
            self.groups.push((part, again));
        } else if again.len() == sent {
            let second = again.split_off(again.len() / 2);
            let (first_part, second_part) = match too_large {
                true => (Part::First, Part::Second),
                false => (Part::Other, Part::Other),
            };
            self.groups.push((second_part, second));
            self.groups.push((first_part, again));
        } else {
            self.groups.push((Part::Other, again));
        }
        settled
    }

    /// Whether Kafka has refused records for their size together and taken each half of them: their batch was too large, none of them was.
    pub(super) fn batches_are_too_large(&self) -> bool {
        self.batches_too_large
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A topic that takes produce batches of a limited size, and a producer that makes them.
    struct Topic {
        sizes: Vec<usize>,
        /// Records that are no good, each of which has its batch refused.
        invalid: BTreeSet<usize>,
        max_message: usize,
        batch: usize,
        /// The first refusal ends the transaction: what comes later is handed back.
        transactions: bool,
    }

    impl Topic {
        /// Sends a group; the failures, and the others go to the topic.
        fn send(&self, group: &[usize], taken: &mut Vec<usize>) -> Vec<Failure> {
            let mut batches: Vec<Vec<usize>> = Vec::new();
            let size =
                |batch: &[usize]| batch.iter().map(|&index| self.sizes[index]).sum::<usize>();
            for &index in group {
                match batches.last_mut() {
                    Some(batch) if size(batch) + self.sizes[index] <= self.batch => {
                        batch.push(index);
                    }
                    _ => batches.push(vec![index]),
                }
            }
            let (mut failures, mut broken) = (Vec::new(), false);
            for batch in batches {
                let code = if broken {
                    Code::PurgeQueue
                } else if size(&batch) > self.max_message {
                    Code::MessageSizeTooLarge
                } else if batch.iter().any(|index| self.invalid.contains(index)) {
                    Code::InvalidRecord
                } else {
                    taken.extend(batch);
                    continue;
                };
                broken = self.transactions;
                failures.extend(batch.into_iter().map(|index| Failure {
                    index,
                    code,
                    entered: true,
                }));
            }
            failures
        }

        /// Searches; what was taken, what was refused alone, how often was sent, and whether batches are too large.
        fn search(&self) -> (Vec<usize>, Vec<usize>, usize, bool) {
            let mut search = Search::new((0..self.sizes.len()).collect());
            let (mut taken, mut refused, mut sends) = (Vec::new(), Vec::new(), 0);
            while let Some(group) = search.pop() {
                let group = group.to_vec();
                sends += 1;
                let failures = self.send(&group, &mut taken);
                let settled = search.answer(failures);
                refused.extend(settled.iter().map(|failure| failure.index));
            }
            (taken, refused, sends, search.batches_are_too_large())
        }
    }

    #[test]
    fn a_batch_that_is_too_large_is_found_out_in_few_sends() {
        let topic = Topic {
            sizes: vec![100; 2_600],
            invalid: BTreeSet::new(),
            max_message: 65_536,
            batch: 262_144,
            transactions: false,
        };
        let (taken, refused, sends, too_large) = topic.search();
        assert!(refused.is_empty() && too_large);
        assert_eq!(taken, (0..2_600).collect::<Vec<_>>(), "in order");
        assert!(sends <= 7, "{sends}");
    }

    #[test]
    fn one_large_record_is_no_sign_of_large_batches() {
        for transactions in [false, true] {
            let mut sizes = vec![100; 1_000];
            sizes[333] = 70_000;
            let topic = Topic {
                sizes,
                invalid: BTreeSet::new(),
                max_message: 65_536,
                batch: 60_000,
                transactions,
            };
            let (_, refused, sends, too_large) = topic.search();
            assert_eq!(refused, [333]);
            assert!(!too_large && sends <= 40, "{sends}");
        }
    }

    fn all(count: usize, code: Code) -> Vec<Failure> {
        let failure = |index| Failure {
            index,
            code,
            entered: true,
        };
        (0..count).map(failure).collect()
    }

    #[test]
    fn what_fails_for_another_reason_is_not_searched() {
        let mut search = Search::new((0..10).collect());
        assert!(search.pop().is_some());
        let failures = all(10, Code::MessageTimedOut);
        assert_eq!(search.answer(failures.clone()), failures);
        assert!(search.pop().is_none());
    }

    #[test]
    fn what_is_handed_back_is_sent_again_and_not_for_ever() {
        let mut search = Search::new((0..10).collect());
        let mut sends = 0;
        let settled = loop {
            assert_eq!(search.pop().map(<[usize]>::len), Some(10));
            sends += 1;
            let settled = search.answer(all(10, Code::PurgeQueue));
            if !settled.is_empty() {
                break settled;
            }
        };
        assert_eq!((settled.len(), sends), (10, 1 + PATIENCE));
        assert!(search.pop().is_none());
    }

    #[test]
    fn halves_that_are_handed_back_first_tell_of_large_batches_too() {
        let mut search = Search::new((0..4).collect());
        for failures in [
            all(4, Code::PurgeQueue),
            all(4, Code::MessageSizeTooLarge),
            all(2, Code::PurgeQueue),
            Vec::new(),
        ] {
            assert!(search.pop().is_some() && search.answer(failures).is_empty());
        }
        let second = search.pop().expect("the second half").to_vec();
        assert_eq!(second, [2, 3]);
        let handed_back = second.iter().map(|&index| Failure {
            index,
            ..all(1, Code::PurgeInflight)[0]
        });
        assert!(search.answer(handed_back.collect()).is_empty());
        assert_eq!(search.pop(), Some(&[2, 3][..]));
        assert!(search.answer(Vec::new()).is_empty() && search.pop().is_none());
        assert!(search.batches_are_too_large());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Exactly the records that are too large or invalid are refused, and batches are called too large only where some are.
        #[test]
        fn only_records_that_are_too_large_or_invalid_are_refused(
            sizes in prop::collection::vec(1..200_usize, 1..200),
            invalid in prop::collection::btree_set(0..200_usize, 0..5),
            max_message in 50..400_usize,
            batch in 1..1_000_usize,
            transactions in any::<bool>(),
        ) {
            let topic = Topic { sizes, invalid, max_message, batch, transactions };
            let (taken, mut refused, _, too_large) = topic.search();
            refused.sort_unstable();
            let is_bad = |index: &usize| {
                topic.sizes[*index] > max_message || topic.invalid.contains(index)
            };
            let expected: Vec<usize> = (0..topic.sizes.len()).filter(is_bad).collect();
            prop_assert_eq!(&refused, &expected);
            let taken: BTreeSet<usize> = taken.into_iter().collect();
            prop_assert_eq!(taken.len() + refused.len(), topic.sizes.len());
            prop_assert!(!too_large || batch > max_message);
        }
    }
}
