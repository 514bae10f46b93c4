//! Votes: have a consumer's rows settled? And the verdict on the block's jobs: has some row left
//! the range of its types?
//!
//! Anchors stay where a row's first keys put them (see `softmax`), unless the sums of a tile say
//! otherwise. Each consumer warp knows whether it has *lost* a row to infinity nevertheless. If any
//! has, the consumers compute the jobs with lost rows again, and that second pass loses nothing.

use super::{Consumer, Shape};
use crate::{
    forward::sm90::{SETTLED, VERDICT},
    softmax::OnlineSoftmax,
};
use fulgurite_gpu::{barrier, element::Element, warp};
use fulgurite_spec::launch::WARPGROUP_THREADS;

impl<T: Element, M, S: Shape, const D: u32, const KV: u32> Consumer<'_, T, M, S, D, KV> {
    /// Whether some warp of the consumers has lost a row. All threads have the same answer, but
    /// for ptxas only a vote of the warp makes it uniform; so in `any_unsettled`.
    ///
    /// # Safety
    /// All consumers come here once, when they have done their jobs.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn any_lost(&self) -> bool {
        // SAFETY: the caller's contract.
        unsafe { self.any_of_consumers(self.lost != 0) }
    }

    /// Whether any thread of the consumers votes `true`.
    ///
    /// # Safety
    /// All consumers come here, at the same jobs.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn any_of_consumers(&self, vote: bool) -> bool {
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
    pub(super) unsafe fn any_unsettled(&self, softmax: &OnlineSoftmax) -> bool {
        let settled = softmax.is_settled::<T>();
        // SAFETY: the caller's contract.
        unsafe { warp::any(barrier::any(SETTLED + self.number, WARPGROUP_THREADS, !settled)) }
    }
}
