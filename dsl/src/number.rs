//! Arithmetic on numbers that are kept as their JSON text.
//!
//! Integers (no point, no exponent) are compared exactly, whatever their length. Otherwise both sides are taken as 64-bit
//! floats, as the reference does; a number beyond their range counts as infinite.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter;

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

/// The digits that `ceil` and `floor` write at most of a number with an exponent, so that ten characters don't become a million.
const MAX_WRITTEN_OUT: usize = 40;

/// The least integer that is not less. A number with an exponent stays as it came where the integer would be longer than
/// [`MAX_WRITTEN_OUT`].
pub(crate) fn ceil<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    rounded(text, |negative| !negative)
}

/// The greatest integer that is not greater, as [`ceil`].
pub(crate) fn floor<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    rounded(text, |negative| negative)
}

fn rounded<'a>(text: &Cow<'a, str>, away_from_zero: fn(bool) -> bool) -> Cow<'a, str> {
    if is_integer(text) {
        return text.clone();
    }
    let most = match text.contains(['e', 'E']) {
        true => MAX_WRITTEN_OUT,
        false => text.len(),
    };
    let Some(Whole {
        negative,
        mut digits,
        is_cut,
    }) = whole(text, 0, most)
    else {
        return text.clone();
    };
    if is_cut && away_from_zero(negative) {
        add_one(&mut digits);
    }
    if digits.is_empty() {
        return Cow::Borrowed("0");
    }
    if negative {
        digits.insert(0, '-');
    }
    Cow::Owned(digits)
}

fn add_one(digits: &mut String) {
    let nines = digits.len() - digits.trim_end_matches('9').len();
    digits.truncate(digits.len() - nines);
    let last = digits.pop().and_then(|digit| digit.to_digit(10));
    // At most 9: another digit than 9, or none.
    digits.push_str(&(last.unwrap_or(0) + 1).to_string());
    digits.extend(iter::repeat_n('0', nines));
}

/// A number without its fraction.
pub(crate) struct Whole {
    pub(crate) negative: bool,
    /// Without leading zeros; empty for zero.
    pub(crate) digits: String,
    /// Whether the fraction was not zero.
    pub(crate) is_cut: bool,
}

/// The number times 10^`shift`, exactly, without its fraction: the point is moved in the text. `None` where it has more than
/// `most` digits.
pub(crate) fn whole(text: &str, shift: i64, most: usize) -> Option<Whole> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        // What does not fit is beyond all that matters here.
        Some((mantissa, exponent)) => (
            mantissa,
            exponent.parse().unwrap_or(match exponent.starts_with('-') {
                true => i64::MIN,
                false => i64::MAX,
            }),
        ),
        None => (text, 0),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [before, after].concat();
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(Whole {
            negative,
            digits: String::new(),
            is_cut: false,
        });
    }
    // How many of the significant digits stand before the point, zeros that are not written counted.
    let leading = (all.len() - significant.len()) as i64;
    let point = exponent
        .saturating_add(shift)
        .saturating_add(before.len() as i64 - leading)
        .max(0) as usize;
    if point > most {
        return None;
    }
    let (kept, cut) = significant.split_at(point.min(significant.len()));
    // Not by a width of `format!`, which panics where it is more than 65,535.
    let mut digits = kept.to_owned();
    digits.extend(iter::repeat_n('0', point - kept.len()));
    Some(Whole {
        negative,
        digits,
        is_cut: cut.bytes().any(|digit| digit != b'0'),
    })
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

#[cfg(test)]
mod tests;
