//! Groups of records on their way through librdkafka, each answered for as a whole.
//!
//! With each record travels a [`Ticket`] of one word, so that a delivery costs neither memory nor counters that two threads pull at.

use std::sync::{Arc, Mutex, MutexGuard};

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
            // librdkafka answers for each record once, and a group stays until then.
            debug_assert!(false, "a record was answered for twice");
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
        crate::lock(&self.0)
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
    fn a_caller_that_is_cut_off_leaves_nothing_behind() {
        let groups = Arc::new(Groups::default());
        let (mut entry, answered) = groups.open();
        drop(answered);
        let ticket = entry.ticket();
        entry.taken();
        // The next record waits for room in the queue, and never enters.
        let _waits = entry.ticket();
        drop(entry);
        assert_eq!(groups.lock().len(), 1);
        groups.settle(ticket, None);
        assert!(groups.lock().is_empty());
    }

    /// What a caller or librdkafka does next.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A record enters one of the open groups, at once refused or not.
        Enter { group: usize, refused: bool },
        /// One of the records that are under way is settled.
        Settle { record: usize, failed: bool },
        /// One of the open groups is closed, and another one opened.
        Close { group: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = || 0..usize::MAX;
        prop_oneof![
            4 => (which(), prop::bool::weighted(0.2)).prop_map(|(group, refused)| Step::Enter { group, refused }),
            3 => (which(), any::<bool>()).prop_map(|(record, failed)| Step::Settle { record, failed }),
            1 => which().prop_map(|group| Step::Close { group }),
        ]
    }

    /// A group as the test knows it.
    struct Known {
        entry: Option<Entry>,
        answered: oneshot::Receiver<Vec<Failure>>,
        unsettled: usize,
        failures: Vec<Failure>,
    }

    impl Known {
        fn open(groups: &Arc<Groups>) -> Known {
            let (entry, answered) = groups.open();
            Known {
                entry: Some(entry),
                answered,
                unsettled: 0,
                failures: Vec::new(),
            }
        }

        /// Answers exactly when it is closed and all are settled.
        fn check(&mut self) {
            let is_done = self.entry.is_none() && self.unsettled == 0;
            let answer = self.answered.try_recv();
            self.failures.sort_by_key(|failure| failure.index);
            match is_done {
                true => assert_eq!(answer.as_ref(), Ok(&self.failures)),
                false => assert_eq!(answer, Err(oneshot::error::TryRecvError::Empty)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Places are taken again while other groups are under way.
        #[test]
        fn each_group_answers_for_its_own_records_once_all_are_settled(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let groups = Arc::new(Groups::default());
            let mut known: Vec<Known> = (0..3).map(|_| Known::open(&groups)).collect();
            let mut open = [0, 1, 2];
            let mut under_way: Vec<(usize, Ticket)> = Vec::new();
            let close_all = (0..3).map(|_| Step::Close { group: 0 });
            let settle_all = (0..200).map(|_| Step::Settle { record: 0, failed: false });
            for step in steps.into_iter().chain(close_all).chain(settle_all) {
                let changed = match step {
                    Step::Enter { group, refused } => {
                        let id = open[group % open.len()];
                        let group = &mut known[id];
                        let entry = group.entry.as_mut().expect("it is open");
                        let ticket = entry.ticket();
                        prop_assert_eq!(Ticket::of(ticket.number()), ticket);
                        if refused {
                            entry.refused(CODE);
                            group.failures.push(failure(ticket.index as usize, false));
                        } else {
                            entry.taken();
                            group.unsettled += 1;
                            under_way.push((id, ticket));
                        }
                        id
                    }
                    Step::Settle { .. } if under_way.is_empty() => continue,
                    Step::Settle { record, failed } => {
                        let (id, ticket) = under_way.swap_remove(record % under_way.len());
                        groups.settle(ticket, failed.then_some(CODE));
                        known[id].unsettled -= 1;
                        if failed {
                            known[id].failures.push(failure(ticket.index as usize, true));
                        }
                        id
                    }
                    Step::Close { group } => {
                        let place = group % open.len();
                        let id = open[place];
                        known[id].entry = None;
                        open[place] = known.len();
                        known.push(Known::open(&groups));
                        id
                    }
                };
                known[changed].check();
            }
            prop_assert!(under_way.is_empty());
            prop_assert_eq!(groups.lock().len(), open.len());
        }
    }
}
