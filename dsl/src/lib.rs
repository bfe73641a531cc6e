//! The filter and projection language: bytes in, verdict and bytes out.
//!
//! The language is JMESPath; `docs/dsl.md` describes it for the people who write routes. A [`Program`] is compiled once
//! and shared by the lanes; each lane makes its own [`Evaluator`]. Events are checked to be JSON to the last byte, also
//! where there is neither filter nor projection.
//!
//! In reading order: `json` reads a payload, `value` is what it becomes, `token` and `parse` read an expression, `node`
//! is what that becomes, `evaluate` and `function` put the two together within the bounds of a `context`, `hygiene` judges
//! the result. Nothing outside this crate sees any of these, so another engine can take their place.
//!
//! ```
//! use keystone_dsl::{Program, Record, Settings, Verdict};
//!
//! let program = Program::compile(Some("level == 'error'"), Some("{id: id, took: duration_ms}"), Settings::default()).unwrap();
//! let mut evaluator = program.evaluator();
//! let mut out = Vec::new();
//! let record = Record::of(br#"{"id": 7, "level": "error", "duration_ms": 1.50}"#);
//! let verdict = evaluator.apply(&record, &mut out).unwrap();
//! assert_eq!((verdict, out.as_slice()), (Verdict::Projected, br#"{"id":7,"took":1.50}"#.as_slice()));
//! ```

mod context;
mod error;
mod evaluate;
mod function;
mod hygiene;
mod json;
mod node;
mod number;
mod parse;
mod record;
mod settings;
mod token;
mod value;

pub use error::{EventError, ExpressionError, Position, Stage};
pub use hygiene::{Broken, Hygiene, Rule, Rules};
pub use record::{Headers, NoHeaders, Record};
pub use settings::{Secrets, Settings};

use context::Context;
use node::Node;
use value::Value;

/// The deepest nesting of an event that can be asked for: values are dropped and written recursively.
pub const MAX_DEPTH: usize = 1000;

/// What bounds the work that an event may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects inside each other, the outermost counted as 1. More than [`MAX_DEPTH`] is taken as that.
    pub max_depth: usize,
    /// Bytes of a projection's result. What an expression makes on the way, of one event, may take four times as many.
    pub max_output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_depth: 128,
            max_output_bytes: 16 << 20,
        }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The filter's result is not true.
    Filtered,
    /// The projection yielded null.
    Discarded,
    /// Kept, and without a projection: the payload goes on byte for byte. Nothing was appended.
    Unchanged,
    /// Kept; the projection's result was appended as one line of JSON, without a newline at its end.
    Projected,
}

/// A route's filter and projection, compiled. Either or both may be absent.
#[derive(Debug)]
pub struct Program {
    filter: Option<Node>,
    projection: Option<Node>,
    limits: Limits,
}

impl Program {
    /// Fails with the errors of both expressions. [`Limits`] alone will do as settings where there are no secrets.
    pub fn compile(
        filter: Option<&str>,
        projection: Option<&str>,
        settings: impl Into<Settings>,
    ) -> Result<Program, Vec<ExpressionError>> {
        let settings = settings.into();
        let mut errors = Vec::new();
        let mut parse = |which, text: Option<&str>| {
            text.and_then(|text| {
                parse::parse(which, text, &settings)
                    .map_err(|e| errors.push(e))
                    .ok()
            })
        };
        let filter = parse("filter", filter);
        let projection = parse("projection", projection);
        if errors.is_empty() {
            Ok(Program {
                filter,
                projection,
                limits: settings.limits,
            })
        } else {
            Err(errors)
        }
    }

    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    pub fn has_projection(&self) -> bool {
        self.projection.is_some()
    }

    /// What a lane keeps: the program with scratch space of its own.
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator { program: self }
    }
}

/// Applies a [`Program`] to one event after the other.
#[derive(Debug)]
pub struct Evaluator<'p> {
    program: &'p Program,
}

impl Evaluator<'_> {
    /// Decides on one event. `out` is appended to for [`Verdict::Projected`] only; after an error it is as it was.
    pub fn apply(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Verdict, EventError> {
        let (program, payload) = (self.program, record.payload);
        if program.filter.is_none() && program.projection.is_none() {
            return validate(payload, program.limits.max_depth).map(|()| Verdict::Unchanged);
        }
        let event = json::read(payload, program.limits.max_depth)?;
        let context = Context::new(record, program.limits);
        if let Some(filter) = &program.filter
            && !run(filter, &event, &context, Stage::Filter)?.is_true()
        {
            return Ok(Verdict::Filtered);
        }
        let Some(projection) = &program.projection else {
            return Ok(Verdict::Unchanged);
        };
        let result = run(projection, &event, &context, Stage::Projection)?;
        if matches!(result, Value::Null) {
            return Ok(Verdict::Discarded);
        }
        write(&result, program.limits, out)?;
        Ok(Verdict::Projected)
    }
}

/// One expression by itself, to explore what it yields.
#[derive(Debug)]
pub struct Expression {
    node: Node,
    limits: Limits,
}

impl Expression {
    /// With the default [`Settings`].
    pub fn compile(text: &str) -> Result<Expression, ExpressionError> {
        Expression::compile_with(text, Settings::default())
    }

    pub fn compile_with(
        text: &str,
        settings: impl Into<Settings>,
    ) -> Result<Expression, ExpressionError> {
        let settings = settings.into();
        Ok(Expression {
            node: parse::parse("expression", text, &settings)?,
            limits: settings.limits,
        })
    }

    /// Appends the result as JSON, `null` included, without a newline; after an error `out` is as it was.
    pub fn search(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), EventError> {
        let event = json::read(record.payload, self.limits.max_depth)?;
        let context = Context::new(record, self.limits);
        let result = run(&self.node, &event, &context, Stage::Projection)?;
        write(&result, self.limits, out)
    }
}

/// Whether the payload is one JSON value (RFC 8259) in UTF-8, to its last byte, nested at most `max_depth` deep.
pub fn validate(payload: &[u8], max_depth: usize) -> Result<(), EventError> {
    json::check(payload, max_depth)
}

fn run<'a>(
    node: &'a Node,
    event: &Value<'a>,
    context: &Context<'a>,
    stage: Stage,
) -> Result<Value<'a>, EventError> {
    evaluate::evaluate(node, event, context).map_err(|reason| EventError { stage, reason })
}

fn write(result: &Value<'_>, limits: Limits, out: &mut Vec<u8>) -> Result<(), EventError> {
    let start = out.len();
    result
        .write(limits.max_output_bytes, out)
        .map_err(|reason| {
            out.truncate(start);
            EventError {
                stage: Stage::Projection,
                reason,
            }
        })
}
