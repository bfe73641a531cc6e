//! The fields that hygiene rules name, the types their values may have, and the lists in which options name both.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use crate::error::{ExpressionError, position};
use crate::function::argument::with_article;
use crate::number;
use crate::token::{Fault, Token, tokens};
use crate::value::Value;

/// A field by the names on the way to it.
#[derive(Debug)]
pub(super) struct Field {
    names: Vec<String>,
    /// As the route has it.
    pub(super) shown: String,
    /// Where it stands in the option.
    at: usize,
}

impl Field {
    /// The field's value, or in words that it is missing and why.
    pub(super) fn of<'a>(&self, event: &Value<'a>) -> Result<Value<'a>, String> {
        let mut value = event.clone();
        for (depth, name) in self.names.iter().enumerate() {
            let next = match &value {
                Value::Object(members) => members.iter().find(|(key, _)| *key == **name),
                // What is null has no fields, as in an expression.
                Value::Null => None,
                other => {
                    let what = with_article(other.type_name());
                    let place = match depth {
                        0 => "the event".to_owned(),
                        _ => self.names[..depth].join("."),
                    };
                    return Err(format!("{} is missing: {place} is {what}", self.shown));
                }
            };
            let Some((_, next)) = next else {
                return Err(format!("{} is missing", self.shown));
            };
            let next = next.clone();
            value = next;
        }
        Ok(value)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
    Timestamp,
}

const TYPES: [(&str, Type); 7] = [
    ("string", Type::String),
    ("integer", Type::Integer),
    ("number", Type::Number),
    ("boolean", Type::Boolean),
    ("object", Type::Object),
    ("array", Type::Array),
    ("timestamp", Type::Timestamp),
];

impl Type {
    pub(super) fn shown(self) -> &'static str {
        match self {
            Type::String => "a string",
            Type::Integer => "an integer",
            Type::Number => "a number",
            Type::Boolean => "a boolean",
            Type::Object => "an object",
            Type::Array => "an array",
            Type::Timestamp => "a timestamp",
        }
    }

    /// What was found instead; `None` for a value of the type, and for null.
    pub(super) fn refuses(self, value: &Value<'_>) -> Option<String> {
        let fits = match (self, value) {
            (_, Value::Null) => true,
            (Type::String, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_)) => true,
            (Type::Integer, Value::Number(text)) if number::is_integer(text) => true,
            (Type::Integer, Value::Number(_)) => {
                return Some("a number with a fraction or an exponent".to_owned());
            }
            (Type::Timestamp, Value::Number(text)) if is_epoch(text) => true,
            (Type::Timestamp, Value::Number(_)) => {
                return Some("a number beyond any time".to_owned());
            }
            (Type::Timestamp, Value::String(text)) if is_time(&text.as_str()) => true,
            (Type::Timestamp, Value::String(_)) => {
                return Some("a string that is no time".to_owned());
            }
            _ => false,
        };
        (!fits).then(|| with_article(value.type_name()))
    }
}

/// Time since the epoch, in seconds up to nanoseconds: what the sinks take (a test of the router compares the two).
fn is_epoch(text: &str) -> bool {
    text.parse::<i64>().is_ok() || number::to_f64(text).abs() < 9e18
}

/// RFC 3339, the same without a zone and with `T` or a space, or a date alone: what the sinks take.
fn is_time(text: &str) -> bool {
    DateTime::parse_from_rfc3339(text).is_ok()
        || has_year(text)
            && (NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").is_ok()
                || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").is_ok()
                || NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok())
}

/// Whether it begins with a year of four digits: chrono's %Y takes others, with a sign and of any length.
fn has_year(text: &str) -> bool {
    let digits = text.split_once('-').map(|(year, _)| year.as_bytes());
    digits.is_some_and(|year| year.len() == 4 && year.iter().all(u8::is_ascii_digit))
}

const QUOTES: &str =
    "a name with other characters than letters, digits and _ is written in double quotes";

