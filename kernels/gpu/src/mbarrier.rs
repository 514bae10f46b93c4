//! Barriers in shared memory that count arrivals and bytes (PTX ISA, "mbarrier").

use crate::{imp, smem::Smem};

/// Makes 8 bytes at `bar` a barrier whose phase completes after `arrivals` arrivals.
///
/// # Safety
/// `bar` is 8-byte aligned, inside the CTA's shared memory and used for nothing else; one thread
/// calls it, before [`fence_init`].
#[inline(always)]
#[track_caller]
pub unsafe fn init(bar: Smem, arrivals: u32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::mbarrier_init(bar.0, arrivals) }
}

/// Gives the barrier at `bar` a name for the emulator's reports: `family[index]`. Nothing on the
/// GPU.
#[inline(always)]
pub fn name(bar: Smem, family: &'static str, index: u32) {
    imp::mbarrier_name(bar.0, family, index)
}

/// Makes this thread's [`init`]s visible to the copy engine; a block barrier must follow before
/// other threads use them.
///
/// # Safety
/// Called by the thread that initialised the barriers.
#[inline(always)]
#[track_caller]
pub unsafe fn fence_init() {
    // SAFETY: a fence has no operands; its place is the caller's contract.
    unsafe { imp::mbarrier_fence_init() }
}

/// One arrival.
///
/// # Safety
/// `bar` is initialised, and the phase still waits for this arrival.
#[inline(always)]
#[track_caller]
pub unsafe fn arrive(bar: Smem) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::mbarrier_arrive(bar.0) }
}

/// One arrival that also makes the phase wait for `bytes` bytes of bulk copies.
///
/// # Safety
/// As [`arrive`]; copies of exactly `bytes` bytes are issued on `bar` in this phase.
#[inline(always)]
#[track_caller]
pub unsafe fn arrive_expect(bar: Smem, bytes: u32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::mbarrier_arrive_expect(bar.0, bytes) }
}

/// Waits until the phase with this parity has completed.
///
/// # Safety
/// `bar` was initialised before the CTA's last [`crate::barrier::sync_all`], and no phase with the
/// same parity can complete twice before this thread calls again (the ring guarantees it: a
/// producer is never more than the ring's length ahead).
#[inline(always)]
#[track_caller]
pub unsafe fn wait(bar: Smem, parity: u32) {
    // SAFETY: the caller's contract is the instruction's.
    while !unsafe { imp::mbarrier_try_wait(bar.0, parity) } {}
}

/// Whether the phase with this parity has completed, without waiting: asked early, the answer is
/// there when it is needed, and [`wait`] can be left out.
///
/// # Safety
/// As [`wait`].
#[inline(always)]
#[track_caller]
pub unsafe fn is_complete(bar: Smem, parity: u32) -> bool {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::mbarrier_test_wait(bar.0, parity) }
}
