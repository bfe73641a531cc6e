//! JMESPath's own functions. They agree with the reference but where `docs/dsl.md` says otherwise.

use std::cmp::Ordering;

use super::argument::{Takes, expression, items, number, text, with_article};
use super::{Call, Function, Outcome};
use crate::evaluate::evaluate;
use crate::json;
use crate::number;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = {
    use Takes::*;
    const fn function(
        name: &'static str,
        takes: &'static [Takes],
        run: for<'c, 'a> fn(&Call<'c, 'a>) -> Outcome<'a>,
    ) -> Function {
        Function {
            strict: false,
            ..Function::new(name, takes, run)
        }
    }
    &[
        function("abs", &[Number], |a| {
            Ok(Value::Number(number::abs(number(&a[0]))))
        }),
        function("avg", &[Numbers], avg),
        function("ceil", &[Number], |a| {
            Ok(Value::Number(number::ceil(number(&a[0]))))
        }),
        function("contains", &[ArrayOrString, Any], contains),
        function("ends_with", &[String, String], |a| {
            Ok(Value::Bool(text(&a[0]).ends_with(text(&a[1]).as_ref())))
        }),
        function("floor", &[Number], |a| {
            Ok(Value::Number(number::floor(number(&a[0]))))
        }),
        function("join", &[String, Strings], join),
        function("keys", &[Object], keys),
        function("length", &[ArrayObjectOrString], length),
        function("map", &[Expression, Array], map),
        function("max", &[NumbersOrStrings], max),
        function("max_by", &[Array, Expression], |a| {
            extreme_by(a, Ordering::is_gt)
        }),
        function("merge", &[Object], merge).with_rest(Object),
        function("min", &[NumbersOrStrings], min),
        function("min_by", &[Array, Expression], |a| {
            extreme_by(a, Ordering::is_lt)
        }),
        function("not_null", &[Any], not_null).with_rest(Any),
        function("reverse", &[ArrayOrString], reverse),
        function("sort", &[NumbersOrStrings], sort),
        function("sort_by", &[Array, Expression], sort_by),
        function("starts_with", &[String, String], |a| {
            Ok(Value::Bool(text(&a[0]).starts_with(text(&a[1]).as_ref())))
        }),
        function("sum", &[Numbers], sum),
        function("to_array", &[Any], to_array),
        function("to_number", &[Any], to_number),
        function("to_string", &[Json], to_string),
        function("type", &[Any], |a| Ok(Value::text(a[0].type_name()))),
        function("values", &[Object], values),
    ]
};

fn computed<'a>(text: Option<String>) -> Outcome<'a> {
    text.map(|text| Value::Number(text.into()))
        .ok_or_else(|| "the result is too large for a number".to_owned())
}

fn avg<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    match items(&arguments[0]) {
        [] => Ok(Value::Null),
        items => computed(number::mean(items.iter().map(|item| number(item).as_ref()))),
    }
}

fn sum<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    computed(number::sum(
        items(&arguments[0])
            .iter()
            .map(|item| number(item).as_ref()),
    ))
}

fn contains<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(Value::Bool(match (&arguments[0], &arguments[1]) {
        (Value::Array(items), wanted) => arguments.context.is_among(wanted, items)?,
        (Value::String(text), Value::String(wanted)) => {
            text.as_str().contains(wanted.as_str().as_ref())
        }
        _ => false,
    }))
}

fn join<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let glue = text(&arguments[0]);
    let mut joined = String::new();
    for (index, item) in items(&arguments[1]).iter().enumerate() {
        let glue = if index > 0 { glue.as_ref() } else { "" };
        let item = text(item);
        arguments.context.spend(glue.len() + item.len())?;
        joined.push_str(glue);
        joined.push_str(&item);
    }
    Ok(Value::text(joined))
}

fn keys<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let Value::Object(members) = &arguments[0] else {
        return Ok(Value::Null);
    };
    let sorted = Value::sorted(members).into_iter();
    arguments
        .context
        .list(sorted.map(|(key, _)| Value::String(key)).collect())
}

fn values<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let Value::Object(members) = &arguments[0] else {
        return Ok(Value::Null);
    };
    let sorted = Value::sorted(members).into_iter();
    arguments
        .context
        .list(sorted.map(|(_, value)| value).collect())
}

fn length<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let length = match &arguments[0] {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        other => text(other).chars().count(),
    };
    Ok(Value::Number(length.to_string().into()))
}

