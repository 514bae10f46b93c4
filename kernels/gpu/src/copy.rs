//! Copies from global to shared memory that run on behind the thread that starts them
//! (PTX `cp.async`).
//!
//! Each thread closes its copies into groups of its own, and waits for these. What they bring is
//! then there for that thread; others see it after a barrier that both have come to.

use crate::{imp, smem::Smem};

/// Starts copying 16 bytes; of a source of 0 bytes nothing is read, and zeros are written.
///
/// # Safety
/// Both addresses are multiples of 16; `from` is global memory that nobody writes during the
/// launch, or `bytes`, which is 0 or 16, is 0. Nobody reads or writes the 16 bytes at `to` until
/// this thread has waited for the group and a barrier has passed, nor has anyone still to read them
/// when this is called.
#[inline(always)]
#[track_caller]
pub unsafe fn start_16(to: Smem, from: u64, bytes: u32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::copy_16(to.0, from, bytes) }
}

/// Closes the group of the copies that this thread has started since the last one; it may be empty.
#[inline(always)]
#[track_caller]
pub fn commit() {
    imp::copy_commit()
}

/// Waits until all but the last `PENDING` groups of this thread are complete.
#[inline(always)]
#[track_caller]
pub fn wait<const PENDING: u32>() {
    imp::copy_wait::<PENDING>()
}
