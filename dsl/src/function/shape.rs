//! Shape: objects with other members, JSON inside text, and choices between values.

use std::borrow::Cow;

use super::argument::{Takes, items, text, with_article};
use super::{Call, Function, Literals, Outcome, PrepareError, Prepared};
use crate::context::Context;
use crate::evaluate::evaluate;
use crate::json;
use crate::node::Node;
use crate::number;
use crate::settings::Settings;
use crate::value::{Member, Text, Value};

/// Names in a path. Each may add a level to the value.
const MAX_PATH: usize = 32;

/// How deep JSON inside text may be nested.
pub(super) const PARSED_DEPTH: usize = 128;

/// About what a value read from a byte of text takes.
const PARSED_BYTES: usize = 8;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "between",
        &[
            Takes::NumberOrString,
            Takes::NumberOrString,
            Takes::NumberOrString,
        ],
        between,
    ),
    Function::new("drop_nulls", &[Takes::Json], |a| {
        drop_nulls(&a[0], a.context)
    }),
    Function::new("flatten", &[Takes::Object], flatten).with_optional(&[Takes::String]),
    Function::lazy("if", &[Takes::Any, Takes::Any, Takes::Any], choose),
    Function::new("omit", &[Takes::Object, Takes::String], |a| keep(a, false))
        .with_rest(Takes::String),
    Function::new("one_of", &[Takes::Any, Takes::Any], |a| {
        Ok(Value::Bool(a.context.is_among(&a[0], &a[1..])?))
    })
    .with_rest(Takes::Any),
    Function::new("parse_json", &[Takes::String], parse_json),
    Function::new("pick", &[Takes::Object, Takes::String], |a| keep(a, true))
        .with_rest(Takes::String),
    Function::new("rename", &[Takes::Object, Takes::Object], rename),
    Function::new(
        "set",
        &[Takes::Object, Takes::StringOrStrings, Takes::Json],
        set,
    )
    .prepared_by(prepare_path),
    Function::new("to_json", &[Takes::Json], to_json),
];

fn members<'v, 'a>(value: &'v Value<'a>) -> &'v [Member<'a>] {
    match value {
        Value::Object(members) => members,
        _ => &[],
    }
}

/// Evaluates the branch that is chosen, and not the other.
fn choose<'a>(arguments: &'a [Node], current: &Value<'a>, context: &Context<'a>) -> Outcome<'a> {
    let test = evaluate(&arguments[0], current, context)?;
    let branch = if test.is_true() { 1 } else { 2 };
    evaluate(&arguments[branch], current, context)
}

fn between<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (value, low, high) = (&call[0], &call[1], &call[2]);
    for (index, bound) in [low, high].into_iter().enumerate() {
        if bound.type_name() != value.type_name() {
            return Err(format!(
                "argument {} is {}, expected {} like argument 1",
                index + 2,
                with_article(bound.type_name()),
                with_article(value.type_name()),
            ));
        }
    }
    let in_order = |a: &Value<'a>, b: &Value<'a>| match (a, b) {
        (Value::Number(a), Value::Number(b)) => number::compare(a, b).is_le(),
        (a, b) => text(a) <= text(b),
    };
    Ok(Value::Bool(in_order(low, value) && in_order(value, high)))
}

/// `pick` and `omit`: the members that are named, or that are not, in the order of the object.
fn keep<'a>(call: &Call<'_, 'a>, named: bool) -> Outcome<'a> {
    let names: Vec<_> = call[1..].iter().map(text).collect();
    let kept = members(&call[0])
        .iter()
        .filter(|(key, _)| names.iter().any(|name| *key == **name) == named);
    call.context.object(kept.cloned().collect())
}

/// All names are changed at once, so two may be exchanged. What is renamed replaces a member that has the name already.
fn rename<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let names = members(&call[1]);
    if let Some((_, odd)) = names
        .iter()
        .find(|(_, name)| !matches!(name, Value::String(_)))
    {
        return Err(format!(
            "argument 2 has a member that is {}, expected new names as strings",
            with_article(odd.type_name())
        ));
    }
    let renamed = |key: &Text<'a>| {
        let known = names.iter().find(|(old, _)| *key == *old.as_str());
        known.map(|(_, new)| Text::Plain(text(new).into_owned().into()))
    };
    let taken: Vec<Text<'_>> = members(&call[0])
        .iter()
        .filter_map(|(key, _)| renamed(key))
        .collect();
    let mut result = Vec::with_capacity(members(&call[0]).len());
    for (key, value) in members(&call[0]) {
        match renamed(key) {
            Some(new) => result.push((new, value.clone())),
            None if taken.iter().any(|new| *new == *key.as_str()) => {}
            None => result.push((key.clone(), value.clone())),
        }
    }
    call.context.object(result)
}

