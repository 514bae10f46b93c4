//! What the 32 threads of a warp do together.

use crate::imp;

/// The value that the thread whose index differs in the bits of `XOR` gives.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn shuffle_xor<const XOR: u32>(value: u32) -> u32 {
    imp::shuffle_xor::<XOR>(value)
}

/// The value that the first thread of the warp gives.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn broadcast_first(value: u32) -> u32 {
    imp::broadcast_first(value)
}

/// One bit for each thread of the warp, the first thread's lowest: whether it votes `true`.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn ballot(vote: bool) -> u32 {
    imp::ballot(vote)
}

/// Whether any thread of the warp votes `true`.
///
/// # Safety
/// All threads of the warp call it.
#[inline(always)]
#[track_caller]
pub unsafe fn any(vote: bool) -> bool {
    imp::any(vote)
}
