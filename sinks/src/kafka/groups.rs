//! Groups of records on their way through librdkafka, each answered for as a whole.
//!
//! With each record travels a [`Ticket`] of one word, so that a delivery costs neither memory nor counters that two threads pull at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use slab::Slab;
use tokio::sync::oneshot;

/// A record that was not produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the group.
    pub index: usize,
    pub code: RDKafkaErrorCode,
    /// It was handed to librdkafka, and Kafka may have seen it; else it was refused at once and touched nothing.
    pub entered: bool,
}

/// The groups of one producer, and of those that replace it.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Slab<Group>>);

#[derive(Debug)]
struct Group {
    /// Records that were acknowledged or have failed.
    done: usize,
    /// All records, once the last one has entered.
    total: Option<usize>,
    failures: Vec<Failure>,
    answer: oneshot::Sender<Vec<Failure>>,
}

/// Names a record: the place of its group, which is not taken again before the whole group is done, and its index in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    group: u32,
    index: u32,
}

// A ticket is as wide as a pointer.
const _: () = assert!(usize::BITS == u64::BITS);

impl Ticket {
    pub(super) fn number(self) -> usize {
        (self.group as usize) << 32 | self.index as usize
    }

    pub(super) fn of(number: usize) -> Ticket {
        Ticket {
            group: (number >> 32) as u32,
            index: number as u32,
        }
    }
}

impl Groups {
    /// Opens a group for records to enter.
    pub(super) fn open(self: &Arc<Groups>) -> (Entry, oneshot::Receiver<Vec<Failure>>) {
        let (answer, answered) = oneshot::channel();
        let group = Group {
            done: 0,
            total: None,
            failures: Vec::new(),
            answer,
        };
        let entry = Entry {
            groups: self.clone(),
            group: self.lock().insert(group) as u32,
            entered: 0,
        };
        (entry, answered)
    }

    /// The record is acknowledged by all in-sync replicas, or has failed.
    pub(super) fn settle(&self, ticket: Ticket, failed: Option<RDKafkaErrorCode>) {
        self.with(ticket.group, |group| {
            group.done += 1;
            group.failures.extend(failed.map(|code| Failure {
                index: ticket.index as usize,
                code,
                entered: true,
            }));
        });
    }

    /// Changes a group, and answers for it once it is done.
    fn with(&self, place: u32, change: impl FnOnce(&mut Group)) {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(place as usize) else {
            return;
        };
        change(group);
        if group.total != Some(group.done) {
            return;
        }
        let mut group = groups.remove(place as usize);
        drop(groups);
        group.failures.sort_by_key(|failure| failure.index);
        // Whoever asked may have given up.
        let _gone = group.answer.send(group.failures);
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets records into a group until it is dropped, also by a caller that is cut off: the group then is done when they are.
pub(super) struct Entry {
    groups: Arc<Groups>,
    group: u32,
    entered: usize,
}

impl Entry {
    /// The ticket of the next record.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            group: self.group,
            index: self.entered as u32,
        }
    }

    /// librdkafka has taken the record with this ticket, and will answer for it.
    pub(super) fn taken(&mut self) {
        self.entered += 1;
    }

    /// librdkafka has refused it at once.
    pub(super) fn refused(&mut self, code: RDKafkaErrorCode) {
        let index = self.entered;
        self.entered += 1;
        self.groups.with(self.group, |group| {
            group.done += 1;
            group.failures.push(Failure {
                index,
                code,
                entered: false,
            });
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entered = self.entered;
        self.groups
            .with(self.group, |group| group.total = Some(entered));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODE: RDKafkaErrorCode = RDKafkaErrorCode::MessageTimedOut;

    fn failure(index: usize, entered: bool) -> Failure {
        Failure {
            index,
            code: CODE,
            entered,
        }
    }

    #[test]
    fn a_group_without_records_is_done_when_it_is_closed() {
        let groups = Arc::new(Groups::default());
        let (entry, mut answered) = groups.open();
        assert!(answered.try_recv().is_err());
        drop(entry);
        assert_eq!(answered.try_recv(), Ok(Vec::new()));
    }

    #[test]
    fn a_group_is_done_for_whoever_still_waits_and_its_place_is_free_again() {
        let groups = Arc::new(Groups::default());
        let (mut entry, answered) = groups.open();
        drop(answered);
        let ticket = entry.ticket();
        entry.taken();
        drop(entry);
        assert_eq!(groups.lock().len(), 1);
        groups.settle(ticket, None);
        assert!(groups.lock().is_empty());
    }

    /// What becomes of a record: refused at once, or taken and then acknowledged or not.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Refused,
        Failed,
        Delivered,
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Records of several groups enter in turns and are settled in any order, some before their group has closed.
        #[test]
        fn each_group_answers_for_its_own_records_once_all_are_settled(
            fates in prop::collection::vec((0..4usize, prop::sample::select(vec![Fate::Refused, Fate::Failed, Fate::Delivered]), any::<bool>()), 0..60),
            order in any::<prop::sample::Index>(),
        ) {
            let groups = Arc::new(Groups::default());
            let mut open: Vec<_> = (0..4).map(|_| groups.open()).collect();
            let mut expected = vec![Vec::new(); 4];
            let mut late = Vec::new();
            for (place, fate, early) in fates {
                let entry = &mut open[place].0;
                let ticket = Ticket::of(entry.ticket().number());
                prop_assert_eq!(ticket, entry.ticket());
                let failed = match fate {
                    Fate::Refused => {
                        entry.refused(CODE);
                        expected[place].push(failure(ticket.index as usize, false));
                        continue;
                    }
                    Fate::Failed => {
                        expected[place].push(failure(ticket.index as usize, true));
                        Some(CODE)
                    }
                    Fate::Delivered => None,
                };
                entry.taken();
                if early { groups.settle(ticket, failed) } else { late.push((ticket, failed)) }
            }
            let (entries, mut answers): (Vec<_>, Vec<_>) = open.into_iter().unzip();
            prop_assert!(answers.iter_mut().all(|answered| answered.try_recv().is_err()));
            drop(entries);
            if !late.is_empty() {
                let middle = order.index(late.len());
                late.rotate_left(middle);
            }
            let mut unsettled = [0; 4];
            late.iter().for_each(|(ticket, _)| unsettled[ticket.group as usize] += 1);
            for (ticket, failed) in late {
                prop_assert!(answers[ticket.group as usize].try_recv().is_err());
                groups.settle(ticket, failed);
                unsettled[ticket.group as usize] -= 1;
            }
            prop_assert!(groups.lock().is_empty());
            for (mut answered, expected) in answers.into_iter().zip(expected) {
                prop_assert_eq!(answered.try_recv(), Ok(expected));
            }
        }
    }
}
