use super::{Rule, Transactions};
use crate::{finds, holds};

#[test]
fn nothing_is_lost_or_doubled() {
    holds(Transactions {
        ends: [2, 1],
        faults: 3,
        without: None,
    });
}

/// The model can tell: without any one of its rules, the checker finds events that are lost or doubled.
#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let model = Transactions {
            ends: [2, 1],
            faults: 3,
            without: Some(*rule),
        };
        assert!(finds(model), "nothing goes wrong without {rule:?}");
    }
}
