//! Forward attention on every GPU from Ampere on.
//!
//! One block computes one job. As in FlashAttention-2 (Dao 2023) all its warps copy K and V into
//! shared memory, each multiplies its own query rows with them, and what a warp holds of scores is
//! the operand of its second product as it stands. Nobody produces for others, so that one barrier
//! of the block orders each buffer: whoever has passed it knows that all copies of the step have
//! arrived and that everyone is done with what the next copies overwrite. While the warps of one
//! block are in their softmax, those of the other one on the multiprocessor multiply.
//!
//! With two buffers for each of K and V a step has one barrier, and a tile a whole step to arrive.
//! With one, V arrives during the first product and the next K during softmax and second product,
//! with a barrier before each product.
//!
//! Each warp decides for itself whether its rows keep their anchors ([`softmax`](crate::softmax)),
//! since no product is another's. Where some row of the block is lost, the block takes its job
//! again at once, all tiles following the maxima.

mod products;
mod ring;

use core::{array::from_fn, marker::PhantomData};

use super::shape::{Call, Shape};
use crate::{
    epilogue,
    jobs::{self, Job, Kv},
    softmax::{OnlineSoftmax, SETTLING_TILES},
};
use fulgurite_gpu::{
    barrier, copy,
    element::Element,
    frag::{self, Accum, Panels},
    planted::{constant, count},
    smem::Smem,
    thread, warp,
};
use fulgurite_spec::{
    Ends, FwdMmaParams, FwdScalars, Geometry, forward::WARP_ROWS, launch::WARPGROUP_ROWS,
    mask::Segments,
};
use ring::{Ring, rows_of_head};

/// Named barrier at which the block says whether rows are lost; 0 is that of each step.
const VERDICT: u32 = 1;

/// The kernel: `PARTS` times 16 query rows for each warp.
///
/// # Safety
/// Launched with the shape's launch, a block for each job and behind these one for each query tile
/// without keys; the parameters describe one call, as the host has checked it. `D` and `KV` are the
/// tile's `head_dim` and `kv_rows`.
#[inline(always)]
pub unsafe fn run<M, S, const D: u32, const KV: u32, const PARTS: usize>(params: &FwdMmaParams)
where
    M: Geometry,
    S: Shape<Values: Element>,
{
    const { assert!(S::TILE.head_dim == D && S::TILE.kv_rows == KV && !M::FIRST) };
    const { assert!(S::TILE.q_rows() == S::TILE.warps * WARP_ROWS * PARTS as u32) };
    let scalars = &params.scalars;
    let call = Call { scalars, ends: Ends::NONE, quant: None, inputs: params, smem: Smem::base() };
    let mask = M::new(scalars.q_len, scalars.kv_len, call.ends);
    barrier::name(VERDICT, "verdict", 0);
    let jobs = scalars.order.job_count();
    if const { S::ROW.stores_keyless() } && thread::block() >= jobs {
        // SAFETY: the whole block comes here; the query tile is its own.
        unsafe { store_keyless::<S>(scalars, thread::block() - jobs) }
        return;
    }
    // SAFETY: the whole block comes here.
    unsafe { Warp::<M, S, D, KV, PARTS>::new(&call, mask).run_job() }
}

/// Stores this warp's rows of a query tile without keys.
#[inline(always)]
unsafe fn store_keyless<S: Shape>(scalars: &FwdScalars, number: u32) {
    let batch_head = number / scalars.order.keyless_q_tiles;
    let q_tile = number - batch_head * scalars.order.keyless_q_tiles;
    let own_rows = const { S::TILE.q_rows() / S::TILE.warps };
    let warp = 4 * thread::warpgroup() + thread::warp();
    let first = q_tile * const { S::TILE.q_rows() } + warp * own_rows;
    let end = (first + own_rows).min(scalars.q_len);
    // SAFETY: the caller's contract; the rows are this warp's own.
    unsafe { epilogue::store_keyless(scalars, batch_head, first..end.max(first)) }
}

