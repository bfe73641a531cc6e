//! Looks at sixteen bytes at once: by SSE2 on x86-64 and NEON on aarch64, which each such processor has.

use wide::{CmpEq, CmpGt, CmpLt, i8x16};

/// Bytes looked at by one call.
pub(super) const WIDTH: usize = 16;

/// How many bytes before the first that is special, if one is.
#[inline(always)]
pub(super) fn plain(bytes: &[u8; WIDTH]) -> Option<usize> {
    let special = special(bytes).move_mask();
    (special != 0).then(|| special.trailing_zeros() as usize)
}

/// Where all special bytes of a payload are, a bit for each byte. A string then ends at the next bit, which is known
/// sooner than by looking at the string.
pub(super) fn mark_special(payload: &[u8], marks: &mut Vec<u64>) {
    const BLOCKS: usize = 64 / WIDTH;
    let mark = |bytes: &[u8; 64]| {
        let (blocks, _) = bytes.as_chunks::<WIDTH>();
        (0..BLOCKS).fold(0, |marks, n| {
            marks | (special(&blocks[n]).move_mask() as u64) << (n * WIDTH)
        })
    };
    let (chunks, rest) = payload.as_chunks::<64>();
    marks.clear();
    marks.extend(chunks.iter().map(mark));
    if !rest.is_empty() {
        let mut last = [b' '; 64];
        last[..rest.len()].copy_from_slice(rest);
        marks.push(mark(&last));
    }
}

/// The high bit of each byte that is a quote, a backslash or a control character.
#[inline(always)]
fn special(bytes: &[u8; WIDTH]) -> i8x16 {
    // Signed, a byte with its high bit flipped is in the order of the unsigned ones.
    const FLIP: u8 = 0x80;
    let bytes = load(bytes);
    let quote = bytes.cmp_eq(all(b'"'));
    let backslash = bytes.cmp_eq(all(b'\\'));
    let control = (bytes ^ all(FLIP)).cmp_lt(all(0x20 ^ FLIP));
    quote | backslash | control
}

/// A bit for each byte that is no digit, and beyond the last byte.
#[inline(always)]
pub(super) fn no_digits(bytes: &[u8; WIDTH]) -> u32 {
    // What is less than '0' wraps around to a negative number.
    let values = load(bytes) - all(b'0');
    (values.cmp_gt(all(9)) | values).move_mask() as u32 | u32::MAX << WIDTH
}

/// A bit for each byte that is the same in both.
#[inline(always)]
pub(super) fn same(one: &[u8; WIDTH], other: &[u8; WIDTH]) -> u32 {
    load(one).cmp_eq(load(other)).move_mask() as u32
}

#[inline(always)]
fn load(bytes: &[u8; WIDTH]) -> i8x16 {
    i8x16::new(bytes.map(|byte| byte as i8))
}

#[inline(always)]
fn all(byte: u8) -> i8x16 {
    i8x16::splat(byte as i8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn is_plain(byte: &u8) -> bool {
        !matches!(byte, b'"' | b'\\' | 0..=0x1f)
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            any::<u8>(),
            b'0'..=b'9',
            prop::sample::select(b"\"\\/:!#[]\x1f\x20\x7f\x80\xff".to_vec())
        ]
    }

    #[test]
    fn each_byte_is_told_apart() {
        for byte in 0..=u8::MAX {
            let special = (!is_plain(&byte)).then_some(0);
            assert_eq!(super::plain(&[byte; super::WIDTH]), special, "{byte}");
            let beyond = u32::MAX << super::WIDTH;
            let none = if byte.is_ascii_digit() {
                beyond
            } else {
                u32::MAX
            };
            assert_eq!(super::no_digits(&[byte; super::WIDTH]), none, "{byte}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_block_says_what_a_loop_says(bytes in prop::array::uniform16(byte())) {
            prop_assert_eq!(super::plain(&bytes), bytes.iter().position(|byte| !is_plain(byte)));
            let no_digits = super::no_digits(&bytes);
            for at in 0..u32::BITS as usize {
                let is_digit = bytes.get(at).is_some_and(u8::is_ascii_digit);
                prop_assert_eq!(no_digits >> at & 1 == 0, is_digit);
            }
        }

        #[test]
        fn all_special_bytes_are_marked(bytes in prop::collection::vec(byte(), 0..200)) {
            let mut marks = vec![7];
            super::mark_special(&bytes, &mut marks);
            prop_assert_eq!(marks.len(), bytes.len().div_ceil(64));
            for at in 0..marks.len() * 64 {
                let expected = bytes.get(at).is_some_and(|byte| !is_plain(byte));
                prop_assert_eq!(marks[at / 64] >> (at % 64) & 1 == 1, expected);
            }
        }
    }
}
