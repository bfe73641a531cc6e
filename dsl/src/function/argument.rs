//! The types that a function's arguments may have.

use crate::value::Value;

/// What an argument may be.
#[derive(Debug, Clone, Copy)]
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
            | (Takes::Expression, Value::Reference(_)) => return Ok(()),
            (Takes::Json, value) if !matches!(value, Value::Reference(_)) => return Ok(()),
            (Takes::Numbers | Takes::Strings | Takes::NumbersOrStrings, Value::Array(items)) => {
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
            Takes::Expression => "a reference to an expression (&…)",
        }
    }
}

pub(super) fn with_article(type_name: &str) -> String {
    match type_name {
        "null" => "null".to_owned(),
        "array" | "object" => format!("an {type_name}"),
        "expref" => "a reference to an expression (&…)".to_owned(),
        _ => format!("a {type_name}"),
    }
}
