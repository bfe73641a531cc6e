//! The memory of compressors, which the encoder does not count.
//!
//! Each column of a row group in progress has one of its own. It takes its memory with its first page, and the larger its pages are and the
//! higher the level, the more: tens of kilobytes or many megabytes.

/// Beside what follows from level and page.
const BASE: usize = 48 << 10;

/// The largest block that zstd compresses at once.
const BLOCK: usize = 128 << 10;

/// What zstd takes for pages of so many bytes, or a little less: at most twice to four times as much.
///
/// By the tables of zstd 1.5 (`lib/compress/clevels.h`, that for large inputs) and the way it makes them smaller for an input whose size it
/// knows (`ZSTD_adjustCParams`).
pub(super) fn zstd_bytes(level: i32, page: usize) -> usize {
    // Logarithms of the entries of the chain table and of the hash table.
    let (chain, hash) = match level {
        ..=1 => (12, 15),
        2 => (14, 16),
        3 => (16, 17),
        4 => (18, 18),
        5 | 6 => (18, 19),
        7 | 8 => (19, 20),
        9 => (20, 21),
        // Larger than any page.
        _ => (27, 25),
    };
    let window = page.next_power_of_two().max(1 << 10);
    let entries = |log: u32| (1 << log).min(2 * window);
    // Of 4 bytes; the row-based matchers have a byte more for each of the hashes.
    let tables = 4 * entries(chain) + 5 * entries(hash);
    // The literals and up to a third as many sequences.
    let block = window.min(BLOCK);
    let sequences = block + 11 * (block / 3);
    // The optimal parsers, which small pages get earlier than large ones.
    let optimal = match level {
        ..=10 => 0,
        _ => (160 << 10) + (4 * window).min(512 << 10),
    };
    BASE + tables + sequences + optimal
}

#[cfg(test)]
mod tests {
    use zstd_safe::{CCtx, CParameter, compress_bound};

    use super::*;

    /// Text with some repetitions.
    fn page(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let words = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{} ", state >> 52)
        });
        words.flat_map(String::into_bytes).take(bytes).collect()
    }

    #[test]
    fn the_estimate_is_above_what_zstd_takes_and_not_far() {
        for level in 1..=22 {
            for bytes in [1_000, 16_000, 130_000, 1 << 20] {
                let page = page(bytes);
                let mut compressor = CCtx::create();
                let level_is = CParameter::CompressionLevel(level);
                compressor.set_parameter(level_is).unwrap();
                let mut out = Vec::with_capacity(compress_bound(bytes));
                compressor.compress2(&mut out, &page).unwrap();
                let (taken, estimate) = (compressor.sizeof(), zstd_bytes(level, bytes));
                assert!(
                    taken <= estimate && estimate <= 4 * taken,
                    "level {level}, {bytes} bytes: {taken} taken, {estimate} estimated"
                );
            }
        }
    }
}
