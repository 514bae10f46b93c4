//! How a consumer hands over: buffers from and to the producer, turns to the other consumers.

use super::{Consumer, Shape};
use crate::forward::sm90::TURN;
use fulgurite_gpu::{barrier, mbarrier, smem::Smem, thread};
use fulgurite_spec::launch::WARPGROUP_THREADS;

impl<T, M, S: Shape, const D: u32, const KV: u32> Consumer<'_, T, M, S, D, KV> {
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn wait_q(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.q_full, self.q.stage), self.q.parity) }
    }

    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn wait_k(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.k_full, self.k.stage), self.k.parity) }
    }

    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn wait_v(&self) {
        // SAFETY: `start` initialised the barrier.
        unsafe { mbarrier::wait(self.call.bar(S::PLAN.v_full, self.v.stage), self.v.parity) }
    }

    /// Whether Q is given back at once after its last product, so that the next one is on its way
    /// while this product's softmax still runs: where Q has no second buffer. At head dim 256,
    /// full, that is worth 2 to 3 %; with a second buffer (head dim 128) nothing, and the schedule
    /// of ptxas gets worse.
    const RELEASES_Q_EARLY: bool = S::TILE.q_parts == S::TILE.consumers;

    /// Gives the job's Q back, if that is done early, after the product of its last tile, 0. One
    /// predicated arrival: no branch while products are in flight.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn release_q_early(&self, tile: u32) {
        if Self::RELEASES_Q_EARLY && tile == 0 {
            // SAFETY: as `release_q`.
            unsafe { self.release_q() }
        }
    }

    /// Goes on to the next job's Q, after giving this one's back if that was not done early.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn leave_q(&mut self) {
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
    pub(super) unsafe fn release_k(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { self.arrive_for_warp(self.call.bar(S::PLAN.k_empty, self.k.stage)) }
        self.k.advance(1, S::TILE.kv_stages);
    }

    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn release_v(&mut self) {
        // SAFETY: this warp has read the buffer for the last time.
        unsafe { self.arrive_for_warp(self.call.bar(S::PLAN.v_empty, self.v.stage)) }
        self.v.advance(1, S::TILE.kv_stages);
    }

    /// Waits until the consumer before this one has issued.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn await_turn(&self) {
        // SAFETY: the two warpgroups that share the barrier each come once per phase.
        unsafe { barrier::sync(TURN + self.number, 2 * WARPGROUP_THREADS) }
    }

    /// Lets the next consumer issue.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn pass_turn(&self) {
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
    pub(super) unsafe fn arrive_for_warp(&self, bar: Smem) {
        if thread::index().is_multiple_of(32) {
            // SAFETY: the caller's contract.
            unsafe { mbarrier::arrive(bar) }
        }
    }
}
