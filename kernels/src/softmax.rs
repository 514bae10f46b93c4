//! The online softmax of FlashAttention (Dao et al. 2022, section 3.1; FlashAttention-2, section
//! 3.1.1): row maxima and sums are carried along, and what was accumulated is rescaled when a
//! maximum grows.

use fulgurite_gpu::{
    frag::{self, Accum},
    math,
};

/// State of the two rows that a thread holds.
#[derive(Clone, Copy)]
pub struct OnlineSoftmax {
    /// Softmax scale × log₂ e.
    scale_log2: f32,
    /// Largest raw score so far; `-inf` before the first key.
    row_max: [f32; 2],
    /// This thread's part of the sum of `2^((score - row_max) * scale_log2)`.
    row_sum: [f32; 2],
}

impl OnlineSoftmax {
    /// Before the first key.
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        OnlineSoftmax { scale_log2, row_max: [f32::NEG_INFINITY; 2], row_sum: [0.0; 2] }
    }

    /// Turns one tile of scores into probabilities relative to the new maximum and returns the
    /// factor by which each row's earlier results shrink.
    ///
    /// With `EDGE` a row may have no key yet: its maximum stays `-inf`, and 0 takes its place in
    /// the exponents, so that masked scores give 0 and not NaN.
    #[inline(always)]
    pub fn step<const EDGE: bool, const N: u32>(&mut self, scores: &mut Accum<N>) -> [f32; 2] {
        let row_max = scores.row_max(self.row_max);
        let mut shift = [0.0; 2];
        let mut rescale = [0.0; 2];
        let mut half = 0;
        while half < 2 {
            let no_key = EDGE && row_max[half] == f32::NEG_INFINITY;
            let base = if no_key { 0.0 } else { row_max[half] };
            shift[half] = -(base * self.scale_log2);
            rescale[half] = math::exp2(math::fma(self.row_max[half], self.scale_log2, shift[half]));
            half += 1;
        }
        let sum = scores.exp2_rows(self.scale_log2, shift);
        self.row_sum = [
            math::fma(self.row_sum[0], rescale[0], sum[0]),
            math::fma(self.row_sum[1], rescale[1], sum[1]),
        ];
        self.row_max = row_max;
        rescale
    }

    /// Closes the rows: the factor that normalises the output (0 for a row without keys) and the
    /// natural logarithm of the sum of exponentials (`-inf` for a row without keys).
    #[inline(always)]
    pub fn finish(&self) -> ([f32; 2], [f32; 2]) {
        let row_sum = frag::sum_rows(self.row_sum);
        let mut factor = [0.0; 2];
        let mut lse = [0.0; 2];
        let mut half = 0;
        while half < 2 {
            factor[half] = if row_sum[half] == 0.0 { 0.0 } else { 1.0 / row_sum[half] };
            let log2_sum =
                math::fma(self.row_max[half], self.scale_log2, math::log2(row_sum[half]));
            lse[half] = log2_sum * core::f32::consts::LN_2;
            half += 1;
        }
        (factor, lse)
    }
}
