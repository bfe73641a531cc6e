//! Time: from one way of writing it to another.

use std::fmt::Write;

use chrono::format::{self, Item, Parsed, StrftimeItems};
use chrono::{DateTime, Datelike, SecondsFormat, Utc};

use super::argument::{Takes, number, text, with_article};
use super::{Call, Function, Literals, Outcome, PrepareError, Prepared};
use crate::number;
use crate::settings::Settings;
use crate::value::Value;

const NANOS: i128 = 1_000_000_000;

pub(super) const FUNCTIONS: &[Function] = &[Function::new(
    "convert_time",
    &[Takes::NumberOrString, Takes::String, Takes::String],
    convert_time,
)
.prepared_by(prepare)];

/// A way of writing a time.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// A number of units since 1970, each of so many nanoseconds, a power of ten.
    Epoch(i128),
    Rfc3339,
    /// As `strftime` has it.
    Pattern(Vec<Item<'static>>),
}

impl Format {
    fn read(word: &str) -> Result<Format, String> {
        Ok(match word {
            "seconds" => Format::Epoch(NANOS),
            "millis" => Format::Epoch(1_000_000),
            "micros" => Format::Epoch(1_000),
            "nanos" => Format::Epoch(1),
            "rfc3339" => Format::Rfc3339,
            pattern if pattern.contains('%') => StrftimeItems::new(pattern)
                .parse_to_owned()
                .map(Format::Pattern)
                .map_err(|_| "the pattern has a % with an unknown letter after it".to_owned())?,
            _ => {
                return Err(
                    "a time is written in 'seconds', 'millis', 'micros', 'nanos', as 'rfc3339' or by a pattern such as '%Y-%m-%d'"
                        .to_owned(),
                );
            }
        })
    }

    /// As what is written.
    fn read_target(word: &str) -> Result<Format, String> {
        match Format::read(word)? {
            Format::Pattern(items) if items.iter().any(is_loose_offset) => {
                Err("%#z is for reading; an offset is written by %z".to_owned())
            }
            format => Ok(format),
        }
    }

    /// As what is read: a pattern must tell a date, and a time or none, which is tried.
    fn read_source(word: &str) -> Result<Format, String> {
        let format = Format::read(word)?;
        if let Format::Pattern(items) = &format {
            readable(items)?;
        }
        Ok(format)
    }
}

/// `%#z`, an offset with or without minutes: chrono reads and does not write it, and has no name for it.
fn is_loose_offset(item: &Item<'_>) -> bool {
    StrftimeItems::new("%#z").next().as_ref() == Some(item)
}

/// Refuses a pattern by which no text, or not every text, tells a time.
fn readable(items: &[Item<'_>]) -> Result<(), String> {
    use format::Fixed::{LowerAmPm, TimezoneName, UpperAmPm};
    use format::Numeric::{Hour, Hour12, Nanosecond, Timestamp};
    let number = |which| {
        items
            .iter()
            .any(|item| matches!(item, Item::Numeric(it, _) if *it == which))
    };
    let fixed = |which| items.contains(&Item::Fixed(which));
    // Reading skips the name, so that any zone would be taken as UTC.
    if fixed(TimezoneName) {
        return Err("the name of a zone, %Z, can't be read; use %z, an offset".to_owned());
    }
    let loose = items.iter().position(is_loose_offset);
    if loose.is_some_and(|at| at + 1 < items.len()) {
        return Err(
            "%#z, an offset with or without minutes, must end the pattern: digits after it would be taken for minutes; use %z"
                .to_owned(),
        );
    }
    if number(Nanosecond) {
        return Err(
            "%f reads digits as a number of nanoseconds, however many there are; a fraction is read by %.f, its point included, or by %3f, %6f or %9f, of so many digits"
                .to_owned(),
        );
    }
    let half_of_day = fixed(UpperAmPm) || fixed(LowerAmPm) || number(Hour) || number(Timestamp);
    if number(Hour12) && !half_of_day {
        return Err(
            "an hour from 1 to 12, %I or %l, does not tell the half of the day; add %p, AM or PM, or use %H, an hour from 0 to 23"
                .to_owned(),
        );
    }
    // Two digits in each field and a fraction: what is written without padding or only where it is not zero is there too.
    let sample_time = DateTime::from_timestamp(817_166_096, 789_000_000).unwrap_or_default();
    let mut sample = String::new();
    let mut parsed = Parsed::new();
    let written = &items[..loose.unwrap_or(items.len())];
    let date = write!(sample, "{}", sample_time.format_with_items(written.iter())).is_ok()
        && format::parse(&mut parsed, &sample, written.iter()).is_ok()
        && (parsed.timestamp().is_some() || parsed.to_naive_date().is_ok());
    if !date {
        return Err("the pattern does not tell a whole date".to_owned());
    }
    resolve(parsed).map(drop).ok_or_else(|| {
        "the pattern tells a part of a time without the greater one: a fraction needs seconds, seconds need minutes, and minutes and %p an hour"
            .to_owned()
    })
}

fn prepare(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    let from = literals[1].map(|word| Format::read_source(&text(word)));
    let to = literals[2].map(|word| Format::read_target(&text(word)));
    Ok(Prepared::Time {
        from: from.transpose().map_err(|reason| (1, reason))?,
        to: to.transpose().map_err(|reason| (2, reason))?,
    })
}

fn convert_time<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Prepared::Time { from, to } = call.prepared else {
        return Ok(Value::Null);
    };
    let (read_from, read_to);
    let from = match from {
        Some(from) => from,
        None => {
            read_from = Format::read_source(&text(&call[1]))
                .map_err(|reason| format!("argument 2: {reason}"))?;
            &read_from
        }
    };
    let to = match to {
        Some(to) => to,
        None => {
            read_to = Format::read_target(&text(&call[2]))
                .map_err(|reason| format!("argument 3: {reason}"))?;
            &read_to
        }
    };
    write(parse(&call[0], from)?, to)
}

