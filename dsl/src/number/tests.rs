use proptest::prelude::*;

use super::*;

fn both(text: &str) -> (String, String) {
    let text = Cow::Borrowed(text);
    (ceil(&text).into_owned(), floor(&text).into_owned())
}

#[test]
fn integers_of_any_length_next_to_a_fraction() {
    for (text, up, down) in [
        ("1.2", "2", "1"),
        ("-1.2", "-1", "-2"),
        ("-0.5", "0", "-1"),
        ("0.5", "1", "0"),
        ("9.5", "10", "9"),
        ("-99.01", "-99", "-100"),
        ("-0.0", "0", "0"),
        ("7", "7", "7"),
        ("-0", "-0", "-0"),
        ("7.000", "7", "7"),
        (
            "12345678901234567.8",
            "12345678901234568",
            "12345678901234567",
        ),
        (
            "-12345678901234567.8",
            "-12345678901234567",
            "-12345678901234568",
        ),
        (
            "99999999999999999999.1",
            "100000000000000000000",
            "99999999999999999999",
        ),
        ("9007199254740993.0", "9007199254740993", "9007199254740993"),
        // Less than the precision of a float is a fraction as well.
        ("1.00000000000000000001", "2", "1"),
        ("1.5e3", "1500", "1500"),
        ("15e-1", "2", "1"),
        ("-15E-1", "-1", "-2"),
        (
            "1.23456789012345678e16",
            "12345678901234568",
            "12345678901234567",
        ),
        ("1e-400", "1", "0"),
        ("-1e-99999999999999999999", "0", "-1"),
        ("0e99999999999999999999", "0", "0"),
        ("0.00e5", "0", "0"),
        // Too long to be written out.
        ("1e300", "1e300", "1e300"),
        (
            "1e99999999999999999999",
            "1e99999999999999999999",
            "1e99999999999999999999",
        ),
    ] {
        assert_eq!(both(text), (up.to_owned(), down.to_owned()), "{text}");
    }
}

#[test]
fn a_number_may_have_more_digits_than_a_width_of_format() {
    let digits = "1".repeat(70_000);
    assert_eq!(
        both(&format!("{digits}.5")),
        (digits[1..].to_owned() + "2", digits)
    );
    let round = format!("1{}", "0".repeat(70_000));
    assert_eq!(
        both(&format!("-{round}.5")),
        (format!("-{round}"), format!("-{}1", &round[..70_000]))
    );
    // Zeros that are not written.
    assert_eq!(
        whole("1.5", 70_000, 80_000).unwrap().digits,
        format!("15{}", &round[2..])
    );
}

proptest! {
    /// Against the arithmetic of integers: a fraction over a power of ten.
    #[test]
    fn rounding_is_exact(number: i128, places in 0_usize..38, exponent in -20_i64..20) {
        // 18 digits are free, for the power of ten and the exponent.
        let number = number / 1_000_000_000_000_000_000;
        let sign = if number < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", number.unsigned_abs(), width = places + 1);
        let (before, after) = digits.split_at(digits.len() - places);
        let plain = match after {
            "" => format!("{sign}{before}"),
            after => format!("{sign}{before}.{after}"),
        };
        let power = 10_i128.pow(places as u32);
        let expected = |up: bool| {
            let down = number.div_euclid(power);
            let rest = number.rem_euclid(power);
            (down + i128::from(up && rest > 0)).to_string()
        };
        if places > 0 {
            prop_assert_eq!(both(&plain), (expected(true), expected(false)), "{}", plain);
        }
        // The same number with its point elsewhere.
        let moved = format!("{sign}{}e{}", digits.trim_start_matches('0'), -(places as i64));
        if number != 0 && expected(true).len() <= 40 {
            prop_assert_eq!(both(&moved), (expected(true), expected(false)), "{}", moved);
        }
        // Whatever the exponent, both are integers, at most one apart and in order.
        let (up, down) = both(&format!("{plain}E{exponent}"));
        if let (Ok(up), Ok(down)) = (up.parse::<i128>(), down.parse::<i128>()) {
            prop_assert!(up == down || up == down + 1, "{plain}E{exponent}");
        }
    }

    #[test]
    fn rounding_agrees_with_floats_where_they_are_exact(number in -1e9..1e9_f64) {
        let text = format!("{number:?}");
        prop_assert_eq!(both(&text), ((number.ceil() as i64).to_string(), (number.floor() as i64).to_string()));
    }
}
