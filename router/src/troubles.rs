//! What is wrong now, for `/readyz`, and what went wrong lately, for `/status`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use keystone_sinks::telling::Telling;
use tracing::{info, warn};

use crate::state::lock;

/// How many errors `/status` remembers.
const REMEMBERED_ERRORS: usize = 20;
/// Trouble that lasts is logged again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Something that is wrong now, until it is withdrawn.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub text: String,
    telling: Telling,
    /// Told by [`Troubles::tell`]: it outlives every [`Complaint`].
    lasting: bool,
}

/// The troubles of a worker, one for each part of it, and its last errors.
#[derive(Default)]
pub struct Troubles {
    state: Mutex<State>,
    errors: Mutex<VecDeque<(SystemTime, String)>>,
}

#[derive(Default)]
struct State {
    now: BTreeMap<&'static str, Trouble>,
    /// How many complaints each part has.
    complaints: BTreeMap<&'static str, usize>,
}

/// Held by one who meets a trouble: a batch that is tried again. When the last complaint of a part is dropped, its trouble is withdrawn,
/// however the batch has ended: one that was abandoned will not see the part work again.
pub struct Complaint<'t> {
    troubles: &'t Troubles,
    part: &'static str,
}

impl Complaint<'_> {
    /// As [`Troubles::tell`], for as long as there are complaints.
    pub fn tell(&self, text: String) {
        self.troubles.set(self.part, text, false);
    }
}

impl Drop for Complaint<'_> {
    fn drop(&mut self) {
        self.troubles.let_go(self.part, |state| {
            if let Some(count) = state.complaints.get_mut(self.part) {
                *count -= 1;
            }
        });
    }
}

impl Troubles {
    /// Says that a part of the worker is in trouble, until [`Troubles::all_is_well`]. The text is for a person. It is logged at once, and
    /// now and then while the trouble lasts: many batches meet the same one.
    pub fn tell(&self, part: &'static str, text: String) {
        self.set(part, text, true);
    }

    /// For one who may meet the trouble of a part, and may end before it is over.
    pub fn complaint(&self, part: &'static str) -> Complaint<'_> {
        *lock(&self.state).complaints.entry(part).or_default() += 1;
        Complaint {
            troubles: self,
            part,
        }
    }

    fn set(&self, part: &'static str, text: String, lasting: bool) {
        self.remember(format!("{part}: {text}"));
        let now = Instant::now();
        let is_due = {
            let mut state = lock(&self.state);
            let trouble = state.now.entry(part).or_insert_with(|| Trouble {
                since: now,
                text: String::new(),
                telling: Telling::default(),
                lasting: false,
            });
            trouble.lasting |= lasting;
            trouble.text.clone_from(&text);
            trouble.telling.is_due(now, LOG_INTERVAL)
        };
        if is_due {
            warn!("{part}: {text}; it is tried again");
        }
    }

    /// The part works again.
    pub fn all_is_well(&self, part: &'static str) {
        // Not locked while it is logged: a log that nobody reads may hold this up, and `/readyz` asks for the troubles.
        let removed = lock(&self.state).now.remove(part);
        if let Some(trouble) = removed {
            let seconds = trouble.since.elapsed().as_secs_f64();
            info!("{part}: works again after {seconds:.1} s");
        }
    }

    /// Its cause may have moved away with a partition: from here on the trouble lasts no longer than the complaints of the part. Who meets
    /// it again says so again.
    pub fn doubt(&self, part: &'static str) {
        self.let_go(part, |state| {
            if let Some(trouble) = state.now.get_mut(part) {
                trouble.lasting = false;
            }
        });
    }

    /// Changes what a trouble is held by, and withdraws it if nothing holds it any more.
    fn let_go(&self, part: &'static str, change: impl FnOnce(&mut State)) {
        let withdrawn = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.take_unheld(part)
        };
        if let Some(trouble) = withdrawn {
            let seconds = trouble.since.elapsed().as_secs_f64();
            info!(
                "{part}: was in trouble for {seconds:.1} s; nothing of this worker's waits for it any more"
            );
        }
    }

