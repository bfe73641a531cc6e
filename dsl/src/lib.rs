//! The filter and projection language: bytes in, verdict and bytes out.
//!
//! The language is JMESPath; `docs/dsl.md` describes it for the people who write routes. A [`Program`] is compiled once
//! and shared by the lanes; each lane makes its own [`Evaluator`]. Events are checked to be JSON to the last byte, also
//! where there is neither filter nor projection.
//!
//! In reading order: `token` and `parse` read an expression and `node` is what it becomes; `plan` compiles that to `paths`
//! and what is done with their values, which `scan` finds in a payload. `json` reads a payload to a `value`, for which
//! `evaluate` and `function` interpret what has no compiled form, within the bounds of a `context`. `hygiene` judges the
//! result. Nothing outside this crate sees any of these.
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
#![forbid(unsafe_code)]

mod context;
mod error;
mod evaluate;
mod function;
mod hygiene;
mod interpreter;
mod json;
mod node;
mod number;
mod parse;
mod paths;
mod plan;
mod record;
mod scan;
mod settings;
mod token;
mod value;

pub use error::{EventError, ExpressionError, Position, Stage};
pub use hygiene::{Broken, Hygiene, Rule, Rules};
#[doc(hidden)]
pub use interpreter::Interpreter;
pub use record::{Headers, NoHeaders, Record};
pub use settings::{Secrets, Settings};

use plan::{Plan, Scratch};
use scan::Marks;

/// The deepest nesting of an event that can be asked for: values are dropped and written recursively.
pub const MAX_DEPTH: usize = 1000;

/// What bounds the work that an event may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects inside each other, the outermost counted as 1. More than [`MAX_DEPTH`] is taken as that.
    pub max_depth: usize,
    /// Bytes of a projection's result. What an expression makes on the way, of one event, may take four times as many.
    pub max_output_bytes: usize,
    pub validation: Validation,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_depth: 128,
            max_output_bytes: 16 << 20,
            validation: Validation::Full,
        }
    }
}

/// How much of an event is checked to be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// All of it, to the last byte.
    #[default]
    Full,
    /// As far as it has to be read: until the filter rejects, or each member that an expression names was found. What
    /// follows may be no JSON, and a repeat of a key there isn't seen. All of it is checked to be UTF-8, and where there
    /// is neither filter nor projection, to be JSON.
    Lazy,
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
    plan: Plan,
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
                parse::parse_for_route(which, text, &settings)
                    .map_err(|e| errors.push(e))
                    .ok()
            })
        };
        let filter = parse("filter", filter);
        let projection = parse("projection", projection);
        if errors.is_empty() {
            Ok(Program {
                plan: Plan::compile(filter, projection),
                limits: settings.limits,
            })
        } else {
            Err(errors)
        }
    }

    pub fn has_filter(&self) -> bool {
        self.plan.has_filter()
    }

    pub fn has_projection(&self) -> bool {
        self.plan.has_projection()
    }

    /// The keys that every event has after the projection, where it is written as `{a: …, b: …}` and they are known therefore.
    pub fn projected_keys(&self) -> Option<Vec<String>> {
        self.plan.projected_keys()
    }

    /// What a lane keeps: the program with scratch space of its own.
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator {
            program: self,
            scratch: self.plan.scratch(),
        }
    }

    /// For the route's owner: which parts of the expressions run compiled, which in the interpreter, and what they read.
    pub fn explain(&self) -> String {
        self.plan.explain()
    }
}

/// Applies a [`Program`] to one event after the other.
#[derive(Debug)]
pub struct Evaluator<'p> {
    program: &'p Program,
    scratch: Scratch,
}

impl Evaluator<'_> {
    /// Decides on one event. `out` is appended to for [`Verdict::Projected`] only; after an error it is as it was.
    pub fn apply(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Verdict, EventError> {
        let Program { plan, limits } = self.program;
        plan.apply(record, *limits, &mut self.scratch, out)
    }
}

/// One expression by itself, to explore what it yields.
#[derive(Debug)]
pub struct Expression {
    plan: Plan,
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
        let node = parse::parse("expression", text, &settings)?;
        Ok(Expression {
            plan: Plan::compile(None, Some(node)),
            limits: settings.limits,
        })
    }

    /// Appends the result as JSON, `null` included, without a newline; after an error `out` is as it was.
    pub fn search(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), EventError> {
        let mut scratch = self.plan.scratch();
        let verdict = self.plan.apply(record, self.limits, &mut scratch, out)?;
        if verdict == Verdict::Discarded {
            out.extend_from_slice(b"null");
        }
        Ok(())
    }
}

/// Whether the payload is one JSON value (RFC 8259) in UTF-8, to its last byte, nested at most `max_depth` deep.
pub fn validate(payload: &[u8], max_depth: usize) -> Result<(), EventError> {
    plan::check(json::decode(payload)?, max_depth, &mut Marks::default())
}
