//! A value as the ops see it: the payload's text where that will do.

use std::borrow::Cow;

use crate::MAX_DEPTH;
use crate::json;
use crate::scan::{Keyring, Raw, inside};
use crate::value::{Text, Value};

#[derive(Debug, Clone)]
pub(super) enum View<'a> {
    /// A scalar that borrows its text, a literal, or what was computed.
    Value(Value<'a>),
    /// An array or object of the payload.
    Raw(Raw<'a>),
    /// An integer that was computed.
    Count(usize),
}

impl<'a> View<'a> {
    pub(super) const NULL: View<'a> = View::Value(Value::Null);

    /// A value of the payload by its text, which is valid.
    #[inline]
    pub(super) fn of(text: &'a str) -> Self {
        View::Value(match text.as_bytes().first() {
            Some(b'"') => Value::String(match inside(text) {
                (inside, true) => Text::Escaped(inside),
                (inside, false) => Text::Plain(Cow::Borrowed(inside)),
            }),
            Some(b'{' | b'[') => return View::Raw(Raw(text)),
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') | None => Value::Null,
            Some(_) => Value::Number(Cow::Borrowed(text)),
        })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, View::Value(Value::Null))
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            View::Value(value) => value.is_true(),
            View::Raw(raw) => !raw.is_empty(),
            View::Count(_) => true,
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            View::Value(value) => value.type_name(),
            View::Raw(raw) if raw.is_array() => "array",
            View::Raw(_) => "object",
            View::Count(_) => "number",
        }
    }

    pub(super) fn into_value(self) -> Result<Value<'a>, String> {
        match self {
            View::Value(value) => Ok(value),
            // Valid JSON already.
            View::Raw(raw) => json::read_text(raw.0, MAX_DEPTH).map_err(|bad| bad.what),
            View::Count(count) => Ok(Value::Number(Cow::Owned(count.to_string()))),
        }
    }

    /// Appends the value as JSON. False, with nothing appended, if it is null.
    pub(super) fn write(
        &self,
        keyring: &mut Keyring,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        match self {
            View::Value(Value::Null) => return Ok(false),
            View::Value(value) => value.write(most, out)?,
            View::Raw(raw) if raw.write(keyring, out) => {}
            View::Raw(_) => self.clone().into_value()?.write(most, out)?,
            View::Count(count) => out.extend_from_slice(Digits::of(*count).as_str().as_bytes()),
        }
        Ok(true)
    }
}

/// An integer in decimal, without an allocation.
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn of(mut number: usize) -> Self {
        let (mut bytes, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            bytes[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Digits { bytes, start };
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).unwrap_or_default()
    }
}
