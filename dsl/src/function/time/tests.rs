use proptest::prelude::*;
use serde_json::json;

use super::super::tests::{ask, fails, refuses, yields};

#[test]
fn every_form_of_one_time_becomes_every_other() {
    let forms = [
        ("seconds", "1795431906"),
        ("millis", "1795431906000"),
        ("micros", "1795431906000000"),
        ("nanos", "1795431906000000000"),
        ("rfc3339", "\"2026-11-23T11:05:06Z\""),
        ("%d/%b/%Y:%H:%M:%S %z", "\"23/Nov/2026:11:05:06 +0000\""),
        ("%s", "\"1795431906\""),
    ];
    for (from, written) in forms {
        for (to, expected) in forms {
            yields(
                &format!("convert_time(@, '{from}', '{to}')"),
                written,
                expected,
            );
        }
    }
}

#[test]
fn what_is_read() {
    for (written, from, expected) in [
        ("1795431906.25", "seconds", "1795431906250000000"),
        ("1795431906.123456789", "seconds", "1795431906123456789"),
        ("1795431906250.5", "millis", "1795431906250500000"),
        ("0.0000000019", "seconds", "1"),
        ("-1.5", "seconds", "-1500000000"),
        ("-0.5", "seconds", "-500000000"),
        ("1.5e3", "millis", "1500000000"),
        // As Java writes a double.
        ("1.795431907001E12", "millis", "1795431907001000000"),
        ("1.795431906123456789E+9", "seconds", "1795431906123456789"),
        ("17954319060000e-4", "seconds", "1795431906000000000"),
        ("-15e-1", "seconds", "-1500000000"),
        ("1e-400", "seconds", "0"),
        ("0e99999999999999999999", "seconds", "0"),
        ("0", "nanos", "0"),
        (
            "\"2026-11-23T12:05:06+01:00\"",
            "rfc3339",
            "1795431906000000000",
        ),
        (
            "\"2026-11-23t11:05:06.000000001z\"",
            "rfc3339",
            "1795431906000000001",
        ),
        ("\"2026-11-23\"", "%Y-%m-%d", "1795392000000000000"),
        (
            "\"2026-11-23 11:05:06.5\"",
            "%Y-%m-%d %H:%M:%S%.f",
            "1795431906500000000",
        ),
        (
            "\"23.11.26 0105 PM\"",
            "%d.%m.%y %I%M %p",
            "1795439100000000000",
        ),
        (
            "\"2026-11-23 12:05:06 +01:00\"",
            "%F %T %:z",
            "1795431906000000000",
        ),
        // An offset in any form, at the end.
        (
            "\"2026-11-23 12:05:06+01\"",
            "%F %T%#z",
            "1795431906000000000",
        ),
        (
            "\"2026-11-23 12:05:06 +01:00\"",
            "%F %T %#z",
            "1795431906000000000",
        ),
        (
            "\"2026-11-23 06:35:06-0430\"",
            "%F %T%#z",
            "1795431906000000000",
        ),
        (
            "\"2026-11-23 11:05:06Z\"",
            "%F %T%#z",
            "1795431906000000000",
        ),
        ("\"2026-327\"", "%Y-%j", "1795392000000000000"),
        // An hour without minutes is the full hour.
        ("\"2026-11-23 11\"", "%Y-%m-%d %H", "1795431600000000000"),
        (
            "\"Nov 23 2026 11 PM\"",
            "%b %d %Y %I %p",
            "1795474800000000000",
        ),
        (
            "\"Nov 23 2026 12 am\"",
            "%b %d %Y %l %P",
            "1795392000000000000",
        ),
        // Midnight where there is no time, in the zone if there is one.
        ("\"2026-11-23+01:00\"", "%F%:z", "1795388400000000000"),
        // Seconds since 1970 tell all of it.
        ("\"11 1795431906\"", "%I %s", "1795431906000000000"),
        ("\"1795431906.5\"", "%s%.f", "1795431906500000000"),
        ("\"2026-11-23 1795431906\"", "%F %s", "1795431906000000000"),
    ] {
        yields(
            &format!("convert_time(@, '{from}', 'nanos')"),
            written,
            expected,
        );
    }
}

#[test]
fn what_is_written() {
    for (written, to, expected) in [
        ("1795431906123", "rfc3339", "\"2026-11-23T11:05:06.123Z\""),
        ("-1", "seconds", "-1"),
        ("-1", "rfc3339", "\"1969-12-31T23:59:59.999Z\""),
        ("1795431906123", "seconds", "1795431906"),
        ("1795431906123", "%Y/%m/%d/%H", "\"2026/11/23/11\""),
        (
            "1795431906123",
            "%A, %e %B %Y %% %Z",
            "\"Monday, 23 November 2026 % UTC\"",
        ),
        ("1795431906123", "%.3f", "\".123\""),
    ] {
        yields(
            &format!("convert_time(@, 'millis', '{to}')"),
            written,
            expected,
        );
    }
}

