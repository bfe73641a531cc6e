//! Compares what a sink holds with what it must hold, by id and by content.
//!
//! ```no_run
//! # use keystone_tests::{Events, Judge, Kafka, kafka::Isolation};
//! # let (events, kafka) = (Events::new(1, 1000), Kafka::shared()?);
//! let mut judge = Judge::new(events.expected(), "event_id");
//! judge.topic(kafka, "out", Isolation::ReadCommitted)?;
//! judge.verdict().assert_exact();
//! # Ok::<(), keystone_tests::Error>(())
//! ```
//!
//! Content is compared as text: member order, digits and escapes count. (What a store gives back as columns or as a parsed document is
//! written as compact JSON first.)

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::kafka::Isolation;
use crate::{Doing, Elasticsearch, Error, Kafka, Result, S3};

/// How many ids of each kind of mistake are kept and shown.
const SHOWN: usize = 5;

/// Takes down what a sink holds.
pub struct Judge {
    expected: HashMap<String, Expected>,
    id_field: String,
    delivered: u64,
    unexpected: BTreeMap<String, u64>,
    wrong: BTreeMap<String, Wrong>,
}

struct Expected {
    content: String,
    seen: u64,
}

/// An event that was delivered with another content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub expected: String,
    pub found: String,
}

/// What is wrong with a sink's content, ids in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many different ids should be there.
    pub expected: u64,
    /// How many records, documents or rows are there.
    pub delivered: u64,
    pub lost: Vec<String>,
    /// Id and how often it is there; only ids that are expected.
    pub duplicated: Vec<(String, u64)>,
    /// Id (or the content, where it has no id) and how often it is there.
    pub unexpected: Vec<(String, u64)>,
    /// One of the wrong contents of each id.
    pub wrong: Vec<(String, Wrong)>,
}

impl Judge {
    /// `expected` is content by id; `id_field` is the member of a delivered object that holds the id.
    pub fn new(expected: HashMap<String, String>, id_field: &str) -> Judge {
        let expected = expected
            .into_iter()
            .map(|(id, content)| (id, Expected { content, seen: 0 }));
        Judge {
            expected: expected.collect(),
            id_field: id_field.to_owned(),
            delivered: 0,
            unexpected: BTreeMap::new(),
            wrong: BTreeMap::new(),
        }
    }

    /// Takes down one delivered JSON text. What has no id counts as unexpected under its own text.
    pub fn saw(&mut self, content: &str) {
        let parsed: Option<Value> = serde_json::from_str(content).ok();
        let id = parsed
            .as_ref()
            .and_then(|value| value.get(&self.id_field)?.as_str());
        self.saw_id(id.unwrap_or(content), content);
    }

    /// Takes down one delivered event whose id is known.
    pub fn saw_id(&mut self, id: &str, content: &str) {
        self.delivered += 1;
        let Some(expected) = self.expected.get_mut(id) else {
            *self.unexpected.entry(id.to_owned()).or_default() += 1;
            return;
        };
        expected.seen += 1;
        if expected.content != content {
            let wrong = Wrong {
                expected: expected.content.clone(),
                found: content.to_owned(),
            };
            self.wrong.entry(id.to_owned()).or_insert(wrong);
        }
    }

    /// Takes down a topic, read to its present end; committed records only after every transaction on it has ended.
    pub fn topic(&mut self, kafka: &Kafka, topic: &str, isolation: Isolation) -> Result<()> {
        if isolation == Isolation::ReadCommitted {
            kafka.wait_transactions(topic)?;
        }
        kafka.read(topic, isolation, |record| match record.value {
            Some(value) => self.saw(&String::from_utf8_lossy(&value)),
            None => self.saw_id(
                &format!(
                    "the tombstone at {topic}-{}@{}",
                    record.partition, record.offset
                ),
                "",
            ),
        })
    }

    /// Takes down an index, or a pattern of indices.
    pub fn elasticsearch(&mut self, server: &Elasticsearch, index: &str) -> Result<()> {
        server.search(index, |document| self.saw(&document.source.to_string()))
    }

