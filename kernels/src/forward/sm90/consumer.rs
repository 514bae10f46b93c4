//! The consumers: 64 query rows each, from Q, K and V in shared memory to the stored output.

mod handover;

use core::marker::PhantomData;

use super::{Call, ConsumerBudget, Shape};
use crate::{
    epilogue,
    forward::{Job, Jobs, rows},
    mask::Mask,
    ring::Cursor,
    softmax::OnlineSoftmax,
};
use fulgurite_gpu::{
    element::Element,
    frag::{self, Accum, Packed},
    registers,
    wgmma::{self, Operand},
};
use fulgurite_spec::{
    SmemPlan, Tile,
    tile::{PANEL_COLUMNS, PANEL_ROW_BYTES, WARPGROUP_ROWS},
};

/// K of one `wgmma`: columns of Q and K, rows of V.
const STEP: u32 = 16;

/// Registers and ring positions of one consumer; `W` is its number, a constant so that all
/// addresses stay in uniform registers.
struct Consumer<'a, T, M, S, const D: u32, const KV: u32, const W: u32> {
    call: &'a Call<'a>,
    scores: Accum<KV>,
    probs: Packed<KV>,
    out: Accum<D>,
    q: Cursor,
    k: Cursor,
    v: Cursor,
    /// Whether the next tiles of K and V were seen to be there: numbers for the same reason as in
    /// `JobCursor`.
    ready: [u32; 2],
    kind: PhantomData<(T, M, S)>,
}

/// Computes the 64 rows of warpgroup `W` of every job.
#[inline(always)]
pub unsafe fn consume<T: Element, M: Mask, S: Shape, const D: u32, const KV: u32, const W: u32>(
    call: &Call,
) {
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::grow_to::<ConsumerBudget<S>>() }
    let mut this = Consumer::<T, M, S, D, KV, W> {
        call,
        scores: Accum::zero(),
        probs: Packed::zero(),
        out: Accum::zero(),
        q: Cursor::read(W),
        k: Cursor::read(0),
        v: Cursor::read(0),
        ready: [0; 2],
        kind: PhantomData,
    };
    let tile = const { S::TILE };
    let scalars = call.scalars;
    let mask = M::new(scalars.q_len, scalars.kv_len);
    let mut jobs = Jobs::<M>::new(scalars, tile);
    let mut job = jobs.next();
    if job.kv_tiles == 0 {
        return;
    }
    // SAFETY: all consumers walk the same jobs and tiles in the same order and take as many turns,
    // so that turns, ring positions and barrier phases agree.
    unsafe {
        if W + 1 == tile.consumers {
            this.pass_turn();
        }
        let skipped = job.kv_tiles - this.own_tiles(&job, mask);
        this.start(skipped, skipped);
        loop {
            let softmax = this.run_job(&job, mask);
            let next = jobs.next();
            if next.kv_tiles == 0 {
                return this.finish_last(&job, &softmax);
            }
            let skipped = next.kv_tiles - this.own_tiles(&next, mask);
            if skipped == 0 {
                this.finish(&job, &softmax);
            } else {
                this.finish_alone(&job, &softmax);
                this.start(skipped, skipped - 1);
            }
            job = next;
        }
    }
}

