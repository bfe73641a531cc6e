//! Since when requests to the bucket have failed, one after the other: each is tried again for long, and nobody else tells of it meanwhile.
//! Pure: the time is told to it.

use std::time::{Duration, Instant};

use super::LONGEST_STEP;
use crate::telling::Telling;

/// What is over sooner is not worth a word.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is said while it lasts.
const TELL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Failing {
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    since: Instant,
    last: Instant,
    reason: &'static str,
    told: Telling,
}

impl Failing {
    pub(super) const fn new() -> Failing {
        Failing { run: None }
    }

    /// A request was answered.
    pub(super) fn answered(&mut self) {
        self.run = None;
    }

    /// A request has failed in a way that may pass. Answers with the words, if it is to be said now.
    pub(super) fn failed(&mut self, reason: &'static str, now: Instant) -> Option<String> {
        // Requests that were cut off or given up have left it, and nobody has asked since.
        self.run.take_if(|run| !run.is_known(now));
        let run = self.run.get_or_insert(Run {
            since: now,
            last: now,
            reason,
            told: Telling::default(),
        });
        run.last = now;
        run.reason = reason;
        let lasts = now.duration_since(run.since) >= PATIENCE;
        match lasts && run.told.is_due(now, TELL) {
            true => self.problem(now),
            false => None,
        }
    }

    /// What is wrong, for a person.
    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        let run = self.run.as_ref()?;
        let lasting = now.duration_since(run.since);
        (lasting >= PATIENCE && run.is_known(now)).then(|| {
            format!(
                "the bucket has failed all requests for {} s, the last with {}: they are tried again, and delivery waits; check sink.parquet.s3.endpoint where this lasts",
                lasting.as_secs(),
                run.reason
            )
        })
    }
}

impl Run {
    /// Whether it may last still. Nothing is known any more when no request has failed for longer than one takes.
    fn is_known(&self, now: Instant) -> bool {
        now.duration_since(self.last) <= LONGEST_STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_a_problem_and_told_of_now_and_then() {
        let (mut failing, start) = (Failing::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(failing.failed("http_5xx", at(0)), None);
        assert_eq!(failing.problem(at(2)), None);
        let told = failing.failed("timeout", at(4)).unwrap();
        assert!(told.contains("for 4 s, the last with timeout"), "{told}");
        assert_eq!(failing.failed("timeout", at(10)), None);
        assert!(failing.problem(at(12)).unwrap().contains("for 12 s"));
        assert!(failing.failed("timeout", at(34)).is_some());
        // Nobody has asked since.
        assert_eq!(failing.problem(at(34 + 71)), None);
        failing.answered();
        assert_eq!(failing.problem(at(36)), None);
        assert_eq!(failing.failed("http_429", at(40)), None);
    }
    #[test]
    fn failures_far_apart_are_no_run() {
        let (mut failing, start) = (Failing::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(failing.failed("timeout", at(0)), None);
        let later = 2 * 3600;
        assert_eq!(failing.failed("timeout", at(later)), None);
        assert_eq!(failing.problem(at(later)), None);
        let told = failing.failed("timeout", at(later + 60)).unwrap();
        assert!(told.contains("for 60 s"), "{told}");
    }
}