/// Reads the items of an option; what is wrong goes to `errors`.
pub(super) fn list<'t, T>(
    which: &'static str,
    text: Option<&'t str>,
    item: fn(&mut List<'t>) -> Result<T, Fault>,
    errors: &mut Vec<ExpressionError>,
) -> Vec<T> {
    let Some(text) = text else {
        return Vec::new();
    };
    List::read(text, item).unwrap_or_else(|Fault { at, message, hint }| {
        errors.push(ExpressionError {
            which,
            expression: text.to_owned(),
            position: position(text, at),
            message,
            hint: hint.or_else(|| Some(QUOTES.to_owned())),
        });
        Vec::new()
    })
}

/// The types of fields. A field named again is a mistake: of two types a value could only have one.
pub(super) fn types(text: Option<&str>, errors: &mut Vec<ExpressionError>) -> Vec<(Field, Type)> {
    let types = list("hygiene.types", text, List::typed, errors);
    for (index, (field, _)) in types.iter().enumerate() {
        let before = &types[..index];
        if before.iter().any(|(known, _)| known.names == field.names) {
            let text = text.unwrap_or_default();
            errors.push(ExpressionError {
                which: "hygiene.types",
                expression: text.to_owned(),
                position: position(text, field.at),
                message: format!("the field {} is named twice", field.shown),
                hint: Some("name each field once, with one type".to_owned()),
            });
        }
    }
    types
}

/// A comma-separated list on its way through the tokens of the expression language.
pub(super) struct List<'t> {
    text: &'t str,
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl<'t> List<'t> {
    fn read<T>(
        text: &'t str,
        item: fn(&mut List<'t>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut list = List {
            text,
            tokens: tokens(text)?,
            next: 0,
        };
        let mut items = Vec::new();
        loop {
            items.push(item(&mut list)?);
            match list.token() {
                Token::Comma => list.next += 1,
                Token::End => return Ok(items),
                _ => return Err(list.unexpected("where ',' or the end was expected")),
            }
        }
    }

    fn token(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn unexpected(&self, place: &str) -> Fault {
        let (at, token) = &self.tokens[self.next];
        let shown = match token {
            Token::End => "the end".to_owned(),
            token => token.shown(),
        };
        let fault = Fault::new(*at, format!("unexpected {shown} {place}"));
        match token {
            Token::LeftBracket | Token::Flatten | Token::Star | Token::Filter => {
                fault.hint("a field inside a list can't be named")
            }
            _ => fault,
        }
    }

    pub(super) fn field(&mut self) -> Result<Field, Fault> {
        let start = self.tokens[self.next].0;
        let mut names = Vec::new();
        loop {
            match self.token() {
                Token::Name(name) | Token::QuotedName(name) => names.push(name.clone()),
                _ => return Err(self.unexpected("where a field was expected")),
            }
            self.next += 1;
            match self.token() {
                Token::Dot => self.next += 1,
                _ => break,
            }
        }
        let end = self.tokens[self.next].0;
        Ok(Field {
            names,
            shown: self.text[start..end].trim_end().to_owned(),
            at: start,
        })
    }

    pub(super) fn typed(&mut self) -> Result<(Field, Type), Fault> {
        let field = self.field()?;
        match self.token() {
            Token::Colon => self.next += 1,
            _ => {
                let fault = self.unexpected("where ':' and a type were expected");
                return Err(fault.hint("for example duration_ms: integer"));
            }
        }
        let words = || TYPES.map(|(word, _)| word).join(", ");
        let Token::Name(word) = self.token() else {
            let fault = self.unexpected("where a type was expected");
            return Err(fault.hint(format!("a type is one of {}", words())));
        };
        match TYPES.iter().find(|(known, _)| known == word) {
            Some((_, found)) => {
                self.next += 1;
                Ok((field, *found))
            }
            None => {
                let at = self.tokens[self.next].0;
                Err(Fault::new(at, format!("there is no type '{word}'"))
                    .hint(format!("a type is one of {}", words())))
            }
        }
    }
}