/// Members of an object that is a member become members, by both names. An empty object stays as it is.
fn flatten<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let separator = call.get(1).map_or(Cow::Borrowed("."), text);
    let mut flat = Vec::new();
    for (outer, value) in members(&call[0]) {
        if members(value).is_empty() {
            flat.push((outer.clone(), value.clone()));
            continue;
        }
        call.context.spend_items(2 * members(value).len())?;
        for (inner, value) in members(value) {
            let name = [&outer.as_str(), separator.as_ref(), &inner.as_str()].concat();
            call.context.spend(name.len())?;
            flat.push((Text::Plain(name.into()), value.clone()));
        }
    }
    call.context.object(flat)
}

/// Without the members that are null, at every depth. The items of lists stay where they are.
fn drop_nulls<'a>(value: &Value<'a>, context: &Context<'a>) -> Outcome<'a> {
    // Loops, not iterators: fewer frames on the stack for each level.
    match value {
        Value::Array(items) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items.iter() {
                kept.push(drop_nulls(item, context)?);
            }
            context.list(kept)
        }
        Value::Object(members) => {
            // Members that are null are gone through, and leave nothing.
            context.pass_value(value)?;
            let mut kept = Vec::with_capacity(members.len());
            for (key, value) in members.iter() {
                if !matches!(value, Value::Null) {
                    kept.push((key.clone(), drop_nulls(value, context)?));
                }
            }
            context.object(kept)
        }
        other => Ok(other.clone()),
    }
}

/// The names on the way to a value: a text with dots, or a list.
fn path<'v>(value: &'v Value<'_>) -> Result<Vec<Cow<'v, str>>, String> {
    let path: Vec<_> = match value {
        Value::Array(_) => items(value).iter().map(text).collect(),
        _ => text(value)
            .split('.')
            .map(|name| Cow::Owned(name.to_owned()))
            .collect(),
    };
    if path.is_empty() || path.iter().any(|name| name.is_empty()) {
        return Err("a path is made of names such as 'labels.host', none of them empty".to_owned());
    }
    if path.len() > MAX_PATH {
        return Err(format!("a path has at most {MAX_PATH} names"));
    }
    Ok(path)
}

/// How many names a path has at most.
pub(super) fn path_length(argument: &Node) -> usize {
    match argument {
        Node::Literal(literal) => path(literal).map_or(0, |path| path.len()),
        _ => MAX_PATH,
    }
}

fn prepare_path(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    literals[1].map_or(Ok(Prepared::Nothing), |literal| {
        path(literal)
            .map(|_| Prepared::Nothing)
            .map_err(|reason| (1, reason))
    })
}

fn set<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let path = path(&call[1]).map_err(|reason| format!("argument 2: {reason}"))?;
    set_at(&call[0], &path, &call[2], call.context)
}

fn set_at<'a>(
    value: &Value<'a>,
    path: &[Cow<'_, str>],
    new: &Value<'a>,
    context: &Context<'a>,
) -> Outcome<'a> {
    let Some((name, rest)) = path.split_first() else {
        return Ok(new.clone());
    };
    if !matches!(value, Value::Object(_) | Value::Null) {
        return Err(format!(
            "argument 1 has {} on the path, expected an object or nothing",
            with_article(value.type_name())
        ));
    }
    let mut members = members(value).to_vec();
    match members.iter_mut().find(|(key, _)| *key == **name) {
        Some((_, inner)) => *inner = set_at(inner, rest, new, context)?,
        None => {
            let inner = set_at(&Value::Null, rest, new, context)?;
            members.push((Text::Plain(name.clone().into_owned().into()), inner));
        }
    }
    context.object(members)
}

fn parse_json<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let text = text(&call[0]);
    call.context
        .spend(text.len().saturating_mul(PARSED_BYTES))?;
    match json::read_text(&text, PARSED_DEPTH) {
        Ok(value) => Ok(value.detached()),
        Err(bad) => Err(format!(
            "argument 1 is a string that is not JSON: {} at its byte {}",
            bad.what, bad.at
        )),
    }
}

fn to_json<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let mut json = Vec::new();
    call[0].write_plain(call.context.limits().max_output_bytes, &mut json)?;
    let json = String::from_utf8(json).map_err(|error| error.to_string())?;
    call.context.text(json)
}

#[cfg(test)]
mod tests;
