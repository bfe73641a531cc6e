//! A JSON value into a column, exactly, or a [`Mismatch`] that says why not.
//!
//! | type | takes |
//! |---|---|
//! | string, varchar(n), char(n) | a string, of at most n characters |
//! | binary | a string with base64 (standard alphabet, padded) |
//! | boolean | `true` or `false` |
//! | tinyint, smallint, int, bigint | a number without a fraction that is in range; `12.0` and `1.2e1` are 12 |
//! | float, double | a number, rounded to the nearest; one that would become infinite is refused |
//! | decimal(p,s) | a number, or a string with a number, that p digits with s after the point hold exactly |
//! | timestamp | what [`event_time`](crate::event_time) takes; digits beyond microseconds are dropped |
//! | date | a string `YYYY-MM-DD` |
//! | array, map, struct | an array; an object; an object, whose fields may be missing (null) and whose others are ignored |
//!
//! `null` fits every type. Keys of a map of numbers are written in their shortest form (`"7"`, not `"007"`). Nothing else is converted: the string `"12"` is not a bigint.

use std::num::{IntErrorKind, ParseIntError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::NaiveDate;
use serde_json::{Map, Number, Value};

use super::column::{Buffers, Data};
use super::mismatch::Mismatch;
use super::schema::HiveType;
use crate::event_time;

/// Appends a value as the column's next row. On an error the column may hold a part of the row: truncate it.
pub(super) fn push(column: &mut Buffers, value: &Value) -> Result<(), Mismatch> {
    if value.is_null() {
        column.push_null();
        return Ok(());
    }
    let Buffers { kind, valid, data } = column;
    let kind = &*kind;
    let mismatch = |because: String| Mismatch::new(value, kind, because);
    match (data, value) {
        (Data::Bytes { bytes, ends }, Value::String(text)) => {
            push_text(kind, text, bytes).map_err(mismatch)?;
            ends.push(bytes.len() as i32);
        }
        (Data::Boolean(values), Value::Bool(value)) => values.push(*value),
        (Data::I8(values), Value::Number(number)) => {
            values.push(whole(number).map_err(mismatch)?);
        }
        (Data::I16(values), Value::Number(number)) => {
            values.push(whole(number).map_err(mismatch)?);
        }
        (Data::I32(values), Value::Number(number)) if *kind == HiveType::Int => {
            values.push(whole(number).map_err(mismatch)?);
        }
        (Data::I32(values), Value::String(text)) if *kind == HiveType::Date => {
            values.push(
                date(text).ok_or_else(|| mismatch("a date is written YYYY-MM-DD".to_owned()))?,
            );
        }
        (Data::I64(values), Value::Number(number)) if *kind == HiveType::BigInt => {
            values.push(whole(number).map_err(mismatch)?);
        }
        (Data::I64(values), value) if *kind == HiveType::Timestamp => {
            let time = event_time::parse(value).ok_or_else(|| mismatch(no_time(value)))?;
            values.push(time.timestamp_micros());
        }
        (Data::F32(values), Value::Number(number)) => {
            let float: f32 = number.as_str().parse().unwrap_or(f32::INFINITY);
            if !float.is_finite() {
                let because = "a float holds up to 3.4e38, a double more";
                return Err(mismatch(because.to_owned()));
            }
            values.push(float);
        }
        (Data::F64(values), Value::Number(number)) => {
            let double: f64 = number.as_str().parse().unwrap_or(f64::INFINITY);
            if !double.is_finite() {
                let because = "a double holds up to 1.7e308; a string column and to_string in the projection keep any number";
                return Err(mismatch(because.to_owned()));
            }
            values.push(double);
        }
        (Data::F32(_) | Data::F64(_), Value::String(_)) => {
            let because = "to_number in the projection converts it; NaN and Infinity become null";
            return Err(mismatch(because.to_owned()));
        }
        (Data::I128(values), value) => {
            values.push(decimal(kind, value).map_err(mismatch)?);
        }
        (Data::Array { item, ends }, Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                push(item, value).map_err(|error| error.below(&format!("[{index}]")))?;
            }
            ends.push(item.len() as i32);
        }
        (Data::Map { keys, values, ends }, Value::Object(entries)) => {
            push_entries(keys, values, entries)?;
            ends.push(keys.len() as i32);
        }
        (Data::Struct(fields), Value::Object(object)) => {
            for (name, field) in fields {
                let found = find(object, name).unwrap_or(&Value::Null);
                push(field, found).map_err(|error| error.below(&format!(".{name}")))?;
            }
        }
        _ => return Err(mismatch(String::new())),
    }
    valid.push(true);
    Ok(())
}

/// The field of exactly this name, else the last that differs only in case: names from a Hive table are lower case.
pub(super) fn find<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).or_else(|| {
        object
            .iter()
            .rev()
            .find(|(key, _)| same_but_case(key, name))
            .map(|(_, value)| value)
    })
}

/// Whether two names are the same to Hive.
pub(super) fn same_but_case(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
        || (!one.is_ascii() && one.to_lowercase() == other.to_lowercase())
}

fn push_entries(
    keys: &mut Buffers,
    values: &mut Buffers,
    entries: &Map<String, Value>,
) -> Result<(), Mismatch> {
    for (key, value) in entries {
        let key_value = match keys.kind() {
            HiveType::String => Value::String(key.clone()),
            kind => number_of_key(key).ok_or_else(|| {
                let because = "a key is a whole number of at most 64 bits in its shortest form: 7, not 007 or +7";
                Mismatch::new(&Value::String(key.clone()), kind, because)
                    .below(&format!(" key {key:?}"))
            })?,
        };
        push(keys, &key_value).map_err(|error| error.below(&format!(" key {key:?}")))?;
        push(values, value).map_err(|error| error.below(&format!("[{key:?}]")))?;
    }
    Ok(())
}

