//! Loads from and stores to global memory.

use crate::imp;

/// Reads 16 bytes.
///
/// # Safety
/// `address` is 16-byte aligned global memory, which no other thread writes during the launch.
#[inline(always)]
#[track_caller]
pub unsafe fn load_16(address: u64) -> [u32; 4] {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::load_global_16(address) }
}

/// Reads one float.
///
/// # Safety
/// `address` is 4-byte aligned global memory that nobody writes during the launch.
#[inline(always)]
#[track_caller]
pub unsafe fn load_f32(address: u64) -> f32 {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::load_global_f32(address) }
}

/// Reads two floats.
///
/// # Safety
/// `address` is 8-byte aligned global memory that nobody writes during the launch.
#[inline(always)]
#[track_caller]
pub unsafe fn load_f32x2(address: u64) -> [f32; 2] {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::load_global_f32x2(address) }
}

/// Writes 16 bytes.
///
/// # Safety
/// `address` is 16-byte aligned global memory that this thread alone writes.
#[inline(always)]
#[track_caller]
pub unsafe fn store_16(address: u64, words: [u32; 4]) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::store_global_16(address, words) }
}

/// Writes 8 bytes.
///
/// # Safety
/// `address` is 8-byte aligned global memory that this thread alone writes.
#[inline(always)]
#[track_caller]
pub unsafe fn store_8(address: u64, words: [u32; 2]) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::store_global_8(address, words) }
}

/// Writes one float.
///
/// # Safety
/// `address` is 4-byte aligned global memory that this thread alone writes.
#[inline(always)]
#[track_caller]
pub unsafe fn store_f32(address: u64, value: f32) {
    // SAFETY: the caller's contract is the instruction's.
    unsafe { imp::store_global_f32(address, value) }
}
