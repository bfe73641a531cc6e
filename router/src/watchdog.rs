//! The watchdog: a thread of its own, since any other may be the one that hangs. It has the worker fail after a stall that does not end, and
//! ends the process where a worker that is to end can't.
//!
//! It writes nothing itself: standard error may be a pipe that is full and that nobody reads, which may be why the others stand.
//!
//! Time is what the watchdog itself has seen pass, so no clock that is set, and no process or machine that was stopped and goes on,
//! makes a stall.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{info, warn};

use crate::stall::{Stall, Stalls};
use crate::state::Shared;
use crate::worker::ended_within;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);
/// What counts of the time between two looks: where more has passed, nobody else was running either.
const LOOK_COUNTS: Duration = Duration::from_millis(400);
/// How long the last line may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a worker that is to end may take; then the process ends without it.
const WAY_DOWN: Duration = Duration::from_secs(60);

/// Watches a worker until what this returns is dropped.
pub fn start(shared: Arc<Shared>) -> Sender<()> {
    let (watched, ended) = bounded::<()>(0);
    std::thread::spawn(move || watch(shared, &ended));
    watched
}

fn watch(shared: Arc<Shared>, ended: &Receiver<()>) {
    let mut watchdog = Watchdog::new(shared.route.stall_max);
    let mut last = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut last, now));
        let ending = shared.failure().is_some() || shared.loop_ended();
        match watchdog.look(&shared.stalls, passed, ending) {
            Verdict::Fine => {}
            Verdict::Stalled(stall) => {
                let limit = shared.route.stall_max.as_millis();
                aside(move || {
                    warn!(
                        "{stall}: /livez is red, and the worker stops if that lasts for another {limit} ms"
                    );
                });
            }
            Verdict::Recovered => aside(|| info!("what stood still goes on")),
            Verdict::Fail(stall) => {
                let shared = shared.clone();
                aside(move || {
                    shared.fail(format!(
                        "{stall}, and delivery.stall.max.ms = {} has passed twice; start the worker again, what is not committed is delivered again; raise the option if that step may take so long",
                        shared.route.stall_max.as_millis()
                    ));
                });
            }
            Verdict::End => {
                let reason = shared.failure().unwrap_or_else(|| {
                    "a lane, the sink or the runtime has not come to its end".to_owned()
                });
                // Not by the logger, which may be held up by the same; and standard error may be gone.
                let last_words = move || {
                    let _written = writeln!(
                        std::io::stderr(),
                        "the worker could not be taken down within {} s, so the process is ended; what is not committed is delivered again: {reason}",
                        WAY_DOWN.as_secs()
                    );
                };
                ended_within(LAST_WORDS, last_words);
                std::process::exit(1);
            }
        }
    }
}

/// Runs work that may block for ever (a log that nobody reads) on a thread of its own. Only verdicts and signals need it, which are few.
pub fn aside(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

/// What is to be done after a look.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// From here on `/livez` is red.
    Stalled(Stall),
    Recovered,
    /// The worker is to fail.
    Fail(Stall),
    /// The process is to end.
    End,
}

#[derive(Debug)]
struct Watchdog {
    limit: Duration,
    stalled: bool,
    /// How long the worker has been ending.
    ending: Option<Duration>,
}

impl Watchdog {
    fn new(limit: Duration) -> Watchdog {
        Watchdog {
            limit,
            stalled: false,
            ending: None,
        }
    }

    /// One look, this long after the last.
    fn look(&mut self, stalls: &Stalls, passed: Duration, ending: bool) -> Verdict {
        let passed = passed.min(LOOK_COUNTS);
        stalls.look(passed);
        let furthest = |limit| stalls.stalled(limit).into_iter().next();
        if ending {
            let since = *self.ending.get_or_insert_default();
            self.ending = Some(since + passed);
            return match since >= WAY_DOWN {
                true => Verdict::End,
                false => Verdict::Fine,
            };
        }
        if let Some(stall) = furthest(2 * self.limit) {
            return Verdict::Fail(stall);
        }
        let stall = furthest(self.limit);
        let was = std::mem::replace(&mut self.stalled, stall.is_some());
        match stall {
            Some(stall) if !was => Verdict::Stalled(stall),
            None if was => Verdict::Recovered,
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// The verdicts, other than `Fine`, of this many looks, each with the number of the look.
    fn looks(
        watchdog: &mut Watchdog,
        stalls: &Stalls,
        passed: Duration,
        ending: bool,
        count: usize,
    ) -> Vec<(usize, &'static str)> {
        let verdicts = (1..=count).map(|number| {
            let word = match watchdog.look(stalls, passed, ending) {
                Verdict::Fine => "fine",
                Verdict::Stalled(_) => "stalled",
                Verdict::Recovered => "recovered",
                Verdict::Fail(_) => "fail",
                Verdict::End => "end",
            };
            (number, word)
        });
        verdicts.filter(|(_, word)| *word != "fine").collect()
    }

    #[test]
    fn a_stall_is_told_once_and_fails_the_worker_at_twice_the_limit() {
        let (stalls, mut watchdog) = (Stalls::default(), Watchdog::new(LIMIT));
        let pulse = stalls.watch("part", Duration::ZERO);
        pulse.turn();
        // The first look sees the turn begin; 2 s are 10 looks after that, and more than 2 s are 11.
        let found = looks(&mut watchdog, &stalls, LOOK, false, 20);
        assert_eq!(found, [(12, "stalled")]);
        pulse.turn();
        let found = looks(&mut watchdog, &stalls, LOOK, false, 21);
        assert_eq!(found, [(1, "recovered"), (12, "stalled")]);
        assert_eq!(
            looks(&mut watchdog, &stalls, LOOK, false, 1),
            [(1, "fail")],
            "after 2 + 2 s"
        );
        pulse.idle();
        assert_eq!(
            looks(&mut watchdog, &stalls, LOOK, false, 100),
            [(1, "recovered")]
        );
    }

    /// A process that was stopped for an hour while a part was at its turn, again and again.
    #[test]
    fn time_in_which_the_watchdog_itself_was_not_running_does_not_count() {
        let (stalls, mut watchdog) = (Stalls::default(), Watchdog::new(LIMIT));
        let pulse = stalls.watch("part", Duration::ZERO);
        for _ in 0..10 {
            pulse.turn();
            let hours = looks(
                &mut watchdog,
                &stalls,
                Duration::from_secs(3_600),
                false,
                LIMIT.div_duration_f64(LOOK_COUNTS) as usize,
            );
            assert_eq!(hours, []);
        }
    }

    #[test]
    fn a_worker_that_does_not_end_is_ended() {
        let (stalls, mut watchdog) = (Stalls::default(), Watchdog::new(LIMIT));
        let down = WAY_DOWN.div_duration_f64(LOOK) as usize;
        assert_eq!(looks(&mut watchdog, &stalls, LOOK, true, down), []);
        assert_eq!(looks(&mut watchdog, &stalls, LOOK, true, 1), [(1, "end")]);
    }
}
