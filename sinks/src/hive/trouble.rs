//! When the log is told of trouble that lasts. Pure: the time is told to it.

use std::time::{Duration, Instant};

use crate::telling::Telling;

/// Trouble that lasts is told of again after this time.
const TELL: Duration = Duration::from_secs(30);

/// What the log was told last, and when.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<(&'static str, Telling)>);

impl Trouble {
    /// Whether trouble of this kind is to be told of now: at once where it is new, whoever has noted it before, and now and then while it lasts.
    /// Texts are not compared: they may change with each attempt.
    pub(super) fn is_due(&mut self, reason: &'static str, now: Instant) -> bool {
        let (told, telling) = self.0.get_or_insert((reason, Telling::default()));
        if *told != reason {
            (*told, *telling) = (reason, Telling::default());
        }
        telling.is_due(now, TELL)
    }

    /// It is over. Answers whether the log was told of it.
    pub(super) fn end(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_of_at_once_and_again_while_it_lasts() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert!(!trouble.end(), "there was none");
        assert!(trouble.is_due("unreachable", start));
        assert!(!trouble.is_due("unreachable", start + TELL / 2));
        assert!(trouble.is_due("unreachable", start + TELL));
        assert!(!trouble.is_due("unreachable", start + TELL + TELL / 2));
        assert!(trouble.is_due("mismatch", start + TELL + TELL / 2));
        assert!(trouble.end());
        assert!(!trouble.end(), "it is told of once");
        assert!(trouble.is_due("mismatch", start + 2 * TELL), "it is new");
    }
}
