//! What a program is compiled with besides its expressions.

use std::collections::BTreeMap;
use std::fmt;

use crate::Limits;

/// Limits and secrets.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub limits: Limits,
    pub secrets: Secrets,
}

impl From<Limits> for Settings {
    fn from(limits: Limits) -> Settings {
        Settings {
            limits,
            secrets: Secrets::default(),
        }
    }
}

/// The keys of keyed hashes, by name. `Debug` prints the names alone, and no error ever holds a key.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Vec<u8>>);

impl Secrets {
    pub fn insert(&mut self, name: impl Into<String>, key: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), key.into());
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
