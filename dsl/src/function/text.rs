//! Text: case, pieces, and regular expressions.
//!
//! Regular expressions are those of the `regex` crate: time linear in the text, no look-around and no back-references.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::argument::{Takes, integer, text};
use super::{Call, Function, Literals, Outcome, PrepareError, Prepared};
use crate::settings::Settings;
use crate::value::Value;

/// Bytes that a compiled regular expression may take, and as many again for what it remembers while it searches.
const REGEX_SIZE: usize = 1 << 20;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("lower", &[Takes::String], |a| {
        a.context.text(text(&a[0]).to_lowercase())
    }),
    Function::new(
        "regex_extract",
        &[Takes::String, Takes::String],
        regex_extract,
    )
    .with_optional(&[Takes::NumberOrString])
    .prepared_by(prepare_extract),
    Function::new("regex_match", &[Takes::String, Takes::String], regex_match)
        .prepared_by(prepare_regex),
    Function::new(
        "replace",
        &[Takes::String, Takes::String, Takes::String],
        replace,
    )
    .prepared_by(prepare_separator),
    Function::new("split", &[Takes::String, Takes::String], split).prepared_by(prepare_separator),
    Function::new("substring", &[Takes::String, Takes::Integer], substring)
        .with_optional(&[Takes::Integer]),
    Function::new("trim", &[Takes::String], |a| {
        a.context.text(text(&a[0]).trim().to_owned())
    }),
    Function::new("upper", &[Takes::String], |a| {
        a.context.text(text(&a[0]).to_uppercase())
    }),
];

const EMPTY: &str = "it is empty";

/// What is looked for must not be empty.
fn prepare_separator(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    match literals[1] {
        Some(literal) if text(literal).is_empty() => Err((1, EMPTY.to_owned())),
        _ => Ok(Prepared::Nothing),
    }
}

fn separator<'c>(call: &'c Call<'_, '_>) -> Result<Cow<'c, str>, String> {
    let separator = text(&call[1]);
    if separator.is_empty() {
        return Err(format!("argument 2: {EMPTY}"));
    }
    Ok(separator)
}

fn split<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (text, separator) = (text(&call[0]), separator(call)?);
    let pieces = text.matches(separator.as_ref()).count() + 1;
    call.context.spend_items(pieces)?;
    call.context.spend(text.len())?;
    let pieces = text.split(separator.as_ref());
    Ok(Value::array(
        pieces.map(|piece| Value::text(piece.to_owned())).collect(),
    ))
}

fn replace<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (text, from, to) = (text(&call[0]), separator(call)?, text(&call[2]));
    let found = text.matches(from.as_ref()).count();
    call.context
        .spend(text.len() + found.saturating_mul(to.len()))?;
    Ok(Value::text(text.replace(from.as_ref(), &to)))
}

/// As a slice: the characters from `start`, up to `stop` or the end; negative numbers count from the end.
fn substring<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let text = text(&call[0]);
    let length = text.chars().count() as i64;
    let place = |given: i64| match given {
        0.. => given.min(length),
        _ => given.saturating_add(length).max(0),
    };
    let start = place(integer(&call[1]));
    let stop = call.get(2).map_or(length, |stop| place(integer(stop)));
    let taken = text.chars().skip(start as usize);
    call.context
        .text(taken.take((stop - start).max(0) as usize).collect())
}

fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression takes more than {REGEX_SIZE} bytes")
            }
            // The pattern itself, which may come from the event, is left out.
            error => {
                let error = error.to_string();
                let reason = error
                    .rsplit_once("error: ")
                    .map_or("", |(_, reason)| reason);
                format!("it is no regular expression: {}", reason.trim())
            }
        })
}

fn prepare_regex(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    let Some(pattern) = literals[1] else {
        return Ok(Prepared::Nothing);
    };
    compile(&text(pattern))
        .map(Prepared::Regex)
        .map_err(|reason| (1, reason))
}

fn prepare_extract(literals: Literals<'_>, settings: &Settings) -> Result<Prepared, PrepareError> {
    let prepared = prepare_regex(literals, settings)?;
    if let (Prepared::Regex(regex), Some(Some(wanted))) = (&prepared, literals.get(2)) {
        group(regex, Some(wanted)).map_err(|reason| (2, reason))?;
    }
    Ok(prepared)
}

/// Calls with the regular expression, which is compiled for this event where it is no literal.
fn with_regex<'a>(call: &Call<'_, 'a>, run: impl FnOnce(&Regex) -> Outcome<'a>) -> Outcome<'a> {
    match call.prepared {
        Prepared::Regex(regex) => run(regex),
        _ => run(&compile(&text(&call[1])).map_err(|reason| format!("argument 2: {reason}"))?),
    }
}

fn regex_match<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    with_regex(call, |regex| {
        Ok(Value::Bool(regex.is_match(&text(&call[0]))))
    })
}

fn regex_extract<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    with_regex(call, |regex| {
        let group = group(regex, call.get(2)).map_err(|reason| format!("argument 3: {reason}"))?;
        let text = text(&call[0]);
        let found = regex
            .captures(&text)
            .and_then(|captures| captures.get(group));
        found.map_or(Ok(Value::Null), |found| {
            call.context.text(found.as_str().to_owned())
        })
    })
}

/// The number of the group asked for; without one the first, or 0, which is the whole match, where there is none.
fn group(regex: &Regex, wanted: Option<&Value<'_>>) -> Result<usize, String> {
    let count = regex.captures_len();
    match wanted {
        None => Ok((count - 1).min(1)),
        Some(name @ Value::String(_)) => {
            let name = text(name);
            let mut names = regex.capture_names();
            names
                .position(|known| known == Some(&name))
                .ok_or_else(|| "the regular expression has no group of this name".to_owned())
        }
        Some(number) => match super::argument::number(number).parse() {
            Ok(group) if group < count => Ok(group),
            _ => Err(format!(
                "the regular expression has the groups 0 to {}",
                count - 1
            )),
        },
    }
}

#[cfg(test)]
mod tests;
