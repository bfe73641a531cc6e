//! Arithmetic on numbers that are kept as their JSON text.
//!
//! Integers (no point, no exponent) are compared exactly, whatever their length. Otherwise both sides are taken as 64-bit
//! floats, as the reference does; a number beyond their range counts as infinite.

use std::borrow::Cow;
use std::cmp::Ordering;

pub(crate) fn is_integer(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

pub(crate) fn to_f64(text: &str) -> f64 {
    // A valid JSON number is always a valid Rust float.
    text.parse().unwrap_or(f64::NAN)
}

/// As JMESPath's `==`: fractions that differ by less than the precision of a float are equal (0.1 + 0.2 is 0.3).
pub(crate) fn equal(a: &str, b: &str) -> bool {
    if is_integer(a) && is_integer(b) {
        return compare_integers(a, b) == Ordering::Equal;
    }
    let (a, b) = (to_f64(a), to_f64(b));
    if a == b {
        return true;
    }
    let difference = (a - b).abs();
    if !a.is_normal() || !b.is_normal() {
        difference < f64::EPSILON * f64::MIN_POSITIVE
    } else {
        difference / (a.abs() + b.abs()) < f64::EPSILON
    }
}

/// As JMESPath's `<`.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    if is_integer(a) && is_integer(b) {
        compare_integers(a, b)
    } else {
        compare_floats(a, b)
    }
}

/// An order that sorting and the extremes of a list can rely on: exact where all are integers, by float otherwise.
/// ([`compare`] on a mixture isn't transitive: two integers may be equal to the same fraction.)
pub(crate) fn order<'t>(mut all: impl Iterator<Item = &'t str>) -> fn(&str, &str) -> Ordering {
    if all.all(is_integer) {
        compare_integers
    } else {
        compare_floats
    }
}

fn compare_floats(a: &str, b: &str) -> Ordering {
    to_f64(a).partial_cmp(&to_f64(b)).unwrap_or(Ordering::Equal)
}

fn compare_integers(a: &str, b: &str) -> Ordering {
    // JSON has no leading zeros, so the longer is the larger. `-0` is 0.
    let parts = |text: &str| match text.strip_prefix('-') {
        Some(digits) if digits != "0" => (true, digits.len()),
        Some(_) => (false, 1),
        None => (false, text.len()),
    };
    fn digits(text: &str) -> &str {
        text.trim_start_matches('-')
    }
    match (parts(a), parts(b)) {
        ((true, _), (false, _)) => Ordering::Less,
        ((false, _), (true, _)) => Ordering::Greater,
        ((negative, a_length), (_, b_length)) => {
            let magnitude = a_length
                .cmp(&b_length)
                .then_with(|| digits(a).cmp(digits(b)));
            if negative {
                magnitude.reverse()
            } else {
                magnitude
            }
        }
    }
}

/// A result as JSON text: `3.0`, `0.1`, `1e300`. `None` if it isn't finite, for which JSON has no number.
pub(crate) fn from_f64(value: f64) -> Option<String> {
    value.is_finite().then(|| format!("{value:?}"))
}

pub(crate) fn abs<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_start_matches('-')),
        Cow::Owned(text) => Cow::Owned(text.trim_start_matches('-').to_owned()),
    }
}

/// `ceil` or `floor`. Integers, and fractions too large to have a fractional part, are returned as they came.
pub(crate) fn round<'a>(text: &Cow<'a, str>, round: fn(f64) -> f64) -> Cow<'a, str> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = to_f64(text);
    if is_integer(text) || value.abs() >= EXACT {
        return text.clone();
    }
    // Below 2^53 the cast is exact.
    Cow::Owned((round(value) as i64).to_string())
}

/// The sum, as an integer where all are integers, else as a float. `None` if it is beyond a float's range.
pub(crate) fn sum<'t>(all: impl Iterator<Item = &'t str> + Clone) -> Option<String> {
    let exact = |sum: i128, text: &str| sum.checked_add(text.parse().ok()?);
    match all.clone().try_fold(0, exact) {
        Some(sum) => Some(sum.to_string()),
        None => from_f64(all.map(to_f64).sum()),
    }
}

/// The mean, as a float. `None` for an empty list and beyond a float's range.
pub(crate) fn mean<'t>(all: impl ExactSizeIterator<Item = &'t str>) -> Option<String> {
    let count = all.len();
    from_f64(all.map(to_f64).sum::<f64>() / count as f64)
}
