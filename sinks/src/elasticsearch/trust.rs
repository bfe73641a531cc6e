//! Whether an answer of 401 means that the credentials are wrong. Pure: the clock is passed in.
//!
//! While a secured cluster restarts, or its index `.security` has no primary, its nodes refuse good credentials, too: they can't look them up.
//! So a refusal is waited out like any other trouble of the cluster, and counts only when it has lasted.

use std::time::{Duration, Instant};

/// Where the credentials were accepted before: longer than a cluster takes to restart, and a key that was revoked still ends the worker.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where they never were: mostly they are wrong, and a person waits to be told.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// The time between two refusals counts for at most this: nothing is known of an hour in which nothing was asked.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// What this process knows of its credentials.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Whether they were accepted once.
    earned: bool,
    /// Refusals since they were accepted last.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    last: Instant,
    lasted: Duration,
}

impl Trust {
    /// Takes note of an answer that only good credentials get.
    pub(crate) fn accepted(&mut self) {
        *self = Trust {
            earned: true,
            refused: None,
        };
    }

    /// Takes note of a refusal: how much longer refusals are waited out. `None`: the credentials are wrong.
    pub(crate) fn refused(&mut self, now: Instant) -> Option<Duration> {
        let refused = self.refused.get_or_insert(Refused {
            last: now,
            lasted: Duration::ZERO,
        });
        let gap = now.saturating_duration_since(refused.last);
        refused.lasted = refused.lasted.saturating_add(gap.min(LONGEST_GAP));
        refused.last = refused.last.max(now);
        let patience = match self.earned {
            true => PATIENCE,
            false => FIRST_PATIENCE,
        };
        let left = patience.saturating_sub(refused.lasted);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_never_accepted_is_wrong_after_half_a_minute() {
        let start = Instant::now();
        let mut trust = Trust::default();
        assert_eq!(trust.refused(start), Some(FIRST_PATIENCE));
        assert_eq!(trust.refused(start + seconds(29)), Some(seconds(1)));
        assert_eq!(trust.refused(start + seconds(30)), None);
        assert_eq!(trust.refused(start + seconds(30)), None);
        trust.accepted();
        assert_eq!(trust.refused(start + seconds(31)), Some(PATIENCE));
    }

    #[test]
    fn what_was_accepted_is_wrong_after_ten_minutes_of_refusals_alone() {
        let start = Instant::now();
        let mut trust = Trust::default();
        trust.accepted();
        for second in (0..600).step_by(10) {
            let left = trust.refused(start + seconds(second));
            assert_eq!(left, Some(seconds(600 - second)));
        }
        trust.accepted();
        let later = start + seconds(600);
        assert_eq!(trust.refused(later), Some(PATIENCE));
        assert_eq!(trust.refused(later + seconds(5)), Some(seconds(595)));
    }

    #[test]
    fn a_night_without_requests_counts_as_a_minute() {
        let start = Instant::now();
        let mut trust = Trust::default();
        trust.accepted();
        trust.refused(start);
        assert_eq!(trust.refused(start + seconds(30_000)), Some(seconds(540)));
    }

    proptest! {
        /// Refusals end the worker neither before they have lasted as long as they may, nor later than that where they come in time, and
        /// only those count that nothing accepted lies between.
        #[test]
        fn only_lasting_refusals_count(
            steps in prop::collection::vec((prop::bool::weighted(0.05), 0..90_000_u64), 1..200),
        ) {
            let mut now = Instant::now();
            let mut trust = Trust::default();
            let (mut earned, mut since) = (false, None);
            // What of the time since then may not count.
            let mut unknown = Duration::ZERO;
            let mut gap = Duration::ZERO;
            for (accepted, millis) in steps {
                if accepted {
                    trust.accepted();
                    (earned, since) = (true, None);
                } else {
                    let first = *since.get_or_insert(now);
                    unknown = match first == now {
                        true => Duration::ZERO,
                        false => unknown + gap.saturating_sub(LONGEST_GAP),
                    };
                    let lasted = now.duration_since(first) - unknown;
                    let patience = if earned { PATIENCE } else { FIRST_PATIENCE };
                    let left = trust.refused(now);
                    prop_assert_eq!(left.is_none(), lasted >= patience);
                    prop_assert_eq!(left.unwrap_or_default(), patience.saturating_sub(lasted));
                }
                gap = Duration::from_millis(millis);
                now += gap;
            }
        }
    }
}