/// The parts of a consumer's loop. All are called by the whole warpgroup.
impl<T: Element, M: Mask, S: Shape, const D: u32, const KV: u32, const W: u32>
    Consumer<'_, T, M, S, D, KV, W>
{
    const TILE: Tile = S::TILE;
    const PLAN: SmemPlan = S::PLAN;

    /// How a step treats the output when maxima grow.
    ///
    /// Always: the output is rescaled among the exponentials, whose unit leaves issue slots free,
    /// and the barriers of the next step are asked early. Otherwise behind the exponentials, and
    /// not at all if every factor of the warp is 1. Which is faster was measured (H200, 16k tokens,
    /// always / otherwise): causal 2.42 / 2.57 million cycles at head dim 128; TFLOP/s: full
    /// 649 / 663 at head dim 128, causal 701 / 739 at head dim 256.
    const RESCALES_ALWAYS: bool = M::EDGE_RUN && D <= 128;

    /// This warpgroup's first row of a job.
    #[inline(always)]
    fn first_row(job: &Job) -> u32 {
        job.first_row + W * WARPGROUP_ROWS
    }

    /// KV tiles of a job that this warpgroup's rows need, from the first on; 1 if all are padding.
    #[inline(always)]
    fn own_tiles(&self, job: &Job, mask: M) -> u32 {
        let q_len = self.call.scalars.q_len;
        let first_row = Self::first_row(job);
        if !M::EDGE_RUN {
            job.kv_tiles
        } else if first_row >= q_len {
            1
        } else {
            mask.segments(rows(first_row, WARPGROUP_ROWS, q_len), KV).end
        }
    }

    /// Starts a job whose last `skipped` KV tiles the other consumers need and this one does not:
    /// gives each back in the round in which the others use it, with a turn in the last `turns` of
    /// these rounds, and then computes the scores of its own last tile.
    #[inline(always)]
    unsafe fn start(&mut self, skipped: u32, turns: u32) {
        // SAFETY: the waits and releases below pair with the producer's, see `barriers`. A tile
        // of V is given back a round after its K, as the others do: the ring has no room to wait.
        unsafe {
            self.wait_q();
            let mut tile = 0;
            while tile < skipped {
                self.wait_k();
                self.release_k();
                if tile + turns >= skipped {
                    self.await_turn();
                    self.pass_turn();
                }
                if tile > 0 {
                    self.skip_v();
                }
                tile += 1;
            }
            self.wait_k();
            self.await_turn();
            self.issue_scores();
            self.pass_turn();
            if skipped > 0 {
                self.skip_v();
            }
            wgmma::wait::<0, KV>(&mut self.scores);
            self.release_k();
        }
    }

    /// Gives a tile of V back unused.
    #[inline(always)]
    #[track_caller]
    unsafe fn skip_v(&mut self) {
        // SAFETY: as `start`.
        unsafe {
            self.wait_v();
            self.release_v();
        }
    }

    /// One job, from the scores of its last KV tile to the probabilities of its first.
    #[inline(always)]
    unsafe fn run_job(&mut self, job: &Job, mask: M) -> OnlineSoftmax {
        let scalars = self.call.scalars;
        let first_row = Self::first_row(job);
        let full = mask.segments(rows(first_row, WARPGROUP_ROWS, scalars.q_len), KV).full;
        let mut softmax = OnlineSoftmax::new(scalars.scale_log2);
        let mut step = self.own_tiles(job, mask) - 1;
        // SAFETY: as `step`.
        unsafe {
            self.release_q_early(step);
            if step >= full {
                self.mask_tile(mask, first_row, step);
            }
            let growth = softmax.grow::<true, KV>(&self.scores);
            if Self::RESCALES_ALWAYS {
                self.look_ahead();
            }
            softmax.add::<true, KV>(&mut self.scores, &growth);
            self.probs = self.scores.pack::<T>();
            self.out = Accum::zero();
            while M::EDGE_RUN && step > full {
                step -= 1;
                self.step::<true>(&mut softmax, mask, first_row, step);
            }
            while step > 0 {
                step -= 1;
                self.step::<false>(&mut softmax, mask, first_row, step);
            }
            self.leave_q();
        }
        softmax
    }

    /// Ends a job that another follows: that one's first product computes while this one's
    /// output is stored.
    ///
    /// The three ways to end a job each issue its last product themselves: with a branch between
    /// that and the next issue, ptxas serialises all products (note C7514).
    #[inline(always)]
    unsafe fn finish(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        // SAFETY: as `step`; the rows are this warpgroup's own.
        unsafe {
            self.wait_v();
            self.await_turn();
            self.issue_out();
            self.wait_q();
            self.wait_k();
            self.issue_scores();
            self.pass_turn();
            wgmma::wait::<1, D>(&mut self.out);
            self.release_v();
            self.store(job, softmax);
            wgmma::wait::<0, KV>(&mut self.scores);
            self.release_k();
        }
    }

    /// Ends a job and passes the turn on.
    #[inline(always)]
    unsafe fn finish_alone(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        // SAFETY: as `finish`.
        unsafe {
            self.wait_v();
            self.await_turn();
            self.issue_out();
            self.pass_turn();
            wgmma::wait::<0, D>(&mut self.out);
            self.release_v();
            self.store(job, softmax);
        }
    }

    /// Ends the last job.
    #[inline(always)]
    unsafe fn finish_last(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        // SAFETY: as `finish`; nobody waits for a turn after the last consumer's.
        unsafe {
            self.wait_v();
            self.await_turn();
            self.issue_out();
            if W + 1 != Self::TILE.consumers {
                self.pass_turn();
            }
            wgmma::wait::<0, D>(&mut self.out);
            self.store(job, softmax);
        }
    }

    /// Stores the finished rows.
    #[inline(always)]
    unsafe fn store(&mut self, job: &Job, softmax: &OnlineSoftmax) {
        let first_row = Self::first_row(job);
        // SAFETY: the caller's contract.
        unsafe {
            epilogue::store::<T, D>(self.call.scalars, job, first_row, &mut self.out, softmax);
        }
    }

    /// One step: the scores of tile `step`, and the output of the tile before it.
    #[inline(always)]
    unsafe fn step<const EDGE: bool>(
        &mut self,
        softmax: &mut OnlineSoftmax,
        mask: M,
        first_row: u32,
        step: u32,
    ) {
        // SAFETY: the waits and releases below pair with the producer's, see `barriers`.
        unsafe {
            self.wait_next_k();
            self.await_turn();
            self.issue_scores();
            self.wait_next_v();
            self.issue_out();
            self.pass_turn();
            wgmma::wait::<1, KV>(&mut self.scores);
            self.release_k();
            self.release_q_early(step);
            if EDGE {
                self.mask_tile(mask, first_row, step);
            }
            let growth = softmax.grow::<EDGE, KV>(&self.scores);
            if Self::RESCALES_ALWAYS {
                self.finish_product();
                self.look_ahead();
                self.out.scale_rows(growth.rescale);
                softmax.add::<true, KV>(&mut self.scores, &growth);
                self.probs = self.scores.pack::<T>();
            } else {
                softmax.add::<false, KV>(&mut self.scores, &growth);
                self.finish_product();
                self.probs = self.scores.pack::<T>();
                if growth.in_warp() {
                    self.out.scale_rows(growth.rescale);
                }
            }
        }
    }

    /// Waits for the product with V and gives V back.
    #[inline(always)]
    unsafe fn finish_product(&mut self) {
        // SAFETY: as `step`.
        unsafe {
            wgmma::wait::<0, D>(&mut self.out);
            self.release_v();
        }
    }

    /// Sets the scores that the mask does not keep to `-inf`.
    #[inline(always)]
    fn mask_tile(&mut self, mask: M, first_row: u32, step: u32) {
        let [low, high] = frag::rows();
        let start = (step * KV) as i32;
        self.scores.mask_from([
            mask.keep_end(first_row + low) as i32 - start,
            mask.keep_end(first_row + high) as i32 - start,
        ]);
    }

    /// Issues `scores = Q Kᵀ` for the tile in turn, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_scores(&mut self) {
        let q = Self::PLAN.q + self.q.stage * Self::TILE.q_part_bytes();
        let q = Operand::k_major(self.call.smem.plus(q));
        let k = Self::PLAN.k + self.k.stage * Self::TILE.kv_stage_bytes();
        let k = Operand::k_major(self.call.smem.plus(k));
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { wgmma::begin(&mut self.scores) }
        let mut column = 0;
        while column < D {
            let panel = column / PANEL_COLUMNS;
            let inside = column % PANEL_COLUMNS * 2;
            let q = q.plus(panel * WARPGROUP_ROWS * PANEL_ROW_BYTES + inside);
            let k = k.plus(panel * Self::TILE.kv_panel_bytes() + inside);
            // SAFETY: the caller waited for Q and K and releases them after the product.
            unsafe {
                if column == 0 {
                    wgmma::issue_ss::<T, KV, false>(&mut self.scores, q, k);
                } else {
                    wgmma::issue_ss::<T, KV, true>(&mut self.scores, q, k);
                }
            }
            column += STEP;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }

    /// Issues `out += probs V` for the tile in turn, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_out(&mut self) {
        let v = Self::PLAN.v + self.v.stage * Self::TILE.kv_stage_bytes();
        let v = Operand::n_major(self.call.smem.plus(v), Self::TILE.kv_panel_bytes());
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { wgmma::begin_rs(&mut self.probs, &mut self.out) }
        let mut step = 0;
        while step < KV / STEP {
            let v = v.plus(step * STEP * PANEL_ROW_BYTES);
            // SAFETY: the caller waited for V and releases it after the product.
            unsafe { wgmma::issue_rs::<T, D>(&mut self.out, self.probs.operand(step), v) }
            step += 1;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }
}
