//! The softmax of FlashAttention, computed tile by tile, with maxima only where they are needed.
//!
//! A row's exponents are taken relative to its *anchor*. Any anchor gives the same quotient
//! `sum(p v) / sum(p)`, as long as no `p` leaves the range of its type; floating point keeps the
//! same relative precision all the way. While a row is young, and in tiles whose elements a mask
//! may touch, it is taken the classical way (Dao et al. 2022, section 3.1; FlashAttention-2,
//! section 3.1.1): the anchor follows the row's maximum, and what was accumulated is rescaled. Once
//! its row has settled ([`OnlineSoftmax::is_settled`]) the anchor stays, which needs no maximum, no
//! shuffle, and nothing rescaled. Kernels of `SoftmaxKind::Maxima` and `Apart` do all in the
//! classical way.
//!
//! Two things guard that, both after the exponentials, by their sums:
//! * If a tile weighs more than all before it in some row, or could leave the range of `f16`, the
//!   row's anchor moves to the maximum after all. So the largest probabilities of a peaked row are
//!   powers of two, which have no rounding error, as in the classical way. Without that, rows with
//!   one dominant key have half as much error again.
//! * A score that lies `2^127` above its row's anchor inside one tile gives infinity, which the
//!   row's sum shows; then the row is *lost*, and its job is computed again, all tiles the
//!   classical way.
//!
//! # Large scores
//! An exponent is `fma(s, c, shift)` with `shift = -(A c) - H` rounded once; `s` is a raw score,
//! `A` the anchor, `c` the scale and `H` the headroom. Where the shift is below [`FAR`], `2^13`,
//! its rounding is at most `2^-12` (half a unit in the last place below `2^13`), the same for all
//! keys of one anchor. So a key at the anchor weighs `2^-H (1 ± 1.7e-4)`, which rounds to `2^-H`
//! in bf16 and f16, and keys of two anchors differ by at most `2^-11 ln 2 = 3.4e-4` in weight, less
//! than f16's rounding. Beyond, that rounding would grow without end, and no float in the place of
//! the shift could mend it: floats near `2^28` are 32 apart. So a row whose shift is larger is
//! *far*, and needs exponents `(s - A) c - H`, the difference taken first
//! ([`OnlineSoftmax::take_apart`]). For `s` between `A / 2` and `2 A` that difference is exact
//! (Sterbenz's lemma); all other keys are more than `2^12` below the anchor, where the weight is 0
//! in float32. Every finite input and accepted scale is right so, as long as each `q · k` fits
//! float32.
//!
//! Kernels of `SoftmaxKind::Apart`, and every second pass, take all differences first. In the
//! others a far row is lost. That is asked where a row gets its first keys (the first tile, and
//! those that the mask may touch) and once at the end: a maximum only rises, and so does an anchor
//! that is kept, so that a row far in between was far at one of these ends.
//!
//! That a reference other than the maximum is as exact, and that overflow can be noticed and
//! mended afterwards, is from FlashDecoding++ (Hong et al. 2023, section 3), which takes one fixed
//! number for all rows.

use core::f32::consts::LN_2;

use fulgurite_gpu::{
    frag::{self, Accum},
    math,
    product::{Scores, Values},
    warp,
};

/// Tiles that follow the maxima at least, after the first and those that the mask may touch; behind
/// them few rows outgrow their anchors. Of 0, 1, 2, 3 and 5 this and 2 were the fastest on an H200,
/// and more tiles leave less error.
pub const SETTLING_TILES: u32 = 3;

/// Size of a shift from which on a row is far. A larger number would let a dominant key's
/// probability be no power of two.
const FAR: f32 = 8192.0;

/// Least power of two that a factor may be: below, it is flushed to 0.
const LEAST_FACTOR: f32 = -126.0;

/// State of the two rows that a thread holds.
#[derive(Clone, Copy)]
pub struct OnlineSoftmax {
    /// What raw scores of this tile are multiplied with to be exponents of two.
    factor: [f32; 2],
    /// What `row_max` is multiplied with for the same.
    unit: f32,
    /// Largest score of the tiles taken the classical way; `-inf` before the first key. Raw, or
    /// where tiles have factors of their own ([`set_factor`](Self::set_factor)) an exponent.
    row_max: [f32; 2],
    /// What is added to the scaled scores before the exponential: less the anchor.
    shift: [f32; 2],
    /// This thread's part of the sum of the exponentials.
    row_sum: [f32; 2],
    /// By how much all results have shrunk since the output was last parked.
    since_parked: [f32; 2],
}

