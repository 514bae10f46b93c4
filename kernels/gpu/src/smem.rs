//! Addresses in a CTA's dynamic shared memory.

use crate::imp;

/// A byte address in shared memory: `Copy`, never dereferenced by Rust code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smem(pub u32);

impl Smem {
    /// Start of the CTA's dynamic shared memory, 1024-byte aligned.
    #[inline(always)]
    pub fn base() -> Smem {
        Smem(imp::dynamic_smem_base())
    }

    /// The address `bytes` further on.
    #[inline(always)]
    pub const fn plus(self, bytes: u32) -> Smem {
        Smem(self.0 + bytes)
    }
}

/// Writes 16 bytes.
///
/// # Safety
/// `at` is 16-byte aligned shared memory that nobody else reads or writes before a barrier; engines
/// read it only after a [`crate::fence::proxy_async`] as well.
#[inline(always)]
#[track_caller]
pub unsafe fn store_16(at: Smem, words: [u32; 4]) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::store_shared_16(at.0, words) }
}

/// Reads 16 bytes.
///
/// # Safety
/// `at` is 16-byte aligned shared memory that was written, and nobody writes before a barrier.
#[inline(always)]
#[track_caller]
pub unsafe fn load_16(at: Smem) -> [u32; 4] {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::load_shared_16(at.0) }
}

/// Reads four 8×8 matrices of 16-bit elements. Thread `8 i + r` of the warp gives the address of
/// row `r` of matrix `i`; thread `t` gets, in word `i`, the elements `2 (t % 4)` and the next of
/// row `t / 4` of matrix `i`, or with `TRANSPOSED` of its column `t / 4`.
///
/// # Safety
/// All threads of the warp call it. `row` is 16-byte aligned shared memory; all threads of the warp
/// know that it was written, and nobody writes before a barrier.
#[inline(always)]
#[track_caller]
pub unsafe fn load_matrices<const TRANSPOSED: bool>(row: Smem) -> [u32; 4] {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::load_matrices::<TRANSPOSED>(row.0) }
}

/// Writes four 8×8 matrices of 16-bit elements; who gives which address and holds which elements
/// is as in [`load_matrices`].
///
/// # Safety
/// As [`load_matrices`]; rows do not overlap, nobody else reads or writes them before a barrier,
/// engines only after a [`crate::fence::proxy_async`] as well.
#[inline(always)]
#[track_caller]
pub unsafe fn store_matrices<const TRANSPOSED: bool>(row: Smem, words: [u32; 4]) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::store_matrices::<TRANSPOSED>(row.0, words) }
}
