//! One worker: reading, sealing, committing, publishing, recovering, sweeping.

use super::kafka::{committed, start_dropping};
use super::state::{
    Batch, Fault, Hold, MANIFESTS, PARTITIONS, Phase, Recovery, Request, State, Sweep, Worker,
    Writer, event,
};
use super::{Action, Publish, Rule};

impl Publish {
    pub(super) fn worker_actions(
        &self,
        state: &State,
        w: usize,
        actions: &mut Vec<(Action, Fault)>,
    ) {
        let worker = &state.workers[w];
        let mut free = |action| actions.push((action, Fault::No));
        for p in 0..PARTITIONS {
            match worker.holds[p] {
                Hold::Assigned if worker.recovering.is_none() => free(Action::Fetch(w, p)),
                Hold::Held { next, .. }
                    if next < self.ends[p]
                        && worker.batch.is_none_or(|b| b.phase == Phase::Writing) =>
                {
                    free(Action::Read(w, p));
                }
                _ => {}
            }
        }
        if let Some(recovery) = worker.recovering {
            free(match recovery.left {
                0 => Action::RecoverFinish(w),
                _ => Action::RecoverRename(w),
            });
        }
        self.sweep_actions(state, w, &mut free);
        if let Some(batch) = worker.batch {
            self.batch_actions(state, w, &batch, actions);
        }
    }

    fn batch_actions(
        &self,
        state: &State,
        w: usize,
        batch: &Batch,
        actions: &mut Vec<(Action, Fault)>,
    ) {
        let worker = &state.workers[w];
        let in_group = worker.generation != 0;
        match batch.phase {
            Phase::Writing => {
                let ready = |p: usize| !matches!(worker.holds[p], Hold::Held { base, next, recovered: false } if next > base);
                if in_group && (0..PARTITIONS).all(ready) {
                    actions.push((Action::Seal(w), Fault::No));
                }
            }
            Phase::Sealed => actions.push((Action::Ask(w), Fault::No)),
            Phase::Asked => {
                let awaited = |r: &Request| usize::from(r.from) == w && r.awaited;
                let waits = state.requests.iter().flatten().any(awaited);
                if in_group && (!batch.given_up || !self.keeps(Rule::AskWhileOurs)) {
                    let fault = if waits { Fault::Yes } else { Fault::No };
                    actions.push((Action::Resend(w), fault));
                }
                if batch.given_up {
                    actions.push((Action::ReadBack(w), Fault::No));
                } else if !self.keeps(Rule::ReadBackWhenGivenUp) {
                    actions.push((Action::ReadBack(w), Fault::Yes));
                }
            }
            Phase::Publishing(0) => actions.push((Action::Finish(w), Fault::No)),
            Phase::Publishing(_) => {
                actions.push((Action::Rename(w), Fault::No));
                if !self.keeps(Rule::FilesBeforeManifest) {
                    actions.push((Action::Finish(w), Fault::No));
                }
            }
            Phase::Dropping => {
                let there = batch
                    .manifest
                    .is_some_and(|m| state.manifests[usize::from(m)].is_some());
                actions.push((
                    if there {
                        Action::DropManifest(w)
                    } else {
                        Action::DropFiles(w)
                    },
                    Fault::No,
                ));
            }
        }
    }

    /// The sweep looks for dead writers, then reads what is committed, then deletes.
    fn sweep_actions(&self, state: &State, w: usize, free: &mut impl FnMut(Action)) {
        let worker = &state.workers[w];
        let other = state.workers[1 - w].sweep;
        if worker.generation == 0 || other.is_some() {
            return;
        }
        match worker.sweep {
            // Two at a time do no more than one; one that would find nothing is left out.
            None if self.orphans(state) & !self.named(state, w) != 0 => {
                free(if self.keeps(Rule::SweepReadsLast) {
                    Action::SweepLook(w)
                } else {
                    Action::SweepRead(w)
                });
            }
            Some(Sweep {
                dead: Some(_),
                named: Some(_),
            }) => free(Action::SweepDelete(w)),
            Some(Sweep { dead: None, .. }) => free(Action::SweepLook(w)),
            Some(Sweep { named: None, .. }) => free(Action::SweepRead(w)),
            None => {}
        }
    }