    /// What is wrong now, by part.
    pub fn now(&self) -> BTreeMap<&'static str, Trouble> {
        lock(&self.state).now.clone()
    }

    /// Keeps an error for `/status`; a repetition of the last one is not kept twice.
    pub fn remember(&self, text: String) {
        let mut errors = lock(&self.errors);
        if errors.back().is_some_and(|(_, last)| *last == text) {
            return;
        }
        if errors.len() == REMEMBERED_ERRORS {
            errors.pop_front();
        }
        errors.push_back((SystemTime::now(), text));
    }

    /// Oldest first.
    pub fn last_errors(&self) -> Vec<(SystemTime, String)> {
        lock(&self.errors).iter().cloned().collect()
    }
}

impl State {
    /// Takes the trouble of a part out if it has no complaint left and was not told to last.
    fn take_unheld(&mut self, part: &str) -> Option<Trouble> {
        let has_complaints = self.complaints.get(part).is_some_and(|count| *count > 0);
        let trouble = self.now.get(part)?;
        if trouble.lasting || has_complaints {
            return None;
        }
        self.now.remove(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(troubles: &Troubles) -> Vec<(&'static str, String)> {
        let now = troubles.now().into_iter();
        now.map(|(part, trouble)| (part, trouble.text)).collect()
    }

    #[test]
    fn a_trouble_lasts_as_long_as_the_last_complaint() {
        let troubles = Troubles::default();
        let (first, second) = (troubles.complaint("sink"), troubles.complaint("sink"));
        let other = troubles.complaint("dead letters");
        first.tell("away".to_owned());
        second.tell("still away".to_owned());
        other.tell("no topic".to_owned());
        drop(first);
        let (sink, dead) = (
            ("sink", "still away".to_owned()),
            ("dead letters", "no topic".to_owned()),
        );
        assert_eq!(told(&troubles), [dead.clone(), sink]);
        drop(second);
        assert_eq!(told(&troubles), [dead]);
        drop(other);
        assert_eq!(told(&troubles), []);
    }

    #[test]
    fn a_part_that_works_is_well_and_may_be_in_trouble_again() {
        let troubles = Troubles::default();
        let complaint = troubles.complaint("sink");
        complaint.tell("away".to_owned());
        troubles.all_is_well("sink");
        assert_eq!(told(&troubles), []);
        complaint.tell("away again".to_owned());
        assert_eq!(told(&troubles), [("sink", "away again".to_owned())]);
        drop(complaint);
        assert_eq!(told(&troubles), []);
    }

    #[test]
    fn what_others_tell_outlives_complaints_until_it_is_doubted() {
        let troubles = Troubles::default();
        let complaint = troubles.complaint("sink");
        complaint.tell("away".to_owned());
        troubles.tell("sink", "all is read again".to_owned());
        drop(complaint);
        let lasting = [("sink", "all is read again".to_owned())];
        assert_eq!(told(&troubles), lasting);
        let complaint = troubles.complaint("sink");
        troubles.doubt("sink");
        assert_eq!(told(&troubles), lasting, "somebody meets it still");
        drop(complaint);
        assert_eq!(told(&troubles), []);
        troubles.tell("sink", "away".to_owned());
        troubles.doubt("sink");
        assert_eq!(told(&troubles), []);
    }

    #[test]
    fn the_last_errors_are_kept_and_repetitions_are_not() {
        let troubles = Troubles::default();
        for number in 0..REMEMBERED_ERRORS + 5 {
            troubles.remember(number.to_string());
            troubles.remember(number.to_string());
        }
        let kept: Vec<String> = troubles
            .last_errors()
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        let expected: Vec<String> = (5..REMEMBERED_ERRORS + 5)
            .map(|it| it.to_string())
            .collect();
        assert_eq!(kept, expected);
    }
}
