//! Which partition of the table an event belongs to: `dt=2026-11-23/hour=11`.
//!
//! ```text
//! partition.by := key ("," key)*
//! key          := name                  the field of that name
//!               | name "=" text         text with placeholders in braces
//! placeholder  := "{" path "}"          the field's value: a text, a number or a boolean
//!               | "{" path ":" strftime "}"   the field as an event time, in UTC
//! ```
//!
//! A path is a field, or fields joined by dots. A field that is missing, null or an empty text gives Hive's own
//! `__HIVE_DEFAULT_PARTITION__`, as a dynamic insert of Hive does; a missing or bad *time* makes the event a dead letter, since a
//! partition by time that collects all the bad times hides them. Values are escaped in paths as Hive escapes them.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::schema::{HiveType, parse_type};
use crate::event_time;

/// What Hive puts in the place of a null.
pub const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// What `sink.parquet.partition.by` may be, for error messages.
pub const FORM: &str = "a list like `dt={ts:%Y-%m-%d}, hour={ts:%H}, country`";

/// File systems take 255 bytes for a name; some room is left.
const MAX_SEGMENT: usize = 240;

/// Formats of numbers below 100. Without leading zeros: a partition `hour=07` of an int column is not the `hour=7` that Hive looks for when
/// it drops or writes one.
const SHORT_NUMBERS: [&str; 5] = ["%-m", "%-d", "%-H", "%-M", "%-S"];

/// How a table is partitioned. Without keys, everything lies in the table's own directory.
#[derive(Debug, Clone, Default)]
pub struct Partitioning {
    keys: Vec<Key>,
    /// Top-level fields that placeholders read.
    sources: Vec<String>,
    /// The event times that placeholders format.
    clocks: Vec<Clock>,
    /// Placeholders of times.
    times: usize,
}

#[derive(Debug, Clone)]
struct Key {
    name: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Field(Place),
    Time(Time),
}

/// A field that holds a time.
#[derive(Debug, Clone)]
struct Clock {
    place: Place,
    /// The first partition column that asks for it, for messages.
    column: String,
}

/// Where a placeholder finds its value.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// As written, for messages.
    shown: String,
    /// Index in `sources`.
    source: usize,
    /// Names below the top-level field.
    below: Vec<String>,
}

#[derive(Debug, Clone)]
struct Time {
    /// Among the placeholders of times.
    number: usize,
    /// Index in `clocks`.
    clock: usize,
    format: String,
    /// The text is the same throughout an hour, so it is formatted once an hour of event time.
    hourly: bool,
}

/// What was rendered last; one for each thread that renders.
#[derive(Debug, Default)]
pub struct Cache {
    /// What the clocks say in the event at hand, and since 1970 in whole hours.
    times: Vec<(DateTime<Utc>, i64)>,
    /// The text of each placeholder of a time, and its hour.
    texts: Vec<Option<(i64, String)>>,
    path: String,
    /// It is whole, and no clock has passed an hour since.
    is_current: bool,
}

/// An event's partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered<'c> {
    /// The path below the table's location (`dt=2026-11-23/hour=11`); empty where there are no keys.
    pub path: &'c str,
    /// It is the path of the event before, by the same cache.
    pub is_last: bool,
}