    /// What dead writers left behind.
    fn orphans(&self, state: &State) -> u8 {
        let left = |m: &usize| state.hidden[*m] != 0 || state.manifests[*m].is_some();
        let dead = |m: &usize| {
            let gone = state.writers[*m].process_gone || !self.keeps(Rule::SweepSparesTheLiving);
            let named = |request: &Request| request.names == Some(*m as u8);
            let on_its_way = state.requests.iter().flatten().any(named);
            gone && !(on_its_way && self.keeps(Rule::SweepWaits))
        };
        (0..MANIFESTS)
            .filter(left)
            .filter(dead)
            .fold(0, |bits, m| bits | 1 << m)
    }

    fn named(&self, state: &State, w: usize) -> u8 {
        let seen =
            |p: &usize| self.keeps(Rule::SweepReadsAll) || state.workers[w].holds[*p] != Hold::No;
        let names = (0..PARTITIONS)
            .filter(seen)
            .filter_map(|p| state.committed[p].names);
        names.fold(0, |bits, m| bits | 1 << m)
    }

    pub(super) fn worker_step(&self, state: &mut State, action: Action) {
        match action {
            Action::Fetch(w, p) => self.fetch(state, w, p),
            Action::Read(w, p) => self.read(state, w, p),
            Action::Seal(w) => self.seal(state, w),
            Action::Ask(w) | Action::Resend(w) => ask(state, w),
            Action::ReadBack(w) => read_back(state, w),
            Action::Rename(w) => {
                let batch = state.workers[w].batch;
                if let Some(Batch {
                    manifest: Some(m),
                    phase: Phase::Publishing(left),
                    ..
                }) = batch
                {
                    state.rename(m, lowest(left));
                    set_phase(
                        &mut state.workers[w],
                        Phase::Publishing(left & !lowest(left)),
                    );
                }
            }
            Action::Finish(w) => {
                let batch = state.workers[w].batch;
                if let Some(Batch {
                    manifest: Some(m),
                    phase: Phase::Publishing(left),
                    ..
                }) = batch
                {
                    state.manifests[usize::from(m)] = None;
                    if left == 0 {
                        state.workers[w].batch = None;
                    }
                }
            }
            Action::DropManifest(w) => {
                if let Some(m) = state.workers[w].batch.and_then(|b| b.manifest) {
                    state.manifests[usize::from(m)] = None;
                }
            }
            Action::DropFiles(w) => {
                if let Some(m) = state.workers[w].batch.take().and_then(|b| b.manifest) {
                    state.hidden[usize::from(m)] = 0;
                }
            }
            Action::RecoverRename(w) => {
                if let Some(recovery) = state.workers[w].recovering {
                    let file = lowest(recovery.left);
                    state.rename(recovery.manifest, file);
                    let left = recovery.left & !file;
                    state.workers[w].recovering = Some(Recovery { left, ..recovery });
                }
            }
            Action::RecoverFinish(w) => {
                if let Some(recovery) = state.workers[w].recovering.take() {
                    state.manifests[usize::from(recovery.manifest)] = None;
                    for hold in &mut state.workers[w].holds {
                        if let Hold::Held { recovered, .. } = hold {
                            *recovered = true;
                        }
                    }
                }
            }
            Action::SweepLook(w) => {
                let dead = Some(self.orphans(state));
                let named = state.workers[w].sweep.and_then(|s| s.named);
                state.workers[w].sweep = Some(Sweep { dead, named });
            }
            Action::SweepRead(w) => {
                let named = Some(self.named(state, w));
                let dead = state.workers[w].sweep.and_then(|s| s.dead);
                state.workers[w].sweep = Some(Sweep { dead, named });
            }
            Action::SweepDelete(w) => {
                if let Some(Sweep {
                    dead: Some(dead),
                    named: Some(named),
                }) = state.workers[w].sweep.take()
                {
                    for m in (0..MANIFESTS).filter(|m| dead & !named & (1 << m) != 0) {
                        state.hidden[m] = 0;
                        state.manifests[m] = None;
                    }
                }
            }
            _ => unreachable!("the coordinator's"),
        }
        state.tidy();
    }

