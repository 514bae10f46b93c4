//! The verdict on the block's jobs: has some row left the range of its types?
//!
//! Anchors stay where a row's first keys put them (see `softmax`), unless the sums of a tile say
//! otherwise. Each consumer warp knows whether it has *lost* a row to infinity nevertheless. If any
//! has, the consumers compute the block's jobs again, and that second pass loses nothing.

use super::{Call, Shape};
use fulgurite_gpu::{barrier, smem, thread, warp};
use fulgurite_spec::tile::WARPGROUP_THREADS;

impl Call<'_> {
    /// Whether some warp of the consumers has lost a row.
    ///
    /// # Safety
    /// All consumers come here once, when they have done their jobs, and the producer's warpgroup to
    /// the same barrier; `lost` is the same for the whole warp.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn any_lost<S: Shape>(&self, lost: u32) -> bool {
        let warps = const { S::TILE.consumer_warps() };
        let own = thread::index() / 32 - WARPGROUP_THREADS / 32;
        let lane = thread::index() % 32;
        let other = if lane < warps { lane } else { 0 };
        // SAFETY: the plan reserves a word for each warp; only its first thread writes it, and all
        // read them behind the barrier.
        unsafe {
            if lane == 0 {
                smem::store_16(self.smem.plus(S::PLAN.lost_of(own)), [lost; 4]);
            }
            barrier::sync_all();
            warp::any(smem::load_16(self.smem.plus(S::PLAN.lost_of(other)))[0] != 0)
        }
    }
}
