//! Forward attention on Hopper.
//!
//! One step, for a tile of queries and one tile of keys and values:
//! `S = Q Kᵀ`, `P = 2^(S·scale − max)`, `O = O·rescale + P V`; after the last one `O / sum`.
//! As in FlashAttention-3 (Shah et al. 2024, sections 3.1 and 3.2) the producer warpgroup feeds a
//! ring of K and V through TMA, the consumer warpgroups own 64 query rows each, a step issues the
//! next tile's `Q Kᵀ` before this tile's `P V`, and consumers take turns at issuing (ping-pong),
//! so that one's softmax runs under another's products.
//!
//! The grid is persistent, and the pipeline runs on across jobs: the first `Q Kᵀ` of the next job
//! is issued together with the last `P V` of this one and computes while this one is stored.
//!
//! Roles: warpgroup 0 produces with one warp and few registers, the others consume; budgets in
//! `spec::LaunchSpec`. Barriers: [`barriers`], and the named barriers `TURN + w`: "consumer `w` may
//! issue", `SETTLED + w`: its warps vote on whether rows have settled, and `VERDICT`: all consumers
//! vote on whether rows are lost.

mod consumer;
mod producer;

use super::{
    barriers::{SETTLED, TURN, VERDICT, barriers},
    shape::{Call, Shape},
};
use crate::softmax::OnlineSoftmax;
use consumer::{Consumer, consume};
use fulgurite_gpu::{
    barrier, mbarrier,
    smem::Smem,
    thread,
    tma::{self, MapAddress},
    warp,
};
use fulgurite_spec::{Ends, FwdScalars, Geometry, QuantScalars, launch::WARPGROUP_THREADS};
use producer::produce;

/// The kernel.
///
/// # Safety
/// Launched with the shape's launch; `maps` are Q's, K's and V's as the host encodes
/// them for this tile; `scalars`, `ends` and `quant` describe the same call. `D` and `KV` are the
/// tile's `head_dim` and `kv_rows`.
#[inline(always)]
pub unsafe fn run<M: Geometry, S: Shape, const D: u32, const KV: u32>(
    maps: MapAddress,
    scalars: &FwdScalars,
    ends: Ends,
    quant: Option<&QuantScalars>,
) {
    const { assert!(S::TILE.head_dim == D && S::TILE.kv_rows == KV) };
    const { assert!(!M::FIRST || !S::SOFTMAX.parks(), "parked keys are counted from tile 0 on") };
    let call = Call { scalars, ends, quant, inputs: maps, smem: Smem::base() };
    // SAFETY: every thread of the block comes here, then takes exactly one role.
    unsafe {
        if thread::index() == 0 {
            start::<S>(&call);
        }
        barrier::sync_all();
        let warpgroup = thread::warpgroup();
        if warpgroup == 0 {
            produce::<M, S>(&call)
        } else {
            consume::<M, S, D, KV>(&call, warpgroup - 1)
        }
    }
}

/// Initialises the barriers and brings the tensor maps into the descriptor cache.
#[inline(always)]
unsafe fn start<S: Shape>(call: &Call) {
    let families = const { barriers(&S::TILE, &S::PLAN) };
    let mut family = 0;
    while family < families.len() {
        let spec = &families[family];
        let mut index = 0;
        while index < spec.count {
            let bar = call.bar(spec.offset, index);
            mbarrier::name(bar, spec.name, index);
            // SAFETY: the plan reserves these bytes; one thread runs this.
            unsafe { mbarrier::init(bar, spec.arrivals) }
            index += 1;
        }
        family += 1;
    }
    let mut consumer = 0;
    while consumer < const { S::TILE.consumers } {
        barrier::name(TURN + consumer, "turn", consumer);
        barrier::name(SETTLED + consumer, "settled", consumer);
        consumer += 1;
    }
    barrier::name(VERDICT, "verdict", 0);
    // SAFETY: this thread initialised the barriers; the maps follow each other.
    unsafe {
        mbarrier::fence_init();
        tma::prefetch(call.inputs);
        tma::prefetch(call.inputs.plus(1));
        tma::prefetch(call.inputs.plus(2));
    }
}

