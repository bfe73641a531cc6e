//! Transactions of the Kafka sink that carry the offsets, explored exhaustively.
//!
//! Two workers of one group, each with a transactional id of its own process, the group's coordinator, and the transactions. A worker reads
//! events and produces each within its transaction; sends the offsets with its place in the group, which the coordinator checks then and
//! not when the transaction ends; commits. A `read_committed` reader sees the events of committed transactions.
//!
//! These cost one of a few *faults*: a process dies, a partition moves, an answer to a commit is lost, Kafka ends a transaction by its
//! timeout. Free are: restarts, workers learning of a generation late, the end of what dead processes left open.
//!
//! Invariants, in every state: a reader sees no event twice, and sees an event if and only if its offset is committed. And where nothing is
//! left to do without another fault, all events are seen. Each [`Rule`] can be left out; the checker then finds the harm.
//!
//! Left out: static membership (an id that survives a restart ends its open transaction at once), refused events, the dead-letter topic.

use stateright::{Model, Property};

const WORKERS: usize = 2;
const PARTITIONS: usize = 2;
/// Transactions open at the same time.
const OPEN: usize = 5;

/// What the protocol rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Offsets are sent with the generation in which they were read, and refused under another one.
    GenerationChecked,
    /// A transaction with events of a partition that was given up is aborted.
    AbortWhatIsGivenUp,
    /// What is committed is read only when no open transaction may change it.
    ReadStable,
    /// Where nobody can say any more whether a commit was carried out, the process ends.
    DieWhenUnknown,
}

impl Rule {
    #[cfg(test)]
    const ALL: &[Rule] = &[
        Rule::GenerationChecked,
        Rule::AbortWhatIsGivenUp,
        Rule::ReadStable,
        Rule::DieWhenUnknown,
    ];
}

/// The bounds of one exploration.
#[derive(Debug, Clone)]
pub(crate) struct Transactions {
    /// Events in each partition.
    pub(crate) ends: [u8; PARTITIONS],
    pub(crate) faults: u8,
    /// The rule that is left out.
    pub(crate) without: Option<Rule>,
}

