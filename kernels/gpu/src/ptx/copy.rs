//! The copy engine, and copies of threads.

use crate::tma::Keep;
use core::arch::asm;

#[inline(always)]
pub unsafe fn tma_prefetch(map: u64) {
    unsafe { asm!("prefetch.tensormap [{0}];", in(reg64) map, options(nostack)) }
}

/// The policy as `createpolicy.fractional` would encode it for all of the accesses: constants of
/// the chip, the same in CUTLASS's `TMA::CacheHintSm90`.
const fn policy(keep: Keep) -> u64 {
    match keep {
        Keep::Short => 0x12f0_0000_0000_0000,
        Keep::Long => 0x14f0_0000_0000_0000,
    }
}

#[inline(always)]
pub unsafe fn tma_load_4d(to: u32, map: u64, bar: u32, at: [u32; 4], keep: Keep) {
    let keep = policy(keep);
    unsafe {
        asm!(
            "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes\
             .L2::cache_hint \
             [{to}], [{map}, {{{x}, {y}, {z}, {w}}}], [{bar}], {keep};",
            to = in(reg32) to, map = in(reg64) map, bar = in(reg32) bar,
            x = in(reg32) at[0], y = in(reg32) at[1], z = in(reg32) at[2], w = in(reg32) at[3],
            keep = in(reg64) keep, options(nostack),
        );
    }
}

#[inline(always)]
pub unsafe fn tma_store_4d(map: u64, from: u32, at: [u32; 4]) {
    unsafe {
        asm!(
            "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group \
             [{map}, {{{x}, {y}, {z}, {w}}}], [{from}];",
            map = in(reg64) map, from = in(reg32) from,
            x = in(reg32) at[0], y = in(reg32) at[1], z = in(reg32) at[2], w = in(reg32) at[3],
            options(nostack),
        );
    }
}

#[inline(always)]
pub unsafe fn tma_store_commit() {
    unsafe { asm!("cp.async.bulk.commit_group;", options(nostack)) }
}

#[inline(always)]
pub unsafe fn tma_store_wait<const PENDING: u32>() {
    unsafe { asm!("cp.async.bulk.wait_group {0};", const PENDING, options(nostack)) }
}

#[inline(always)]
pub unsafe fn tma_store_wait_read<const PENDING: u32>() {
    unsafe { asm!("cp.async.bulk.wait_group.read {0};", const PENDING, options(nostack)) }
}

#[inline(always)]
pub unsafe fn copy_16(to: u32, from: u64, bytes: u32) {
    unsafe {
        asm!("cp.async.cg.shared.global.L2::128B [{0}], [{1}], 16, {2};", in(reg32) to,
             in(reg64) from, in(reg32) bytes, options(nostack));
    }
}

#[inline(always)]
pub fn copy_commit() {
    unsafe { asm!("cp.async.commit_group;", options(nostack)) }
}

#[inline(always)]
pub fn copy_wait<const PENDING: u32>() {
    unsafe { asm!("cp.async.wait_group {0};", const PENDING, options(nostack)) }
}
