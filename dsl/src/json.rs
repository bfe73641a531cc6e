//! Reads a payload: RFC 8259 to the last byte, in one pass and without recursion.
//!
//! The grammar is written once, in [`parse`]; what it finds goes to a [`Visitor`]: [`Ignore`] when the payload only has to
//! be valid, [`Tree`] when an expression is going to look at it.
//!
//! Beyond the grammar, an escape of half a surrogate pair (`"\ud800"`) is refused: such a string is no Unicode text, so
//! it can be neither compared nor stored by a sink.

mod visitor;

use crate::MAX_DEPTH;
use crate::error::{EventError, Stage};
use crate::value::{Text, Value};

use visitor::{Container, Ignore, Tree, Visitor};

/// Is the payload valid?
pub(crate) fn check(payload: &[u8], max_depth: usize) -> Result<(), EventError> {
    parse(decode(payload)?, max_depth, &mut Ignore).map_err(bad)
}

/// The payload as a value that borrows from it.
pub(crate) fn read(payload: &[u8], max_depth: usize) -> Result<Value<'_>, EventError> {
    read_text(decode(payload)?, max_depth).map_err(bad)
}

/// The same for text, as found in the literals of an expression.
pub(crate) fn read_text(text: &str, max_depth: usize) -> Result<Value<'_>, Bad> {
    let mut tree = Tree::default();
    parse(text, max_depth, &mut tree)?;
    Ok(tree.into_value())
}

/// What is wrong, and at which byte, counted from 0.
#[derive(Debug)]
pub(crate) struct Bad {
    pub(crate) at: usize,
    pub(crate) what: String,
}

fn bad(Bad { at, what }: Bad) -> EventError {
    EventError {
        stage: Stage::Decode,
        reason: format!("not JSON: {what} at byte {at}"),
    }
}

/// The payload as text.
pub(crate) fn decode(payload: &[u8]) -> Result<&str, EventError> {
    let reason = if payload.is_empty() {
        "not JSON: the payload is empty".to_owned()
    } else if payload.starts_with(b"\xef\xbb\xbf") {
        "not JSON: a byte order mark at byte 0".to_owned()
    } else {
        if let Ok(text) = simdutf8::basic::from_utf8(payload) {
            return Ok(text);
        }
        // Again, to say where.
        match std::str::from_utf8(payload) {
            Ok(text) => return Ok(text),
            Err(error) => format!(
                "not UTF-8: an invalid sequence at byte {}",
                error.valid_up_to()
            ),
        }
    };
    Err(EventError {
        stage: Stage::Decode,
        reason,
    })
}

