//! The time of an event, read from one of its fields: for index names and for partitions of a table.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, Utc};
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
        Value::String(text) => parse_text(text),
        _ => None,
    }
}

/// [`parse`] for a name made of the time: what is in no year from 0 to 9999 of UTC is `None`, too. Others are written with a sign, as no
/// partition of type `date` or `int` and no pattern of indices has it.
pub fn parse_for_name(value: &Value) -> Option<DateTime<Utc>> {
    parse(value).filter(|time| (0..=9999).contains(&time.year()))
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

/// [`parse`] of a text.
pub fn parse_text(text: &str) -> Option<DateTime<Utc>> {
    if let Some(time) = from_utc(text) {
        return Some(time);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    // chrono's %Y takes other years, with a sign and of any length; no date column does.
    if !has_year(text) {
        return None;
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some(time.and_utc());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc())
}

/// `2026-11-23T11:05:06Z`, with a fraction or without, as most events write it. Nothing where it is another form or no time: chrono knows.
fn from_utc(text: &str) -> Option<DateTime<Utc>> {
    let (whole, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let nanos = match rest {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    if [whole[10], whole[13], whole[16]] != *b"T::" {
        return None;
    }
    let date = date(&whole[..10])?;
    let (hour, minute) = (number(&whole[11..13])?, number(&whole[14..16])?);
    let time = date.and_hms_nano_opt(hour, minute, number(&whole[17..])?, nanos)?;
    Some(time.and_utc())
}

/// Whether it begins with a year of four digits.
fn has_year(text: &str) -> bool {
    let digits = text.split_once('-').map(|(year, _)| year.as_bytes());
    digits.is_some_and(|year| year.len() == 4 && year.iter().all(u8::is_ascii_digit))
}

/// A date written `YYYY-MM-DD`, and in no other way: chrono's `%Y-%m-%d` also takes `2026-1-3` and `+2026-01-03`.
pub fn date(text: &[u8]) -> Option<NaiveDate> {
    if text.len() != 10 || [text[4], text[7]] != *b"--" {
        return None;
    }
    let year = number(&text[..4])?.try_into().ok()?;
    NaiveDate::from_ymd_opt(year, number(&text[5..7])?, number(&text[8..])?)
}

/// The number that at most nine decimal digits stand for.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_quick_way_says_what_chrono_says(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?[Zz+]?"
        ) {
            if let Some(time) = from_utc(&text) {
                prop_assert_eq!(Some(time), DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc()));
            }
        }
    }

    proptest! {
        #[test]
        fn a_year_has_four_digits(year in "[-+ ]?[0-9]{1,6}", rest in "-01-03([T ]11:05:06(\\.5)?(Z|\\+01:00)?)?") {
            let known = parse_text(&format!("{year}{rest}"));
            let strict = year.len() == 4 && year.bytes().all(|c| c.is_ascii_digit());
            // An offset after a space is no form that is taken where the date is no RFC 3339.
            prop_assert!(strict || known.is_none(), "{year}{rest}");
            if strict && !rest.contains(' ') {
                prop_assert!(known.is_some(), "{year}{rest}");
            }
        }
    }

    #[test]
    fn a_time_whose_year_in_utc_has_no_four_digits_names_nothing() {
        for (time, year) in [
            (json!("9999-12-31T23:59:59-05:00"), None),
            (json!("0000-01-01T00:00:00+01:00"), None),
            (json!(-99_999_999_999_i64), None),
            (json!("9999-12-31T23:59:59Z"), Some(9999)),
            (json!("0000-01-01T00:00:00-01:00"), Some(0)),
        ] {
            assert_eq!(
                parse_for_name(&time).map(|time| time.year()),
                year,
                "{time}"
            );
            assert!(parse(&time).is_some());
        }
    }

    #[test]
    fn the_quick_way_knows_the_common_form() {
        for text in [
            "2026-11-23T11:05:06Z",
            "2026-11-23T11:05:06.123Z",
            "2024-02-29T23:59:59.999999999Z",
        ] {
            assert_eq!(
                from_utc(text).unwrap(),
                DateTime::parse_from_rfc3339(text).unwrap()
            );
        }
    }

    #[test]
    fn a_date_is_written_in_one_way() {
        let expected = NaiveDate::from_ymd_opt(2026, 1, 3);
        assert_eq!(date(b"2026-01-03"), expected);
        for text in [
            "2026-1-3",
            "+2026-01-03",
            "2026-01-03 ",
            "2026/01/03",
            "2026-02-30",
            "20260103",
            "",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for value in [
            json!(null),
            json!(true),
            json!("yesterday"),
            json!(""),
            json!("+12345-01-01"),
            json!("+2026-01-01"),
            json!("-0001-01-01"),
            json!("12345-01-01"),
            json!("926-01-01"),
            json!(" 2026-01-01"),
            json!("+12345-01-01T00:00:00"),
            json!("+12345-01-01T00:00:00Z"),
            json!("-0001-01-01 00:00:00"),
            json!([1]),
            json!(1e300),
        ] {
            assert_eq!(parse(&value), None, "{value}");
        }
    }
}
