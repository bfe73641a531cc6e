//! Writes the body of a `_bulk` request: an action line and a document line for each event. Pure.

use std::ops::Range;

use serde_json::Value;

use crate::template::{Fields, Template, push_scalar, shorten};
use crate::{Batch, Event, Rejected};

/// Elasticsearch refuses the whole request for one longer `_id`.
const MAX_ID_BYTES: usize = 512;

/// Elasticsearch's own limit of an index name.
const MAX_INDEX_BYTES: usize = 255;

/// What to do with each event, as decided by the options.
#[derive(Debug, Clone)]
pub struct Plan {
    pub index: Template,
    pub id: Id,
    pub op: Op,
    /// The offset is the document's external version.
    pub later_wins: bool,
    /// The fields that `index` and `id` ask for.
    pub fields: Fields,
}

/// Where the `_id` of a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Elasticsearch makes one.
    Auto,
    /// `topic-partition-offset`. Unambiguous, as the last two parts are numbers.
    Offset,
    /// The field in this slot.
    Field(usize),
}

/// The action of `_bulk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Index,
    Create,
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Index => "index",
            Op::Create => "create",
        }
    }
}

/// A request, and which events are in it.
#[derive(Debug, Default)]
pub struct Request {
    pub body: Vec<u8>,
    /// The events of the body, in its order.
    pub sent: Vec<Sent>,
    /// Events that can't be sent at all, in ascending order.
    pub rejected: Vec<Rejected>,
    ids: String,
}

/// An event in a request.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its index in the batch.
    pub index: usize,
    id: Range<usize>,
}

impl Request {
    /// The `_id` that was sent, or `None` where Elasticsearch makes it.
    pub fn id(&self, sent: &Sent) -> Option<&str> {
        (!sent.id.is_empty()).then(|| &self.ids[sent.id.clone()])
    }
}

/// Writes the request for a batch. A payload is copied once and not parsed, unless the plan asks for its fields.
pub fn encode(batch: &Batch, plan: &Plan) -> Request {
    let payloads: usize = batch
        .events()
        .map(|event| event.payload.map_or(0, <[u8]>::len))
        .sum();
    // The longest action line around a name and an id is 41 bytes, a version takes up to 64; names made from fields are guessed.
    let line =
        48 + if plan.later_wins { 64 } else { 0 } + plan.index.fixed().map_or(40, str::len) + 40;
    let mut request = Request {
        body: Vec::with_capacity(payloads + batch.len() * line),
        sent: Vec::with_capacity(batch.len()),
        ..Request::default()
    };
    let mut scratch = Scratch::default();
    for (index, event) in batch.events().enumerate() {
        let start = request.ids.len();
        match put(&mut request, &mut scratch, plan, &event) {
            Ok(()) => request.sent.push(Sent {
                index,
                id: start..request.ids.len(),
            }),
            Err(reason) => {
                request.ids.truncate(start);
                request.rejected.push(Rejected { index, reason });
            }
        }
    }
    request
}

/// The index that an event goes to, for a message.
pub(crate) fn index_of(plan: &Plan, event: &Event<'_>) -> String {
    let mut scratch = Scratch::default();
    let named = match event.payload {
        Some(payload) => name(plan, payload, &mut scratch),
        None => Err(String::new()),
    };
    named.map_or_else(|_| plan.index.sample(), |()| scratch.index)
}

/// Buffers that are used again for each event.
#[derive(Default)]
struct Scratch {
    found: Vec<Option<Value>>,
    index: String,
}

fn put(
    request: &mut Request,
    scratch: &mut Scratch,
    plan: &Plan,
    event: &Event<'_>,
) -> Result<(), String> {
    let Some(payload) = event.payload else {
        return Err("a tombstone (null value) is no document to index".to_owned());
    };
    if payload.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        let shown = shorten(&String::from_utf8_lossy(&payload[..payload.len().min(400)]));
        return Err(format!(
            "elasticsearch takes JSON objects only, and the event is {shown}"
        ));
    }
    name(plan, payload, scratch)?;
    let start = request.ids.len();
    put_id(&mut request.ids, scratch, plan, event)?;
    let id = &request.ids[start..];
    if id.len() > MAX_ID_BYTES {
        return Err(format!(
            "its id has {} bytes, more than the {MAX_ID_BYTES} that elasticsearch takes: {}",
            id.len(),
            shorten(id)
        ));
    }
    let index = plan.index.fixed().unwrap_or(&scratch.index);
    let version = plan.later_wins.then_some(event.offset);
    put_action(&mut request.body, plan.op, index, id, version);
    put_document(&mut request.body, payload);
    Ok(())
}

