//! What consumers of every duty have: positions in the rings, a step's products, the store.

use core::marker::PhantomData;

use super::side::Side;
use crate::{
    backward::shape::{Call, Shape},
    ring::Cursor,
};
use fulgurite_gpu::{
    element::Element,
    frag::{self, Accum, Packed},
    mbarrier,
    smem::Smem,
    thread,
    wgmma::{self, Operand},
};
use fulgurite_spec::{
    backward::{BackwardPlan, BackwardTile, Gradient},
    forward::STEP_BYTES,
    smem::PANEL_ROW_BYTES,
};

/// One consumer: its held rows, its rings, and the registers of a step.
pub(super) struct Consumer<'a, S: Shape, const D: u32, const W: u32> {
    call: &'a Call<'a>,
    /// Which of the held parts is its own.
    part: u32,
    /// Scores, then probabilities, then gradients of scores.
    scores: Accum<W>,
    /// Gradients of probabilities.
    gradients: Accum<W>,
    first: Cursor,
    second: Cursor,
    kind: PhantomData<S>,
}

/// The parts of a consumer's loop. All are called by the whole warpgroup.
impl<'a, S: Shape, const D: u32, const W: u32> Consumer<'a, S, D, W> {
    const TILE: BackwardTile = S::TILE;
    const PLAN: BackwardPlan = S::PLAN;

    /// A consumer that has waited for its held rows.
    ///
    /// # Safety
    /// Barriers are initialised; `part` is one of the tile's.
    #[inline(always)]
    pub(super) unsafe fn start(call: &'a Call<'a>, part: u32) -> Self {
        // SAFETY: the barrier has one phase.
        unsafe { mbarrier::wait(call.bar(Self::PLAN.held_full, 0), 0) }
        Consumer {
            call,
            part,
            scores: Accum::zero(),
            gradients: Accum::zero(),
            first: Cursor::read(0),
            second: Cursor::read(0),
            kind: PhantomData,
        }
    }

    /// One step that sums `values += P · second` and `keys += dS · first`.
    ///
    /// # Safety
    /// As [`Side`]; all consumers take the same steps.
    #[inline(always)]
    pub(super) unsafe fn sum_both<const MASKED: bool>(
        &mut self,
        side: &impl Side<W>,
        keys: &mut Accum<D>,
        values: &mut Accum<D>,
    ) {
        // SAFETY: the waits and releases pair with the producer's, see `barriers`.
        unsafe {
            self.issue_scores();
            self.issue_gradients();
            wgmma::wait::<1, W>(&mut self.scores);
            let mut probs = self.probabilities::<MASKED>(side);
            self.issue_sum(values, &mut probs, self.second_stage());
            wgmma::wait::<1, W>(&mut self.gradients);
            let mut rounded = self.differentiate::<MASKED>(side);
            self.issue_sum(keys, &mut rounded, self.first_stage());
            wgmma::wait::<1, D>(values);
            self.release_second();
            wgmma::wait::<0, D>(keys);
            self.release_first();
        }
    }

    /// One step that sums `values += P · second`.
    ///
    /// # Safety
    /// As [`sum_both`](Self::sum_both).
    #[inline(always)]
    pub(super) unsafe fn sum_values<const MASKED: bool>(
        &mut self,
        side: &impl Side<W>,
        values: &mut Accum<D>,
    ) {
        // SAFETY: as `sum_both`.
        unsafe {
            self.issue_scores();
            wgmma::wait::<0, W>(&mut self.scores);
            self.release_first();
            let mut probs = self.probabilities::<MASKED>(side);
            self.wait_second();
            self.issue_sum(values, &mut probs, self.second_stage());
            wgmma::wait::<0, D>(values);
            self.release_second();
        }
    }

    /// One step that sums `sums += dS · first`.
    ///
    /// # Safety
    /// As [`sum_both`](Self::sum_both).
    #[inline(always)]
    pub(super) unsafe fn sum_first<const MASKED: bool>(
        &mut self,
        side: &impl Side<W>,
        sums: &mut Accum<D>,
    ) {
        // SAFETY: as `sum_both`.
        unsafe {
            self.issue_scores();
            self.issue_gradients();
            wgmma::wait::<1, W>(&mut self.scores);
            side.exponentiate(&mut self.scores);
            if MASKED {
                side.keep(&mut self.scores);
            }
            wgmma::wait::<0, W>(&mut self.gradients);
            self.release_second();
            let mut rounded = self.differentiate::<MASKED>(side);
            self.issue_sum(sums, &mut rounded, self.first_stage());
            wgmma::wait::<0, D>(sums);
            self.release_first();
        }
    }

    /// Scores to probabilities, also rounded. What is left out is set to 0 behind the exponential:
    /// before it, NaN in a row's log-sum-exp would stay.
    #[inline(always)]
    unsafe fn probabilities<const MASKED: bool>(&mut self, side: &impl Side<W>) -> Packed<W> {
        // SAFETY: the caller's contract.
        unsafe { side.exponentiate(&mut self.scores) }
        if MASKED {
            side.keep(&mut self.scores);
        }
        self.scores.pack::<S::Element>()
    }

    /// Probabilities to gradients of scores, rounded.
    #[inline(always)]
    unsafe fn differentiate<const MASKED: bool>(&mut self, side: &impl Side<W>) -> Packed<W> {
        // SAFETY: the caller's contract.
        unsafe { side.differentiate::<MASKED>(&mut self.scores, &self.gradients) }
        self.scores.pack::<S::Element>()
    }

