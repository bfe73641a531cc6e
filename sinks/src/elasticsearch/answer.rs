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

use super::bulk::{Id, Op, Plan, Request, Sent, index_of};
use super::flood::{Forbidden, Misdirected};
use super::refusal::NO_ROLES;
use crate::{Answer, Batch, Cause, Rejected};

/// What the sink asks Elasticsearch to answer with: less than half of the whole answer, and all that is read here.
pub(crate) const FILTER_PATH: &str =
    "items.*.status,items.*._id,items.*.result,items.*.error,items.*.failure_store";

/// A reason may quote the document; this much of it is kept.
const MAX_REASON_CHARS: usize = 2_000;

/// What to do about an index that may not be written to.
pub(crate) const PRIVILEGES: &str = "give the user of sink.elasticsearch.username or sink.elasticsearch.api.key the privileges to write there, or change sink.elasticsearch.index";

/// What processors of a pipeline fail with at an event that they can't take. Elasticsearch says so as if the server had failed, since these
/// are no exceptions of its own.
const OF_PROCESSORS: [&str; 5] = [
    "fail_processor_exception",
    // Of `dissect`.
    "find_match",
    "class_cast_exception",
    "arithmetic_exception",
    "date_time_exception",
];

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
    /// Events that an ingest pipeline has dropped.
    pub dropped: u64,
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
    #[serde(borrow)]
    result: Option<Text<'a>>,
    error: Option<Value>,
    #[serde(borrow)]
    failure_store: Option<Text<'a>>,
}

