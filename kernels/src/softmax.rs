//! The online softmax of FlashAttention (Dao et al. 2022, section 3.1; FlashAttention-2, section
//! 3.1.1): row maxima and sums are carried along, and what was accumulated is rescaled when a
//! maximum grows.

use fulgurite_gpu::{
    frag::{self, Accum},
    math, warp,
};

/// What the two rows' new maxima ask for.
#[derive(Clone, Copy)]
pub struct Growth {
    /// Added to the scaled scores before the exponential.
    shift: [f32; 2],
    /// The factor by which earlier results shrink.
    pub rescale: [f32; 2],
}

impl Growth {
    /// Whether any factor of the warp differs from 1. Those of rows that have not grown are 1 up to
    /// the rounding of a fused multiply-add, so that this is seldom false in every row.
    ///
    /// # Safety
    /// All threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn in_warp(&self) -> bool {
        // SAFETY: the caller's contract.
        unsafe { warp::any(self.rescale[0] != 1.0 || self.rescale[1] != 1.0) }
    }
}

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

    /// Takes one tile of scores into the maxima.
    ///
    /// With `EDGE` a row may have no key yet: its maximum stays `-inf`, and 0 takes its place in
    /// the exponents, so that masked scores give 0 and not NaN.
    #[inline(always)]
    pub fn grow<const EDGE: bool, const N: u32>(&mut self, scores: &Accum<N>) -> Growth {
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
        self.row_max = row_max;
        Growth { shift, rescale }
    }

    /// Turns the scores that the maxima have grown by into probabilities, and sums them.
    ///
    /// `RESCALE_FIRST` says when the factors of the earlier results are computed: before the
    /// exponentials, because the sums start from the rescaled ones, or after them. ptxas keeps that
    /// order, and rescales the output among the exponentials only if the factors come first.
    #[inline(always)]
    pub fn add<const RESCALE_FIRST: bool, const N: u32>(
        &mut self,
        scores: &mut Accum<N>,
        growth: &Growth,
    ) {
        let [low, high] = growth.rescale;
        if RESCALE_FIRST {
            let start = [self.row_sum[0] * low, self.row_sum[1] * high];
            self.row_sum = scores.exp2_rows(self.scale_log2, growth.shift, start);
        } else {
            let sum = scores.exp2_rows(self.scale_log2, growth.shift, [0.0; 2]);
            self.row_sum =
                [math::fma(self.row_sum[0], low, sum[0]), math::fma(self.row_sum[1], high, sum[1])];
        }
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
