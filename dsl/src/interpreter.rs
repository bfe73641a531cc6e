//! A filter and a projection run by the interpreter alone, as slowly as that is: what tests compare a
//! [`Program`](crate::Program) with.

use crate::context::Context;
use crate::error::{EventError, ExpressionError, Stage};
use crate::evaluate::evaluate;
use crate::node::Node;
use crate::value::Value;
use crate::{Limits, Record, Settings, Verdict, json, parse};

/// Has the methods of a [`Program`](crate::Program) and its evaluator.
#[derive(Debug)]
pub struct Interpreter {
    filter: Option<Node>,
    projection: Option<Node>,
    limits: Limits,
}

impl Interpreter {
    /// Fails with the error of the first expression that has one.
    pub fn compile(
        filter: Option<&str>,
        projection: Option<&str>,
        settings: impl Into<Settings>,
    ) -> Result<Interpreter, ExpressionError> {
        let settings = settings.into();
        let parse =
            |which, text: Option<&str>| text.map(|text| parse::parse(which, text, &settings));
        Ok(Interpreter {
            filter: parse("filter", filter).transpose()?,
            projection: parse("projection", projection).transpose()?,
            limits: settings.limits,
        })
    }

    /// As [`Evaluator::apply`](crate::Evaluator::apply).
    pub fn apply(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<Verdict, EventError> {
        let event = json::read(record.payload, self.limits.max_depth)?;
        let context = Context::new(record, self.limits);
        if let Some(filter) = &self.filter
            && !run(filter, &event, &context, Stage::Filter)?.is_true()
        {
            return Ok(Verdict::Filtered);
        }
        let Some(projection) = &self.projection else {
            return Ok(Verdict::Unchanged);
        };
        let result = run(projection, &event, &context, Stage::Projection)?;
        if matches!(result, Value::Null) {
            return Ok(Verdict::Discarded);
        }
        let start = out.len();
        result
            .write(self.limits.max_output_bytes, out)
            .map_err(|reason| {
                out.truncate(start);
                EventError {
                    stage: Stage::Projection,
                    reason,
                }
            })?;
        Ok(Verdict::Projected)
    }
}

fn run<'a>(
    node: &'a Node,
    event: &Value<'a>,
    context: &Context<'a>,
    stage: Stage,
) -> Result<Value<'a>, EventError> {
    evaluate(node, event, context).map_err(|reason| EventError { stage, reason })
}
