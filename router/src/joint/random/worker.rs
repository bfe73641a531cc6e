//! A worker without its threads: each call is what one of them does in a turn.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keystone_config::Sources;
use keystone_sinks::{BatchId, Cause, Claim, Joint, Sink, SinkError};
use tokio::runtime::{Handle, Runtime};

use super::super::{Committing, JointCommits};
use super::world::{EVENTS, Member, Place, Storage, TOPIC, kept};
use crate::named::{self, name_in};
use crate::offsets::{Commit, PartitionKey, Tracking};
use crate::rewind;
use crate::route::Route;
use crate::stall::Pulse;
use crate::state::Shared;

const PROPERTIES: &str = "route.name = g\nsource.topics = t\nkafka.bootstrap.servers = 127.0.0.1:1\nsink.type = blackhole\n";

fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let begin = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_time();
        builder.build().expect("a runtime")
    };
    RUNTIME.get_or_init(begin).handle()
}

/// Without pauses between attempts.
fn route() -> Arc<Route> {
    static ROUTE: OnceLock<Arc<Route>> = OnceLock::new();
    let load = || {
        let sources = Sources {
            defaults: None,
            file: Some(("r.properties".to_owned(), PROPERTIES.to_owned())),
            env: Vec::new(),
            sets: Vec::new(),
        };
        let (mut route, _) = crate::route::load(&sources, "w").expect("a route");
        route.backoff_initial = Duration::ZERO;
        route.backoff_max = Duration::ZERO;
        Arc::new(route)
    };
    ROUTE.get_or_init(load).clone()
}

pub(super) struct Worker {
    member: Member,
    shared: Shared,
    sink: Arc<Storage>,
    commits: JointCommits,
    pulse: Arc<Pulse>,
    /// The next offset to read of each partition, and under which generation.
    positions: BTreeMap<i32, (i64, u64)>,
    /// Read and not handed to the sink.
    batches: Vec<(u64, Claim)>,
    begun: u64,
}

impl Worker {
    pub(super) fn start(kind: Joint, slot: usize, place: &Place) -> Worker {
        let process = place.world().begin_process(slot);
        let member = Member::new(place.clone(), slot, process);
        let sink = Arc::new(Storage::new(kind, &member));
        let shared = Shared::new(route(), &*sink);
        let mut commits = JointCommits::new(&shared, &*sink);
        commits.named.straggler = Duration::ZERO;
        Worker {
            pulse: shared.stalls.watch("a test", Duration::from_secs(60)),
            member,
            shared,
            sink,
            commits,
            positions: BTreeMap::new(),
            batches: Vec::new(),
            begun: 0,
        }
    }

    pub(super) fn end(&mut self) {
        let mut world = self.member.place.world();
        world.end_process(self.member.process);
        world.leave(self.member.slot);
    }

    pub(super) fn is_lost(&mut self, lost: bool) {
        self.member.lost = lost;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.shared.failure().is_some()
    }

    /// Nothing is held, read or under way.
    pub(super) fn is_idle(&self) -> bool {
        let is_moving = self.shared.rewind_requested() || self.commits.named.has_found();
        !self.commits.is_pending(&self.shared) && !is_moving && self.batches.is_empty()
    }

    pub(super) fn assign(&mut self, partition: i32) {
        let key = PartitionKey::new(TOPIC, partition);
        let world = self.member.place.world();
        let found = world.committed.get(&partition).cloned();
        drop(world);
        let committed = found.as_ref().map(|(next, _)| *next);
        let generation = self
            .shared
            .offsets()
            .assign(key.clone(), committed, committed);
        if let Some((offset, metadata)) = found
            && let Some(name) = name_in(&metadata).expect("a name of this version")
        {
            let commit = Commit {
                key,
                offset,
                generation,
            };
            self.commits.named.remember(name, commit);
        }
        let from = committed.unwrap_or(0);
        self.positions.insert(partition, (from, generation));
    }

    pub(super) fn revoke(&mut self, partition: i32) {
        let key = PartitionKey::new(TOPIC, partition);
        if self.positions.remove(&partition).is_none() {
            return;
        }
        let unsettled = self.shared.offsets().unsettled(std::slice::from_ref(&key));
        self.shared.offsets().revoke(&key);
        if unsettled > 0 {
            self.shared.request_rewind(Cause {
                reason: "partitions_lost",
                detail: "of a test".to_owned(),
                after: None,
            });
        }
    }

    pub(super) fn read(&mut self, partition: i32, count: i64) {
        let Some((next, generation)) = self.positions.get_mut(&partition) else {
            return;
        };
        let offsets = *next..(*next + count).min(EVENTS);
        if offsets.is_empty() {
            return;
        }
        let claim = Claim {
            topic: TOPIC.into(),
            partition,
            generation: *generation,
            events: kept(partition, offsets.clone()).len() as u32,
            offsets: offsets.clone(),
        };
        *next = offsets.end;
        assert_eq!(self.shared.offsets().track(&claim), Tracking::Taken);
        match claim.events {
            0 => self.shared.settle(&[claim]),
            _ => {
                self.begun += 1;
                self.batches.push((self.begun, claim));
            }
        }
    }

    /// One batch to its end: the sink holds it, or it is given up with some of it in the sink. Of partitions that are gone some come late.
    pub(super) fn deliver(&mut self, index: usize, whole: bool) {
        // A batch waits while a commit is under way.
        let Ok(_entered) = self.shared.whole.clone().try_read_owned() else {
            return;
        };
        if self.batches.is_empty() {
            return;
        }
        let (batch, claim) = self.batches.remove(index % self.batches.len());
        let mut events = kept(claim.partition, claim.offsets.clone());
        if !whole {
            events.truncate(1);
        }
        let call = BatchId::new(batch);
        self.shared.held().announce(call);
        match self.sink.hold(&events) {
            Ok(()) => {
                let count = events.len() as u64;
                self.shared.held().hold(call, count, Vec::new());
                match whole {
                    true => self.shared.held_complete(batch, vec![claim].into(), count),
                    false => self.shared.held().abandon(batch, true),
                }
                return;
            }
            Err(SinkError::Fatal(reason)) => self.shared.fail(reason),
            Err(SinkError::Rewind(cause)) => self.shared.request_rewind(cause),
            Err(_) => self.batches.push((batch, claim)),
        }
        self.shared.held().withdraw(call);
        self.shared.held().abandon(batch, true);
    }

    fn committing(&self) -> Committing<'_> {
        Committing {
            shared: &self.shared,
            sink: &*self.sink,
            runtime: runtime(),
            consumer: &self.member,
            pulse: &self.pulse,
        }
    }

    pub(super) fn commit(&self, asked: bool) {
        let at = self.committing();
        if self.commits.commit_held(at, asked) {
            self.commits.commit_settled(at, None);
        }
    }

    pub(super) fn rewind(&mut self) {
        if self.commits.named.is_unfinished() {
            return;
        }
        let Some(cause) = self.shared.take_rewind() else {
            return;
        };
        let abandoning = rewind::abandon_all(&self.shared, &*self.sink, &self.commits, &cause);
        let Some(seeks) = runtime().block_on(abandoning) else {
            return;
        };
        for (key, generation, from) in seeks {
            let at = (from.unwrap_or(0), generation);
            self.positions.insert(key.partition, at);
        }
    }

    pub(super) fn sweep(&self) {
        let sink: Arc<dyn Sink> = self.sink.clone();
        named::sweep(self.committing(), &sink);
    }
}