    /// Reads what is committed, and the manifest that it names.
    fn fetch(&self, state: &mut State, w: usize, p: usize) {
        let committed = state.committed[p];
        let manifest = committed
            .names
            .and_then(|m| Some((m, state.manifests[usize::from(m)]?)));
        let worker = &mut state.workers[w];
        if let Some((manifest, files)) = manifest {
            let left = if self.keeps(Rule::FinishWhole) {
                files
            } else {
                files & (0xF << (4 * p))
            };
            worker.recovering = Some(Recovery { manifest, left });
        }
        worker.holds[p] = Hold::Held {
            base: committed.offset,
            next: committed.offset,
            recovered: manifest.is_none() || !self.keeps(Rule::RecoverBeforeCommit),
        };
    }

    fn read(&self, state: &mut State, w: usize, p: usize) {
        let Hold::Held {
            base,
            next,
            recovered,
        } = state.workers[w].holds[p]
        else {
            return;
        };
        let file = event(p, next) & !self.filtered;
        let batch = state.workers[w].batch.unwrap_or(Batch {
            manifest: None,
            files: 0,
            offsets: [None; PARTITIONS],
            given_up: false,
            phase: Phase::Writing,
        });
        let manifest = match batch.manifest {
            None if file != 0 => Some(self.name(state, w)),
            known => known,
        };
        if let Some(m) = manifest {
            state.hidden[usize::from(m)] |= file;
        }
        let worker = &mut state.workers[w];
        worker.batch = Some(Batch {
            manifest,
            files: batch.files | file,
            ..batch
        });
        worker.holds[p] = Hold::Held {
            base,
            next: next + 1,
            recovered,
        };
    }

    /// The name of a new manifest.
    fn name(&self, state: &mut State, w: usize) -> u8 {
        let worker = &mut state.workers[w];
        let writer = Writer {
            worker: w as u8,
            process_gone: false,
        };
        let name = if self.keeps(Rule::NamesAreNew) {
            state.new_manifest()
        } else {
            worker.written += 1;
            w as u8 * 4 + worker.written.min(4) - 1
        };
        state.writers[usize::from(name)] = writer;
        name
    }

    /// Closes the files, writes the manifest, chooses the offsets.
    fn seal(&self, state: &mut State, w: usize) {
        let worker = &mut state.workers[w];
        let Some(batch) = &mut worker.batch else {
            return;
        };
        for p in 0..PARTITIONS {
            batch.offsets[p] = match worker.holds[p] {
                Hold::Held { base, next, .. } if next > base => Some(next),
                _ => None,
            };
        }
        batch.phase = Phase::Sealed;
        if let Some(m) = batch.manifest
            && self.keeps(Rule::ManifestBeforeCommit)
        {
            state.manifests[usize::from(m)] = Some(batch.files);
        }
    }
}

fn lowest(files: u8) -> u8 {
    files & files.wrapping_neg()
}

fn set_phase(worker: &mut Worker, phase: Phase) {
    if let Some(batch) = &mut worker.batch {
        batch.phase = phase;
    }
}

fn ask(state: &mut State, w: usize) {
    let worker = &mut state.workers[w];
    let Some(batch) = &mut worker.batch else {
        return;
    };
    batch.phase = Phase::Asked;
    let request = Request {
        from: w as u8,
        member: worker.member,
        generation: worker.generation,
        offsets: batch.offsets,
        names: batch.manifest,
        awaited: true,
    };
    for earlier in state.requests.iter_mut().flatten() {
        earlier.awaited &= earlier.from != w as u8;
    }
    state.send(request);
}

/// Asks what is committed: the manifest is named, or nobody ever names it.
fn read_back(state: &mut State, w: usize) {
    let Some(batch) = state.workers[w].batch else {
        return;
    };
    for request in state.requests.iter_mut().flatten() {
        request.awaited &= request.from != w as u8;
    }
    let mut asked = (0..PARTITIONS).filter(|p| batch.offsets[*p].is_some());
    let names = |p: usize| batch.manifest.is_some() && state.committed[p].names == batch.manifest;
    let is_ours = asked.any(names);
    // Who else would have published it?
    let is_gone = batch
        .manifest
        .is_some_and(|m| state.manifests[usize::from(m)].is_none());
    let worker = &mut state.workers[w];
    if is_ours || is_gone {
        committed(worker);
    } else {
        start_dropping(worker);
    }
}
