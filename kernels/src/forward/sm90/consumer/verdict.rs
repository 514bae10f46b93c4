//! The verdict on the block's jobs: has some row left the range of its types?
//!
//! Anchors stay where a row's first keys put them (see `softmax`), unless the sums of a tile say
//! otherwise. Each consumer warp knows whether it has *lost* a row to infinity nevertheless. If any
//! has, the consumers compute the block's jobs again, and that second pass loses nothing.

use super::{Consumer, Shape};
use crate::forward::sm90::VERDICT;
use fulgurite_gpu::{barrier, mbarrier, warp};

impl<T, M, S: Shape, const D: u32, const KV: u32> Consumer<'_, T, M, S, D, KV> {
    /// Whether some warp of the consumers has lost a row: those that have not arrive at a barrier,
    /// which has seen enough arrivals or not when all have come to the verdict.
    ///
    /// # Safety
    /// All consumers come here once, when they have done their jobs.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn any_lost(&self) -> bool {
        let sound = self.call.bar(S::PLAN.sound, 0);
        // SAFETY: `start` initialised the barrier for one arrival of each warp of the consumers.
        unsafe {
            if self.lost == 0 {
                self.arrive_for_warp(sound);
            }
            barrier::sync(VERDICT, const { 32 * S::TILE.consumer_warps() });
            warp::any(!mbarrier::is_complete(sound, 0))
        }
    }
}
