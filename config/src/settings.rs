//! The checked values of one route, each with its origin.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::kind;
use crate::problem::{Origin, Problem};
use crate::secret::{HIDDEN, Secret, without_url_secrets, without_words_of};

/// One line of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub key: String,
    /// The value; `***` for a secret; `${file:…}` where the value is in a file; for a default made of other options, how it is made.
    pub shown: String,
    pub origin: Origin,
}

/// A value in use.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Absent for a default made of other options.
    pub(crate) text: Option<String>,
    pub(crate) shown: String,
    /// What must not be printed: the text, and contents of files within it. Empty where nothing is secret.
    pub(crate) secrets: Vec<String>,
    /// Errors may quote a part of it: a file's content is in the value, and nobody knew of the option that it is secret.
    pub(crate) quoted: bool,
    pub(crate) origin: Origin,
    /// The prefix below which the key is handed on.
    pub(crate) prefix: Option<&'static str>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.key, self.shown, self.origin)
    }
}

/// The checked values of one route: what is here parses as its kind, and what a section in use requires is here.
///
/// The getters panic for a key that no section declares, and those that answer with a plain value also where the option is absent:
/// both are mistakes of the program, not of the user.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In the order of the table.
    entries: Vec<Entry>,
    /// Where each declared key is in `entries`, if it has a value.
    places: HashMap<String, Option<usize>>,
    warnings: Vec<String>,
}

impl Settings {
    pub(crate) fn new(
        declared: impl Iterator<Item = String>,
        entries: Vec<Entry>,
        warnings: Vec<String>,
    ) -> Settings {
        let mut places: HashMap<String, Option<usize>> = declared.map(|key| (key, None)).collect();
        for (place, entry) in entries.iter().enumerate() {
            places.insert(entry.key.clone(), Some(place));
        }
        Settings {
            entries,
            places,
            warnings,
        }
    }

    /// The same with some keys absent.
    pub fn without(&self, leave_out: impl Fn(&str) -> bool) -> Settings {
        let mut entries = self.entries.clone();
        entries.retain(|entry| !leave_out(&entry.key));
        let keys = self.places.keys().cloned();
        Settings::new(keys, entries, self.warnings.clone())
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match self.places.get(key) {
            Some(place) => place.map(|place| &self.entries[place]),
            None => panic!("option `{key}` is not declared in any section of the table"),
        }
    }

    /// The value as text, for any kind.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entry(key)?.text.as_deref()
    }

    /// The value as text, of an option that always has one. Panics if it is absent.
    pub fn get(&self, key: &str) -> &str {
        self.text(key)
            .unwrap_or_else(|| panic!("option `{key}` has no value"))
    }

    /// Panics if the option is absent or no `Bool`, as do the next three.
    pub fn flag(&self, key: &str) -> bool {
        match self.get(key) {
            "true" => true,
            "false" => false,
            _ => panic!("option `{key}` is no Bool"),
        }
    }

    pub fn count(&self, key: &str) -> u64 {
        self.number(key, kind::number)
    }

    /// In bytes, whatever unit the user wrote.
    pub fn bytes(&self, key: &str) -> u64 {
        self.number(key, kind::bytes)
    }

    pub fn millis(&self, key: &str) -> Duration {
        Duration::from_millis(self.number(key, kind::number))
    }

    fn number(&self, key: &str, read: fn(&str) -> Option<u128>) -> u64 {
        let number = read(self.get(key)).and_then(|number| u64::try_from(number).ok());
        number.unwrap_or_else(|| panic!("option `{key}` is no number"))
    }

    /// The items without the white space around them; empty where the option is absent.
    pub fn list(&self, key: &str) -> Vec<String> {
        self.text(key).map(kind::list).unwrap_or_default()
    }

    pub fn maybe_count(&self, key: &str) -> Option<u64> {
        self.text(key).map(|_| self.count(key))
    }

    pub fn maybe_bytes(&self, key: &str) -> Option<u64> {
        self.text(key).map(|_| self.bytes(key))
    }

    /// The value of a secret option.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.text(key).map(Secret::new)
    }

    /// Whether the user set the option, in any layer.
    pub fn is_set(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.origin.is_user())
    }

    /// Whether the value, or a part of it, must not be printed: the option is secret, or what a file holds went into it.
    pub fn is_hidden(&self, key: &str) -> bool {
        self.entry(key)
            .is_some_and(|entry| !entry.secrets.is_empty())
    }

    /// Where the value comes from; `Origin::Default` where there is none.
    pub fn origin(&self, key: &str) -> Origin {
        self.entry(key)
            .map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// What is handed on below a prefix (`kafka.`): names without the prefix, and values, secrets included. In order of name.
    pub fn passthrough(&self, prefix: &str) -> Vec<(String, String)> {
        let below = self
            .entries
            .iter()
            .filter(|entry| entry.prefix == Some(prefix));
        below
            .filter_map(|entry| Some((entry.key[prefix.len()..].to_owned(), entry.text.clone()?)))
            .collect()
    }

    /// A problem with an option that its owner found when it was built: adds the origin, and hides secrets that the text echoes.
    /// The key may be one that is handed on (`kafka.ssl.ca.location`), or one that nobody set.
    pub fn problem(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let place = self.places.get(key).copied().flatten();
        Problem {
            key: key.into(),
            origin: place.map(|place| self.entries[place].origin.clone()),
            problem: self.redact(&problem.into()),
            hint: self.redact(&hint.into()),
        }
    }

    /// A text with each secret value of four characters or more replaced by `***`, and each such word of a value that comes from a file:
    /// for messages of libraries, and for errors about a part of a value.
    pub fn redact(&self, text: &str) -> String {
        let mut secrets: Vec<&String> = self
            .entries
            .iter()
            .flat_map(|entry| &entry.secrets)
            .collect();
        // The longest first: one secret may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = text.to_owned();
        for secret in secrets {
            if secret.chars().count() >= 4 && text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        let quoted = self.entries.iter().filter(|entry| entry.quoted);
        for value in quoted.filter_map(|entry| entry.text.as_deref()) {
            text = without_words_of(value, &text);
        }
        // After the secrets, which may look like URLs themselves.
        without_url_secrets(&text)
    }

    /// What is worth knowing but wrong with nothing: options without effect.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every value in use, in the order of the table; keys that are handed on stand after the options of their section, in order of name.
    pub fn effective(&self) -> Vec<Effective> {
        let show = |entry: &Entry| Effective {
            key: entry.key.clone(),
            shown: entry.shown.clone(),
            origin: entry.origin.clone(),
        };
        self.entries.iter().map(show).collect()
    }

    /// Twelve hexadecimal digits that differ between different effective configurations, whatever the options in `but` are. Of a secret
    /// only enters that it is set.
    pub fn hash(&self, but: &[&str]) -> String {
        let mut sha = Sha256::new();
        let counted = |entry: &&Entry| !but.contains(&entry.key.as_str());
        for entry in self.entries.iter().filter(counted) {
            for part in [&entry.key, &entry.shown] {
                sha.update((part.len() as u64).to_be_bytes());
                sha.update(part.as_bytes());
            }
        }
        sha.finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests;