fn parse<'a>(text: &'a str, max_depth: usize, visitor: &mut impl Visitor<'a>) -> Result<(), Bad> {
    let max_depth = max_depth.min(MAX_DEPTH);
    let mut reader = Reader {
        text,
        at: 0,
        open: Vec::new(),
    };
    loop {
        reader.skip_space();
        match reader.peek() {
            Some(b'{') => {
                reader.enter(Container::Object, max_depth)?;
                visitor.begin(Container::Object);
                reader.skip_space();
                if reader.peek() != Some(b'}') {
                    visitor.key(reader.key()?);
                    continue;
                }
            }
            Some(b'[') => {
                reader.enter(Container::Array, max_depth)?;
                visitor.begin(Container::Array);
                reader.skip_space();
                if reader.peek() != Some(b']') {
                    continue;
                }
            }
            _ => visitor.value(reader.scalar()?),
        }
        // A value is complete: close what ends here, up to the comma before the next value.
        loop {
            reader.skip_space();
            let found = reader.peek();
            let Some((container, _)) = reader.open.last() else {
                return if found.is_none() {
                    Ok(())
                } else {
                    Err(reader.unexpected("after the end of the value"))
                };
            };
            match (container, found) {
                (Container::Array, Some(b']')) | (Container::Object, Some(b'}')) => {
                    reader.at += 1;
                    reader.open.pop();
                    visitor.end();
                }
                (Container::Array, Some(b',')) => {
                    reader.at += 1;
                    break;
                }
                (Container::Object, Some(b',')) => {
                    reader.at += 1;
                    reader.skip_space();
                    visitor.key(reader.key()?);
                    break;
                }
                (Container::Array, _) => {
                    return Err(reader.unexpected("where ',' or ']' was expected"));
                }
                (Container::Object, _) => {
                    return Err(reader.unexpected("where ',' or '}' was expected"));
                }
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The containers around the current place, and where each begins.
    open: Vec<(Container, usize)>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn enter(&mut self, container: Container, max_depth: usize) -> Result<(), Bad> {
        if self.open.len() >= max_depth {
            return Err(Bad {
                at: self.at,
                what: format!("nested deeper than {max_depth}"),
            });
        }
        self.open.push((container, self.at));
        self.at += 1;
        Ok(())
    }

    fn unexpected(&self, place: &str) -> Bad {
        let what = match (self.text[self.at..].chars().next(), self.open.last()) {
            (Some(c), _) => format!("unexpected {c:?} {place}"),
            (None, None) => format!("it ends {place}"),
            (None, Some((Container::Array, start))) => {
                format!("it ends inside the array that begins at byte {start},")
            }
            (None, Some((Container::Object, start))) => {
                format!("it ends inside the object that begins at byte {start},")
            }
        };
        Bad { at: self.at, what }
    }

    fn key(&mut self) -> Result<Text<'a>, Bad> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("where a key in double quotes was expected"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.unexpected("where ':' was expected"));
        }
        self.at += 1;
        Ok(key)
    }

    fn scalar(&mut self) -> Result<Value<'a>, Bad> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.unexpected("where a value was expected")),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Bad> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.unexpected(&format!("in '{word}'")));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, Bad> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.unexpected("after a number's leading zero"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number(self.text[start..self.at].into()))
    }

    fn digits(&mut self) -> Result<(), Bad> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.unexpected("where a digit was expected"))
        } else {
            Ok(())
        }
    }

    fn string(&mut self) -> Result<Text<'a>, Bad> {
        let opening = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => {
                    return Err(self.unexpected("in a string, where it must be escaped,"));
                }
                Some(_) => self.at += 1,
                None => {
                    let what = format!("it ends inside the string that begins at byte {opening},");
                    return Err(Bad { at: self.at, what });
                }
            }
        }
        let inside = &self.text[opening + 1..self.at];
        self.at += 1;
        Ok(if escaped {
            Text::Escaped(inside)
        } else {
            Text::Plain(inside.into())
        })
    }

    fn escape(&mut self) -> Result<(), Bad> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => {}
            _ => return Err(self.unexpected("in an escape")),
        }
        let lone = Bad {
            at: start,
            what: "an escape of half a surrogate pair".to_owned(),
        };
        match self.code_unit()? {
            0xd800..=0xdbff => {
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(lone);
                }
                self.at += 1;
                if matches!(self.code_unit()?, 0xdc00..=0xdfff) {
                    Ok(())
                } else {
                    Err(lone)
                }
            }
            0xdc00..=0xdfff => Err(lone),
            _ => Ok(()),
        }
    }

    /// The four digits after the `u` at the current place.
    fn code_unit(&mut self) -> Result<u32, Bad> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in a \\u escape"));
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// The text of a valid string from between its quotes.
pub(crate) fn unescape(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(backslash) = rest.find('\\') {
        text.push_str(&rest[..backslash]);
        let (decoded, length) = decode_escape(&rest[backslash..]);
        text.push(decoded);
        rest = &rest[backslash + length..];
    }
    text.push_str(rest);
    text
}

/// Whether a valid string, given from between its quotes, means this text.
pub(crate) fn is_spelt(inside: &str, text: &str) -> bool {
    decoded(inside).eq(text.chars())
}

/// The characters of a valid string from between its quotes.
pub(crate) fn decoded(inside: &str) -> impl Iterator<Item = char> {
    let mut rest = inside;
    std::iter::from_fn(move || {
        let (next, length) = match rest.chars().next()? {
            '\\' => decode_escape(rest),
            plain => (plain, plain.len_utf8()),
        };
        rest = &rest[length..];
        Some(next)
    })
}

/// The character of the escape that the text begins with, and the escape's length.
fn decode_escape(text: &str) -> (char, usize) {
    match text.as_bytes()[1] {
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => {
            let unit = |at: usize| u32::from_str_radix(&text[at..at + 4], 16).unwrap_or_default();
            match unit(2) {
                high @ 0xd800..=0xdbff => {
                    let code = 0x10000 + ((high - 0xd800) << 10) + (unit(8) - 0xdc00);
                    (char::from_u32(code).unwrap_or_default(), 12)
                }
                code => (char::from_u32(code).unwrap_or_default(), 6),
            }
        }
        same => (char::from(same), 2),
    }
}

#[cfg(test)]
mod tests;