impl Partitioning {
    /// Parses the option's text.
    pub fn parse(text: &str) -> Result<Partitioning, String> {
        let mut partitioning = Partitioning::default();
        for key in split_keys(text)? {
            let key = key.trim();
            let (name, template) = match key.split_once('=') {
                Some((name, template)) => (name.trim(), template.trim().to_owned()),
                None => (key, format!("{{{key}}}")),
            };
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return Err(format!(
                    "`{name}` is not a column name: letters, digits and `_`"
                ));
            }
            if partitioning
                .keys
                .iter()
                .any(|key| key.name.to_lowercase() == name.to_lowercase())
            {
                return Err(format!("`{name}` stands twice"));
            }
            let parts = partitioning.template(name, &template)?;
            partitioning.keys.push(Key {
                name: name.to_owned(),
                parts,
            });
        }
        Ok(partitioning)
    }

    /// Names of the partition columns, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.keys.iter().map(|key| key.name.as_str())
    }

    /// Whether each value of the key at this place is one of this type of Hive's, and written as Hive writes it. Of a field nobody knows.
    pub fn always_gives(&self, index: usize, kind: &str) -> bool {
        let format = match self.keys[index].parts.as_slice() {
            [Part::Time(time)] => time.format.as_str(),
            _ => "",
        };
        match parse_type(kind) {
            Ok(HiveType::String | HiveType::Varchar(_) | HiveType::Char(_)) => true,
            Ok(HiveType::Date) => matches!(format, "%Y-%m-%d" | "%F"),
            Ok(HiveType::TinyInt) => SHORT_NUMBERS.contains(&format),
            Ok(HiveType::SmallInt | HiveType::Int) => {
                SHORT_NUMBERS.contains(&format) || format == "%Y"
            }
            Ok(HiveType::BigInt) => {
                SHORT_NUMBERS.contains(&format) || matches!(format, "%Y" | "%s")
            }
            _ => false,
        }
    }

    /// Top-level fields of an event that [`Partitioning::render`] wants, in this order.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Those of them that must hold a time: an event without it is a dead letter.
    pub fn time_sources(&self) -> impl Iterator<Item = &str> {
        let clocks = self.clocks.iter();
        clocks.map(|clock| self.sources[clock.place.source].as_str())
    }

    /// The partition of an event. An error says what is wrong with the event.
    pub fn render<'c>(
        &self,
        sources: &[Option<Value>],
        cache: &'c mut Cache,
    ) -> Result<Rendered<'c>, String> {
        self.read_clocks(sources, cache)?;
        let is_last = cache.is_current && self.is_hourly();
        if !is_last {
            cache.is_current = false;
            self.render_anew(sources, cache)?;
            cache.is_current = true;
        }
        Ok(Rendered {
            path: &cache.path,
            is_last,
        })
    }

    fn read_clocks(&self, sources: &[Option<Value>], cache: &mut Cache) -> Result<(), String> {
        cache
            .times
            .resize(self.clocks.len(), (DateTime::UNIX_EPOCH, 0));
        for (clock, (last, last_hour)) in self.clocks.iter().zip(&mut cache.times) {
            let time = clock.read(sources)?;
            let hour = time.timestamp().div_euclid(3600);
            cache.is_current &= hour == *last_hour;
            (*last, *last_hour) = (time, hour);
        }
        Ok(())
    }

    /// Whether all events of an hour are in one partition.
    fn is_hourly(&self) -> bool {
        let mut parts = self.keys.iter().flat_map(|key| &key.parts);
        parts.all(|part| match part {
            Part::Literal(_) => true,
            Part::Field(_) => false,
            Part::Time(time) => time.hourly,
        })
    }

    fn render_anew(&self, sources: &[Option<Value>], cache: &mut Cache) -> Result<(), String> {
        cache.path.clear();
        cache.texts.resize(self.times, None);
        for (index, key) in self.keys.iter().enumerate() {
            if index > 0 {
                cache.path.push('/');
            }
            key.render(sources, cache)
                .map_err(|problem| in_column(&key.name, &problem))?;
        }
        Ok(())
    }

    /// The values of a partition's path, or `None` where the path is not one of this table's.
    pub fn values(&self, path: &str) -> Option<Vec<String>> {
        if self.keys.is_empty() {
            return path.is_empty().then(Vec::new);
        }
        let mut segments = path.split('/');
        let mut values = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let (name, value) = segments.next()?.split_once('=')?;
            if unescape(name) != key.name || value.is_empty() {
                return None;
            }
            values.push(unescape(value));
        }
        segments.next().is_none().then_some(values)
    }

    fn template(&mut self, column: &str, text: &str) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (inside, after) = after
                .split_once('}')
                .ok_or_else(|| format!("`{text}` lacks a closing brace"))?;
            parts.push(self.placeholder(column, inside)?);
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!(
                "`{text}` has a closing brace without an opening one"
            ));
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
            return Err(format!(
                "`{text}` has no placeholder, for example {{ts:%Y-%m-%d}}"
            ));
        }
        Ok(parts)
    }

    fn placeholder(&mut self, column: &str, inside: &str) -> Result<Part, String> {
        let (path, format) = match inside.split_once(':') {
            Some((path, format)) => (path.trim(), Some(format)),
            None => (inside.trim(), None),
        };
        let mut names = path.split('.').map(str::to_owned);
        let top = names.next().unwrap_or_default();
        let below: Vec<String> = names.collect();
        if top.is_empty() || below.iter().any(String::is_empty) {
            return Err(format!("`{{{inside}}}` names no field"));
        }
        let source = match self.sources.iter().position(|source| *source == top) {
            Some(source) => source,
            None => {
                self.sources.push(top);
                self.sources.len() - 1
            }
        };
        let place = Place {
            shown: path.to_owned(),
            source,
            below,
        };
        let Some(format) = format else {
            return Ok(Part::Field(place));
        };
        let clock = match self.clocks.iter().position(|clock| clock.place == place) {
            Some(clock) => clock,
            None => {
                let column = column.to_owned();
                self.clocks.push(Clock { place, column });
                self.clocks.len() - 1
            }
        };
        let time = Time::parse(self.times, clock, format)?;
        self.times += 1;
        Ok(Part::Time(time))
    }
}

