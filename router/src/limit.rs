//! How many calls of a sink may be under way: grows while the sink keeps up, shrinks where it is overloaded.
//!
//! [`Limit`] is pure: the instants are handed to it. Additive increase, multiplicative decrease (Chiu and Jain, "Analysis of the Increase
//! and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989). It begins at its ceiling, so that a sink that is
//! never overloaded never waits for it.

use std::time::{Duration, Instant};

/// What is left of the limit when the sink is overloaded.
const OVERLOAD: f64 = 0.7;
/// What is left of it when the sink is merely slow.
const SLOW: f64 = 0.9;
/// Faster answers are never called slow, whatever came before.
const SLOW_FLOOR: Duration = Duration::from_secs(1);
/// How far beyond its baseline an answer is slow, both as a whole and for each byte.
const SLOW_FACTOR: f64 = 4.0;
/// The weight of one answer in the baselines.
const WEIGHT: f64 = 0.02;
/// The weight in them of a row of slow answers, which counts as one however many were under way: three times the limit is lowered, then the
/// sink is taken as it is.
const SLOW_WEIGHT: f64 = 0.1;
/// Answers before a baseline is believed.
const LEARNED: u32 = 20;

/// What one call tells of the sink's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It took the batch, of this many bytes.
    Fine { bytes: usize },
    /// It refused for want of room, failed or did not answer in time; the reason is that of the retry.
    Overload(&'static str),
    /// Nothing: it could not be reached, or the call was dropped.
    Unknown,
}

/// A call under way.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    at: Instant,
    /// At least half of the limit was in use, so that a success tells that there is room for it.
    used: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Limit {
    ceiling: usize,
    /// From 1 to the ceiling; its whole part is what counts.
    limit: f64,
    under_way: usize,
    reduced: Option<Instant>,
    latency: Latency,
}

impl Limit {
    /// A limit at its ceiling, which is at least 1.
    pub fn new(ceiling: usize) -> Limit {
        let ceiling = ceiling.max(1);
        Limit {
            ceiling,
            limit: ceiling as f64,
            under_way: 0,
            reduced: None,
            latency: Latency::default(),
        }
    }

    /// How many calls may be under way now, from 1 to the ceiling.
    pub fn get(&self) -> usize {
        // Sums of fractions may fall a little short of the whole number.
        ((self.limit + 1e-6) as usize).clamp(1, self.ceiling)
    }

    /// A call begins.
    pub fn begin(&mut self, at: Instant) -> Begun {
        self.under_way += 1;
        Begun {
            at,
            used: self.under_way * 2 >= self.get(),
        }
    }

    /// A call ends. Answers with the reason where the limit was lowered. Calls that began before it was lowered last say nothing new, so it is
    /// lowered once a round trip at most.
    pub fn end(&mut self, begun: Begun, now: Instant, load: Load) -> Option<&'static str> {
        self.under_way = self.under_way.saturating_sub(1);
        let stale = self.reduced.is_some_and(|reduced| begun.at <= reduced);
        let took = now.saturating_duration_since(begun.at);
        match load {
            Load::Unknown => None,
            Load::Overload(_) if stale => None,
            Load::Overload(reason) => self.reduce(now, OVERLOAD).then_some(reason),
            Load::Fine { bytes } => {
                if !self.latency.is_slow(took, bytes) {
                    self.latency.learn(took, bytes);
                    if begun.used && !stale {
                        self.limit = (self.limit + 1.0 / self.limit).min(self.ceiling as f64);
                    }
                    return None;
                }
                if stale {
                    return None;
                }
                // More slow answers in a row than are under way at once: a single one may be a pause of the collector.
                self.latency.slow += 1;
                if self.latency.slow <= self.get() {
                    return None;
                }
                self.latency.note(took, bytes, SLOW_WEIGHT);
                self.reduce(now, SLOW).then_some("slow")
            }
        }
    }

    /// Whether the limit fell.
    fn reduce(&mut self, now: Instant, factor: f64) -> bool {
        let before = self.limit;
        self.limit = (before * factor).max(1.0);
        self.reduced = Some(now);
        self.limit < before
    }
}

/// What answers take as a rule, for a whole batch and for each byte. A small batch is slow for its bytes and a large one as a whole; only
/// one that is slow in both ways tells of the sink.
#[derive(Debug, Default)]
struct Latency {
    whole: f64,
    byte: f64,
    answers: u32,
    /// Slow answers in a row.
    slow: usize,
}

impl Latency {
    fn is_slow(&self, took: Duration, bytes: usize) -> bool {
        let (whole, byte) = costs(took, bytes);
        self.answers >= LEARNED
            && took > SLOW_FLOOR
            && whole > self.whole * SLOW_FACTOR
            && byte > self.byte * SLOW_FACTOR
    }

    /// Takes note of an answer that is not slow.
    fn learn(&mut self, took: Duration, bytes: usize) {
        self.answers = self.answers.saturating_add(1);
        // A plain mean at first.
        self.note(took, bytes, WEIGHT.max(1.0 / f64::from(self.answers)));
    }

