//! Values as the evaluator sees them: scalars borrow their text from the payload, containers are shared, so a clone is cheap.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::json;
use crate::node::Node;
use crate::number;

/// A key with its value.
pub(crate) type Member<'a> = (Text<'a>, Value<'a>);

#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// A number by its JSON text, so that it leaves as it came.
    Number(Cow<'a, str>),
    String(Text<'a>),
    Array(Arc<Vec<Value<'a>>>),
    /// Each key once, in the order of the event.
    Object(Arc<Vec<Member<'a>>>),
    /// `&expression`, on its way to a function.
    Reference(&'a Node),
}

pub(crate) const TOO_LARGE: &str = "the result is larger than the limit of an expression's output";

impl<'a> Value<'a> {
    pub(crate) fn array(items: Vec<Value<'a>>) -> Self {
        Value::Array(Arc::new(items))
    }

    /// Of a repeated key the last value counts, at the place of the first.
    pub(crate) fn object(members: Vec<Member<'a>>) -> Self {
        Value::Object(Arc::new(without_repeats(members)))
    }

    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Value::String(Text::Plain(text.into()))
    }

    /// The value without anything borrowed, for the literals of a program.
    pub(crate) fn detached(&self) -> Value<'static> {
        match self {
            Value::Null | Value::Reference(_) => Value::Null,
            Value::Bool(flag) => Value::Bool(*flag),
            Value::Number(text) => Value::Number(Cow::Owned(text.to_string())),
            Value::String(text) => Value::String(text.detached()),
            Value::Array(items) => Value::array(items.iter().map(Value::detached).collect()),
            Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| (key.detached(), value.detached()));
                Value::Object(Arc::new(members.collect()))
            }
        }
    }

    /// The same value without a copy of its text.
    pub(crate) fn borrowed(&'a self) -> Value<'a> {
        match self {
            Value::Number(text) => Value::Number(Cow::Borrowed(text)),
            Value::String(Text::Plain(text)) => Value::text(&**text),
            other => other.clone(),
        }
    }

    /// JMESPath's truth: all but null, false and what is empty.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Null | Value::Reference(_) => false,
            Value::Bool(flag) => *flag,
            Value::Number(_) => true,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
        }
    }

    /// Arrays and objects inside each other.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Value::Array(items) => 1 + items.iter().map(Value::depth).max().unwrap_or(0),
            Value::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Reference(_) => "expref",
        }
    }

    pub(crate) fn field(&self, name: &str) -> Value<'a> {
        let Value::Object(members) = self else {
            return Value::Null;
        };
        members
            .iter()
            .find(|(key, _)| *key == *name)
            .map_or(Value::Null, |(_, value)| value.clone())
    }

    /// The members sorted by key, which is the order that the reference gives to `*`, `keys` and `values`.
    pub(crate) fn sorted(members: &[Member<'a>]) -> Vec<Member<'a>> {
        let mut sorted = members.to_vec();
        sorted.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
        sorted
    }

    /// JMESPath's `==`: by meaning, whatever the spelling and the order of keys.
    pub(crate) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => number::equal(a, b),
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                let (a, b) = (Value::sorted(a), Value::sorted(b));
                a.len() == b.len()
                    && a.iter()
                        .zip(&b)
                        .all(|((ka, a), (kb, b))| ka.as_str() == kb.as_str() && a.equals(b))
            }
            _ => false,
        }
    }

    /// Whether it holds at most so many values, itself included, a part that it holds many times counted each time.
    /// Looks at no more than that; `left` is what is left of them.
    pub(crate) fn is_within(&self, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else {
            return false;
        };
        *left = rest;
        match self {
            Value::Array(items) => items.iter().all(|item| item.is_within(left)),
            Value::Object(members) => members.iter().all(|(_, value)| value.is_within(left)),
            _ => true,
        }
    }

    /// Appends the value as JSON without white space, at most so many bytes. What came from the payload keeps its
    /// digits and escapes.
    pub(crate) fn write(&self, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.write_as(out.len().saturating_add(most), out, |text, out| {
            text.write(out)
        })
    }

    /// The same with strings in their shortest form, so that the text depends on their meaning only.
    pub(crate) fn write_plain(&self, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.write_as(out.len().saturating_add(most), out, |text, out| {
            write_string(&text.as_str(), out)
        })
    }

    /// `end` is the length that `out` may grow to. A value may hold one part many times, so a small one may be written large.
    fn write_as(
        &self,
        end: usize,
        out: &mut Vec<u8>,
        string: fn(&Text<'_>, &mut Vec<u8>),
    ) -> Result<(), String> {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Number(text) => out.extend_from_slice(text.as_bytes()),
            Value::String(text) => string(text, out),
            Value::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_as(end, out, string)?;
                }
                out.push(b']');
            }
            Value::Object(members) => {
                out.push(b'{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    string(key, out);
                    out.push(b':');
                    value.write_as(end, out, string)?;
                }
                out.push(b'}');
            }
            Value::Reference(_) => {
                return Err(
                    "the result holds a reference to an expression (&…), which is no JSON value"
                        .to_owned(),
                );
            }
        }
        if out.len() > end {
            return Err(TOO_LARGE.to_owned());
        }
        Ok(())
    }
}