/// An open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Open {
    /// `None`: its process is gone.
    owner: Option<u8>,
    events: u8,
    /// The offsets that were sent.
    offsets: [Option<u8>; PARTITIONS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Hold {
    #[default]
    No,
    /// Assigned; what is committed has not been read yet.
    Assigned,
    Held {
        base: u8,
        next: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Phase {
    #[default]
    Writing,
    Sent,
    /// The commit was asked for, and its answer has not come.
    Asked {
        carried_out: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Worker {
    generation: u8,
    holds: [Hold; PARTITIONS],
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    generation: u8,
    owners: [u8; PARTITIONS],
    committed: [u8; PARTITIONS],
    open: [Option<Open>; OPEN],
    visible: u8,
    doubled: u8,
    workers: [Worker; WORKERS],
    faults: u8,
}

/// What may happen next, by worker (and partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Learn(usize),
    Fetch(usize, usize),
    Produce(usize, usize),
    SendOffsets(usize),
    Commit {
        worker: usize,
        carried_out: bool,
        heard: bool,
    },
    /// Kafka no longer knows how the worker's last transaction ended.
    Forget(usize),
    /// The same commit is asked for again.
    CommitAgain(usize),
    Abort(usize),
    Die(usize),
    /// Kafka ends this transaction by its timeout.
    Expire(usize),
    Move(usize),
}

/// The bit of an event.
fn event(partition: usize, offset: u8) -> u8 {
    1 << (partition as u8 * 4 + offset)
}

impl State {
    fn new(faults: u8) -> State {
        let held = Hold::Held { base: 0, next: 0 };
        let worker = |w: usize| Worker {
            generation: 1,
            holds: std::array::from_fn(|p| if p == w { held } else { Hold::No }),
            phase: Phase::Writing,
        };
        State {
            generation: 1,
            owners: std::array::from_fn(|p| p as u8),
            committed: [0; PARTITIONS],
            open: [None; OPEN],
            visible: 0,
            doubled: 0,
            workers: std::array::from_fn(worker),
            faults,
        }
    }

    /// The transaction of a worker's process: its place.
    fn of(&self, w: usize) -> Option<usize> {
        let owned = |open: &Option<Open>| open.is_some_and(|open| open.owner == Some(w as u8));
        self.open.iter().position(owned)
    }

    fn carry_out(&mut self, place: usize) {
        let Some(open) = self.open[place].take() else {
            return;
        };
        self.doubled |= self.visible & open.events;
        self.visible |= open.events;
        for p in 0..PARTITIONS {
            if let Some(offset) = open.offsets[p] {
                self.committed[p] = offset;
            }
        }
    }

    /// A new process in its place; it has yet to learn what it holds.
    fn die(&mut self, w: usize) {
        if let Some(open) = self.of(w).and_then(|place| self.open[place].as_mut()) {
            open.owner = None;
        }
        self.workers[w] = Worker::default();
    }

    /// Events are read again from what this worker knows to be committed.
    fn abort(&mut self, w: usize) {
        if let Some(place) = self.of(w) {
            self.open[place] = None;
        }
        let worker = &mut self.workers[w];
        worker.phase = Phase::Writing;
        for hold in &mut worker.holds {
            if let Hold::Held { base, next } = hold {
                *next = *base;
            }
        }
    }

    fn settle(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.phase = Phase::Writing;
        for hold in &mut worker.holds {
            if let Hold::Held { base, next } = hold {
                *base = *next;
            }
        }
    }
}

impl Transactions {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// With whether it costs a fault.
    fn possible(&self, state: &State) -> Vec<(Action, bool)> {
        let mut actions = Vec::new();
        for w in 0..WORKERS {
            self.actions_of(state, w, &mut actions);
        }
        for (place, open) in state.open.iter().enumerate() {
            if let Some(open) = open {
                actions.push((Action::Expire(place), open.owner.is_some()));
            }
        }
        for p in 0..PARTITIONS {
            actions.push((Action::Move(p), true));
        }
        actions.retain(|(_, fault)| !fault || state.faults > 0);
        actions
    }

    fn actions_of(&self, state: &State, w: usize, actions: &mut Vec<(Action, bool)>) {
        let worker = &state.workers[w];
        actions.push((Action::Die(w), true));
        if worker.generation != state.generation {
            actions.push((Action::Learn(w), false));
        }
        for p in 0..PARTITIONS {
            let pending = |open: &Open| open.offsets[p].is_some();
            let stable = !state.open.iter().flatten().any(pending);
            match worker.holds[p] {
                Hold::Assigned if stable || !self.keeps(Rule::ReadStable) => {
                    actions.push((Action::Fetch(w, p), false));
                }
                Hold::Held { next, .. }
                    if next < self.ends[p] && worker.phase == Phase::Writing =>
                {
                    actions.push((Action::Produce(w, p), false));
                }
                _ => {}
            }
        }
        match (worker.phase, state.of(w)) {
            (Phase::Writing, Some(_)) => actions.push((Action::SendOffsets(w), false)),
            (Phase::Writing, None) => {
                let read = |hold: &Hold| matches!(hold, Hold::Held { base, next } if next > base);
                if worker.holds.iter().any(read) {
                    actions.push((Action::Abort(w), false)); // Expired: the producer is fenced.
                }
            }
            (Phase::Sent, Some(_)) => {
                for (carried_out, heard) in [(true, true), (true, false), (false, false)] {
                    let worker = w;
                    let commit = Action::Commit {
                        worker,
                        carried_out,
                        heard,
                    };
                    actions.push((commit, !heard));
                }
            }
            (Phase::Sent, None) => actions.push((Action::Abort(w), false)),
            (Phase::Asked { carried_out }, _) => {
                actions.push((Action::CommitAgain(w), false));
                if carried_out {
                    actions.push((Action::Forget(w), true));
                }
            }
        }
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Learn(w) => self.learn(state, w),
            Action::Fetch(w, p) => {
                let base = state.committed[p];
                state.workers[w].holds[p] = Hold::Held { base, next: base };
            }
            Action::Produce(w, p) => produce(state, w, p),
            Action::SendOffsets(w) => self.send_offsets(state, w),
            Action::Commit {
                worker,
                carried_out,
                heard,
            } => {
                if let Some(place) = state.of(worker).filter(|_| carried_out) {
                    state.carry_out(place);
                }
                match heard {
                    true => state.settle(worker),
                    false => state.workers[worker].phase = Phase::Asked { carried_out },
                }
            }
            Action::Forget(w) => state.workers[w].phase = Phase::Asked { carried_out: false },
            Action::CommitAgain(w) => self.commit_again(state, w),
            Action::Abort(w) => state.abort(w),
            Action::Die(w) => state.die(w),
            Action::Expire(place) => state.open[place] = None,
            Action::Move(p) => {
                state.generation += 1;
                state.owners[p] = 1 - state.owners[p];
            }
        }
        state.open.sort();
    }

    fn learn(&self, state: &mut State, w: usize) {
        // The group goes on without a member that misses a generation: it has lost all partitions, and joins anew.
        let lost = state.workers[w].generation + 1 < state.generation;
        state.workers[w].generation = state.generation;
        let mut given_up = false;
        for p in 0..PARTITIONS {
            let hold = &mut state.workers[w].holds[p];
            if let Hold::Held { base, next } = *hold
                && lost
            {
                given_up |= next > base;
                *hold = Hold::No;
            }
            match (state.owners[p] == w as u8, *hold) {
                (true, Hold::No) => *hold = Hold::Assigned,
                (false, Hold::Held { base, next }) => {
                    given_up |= next > base;
                    *hold = Hold::No;
                }
                (false, _) => *hold = Hold::No,
                (true, _) => {}
            }
        }
        let writing = state.workers[w].phase == Phase::Writing;
        if given_up && writing && self.keeps(Rule::AbortWhatIsGivenUp) {
            state.abort(w);
        }
    }

    fn send_offsets(&self, state: &mut State, w: usize) {
        let worker = state.workers[w];
        if worker.generation != state.generation && self.keeps(Rule::GenerationChecked) {
            return state.abort(w);
        }
        if let Some(open) = state.of(w).and_then(|place| state.open[place].as_mut()) {
            open.offsets = worker.holds.map(|hold| match hold {
                Hold::Held { base, next } if next > base => Some(next),
                _ => None,
            });
            state.workers[w].phase = Phase::Sent;
        }
    }

    /// The answer was lost; the request may have been carried out before that, or be carried out now, or have come too late.
    fn commit_again(&self, state: &mut State, w: usize) {
        let Phase::Asked { carried_out } = state.workers[w].phase else {
            return;
        };
        match state.of(w) {
            Some(place) => {
                state.carry_out(place);
                state.settle(w);
            }
            None if carried_out => state.settle(w),
            None if self.keeps(Rule::DieWhenUnknown) => state.die(w),
            None => state.abort(w),
        }
    }
}

fn produce(state: &mut State, w: usize, p: usize) {
    let Hold::Held { base, next } = state.workers[w].holds[p] else {
        return;
    };
    let began = state.workers[w]
        .holds
        .iter()
        .any(|hold| matches!(hold, Hold::Held { base, next } if next > base));
    let place = match state.of(w) {
        Some(place) => place,
        // It was ended by its timeout: the producer is fenced, and finds out.
        None if began => return state.abort(w),
        None => {
            let free = state.open.iter().position(Option::is_none);
            free.expect("the bounds leave room for a transaction")
        }
    };
    let open = state.open[place].get_or_insert(Open {
        owner: Some(w as u8),
        events: 0,
        offsets: [None; PARTITIONS],
    });
    open.events |= event(p, next);
    state.workers[w].holds[p] = Hold::Held {
        base,
        next: next + 1,
    };
}

impl Model for Transactions {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.possible(state).into_iter().map(|(action, _)| action));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let possible = self.possible(state);
        let (_, fault) = possible.iter().find(|(known, _)| *known == action)?;
        next.faults -= u8::from(*fault);
        self.step(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Transactions>> {
        vec![
            Property::always("no event is seen twice", |_, state: &State| {
                state.doubled == 0
            }),
            Property::always(
                "no event is lost or seen early",
                |model: &Transactions, state: &State| {
                    (0..PARTITIONS).all(|p| {
                        (0..model.ends[p]).all(|offset| {
                            let seen = state.visible & event(p, offset) != 0;
                            seen == (offset < state.committed[p])
                        })
                    })
                },
            ),
            Property::always(
                "nothing is left undone",
                |model: &Transactions, state: &State| {
                    let free = |(_, fault): &(Action, bool)| !*fault;
                    model.possible(state).iter().any(free) || state.committed == model.ends
                },
            ),
            Property::sometimes(
                "everything is seen",
                |model: &Transactions, state: &State| state.committed == model.ends,
            ),
        ]
    }
}

#[cfg(test)]
mod tests;
