//! The filter and projection language: bytes in, verdict and bytes out.
//!
//! The language is JMESPath; `docs/dsl.md` describes it for the people who write routes. A [`Program`] is compiled once
//! and shared by the lanes; each lane makes its own [`Evaluator`]. Events are checked to be JSON to the last byte, also
//! where there is neither filter nor projection.
//!
//! In reading order: `token` and `parse` read an expression and `node` is what it becomes; `plan` compiles that to `paths`
//! and what is done with their values, which `scan` finds in a payload. `json` reads a payload to a `value`, for which
//! `evaluate` and `function` interpret what has no compiled form. Nothing outside this crate sees any of these.
//!
//! ```
//! use keystone_dsl::{Limits, Program, Verdict};
//!
//! let program = Program::compile(Some("level == 'error'"), Some("{id: id, took: duration_ms}"), Limits::default()).unwrap();
//! let mut evaluator = program.evaluator();
//! let mut out = Vec::new();
//! let verdict = evaluator.apply(br#"{"id": 7, "level": "error", "duration_ms": 1.50}"#, &mut out).unwrap();
//! assert_eq!((verdict, out.as_slice()), (Verdict::Projected, br#"{"id":7,"took":1.50}"#.as_slice()));
//! ```

mod error;
mod evaluate;
mod function;
mod interpreter;
mod json;
mod node;
mod number;
mod parse;
mod paths;
mod plan;
mod scan;
mod token;
mod value;

pub use error::{EventError, ExpressionError, Position, Stage};
#[doc(hidden)]
pub use interpreter::Interpreter;

use plan::{Plan, Scratch};
use scan::Marks;

/// The deepest nesting of an event that can be asked for: values are dropped and written recursively.
pub const MAX_DEPTH: usize = 1000;

/// What bounds the work that an event may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects inside each other, the outermost counted as 1. More than [`MAX_DEPTH`] is taken as that.
    pub max_depth: usize,
    pub validation: Validation,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_depth: 128,
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
    /// Fails with the errors of both expressions.
    pub fn compile(
        filter: Option<&str>,
        projection: Option<&str>,
        limits: Limits,
    ) -> Result<Program, Vec<ExpressionError>> {
        let mut errors = Vec::new();
        let mut parse = |which, text: Option<&str>| {
            text.and_then(|text| parse::parse(which, text).map_err(|e| errors.push(e)).ok())
        };
        let filter = parse("filter", filter);
        let projection = parse("projection", projection);
        if errors.is_empty() {
            Ok(Program {
                plan: Plan::compile(filter, projection),
                limits,
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
    pub fn apply(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Verdict, EventError> {
        let Program { plan, limits } = self.program;
        plan.apply(payload, *limits, &mut self.scratch, out)
    }
}

/// One expression by itself, to explore what it yields.
#[derive(Debug)]
pub struct Expression {
    plan: Plan,
}

impl Expression {
    pub fn compile(text: &str) -> Result<Expression, ExpressionError> {
        let node = parse::parse("expression", text)?;
        Ok(Expression {
            plan: Plan::compile(None, Some(node)),
        })
    }

    /// Appends the result as JSON, `null` included, without a newline. The default [`Limits`] apply.
    pub fn search(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EventError> {
        let mut scratch = self.plan.scratch();
        let verdict = self
            .plan
            .apply(payload, Limits::default(), &mut scratch, out)?;
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
