//! Who am I: thread, warp, block and grid.

use crate::imp;

/// Index of the thread in its block.
#[inline(always)]
pub fn index() -> u32 {
    imp::thread_index()
}

/// Whether the thread is the first of its warp.
#[inline(always)]
pub fn leads_warp() -> bool {
    imp::thread_index().is_multiple_of(32)
}

/// Whether the thread is the first of its warpgroup.
#[inline(always)]
pub fn leads_warpgroup() -> bool {
    imp::thread_index().is_multiple_of(128)
}

/// Index of the thread's warpgroup in its block, at most 3: the same register for the whole warp.
///
/// Put together by ballots, which ptxas knows to be uniform: it serialises every `wgmma` behind a
/// branch that it cannot prove uniform (note C7520), and addresses that follow from this number
/// stay in uniform registers. All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub fn warpgroup() -> u32 {
    two_bits_from(7)
}

/// Index of the thread's warp in its warpgroup, as uniform as [`warpgroup`].
#[inline(always)]
#[track_caller]
pub fn warp() -> u32 {
    two_bits_from(5)
}

/// Two bits of the thread's index that all threads of a warp share.
#[inline(always)]
#[track_caller]
fn two_bits_from(first: u32) -> u32 {
    let bit = |bit: u32| imp::ballot(imp::thread_index() >> bit & 1 != 0) & 1;
    bit(first) + 2 * bit(first + 1)
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
