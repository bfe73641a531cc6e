//! Reads the answer to a `_bulk` request item by item and says what became of each event. Pure.
//!
//! Success is never inferred: an event is delivered where its own item says 200 or 201, or a conflict with its own id. An answer that
//! can't be matched with the request item by item delivers nothing.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::bulk::{Id, Op, Plan, Request, index_of};
use super::flood::{Forbidden, Misdirected};
use crate::{Answer, Batch, Cause, Rejected};

/// What the sink asks Elasticsearch to answer with: less than half of the whole answer, and all that is read here.
pub(crate) const FILTER_PATH: &str =
    "items.*.status,items.*._id,items.*.error,items.*.failure_store";

/// A reason may quote the document; this much of it is kept.
const MAX_REASON_CHARS: usize = 2_000;

/// What to do about an index that may not be written to.
pub(crate) const PRIVILEGES: &str = "give the user of sink.elasticsearch.username or sink.elasticsearch.api.key the privileges to write there, or change sink.elasticsearch.index";

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answer: Answer,
    /// Events that are there now.
    pub taken: usize,
    /// Rejected for an index that may be everybody's trouble: [`Flood`](super::flood::Flood) says.
    pub forbidden: Forbidden,
    pub misdirected: Misdirected,
    /// Events that were there already, or a later one of their id: the write was refused.
    pub suppressed: u64,
    /// Events that were there already and were written over.
    pub overwritten: u64,
    /// Events that Elasticsearch put into the failure store of a data stream.
    pub failure_store: u64,
}

/// Why an answer gives no outcome.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// It does not fit the request; in words.
    Unreadable(String),
    /// The worker must stop; the text names the option.
    Fatal(String),
}

#[derive(Debug, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    items: Vec<Entry<'a>>,
}

/// `{"create": {…}}`
#[derive(Debug)]
struct Entry<'a> {
    op: Option<Op>,
    item: Item<'a>,
}

#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "_id")]
    id: Option<Text<'a>>,
    status: u16,
    error: Option<Value>,
    #[serde(borrow)]
    failure_store: Option<Text<'a>>,
}

/// A text that is borrowed from the answer where it has no escapes.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct OneEntry;
        impl<'de> Visitor<'de> for OneEntry {
            type Value = Entry<'de>;

            fn expecting(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
                form.write_str("an item with one action")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry<'de>, A::Error> {
                let Some(Text(op)) = map.next_key()? else {
                    return Err(serde::de::Error::custom("an item without an action"));
                };
                let op = [Op::Index, Op::Create]
                    .into_iter()
                    .find(|known| known.as_str() == op);
                let item = map.next_value()?;
                if map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    return Err(serde::de::Error::custom("an item with two actions"));
                }
                Ok(Entry { op, item })
            }
        }
        json.deserialize_map(OneEntry)
    }
}

