//! The coordinator: membership, generations, commits; and crashes.

use super::state::{Committed, Fault, Hold, PARTITIONS, Phase, Request, State, WORKERS, Worker};
use super::{Action, Publish, Rule};

impl Publish {
    pub(super) fn kafka_actions(&self, state: &State, actions: &mut Vec<(Action, Fault)>) {
        for w in 0..WORKERS {
            let worker = &state.workers[w];
            let member = state.members[w];
            let is_member = member.is_some() && member == Some(worker.member);
            if *worker != Worker::default() {
                actions.push((Action::Crash(w), Fault::Yes));
            }
            if member.is_some() {
                let fault = if is_member { Fault::Yes } else { Fault::No };
                actions.push((Action::Evict(w), fault));
            }
            if worker.generation == 0 && member.is_none() && worker.batch.is_none() {
                actions.push((Action::Join(w), Fault::No));
            }
            if is_member && worker.generation != state.generation {
                actions.push((Action::Learn(w), Fault::No));
            }
            if worker.generation != 0 && !is_member {
                actions.push((Action::Notice(w), Fault::No));
            }
        }
        for p in 0..PARTITIONS {
            if let Some(from) = state.owners[p].map(usize::from)
                && state.workers[from].generation == state.generation
                && state.members[1 - from].is_some()
            {
                actions.push((Action::Move(p), Fault::Yes));
            }
        }
        for (index, request) in state.requests.iter().enumerate() {
            let Some(request) = request else { continue };
            let waits = |earlier: &Request| earlier.from == request.from;
            if self.keeps(Rule::CommitsInOrder)
                && state.requests[..index].iter().flatten().any(waits)
            {
                continue;
            }
            if request.awaited {
                actions.push((
                    Action::Handle {
                        request: index,
                        heard: true,
                    },
                    Fault::No,
                ));
            }
            let unheard = if request.awaited {
                Fault::Yes
            } else {
                Fault::No
            };
            actions.push((
                Action::Handle {
                    request: index,
                    heard: false,
                },
                unheard,
            ));
            actions.push((Action::Lose(index), unheard));
        }
    }

    /// Answers whether the action was one of these.
    pub(super) fn kafka_step(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Join(w) => {
                state.generation += 1;
                state.members[w] = Some(state.generation);
                state.workers[w].member = state.generation;
                for owner in state.owners.iter_mut().filter(|owner| owner.is_none()) {
                    *owner = Some(w as u8);
                }
                self.learn(state, w);
            }
            Action::Learn(w) => self.learn(state, w),
            Action::Notice(w) => {
                for p in 0..PARTITIONS {
                    self.give_up(&mut state.workers[w], p);
                }
                state.workers[w].generation = 0;
                state.workers[w].member = 0;
                state.workers[w].sweep = None;
                drop_what_was_not_asked(&mut state.workers[w]);
            }
            Action::Evict(w) => {
                state.generation += 1;
                state.members[w] = None;
                let other = state.members[1 - w].map(|_| (1 - w) as u8);
                for owner in state.owners.iter_mut().filter(|o| **o == Some(w as u8)) {
                    *owner = other;
                }
            }
            Action::Crash(w) => {
                state.workers[w] = Worker::default();
                let its = state
                    .writers
                    .iter_mut()
                    .filter(|writer| usize::from(writer.worker) == w);
                its.for_each(|writer| writer.process_gone = true);
                for request in state.requests.iter_mut().flatten() {
                    request.awaited &= request.from != w as u8;
                }
            }
            Action::Move(p) => {
                let from = usize::from(state.owners[p].unwrap_or_default());
                state.generation += 1;
                state.owners[p] = Some((1 - from) as u8);
                self.give_up(&mut state.workers[from], p);
            }
            Action::Handle { request, heard } => handle(state, request, heard),
            Action::Lose(request) => state.requests[request] = None,
            _ => return false,
        }
        state.tidy();
        true
    }

    /// A worker hears of the group's generation and of its partitions.
    fn learn(&self, state: &mut State, w: usize) {
        let worker = &mut state.workers[w];
        worker.generation = state.generation;
        for p in 0..PARTITIONS {
            match (state.owners[p] == Some(w as u8), worker.holds[p]) {
                (true, Hold::No) => worker.holds[p] = Hold::Assigned,
                (false, hold) if hold != Hold::No => self.give_up(worker, p),
                _ => {}
            }
        }
    }

    /// A worker gives a partition up with whatever it is doing.
    fn give_up(&self, worker: &mut Worker, p: usize) {
        let held = std::mem::take(&mut worker.holds[p]);
        let concerns = |next: u8, base: u8| next > base;
        if let Hold::Held { base, next, .. } = held
            && concerns(next, base)
        {
            if let Some(batch) = &mut worker.batch {
                batch.given_up = true;
            }
            drop_what_was_not_asked(worker);
            let uncertain = worker.batch.is_some_and(|b| b.phase == Phase::Asked);
            if uncertain && !self.keeps(Rule::KeepWhatIsUncertain) {
                start_dropping(worker);
            }
        }
    }
}

fn drop_what_was_not_asked(worker: &mut Worker) {
    if worker
        .batch
        .is_some_and(|b| matches!(b.phase, Phase::Writing | Phase::Sealed))
    {
        start_dropping(worker);
    }
}

/// Events are read again from what this worker knows to be committed.
pub(super) fn start_dropping(worker: &mut Worker) {
    if let Some(batch) = &mut worker.batch {
        batch.phase = Phase::Dropping;
        if batch.manifest.is_none() {
            worker.batch = None;
        }
    }
    for hold in &mut worker.holds {
        if let Hold::Held { base, next, .. } = hold {
            *next = *base;
        }
    }
}

/// Kafka has it: to be published, and settled where the partition is still the worker's.
pub(super) fn committed(worker: &mut Worker) {
    let Some(batch) = &mut worker.batch else {
        return;
    };
    batch.phase = Phase::Publishing(batch.files);
    for p in 0..PARTITIONS {
        if let (Hold::Held { base, next, .. }, Some(offset)) =
            (&mut worker.holds[p], batch.offsets[p])
            && *next >= offset
        {
            *base = offset.max(*base);
        }
    }
    if batch.manifest.is_none() {
        worker.batch = None;
    }
}

fn handle(state: &mut State, request: usize, heard: bool) {
    let Some(request) = state.requests[request].take() else {
        return;
    };
    let w = usize::from(request.from);
    let accepted =
        state.members[w] == Some(request.member) && request.generation == state.generation;
    if accepted {
        for p in 0..PARTITIONS {
            if let Some(offset) = request.offsets[p] {
                let names = request.names;
                state.committed[p] = Committed { offset, names };
            }
        }
    }
    let worker = &mut state.workers[w];
    if heard && accepted && worker.batch.is_some_and(|b| b.phase == Phase::Asked) {
        committed(worker);
    }
}
