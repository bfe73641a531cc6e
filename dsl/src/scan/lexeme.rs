//! The smallest pieces of JSON: strings, numbers, words and white space, each found from its first byte to its last.
//!
//! Each function says where the piece ends, or that it isn't valid; [`json`](crate::json) then says why. Strings and digits
//! are taken a block at a time, with no branch for a single byte.

use super::block::{self, WIDTH};

/// A valid string, seen from after its opening quote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted {
    /// After the closing quote.
    pub(super) end: usize,
    pub(super) escaped: bool,
}

/// Reads pieces at places of a payload. Places beyond its end hold nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline(always)]
    pub(super) fn get(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    #[inline(always)]
    pub(super) fn array<const N: usize>(self, at: usize) -> Option<&'a [u8; N]> {
        self.0.get(at..)?.first_chunk()
    }

    /// The first place from `at` without white space.
    #[inline(always)]
    pub(super) fn space(self, at: usize) -> usize {
        match self.get(at) {
            Some(byte) if byte <= b' ' => self.spaces(at),
            _ => at,
        }
    }

    /// One blank is what most writers put between pieces; more of them are indentation.
    #[inline]
    fn spaces(self, mut at: usize) -> usize {
        while matches!(self.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            at += 1;
        }
        at
    }

    /// From after the opening quote.
    #[inline(always)]
    pub(super) fn string(self, at: usize) -> Option<Quoted> {
        self.string_to(self.end_before(from_special(self.0.get(at..)?)))
    }

    /// Where a rest of the payload begins.
    #[inline(always)]
    fn end_before(self, rest: &[u8]) -> usize {
        self.0.len() - rest.len()
    }

    /// From after the opening quote; `end` is the place of the first special byte from there.
    #[inline(always)]
    pub(super) fn string_to(self, end: usize) -> Option<Quoted> {
        match self.get(end)? {
            b'"' => Some(Quoted {
                end: end + 1,
                escaped: false,
            }),
            b'\\' => self.escaped_string(end),
            _ => None,
        }
    }

    /// From the first backslash.
    #[inline(never)]
    fn escaped_string(self, mut at: usize) -> Option<Quoted> {
        loop {
            at = match self.get(at)? {
                b'"' => {
                    return Some(Quoted {
                        end: at + 1,
                        escaped: true,
                    });
                }
                b'\\' => self.escape(at + 1)?,
                0..=0x1f => return None,
                _ => self.end_before(from_special(self.0.get(at..)?)),
            };
        }
    }

    /// From after the backslash. Half a surrogate pair is refused.
    fn escape(self, at: usize) -> Option<usize> {
        match self.get(at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
            b'u' => match self.code_unit(at + 1)? {
                0xd800..=0xdbff => match (self.array(at + 5)?, self.code_unit(at + 7)?) {
                    (b"\\u", 0xdc00..=0xdfff) => Some(at + 11),
                    _ => None,
                },
                0xdc00..=0xdfff => None,
                _ => Some(at + 5),
            },
            _ => None,
        }
    }

    /// Four hexadecimal digits.
    fn code_unit(self, at: usize) -> Option<u32> {
        let digits: &[u8; 4] = self.array(at)?;
        digits.iter().try_fold(0, |unit, digit| {
            Some(unit * 16 + char::from(*digit).to_digit(16)?)
        })
    }

    /// A string, number or word, from its first byte.
    #[inline(always)]
    pub(super) fn scalar(self, at: usize) -> Option<usize> {
        after_scalar(self.0.get(at..)?).map(|rest| self.end_before(rest))
    }

    /// From the sign or the first digit.
    #[inline(always)]
    pub(super) fn number(self, at: usize) -> Option<usize> {
        after_number(self.0.get(at..)?).map(|rest| self.end_before(rest))
    }

    /// Any number, from its first digit.
    fn any_number(self, first: usize) -> Option<usize> {
        let mut at = match self.get(first)? {
            b'0' => first + 1,
            _ => self.digits(first)?,
        };
        if self.get(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.get(at) {
            let signed = matches!(self.get(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        // A digit after a leading zero is found to be no end of a value.
        Some(at)
    }

    /// After the digits from there; at least one must be.
    fn digits(self, at: usize) -> Option<usize> {
        let mut rest = self.0.get(at..)?;
        while let Some((bytes, after)) = rest.split_first_chunk::<WIDTH>() {
            match block::no_digits(bytes).trailing_zeros() as usize {
                WIDTH => rest = after,
                digits => return self.some_digits(at, &rest[digits..]),
            }
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.some_digits(at, &rest[digits..])
    }

    fn some_digits(self, at: usize, after: &[u8]) -> Option<usize> {
        let end = self.end_before(after);
        (end > at).then_some(end)
    }
}

// What follows is the same on slices: what is left of the payload, before a piece and after it. One bound less is checked for each step.

/// After a string, number or word.
#[inline(always)]
pub(super) fn after_scalar(rest: &[u8]) -> Option<&[u8]> {
    match rest.split_first()? {
        (b'"', inside) => after_string(inside),
        (b'-' | b'0'..=b'9', _) => after_number(rest),
        _ => after_word(rest),
    }
}

/// From after the opening quote.
#[inline(always)]
fn after_string(rest: &[u8]) -> Option<&[u8]> {
    match from_special(rest).split_first()? {
        (b'"', rest) => Some(rest),
        _ => after_escaped_string(rest),
    }
}

#[inline(never)]
fn after_escaped_string(rest: &[u8]) -> Option<&[u8]> {
    rest.get(Bytes(rest).escaped_string(0)?.end..)
}

/// From the first special byte on.
#[inline(always)]
fn from_special(mut rest: &[u8]) -> &[u8] {
    while let Some((bytes, after)) = rest.split_first_chunk::<WIDTH>() {
        match block::plain(bytes) {
            Some(plain) => return rest.get(plain..).unwrap_or_default(),
            // A constant step: the next block need not wait for what was found in this one.
            None => rest = after,
        }
    }
    from_special_tail(rest)
}

/// Near the end of the payload, where there is no whole block.
#[inline(never)]
fn from_special_tail(rest: &[u8]) -> &[u8] {
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let plain = rest.iter().position(special).unwrap_or(rest.len());
    &rest[plain..]
}

/// From the sign or the first digit.
#[inline(always)]
fn after_number(rest: &[u8]) -> Option<&[u8]> {
    let digits = rest.strip_prefix(b"-").unwrap_or(rest);
    let Some(bytes) = digits.first_chunk::<WIDTH>() else {
        return after_any_number(digits);
    };
    let no_digits = block::no_digits(bytes);
    let whole = no_digits.trailing_zeros() as usize;
    let end = match bytes.get(whole) {
        Some(b'.') => whole + 1 + (no_digits >> (whole + 1)).trailing_zeros() as usize,
        _ => whole,
    };
    let is_plain = match bytes.get(end) {
        // It does not end in the block, or goes on with an exponent.
        None | Some(b'e' | b'E') => false,
        // Digits stand before a point and after it, and a zero before no other digit.
        Some(_) => whole > 0 && end != whole + 1 && (whole == 1 || bytes[0] != b'0'),
    };
    match is_plain {
        true => digits.get(end..),
        false => after_any_number(digits),
    }
}

#[inline(never)]
fn after_any_number(digits: &[u8]) -> Option<&[u8]> {
    digits.get(Bytes(digits).any_number(0)?..)
}

/// `true`, `false` or `null`.
#[inline(always)]
fn after_word(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b't', b'r', b'u', b'e', rest @ ..] | [b'n', b'u', b'l', b'l', rest @ ..] => Some(rest),
        [b'f', b'a', b'l', b's', b'e', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of a text that begins like a number: its longest beginning that is one, if what follows can follow a value at all.
        #[test]
        fn a_number_ends_where_it_ends(
            number in "-?[0-9]{0,18}(\\.[0-9]{0,17})?([eE][+-]?[0-9]{0,3})?",
            after in prop::sample::select(vec!["", ",", "}", " ", ",\"x\":123456789012345"]),
        ) {
            let text = number.clone() + after;
            let valid = serde_json::from_str::<serde_json::Number>(&number).is_ok();
            let end = Bytes(text.as_bytes()).number(0);
            prop_assert_eq!(valid, end == Some(number.len()), "{}: {:?}", text, end);
        }
    }
}
