use super::state::event;
use super::{Publish, Rule};
use crate::{finds, holds};

#[test]
fn nothing_is_lost_or_doubled() {
    holds(Publish {
        ends: [1, 1],
        filtered: 0,
        faults: 2,
        without: None,
    });
}

#[test]
fn nothing_is_lost_or_doubled_among_filtered_events() {
    holds(Publish {
        ends: [2, 1],
        filtered: event(0, 0),
        faults: 1,
        without: None,
    });
}

/// The model can tell: without any one of its rules, the checker finds events that are lost or doubled.
#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let model = Publish {
            ends: [2, 1],
            filtered: 0,
            faults: 2,
            without: Some(*rule),
        };
        assert!(finds(model), "nothing goes wrong without {rule:?}");
    }
}
