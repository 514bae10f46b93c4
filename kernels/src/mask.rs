//! Masks: which KV tiles a query tile visits, and which elements of them count.

use core::ops::Range;
use fulgurite_spec::MaskKind;

/// The KV tiles of one query tile: `0..full` need no element tests, `full..end` do. In
/// `0..anchored` every row has seen a key before, when tiles are taken from the last to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// First tile that needs element tests.
    pub full: u32,
    /// First tile from which on some row may have no key yet.
    pub anchored: u32,
    /// End of the tiles to visit; at least 1, so that a query tile without keys has one tile, all
    /// of it masked.
    pub end: u32,
}

/// A mask whose rows keep a prefix of the keys.
pub trait Mask: Copy {
    /// The same mask as data.
    const KIND: MaskKind;

    /// Whether rows keep different numbers of keys, so that a query tile can have more than one KV
    /// tile that needs element tests, and some of its rows may need fewer tiles than others. Where
    /// not, the kernel has no code for either.
    const EDGE_RUN: bool;

    /// The mask for these lengths (`kv_len >= 1`, both below 2³¹).
    fn new(q_len: u32, kv_len: u32) -> Self;

    /// Keys that query row `row` keeps: `0..keep_end(row)`. Never decreases from row to row; rows
    /// at or past `q_len` are padding and may give any value up to `kv_len`.
    fn keep_end(self, row: u32) -> u32;

    /// The KV tiles, of `kv_tile_rows` keys each, for the query rows `q_rows` (not empty).
    #[inline(always)]
    fn segments(self, q_rows: Range<u32>, kv_tile_rows: u32) -> Segments {
        let least = self.keep_end(q_rows.start);
        let most = self.keep_end(q_rows.end - 1);
        Segments {
            full: least / kv_tile_rows,
            anchored: least.saturating_sub(1) / kv_tile_rows,
            end: most.div_ceil(kv_tile_rows).max(1),
        }
    }
}

/// Every key.
#[derive(Clone, Copy)]
pub struct Full {
    kv_len: u32,
}

impl Mask for Full {
    const KIND: MaskKind = MaskKind::Full;
    const EDGE_RUN: bool = false;

    #[inline(always)]
    fn new(_q_len: u32, kv_len: u32) -> Self {
        Full { kv_len }
    }

    #[inline(always)]
    fn keep_end(self, _row: u32) -> u32 {
        self.kv_len
    }
}

/// Keys up to the row's own position, the last query seeing the last key (bottom-right aligned).
#[derive(Clone, Copy)]
pub struct Causal {
    kv_len: u32,
    /// `kv_len - q_len`: how far the diagonal is shifted to the right.
    shift: i32,
}

impl Mask for Causal {
    const KIND: MaskKind = MaskKind::Causal;
    const EDGE_RUN: bool = true;

    #[inline(always)]
    fn new(q_len: u32, kv_len: u32) -> Self {
        Causal { kv_len, shift: kv_len as i32 - q_len as i32 }
    }

    #[inline(always)]
    fn keep_end(self, row: u32) -> u32 {
        // Both lengths are below 2³¹ by more than a tile, so that only padding rows can wrap.
        (row as i32 + 1).wrapping_add(self.shift).clamp(0, self.kv_len as i32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles outside the segments keep nothing, tiles in `0..full` keep everything.
    fn check<M: Mask>(keep: impl Fn(u32, u32, u32, u32) -> bool) {
        for q_len in 1..20 {
            for kv_len in 1..20 {
                let mask = M::new(q_len, kv_len);
                for (q_tile, kv_tile) in [(1, 1), (4, 3), (3, 4), (8, 5)] {
                    for start in (0..q_len).step_by(q_tile) {
                        let rows = start..(start + q_tile as u32).min(q_len);
                        let segments = mask.segments(rows.clone(), kv_tile);
                        assert!(segments.full <= segments.end && segments.end >= 1);
                        assert!(M::EDGE_RUN || segments.end - segments.full <= 1);
                        for row in rows {
                            let before = segments.anchored * kv_tile;
                            assert!(before == 0 || mask.keep_end(row) > before);
                            for col in 0..kv_len.next_multiple_of(kv_tile) {
                                let kept = col < mask.keep_end(row);
                                assert_eq!(kept, col < kv_len && keep(row, col, q_len, kv_len));
                                assert!(kept || col / kv_tile >= segments.full);
                                assert!(!kept || col / kv_tile < segments.end);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn full_keeps_every_key() {
        check::<Full>(|_, _, _, _| true);
    }

    #[test]
    fn causal_is_aligned_to_the_bottom_right() {
        check::<Causal>(|row, col, q_len, kv_len| col + q_len <= row + kv_len);
    }

    #[test]
    fn causal_survives_the_longest_lengths() {
        let longest = i32::MAX as u32 - 256;
        let mask = Causal::new(1, longest);
        assert_eq!(mask.keep_end(0), longest);
        assert_eq!(mask.keep_end(191), longest);
        assert_eq!(Causal::new(longest, 1).keep_end(longest - 1), 1);
        assert_eq!(Causal::new(longest, 1).keep_end(longest - 2), 0);
    }
}
