//! Scripts of outcomes drawn at random. Whatever the sink does, nothing is lost, and nothing is committed that it has not answered for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use keystone::state::lock;
use keystone_sinks::SinkError;

use crate::bench::{Bench, Running, together};
use crate::scripted::{Act, Call, Scripted, cause};

const ROUNDS: usize = 10;

#[test]
fn random_scripts() {
    together(&[
        ("without_holding", || rounds("random-plain", false, "1")),
        ("without_holding_three_lanes", || {
            rounds("random-lanes", false, "3")
        }),
        ("holding", || rounds("random-held", true, "1")),
        ("holding_three_lanes", || {
            rounds("random-held-lanes", true, "3")
        }),
    ]);
}

/// xorshift64*: the same script for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What a call is to do; where it says which events, by a stride over the batch.
#[derive(Debug, Clone)]
enum Step {
    Deliver,
    Hold {
        publish: bool,
    },
    Slow(u64),
    Reject(usize),
    Partly {
        rejected: usize,
        retry: usize,
        held: bool,
    },
    Retry,
    TooLarge,
    Never,
    Rewind,
}

fn step(random: &mut Random, holds: bool) -> Step {
    let stride = random.below(6) as usize + 2;
    match random.below(if holds { 13 } else { 10 }) {
        0 | 1 => Step::Deliver,
        2 => Step::Slow(random.below(20)),
        3 => Step::Reject(stride),
        4 | 5 => Step::Partly {
            rejected: stride,
            retry: random.below(4) as usize + 1,
            held: holds && random.below(2) == 0,
        },
        6 => Step::Retry,
        7 => Step::TooLarge,
        8 => Step::Never,
        9 => Step::Rewind,
        other => Step::Hold {
            publish: other == 12,
        },
    }
}

/// The steps that are left; none are left: the sink is healthy.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Step>, usize)>>);

impl Script {
    fn act(&self, call: &Call<'_>, holds: bool) -> Act {
        let mut script = lock(&self.0);
        let healthy = if holds { Act::hold() } else { Act::done() };
        let Some(step) = script.0.pop_front() else {
            return healthy;
        };
        let every = |stride: usize, but: &[usize]| -> Vec<usize> {
            (0..call.batch.len())
                .filter(|index| index % stride == 0 && !but.contains(index))
                .collect()
        };
        match step {
            Step::Deliver => Act::done(),
            Step::Hold { publish } => Act::Answer {
                rejected: Vec::new(),
                retry: Vec::new(),
                held: true,
                publish,
            },
            Step::Slow(ms) => Act::after_ms(ms, healthy),
            Step::Reject(stride) => Act::parts(every(stride, &[]), Vec::new()),
            Step::Partly {
                rejected,
                retry,
                held,
            } => {
                let rejected = every(rejected, &[]);
                let retry = every(retry, &rejected);
                Act::Answer {
                    rejected,
                    retry,
                    held,
                    publish: false,
                }
            }
            Step::Retry => Act::retry(),
            // An event alone that is too large would be a dead letter, which the record does not learn of.
            Step::TooLarge if call.batch.len() > 1 => Act::too_large(),
            Step::TooLarge => healthy,
            Step::Never => {
                script.1 += 1;
                Act::Never
            }
            Step::Rewind => {
                script.1 = 0;
                Act::rewind()
            }
        }
    }

    /// Calls that are stuck since the last rewind; asked for by the tick, which then asks for a rewind.
    fn take_stuck(&self) -> bool {
        std::mem::take(&mut lock(&self.0).1) > 0
    }
}

fn start(bench: &Bench, script: &Script, holds: bool, lanes: &str) -> Running {
    let (answers, ticks) = (script.clone(), script.clone());
    let sink = Scripted::new(&bench.record, move |call| answers.act(call, holds)).on_tick(
        move |sink, _| {
            if ticks.take_stuck() {
                return Err(SinkError::Rewind(cause("scripted_stuck")));
            }
            Ok(sink.publish_all())
        },
    );
    let sink = if holds { sink.holding() } else { sink };
    bench.start(sink, &[&format!("delivery.lanes={lanes}")])
}

fn rounds(name: &str, holds: bool, lanes: &str) {
    // The same scripts each time, so that a failure can be looked into; other ones by `SEED=n`.
    let given = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or(20261123) | 1;
    let mut random = Random(seed);
    let bench = Bench::new(name, 3);
    let script = Script::default();
    let mut running = start(&bench, &script, holds, lanes);
    for round in 0..ROUNDS {
        let steps: VecDeque<Step> = (0..random.below(40))
            .map(|_| step(&mut random, holds))
            .collect();
        // Shown where the test fails.
        println!("{name}: seed {seed}, round {round}: {steps:?}");
        lock(&script.0).0 = steps;
        bench.produce(random.below(200) as usize + 1);
        if round == ROUNDS / 2 {
            // A stop in the middle of whatever goes on: in time or not, the next worker takes over.
            running.until("some is delivered", || bench.record.count() > 0);
            lock(&script.0).0.clear();
            let _either = running.stop();
            bench.assert_commits_safe();
            running = start(&bench, &script, holds, lanes);
        }
        running.until("all is delivered", || bench.record.complete());
    }
    running.until("all is settled", || bench.settled(&running.shared));
    let ledger = running.stop().expect("drained");
    let settled = ledger.delivered + ledger.dead_lettered + ledger.abandoned;
    assert_eq!(
        (ledger.consumed, ledger.in_flight),
        (settled, 0),
        "{ledger:?}"
    );
    bench.assert_finished();
}