impl Item<'_> {
    fn has_id(&self, id: &str) -> bool {
        self.id.as_ref().is_some_and(|own| own.0 == id)
    }

    fn failure_store_is(&self, word: &str) -> bool {
        self.failure_store.as_ref().is_some_and(|own| own.0 == word)
    }

    /// What went into a failure store, or was to, has an id there that Elasticsearch made.
    fn keeps_its_id(&self) -> bool {
        !self.failure_store_is("used") && !self.failure_store_is("failed")
    }
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
    /// A pipeline is there to leave it out.
    Dropped,
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
        if item.failure_store_is("used") {
            outcome.failure_store += 1;
        }
        let index = || index_of(plan, &batch.event(sent.index));
        let brief = || describe_briefly(item, &index(), request.id(sent), plan);
        let mut reject = || {
            let reason = describe(item, &index(), request.id(sent));
            let index = sent.index;
            rejected.push(Rejected { index, reason });
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
            // Not taken: it says nothing of the index.
            Verdict::Dropped => outcome.dropped += 1,
            Verdict::Rejected => reject(),
            Verdict::Forbidden => {
                reject();
                outcome.forbidden.add(&index(), &brief());
            }
            Verdict::Misdirected(advice) => {
                reject();
                let problem = format!("{}; {advice}", brief());
                outcome.misdirected.add(sent.index, problem);
            }
            Verdict::Retry(reason) => {
                retry.push(sent.index);
                cause.get_or_insert_with(|| (reason, brief()));
            }
            Verdict::Fatal(advice) => {
                return Err(Unsettled::Fatal(format!("{}; {advice}", brief())));
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
        // Its words on data quote a value.
        Err(error) if error.is_data() => {
            return unreadable(format!("another form at column {}", error.column()));
        }
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
    let is_other = |(sent, item): (&Sent, &Item<'_>)| {
        let id = request.id(sent);
        id.is_some_and(|id| item.keeps_its_id() && !item.has_id(id))
    };
    let Some(at) = request.sent.iter().zip(&items).position(is_other) else {
        return Ok(items);
    };
    if has_other_ids(&items, request) {
        return Err(Unsettled::Fatal(
            "elasticsearch answers for events under other ids than they were sent with, so that a repetition makes duplicates: an ingest \
             pipeline sets `_id`, of all events or of some; take that out of it (sink.elasticsearch.pipeline, or `default_pipeline` and \
             `final_pipeline` of the index) and name the field in sink.elasticsearch.id"
                .to_owned(),
        ));
    }
    unreadable(format!("item {at} does not have the id of its event"))
}

/// Whether an item has an id that no event was sent with. Where answers are mixed up, all have one that was.
fn has_other_ids(items: &[Item<'_>], request: &Request) -> bool {
    let sent = request.sent.iter().filter_map(|sent| request.id(sent));
    let sent: HashSet<&str> = sent.collect();
    let items = items.iter().filter(|item| item.keeps_its_id());
    let mut ids = items.filter_map(|item| item.id.as_ref());
    ids.any(|id| !sent.contains(id.0.as_ref()))
}

fn judge(item: &Item<'_>, plan: &Plan) -> Verdict {
    let Some(error) = &item.error else {
        return match item.status {
            200 if item.result.as_ref().is_some_and(|it| it.0 == "noop") => Verdict::Dropped,
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
        500 if OF_PROCESSORS.contains(&kind) => Verdict::Rejected,
        500..=599 => Verdict::Retry("http_5xx"),
        408 => Verdict::Retry("timeout"),
        // While `.security`, where roles stand, is away, the user has none at all; where that lasts, whole requests are refused, too.
        403 if reason.contains("with effective roles [] ") && reason.contains(NO_ROLES) => {
            Verdict::Retry("http_403")
        }
        403 if plan.index.has_field() => Verdict::Forbidden,
        400..=499 => match misconfigured(item.status, error, plan) {
            Some(advice) if plan.index.fixed().is_none() => Verdict::Misdirected(advice),
            Some(advice) => Verdict::Fatal(advice),
            None => Verdict::Rejected,
        },
        _ => Verdict::Unreadable,
    }
}

/// A block of an index or of the cluster. OpenSearch has a type of its own for the one that it sets where the disks are full.
const BLOCKS: [&str; 2] = ["cluster_block_exception", "index_create_block_exception"];

/// Whether the index or the cluster takes nothing at present: a full disk, a read-only index, no room for one more index. Somebody at
/// the cluster ends that, and no event is to blame.
pub(crate) fn is_blocked(kind: &str, reason: &str) -> bool {
    // By how a reason begins: further on it may quote the event.
    let full = reason.starts_with("Validation Failed") && reason.contains("shards open");
    BLOCKS.contains(&kind) || (kind == "validation_exception" && full)
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
fn misconfigured(status: u16, error: &Value, plan: &Plan) -> Option<&'static str> {
    let kind = member(error, "type");
    let reason = member(error, "reason");
    if status == 401 || status == 403 {
        return Some(PRIVILEGES);
    }
    if reason.starts_with("only write ops with an op_type of create are allowed in data streams") {
        return Some("the name is a data stream: set sink.elasticsearch.op.type=create");
    }
    if causes(error).any(|cause| wants_ids_of_its_own(member(cause, "reason"))) {
        return Some(
            "a time series makes its ids from the documents: set sink.elasticsearch.id=auto",
        );
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

fn wants_ids_of_its_own(reason: &str) -> bool {
    reason.starts_with("_id must be unset or set to [")
        && reason.ends_with("] is in time_series mode")
}

/// Elasticsearch's own words for one item, with its causes, index and id: for the dead letter, which has the event anyway.
fn describe(item: &Item<'_>, index: &str, id: Option<&str>) -> String {
    let mut text = format!("elasticsearch answered {} ", item.status);
    push_error(&mut text, item.error.as_ref().unwrap_or(&Value::Null));
    if let Some((end, _)) = text.char_indices().nth(MAX_REASON_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    push_place(&mut text, index, id);
    text
}

/// The same for the log and `/status`, where no value of an event belongs: without an id from a field, and without reasons that may quote
/// documents, as that of a missing primary shard does.
fn describe_briefly(item: &Item<'_>, index: &str, id: Option<&str>, plan: &Plan) -> String {
    let mut text = format!("elasticsearch answered {} ", item.status);
    let error = item.error.as_ref().unwrap_or(&Value::Null);
    push_causes(&mut text, error, without_values);
    push_place(&mut text, index, id.filter(|_| plan.id == Id::Offset));
    text
}

fn push_place(text: &mut String, index: &str, id: Option<&str>) {
    text.push_str(&format!(" (index {index}"));
    if let Some(id) = id {
        text.push_str(&format!(", id {id}"));
    }
    text.push(')');
}

/// Writes `type: reason` on one line, and the same for each `caused_by` that says more than what is written already.
pub(crate) fn push_error(text: &mut String, error: &Value) {
    match error {
        Value::String(words) => text.push_str(words),
        _ => push_causes(text, error, |_, reason| reason),
    }
}

/// The same with the part of each reason, by its type, that is to be said.
fn push_causes(text: &mut String, error: &Value, part: impl for<'r> Fn(&str, &'r str) -> &'r str) {
    let mut joint = "";
    for cause in causes(error) {
        let kind = member(cause, "type");
        // Elasticsearch shows a parser's place on lines of its own.
        let reason = part(kind, member(cause, "reason")).replace('\n', " ");
        if joint.is_empty() || reason.is_empty() || !text.contains(&reason) {
            text.push_str(joint);
            text.push_str(kind);
            text.push_str(if reason.is_empty() { "" } else { ": " });
            text.push_str(&reason);
        }
        joint = "; caused by ";
    }
}

/// The part of a reason that quotes no event: of indices, shards, users and limits.
fn without_values<'r>(kind: &str, reason: &'r str) -> &'r str {
    const KINDS: [&str; 4] = [
        "index_not_found_exception",
        "index_closed_exception",
        "security_exception",
        "circuit_breaking_exception",
    ];
    const BEGINNINGS: [&str; 6] = [
        "Validation Failed: 1: this action would add",
        "no write index is defined for alias [",
        "only write ops with an op_type of create are allowed in data streams",
        "pipeline with id [",
        "rejected execution of coordinating operation [",
        "rejected execution of primary operation [",
    ];
    let begins = BEGINNINGS.iter().any(|words| reason.starts_with(words));
    if begins || KINDS.contains(&kind) || BLOCKS.contains(&kind) {
        return reason;
    }
    match kind {
        // The request follows, with the document where it is the only one.
        "unavailable_shards_exception" => reason.split(", request: [").next().unwrap_or_default(),
        _ => "",
    }
}

/// An error and what it was caused by, outermost first.
fn causes(error: &Value) -> impl Iterator<Item = &Value> {
    std::iter::successors(Some(error), |cause| cause.get("caused_by"))
}

/// A text in an error object, or nothing.
pub(crate) fn member<'a>(error: &'a Value, name: &str) -> &'a str {
    error.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
