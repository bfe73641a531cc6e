//! The types that a function's arguments may have, and how to take arguments apart.

use std::borrow::Cow;

use crate::node::Node;
use crate::number::is_integer;
use crate::value::Value;

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Takes {
    Any,
    /// Anything but a reference to an expression.
    Json,
    Number,
    String,
    Array,
    Object,
    ArrayOrString,
    ArrayObjectOrString,
    Numbers,
    Strings,
    NumbersOrStrings,
    Expression,
    /// A whole number that fits 64 bits.
    Integer,
    /// The same from 0.
    Count,
    NumberOrString,
    StringOrStrings,
}

impl Takes {
    /// Fails with what was found and what was expected.
    pub(super) fn check(self, value: &Value<'_>) -> Result<(), String> {
        let found = match (self, value) {
            (Takes::Any, _)
            | (Takes::Number, Value::Number(_))
            | (Takes::String, Value::String(_))
            | (Takes::Array, Value::Array(_))
            | (Takes::Object, Value::Object(_))
            | (Takes::ArrayOrString, Value::Array(_) | Value::String(_))
            | (Takes::ArrayObjectOrString, Value::Array(_) | Value::Object(_) | Value::String(_))
            | (Takes::Expression, Value::Reference(_))
            | (Takes::NumberOrString, Value::Number(_) | Value::String(_))
            | (Takes::StringOrStrings, Value::String(_)) => return Ok(()),
            (Takes::Json, value) if !matches!(value, Value::Reference(_)) => return Ok(()),
            (Takes::Integer | Takes::Count, Value::Number(text)) => {
                match text.parse::<i64>().ok().filter(|_| is_integer(text)) {
                    Some(0..) => return Ok(()),
                    Some(_) if self == Takes::Integer => return Ok(()),
                    Some(_) => "a negative number".to_owned(),
                    None if is_integer(text) => "a number beyond 64 bits".to_owned(),
                    None => "a number with a point or an exponent".to_owned(),
                }
            }
            (
                Takes::Numbers | Takes::Strings | Takes::NumbersOrStrings | Takes::StringOrStrings,
                Value::Array(items),
            ) => {
                let wanted = match (self, items.first()) {
                    (Takes::Numbers, _) | (Takes::NumbersOrStrings, Some(Value::Number(_))) => {
                        "number"
                    }
                    _ => "string",
                };
                let Some(odd) = items.iter().position(|item| item.type_name() != wanted) else {
                    return Ok(());
                };
                format!(
                    "an array whose item {odd} is {}",
                    with_article(items[odd].type_name())
                )
            }
            (_, value) => with_article(value.type_name()),
        };
        Err(format!("{found}, expected {}", self.expected()))
    }

    fn expected(self) -> &'static str {
        match self {
            Takes::Any | Takes::Json => "a value",
            Takes::Number => "a number",
            Takes::String => "a string",
            Takes::Array => "an array",
            Takes::Object => "an object",
            Takes::ArrayOrString => "an array or a string",
            Takes::ArrayObjectOrString => "an array, an object or a string",
            Takes::Numbers => "an array of numbers",
            Takes::Strings => "an array of strings",
            Takes::NumbersOrStrings => "an array of numbers or an array of strings",
            Takes::Integer => "an integer",
            Takes::Count => "an integer from 0",
            Takes::NumberOrString => "a number or a string",
            Takes::StringOrStrings => "a string or an array of strings",
            Takes::Expression => "a reference to an expression (&…)",
        }
    }
}

pub(crate) fn with_article(type_name: &str) -> String {
    match type_name {
        "null" => "null".to_owned(),
        "array" | "object" => format!("an {type_name}"),
        "expref" => "a reference to an expression (&…)".to_owned(),
        _ => format!("a {type_name}"),
    }
}

// Arguments are checked before a function runs; these take them apart.

pub(super) fn number<'v, 'a>(value: &'v Value<'a>) -> &'v Cow<'a, str> {
    match value {
        Value::Number(text) => text,
        _ => &Cow::Borrowed("0"),
    }
}

pub(super) fn text<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::String(text) => text.as_str(),
        _ => Cow::Borrowed(""),
    }
}

pub(super) fn items<'v, 'a>(value: &'v Value<'a>) -> &'v [Value<'a>] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

pub(super) fn expression<'a>(value: &Value<'a>) -> &'a Node {
    match value {
        Value::Reference(node) => node,
        _ => &Node::Current,
    }
}

/// 0 for what is no integer or too large for 64 bits.
pub(super) fn integer(value: &Value<'_>) -> i64 {
    number(value).parse().unwrap_or_default()
}
