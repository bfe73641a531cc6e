//! Which node gets the next request. Pure: the clock is passed in.

use std::time::{Duration, Instant};

/// How long a node that failed is left alone: doubled for each further failure in a row.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Takes the nodes in turn and leaves out those that failed lately. With every node failed, the one whose rest ends first is taken:
/// a request is never refused here.
#[derive(Debug)]
pub(crate) struct Nodes {
    states: Vec<State>,
    next: usize,
}

#[derive(Debug, Clone, Default)]
struct State {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Nodes {
    /// `count` is at least one.
    pub(crate) fn new(count: usize) -> Nodes {
        Nodes {
            states: vec![State::default(); count],
            next: 0,
        }
    }

    /// The node for a request.
    pub(crate) fn pick(&mut self, now: Instant) -> usize {
        let count = self.states.len();
        let turn = (0..count).map(|step| (self.next + step) % count);
        let rests = |node: &usize| {
            let until = self.states[*node].rests_until;
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
        };
        // The first of equal ones, so the turn holds among those that are well.
        let node = turn.min_by_key(rests).unwrap_or_default();
        self.next = (node + 1) % count;
        node
    }

    /// The node answered.
    pub(crate) fn well(&mut self, node: usize) {
        self.states[node] = State::default();
    }

    /// The node could not be reached or is of no use at present.
    pub(crate) fn failed(&mut self, node: usize, now: Instant) {
        let state = &mut self.states[node];
        let rest = FIRST_REST * 2_u32.saturating_pow(state.failures.min(16));
        state.failures = state.failures.saturating_add(1);
        state.rests_until = Some(now + rest.min(LONGEST_REST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_take_turns_and_a_failed_one_rests() {
        let now = Instant::now();
        let mut nodes = Nodes::new(3);
        let picks: Vec<usize> = (0..6).map(|_| nodes.pick(now)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);

        nodes.failed(1, now);
        let picks: Vec<usize> = (0..4).map(|_| nodes.pick(now)).collect();
        assert_eq!(picks, [0, 2, 0, 2]);
        let later = now + FIRST_REST;
        let picks: Vec<usize> = (0..3).map(|_| nodes.pick(later)).collect();
        assert_eq!(picks, [0, 1, 2]);

        nodes.failed(1, later);
        let too_early = later + FIRST_REST;
        assert!((0..3).all(|_| nodes.pick(too_early) != 1));
        nodes.well(1);
        assert!((0..3).any(|_| nodes.pick(too_early) == 1));
    }

    #[test]
    fn a_single_node_is_always_taken() {
        let now = Instant::now();
        let mut nodes = Nodes::new(1);
        for _ in 0..100 {
            nodes.failed(0, now);
            assert_eq!(nodes.pick(now), 0);
        }
    }

    proptest! {
        /// After a failure the next request goes elsewhere, as long as another node is well or failed before.
        #[test]
        fn the_attempt_after_a_failure_goes_to_another_node(
            count in 2..5_usize,
            steps in prop::collection::vec((any::<bool>(), 0..3_000_u64), 1..60),
        ) {
            let mut now = Instant::now();
            let mut nodes = Nodes::new(count);
            for (fails, millis) in steps {
                let node = nodes.pick(now);
                if fails {
                    nodes.failed(node, now);
                    let others_rest = (0..count).filter(|other| *other != node).all(|other| {
                        nodes.states[other].rests_until > nodes.states[node].rests_until
                    });
                    prop_assert!(others_rest || nodes.pick(now) != node);
                } else {
                    nodes.well(node);
                }
                now += Duration::from_millis(millis);
            }
        }
    }
}
