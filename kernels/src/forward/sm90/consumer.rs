//! The consumers: 64 query rows each, from Q, K and V in shared memory to the stored output.

mod factors;
mod masking;
mod parking;
mod second_pass;

use core::marker::PhantomData;

use crate::{
    epilogue,
    forward::shape::{Call, ConsumerBudget, Shape},
    jobs::{Job, Jobs, rows},
    ring::Cursor,
    softmax::{OnlineSoftmax, SETTLING_TILES},
};
use factors::Factors;
use fulgurite_gpu::{
    frag::{self, Accum},
    product::{Scores, Values},
    registers, warp,
    wgmma::{self, Operand, PanelWidth},
};
use fulgurite_spec::{Geometry, SmemPlan, Tile, forward::STEP_BYTES, launch::WARPGROUP_ROWS};

/// Where a step is.
#[derive(Clone, Copy)]
struct Place<M> {
    mask: M,
    /// The consumer's first row.
    first_row: u32,
    /// The KV tile.
    step: u32,
    /// The job's last one.
    first_tile: u32,
    /// This tile and those above it follow the maxima whatever their rows say.
    young: u32,
}

/// Registers and ring positions of one consumer.
pub(super) struct Consumer<'a, M, S: Shape, const D: u32, const KV: u32> {
    pub(super) call: &'a Call<'a>,
    /// Which consumer this is: a ballot.
    pub(super) number: u32,
    /// The product Q Kᵀ in flight.
    sums: <S::Scores as Scores>::Sums<KV>,
    probs: <S::Values as Values>::Probs<KV>,
    out: Accum<D>,
    pub(super) q: Cursor,
    pub(super) k: Cursor,
    pub(super) v: Cursor,
    /// Not 0 if this warp has lost a row of some job: a ballot.
    lost: u32,
    /// Whether the next tile follows the maxima: some row of this consumer has not settled.
    follows: bool,
    /// Factors of the next tile's scores, where tiles have some.
    factors: Factors,
    kind: PhantomData<(M, S)>,
}

/// Computes the 64 rows of consumer `number` of every job.
#[inline(always)]
pub(super) unsafe fn consume<M: Geometry, S: Shape, const D: u32, const KV: u32>(
    call: &Call,
    number: u32,
) {
    // SAFETY: the whole warpgroup comes here once.
    unsafe { registers::grow_to::<ConsumerBudget<S>>() }
    let mut this = Consumer::<M, S, D, KV> {
        call,
        number,
        sums: S::Scores::zero(),
        probs: S::Values::zero(),
        out: Accum::zero(),
        q: Cursor::read(number),
        k: Cursor::read(0),
        v: Cursor::read(0),
        lost: 0,
        follows: true,
        factors: Factors::none(),
        kind: PhantomData,
    };
    let mask = M::new(call.scalars.q_len, call.scalars.kv_len, call.ends);
    // SAFETY: all consumers walk the same jobs and tiles in the same order and take as many turns,
    // so that turns, ring positions and barrier phases agree; they hear the same verdict.
    unsafe {
        this.run_jobs(mask);
        if Consumer::<M, S, D, KV>::LOSES && this.any_of_consumers(this.lost != 0) {
            this.run_jobs_again(mask);
        }
    }
}

