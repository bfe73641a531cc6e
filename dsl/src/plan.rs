//! The compiled form of a route's filter and projection.
//!
//! Fields and indices become paths, found in one pass over the payload ([`scan`](crate::scan)); what is done with their
//! values is a tree of [`Op`]s that works on the payload's own text ([`run`]). What has no such form ([`Op::Interpret`]:
//! all that goes through the items of a list, and what a result is further taken apart by) is left to
//! [`evaluate`](crate::evaluate), which gets only the value that it is about. Results are the same as if all was evaluated.

mod explain;
mod run;
mod text;
mod view;

use crate::context::Context;
use crate::error::{EventError, Position, Stage};
use crate::function::{Function, Prepared};
use crate::node::{Node, Operator};
use crate::paths::{EVENT, PathId, Paths, Span};
use crate::scan::{self, Early, Keyring, Known, Marks, Request};
use crate::value::Value;
use crate::{Limits, Record, Validation, Verdict, json};

use run::{Run, Stop};

#[derive(Debug)]
enum Op {
    Path(PathId),
    /// With its JSON text.
    Literal(Value<'static>, String),
    Or(Vec<Op>),
    And(Vec<Op>),
    Not(Box<Op>),
    Compare {
        operator: Operator,
        left: Box<Op>,
        right: Box<Op>,
    },
    /// `[a, b]`; null where the value at `of` is null.
    List {
        of: PathId,
        items: Vec<Op>,
    },
    /// `{a: b}`, each key once; null where the value at `of` is null.
    Object {
        of: PathId,
        members: Vec<Member>,
    },
    Call {
        function: &'static Function,
        how: How,
        arguments: Vec<Op>,
        prepared: Prepared,
        position: Position,
    },
    /// `&a`, a function's argument.
    Reference(Node),
    /// The interpreter takes the value from here, step by step.
    Interpret {
        on: Box<Op>,
        steps: Vec<Node>,
    },
}

#[derive(Debug)]
struct Member {
    key: String,
    /// As it is written, with the colon.
    written: String,
    value: Op,
}

/// How a function is called: some can look at the payload's text where others need values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Contains,
    Length,
    NotNull,
    ToNumber,
    ToString,
    Type,
    WithValues,
}

impl How {
    fn of(name: &str) -> Self {
        match name {
            "contains" => How::Contains,
            "length" => How::Length,
            "not_null" => How::NotNull,
            "to_number" => How::ToNumber,
            "to_string" => How::ToString,
            "type" => How::Type,
            _ => How::WithValues,
        }
    }
}

impl Op {
    fn parts(&self) -> Vec<&Op> {
        match self {
            Op::Path(_) | Op::Literal(..) | Op::Reference(_) => Vec::new(),
            Op::Or(all) | Op::And(all) => all.iter().collect(),
            Op::Not(op) => vec![op],
            Op::Compare { left, right, .. } => vec![left, right],
            Op::List { items, .. } => items.iter().collect(),
            Op::Object { members, .. } => members.iter().map(|member| &member.value).collect(),
            Op::Call { arguments, .. } => arguments.iter().collect(),
            Op::Interpret { on, .. } => vec![on],
        }
    }

    /// Whether the whole event is a value that is worked with.
    fn uses_event(&self) -> bool {
        matches!(self, Op::Path(EVENT)) || self.parts().into_iter().any(Op::uses_event)
    }

    fn compile(node: Node, at: PathId, paths: &mut Paths) -> Op {
        let all = |nodes: Vec<Node>, paths: &mut Paths| {
            let compile = |node| Op::compile(node, at, paths);
            nodes.into_iter().map(compile).collect()
        };
        match node {
            Node::Current => Op::Path(at),
            Node::Literal(value) => {
                let text = written(&value);
                Op::Literal(value, text)
            }
            Node::Field(name) => Op::Path(paths.key(at, name)),
            Node::Index(index) => Op::Path(paths.index(at, index)),
            Node::Chain(steps) => Op::chain(steps, at, paths),
            Node::Each { list, each } => {
                let step = |list| Node::Each { list, each };
                Op::compile(*list, at, paths).then(step(Box::new(Node::Current)))
            }
            Node::Members(of) => {
                Op::compile(*of, at, paths).then(Node::Members(Box::new(Node::Current)))
            }
            Node::Flatten(of) => {
                Op::compile(*of, at, paths).then(Node::Flatten(Box::new(Node::Current)))
            }
            Node::List(items) => Op::List {
                of: at,
                items: all(items, paths),
            },
            Node::Object(_) if repeats_a_key(&node) => Op::Path(at).then(node),
            Node::Object(members) => Op::Object {
                of: at,
                members: members
                    .into_iter()
                    .map(|(key, node)| Member::new(&key.as_str(), Op::compile(node, at, paths)))
                    .collect(),
            },
            Node::Or(choices) => Op::Or(all(choices, paths)),
            Node::And(conditions) => Op::And(all(conditions, paths)),
            Node::Not(node) => Op::Not(Box::new(Op::compile(*node, at, paths))),
            Node::Compare {
                operator,
                left,
                right,
            } => Op::Compare {
                operator,
                left: Box::new(Op::compile(*left, at, paths)),
                right: Box::new(Op::compile(*right, at, paths)),
            },
            Node::Call {
                function,
                arguments,
                prepared,
                position,
            } if function.is_eager() => Op::Call {
                function,
                how: How::of(function.name),
                arguments: all(arguments, paths),
                prepared,
                position,
            },
            Node::Reference(node) => Op::Reference(*node),
            node @ (Node::Slice { .. } | Node::Where { .. } | Node::Call { .. }) => {
                Op::Path(at).then(node)
            }
        }
    }

