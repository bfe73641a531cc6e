//! Whether refusals that one event may be to blame for are everybody's. Pure.
//!
//! An odd event must not stop its route, and what is wrong for every event must not bury them all as dead letters. What becomes of others
//! tells the two apart, over several requests: those of a quiet route have few events, and one partition's may be all of one index.

use super::answer::{Outcome, PRIVILEGES};

/// So many in a row are no odd ones among good ones. A few are taken at their word, or they would stop the route for ever.
pub(crate) const FLOOD: usize = 100;

/// What this process has seen.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// Whether an event was taken, ever.
    any_taken: bool,
    /// Since an event was taken.
    forbidden: Forbidden,
    /// Events with a wrong index, beyond as many as were taken meanwhile.
    misdirected: usize,
    /// Requests of a single event that could not be parsed, since an event was taken.
    unparsed: usize,
}

/// Events that name an index which the user may not write to.
#[derive(Debug, Default)]
pub struct Forbidden {
    events: usize,
    index: String,
    several: bool,
    /// What was said of the last.
    words: String,
}

impl Forbidden {
    /// One more event, to this index.
    pub(super) fn add(&mut self, index: &str, words: &str) {
        self.join(Forbidden {
            events: 1,
            index: index.to_owned(),
            several: false,
            words: words.to_owned(),
        });
    }

    fn join(&mut self, later: Forbidden) {
        if later.events == 0 {
            return;
        }
        let both = self.events > 0 && self.index != later.index;
        *self = Forbidden {
            events: self.events + later.events,
            several: self.several || later.several || both,
            ..later
        };
    }

    /// One index alone may be an odd one, however many events go there.
    fn is_everybodys(&self) -> bool {
        self.several && self.events >= FLOOD
    }
}

/// Events with something wrong with an index whose name is made from them.
#[derive(Debug, Default)]
pub struct Misdirected {
    pub(super) events: Vec<usize>,
    /// What is wrong with the last, and what to do.
    pub(super) problem: String,
}

impl Misdirected {
    pub(super) fn add(&mut self, event: usize, problem: String) {
        self.events.push(event);
        self.problem = problem;
    }
}

impl Flood {
    /// Takes note of what became of the events of a request. Misdirected ones stay rejected where others are taken; where it is not known
    /// yet whether any is, they are sent again. An error is for a person: what is wrong with all, and what to do.
    pub(super) fn judge(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        let misdirected = std::mem::take(&mut outcome.misdirected);
        self.forbidden.join(std::mem::take(&mut outcome.forbidden));
        self.misdirected += misdirected.events.len();
        self.taken(outcome.taken);
        if self.forbidden.is_everybodys() {
            let Forbidden { events, words, .. } = &self.forbidden;
            return Err(format!(
                "{events} events in a row were refused, the last with {words}; {PRIVILEGES}"
            ));
        }
        let answer = &mut outcome.answer;
        if misdirected.events.is_empty() || (self.any_taken && self.misdirected < FLOOD) {
            return Ok(());
        }
        if self.any_taken || answer.retry.is_empty() {
            return Err(misdirected.problem);
        }
        self.misdirected -= misdirected.events.len();
        answer
            .rejected
            .retain(|event| misdirected.events.binary_search(&event.index).is_err());
        answer.retry.extend(misdirected.events);
        answer.retry.sort_unstable();
        Ok(())
    }

    fn taken(&mut self, events: usize) {
        self.misdirected = self.misdirected.saturating_sub(events);
        if events > 0 {
            self.any_taken = true;
            self.forbidden = Forbidden::default();
            self.unparsed = 0;
        }
    }

    /// Takes note of a request of one event that could not be parsed: whether that is the event's own fault.
    pub(super) fn is_its_own_fault(&mut self) -> bool {
        self.unparsed += 1;
        self.unparsed < FLOOD
    }
}
