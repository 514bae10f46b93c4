//! Named barriers of a block (PTX `barrier.cta`, ids 0 to 15).

use crate::imp;

/// Gives barrier `id` a name for the emulator's reports: `family[index]`. Nothing on the GPU.
#[inline(always)]
pub fn name(id: u32, family: &'static str, index: u32) {
    imp::barrier_name(id, family, index)
}

/// Waits for all threads of the block (id 0).
///
/// # Safety
/// Every thread of the block calls it the same number of times.
#[inline(always)]
#[track_caller]
pub unsafe fn sync_all() {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::barrier_sync_all() }
}

/// Arrives at barrier `id` and waits until `thread_count` threads have arrived.
///
/// # Safety
/// `id < 16`; all threads of the warp call it; everyone who uses the barrier in this phase gives
/// the same `thread_count`, a multiple of 32.
#[inline(always)]
#[track_caller]
pub unsafe fn sync(id: u32, thread_count: u32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::barrier_sync(id, thread_count) }
}

/// Arrives at barrier `id` without waiting.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
#[track_caller]
pub unsafe fn arrive(id: u32, thread_count: u32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::barrier_arrive(id, thread_count) }
}

/// Arrives at barrier `id`, waits until `thread_count` threads have arrived, and returns whether
/// any of them votes `true` (PTX `barrier.cta.red.or`).
///
/// # Safety
/// As [`sync`]; all who use the barrier in this phase call this function.
#[inline(always)]
#[track_caller]
pub unsafe fn any(id: u32, thread_count: u32, vote: bool) -> bool {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::barrier_any(id, thread_count, vote) }
}