    /// Steps go on along the path as far as they are a path.
    fn chain(steps: Vec<Node>, at: PathId, paths: &mut Paths) -> Op {
        let mut op = Op::Path(at);
        for step in steps {
            op = match op {
                Op::Path(at) => Op::compile(step, at, paths),
                computed => computed.then(step),
            };
        }
        op
    }

    fn then(self, step: Node) -> Op {
        match self {
            Op::Interpret { on, mut steps } => {
                steps.push(step);
                Op::Interpret { on, steps }
            }
            on => Op::Interpret {
                on: Box::new(on),
                steps: vec![step],
            },
        }
    }
}

impl Member {
    fn new(key: &str, value: Op) -> Self {
        Member {
            key: key.to_owned(),
            written: format!("{}:", written(&Value::text(key))),
            value,
        }
    }
}

/// A literal as JSON.
fn written(literal: &Value<'_>) -> String {
    let mut text = Vec::new();
    // Only references to expressions can't be written.
    let _ = literal.write(usize::MAX, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn repeats_a_key(object: &Node) -> bool {
    let Node::Object(members) = object else {
        return false;
    };
    (1..members.len()).any(|n| members[..n].iter().any(|(key, _)| *key == members[n].0))
}

/// A filter and a projection, compiled together.
#[derive(Debug)]
pub(crate) struct Plan {
    paths: Paths,
    filter: Option<Op>,
    projection: Option<Op>,
    uses_event: bool,
}

/// What an evaluator keeps from event to event, so that it allocates nothing for each.
#[derive(Debug)]
pub(crate) struct Scratch {
    known: Known,
    spans: Vec<Span>,
    keyring: Keyring,
}

impl Plan {
    pub(crate) fn compile(filter: Option<Node>, projection: Option<Node>) -> Self {
        let mut paths = Paths::new();
        let filter = filter.map(|node| Op::compile(node, EVENT, &mut paths));
        paths.mark_filter();
        let projection = projection.map(|node| Op::compile(node, EVENT, &mut paths));
        paths.finish();
        let uses_event = filter.iter().chain(&projection).any(Op::uses_event);
        Plan {
            paths,
            filter,
            projection,
            uses_event,
        }
    }

    pub(crate) fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    pub(crate) fn has_projection(&self) -> bool {
        self.projection.is_some()
    }

    pub(crate) fn projected_keys(&self) -> Option<Vec<String>> {
        match self.projection.as_ref()? {
            Op::Object { members, .. } => {
                let keys = members.iter().map(|member| member.key.clone());
                Some(keys.collect())
            }
            Op::Interpret { steps, .. } => match steps.last()? {
                Node::Object(members) => {
                    let keys = members.iter().map(|(key, _)| key.as_str().into_owned());
                    Some(keys.collect())
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            known: Known::default(),
            spans: vec![Span::NONE; self.paths.len()],
            keyring: Keyring::default(),
        }
    }

    /// Decides on one event. `out` is appended to for [`Verdict::Projected`] only; after an error it is as it was.
    pub(crate) fn apply(
        &self,
        record: &Record<'_>,
        limits: Limits,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, EventError> {
        let text = json::decode(record.payload)?;
        let early = self.read(text, record, limits, scratch)?;
        if early == Early::Rejected {
            return Ok(Verdict::Filtered);
        }
        let context = Context::new(record, limits);
        let mut run = Run::new(text, &scratch.spans, &context, &mut scratch.keyring);
        let accepted = match (early, &self.filter) {
            (Early::Undecided, Some(filter)) => run.truth(filter).map_err(failed(Stage::Filter))?,
            _ => true,
        };
        if !accepted {
            return Ok(Verdict::Filtered);
        }
        let Some(projection) = &self.projection else {
            return Ok(Verdict::Unchanged);
        };
        let start = out.len();
        match run.write_all(projection, out) {
            Ok(true) => Ok(Verdict::Projected),
            Ok(false) => Ok(Verdict::Discarded),
            Err(stop) => {
                out.truncate(start);
                Err(failed(Stage::Projection)(stop))
            }
        }
    }

    /// Fills the scratch's spans.
    fn read(
        &self,
        text: &str,
        record: &Record<'_>,
        limits: Limits,
        scratch: &mut Scratch,
    ) -> Result<Early, EventError> {
        let Scratch {
            known,
            spans,
            keyring,
        } = scratch;
        let lazy = limits.validation == Validation::Lazy;
        let request = Request {
            paths: &self.paths,
            max_depth: limits.max_depth,
            stop_rejected: lazy,
            stop_found: lazy && !self.uses_event,
        };
        let mut decide = |spans: &[Span]| match &self.filter {
            Some(filter) => {
                let context = Context::new(record, limits);
                Run::early(text, spans, &self.paths, &context, keyring).decide(filter)
            }
            None => Early::Undecided,
        };
        scan::find(text, &request, known, spans, &mut decide)
            .map_err(|_| refused(text, limits.max_depth))
    }
}

/// Whether the text is JSON, and why not.
pub(crate) fn check(text: &str, max_depth: usize, marks: &mut Marks) -> Result<(), EventError> {
    if scan::is_valid(text, max_depth, marks) {
        Ok(())
    } else {
        Err(refused(text, max_depth))
    }
}

/// The reason for what the scan refused.
fn refused(text: &str, max_depth: usize) -> EventError {
    let unexplained = || EventError {
        stage: Stage::Decode,
        reason: "not JSON".to_owned(),
    };
    json::check(text.as_bytes(), max_depth)
        .err()
        .unwrap_or_else(unexplained)
}

fn failed(stage: Stage) -> impl Fn(Stop) -> EventError {
    move |stop| EventError {
        stage,
        reason: stop.reason(),
    }
}

#[cfg(test)]
mod tests;
