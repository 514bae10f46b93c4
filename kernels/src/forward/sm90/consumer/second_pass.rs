//! The second pass of a block that has lost a row: the jobs with lost rows again, every tile the
//! classical way.
//!
//! A lost row is marked where it is stored: the factor NaN makes NaN of all its columns. So any
//! number of jobs can have lost rows and no memory or register is needed. Only lost rows are
//! stored again: a row's bits do not depend on whether another row of its job, or of another job
//! of this block, was lost.
//!
//! It is rare, so it is short instead of fast: nothing overlaps and nobody takes turns. It is code
//! of its own, because with one loop for both passes ptxas loses uniform registers in the first: 4
//! to 8 % at full masks.

use super::{
    super::producer::{load_k, load_q, load_v},
    Consumer, Shape,
};
use crate::{
    epilogue,
    jobs::{Job, Jobs},
    ring::Cursor,
    softmax::OnlineSoftmax,
};
use fulgurite_gpu::{
    frag::Accum,
    product::{Scores, Values},
    thread, wgmma,
};
use fulgurite_spec::Geometry;

impl<M: Geometry, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    /// Computes this warpgroup's lost rows again, in every job with one.
    #[inline(always)]
    pub(super) unsafe fn run_jobs_again(&mut self, mask: M) {
        let mut jobs = Jobs::<M>::new(self.call.scalars, self.call.ends, S::TILE);
        let mut job = jobs.next();
        while job.kv_tiles > 0 {
            // SAFETY: this thread's quad stored these rows in the first pass; all consumers vote.
            // (As a function of its own, this makes head dim 256, causal, spill 8 bytes.)
            let any_lost = unsafe {
                let lost = epilogue::lost_rows::<S::Values>(self.call, &job, self.own_rows(&job));
                self.any_of_consumers(lost[0] || lost[1])
            };
            if !any_lost {
                job = jobs.next();
                continue;
            }
            fulgurite_gpu::planted::count("again");
            // SAFETY: one thread loads what all consumers then take, in the same order.
            unsafe {
                if self.loads() {
                    load_q::<S>(self.call, &mut refill(self.q), &job, true);
                }
                self.wait_q();
                let mut softmax = self.follow_maxima(&job, mask);
                self.unpark(&mut softmax);
                self.leave_q();
                let (rows, finished) = (self.own_rows(&job), softmax.finish::<S::Values, false>());
                // Asked again, because kept from above the answer would take registers.
                let lost = epilogue::lost_rows::<S::Values>(self.call, &job, rows);
                epilogue::store::<S, D>(self.call, &job, rows, &mut self.out, &finished, lost);
            }
            job = jobs.next();
        }
    }

    /// Whether this thread takes the place of the producer, which has left.
    #[inline(always)]
    fn loads(&self) -> bool {
        self.number == 0 && thread::leads_warpgroup()
    }

    /// One job, from its last KV tile to its first; those that only other consumers need are masked
    /// from end to end here.
    #[inline(always)]
    unsafe fn follow_maxima(&mut self, job: &Job, mask: M) -> OnlineSoftmax {
        let first_row = self.first_row(job);
        self.sums = S::Scores::zero();
        self.probs = S::Values::zero();
        self.out = Accum::zero();
        // SAFETY: no product is in flight.
        unsafe {
            self.clear_parked();
            self.load_factors(job, job.kv_tiles);
        }
        let mut softmax = self.new_softmax();
        let mut step = job.kv_tiles;
        while step > 0 {
            step -= 1;
            // SAFETY: as in the first pass; each product is waited for before what follows.
            unsafe {
                if self.loads() {
                    load_k::<S>(self.call, &mut refill(self.k), job, step, true);
                    load_v::<S>(self.call, &mut refill(self.v), job, step, true);
                }
                self.wait_k();
                self.issue_scores();
                S::Scores::wait::<0, KV>(&mut self.sums);
                self.release_k();
                self.release_q_early(step, 0);
                let mut scores = S::Scores::floats(&self.sums);
                self.take_factors(&mut softmax, step);
                self.mask_tile(&mut softmax, &mut scores, (mask, first_row, step));
                let rescale = softmax.follow_max::<S::Scores, S::Values, KV>(&scores);
                softmax.take_apart::<S::Scores, S::Values, KV>(&mut scores);
                softmax.add(softmax.exponentiate(&mut scores));
                self.probs = S::Values::pack(&scores);
                S::Scores::leave(&mut self.sums, &scores);
                self.out.scale_rows(rescale);
                self.wait_v();
                self.issue_out();
                wgmma::wait::<0, D>(&mut self.out);
                self.release_v();
                if step == Self::parking_before(step + 1) {
                    self.park(&mut softmax);
                }
                if M::FIRST && step == job.first_tile {
                    if step > 0 {
                        self.release_q_early(0, 0);
                    }
                    break;
                }
            }
        }
        softmax
    }
}

/// Where a ring is filled when its first consumer stands at `read`: each tile is loaded just before
/// it is wanted.
#[inline(always)]
fn refill(read: Cursor) -> Cursor {
    Cursor { stage: read.stage, parity: read.parity ^ 1 }
}
