//! An event's members, one after the other, straight from the payload's bytes into columns.
//!
//! What needs a second look is a [`Doubt`]; the caller takes the row back and reads the event again through [`exact`](super::exact), which
//! decides and finds the words. So this way may refuse what `exact` takes, but never takes what `exact` refuses, nor takes it differently.

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Number, Value};

use super::column::{Buffers, Data};
use super::schema::HiveType;
use super::{exact, reserved};
use crate::event_time;

/// Not decided here.
#[derive(Debug)]
pub(super) struct Doubt;

/// A member's value.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'p> {
    Null,
    Bool(bool),
    /// Its digits, as JSON writes them.
    Number(&'p str),
    /// A string without its quotes; borrowed where it has no escapes.
    Text(Cow<'p, str>),
    /// The JSON text of an array or an object.
    Other(&'p str),
}

/// What comes before a member's value.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'p> {
    /// The name that was guessed.
    Guessed,
    Name(&'p str),
    /// No member: the object ends here, and the payload with it.
    End,
}

/// Reads the members of a payload that is one object.
#[derive(Debug)]
pub(super) struct Members<'p> {
    text: &'p str,
    at: usize,
    begun: bool,
    /// No byte is a control character, which a string may not have.
    is_clean: bool,
}

impl<'p> Members<'p> {
    pub(super) fn of(payload: &'p [u8]) -> Result<Members<'p>, Doubt> {
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| Doubt)?;
        let mut members = Members {
            text,
            at: 0,
            begun: false,
            // Without an early end, which lets the compiler look at many bytes at once.
            is_clean: payload
                .iter()
                .fold(true, |clean, byte| clean & (*byte >= b' ')),
        };
        members.expect(b'{')?;
        Ok(members)
    }

    /// The next name. One that is rightly guessed costs less; the guess must be one that [`Members::name`] could answer with.
    #[inline]
    pub(super) fn name(&mut self, guess: Option<&str>) -> Result<Next<'p>, Doubt> {
        if self.peek()? == b'}' {
            self.at += 1;
            self.space();
            return if self.at == self.text.len() {
                Ok(Next::End)
            } else {
                Err(Doubt)
            };
        }
        if self.begun {
            self.expect(b',')?;
        }
        self.begun = true;
        self.expect(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let name = match guess {
            Some(guess)
                if rest.get(guess.len()) == Some(&b'"') && rest.starts_with(guess.as_bytes()) =>
            {
                self.at += guess.len() + 1;
                Next::Guessed
            }
            _ => match self.string()? {
                Token::Text(Cow::Borrowed(name)) => Next::Name(name),
                _ => return Err(Doubt),
            },
        };
        self.expect(b':')?;
        Ok(name)
    }

    /// The value after a name.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Token<'p>, Doubt> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()
            }
            b'{' | b'[' => self.container(),
            b'n' => self.word("null", Token::Null),
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            _ => self.number(),
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// The next byte but for white space, which is passed over.
    #[inline]
    fn peek(&mut self) -> Result<u8, Doubt> {
        self.space();
        self.byte().ok_or(Doubt)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Doubt> {
        if self.peek()? != byte {
            return Err(Doubt);
        }
        self.at += 1;
        Ok(())
    }

    /// From after the opening quote.
    #[inline]
    fn string(&mut self) -> Result<Token<'p>, Doubt> {
        let (start, bytes) = (self.at, self.text.as_bytes());
        let inside = memchr2(b'"', b'\\', &bytes[start..]).ok_or(Doubt)?;
        let end = start + inside;
        if bytes[end] == b'\\' {
            return self.escaped_string(start - 1);
        }
        if !self.is_clean && bytes[start..end].iter().any(|byte| *byte < b' ') {
            return Err(Doubt);
        }
        self.at = end + 1;
        Ok(Token::Text(Cow::Borrowed(&self.text[start..end])))
    }

    fn word(&mut self, word: &str, token: Token<'p>) -> Result<Token<'p>, Doubt> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Doubt);
        }
        self.at += word.len();
        Ok(token)
    }

    #[inline]
    fn number(&mut self) -> Result<Token<'p>, Doubt> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let first = self.byte();
        let digits = self.digits()?;
        if first == Some(b'0') && digits > 1 {
            return Err(Doubt);
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Token::Number(&self.text[start..self.at]))
    }

    /// At least one; how many there were.
    #[inline]
    fn digits(&mut self) -> Result<usize, Doubt> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        match self.at - start {
            0 => Err(Doubt),
            digits => Ok(digits),
        }
    }

    /// An array or an object, as serde_json finds its end.
    #[inline(never)]
    fn container(&mut self) -> Result<Token<'p>, Doubt> {
        let start = self.at;
        let IgnoredAny = self.read_from(start)?;
        Ok(Token::Other(&self.text[start..self.at]))
    }

    /// From its opening quote.
    #[inline(never)]
    fn escaped_string(&mut self, start: usize) -> Result<Token<'p>, Doubt> {
        self.read_from(start).map(Cow::Owned).map(Token::Text)
    }

    /// What serde_json reads from there.
    fn read_from<T: Deserialize<'p>>(&mut self, start: usize) -> Result<T, Doubt> {
        let mut values = serde_json::Deserializer::from_str(&self.text[start..]).into_iter();
        let value = values.next().and_then(Result::ok).ok_or(Doubt)?;
        self.at = start + values.byte_offset();
        Ok(value)
    }
}