/// The parts of a consumer's loop. All are called by the whole warpgroup.
impl<M: Geometry, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    const TILE: Tile = S::TILE;
    const PLAN: SmemPlan = S::PLAN;
    const HAS_ANCHORS: bool = S::SOFTMAX.keeps_anchors();
    const LOSES: bool = S::SOFTMAX.loses();

    /// Computes this warpgroup's rows of every job.
    #[inline(always)]
    unsafe fn run_jobs(&mut self, mask: M) {
        let mut jobs = Jobs::<M>::new(self.call.scalars, self.call.ends, Self::TILE);
        let mut job = jobs.next();
        if job.kv_tiles == 0 {
            return;
        }
        // SAFETY: as `consume`.
        unsafe {
            if self.number + 1 == Self::TILE.consumers {
                self.pass_turn();
            }
            let skipped = job.kv_tiles - self.own_tiles(&job, mask);
            self.start(&job, skipped, skipped);
            loop {
                let mut softmax = self.run_job(&job, mask);
                let next = jobs.next();
                let last = next.kv_tiles == 0;
                let skipped = if last { 0 } else { next.kv_tiles - self.own_tiles(&next, mask) };
                if !last && skipped == 0 {
                    self.finish(&job, &next, &mut softmax);
                } else {
                    self.finish_alone(&job, &mut softmax);
                    if last {
                        break;
                    }
                    self.start(&next, skipped, skipped - 1);
                }
                job = next;
            }
            if self.number == 0 {
                // The turn that the last consumer has passed on.
                self.await_turn();
            }
        }
    }

    /// This warpgroup's first row of a job.
    #[inline(always)]
    fn first_row(&self, job: &Job) -> u32 {
        job.first_row + self.number * WARPGROUP_ROWS
    }

    /// Starts a job whose last `skipped` KV tiles the other consumers need and this one does not:
    /// gives each back in the round in which the others use it, with a turn in the last `turns` of
    /// these rounds, and then computes the scores of its own last tile.
    #[inline(always)]
    unsafe fn start(&mut self, job: &Job, skipped: u32, turns: u32) {
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
            self.load_factors(job, job.kv_tiles - skipped);
            if skipped > 0 {
                self.skip_v();
            }
            S::Scores::wait::<0, KV>(&mut self.sums);
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
        let first_row = self.first_row(job);
        let segments = mask.segments(rows(first_row, WARPGROUP_ROWS, scalars.q_len), KV);
        let mut softmax = self.new_softmax();
        let mut step = self.own_tiles(job, mask) - 1;
        // SAFETY: as `step`.
        unsafe {
            self.release_q_early(step, job.first_tile);
            let mut scores = S::Scores::floats(&self.sums);
            self.take_factors(&mut softmax, step);
            if step >= segments.full_end {
                self.mask_tile(&mut softmax, &mut scores, (mask, first_row, step));
            }
            softmax.follow_max::<S::Scores, S::Values, KV>(&scores);
            fulgurite_gpu::planted::count("followed");
            self.exponentiate::<true>(&mut softmax, &mut scores);
            self.probs = S::Values::pack(&scores);
            S::Scores::leave(&mut self.sums, &scores);
            self.out = Accum::zero();
            self.clear_parked();
            while M::ROWS_DIFFER && step > segments.anchored {
                step -= 1;
                self.step::<true, false>(
                    &mut softmax,
                    Place { mask, first_row, step, first_tile: job.first_tile, young: 0 },
                );
            }
            let settling = fulgurite_gpu::planted::constant("SETTLING_TILES", SETTLING_TILES);
            let young = step.saturating_sub(settling);
            self.follows = true;
            if M::FIRST {
                let place = Place { mask, first_row, step, first_tile: job.first_tile, young };
                self.run_down(&mut softmax, place, segments.full_begin);
                step = 0;
            }
            while step > 0 && (self.follows || !Self::HAS_ANCHORS) {
                let border = Self::parking_before(step);
                while step > border && (self.follows || !Self::HAS_ANCHORS) {
                    step -= 1;
                    self.step::<false, false>(
                        &mut softmax,
                        Place { mask, first_row, step, first_tile: job.first_tile, young },
                    );
                }
                self.park(&mut softmax);
            }
            while step > 0 && Self::HAS_ANCHORS {
                let border = Self::parking_before(step);
                while step > border {
                    step -= 1;
                    self.step::<false, true>(
                        &mut softmax,
                        Place { mask, first_row, step, first_tile: job.first_tile, young },
                    );
                }
                self.park(&mut softmax);
            }
            self.leave_q();
        }
        softmax
    }

    /// The tiles of a job in front of those with rows that may have no key yet, for masks whose
    /// rows have a first key: down to tile `full_begin` without element tests, then with them.
    #[inline(always)]
    unsafe fn run_down(&mut self, softmax: &mut OnlineSoftmax, place: Place<M>, full_begin: u32) {
        let mut place = place;
        // SAFETY: as `step`.
        unsafe {
            while place.step > full_begin && (self.follows || !Self::HAS_ANCHORS) {
                place.step -= 1;
                self.step::<false, false>(softmax, place);
            }
            while place.step > full_begin && Self::HAS_ANCHORS {
                place.step -= 1;
                self.step::<false, true>(softmax, place);
            }
            while place.step > place.first_tile {
                place.step -= 1;
                if Self::HAS_ANCHORS {
                    // Every row that sees keys here has one, which is what anchors need to be kept.
                    self.step::<true, true>(softmax, place);
                } else {
                    self.step::<true, false>(softmax, place);
                }
            }
        }
    }

    /// Ends a job that another follows: that one's first product computes while this one's
    /// output is stored.
    ///
    /// The two ways to end a job each issue its last product themselves: with a branch between
    /// that and the next issue, ptxas serialises all products (note C7514).
    #[inline(always)]
    unsafe fn finish(&mut self, job: &Job, next: &Job, softmax: &mut OnlineSoftmax) {
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
            self.load_factors(next, next.kv_tiles);
            S::Scores::wait::<0, KV>(&mut self.sums);
            self.release_k();
        }
    }

    /// Ends a job, and nothing else.
    #[inline(always)]
    unsafe fn finish_alone(&mut self, job: &Job, softmax: &mut OnlineSoftmax) {
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

    /// Stores the finished rows, and remembers if one of them is lost.
    #[inline(always)]
    unsafe fn store(&mut self, job: &Job, softmax: &mut OnlineSoftmax) {
        // SAFETY: the product with V is over.
        unsafe { self.unpark(softmax) }
        let scalars = self.call.scalars;
        let rows = self.own_rows(job);
        let inside = epilogue::inside(scalars, rows);
        // SAFETY: the caller's contract; the whole warp votes.
        unsafe {
            let finished = if Self::LOSES {
                softmax.finish::<S::Values, true>()
            } else {
                softmax.finish::<S::Values, false>()
            };
            if Self::LOSES {
                // Before the store: behind it, what is asked here would stay in registers all the
                // way through the rounding, and head dim 256 spills.
                let first = self.out.first_is_nan();
                let lost = |half: usize| finished.factor[half].is_nan() || first[half];
                self.lost |= warp::ballot(inside[0] && lost(0) || inside[1] && lost(1));
            }
            epilogue::store::<S, D>(self.call, job, rows, &mut self.out, &finished, inside);
        }
    }

    /// The two rows that this thread holds.
    #[inline(always)]
    fn own_rows(&self, job: &Job) -> [u32; 2] {
        frag::rows().map(|row| self.first_row(job) + row)
    }

    /// One step: the scores of a tile, and the output of the tile before it. `MASKED` if the mask
    /// may touch its elements; `KEEP` if anchors stay, else they follow the maxima.
    #[inline(always)]
    unsafe fn step<const MASKED: bool, const KEEP: bool>(
        &mut self,
        softmax: &mut OnlineSoftmax,
        place: Place<M>,
    ) {
        // SAFETY: the waits and releases below pair with the producer's, see `barriers`.
        unsafe {
            self.wait_k();
            self.await_turn();
            self.issue_scores();
            self.wait_v();
            self.issue_out();
            self.pass_turn();
            // Here the vote is free: the products are still at work.
            if Self::HAS_ANCHORS && !MASKED && !KEEP && place.step <= place.young {
                self.follows = self.any_unsettled(softmax);
            }
            S::Scores::wait::<1, KV>(&mut self.sums);
            self.release_k();
            self.release_q_early(place.step, place.first_tile);
            let mut scores = S::Scores::floats(&self.sums);
            self.take_factors(softmax, place.step);
            if MASKED {
                let at = (place.mask, place.first_row, place.step);
                self.mask_tile(softmax, &mut scores, at);
            }
            if KEEP {
                fulgurite_gpu::planted::count("kept");
                self.keep_anchors(softmax, &mut scores);
            } else {
                fulgurite_gpu::planted::count("followed");
                let rescale = softmax.follow_max::<S::Scores, S::Values, KV>(&scores);
                self.finish_product();
                self.out.scale_rows(rescale);
                self.exponentiate::<MASKED>(softmax, &mut scores);
                self.probs = S::Values::pack(&scores);
            }
            S::Scores::leave(&mut self.sums, &scores);
        }
    }

    /// From scores to probabilities relative to the maxima. `FIRST` if a row's first keys may be
    /// among them; so a row that is far from there on is lost, if this kernel loses rows.
    #[inline(always)]
    fn exponentiate<const FIRST: bool>(
        &mut self,
        softmax: &mut OnlineSoftmax,
        scores: &mut Accum<KV>,
    ) {
        if !Self::LOSES {
            softmax.take_apart::<S::Scores, S::Values, KV>(scores);
        } else if FIRST {
            softmax.lose_far();
        }
        softmax.add(softmax.exponentiate(scores));
    }

    /// From scores to probabilities with the anchors as they are, unless they are outgrown.
    #[inline(always)]
    unsafe fn keep_anchors(&mut self, softmax: &mut OnlineSoftmax, scores: &mut Accum<KV>) {
        let mut sum = softmax.exponentiate(scores);
        // SAFETY: as `step`.
        unsafe {
            self.finish_product();
            self.probs = S::Values::pack(scores);
            if softmax.outgrown::<S::Values>(sum) {
                fulgurite_gpu::planted::count("moved");
                let rescale = softmax.move_anchor::<S::Values, KV>(scores, sum);
                sum = [sum[0] * rescale[0], sum[1] * rescale[1]];
                scores.scale_rows(rescale);
                self.probs = S::Values::pack(scores);
                self.out.scale_rows(rescale);
            }
        }
        softmax.add(sum);
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

    /// Issues `scores = Q Kᵀ` for the tile in turn, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_scores(&mut self) {
        let q = Self::PLAN.q + self.q.stage * Self::TILE.q_part_bytes();
        let width = Self::TILE.score_panel_bytes();
        let q = Operand::k_major_in(self.call.smem.plus(q), PanelWidth::of(width));
        let k = Self::PLAN.k + self.k.stage * Self::TILE.k_stage_bytes();
        let k = Operand::k_major_in(self.call.smem.plus(k), PanelWidth::of(width));
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { S::Scores::begin(&mut self.sums) }
        let mut byte = 0;
        while byte < D * Self::TILE.scores.bytes() {
            let panel = byte / width;
            let inside = byte % width;
            let q = q.plus(panel * WARPGROUP_ROWS * width + inside);
            let k = k.plus(panel * Self::TILE.k_panel_bytes() + inside);
            // SAFETY: the caller waited for Q and K and releases them after the product.
            unsafe {
                if byte == 0 {
                    S::Scores::issue::<KV, false>(&mut self.sums, q, k);
                } else {
                    S::Scores::issue::<KV, true>(&mut self.sums, q, k);
                }
            }
            byte += STEP_BYTES;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }

    /// Issues `out += probs V` for the tile in turn, as one group.
    #[inline(always)]
    #[track_caller]
    unsafe fn issue_out(&mut self) {
        let v = Self::PLAN.v + self.v.stage * Self::TILE.v_stage_bytes();
        let panel = (Self::TILE.v_panel_bytes(), Self::TILE.value_panel_bytes());
        let v = S::Values::operand(self.call.smem.plus(v), panel.0, panel.1);
        // SAFETY: earlier products on these registers have been waited for.
        unsafe { S::Values::begin(&mut self.probs, &mut self.out) }
        let mut step = 0;
        while step < KV * Self::TILE.values.bytes() / STEP_BYTES {
            let v = S::Values::advance(v, step, panel.0, panel.1);
            // SAFETY: the caller waited for V and releases it after the product.
            unsafe { S::Values::issue(&mut self.out, &self.probs, step, v) }
            step += 1;
        }
        // SAFETY: the whole warpgroup closes the group.
        unsafe { wgmma::commit() }
    }
}
