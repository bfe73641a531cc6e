//! Trying a route's steps on records, without Kafka and without a sink: what `keystone eval` and `keystone test` share.

use std::borrow::Cow;
use std::fmt;

use keystone_dsl::{Headers, Record};
use keystone_sinks::Stage;

use crate::decision::{Decider, Decision, Steps};
use crate::lane::BAD_HEADER_NAME;

/// A record that owns its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnedRecord {
    /// `None` is a tombstone.
    pub(super) value: Option<Vec<u8>>,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since the epoch.
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: NamedValues,
    /// The name of a header is not UTF-8: none is kept.
    pub(super) has_bad_header: bool,
}

impl OwnedRecord {
    /// The record as an expression sees it, with its payload.
    pub(super) fn borrowed<'r>(&'r self, payload: &'r [u8]) -> Record<'r> {
        Record {
            payload,
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            headers: match self.has_bad_header {
                true => &BadHeaders,
                false => &self.headers,
            },
        }
    }
}

/// Headers in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NamedValues(pub(super) Vec<(String, Option<Vec<u8>>)>);

impl Headers for NamedValues {
    fn last(&self, name: &str) -> Result<Option<&[u8]>, String> {
        let found = self.0.iter().rfind(|(known, _)| known == name);
        Ok(found.and_then(|(_, value)| value.as_deref()))
    }
}

/// As a worker finds them where a name is not UTF-8.
struct BadHeaders;

impl Headers for BadHeaders {
    fn last(&self, _name: &str) -> Result<Option<&[u8]>, String> {
        Err(BAD_HEADER_NAME.to_owned())
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// What a sink would be given; `None` is a tombstone.
    Delivered(Option<&'a [u8]>),
    Filtered,
    Discarded(Cow<'static, str>),
    DeadLetter(Stage, String),
}

/// Decides about records, and counts.
pub(super) struct Trial<'s> {
    decider: Decider<'s>,
    rewritten: Vec<u8>,
    pub(super) tally: Tally,
}

impl<'s> Trial<'s> {
    pub(super) fn new(steps: &'s Steps) -> Trial<'s> {
        Trial {
            decider: Decider::new(steps),
            rewritten: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(super) fn run<'t>(&'t mut self, record: &'t OwnedRecord) -> Outcome<'t> {
        self.rewritten.clear();
        let decision = match &record.value {
            None => self.decider.tombstone(),
            Some(payload) => self
                .decider
                .decide(&record.borrowed(payload), &mut self.rewritten),
        };
        let outcome = match decision {
            Decision::Filtered => Outcome::Filtered,
            _ if record.has_bad_header => {
                Outcome::DeadLetter(Stage::Decode, BAD_HEADER_NAME.to_owned())
            }
            Decision::Discard(why) => Outcome::Discarded(why),
            Decision::Keep => Outcome::Delivered(record.value.as_deref()),
            Decision::KeepRewritten => Outcome::Delivered(Some(&self.rewritten)),
            Decision::Bury(stage, reason) => Outcome::DeadLetter(stage, reason),
        };
        self.tally.count(&outcome);
        outcome
    }
}

/// How many records came to what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    pub(super) filtered: u64,
    pub(super) discarded: u64,
    /// By stage, in the order of `Stage::ALL`.
    pub(super) dead_letters: [u64; Stage::ALL.len()],
}

impl Tally {
    fn count(&mut self, outcome: &Outcome<'_>) {
        *match outcome {
            Outcome::Delivered(_) => &mut self.delivered,
            Outcome::Filtered => &mut self.filtered,
            Outcome::Discarded(_) => &mut self.discarded,
            Outcome::DeadLetter(stage, _) => &mut self.dead_letters[*stage as usize],
        } += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dead: u64 = self.dead_letters.iter().sum();
        let all = self.delivered + self.filtered + self.discarded + dead;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{all} event{}: {} delivered, {} filtered, {} discarded, {dead} dead letter{}",
            plural(all),
            self.delivered,
            self.filtered,
            self.discarded,
            plural(dead)
        )?;
        let by_stage: Vec<String> = Stage::ALL
            .iter()
            .zip(self.dead_letters)
            .filter(|(_, count)| *count > 0)
            .map(|(stage, count)| format!("{} {count}", stage.as_str()))
            .collect();
        match by_stage.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", by_stage.join(", ")),
        }
    }
}
