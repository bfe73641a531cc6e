//! Which node gets the next request. Pure: the clock is passed in.

use std::time::{Duration, Instant};

/// How long a node that failed is left alone: doubled for each further failure in a row.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Takes the nodes in turn and leaves out those that failed lately. One whose rest is over gets a single request, and no other until it
/// answers: a machine that is gone swallows requests without a word, and each of them waits for its whole time-out. With every node failed,
/// the one whose rest ends first is taken: a request is never refused here.
#[derive(Debug)]
pub(crate) struct Nodes {
    states: Vec<State>,
    next: usize,
    longest: Duration,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Where it failed last.
    rests_until: Option<Instant>,
}

impl Nodes {
    /// `count` is at least one; `longest` is how long a request may take.
    pub(crate) fn new(count: usize, longest: Duration) -> Nodes {
        Nodes {
            states: vec![State::default(); count],
            next: 0,
            longest,
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
        let state = &mut self.states[node];
        if state.failures > 0 {
            // By time, not by a count of requests under way: one that is dropped comes to no end.
            state.rests_until = Some(now + self.longest);
        }
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

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn nodes_take_turns_and_a_failed_one_rests() {
        let now = Instant::now();
        let mut nodes = Nodes::new(3, LONGEST);
        let picks: Vec<usize> = (0..6).map(|_| nodes.pick(now)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);

        nodes.failed(1, now);
        let picks: Vec<usize> = (0..4).map(|_| nodes.pick(now)).collect();
        assert_eq!(picks, [0, 2, 0, 2]);
        let later = now + FIRST_REST;
        let picks: Vec<usize> = (0..6).map(|_| nodes.pick(later)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 2, 0]);

        nodes.failed(1, later);
        let too_early = later + FIRST_REST;
        assert!((0..3).all(|_| nodes.pick(too_early) != 1));
        nodes.well(1);
        assert!((0..3).any(|_| nodes.pick(too_early) == 1));
    }

    #[test]
    fn a_dropped_request_does_not_keep_a_node_out() {
        let now = Instant::now();
        let mut nodes = Nodes::new(2, LONGEST);
        nodes.failed(0, now);
        let asked = now + FIRST_REST;
        assert_eq!([nodes.pick(asked), nodes.pick(asked)], [0, 1]);
        // Nothing was heard of it.
        let before = asked + LONGEST - Duration::from_millis(1);
        assert_eq!([nodes.pick(before), nodes.pick(before)], [1, 1]);
        let after = asked + LONGEST;
        assert_eq!([nodes.pick(after), nodes.pick(after)], [0, 1]);
    }

    #[test]
    fn requests_are_spread_where_every_node_failed() {
        let now = Instant::now();
        let mut nodes = Nodes::new(3, LONGEST);
        (0..3).for_each(|node| nodes.failed(node, now));
        let picks: Vec<usize> = (0..6).map(|_| nodes.pick(now)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_single_node_is_always_taken() {
        let now = Instant::now();
        let mut nodes = Nodes::new(1, LONGEST);
        for _ in 0..100 {
            nodes.failed(0, now);
            assert_eq!(nodes.pick(now), 0);
        }
    }

    /// What may happen between two moments.
    #[derive(Debug, Clone)]
    enum Step {
        Pick,
        Well(usize),
        Failed(usize),
        Wait(Duration),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Pick),
            1 => (0..9_usize).prop_map(Step::Well),
            2 => (0..9_usize).prop_map(Step::Failed),
            2 => (0..40_000_u64).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        ]
    }

    proptest! {
        /// While another node is well, a failed one gets nothing while it rests, then one request in the time that a request may take,
        /// whatever becomes of that. A node that is well gets its turn at once.
        #[test]
        fn a_failed_node_is_asked_once_at_a_time(
            count in 1..5_usize,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut now = Instant::now();
            let mut nodes = Nodes::new(count, LONGEST);
            // Until when each node that failed is to get nothing.
            let mut quiet: Vec<Option<Instant>> = vec![None; count];
            for step in steps {
                match step {
                    Step::Pick => {
                        let node = nodes.pick(now);
                        prop_assert!(node < count);
                        let other_is_well = (0..count).any(|other| other != node && quiet[other].is_none());
                        if let Some(until) = &mut quiet[node] {
                            prop_assert!(!other_is_well || *until <= now);
                            *until = now + LONGEST;
                        }
                    }
                    Step::Well(node) => {
                        let node = node % count;
                        nodes.well(node);
                        quiet[node] = None;
                        let mut rehearsal = Nodes { states: nodes.states.clone(), ..nodes };
                        prop_assert!((0..count).any(|_| rehearsal.pick(now) == node));
                    }
                    Step::Failed(node) => {
                        nodes.failed(node % count, now);
                        quiet[node % count] = Some(now + FIRST_REST);
                    }
                    Step::Wait(pause) => now += pause,
                }
            }
        }

        /// After a failure the next request goes elsewhere, as long as another node is well or failed before.
        #[test]
        fn the_attempt_after_a_failure_goes_to_another_node(
            count in 2..5_usize,
            steps in prop::collection::vec((any::<bool>(), 0..3_000_u64), 1..60),
        ) {
            let mut now = Instant::now();
            let mut nodes = Nodes::new(count, LONGEST);
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
