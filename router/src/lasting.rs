//! What is trouble only where it lasts. Pure: the time is told to it.

use std::time::{Duration, Instant};

/// Since when it has been so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lasting(Option<Instant>);

impl Lasting {
    /// It is so now, and has been since then at least. Answers whether it has lasted for so long.
    pub fn lasts(&mut self, since: Instant, now: Instant, at_least: Duration) -> bool {
        now.duration_since(*self.0.get_or_insert(since)) >= at_least
    }

    /// It is not so now.
    pub fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_its_beginning_to_its_end() {
        let (mut lasting, start) = (Lasting::default(), Instant::now());
        let (patience, seconds) = (Duration::from_secs(5), Duration::from_secs);
        let mut lasts =
            |since, now| lasting.lasts(start + seconds(since), start + seconds(now), patience);
        assert!(!lasts(0, 0));
        assert!(!lasts(4, 4));
        assert!(lasts(5, 5), "the first one counts");
        lasting.is_over();
        let mut lasts =
            |since, now| lasting.lasts(start + seconds(since), start + seconds(now), patience);
        assert!(!lasts(6, 6));
        lasting.is_over();
        assert!(
            lasting.lasts(start, start + seconds(9), patience),
            "one that took long"
        );
    }
}