/// A consumer's part in what the roles agree on: rings, turns at issuing, votes. All of it is
/// called by the whole warpgroup.
impl<M: Geometry, S: Shape, const D: u32, const KV: u32> Consumer<'_, M, S, D, KV> {
    #[inline(always)]
    #[track_caller]
    unsafe fn wait_q(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.q_full, self.q.stage), self.q.parity) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn wait_k(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.k_full, self.k.stage), self.k.parity) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn wait_v(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.v_full, self.v.stage), self.v.parity) }
    }

    /// Whether Q is given back at once after its last product, so that the next one is on its way
    /// while this product's softmax still runs: where Q has no second buffer. At head dim 256,
    /// full, that is worth 2 to 3 %; with a second buffer (head dim 128) nothing, and the schedule
    /// of ptxas gets worse.
    const RELEASES_Q_EARLY: bool = S::TILE.q_parts == S::TILE.consumers;

    /// Gives the job's Q back, if that is done early, after the product of its last tile,
    /// `first_tile`. One predicated arrival: no branch while products are in flight.
    #[inline(always)]
    #[track_caller]
    unsafe fn release_q_early(&self, tile: u32, first_tile: u32) {
        if Self::RELEASES_Q_EARLY && (M::FIRST && tile == first_tile || !M::FIRST && tile == 0) {
            // SAFETY: as `release_q`.
            unsafe { self.release_q() }
        }
    }

    /// Goes on to the next job's Q, after giving this one's back if that was not done early.
    #[inline(always)]
    #[track_caller]
    unsafe fn leave_q(&mut self) {
        if !Self::RELEASES_Q_EARLY {
            // SAFETY: as `release_q`.
            unsafe { self.release_q() }
        }
        self.q.advance(S::TILE.consumers, S::TILE.q_parts);
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn release_q(&self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { self.arrive_for_warp(self.call.bar(S::PLAN.q_empty, self.q.stage)) }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn release_k(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { self.arrive_for_warp(self.call.bar(S::PLAN.k_empty, self.k.stage)) }
        self.k.advance(1, S::TILE.kv_stages);
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn release_v(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { self.arrive_for_warp(self.call.bar(S::PLAN.v_empty, self.v.stage)) }
        self.v.advance(1, S::TILE.kv_stages);
    }

    /// Waits until the consumer before this one has issued.
    #[inline(always)]
    #[track_caller]
    unsafe fn await_turn(&self) {
        // SAFETY: the two warpgroups that share the barrier each come once per phase.
        unsafe { barrier::sync(TURN + self.number, 2 * WARPGROUP_THREADS) }
    }

    /// Lets the next consumer issue.
    #[inline(always)]
    #[track_caller]
    unsafe fn pass_turn(&self) {
        let next = if self.number + 1 == S::TILE.consumers { 0 } else { self.number + 1 };
        // SAFETY: as `await_turn`.
        unsafe { barrier::arrive(TURN + next, 2 * WARPGROUP_THREADS) }
    }

    /// One arrival for the whole warp.
    ///
    /// # Safety
    /// As [`mbarrier::arrive`].
    #[inline(always)]
    #[track_caller]
    unsafe fn arrive_for_warp(&self, bar: Smem) {
        if thread::leads_warp() {
            // SAFETY: the caller's contract.
            unsafe { mbarrier::arrive(bar) }
        }
    }

    /// Whether any thread of the consumers votes `true`. All threads have the same answer, but for
    /// ptxas only a vote of the warp makes it uniform; so in `any_unsettled`.
    ///
    /// # Safety
    /// All consumers come here, at the same jobs.
    #[inline(always)]
    #[track_caller]
    unsafe fn any_of_consumers(&self, vote: bool) -> bool {
        // SAFETY: the caller's contract.
        unsafe {
            let consumers = const { 32 * S::TILE.consumer_warps() };
            warp::any(barrier::any(VERDICT, consumers, vote))
        }
    }

    /// Whether some row of this consumer has not settled.
    ///
    /// # Safety
    /// The whole warpgroup comes here at the same steps.
    #[inline(always)]
    #[track_caller]
    unsafe fn any_unsettled(&self, softmax: &OnlineSoftmax) -> bool {
        let settled = softmax.is_settled::<S::Values>();
        // SAFETY: the caller's contract.
        unsafe { warp::any(barrier::any(SETTLED + self.number, WARPGROUP_THREADS, !settled)) }
    }
}
