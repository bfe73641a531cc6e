//! What the model remembers: small and copied often.

pub(crate) const WORKERS: usize = 2;
pub(crate) const PARTITIONS: usize = 2;
/// Manifests that something refers to at one time.
pub(crate) const MANIFESTS: usize = 8;
/// Requests on their way at one time.
pub(crate) const REQUESTS: usize = 4;

/// The bit of an event.
pub(crate) fn event(partition: usize, offset: u8) -> u8 {
    1 << (partition as u8 * 4 + offset)
}

/// Whether an action costs a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    No,
    Yes,
}

/// What Kafka knows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Committed {
    pub(crate) offset: u8,
    /// The manifest in the metadata.
    pub(crate) names: Option<u8>,
}

/// A commit on its way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) from: u8,
    pub(crate) member: u8,
    pub(crate) generation: u8,
    pub(crate) offsets: [Option<u8>; PARTITIONS],
    pub(crate) names: Option<u8>,
    /// Somebody waits for the answer.
    pub(crate) awaited: bool,
}

/// The process that wrote a manifest or its hidden files, which is part of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Writer {
    pub(crate) worker: u8,
    pub(crate) process_gone: bool,
}

/// A partition as a worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Hold {
    #[default]
    No,
    /// Assigned; what is committed has not been read yet.
    Assigned,
    Held {
        base: u8,
        next: u8,
        /// The manifest that the commit names is done.
        recovered: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Writing,
    /// The manifest is there; the commit was not asked for.
    Sealed,
    Asked,
    /// These files have yet to get their names.
    Publishing(u8),
    /// To be deleted.
    Dropping,
}

/// What a worker holds back: events of several partitions that become visible together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    /// `None`: nothing but filtered events so far.
    pub(crate) manifest: Option<u8>,
    pub(crate) files: u8,
    pub(crate) offsets: [Option<u8>; PARTITIONS],
    /// A partition with events of it was given up since.
    pub(crate) given_up: bool,
    pub(crate) phase: Phase,
}

/// A manifest of another that a worker finishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Recovery {
    pub(crate) manifest: u8,
    pub(crate) left: u8,
}

/// A sweep in progress: manifests by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sweep {
    /// Of writers that are dead.
    pub(crate) dead: Option<u8>,
    /// Named by a commit.
    pub(crate) named: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Worker {
    /// The generation it knows; 0 outside the group.
    pub(crate) generation: u8,
    pub(crate) member: u8,
    pub(crate) holds: [Hold; PARTITIONS],
    pub(crate) batch: Option<Batch>,
    pub(crate) recovering: Option<Recovery>,
    pub(crate) sweep: Option<Sweep>,
    /// Manifests since its start; counted only where names come again.
    pub(crate) written: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    // The coordinator.
    pub(crate) generation: u8,
    /// The member id of each worker: the generation in which it joined.
    pub(crate) members: [Option<u8>; WORKERS],
    pub(crate) owners: [Option<u8>; PARTITIONS],
    pub(crate) committed: [Committed; PARTITIONS],
    pub(crate) requests: [Option<Request>; REQUESTS],
    // The store, by manifest: events by bit.
    pub(crate) hidden: [u8; MANIFESTS],
    pub(crate) manifests: [Option<u8>; MANIFESTS],
    pub(crate) writers: [Writer; MANIFESTS],
    pub(crate) visible: u8,
    /// Visible more than once.
    pub(crate) doubled: u8,
    pub(crate) workers: [Worker; WORKERS],
    pub(crate) faults: u8,
}