#[test]
fn a_format_may_come_from_the_event() {
    let event = r#"{"at": "23.11.2026", "form": "%d.%m.%Y", "bad": "weeks", "late": "%H:%M"}"#;
    yields("convert_time(at, form, 'seconds')", event, "1795392000");
    yields("convert_time(`0`, 'millis', form)", event, "\"01.01.1970\"");
    fails(
        "convert_time(at, late, 'millis')",
        event,
        "convert_time: argument 2: the pattern does not tell a whole date",
    );
    fails(
        "convert_time(`0`, 'millis', bad)",
        event,
        "convert_time: argument 3: a time is written in 'seconds', 'millis', 'micros', 'nanos', as 'rfc3339' or by a pattern such as '%Y-%m-%d'",
    );
}

#[test]
fn a_bad_format_is_found_when_it_is_compiled() {
    refuses(
        "convert_time(a, 'millis', '%Y-%Q')",
        27,
        "argument 3: the pattern has a % with an unknown letter after it",
    );
    refuses(
        "convert_time(a, '%H:%M', 'millis')",
        17,
        "argument 2: the pattern does not tell a whole date",
    );
    refuses(
        "convert_time(a, '%d.%m.', 'millis')",
        17,
        "argument 2: the pattern does not tell a whole date",
    );
    refuses(
        "convert_time(a, 'ms', 'millis')",
        17,
        "argument 2: a time is written in 'seconds', 'millis', 'micros', 'nanos', as 'rfc3339' or by a pattern such as '%Y-%m-%d'",
    );
}

#[test]
fn an_offset_in_any_form_is_not_written() {
    refuses(
        "convert_time(a, 'millis', '%F %T%#z')",
        27,
        "argument 3: %#z is for reading; an offset is written by %z",
    );
    let text = r#"{"t": "2026-11-23 12:05:06 UTC+01"}"#;
    fails(
        "convert_time(t, '%F %T%#z', 'millis')",
        text,
        "convert_time: argument 1 is a string that is not written as argument 2 says",
    );
}

#[test]
fn a_pattern_that_leaves_the_time_open_is_found_when_it_is_compiled() {
    let half = "argument 2: an hour from 1 to 12, %I or %l, does not tell the half of the day; add %p, AM or PM, or use %H, an hour from 0 to 23";
    let part = "argument 2: the pattern tells a part of a time without the greater one: a fraction needs seconds, seconds need minutes, and minutes and %p an hour";
    let end = "argument 2: %#z, an offset with or without minutes, must end the pattern: digits after it would be taken for minutes; use %z";
    let fraction = "argument 2: %f reads digits as a number of nanoseconds, however many there are; a fraction is read by %.f, its point included, or by %3f, %6f or %9f, of so many digits";
    let zone = "argument 2: the name of a zone, %Z, can't be read; use %z, an offset";
    for (pattern, reason) in [
        ("%Y-%m-%d %I:%M", half),
        ("%F %l", half),
        ("%F %T %Z", zone),
        ("%FT%T.%fZ", fraction),
        ("%F %T %z (%Z)", zone),
        ("%T %#z %F", end),
        ("%F %M", part),
        ("%F %p", part),
        ("%F %S", part),
        ("%F %H %S", part),
        ("%F %H%.f", part),
        ("%F %R%.f", part),
        ("%F%.f", part),
    ] {
        refuses(
            &format!("convert_time(a, '{pattern}', 'millis')"),
            17,
            reason,
        );
        fails(
            "convert_time(t, p, 'millis')",
            &json!({"t": "2026-11-26", "p": pattern}).to_string(),
            &format!("convert_time: {reason}"),
        );
    }
    // To be written, they are whole.
    yields(
        "convert_time(`1795431906`, 'seconds', '%I:%M %Z')",
        "null",
        "\"11:05 UTC\"",
    );
}

#[test]
fn a_time_that_can_not_be_is_not_midnight() {
    for (text, pattern) in [
        ("2026-11-26 24", "%F %H"),
        ("2026-11-26 24:00", "%F %R"),
        ("2026-11-26 11:60", "%F %R"),
        ("2026-11-26 13 PM", "%F %I %p"),
        ("2026-11-26 11 AM 12", "%F %H %p %I"),
        ("2026-11-26 12 1795431906", "%F %H %s"),
    ] {
        fails(
            &format!("convert_time(@, '{pattern}', 'millis')"),
            &json!(text).to_string(),
            "convert_time: argument 1 is a string that is not written as argument 2 says",
        );
    }
}

#[test]
fn what_is_no_time_is_a_dead_letter_that_does_not_tell_it() {
    let event = r#"{"t": "yesterday", "n": 5, "far": 1e300, "farther": 1e99999999999999999999, "long": 99999999999999999999, "b": true, "late": 99999999999999}"#;
    let millis = |arguments: &str| format!("convert_time({arguments}, 'millis')");
    fails(
        &millis("t, 'rfc3339'"),
        event,
        "convert_time: argument 1 is a string that is not written as argument 2 says",
    );
    fails(
        &millis("t, '%Y-%m-%d'"),
        event,
        "convert_time: argument 1 is a string that is not written as argument 2 says",
    );
    fails(
        &millis("t, 'millis'"),
        event,
        "convert_time: argument 1 is a string, expected a number, which argument 2 asks for",
    );
    fails(
        &millis("n, 'rfc3339'"),
        event,
        "convert_time: argument 1 is a number, expected a string, which argument 2 asks for",
    );
    fails(
        &millis("b, 'millis'"),
        event,
        "convert_time: argument 1 is a boolean, expected a number or a string",
    );
    for far in ["far", "farther", "long", "late"] {
        fails(
            &millis(&format!("{far}, 'seconds'")),
            event,
            "convert_time: argument 1 is a number beyond the range of times",
        );
    }
    fails(
        "convert_time(`300000000000`, 'seconds', 'rfc3339')",
        event,
        "convert_time: argument 1 is a time that RFC 3339 can't write: its years are 0 to 9999",
    );
}

