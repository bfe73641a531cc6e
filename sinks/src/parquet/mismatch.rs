//! Why an event does not fit the table, in words for the owner of the route.

use std::fmt;

use serde_json::Value;

use super::schema::HiveType;

/// A value that its column can't take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// The column, then names and indices down to the value: `tags[2].name`.
    pub(super) path: String,
    pub(super) value: String,
    pub(super) expected: String,
    /// What is wrong in particular, or empty.
    pub(super) because: String,
}

impl Mismatch {
    /// The path is added on the way up, by [`Mismatch::below`].
    pub(super) fn new(value: &Value, expected: &HiveType, because: impl Into<String>) -> Mismatch {
        Mismatch {
            path: String::new(),
            value: shown(value),
            expected: short(&expected.to_string()),
            because: because.into(),
        }
    }

    /// The same, seen from one level higher.
    pub(super) fn below(mut self, step: &str) -> Mismatch {
        self.path.insert_str(0, step);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            path,
            value,
            expected,
            because,
        } = self;
        let path = path.trim_start_matches('.');
        write!(f, "column {path} expects {expected}, got {value}")?;
        if !because.is_empty() {
            write!(f, ": {because}")?;
        }
        Ok(())
    }
}

/// A value with its JSON type, shortened: `the string "12"`.
pub(super) fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the string",
        Value::Array(_) => "the array",
        Value::Object(_) => "the object",
    };
    format!("{kind} {}", short(&value.to_string()))
}

/// At most 80 characters of a text.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}
