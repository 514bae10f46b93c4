//! Who am I: thread, warp, block and grid.

use crate::imp;

/// Index of the thread in its block.
#[inline(always)]
pub fn index() -> u32 {
    imp::thread_index()
}

/// Index of the thread's warpgroup in its block, the same register for the whole warp.
///
/// Read through a shuffle, because ptxas serialises every `wgmma` behind a branch that it cannot
/// prove uniform (note C7520).
#[inline(always)]
#[track_caller]
pub fn warpgroup() -> u32 {
    imp::broadcast_first(imp::thread_index() / 128)
}

/// Whether this is the first lane of its warp.
#[inline(always)]
pub fn is_warp_leader() -> bool {
    imp::thread_index().is_multiple_of(32)
}

/// Index of the block in its one-dimensional grid.
#[inline(always)]
pub fn block() -> u32 {
    imp::block_index()
}

/// Blocks of the one-dimensional grid.
#[inline(always)]
pub fn block_count() -> u32 {
    imp::grid_size()
}

/// Number of this thread's warpgroup, put together by ballots.
#[inline(always)]
#[track_caller]
pub fn uniform_warpgroup() -> u32 {
    let bit = |bit: u32| imp::ballot(imp::thread_index() >> (7 + bit) & 1 != 0) & 1;
    bit(0) + 2 * bit(1)
}
