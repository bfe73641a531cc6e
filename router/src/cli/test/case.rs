//! A case of a route: a folder with what goes in, and what is expected to come out.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::difference::{as_expected, difference, same_dead_letter};
use crate::cli::lines::{self, numbered};
use crate::cli::trial::{Outcome, OwnedRecord, Tally, Trial};
use crate::decision::Steps;

const INPUT: &str = "input.ndjson";
const DELIVERED: &str = "delivered.ndjson";
const DEAD_LETTERS: &str = "dead-letters.ndjson";

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    folder: PathBuf,
}

/// What became of a case.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) tally: Tally,
    /// What is not as expected, for a person; empty where all is.
    pub(super) differences: String,
    /// The expectations were written anew.
    pub(super) updated: bool,
}

/// The folder of a route's cases: `plays.tests` beside `plays.properties`.
pub(super) fn folder_of(route: &Path) -> PathBuf {
    route.with_extension("tests")
}

/// The cases of a route in order of name; a mistake in words where there is none.
pub(super) fn cases_of(route: &Path) -> Result<Vec<Case>, String> {
    let folder = folder_of(route);
    let none = || {
        format!(
            "it has no cases: make a folder {} with an {INPUT}, one event a line, and let --update write what comes out",
            folder.join("<case>").display()
        )
    };
    if !folder.is_dir() {
        return Err(none());
    }
    let failed = |error: std::io::Error| format!("{} can't be read: {error}", folder.display());
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') {
            cases.push(Case {
                name: name.into_owned(),
                folder: path,
            });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    match cases.is_empty() {
        true => Err(none()),
        false => Ok(cases),
    }
}

impl Case {
    /// Runs the case. `topic` is that of events that don't name one. Fails with what can't be read or written.
    pub(super) fn run(&self, steps: &Steps, topic: &str, update: bool) -> Result<Ran, String> {
        let input = self.read(INPUT)?.ok_or_else(|| {
            format!(
                "{} is missing: it holds the case's events, one a line",
                self.folder.join(INPUT).display()
            )
        })?;
        let (delivered, dead_letters, tally) = self.decide(&input, steps, topic)?;
        let mut ran = Ran {
            tally,
            differences: String::new(),
            updated: false,
        };
        let same: fn(&Value, &Value) -> bool = |expected, found| expected == found;
        for (file, found, same) in [
            (DELIVERED, delivered, same),
            (DEAD_LETTERS, dead_letters, same_dead_letter),
        ] {
            let expected = match self.expected(file) {
                Ok(expected) => expected,
                Err(_) if update => vec![Value::from("not JSON")],
                Err(error) => return Err(error),
            };
            let Some(text) = difference(&expected, &found, same) else {
                continue;
            };
            if update {
                self.write(file, &as_expected(&expected, &found, same))?;
                ran.updated = true;
            } else {
                ran.differences
                    .push_str(&format!("{file} (- expected, + found):\n{text}"));
            }
        }
        Ok(ran)
    }

    /// Delivered events, dead letters, and how many came to what.
    fn decide(
        &self,
        input: &[u8],
        steps: &Steps,
        topic: &str,
    ) -> Result<(Vec<Value>, Vec<Value>, Tally), String> {
        let mut trial = Trial::new(steps);
        let (mut delivered, mut dead_letters) = (Vec::new(), Vec::new());
        for (offset, (number, line)) in numbered(input).enumerate() {
            let default = OwnedRecord {
                topic: topic.to_owned(),
                offset: offset as i64,
                ..OwnedRecord::default()
            };
            let record = lines::read_input(line, default).map_err(|error| {
                format!("{}:{number}: {error}", self.folder.join(INPUT).display())
            })?;
            match trial.run(&record) {
                Outcome::Delivered(payload) => delivered.push(lines::delivered(payload)),
                Outcome::DeadLetter(stage, reason) => {
                    let value = record.value.as_deref();
                    dead_letters.push(lines::dead_letter(stage, &reason, value));
                }
                Outcome::Filtered | Outcome::Discarded(_) => {}
            }
        }
        Ok((delivered, dead_letters, trial.tally))
    }

    /// The lines of a file of expectations; none where there is no file.
    fn expected(&self, file: &str) -> Result<Vec<Value>, String> {
        let bytes = self.read(file)?.unwrap_or_default();
        numbered(&bytes)
            .map(|(number, line)| {
                serde_json::from_slice(line).map_err(|error| {
                    let path = self.folder.join(file);
                    format!("{}:{number}: not JSON: {error}", path.display())
                })
            })
            .collect()
    }

    /// `None` where there is no such file.
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.folder.join(file);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} can't be read: {error}", path.display())),
        }
    }

    /// Writes expectations. No dead letters are no file; no delivered events are an empty one, so that it is there to be seen.
    fn write(&self, file: &str, found: &[Value]) -> Result<(), String> {
        let path = self.folder.join(file);
        let text: String = found.iter().map(|line| format!("{line}\n")).collect();
        let written = if text.is_empty() && file == DEAD_LETTERS {
            std::fs::remove_file(&path)
        } else {
            std::fs::write(&path, text)
        };
        written.map_err(|error| format!("{} can't be written: {error}", path.display()))
    }
}