fn parse(value: &Value<'_>, from: &Format) -> Result<DateTime<Utc>, String> {
    let wrong_type = |expected: &str| {
        format!(
            "argument 1 is {}, expected {expected}, which argument 2 asks for",
            with_article(value.type_name())
        )
    };
    match (from, value) {
        (Format::Epoch(unit), Value::Number(_)) => since_epoch(number(value), *unit)
            .ok_or_else(|| "argument 1 is a number beyond the range of times".to_owned()),
        (Format::Epoch(_), _) => Err(wrong_type("a number")),
        (_, Value::String(_)) => {
            let text = text(value);
            let time = match from {
                Format::Pattern(items) => by_pattern(&text, items),
                _ => DateTime::parse_from_rfc3339(&text)
                    .ok()
                    .map(|time| time.to_utc()),
            };
            time.ok_or_else(|| {
                "argument 1 is a string that is not written as argument 2 says".to_owned()
            })
        }
        _ => Err(wrong_type("a string")),
    }
}

/// Exact however the number is written; what is below a nanosecond is cut off.
fn since_epoch(text: &str, unit: i128) -> Option<DateTime<Utc>> {
    /// Far more than the nanoseconds of any time have, and fewer than an i128 holds.
    const MAX_DIGITS: usize = 30;
    let shift = i64::from(unit.ilog10());
    let nanos = number::whole(text, shift, MAX_DIGITS)?;
    let amount: i128 = match nanos.digits.as_str() {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let nanos = if nanos.negative { -amount } else { amount };
    let seconds = i64::try_from(nanos.div_euclid(NANOS)).ok()?;
    DateTime::from_timestamp(seconds, nanos.rem_euclid(NANOS) as u32)
}

fn by_pattern(text: &str, items: &[Item<'_>]) -> Option<DateTime<Utc>> {
    let mut parsed = Parsed::new();
    format::parse(&mut parsed, text, items.iter()).ok()?;
    resolve(parsed)
}

/// UTC where there is no zone, midnight where there is no time, the full hour where there is nothing below it. A time that is told in
/// any other part is none: it would be a guess.
fn resolve(mut parsed: Parsed) -> Option<DateTime<Utc>> {
    let below_minute = parsed.second().or(parsed.nanosecond());
    // Seconds since 1970 tell the time, too, and what else is there is compared with them.
    if parsed.timestamp().is_none() && parsed.minute().is_none() && below_minute.is_none() {
        if parsed.hour_div_12().is_none() && parsed.hour_mod_12().is_none() {
            parsed.set_hour(0).ok()?;
        }
        parsed.set_minute(0).ok()?;
    }
    if parsed.offset().is_none() {
        parsed.set_offset(0).ok()?;
    }
    parsed.to_datetime().ok().map(|time| time.to_utc())
}

fn write<'a>(time: DateTime<Utc>, to: &Format) -> Outcome<'a> {
    match to {
        Format::Epoch(unit) => {
            let nanos =
                i128::from(time.timestamp()) * NANOS + i128::from(time.timestamp_subsec_nanos());
            Ok(Value::Number(nanos.div_euclid(*unit).to_string().into()))
        }
        Format::Rfc3339 if !(0..=9999).contains(&time.year()) => Err(
            "argument 1 is a time that RFC 3339 can't write: its years are 0 to 9999".to_owned(),
        ),
        Format::Rfc3339 => Ok(Value::text(
            time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        )),
        Format::Pattern(items) => {
            let mut text = String::new();
            write!(text, "{}", time.format_with_items(items.iter()))
                .map_err(|_| "argument 1 is a time that the pattern can't write".to_owned())?;
            Ok(Value::text(text))
        }
    }
}

#[cfg(test)]
mod tests;
