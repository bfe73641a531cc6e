//! Which partitions wait for the metastore, and what a round of registration takes next. It asks nobody anything.
//!
//! A call adds its partitions all or none. So where a chunk is refused, the caller asks for each alone, and what is refused alone is set
//! aside for the rest of the round. Later rounds try it again after everything else: whatever the metastore refuses, and however much of
//! it, holds up no other partition.

use std::collections::{BTreeSet, HashSet};

/// Partitions that wait for the metastore at most, and that are listed at the start.
pub const MAX_PENDING: usize = 10_000;

/// Partitions in one call.
pub(super) const CHUNK: usize = 100;

/// Refusals that end a round: each was a call of its own.
pub(super) const MOST_REFUSED: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: BTreeSet<String>,
    /// Refused alone in earlier rounds.
    refused: BTreeSet<String>,
    /// Refused alone in this round: not taken again before the next one.
    aside: BTreeSet<String>,
    /// The first of those, and the metastore's words.
    first: Option<(String, String)>,
    /// Partitions that this process registered: they are not asked for again.
    known: HashSet<String>,
    /// The location is to be listed.
    pub(super) list: bool,
    /// It was, in this round.
    listed: bool,
}

/// What a round does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Add(Vec<String>),
    /// List the location.
    List,
    End,
}

impl Pending {
    /// What an earlier process has left pending is found by listing.
    pub(super) fn at_start() -> Pending {
        Pending {
            list: true,
            ..Pending::default()
        }
    }

    /// A file of this partition was published. Answers whether that is news.
    pub(super) fn publish(&mut self, partition: &str) -> bool {
        if self.known.contains(partition) || self.contains(partition) {
            return false;
        }
        if self.len() < MAX_PENDING {
            self.waiting.insert(partition.to_owned());
        } else {
            self.list = true;
        }
        true
    }

    pub(super) fn begin_list(&mut self) {
        self.list = false;
        self.listed = true;
    }

    /// The location holds this partition. There is room for one listing beside what was published: all of that may have been refused.
    pub(super) fn found(&mut self, partition: String) {
        let is_new = !self.known.contains(&partition) && !self.contains(&partition);
        if is_new && self.len() < 2 * MAX_PENDING {
            self.waiting.insert(partition);
        }
    }

    fn contains(&self, partition: &str) -> bool {
        let mut sets = [&self.waiting, &self.refused, &self.aside].into_iter();
        sets.any(|set| set.contains(partition))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.refused.len() + self.aside.len()
    }

    /// Those that the metastore refused when it was asked last.
    pub(super) fn refused(&self) -> usize {
        self.refused.len() + self.aside.len()
    }

    /// Whether all is registered that was published.
    pub(super) fn is_done(&self) -> bool {
        self.len() == 0 && !self.list
    }

    pub(super) fn begin_round(&mut self) {
        self.refused.append(&mut self.aside);
        self.first = None;
        self.listed = false;
    }

    /// The greatest names first: they are the newest where the first key is a date. The location is listed only when nothing else waits,
    /// and once a round where refused ones fill the list: that may be many requests.
    pub(super) fn next(&self) -> Next {
        let chunk = |set: &BTreeSet<String>| set.iter().rev().take(CHUNK).cloned().collect();
        if self.aside.len() >= MOST_REFUSED {
            Next::End
        } else if !self.waiting.is_empty() {
            Next::Add(chunk(&self.waiting))
        } else if self.list && !(self.listed && self.len() >= MAX_PENDING) {
            Next::List
        } else if !self.refused.is_empty() {
            Next::Add(chunk(&self.refused))
        } else {
            Next::End
        }
    }

    pub(super) fn registered(&mut self, partition: String) {
        self.waiting.remove(&partition);
        self.refused.remove(&partition);
        if self.known.len() >= MAX_PENDING {
            // Registering again does no harm.
            self.known.clear();
        }
        self.known.insert(partition);
    }

    /// Nothing that was registered is there any more.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.list = true;
    }

    /// The metastore refused this partition alone, in these words.
    pub(super) fn set_aside(&mut self, partition: String, words: String) {
        self.waiting.remove(&partition);
        self.refused.remove(&partition);
        self.first.get_or_insert_with(|| (partition.clone(), words));
        self.aside.insert(partition);
    }

    /// What was refused in this round, for a person.
    pub(super) fn refusal(&self) -> Option<String> {
        let (partition, words) = self.first.as_ref()?;
        let others = match self.aside.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        Some(format!(
            "adding partition {partition} was refused{others} ({words}); the files are there, only the metastore does not know the partition, and it is asked again and again; its log has the reason: where the name is too long for its database, or has characters that it does not take, shorten such values in the route or drop their events"
        ))
    }
}
