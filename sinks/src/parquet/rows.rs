//! Events to rows: the payloads of a batch become one Arrow record batch for each partition of the table.
//!
//! A column, and a placeholder of a partition, takes the field of exactly its name, else one that differs only in case (Hive knows
//! lower-case names only). A missing field is null, a field without a column is ignored, of a field that stands twice the last counts.
//! [`exact`] says what each type takes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::column::Buffers;
use super::members::{Doubt, Members, Next};
use super::mismatch::short;
use super::partition::{Cache, Partitioning, Rendered};
use super::schema::{Column, to_arrow};
use super::{exact, reserved};
use crate::batch::{Event, Rejected};

/// The columns and partitions of a table, and where events keep the values for them.
#[derive(Debug)]
pub struct Layout {
    pub columns: Vec<Column>,
    pub schema: SchemaRef,
    pub partitioning: Partitioning,
    /// Bytes that the path of a partition may have.
    longest_path: usize,
    slots: HashMap<String, Slot>,
    /// The same by lower-case name.
    lower: HashMap<String, Slot>,
    /// No column or source has a capital: a field without one that is not in `slots` is nowhere.
    all_lower: bool,
}

/// What a field of an event is wanted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    column: Option<Use>,
    /// Index in [`Partitioning::sources`].
    source: Option<Use>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    index: usize,
    /// The field has exactly the name; else it differs in case.
    exact: bool,
}

/// Rows of one partition.
#[derive(Debug)]
pub struct Group {
    /// `dt=2026-11-23/hour=11`; empty without partitions.
    pub partition: String,
    pub rows: RecordBatch,
}

/// A batch as rows, and the events that are none.
#[derive(Debug)]
pub struct Decoded {
    pub groups: Vec<Group>,
    /// In ascending order.
    pub rejected: Vec<Rejected>,
}

impl Layout {
    pub fn new(columns: Vec<Column>, partitioning: Partitioning) -> Layout {
        let mut slots: HashMap<String, Slot> = HashMap::new();
        let mut lower: HashMap<String, Slot> = HashMap::new();
        let exact = |index| Some(Use { index, exact: true });
        let alike = |index| {
            Some(Use {
                index,
                exact: false,
            })
        };
        for (index, column) in columns.iter().enumerate() {
            slots.entry(column.name.clone()).or_default().column = exact(index);
            let entry = lower.entry(column.name.to_lowercase()).or_default();
            entry.column = entry.column.or(alike(index));
        }
        for (index, source) in partitioning.sources().iter().enumerate() {
            slots.entry(source.clone()).or_default().source = exact(index);
            let entry = lower.entry(source.to_lowercase()).or_default();
            entry.source = entry.source.or(alike(index));
        }
        // One field may be exactly what a partition wants and, but for its case, what a column does.
        for (name, slot) in &mut slots {
            if let Some(entry) = lower.get(&name.to_lowercase()) {
                slot.column = slot.column.or(entry.column);
                slot.source = slot.source.or(entry.source);
            }
        }
        let all_lower = slots.keys().all(|name| *name == name.to_lowercase());
        Layout {
            schema: to_arrow(&columns),
            columns,
            partitioning,
            longest_path: usize::MAX,
            slots,
            lower,
            all_lower,
        }
    }

    /// Refuses events whose partition has a longer path: their file could never be written.
    pub fn with_longest_path(self, longest_path: usize) -> Layout {
        Layout {
            longest_path,
            ..self
        }
    }

    /// The slot of a field.
    fn find(&self, name: &str) -> Option<Slot> {
        if let Some(slot) = self.slots.get(name) {
            return Some(*slot);
        }
        let plain = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
        if self.all_lower && name.bytes().all(plain) {
            return None;
        }
        self.lower.get(&name.to_lowercase()).copied()
    }

