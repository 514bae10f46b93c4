//! The softmax of FlashAttention, computed tile by tile, with maxima only where they are needed.
//!
//! A row's exponents are taken relative to its *anchor*. Any anchor gives the same quotient
//! `sum(p v) / sum(p)`, as long as no `p` leaves the range of its type; floating point keeps the
//! same relative precision all the way. While a row is young, and in tiles whose elements a mask
//! may touch, it is taken the classical way (Dao et al. 2022, section 3.1; FlashAttention-2,
//! section 3.1.1): the anchor follows the row's maximum, and what was accumulated is rescaled. Once
//! its row has settled ([`OnlineSoftmax::is_settled`]) the anchor stays, which needs no maximum, no
//! shuffle, and nothing rescaled. Kernels of `SoftmaxKind::Maxima` do all in the classical way.
//!
//! Two things guard that, both after the exponentials, by their sums:
//! * If a tile weighs more than all before it in some row, or could leave the range of `f16`, the
//!   anchors move to the maxima after all. So the largest probabilities of a peaked row are powers
//!   of two, which have no rounding error, as in the classical way. Without that, rows with one
//!   dominant key have half as much error again.
//! * A score that lies `2^127` above its row's anchor inside one tile gives infinity, which the
//!   row's sum shows; then the block computes its jobs again, all tiles the classical way.
//!
//! That a reference other than the maximum is as exact, and that overflow can be noticed and
//! mended afterwards, is from FlashDecoding++ (Hong et al. 2023, section 3), which takes one fixed
//! number for all rows.

use fulgurite_gpu::{
    element::Element,
    frag::{self, Accum},
    math, warp,
};

/// Largest sum of a thread's part of a tile, as a power of two over one key at the anchor, with the
/// anchor unmoved: no probability is then above it, and `f16` ends at 2^16.
const GROWTH: f32 = 15.0;

/// State of the two rows that a thread holds.
#[derive(Clone, Copy)]
pub struct OnlineSoftmax {
    /// Softmax scale × log₂ e.
    scale_log2: f32,
    /// Largest raw score of the tiles taken the classical way; `-inf` before the first key.
    row_max: [f32; 2],
    /// What is added to the scaled scores before the exponential: less the anchor.
    shift: [f32; 2],
    /// This thread's part of the sum of the exponentials.
    row_sum: [f32; 2],
}

impl OnlineSoftmax {
    /// Before the first key.
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        let row_max = [f32::NEG_INFINITY; 2];
        OnlineSoftmax { scale_log2, row_max, shift: [0.0; 2], row_sum: [0.0; 2] }
    }

    /// Moves the anchors to the maxima that include this tile of scores, and returns the factors by
    /// which earlier output shrinks.
    ///
    /// A row may have no key yet: its maximum stays `-inf`, and 0 takes its place in the exponents,
    /// so that masked scores give 0 and not NaN.
    #[inline(always)]
    #[track_caller]
    pub fn follow_max<T: Element, const N: u32>(&mut self, scores: &Accum<N>) -> [f32; 2] {
        let row_max = scores.row_max(self.row_max);
        let mut rescale = [0.0; 2];
        let mut half = 0;
        while half < 2 {
            let no_key = row_max[half] == f32::NEG_INFINITY;
            let base = if no_key { 0.0 } else { row_max[half] };
            // Exactly 1 where the maximum has not grown.
            rescale[half] = math::exp2((self.row_max[half] - base) * self.scale_log2);
            self.row_sum[half] *= rescale[half];
            self.shift[half] = math::fma(-base, self.scale_log2, -T::HEADROOM);
            half += 1;
        }
        self.row_max = row_max;
        rescale
    }

    /// Turns a tile of scores into probabilities, and returns this thread's part of their sums.
    #[inline(always)]
    pub fn exponentiate<const N: u32>(&self, scores: &mut Accum<N>) -> [f32; 2] {
        scores.exp2_rows(self.scale_log2, self.shift)
    }

    /// Takes the sums of a tile into those of the rows.
    #[inline(always)]
    pub fn add(&mut self, sum: [f32; 2]) {
        self.row_sum = [self.row_sum[0] + sum[0], self.row_sum[1] + sum[1]];
    }

    /// Whether this thread's part of both rows weighs as much as a key at the anchor: if all four
    /// threads of a row say so, few later keys outweigh it, and one that is not above the anchor
    /// has at most a fifth of the row.
    #[inline(always)]
    pub fn is_settled<T: Element>(&self) -> bool {
        let one_key = const { power_of_two(-T::HEADROOM) };
        self.row_sum[0] >= one_key && self.row_sum[1] >= one_key
    }

    /// Whether anchors must move in some row of the warp, by the sums of a tile that is not added
    /// yet.
    ///
    /// # Safety
    /// All threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn outgrown<T: Element>(&self, sum: [f32; 2]) -> bool {
        let most = power_of_two(fulgurite_gpu::planted::constant("GROWTH", GROWTH) - T::HEADROOM);
        let above = |half: usize| sum[half] > self.row_sum[half].min(most);
        // SAFETY: the caller's contract.
        unsafe { warp::any(above(0) || above(1)) }
    }

    /// Moves the anchors to the largest probabilities of a tile, where these have grown past one at
    /// the anchor, and returns the factors by which the tile and all earlier results shrink.
    #[inline(always)]
    #[track_caller]
    pub fn move_anchor<T: Element, const N: u32>(&mut self, probs: &Accum<N>) -> [f32; 2] {
        let top = probs.row_max([const { power_of_two(-T::HEADROOM) }; 2]);
        let mut rescale = [0.0; 2];
        let mut half = 0;
        while half < 2 {
            let growth = math::log2(top[half]) + T::HEADROOM;
            self.shift[half] -= growth;
            rescale[half] = math::exp2(-growth);
            self.row_sum[half] *= rescale[half];
            half += 1;
        }
        rescale
    }

    /// Closes the rows.
    #[inline(always)]
    #[track_caller]
    pub fn finish<T: Element>(&self) -> Finished {
        let row_sum = frag::sum_rows(self.row_sum);
        let mut finished = Finished { factor: [0.0; 2], lse: [0.0; 2], in_range: [true; 2] };
        let mut half = 0;
        while half < 2 {
            let sum = row_sum[half];
            finished.factor[half] = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            finished.lse[half] = (math::log2(sum) - self.shift[half]) * core::f32::consts::LN_2;
            // A key at the anchor has added 2^-HEADROOM; NaN is not in range either.
            let least = const { power_of_two(-1.0 - T::HEADROOM) };
            finished.in_range[half] = sum >= least && sum < f32::INFINITY;
            half += 1;
        }
        finished
    }
}

/// What is left to do with two rows.
#[derive(Clone, Copy)]
pub struct Finished {
    /// What normalises the output: 0 for a row without keys.
    pub factor: [f32; 2],
    /// Natural logarithm of the sum of exponentials: `-inf` for a row without keys.
    pub lse: [f32; 2],
    /// Whether the sum shows that no probability has left the range of its type; false for a row
    /// without keys.
    pub in_range: [bool; 2],
}

/// `2^exponent`, for whole numbers in the range of normal floats.
const fn power_of_two(exponent: f32) -> f32 {
    f32::from_bits(((exponent as i32 + 127) as u32) << 23)
}
