//! Notices a part of the worker that stands still. Pure: the time that passes is told to it by the [watchdog](crate::watchdog).
//!
//! A [`Pulse`] is idle while its owner waits for something that may legitimately take any time: input, room, a pause between attempts. An
//! idle part is never stalled. Where it waits for a call of the sink, the [steps](Sink::steps) of the sink count as its own.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use keystone_sinks::Sink;

use crate::state::lock;

/// One thing that is watched: a thread, or a call under way. Only its owner says what it does.
pub struct Pulse {
    name: String,
    /// How long a turn, or a step of the sink, may take by design.
    allowed: Duration,
    /// Rises with each change; even while at work, odd while idle.
    step: AtomicU64,
    /// Whose steps count as its own.
    sink: Option<Arc<dyn Sink>>,
}

impl Pulse {
    /// At work; a new turn begins.
    pub fn turn(&self) {
        let step = self.step.load(Ordering::Relaxed);
        self.step.store((step | 1) + 1, Ordering::Relaxed);
    }

    /// Waiting for something that may take any time.
    pub fn idle(&self) {
        let step = self.step.load(Ordering::Relaxed);
        self.step.store(step | 1, Ordering::Relaxed);
    }

    /// Idle while it waits; then a new turn begins.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.idle();
        let waited_for = wait();
        self.turn();
        waited_for
    }

    /// What it was seen to have done.
    fn seen(&self) -> Seen {
        Seen {
            own: self.step.load(Ordering::Relaxed),
            sink: self.sink.as_ref().map_or(0, |sink| sink.steps()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    own: u64,
    sink: u64,
}

/// A part that stands still, and for how long by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    pub name: String,
    pub stood: Duration,
    /// How far it is beyond what its turn may take.
    pub beyond: Duration,
}

impl std::fmt::Display for Stall {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.stood.as_secs_f64();
        write!(out, "{} has stood still for {seconds:.1} s", self.name)
    }
}

/// All that is watched. A pulse is forgotten when its owner drops it.
#[derive(Default)]
pub struct Stalls {
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    pulse: Weak<Pulse>,
    /// When it was looked at last.
    seen: Seen,
    /// How long it has been at the same turn, as far as was looked.
    stood: Duration,
}

impl Stalls {
    /// Watches a part, idle at first. `allowed` is how long one turn of it may take by design.
    pub fn watch(&self, name: impl Into<String>, allowed: Duration) -> Arc<Pulse> {
        self.add(name.into(), allowed, None)
    }

    /// Watches a part that calls the sink, idle at first. `allowed` is how long one turn of it, or one step of the sink within it, may take.
    pub fn watch_calls(&self, name: &str, allowed: Duration, sink: &Arc<dyn Sink>) -> Arc<Pulse> {
        self.add(name.to_owned(), allowed, Some(sink.clone()))
    }