fn without_repeats(mut members: Vec<Member<'_>>) -> Vec<Member<'_>> {
    // Comparing all pairs is quickest for the few members that most objects have; a hostile event may have a million.
    let repeated = if members.len() <= 16 {
        (1..members.len()).any(|i| {
            members[..i]
                .iter()
                .any(|(key, _)| key.as_str() == members[i].0.as_str())
        })
    } else {
        let mut seen = std::collections::HashSet::with_capacity(members.len());
        !members.iter().all(|(key, _)| seen.insert(key.as_str()))
    };
    if !repeated {
        return members;
    }
    let mut kept: Vec<Member<'_>> = Vec::with_capacity(members.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(members.len());
    for (key, value) in members.drain(..) {
        match places.get(key.as_str().as_ref()) {
            Some(&place) => kept[place].1 = value,
            None => {
                places.insert(key.as_str().into_owned(), kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}

/// The text of a string.
#[derive(Debug, Clone)]
pub(crate) enum Text<'a> {
    /// As found between the quotes of the payload, with escapes in it; valid.
    Escaped(&'a str),
    /// The text itself.
    Plain(Cow<'a, str>),
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> Cow<'_, str> {
        match self {
            Text::Escaped(inside) => Cow::Owned(json::unescape(inside)),
            Text::Plain(text) => Cow::Borrowed(text),
        }
    }

    /// In characters.
    pub(crate) fn length(&self) -> usize {
        match self {
            Text::Escaped(inside) => json::decoded(inside).count(),
            Text::Plain(text) => text.chars().count(),
        }
    }

    /// As it is kept, which may be with escapes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Text::Escaped(inside) => inside.len(),
            Text::Plain(text) => text.len(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Text::Escaped(_) => false,
            Text::Plain(text) => text.is_empty(),
        }
    }

    fn detached(&self) -> Text<'static> {
        Text::Plain(Cow::Owned(self.as_str().into_owned()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Text::Escaped(inside) => {
                out.push(b'"');
                out.extend_from_slice(inside.as_bytes());
                out.push(b'"');
            }
            Text::Plain(text) => write_string(text, out),
        }
    }
}

/// By meaning.
impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        match self {
            Text::Escaped(inside) => json::is_spelt(inside, other),
            Text::Plain(text) => text == other,
        }
    }
}

/// By meaning.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Text::Escaped(a), Text::Escaped(b)) => json::decoded(a).eq(json::decoded(b)),
            (text, Text::Plain(plain)) | (Text::Plain(plain), text) => *text == **plain,
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        out.extend_from_slice(escape);
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        }
        written = at + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}
