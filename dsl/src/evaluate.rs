//! Evaluates an expression by walking its tree.

use std::cmp::Ordering;

use crate::context::Context;
use crate::error::Position;
use crate::node::{Node, Operator};
use crate::number;
use crate::value::Value;

/// The expression's result for `current`, or the reason why there is none.
pub(crate) fn evaluate<'a>(
    node: &'a Node,
    current: &Value<'a>,
    context: &Context<'a>,
) -> Result<Value<'a>, String> {
    #[cfg(test)]
    tests::count();
    Ok(match node {
        Node::Current => current.clone(),
        Node::Literal(value) => value.borrowed(),
        Node::Field(name) => context.field(current, name)?,
        Node::Index(index) => match current {
            Value::Array(items) => item(items, *index),
            _ => Value::Null,
        },
        Node::Slice { start, stop, step } => match current {
            Value::Array(items) => context.list(slice(items, *start, *stop, *step))?,
            _ => Value::Null,
        },
        Node::Chain(steps) => {
            let mut value = current.clone();
            for step in steps {
                value = evaluate(step, &value, context)?;
            }
            value
        }
        Node::Each { list, each } => match evaluate(list, current, context)? {
            Value::Array(items) => {
                context.pass_items(items.len())?;
                let mut results = Vec::new();
                for item in items.iter() {
                    match evaluate(each, item, context)? {
                        Value::Null => {}
                        result => results.push(result),
                    }
                }
                context.list(results)?
            }
            _ => Value::Null,
        },
        Node::Members(object) => match evaluate(object, current, context)? {
            Value::Object(members) => {
                let sorted = Value::sorted(&members).into_iter();
                context.list(sorted.map(|(_, value)| value).collect())?
            }
            _ => Value::Null,
        },
        Node::Flatten(list) => match evaluate(list, current, context)? {
            Value::Array(items) => flatten(&items, context)?,
            _ => Value::Null,
        },
        Node::Where { test, then } => {
            if evaluate(test, current, context)?.is_true() {
                evaluate(then, current, context)?
            } else {
                Value::Null
            }
        }
        Node::List(_) | Node::Object(_) if matches!(current, Value::Null) => Value::Null,
        Node::List(items) => context.list(
            items
                .iter()
                .map(|item| evaluate(item, current, context))
                .collect::<Result<_, _>>()?,
        )?,
        Node::Object(members) => {
            let member = |(key, node): &'a (_, _)| {
                Ok((Clone::clone(key), evaluate(node, current, context)?))
            };
            context.object(members.iter().map(member).collect::<Result<_, String>>()?)?
        }
        Node::Or(choices) => first(choices, current, context, true)?,
        Node::And(conditions) => first(conditions, current, context, false)?,
        Node::Not(node) => Value::Bool(!evaluate(node, current, context)?.is_true()),
        Node::Compare {
            operator,
            left,
            right,
        } => compare(
            *operator,
            &evaluate(left, current, context)?,
            &evaluate(right, current, context)?,
            context,
        )?,
        Node::Call {
            function,
            arguments,
            prepared,
            position,
        } => function.call(arguments, prepared, *position, current, context)?,
        Node::Reference(node) => Value::Reference(node),
    })
}

pub(crate) fn located(function: &str, (line, column): Position, reason: &str) -> String {
    format!("{function}: {reason} (line {line}, column {column})")
}

/// The first result whose truth is the one looked for, else the last result.
fn first<'a>(
    nodes: &'a [Node],
    current: &Value<'a>,
    context: &Context<'a>,
    truth: bool,
) -> Result<Value<'a>, String> {
    let mut result = Value::Null;
    for node in nodes {
        result = evaluate(node, current, context)?;
        if result.is_true() == truth {
            break;
        }
    }
    Ok(result)
}

/// Null where numbers are needed and something else is found.
pub(crate) fn compare<'a>(
    operator: Operator,
    left: &Value<'_>,
    right: &Value<'_>,
    context: &Context<'_>,
) -> Result<Value<'a>, String> {
    let ordered = |accepts: fn(Ordering) -> bool| match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            Value::Bool(accepts(number::compare(left, right)))
        }
        _ => Value::Null,
    };
    Ok(match operator {
        Operator::Equal => Value::Bool(context.equal(left, right)?),
        Operator::NotEqual => Value::Bool(!context.equal(left, right)?),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(Ordering::is_ge),
    })
}

fn item<'a>(items: &[Value<'a>], index: i32) -> Value<'a> {
    let from_start = usize::try_from(index).ok();
    let place = from_start.or_else(|| items.len().checked_sub(index.unsigned_abs() as usize));
    place
        .and_then(|place| items.get(place))
        .cloned()
        .unwrap_or(Value::Null)
}

fn flatten<'a>(items: &[Value<'a>], context: &Context<'a>) -> Result<Value<'a>, String> {
    // A list of empty lists leaves nothing, and is gone through all the same.
    context.pass_items(items.len())?;
    let size = |item: &Value<'a>| match item {
        Value::Array(inner) => inner.len(),
        _ => 1,
    };
    // One list may be in it many times, so the result may be much larger than what is there.
    let size = items.iter().map(size).sum();
    context.spend_items(size)?;
    let mut flat = Vec::with_capacity(size);
    for item in items {
        match item {
            Value::Array(inner) => flat.extend_from_slice(inner),
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::array(flat))
}

/// As a slice in Python.
fn slice<'a>(
    items: &[Value<'a>],
    start: Option<i32>,
    stop: Option<i32>,
    step: i32,
) -> Vec<Value<'a>> {
    let length = items.len() as i64;
    let step = i64::from(step);
    let (lowest, highest) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let place = |given: Option<i32>, default: i64| match given.map(i64::from) {
        Some(given) if given < 0 => (given + length).clamp(lowest, highest),
        Some(given) => given.clamp(lowest, highest),
        None => default,
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let (mut at, stop) = (place(start, first), place(stop, last));
    let mut taken = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        taken.push(items[at as usize].clone());
        at += step;
    }
    taken
}

#[cfg(test)]
mod tests;