impl Key {
    /// Appends `dt=2026-11-23` to the path.
    fn render(&self, sources: &[Option<Value>], cache: &mut Cache) -> Result<(), String> {
        let Cache {
            times, texts, path, ..
        } = cache;
        let mut value = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => value.push_str(text),
                Part::Field(place) => plain(place, place.find(sources), &mut value)?,
                Part::Time(time) => {
                    time.render(times[time.clock], &mut texts[time.number], &mut value)?;
                }
            }
        }
        let start = path.len();
        escape(&self.name, path);
        path.push('=');
        escape(
            if value.is_empty() {
                DEFAULT_PARTITION
            } else {
                &value
            },
            path,
        );
        if path.len() - start > MAX_SEGMENT {
            return Err(format!(
                "the value is longer than a directory name can be: {}…",
                value.chars().take(40).collect::<String>()
            ));
        }
        Ok(())
    }
}

fn in_column(name: &str, problem: &str) -> String {
    format!("partition column {name}: {problem}")
}

impl Clock {
    fn read(&self, sources: &[Option<Value>]) -> Result<DateTime<Utc>, String> {
        let shown = &self.place.shown;
        let Some(found) = self.place.find(sources) else {
            let problem = format!("the event has no field {shown}, which holds its time");
            return Err(in_column(&self.column, &problem));
        };
        event_time::parse_for_name(found).ok_or_else(|| {
            let problem = format!(
                "{} in field {shown} is not a time; allowed is {}",
                super::mismatch::shown(found),
                event_time::ALLOWED
            );
            in_column(&self.column, &problem)
        })
    }
}

impl Place {
    fn find<'v>(&self, sources: &'v [Option<Value>]) -> Option<&'v Value> {
        let top = sources[self.source].as_ref()?;
        let found = self
            .below
            .iter()
            .try_fold(top, |value, name| value.get(name))?;
        (!found.is_null()).then_some(found)
    }
}

impl Time {
    fn parse(number: usize, clock: usize, format: &str) -> Result<Time, String> {
        let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
        if format.is_empty() || items.iter().any(|item| matches!(item, Item::Error)) {
            return Err(format!(
                "`{format}` is not a time format, which is like %Y-%m-%d or %H"
            ));
        }
        // Everything else may change within an hour.
        const HOURLY: &str = "CYymbBhdejaAuwUWVGgFDHIkPpl%";
        let mut chars = format.chars();
        let mut hourly = true;
        while let Some(c) = chars.next() {
            if c == '%' {
                let spec = match chars.next() {
                    Some('-' | '_' | '0') => chars.next(), // How it is padded.
                    spec => spec,
                };
                hourly &= spec.is_some_and(|spec| HOURLY.contains(spec));
            }
        }
        Ok(Time {
            number,
            clock,
            format: format.to_owned(),
            hourly,
        })
    }

    /// `last` is what this placeholder was rendered to before.
    fn render(
        &self,
        (time, hour): (DateTime<Utc>, i64),
        last: &mut Option<(i64, String)>,
        out: &mut String,
    ) -> Result<(), String> {
        if !self.hourly {
            return self.format(time, out);
        }
        match last {
            Some((of, text)) if *of == hour => out.push_str(text),
            _ => {
                let start = out.len();
                self.format(time, out)?;
                *last = Some((hour, out[start..].to_owned()));
            }
        }
        Ok(())
    }

    fn format(&self, time: DateTime<Utc>, out: &mut String) -> Result<(), String> {
        write!(out, "{}", time.format(&self.format))
            .map_err(|_| format!("the time {time} can't be written as {}", self.format))
    }
}

/// A plain value as text: empty where there is none.
fn plain(place: &Place, found: Option<&Value>, out: &mut String) -> Result<(), String> {
    match found {
        None => {}
        Some(Value::String(text)) => out.push_str(text),
        Some(Value::Number(number)) => out.push_str(number.as_str()),
        Some(Value::Bool(true)) => out.push_str("true"),
        Some(Value::Bool(false)) => out.push_str("false"),
        Some(other) => {
            return Err(format!(
                "field {} must be a text, a number or a boolean, not {}",
                place.shown,
                super::mismatch::shown(other)
            ));
        }
    }
    Ok(())
}

/// Splits at commas outside braces.
fn split_keys(text: &str) -> Result<Vec<&str>, String> {
    let mut keys = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            ',' if !inside => {
                keys.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    keys.push(&text[start..]);
    if keys.iter().any(|key| key.trim().is_empty()) {
        return Err("a key between commas is empty".to_owned());
    }
    Ok(keys)
}

/// Hive's `FileUtils.escapePathName`.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\0'..='\u{1f}'
            | '\u{7f}'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                let _ = write!(out, "%{:02X}", c as u32);
            }
            other => out.push(other),
        }
    }
}

/// The reverse; what is not an escape stays as it is.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(u8::is_ascii);
        match code {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