/// Ways to write a whole number of at least two digits in JSON.
fn spellings(number: i64) -> Vec<String> {
    let sign = if number < 0 { "-" } else { "" };
    let digits = number.unsigned_abs().to_string();
    let (first, rest) = digits.split_at(1);
    let power = rest.len();
    vec![
        format!("{sign}{digits}"),
        format!("{sign}{digits}.000"),
        format!("{sign}{digits}e0"),
        format!("{sign}{digits}000E-3"),
        format!("{sign}{first}.{rest}E{power}"),
        format!("{sign}{first}.{rest}e+{power}"),
        format!("{sign}{first}.{rest}00e0{power}"),
        format!("{sign}0.{digits}e{}", power + 1),
        format!("{sign}0.000{digits}E+{}", power + 4),
    ]
}

proptest! {
    /// A number says the same time however it is written.
    #[test]
    fn every_spelling_of_a_number_is_the_same_time(millis in -99_999_999_999_999_i64..100_000_000_000_000, digits in 1_u32..12) {
        let millis = millis / 10_i64.pow(digits - 1);
        prop_assume!(millis.abs() > 9);
        for spelling in spellings(millis) {
            let found = ask("[convert_time(@, 'millis', 'millis'), convert_time(@, 'millis', 'nanos'), convert_time(@, 'seconds', 'seconds')]", &spelling);
            let written = ask("convert_time(@, 'millis', 'rfc3339')", &spelling);
            match found {
                Ok(found) => prop_assert_eq!(found, json!([millis, i128::from(millis) * 1_000_000, millis]).to_string(), "{}", spelling),
                // Milliseconds that are taken for seconds may be beyond the range of times.
                Err(_) => prop_assert!(millis.abs() > 8_000_000_000_000, "{}", spelling),
            }
            prop_assert_eq!(written, ask("convert_time(@, 'millis', 'rfc3339')", &millis.to_string()), "{}", spelling);
        }
    }

    /// The first digit after the point of the milliseconds is the first of the microseconds, with an exponent as without.
    #[test]
    fn a_fraction_is_kept_whatever_the_exponent(micros in 1_000_000_000_000_000_i64..2_000_000_000_000_000) {
        let digits = micros.to_string();
        for spelling in [
            format!("{}.{}", &digits[..13], &digits[13..]),
            format!("{}.{}E12", &digits[..1], &digits[1..]),
            format!("{digits}e-3"),
        ] {
            prop_assert_eq!(ask("convert_time(@, 'millis', 'micros')", &spelling), Ok(digits.clone()), "{}", spelling);
        }
    }

    /// A time that is written in full is read as it was.
    #[test]
    fn written_and_read_again(nanos: i64) {
        let event = nanos.to_string();
        for format in ["rfc3339", "%Y-%m-%d %H:%M:%S%.9f", "%Y%m%dT%H%M%S%.f%z"] {
            let there = format!("convert_time(@, 'nanos', '{format}')");
            let back = format!("{there} | convert_time(@, '{format}', 'nanos')");
            prop_assert_eq!(ask(&back, &event), Ok(event.clone()), "{}", format);
        }
    }

    /// A coarser unit is the floor; a finer one is exact.
    #[test]
    fn units_round_down(micros: i32) {
        let found = ask("[convert_time(@, 'micros', 'millis'), convert_time(@, 'micros', 'nanos'), convert_time(@, 'micros', 'seconds')]", &micros.to_string());
        let micros = i64::from(micros);
        prop_assert_eq!(found, Ok(json!([micros.div_euclid(1_000), micros * 1_000, micros.div_euclid(1_000_000)]).to_string()));
    }

    /// Whatever the text and the pattern, there is an answer.
    #[test]
    fn no_input_panics(text in "[ -~é]{0,12}", pattern in "(%[-_0:.#]?[a-zA-Z3569%+]|[-/ :é]){0,4}", number in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,12})?([eE][-+]?[0-9]{1,3})?") {
        let event = json!({ "t": text, "p": pattern }).to_string().replacen('{', &format!("{{\"n\": {number}, "), 1);
        for expression in [
            "convert_time(t, p, 'rfc3339')",
            "convert_time(n, 'seconds', p)",
            "convert_time(n, 'nanos', 'rfc3339')",
            "convert_time(n, 'micros', p) | convert_time(@, 'rfc3339', 'millis')",
        ] {
            let _ = ask(expression, &event);
        }
    }
}