/// Reads the fields that the plan asks for and makes the index name, unless it is fixed.
fn name(plan: &Plan, payload: &[u8], scratch: &mut Scratch) -> Result<(), String> {
    scratch.index.clear();
    if !plan.fields.is_empty() {
        plan.fields
            .pick(payload, &mut scratch.found)
            .map_err(|error| format!("its fields can't be read: {error}"))?;
    }
    let index = &mut scratch.index;
    if let Some(fixed) = plan.index.fixed() {
        index.push_str(fixed);
        return Ok(());
    }
    plan.index
        .render(&plan.fields, &scratch.found, index)
        .map_err(|problem| format!("no index name can be made for the event: {problem}"))?;
    let hidden = index.starts_with('.') && !plan.index.prefix().starts_with('.');
    if hidden {
        // An event must not choose a system index.
        return Err(format!(
            "its index name {:?} begins with a dot",
            shorten(index)
        ));
    }
    check_index(index).map_err(|problem| format!("its index name {:?} {problem}", shorten(index)))
}

/// Elasticsearch's rules for the name of an index, an alias or a data stream. The error fits after the name.
pub(crate) fn check_index(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > MAX_INDEX_BYTES {
        return Err(format!(
            "has {} bytes, more than {MAX_INDEX_BYTES}",
            name.len()
        ));
    }
    if name == "." || name == ".." {
        return Err("is not a name".to_owned());
    }
    if name.starts_with(['-', '_', '+']) {
        return Err("begins with \"-\", \"_\" or \"+\"".to_owned());
    }
    let bad = |c: char| {
        matches!(
            c,
            '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ' ' | ',' | '#' | ':'
        ) || c.is_control()
    };
    if let Some(found) = name.chars().find(|c| bad(*c)) {
        return Err(format!("holds {found:?}, which an index name can't"));
    }
    if name.chars().any(char::is_uppercase) {
        return Err("has upper-case letters, which an index name can't".to_owned());
    }
    Ok(())
}

fn put_id(
    ids: &mut String,
    scratch: &Scratch,
    plan: &Plan,
    event: &Event<'_>,
) -> Result<(), String> {
    match plan.id {
        Id::Auto => Ok(()),
        Id::Offset => {
            ids.push_str(event.topic);
            ids.push('-');
            push_number(ids, i64::from(event.partition));
            ids.push('-');
            push_number(ids, event.offset);
            Ok(())
        }
        Id::Field(slot) => {
            let value = scratch.found[slot].as_ref();
            push_scalar(plan.fields.path(slot), value, ids)
                .map_err(|problem| format!("no id can be made for the event: {problem}"))
        }
    }
}

fn push_number(out: &mut String, number: i64) {
    use std::fmt::Write;
    // Writing to memory can't fail.
    let _ = write!(out, "{number}");
}

fn put_action(out: &mut Vec<u8>, op: Op, index: &str, id: &str, version: Option<i64>) {
    out.extend_from_slice(match op {
        Op::Index => b"{\"index\":{\"_index\":",
        Op::Create => b"{\"create\":{\"_index\":",
    });
    put_text(out, index);
    if !id.is_empty() {
        out.extend_from_slice(b",\"_id\":");
        put_text(out, id);
    }
    if let Some(version) = version {
        use std::io::Write;
        // Writing to memory can't fail.
        let _ = write!(out, ",\"version\":{version},\"version_type\":\"external\"");
    }
    out.extend_from_slice(b"}}\n");
}

/// Writes a JSON text.
fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory can't fail.
    let _ = serde_json::to_writer(out, text);
}

/// Writes the document on one line. Raw line breaks are white space between the tokens of valid JSON (inside of a text they are
/// always escaped), so a space says the same.
fn put_document(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(payload);
    for byte in &mut out[start..] {
        let line_break = *byte == b'\n' || *byte == b'\r';
        *byte = if line_break { b' ' } else { *byte };
    }
    out.push(b'\n');
}

#[cfg(test)]
pub(crate) mod tests;
