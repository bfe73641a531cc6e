//! The two-phase publish of files, explored exhaustively.
//!
//! Actors: two workers of one group, Kafka's coordinator, the file store. A worker reads events, each into a hidden file of its own; closes
//! the files and writes a manifest that names them; commits the offsets with the manifest's name as metadata of each partition; renames
//! every file (an event is *visible* from then on) and deletes the manifest. A manifest that is absent is done. Whoever is assigned a
//! partition reads its committed metadata and finishes the manifest named there, whole, before committing anything for the partition.
//!
//! Everything may be interleaved, and these cost one of a few *faults*: a worker crashes, is thrown out of the group while it
//! lives, has to hand over a partition at any moment; a request or its answer is lost; an answer is given up while the request is on its
//! way. Free are: restarts, the coordinator noticing a crash, workers learning of a generation late.
//!
//! Invariants, in every state: no event is visible twice; none is visible before its offset is committed; each committed one is visible or
//! hidden in a whole manifest that its own partition's commit names. And where nothing is left to do without another fault, everything is
//! visible and nothing is hidden. Since nothing but a fault goes back, that is: everything becomes visible in the end.
//!
//! Each [`Rule`] can be left out; the checker then finds the events that are lost or doubled.
//!
//! Left out: taking a name out of the commits once it is published (the next commit does it, too), the inside of files, failures of the store (each call is repeated until it succeeds), the metastore, commits by others
//! (a reset of offsets), Kafka forgetting a group, and what clients do below one commit (librdkafka may repeat it, which is `Resend`).

mod kafka;
mod state;
mod worker;

use stateright::{Model, Property};

use state::{Fault, State};

/// What the protocol rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The manifest is durable before the commit that names it is asked for.
    ManifestBeforeCommit,
    /// The manifest is deleted after the last of its files has its name.
    FilesBeforeManifest,
    /// The manifest named by a partition's commit is finished before the partition is committed again.
    RecoverBeforeCommit,
    /// A manifest is finished whole, with the files of partitions that the worker was not assigned.
    FinishWhole,
    /// A commit is asked for again only while all its partitions have stayed with the worker.
    AskWhileOurs,
    /// What was committed is read back only when a partition was given up: before that, an answer that did not come may still be right.
    ReadBackWhenGivenUp,
    /// A worker that has to give up a partition while a commit is uncertain leaves its files and its manifest where they are.
    KeepWhatIsUncertain,
    /// The name of a manifest never comes again, also not after a restart.
    NamesAreNew,
    /// The coordinator handles the commits of one member in the order in which they were sent.
    CommitsInOrder,
    /// The sweep leaves what a living process wrote.
    SweepSparesTheLiving,
    /// The sweep leaves what is so young that a commit that names it may be on its way.
    SweepWaits,
    /// The sweep reads what is committed after it has found the writer dead.
    SweepReadsLast,
    /// The sweep reads the commits of all partitions of the group.
    SweepReadsAll,
}

impl Rule {
    #[cfg(test)]
    const ALL: &[Rule] = &[
        Rule::ManifestBeforeCommit,
        Rule::FilesBeforeManifest,
        Rule::RecoverBeforeCommit,
        Rule::FinishWhole,
        Rule::AskWhileOurs,
        Rule::ReadBackWhenGivenUp,
        Rule::KeepWhatIsUncertain,
        Rule::NamesAreNew,
        Rule::CommitsInOrder,
        Rule::SweepSparesTheLiving,
        Rule::SweepWaits,
        Rule::SweepReadsLast,
        Rule::SweepReadsAll,
    ];
}

/// The bounds of one exploration.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    /// Events in each partition.
    pub(crate) ends: [u8; state::PARTITIONS],
    /// Events (by bit, see `state::event`) that the filter rejects: committed, never written.
    pub(crate) filtered: u8,
    pub(crate) faults: u8,
    /// The rule that is left out.
    pub(crate) without: Option<Rule>,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Join(usize),
    Learn(usize),
    Notice(usize),
    Evict(usize),
    /// The process ends, and another begins.
    Crash(usize),
    /// The group gives this partition to the other worker; its holder has no time to finish anything.
    Move(usize),
    /// The coordinator handles the request of this place; the answer arrives or not.
    Handle {
        request: usize,
        heard: bool,
    },
    /// The request never arrives.
    Lose(usize),
    Fetch(usize, usize),
    Read(usize, usize),
    Seal(usize),
    Ask(usize),
    /// The answer is given up or was lost: the same commit is asked for again.
    Resend(usize),
    ReadBack(usize),
    Rename(usize),
    Finish(usize),
    DropManifest(usize),
    DropFiles(usize),
    RecoverRename(usize),
    RecoverFinish(usize),
    SweepLook(usize),
    SweepRead(usize),
    SweepDelete(usize),
}