    /// Turns events into rows. Only a column that outgrows Arrow's 2 GB is an error; a bad event is in `rejected`.
    pub fn decode<'e>(
        &self,
        events: impl Iterator<Item = Event<'e>>,
    ) -> Result<Decoded, ArrowError> {
        let mut table = Table::new(self, events.size_hint().0);
        let mut rejected = Vec::new();
        for (index, event) in events.enumerate() {
            if let Err(reason) = table.push(event.payload) {
                rejected.push(Rejected { index, reason });
            }
        }
        Ok(Decoded {
            groups: table.finish()?,
            rejected,
        })
    }
}

/// The rows gathered so far.
struct Table<'l> {
    layout: &'l Layout,
    columns: Vec<Buffers>,
    rows: usize,
    sources: Vec<Option<Value>>,
    cache: Cache,
    /// For each row the index of its partition.
    partition_of: Vec<u32>,
    partitions: HashMap<String, u32>,
    /// The fields that were last seen at each place of an event.
    order: Vec<(String, Option<Slot>)>,
}

/// Fields of an event, and bytes of a name, that are kept in mind.
const MAX_KNOWN: usize = 256;
const MAX_KNOWN_NAME: usize = 128;

impl<'l> Table<'l> {
    /// For about so many rows.
    fn new(layout: &'l Layout, rows: usize) -> Table<'l> {
        Table {
            layout,
            columns: layout
                .columns
                .iter()
                .map(|column| Buffers::new(&column.kind, rows))
                .collect(),
            rows: 0,
            sources: vec![None; layout.partitioning.sources().len()],
            cache: Cache::default(),
            partition_of: Vec::with_capacity(rows),
            partitions: HashMap::new(),
            order: Vec::new(),
        }
    }

    fn push(&mut self, payload: Option<&[u8]>) -> Result<(), String> {
        let payload = payload.ok_or("a tombstone (null payload) is no row of a table")?;
        let done = match self.push_fast(payload) {
            Ok(()) => self.place(),
            Err(_) => {
                self.take_back();
                self.push_exact(payload).and_then(|()| self.place())
            }
        };
        match done {
            Ok(()) => self.rows += 1,
            Err(_) => self.take_back(),
        }
        done
    }

    fn take_back(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    fn push_fast(&mut self, payload: &[u8]) -> Result<(), Doubt> {
        self.sources.iter_mut().for_each(|source| *source = None);
        let mut members = Members::of(payload)?;
        let mut place = 0;
        loop {
            let guess = self.order.get(place).map(|(known, _)| known.as_str());
            let slot = match members.name(guess)? {
                Next::End => break,
                Next::Guessed => self.order[place].1,
                Next::Name(name) => self.slot(place, name),
            };
            place += 1;
            let value = members.value()?;
            let Some(Slot { column, source }) = slot else {
                continue;
            };
            // Of a field that stands twice it is not decided here which one counts.
            if let Some(Use { index, .. }) = source {
                if self.sources[index].is_some() {
                    return Err(Doubt);
                }
                self.sources[index] = Some(value.value()?);
            }
            if let Some(Use { index, .. }) = column {
                let column = &mut self.columns[index];
                if column.len() > self.rows {
                    return Err(Doubt);
                }
                value.push(column)?;
            }
        }
        for column in &mut self.columns {
            if column.len() == self.rows {
                column.push_null();
            }
        }
        Ok(())
    }

    /// The slot of a field that was not expected at this place of an event.
    fn slot(&mut self, place: usize, name: &str) -> Option<Slot> {
        let slot = self.layout.find(name);
        self.order.truncate(place);
        if place == self.order.len() && place < MAX_KNOWN && name.len() <= MAX_KNOWN_NAME {
            self.order.push((name.to_owned(), slot));
        }
        slot
    }

    fn push_exact(&mut self, payload: &[u8]) -> Result<(), String> {
        if reserved::is_in(payload) {
            let problem = "the payload holds a field with the name `$serde_json::private::…`, which stands for something else in the worker: rename the field in the projection, or where it is made";
            return Err(problem.to_owned());
        }
        let mut json = serde_json::Deserializer::from_slice(payload);
        let mut fields = Fields {
            layout: self.layout,
            columns: vec![(None, false); self.columns.len()],
            sources: vec![(None, false); self.sources.len()],
        };
        let read = (&mut fields)
            .deserialize(&mut json)
            .and_then(|()| json.end());
        read.map_err(|error| {
            let text = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
            format!(
                "the payload can't be read as a row, which is a JSON object: {error}: {}",
                short(&text)
            )
        })?;
        let names = self.layout.columns.iter().map(|column| &column.name);
        for ((column, name), (value, _)) in self.columns.iter_mut().zip(names).zip(fields.columns) {
            exact::push(column, &value.unwrap_or(Value::Null))
                .map_err(|mismatch| mismatch.below(name).to_string())?;
        }
        self.sources = fields.sources.into_iter().map(|(value, _)| value).collect();
        Ok(())
    }

    /// Finds the partition of the row just pushed.
    fn place(&mut self) -> Result<(), String> {
        let partitioning = &self.layout.partitioning;
        let Rendered { path, is_last } = partitioning.render(&self.sources, &mut self.cache)?;
        let (bytes, most) = (path.len(), self.layout.longest_path);
        if bytes > most {
            return Err(format!(
                "the path of its partition has {bytes} bytes, and a file at sink.parquet.location can be written below {most} at most: {}",
                short(path)
            ));
        }
        let partition = match self.partition_of.last() {
            Some(last) if is_last => *last,
            _ => match self.partitions.get(path) {
                Some(known) => *known,
                None => {
                    let next = self.partitions.len() as u32;
                    self.partitions.insert(path.to_owned(), next);
                    next
                }
            },
        };
        self.partition_of.push(partition);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Group>, ArrowError> {
        if self.rows == 0 {
            return Ok(Vec::new());
        }
        let arrays = self
            .columns
            .into_iter()
            .map(Buffers::into_array)
            .collect::<Result<Vec<_>, _>>()?;
        let all = RecordBatch::try_new(self.layout.schema.clone(), arrays)?;
        if self.partitions.len() == 1 {
            let partition = self.partitions.into_keys().next().unwrap_or_default();
            return Ok(vec![Group {
                partition,
                rows: all,
            }]);
        }
        let mut rows_of = vec![Vec::new(); self.partitions.len()];
        for (row, partition) in self.partition_of.iter().enumerate() {
            rows_of[*partition as usize].push(row as u32);
        }
        let mut paths: Vec<(String, u32)> = self.partitions.into_iter().collect();
        paths.sort_unstable_by_key(|(_, partition)| *partition);
        paths
            .into_iter()
            .zip(rows_of)
            .map(|((partition, _), rows)| {
                let rows = take_record_batch(&all, &UInt32Array::from(rows))?;
                Ok(Group { partition, rows })
            })
            .collect()
    }
}

/// Reads the wanted fields of an event as values.
struct Fields<'l> {
    layout: &'l Layout,
    /// The value, and whether the field has the exact name.
    columns: Vec<(Option<Value>, bool)>,
    sources: Vec<(Option<Value>, bool)>,
}

impl<'de> DeserializeSeed<'de> for &mut Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(found) = fields.next_key_seed(Name(self.layout))? {
            let Some(Slot { column, source }) = found else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: Value = fields.next_value()?;
            if let Some(source) = source {
                put(&mut self.sources[source.index], value.clone(), source.exact);
            }
            if let Some(column) = column {
                put(&mut self.columns[column.index], value, column.exact);
            }
        }
        Ok(())
    }
}

/// The last one counts, but one by another case never replaces the exact one.
fn put(place: &mut (Option<Value>, bool), value: Value, exact: bool) {
    if exact || !place.1 {
        *place = (Some(value), exact);
    }
}

/// Finds what a field's name is wanted for.
struct Name<'l>(&'l Layout);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<Slot>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<Slot>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(name))
    }
}

/// A layout shared by the batches in flight.
pub type SharedLayout = Arc<Layout>;

#[cfg(test)]
mod tests;