/// A key of a JSON object is a text. Only one that is exactly how its number is written stands for it: else two keys of an object would be
/// the same key of a map, which has each once.
fn number_of_key(key: &str) -> Option<Value> {
    let number: i64 = key.parse().ok()?;
    (number.to_string() == key).then(|| Value::Number(Number::from(number)))
}

/// Appends a text to the bytes of its column.
pub(super) fn push_text(kind: &HiveType, text: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        HiveType::Binary => base64(text, bytes).ok_or("binary is written in base64")?,
        HiveType::Varchar(limit) | HiveType::Char(limit)
            if text.len() > *limit as usize && text.chars().count() > *limit as usize =>
        {
            return Err(format!("it has {} characters", text.chars().count()));
        }
        _ => bytes.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// Why a value is no time.
fn no_time(value: &Value) -> String {
    let allowed = event_time::ALLOWED;
    match value {
        Value::Number(_) => format!("it is beyond any time; allowed is {allowed}"),
        Value::String(_) => format!("it is not written as a time; allowed is {allowed}"),
        _ => format!("allowed is {allowed}"),
    }
}

/// A whole number in the range of its type.
fn whole<T: TryFrom<i128>>(number: &Number) -> Result<T, String> {
    let beyond = || {
        let half = 1_i128 << (8 * size_of::<T>() - 1);
        format!(
            "it is not between {} and {}; a greater type, a decimal or a string may hold it",
            -half,
            half - 1
        )
    };
    let whole = match number.as_str().parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => Digits::parse(number.as_str())
            .and_then(|digits| digits.scaled(0))
            .map_err(|problem| match problem {
                Inexact::Fraction => "it has a fraction: floor or ceil in the projection takes it away, a double or decimal column keeps it".to_owned(),
                Inexact::Range => beyond(),
                Inexact::NotANumber => "it is not a number".to_owned(),
            })?,
    };
    T::try_from(whole).map_err(|_| beyond())
}

/// The unscaled value of a decimal.
fn decimal(kind: &HiveType, value: &Value) -> Result<i128, String> {
    let HiveType::Decimal { precision, scale } = kind else {
        return Err(String::new());
    };
    let text = match value {
        Value::Number(number) => number.as_str(),
        Value::String(text) => text,
        _ => return Err(String::new()),
    };
    let beyond = || {
        let before = precision - scale;
        format!("it has more than {before} digits before the point; a greater decimal holds it")
    };
    let unscaled = Digits::parse(text)
        .and_then(|digits| digits.scaled(i64::from(*scale)))
        .map_err(|problem| match problem {
            Inexact::Fraction => {
                format!("it has more than {scale} digits after the point; a decimal of a greater scale holds it")
            }
            Inexact::Range => beyond(),
            Inexact::NotANumber => "it is not a number".to_owned(),
        })?;
    if unscaled.unsigned_abs() < 10_u128.pow(u32::from(*precision)) {
        Ok(unscaled)
    } else {
        Err(beyond())
    }
}

pub(super) fn date(text: &str) -> Option<i32> {
    let date = event_time::date(text.as_bytes())?;
    i32::try_from(
        date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1)?)
            .num_days(),
    )
    .ok()
}

/// A number as it is written: ± digits × 10^exponent.
struct Digits {
    negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: Vec<u8>,
    exponent: i64,
}

enum Inexact {
    NotANumber,
    Fraction,
    Range,
}

impl Digits {
    fn parse(text: &str) -> Result<Digits, Inexact> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, power(exponent)?),
            None => (text, 0),
        };
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = !before.is_empty()
            && (!after.is_empty() || !mantissa.contains('.'))
            && before
                .bytes()
                .chain(after.bytes())
                .all(|c| c.is_ascii_digit());
        if !is_number {
            return Err(Inexact::NotANumber);
        }
        let mut digits: Vec<u8> = before
            .bytes()
            .chain(after.bytes())
            .skip_while(|digit| *digit == b'0')
            .collect();
        let mut exponent = exponent.saturating_sub(after.len() as i64);
        while digits.last() == Some(&b'0') {
            digits.pop();
            exponent = exponent.saturating_add(1);
        }
        Ok(Digits {
            negative,
            digits,
            exponent,
        })
    }

    /// The number times 10^scale, where that is whole.
    fn scaled(&self, scale: i64) -> Result<i128, Inexact> {
        if self.digits.is_empty() {
            return Ok(0);
        }
        let zeros = self.exponent.saturating_add(scale);
        if zeros < 0 {
            return Err(Inexact::Fraction);
        }
        if self.digits.len() as i64 + zeros.min(100) > 38 {
            return Err(Inexact::Range);
        }
        let mut value: i128 = 0;
        for digit in &self.digits {
            value = value * 10 + i128::from(digit - b'0');
        }
        value *= 10_i128.pow(zeros as u32);
        Ok(if self.negative { -value } else { value })
    }
}

/// An exponent; of one that is beyond any number, the greatest there is.
fn power(text: &str) -> Result<i64, Inexact> {
    text.parse()
        .or_else(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => Ok(i64::MAX),
            IntErrorKind::NegOverflow => Ok(i64::MIN),
            _ => Err(Inexact::NotANumber),
        })
}

/// Decodes standard base64 with padding; `None` where the text is anything else.
fn base64(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let decoded = STANDARD.decode_vec(text, out);
    if decoded.is_err() {
        out.truncate(start);
    }
    decoded.ok()
}

#[cfg(test)]
mod tests;
