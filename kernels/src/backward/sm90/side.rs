//! From a step's scores to probabilities, and from gradients of these to those of scores: with
//! numbers of rows where queries are rows, of columns where they are columns.

use core::ops::Range;

use fulgurite_gpu::frag::Accum;

/// What a step knows of its queries.
pub(super) trait Side<const W: u32> {
    /// Scores become probabilities.
    ///
    /// # Safety
    /// Addresses are those of the call's numbers.
    unsafe fn exponentiate(&self, scores: &mut Accum<W>);

    /// Probabilities become gradients of scores; if `MASKED`, 0 where the probability is, whatever
    /// the gradient: the mask's elements cost nothing to find again.
    ///
    /// # Safety
    /// As [`exponentiate`](Self::exponentiate).
    unsafe fn differentiate<const MASKED: bool>(&self, probs: &mut Accum<W>, gradients: &Accum<W>);

    /// Sets to 0 what the mask leaves out, or what is padding.
    fn keep(&self, elements: &mut Accum<W>);
}

/// Queries are columns.
pub(super) struct Columns {
    /// Scale of the scores, as exponents of two.
    pub scale_log2: f32,
    /// Address of the log-sum-exp of the first column.
    pub lse2: u64,
    /// Address of the sum of `d_out · out` of the first column.
    pub delta: u64,
    /// Which columns see the key of each of the thread's rows.
    pub kept: [Range<i32>; 2],
}

/// Queries are rows.
pub(super) struct Rows {
    /// Scale of the scores, as exponents of two.
    pub scale_log2: f32,
    /// The log-sum-exp of the thread's rows.
    pub lse2: [f32; 2],
    /// Their sums of `d_out · out`.
    pub delta: [f32; 2],
    /// Which columns' keys they see.
    pub kept: [Range<i32>; 2],
}

impl<const W: u32> Side<W> for Columns {
    #[inline(always)]
    unsafe fn exponentiate(&self, scores: &mut Accum<W>) {
        // SAFETY: the caller's contract.
        unsafe { scores.exp2_columns(self.scale_log2, self.lse2) }
    }

    #[inline(always)]
    unsafe fn differentiate<const MASKED: bool>(&self, probs: &mut Accum<W>, gradients: &Accum<W>) {
        // SAFETY: the caller's contract.
        unsafe { probs.times_less_columns::<MASKED>(gradients, self.delta) }
    }

    #[inline(always)]
    fn keep(&self, elements: &mut Accum<W>) {
        elements.keep_columns(self.kept.clone());
    }
}

impl<const W: u32> Side<W> for Rows {
    #[inline(always)]
    unsafe fn exponentiate(&self, scores: &mut Accum<W>) {
        scores.exp2_rows([self.scale_log2; 2], self.lse2.map(|lse2| -lse2));
    }

    #[inline(always)]
    unsafe fn differentiate<const MASKED: bool>(&self, probs: &mut Accum<W>, gradients: &Accum<W>) {
        probs.times_less_rows::<MASKED>(gradients, self.delta);
    }

    #[inline(always)]
    fn keep(&self, elements: &mut Accum<W>) {
        elements.keep_columns(self.kept.clone());
    }
}