impl State {
    /// Both workers are in the group, and each has a partition.
    pub(crate) fn new(faults: u8) -> State {
        let held = Hold::Held {
            base: 0,
            next: 0,
            recovered: true,
        };
        let worker = |w: usize| Worker {
            generation: 2,
            member: w as u8 + 1,
            holds: std::array::from_fn(|p| if p == w { held } else { Hold::No }),
            ..Worker::default()
        };
        State {
            generation: 2,
            members: std::array::from_fn(|w| Some(w as u8 + 1)),
            owners: std::array::from_fn(|p| Some(p as u8)),
            committed: Default::default(),
            requests: [None; REQUESTS],
            hidden: [0; MANIFESTS],
            manifests: [None; MANIFESTS],
            writers: Default::default(),
            visible: 0,
            doubled: 0,
            workers: std::array::from_fn(worker),
            faults,
        }
    }

    /// The first worker has all partitions, the other is idle.
    pub(crate) fn together(mut self) -> State {
        self.owners = [Some(0); PARTITIONS];
        self.workers[0].holds = [self.workers[0].holds[0]; PARTITIONS];
        self.workers[1].holds = [Hold::No; PARTITIONS];
        self
    }

    /// Gives a hidden file its name; nothing happens where it has it.
    pub(crate) fn rename(&mut self, manifest: u8, files: u8) {
        let moved = self.hidden[usize::from(manifest)] & files;
        self.hidden[usize::from(manifest)] &= !moved;
        self.doubled |= self.visible & moved;
        self.visible |= moved;
    }

    /// A name that nothing refers to, which is as good as one never used.
    pub(crate) fn new_manifest(&self) -> u8 {
        let free = |m: &u8| !self.refers_to(*m);
        (0..MANIFESTS as u8)
            .find(free)
            .expect("the bounds leave a free name")
    }

    fn refers_to(&self, manifest: u8) -> bool {
        let m = usize::from(manifest);
        self.hidden[m] != 0
            || self.manifests[m].is_some()
            || self.committed.iter().any(|c| c.names == Some(manifest))
            || self
                .requests
                .iter()
                .flatten()
                .any(|r| r.names == Some(manifest))
            || self.workers.iter().any(|worker| {
                let batch = worker.batch.is_some_and(|b| b.manifest == Some(manifest));
                let recovering = worker.recovering.is_some_and(|r| r.manifest == manifest);
                let bits = |bits: Option<u8>| bits.unwrap_or_default() & (1 << manifest) != 0;
                let sweep = worker.sweep.is_some_and(|s| bits(s.dead) || bits(s.named));
                batch || recovering || sweep
            })
    }

    /// Forgets who wrote what is gone, so that equal states are equal.
    pub(crate) fn tidy(&mut self) {
        for manifest in 0..MANIFESTS {
            if !self.refers_to(manifest as u8) {
                self.writers[manifest] = Writer::default();
            }
        }
        for request in &mut self.requests {
            if let Some(known) = request
                && !known.awaited
                && (known.generation != self.generation
                    || self.members[usize::from(known.from)] != Some(known.member))
            {
                *request = None; // It will be refused, and nobody hears of it.
            }
        }
        self.rank_generations();
        // In the order in which each worker has sent them.
        self.requests
            .sort_by_key(|request| request.map_or(u8::MAX, |request| request.from));
    }

    /// Only the order of generations means anything: numbers them anew, without gaps, so that equal states are equal.
    fn rank_generations(&mut self) {
        let mut used = 1;
        self.each_generation(&mut |generation| used |= 1u64 << *generation);
        let rank = |generation: u8| (used & ((1 << generation) - 1)).count_ones() as u8;
        self.each_generation(&mut |generation| *generation = rank(*generation));
    }

    fn each_generation(&mut self, see: &mut impl FnMut(&mut u8)) {
        see(&mut self.generation);
        self.members.iter_mut().flatten().for_each(&mut *see);
        for request in self.requests.iter_mut().flatten() {
            see(&mut request.member);
            see(&mut request.generation);
        }
        for worker in &mut self.workers {
            see(&mut worker.generation);
            see(&mut worker.member);
        }
    }

    pub(crate) fn send(&mut self, request: Request) {
        let last = &mut self.requests[REQUESTS - 1];
        assert!(last.is_none(), "the bounds leave room for a request");
        *last = Some(request);
    }
}
