//! What was produced, what the sinks answered for, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use keystone::state::{Shared, lock};

/// Partition and offset.
pub(crate) type Place = (i32, i64);
/// An event's place, and the payload with which it was delivered.
pub(crate) type Delivery = (Place, Option<Vec<u8>>);

#[derive(Debug, Default)]
struct Known {
    /// What is to reach the sink, with the payload it is to have.
    expected: BTreeMap<Place, Option<Vec<u8>>>,
    delivered: BTreeMap<Place, Delivered>,
    rejected: BTreeSet<Place>,
    complaints: Vec<String>,
}

#[derive(Debug)]
struct Delivered {
    times: usize,
    payload: Option<Vec<u8>>,
}

/// Shared by all sinks of a scenario, one after the other or side by side.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Known>);

impl Record {
    pub(crate) fn expect(&self, place: Place, payload: Option<Vec<u8>>) {
        lock(&self.0).expected.insert(place, payload);
    }

    pub(crate) fn delivered(&self, events: Vec<Delivery>) {
        let mut known = lock(&self.0);
        for (place, payload) in events {
            let entry = known
                .delivered
                .entry(place)
                .or_insert(Delivered { times: 0, payload });
            entry.times += 1;
        }
    }

    pub(crate) fn rejected(&self, place: Place) {
        lock(&self.0).rejected.insert(place);
    }

    pub(crate) fn complain(&self, complaint: String) {
        let mut known = lock(&self.0);
        if known.complaints.len() < 20 {
            known.complaints.push(complaint);
        }
    }

    /// Distinct events that were delivered.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).delivered.len()
    }

    /// Whether each expected event was delivered or rejected.
    pub(crate) fn complete(&self) -> bool {
        let known = lock(&self.0);
        known.expected.keys().all(|place| known.answered(*place))
    }

    /// What is missing and what went wrong so far, for a person.
    pub(crate) fn describe(&self) -> String {
        let known = lock(&self.0);
        let open = known.expected.keys();
        let open: Vec<_> = open.filter(|place| !known.answered(**place)).collect();
        let shown = &open[..open.len().min(40)];
        format!(
            "{} not answered for, the first: {shown:?}; invariants broken: {:#?}",
            open.len(),
            known.complaints
        )
    }

    pub(crate) fn was_delivered(&self, place: Place) -> bool {
        lock(&self.0).delivered.contains_key(&place)
    }

    pub(crate) fn duplicates(&self) -> usize {
        let known = lock(&self.0);
        known.delivered.values().map(|each| each.times - 1).sum()
    }

    /// Every expected event was delivered or rejected, as it is to be, and nothing else; no invariant was broken on the way.
    pub(crate) fn assert_complete(&self) {
        self.assert_sound();
        let known = lock(&self.0);
        let missing: Vec<_> = known
            .expected
            .keys()
            .filter(|place| !known.answered(**place))
            .collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        for (place, delivered) in &known.delivered {
            let expected = known.expected.get(place);
            let expected = expected.unwrap_or_else(|| panic!("{place:?} was not to be delivered"));
            assert_eq!(delivered.payload, *expected, "payload of {place:?}");
        }
    }

    pub(crate) fn assert_once(&self) {
        let known = lock(&self.0);
        let twice: Vec<_> = known
            .delivered
            .iter()
            .filter(|(_, delivered)| delivered.times > 1)
            .map(|(place, delivered)| (place, delivered.times))
            .collect();
        assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    }

    pub(crate) fn assert_sound(&self) {
        let known = lock(&self.0);
        assert!(
            known.complaints.is_empty(),
            "invariants broken: {:#?}",
            known.complaints
        );
    }

    /// No offset below `upto` that the sink has not answered for.
    pub(crate) fn assert_answered(&self, partition: i32, upto: i64) {
        let known = lock(&self.0);
        let open: Vec<_> = known
            .expected
            .range((partition, 0)..(partition, upto))
            .map(|(place, _)| *place)
            .filter(|place| !known.answered(*place))
            .collect();
        assert!(
            open.is_empty(),
            "committed up to {upto}, and the sink never answered for {open:?}"
        );
    }

    /// The watcher's look at a running worker; `verified` is how far each partition was checked before.
    pub(crate) fn check_windows(&self, shared: &Shared, verified: &mut BTreeMap<i32, i64>) {
        // The windows first: what they have settled was recorded before.
        let views = shared.offsets().views();
        let known = lock(&self.0);
        let mut complaints = Vec::new();
        for view in views {
            let Some(settled) = view.settled else {
                continue;
            };
            let partition = view.key.partition;
            if view.committed.is_some_and(|committed| committed > settled) {
                complaints.push(format!("commit beyond what is settled: {view:?}"));
            }
            let from = verified.entry(partition).or_default();
            if settled <= *from {
                continue;
            }
            let range = known
                .expected
                .range((partition, *from)..(partition, settled));
            for (place, _) in range {
                if !known.answered(*place) {
                    complaints.push(format!(
                        "settled up to {settled}, but the sink never answered for {place:?}"
                    ));
                }
            }
            *from = settled;
        }
        drop(known);
        for complaint in complaints {
            self.complain(complaint);
        }
    }
}

impl Known {
    fn answered(&self, place: Place) -> bool {
        self.delivered.contains_key(&place) || self.rejected.contains(&place)
    }
}