impl Token<'_> {
    pub(super) fn value(&self) -> Result<Value, Doubt> {
        Ok(match self {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(*value),
            Token::Number(text) => Value::Number(text.parse::<Number>().map_err(|_| Doubt)?),
            Token::Text(text) => Value::String(text.clone().into_owned()),
            Token::Other(text) if reserved::is_in(text.as_bytes()) => return Err(Doubt),
            Token::Other(text) => serde_json::from_str(text).map_err(|_| Doubt)?,
        })
    }

    /// Appends it as the column's next row. After a doubt the column may hold a part of the row.
    #[inline]
    pub(super) fn push(&self, column: &mut Buffers) -> Result<(), Doubt> {
        let Buffers { kind, valid, data } = column;
        match (data, self) {
            (_, Token::Null) => {
                column.push_null();
                return Ok(());
            }
            (Data::Bytes { bytes, ends }, Token::Text(text)) => {
                exact::push_text(kind, text, bytes).map_err(|_| Doubt)?;
                ends.push(bytes.len() as i32);
            }
            (Data::Boolean(values), Token::Bool(value)) => values.push(*value),
            (Data::I8(values), Token::Number(text)) => values.push(parsed(text)?),
            (Data::I16(values), Token::Number(text)) => values.push(parsed(text)?),
            (Data::I32(values), Token::Number(text)) if matches!(kind, HiveType::Int) => {
                values.push(parsed(text)?);
            }
            (Data::I64(values), Token::Number(text)) if matches!(kind, HiveType::BigInt) => {
                values.push(parsed(text)?);
            }
            (Data::I32(values), Token::Text(text)) if matches!(kind, HiveType::Date) => {
                values.push(exact::date(text).ok_or(Doubt)?);
            }
            (Data::I64(values), Token::Text(text)) if matches!(kind, HiveType::Timestamp) => {
                let time = event_time::parse_text(text).ok_or(Doubt)?;
                values.push(time.timestamp_micros());
            }
            (Data::F64(values), Token::Number(text)) => {
                let double: f64 = parsed(text)?;
                if !double.is_finite() {
                    return Err(Doubt);
                }
                values.push(double);
            }
            (_, other) => return exact::push(column, &other.value()?).map_err(|_| Doubt),
        }
        valid.push(true);
        Ok(())
    }
}

/// Of `12.0` for a whole number the exact way says what it is.
fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Doubt> {
    text.parse().map_err(|_| Doubt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn read(payload: &str, guess: &str) -> Result<Map<String, Value>, Doubt> {
        let mut members = Members::of(payload.as_bytes())?;
        let mut object = Map::new();
        loop {
            let name = match members.name((!guess.is_empty()).then_some(guess))? {
                Next::End => return Ok(object),
                Next::Guessed => guess,
                Next::Name(name) => name,
            };
            object.insert(name.to_owned(), members.value()?.value()?);
        }
    }

    #[test]
    fn plain_members_are_read_without_a_doubt() {
        let payload = r#" { "a" : "x" , "b":-1.50e+3,"c":[{"d":"}"}],"e":"\"é","f":null,"g":true, "h":false,"":0 } "#;
        let expected: Map<String, Value> = serde_json::from_str(payload).unwrap();
        for guess in ["", "a", "b", "ab"] {
            assert_eq!(read(payload, guess).unwrap(), expected);
        }
        assert_eq!(read("{}", "a").unwrap(), Map::new());
    }

    proptest! {
        /// Pieces of JSON in any order: what is read is what serde_json reads, and what it refuses is refused.
        #[test]
        fn only_json_is_taken_and_as_it_is(pieces in prop::collection::vec(piece(), 0..12), guess in "[a-z]{0,2}") {
            let inside: String = pieces.concat();
            for payload in [format!("{{{inside}}}"), inside] {
                if let Ok(read) = read(&payload, &guess) {
                    let expected = serde_json::from_str::<Map<String, Value>>(&payload);
                    prop_assert_eq!(Some(read), expected.ok(), "{}", payload);
                }
            }
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        let member =
            ("\"[a-z]{0,3}\"", value()).prop_map(|(name, value)| format!("{name}:{value},"));
        prop_oneof![
            6 => member,
            1 => "[{}\\[\\],: \n\t\"]{1,2}",
            1 => value(),
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?[0-9]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            "\"[a-zé\\\\\u{1}\"]{0,4}\"",
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "nul",
                "[]",
                "[1,{}]",
                "{\"a\":[]}",
                "[1",
                "\"\\ud800\"",
                "-"
            ])
            .prop_map(str::to_owned),
        ]
    }
}