    /// Moves the baselines towards an answer, which ends a row of slow ones.
    fn note(&mut self, took: Duration, bytes: usize, weight: f64) {
        let (whole, byte) = costs(took, bytes);
        self.slow = 0;
        self.whole += (whole - self.whole) * weight;
        self.byte += (byte - self.byte) * weight;
    }
}

/// Seconds that an answer took, as a whole and for each byte.
fn costs(took: Duration, bytes: usize) -> (f64, f64) {
    let whole = took.as_secs_f64();
    (whole, whole / bytes.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// As many calls as the limit allows, all with the same end.
    fn window(limit: &mut Limit, now: &mut Instant, took: u64, load: Load) -> usize {
        *now += ms(1);
        let calls: Vec<Begun> = (0..limit.get()).map(|_| limit.begin(*now)).collect();
        *now += ms(took);
        let ended = calls.into_iter().map(|call| limit.end(call, *now, load));
        ended.flatten().count()
    }

    const FINE: Load = Load::Fine { bytes: 1_000 };
    const FULL: Load = Load::Overload("http_429");

    fn load() -> impl Strategy<Value = Load> {
        prop_oneof![
            4 => (0..1_000_000_usize).prop_map(|bytes| Load::Fine { bytes }),
            1 => Just(FULL),
            1 => Just(Load::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn stays_between_one_and_its_ceiling_and_comes_back_to_it(
            ceiling in 1..40_usize,
            steps in prop::collection::vec((any::<bool>(), 0..8_000_u64, any::<prop::sample::Index>(), load()), 0..200),
        ) {
            let mut limit = Limit::new(ceiling);
            let mut now = Instant::now();
            let mut calls: Vec<Begun> = Vec::new();
            let mut lowered: Option<Instant> = None;
            for (begin, passed, which, load) in steps {
                now += ms(passed);
                if begin && calls.len() < limit.get() {
                    calls.push(limit.begin(now));
                } else if !calls.is_empty() {
                    let call = calls.swap_remove(which.index(calls.len()));
                    let before = limit.get();
                    let reason = limit.end(call, now, load);
                    if lowered.is_some_and(|lowered| call.at <= lowered) {
                        prop_assert_eq!((limit.get(), reason), (before, None));
                    }
                    match reason {
                        Some(_) => lowered = Some(now),
                        None => prop_assert!(limit.get() == before || limit.get() == before + 1),
                    }
                    prop_assert!(load != Load::Unknown || limit.get() == before);
                }
                prop_assert!((1..=ceiling).contains(&limit.get()));
            }
            for call in calls {
                limit.end(call, now, Load::Unknown);
            }
            // A little less than one a window, for its own growth is in the divisor.
            for _ in 0..2 * ceiling + 2 {
                window(&mut limit, &mut now, 10, FINE);
            }
            prop_assert_eq!(limit.get(), ceiling);
        }

        #[test]
        fn a_window_of_refusals_lowers_once(ceiling in 2..100_usize) {
            let mut limit = Limit::new(ceiling);
            let mut now = Instant::now();
            prop_assert_eq!(window(&mut limit, &mut now, 10, FULL), 1);
            prop_assert_eq!(limit.get(), ((ceiling as f64 * OVERLOAD + 1e-6) as usize).max(1));
            let before = limit.get();
            window(&mut limit, &mut now, 10, FINE);
            prop_assert!(limit.get() <= before + 1);
        }

        /// Answers that differ in size and time, but not all in a row by far beyond the rule, change nothing.
        #[test]
        fn uneven_batches_are_no_overload(sizes in prop::collection::vec(1..10_000_000_u64, 1..300)) {
            let mut limit = Limit::new(8);
            let mut now = Instant::now();
            for size in sizes {
                // 5 ms and a millisecond for each 5 kB.
                let load = Load::Fine { bytes: size as usize };
                prop_assert_eq!(window(&mut limit, &mut now, 5 + size / 5_000, load), 0);
            }
        }
    }

    #[test]
    fn an_idle_limit_does_not_grow() {
        let mut limit = Limit::new(16);
        let mut now = Instant::now();
        window(&mut limit, &mut now, 10, FULL);
        let before = limit.get();
        for _ in 0..1_000 {
            now += ms(10);
            let call = limit.begin(now);
            limit.end(call, now + ms(5), FINE);
        }
        assert_eq!(limit.get(), before);
    }

    #[test]
    fn a_sink_that_becomes_far_slower_lowers_it_mildly_and_is_then_taken_as_it_is() {
        for ceiling in [2, 8, 16, 64, 500] {
            let mut limit = Limit::new(ceiling);
            let mut now = Instant::now();
            for _ in 0..20 {
                window(&mut limit, &mut now, 50, FINE);
            }
            let mut fallen = 0;
            for _ in 0..10 {
                fallen += window(&mut limit, &mut now, 5_000, FINE);
            }
            assert_eq!(fallen, 3, "{ceiling}");
            for _ in 0..2 * ceiling {
                window(&mut limit, &mut now, 5_000, FINE);
            }
            assert_eq!(limit.get(), ceiling);
        }
    }
}