    /// Issues the product of the first held rows with the step's first rows, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_scores(&mut self) {
        let held = self.held(Self::PLAN.held_first);
        let walked = self.first_stage();
        // SAFETY: the buffer is released after its last product.
        unsafe {
            self.wait_first();
            issue_product::<S, D, W>(&mut self.scores, held, walked);
        }
    }

    /// The same of the second rows.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_gradients(&mut self) {
        let held = self.held(Self::PLAN.held_second);
        let walked = self.second_stage();
        // SAFETY: as `issue_scores`.
        unsafe {
            self.wait_second();
            issue_product::<S, D, W>(&mut self.gradients, held, walked);
        }
    }

    /// Issues `sums += rounded · walked`, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_sum(&self, sums: &mut Accum<D>, rounded: &mut Packed<W>, walked: Smem) {
        let walked = Operand::n_major(walked, Self::TILE.walked_panel_bytes());
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { wgmma::begin_rs(rounded, sums) }
        let mut step = 0;
        while step < W / 16 {
            let walked = walked.plus(step * 16 * PANEL_ROW_BYTES);
            // SAFETY: the buffer was waited for, and is released after the product.
            unsafe { wgmma::issue_rs::<S::Element, D>(sums, rounded.operand(step), walked) }
            step += 1;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }

    /// This consumer's held rows of a tensor.
    #[inline(always)]
    fn held(&self, tensor: u32) -> Smem {
        self.call.smem.plus(tensor + self.part * Self::TILE.held_part_bytes())
    }

    #[inline(always)]
    fn first_stage(&self) -> Smem {
        self.call.smem.plus(Self::PLAN.first + self.first.stage * Self::TILE.stage_bytes())
    }

    #[inline(always)]
    fn second_stage(&self) -> Smem {
        self.call.smem.plus(Self::PLAN.second + self.second.stage * Self::TILE.stage_bytes())
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn wait_first(&self) {
        let bar = self.call.bar(Self::PLAN.first_full, self.first.stage);
        // SAFETY: the barrier is initialised.
        unsafe { mbarrier::wait(bar, self.first.parity) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn wait_second(&self) {
        let bar = self.call.bar(Self::PLAN.second_full, self.second.stage);
        // SAFETY: the barrier is initialised.
        unsafe { mbarrier::wait(bar, self.second.parity) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn release_first(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { arrive_for_warp(self.call.bar(Self::PLAN.first_empty, self.first.stage)) }
        self.first.advance(1, Self::TILE.first_stages);
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn release_second(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { arrive_for_warp(self.call.bar(Self::PLAN.second_empty, self.second.stage)) }
        self.second.advance(1, Self::TILE.second_stages);
    }
}

/// One arrival for the whole warp.
///
/// # Safety
/// As [`mbarrier::arrive`].
#[inline(always)]
#[track_caller]
unsafe fn arrive_for_warp(bar: Smem) {
    if thread::leads_warp() {
        // SAFETY: the caller's contract.
        unsafe { mbarrier::arrive(bar) }
    }
}

/// Issues `product = held · walkedᵀ` over the head dim, as one group.
///
/// # Safety
/// The buffers were waited for, and are released after the product; earlier products on these
/// registers have been waited for.
#[inline(always)]
#[track_caller]
unsafe fn issue_product<S: Shape, const D: u32, const W: u32>(
    product: &mut Accum<W>,
    held: Smem,
    walked: Smem,
) {
    let (held, walked) = (Operand::k_major(held), Operand::k_major(walked));
    // SAFETY: the caller's contract.
    unsafe { wgmma::begin(product) }
    let mut byte = 0;
    while byte < 2 * D {
        let (panel, inside) = (byte / PANEL_ROW_BYTES, byte % PANEL_ROW_BYTES);
        let held = held.plus(panel * const { S::TILE.held_panel_bytes() } + inside);
        let walked = walked.plus(panel * const { S::TILE.walked_panel_bytes() } + inside);
        // SAFETY: the caller's contract.
        unsafe {
            if byte == 0 {
                wgmma::issue_ss::<S::Element, W, false>(product, held, walked);
            } else {
                wgmma::issue_ss::<S::Element, W, true>(product, held, walked);
            }
        }
        byte += STEP_BYTES;
    }
    // SAFETY: the whole warpgroup closes the group.
    unsafe { wgmma::commit() }
}

/// Rounds and stores the gradients of 64 rows of a head from `first_row` on, of `row_count`.
///
/// # Safety
/// `gradient` is a tensor of so many rows and columns; nobody else writes these rows; the whole
/// warpgroup calls it.
#[inline(always)]
pub(super) unsafe fn store<T: Element, const D: u32>(
    sums: &Accum<D>,
    gradient: &Gradient,
    [batch, head]: [u32; 2],
    first_row: u32,
    [row_count, columns]: [u32; 2],
) {
    let head = gradient.address
        + 2 * (u64::from(batch) * gradient.batch_stride + u64::from(head) * gradient.head_stride);
    let rows = frag::rows().map(|row| first_row + row);
    let addresses = rows.map(|row| head + 2 * (u64::from(row) * gradient.row_stride));
    // SAFETY: the caller's contract: rows that are stored lie inside of the tensor.
    unsafe {
        sums.pack::<T>().store_rows(columns, rows.map(|row| row < row_count), addresses);
    }
}
