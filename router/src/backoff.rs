//! How long to wait before the next attempt. Pure: the caller brings the random number and does the waiting.

use std::time::Duration;

/// Exponential back-off with full jitter over the upper half: an attempt waits between half and all of its step, so that many
/// workers that failed together do not come back together. (After "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    step: Duration,
    attempts: u64,
}

impl Backoff {
    /// Steps double from `initial` up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff {
            initial,
            max: max.max(initial),
            step: initial,
            attempts: 0,
        }
    }

    /// The next pause. `random` is uniform in 0..1; `asked` is a pause that the server asked for and is never cut short.
    pub fn next(&mut self, random: f64, asked: Option<Duration>) -> Duration {
        let half = self.step / 2;
        let pause = half + half.mul_f64(random.clamp(0.0, 1.0));
        self.step = (self.step * 2).min(self.max);
        self.attempts += 1;
        pause.max(asked.unwrap_or_default())
    }

    /// How often [`Backoff::next`] was asked since the last reset.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// After a success: the next failure begins with the first step again.
    pub fn reset(&mut self) {
        self.step = self.initial;
        self.attempts = 0;
    }
}

/// A number in 0..1 that differs between processes and calls; good enough to spread retries, for nothing else.
pub fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // `RandomState` is seeded at random and changes with every instance.
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_to_the_cap_and_never_pass_it(randoms in prop::collection::vec(0.0..1.0f64, 1..40)) {
            let (initial, max) = (Duration::from_millis(100), Duration::from_secs(10));
            let mut backoff = Backoff::new(initial, max);
            let mut step = initial;
            for random in randoms {
                let pause = backoff.next(random, None);
                prop_assert!(pause >= step / 2 && pause <= step, "{pause:?} for a step of {step:?}");
                step = (step * 2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.next(1.0, None) <= initial);
        }

        #[test]
        fn a_pause_the_server_asked_for_is_kept(random in 0.0..1.0f64, asked in 0..100_000u64) {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
            let asked = Duration::from_millis(asked);
            prop_assert!(backoff.next(random, Some(asked)) >= asked);
        }
    }

    #[test]
    fn jitter_is_in_range_and_varies() {
        let numbers: Vec<f64> = (0..100).map(|_| jitter()).collect();
        assert!(numbers.iter().all(|n| (0.0..=1.0).contains(n)));
        assert!(numbers.iter().any(|n| *n != numbers[0]));
    }
}