impl Publish {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Every event of the topic, by bit.
    fn all(&self) -> u8 {
        let events = (0..state::PARTITIONS).flat_map(|p| (0..self.ends[p]).map(move |o| (p, o)));
        events.fold(0, |all, (p, o)| all | state::event(p, o))
    }

    fn possible(&self, state: &State) -> Vec<(Action, Fault)> {
        let mut actions = Vec::new();
        self.kafka_actions(state, &mut actions);
        for worker in 0..state::WORKERS {
            self.worker_actions(state, worker, &mut actions);
        }
        actions.retain(|(_, fault)| *fault == Fault::No || state.faults > 0);
        actions
    }

    /// Events whose offset is committed.
    fn is_committed(state: &State, partition: usize, offset: u8) -> bool {
        offset < state.committed[partition].offset
    }

    fn nothing_lost(&self, state: &State) -> bool {
        let safe = |partition: usize, offset: u8| {
            let event = state::event(partition, offset);
            let named = state.committed[partition].names;
            let waits = named.is_some_and(|m| {
                let files = state.manifests[usize::from(m)];
                files.is_some_and(|f| f & state.hidden[usize::from(m)] & event != 0)
            });
            self.filtered & event != 0 || state.visible & event != 0 || waits
        };
        (0..state::PARTITIONS).all(|p| (0..state.committed[p].offset).all(|offset| safe(p, offset)))
    }

    fn none_too_early(&self, state: &State) -> bool {
        (0..state::PARTITIONS).all(|p| {
            (0..self.ends[p]).all(|offset| {
                state.visible & state::event(p, offset) == 0 || Self::is_committed(state, p, offset)
            })
        })
    }

    /// Everything is visible, and nothing is left over.
    fn all_done(&self, state: &State) -> bool {
        state.visible == self.all() & !self.filtered
            && (0..state::PARTITIONS).all(|p| state.committed[p].offset == self.ends[p])
            && state.hidden.iter().all(|hidden| *hidden == 0)
            && state.manifests.iter().all(Option::is_none)
    }

    fn is_stuck(&self, state: &State) -> bool {
        let free = |(_, fault): &(Action, Fault)| *fault == Fault::No;
        !self.possible(state).iter().any(free)
    }
}

impl Model for Publish {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let apart = State::new(self.faults);
        let together = apart.clone().together();
        vec![apart, together]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.possible(state).into_iter().map(|(action, _)| action));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let possible = self.possible(state);
        let (_, fault) = possible.iter().find(|(known, _)| *known == action)?;
        if *fault == Fault::Yes {
            next.faults -= 1;
        }
        if !self.kafka_step(&mut next, action) {
            self.worker_step(&mut next, action);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Publish>> {
        vec![
            Property::always("no event is visible twice", |_, state: &State| {
                state.doubled == 0
            }),
            Property::always(
                "no event is visible before its commit",
                Publish::none_too_early,
            ),
            Property::always("no event is lost", Publish::nothing_lost),
            Property::always(
                "nothing is left undone",
                |model: &Publish, state: &State| !model.is_stuck(state) || model.all_done(state),
            ),
            Property::sometimes("everything becomes visible", Publish::all_done),
            Property::sometimes("another worker finishes a manifest", |_, state: &State| {
                (0..state::WORKERS).any(|w| {
                    let recovering = state.workers[w].recovering;
                    recovering.is_some_and(|r| {
                        let writer = state.writers[usize::from(r.manifest)];
                        writer.process_gone || usize::from(writer.worker) != w
                    })
                })
            }),
        ]
    }
}

#[cfg(test)]
mod tests;