    /// Takes down all Parquet files below a directory, as Hive reads it: what begins with a dot or an underscore is not there; any other
    /// file must be a whole Parquet file.
    pub fn parquet(&mut self, directory: &Path) -> Result<()> {
        for file in visible_files(directory)? {
            let content = Bytes::from(std::fs::read(&file)?);
            self.parquet_file(content)
                .doing(format!("reading {}", file.display()))?;
        }
        Ok(())
    }

    /// The same for the objects under a prefix.
    pub fn parquet_s3(&mut self, s3: &S3, prefix: &str) -> Result<()> {
        for key in visible_objects(s3, prefix)? {
            self.parquet_file(s3.get(&key)?)
                .doing(format!("reading {key}"))?;
        }
        Ok(())
    }

    fn parquet_file(&mut self, content: Bytes) -> Result<()> {
        for row in parquet_rows(content)? {
            self.saw(&row);
        }
        Ok(())
    }

    pub fn verdict(self) -> Verdict {
        let mut lost = Vec::new();
        let mut duplicated = Vec::new();
        let count = self.expected.len() as u64;
        for (id, expected) in self.expected {
            match expected.seen {
                0 => lost.push(id),
                1 => {}
                seen => duplicated.push((id, seen)),
            }
        }
        lost.sort();
        duplicated.sort();
        Verdict {
            expected: count,
            delivered: self.delivered,
            lost,
            duplicated,
            unexpected: self.unexpected.into_iter().collect(),
            wrong: self.wrong.into_iter().collect(),
        }
    }
}

impl Verdict {
    /// Every expected event once, exactly as projected, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.is_complete() && self.duplicated.is_empty()
    }

    /// Every expected event at least once, exactly as projected, and nothing else.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.unexpected.is_empty() && self.wrong.is_empty()
    }

    /// How many deliveries were repetitions.
    pub fn repeated(&self) -> u64 {
        self.duplicated.iter().map(|(_, seen)| seen - 1).sum()
    }

    #[track_caller]
    pub fn assert_exact(&self) {
        assert!(
            self.is_exact(),
            "the sink does not hold exactly what it should:\n{self}"
        );
    }

    /// At least once: duplicates are allowed.
    #[track_caller]
    pub fn assert_complete(&self) {
        assert!(
            self.is_complete(),
            "the sink does not hold all it should, or more:\n{self}"
        );
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "expected {}, delivered {}: {} lost, {} duplicated ({} repetitions), {} unexpected, {} wrong",
            self.expected,
            self.delivered,
            self.lost.len(),
            self.duplicated.len(),
            self.repeated(),
            self.unexpected.len(),
            self.wrong.len()
        )?;
        for id in self.lost.iter().take(SHOWN) {
            writeln!(out, "  lost       {id}")?;
        }
        for (id, seen) in self.duplicated.iter().take(SHOWN) {
            writeln!(out, "  duplicated {id} ({seen} times)")?;
        }
        for (id, seen) in self.unexpected.iter().take(SHOWN) {
            writeln!(out, "  unexpected {id} ({seen} times)")?;
        }
        for (id, wrong) in self.wrong.iter().take(SHOWN) {
            writeln!(
                out,
                "  wrong      {id}\n    expected {}\n    found    {}",
                wrong.expected, wrong.found
            )?;
        }
        Ok(())
    }
}

/// The files below a directory that Hive sees, sorted: no part of their path below the directory is hidden.
pub fn visible_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).doing(format!("listing {}", directory.display()))? {
        let entry = entry?;
        if is_hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => files.extend(visible_files(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    Ok(files)
}

/// The keys of the objects under a prefix that Hive sees, sorted.
pub fn visible_objects(s3: &S3, prefix: &str) -> Result<Vec<String>> {
    let visible = |key: &String| {
        let below = key.strip_prefix(prefix).unwrap_or(key);
        !below.split('/').any(is_hidden)
    };
    Ok(s3.list(prefix)?.into_iter().filter(visible).collect())
}

/// The rows of a Parquet file, each as compact JSON in the order of its columns, nulls included. A file cut short is an error.
pub fn parquet_rows(content: Bytes) -> Result<Vec<String>> {
    let mut json = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(&mut json);
    for batch in ParquetRecordBatchReaderBuilder::try_new(content)?.build()? {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    drop(writer);
    let text = String::from_utf8(json).map_err(|_| Error::new("a row is not valid UTF-8"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

#[cfg(test)]
mod tests;