/// What a warp knows all along.
///
/// Of its job it knows nothing, nor its own addresses: they are computed where they are wanted,
/// from the numbers of block and thread. Kept in registers through the steps, which take nearly
/// all there are, they would be spilled.
struct Warp<'a, M, S, const D: u32, const KV: u32, const PARTS: usize> {
    call: &'a Call<'a, &'a FwdMmaParams>,
    mask: M,
    kind: PhantomData<S>,
}

/// What a pass over a job gathers for the rows of a warp.
struct Gathered<const D: u32, const PARTS: usize> {
    softmax: [OnlineSoftmax; PARTS],
    out: [Accum<D>; PARTS],
}

impl<'a, M, S, const D: u32, const KV: u32, const PARTS: usize> Warp<'a, M, S, D, KV, PARTS>
where
    M: Geometry,
    S: Shape<Values: Element>,
{
    const TWO_STAGES: bool = S::TILE.kv_stages == 2;

    #[inline(always)]
    fn new(call: &'a Call<'a, &'a FwdMmaParams>, mask: M) -> Self {
        Warp { call, mask, kind: PhantomData }
    }

    /// Rows of all the block's in front of this warp's. Neighbours are one warp's, so that no row's
    /// bits depend on more than the 64 rows around it.
    #[inline(always)]
    fn rows_before() -> u32 {
        let warpgroup = if const { S::TILE.warps == 4 } { 0 } else { thread::warpgroup() };
        (4 * warpgroup + thread::warp()) * const { WARP_ROWS * PARTS as u32 }
    }

    /// The two rows of part `part` that this thread holds, of all the block's.
    #[inline(always)]
    #[track_caller]
    fn own_rows(part: usize) -> [u32; 2] {
        let first = Self::rows_before() + WARP_ROWS * part as u32;
        frag::rows_of_warp().map(|row| first + row)
    }

    /// A part of Q in shared memory.
    #[inline(always)]
    fn q_part(smem: Smem, part: u32) -> Panels {
        let at = smem.plus(S::PLAN.q + part * const { S::TILE.q_part_bytes() });
        Panels::new(at, WARPGROUP_ROWS)
    }

    /// The block's job.
    #[inline(always)]
    fn job(&self) -> Job {
        let scalars = self.call.scalars;
        Job::of(scalars.order.nth(thread::block()), scalars, self.mask, &S::TILE)
    }

    /// A buffer of K or V in shared memory.
    #[inline(always)]
    fn buffer(&self, offset: u32, stage: u32) -> Panels {
        let at = offset + stage * const { S::TILE.k_stage_bytes() };
        Panels::new(self.call.smem.plus(at), KV)
    }

    /// Computes this warp's rows of the job.
    ///
    /// # Safety
    /// The whole block comes here.
    #[inline(always)]
    unsafe fn run_job(&self) {
        // `false`, as the compiler does not know: it would make a second copy of all that follows.
        // SAFETY: the caller's contract.
        let mut again = unsafe { warp::any(false) };
        loop {
            let mut rows = Gathered {
                softmax: [OnlineSoftmax::new(self.call.scalars.scale_log2); PARTS],
                out: from_fn(|_| Accum::zero()),
            };
            // SAFETY: the caller's contract. The vote is also behind what the last step has read.
            let any_lost = unsafe {
                self.walk(&mut rows, again);
                let lost = self.store(&mut rows, again);
                barrier::any(VERDICT, S::LAUNCH.threads, lost)
            };
            // For ptxas only a vote of the warp is the same in all its threads.
            // SAFETY: the caller's contract.
            if again || !unsafe { warp::any(any_lost) } {
                return;
            }
            count("again");
            // SAFETY: the caller's contract.
            again = unsafe { warp::any(true) };
        }
    }

    /// Goes through the job's KV tiles from the last to the first.
    #[inline(always)]
    unsafe fn walk(&self, rows_of: &mut Gathered<D, PARTS>, again: bool) {
        let job = self.job();
        let own_end = self.own_end(&job);
        let mut follows = true;
        let mut ring = self.ring(&job);
        let mut step = job.kv_tiles;
        // SAFETY: each barrier is behind the waits for what is read after it, and behind what was
        // read of the buffers that are filled after it.
        unsafe {
            self.load_q(&job);
            ring.load_last_k();
            if Self::TWO_STAGES {
                ring.load_last_v();
            }
            copy::commit();
            while step > 0 {
                step -= 1;
                copy::wait::<0>();
                barrier::sync_all();
                if !Self::TWO_STAGES {
                    if step + 1 == job.kv_tiles {
                        ring.load_last_v();
                    } else {
                        ring.load_v();
                    }
                } else if step > 0 {
                    ring.load_k();
                    ring.load_v();
                }
                copy::commit();
                let sees = step < own_end;
                let mut scores = from_fn(|_| Accum::zero());
                if sees {
                    self.multiply_scores(&mut scores, ring.stage);
                }
                if !Self::TWO_STAGES {
                    copy::wait::<0>();
                    barrier::sync_all();
                    if step > 0 {
                        ring.load_k();
                    }
                    copy::commit();
                }
                if sees {
                    if follows {
                        follows = self.follow_maxima(rows_of, &mut scores, step, again);
                    } else {
                        Self::keep_anchors(rows_of, &mut scores);
                    }
                    self.multiply_out(&mut rows_of.out, &scores, ring.stage);
                }
                ring.advance();
            }
        }
    }

    /// The warp's first row of a job.
    #[inline(always)]
    fn first_row(job: &Job) -> u32 {
        job.first_row + Self::rows_before()
    }

    /// Which KV tiles the warp's rows see.
    #[inline(always)]
    fn segments(&self, job: &Job) -> Segments {
        let rows = const { WARP_ROWS * PARTS as u32 };
        self.mask.segments(jobs::rows(Self::first_row(job), rows, self.call.scalars.q_len), KV)
    }

    /// End of the KV tiles that the warp's rows need: none if all are padding.
    #[inline(always)]
    fn own_end(&self, job: &Job) -> u32 {
        if !M::ROWS_DIFFER {
            u32::MAX
        } else if Self::first_row(job) < self.call.scalars.q_len {
            self.segments(job).end
        } else {
            0
        }
    }

    /// The buffers of K and V, before the job's last tile is loaded.
    #[inline(always)]
    fn ring(&self, job: &Job) -> Ring<S, D, KV> {
        let FwdMmaParams { k, v, .. } = self.call.inputs;
        let scalars = self.call.scalars;
        let last = (job.kv_tiles - 1) * KV;
        let rows = |source, tensor| {
            let head = job.kv_batch_and_head(scalars, tensor);
            rows_of_head(source, head, scalars.head_dim, last)
        };
        let there = scalars.kv_len - last;
        let (smem, k, v) = (self.call.smem, rows(k, Kv::K), rows(v, Kv::V));
        Ring { smem, k, v, there, stage: 0, kind: PhantomData }
    }

    /// Starts copying the job's Q.
    #[inline(always)]
    unsafe fn load_q(&self, job: &Job) {
        let scalars = self.call.scalars;
        let head = job.batch_and_head(scalars);
        let mut part = 0;
        while part < const { S::TILE.q_parts } {
            let first = job.first_row + part * WARPGROUP_ROWS;
            let rows = rows_of_head(&self.call.inputs.q, head, scalars.head_dim, first);
            let there = scalars.q_len.saturating_sub(first);
            let to = Self::q_part(self.call.smem, part);
            // SAFETY: the caller's barriers; the tensor has the rows that are said to be there.
            unsafe { to.copy::<WARPGROUP_ROWS, D>(rows, there, S::LAUNCH.threads) }
            part += 1;
        }
    }

    /// From scores to probabilities relative to the maxima; what was gathered shrinks. Returns
    /// whether the next tile must follow them as well.
    #[inline(always)]
    unsafe fn follow_maxima(
        &self,
        rows_of: &mut Gathered<D, PARTS>,
        scores: &mut [Accum<KV>; PARTS],
        step: u32,
        again: bool,
    ) -> bool {
        count("followed");
        let job = self.job();
        let segments = self.segments(&job);
        let mut part = 0;
        while part < PARTS {
            let (scores, softmax) = (&mut scores[part], &mut rows_of.softmax[part]);
            if step >= segments.full_end {
                let start = (step * KV) as i32;
                let own = Self::own_rows(part).map(|row| job.first_row + row);
                scores.mask_from(own.map(|row| self.mask.keys(row).end as i32 - start));
            }
            let rescale = softmax.follow_max::<S::Scores, S::Values, KV>(scores);
            rows_of.out[part].scale_rows(rescale);
            if again {
                softmax.take_apart::<S::Scores, S::Values, KV>(scores);
            } else if step >= segments.anchored {
                softmax.lose_far();
            }
            softmax.add(softmax.exponentiate(scores));
            part += 1;
        }
        let settling = constant("SETTLING_TILES", SETTLING_TILES);
        let young = segments.anchored.min(segments.end - 1).saturating_sub(settling);
        // SAFETY: the caller's contract.
        again || step > young || unsafe { Self::any_unsettled(rows_of) }
    }

    /// From scores to probabilities with the anchors as they are, unless they are outgrown.
    #[inline(always)]
    unsafe fn keep_anchors(rows_of: &mut Gathered<D, PARTS>, scores: &mut [Accum<KV>; PARTS]) {
        count("kept");
        let mut part = 0;
        while part < PARTS {
            let (scores, softmax) = (&mut scores[part], &mut rows_of.softmax[part]);
            let mut sum = softmax.exponentiate(scores);
            // SAFETY: the whole warp is here.
            unsafe {
                if softmax.outgrown::<S::Values>(sum) {
                    count("moved");
                    let rescale = softmax.move_anchor::<S::Values, KV>(scores, sum);
                    sum = [sum[0] * rescale[0], sum[1] * rescale[1]];
                    scores.scale_rows(rescale);
                    rows_of.out[part].scale_rows(rescale);
                }
            }
            softmax.add(sum);
            part += 1;
        }
    }

    /// Whether some row of the warp has not settled.
    #[inline(always)]
    unsafe fn any_unsettled(rows_of: &Gathered<D, PARTS>) -> bool {
        let mut settled = true;
        let mut part = 0;
        while part < PARTS {
            settled &= rows_of.softmax[part].is_settled::<S::Values>();
            part += 1;
        }
        // SAFETY: the whole warp is here.
        unsafe { warp::any(!settled) }
    }

    /// Stores the finished rows, in a second pass those that were lost alone. Returns whether this
    /// thread holds one that is lost now.
    #[inline(always)]
    unsafe fn store(&self, rows_of: &mut Gathered<D, PARTS>, again: bool) -> bool {
        let job = &self.job();
        let mut any_lost = false;
        let mut part = 0;
        while part < PARTS {
            let (softmax, out) = (&rows_of.softmax[part], &mut rows_of.out[part]);
            let rows = Self::own_rows(part).map(|row| job.first_row + row);
            let inside = epilogue::inside(self.call.scalars, rows);
            // SAFETY: the caller's contract; the rows are this warp's own.
            unsafe {
                if again {
                    let finished = softmax.finish::<S::Values, false>();
                    let lost = epilogue::lost_rows::<S::Values>(self.call, job, rows);
                    epilogue::store::<S, D>(self.call, job, rows, out, &finished, lost);
                } else {
                    let finished = softmax.finish::<S::Values, true>();
                    let first = out.first_is_nan();
                    let lost = |half: usize| finished.factor[half].is_nan() || first[half];
                    any_lost |= inside[0] && lost(0) || inside[1] && lost(1);
                    epilogue::store::<S, D>(self.call, job, rows, out, &finished, inside);
                }
            }
            part += 1;
        }
        any_lost
    }
}