fn map<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let node = expression(&arguments[0]);
    arguments.context.spend_items(items(&arguments[1]).len())?;
    let results = items(&arguments[1])
        .iter()
        .map(|item| evaluate(node, item, arguments.context));
    Ok(Value::array(results.collect::<Result<_, _>>()?))
}

fn merge<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let members = arguments.iter().flat_map(|argument| match argument {
        Value::Object(members) => members.as_slice(),
        _ => &[],
    });
    arguments.context.object(members.cloned().collect())
}

fn not_null<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(arguments
        .iter()
        .find(|argument| !matches!(argument, Value::Null))
        .cloned()
        .unwrap_or(Value::Null))
}

fn reverse<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    match &arguments[0] {
        Value::Array(items) => arguments
            .context
            .list(items.iter().rev().cloned().collect()),
        other => arguments.context.text(text(other).chars().rev().collect()),
    }
}

fn to_array<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(match &arguments[0] {
        array @ Value::Array(_) => array.clone(),
        other => Value::array(vec![other.clone()]),
    })
}

fn to_number<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(match &arguments[0] {
        number @ Value::Number(_) => number.clone(),
        Value::String(text) => match json::read_text(&text.as_str(), 1) {
            Ok(number @ Value::Number(_)) => number.detached(),
            _ => Value::Null,
        },
        _ => Value::Null,
    })
}

fn to_string<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    if matches!(arguments[0], Value::String(_)) {
        return Ok(arguments[0].clone());
    }
    let mut json = Vec::new();
    arguments[0].write_plain(arguments.context.limits().max_output_bytes, &mut json)?;
    arguments
        .context
        .text(String::from_utf8(json).map_err(|error| error.to_string())?)
}

/// How to order values that are all numbers or all strings.
fn order<'v>(
    values: impl Iterator<Item = &'v Value<'v>>,
) -> impl Fn(&Value<'_>, &Value<'_>) -> Ordering {
    let numbers = number::order(values.filter_map(|value| match value {
        Value::Number(text) => Some(text.as_ref()),
        _ => None,
    }));
    move |a, b| match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (a, b) => text(a).cmp(&text(b)),
    }
}

fn sort<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let mut sorted = items(&arguments[0]).to_vec();
    let order = order(items(&arguments[0]).iter());
    sorted.sort_by(order);
    arguments.context.list(sorted)
}

fn max<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let items = items(&arguments[0]);
    let order = order(items.iter());
    Ok(items
        .iter()
        .max_by(|a, b| order(a, b))
        .cloned()
        .unwrap_or(Value::Null))
}

fn min<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let items = items(&arguments[0]);
    let order = order(items.iter());
    Ok(items
        .iter()
        .min_by(|a, b| order(a, b))
        .cloned()
        .unwrap_or(Value::Null))
}

/// Each item with what it is to be compared by.
fn keyed<'a>(arguments: &Call<'_, 'a>) -> Result<Vec<(Value<'a>, Value<'a>)>, String> {
    let node = expression(&arguments[1]);
    arguments.context.pass_items(items(&arguments[0]).len())?;
    let mut keyed: Vec<(Value<'a>, Value<'a>)> = Vec::new();
    for (index, item) in items(&arguments[0]).iter().enumerate() {
        let key = evaluate(node, item, arguments.context)?;
        let found = key.type_name();
        let expected = match keyed.first() {
            None if matches!(found, "number" | "string") => found,
            None => "number or a string",
            Some((_, first)) => first.type_name(),
        };
        if found != expected {
            let found = with_article(found);
            return Err(format!(
                "argument 2 yields {found} for item {index}, expected a {expected}"
            ));
        }
        keyed.push((item.clone(), key));
    }
    Ok(keyed)
}

fn sort_by<'a>(arguments: &Call<'_, 'a>) -> Outcome<'a> {
    let mut keyed = keyed(arguments)?;
    let keys: Vec<_> = keyed.iter().map(|(_, key)| key.clone()).collect();
    let order = order(keys.iter());
    keyed.sort_by(|(_, a), (_, b)| order(a, b));
    arguments
        .context
        .list(keyed.into_iter().map(|(item, _)| item).collect())
}

/// The first of the items whose key is not exceeded.
fn extreme_by<'a>(arguments: &Call<'_, 'a>, exceeds: fn(Ordering) -> bool) -> Outcome<'a> {
    let keyed = keyed(arguments)?;
    let order = order(keyed.iter().map(|(_, key)| key));
    let best = keyed.iter().reduce(|best, next| {
        if exceeds(order(&next.1, &best.1)) {
            next
        } else {
            best
        }
    });
    Ok(best.map_or(Value::Null, |(item, _)| item.clone()))
}