    fn add(&self, name: String, allowed: Duration, sink: Option<Arc<dyn Sink>>) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            name,
            allowed,
            step: AtomicU64::new(1),
            sink,
        });
        let mut watched = lock(&self.watched);
        watched.retain(|known| known.pulse.strong_count() > 0);
        watched.push(Watched {
            pulse: Arc::downgrade(&pulse),
            seen: pulse.seen(),
            stood: Duration::ZERO,
        });
        pulse
    }

    /// Looks at every part, this long after the last look.
    pub fn look(&self, passed: Duration) {
        for watched in lock(&self.watched).iter_mut() {
            let Some(pulse) = watched.pulse.upgrade() else {
                continue;
            };
            let seen = pulse.seen();
            let stands = seen == watched.seen && seen.own.is_multiple_of(2);
            watched.seen = seen;
            watched.stood = match stands {
                true => watched.stood + passed,
                false => Duration::ZERO,
            };
        }
    }

    /// The parts that are by more than `limit` beyond what they are allowed, the furthest first; of parts with the same name that one.
    pub fn stalled(&self, limit: Duration) -> Vec<Stall> {
        let watched = lock(&self.watched);
        let standing = watched.iter().filter_map(|watched| {
            let pulse = watched.pulse.upgrade()?;
            let beyond = watched.stood.saturating_sub(pulse.allowed);
            (beyond > limit).then(|| Stall {
                name: pulse.name.clone(),
                stood: watched.stood,
                beyond,
            })
        });
        let mut standing: Vec<Stall> = standing.collect();
        standing.sort_by_key(|stall| Reverse(stall.beyond));
        let mut names = HashSet::new();
        standing.retain(|stall| names.insert(stall.name.clone()));
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystone_sinks::{Answer, Batch, BoxFuture, SinkError};
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_furthest_beyond_is_named_first_and_forgotten_with_its_owner() {
        let stalls = Stalls::default();
        let slow = stalls.watch("slow", ms(1_000));
        let stuck = stalls.watch("stuck", ms(0));
        slow.turn();
        stalls.look(ms(0));
        stalls.look(ms(500));
        stuck.turn();
        stalls.look(ms(0));
        stalls.look(ms(700));
        let told = |limit| -> Vec<String> {
            let found = stalls.stalled(ms(limit));
            found.iter().map(Stall::to_string).collect()
        };
        let stuck_for = "stuck has stood still for 0.7 s";
        let slow_for = "slow has stood still for 1.2 s";
        assert_eq!(told(199), [stuck_for, slow_for]);
        assert_eq!(told(200), [stuck_for]);
        let alike = stalls.watch("stuck", ms(0));
        alike.turn();
        stalls.look(ms(0));
        stalls.look(ms(300));
        let found = stalls.stalled(ms(0));
        assert_eq!((found.len(), found[0].stood), (2, ms(1_000)));
        drop((stuck, alike));
        slow.turn();
        stalls.look(ms(50));
        assert_eq!(told(0), Vec::<String>::new());
    }

    /// A sink that gets on when the test says so.
    #[derive(Default)]
    struct Stepping(AtomicU64);

    impl Sink for Stepping {
        fn deliver<'a>(&'a self, _: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
            Box::pin(async { Ok(Answer::done()) })
        }

        fn steps(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_step_of_the_sink_is_one_of_its_callers() {
        let (stalls, sink) = (Stalls::default(), Arc::new(Stepping::default()));
        let called: Arc<dyn Sink> = sink.clone();
        let caller = stalls.watch_calls("caller", ms(0), &called);
        let other = stalls.watch("other", ms(0));
        caller.turn();
        other.turn();
        stalls.look(ms(0));
        stalls.look(ms(500));
        sink.0.fetch_add(1, Ordering::Relaxed);
        stalls.look(ms(300));
        let names = || -> Vec<String> {
            let found = stalls.stalled(ms(0));
            found.into_iter().map(|stall| stall.name).collect()
        };
        assert_eq!(names(), ["other"]);
        stalls.look(ms(100));
        assert_eq!(names(), ["other", "caller"]);
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        Turn,
        Idle,
        Wait,
        Look(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Turn),
            1 => Just(Step::Idle),
            1 => Just(Step::Wait),
            6 => (0..2_000_u64).prop_map(Step::Look),
        ]
    }

    proptest! {
        /// Stalled exactly if the last thing it did was a turn, and the looks since the first one after it add up to more than allowed and
        /// limit together.
        #[test]
        fn stalled_says_what_the_last_step_says(
            steps in prop::collection::vec(step(), 0..30),
            allowed in 0..3_000_u64, limit in 0..3_000_u64,
        ) {
            let stalls = Stalls::default();
            let pulse = stalls.watch("part", ms(allowed));
            for step in &steps {
                match step {
                    Step::Turn => pulse.turn(),
                    Step::Idle => pulse.idle(),
                    Step::Wait => pulse.waiting(|| {}),
                    Step::Look(passed) => stalls.look(ms(*passed)),
                }
            }
            let looks = steps.iter().rev().map_while(|step| match step {
                Step::Look(passed) => Some(*passed),
                _ => None,
            });
            let looks: Vec<u64> = looks.collect();
            let last = steps.iter().rev().nth(looks.len());
            let at_work = matches!(last, Some(Step::Turn | Step::Wait));
            // The oldest look only finds that a turn has begun.
            let stood: u64 = looks.iter().rev().skip(1).sum();
            let expected = at_work && stood > allowed + limit;
            // A change is only known once it was looked at.
            if !looks.is_empty() {
                prop_assert_eq!(!stalls.stalled(ms(limit)).is_empty(), expected);
            }
        }
    }
}
