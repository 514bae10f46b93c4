//! Fences between the ways to shared memory (PTX ISA, "Async proxy").

use crate::imp;

/// Makes the stores to shared memory that this thread knows of visible to the copy engine and the
/// tensor core.
///
/// # Safety
/// A barrier follows before another thread has an engine read what was stored.
#[inline(always)]
#[track_caller]
pub unsafe fn proxy_async() {
    // SAFETY: a fence has no operands; its place is the caller's contract.
    unsafe { imp::fence_proxy_async() }
}