impl OnlineSoftmax {
    /// Before the first key. `scale_log2`: softmax scale × log₂ e.
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        let row_max = [f32::NEG_INFINITY; 2];
        OnlineSoftmax {
            factor: [scale_log2; 2],
            unit: scale_log2,
            row_max,
            shift: [0.0; 2],
            row_sum: [0.0; 2],
            since_parked: [1.0; 2],
        }
    }

    /// Before the first key, where each tile has factors of its own.
    #[inline(always)]
    pub fn of_exponents() -> Self {
        OnlineSoftmax::new(1.0)
    }

    /// The factors of the next tile's rows.
    #[inline(always)]
    pub fn set_factor(&mut self, factor: [f32; 2]) {
        self.factor = factor;
    }

    /// Takes 1 for the factor of the rows that see no key of the tile: one that is NaN, because the
    /// tile has a bad key, is none of their business.
    #[inline(always)]
    pub fn drop_factors(&mut self, unseen: [bool; 2]) {
        let mut half = 0;
        while half < 2 {
            self.factor[half] = if unseen[half] { 1.0 } else { self.factor[half] };
            half += 1;
        }
    }

    /// Moves the anchors to the maxima that include this tile of scores, and returns the factors by
    /// which earlier output shrinks.
    #[inline(always)]
    #[track_caller]
    pub fn follow_max<Q: Scores, T: Values, const N: u32>(
        &mut self,
        scores: &Accum<N>,
    ) -> [f32; 2] {
        let before = self.row_max;
        if Q::OWN_FACTORS {
            let top = scores.row_max([f32::NEG_INFINITY; 2]);
            let exponent = |half: usize| before[half].max(top[half] * self.factor[half]);
            self.row_max = [exponent(0), exponent(1)];
        } else {
            self.row_max = scores.row_max(before);
        }
        let mut rescale = [0.0; 2];
        let mut half = 0;
        while half < 2 {
            // Exactly 1 where the maximum has not grown.
            rescale[half] = math::exp2((before[half] - self.base(half)) * self.unit);
            self.row_sum[half] *= rescale[half];
            self.since_parked[half] *= rescale[half];
            self.shift[half] = self.shift_to_max::<T>(half);
            half += 1;
        }
        rescale
    }

    /// Takes the scores relative to the maxima, which leaves the headroom to shift by.
    #[inline(always)]
    pub fn take_apart<Q: Scores, T: Values, const N: u32>(&mut self, scores: &mut Accum<N>) {
        if Q::OWN_FACTORS {
            // Rounded as the maxima are, so that their differences from themselves are 0.
            scores.scale_rows(self.factor);
            self.factor = [1.0; 2];
        }
        scores.add_rows([-self.base(0), -self.base(1)]);
        self.shift = [-T::HEADROOM; 2];
    }

    /// Loses the far rows: their sums are NaN from here on.
    #[inline(always)]
    pub fn lose_far(&mut self) {
        let mut half = 0;
        while half < 2 {
            let far = is_far(self.shift[half]);
            self.row_sum[half] = if far { f32::NAN } else { self.row_sum[half] };
            half += 1;
        }
    }

    /// Turns a tile of scores into probabilities, and returns this thread's part of their sums.
    #[inline(always)]
    pub fn exponentiate<const N: u32>(&self, scores: &mut Accum<N>) -> [f32; 2] {
        scores.exp2_rows(self.factor, self.shift)
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
    pub fn is_settled<T: Values>(&self) -> bool {
        let one_key = const { power_of_two(-T::HEADROOM) };
        self.row_sum[0] >= one_key && self.row_sum[1] >= one_key
    }

    /// Whether an anchor must move in some row of the warp, by the sums of a tile that is not added
    /// yet.
    ///
    /// # Safety
    /// All threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn outgrown<T: Values>(&self, sum: [f32; 2]) -> bool {
        let above = self.above::<T>(sum);
        // SAFETY: the caller's contract.
        unsafe { warp::any(above[0] || above[1]) }
    }

    /// Whether this thread's part of a tile outweighs its part of all before it, or could soon
    /// leave the range of its type.
    #[inline(always)]
    fn above<T: Values>(&self, sum: [f32; 2]) -> [bool; 2] {
        let most = T::LIMIT_MANTISSA
            * power_of_two(fulgurite_gpu::planted::constant("GROWTH", T::GROWTH) - T::HEADROOM);
        [sum[0] > self.row_sum[0].min(most), sum[1] > self.row_sum[1].min(most)]
    }

    /// Moves the anchors of the rows that a tile has outgrown to their largest probability of that
    /// tile, and returns the factors by which the tile and all earlier results shrink: exactly 1
    /// in the other rows. `sum` is what [`outgrown`](Self::outgrown) has seen.
    ///
    /// # Safety
    /// All threads of the warp call it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn move_anchor<T: Values, const N: u32>(
        &mut self,
        probs: &Accum<N>,
        sum: [f32; 2],
    ) -> [f32; 2] {
        // SAFETY: the caller's contract.
        let moves = unsafe { frag::any_of_row(self.above::<T>(sum)) };
        let top = probs.row_max([const { power_of_two(-T::HEADROOM) }; 2]);
        let mut rescale = [1.0; 2];
        let mut half = 0;
        while half < 2 {
            let growth = math::log2(top[half]) + T::HEADROOM;
            let moved = if moves[half] { self.shift[half] - growth } else { self.shift[half] };
            // Not the growth but what the rounded shift has really moved by, so that earlier and
            // later keys stay in proportion.
            let fall = moved - self.shift[half];
            // A factor flushed to 0 would leave the sum 0, which means that there is no key; then
            // the row is lost, as after an infinite probability.
            rescale[half] = if fall > LEAST_FACTOR { math::exp2(fall) } else { f32::NAN };
            self.shift[half] = moved;
            self.row_sum[half] *= rescale[half];
            self.since_parked[half] *= rescale[half];
            half += 1;
        }
        rescale
    }

    /// By how much what was parked has shrunk since; from here on, it counts anew.
    #[inline(always)]
    pub fn take_since_parked(&mut self) -> [f32; 2] {
        core::mem::replace(&mut self.since_parked, [1.0; 2])
    }

    /// Closes the rows. `LOSES` if rows can be lost: those get the factor NaN. Else differences of
    /// scores have been taken first in all tiles.
    #[inline(always)]
    #[track_caller]
    pub fn finish<T: Values, const LOSES: bool>(&self) -> Finished {
        let row_sum = frag::sum_rows(self.row_sum);
        let mut finished = Finished { factor: [0.0; 2], lse: [0.0; 2] };
        let mut half = 0;
        while half < 2 {
            let sum = row_sum[half];
            let shift = self.shift[half];
            // A key at the anchor has added 2^-HEADROOM; NaN is not in range either.
            let least = const { power_of_two(-1.0 - T::HEADROOM) };
            let in_range = sum >= least && sum < f32::INFINITY && !is_far(shift);
            // One division, so that its slow path stands there once.
            let divisor = if LOSES && !in_range { f32::NAN } else { sum };
            finished.factor[half] = 1.0 / if sum == 0.0 { f32::INFINITY } else { divisor };
            finished.lse[half] = if LOSES {
                (math::log2(sum) - shift) * LN_2
            } else {
                let rest = (math::log2(sum) + T::HEADROOM) * LN_2;
                math::fma(self.row_max[half], self.unit * LN_2, rest)
            };
            half += 1;
        }
        finished
    }

    /// The shift that the maximum of a row asks for. A row may have no key yet: its maximum is
    /// `-inf`, and 0 takes its place, so that masked scores give 0 and not NaN.
    #[inline(always)]
    fn shift_to_max<T: Values>(&self, half: usize) -> f32 {
        math::fma(-self.base(half), self.unit, -T::HEADROOM)
    }

    /// The maximum of a row, 0 if it has no key yet.
    #[inline(always)]
    fn base(&self, half: usize) -> f32 {
        let no_key = self.row_max[half] == f32::NEG_INFINITY;
        if no_key { 0.0 } else { self.row_max[half] }
    }
}

/// Whether a shift is too large to be part of a `fma`. NaN and infinity are.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "NaN is far: it is not below")]
#[inline(always)]
fn is_far(shift: f32) -> bool {
    !(shift.abs() < FAR)
}

/// What is left to do with two rows.
#[derive(Clone, Copy)]
pub struct Finished {
    /// What normalises the output: 0 for a row without keys, NaN for a lost one.
    pub factor: [f32; 2],
    /// Natural logarithm of the sum of exponentials: `-inf` for a row without keys, and infinite
    /// where it is beyond float32.
    pub lse: [f32; 2],
}

/// `2^exponent`, for whole numbers in the range of normal floats.
const fn power_of_two(exponent: f32) -> f32 {
    f32::from_bits(((exponent as i32 + 127) as u32) << 23)
}