/// What became of one event.
#[derive(Debug)]
enum Verdict {
    Delivered,
    Suppressed,
    Overwritten,
    /// The event's own fault.
    Rejected,
    /// The user may not write to the index, which the event names.
    Forbidden,
    /// Heals by itself or by somebody at the cluster; the label for the metric.
    Retry(&'static str),
    /// Something is wrong with the index, whose name is made from the event: with that event, or with all; what to do then.
    Misdirected(&'static str),
    /// Wrong for every event; what to do.
    Fatal(&'static str),
    /// Not what Elasticsearch says.
    Unreadable,
}

/// Says what became of each event of a request, by the body of an answer with status 200. What is everybody's trouble is left to say.
pub fn settle(
    body: &[u8],
    request: &Request,
    plan: &Plan,
    batch: &Batch,
) -> Result<Outcome, Unsettled> {
    let items = read(body, request, plan)?;
    let mut outcome = Outcome::default();
    let mut rejected = request.rejected.clone();
    let mut retry = Vec::new();
    let mut cause: Option<(&'static str, String)> = None;
    for (sent, item) in request.sent.iter().zip(&items) {
        if item.failure_store.as_ref().is_some_and(|to| to.0 == "used") {
            outcome.failure_store += 1;
        }
        let words = || {
            let index = index_of(plan, &batch.event(sent.index));
            describe(item, &index, request.id(sent))
        };
        match judge(item, plan) {
            Verdict::Delivered => outcome.taken += 1,
            Verdict::Suppressed => {
                outcome.taken += 1;
                outcome.suppressed += 1;
            }
            Verdict::Overwritten => {
                outcome.taken += 1;
                outcome.overwritten += 1;
            }
            verdict @ (Verdict::Rejected | Verdict::Forbidden | Verdict::Misdirected(_)) => {
                let (index, reason) = (sent.index, words());
                match verdict {
                    Verdict::Forbidden => {
                        let name = index_of(plan, &batch.event(index));
                        outcome.forbidden.add(&name, &reason);
                    }
                    Verdict::Misdirected(advice) => {
                        outcome.misdirected.events.push(index);
                        outcome.misdirected.problem = format!("{reason}; {advice}");
                    }
                    _ => {}
                }
                rejected.push(Rejected { index, reason });
            }
            Verdict::Retry(reason) => {
                retry.push(sent.index);
                cause.get_or_insert_with(|| (reason, words()));
            }
            Verdict::Fatal(advice) => {
                return Err(Unsettled::Fatal(format!("{}; {advice}", words())));
            }
            Verdict::Unreadable => {
                let status = item.status;
                return Err(Unsettled::Unreadable(format!(
                    "an item has the status {status} {} an error",
                    if item.error.is_some() {
                        "with"
                    } else {
                        "without"
                    }
                )));
            }
        }
    }
    rejected.sort_by_key(|rejected| rejected.index);
    let cause = cause.map(|(reason, first)| Cause {
        reason,
        detail: format!(
            "{} of {} events were not taken, the first with {first}",
            retry.len(),
            request.sent.len()
        ),
        after: None,
    });
    outcome.answer = Answer {
        rejected,
        retry,
        cause,
        ..Answer::default()
    };
    Ok(outcome)
}

/// Parses the answer and matches it with the request: as many items, the same action, the same ids in the same order.
fn read<'a>(body: &'a [u8], request: &Request, plan: &Plan) -> Result<Vec<Item<'a>>, Unsettled> {
    let unreadable = |problem: String| Err(Unsettled::Unreadable(problem));
    let Body { items } = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return unreadable(error.to_string()),
    };
    if items.len() != request.sent.len() {
        let (items, events) = (items.len(), request.sent.len());
        return unreadable(format!("{items} items for {events} events"));
    }
    let other_op = |entry: &Entry<'_>| entry.op != Some(plan.op);
    if let Some(at) = items.iter().position(other_op) {
        return unreadable(format!("item {at} is no {}", plan.op.as_str()));
    }
    let items: Vec<Item<'a>> = items.into_iter().map(|entry| entry.item).collect();
    for (at, (sent, item)) in request.sent.iter().zip(&items).enumerate() {
        let Some(expected) = request.id(sent) else {
            continue;
        };
        if item.id.as_ref().map(|id| id.0.as_ref()) == Some(expected) {
            continue;
        }
        if other_ids(&items, request) {
            return Err(Unsettled::Fatal(format!(
                "elasticsearch has taken the events, but under ids of its own, for example not {expected:?}, so that a repetition makes \
                 duplicates: an ingest pipeline sets `_id`; take that out of it (sink.elasticsearch.pipeline, or `default_pipeline` and \
                 `final_pipeline` of the index) and name the field in sink.elasticsearch.id"
            )));
        }
        return unreadable(format!("item {at} does not have the id {expected:?}"));
    }
    Ok(items)
}

/// Whether all events were taken, and none under an id that was sent.
fn other_ids(items: &[Item<'_>], request: &Request) -> bool {
    let sent = request.sent.iter().filter_map(|sent| request.id(sent));
    let sent: HashSet<&str> = sent.collect();
    items.iter().all(|item| {
        let is_other = |id: &Text<'_>| !sent.contains(id.0.as_ref());
        matches!(item.status, 200 | 201)
            && item.error.is_none()
            && item.id.as_ref().is_some_and(is_other)
    })
}

fn judge(item: &Item<'_>, plan: &Plan) -> Verdict {
    let Some(error) = &item.error else {
        return match item.status {
            // 200 is an update: the id was there.
            200 if plan.id == Id::Offset => Verdict::Overwritten,
            200 | 201 => Verdict::Delivered,
            _ => Verdict::Unreadable,
        };
    };
    let kind = member(error, "type");
    let reason = member(error, "reason");
    match item.status {
        409 if kind == "version_conflict_engine_exception" && plan.op == Op::Create => {
            match plan.id {
                // The id was made for this request alone, so this is a write of our own that Elasticsearch repeated.
                Id::Auto => Verdict::Retry("conflict"),
                Id::Offset | Id::Field(_) => Verdict::Suppressed,
            }
        }
        // The same event or a later one of the id is there.
        409 if kind == "version_conflict_engine_exception" && plan.later_wins => {
            Verdict::Suppressed
        }
        _ if is_for_good(kind, reason, plan) => Verdict::Rejected,
        _ if is_blocked(kind, reason) => Verdict::Retry("blocked"),
        429 => Verdict::Retry("http_429"),
        // A pipeline refuses the event, and says so as if the server had failed.
        500 if kind == "fail_processor_exception" => Verdict::Rejected,
        500..=599 => Verdict::Retry("http_5xx"),
        408 => Verdict::Retry("timeout"),
        403 if plan.index.has_field() => Verdict::Forbidden,
        400..=499 => match misconfigured(item.status, kind, reason, plan) {
            Some(advice) if plan.index.fixed().is_none() => Verdict::Misdirected(advice),
            Some(advice) => Verdict::Fatal(advice),
            None => Verdict::Rejected,
        },
        _ => Verdict::Unreadable,
    }
}

/// Whether the index or the cluster takes nothing at present: a full disk, a read-only index, no room for one more index. Somebody at
/// the cluster ends that, and no event is to blame.
pub(crate) fn is_blocked(kind: &str, reason: &str) -> bool {
    // By how a reason begins: further on it may quote the event.
    let full = reason.starts_with("Validation Failed") && reason.contains("shards open");
    kind == "cluster_block_exception" || (kind == "validation_exception" && full)
}

/// Whether the event's own index, one of many, is closed to writes until a person opens it again, as those that have aged are: a late event
/// must not hold up all others.
fn is_for_good(kind: &str, reason: &str, plan: &Plan) -> bool {
    let closed = ["[FORBIDDEN/5/index read-only", "[FORBIDDEN/8/index write"];
    let is_closed =
        reason.starts_with("index [") && closed.iter().any(|block| reason.contains(block));
    plan.index.fixed().is_none()
        && (kind == "index_closed_exception" || (kind == "cluster_block_exception" && is_closed))
}

/// What is wrong for every event alike, so that rejecting would send them all to the dead letters: what to do, or `None`.
///
/// A missing or forbidden index is one of these, unless the name comes from a field: then it is this event's own.
fn misconfigured(status: u16, kind: &str, reason: &str, plan: &Plan) -> Option<&'static str> {
    if status == 401 || status == 403 {
        return Some(PRIVILEGES);
    }
    if reason.starts_with("only write ops with an op_type of create are allowed in data streams") {
        return Some("the name is a data stream: set sink.elasticsearch.op.type=create");
    }
    if plan.index.has_field() {
        return None;
    }
    if matches!(kind, "index_not_found_exception" | "index_closed_exception") {
        return Some("create or open it, or change sink.elasticsearch.index");
    }
    if reason.starts_with("no write index is defined for alias") {
        return Some("give the alias a write index, or change sink.elasticsearch.index");
    }
    if reason.starts_with("pipeline with id [") && reason.ends_with("] does not exist") {
        return Some("create the ingest pipeline, or change sink.elasticsearch.pipeline");
    }
    None
}

/// Elasticsearch's own words for one item, with its causes, index and id.
fn describe(item: &Item<'_>, index: &str, id: Option<&str>) -> String {
    let error = item.error.as_ref().unwrap_or(&Value::Null);
    let mut text = format!("elasticsearch answered {} ", item.status);
    push_error(&mut text, error);
    if let Some((end, _)) = text.char_indices().nth(MAX_REASON_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text.push_str(&format!(" (index {index}"));
    if let Some(id) = id {
        text.push_str(&format!(", id {id}"));
    }
    text.push(')');
    text
}

/// Writes `type: reason` on one line, and the same for each `caused_by` that says more than what is written already.
pub(crate) fn push_error(text: &mut String, error: &Value) {
    if let Value::String(words) = error {
        text.push_str(words);
        return;
    }
    let mut error = Some(error);
    let mut joint = "";
    while let Some(cause) = error {
        // Elasticsearch shows a parser's place on lines of its own.
        let reason = member(cause, "reason").replace('\n', " ");
        if joint.is_empty() || reason.is_empty() || !text.contains(&reason) {
            text.push_str(joint);
            text.push_str(member(cause, "type"));
            text.push_str(if reason.is_empty() { "" } else { ": " });
            text.push_str(&reason);
        }
        joint = "; caused by ";
        error = cause.get("caused_by");
    }
}

/// A text in an error object, or nothing.
pub(crate) fn member<'a>(error: &'a Value, name: &str) -> &'a str {
    error.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
