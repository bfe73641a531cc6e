//! The time of an event, read from one of its fields: for index names and for partitions of a table.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde_json::Value;

/// Reads a time as events carry it.
///
/// A number is time since the epoch; its magnitude tells the unit: below 10^11 seconds, below 10^14 milliseconds, below 10^17
/// microseconds, else nanoseconds (each unit then covers the years 1973 to 5138). A text is RFC 3339, or the same without a zone
/// (taken as UTC, with `T` or a space), or a date alone. Anything else is `None`.
pub fn parse(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => from_epoch(whole),
            None => from_epoch_fraction(number.as_f64()?),
        },
        Value::String(text) => from_text(text),
        _ => None,
    }
}

/// What [`parse`] takes, for an error message.
pub const ALLOWED: &str = "an RFC 3339 time, a date, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970";

fn from_epoch(whole: i64) -> Option<DateTime<Utc>> {
    match whole.unsigned_abs() {
        0..100_000_000_000 => DateTime::from_timestamp(whole, 0),
        100_000_000_000..100_000_000_000_000 => DateTime::from_timestamp_millis(whole),
        100_000_000_000_000..100_000_000_000_000_000 => DateTime::from_timestamp_micros(whole),
        _ => Some(DateTime::from_timestamp_nanos(whole)),
    }
}

fn from_epoch_fraction(number: f64) -> Option<DateTime<Utc>> {
    let micros = match number.abs() {
        n if n < 1e11 => number * 1e6,
        n if n < 1e14 => number * 1e3,
        n if n < 1e17 => number,
        n if n < 9e18 => number / 1e3,
        _ => return None,
    };
    DateTime::from_timestamp_micros(micros.round() as i64)
}

fn from_text(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some(time.and_utc());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_unit_and_form_gives_the_same_instant() {
        let expected = DateTime::parse_from_rfc3339("2026-11-23T11:05:06Z")
            .unwrap()
            .to_utc();
        for value in [
            json!(1_795_431_906),
            json!(1_795_431_906_000_i64),
            json!(1_795_431_906_000_000_i64),
            json!(1_795_431_906_000_000_000_i64),
            json!(1_795_431_906.0),
            json!("2026-11-23T11:05:06Z"),
            json!("2026-11-23T12:05:06+01:00"),
            json!("2026-11-23T11:05:06"),
            json!("2026-11-23 11:05:06"),
        ] {
            assert_eq!(parse(&value), Some(expected), "{value}");
        }
        assert_eq!(
            parse(&json!("2026-11-23")).unwrap().to_rfc3339(),
            "2026-11-23T00:00:00+00:00"
        );
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for value in [
            json!(null),
            json!(true),
            json!("yesterday"),
            json!(""),
            json!([1]),
            json!(1e300),
        ] {
            assert_eq!(parse(&value), None, "{value}");
        }
    }
}
